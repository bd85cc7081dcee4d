"""When an event runs too long, or its worker grows too large. Pure; O(1) for each look."""

from __future__ import annotations

from collections.abc import Hashable
from math import inf
from typing import Final, NamedTuple

from evproc_pool.core.supervisor_inputs import Kill, RaiseSoftTimeout, Seen

# A worker with this many times its memory limit is killed in the middle of an event.
_FAR_BEYOND: Final = 1.5

# The coordinator looks this often within a timeout, and at least once in so many seconds.
_LOOKS: Final = 10
MOST_LOOK_SECONDS: Final = 0.25
_MEMORY_LOOK_SECONDS: Final = 0.05

_Effects = list[RaiseSoftTimeout | Kill]


class EventLimits(NamedTuple):
    """The limits of one event; None: there is none."""

    event_timeout: float | None = None  # seconds until its worker is killed
    event_soft_timeout: float | None = None  # seconds until the handler is warned
    max_memory_bytes: int | None = None  # resident memory of a worker


class _Warning(NamedTuple):
    """A handler was warned that its event takes too long."""

    activity: Hashable  # its event
    since: float  # when it was warned first
    then: float  # when to warn it again, if it did not notice


class DwellTimes:
    """How long workers have been at the same event, by where they are seen now and then.

    Returns lower bounds: an event began when it was first seen, or before.
    """

    def __init__(self) -> None:
        self._since: dict[int, tuple[float, Hashable]] = {}

    def note(self, worker: int, at: Seen, now: float) -> float:
        """Return for how many seconds at least a worker has been where it is."""
        seen = self._since.get(worker)
        if not at.runs_code or seen is None or seen[1] != at.activity:
            seen = self._since[worker] = now, at.activity
        return now - seen[0]

    def known(self, worker: int, at: Seen, now: float) -> float:
        """Return the same for a worker that is seen no more; inf if it was not seen there."""
        seen = self._since.get(worker)
        return now - seen[0] if seen is not None and seen[1] == at.activity else inf

    def forget(self, worker: int) -> None:
        """Forget a worker that is idle or gone."""
        self._since.pop(worker, None)

    def clear(self) -> None:
        """Forget all workers."""
        self._since.clear()


class EventWatch:
    """Watches the events that workers are at."""

    def __init__(self, limits: EventLimits) -> None:
        self._limits = limits
        self.needs_memory = limits.max_memory_bytes is not None  # for each look
        self.look_seconds = MOST_LOOK_SECONDS  # how often to look
        for timeout in (limits.event_timeout, limits.event_soft_timeout):
            if timeout is not None:
                self.look_seconds = min(self.look_seconds, timeout / _LOOKS)
        if self.needs_memory:
            self.look_seconds = min(self.look_seconds, _MEMORY_LOOK_SECONDS)
        self._dwell_times = DwellTimes()
        self._warnings: dict[int, _Warning] = {}

    def look(self, worker: int, at: Seen | None, memory_bytes: int, now: float) -> _Effects:
        """Decide on one worker; `at` and `memory_bytes` are None and 0 if they are not known."""
        if at is None or at.is_between:
            self._dwell_times.forget(worker)
            return []
        seconds = self._dwell_times.note(worker, at, now)
        timeout, _, most_bytes = self._limits
        effects: _Effects = []
        was_just_warned = self._warn(worker, at, seconds, now, effects)
        # the results of a few events are pickled together, and may take as long as these may
        is_late = timeout is not None and seconds >= timeout * max(1, at.packing)
        is_large = most_bytes is not None and memory_bytes >= _FAR_BEYOND * most_bytes
        if is_large and not at.is_over:
            effects.append(Kill(worker, memory_bytes))
        elif is_late and not was_just_warned:
            effects.append(Kill(worker))
        return effects

    def _warn(self, worker: int, at: Seen, seconds: float, now: float, effects: _Effects) -> bool:
        """Warn a handler; say whether that was just now.

        A handler has a moment to react, even if nobody looked until its hard timeout.
        """
        soft = self._limits.event_soft_timeout
        if soft is None or seconds < soft or at.is_over or at.handler is None:
            return False
        warning = self._warnings.get(worker)
        if warning is None or warning.activity != at.activity:
            warning = self._warnings[worker] = _Warning(at.activity, now, now + self.look_seconds)
            effects.append(RaiseSoftTimeout(worker, is_again=False))
        elif now >= warning.then:
            # less and less often: it may be in a call that no signal interrupts
            self._warnings[worker] = warning._replace(then=now + 2 * (now - warning.since))
            effects.append(RaiseSoftTimeout(worker, is_again=True))
        return now - warning.since < self.look_seconds

    def since(self, worker: int, at: Seen, now: float) -> float:
        """When a worker was first seen where it is; -inf if it was not seen there."""
        return now - self._dwell_times.known(worker, at, now)

    def forget(self, worker: int) -> None:
        """Drop all that is known of a worker that is gone."""
        self._dwell_times.forget(worker)
        self._warnings.pop(worker, None)
