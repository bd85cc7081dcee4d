"""`Origin`, the entry point of a handler. A module of its own: `typing` takes long to import."""

from __future__ import annotations

from typing import NamedTuple


class Origin(NamedTuple):
    """The entry point that a handler was loaded from."""

    group: str
    distribution: str
    version: str
