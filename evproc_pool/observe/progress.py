"""How far a call is: its notifications in, counts out. Pure; O(1) for each notification.

There is no clock in it: notifications say when they are made, and who asks says when it is.

Exact at any time: roots, failures and retries. An event counts as over when it has succeeded, has
failed for good, or is wanted by no handler. Two things are known at the end only: events that their
cascade dropped are among those known until then, and an event whose result fails in this process
(it cannot be rebuilt, or exceeds a limit) counts twice.
"""

from __future__ import annotations

from bisect import bisect_right
from math import inf
from typing import Final, NamedTuple

from evproc_pool.observe.notifications import (
    Accepted,
    CascadesDone,
    EventFailed,
    EventRetried,
    EventsDone,
    EventsUnmatched,
    Notification,
)

# Samples are taken at least so many seconds apart at first. If there are too many, every second one
# is forgotten, and the gap doubles.
_FIRST_GAP: Final = 0.05
_MOST_SAMPLES: Final = 64


class ProgressCounts(NamedTuple):
    """How far a call is."""

    roots_done: int  # root events that are over, with all of their follow-ups
    roots_total: int | None  # None: not known before the end of the input
    events_done: int  # roots and follow-ups that are over; one that is run again counts once
    # roots, those that were not read yet included if their number is known, and follow-ups so far
    events_known: int
    failed: int  # events that have failed for good
    retried: int  # how often an event was run again
    seconds: float  # since the call began
    # over the latter half of that time; when the call is over, over all of it
    events_per_second: float
    seconds_left: float | None  # None: not known
    is_over: bool  # whether the call is over


class ProgressCounter:
    """Counts one call.

    Args:
        begun: When the call began, in seconds of the pool's clock.
        roots: How many roots are expected; None: not known.
    """

    def __init__(self, begun: float, roots: int | None) -> None:
        self._begun = begun
        self._expected = roots
        self._accepted = self._roots_done = self._dropped = 0
        self._succeeded = self._unmatched = self._failed = self._retried = 0
        self._follow_ups = 0
        self._handled = 0  # the events of cascades that are over
        self._ended: float | None = None
        # when, and how many events and roots were over then
        self._samples: list[tuple[float, float, float]] = [(begun, 0, 0)]
        self._gap = _FIRST_GAP
        self._changed = begun  # when the counts changed last

    def take(self, item: Notification) -> bool:
        """Take in a notification of the call; return whether that changes the counts."""
        match item:
            case EventsDone():
                self._succeeded += len(item.seconds) - item.errors
                self._follow_ups += item.follow_ups
            case Accepted():
                self._accepted += item.roots
            case CascadesDone():
                self._roots_done += item.cascades - item.dropped
                self._dropped += item.dropped
                self._handled += item.events
            case EventsUnmatched():
                self._unmatched += item.events
            case EventFailed():
                self._failed += 1
            case EventRetried():
                self._retried += 1
            case _:
                return False
        self._changed = item.at
        if item.at - self._samples[-1][0] >= self._gap:
            self._samples.append((item.at, self._events_done, self._roots_done))
            if len(self._samples) > _MOST_SAMPLES:
                self._samples = self._samples[::2]  # a new list: another thread may read this one
                self._gap *= 2
        return True

    def end(self, at: float, *, is_complete: bool) -> None:
        """Take note that the call is over; `is_complete`: all of its input was processed."""
        self._ended = at
        if is_complete:
            self._expected = self._accepted
            if not self._dropped:
                # what cascades dropped is not to come
                self._succeeded = self._handled - self._unmatched - self._failed
                self._follow_ups = self._handled - self._accepted

    @property
    def _events_done(self) -> int:
        return self._succeeded + self._unmatched + self._failed

    def counts(self, at: float) -> ProgressCounts:
        """Return the counts; `at`: what time it is. From any thread, also amid a `take`."""
        at = at if self._ended is None else self._ended
        # first: what is over was accepted before
        roots_done, done = self._roots_done, self._events_done
        roots = max(self._expected or 0, self._accepted)
        total = None if self._expected is None else roots
        rate, roots_rate = self._rates(at)
        left = None
        if self._ended is None and total is not None and (roots_rate or roots_done == total):
            left = (total - roots_done) / (roots_rate or 1.0)
        return ProgressCounts(
            roots_done,
            total,
            done,
            max(done, roots + self._follow_ups),
            self._failed,
            self._retried,
            max(0.0, at - self._begun),
            rate,
            left,
            self._ended is not None,
        )

    def _rates(self, at: float) -> tuple[float, float]:
        """Events and roots per second over the latter half of the time, or all of it at the end."""
        middle = -inf if self._ended is not None else (self._begun + at) / 2
        if self._changed <= middle:
            return 0.0, 0.0
        samples = self._samples
        then, events, roots = samples[max(0, bisect_right(samples, (middle, inf, inf)) - 1)]
        seconds = at - then
        if seconds <= 0:
            return 0.0, 0.0
        return (self._events_done - events) / seconds, (self._roots_done - roots) / seconds
