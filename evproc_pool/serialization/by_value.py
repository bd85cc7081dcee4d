"""Pickles by value, with cloudpickle and what it lacks.

A worker cannot import a class or a function of the main script, so cloudpickle sends its parts, as
they are at that time. In a worker a class becomes what was sent last, but keeps attributes that it
has lost since. The caller's own classes, which come back as copies, stay as they are.
"""

from __future__ import annotations

import contextlib
import enum
import functools
import io
import operator
import pickle
import sys
import threading
import types
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final
from weakref import WeakSet

import cloudpickle

from evproc.event import class_name
from evproc_pool.internals import cloudpickle_classes
from evproc_pool.internals.stdlib_multiprocessing import is_shared
from evproc_pool.serialization.basics import (
    PROTOCOL,
    LazyImport,
    LruCache,
    ThisProcess,
)
from evproc_pool.serialization.named_in_main import is_in_main, main_of, reduce_named


def dumps(value: object, callback: Callable[[pickle.PickleBuffer], bool] | None = None) -> bytes:
    """Pickle; `callback` returns for each buffer whether it goes into the pickle."""
    with io.BytesIO() as file:
        return _dump(value, _Pickler(file, protocol=PROTOCOL, buffer_callback=callback), file)


def dumps_sharing(value: object) -> tuple[bytes, list[Any]]:
    """Pickle. Return the pickle, and what a new process must be given to unpickle it."""
    with io.BytesIO() as file:
        pickler = _SharingPickler(file, protocol=PROTOCOL)
        pickler.shared = []
        return _dump(value, pickler, file), pickler.shared


def dumps_module(module: types.ModuleType) -> bytes:
    """Pickle the classes and functions that a module defines, by their names."""
    definitions = {
        name: each
        for name, each in vars(module).items()
        if isinstance(each, (type, types.FunctionType)) and each.__module__ == module.__name__
    }
    with io.BytesIO() as file:
        return _dump(definitions, _Pickler(file, protocol=PROTOCOL), file, module)


def _dump(
    value: object, pickler: _Pickler, file: io.BytesIO, module: types.ModuleType | None = None
) -> bytes:
    # the main script's name in a child of multiprocessing
    own = module or sys.modules.get("__mp_main__")
    with contextlib.ExitStack() as at_end:
        if own is not None:
            at_end.enter_context(_own_by_value)
            if own.__name__ not in cloudpickle.list_registry_pickle_by_value():
                cloudpickle.register_pickle_by_value(own)
                at_end.callback(cloudpickle.unregister_pickle_by_value, own)
        pickler.dump(value)
        return file.getvalue()


# cloudpickle's registry is shared by all threads; reentrant, since pickling may pickle
_own_by_value: Final = threading.RLock()


def loads(
    data: bytes | bytearray | memoryview, buffers: Iterable[memoryview], shared: Sequence[Any] = ()
) -> Any:
    """Unpickle what `dumps` or `dumps_sharing` returned, with what is not in it."""
    if not cloudpickle_classes.IS_KNOWN:
        Filled.count += 1  # nobody can say whether a class was filled
    unpickler = _Unpickler(io.BytesIO(data), buffers=buffers)
    unpickler.shared = shared
    return unpickler.load()


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # it has no types
    def reducer_override(self, content: Any) -> Any:  # noqa: PLR0911 - a case each
        kind = type(content)
        # cloudpickle sends the contents of a file; here it is an error, except for standard files
        if isinstance(content, io.TextIOWrapper) and content not in (sys.stdout, sys.stderr):
            raise TypeError(f"cannot pickle '{class_name(kind)}' object")
        # cloudpickle sends bytes
        if kind is memoryview and content.ndim == len(content.format) == 1:
            data = content.tobytes()
            return _make_view, (data if content.readonly else bytearray(data), content.format)
        # from version 3.1.3 on cloudpickle omits the file name, which tracebacks show
        if kind is types.CodeType:
            reduced = cloudpickle_classes.reduce_code(self.dispatch_table, content)
            if reduced is not None:
                return _make_code, (*reduced, content.co_filename)
        # Cloudpickle takes these for importable. The function arrives later, like the next one: it
        # may refer to this object.
        if kind is LruCache and not _can_be_imported(content):
            parameters, function = content.cache_parameters(), content.__wrapped__
            return _make_cached, (parameters,), function, None, None, functools.update_wrapper
        if kind is LazyImport:
            return _reduce_lazy_import(content)
        named = reduce_named(content)
        if named is not None:
            return named
        # cloudpickle refuses it up to Python 3.11, where it has a lock
        if kind is functools.cached_property:
            state = {name: part for name, part in vars(content).items() if name != "lock"}
            return functools.cached_property, (len,), state
        reduced = super().reducer_override(content)
        if isinstance(content, enum.EnumMeta):
            reduced = cloudpickle_classes.with_members(content, reduced)
        is_definition = isinstance(content, (type, types.FunctionType))
        return _with_place(content, reduced) if is_definition else reduced


def _with_place(named: Any, reduced: Any) -> Any:
    """Have a worker's ``__main__`` hold a class or a function, if the one here holds it.

    A handler may pickle it by its name, to a file for example.
    """
    if not isinstance(reduced, tuple) or not is_in_main(named):
        return reduced
    make, args, *rest = reduced
    return _make_in_main, (named.__module__, named.__qualname__, make, *args), *rest


def _make_in_main(module: str, name: str, make: Any, *args: Any) -> Any:
    made = make(*args)
    if ThisProcess.is_worker:
        vars(main_of(module))[name] = made
    return made


class _SharingPickler(_Pickler):
    shared: list[Any]

    def persistent_id(self, content: Any) -> int | None:
        if not is_shared(content):
            return None
        self.shared.append(content)
        return len(self.shared) - 1


def _make_view(data: bytes | bytearray, kind: Any) -> memoryview:
    return memoryview(data).cast(kind)


def _make_code(make: Any, args: Any, filename: str) -> types.CodeType:
    code: types.CodeType = make(*args)
    return code.replace(co_filename=filename)


def _reduce_lazy_import(content: Any) -> Any:
    """What it imports; if that fails, as it may, a lazy import that fails where it is used."""
    try:
        return _same, (content.resolve(),)
    except ImportError as error:
        if error.name is None:
            raise
        name, part = error.name, getattr(error, "name_from", None)
        return _import_lazily, (f"from {name} import {part}" if part else f"import {name}",)


def _same(content: Any) -> Any:
    return content


def _import_lazily(statement: str) -> Any:
    space: dict[str, Any] = {}
    exec(f"lazy {statement} as found", space)  # noqa: S102 - no syntax of Python 3.14
    return space["found"]


def _can_be_imported(function: Any) -> bool:
    module = function.__module__
    try:
        found = operator.attrgetter(function.__qualname__)(sys.modules.get(module))
    except AttributeError:
        return False
    is_by_value = module == "__main__" or module in cloudpickle.list_registry_pickle_by_value()
    return found is function and not is_by_value


def _make_cached(parameters: dict[str, Any]) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        return cached.__wrapped__(*args, **kwargs)

    cached: Any = functools.lru_cache(**parameters)(call)
    return cached


# --- classes on their way back ---

# Classes that arrived by value and do not belong to this process.
_came: Final[WeakSet[type]] = WeakSet()


class Filled:
    """Counts how often a class was filled."""

    count = 0


class _Unpickler(pickle.Unpickler):
    """Reuses classes that arrived before, and leaves this process's own classes alone.

    A class that arrives by value is made empty, then filled. Two things go wrong with cloudpickle
    alone. It makes a known class again and throws it away, but a metaclass or an
    ``__init_subclass__`` may keep it. And the caller's own classes come back as copies of what they
    are in a worker, with methods that do not see this process's ``__main__``: cloudpickle would
    change the classes here to that.
    """

    shared: Sequence[Any]

    def persistent_load(self, place: int) -> Any:
        return self.shared[place]

    def find_class(self, module: str, name: str) -> Any:
        found = super().find_class(module, name)
        if not cloudpickle_classes.IS_KNOWN:
            return found
        if cloudpickle_classes.makes_class(name):
            return functools.partial(_make_empty, found)
        if cloudpickle_classes.fills_class(name):
            return functools.partial(_set_state, found)
        return found


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
