"""Looks after workers: kills those that break limits which they cannot keep themselves.

That is one that is at an event for too long, or grows far beyond its limit in one. Before
that, a handler that takes too long is told so, where that is asked for (`soft_timeout`).
They are looked at now and then by the driver of the engine, which also remembers how
much memory they had: nobody can tell of one that is dead.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from math import inf
from typing import Any, Final

from evproc_pool.coordinator.crash_errors import Lost, timed_out, too_large, worker_lost
from evproc_pool.core.dwell_time import DwellTimes
from evproc_pool.errors import PoolError
from evproc_pool.protocol.backend import Backend, Gone
from evproc_pool.protocol.limits import Limits
from evproc_pool.protocol.status_words import NONE, WorkerStatus

# A worker that has so many times the memory that it may have is not waited for.
_FAR_BEYOND: Final = 1.5

# How often the coordinator looks at workers: so many times in the time that an event
# may take, and no more seldom than that, in seconds.
_LOOKS: Final = 10
_MOST_LOOK_SECONDS: Final = 0.25
_LARGE_LOOK_SECONDS: Final = 0.05


class _Told:
    """A worker's handler was told that its event takes too long.

    Attributes:
        event: Batch and position.
        since: When it was told first.
        then: When it is told again, if it was not reached.
    """

    __slots__ = ("event", "since", "then")

    def __init__(self, event: tuple[int, int], now: float, then: float) -> None:
        self.event = event
        self.since = now
        self.then = then


class Watch:
    """Kills workers that break limits, in the coordinator.

    Args:
        limits: Which.
        backend: Has the workers.
        clock: Says what time it is, in seconds.
    """

    def __init__(
        self, limits: Limits, backend: Backend, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limits = limits
        self._backend = backend
        self._clock = clock
        self._again = _MOST_LOOK_SECONDS
        for timeout in (limits.event_timeout, limits.event_soft_timeout):
            if timeout is not None:
                self._again = min(self._again, timeout / _LOOKS)
        if limits.max_memory_bytes is not None:
            self._again = min(self._again, _LARGE_LOOK_SECONDS)
        self._next_sample = 0.0
        self._memory_bytes: dict[int, int] = {}  # when last seen
        self._dwell_times = DwellTimes()
        self._told: dict[int, _Told] = {}
        # those that were killed: their stacks, and their memory if that was why
        self._killed: dict[int, tuple[str, int | None]] = {}

    def look(self, workers: Mapping[int, bool]) -> float | None:
        """Kill those that break a limit.

        Args:
            workers: By number whether they have something to do.

        Returns:
            When to look again, in seconds; None if there is nobody to look at.
        """
        now = self._clock()
        for worker, is_busy in workers.items():
            at = self._backend.look_at(worker) if is_busy else None
            if at is None or at.position == NONE or worker in self._killed:
                self._dwell_times.forget(worker)
            else:
                self._look_at(worker, at, now)
        if now >= self._next_sample:
            self._next_sample = now + _MOST_LOOK_SECONDS
            for worker in [each for each, is_busy in workers.items() if is_busy]:
                self._memory_bytes[worker] = self._backend.memory_bytes(worker)
        return self._again if any(workers.values()) else None

    def _look_at(self, worker: int, at: WorkerStatus, now: float) -> None:
        timeout, most = self._limits.event_timeout, self._limits.max_memory_bytes
        stay = self._dwell_times.note(worker, at, now)
        size: int | None = None
        if most is not None and not at.is_over:
            size = self._backend.memory_bytes(worker)
            if size < _FAR_BEYOND * most:
                size = None
        # what a few events left behind is pickled together, and may take as long as they may
        most_seconds = inf if timeout is None else timeout * max(1, at.packing)
        is_just_told = self._strike(worker, at, stay, now)
        if size is not None or (stay >= most_seconds and not is_just_told):
            stack = self._backend.kill_stuck(worker, at)
            if stack is not None:
                self._killed[worker] = stack, size

    def _strike(self, worker: int, at: WorkerStatus, stay: float, now: float) -> bool:
        """Tell a handler that its event takes too long; say whether that was just now.

        It is to have a moment for it also where nobody looked for long, and the event
        has had all of its time.
        """
        soft = self._limits.event_soft_timeout
        if soft is None or stay < soft or at.is_over or at.handler is None:
            return False
        told = self._told.get(worker)
        if told is None or told.event != (at.batch, at.position):
            told = _Told((at.batch, at.position), now, now + self._again)
            self._told[worker] = told
            self._backend.strike(worker, at, is_again=False)
        elif now >= told.then:
            # more and more seldom: it may be in a call that goes on whatever signal comes
            told.then = now + 2 * (now - told.since)
            self._backend.strike(worker, at, is_again=True)
        return now - told.since < self._again

    def since(self, item: Gone, now: float) -> float:
        """When a dead worker was first seen where it was; -inf: that was not seen."""
        if item.progress is None:
            return -inf
        return now - self._dwell_times.known(item.worker, item.progress, now)

    def has_killed(self, worker: int) -> bool:
        """Whether it has killed a worker that is not forgotten yet."""
        return worker in self._killed

    def error_of(self, item: Gone, event: Any, handler: str | None, attempt: int) -> PoolError:
        """What the event fails with that a dead worker was at."""
        killed = self._killed.get(item.worker)
        lost = Lost(item, event, handler, attempt, self._memory_bytes.get(item.worker) or None)
        if killed is None:
            return worker_lost(lost)
        stack, size = killed
        if size is not None:
            return too_large(lost, size, self._limits.max_memory_bytes or 0, stack)
        return timed_out(lost, self._limits.event_timeout or 0.0, stack)

    def forget(self, worker: int) -> None:
        """It is gone, and all that is to be said about it was said."""
        self._dwell_times.forget(worker)
        self._told.pop(worker, None)
        self._memory_bytes.pop(worker, None)
        self._killed.pop(worker, None)
