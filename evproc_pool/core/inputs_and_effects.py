"""The inputs and effects of the scheduler. Plain data: named tuples."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

from evproc_pool.core.batches import Batch, Part
from evproc_pool.core.cascade_limits import CascadeEnding
from evproc_pool.core.event_columns import EMPTY, Aligned, Column, PlanLike, Planned
from evproc_pool.core.paths import Place


class Result(NamedTuple):
    """How an event ended its cascade: by `StopProcessing(value)`, or by failing."""

    value: Any = None  # the value that a handler gave to `StopProcessing`
    stopped: bool = False  # whether a handler did
    # the error that a handler raised, or that describes the worker's death
    error: BaseException | None = None
    handler: str | None = None  # the handler that raised it, or ran then


class Ending(NamedTuple):
    """How a cascade ended."""

    value: Any = None  # the value that `Processor.process` would return
    stopped: bool = False  # whether a handler ended it by `StopProcessing(value)`
    error: BaseException | None = None  # the error that `Processor.process` would raise, or None
    handler: str | None = None  # the handler that raised it
    events: int = 1  # how many events were handled, the last one included
    seconds: float = 0.0  # how long they took in the workers
    processed: Any = None  # the root as the handlers left it, if requested
    attempts: int = 1  # the highest number of attempts of one event
    handlers: int = 0  # how many handlers ran
    # the results that its events emitted, in the cascade's order; None: none
    emitted: list[Any] | None = None
    failed: int = 0  # how many events failed
    failed_event: Any = None  # the first failed event, in the cascade's order


# --- inputs ---


class ChainEnds(NamedTuple):
    """The events that end a chain, so that the worker does not run the rest.

    A chain is a row of events in a batch that must run one after another: events of one cascade, or
    roots of one key.
    """

    by_value: bool  # whether an event does that gives a value to `StopProcessing`
    by_error: bool  # whether a failed event does
    by_follow_ups: bool  # whether an event with follow-ups does


class Opened(NamedTuple):
    """A run begins."""

    run: int  # its id, not used before
    # Whether a failed cascade ends it. Cascades before that one are finished, as by a `Processor`;
    # the others are dropped.
    until_error: bool = False
    unordered: bool = False  # whether follow-ups are independent of each other
    return_events: bool = False  # whether roots come back as the handlers left them
    is_bulk: bool = False  # whether nobody waits for single roots, only for the end of all of them
    every_event: bool = False  # whether follow-ups are reported, too
    errors_continue: bool = False  # whether a cascade goes on after an error
    max_depth: int | None = None  # see `cascade_limits.CascadeEnding`
    max_events: int | None = None  # likewise
    # whether it has one order per key with all other runs that share keys
    shares_keys: bool = False
    has_several: bool = False  # whether errors name roots by their place in the input

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

    def chain_ends(self, *, has_retries: bool) -> tuple[ChainEnds, ChainEnds]:
        """Return what ends a chain of a cascade's events, and a chain of roots with a key.

        A failed event may have to run again before the others. It also ends its cascade, unless
        errors continue, and its run if that stops at the first error. The follow-ups of a root
        come before the next root with its key.
        """
        fails = has_retries or not self.errors_continue
        key_fails = has_retries or self.until_error
        return ChainEnds(True, fails, False), ChainEnds(False, key_fails, True)


class Accepted(NamedTuple):
    """Root events of a run, neighbours by index, in order."""

    run: int
    first: int  # the index of the first one
    events: Sequence[Any]  # the roots, at least one
    plans: Sequence[PlanLike]  # one for each, none of them empty
    keys: Sequence[Hashable] | None = None  # one for each; None: the roots are independent


class Closed(NamedTuple):
    """No more roots come. May come again, to `drop` unsent events; events in flight end."""

    run: int
    drop: bool = False


class WorkerReady(NamedTuple):
    """A worker can take batches."""

    worker: int


class Progress(NamedTuple):
    """A worker is further in its first batch."""

    worker: int
    done: int  # how many envelopes of the batch are over, from its start
    times: Sequence[float]  # seconds of each envelope since the last progress
    # follow-ups by position, in order; no empty ones
    follow_ups: Mapping[int, Sequence[Planned]] = {}
    # Errors by position. The rest of a chain behind one did not run.
    results: Mapping[int, Result] = {}
    processed: Column = EMPTY  # roots as the handlers left them, by position
    # for each plan run since the last progress: its indices, the number of its events, and their
    # seconds together
    timings: Sequence[tuple[tuple[int, ...], int, float]] = ()
    gave_back: bool = False  # whether the worker gives back the rest of the batch
    # Values given to `StopProcessing`, by position. They ended their cascades; the rest of a chain
    # behind one did not run.
    values: Column = EMPTY
    emitted: Column = EMPTY  # emitted results by position, in lists
    ran: Mapping[int, int] = {}  # how many handlers ran, by position, if not all of the plan
    # the handler that returned the last follow-ups, by position; only if follow-ups are limited
    givers: Mapping[int, str] = {}
    # Positions behind which the worker did not run the rest of a chain. An event may fail in the
    # coordinator alone, if what it left cannot be rebuilt. Then the rest did run.
    cut: Collection[int] = ()
    has_large: bool = False  # whether the follow-ups have large buffers, which the worker still has

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
    """A worker is dead. The running event fails or is run again; other workers get the rest."""

    worker: int
    running: int | None  # the position of the running event in its first batch; None: it was idle
    error: BaseException | None = None  # the error that the cascade of the running event ends with
    handler: str | None = None  # the handler that was running
    # the position of an event behind the running one that is over and left nothing behind, while
    # others before it have to be run again
    spared: int | None = None
    seconds: float = 0.0  # how long the running event ran
    ran: int = 0  # how many of its handlers began


class PauseOver(NamedTuple):
    """The pause of a `Retry` is over. Its token is unknown if the event was dropped meanwhile."""

    token: int


class Weighed(NamedTuple):
    """The size of a batch is known. Nothing is sent after this input."""

    worker: int  # the worker that holds the batch
    batch: Batch
    size_bytes: int  # all of its bytes
    # the bytes of its events, without their classes; None: all of them
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
    | PauseOver
    | Weighed
)

# --- effects ---


class Send(NamedTuple):
    """Send a batch to a worker."""

    worker: int
    batch: Batch


class Retry(NamedTuple):
    """Begin a pause before an event of a root runs again; `PauseOver` with its token has to follow.

    `failures` says how often the event has failed, from 1.
    """

    run: int
    root: int
    token: int
    failures: int


class Settled(NamedTuple):
    """Neighbouring roots ended without follow-ups or error; has columns for all that they left."""

    run: int
    first: int  # the index of the first
    times: Sequence[float]  # seconds, one for each
    handlers: int | Sequence[int] = 1  # how many ran, for each or one number for all
    values: Aligned | None = None  # the values that stopped them; None: none
    # the roots as the handlers left them; None: not requested
    processed: Sequence[Any] | None = None
    # the results that they emitted, in lists; None: none
    emitted: Sequence[list[Any] | None] | None = None


class Over(NamedTuple):
    """Cascades, not neighbours, ended without error; has columns for numbers and values only."""

    run: int
    roots: Sequence[int]  # the indices of their roots
    events: Sequence[int]  # how many events each had
    seconds: Sequence[float]  # how long these took
    handlers: Sequence[int] = ()  # how many ran, for each
    values: Aligned | None = None  # the values that stopped them; None: none


class Ended(NamedTuple):
    """One cascade ended with what `Settled` and `Over` cannot report: an error, for example."""

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


class EventFailed(NamedTuple):
    """An event has failed and is not run again. Only if the scheduler is observed."""

    run: int
    place: Place
    event: Any
    error: BaseException
    handler: str | None
    attempts: int


class EventRetried(NamedTuple):
    """An event has failed and will be run again. Only if the scheduler is observed."""

    run: int
    place: Place
    event: Any
    error: BaseException | None
    handler: str | None
    attempts: int  # how many there were so far


class Unwanted(NamedTuple):
    """So many follow-ups that no handler wants are over. Only if the scheduler is observed."""

    run: int
    events: int


#: Effects that tell what happened, and ask for nothing.
Observed = EventFailed | EventRetried | Unwanted

Effect = Send | Retry | Settled | Over | Ended | EventEnded | Dropped | Finished | Observed
