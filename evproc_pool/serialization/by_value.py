"""Pickles by value, with cloudpickle and what it lacks.

A worker cannot import a class or a function of the main script, so cloudpickle sends its parts.
This module adds or changes:

- Functions behind `functools.lru_cache`: cloudpickle takes them for importable.
- `functools.cached_property`: cloudpickle refuses it if it holds a lock, up to Python 3.11.
- Enumerations: cloudpickle sends names and values, without what ``__init__`` or ``__new__`` gave
  the members, and without the names of combined flags.
- A file open for reading: cloudpickle sends its contents. Here it is an error, as with pickle.
- A memoryview: cloudpickle sends bytes. Here it stays a memoryview.
- Code: from version 3.1.3 on cloudpickle omits the file name, which tracebacks show.

A class is sent as it is at that time. In a worker it becomes what was sent last, but keeps
attributes that it has lost since. The caller's own classes, which come back as copies, stay as they
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
    """Pickle; `callback` returns for each buffer whether it goes into the pickle.

    Raises:
        Exception: Whatever pickling raised.
    """
    main = sys.modules.get("__mp_main__")
    if main is None:
        return _dumps(value, protocol, callback)
    # the main script's name in a child of multiprocessing
    with _main_by_value:
        if main.__name__ in cloudpickle.list_registry_pickle_by_value():
            return _dumps(value, protocol, callback)  # somebody else has registered it
        cloudpickle.register_pickle_by_value(main)
        try:
            return _dumps(value, protocol, callback)
        finally:
            cloudpickle.unregister_pickle_by_value(main)


# cloudpickle's registry is shared by all threads; reentrant, since pickling may pickle
_main_by_value: Final = threading.RLock()


def _dumps(value: object, protocol: int, callback: _Callback | None) -> bytes:
    with io.BytesIO() as file:
        _Pickler(file, protocol=protocol, buffer_callback=callback).dump(value)
        return file.getvalue()


def loads(data: bytes | bytearray | memoryview, buffers: Iterable[memoryview]) -> Any:
    """Unpickle what `dumps` returned, with the buffers that are not in it.

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
    """Whether each process has a file of its own like this."""
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
    """Make a cache. Its function comes later, since that may refer to the cache."""

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
    """Stands for the function of a property until that arrives."""


def _fill_property(made: Any, state: tuple[Callable[[Any], Any], str | None]) -> None:
    made.func, made.attrname = state
    made.__doc__ = made.func.__doc__


# --- classes on their way back ---

# Classes that arrived by value and do not belong to this process.
_came: Final[WeakSet[type]] = WeakSet()


class _Unpickler(pickle.Unpickler):
    """Reuses classes that arrived before, and leaves this process's own classes alone.

    A class that arrives by value is made empty, then filled. Two things go wrong with cloudpickle
    alone. It makes a known class again and throws it away, but a metaclass or an
    ``__init_subclass__`` may keep it. And the caller's own classes come back as copies of what they
    are in a worker, with methods that do not see this process's ``__main__``: cloudpickle would
    change the classes here to that.
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
    """Counts how often a class was filled."""

    count = 0
