"""Where a handler came from. By itself, since `typing` takes a while to import."""

from __future__ import annotations

from typing import NamedTuple


class Origin(NamedTuple):
    """The entry point that a handler came from."""

    group: str
    distribution: str
    version: str
