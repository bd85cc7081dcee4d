"""A cascade in this process, with `Outcome`s of it: for a pool without workers.

The events of a cascade run one after another, in the order of `Processor.process`: a queue, first
in, first out. So shorter paths come first, and paths of one length in lexicographic order. Each
event is added to the cascade's outcome, which comes last.

Rules:
- An event that fails leaves only its error: the events and values that it gave are dropped.
- `StopProcessing(value)` always ends the cascade; an error does with `errors="end"`.
- A traceback holds the frames that the error has passed, and their callers. None of these may
  hold the error at its end; otherwise only the garbage collector frees it and the event.
- A limit is checked before follow-ups are queued; see `cascade_limits`.

Events have numbers, in the order in which they are queued and run. `_Places` computes a path from
these when one is needed; it takes eight bytes for each event that has run.
"""

from __future__ import annotations

import contextlib
import random
import time
from array import array
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from evproc import Event, Processor
from evproc.event import EMITTING, take_emitted
from evproc.exc import _unset, add_note
from evproc.handler import Handler, Plan
from evproc.processor import check_event, run_handlers
from evproc_pool.core.cascade_limits import PLAIN_ENDING, broken_limit, limit_error
from evproc_pool.core.error_notes import note_place
from evproc_pool.core.inputs_and_effects import Result
from evproc_pool.core.retry_policy import RetryPolicy, Tried, attempt_of
from evproc_pool.outcome import Outcome
from evproc_pool.serialization import pickling

if TYPE_CHECKING:
    from evproc_pool.inprocess.observed import CallObserver
    from evproc_pool.options import CallOptions


class Rules(NamedTuple):
    """How the cascades of a call are run; with `has_several` roots, errors name the root."""

    policy: RetryPolicy
    call: CallOptions
    has_several: bool
    observer: CallObserver | None = None

    @property
    def are_plain(self) -> bool:
        """Whether cascades end as in a `Processor`, as far as anybody can see."""
        is_plain = not self.policy.max_retries and self.call.ending == PLAIN_ENDING
        return is_plain and self.observer is None


def process_plainly(
    processor: Processor, events: Iterable[Event], rules: Rules, *, return_exceptions: bool
) -> list[Any]:
    """Process events as `Processor.process` does; the rules are plain.

    Returns their values; with `return_exceptions` also errors, in their places. Otherwise raises
    the first error, with a note that names the event.
    """
    values: list[Any] = []
    match = processor.registry.match
    queue: deque[Event] = deque()  # one for many events: most have no follow-ups
    try:
        for index, ev in enumerate(events):
            places: _Places | None = None
            try:
                if Event not in type(ev).__mro__:
                    check_event(ev)
                value = run_handlers(processor, ev, match(ev).handlers, queue)
                if queue and value is _unset:
                    places = _Places(index)
                    value = _process_queue(processor, queue, places)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                path = (index,) if places is None else places.path()
                note_place(error, path, has_several=rules.has_several)
                if not return_exceptions:
                    raise
                values.append(error)
            else:
                values.append(None if value is _unset else value)
            finally:
                if EMITTING:
                    _take_emitted(ev)
            if queue:
                queue.clear()
        return values
    finally:
        del values  # it holds errors, whose tracebacks hold this frame


def _process_queue(processor: Processor, queue: deque[Event], places: _Places) -> Any:
    """Process the rest of a cascade; return the value as `run_handlers` does."""
    match = processor.registry.match
    value: Any = _unset
    while queue and value is _unset:
        places.add(len(queue))
        ev = queue.popleft()
        try:
            value = run_handlers(processor, ev, match(ev).handlers, queue)
        finally:
            if EMITTING:
                _take_emitted(ev)
    return value


def failed_root(ev: Event, index: int, error: BaseException, rules: Rules) -> Iterable[Outcome]:
    """Yield the outcome of a root that failed before its handlers ran, for example by its key."""
    note_place(error, (index,), has_several=rules.has_several)
    events = int(isinstance(ev, Event))
    yield Outcome(ev, index, error=error, events=events, path=(index,), failed=1, failed_event=ev)


_FIRSTS: Final = array("Q", (1,))  # of a root; to copy it takes half the time


class _Places:
    """Computes the paths of the events of a cascade.

    Events are numbered from 0, the root, in the order in which they are queued. `_firsts` has,
    for each event that has run, the number of its first follow-up. An event without follow-ups
    has the number that the first one would have had.
    """

    __slots__ = ("_firsts", "_index")

    def __init__(self, index: int) -> None:
        self._index = index
        self._firsts = _FIRSTS[:]

    def add(self, queued: int) -> None:
        """Go on to the next event; `queued` events wait after the current one is over."""
        self._firsts.append(len(self._firsts) + queued)

    def path(self) -> tuple[int, ...]:
        """Return the path of the current event."""
        firsts = self._firsts
        number = len(firsts) - 1
        numbers = []
        while number:
            parent = bisect_right(firsts, number) - 1
            numbers.append(number - firsts[parent])
            number = parent
        return (self._index, *reversed(numbers))


class Cascade:
    """A root event and its follow-ups, run one after another as in `Processor.process`."""

    # on the class: most roots have no follow-ups, and need no queue
    _queue: deque[Any] | tuple[()] = ()
    _number = 0  # of the current event
    _depth = 0  # its depth
    _level_end = 1  # the number of the first event that is deeper

    def __init__(self, processor: Processor, index: int, rules: Rules) -> None:
        self._processor = processor
        self._rules = rules
        self._places = _Places(index)

    def run(self, root: Event, index: int) -> Iterator[Outcome]:
        """Run all events, lazily; yield the outcomes, the cascade's last.

        With `every_event` there is one for each follow-up, when it is over. Only a
        KeyboardInterrupt passes through; all other errors are in the outcomes.
        """
        rules = self._rules
        ends_by_error = not rules.call.ending.errors_continue
        outcome = Outcome(root, index, events=0, path=(index,))
        ev = root
        while True:
            if rules.observer is not None:
                rules.observer.path = self._places.path
            ran = _run_event(self._processor, ev, rules)
            if ran.follow_ups:
                self._take_follow_ups(ran)
            if ran.error is not None:
                note_place(ran.error, self._places.path(), has_several=rules.has_several)
                if rules.observer is not None:
                    rules.observer.failed(ev, ran.handler, ran.error, ran.attempts)
            self._add(ran, ev, outcome)
            if rules.call.every_event and self._number:
                yield self._own_outcome(ran, ev, index)
            ran.error = None  # its traceback holds the frames that hold `ran`
            queue = self._queue
            if not queue or ran.stopped or (ends_by_error and outcome.failed):
                break
            ev = self._next(queue)
        if ends_by_error and outcome.failed:
            outcome.processed = None
        last = [outcome]
        del outcome  # for the same reason
        yield last.pop()

    def _next(self, queue: deque[Any]) -> Any:
        """Take the next event."""
        self._places.add(len(queue))
        self._number += 1
        if self._number == self._level_end:
            # all events of the level before are over
            self._depth += 1
            self._level_end += len(queue)
        return queue.popleft()

    def _take_follow_ups(self, ran: _Ran) -> None:
        """Queue the follow-ups of an event, or fail it if they exceed a limit."""
        size = self._number + 1 + len(self._queue)
        limit = broken_limit(self._rules.call.ending, self._depth, size, len(ran.follow_ups))
        if limit is None:
            self._queue = self._queue or deque()
            self._queue.extend(ran.follow_ups)
        else:
            ran.error = limit_error(limit, self._places.path(), ran.source, ran.ev)
            ran.handler, ran.follow_ups, ran.emitted = ran.source, (), ()

    def _add(self, ran: _Ran, ev: Any, outcome: Outcome, *, is_own: bool = False) -> None:
        """Add an event that is over to the cascade's outcome, or its own."""
        outcome.events += ran.events
        if ran.attempts > outcome.attempts:  # noqa: PLR1730 - half the time of `max`
            outcome.attempts = ran.attempts
        outcome.seconds += ran.seconds
        outcome.handlers += ran.handlers
        if ran.emitted:
            outcome.emitted += ran.emitted
        if ran.stopped:
            outcome.value, outcome.stopped = ran.value, True
        if ran.error is not None:
            if not outcome.failed:
                outcome.error, outcome.handler = ran.error, ran.handler
                outcome.failed_event = ev
            outcome.failed += 1
        elif self._rules.call.return_events and (is_own or not self._number):
            outcome.processed = ran.ev

    def _own_outcome(self, ran: _Ran, ev: Any, index: int) -> Outcome:
        """Make the outcome of a follow-up."""
        outcome = Outcome(ev, index, events=0, path=self._places.path())
        self._add(ran, ev, outcome, is_own=True)
        return outcome


# not the generator of the `random` module: the application may have seeded that
_RANDOM: Final = random.Random()  # noqa: S311 - guessing it gains nothing


class _Ran:
    """How an event ended.

    Attributes:
        ev: The event as it was run last: a copy, from the second attempt on.
        value: The value that a handler gave to `StopProcessing`, or `_unset`.
        handler: The handler that was running last.
        source: The last handler that returned follow-ups.
        events: 1; 0 for an object that is no event.
        handlers: How many handlers were called, in the last attempt.
        seconds: How long it ran, without the pauses between attempts.
        follow_ups: Empty if it failed or ended its cascade.
        emitted: Empty if it failed.
    """

    # on the class: most keep these values, which are not stored for each event then
    value: Any = _unset
    error: BaseException | None = None
    handler: str | None = None
    source: str | None = None
    attempts = 1
    events = 1
    handlers = 0
    seconds = 0.0
    follow_ups: Sequence[Event] = ()
    emitted: Sequence[Any] = ()

    def __init__(self, ev: Any) -> None:
        self.ev = ev

    @property
    def stopped(self) -> bool:
        """Whether it ended its cascade by a value."""
        return self.value is not _unset


def _run_event(processor: Processor, ev: Any, rules: Rules) -> _Ran:
    """Run an event until it succeeds or is given up."""
    ran = _Ran(ev)
    begin = perf_counter()
    paused = 0.0
    try:
        check_event(ev)
        plan = processor.registry.match(ev)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        ran.error, ran.events = error, int(isinstance(ev, Event))
    else:
        if rules.observer is not None and not plan.handlers:
            rules.observer.unmatched()
        elif rules.policy.max_retries:
            paused = _run_with_retries(processor, plan, ran, rules)
        else:
            _attempt(processor, plan, ran, rules.observer)
    ran.seconds = perf_counter() - begin - paused
    return ran


def _run_with_retries(processor: Processor, plan: Plan, ran: _Ran, rules: Rules) -> float:
    """Run an event until it succeeds or is given up; return the seconds of its pauses."""
    policy, observer = rules.policy, rules.observer
    pickled = None
    with contextlib.suppress(Exception):  # retries run it as the failed attempt left it
        pickled = pickling.dumps(ran.ev)
    paused = 0.0
    tried: Plan | Tried = plan
    while True:
        _attempt(processor, plan, ran, observer)
        if ran.error is None:
            return paused
        again = policy.again(tried, Result(error=ran.error, handler=ran.handler), has_died=False)
        if again is None:
            if ran.attempts > 1:
                add_note(ran.error, f"evproc_pool: given up after {ran.attempts} attempts")
            return paused
        if observer is not None:
            observer.retried(ran.ev, ran.handler, ran.error, ran.attempts)
        tried = again.tried
        seconds = policy.pause(tried.failures, _RANDOM.random())
        time.sleep(seconds)
        paused += seconds
        ran.attempts = attempt_of(tried)
        if pickled is not None:
            # if it cannot be rebuilt, it stays as the failed attempt left it
            with contextlib.suppress(Exception):
                ran.ev = pickling.loads(pickled)


def _attempt(
    processor: Processor, plan: Plan, ran: _Ran, observer: CallObserver | None = None
) -> None:
    """Run an event's handlers once, and note in `ran` how it ended."""
    follow_ups: list[Event] = []
    begun, timed = 0.0, None if observer is None else observer.timed(plan.handlers)
    if timed is not None:
        begun = perf_counter()
    handlers = _Watched(plan.handlers if timed is None else timed, follow_ups)
    if EMITTING:
        _take_emitted(ran.ev)  # drop the values of before
    ran.value, ran.error = _unset, None
    try:
        ran.value = run_handlers(processor, ran.ev, handlers, follow_ups)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        ran.error = error
    ran.handler, ran.handlers = handlers.current, handlers.called
    emitted = _take_emitted(ran.ev) if EMITTING else None
    if ran.error is None:
        if emitted:
            ran.emitted = emitted
        if follow_ups and ran.value is _unset:
            ran.follow_ups, ran.source = follow_ups, handlers.source
    if observer is not None and timed is not None:
        observer.attempted(
            ran.ev,
            timed,
            begun,
            stopped=ran.stopped and ran.error is None,
            failed=ran.error is not None,
            follow_ups=len(ran.follow_ups),
        )


def _take_emitted(ev: Any) -> list[Any]:
    """Take the emitted values of an event; one that is only registered as `Event` has none."""
    return take_emitted(ev) if Event in type(ev).__mro__ else []


class _Watched:
    """Iterates over the handlers of a plan; notes the `current` one and how many were `called`."""

    __slots__ = ("_before", "_follow_ups", "_handlers", "_source", "called", "current")

    def __init__(self, handlers: Iterable[Handler], follow_ups: list[Event]) -> None:
        self._handlers = handlers
        self._follow_ups = follow_ups
        self._source: str | None = None
        self._before = 0
        self.current: str | None = None
        self.called = 0

    def __iter__(self) -> Iterator[Handler]:
        for handler in self._handlers:
            self.current = handler.name
            self.called += 1
            yield handler
            if len(self._follow_ups) > self._before:
                self._source = handler.name
                self._before = len(self._follow_ups)

    @property
    def source(self) -> str | None:
        """The last handler that returned follow-ups; None if none did."""
        return self.current if len(self._follow_ups) > self._before else self._source
