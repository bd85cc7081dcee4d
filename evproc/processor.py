"""The Processor: events in, handlers called in order, follow-ups in turn.

One cascade is a loop over a queue: take an event, find its plan, call the handlers of the plan,
put the events that they return at the end of the queue. The inner loop, `run_handlers`, is a
function over plain sequences. A pool without workers calls it, too; a worker has a loop of its
own, which does the same and reports what it does.
"""

from __future__ import annotations

from _thread import _local, allocate_lock
from collections import deque

from evproc.decorator import describe_callable
from evproc.event import (
    WHEN_EMITTING,
    Event,
    describe_event,
    put_back_emitted,
    take_emitted,
)
from evproc.exc import HandlerReturnException, StopProcessing, _unset, add_note
from evproc.handler import Handler
from evproc.registry import Registry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any, NoReturn, Protocol

    from evproc.annotations import HandlerFunc, OnError, Unmatched
    from evproc.report import CheckReport, Explanation

    class FollowUps(Protocol):
        """Takes follow-ups: a deque in a `Processor`, a list elsewhere."""

        def extend(self, events: list[Event], /) -> None:
            """Add follow-ups at the end."""


# One lock for all instances, so that these can be copied and pickled. Not from `threading`, whose
# import takes a fifth of the time of all of evproc.
_ADDING = allocate_lock()

#: Whether an event of this process has emitted anything.
_emits = False


def _see_emitted() -> None:
    global _emits  # noqa: PLW0603 - nothing else can be read as fast
    _emits = True


WHEN_EMITTING.append(_see_emitted)

#: The name of `Handler` in 0.2.0.
ProcNode = Handler


class Processor:
    """Runs handlers on events in an order that the handlers declare.

    A `Processor` keeps no state between events, other than `emitted`. So several threads may
    call `process`, and handlers may. If a handler is registered while events are processed, the
    next event uses it.

    Args:
        unmatched: What happens to an event, root or follow-up, that no handler wants:
            `"ignore"`, or `"error"` for an `UnmatchedEventException`.

    Raises:
        ValueError: `unmatched` is neither.
    """

    def __init__(self, *, unmatched: Unmatched = "ignore") -> None:
        self.registry = Registry(unmatched=unmatched)
        self._match = self.registry.match

    @property
    def nodes(self) -> Mapping[str, Handler]:
        """The registered handlers by name, in registration order; read-only."""
        return self.registry.by_name

    def register(self, proc: HandlerFunc, name: str | None = None, *, replace: bool = False) -> str:
        """Add a handler.

        Args:
            proc: Called with this `Processor` and the event; any callable but an
                asynchronous one. Returns an iterable of follow-ups, or None.
            name: By default the function's `__name__`. Lambdas are named in the order in
                which they are registered: `<lambda>`, `<lambda>-2`, `<lambda>-3`.
            replace: Take the place of the handler of that name, if there is one.

        Returns:
            The name.

        Raises:
            ProcessorReregisterException: The name is taken. Nothing has changed.
            TypeError: `proc` cannot be a handler, or has no name and was given none.
        """
        with _ADDING:
            return self.registry.add(proc, name, replace=replace)

    def unregister(self, name: str) -> None:
        """Remove a handler.

        Raises:
            HandlerNotRegisteredException: There is none of that name. Nothing has changed.
        """
        with _ADDING:
            self.registry.remove(name)

    def load_from(self, namespace: str, on_error: OnError = "raise") -> tuple[str, ...]:
        """Register every entry point of a group, in the order of their names.

        Args:
            namespace: The entry-point group.
            on_error: `"raise"`, `"skip"` (log a warning and go on without it), or a
                callable that takes the exception and decides by raising or not.

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

    def process(self, ev: Event) -> Any:  # noqa: C901, PLR0912 - a loop is written out in it
        """Process an event and its follow-ups, to the end of the cascade.

        Returns:
            None, or the value that a handler gave to `StopProcessing`.

        Raises:
            IncompatibleRequirementsException: The handlers that want an event
                cannot be ordered. None of them has run for that event.
            UnmatchedEventException: No handler wants an event, with `unmatched="error"`.
            HandlerReturnException: A handler returned something that is no
                iterable of events.
            TypeError: `ev` is no event.
            Exception: Raised by a handler or filter; a note names it and the event. The rest
                of the cascade is dropped.
        """
        try:
            # the usual case, in a sixth of the time of `isinstance` with an ABC
            type(ev)._evproc_event  # noqa: B018, SLF001 - raises if it has none
        except AttributeError:
            self._keep_emitted([])
            check_event(ev)
        if _emits and (before := take_emitted(ev)):
            return self._process_apart(ev, before)
        # `run_handlers` written out, with a queue made only when it is needed. Most events have
        # no follow-ups, and take a sixth less time this way.
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
                self._keep_emitted([])
                raise  # from a filter
            if stop.retval is not _unset:
                if _emits:
                    self._keep_emitted(take_emitted(ev))
                return stop.retval
        except KeyboardInterrupt:
            self._forget_emitted(ev)
            raise  # from the keyboard: no handler is to blame
        except BaseException as error:
            self._forget_emitted(ev)
            if handler is not None:
                annotate_error(error, handler, ev)
            raise
        if queue is None:
            if _emits:
                self._keep_emitted(take_emitted(ev))
            return None
        returned = None  # this frame must not keep the follow-ups to the end of the cascade
        return self._process_queue(queue, take_emitted(ev) if _emits else [])

    def _process_queue(self, queue: deque[Event], emitted: list[Any]) -> Any:
        """Process the rest of a cascade; see `process`.

        Args:
            queue: The follow-ups of the root event.
            emitted: The values that the root event emitted. Those of follow-ups are added.
        """
        ev: Event | None = None
        try:
            while queue:
                ev = queue.popleft()
                if _emits:
                    take_emitted(ev)
                retval = run_handlers(self, ev, self._match(ev).handlers, queue)
                if _emits:
                    emitted += take_emitted(ev)
                if retval is not _unset:
                    return retval
        except BaseException:
            self._forget_emitted(ev)
            raise
        finally:
            if _emits:
                self._keep_emitted(emitted)
        return None

    def _process_apart(self, ev: Event, before: list[Any]) -> Any:
        """Process an event that has emitted values before, and keep these apart.

        A handler of this very event may have called `process` for it.
        """
        try:
            return self.process(ev)
        finally:
            put_back_emitted(ev, before)

    @property
    def emitted(self) -> list[Any]:
        """The values that the last `process` of this thread emitted; see `Event.emit`.

        In the order in which the cascade ran its events. After an error it holds the values of
        the events before the one that failed. The next `process` clears it.
        """
        kept: _Kept | None = vars(self).get("_kept")
        return getattr(kept, "values", [])

    def _keep_emitted(self, values: list[Any]) -> None:
        if not _emits:
            return
        kept: _Kept | None = vars(self).get("_kept")
        if kept is None:
            kept = vars(self).setdefault("_kept", _Kept())
        kept.values = values

    def _forget_emitted(self, ev: object) -> None:
        """Drop the emitted values of an event that failed, and of its cascade."""
        if _emits:
            take_emitted(ev)
            self._keep_emitted([])

    def __getstate__(self) -> dict[str, Any]:
        # a copy has processed nothing
        return {name: value for name, value in vars(self).items() if name != "_kept"}

    def check(self) -> CheckReport:
        """Find cycles and missing handlers before the first event.

        Returns:
            Findings that are no errors: a `@required_by` that names no registered handler,
            and event names that are sure to fail.

        Raises:
            IncompatibleRequirementsException: Names every cycle and every handler
                that is required but not registered.
        """
        return self.registry.check()

    def explain(self, ev: Event) -> Explanation:
        """Say which handlers match an event, why, and in which order they run.

        It asks the filters and runs no handler. The explanation holds the error that `process`
        would raise.

        Raises:
            TypeError: `ev` is no event.
        """
        check_event(ev)
        return self.registry.explain(ev)


class _OnlyInPool:
    """A method of a pool that a `Processor` lacks; handlers get a `Processor`."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, proc: object, cls: type) -> NoReturn:
        from evproc.mistakes import only_in_pool

        raise only_in_pool(cls, self._name)


class _Kept(_local):
    """The values that the last cascade of each thread emitted. A copy of it holds none."""

    values: list[Any]

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()


if not TYPE_CHECKING:  # pragma: no branch
    for _name in ("process_many", "stream", "submit"):
        setattr(Processor, _name, _OnlyInPool(_name))
    del _name


def check_event(ev: object) -> None:
    """Refuse a value that is no event.

    Raises:
        TypeError: Its class is neither derived from `Event` nor registered with it
            (`Event.register`).
    """
    if not isinstance(ev, Event):
        from evproc.mistakes import no_event

        raise no_event(ev)


def run_handlers(proc: Processor, ev: Event, handlers: Iterable[Handler], queue: FollowUps) -> Any:
    """Call the handlers of one event in turn.

    Args:
        proc: The first argument of the handlers.
        ev: The event.
        handlers: In order. A pool without workers passes an iterator that notes its place.
        queue: Takes the follow-ups, at the end.

    Returns:
        `_unset`, or the value of a `StopProcessing(retval)`.

    Raises:
        HandlerReturnException: See `Processor.process`.
        Exception: Raised by a handler; `queue` holds the follow-ups of the handlers before it.
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
    """Add a note to an exception that names the handler and the event."""
    add_note(
        error,
        f"evproc: raised by handler {handler.name!r} ({describe_callable(handler.func)})"
        f" on event {describe_event(ev)}",
    )


def collect_follow_ups(returned: Any, handler: Handler, ev: Event, queue: FollowUps) -> None:
    """Check and queue the follow-ups that a handler returned; up to the first wrong one."""
    kind = type(returned)
    if kind is list and len(returned) == 1 and Event in type(returned[0]).__mro__:
        queue.extend(returned)  # the usual case
        return
    if kind is not list and isinstance(returned, (str, bytes, Event)):
        raise _wrong_return(handler, ev, returned)
    try:
        items = iter(returned)
    except TypeError as error:
        close = getattr(returned, "close", None)
        if callable(close) and hasattr(kind, "cr_frame"):
            close()  # a coroutine that is never awaited would warn as well
        # without __iter__ the cause would say nothing new
        cause = error if hasattr(kind, "__iter__") else None
        raise _wrong_return(handler, ev, returned) from cause
    events: list[Event] = []
    try:
        for item in items:
            if Event not in type(item).__mro__ and not isinstance(item, Event):
                raise _wrong_item(handler, ev, returned, item)
            events.append(item)
    finally:
        # the events that a generator yields before it raises StopProcessing count
        queue.extend(events)


def _wrong_return(handler: Handler, ev: Event, value: object) -> HandlerReturnException:
    from evproc.mistakes import wrong_return

    return wrong_return(handler, ev, value)


def _wrong_item(handler: Handler, ev: Event, returned: Any, item: object) -> HandlerReturnException:
    from evproc.mistakes import wrong_item

    return wrong_item(handler, ev, returned, item)
