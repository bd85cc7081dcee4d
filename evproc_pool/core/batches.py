"""Events in flight: batches, their parts, and the cascades in them. Plain data.

The scheduler makes them, the coordinator reads them.
"""

from __future__ import annotations

import itertools
import operator
from bisect import bisect_right
from collections import deque
from collections.abc import Hashable, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from evproc_pool.core.event_columns import Bunch, EventQueue, PlanLike, Planned
from evproc_pool.core.paths import Place, order_of, root_place, strand_place
from evproc_pool.errors import InternalError

_Ends = TypeVar("_Ends")


class Failure(NamedTuple):
    """The final failure of an event, at a place of its cascade; a handler raised it, or None."""

    place: Place
    event: Any
    error: BaseException
    handler: str | None


class Cascade:
    """A root that is more than an index: it has follow-ups, a key, or something to report."""

    __slots__ = (
        "accepted",
        "attempts",
        "emitted",
        "events",
        "failed",
        "failure",
        "handlers",
        "in_flight",
        "index",
        "is_over",
        "is_ready",
        "key_queue",
        "near",
        "processed",
        "queue",
        "seconds",
    )

    def __init__(self, index: int) -> None:
        self.index = index  # the root's index in its run
        self.queue = EventQueue()  # the events left to send, in order
        self.events = 0  # how many events are over
        self.seconds = 0.0  # how long they took
        self.in_flight = 0  # how many events are sent and not over, or wait to be run again
        self.is_over = False  # whether it has ended
        self.is_ready = False  # whether it stands in the run's queue of ready cascades
        # the queue of its key, if other roots wait there for it
        self.key_queue: KeyQueue | None = None
        self.processed: Any = None  # the root as the handlers left it
        self.attempts = 1  # the highest number of attempts of one event
        self.handlers = 0  # how many handlers ran
        # the results that its events emitted; None: none
        self.emitted: list[tuple[Place, list[Any]]] | None = None
        self.accepted = 1  # how many events it has, waiting ones included; only if that is limited
        self.failed = 0  # how many of its events failed
        self.failure: Failure | None = None  # the first failure, in the cascade's order
        self.near: int | None = None  # the worker that has large buffers of its last follow-ups

    @property
    def is_plain(self) -> bool:
        """Whether there is nothing to report but its numbers."""
        is_quiet = self.processed is None and self.emitted is None
        return is_quiet and self.attempts == 1 and not self.failed

    def emit(self, place: Place, items: list[Any]) -> None:
        """Add the results that its event at a place emitted."""
        if self.emitted is None:
            self.emitted = []
        self.emitted.append((place, items))

    def fail(self, failure: Failure) -> None:
        """Count the final failure of one of its events."""
        self.failed += 1
        first = self.failure
        if first is None or order_of(failure.place) < order_of(first.place):
            self.failure = failure

    def all_emitted(self, *, in_order: bool) -> list[Any] | None:
        """Return the emitted results in the cascade's order; `in_order`: its events ran so."""
        if self.emitted is None:
            return None
        found = self.emitted
        if not in_order:
            found = sorted(found, key=lambda item: order_of(item[0]))
        return [item for _, items in found for item in items]


class Keyed(NamedTuple):
    """A root, by its index, that waits for its key."""

    run: Any  # a `run_state.Run`
    root: int
    event: Any
    plan: PlanLike
    cascade: Cascade | None = None  # if a worker died of it and it has to run alone


class KeyQueue:
    """The roots of one key, of one run or of all runs that share their keys.

    Neighbours go to one worker together. The next ones may go to another worker when none is in
    flight. A root that has follow-ups, or is run again, holds the queue.
    """

    __slots__ = ("counted", "holder", "home", "in_flight", "key", "ready_in", "waiting")
    near: Final = None  # see `Cascade`: a root goes to any worker

    def __init__(self, key: Hashable, home: dict[Hashable, KeyQueue]) -> None:
        self.key = key
        self.home = home  # the queues by key; it stands there as long as it has roots
        self.waiting: deque[Keyed] = deque()  # unsent roots, in order
        self.in_flight = 0  # how many roots are sent and not over
        self.holder: Cascade | None = None  # the cascade that the other roots wait for, or None
        self.ready_in: Any = None  # the run in whose queue it stands, or None
        self.counted = 0  # how many waiting roots count there as ready

    @property
    def is_free(self) -> bool:
        """Whether the next root may be sent."""
        return not self.in_flight and self.holder is None

    def drop(self, run: Any, bound: float) -> list[int]:
        """Drop the waiting roots of a run behind a bound; return their indices."""
        dropped = [each.root for each in self.waiting if each.run is run and each.root > bound]
        if dropped:
            if self.ready_in is not None:
                self.ready_in.remove_key_queue(self)
            self.waiting = deque(
                [each for each in self.waiting if each.run is not run or each.root <= bound]
            )
        return dropped


class CascadeColumns(NamedTuple):
    """Cascades as columns, equal in depth: none needs an object before it differs."""

    roots: Sequence[int]  # the indices of their roots
    over: int  # how many events are over, the same for each
    seconds: Sequence[float]  # how long these took, for each
    handlers: Sequence[int]  # how many handlers ran, for each

    def slice(self, start: int, stop: int) -> CascadeColumns:
        """Return some of them."""
        return CascadeColumns(
            self.roots[start:stop], self.over, self.seconds[start:stop], self.handlers[start:stop]
        )

    def pick(self, places: Sequence[int], shift: int = 0) -> CascadeColumns:
        """Return those at some places, less `shift`."""
        if not places:
            return CascadeColumns((), self.over, (), ())
        rows = list(zip(self.roots, self.seconds, self.handlers, strict=True))
        picked = [rows[place - shift] for place in places]
        roots, seconds, handlers = zip(*picked, strict=True)
        return CascadeColumns(roots, self.over, seconds, handlers)

    def after(self, times: Sequence[float], handlers: int | Sequence[int]) -> CascadeColumns:
        """Return them with one more event over for each, by its seconds and handlers."""
        ran = itertools.repeat(handlers) if isinstance(handlers, int) else handlers
        return CascadeColumns(
            self.roots,
            self.over + 1,
            list(map(operator.add, self.seconds, times)),
            list(map(operator.add, self.handlers, ran)),
        )

    def go_on(
        self, events: Sequence[Any], plans: Sequence[PlanLike], near: int | None
    ) -> list[Strands]:
        """Give each its next event, and part them by the plans of these."""
        if plans.count(plans[0]) == len(plans):  # mostly so, which needs no loop
            return [Strands(self, events, plans[0], near)]
        kinds = {id(plan): plan for plan in plans}
        parted = []
        for plan in kinds.values():
            places = [place for place, each in enumerate(plans) if each is plan]
            some = [events[place] for place in places]
            parted.append(Strands(self.pick(places), some, plan, near))
        return parted


class Strands(NamedTuple):
    """Cascades as columns with one next event each, all of one plan.

    Most roots with follow-ups have one, which may have one.
    """

    cascades: CascadeColumns  # the cascades, without these events
    events: Sequence[Any]  # the next event of each
    plan: PlanLike  # the plan of these events
    near: int | None = None  # see `Cascade`

    def slice(self, start: int, stop: int) -> Strands:
        """Return some of them."""
        cascades = self.cascades.slice(start, stop)
        return self._replace(cascades=cascades, events=self.events[start:stop])

    def pick(self, places: Sequence[int]) -> Strands:
        """Return those at some places."""
        events = [self.events[place] for place in places]
        return self._replace(cascades=self.cascades.pick(places), events=events)

    def in_flight(self) -> list[Cascade]:
        """Return a cascade for each, with its next event in flight."""
        cascades = []
        roots, over, *columns = self.cascades
        for root, seconds, handlers in zip(roots, *columns, strict=True):
            cascade = Cascade(root)
            cascade.handlers = handlers
            cascade.events = over
            cascade.seconds = seconds
            cascade.in_flight = 1
            cascades.append(cascade)
        return cascades


class Part:
    """Neighbours in a batch: roots, roots with keys, strands, or events of cascades."""

    def __init__(self, start: int, first: int | None, *, is_chain: bool = False) -> None:
        self.start = start  # the position of the first event in the batch
        self.stop = start  # the position behind the last one
        self.events: Sequence[Any] = []  # the events, one or more
        self.plans: list[PlanLike] = []  # the plan of each
        self.first = first  # roots: the index of the first one
        self.strands: Strands | None = None  # strands: these, until they differ and become cascades
        # roots with keys: each unfinished key queue, with the position of its first root and the
        # one behind its last
        self.key_queues: list[tuple[KeyQueue, int, int]] = []
        self.has_gaps = False  # roots with keys: whether some went back to their key queues
        self.depth = 0  # cascades that were strands: how many events were before each
        self.roots: list[int] = []  # roots with keys: the index of each
        # cascades: the bunches that the events were taken as, each with its place in the part
        self.bunches: list[tuple[int, Bunch]] = []
        self.cascades: list[Cascade] = []  # cascades: the cascade of each event
        # cascades: whether these are of one cascade; when one of them ends it, the rest is not run
        self.is_chain = is_chain

    def extend(self, cascade: Cascade, taken: Bunch) -> None:
        """Add events of a cascade."""
        self.bunches.append((self.stop - self.start, taken))
        if isinstance(self.events, list) and (self.events or isinstance(taken.events, list)):
            self.events += taken.events
        else:
            self.events = [*self.events, *taken.events] if self.events else taken.events
        self.plans += [taken.plan] * len(taken)
        self.cascades += [cascade] * len(taken)
        self.stop += len(taken)

    def chains(self, ends: _Ends, key_ends: _Ends) -> list[tuple[int, int, _Ends]]:
        """Return the chains: first position, the one behind the last, `ends` or `key_ends`.

        `ends` belongs to a chain of a cascade's events, `key_ends` to roots with one key.
        """
        if self.is_chain:
            return [(self.start, self.stop, ends)]
        return [(start, stop, key_ends) for _, start, stop in self.key_queues if stop - start > 1]

    @property
    def is_keyed(self) -> bool:
        """Whether it has roots with keys."""
        return bool(self.roots)

    def place(self, number: int) -> Place:
        """Return the place of an event in its cascade."""
        if self.first is not None or self.roots:
            return root_place(self.root(number))
        if self.strands is not None:
            cascades = self.strands.cascades
            return strand_place(cascades.roots[number], cascades.over)
        if not self.bunches:  # cascades that were strands
            return strand_place(self.cascades[number].index, self.depth)
        begin, bunch = self.bunches[
            bisect_right(self.bunches, number, key=operator.itemgetter(0)) - 1
        ]
        return bunch.place(number - begin)

    def root(self, place: int) -> int:
        """Return the index of an event's root."""
        if self.first is not None:
            return self.first + place
        if self.roots:
            return self.roots[place]
        if self.strands is not None:
            return self.strands.cascades.roots[place]
        return self.cascades[place].index

    @property
    def root_places(self) -> Sequence[int]:
        """The events that are roots, counted from the start."""
        places = range(self.stop - self.start)
        if self.first is not None or self.is_keyed:
            return places
        if self.strands is not None:
            return ()
        return [place for place in places if not self.cascades[place].events]

    def within(self, begin: int, end: int) -> range:
        """Return its positions from `begin` up to `end`."""
        return range(max(self.start, begin), min(self.stop, end))


class Batch:
    """Envelopes for a worker, in one frame."""

    __slots__ = ("done", "is_alone", "is_careful", "parts", "run", "seconds", "size", "size_bytes")

    def __init__(self, run: Any) -> None:
        self.run = run  # the run of all of them
        self.parts: list[Part] = []  # its parts in order; positions run through all of them
        self.size = 0  # the number of envelopes
        self.done = 0  # how many of them are over
        self.seconds = 0.0  # their expected time
        self.size_bytes = 0  # the bytes of the frame; an estimate until it is weighed
        self.is_alone = False  # whether its worker gets nothing else meanwhile
        # Whether an event failed before. Then each is pickled individually: if the worker dies in
        # unpickling, that is the suspect.
        self.is_careful = False

    @property
    def run_id(self) -> int:
        """The id of the run."""
        run_id: int = self.run.id
        return run_id

    @property
    def root_positions(self) -> list[int]:
        """The positions of events that are roots."""
        return [part.start + place for part in self.parts for place in part.root_places]

    @property
    def roots(self) -> list[int]:
        """The indices of these roots."""
        roots: list[int] = []
        for part in self.parts:
            if part.first is not None:  # faster than one by one
                roots += range(part.first, part.first + part.stop - part.start)
            else:
                roots += [part.root(place) for place in part.root_places]
        return roots

    def at(self, position: int) -> Planned:
        """Return the event at a position, with its plan."""
        part, number = self._find(position)
        return part.events[number], part.plans[number]

    def place_at(self, position: int) -> Place:
        """Return the place of an event in its cascade."""
        part, number = self._find(position)
        return part.place(number)

    def root_at(self, position: int) -> int:
        """Return the index of the root of the event at a position."""
        part, number = self._find(position)
        return part.root(number)

    def _find(self, position: int) -> tuple[Part, int]:
        for part in self.parts:
            if position < part.stop:
                return part, position - part.start
        raise InternalError(f"position {position} in a batch of {self.size}")
