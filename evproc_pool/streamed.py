"""What becomes of the endings of a `stream`."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from evproc_pool.columns import Aligned
from evproc_pool.outcome import Outcome
from evproc_pool.runs import Sink, endings_of
from evproc_pool.schedule import Ending, Over, Settled


class Streamed(Sink):
    """The endings of a `stream` that have not been yielded.

    Neighbours that ended together become outcomes together, when the first of them is
    yielded.

    Attributes:
        outstanding: How many events were read and not yielded.
    """

    def __init__(self, *, ordered: bool, return_events: bool = False) -> None:
        self._ordered = ordered
        self._return_events = return_events
        self._events: dict[int, Any] = {}
        self.outstanding = 0
        self._next = 0  # ordered: the index that is to be yielded next
        self._ended: dict[int, Ending | Settled] = {}  # ordered; by the first index
        self._finished: deque[tuple[int, Ending | Settled]] = deque()  # not ordered
        self._ready: Iterator[Outcome] = iter(())

    def accepted(self, first: int, events: Sequence[Any]) -> None:
        """These roots were read."""
        self.outstanding += len(events)
        self._events.update(zip(itertools.count(first), events))

    def _put(self, first: int, item: Ending | Settled) -> None:
        if self._ordered:
            self._ended[first] = item
        else:
            self._finished.append((first, item))

    def ended(self, root: int, ending: Ending) -> None:
        """See `engine.Sink`."""
        self._put(root, ending)

    def settled(self, item: Settled) -> None:
        """See `engine.Sink`."""
        self._put(item.first, item)

    def over(self, item: Over) -> None:
        """See `engine.Sink`."""
        for ending, root in zip(endings_of(item), item.roots, strict=True):
            self._put(root, ending)

    def unwanted(self, first: int, roots: int) -> None:
        """See `Sink`; they are what they were."""
        processed = None
        if self._return_events:
            processed = [self._events[root] for root in range(first, first + roots)]
        self._put(first, Settled(0, first, [0.0] * roots, 0, processed=processed))

    @property
    def has_next(self) -> bool:
        """Whether `take` has an outcome to give."""
        return self._next in self._ended if self._ordered else bool(self._finished)

    def take(self) -> Outcome | None:
        """The next outcome, or None if it is not there yet."""
        outcome = next(self._ready, None)
        if outcome is None:
            outcome = self._take_more()
            if outcome is None:
                return None
        self._next += 1
        self.outstanding -= 1
        return outcome

    def _take_more(self) -> Outcome | None:
        if self._ordered:
            first, item = self._next, self._ended.pop(self._next, None)
            if item is None:
                return None
        elif self._finished:
            first, item = self._finished.popleft()
        else:
            return None
        if isinstance(item, Ending):
            return self._outcome(first, item)
        self._ready = self._outcomes(item)
        return next(self._ready)

    def _outcome(self, root: int, ending: Ending) -> Outcome:
        return Outcome(
            self._events.pop(root),
            root,
            ending.value,
            ending.stopped,
            ending.error,
            ending.handler,
            ending.attempts,
            ending.events,
            ending.seconds,
            ending.processed,
        )

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
        )


def _flags(values: Aligned, count: int) -> Iterable[bool]:
    """Whether each of some events has an item."""
    if len(values.places) == count:
        return itertools.repeat(True)
    flags = [False] * count
    for place in values.places:
        flags[place] = True
    return flags
