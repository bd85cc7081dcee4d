"""Collects `Statistics`: a listener. Bounded memory: it does not grow with the number of events.

It costs a sort of each batch's times, some operations for each batch, and a `repr` for each event
that is among the slowest so far.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Sequence
from typing import Final, NamedTuple

from evproc.event import describe_event, shortened
from evproc_pool.observe.histogram import Histogram
from evproc_pool.observe.notifications import (
    Accepted,
    CascadesDone,
    Dispatched,
    EventFailed,
    EventRetried,
    EventsDone,
    EventsUnmatched,
    Notification,
    Same,
    WorkerLost,
    WorkerReady,
    WorkerReplaced,
    WorkersEnded,
    WorkerStarted,
)
from evproc_pool.observe.statistics import (
    BatchStatistics,
    HandlerStatistics,
    SlowEvent,
    Statistics,
    WorkerState,
    WorkerStatistics,
)

_MOST_SLOW: Final = 20
_LONGEST_EVENT: Final = 120
# Places of lost workers that were not taken.
_MOST_VACANT: Final = 64


class WorkerView(NamedTuple):
    """What a worker does now."""

    worker: int
    pid: int | None
    state: WorkerState
    event: str | None
    handler: str | None
    seconds: float  # see `WorkerStatistics`
    memory_bytes: int


class _Worker:
    """What is collected of a worker."""

    def __init__(self, started: float, restarts: int) -> None:
        self.started = started
        self.restarts = restarts
        self.ready: float | None = None
        self.busy = 0.0
        self.events = 0

    def shares(self, now: float, running: float) -> tuple[float, float, float]:
        """The shares of time at work, waiting and starting; `running`: in its current event."""
        life = max(now - self.started, 1e-9)
        starting = min(life, (now if self.ready is None else self.ready) - self.started)
        working = min(life - starting, self.busy + running)
        return working / life, (life - starting - working) / life, starting / life


class Collector:
    """The listener. Any thread may take a `snapshot`."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._accepted = self._done = self._failed = self._stopped = self._dropped = 0
        self._events = self._retried = self._lost = self._unmatched = 0
        self._batches = Histogram()
        self._handlers: dict[str, Histogram] = {}
        self._errors: dict[str, int] = {}
        self._slow: list[tuple[float, int, SlowEvent]] = []  # a heap, the quickest first
        self._ids = itertools.count()  # no two entries of the heap are equal
        self._workers: dict[int, _Worker] = {}
        self._vacant: list[int] = []  # the restarts of the places of workers that are gone

    def adopt(self) -> None:
        """Begin anew in a process that was forked: other threads are gone."""
        self._lock = threading.RLock()

    def __call__(self, item: Notification) -> None:
        """Take in a notification."""
        if isinstance(item, EventsDone):
            slow = self._slow_ones(item)  # without the lock: it calls code of the user
            with self._lock:
                self._events_done(item)
                for each in slow:
                    self._note_slow(each)
            return
        with self._lock:
            match item:
                case Dispatched():
                    self._batches.add((item.events,))
                case Accepted():
                    self._accepted += item.roots
                case CascadesDone():
                    self._done += item.cascades
                    self._failed += item.failed
                    self._stopped += item.values
                    self._dropped += item.dropped
                case EventFailed():
                    self._note_error(item.handler)
                case EventRetried():
                    self._retried += 1
                    self._note_error(item.handler)
                case EventsUnmatched():
                    self._unmatched += item.events
                case _:
                    self._of_worker(item)

    # --- events ---

    def _events_done(self, item: EventsDone) -> None:
        self._events += len(item.seconds)
        worker = self._workers.get(item.worker)
        if worker is not None:
            worker.events += len(item.seconds)
            worker.busy += item.seconds.span
        for name, seconds in item.by_handler():
            self._histogram(name).add(seconds)

    def _histogram(self, name: str) -> Histogram:
        histogram = self._handlers.get(name)
        if histogram is None:
            histogram = self._handlers[name] = Histogram()
        return histogram

    def _slow_ones(self, item: EventsDone) -> list[SlowEvent]:
        """The slowest events of a batch that are slower than those before."""
        least = self._slow[0][0] if len(self._slow) == _MOST_SLOW else 0.0
        found = item.seconds.above(least)
        if not found:  # as is usual
            return []
        return [
            SlowEvent(
                seconds,
                shortened(describe_event(item.events[place]), _LONGEST_EVENT),
                _slowest_handler(item, place),
                item.paths[place],
            )
            for seconds, place in heapq.nlargest(_MOST_SLOW, found)
        ]

    def _note_lost(self, item: WorkerLost, event: str) -> None:
        """Note the event of a dead worker. All of its time counts as that of its last handler."""
        self._lost += 1
        if item.handler is not None:
            self._histogram(item.handler).add((item.seconds,))
        slow = SlowEvent(
            item.seconds, shortened(event, _LONGEST_EVENT), item.handler or "", item.path
        )
        self._note_slow(slow)

    def _note_slow(self, slow: SlowEvent) -> None:
        entry = (slow.seconds, -next(self._ids), slow)
        if len(self._slow) < _MOST_SLOW:
            heapq.heappush(self._slow, entry)
        else:
            heapq.heappushpop(self._slow, entry)

    def _note_error(self, handler: str | None) -> None:
        if handler is not None:
            self._errors[handler] = self._errors.get(handler, 0) + 1

    # --- workers ---

    def _of_worker(self, item: Notification) -> None:
        match item:
            case WorkerStarted():
                restarts = self._vacant.pop() if self._vacant else 0
                self._workers[item.worker] = _Worker(item.at, restarts)
            case WorkerReady() if item.worker in self._workers:
                self._workers[item.worker].ready = item.at
            case WorkerLost():
                if item.event is not None:
                    self._note_lost(item, item.event)
                self._leave_place(item.worker)
            case WorkerReplaced():
                self._leave_place(item.worker)
                newest = self._workers.get(max(self._workers, default=0))
                if newest is not None and not newest.restarts and self._vacant:
                    newest.restarts = self._vacant.pop()  # it was started before
            case WorkersEnded():
                self._done += item.dropped
                self._dropped += item.dropped
                self._workers.clear()
                self._vacant.clear()

    def _leave_place(self, worker: int) -> None:
        gone = self._workers.pop(worker, None)
        if gone is not None:
            self._vacant = [*self._vacant[1 - _MOST_VACANT :], gone.restarts + 1]

    # --- the snapshot ---

    def snapshot(
        self, pending: int, in_flight: int, views: Sequence[WorkerView], now: float
    ) -> Statistics:
        """Return what is collected, with what the pool does now; `now`: by the pool's clock."""
        with self._lock:
            slowest = sorted(self._slow, reverse=True)
            return Statistics(
                True,
                self._accepted,
                self._done,
                self._failed,
                self._stopped,
                self._dropped,
                self._events,
                pending,
                in_flight,
                self._retried,
                self._lost,
                self._unmatched,
                self._handler_statistics(),
                tuple([self._worker_statistics(view, now) for view in views]),
                BatchStatistics(
                    self._batches.count,
                    self._batches.mean,
                    self._batches.quantile(0.5),
                    int(self._batches.most),
                ),
                tuple([slow for _, _, slow in slowest]),
            )

    def _handler_statistics(self) -> tuple[HandlerStatistics, ...]:
        found = []
        for name in self._handlers.keys() | self._errors.keys():
            times = self._handlers.get(name) or Histogram()
            p50, p95 = times.quantile(0.5), times.quantile(0.95)
            errors = self._errors.get(name, 0)
            numbers = (times.count, errors, times.total, times.mean, p50, p95, times.most)
            found.append(HandlerStatistics(name, *numbers))
        return tuple(sorted(found, key=lambda each: (-each.total, each.name)))

    def _worker_statistics(self, view: WorkerView, now: float) -> WorkerStatistics:
        collected = self._workers.get(view.worker)
        if collected is None:
            return of_view(view)
        return WorkerStatistics(
            *view[:6],
            *collected.shares(now, view.seconds),
            view.memory_bytes,
            collected.events,
            collected.restarts,
        )


def of_view(view: WorkerView) -> WorkerStatistics:
    """The statistics of a worker of which nothing is collected."""
    return WorkerStatistics(*view[:6], 0.0, 0.0, 0.0, view.memory_bytes, 0, 0)


def uncollected(pending: int, in_flight: int, views: Sequence[WorkerView]) -> Statistics:
    """The statistics of a pool that collects none."""
    workers = tuple(map(of_view, views))
    none = BatchStatistics(0, 0.0, 0.0, 0)
    return Statistics(False, 0, 0, 0, 0, 0, 0, pending, in_flight, 0, 0, 0, (), workers, none, ())


def _slowest_handler(item: EventsDone, place: int) -> str:
    """The slowest handler of an event; the last one if nobody knows; empty if none ran."""
    names, flat = item.handlers[place], item.handler_seconds
    if len(names) < 2 or flat is None:
        return names[-1] if names else ""
    if isinstance(item.handlers, Same):
        begin = place * len(names)
    else:
        begin = sum(map(len, item.handlers[:place]))
    seconds = list(flat[begin : begin + len(names)])
    return names[seconds.index(max(seconds))]
