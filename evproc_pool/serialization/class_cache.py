"""Pickles instances of the main script's classes as fast as those of other classes.

A class that cannot be imported goes by value (`by_value`), which takes many times as long as its
instances. So it is pickled once, as long as it does not change (`code_snapshot`), and the other
side makes it once, as long as the same bytes arrive. A redefined class, as of the next cell of a
notebook, is sent separately; instances of the old class keep their class. A class with a part that
may change in place, such as a list, is pickled each time: nothing would detect the change.
"""

from __future__ import annotations

import enum
import functools
import io
import itertools
import os
import pickle
import re
import sys
import types
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from evproc_pool.serialization import by_value
from evproc_pool.serialization.basics import MAIN, PROTOCOL, LruCache, has_default_state
from evproc_pool.serialization.code_snapshot import CodeSnapshot, goes_by_value, parts_within

_Callback = Callable[[pickle.PickleBuffer], bool]

# The most classes to remember: more than a program has.
_MOST_CLASSES: Final = 4096


def dumps_apart(value: object, callback: _Callback | None = None) -> bytes | None:
    """Pickle for `pickle.loads`, except for classes that go by value.

    `callback` returns for each buffer whether it goes into the pickle. Returns None if something
    else in it has to go by value. Raises only what is no `Exception`.
    """
    with io.BytesIO() as file:
        pickler = _Pickler(file, protocol=PROTOCOL, buffer_callback=callback)
        try:
            pickler.dump(value)
        except Exception:
            return None  # for example, it has a function that cannot be imported
        data = file.getvalue()
    # The main script's name also occurs outside of these classes: other references to it.
    return data if data.count(MAIN) == pickler.mentioned else None


def dumps_instance(value: object, callback: _Callback | None = None) -> bytes | None:
    """Pickle an instance of a class that goes by value, in half the time of `dumps_apart`.

    The result joins the cached pickle of the class and the pickle of the state. None also if the
    class does not pickle in Python's default way. The rest is as in `dumps_apart`.
    """
    kind = type(value)
    head = _cached(kind).head if goes_by_value(kind) else None
    if head is None:
        return None
    state = value.__dict__
    if not state:
        return head + pickle.STOP
    try:
        data = pickle.dumps(state, PROTOCOL, buffer_callback=callback)
    except Exception:
        return None
    # this also finds an instance of this class in its own state
    return None if MAIN in data else b"".join((head, data[:-1], pickle.BUILD, pickle.STOP))


class _Pickler(pickle.Pickler):
    """The pickler of `dumps_apart`; counts how often the classes mention the main script."""

    mentioned = 0

    def reducer_override(self, content: Any) -> Any:
        if not isinstance(content, type) or not goes_by_value(content):
            return NotImplemented
        data = _cached(content).data
        if data is None:
            raise pickle.PicklingError("a class may change in place, which nothing would detect")
        self.mentioned += data[0].count(MAIN)
        return load_class, data


# Versions of a class and of the classes that are pickled with it, by their ids.
_Versions = dict[int, tuple[int, int]]

_versions: Final = itertools.count()


class _CachedClass:
    """A class and its pickle, valid as long as the class does not change.

    Attributes:
        snapshot: Its parts when it was pickled, the class itself included.
        version: A number for this state of the class, unique across processes.
        data: The arguments of `load_class`. None: the class may change unseen, or it is not made
            yet.
        head: The pickle of an instance without a state, except for its end. None: likewise, or
            instances have more than a state.
    """

    def __init__(self, kind: type) -> None:
        self.snapshot = CodeSnapshot(kind)
        self.version = os.getpid(), next(_versions)
        self.data: tuple[bytes, _Versions] | None = None
        self.head: bytes | None = None


# by the ids of the classes: a metaclass may define equality
_known: Final[dict[int, _CachedClass]] = {}


def _cached(kind: type) -> _CachedClass:
    """The class as it is now, with its pickle."""
    known = _up_to_date(kind)
    if known.data is None and all(map(_cannot_change, known.snapshot.must_not_mutate)):
        versions = {id(each): _up_to_date(each).version for each in known.snapshot.kinds}
        known.data = by_value.dumps(kind), versions
        known.head = _head(kind, known.data)
    return known


def _up_to_date(kind: type) -> _CachedClass:
    known = _known.get(id(kind))
    if known is None or not known.snapshot.is_up_to_date:
        if len(_known) >= _MOST_CLASSES:
            _known.clear()
        known = _known[id(kind)] = _CachedClass(kind)
    return known


def _head(kind: type, data: tuple[bytes, _Versions]) -> bytes | None:
    if not has_default_state(kind):
        return None
    with io.BytesIO() as file:
        pickler = pickle.Pickler(file, PROTOCOL)
        pickler.fast = True  # no memo: the memo numbers of the state's pickle begin with 0
        pickler.dump(_Call(load_class, data))
        return file.getvalue().removesuffix(pickle.STOP) + pickle.EMPTY_TUPLE + pickle.NEWOBJ


class _Call(NamedTuple):
    """Pickles as a call."""

    function: Callable[..., Any]
    args: tuple[Any, ...]

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.args


# Instances of these classes never change; those of derived classes may.
_ATOMS: Final = frozenset(
    (type(None), bool, int, float, complex, str, bytes, range, type(Ellipsis), type(NotImplemented))
)

# Likewise in practice, as long as their parts do not change; derived classes included.
_FIXED: Final = (
    type,
    enum.Enum,
    re.Pattern,
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MemberDescriptorType,
    types.GetSetDescriptorType,
    types.WrapperDescriptorType,
    types.MethodDescriptorType,
    functools.cached_property,
    LruCache,
    type(_Call.function),  # a field of a named tuple
)

# Instances of these never change if the parts do not.
_WRAPPERS: Final = frozenset((tuple, frozenset, staticmethod, classmethod, property))

# Modules whose classes all have such instances, or instances of which each worker has its own.
_FIXED_MODULES: Final = frozenset(
    ("dataclasses", "datetime", "decimal", "fractions", "logging", "pathlib", "typing", "uuid")
)


def _cannot_change(part: Any) -> bool:
    kind = type(part)
    if kind in _ATOMS or isinstance(part, _FIXED):
        return True
    if kind in _WRAPPERS:
        return all(map(_cannot_change, parts_within(part)))
    if kind is types.ModuleType:
        return sys.modules.get(part.__name__) is part
    return kind.__module__ in _FIXED_MODULES


class _Loaded:
    """Classes that have arrived.

    Attributes:
        classes: The classes, by their pickles.
        versions: The current version of each class, by the sender's ids, if known.
        filled: The value of `Filled.count` when the versions were known.
    """

    def __init__(self) -> None:
        self.classes: dict[bytes, type] = {}
        self.versions: _Versions = {}
        self.filled = 0


_loaded: Final = _Loaded()


def load_class(pickled: bytes, versions: _Versions) -> type:
    """Make a class, or find it if it has not changed; see `dumps_apart`.

    `versions` are those of the class and of the classes that are pickled with it.
    """
    if _loaded.filled != by_value.Filled.count:
        _loaded.versions.clear()  # some classes arrived in another way
    kind = _loaded.classes.get(pickled)
    if kind is None or not versions.items() <= _loaded.versions.items():
        kind = by_value.loads(pickled, ())
        if len(_loaded.classes) >= _MOST_CLASSES:
            _loaded.classes.clear()
            _loaded.versions.clear()
        _loaded.classes[pickled] = kind
        _loaded.versions.update(versions)
    _loaded.filled = by_value.Filled.count
    return kind
