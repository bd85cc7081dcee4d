"""When a worker is asked to tell what is over. Pure; O(1) for each worker.

A worker tells by itself what is over when a batch is, and behind an event that ended more
than `TELL_SECONDS` after the one before it began. So there may be something untold only where
nothing was heard of it for so long; then it is looked at.

- It is further than it has told: it is asked. If nothing comes of that (native code may keep
  the thread from answering), it is asked again, each time after twice as long.
- It is at the first event that it has not told: it is looked at once more. If it still is
  there then, that event takes long, and the worker tells by itself when it is over.
- Nobody knows where it is, since it unpickles a batch, or is at the next one and has told
  of this one a moment ago: it is looked at again.

Rejected: asking once and then waiting until it is heard of, wherever it was. The worker may
not have begun the batch when it is looked at; then its first event may be a quick one, which
it does not tell at once, and the second one may take for ever.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import Final

from evproc_pool.core.estimates import TELL_SECONDS

#: So long nothing is heard of a worker before it is looked at; a frame may be on its way.
SILENT_SECONDS: Final = TELL_SECONDS + 0.0005


class ReportRequests:
    """Who was heard of when, and asked since."""

    def __init__(self) -> None:
        self._heard: dict[int, float] = {}
        self._look: dict[int, float] = {}  # when to look at it, where that is another time
        self._seen: dict[int, float] = {}  # since when it is at the first event not told
        self._waits: dict[int, float] = {}  # for those that were asked: how long after that
        self._awaited: dict[int, float] = {}  # since when something may be on its way

    def heard(self, worker: int, now: float) -> None:
        """A worker has sent something, or was sent something and had nothing before.

        Args:
            worker: The worker.
            now: When it was; where that is not known, the earliest time that it can have been.
        """
        self._clear(worker)
        self._heard[worker] = now

    def since(self, worker: int, now: float) -> float:
        """When a worker was heard of last."""
        return self._heard.get(worker, now)

    def forget(self, worker: int) -> None:
        """It is gone."""
        self._clear(worker)
        self._heard.pop(worker, None)

    def _clear(self, worker: int) -> None:
        for each in (self._look, self._seen, self._waits, self._awaited):
            each.pop(worker, None)

    def silent(self, workers: Iterable[int], now: float) -> list[int]:
        """Those that are to be looked at, see `look`.

        Args:
            workers: Those that may have finished something, see `Scheduler.tellable`.
            now: The time, in seconds.
        """
        return [worker for worker in workers if self._left(worker, now) <= 0]

    def look(self, worker: int, now: float, *, is_further: bool | None) -> bool:
        """Take in where a worker is; say whether to ask it.

        Args:
            worker: One of `silent`.
            now: Likewise.
            is_further: Whether it is behind the first event that it has not told; None: nobody
                knows where it is.
        """
        if is_further or is_further is None:
            self._awaited[worker] = now
        if is_further:
            wait = self._waits[worker] = 2 * self._waits.get(worker, SILENT_SECONDS / 2)
            self._look[worker] = now + wait
            return True
        if is_further is None:
            self._seen.pop(worker, None)
            self._look[worker] = now + SILENT_SECONDS
        else:
            since = self._seen.setdefault(worker, now)
            takes_long = now - since > TELL_SECONDS
            self._look[worker] = inf if takes_long else since + SILENT_SECONDS
        return False

    def left(self, workers: Iterable[int], now: float) -> float | None:
        """After how many seconds to look again; None: when something is heard."""
        left = min([self._left(worker, now) for worker in workers], default=inf)
        return None if left == inf else max(0.0, left)

    def rest(self, workers: Iterable[int], now: float) -> float | None:
        """For how many seconds nobody need be there to look, or to take in what is on its way.

        Returns:
            None: for any time.
        """
        workers = list(workers)
        awaited = [self._awaited[worker] for worker in workers if worker in self._awaited]
        if max(awaited, default=-inf) + SILENT_SECONDS > now:
            return 0.0
        return self.left(workers, now)

    def _left(self, worker: int, now: float) -> float:
        at = self._look.get(worker)
        if at is None:
            at = self._heard.get(worker, now) + SILENT_SECONDS
        return at - now
