"""A module that cannot be imported in a worker."""

from __future__ import annotations

from tests.support.actions import in_worker

if in_worker():
    raise ImportError("not in a worker")


def handler(proc: object, ev: object) -> None:
    """Never gets there."""
