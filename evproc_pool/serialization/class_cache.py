"""Pickles instances of the main script's classes as quickly as those of others.

A class that cannot be imported goes by value (`by_value`), which takes many times as long as
its instances. So it is pickled once, as long as it stays what it is, and goes as these bytes
(`dumps_apart`), and on the other side it is made once, as long as the same bytes come
(`load_class`). A class that was defined anew, by the next cell of a notebook for one, is
another class, and goes for itself; instances of the old one stay what they are.

`code_snapshot` says whether a class is still what it was. It compares identities, so it cannot
see a change in place, of a list for example: a class with such a part is pickled each time.
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

# So many classes are remembered; more than a program has.
_MOST_CLASSES: Final = 4096


def dumps_apart(
    value: object, protocol: int, callback: Callable[[pickle.PickleBuffer], bool] | None = None
) -> bytes | None:
    """Pickle in the usual way, but for classes that go by value.

    Args:
        value: What to pickle.
        protocol: Of pickle.
        callback: Asked about each buffer, whether it is in the pickle.

    Returns:
        What `pickle.loads` takes. None: there is more in it that has to go by value.

    Raises:
        BaseException: What code of the user's raised that is no `Exception`.
    """
    with io.BytesIO() as file:
        pickler = _Pickler(file, protocol=protocol, buffer_callback=callback)
        try:
            pickler.dump(value)
        except Exception:
            return None  # also of what has no name, a function for one
        data = file.getvalue()
    # other references into this process's main script than those in these classes
    mentioned = sum(each.count(MAIN) for each in pickler.classes.values())
    return data if data.count(MAIN) == mentioned else None


def dumps_instance(
    value: object, callback: Callable[[pickle.PickleBuffer], bool] | None = None
) -> bytes | None:
    """Pickle an instance of a class that goes by value, in half the time of `dumps_apart`.

    The result is the pickle of the class, which is ready, and that of the state.

    Args:
        value: What to pickle.
        callback: As there.

    Returns:
        As there. None also if the class does not pickle in Python's default way.

    Raises:
        BaseException: As there.
    """
    kind = type(value)
    head = _pickled.head_of(kind) if goes_by_value(kind) else None
    if head is None:
        return None
    state = value.__dict__
    if not state:
        return head + pickle.STOP
    try:
        data = pickle.dumps(state, PROTOCOL, buffer_callback=callback)
    except Exception:
        return None
    # an instance of this class in its own state is found by that, too
    return None if MAIN in data else b"".join((head, data[:-1], _SET_STATE))


_SET_STATE: Final = pickle.BUILD + pickle.STOP


class _ChangesUnseen(Exception):
    """Nobody would see whether a class has changed."""


class _Pickler(pickle.Pickler):
    """See `dumps_apart`.

    Attributes:
        classes: The classes that go by value, pickled, by their ids.
    """

    def __init__(self, file: io.BytesIO, **options: Any) -> None:
        super().__init__(file, **options)
        self.classes: dict[int, bytes] = {}

    def reducer_override(self, content: Any) -> Any:
        if not isinstance(content, type) or not goes_by_value(content):
            return NotImplemented
        pickled = _pickled.of(content)
        if pickled is None:
            raise _ChangesUnseen
        self.classes[id(content)] = pickled[0]
        return load_class, pickled


class _Known:
    """A class that was pickled.

    Attributes:
        kind: The class.
        snapshot: What it was made of.
        version: A number that it has had with nothing else.
        data: What `load_class` takes; made when needed.
        head: The pickle of an instance without a state, but for its end; None where that
            is not all that there is to an instance, or not known yet.
    """

    def __init__(self, kind: type) -> None:
        self.kind = kind
        self.snapshot = CodeSnapshot(kind)
        self.version = os.getpid(), next(_versions)
        self.data: tuple[bytes, _Versions] | None = None
        self.head: bytes | None = None


# Of a class, and of those that are pickled with it, by their ids.
_Versions = dict[int, tuple[int, int]]

_versions: Final = itertools.count()


class _Pickled:
    """Classes, pickled by value, as long as they are what they were."""

    def __init__(self) -> None:
        # by their ids, since a metaclass may have its own idea of equality
        self._known: dict[int, _Known] = {}

    def of(self, kind: type) -> tuple[bytes, _Versions] | None:
        """What `load_class` takes; None if nobody would see whether the class has changed."""
        return self._ready(kind).data

    def head_of(self, kind: type) -> bytes | None:
        """See `_Known`; None also if nobody would see whether the class has changed."""
        return self._ready(kind).head

    def _ready(self, kind: type) -> _Known:
        known = self._look_at(kind)
        if known.data is None and all(map(_cannot_change, known.snapshot.delicate)):
            versions = {id(each): self._look_at(each).version for each in known.snapshot.kinds}
            known.data = by_value.dumps(kind, PROTOCOL), versions
            known.head = _head(kind, known.data)
        return known

    def _look_at(self, kind: type) -> _Known:
        known = self._known.get(id(kind))
        if known is None or not known.snapshot.is_up_to_date:
            if len(self._known) >= _MOST_CLASSES:
                self._known.clear()
            known = self._known[id(kind)] = _Known(kind)
        return known


_pickled: Final = _Pickled()


def _head(kind: type, data: tuple[bytes, _Versions]) -> bytes | None:
    from evproc_pool.serialization.basics import has_default_state

    if not has_default_state(kind):
        return None
    with io.BytesIO() as file:
        pickler = pickle.Pickler(file, PROTOCOL)
        pickler.fast = True  # without a memo: the numbers in that of the state begin with 0
        pickler.dump(_Call(load_class, data))
        return file.getvalue().removesuffix(pickle.STOP) + pickle.EMPTY_TUPLE + pickle.NEWOBJ


class _Call(NamedTuple):
    """Pickles as a call."""

    function: Callable[..., Any]
    args: tuple[Any, ...]

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.args


# Instances of these stay as they are; of classes derived from them they may not.
_ATOMS: Final = frozenset(
    (type(None), bool, int, float, complex, str, bytes, range, type(Ellipsis), type(NotImplemented))
)

# Likewise, as far as anybody does anything else, where what they are made of does.
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

# Modules all of whose classes have such instances, or ones that a worker has its own of.
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
    """Classes that have come.

    Attributes:
        classes: By the bytes that they came as.
        versions: Which version each one is now, by the sender's ids, as far as is known.
        filled: How often a class had been filled when that was known.
    """

    def __init__(self) -> None:
        self.classes: dict[bytes, type] = {}
        self.versions: _Versions = {}
        self.filled = 0


_loaded: Final = _Loaded()


def load_class(pickled: bytes, versions: _Versions) -> type:
    """Make a class, or find it if it is what it was; see `dumps_apart`.

    Args:
        pickled: What it is made of, and those that it is pickled with.
        versions: Of all of these.

    Raises:
        Exception: Whatever unpickling raised.
    """
    if _loaded.filled != by_value.Filled.count:
        _loaded.versions.clear()  # some have come in another way
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
