"""How long a worker has been at the same event. Pure; O(1)."""

from __future__ import annotations

from collections.abc import Hashable
from math import inf
from typing import Protocol


class Position(Protocol):
    """The part of `status_words.WorkerStatus` that says where a worker is."""

    @property
    def activity(self) -> Hashable:
        """Its current activity; another value as soon as it has moved on."""

    @property
    def runs_code(self) -> bool:
        """Whether it runs an event, or works on the results of one."""


class DwellTimes:
    """Takes in the positions of workers, now and then.

    Returns lower bounds: an event began when it was first seen, or before.
    """

    def __init__(self) -> None:
        self._since: dict[int, tuple[float, Hashable]] = {}

    def note(self, worker: int, at: Position, now: float) -> float:
        """Return for how many seconds at least a worker has been where it is."""
        seen = self._since.get(worker)
        if not at.runs_code or seen is None or seen[1] != at.activity:
            seen = self._since[worker] = now, at.activity
        return now - seen[0]

    def known(self, worker: int, at: Position, now: float) -> float:
        """Return the same for a worker that is seen no more; inf if it was not seen there."""
        seen = self._since.get(worker)
        return now - seen[0] if seen is not None and seen[1] == at.activity else inf

    def forget(self, worker: int) -> None:
        """Forget a worker that is idle or gone."""
        self._since.pop(worker, None)

    def clear(self) -> None:
        """Forget all workers."""
        self._since.clear()
