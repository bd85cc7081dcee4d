"""What takes a sample: makes events, lets a side process them, looks at the clock.

The garbage collector runs in a sample as it does in an application, for every side.
The sample's events are kept out of it (`gc.freeze`): there are a hundred thousand of
them at once only because the benchmark makes them beforehand.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Sized
from typing import Final

from benchmarks.model import BenchmarkError
from benchmarks.pool.handlers import RollCall
from benchmarks.pool.limits import Control
from benchmarks.pool.loads import Make
from evproc import Event

# Part of a sample's events that a side is warmed up with.
_WARM_UP: Final = 0.1


# Many workers on few cores take a while to start.
_START_SECONDS: Final = 120.0


def await_workers(run: Callable[[list[Event]], Iterable[object]], workers: int) -> None:
    """Process events until each worker of a side has had one.

    Raises:
        BenchmarkError: It takes too long.
    """
    seen: set[object] = set()
    end = time.monotonic() + _START_SECONDS
    while len(seen) < workers:
        if time.monotonic() > end:
            raise BenchmarkError(
                f"of {workers} workers only {len(seen)} have processed an event after"
                f" {_START_SECONDS:g} s"
            )
        seen.update(run([RollCall() for _ in range(2 * workers)]))


class Sample:
    """Times a side; for `benchmarks.timing.interleaved`.

    Args:
        make: Makes its events, before the time starts.
        count: How many.
        run: Processes them; gives the value of each.
        rounds: How often that is done in a sample, with new events each time.
        events_each: How many events are processed for each one handed in.

    Attributes:
        cpu_seconds: For each sample so far, the CPU time of this thread, per event.
    """

    def __init__(
        self,
        make: Make,
        count: int,
        run: Callable[[list[Event]], Sized],
        *,
        rounds: int = 1,
        events_each: int = 1,
    ) -> None:
        self._make = make
        self._count = count
        self._run = run
        self._rounds = rounds
        self._events_each = events_each
        self.cpu_seconds: list[float] = []

    def warm_up(self) -> None:
        """Process a few events, so that what is learned of a load has been learned."""
        self._measure(max(1, int(self._count * _WARM_UP)))

    def __call__(self) -> float:
        """Take a sample: seconds per event."""
        seconds = cpu = 0.0
        for _ in range(self._rounds):
            each, each_cpu = self._measure(self._count)
            seconds += each
            cpu += each_cpu
        events = self._rounds * self._count * self._events_each
        self.cpu_seconds.append(cpu / events)
        return seconds / events

    def _measure(self, count: int) -> tuple[float, float]:
        """Seconds, and CPU seconds of this thread."""
        events = self._make(count)
        gc.collect()
        gc.freeze()
        cpu = time.thread_time()
        begin = time.perf_counter()
        values = self._run(events)
        seconds = time.perf_counter() - begin
        cpu = time.thread_time() - cpu
        gc.unfreeze()
        if len(values) != len(events):
            raise BenchmarkError(f"there are {len(values)} values of {len(events)} events")
        return seconds, cpu


class ControlSample:
    """Times the control; see `Sample`."""

    def __init__(self, control: Control, make: Make, count: int, *, rounds: int = 1) -> None:
        self._control = control
        self._make = make
        self._count = count
        self._rounds = rounds

    def warm_up(self) -> None:
        """See `Sample`."""
        self._control.prepare(self._make, max(2, int(self._count * _WARM_UP)))
        self._control.run()

    def __call__(self) -> float:
        """Take a sample: seconds per event."""
        seconds = 0.0
        for _ in range(self._rounds):
            self._control.prepare(self._make, self._count)
            gc.collect()
            begin = time.perf_counter()
            self._control.run()
            seconds += time.perf_counter() - begin
        return seconds / (self._rounds * self._count)
