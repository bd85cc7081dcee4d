"""What becomes of the endings of a `stream`."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Sequence
from typing import Any

from evproc_pool.outcome import Outcome
from evproc_pool.runs import Sink
from evproc_pool.schedule import Ending


class Streamed(Sink):
    """The endings of a `stream` that have not been yielded."""

    def __init__(self, *, ordered: bool, return_events: bool = False) -> None:
        self._ordered = ordered
        self._return_events = return_events
        self._events: dict[int, Any] = {}
        self._next = 0  # ordered: the index that is to be yielded next
        self._ended: dict[int, Ending] = {}  # ordered
        self._finished: deque[tuple[int, Ending]] = deque()  # not ordered

    @property
    def outstanding(self) -> int:
        """How many events were read and not yielded."""
        return len(self._events)

    def accepted(self, first: int, events: Sequence[Any]) -> None:
        """These roots were read."""
        self._events.update(zip(itertools.count(first), events))

    def ended(self, root: int, ending: Ending) -> None:
        """See `engine.Sink`."""
        if self._ordered:
            self._ended[root] = ending
        else:
            self._finished.append((root, ending))

    def settled(self, first: int, times: Sequence[float]) -> None:
        """See `engine.Sink`."""
        for root, seconds in enumerate(times, first):
            self.ended(root, Ending(seconds=seconds))

    def unwanted(self, first: int, roots: int) -> None:
        """See `Sink`; they are what they were."""
        for root in range(first, first + roots):
            self.ended(root, Ending(processed=self._events[root] if self._return_events else None))

    @property
    def has_next(self) -> bool:
        """Whether `take` has an outcome to give."""
        return self._next in self._ended if self._ordered else bool(self._finished)

    def take(self) -> Outcome | None:
        """The next outcome, or None if it is not there yet."""
        if self._ordered:
            index = self._next
            ending = self._ended.pop(index, None)
            if ending is None:
                return None
            self._next += 1
        elif self._finished:
            index, ending = self._finished.popleft()
        else:
            return None
        return Outcome(
            self._events.pop(index),
            index,
            ending.value,
            ending.stopped,
            ending.error,
            ending.handler,
            ending.attempts,
            ending.events,
            ending.seconds,
            ending.processed,
            (index,),
            failed=int(ending.error is not None),
        )
