"""Names the part of an object that cannot be pickled or rebuilt, and says what to do."""

from __future__ import annotations

import functools
import types
from collections.abc import Mapping
from typing import Final

from evproc_pool.errors import SerializationError
from evproc_pool.serialization.basics import text_of
from evproc_pool.serialization.pickling import dumps

_ADVICE: Final = "keep it out of what crosses to another process, or give its class a __reduce__"


# The depth limit of the search.
_DEEPEST: Final = 12


def cannot_pickle(
    what: str,
    value: object,
    cause: BaseException,
    advice: str = _ADVICE,
    more: str = "",
) -> SerializationError:
    """Make the error that names which part of a value cannot be pickled, and what to do.

    Args:
        what: A name for the value.
        value: The value.
        cause: The exception of pickling.
        advice: What to do, if nothing is known about the kind of the part.
        more: What else to do.
    """
    from evproc_pool.serialization.pickling_advice import advice_on  # only errors need it

    path, part = _find_culprit(value)
    where = f" at {path.strip()}" if path else ""
    error = SerializationError(
        f"{what} cannot be pickled{where} ({type(part).__qualname__}):"
        f" {type(cause).__name__}: {text_of(cause)}; {advice_on(part) or advice}{more}"
    )
    error.__cause__ = cause
    return error


def cannot_rebuild(what: str, cause: BaseException) -> SerializationError:
    """Make the error for a pickle that cannot be unpickled on the other side."""
    error = SerializationError(
        f"{what} was pickled, but cannot be rebuilt on the other side:"
        f" {type(cause).__name__}: {text_of(cause)}; can its class be imported there, and does its"
        " __reduce__ or __setstate__ take what it gives?"
    )
    error.__cause__ = cause
    return error


def _find_culprit(value: object) -> tuple[str, object]:
    """Find the deepest part that fails by itself. Return the path to it, and the part.

    Stops at a part with known advice: a thread, and not the lock in it.
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
    """Whether a value can be pickled."""
    try:
        dumps(value)
    except Exception:
        return False
    return True


def _parts(value: object) -> list[tuple[str, object]]:
    """The parts of a value, each with the step that leads to it; empty if that fails."""
    try:
        match value:
            case dict():
                return [(f"[{key!r}]", item) for key, item in value.items()]
            case list() | tuple():
                return [(f"[{place}]", item) for place, item in enumerate(value)]
            case types.FunctionType():  # goes by value, like the next two
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
        return []  # the error names the whole value
    else:
        return parts


def _attributes(value: object) -> Mapping[str, object]:
    attributes = getattr(value, "__dict__", None)
    return attributes if isinstance(attributes, (dict, types.MappingProxyType)) else {}


def _parts_of_function(function: types.FunctionType) -> list[tuple[str, object]]:
    import inspect  # slow to import

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
