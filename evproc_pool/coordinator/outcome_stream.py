"""The sink of a `stream`: it makes outcomes of endings, in the order of the stream."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from evproc_pool.coordinator.run_handle import OutcomeSink, endings_of
from evproc_pool.core.event_columns import Aligned
from evproc_pool.core.inputs_and_effects import Ending, EventEnded, Over, Settled
from evproc_pool.core.paths import order_of
from evproc_pool.outcome import Outcome


class OutcomeStream(OutcomeSink):
    """The endings of a `stream` that were not yielded yet.

    Neighbouring roots that ended together become outcomes together, when the first of them is
    yielded.

    Attributes:
        outstanding: How many events were read and not yielded.
    """

    def __init__(
        self, *, ordered: bool, return_events: bool = False, unordered: bool = False
    ) -> None:
        self._ordered = ordered
        self._return_events = return_events
        self._unordered = unordered
        self._events: dict[int, Any] = {}
        self.outstanding = 0
        self._next = 0  # ordered: the index of the next root to yield
        self._ended: dict[int, Ending | Settled] = {}  # ordered; by the first index
        self._finished: deque[tuple[int, Ending | Settled | EventEnded]] = deque()  # not ordered
        self._followers: dict[int, deque[EventEnded]] = {}  # ordered; by root
        self._ready: Iterator[Outcome] = iter(())

    def accepted(self, first: int, events: Sequence[Any]) -> None:
        """See `OutcomeSink`."""
        self.outstanding += len(events)
        self._events.update(zip(itertools.count(first), events))

    def _put(self, first: int, item: Ending | Settled) -> None:
        if self._ordered:
            self._ended[first] = item
            if self._unordered and first in self._followers:
                self._followers[first] = deque(sorted(self._followers[first], key=_order_of))
        else:
            self._finished.append((first, item))

    def ended(self, root: int, ending: Ending) -> None:
        """See `OutcomeSink`."""
        self._put(root, ending)

    def settled(self, item: Settled) -> None:
        """See `OutcomeSink`."""
        self._put(item.first, item)

    def over(self, item: Over) -> None:
        """See `OutcomeSink`."""
        for ending, root in zip(endings_of(item), item.roots, strict=True):
            self._put(root, ending)

    def event_ended(self, item: EventEnded) -> None:
        """See `OutcomeSink`."""
        root = item.place.path[0]
        if self._ordered:
            self._followers.setdefault(root, deque()).append(item)
        else:
            self._finished.append((root, item))

    def unwanted(self, first: int, roots: int) -> None:
        """See `OutcomeSink`; such events come back unchanged."""
        processed = None
        if self._return_events:
            processed = [self._events[root] for root in range(first, first + roots)]
        self._put(first, Settled(0, first, [0.0] * roots, 0, processed=processed))

    @property
    def has_next(self) -> bool:
        """Whether `take` returns an outcome."""
        if not self._ordered:
            return bool(self._finished)
        return self._next in self._ended or self._has_follower

    @property
    def _has_follower(self) -> bool:
        """Whether a follow-up of the next root may be yielded now."""
        has_any = bool(self._followers) and bool(self._followers.get(self._next))
        return has_any and (not self._unordered or self._next in self._ended)

    def take(self) -> Outcome | None:
        """Return the next outcome, or None if it has not ended yet."""
        outcome = next(self._ready, None)
        if outcome is None:
            if self._ordered and self._has_follower:
                return _follower(self._followers[self._next].popleft())
            outcome = self._take_more()
            if outcome is None or outcome.path[1:]:
                return outcome
        self._next += 1
        self.outstanding -= 1
        return outcome

    def _take_more(self) -> Outcome | None:
        if self._ordered:
            first, item = self._next, self._ended.pop(self._next, None)
            if item is None:
                return None
            self._followers.pop(first, None)
        elif self._finished:
            first, found = self._finished.popleft()
            if isinstance(found, EventEnded):
                return _follower(found)
            item = found
        else:
            return None
        if isinstance(item, Ending):
            return _outcome_of(self._events.pop(first), (first,), item, item.events)
        self._ready = self._outcomes(item)
        return next(self._ready)

    def _outcomes(self, item: Settled) -> Iterator[Outcome]:
        count = len(item.times)
        roots = range(item.first, item.first + count)
        nothing: Iterable[Any] = itertools.repeat(None)
        values: Iterable[Any] = nothing
        stopped: Iterable[bool] = itertools.repeat(False)
        if item.values is not None:
            values, stopped = item.values.items, _flags(item.values, count)
        return map(
            Outcome,
            list(map(self._events.pop, roots)),
            roots,
            values,
            stopped,
            nothing,
            nothing,
            itertools.repeat(1),
            itertools.repeat(1),
            item.times,
            nothing if item.processed is None else item.processed,
            zip(roots),  # the paths
            map(list, itertools.repeat(())) if item.emitted is None else map(_list, item.emitted),
            itertools.repeat(item.handlers) if isinstance(item.handlers, int) else item.handlers,
        )


def _list(items: list[Any] | None) -> list[Any]:
    return [] if items is None else items


def _order_of(item: EventEnded) -> tuple[int, tuple[int, ...]]:
    return order_of(item.place)


def _follower(item: EventEnded) -> Outcome:
    """Make the outcome of a follow-up."""
    return _outcome_of(item.event, item.place.path, item.ending, 1)


def _outcome_of(event: Any, path: tuple[int, ...], ending: Ending, events: int) -> Outcome:
    """Make the outcome of an event that ended by itself."""
    return Outcome(
        event,
        path[0],
        ending.value,
        ending.stopped,
        ending.error,
        ending.handler,
        ending.attempts,
        events,
        ending.seconds,
        ending.processed,
        path,
        ending.emitted or [],
        ending.handlers,
        ending.failed,
        ending.failed_event,
    )


def _flags(values: Aligned, count: int) -> Iterable[bool]:
    """Yield for each of `count` events whether it has an item."""
    if len(values.places) == count:
        return itertools.repeat(True)
    flags = [False] * count
    for place in values.places:
        flags[place] = True
    return flags
