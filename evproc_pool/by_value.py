"""Pickles by value, with cloudpickle, and with what it leaves out.

A class or a function of the main script cannot be imported by a worker, so cloudpickle
sends what it is made of. It does not do that for functions behind `functools.lru_cache`,
which it takes for ones that can be imported; it refuses `functools.cached_property`
where that holds a lock, up to Python 3.11; and of an enumeration it sends names and values,
without what ``__init__`` or ``__new__`` have given to the members, and without the names
of several flags together. And of code it leaves out, from version 3.1.3 on, in which file it
stands, which tracebacks tell.
"""

from __future__ import annotations

import contextlib
import enum
import functools
import io
import pickle
import sys
import types
from collections.abc import Callable
from typing import Any, Final

import cloudpickle


def dumps(
    value: object, protocol: int, callback: Callable[[pickle.PickleBuffer], bool] | None = None
) -> bytes:
    """Pickle.

    Args:
        value: What to pickle.
        protocol: Of pickle.
        callback: Asked about each buffer, whether it is in the pickle.

    Raises:
        Exception: Whatever pickling raised.
    """
    with io.BytesIO() as file:
        _Pickler(file, protocol=protocol, buffer_callback=callback).dump(value)
        return file.getvalue()


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # it has no types
    def reducer_override(self, content: Any) -> Any:
        kind = type(content)
        if kind is types.CodeType:
            make, args = self.dispatch_table[kind](content)
            return _make_code, (make, args, content.co_filename)
        if kind is _Cached and not _can_be_imported(content):
            parameters = content.cache_parameters()
            return _make_cached, (parameters,), content.__wrapped__, None, None, _fill_cached
        if kind is functools.cached_property:
            state = content.func, content.attrname
            return _make_property, (), state, None, None, _fill_property
        reduced = super().reducer_override(content)
        is_enum = isinstance(content, enum.EnumMeta) and isinstance(reduced, tuple)
        if is_enum and reduced[0].__name__ == _MAKE_ENUM:
            return _with_members(content, reduced)
        return reduced


def _make_code(make: Any, args: Any, filename: str) -> types.CodeType:
    code: types.CodeType = make(*args)
    return code.replace(co_filename=filename)


# --- functools.lru_cache ---

_Cached: Final[Any] = type(functools.lru_cache(int))


def _can_be_imported(function: Any) -> bool:
    found: Any = sys.modules.get(function.__module__)
    if found is None or function.__module__ in cloudpickle.list_registry_pickle_by_value():
        return False
    with contextlib.suppress(AttributeError):
        for name in function.__qualname__.split("."):
            found = getattr(found, name)
        return found is function and function.__module__ != "__main__"
    return False


def _make_cached(parameters: dict[str, Any]) -> Any:
    """Make a cache around a function that comes later, since it may refer to the cache."""

    def call(*args: Any, **kwargs: Any) -> Any:
        return cached.__wrapped__(*args, **kwargs)

    cached: Any = functools.lru_cache(**parameters)(call)
    return cached


def _fill_cached(cached: Any, function: Callable[..., Any]) -> None:
    functools.update_wrapper(cached, function)


# --- functools.cached_property ---


def _make_property() -> Any:
    return functools.cached_property(_nothing)


def _nothing(instance: object) -> None:
    """Stands for the function of a property until that comes."""


def _fill_property(made: Any, state: tuple[Callable[[Any], Any], str | None]) -> None:
    made.func, made.attrname = state
    made.__doc__ = made.func.__doc__


# --- enum ---

_MAKE_ENUM: Final = "_make_skeleton_enum"

# what `EnumMeta` gives to every member
_OF_EVERY_MEMBER: Final = ("_value_", "_name_", "__objclass__", "_sort_order_")


def _with_members(kind: Any, reduced: tuple[Any, ...]) -> tuple[Any, ...]:
    """Put all names into what cloudpickle makes of an enumeration, and what members hold."""
    make, (bases, name, qualname, _, *rest), (attributes, slots), *_ = reduced
    members: dict[str, Any] = dict(kind.__members__)
    values = {each: member.value for each, member in members.items()}
    own = {
        each: {key: held for key, held in vars(member).items() if key not in _OF_EVERY_MEMBER}
        for each, member in members.items()
    }
    attributes = {key: held for key, held in attributes.items() if key not in members}
    args = bases, name, qualname, values, *rest
    return make, args, ((attributes, slots), own), None, None, enum_class_setstate


def enum_class_setstate(kind: Any, state: tuple[Any, dict[str, dict[str, Any]]]) -> Any:
    """Fill an enumeration; see `pickling`, which knows this by its name."""
    inner, own = state
    cloudpickle.cloudpickle._class_setstate(kind, inner)  # noqa: SLF001 - as it does itself
    for name, attributes in own.items():
        vars(kind[name]).update(attributes)
    return kind
