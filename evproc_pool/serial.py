"""A cascade in this process, described by `Outcome`s: what the pool does with `workers=0`.

The events of a cascade are run one after another, in the order of `Processor.process`: a
queue, first in, first out. So their paths come shorter ones first, and otherwise in
lexicographic order.

    root -> queue -> one event: its attempts -> follow-ups -> queue
                                  |-> its own outcome (every_event)
                                  `-> added to the cascade's outcome, which comes last

Rules:
- An event that fails leaves nothing but its error: what it returned and emitted is forgotten.
- `StopProcessing(value)` ends the cascade, always; an error does with `errors="end"`.
- A limit is checked before follow-ups are queued; see `cascade_limits`.

A queued event holds the places of its ancestors, as links: a path is only written out for
an error, or where every event has an outcome.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Final, NamedTuple

from evproc import Event, Processor
from evproc.event import EMITTING, take_emitted
from evproc.exc import _unset, add_note
from evproc.processor import check_event, run_handlers
from evproc.registry import Handler, Plan
from evproc_pool import pickling
from evproc_pool.cascade_limits import PLAIN_ENDING, CascadeEnding, broken_limit, limit_error
from evproc_pool.notes import note_place
from evproc_pool.outcome import Outcome
from evproc_pool.retries import RetryPolicy, Tried, attempt_of
from evproc_pool.schedule import Result


class Rules(NamedTuple):
    """How the cascades of a call are run.

    Attributes:
        policy: Which events are run again.
        ending: What ends a cascade before its time.
        return_events: Whether outcomes have the events as the handlers left them.
        every_event: Whether each follow-up has an outcome.
        has_several: Whether the call has several roots: then errors name the root.
    """

    policy: RetryPolicy
    ending: CascadeEnding = PLAIN_ENDING
    return_events: bool = False
    every_event: bool = False
    has_several: bool = True

    @property
    def are_plain(self) -> bool:
        """Whether a cascade comes to what it comes to in a `Processor`."""
        return not (
            self.policy.max_retries
            or self.ending != PLAIN_ENDING
            or self.every_event
            or self.return_events
        )


def process_plainly(processor: Processor, ev: Event, index: int, rules: Rules) -> Any:
    """Process an event as `Processor.process` does, where the rules are plain ones.

    Raises:
        Exception: The error of the cascade, with a note that says which event it was.
    """
    # Most events have no follow-ups, and need no outcome.
    follow_ups: list[Event] = []
    try:
        if Event not in type(ev).__mro__:
            check_event(ev)
        plan = processor.registry.match(ev)
        value = run_handlers(processor, ev, plan.handlers, follow_ups)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        note_place(error, (index,), has_several=rules.has_several)
        raise
    finally:
        if EMITTING:
            _take_emitted(ev)
    if value is not _unset:
        return value
    if not follow_ups:
        return None
    cascade = _Cascade(processor, ev, index, rules)
    cascade.queue_follow_ups(follow_ups, cascade.take().place)
    return next(cascade.run()).unwrap()


def run_cascade(processor: Processor, ev: Event, index: int, rules: Rules) -> Outcome:
    """Process an event as `Processor.process` does, and say how it went.

    Args:
        processor: Has the handlers.
        ev: The root event.
        index: Its place in the input.
        rules: Not `every_event`; see `run_every_event`.

    Raises:
        KeyboardInterrupt: Passes through; everything else is in the outcome.
    """
    return next(_Cascade(processor, ev, index, rules).run())


def run_every_event(processor: Processor, ev: Event, index: int, rules: Rules) -> Iterator[Outcome]:
    """Process a cascade lazily; yield an outcome for each follow-up, and the root's last.

    Raises:
        KeyboardInterrupt: Passes through.
    """
    return _Cascade(processor, ev, index, rules).run()


def failed_root(ev: Event, index: int, error: BaseException, *, has_several: bool) -> Outcome:
    """The outcome of a root that failed before it was matched, by its key for one."""
    note_place(error, (index,), has_several=has_several)
    return Outcome(
        ev,
        index,
        error=error,
        events=int(isinstance(ev, Event)),
        path=(index,),
        failed=1,
        failed_event=ev,
    )


class _Place:
    """Where an event stands in its cascade.

    Attributes:
        parent: That of the event that returned it; None for a root.
        number: Which of its parent's follow-ups it is; of a root, its index.
        depth: How many ancestors it has.
    """

    __slots__ = ("depth", "number", "parent")

    def __init__(self, parent: _Place | None, number: int) -> None:
        self.parent = parent
        self.number = number
        self.depth: int = 0 if parent is None else parent.depth + 1

    @property
    def path(self) -> tuple[int, ...]:
        """See `Outcome.path`."""
        numbers = []
        place: _Place | None = self
        while place is not None:
            numbers.append(place.number)
            place = place.parent
        return tuple(reversed(numbers))


class _Queued(NamedTuple):
    event: Any
    place: _Place


class _Cascade:
    """A root event and what follows from it, run one after another."""

    def __init__(self, processor: Processor, ev: Event, index: int, rules: Rules) -> None:
        self._processor = processor
        self._rules = rules
        self._queue = deque([_Queued(ev, _Place(None, index))])
        self._size = 1  # events that are or were queued
        self._outcome = Outcome(ev, index, events=0, path=(index,))

    def take(self) -> _Queued:
        """Take the next event."""
        return self._queue.popleft()

    def queue_follow_ups(self, follow_ups: list[Any], parent: _Place) -> None:
        """Put the follow-ups of an event at the end."""
        self._size += len(follow_ups)
        for number, each in enumerate(follow_ups):
            self._queue.append(_Queued(each, _Place(parent, number)))

    def run(self) -> Iterator[Outcome]:
        """Run what is queued; yield the outcomes, the cascade's last."""
        outcome = self._outcome
        rules = self._rules
        while self._queue:
            queued = self.take()
            ran = _run_event(self._processor, queued.event, rules.policy)
            place = queued.place
            if ran.follow_ups:
                self._take_follow_ups(ran, place)
            self._add(ran, queued)
            if ran.stopped or (ran.error is not None and not rules.ending.errors_continue):
                self._queue.clear()
            if rules.every_event and place.depth:
                yield self._own_outcome(ran, queued)
        if outcome.error is not None and not rules.ending.errors_continue:
            outcome.processed = None
        yield outcome

    def _take_follow_ups(self, ran: _Ran, place: _Place) -> None:
        """Queue what an event returned, unless that is too much."""
        limit = broken_limit(self._rules.ending, place.depth, self._size, len(ran.follow_ups))
        if limit is None:
            self.queue_follow_ups(ran.follow_ups, place)
            return
        ran.handler = ran.source
        ran.error = limit_error(limit, place.path, ran.source, ran.ev)
        ran.emitted = []

    def _add(self, ran: _Ran, queued: _Queued) -> None:
        """Add what became of an event to the cascade's outcome."""
        outcome = self._outcome
        outcome.events += ran.events
        outcome.attempts = max(outcome.attempts, ran.attempts)
        outcome.seconds += ran.seconds
        outcome.handlers += ran.handlers
        outcome.emitted += ran.emitted
        if ran.stopped:
            outcome.value, outcome.stopped = ran.value, True
        if ran.error is not None:
            note_place(ran.error, queued.place.path, has_several=self._rules.has_several)
            if not outcome.failed:
                outcome.error, outcome.handler = ran.error, ran.handler
                outcome.failed_event = queued.event
            outcome.failed += 1
        elif self._rules.return_events and not queued.place.depth:
            outcome.processed = ran.ev

    def _own_outcome(self, ran: _Ran, queued: _Queued) -> Outcome:
        """The outcome of a follow-up."""
        has_failed = ran.error is not None
        return Outcome(
            queued.event,
            self._outcome.index,
            ran.value if ran.stopped else None,
            ran.stopped,
            ran.error,
            ran.handler if has_failed else None,
            ran.attempts,
            ran.events,
            ran.seconds,
            ran.ev if self._rules.return_events and not has_failed else None,
            queued.place.path,
            ran.emitted,
            ran.handlers,
            int(has_failed),
            queued.event if has_failed else None,
        )


# its own: that of the `random` module may be seeded by the application
_RANDOM: Final = random.Random()  # noqa: S311 - nobody gains by guessing it


@dataclass(slots=True)
class _Ran:
    """What became of an event.

    Attributes:
        ev: The event as it was run last: a copy, from the second attempt on.
        value: What a handler gave to `StopProcessing`, or `_unset`.
        error: What it failed with, or None.
        handler: The handler that was running last.
        source: The last handler that returned follow-ups.
        attempts: How often it was run.
        events: 1; 0 for what is no event.
        handlers: How many handlers were called, in the last attempt.
        seconds: How long it ran, without the pauses between attempts.
        follow_ups: What its handlers returned; empty if it failed or ended its cascade.
        emitted: What it emitted; empty if it failed.
    """

    ev: Any
    value: Any = _unset
    error: BaseException | None = None
    handler: str | None = None
    source: str | None = None
    attempts: int = 1
    events: int = 1
    handlers: int = 0
    seconds: float = 0.0
    follow_ups: list[Event] = field(default_factory=list)
    emitted: list[Any] = field(default_factory=list)

    @property
    def stopped(self) -> bool:
        """Whether it ended its cascade by a value."""
        return self.value is not _unset


def _run_event(processor: Processor, ev: Any, policy: RetryPolicy) -> _Ran:
    """Run an event until it is well or given up."""
    ran = _Ran(ev)
    begin = perf_counter()
    paused = 0.0
    plan, ran.error = _match(processor, ev)
    if plan is None:
        ran.events = int(isinstance(ev, Event))
        ran.seconds = perf_counter() - begin
        return ran
    pickled = _pickle(ev) if policy.max_retries else None
    tried: Plan | Tried = plan
    while True:
        _attempt(processor, plan, ran)
        if ran.error is None:
            break
        failed = Result(error=ran.error, handler=ran.handler)
        again = policy.again(tried, failed, has_died=False)
        if again is None:
            if ran.attempts > 1:
                add_note(ran.error, f"evproc_pool: given up after {ran.attempts} attempts")
            break
        tried = again.tried
        seconds = policy.pause(tried.failures, _RANDOM.random())
        time.sleep(seconds)
        paused += seconds
        ran.attempts = attempt_of(tried)
        if pickled is not None:
            # as the failed attempt left it, where it cannot be rebuilt
            with contextlib.suppress(Exception):
                ran.ev = pickling.loads(pickled)
    ran.seconds = perf_counter() - begin - paused
    return ran


def _match(processor: Processor, ev: Any) -> tuple[Plan | None, BaseException | None]:
    """Find an event's plan, or what it fails with."""
    try:
        check_event(ev)
        return processor.registry.match(ev), None
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return None, error


def _attempt(processor: Processor, plan: Plan, ran: _Ran) -> None:
    """Run an event's handlers once, and note in `ran` what became of it."""
    follow_ups: list[Event] = []
    handlers = _Watched(plan, follow_ups)
    ran.value, ran.error = _call(processor, ran.ev, handlers, follow_ups)
    ran.handler, ran.handlers, ran.source = handlers.current, handlers.called, handlers.source
    emitted = _take_emitted(ran.ev) if EMITTING else []
    if ran.error is None:
        ran.emitted = emitted
        ran.follow_ups = [] if ran.stopped else follow_ups


def _call(
    processor: Processor, ev: Any, handlers: _Watched, follow_ups: list[Event]
) -> tuple[Any, BaseException | None]:
    """Call an event's handlers; give what `run_handlers` does, and the error.

    The traceback of the error holds this frame. So nothing in here may hold the error, or
    only the garbage collector frees it and the event.
    """
    try:
        return run_handlers(processor, ev, handlers, follow_ups), None
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return _unset, error


def _pickle(ev: Any) -> bytes | None:
    """The event as it is now; None if it has to be run again as the failed attempt left it."""
    try:
        return pickling.dumps(ev)
    except Exception:
        return None


def _take_emitted(ev: Any) -> list[Any]:
    """Take what an event emitted; nothing from one that is registered as an `Event` only."""
    return take_emitted(ev) if Event in type(ev).__mro__ else []


class _Watched:
    """The handlers of a plan, and how far they have come.

    Attributes:
        current: The handler that runs, or ran last.
        called: How many were called.
    """

    def __init__(self, plan: Plan, follow_ups: list[Event]) -> None:
        self._plan = plan
        self._follow_ups = follow_ups
        self._source: str | None = None
        self._before = 0
        self.current: str | None = None
        self.called = 0

    def __iter__(self) -> Iterator[Handler]:
        for handler in self._plan.handlers:
            self.current = handler.name
            self.called += 1
            yield handler
            self._source = self.source
            self._before = len(self._follow_ups)

    @property
    def source(self) -> str | None:
        """The last handler that returned follow-ups; None if none did."""
        return self.current if len(self._follow_ups) > self._before else self._source
