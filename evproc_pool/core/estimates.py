"""The expected seconds and bytes of an event, by plan, for the size of batches. Pure.

Median of recent times; the mean if outliers dominate. O(1) for each question.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

from evproc_pool.core.event_columns import PlanLike

#: Work in a batch, in seconds. Long beside the cost of a batch (a hundred microseconds in the
#: coordinator, and as much in the worker, whose caches are cold each time). Short beside the
#: delay that a person or the end of a run notices.
TARGET_SECONDS: Final = 0.008

#: How long a worker may keep the results of an event if somebody waits for single events, in
#: seconds.
REPORT_SECONDS: Final = 0.004

#: If somebody waits for single events, none is queued behind an event of this expected length:
#: it would wait for a stranger. To send it later costs little beside such an event.
LONG_SECONDS: Final = 2 * TARGET_SECONDS

#: Work in a batch if nobody waits for single events, only for all of them, in seconds.
BULK_SECONDS: Final = 16 * TARGET_SECONDS

#: How long a worker may keep values if the caller waits only for the end of the run, in seconds.
#: Follow-ups do not wait: another worker may be idle.
KEEP_SECONDS: Final = BULK_SECONDS / 4

#: A worker gives back the rest of a batch that takes this many times its expected time.
OVERDUE_FACTOR: Final = 2

#: The least work that is worth a batch, in seconds: a few times the cost of a batch for the
#: coordinator and the worker, which wakes up for it.
LEAST_SECONDS: Final = TARGET_SECONDS / 8

#: The most events in a batch. More gain nothing, lose more with a worker, and delay the first
#: result.
MOST_EVENTS: Final = 2048

#: The most bytes of a batch, roughly, unless a single event has more.
MOST_BYTES: Final = 1 << 20

# The expected seconds of an event before its plan is timed: the first batches have few.
_UNTIMED_SECONDS: Final = TARGET_SECONDS / 2

# The most plans that are remembered; more than an application has.
_MOST_PLANS: Final = 4096

# the least expected time of an event, in seconds
_SHORTEST: Final = 1e-7

# The median of this many measurements of a plan counts. A worker that loses the CPU in the middle
# of an event measures far too long.
_MEASUREMENTS: Final = 5

# After a long event, this many events of its plan are expected to be long, too. Sending them one
# by one costs a few percent of the long event.
_WARY_EVENTS: Final = 32

# Weight of the newest number of bytes in the running mean.
_NEWEST: Final = 0.3


class Estimates:
    """Seconds and bytes per event, by the indices of a plan's handlers."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[int, ...], float] = {}
        self._measured: dict[tuple[int, ...], deque[tuple[float, float]]] = {}
        self._bytes: dict[tuple[int, ...], float] = {}
        self._wary: dict[tuple[int, ...], int] = {}  # how many more events may be long

    def learn(
        self, timings: Sequence[tuple[tuple[int, ...], int, float]], times: Sequence[float]
    ) -> None:
        """Take in a worker's report; see `inputs_and_effects.Progress`."""
        for indices, events, seconds in timings:
            # with several plans, nobody knows whose the longest was
            longest = max(times) if len(timings) == 1 < events == len(times) else seconds / events
            if longest >= LONG_SECONDS:
                self._beware(indices)
            elif indices in self._wary:
                self._wary[indices] -= events
                if self._wary[indices] <= 0:
                    del self._wary[indices]
            is_all = 2 < events == len(times)
            mean = seconds / events
            self.learn_seconds(indices, typical(times) if is_all else mean, mean)

    def learn_seconds(self, indices: tuple[int, ...], usual: float, mean: float = 0.0) -> None:
        """Take in how long events of a plan took.

        The usual time counts, not the mean. A batch of quick events, maybe with a slow one,
        should be worth its cost without the slow one, behind which the rest is given back. But
        with many slow events, most batches would be given back early. Then a batch is only as
        large as the part of it that, on average, is done before that.

        `usual` is the time of most of them, in seconds, `mean` 0 if it is unknown.
        """
        measured = self._measured.get(indices)
        if measured is None:
            if len(self._measured) >= _MOST_PLANS:
                self._measured.clear()
                self._seconds.clear()
                self._wary.clear()
            measured = self._measured[indices] = deque(maxlen=_MEASUREMENTS)
        measured.append((max(usual, _SHORTEST), mean / OVERDUE_FACTOR))
        middle = (len(measured) - 1) // 2
        self._seconds[indices] = max(
            sorted(column)[middle] for column in zip(*measured, strict=True)
        )

    def note_stuck(self, plan: PlanLike) -> None:
        """Take in that an event has run longer than expected, and still runs."""
        if self.seconds_of(plan) < LEAST_SECONDS:
            self._beware(plan.indices)

    def _beware(self, indices: tuple[int, ...]) -> None:
        """Expect the next events of a plan to be long."""
        self._wary[indices] = _WARY_EVENTS

    def learn_bytes(self, plan: PlanLike, size_bytes: float) -> None:
        """Take in how many bytes the events of a plan had, on average."""
        known = self._bytes.get(plan.indices)
        if known is None and len(self._bytes) >= _MOST_PLANS:
            self._bytes.clear()
        new = max(size_bytes, 1.0)
        self._bytes[plan.indices] = new if known is None else known + _NEWEST * (new - known)

    def seconds_of(self, plan: PlanLike) -> float:
        """The expected seconds of an event."""
        return self._seconds.get(plan.indices, _UNTIMED_SECONDS)

    def most_seconds_of(self, plan: PlanLike) -> float:
        """The same if somebody waits for single events: a long time if it may be long."""
        seconds = self.seconds_of(plan)
        return max(seconds, LONG_SECONDS) if plan.indices in self._wary else seconds

    def bytes_of(self, plan: PlanLike) -> float:
        """The expected bytes of an event; 0 while unknown."""
        return self._bytes.get(plan.indices, 0.0)

    def most_events(self, plan: PlanLike) -> int:
        """How many events a batch may have by their bytes; may be 0."""
        each = self._bytes.get(plan.indices)
        return MOST_EVENTS if each is None else min(MOST_EVENTS, int(MOST_BYTES / each))

    def events_per_batch(self, plan: PlanLike | None, seconds: float = TARGET_SECONDS) -> int:
        """How many events of a plan (None: an unknown one) fill a batch, at least one."""
        if plan is None:
            return int(TARGET_SECONDS / _UNTIMED_SECONDS)
        return max(1, min(self.most_events(plan), round(seconds / self.seconds_of(plan))))


def typical(times: Sequence[float]) -> float:
    """Approximate the median of three or more times by the first, a middle and the last one."""
    last = len(times) - 1
    return sorted((times[0], times[last // 2], times[last]))[1]
