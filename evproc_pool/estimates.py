"""What an event of a plan is expected to take, in seconds and in bytes. Pure.

Running means of what is usual, by plan; from these follows how many events go
into a batch. O(1) for each question.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from evproc_pool.schedule import PlanLike

#: Work in a batch, in seconds. Long beside the cost of a batch (tens of
#: microseconds), short beside what a person or the end of a run notices.
TARGET_SECONDS: Final = 0.008

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

# Weight of the newest measurement in the running means.
_NEWEST: Final = 0.3


class Estimates:
    """Seconds and bytes per event, by the indices of a plan's handlers."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[int, ...], float] = {}
        self._bytes: dict[tuple[int, ...], float] = {}

    def learn(
        self, timings: Sequence[tuple[tuple[int, ...], int, float]], times: Sequence[float]
    ) -> None:
        """Take in a worker's report; see `schedule.Progress`."""
        for indices, events, seconds in timings:
            # The usual time, and not the mean: a batch of quick events among which
            # there may be a slow one is to be worth its cost without the slow one,
            # which has the rest of the batch given back.
            is_all = 2 < events == len(times)
            self.learn_seconds(indices, typical(times) if is_all else seconds / events)

    def learn_seconds(self, indices: tuple[int, ...], seconds: float) -> None:
        """Take in how long an event of a plan usually took."""
        _learn(self._seconds, indices, max(seconds, _SHORTEST))

    def learn_bytes(self, plan: PlanLike, size_bytes: float) -> None:
        """Take in how many bytes the events of a plan had, on average."""
        _learn(self._bytes, plan.indices, max(size_bytes, 1.0))

    def seconds_of(self, plan: PlanLike) -> float:
        """What an event is expected to take."""
        return self._seconds.get(plan.indices, _UNTIMED_SECONDS)

    def bytes_of(self, plan: PlanLike) -> float:
        """What an event is expected to have; 0 while that is not known."""
        return self._bytes.get(plan.indices, 0.0)

    def most_events(self, plan: PlanLike) -> int:
        """How many events a batch may have, whatever time they take; maybe 0."""
        each = self._bytes.get(plan.indices)
        return MOST_EVENTS if each is None else min(MOST_EVENTS, int(MOST_BYTES / each))

    def events_per_batch(self, plan: PlanLike | None) -> int:
        """How many events go into a full batch, at least one; None: of an unknown plan."""
        if plan is None:
            return int(TARGET_SECONDS / _UNTIMED_SECONDS)
        return max(1, min(self.most_events(plan), round(TARGET_SECONDS / self.seconds_of(plan))))


def typical(times: Sequence[float]) -> float:
    """About the median of three or more times: that of the first, a middle and the last one."""
    last = len(times) - 1
    return sorted((times[0], times[last // 2], times[last]))[1]


def _learn(means: dict[tuple[int, ...], float], key: tuple[int, ...], new: float) -> None:
    known = means.get(key)
    if known is None:
        if len(means) >= _MOST_PLANS:
            means.clear()
        means[key] = new
    else:
        means[key] = known + _NEWEST * (new - known)
