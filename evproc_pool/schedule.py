"""What the scheduler is told, what it answers, and what it hands out. Plain data.

Inputs and effects are named tuples; a batch, its parts and the cascades in it are
made by the scheduler and read by the engine.
"""

from __future__ import annotations

import itertools
import operator
from bisect import bisect_left
from collections import deque
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol, overload


class InternalError(RuntimeError):
    """The scheduler was told something that cannot have happened: a bug in the engine."""


class PlanLike(Protocol):
    """What the scheduler knows of a plan."""

    @property
    def indices(self) -> tuple[int, ...]:
        """The handlers' places in the registry; none: no worker is needed."""


class Unplannable:
    """Stands in the place of a plan where planning raised an error.

    The error is raised when it is the event's turn.
    """

    __slots__ = ("error",)
    indices: Final = ()

    def __init__(self, error: BaseException) -> None:
        self.error = error


#: An event with its plan.
Planned = tuple[Any, PlanLike]


class Result(NamedTuple):
    """How an event ended its cascade: by `StopProcessing(value)`, or by failing.

    Attributes:
        value: What a handler gave to `StopProcessing`.
        stopped: Whether one did.
        error: What a handler raised, or what happened to the worker.
        handler: The handler that did.
    """

    value: Any = None
    stopped: bool = False
    error: BaseException | None = None
    handler: str | None = None


class Ending(NamedTuple):
    """How a cascade ended.

    Attributes:
        value: What `Processor.process` would return.
        stopped: Whether a handler ended it by `StopProcessing(value)`.
        error: What `Processor.process` would raise, or None.
        handler: The handler that raised it.
        events: How many events were handled, the last one included.
        seconds: How long they took in the workers.
        processed: The root as the handlers left it, if that was asked for.
        attempts: How often the event was run that was run most often.
    """

    value: Any = None
    stopped: bool = False
    error: BaseException | None = None
    handler: str | None = None
    events: int = 1
    seconds: float = 0.0
    processed: Any = None
    attempts: int = 1


class Singles(Mapping[int, Sequence[Planned]]):
    """Follow-ups by the position of the event that returned them: one of each.

    Which is what they mostly are; as columns they cost next to nothing.

    Args:
        givers: The positions, in order.
        events: The follow-up of each.
        plans: Its plan.
    """

    __slots__ = ("_by_position", "_events", "_givers", "_plans")

    def __init__(
        self, givers: Sequence[int], events: Sequence[Any], plans: Sequence[PlanLike]
    ) -> None:
        self._givers = givers
        self._events = events
        self._plans = plans
        self._by_position: dict[int, list[Planned]] | None = None

    def within(self, positions: range) -> tuple[Sequence[int], Sequence[Any], Sequence[PlanLike]]:
        """The givers in a range of positions, with what each of them gave."""
        begin = bisect_left(self._givers, positions.start)
        end = bisect_left(self._givers, positions.stop)
        return self._givers[begin:end], self._events[begin:end], self._plans[begin:end]

    def __len__(self) -> int:
        return len(self._givers)

    def __iter__(self) -> Iterator[int]:
        return iter(self._givers)

    def __getitem__(self, position: int) -> list[Planned]:
        if self._by_position is None:
            columns = zip(self._givers, self._events, self._plans, strict=True)
            self._by_position = {giver: [(event, plan)] for giver, event, plan in columns}
        return self._by_position[position]


class Bunch(Sequence[Planned]):
    """Events of one plan, as a fan-out has them: as columns, see `Singles`."""

    __slots__ = ("events", "plan")

    def __init__(self, events: Sequence[Any], plan: PlanLike) -> None:
        self.events = events
        self.plan = plan

    def __len__(self) -> int:
        return len(self.events)

    @overload
    def __getitem__(self, place: int) -> Planned: ...
    @overload
    def __getitem__(self, place: slice) -> Bunch: ...
    def __getitem__(self, place: int | slice) -> Planned | Bunch:
        if isinstance(place, int):
            return self.events[place], self.plan
        return Bunch(self.events[place], self.plan)


class EventQueue:
    """Planned events that wait, in order; neighbours of one plan in one piece."""

    __slots__ = ("_bunches", "_length")

    def __init__(self) -> None:
        # each with how many of it were taken: what is left of a long one is not copied
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
        """How many at the head are sure to be of one plan."""
        bunch, taken = self._bunches[0]
        return len(bunch) - taken

    def extend(self, planned: Sequence[Planned]) -> None:
        """Put events behind the others."""
        if isinstance(planned, Bunch):
            self._bunches.append((planned, 0))
        else:
            self._bunches.extend([(Bunch([event], plan), 0) for event, plan in planned])
        self._length += len(planned)

    def put_back(self, event: Any, plan: PlanLike) -> None:
        """Put an event in front of the others."""
        self._bunches.appendleft((Bunch([event], plan), 0))
        self._length += 1

    def take(self, count: int) -> Bunch:
        """Take the first ones, no more than are `alike`."""
        bunch, taken = self._bunches.popleft()
        if taken + count < len(bunch):
            self._bunches.appendleft((bunch, taken + count))
        self._length -= count
        return bunch[taken : taken + count]

    def clear(self) -> None:
        """Drop all of them."""
        self._bunches.clear()
        self._length = 0


class Times(Sequence[float]):
    """Seconds that each of some events took, from when each was over.

    The differences are taken when somebody asks, which mostly nobody does.
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


# --- what can happen ---


class Opened(NamedTuple):
    """A run begins.

    Attributes:
        run: Its id, not used before.
        until_error: Whether a failed cascade ends it: those that came before the
            failed one are finished, as `Processor` would have, the others dropped.
        unordered: Whether follow-ups are independent of each other.
        return_events: Whether roots are to come back as the handlers left them.
        is_bulk: Whether nobody waits for single roots, only for the end of all of them.
    """

    run: int
    until_error: bool = False
    unordered: bool = False
    return_events: bool = False
    is_bulk: bool = False


class Accepted(NamedTuple):
    """Root events of a run, neighbours by index, in order.

    Attributes:
        run: An open run.
        first: The index of the first one.
        events: At least one.
        plans: One for each, none of them empty.
        keys: One for each, or None: they are independent.
    """

    run: int
    first: int
    events: Sequence[Any]
    plans: Sequence[PlanLike]
    keys: Sequence[Hashable] | None = None


class Closed(NamedTuple):
    """No more roots come. May be said again, to drop what is left.

    Attributes:
        run: A run that was opened.
        drop: Also drop what has not been sent. What is in flight ends.
    """

    run: int
    drop: bool = False


class WorkerReady(NamedTuple):
    """A worker can take batches."""

    worker: int


class Progress(NamedTuple):
    """A worker is further in its first batch.

    Attributes:
        worker: A ready worker.
        done: How many envelopes of the batch are over, from its start.
        times: Seconds of each envelope since the last progress.
        follow_ups: By position, in order; no empty ones.
        results: By position, those that ended their cascade. Behind such a one, the
            rest of its chain has not run.
        processed: By position, roots as the handlers left them.
        timings: For each plan that was run since the last progress: its indices, how
            many events of it, and how many seconds they took together.
        gave_back: Whether the worker leaves the rest of the batch unrun.
    """

    worker: int
    done: int
    times: Sequence[float]
    follow_ups: Mapping[int, Sequence[Planned]] = {}
    results: Mapping[int, Result] = {}
    processed: Mapping[int, Any] = {}
    timings: Sequence[tuple[tuple[int, ...], int, float]] = ()
    gave_back: bool = False


class TakenBack(NamedTuple):
    """A slow worker will run nothing behind the event that it is at.

    Attributes:
        worker: A ready worker.
        kept: How many envelopes of its first batch it has begun.
    """

    worker: int
    kept: int


class Retired(NamedTuple):
    """A worker is sent nothing more.

    It is dead, and what it did is about to be told, or it is to end when it is done.
    """

    worker: int


class WorkerGone(NamedTuple):
    """A worker is dead. What it held is handed on, but for the one it was running.

    Attributes:
        worker: A ready worker.
        running: The position in its first batch, or None if it was idle.
        error: What that event's cascade ends with.
        handler: The handler it was at.
    """

    worker: int
    running: int | None
    error: BaseException | None = None
    handler: str | None = None


class Due(NamedTuple):
    """An event that waited to be run again has waited long enough.

    Attributes:
        token: That of its `Retry`. One that was dropped meanwhile is not known any more.
    """

    token: int


Input = Opened | Accepted | Closed | WorkerReady | Progress | TakenBack | Retired | WorkerGone | Due

# --- what is to be done ---


class Send(NamedTuple):
    """Send a batch to a worker."""

    worker: int
    batch: Batch


class Retry(NamedTuple):
    """An event failed and is to be run again after a pause: say `Due` then.

    Attributes:
        run: Its run.
        root: The index of its root.
        token: Names it.
        failures: How often it has failed, from 1.
    """

    run: int
    root: int
    token: int
    failures: int


class Settled(NamedTuple):
    """Roots from `first` on ended: no follow-ups, no value, no error.

    Attributes:
        run: Their run.
        first: The index of the first.
        times: Seconds, one for each.
    """

    run: int
    first: int
    times: Sequence[float]


class Over(NamedTuple):
    """Cascades ended without value or error.

    Attributes:
        run: Their run.
        roots: The indices of their roots.
        events: How many events each had.
        seconds: How long these took.
    """

    run: int
    roots: Sequence[int]
    events: Sequence[int]
    seconds: Sequence[float]


class Ended(NamedTuple):
    """A root's cascade ended with something to tell."""

    run: int
    root: int
    ending: Ending


class Dropped(NamedTuple):
    """So many roots from `first` on were given up before they ended, as was asked for."""

    run: int
    first: int
    roots: int


class Finished(NamedTuple):
    """A closed run has nothing left; its id is forgotten."""

    run: int


Effect = Send | Retry | Settled | Over | Ended | Dropped | Finished

# --- what is in flight ---


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
        key: Its key, wrapped; None if it has none.
        processed: The root as the handlers left it.
        attempts: How often the event was run that was run most often.
    """

    __slots__ = (
        "attempts",
        "events",
        "in_flight",
        "index",
        "is_over",
        "is_ready",
        "key",
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
        self.key: tuple[Hashable] | None = None
        self.processed: Any = None
        self.attempts = 1


class Abreast(NamedTuple):
    """Cascades that go side by side, as columns: none needs an object before it differs.

    Attributes:
        roots: The indices of their roots.
        over: How many events of each are over.
        seconds: How long these took, of each.
    """

    roots: Sequence[int]
    over: int
    seconds: Sequence[float]

    def slice(self, start: int, stop: int) -> Abreast:
        """Some of them."""
        return Abreast(self.roots[start:stop], self.over, self.seconds[start:stop])

    def pick(self, places: Sequence[int], shift: int = 0) -> Abreast:
        """Those at some places, less `shift`."""
        roots = [self.roots[place - shift] for place in places]
        return Abreast(roots, self.over, [self.seconds[place - shift] for place in places])

    def after(self, times: Sequence[float]) -> Abreast:
        """When one more event of each is over, which took so long."""
        return Abreast(self.roots, self.over + 1, list(map(operator.add, self.seconds, times)))

    def go_on(self, events: Sequence[Any], plans: Sequence[PlanLike]) -> list[Strands]:
        """With a next event for each, and its plan: by which they part."""
        kinds = {id(plan): plan for plan in plans}
        if len(kinds) == 1:
            return [Strands(self, events, plans[0])]
        parted = []
        for plan in kinds.values():
            places = [place for place, each in enumerate(plans) if each is plan]
            parted.append(Strands(self.pick(places), [events[place] for place in places], plan))
        return parted


class Strands(NamedTuple):
    """Cascades abreast that have one event each to be run next, all of one plan.

    Most roots that have follow-ups have one, which maybe has one.

    Attributes:
        cascades: What is over of them.
        events: The next event of each.
        plan: That of these events.
    """

    cascades: Abreast
    events: Sequence[Any]
    plan: PlanLike

    def slice(self, start: int, stop: int) -> Strands:
        """Some of them."""
        return Strands(self.cascades.slice(start, stop), self.events[start:stop], self.plan)

    def pick(self, places: Sequence[int]) -> Strands:
        """Those at some places."""
        events = [self.events[place] for place in places]
        return Strands(self.cascades.pick(places), events, self.plan)

    def in_flight(self) -> list[Cascade]:
        """Each for itself, with its next event in flight."""
        cascades = []
        for root, seconds in zip(self.cascades.roots, self.cascades.seconds, strict=True):
            cascade = Cascade(root)
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
        cascades: For others, the cascade of each.
        is_chain: Whether they are of one cascade, to be run one after another, the
            rest not at all once one of them ends the cascade.
    """

    __slots__ = ("cascades", "events", "first", "is_chain", "plans", "start", "stop", "strands")

    def __init__(self, start: int, first: int | None, *, is_chain: bool = False) -> None:
        self.start = start
        self.stop = start
        self.events: Sequence[Any] = []
        self.plans: list[PlanLike] = []
        self.first = first
        self.strands: Strands | None = None
        self.cascades: list[Cascade] = []
        self.is_chain = is_chain

    def extend(self, cascade: Cascade, taken: Bunch) -> None:
        """Put events of a cascade behind the others."""
        if isinstance(self.events, list) and (self.events or isinstance(taken.events, list)):
            self.events += taken.events
        else:
            self.events = [*self.events, *taken.events] if self.events else taken.events
        self.plans += [taken.plan] * len(taken)
        self.cascades += [cascade] * len(taken)
        self.stop += len(taken)

    def within(self, begin: int, end: int) -> range:
        """Its positions from `begin` up to `end`."""
        return range(max(self.start, begin), min(self.stop, end))


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
    """

    __slots__ = ("done", "is_alone", "parts", "run", "seconds", "size", "size_bytes")

    def __init__(self, run: Any) -> None:
        self.run = run
        self.parts: list[Part] = []
        self.size = 0
        self.done = 0
        self.seconds = 0.0
        self.size_bytes = 0
        self.is_alone = False

    @property
    def run_id(self) -> int:
        """The id of the run."""
        run_id: int = self.run.id
        return run_id

    @property
    def root_positions(self) -> list[int]:
        """The positions of events that are roots."""
        return [
            position
            for part in self.parts
            if part.strands is None
            for position in range(part.start, part.stop)
            if part.first is not None or not part.cascades[position - part.start].events
        ]

    def at(self, position: int) -> Planned:
        """The event at a position, with its plan."""
        for part in self.parts:
            if position < part.stop:
                place = position - part.start
                return part.events[place], part.plans[place]
        raise InternalError(f"position {position} in a batch of {self.size}")

    def root_at(self, position: int) -> int:
        """The index of the root that the event at a position belongs to."""
        for part in self.parts:
            if position < part.stop:
                place = position - part.start
                if part.first is not None:
                    return part.first + place
                if part.strands is not None:
                    return part.strands.cascades.roots[place]
                return part.cascades[place].index
        raise InternalError(f"position {position} in a batch of {self.size}")
