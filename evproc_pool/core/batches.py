"""What is in flight: batches, their parts, and the cascades in them.

Made by the scheduler, read by the coordinator.
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
    """An event of a cascade that failed, for good.

    Attributes:
        place: Where it stands.
        event: The event.
        error: What with.
        handler: The handler that raised it, or None.
    """

    place: Place
    event: Any
    error: BaseException
    handler: str | None


def _order_of_first(item: tuple[Place, Any]) -> tuple[int, tuple[int, ...]]:
    return order_of(item[0])


class Cascade:
    """A root that is more than an index: it has follow-ups, a key, or something to tell.

    Attributes:
        index: The root's index in its run.
        queue: What is left to send, in order.
        events: How many are over.
        seconds: How long they took.
        in_flight: How many were sent and are not over, or wait to be run again.
        is_over: Whether it was reported.
        is_ready: Whether it stands in the run's queue of ready cascades.
        key_queue: That of its key, which waits for it; None if there is none.
        processed: The root as the handlers left it.
        attempts: How often the event was run that was run most often.
        handlers: How many handlers ran.
        emitted: What its events emitted; None: nothing.
        accepted: How many events it has, those that wait included; counted where that is limited.
        failed: How many of its events failed.
        failure: The first of these, in the cascade's order.
        near: The worker that has put large buffers of its next events into shared memory,
            or None.
    """

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
        self.index = index
        self.queue = EventQueue()
        self.events = 0
        self.seconds = 0.0
        self.in_flight = 0
        self.is_over = False
        self.is_ready = False
        self.key_queue: KeyQueue | None = None
        self.processed: Any = None
        self.attempts = 1
        self.handlers = 0
        self.emitted: list[tuple[Place, list[Any]]] | None = None
        self.accepted = 1
        self.failed = 0
        self.failure: Failure | None = None
        self.near: int | None = None

    @property
    def is_plain(self) -> bool:
        """Whether there is nothing to tell but that it is over."""
        is_quiet = self.processed is None and self.emitted is None
        return is_quiet and self.attempts == 1 and not self.failed

    def follow(self, follow_ups: Sequence[Planned], giver: Place, near: int | None) -> None:
        """One of its events, at a place, returned follow-ups; `near` has large buffers of them."""
        if near is not None or not self.queue:
            self.near = near
        self.queue.extend(follow_ups, giver)

    def emit(self, place: Place, items: list[Any]) -> None:
        """One of its events emitted something."""
        if self.emitted is None:
            self.emitted = []
        self.emitted.append((place, items))

    def fail(self, failure: Failure) -> None:
        """One of its events failed for good."""
        self.failed += 1
        first = self.failure
        if first is None or order_of(failure.place) < order_of(first.place):
            self.failure = failure

    def all_emitted(self, *, in_order: bool) -> list[Any] | None:
        """What its events emitted, in the cascade's order.

        Args:
            in_order: Whether they ran in that order.
        """
        if self.emitted is None:
            return None
        found = self.emitted if in_order else sorted(self.emitted, key=_order_of_first)
        return [item for _, items in found for item in items]


class Keyed(NamedTuple):
    """A root that waits for its key.

    Attributes:
        run: Its run, a `run_state.Run`.
        root: Its index.
        event: The root.
        plan: Its plan.
        cascade: For one that a worker died of, and that is to be run alone, its cascade.
    """

    run: Any
    root: int
    event: Any
    plan: PlanLike
    cascade: Cascade | None = None


class KeyQueue:
    """The roots of one key: of one run, or of all that share their keys.

    Neighbours go to one worker together; another one may have the next ones when nothing of
    it is in flight. A root that has follow-ups, or is run again, holds it.

    Attributes:
        key: The key.
        home: Where it is found by its key as long as it has any roots.
        waiting: Roots that were not sent, in order.
        in_flight: How many were sent and are not over.
        holder: The cascade that the others wait for, or None.
        ready_in: The run in whose queue it stands, or None.
        counted: How many waiting ones are counted there as ready.
    """

    __slots__ = ("counted", "holder", "home", "in_flight", "key", "ready_in", "waiting")

    #: As of a cascade: roots go to any worker.
    near: Final[int | None] = None

    def __init__(self, key: Hashable, home: dict[Hashable, KeyQueue]) -> None:
        self.key = key
        self.home = home
        self.waiting: deque[Keyed] = deque()
        self.in_flight = 0
        self.holder: Cascade | None = None
        self.ready_in: Any = None
        self.counted = 0

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


class Abreast(NamedTuple):
    """Cascades that go side by side, as columns: none needs an object before it differs.

    Attributes:
        roots: The indices of their roots.
        over: How many events of each are over.
        seconds: How long these took, of each.
        handlers: How many handlers ran, of each.
    """

    roots: Sequence[int]
    over: int
    seconds: Sequence[float]
    handlers: Sequence[int]

    def slice(self, start: int, stop: int) -> Abreast:
        """Some of them."""
        return Abreast(
            self.roots[start:stop], self.over, self.seconds[start:stop], self.handlers[start:stop]
        )

    def pick(self, places: Sequence[int], shift: int = 0) -> Abreast:
        """Those at some places, less `shift`."""
        if not places:
            return Abreast((), self.over, (), ())
        columns = zip(self.roots, self.seconds, self.handlers, strict=True)
        rows = list(columns)
        picked = [rows[place - shift] for place in places]
        roots, seconds, handlers = zip(*picked, strict=True)
        return Abreast(roots, self.over, seconds, handlers)

    def after(self, times: Sequence[float], handlers: int | Sequence[int]) -> Abreast:
        """When one more event of each is over, which took so long and so many handlers."""
        ran = itertools.repeat(handlers) if isinstance(handlers, int) else handlers
        return Abreast(
            self.roots,
            self.over + 1,
            list(map(operator.add, self.seconds, times)),
            list(map(operator.add, self.handlers, ran)),
        )

    def go_on(
        self, events: Sequence[Any], plans: Sequence[PlanLike], near: int | None
    ) -> list[Strands]:
        """With a next event for each, and its plan: by which they part."""
        if plans.count(plans[0]) == len(plans):  # as is usual, and seen without a loop
            return [Strands(self, events, plans[0], near)]
        kinds = {id(plan): plan for plan in plans}
        parted = []
        for plan in kinds.values():
            places = [place for place, each in enumerate(plans) if each is plan]
            some = [events[place] for place in places]
            parted.append(Strands(self.pick(places), some, plan, near))
        return parted


class Strands(NamedTuple):
    """Cascades abreast that have one event each to be run next, all of one plan.

    Most roots that have follow-ups have one, which maybe has one.

    Attributes:
        cascades: What is over of them.
        events: The next event of each.
        plan: That of these events.
        near: See `Cascade`.
    """

    cascades: Abreast
    events: Sequence[Any]
    plan: PlanLike
    near: int | None = None

    def slice(self, start: int, stop: int) -> Strands:
        """Some of them."""
        return self._replace(
            cascades=self.cascades.slice(start, stop), events=self.events[start:stop]
        )

    def pick(self, places: Sequence[int]) -> Strands:
        """Those at some places."""
        events = [self.events[place] for place in places]
        return self._replace(cascades=self.cascades.pick(places), events=events)

    def in_flight(self) -> list[Cascade]:
        """Each for itself, with its next event in flight."""
        cascades = []
        columns = zip(
            self.cascades.roots, self.cascades.seconds, self.cascades.handlers, strict=True
        )
        for root, seconds, handlers in columns:
            cascade = Cascade(root)
            cascade.handlers = handlers
            cascade.events = self.cascades.over
            cascade.seconds = seconds
            cascade.in_flight = 1
            cascades.append(cascade)
        return cascades


class Part:
    """Neighbours in a batch.

    Attributes:
        start: The position of the first in the batch.
        stop: The position behind the last.
        events: One or more.
        plans: One for each.
        first: For roots, the index of the first.
        strands: For events of strands, these.
        key_queues: For roots with keys: the queue of a key, and the first position of its roots
            and the one behind them; of queues that have not come to their end here.
        depth: Of events of strands that are cascades now, how many were before each.
        has_gaps: Whether some of these positions were put back into their key_queues.
        roots: For these, the index of each.
        bunches: For others, what they were taken from a queue as: each with the place in the
            part where it begins.
        cascades: For these, the cascade of each.
        is_chain: Whether they are of one cascade, to be run one after another, the
            rest not at all once one of them ends the cascade.
    """

    __slots__ = (
        "bunches",
        "cascades",
        "depth",
        "events",
        "first",
        "has_gaps",
        "is_chain",
        "key_queues",
        "plans",
        "roots",
        "start",
        "stop",
        "strands",
    )

    def __init__(self, start: int, first: int | None, *, is_chain: bool = False) -> None:
        self.start = start
        self.stop = start
        self.events: Sequence[Any] = []
        self.plans: list[PlanLike] = []
        self.first = first
        self.strands: Strands | None = None
        self.key_queues: list[tuple[KeyQueue, int, int]] = []
        self.has_gaps = False
        self.depth = 0
        self.roots: list[int] = []
        self.bunches: list[tuple[int, Bunch]] = []
        self.cascades: list[Cascade] = []
        self.is_chain = is_chain

    def extend(self, cascade: Cascade, taken: Bunch) -> None:
        """Put events of a cascade behind the others."""
        self.bunches.append((self.stop - self.start, taken))
        if isinstance(self.events, list) and (self.events or isinstance(taken.events, list)):
            self.events += taken.events
        else:
            self.events = [*self.events, *taken.events] if self.events else taken.events
        self.plans += [taken.plan] * len(taken)
        self.cascades += [cascade] * len(taken)
        self.stop += len(taken)

    def chains(self, ends: _Ends, key_ends: _Ends) -> list[tuple[int, int, _Ends]]:
        """The chains in the part: start and stop of the positions, and what ends it.

        Args:
            ends: What ends a chain of a cascade's events; see `chains`.
            key_ends: What ends a chain of roots with a key.
        """
        if self.is_chain:
            return [(self.start, self.stop, ends)]
        return [(start, stop, key_ends) for _, start, stop in self.key_queues if stop - start > 1]

    @property
    def is_keyed(self) -> bool:
        """Whether these are roots with keys."""
        return bool(self.roots)

    def place(self, number: int) -> Place:
        """Where an event stands in its cascade."""
        if self.first is not None or self.roots:
            return root_place(self.root(number))
        if self.strands is not None:
            cascades = self.strands.cascades
            return strand_place(cascades.roots[number], cascades.over)
        if not self.bunches:  # strands that are cascades now
            return strand_place(self.cascades[number].index, self.depth)
        begin, bunch = self.bunches[bisect_right(self.bunches, number, key=_first) - 1]
        return bunch.place(number - begin)

    def root(self, place: int) -> int:
        """The index of the root that an event belongs to."""
        if self.first is not None:
            return self.first + place
        if self.roots:
            return self.roots[place]
        if self.strands is not None:
            return self.strands.cascades.roots[place]
        return self.cascades[place].index

    @property
    def root_places(self) -> Sequence[int]:
        """Which of the events are roots; counted from the start."""
        places = range(self.stop - self.start)
        if self.first is not None or self.is_keyed:
            return places
        if self.strands is not None:
            return ()
        return [place for place in places if not self.cascades[place].events]

    def within(self, begin: int, end: int) -> range:
        """Its positions from `begin` up to `end`."""
        return range(max(self.start, begin), min(self.stop, end))


def _first(bunch: tuple[int, Bunch]) -> int:
    return bunch[0]


class Batch:
    """Envelopes on their way to a worker, in one frame.

    Attributes:
        run: The run that all of them belong to.
        parts: In order; positions run through all parts.
        size: How many envelopes.
        done: How many of them are over.
        seconds: What they are expected to take.
        size_bytes: What the frame has; an estimate until it is weighed.
        is_alone: Whether its worker gets nothing else beside it.
        is_careful: Whether it has an event that failed before, so that each is to be
            packed by itself: should it die in unpickling, that is the one.
    """

    __slots__ = ("done", "is_alone", "is_careful", "parts", "run", "seconds", "size", "size_bytes")

    def __init__(self, run: Any) -> None:
        self.run = run
        self.parts: list[Part] = []
        self.size = 0
        self.done = 0
        self.seconds = 0.0
        self.size_bytes = 0
        self.is_alone = False
        self.is_careful = False

    @property
    def run_id(self) -> int:
        """The id of the run."""
        run_id: int = self.run.id
        return run_id

    @property
    def root_positions(self) -> list[int]:
        """The positions of events that are roots."""
        positions: list[int] = []
        for part in self.parts:
            positions += [part.start + place for place in part.root_places]
        return positions

    @property
    def roots(self) -> list[int]:
        """The indices of these roots."""
        roots: list[int] = []
        for part in self.parts:
            if part.first is not None:
                roots += range(part.first, part.first + part.stop - part.start)
            else:
                roots += [part.root(place) for place in part.root_places]
        return roots

    def at(self, position: int) -> Planned:
        """The event at a position, with its plan."""
        for part in self.parts:
            if position < part.stop:
                place = position - part.start
                return part.events[place], part.plans[place]
        raise InternalError(f"position {position} in a batch of {self.size}")

    def place_at(self, position: int) -> Place:
        """Where the event at a position stands in its cascade."""
        for part in self.parts:
            if position < part.stop:
                return part.place(position - part.start)
        raise InternalError(f"position {position} in a batch of {self.size}")

    def root_at(self, position: int) -> int:
        """The index of the root that the event at a position belongs to."""
        for part in self.parts:
            if position < part.stop:
                return part.root(position - part.start)
        raise InternalError(f"position {position} in a batch of {self.size}")
