"""Decides when to ask a worker for a report. Pure; O(1) for each worker.

A worker reports by itself at the end of a batch, and behind an event that ended more than
`REPORT_SECONDS` after the one before it began. So only a worker that was silent for that long can
have unreported events; then its position is read.

- It is past its first unreported event: it is asked. If it does not answer (native code may keep
  its thread busy), it is asked again, each time after twice as long.
- It is at its first unreported event: its position is read once more. If it is still there, that
  event takes long, and the worker reports by itself when it is over.
- Its position is unknown, since it unpickles a batch, or has just reported this batch and is at
  the next one: its position is read again.

Rejected: ask once and then wait for an answer, wherever the worker was. It may not have begun the
batch then. Its first event may be a quick one, which it does not report at once, and the second
one may take for ever.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import Final

from evproc_pool.core.estimates import REPORT_SECONDS

#: How long a worker is silent before its position is read; a frame may be on its way.
SILENT_SECONDS: Final = REPORT_SECONDS + 0.0005


class ReportRequests:
    """When each worker reported, and was asked since."""

    def __init__(self) -> None:
        self._heard: dict[int, float] = {}
        self._look: dict[int, float] = {}  # when to read its position, if that is another time
        self._seen: dict[int, float] = {}  # since when it is at its first unreported event
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

    def look(self, worker: int, now: float, *, is_further: bool | None) -> bool:
        """Take in the position of a worker that is `silent`; return whether to ask it.

        `is_further`: it is past its first unreported event; None: unknown.
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
            takes_long = now - since > REPORT_SECONDS
            self._look[worker] = inf if takes_long else since + SILENT_SECONDS
        return False

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
