"""A pool in virtual time: the scheduler is real, the workers are a heap of moments.

It does what `evproc_pool.coordinator.engine` does with `process_many`: hands in as many
events as there is demand for, takes in what workers report, one batch at a time,
and asks again. Only the scheduler's own time is counted; the two looks at a clock
around each call, about 0.2 us, are in it, and weigh the more the fewer events a
call is about.
"""

from __future__ import annotations

import random
from array import array
from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from time import perf_counter
from typing import Final, NamedTuple, TypeVar

from benchmarks.model import BenchmarkError
from evproc_pool.core.batches import Batch
from evproc_pool.core.estimates import MOST_EVENTS
from evproc_pool.core.event_columns import Times
from evproc_pool.core.inputs_and_effects import (
    Accepted,
    Closed,
    Effect,
    Finished,
    Input,
    Opened,
    Progress,
    Send,
    Settled,
    Weighed,
    WorkerReady,
)
from evproc_pool.core.scheduler import Scheduler

# What an event has, in bytes: an ordinary one.
_EVENT_BYTES: Final = 100

# Likewise, the most that the engine reads at a time.
_MOST_READ: Final = 2 * MOST_EVENTS

# Batches take a little more or less than their events should: workers that are all
# done at the same moment are too orderly.
_JITTER: Final = 0.1

_RUN: Final = 0

T = TypeVar("T")


class _Plan:
    """Stands in the place of `evproc.handler.Plan`."""

    __slots__ = ()
    indices: Final = (0,)


class Simulated(NamedTuple):
    """What came of a simulation.

    Attributes:
        seconds: Real time in the scheduler.
        busy: The part of the virtual time, from the first batch to the end of the
            last, that workers were at work in, on average.
    """

    seconds: float
    busy: float


class Simulation:
    """Runs so many events of one plan through a scheduler; once.

    Args:
        workers: How many.
        service_seconds: What an event takes a worker, in virtual time.
        events: How many.
        seed: Of what is random in it.
    """

    def __init__(self, workers: int, service_seconds: float, events: int, seed: int) -> None:
        self._workers = workers
        self._service_seconds = service_seconds
        self._left = self._events = events
        self._random = random.Random(seed)
        self._scheduler = Scheduler()
        self._plan = _Plan()
        self._held: list[deque[Batch]] = [deque() for _ in range(workers)]
        # when which worker is done, how long it will have taken, and a number, so
        # that of two that are done at the same time the first to begin is the first
        self._done: list[tuple[float, int, int, float]] = []
        self._begun = 0
        self._now = 0.0
        self._busy_seconds = 0.0
        self._settled = 0
        self._finished = False
        ends = array("d", (service_seconds * number for number in range(1, MOST_EVENTS + 1)))
        self._ends = memoryview(ends)
        self._seconds = 0.0

    def run(self) -> Simulated:
        """Run it to its end.

        Raises:
            BenchmarkError: The scheduler has lost events, or stands still.
        """
        for worker in range(self._workers):
            self._step(WorkerReady(worker))
        self._step(Opened(_RUN, until_error=True))
        self._feed()
        while self._done:
            self._now, _, worker, seconds = heappop(self._done)
            batch = self._held[worker].popleft()
            if self._held[worker]:
                self._begin(worker)
            times = Times(0.0, self._ends[: batch.size])
            timings = ((self._plan.indices, batch.size, seconds),)
            self._step(Progress(worker, batch.size, times, timings=timings))
            self._feed()
            # what the engine asks before it waits
            self._timed(lambda: self._scheduler.overloaded)
        if not self._finished or self._settled != self._events:
            raise BenchmarkError(
                f"the scheduler has settled {self._settled} events of {self._events}"
            )
        busy = self._busy_seconds / (self._workers * self._now)
        return Simulated(self._seconds, busy)

    def _feed(self) -> None:
        """Hand in what there is demand for; at the end, say so."""
        if not self._left:
            return
        while count := min(self._left, self._timed(lambda: self._scheduler.demand(_RUN))):
            count = min(count, _MOST_READ)
            first = self._events - self._left
            self._left -= count
            accepted = Accepted(_RUN, first, [None] * count, [self._plan] * count)
            self._step(accepted, more=not self._left)
        if not self._left:
            self._step(Closed(_RUN))

    def _step(self, item: Input, *, more: bool = False) -> None:
        """Let the scheduler decide, and do it."""
        for effect in self._timed(lambda: self._scheduler.step(item, more=more)):
            self._perform(effect)

    def _timed(self, ask: Callable[[], T]) -> T:
        """Count the time of a call as the scheduler's."""
        begin = perf_counter()
        answer = ask()
        self._seconds += perf_counter() - begin
        return answer

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Send():
                batch = effect.batch
                held = self._held[effect.worker]
                held.append(batch)
                if len(held) == 1:
                    self._begin(effect.worker)
                self._weigh(effect)
            case Settled():
                self._settled += len(effect.times)
            case Finished():
                self._finished = True
            case _:
                raise BenchmarkError(f"nothing should have come to {effect!r}")

    def _weigh(self, effect: Send) -> None:
        """Say how many bytes a batch has that was sent."""
        weighed = Weighed(effect.worker, effect.batch, effect.batch.size * _EVENT_BYTES)
        self._timed(lambda: self._scheduler.step(weighed))

    def _begin(self, worker: int) -> None:
        """A worker begins the first batch that it holds."""
        self._push(worker, self._now, self._held[worker][0])

    def _push(self, worker: int, moment: float, batch: Batch) -> None:
        """Note when a worker that begins a batch at a moment is done with it."""
        seconds = batch.size * self._service_seconds
        seconds *= self._random.uniform(1 - _JITTER, 1 + _JITTER)
        self._busy_seconds += seconds
        self._begun += 1
        heappush(self._done, (moment + seconds, self._begun, worker, seconds))
