"""Pickles by value, with cloudpickle, and with what it leaves out.

A class or a function of the main script cannot be imported by a worker, so cloudpickle
sends what it is made of. It does not do that for functions behind `functools.lru_cache`,
which it takes for ones that can be imported; it refuses `functools.cached_property`
where that holds a lock, up to Python 3.11; and of an enumeration it sends names and values,
without what ``__init__`` or ``__new__`` have given to the members, and without the names
of several flags together. A file that is open for reading it sends as its contents: here that
is an error, as with pickle. A memoryview it sends as bytes: here it stays one. And of code it
leaves out, from version 3.1.3 on, in which file it stands, which tracebacks tell.

A class goes as it is then, and in a worker is what it was sent as last, but for attributes
that it has lost since; the caller's own classes, which come back as copies, stay as they
are.
"""

from __future__ import annotations

import contextlib
import enum
import functools
import io
import pickle
import sys
import threading
import types
from collections.abc import Callable, Iterable
from typing import Any, Final
from weakref import WeakSet

import cloudpickle

from evproc_pool.internals import cloudpickle_classes
from evproc_pool.serialization.basics import ThisProcess

_Callback = Callable[[pickle.PickleBuffer], bool]


def dumps(value: object, protocol: int, callback: _Callback | None = None) -> bytes:
    """Pickle.

    Args:
        value: What to pickle.
        protocol: Of pickle.
        callback: Asked about each buffer, whether it is in the pickle.

    Raises:
        Exception: Whatever pickling raised.
    """
    main = sys.modules.get("__mp_main__")
    if main is None:
        return _dumps(value, protocol, callback)
    # the main script, under the name that it has in a child of multiprocessing
    with _main_by_value:
        if main.__name__ in cloudpickle.list_registry_pickle_by_value():
            return _dumps(value, protocol, callback)  # somebody else wants it so
        cloudpickle.register_pickle_by_value(main)
        try:
            return _dumps(value, protocol, callback)
        finally:
            cloudpickle.unregister_pickle_by_value(main)


# cloudpickle's registry is one for all threads; reentrant, since pickling may pickle
_main_by_value: Final = threading.RLock()


def _dumps(value: object, protocol: int, callback: _Callback | None) -> bytes:
    with io.BytesIO() as file:
        _Pickler(file, protocol=protocol, buffer_callback=callback).dump(value)
        return file.getvalue()


def loads(data: bytes | bytearray | memoryview, buffers: Iterable[memoryview]) -> Any:
    """Unpickle what `dumps` gave.

    Args:
        data: That.
        buffers: Those that are not in it.

    Raises:
        Exception: Whatever unpickling raised.
    """
    if not cloudpickle_classes.IS_KNOWN:
        Filled.count += 1  # nobody can say whether a class was filled
        return pickle.loads(data, buffers=buffers)
    return _Unpickler(io.BytesIO(data), buffers=buffers).load()


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # it has no types
    def reducer_override(self, content: Any) -> Any:
        kind = type(content)
        if isinstance(content, io.TextIOWrapper) and not _is_standard(content):
            raise TypeError(f"cannot pickle '{kind.__module__}.{kind.__qualname__}' object")
        if kind is memoryview and content.ndim == len(content.format) == 1:
            data = content.tobytes()
            return _make_view, (data if content.readonly else bytearray(data), content.format)
        if kind is types.CodeType:
            reduced = cloudpickle_classes.reduce_code(self.dispatch_table, content)
            if reduced is not None:
                return _make_code, (*reduced, content.co_filename)
        if kind is _Cached and not _can_be_imported(content):
            parameters = content.cache_parameters()
            return _make_cached, (parameters,), content.__wrapped__, None, None, _fill_cached
        if kind is functools.cached_property:
            state = content.func, content.attrname
            return _make_property, (), state, None, None, _fill_property
        reduced = super().reducer_override(content)
        is_enum = isinstance(content, enum.EnumMeta)
        if is_enum and cloudpickle_classes.is_enum_reduction(reduced):
            return cloudpickle_classes.with_members(content, reduced)
        return reduced


def _is_standard(file: io.TextIOWrapper) -> bool:
    """Whether a file is one that each process has of its own."""
    return file is sys.stdout or file is sys.stderr


def _make_view(data: bytes | bytearray, kind: Any) -> memoryview:
    return memoryview(data).cast(kind)


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


# --- classes on their way back ---

# Classes that came here by value, and are nobody's own here.
_came: Final[WeakSet[type]] = WeakSet()


class _Unpickler(pickle.Unpickler):
    """Finds classes that were here before, and leaves alone those that are this process's own.

    A class that comes by value is made, empty, and then filled. Where it is known already,
    cloudpickle makes another one all the same and throws it away, of which a metaclass or
    an ``__init_subclass__`` may keep hold. And the caller's own classes come back as copies
    of what they are in a worker, with methods that do not see this process's
    ``__main__``, and cloudpickle would make them that here.
    """

    def find_class(self, module: str, name: str) -> Any:
        found = super().find_class(module, name)
        if cloudpickle_classes.makes_class(name):
            return functools.partial(_make_empty, found)
        return (
            functools.partial(_set_state, found) if cloudpickle_classes.fills_class(name) else found
        )


def _make_empty(make: Any, *args: Any) -> Any:
    """Make a class, or find it by the number that cloudpickle has given it."""
    with _one_at_a_time:  # another thread would take what was just made for one of its own
        kind = cloudpickle_classes.find_class(args)
        if kind is None:
            kind = make(*args)
            _came.add(kind)
    return kind


# reentrant, since a metaclass may unpickle
_one_at_a_time: Final = threading.RLock()


def _set_state(set_state: Any, kind: Any, state: object) -> object:
    if not (ThisProcess.is_worker or kind in _came):
        return kind
    Filled.count += 1
    return set_state(kind, state)


class Filled:
    """How often a class was filled."""

    count = 0
