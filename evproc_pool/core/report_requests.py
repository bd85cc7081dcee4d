"""Decides when to ask a worker for a report. Pure; O(1) for each worker.

A worker reports by itself at the end of a batch, and behind an event that ended more than
`REPORT_SECONDS` after the one before it began. So only a worker that was silent for that long can
have unreported events that wait for a slow one; then its position is read, a little before.

- It is past its first unreported event: its position is read once more, after `STILL_SECONDS`. If
  it is still there, it is asked. If it is further, its events are quick, and it is about to report
  by itself; if it has not done so after as long again, it is asked, too. If it does not answer
  (native code may keep its thread busy), it is asked again, each time after twice as long.
- It is at its first unreported event: its position is read once more, later. If it is still there,
  that event takes long, and the worker reports by itself when it is over.
- Its position is unknown, since it unpickles a batch, or has just reported this batch and is at
  the next one: its position is read again.

Rejected: ask at the first look. A report that was asked for interrupts a handler, has few events,
and soon comes the worker's own: with events of 100 us every fifth report was asked for, and the
coordinator's time was 16 us an event instead of 11.

Rejected: ask once and then wait for an answer, wherever the worker was. It may not have begun the
batch then. Its first event may be a quick one, which it does not report at once, and the second
one may take for ever.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import Final

from evproc_pool.core.estimates import REPORT_SECONDS

#: How long a worker is silent before its position is read.
SILENT_SECONDS: Final = REPORT_SECONDS - 0.0007

#: How long it stays at an event before it is asked for those before it. After twice as long a
#: worker with quick events has reported by itself, and its frame has arrived.
STILL_SECONDS: Final = 0.0006

# How long a report may take to arrive.
_ON_ITS_WAY_SECONDS: Final = 0.0005


class ReportRequests:
    """When each worker reported, and was asked since."""

    def __init__(self) -> None:
        self._heard: dict[int, float] = {}
        self._look: dict[int, float] = {}  # when to read its position, if that is another time
        self._seen: dict[int, tuple[int, float]] = {}  # its position, and since when it is there
        self._waits: dict[int, float] = {}  # how long after it was asked
        self._awaited: dict[int, float] = {}  # since when a report may be on its way

    def heard(self, worker: int, now: float) -> None:
        """Take in that a worker has sent something, or that an idle worker was sent something.

        `now` is the earliest possible time if it is unknown when that was.
        """
        self._clear(worker)
        self._heard[worker] = now

    def since(self, worker: int, now: float) -> float:
        """Return when a worker was heard last."""
        return self._heard.get(worker, now)

    def forget(self, worker: int) -> None:
        """Forget a worker that is gone."""
        self._clear(worker)
        self._heard.pop(worker, None)

    def _clear(self, worker: int) -> None:
        for each in (self._look, self._seen, self._waits, self._awaited):
            each.pop(worker, None)

    def silent(self, workers: Iterable[int], now: float) -> list[int]:
        """Return those of the `Scheduler.reportable` workers whose positions have to be read."""
        return [worker for worker in workers if self._left(worker, now) <= 0]

    def look(self, worker: int, now: float, position: int | None, done: int) -> bool:
        """Take in the position of a worker that is `silent`; return whether to ask it.

        `done`: the position of its first unreported event; `position` None: unknown.
        """
        if position is None:
            self._awaited[worker] = now
            self._seen.pop(worker, None)
            self._look[worker] = now + SILENT_SECONDS
            return False
        seen, since = self._seen.setdefault(worker, (position, now))
        if position <= done:
            look_again = since + REPORT_SECONDS + _ON_ITS_WAY_SECONDS
            self._look[worker] = inf if now >= look_again else look_again
            return False
        self._awaited[worker] = now
        look_again = since + (STILL_SECONDS if seen == position else 2 * STILL_SECONDS)
        if now < look_again and worker not in self._waits:
            self._look[worker] = min(look_again, now + STILL_SECONDS)
            return False
        wait = self._waits[worker] = 2 * self._waits.get(worker, SILENT_SECONDS / 2)
        self._look[worker] = now + wait
        return True

    def left(self, workers: Iterable[int], now: float) -> float | None:
        """Return after how many seconds to look again; None: not before something is heard."""
        left = min([self._left(worker, now) for worker in workers], default=inf)
        return None if left == inf else max(0.0, left)

    def rest(self, workers: Iterable[int], now: float) -> float | None:
        """Return for how many seconds no position has to be read and no report is expected.

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
