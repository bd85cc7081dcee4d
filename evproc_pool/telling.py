"""When a worker is asked to tell what is over. Pure; O(1) for each worker.

A worker tells by itself what is over when a batch is, and every `TELL_SECONDS` as long as
events are quick. So there may be something untold only where nothing was heard of it for so
long, and it is further than that. Then it is asked, once, until it is heard of again: what it
is at takes long, so it tells by itself when that is over.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from evproc_pool.estimates import TELL_SECONDS

# A frame may be on its way.
_SLACK_SECONDS: Final = 0.0005


class Telling:
    """Who was heard of when, of the workers that have several events."""

    def __init__(self) -> None:
        self._heard: dict[int, float] = {}
        self._asked: set[int] = set()

    def heard(self, worker: int, now: float) -> None:
        """A worker has sent something, or was sent something and had nothing before."""
        self._heard[worker] = now
        self._asked.discard(worker)

    def since(self, worker: int, now: float) -> float:
        """When a worker was heard of last."""
        return self._heard.get(worker, now)

    def forget(self, worker: int) -> None:
        """It is gone."""
        self._heard.pop(worker, None)
        self._asked.discard(worker)

    def silent(self, workers: Iterable[int], now: float) -> list[int]:
        """Those that may have something to tell. They are not named again until heard of.

        Args:
            workers: Those that may have finished something, see `Scheduler.tellable`.
            now: The time, in seconds.
        """
        silent = [
            worker
            for worker in workers
            if worker not in self._asked and self._left(worker, now) <= 0
        ]
        self._asked.update(silent)
        return silent

    def left(self, workers: Iterable[int], now: float) -> float | None:
        """After how many seconds to look again; None: when something is heard."""
        times = [self._left(worker, now) for worker in workers if worker not in self._asked]
        return max(0.0, min(times)) if times else None

    def _left(self, worker: int, now: float) -> float:
        return self._heard.get(worker, now) + TELL_SECONDS + _SLACK_SECONDS - now
