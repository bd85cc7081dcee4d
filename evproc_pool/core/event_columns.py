"""Events as columns: with their plans, in queues, with their times. Plain data.

Most events come by the thousand and are alike. Columns cost next to nothing for each of them;
they are taken apart only where events differ.
"""

from __future__ import annotations

import itertools
import operator
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol, overload

from evproc_pool.core.paths import Place, root_place

#: The place of events that are not in a queue yet.
NOWHERE: Final = root_place(-1)


class PlanLike(Protocol):
    """The part of a plan that the scheduler knows."""

    @property
    def indices(self) -> tuple[int, ...]:
        """The handlers' places in the registry; if empty, no worker is needed."""


class Unplannable:
    """Replaces the plan of an event whose planning raised an error.

    The event fails with the error when it is its turn.
    """

    __slots__ = ("error",)
    indices: Final = ()

    def __init__(self, error: BaseException) -> None:
        self.error = error


#: An event with its plan.
Planned = tuple[Any, PlanLike]


class Column(Mapping[int, Any]):
    """Items that events left behind, by position, as columns; the positions are in order."""

    __slots__ = ("_by_position", "items_", "positions")

    def __init__(self, positions: Sequence[int], items: Sequence[Any]) -> None:
        self.positions = positions
        self.items_ = items
        self._by_position: dict[int, Any] | None = None

    def aligned(self, positions: range) -> Aligned | None:
        """Return an item for each position of a range; None if none of them has one."""
        begin = bisect_left(self.positions, positions.start)
        end = bisect_left(self.positions, positions.stop)
        those, items = self.positions[begin:end], self.items_[begin:end]
        if not those:
            return None
        shift = positions.start
        if len(those) == len(positions):
            return Aligned(items, range(len(positions)))
        filled: list[Any] = [None] * len(positions)
        places = [position - shift for position in those]
        for place, item in zip(places, items, strict=True):
            filled[place] = item
        return Aligned(filled, places)

    def __len__(self) -> int:
        return len(self.positions)

    def __iter__(self) -> Iterator[int]:
        return iter(self.positions)

    def __getitem__(self, position: int) -> Any:
        if self._by_position is None:
            self._by_position = dict(zip(self.positions, self.items_, strict=True))
        return self._by_position[position]


class Singles(Column):
    """Follow-ups by the position of the event that returned them, one each, as columns.

    Most events with follow-ups have one.
    """

    __slots__ = ("_plans",)

    def __init__(
        self, givers: Sequence[int], events: Sequence[Any], plans: Sequence[PlanLike]
    ) -> None:
        super().__init__(givers, events)
        self._plans = plans

    def within(self, positions: range) -> tuple[Sequence[int], Sequence[Any], Sequence[PlanLike]]:
        """Return the givers in a range of positions, their follow-ups and the plans of these."""
        begin = bisect_left(self.positions, positions.start)
        end = bisect_left(self.positions, positions.stop)
        return self.positions[begin:end], self.items_[begin:end], self._plans[begin:end]

    def __getitem__(self, position: int) -> list[Planned]:
        if self._by_position is None:
            columns = zip(self.positions, self.items_, self._plans, strict=True)
            self._by_position = {giver: [(event, plan)] for giver, event, plan in columns}
        planned: list[Planned] = self._by_position[position]
        return planned


#: No event left anything.
EMPTY: Final = Column((), ())


class Aligned(NamedTuple):
    """An item for each of some neighbours."""

    items: Sequence[Any]  # the items; None for neighbours without one
    places: Sequence[int]  # the places of those with one, from 0, in order

    def pick(self, chosen: Sequence[int]) -> Aligned | None:
        """Return those at some places, in order; None if none of these has an item."""
        having = set(self.places)
        places = [new for new, place in enumerate(chosen) if place in having]
        return Aligned([self.items[place] for place in chosen], places) if places else None


class Bunch(Sequence[Planned]):
    """Follow-ups of one event with one plan, as a fan-out has them, as columns."""

    __slots__ = ("at", "events", "plan")

    def __init__(self, events: Sequence[Any], plan: PlanLike, at: Place = NOWHERE) -> None:
        self.events = events  # neighbours among the follow-ups
        self.plan = plan  # the plan of each of them
        self.at = at  # the place of the first

    def place(self, number: int) -> Place:
        """Return the place of one of them."""
        return self.at.sibling(number) if number else self.at

    def __len__(self) -> int:
        return len(self.events)

    @overload
    def __getitem__(self, place: int) -> Planned: ...
    @overload
    def __getitem__(self, place: slice) -> Bunch: ...
    def __getitem__(self, place: int | slice) -> Planned | Bunch:
        if isinstance(place, int):
            return self.events[place], self.plan
        return Bunch(self.events[place], self.plan, self.place(place.start or 0))


class EventQueue:
    """Planned events that wait, in order; neighbours of one plan in one piece."""

    __slots__ = ("_bunches", "_length")

    def __init__(self) -> None:
        # each with how many of it were taken, so that the rest of a long one is not copied
        self._bunches: deque[tuple[Bunch, int]] = deque()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Planned]:
        return itertools.chain.from_iterable(bunch[taken:] for bunch, taken in self._bunches)

    @property
    def next_plan(self) -> PlanLike:
        """The plan of the first; only if there is one."""
        return self._bunches[0][0].plan

    @property
    def alike(self) -> int:
        """How many events at the head certainly have one plan."""
        bunch, taken = self._bunches[0]
        return len(bunch) - taken

    def extend(self, planned: Sequence[Planned], giver: Place) -> None:
        """Put the follow-ups of the event at a place behind the others."""
        if isinstance(planned, Bunch):
            planned.at = giver.child(0)
            self._bunches.append((planned, 0))
        else:
            self._bunches.extend(
                [
                    (Bunch([event], plan, giver.child(number)), 0)
                    for number, (event, plan) in enumerate(planned)
                ]
            )
        self._length += len(planned)

    def put_back(self, event: Any, plan: PlanLike, at: Place) -> None:
        """Put an event in front of the others."""
        self.put_all_back(Bunch([event], plan, at))

    def put_all_back(self, bunch: Bunch) -> None:
        """Put events in front of the others."""
        self._bunches.appendleft((bunch, 0))
        self._length += len(bunch)

    def take(self, count: int) -> Bunch:
        """Take the first events, at most `alike`."""
        bunch, taken = self._bunches.popleft()
        if taken + count < len(bunch):
            self._bunches.appendleft((bunch, taken + count))
        self._length -= count
        return bunch[taken : taken + count]

    def clear(self) -> None:
        """Drop all events."""
        self._bunches.clear()
        self._length = 0


class Times(Sequence[float]):
    """Seconds that each of some events took, from the moments of their ends.

    Computes differences only when they are read; mostly they are not.
    """

    __slots__ = ("_begun", "_ends")

    def __init__(self, begun: float, ends: Sequence[float]) -> None:
        self._begun = begun
        self._ends = ends

    def __len__(self) -> int:
        return len(self._ends)

    def __iter__(self) -> Iterator[float]:
        return map(operator.sub, self._ends, itertools.chain((self._begun,), self._ends))

    @property
    def total(self) -> float:
        """Their sum."""
        return self._ends[-1] - self._begun if self._ends else 0.0

    @overload
    def __getitem__(self, place: int) -> float: ...
    @overload
    def __getitem__(self, place: slice) -> Times: ...
    def __getitem__(self, place: int | slice) -> float | Times:
        ends = self._ends
        if isinstance(place, int):
            if place > 0:
                return ends[place] - ends[place - 1]
            if place == 0:
                return ends[0] - self._begun
            raise IndexError("Times has no negative places")
        start, stop, step = place.indices(len(ends))
        if step != 1:
            raise ValueError("a slice of Times has no step")
        return Times(ends[start - 1] if start else self._begun, ends[start:stop])
