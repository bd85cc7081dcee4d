"""The Processor: events in, handlers called in order, follow-ups in turn.

One cascade is a loop over a queue: take an event, find its plan, call the
handlers of the plan, put what they return at the end of the queue. The inner
loop, `run_handlers`, is a function over plain sequences; the workers of
``evproc_pool`` run the same one.
"""

from __future__ import annotations

from _thread import allocate_lock
from collections import deque

from evproc.decorator import describe_callable
from evproc.event import Event, a_or_an, describe_event
from evproc.exc import HandlerReturnException, StopProcessing, _unset, add_note
from evproc.registry import Handler, Registry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any, Protocol

    from evproc.annotations import HandlerFunc, OnError
    from evproc.report import CheckReport, Explanation

    class FollowUps(Protocol):
        """Where follow-ups are put: a deque in a `Processor`, a list in a worker."""

        def extend(self, events: list[Event], /) -> None:
            """Add follow-ups at the end."""


# One for all, and not in the instances, so that these can be copied and pickled. Not by way
# of `threading`, which takes a fifth of the time that all of evproc takes to import.
_ADDING = allocate_lock()

#: The name that 0.2.0 had for a registered handler.
ProcNode = Handler


class Processor:
    """Runs handlers on events in an order that the handlers declare.

    A `Processor` keeps no state between events: `process` may be called from
    several threads, and from within a handler. A handler that is registered
    while events are processed counts from the next event on.
    """

    def __init__(self) -> None:
        self.registry = Registry()
        self._match = self.registry.match

    @property
    def nodes(self) -> Mapping[str, Handler]:
        """The registered handlers by name, in registration order; read-only."""
        return self.registry.by_name

    def register(self, proc: HandlerFunc, name: str | None = None) -> None:
        """Add a handler.

        Args:
            proc: Called with this `Processor` and the event; any callable but an
                asynchronous one. Returns an iterable of follow-ups, or None.
            name: By default the function's `__name__`.

        Raises:
            ProcessorReregisterException: The name is taken. Nothing has changed.
            TypeError: `proc` cannot be a handler, or has no name and was given none.
        """
        with _ADDING:
            self.registry.add(proc, name)

    def load_from(self, namespace: str, on_error: OnError = "raise") -> tuple[str, ...]:
        """Register every entry point of a group, in the order of their names.

        Args:
            namespace: The entry-point group.
            on_error: `"raise"`, `"skip"` (log a warning and go on without it), or a
                callable that is given the exception and decides by raising or not.

        Returns:
            The names of the handlers that were registered.

        Raises:
            EntryPointGroupException: There is no entry point in the group.
            EntryPointLoadException: One cannot be imported.
            EntryPointTypeException: One is no callable.
            EntryPointConflictException: Two distributions claim one name; when
                skipped, the first by distribution name stays.
            ProcessorReregisterException: A name is registered already.

            Nothing has been registered after any of these.
        """
        from evproc.entrypoints import load_group  # not every application has plug-ins

        loaded = load_group(namespace, on_error)
        with _ADDING:
            return self.registry.add_all(loaded)

    def process(self, ev: Event) -> Any:  # noqa: C901 - a loop is written out in it, see there
        """Process an event and its follow-ups, to the end of the cascade.

        Returns:
            None, or what a handler gave to `StopProcessing`.

        Raises:
            IncompatibleRequirementsException: The handlers that want an event
                cannot be ordered. None of them has run for that event.
            HandlerReturnException: A handler returned something that is no
                iterable of events.
            TypeError: `ev` is no event.
            Exception: What a handler or filter raised, with a note that names it
                and the event. What is left of the cascade is dropped.
        """
        # the usual case in a third of the time that isinstance needs for an ABC
        if Event not in type(ev).__mro__:
            check_event(ev)
        # What follows is `run_handlers` written out, with a queue made only when it is
        # needed: most events have no follow-ups, and this takes a sixth off them.
        handler: Handler | None = None
        queue: deque[Event] | None = None
        try:
            for handler in self._match(ev).handlers:
                returned = handler.func(self, ev)
                if returned is not None:
                    if queue is None:
                        queue = deque()
                    collect_follow_ups(returned, handler, ev, queue)
        except StopProcessing as stop:
            if handler is None:
                raise  # from a filter
            if stop.retval is not _unset:
                return stop.retval
        except KeyboardInterrupt:
            raise  # of somebody at the keyboard, whatever is running
        except BaseException as error:
            if handler is not None:
                annotate_error(error, handler, ev)
            raise
        if queue is None:
            return None
        returned = None  # or this frame would keep the follow-ups to the end of the cascade
        return self._process_queue(queue)

    def _process_queue(self, queue: deque[Event]) -> Any:
        """Process the rest of a cascade; see `process`."""
        while queue:
            ev = queue.popleft()
            retval = run_handlers(self, ev, self._match(ev).handlers, queue)
            if retval is not _unset:
                return retval
        return None

    def check(self) -> CheckReport:
        """Find cycles and missing handlers before the first event.

        Returns:
            What is worth knowing but no error: a `@required_by` that names
            nobody, and event names that are sure to fail.

        Raises:
            IncompatibleRequirementsException: Names every cycle and every handler
                that is required but not registered.
        """
        return self.registry.check()

    def explain(self, ev: Event) -> Explanation:
        """Say which handlers match an event, why, and in which order they run.

        Asks the filters, runs no handler, and does not raise what `process` would:
        the explanation holds it.

        Raises:
            TypeError: `ev` is no event.
        """
        check_event(ev)
        return self.registry.explain(ev)


def check_event(ev: object) -> None:
    """Refuse what is no event.

    Raises:
        TypeError: Neither of a class derived from `Event` nor of one registered
            with it (`Event.register`).
    """
    if not isinstance(ev, Event):
        raise TypeError(f"process() takes an event, not {_describe_value(ev)}")


def run_handlers(proc: Processor, ev: Event, handlers: Iterable[Handler], queue: FollowUps) -> Any:
    """Call the handlers of one event in turn.

    Args:
        proc: What the handlers are given as the Processor.
        ev: The event.
        handlers: In order. The worker hands in an iterator that notes where it is.
        queue: Takes the follow-ups, at the end.

    Returns:
        `_unset`, or the value of a `StopProcessing(retval)`.

    Raises:
        HandlerReturnException: See `Processor.process`.
        Exception: What a handler raised; `queue` holds the follow-ups of the
            handlers before it.
    """
    handler: Handler | None = None
    try:
        for handler in handlers:
            returned = handler.func(proc, ev)
            if returned is not None:
                collect_follow_ups(returned, handler, ev, queue)
    except StopProcessing as stop:
        return stop.retval
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        if handler is not None:
            annotate_error(error, handler, ev)
        raise
    return _unset


def annotate_error(error: BaseException, handler: Handler, ev: Event) -> None:
    """Note on an exception which handler raised it, on which event."""
    add_note(
        error,
        f"evproc: raised by handler {handler.name!r} ({describe_callable(handler.func)})"
        f" on event {describe_event(ev)}",
    )


def collect_follow_ups(returned: Any, handler: Handler, ev: Event, queue: FollowUps) -> None:
    """Check what a handler returned and queue it; all of it or, on error, what is good so far."""
    kind = type(returned)
    if kind is list and len(returned) == 1 and Event in type(returned[0]).__mro__:
        queue.extend(returned)  # as it is mostly
        return
    if kind is not list and isinstance(returned, (str, bytes, Event)):
        raise _wrong_return(handler, ev, f"returned {_describe_value(returned)}")
    try:
        items = iter(returned)
    except TypeError as error:
        close = getattr(returned, "close", None)
        if callable(close) and hasattr(returned, "cr_frame"):
            close()  # a coroutine that nobody awaits would warn besides
        # that what has no __iter__ cannot be iterated is no news
        cause = error if hasattr(kind, "__iter__") else None
        raise _wrong_return(handler, ev, f"returned {_describe_value(returned)}") from cause
    events: list[Event] = []
    try:
        for item in items:
            if Event not in type(item).__mro__ and not isinstance(item, Event):
                raise _wrong_return(
                    handler,
                    ev,
                    f"returned an iterable ({kind.__qualname__}) that yields"
                    f" {_describe_value(item)}",
                )
            events.append(item)
    finally:
        # a generator that stops (StopProcessing) after some events has given those
        queue.extend(events)


def _wrong_return(handler: Handler, ev: Event, what: str) -> HandlerReturnException:
    return HandlerReturnException(
        f"handler {handler.name!r} ({describe_callable(handler.func)}) {what} for event"
        f" {describe_event(ev)}: a handler returns an iterable of events, or None"
    )


def _describe_value(value: object) -> str:
    """Say what a value is; never raises, never longer than a line."""
    try:
        text = " ".join(repr(value).splitlines())
    except Exception:
        text = "<unprintable>"
    if len(text) > _LONGEST_REPR:
        text = text[: _LONGEST_REPR - 3] + "..."
    kind = "the class" if isinstance(value, type) else f"{a_or_an(type(value).__qualname__)},"
    return f"{kind} {text}"


_LONGEST_REPR = 120
