"""For how long a worker is known to have been at the same event. Pure; O(1)."""

from __future__ import annotations

from collections.abc import Hashable
from math import inf
from typing import Protocol


class Position(Protocol):
    """What `status_words.WorkerStatus` says of where a worker is."""

    @property
    def activity(self) -> Hashable:
        """What it is at: another one as soon as it has moved on."""

    @property
    def runs_code(self) -> bool:
        """Whether it is at it, or at what it left behind."""


class DwellTimes:
    """Takes what is seen of workers, now and then.

    An event began when it was first seen, or before that: what is told is never too
    long.
    """

    def __init__(self) -> None:
        self._since: dict[int, tuple[float, Hashable]] = {}

    def note(self, worker: int, at: Position, now: float) -> float:
        """Say for how many seconds at least a worker has been where it is."""
        seen = self._since.get(worker)
        if not at.runs_code or seen is None or seen[1] != at.activity:
            seen = self._since[worker] = now, at.activity
        return now - seen[0]

    def known(self, worker: int, at: Position, now: float) -> float:
        """For how many seconds at least a worker was where it is; inf: it was not seen there."""
        seen = self._since.get(worker)
        return now - seen[0] if seen is not None and seen[1] == at.activity else inf

    def forget(self, worker: int) -> None:
        """It is idle, or gone."""
        self._since.pop(worker, None)

    def clear(self) -> None:
        """All are."""
        self._since.clear()
