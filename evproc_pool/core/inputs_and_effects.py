"""The inputs and effects of the scheduler. Plain data: named tuples."""

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
        value: The value that a handler gave to `StopProcessing`.
        stopped: Whether a handler did.
        error: The error that a handler raised, or that describes the worker's death.
        handler: The handler that raised it, or ran then.
    """

    value: Any = None
    stopped: bool = False
    error: BaseException | None = None
    handler: str | None = None


class Ending(NamedTuple):
    """How a cascade ended.

    Attributes:
        value: The value that `Processor.process` would return.
        stopped: Whether a handler ended it by `StopProcessing(value)`.
        error: The error that `Processor.process` would raise, or None.
        handler: The handler that raised it.
        events: How many events were handled, the last one included.
        seconds: How long they took in the workers.
        processed: The root as the handlers left it, if requested.
        attempts: The highest number of attempts of one event.
        handlers: How many handlers ran.
        emitted: The results that its events emitted, in the cascade's order; None: none.
        failed: How many events failed.
        failed_event: The first failed event, in the cascade's order.
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


# --- inputs ---


class Opened(NamedTuple):
    """A run begins.

    Attributes:
        run: Its id, not used before.
        until_error: Whether a failed cascade ends it. Cascades before that one are finished, as
            by a `Processor`; the others are dropped.
        unordered: Whether follow-ups are independent of each other.
        return_events: Whether roots come back as the handlers left them.
        is_bulk: Whether nobody waits for single roots, only for the end of all of them.
        every_event: Whether follow-ups are reported, too.
        errors_continue: Whether a cascade goes on after an error.
        max_depth: See `cascade_limits.CascadeEnding`.
        max_events: Likewise.
        shares_keys: Whether it has one order per key with all other runs that share keys.
        has_several: Whether errors name roots by their place in the input.
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
        """The limits of its cascades."""
        return CascadeEnding(self.errors_continue, self.max_depth, self.max_events)

    @property
    def has_limits(self) -> bool:
        """Whether follow-ups are counted."""
        return self.max_depth is not None or self.max_events is not None

    @property
    def is_followed(self) -> bool:
        """Whether each event of a cascade is taken in by itself."""
        return self.every_event or self.errors_continue or self.has_limits


class Accepted(NamedTuple):
    """Root events of a run, neighbours by index, in order.

    Attributes:
        run: An open run.
        first: The index of the first one.
        events: The roots, at least one.
        plans: One for each, none of them empty.
        keys: One for each; None: the roots are independent.
    """

    run: int
    first: int
    events: Sequence[Any]
    plans: Sequence[PlanLike]
    keys: Sequence[Hashable] | None = None


class Closed(NamedTuple):
    """No more roots come. May come again, to `drop` unsent events; events in flight end."""

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
        follow_ups: Follow-ups by position, in order; no empty ones.
        results: Errors by position. The rest of a chain behind one did not run.
        processed: Roots as the handlers left them, by position.
        timings: For each plan run since the last progress: its indices, the number of its
            events, and their seconds together.
        gave_back: Whether the worker gives back the rest of the batch.
        values: Values given to `StopProcessing`, by position. They ended their cascades; the
            rest of a chain behind one did not run.
        emitted: Emitted results by position, in lists.
        ran: How many handlers ran, by position, if not all of the plan.
        givers: The handler that returned the last follow-ups, by position; only if follow-ups
            are limited.
        cut: Positions behind which the worker did not run the rest of a chain. An event may fail
            in the coordinator alone, if what it left cannot be rebuilt. Then the rest did run.
        has_large: Whether the follow-ups have large buffers, which the worker still has.
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
    """A slow worker runs nothing but the `kept` envelopes of its first batch that it has begun."""

    worker: int
    kept: int


class Retired(NamedTuple):
    """A worker gets nothing more: it is dead, or will end when it is done.

    A dead worker may still have `Progress` to report, before `WorkerGone`.
    """

    worker: int


class WorkerGone(NamedTuple):
    """A worker is dead. Only the event that was running is charged; others get the rest.

    Attributes:
        worker: A ready worker.
        running: The position of the running event in its first batch; None: it was idle.
        error: The error that the cascade of the running event ends with.
        handler: The handler that was running.
        spared: The position of an event behind the running one that is over and left nothing
            behind, while others before it have to be run again.
        seconds: How long the running event ran.
        ran: How many of its handlers began.
    """

    worker: int
    running: int | None
    error: BaseException | None = None
    handler: str | None = None
    spared: int | None = None
    seconds: float = 0.0
    ran: int = 0


class Due(NamedTuple):
    """The pause of a `Retry` is over. Its token is unknown if the event was dropped meanwhile."""

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

# --- effects ---


class Send(NamedTuple):
    """Send a batch to a worker."""

    worker: int
    batch: Batch


class Retry(NamedTuple):
    """Begin a pause before an event of a root runs again; `Due` with its token has to follow.

    `failures` says how often the event has failed, from 1.
    """

    run: int
    root: int
    token: int
    failures: int


class Settled(NamedTuple):
    """Roots from `first` on ended without follow-ups or error.

    Attributes:
        first: The index of the first.
        times: Seconds, one for each.
        handlers: How many ran, for each or one number for all.
        values: The values that stopped them; None: none.
        processed: The roots as the handlers left them; None: not requested.
        emitted: The results that they emitted, in lists; None: none.
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
        roots: The indices of their roots.
        events: How many events each had.
        seconds: How long these took.
        handlers: How many ran, for each.
        values: The values that stopped them; None: none.
    """

    run: int
    roots: Sequence[int]
    events: Sequence[int]
    seconds: Sequence[float]
    handlers: Sequence[int] = ()
    values: Aligned | None = None


class Ended(NamedTuple):
    """A cascade ended with something to report."""

    run: int
    root: int
    ending: Ending


class EventEnded(NamedTuple):
    """A follow-up, at a place of its cascade, is over; `ending` is its own."""

    run: int
    place: Place
    event: Any
    ending: Ending


class Dropped(NamedTuple):
    """A number of roots from `first` on are dropped, by `Closed` or an error."""

    run: int
    first: int
    roots: int


class Finished(NamedTuple):
    """A closed run has nothing left, and its id is forgotten."""

    run: int


Effect = Send | Retry | Settled | Over | Ended | EventEnded | Dropped | Finished
