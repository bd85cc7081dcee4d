"""Says which part of an object cannot be pickled or rebuilt, and what to do.

Only used on the way to an error.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Mapping
from typing import Final

from evproc_pool.errors import SerializationError
from evproc_pool.serialization.basics import text_of
from evproc_pool.serialization.pickling import dumps

_ADVICE: Final = "keep it out of what crosses to another process, or give its class a __reduce__"


# how deep the search for what cannot be pickled goes
_DEEPEST: Final = 12


def cannot_pickle(
    what: str,
    value: object,
    cause: BaseException,
    advice: str = _ADVICE,
    more: str = "",
) -> SerializationError:
    """Say which part of a value cannot be pickled, and what to do.

    Args:
        what: NameWatch the value.
        value: It.
        cause: What pickling raised.
        advice: What to do, where nothing is known about that part's kind.
        more: What to do besides.
    """
    from evproc_pool.serialization.pickling_advice import advice_on  # on the way to an error only

    path, part = _find_culprit(value)
    where = f" at {path.strip()}" if path else ""
    error = SerializationError(
        f"{what} cannot be pickled{where} ({type(part).__qualname__}):"
        f" {type(cause).__name__}: {text_of(cause)}; {advice_on(part) or advice}{more}"
    )
    error.__cause__ = cause
    return error


def cannot_rebuild(what: str, cause: BaseException) -> SerializationError:
    """Say that something was pickled but cannot be unpickled on the other side."""
    error = SerializationError(
        f"{what} was pickled, but cannot be rebuilt on the other side:"
        f" {type(cause).__name__}: {text_of(cause)}; can its class be imported there, and does its"
        " __reduce__ or __setstate__ take what it gives?"
    )
    error.__cause__ = cause
    return error


def _find_culprit(value: object) -> tuple[str, object]:
    """The path to the deepest part that fails by itself, and that part.

    No deeper than something that there is advice on: a thread and not the lock in it.
    """
    from evproc_pool.serialization.pickling_advice import advice_on

    path = ""
    for _ in range(_DEEPEST):
        if advice_on(value) is not None:
            break
        for step, part in _parts(value):
            if not can_pickle(part):
                path, value = path + step, part
                break
        else:
            break
    return path, value


def can_pickle(value: object) -> bool:
    """Whether pickling a value raises nothing."""
    try:
        dumps(value)
    except Exception:
        return False
    return True


def _parts(value: object) -> list[tuple[str, object]]:
    """The parts of a value, each with the step that leads to it; none if it resists."""
    try:
        match value:
            case dict():
                return [(f"[{key!r}]", item) for key, item in value.items()]
            case list() | tuple():
                return [(f"[{place}]", item) for place, item in enumerate(value)]
            case types.FunctionType():  # it goes by value, like the next two
                parts = _parts_of_function(value)
            case types.MethodType():
                parts = [("", value.__func__), ("", value.__self__)]
            case functools.partial():
                parts = [("", value.func), *_parts(value.args), *_parts(value.keywords)]
            case _:
                parts = [(f".{name}", item) for name, item in _attributes(value).items()]
                if not isinstance(value, type):
                    parts.append((f" class {type(value).__qualname__}", type(value)))
    except Exception:
        return []  # then the whole of it is named
    else:
        return parts


def _attributes(value: object) -> Mapping[str, object]:
    attributes = getattr(value, "__dict__", None)
    return attributes if isinstance(attributes, (dict, types.MappingProxyType)) else {}


def _parts_of_function(function: types.FunctionType) -> list[tuple[str, object]]:
    import inspect  # takes a while

    used = inspect.getclosurevars(function)
    code = function.__code__
    defaults = function.__defaults__ or ()
    named = code.co_varnames[: code.co_argcount][code.co_argcount - len(defaults) :]
    return [
        *((f" variable {name!r}", item) for name, item in used.nonlocals.items()),
        *((f" variable {name!r}", item) for name, item in used.globals.items()),
        *((f" default {name!r}", item) for name, item in zip(named, defaults, strict=False)),
        *((f" default {name!r}", item) for name, item in (function.__kwdefaults__ or {}).items()),
    ]
