"""The errors for common mistakes; each says what to write instead.

Imported when an error is made: an application without mistakes never imports it.
"""

from __future__ import annotations

from types import FunctionType

from evproc.decorator import Declare, default_name, describe_callable
from evproc.event import Event, a_or_an, describe_event, qualname, shortened
from evproc.exc import (
    HandlerNotRegisteredException,
    HandlerReturnException,
    StopProcessing,
    UnmatchedEventException,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from typing import Any, Final

    from evproc.handler import Handler

_LONGEST_EXAMPLE: Final = 40
_LONGEST_REPR: Final = 120

# --- handlers ---


def no_handler(func: object, name: object) -> TypeError:
    """The error for a handler that is no plain callable."""
    if isinstance(func, Declare):
        return TypeError(func.forgotten)
    if not callable(func):
        return TypeError(f"a handler is a callable (proc, ev), not {func!r}{_instead(func, name)}")
    if isinstance(func, type):
        return TypeError(
            f"a handler is a callable (proc, ev), and {describe_callable(func)} is a class of"
            " events: register a function that handles them"
        )
    return TypeError(
        f"handler {describe_callable(func)} is asynchronous; handlers are plain functions"
    )


def _instead(func: object, name: object) -> str:
    """The end of the text for a handler that cannot be called: what to write instead."""
    if isinstance(func, str) and callable(name):
        return f": the handler comes first, register({default_name(name) or 'handler'}, {func!r})"
    if isinstance(func, (list, tuple, set, frozenset, dict)):
        return ": register one handler at a time, for handler in handlers: register(handler)"
    return ""


def class_wanted(func: object, kind: type[Event]) -> TypeError:
    """The error for `@want` of a class."""
    name = getattr(kind, "name", None)
    own = f", @want({name!r})" if isinstance(name, str) else ""
    return TypeError(
        f"handler {describe_callable(func)} has @want({qualname(kind)}), a class of events:"
        f" write their name{own}, or a filter, @want(lambda ev: isinstance(ev, {kind.__name__}))"
    )


def misfit(func: Any) -> TypeError:
    """The error for a handler that does not take the Processor and the event."""
    import inspect

    try:
        signature = str(inspect.signature(func, follow_wrapped=False))
    except Exception:
        signature = ""
    text = (
        f"handler {describe_callable(func)} has the signature {signature or 'of something else'}:"
        " a handler is called with two arguments, (proc, ev), the Processor and the event"
    )
    if type(func) is FunctionType and func.__code__.co_varnames[:1] == ("self",):
        text += "; register the method of an instance, not of the class"
    return TypeError(text)


# --- events and names ---


def no_string(ev: Any) -> TypeError:
    """The error for an event whose name is no string."""
    kind = "None" if ev.name is None else a_or_an(qualname(type(ev.name)))
    return TypeError(
        f"event {describe_event(ev)}: an event's name is a string, not {kind}: write name ="
        f' "..." in class {qualname(type(ev))}, or have its name property return one'
    )


def near_names(name: str, names: Iterable[str]) -> list[str]:
    """Return similar names, the nearest first."""
    import difflib

    return difflib.get_close_matches(name, sorted(names), n=3)


def _name(cls: type) -> str:
    return qualname(cls).rpartition(".")[2]


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return the end of a sentence, with similar names; empty if there are none."""
    near = near_names(name, names)
    return f"; did you mean {' or '.join(map(repr, near))}?" if near else ""


def not_registered(name: object, names: Iterable[str]) -> HandlerNotRegisteredException:
    """The error for `unregister` of a handler that is not registered."""
    if not isinstance(name, str):
        return HandlerNotRegisteredException(
            f"no handler is called {name!r}: unregister() takes its name, a string"
        )
    names = list(names)
    hint = did_you_mean(name, names) or f"; registered are {_few(names)}"
    return HandlerNotRegisteredException(f"no handler is called {name!r}{hint}")


def _few(names: list[str]) -> str:
    """Return some of the names, for an error."""
    most = 5
    text = ", ".join(map(repr, names[:most])) or "none"
    return f"{text} and {len(names) - most} more" if len(names) > most else text


def no_event(value: object) -> TypeError:
    """The error for an argument of `process` that is no event."""
    if isinstance(value, type) and issubclass(value, Event):
        hint = f": make one of it, {_name(value)}(...)"
    elif isinstance(value, (list, tuple, set, frozenset)):
        hint = ": hand in one after another, or all with process_many() of a PoolProcessor"
    else:
        hint = "; events are of classes derived from evproc.Event"
    return TypeError(f"process() takes an event, not {describe_value(value)}{hint}")


def only_in_pool(cls: type, name: str) -> AttributeError:
    """The error for a method that a `Processor` does not have."""
    return AttributeError(
        f"{cls.__name__!r} object has no attribute {name!r}: that is a method of a PoolProcessor;"
        " return events from the handler (follow-ups), or call proc.process(ev) for each"
    )


def unmatched(
    ev: Any, asked: Sequence[Handler], mentioned: Iterable[str], registered: Collection[Handler]
) -> UnmatchedEventException:
    """The error for an event that no handler wants.

    Args:
        ev: The event.
        asked: The handlers whose filters were asked.
        mentioned: The names that handlers want.
        registered: All handlers.
    """
    if not registered:
        advice = "none is registered; register(handler) comes before the first event"
    elif asked:
        names = ", ".join(repr(handler.name) for handler in asked)
        advice = f"the filters of {names} decline it"
    else:
        advice = (
            f"register one for it, @want({ev.name!r}), or correct the name"
            f"{did_you_mean(ev.name, mentioned)}"
        )
    return UnmatchedEventException(
        f"no handler wants event {describe_event(ev)}: {advice} (explain(ev) lists all"
        ' handlers; unmatched="ignore" lets such events pass)'
    )


# --- what handlers return ---


def wrong_return(handler: Handler, ev: Event, value: Any) -> HandlerReturnException:
    """The error for a returned value that is no iterable."""
    if isinstance(value, Event):
        return _returned(
            handler, ev, f"an event, {describe_event(value)}", "return it in a list, [event]"
        )
    what = describe_value(value)
    if isinstance(value, StopProcessing) or value is StopProcessing:
        return _returned(handler, ev, what, "raise it instead of returning it")
    if hasattr(type(value), "cr_frame"):
        return _returned(handler, ev, what, "handlers are plain functions, with no `async`")
    return _returned(handler, ev, what, _give(value))


def wrong_item(handler: Handler, ev: Event, returned: Any, item: Any) -> HandlerReturnException:
    """The error for a returned iterable with an item that is no event."""
    kind = type(returned)
    what = f"an iterable ({qualname(kind)}) that yields {describe_value(item)}"
    is_list = kind in (list, tuple)
    if isinstance(item, type) and issubclass(item, Event):
        instead = f"make events of it, {_name(item)}(...)"
    elif item is None or isinstance(item, list) or (is_list and any(map(_is_event, returned))):
        instead = "leave it out, or put what it holds in its place"
    else:
        instead = _give(returned if is_list or kind is dict else item)
    return _returned(handler, ev, what, instead)


def _is_event(value: object) -> bool:
    return isinstance(value, Event)


def _give(value: Any) -> str:
    text = _text_of(value, _LONGEST_EXAMPLE)
    if text.startswith("<"):
        text = "value"
    return f"to give the caller a value: raise StopProcessing({text}), or ev.emit({text}) to go on"


def _returned(handler: Handler, ev: Event, what: str, instead: str) -> HandlerReturnException:
    return HandlerReturnException(
        f"handler {handler.name!r} ({describe_callable(handler.func)}) returned {what}, for event"
        f" {describe_event(ev)}: a handler returns an iterable of events, or None; {instead}"
    )


def describe_value(value: object) -> str:
    """Describe a value in a line; never raises."""
    kind = "the class" if isinstance(value, type) else f"{a_or_an(qualname(type(value)))},"
    return f"{kind} {_text_of(value, _LONGEST_REPR)}"


def _text_of(value: object, most: int) -> str:
    try:
        return shortened(repr(value), most)
    except Exception:
        return "<unprintable>"
