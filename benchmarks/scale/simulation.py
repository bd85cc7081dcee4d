"""Many workers behind one coordinator, in virtual time: the scheduler is real.

As `benchmarks.scheduler.simulation`, but the coordinator is one process that takes its time, and
what it sends or is sent is on its way for a while. While it is at something, reports of other
workers wait. Workers hold batches ahead, as many as the scheduler gives them; one that has none
left waits, and that is what is counted.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop
from typing import Final

from benchmarks.model import BenchmarkError
from benchmarks.scheduler.simulation import Simulation
from evproc_pool.core.batches import Batch
from evproc_pool.core.event_columns import Times
from evproc_pool.core.inputs_and_effects import Effect, Opened, Progress, Send, WorkerReady

# Half of the cost of an event falls to sending it, the other half to what comes back.
_HALF: Final = 0.5


class Scaled(Simulation):
    """Runs so many events through a coordinator; once.

    Args:
        workers: How many.
        service_seconds: What an event takes a worker, in virtual time.
        events: How many.
        seed: Of what is random in it.
        cost: What an event takes the coordinator, in virtual time.
        latency: How long a message is on its way, in seconds.
    """

    def __init__(
        self,
        workers: int,
        service_seconds: float,
        events: int,
        seed: int,
        *,
        cost: float,
        latency: float,
    ) -> None:
        super().__init__(workers, service_seconds, events, seed)
        self._cost = cost
        self._latency = latency
        self._arrivals: deque[tuple[float, int, float]] = deque()  # reports, in order of time
        self._came: list[deque[float]] = [deque() for _ in range(workers)]  # when batches came

    def run_all(self) -> float:
        """Run it to its end; return the share of the workers' time that they were at work in.

        Raises:
            BenchmarkError: The scheduler has lost events, or stands still.
        """
        for worker in range(self._workers):
            self._step(WorkerReady(worker))
        self._step(Opened(0, until_error=True, is_bulk=True))
        self._feed()
        while self._done or self._arrivals:
            self._deliver()
            self._turn()
        if not self._finished or self._settled != self._events:
            raise BenchmarkError(
                f"the scheduler has settled {self._settled} events of {self._events}"
            )
        return self._busy_seconds / (self._workers * self._now)

    def _deliver(self) -> None:
        """Let workers end batches until the coordinator is free, or has a report at least."""
        while self._done and (not self._arrivals or self._done[0][0] + self._latency <= self._now):
            end, _, worker, seconds = heappop(self._done)
            self._arrivals.append((end + self._latency, worker, seconds))
            self._came[worker].popleft()
            if self._came[worker]:
                self._begin_at(worker, max(end, self._came[worker][0]))

    def _turn(self) -> None:
        """Take in all reports that are there when the coordinator is free."""
        self._now = max(self._now, self._arrivals[0][0])
        while self._arrivals and self._arrivals[0][0] <= self._now:
            _, worker, seconds = self._arrivals.popleft()
            batch = self._held[worker].popleft()
            self._spend(batch)
            times = Times(0.0, self._ends[: batch.size])
            timings = ((self._plan.indices, batch.size, seconds),)
            self._step(Progress(worker, batch.size, times, timings=timings))
        self._feed()

    def _spend(self, batch: Batch) -> None:
        self._now += _HALF * self._cost * batch.size

    def _perform(self, effect: Effect) -> None:
        if not isinstance(effect, Send):
            super()._perform(effect)
            return
        worker = effect.worker
        self._spend(effect.batch)
        self._held[worker].append(effect.batch)
        self._weigh(effect)
        came = self._came[worker]
        came.append(self._now + self._latency)
        if len(came) == 1:
            self._begin_at(worker, came[0])

    def _begin_at(self, worker: int, moment: float) -> None:
        """A worker begins its next batch."""
        batch = self._held[worker][-len(self._came[worker])]
        self._push(worker, moment, batch)
