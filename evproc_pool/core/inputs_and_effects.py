"""What the scheduler is told and what it answers. Plain data: named tuples."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

from evproc_pool.core.batches import Batch, Part
from evproc_pool.core.cascade_limits import CascadeEnding
from evproc_pool.core.event_columns import EMPTY, Aligned, Column, PlanLike, Planned
from evproc_pool.core.paths import Place


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
        handlers: How many handlers ran.
        emitted: What its events emitted, in the cascade's order; None: nothing.
        failed: How many events failed.
        failed_event: The first of these, in the cascade's order.
    """

    value: Any = None
    stopped: bool = False
    error: BaseException | None = None
    handler: str | None = None
    events: int = 1
    seconds: float = 0.0
    processed: Any = None
    attempts: int = 1
    handlers: int = 0
    emitted: list[Any] | None = None
    failed: int = 0
    failed_event: Any = None


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
        every_event: Whether follow-ups are reported, too.
        errors_continue: Whether a cascade goes on after an error.
        max_depth: See `cascade_limits.CascadeEnding`.
        max_events: Likewise.
        shares_keys: Whether its keys are those of all runs that share them.
        has_several: Whether its roots have places in an input, by which errors name them.
    """

    run: int
    until_error: bool = False
    unordered: bool = False
    return_events: bool = False
    is_bulk: bool = False
    every_event: bool = False
    errors_continue: bool = False
    max_depth: int | None = None
    max_events: int | None = None
    shares_keys: bool = False
    has_several: bool = False

    @property
    def limits(self) -> CascadeEnding:
        """What ends a cascade before its time."""
        return CascadeEnding(self.errors_continue, self.max_depth, self.max_events)

    @property
    def has_limits(self) -> bool:
        """Whether follow-ups are counted."""
        return self.max_depth is not None or self.max_events is not None

    @property
    def is_followed(self) -> bool:
        """Whether each event of a cascade is looked at by itself."""
        return self.every_event or self.errors_continue or self.has_limits


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
        results: By position, those that failed. Behind such a one, the rest of its chain
            has not run.
        processed: By position, roots as the handlers left them.
        timings: For each plan that was run since the last progress: its indices, how
            many events of it, and how many seconds they took together.
        gave_back: Whether the worker leaves the rest of the batch unrun.
        values: What was given to `StopProcessing`, by position; it ended their cascades,
            and behind each the rest of its chain has not run.
        emitted: What was emitted, a list for each position.
        ran: How many handlers ran, by position, where it was not all of the plan.
        givers: The handler that returned the last follow-ups, by position; where follow-ups
            are counted.
        cut: Positions behind which the worker has left the rest of a chain unrun, for what it
            saw there. An event may fail here that did not there: what it left cannot be
            rebuilt. Then those behind it have run.
        has_large: Whether the follow-ups have large buffers, which the worker has yet.
    """

    worker: int
    done: int
    times: Sequence[float]
    follow_ups: Mapping[int, Sequence[Planned]] = {}
    results: Mapping[int, Result] = {}
    processed: Column = EMPTY
    timings: Sequence[tuple[tuple[int, ...], int, float]] = ()
    gave_back: bool = False
    values: Column = EMPTY
    emitted: Column = EMPTY
    ran: Mapping[int, int] = {}
    givers: Mapping[int, str] = {}
    cut: Collection[int] = ()
    has_large: bool = False

    @property
    def begin(self) -> int:
        """The first position that this reports."""
        return self.done - len(self.times)

    def times_of(self, positions: range) -> Sequence[float]:
        """The seconds of the events at some positions."""
        if len(positions) == len(self.times):
            return self.times
        begin = self.begin
        return self.times[positions.start - begin : positions.stop - begin]

    def handlers_run(self, part: Part, positions: range) -> int | list[int]:
        """How many handlers ran at each of some positions; one number if it is the same."""
        start = positions.start - part.start
        plans = part.plans[start : start + len(positions)]
        first = plans[0]
        if plans.count(first) == len(plans):
            if not self.ran:
                return len(first.indices)
            numbers = [len(first.indices)] * len(plans)
        else:
            numbers = [len(plan.indices) for plan in plans]
        for position, ran in self.ran.items():
            if position in positions:
                numbers[position - positions.start] = ran
        return numbers


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
        spared: The position, behind that one, of an event that is over and has left
            nothing behind, though others before it have to be run again.
        seconds: How long the event has run that was running.
        ran: How many of its handlers have begun.
    """

    worker: int
    running: int | None
    error: BaseException | None = None
    handler: str | None = None
    spared: int | None = None
    seconds: float = 0.0
    ran: int = 0


class Due(NamedTuple):
    """An event that waited to be run again has waited long enough.

    Attributes:
        token: That of its `Retry`. One that was dropped meanwhile is not known any more.
    """

    token: int


class Weighed(NamedTuple):
    """The size of a batch is known. Nothing is sent after this input.

    Attributes:
        worker: The worker that holds the batch.
        batch: The batch.
        size_bytes: All of its bytes.
        events_bytes: The bytes of its events, without their classes; None: all of them.
    """

    worker: int
    batch: Batch
    size_bytes: int
    events_bytes: int | None = None


Input = (
    Opened
    | Accepted
    | Closed
    | WorkerReady
    | Progress
    | TakenBack
    | Retired
    | WorkerGone
    | Due
    | Weighed
)

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
    """Roots from `first` on ended: no follow-ups, no error.

    Attributes:
        run: Their run.
        first: The index of the first.
        times: Seconds, one for each.
        handlers: How many ran: of each, or one number for all.
        values: What they were stopped with; None: none was.
        processed: They, as the handlers left them; None: not asked for.
        emitted: What they emitted, in lists; None: nothing.
    """

    run: int
    first: int
    times: Sequence[float]
    handlers: int | Sequence[int] = 1
    values: Aligned | None = None
    processed: Sequence[Any] | None = None
    emitted: Sequence[list[Any] | None] | None = None


class Over(NamedTuple):
    """Cascades ended without error.

    Attributes:
        run: Their run.
        roots: The indices of their roots.
        events: How many events each had.
        seconds: How long these took.
        handlers: How many ran, of each.
        values: What they were stopped with; None: none was.
    """

    run: int
    roots: Sequence[int]
    events: Sequence[int]
    seconds: Sequence[float]
    handlers: Sequence[int] = ()
    values: Aligned | None = None


class Ended(NamedTuple):
    """A root's cascade ended with something to tell."""

    run: int
    root: int
    ending: Ending


class EventEnded(NamedTuple):
    """An event that is no root is over.

    Attributes:
        run: Its run.
        place: Where it stands.
        event: The event.
        ending: How it ended, by itself.
    """

    run: int
    place: Place
    event: Any
    ending: Ending


class Dropped(NamedTuple):
    """So many roots from `first` on were given up before they ended, as was asked for."""

    run: int
    first: int
    roots: int


class Finished(NamedTuple):
    """A closed run has nothing left; its id is forgotten."""

    run: int


Effect = Send | Retry | Settled | Over | Ended | EventEnded | Dropped | Finished
