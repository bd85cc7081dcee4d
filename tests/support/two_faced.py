"""A module that is another one in a worker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.support.actions import in_worker


def steady(proc: object, ev: object) -> None:
    """The same everywhere."""


def changes_its_name(proc: object, ev: object) -> None:
    """Has another qualified name in a worker."""


def another(proc: object, ev: object) -> None:
    """What is found in its place."""


if in_worker():
    changes_its_name.__qualname__ = "another"


def missing_in_workers() -> Callable[..., Any]:
    """A handler that cannot be found in a worker."""
    handler: Callable[..., Any] = globals()["only_here"]
    return handler


if not in_worker():

    def only_here(proc: object, ev: object) -> None:
        """Not there in a worker."""
