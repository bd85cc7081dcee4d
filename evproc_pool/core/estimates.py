"""What an event of a plan is expected to take, in seconds and in bytes. Pure.

Of what was usual lately, by plan, and of the mean where that tells more; from these
follows how many events go into a batch. O(1) for each question.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

from evproc_pool.core.event_columns import PlanLike

#: Work in a batch, in seconds. Long beside the cost of a batch (a hundred microseconds
#: in the coordinator, and as much in the worker, whose caches are cold each time),
#: short beside what a person or the end of a run notices.
TARGET_SECONDS: Final = 0.008

#: So long what an event has left behind may wait in the worker while somebody waits for
#: single events, in seconds.
TELL_SECONDS: Final = 0.003

#: An event that is expected to take so long gets none behind it for which somebody waits: to
#: send the next one when it is over costs little beside that, and none waits for a stranger.
LONG_SECONDS: Final = 2 * TARGET_SECONDS

#: The same where nobody waits for single events, only for all of them.
BULK_SECONDS: Final = 16 * TARGET_SECONDS

#: Values wait in the worker for at most this long, in seconds, if the caller waits only for the
#: end of the run. Follow-ups do not wait: another worker may be idle.
KEEP_SECONDS: Final = BULK_SECONDS / 4

#: A batch that takes so many times what it was meant to take is given up: the worker
#: leaves the rest to others.
OVERDUE_FACTOR: Final = 2

#: Less work than that is not worth a batch of its own, in seconds: a few times what a
#: batch costs the coordinator and the worker, which wakes up for it.
LEAST_SECONDS: Final = TARGET_SECONDS / 8

#: The most events in a batch: past it nothing is gained, and what is lost with a
#: worker, and the wait for the first result, grow.
MOST_EVENTS: Final = 2048

#: About how many bytes a batch may have, unless a single event has more.
MOST_BYTES: Final = 1 << 20

# What an event is taken to need before its plan has been timed: few at first.
_UNTIMED_SECONDS: Final = TARGET_SECONDS / 2

# Plans whose time is remembered; more than an application has.
_MOST_PLANS: Final = 4096

# no event is taken to be shorter, in seconds
_SHORTEST: Final = 1e-7

# Of so many measurements of a plan the median is taken. A worker that had to leave the
# CPU to somebody for a while, in the middle of an event, makes one that is far too long.
_MEASUREMENTS: Final = 5

# After a long event, this many events of its plan are expected to be long, too. To send them one
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
        self._wary: dict[tuple[int, ...], int] = {}  # how many more may be long

    def learn(
        self, timings: Sequence[tuple[tuple[int, ...], int, float]], times: Sequence[float]
    ) -> None:
        """Take in a worker's report; see `inputs_and_effects.Progress`."""
        for indices, events, seconds in timings:
            # of several plans it is not known whose the longest was
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

        What counts is the usual time, and not the mean: a batch of quick events among
        which there may be a slow one is to be worth its cost without the slow one, which
        has the rest of the batch given back. But where there are so many slow ones that
        most batches would be given up early, they are no larger than what, on average,
        gets done of them before.

        Args:
            indices: The plan's.
            usual: What most of them took.
            mean: What they took on average; 0: unknown.
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
        """What an event is expected to take."""
        return self._seconds.get(plan.indices, _UNTIMED_SECONDS)

    def most_seconds_of(self, plan: PlanLike) -> float:
        """Likewise where somebody waits for single events: a long time, if it may be that."""
        seconds = self.seconds_of(plan)
        return max(seconds, LONG_SECONDS) if plan.indices in self._wary else seconds

    def bytes_of(self, plan: PlanLike) -> float:
        """What an event is expected to have; 0 while that is not known."""
        return self._bytes.get(plan.indices, 0.0)

    def most_events(self, plan: PlanLike) -> int:
        """How many events a batch may have, whatever time they take; maybe 0."""
        each = self._bytes.get(plan.indices)
        return MOST_EVENTS if each is None else min(MOST_EVENTS, int(MOST_BYTES / each))

    def events_per_batch(self, plan: PlanLike | None, seconds: float = TARGET_SECONDS) -> int:
        """How many events go into a batch that is full, at least one.

        Args:
            plan: Of all of them. None: an unknown one, which gets few in any case.
            seconds: What makes it full.
        """
        if plan is None:
            return int(TARGET_SECONDS / _UNTIMED_SECONDS)
        return max(1, min(self.most_events(plan), round(seconds / self.seconds_of(plan))))


def typical(times: Sequence[float]) -> float:
    """About the median of three or more times: that of the first, a middle and the last one."""
    last = len(times) - 1
    return sorted((times[0], times[last // 2], times[last]))[1]
