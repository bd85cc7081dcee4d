"""Pickles instances of the main script's classes as fast as those of other classes.

A class that cannot be imported goes by value (`by_value`), which takes many times as long as its
instances. So this module pickles it once, as long as it does not change, and sends these bytes
(`dumps_apart`). The other side makes it once, as long as the same bytes arrive (`load_class`). If
a class is redefined, as by the next cell of a notebook, the new class is sent separately;
instances of the old class keep their class.

`code_snapshot` says whether a class has changed. It compares identities, so it cannot detect an
in-place change, of a list for example. A class with such a part is pickled each time.
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
from evproc_pool.serialization.basics import MAIN, PROTOCOL
from evproc_pool.serialization.code_snapshot import CodeSnapshot, goes_by_value, names_in
from evproc_pool.serialization.name_watch import Missing

# The most classes to remember: more than a program has.
_MOST_CLASSES: Final = 4096


def dumps_apart(
    value: object, protocol: int, callback: Callable[[pickle.PickleBuffer], bool] | None = None
) -> bytes | None:
    """Pickle in the usual way, except for classes that go by value.

    `callback` returns for each buffer whether it goes into the pickle.

    Returns:
        A pickle for `pickle.loads`. None: something else in it has to go by value.

    Raises:
        BaseException: User code raised what is no `Exception`.
    """
    with io.BytesIO() as file:
        pickler = _Pickler(file, protocol=protocol, buffer_callback=callback)
        try:
            pickler.dump(value)
        except Exception:
            return None  # for example, it has a function that cannot be imported
        data = file.getvalue()
    # The main script's name also occurs outside of these classes: other references to it.
    mentioned = sum(each.count(MAIN) for each in pickler.classes.values())
    return data if data.count(MAIN) == mentioned else None


def dumps_instance(
    value: object, callback: Callable[[pickle.PickleBuffer], bool] | None = None
) -> bytes | None:
    """Pickle an instance of a class that goes by value, in half the time of `dumps_apart`.

    The result joins the cached pickle of the class and the pickle of the state. None also if the
    class does not pickle in Python's default way. The rest is as in `dumps_apart`.
    """
    kind = type(value)
    head = _class_pickles.head_of(kind) if goes_by_value(kind) else None
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
    return None if MAIN in data else b"".join((head, data[:-1], _SET_STATE))


_SET_STATE: Final = pickle.BUILD + pickle.STOP


class _MayChangeUnseen(Exception):
    """A class may change in place, which nothing would detect."""


class _Pickler(pickle.Pickler):
    """The pickler of `dumps_apart`.

    Attributes:
        classes: The pickles of classes that go by value, by the ids of the classes.
    """

    def __init__(self, file: io.BytesIO, **options: Any) -> None:
        super().__init__(file, **options)
        self.classes: dict[int, bytes] = {}

    def reducer_override(self, content: Any) -> Any:
        if not isinstance(content, type) or not goes_by_value(content):
            return NotImplemented
        pickled = _class_pickles.of(content)
        if pickled is None:
            raise _MayChangeUnseen
        self.classes[id(content)] = pickled[0]
        return load_class, pickled


class _CachedClass:
    """A class and its pickle.

    Attributes:
        kind: The class.
        snapshot: Its parts when it was pickled.
        version: A number for this state of the class, unique across processes.
        data: The arguments of `load_class`; made when needed.
        head: The pickle of an instance without a state, except for its end. None: instances have
            more than that, or it is not made yet.
    """

    def __init__(self, kind: type) -> None:
        self.kind = kind
        self.snapshot = CodeSnapshot(kind)
        self.version = os.getpid(), next(_versions)
        self.data: tuple[bytes, _Versions] | None = None
        self.head: bytes | None = None


# Versions of a class and of the classes that are pickled with it, by their ids.
_Versions = dict[int, tuple[int, int]]

_versions: Final = itertools.count()


class _ClassPickles:
    """Pickles of classes by value, valid as long as the classes do not change."""

    def __init__(self) -> None:
        # by their ids: a metaclass may define equality
        self._known: dict[int, _CachedClass] = {}

    def of(self, kind: type) -> tuple[bytes, _Versions] | None:
        """The arguments of `load_class`; None if the class may change unseen."""
        return self._ready(kind).data

    def head_of(self, kind: type) -> bytes | None:
        """See `_CachedClass.head`; None also if the class may change unseen."""
        return self._ready(kind).head

    def _ready(self, kind: type) -> _CachedClass:
        known = self._up_to_date(kind)
        if known.data is None and all(map(_cannot_change, known.snapshot.must_not_mutate)):
            versions = {id(each): self._up_to_date(each).version for each in known.snapshot.kinds}
            known.data = by_value.dumps(kind, PROTOCOL), versions
            known.head = _head(kind, known.data)
        return known

    def _up_to_date(self, kind: type) -> _CachedClass:
        known = self._known.get(id(kind))
        if known is None or not known.snapshot.is_up_to_date:
            if len(self._known) >= _MOST_CLASSES:
                self._known.clear()
            known = self._known[id(kind)] = _CachedClass(kind)
        return known


_class_pickles: Final = _ClassPickles()


def _head(kind: type, data: tuple[bytes, _Versions]) -> bytes | None:
    from evproc_pool.serialization.basics import has_default_state

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
    type(names_in),
    type(_Call.function),  # a field of a named tuple
)

# Modules whose classes all have such instances, or instances of which each worker has its own.
_FIXED_MODULES: Final = frozenset(
    ("dataclasses", "datetime", "decimal", "fractions", "logging", "pathlib", "typing", "uuid")
)


def _cannot_change(part: Any) -> bool:
    kind = type(part)
    if kind in _ATOMS or part is Missing or isinstance(part, _FIXED):
        return True
    if kind in (tuple, frozenset):
        return all(map(_cannot_change, part))
    if kind in (staticmethod, classmethod):
        return _cannot_change(part.__func__)
    if kind is property:
        return all(map(_cannot_change, (part.fget, part.fset, part.fdel)))
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

    Raises:
        Exception: Whatever unpickling raised.
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
