"""When an event runs too long, or its worker grows too large. Pure; O(1) for each look."""

from __future__ import annotations

from math import inf
from typing import Final, NamedTuple

from evproc_pool.core.dwell_time import DwellTimes
from evproc_pool.core.supervisor_inputs import Kill, Seen, Strike

# A worker with this many times its memory limit is killed in the middle of an event.
_FAR_BEYOND: Final = 1.5

# The coordinator looks this often within a timeout, and at least once in so many seconds.
_LOOKS: Final = 10
MOST_LOOK_SECONDS: Final = 0.25
_MEMORY_LOOK_SECONDS: Final = 0.05


class EventLimits(NamedTuple):
    """The limits of one event; None: there is none.

    Attributes:
        event_timeout: Seconds until its worker is killed.
        event_soft_timeout: Seconds until the handler is warned.
        max_memory_bytes: Resident memory of a worker.
    """

    event_timeout: float | None = None
    event_soft_timeout: float | None = None
    max_memory_bytes: int | None = None


class _Strike:
    """A handler was warned that its event takes too long.

    Attributes:
        activity: Its event.
        since: When it was warned first.
        then: When to warn it again, if it did not notice.
    """

    __slots__ = ("activity", "since", "then")

    def __init__(self, activity: object, now: float, then: float) -> None:
        self.activity = activity
        self.since = now
        self.then = then


class EventWatch:
    """Watches the events that workers are at.

    Args:
        limits: The limits.

    Attributes:
        look_seconds: How often to look.
    """

    def __init__(self, limits: EventLimits) -> None:
        self._limits = limits
        self.look_seconds = MOST_LOOK_SECONDS
        for timeout in (limits.event_timeout, limits.event_soft_timeout):
            if timeout is not None:
                self.look_seconds = min(self.look_seconds, timeout / _LOOKS)
        if limits.max_memory_bytes is not None:
            self.look_seconds = min(self.look_seconds, _MEMORY_LOOK_SECONDS)
        self._dwell_times = DwellTimes()
        self._strikes: dict[int, _Strike] = {}

    @property
    def needs_memory(self) -> bool:
        """Whether each look needs the memory of the workers."""
        return self._limits.max_memory_bytes is not None

    def look(
        self, worker: int, at: Seen | None, memory_bytes: int, now: float
    ) -> list[Strike | Kill]:
        """Decide on one worker.

        Args:
            worker: The worker.
            at: Where it is; None: it is idle, or that is not known.
            memory_bytes: Its resident memory; 0 if that is not known.
            now: Monotonic seconds.
        """
        if at is None or at.is_between:
            self._dwell_times.forget(worker)
            return []
        seconds = self._dwell_times.note(worker, at, now)
        most_bytes = self._limits.max_memory_bytes
        is_large = most_bytes is not None and memory_bytes >= _FAR_BEYOND * most_bytes
        effects: list[Strike | Kill] = []
        is_just_struck = self._strike(worker, at, seconds, now, effects)
        timeout = inf if self._limits.event_timeout is None else self._limits.event_timeout
        # the results of a few events are pickled together, and may take as long as these may
        is_late = seconds >= timeout * max(1, at.packing) and not is_just_struck
        if is_large and not at.is_over:
            effects.append(Kill(worker, memory_bytes))
        elif is_late:
            effects.append(Kill(worker))
        return effects

    def _strike(
        self, worker: int, at: Seen, seconds: float, now: float, effects: list[Strike | Kill]
    ) -> bool:
        """Warn a handler; say whether that was just now.

        A handler has a moment to react, even if nobody looked until its hard timeout.
        """
        soft = self._limits.event_soft_timeout
        if soft is None or seconds < soft or at.is_over or at.handler is None:
            return False
        strike = self._strikes.get(worker)
        if strike is None or strike.activity != at.activity:
            strike = _Strike(at.activity, now, now + self.look_seconds)
            self._strikes[worker] = strike
            effects.append(Strike(worker, is_again=False))
        elif now >= strike.then:
            # less and less often: it may be in a call that no signal interrupts
            strike.then = now + 2 * (now - strike.since)
            effects.append(Strike(worker, is_again=True))
        return now - strike.since < self.look_seconds

    def since(self, worker: int, at: Seen, now: float) -> float:
        """When a worker was first seen where it is; -inf if it was not seen there."""
        return now - self._dwell_times.known(worker, at, now)

    def forget(self, worker: int) -> None:
        """Drop all that is known of a worker that is gone."""
        self._dwell_times.forget(worker)
        self._strikes.pop(worker, None)
