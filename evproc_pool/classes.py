"""Pickles instances of the main script's classes as quickly as those of others.

A class that cannot be imported goes by value (`by_value`), which takes many times as long as
its instances. So it is pickled once, as long as it stays what it is, and goes as these bytes
(`dumps_apart`), and on the other side it is made once, as long as the same bytes come
(`load_class`). A class that was defined anew, by the next cell of a notebook for one, is
another class, and goes for itself; instances of the old one stay what they are.

Whether a class is still what it was is told by what it is made of: the attributes that it
has, and the code, defaults and globals of its methods, and the same of classes and functions
in these that go by value, too. None of that may have been replaced. Where something of
it may change in place, a list for one, nobody would see it: such a class is pickled each time.
"""

from __future__ import annotations

import enum
import functools
import io
import operator
import pickle
import re
import types
from collections.abc import Callable, Sequence
from typing import Any, Final
from weakref import WeakKeyDictionary

from evproc_pool import by_value
from evproc_pool.frame import Frame
from evproc_pool.pickling import MAIN, PROTOCOL, lives_in_main

# So many classes are remembered; more than a program has.
_MOST_CLASSES: Final = 256


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


class _ChangesUnseen(Exception):
    """Nobody would see whether a class has changed."""


class _Pickler(pickle.Pickler):
    """See `dumps_apart`.

    Attributes:
        classes: The classes that go by value, pickled.
    """

    def __init__(self, file: io.BytesIO, **options: Any) -> None:
        super().__init__(file, **options)
        self.classes: dict[type, bytes] = {}

    def reducer_override(self, content: Any) -> Any:
        if not isinstance(content, type) or not _goes_by_value(content):
            return NotImplemented
        pickled = _pickled.of(content)
        if pickled is None:
            raise _ChangesUnseen
        self.classes[content] = pickled
        return load_class, (pickled,)


def _goes_by_value(named: Any) -> bool:
    """Whether a class or a function cannot be imported."""
    return lives_in_main(named) or "<locals>" in named.__qualname__


class _Pickled:
    """Classes, pickled by value, as long as they are what they were."""

    def __init__(self) -> None:
        self._known: dict[type, tuple[Anatomy, bytes]] = {}

    def of(self, kind: type) -> bytes | None:
        """A class, pickled; None if nobody would see whether it has changed since."""
        known = self._known.get(kind)
        if known is not None and known[0].is_up_to_date:
            return known[1]
        anatomy = Anatomy(kind)
        if not all(map(_cannot_change, anatomy.delicate)):
            return None
        data = by_value.dumps(kind, PROTOCOL)
        if len(self._known) >= _MOST_CLASSES:
            self._known.clear()
        self._known[kind] = anatomy, data
        return data


_pickled: Final = _Pickled()


class Anatomy:
    """What classes and functions are made of.

    Args:
        parts: These.
        with_data: Whether attributes of classes count that are no classes and functions.

    Attributes:
        delicate: Of these parts none may be able to change in place. Not what stands behind
            names like ``__this__`` and ``_this_``, which is Python's and its library's.
    """

    def __init__(self, *parts: Any, with_data: bool = True) -> None:
        self._with_data = with_data
        self.delicate: list[Any] = []
        self._seen: set[int] = set()
        self._classes: list[tuple[type, tuple[type, ...], int]] = []
        # How to ask for parts, by which names, and what the answers were.
        self._parts: list[tuple[Callable[[Any], Any], Sequence[Any], Sequence[Any]]] = []
        for part in parts:
            self._add(part)

    @property
    def is_up_to_date(self) -> bool:
        """Whether nothing was replaced, added or removed."""
        for kind, mro, count in self._classes:
            if kind.__mro__ is not mro or _count(kind) != count:
                return False
        for ask, names, parts in self._parts:
            if not all(map(operator.is_, map(ask, names), parts)):
                return False
        return True

    def _add(self, part: Any) -> None:
        """Take in what a part is made of, if it is to be sent with the class."""
        if isinstance(part, types.FunctionType):
            self._add_function(part)
        elif isinstance(part, type):
            self._add_class(part)
        elif isinstance(part, (staticmethod, classmethod)):
            self._add(part.__func__)
        elif isinstance(part, property):
            for accessor in (part.fget, part.fset, part.fdel):
                self._add(accessor)
        elif isinstance(part, types.MethodType):
            self._add(part.__func__)
            self._add(part.__self__)
        elif isinstance(part, functools.partial):
            self._add(part.func)
        else:
            self._add_class(type(part))

    def _is_new(self, part: Any) -> bool:
        if id(part) in self._seen:
            return False
        self._seen.add(id(part))
        return _goes_by_value(part)

    def _add_class(self, kind: type) -> None:
        if not self._is_new(kind):
            return
        if self._with_data:
            self._classes.append((kind, kind.__mro__, _count(kind)))
        for base in kind.__mro__[1:]:
            self._add_class(base)
        own = {
            name: part
            for name, part in vars(kind).items()
            if isinstance(part, _DEFINITIONS) or (self._with_data and name != _SLOT_NAMES)
        }
        self._parts.append((vars(kind).get, (*own,), (*own.values(),)))
        for name, part in own.items():
            if not (name.startswith("_") and name.endswith("_")) and name not in _OF_PYTHON:
                self.delicate.append(part)
            self._add(part)

    def _add_function(self, function: types.FunctionType) -> None:
        if not self._is_new(function):
            return
        own = (function.__code__, function.__defaults__, function.__kwdefaults__)
        self._parts.append((function.__getattribute__, _OF_FUNCTIONS, own))
        self.delicate += function.__defaults__ or ()
        self.delicate += (function.__kwdefaults__ or {}).values()
        names = _names_in(function.__code__)
        cells = function.__closure__ or ()
        ask: Callable[[Any], Any] = function.__globals__.get
        self._add_used(ask, names)
        self._add_used(_content_of, cells)

    def _add_used(self, ask: Callable[[Any], Any], keys: Sequence[Any]) -> None:
        parts = tuple(map(ask, keys))
        if parts:
            self._parts.append((ask, keys, parts))
            self.delicate += parts
        for part in parts:
            self._add(part)


# Likewise: of abstract classes and named tuples.
_OF_PYTHON: Final = ("_abc_impl", "_field_defaults")

# Which Python adds to a class when it pickles an instance.
_SLOT_NAMES: Final = "__slotnames__"

_OF_FUNCTIONS: Final = ("__code__", "__defaults__", "__kwdefaults__")


def _count(kind: type) -> int:
    return len(vars(kind)) - (_SLOT_NAMES in vars(kind))


def _content_of(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # it is empty
        return None


@functools.lru_cache(maxsize=1024)
def _names_in(code: types.CodeType) -> tuple[str, ...]:
    """The globals that a function uses, also in functions within it."""
    import dis  # takes a while

    used = [each.argval for each in dis.get_instructions(code) if each.opname in _USE_GLOBALS]
    names = dict.fromkeys(used)
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            names.update(dict.fromkeys(_names_in(const)))
    return tuple(names)


_DEFINITIONS: Final = (type, types.FunctionType, staticmethod, classmethod, property)

_USE_GLOBALS: Final = ("LOAD_GLOBAL", "LOAD_NAME")

# Instances of these stay as they are, as far as anybody does anything else; others may not.
_FIXED: Final = (
    type(None),
    int,
    float,
    complex,
    str,
    bytes,
    range,
    type,
    enum.Enum,
    re.Pattern,
    types.FunctionType,
    types.BuiltinFunctionType,
    types.ModuleType,
    types.MemberDescriptorType,
    types.GetSetDescriptorType,
    staticmethod,
    classmethod,
    property,
    functools.cached_property,
    type(Frame.tag),  # a field of a named tuple
)


def _cannot_change(part: Any) -> bool:
    if isinstance(part, (tuple, frozenset)):
        return all(map(_cannot_change, part))
    return isinstance(part, _FIXED)


class _Loaded:
    """Classes that have come.

    Attributes:
        classes: By the bytes that they came as.
        latest: For each of them the bytes that it came as last.
    """

    def __init__(self) -> None:
        self.classes: dict[bytes, type] = {}
        self.latest: WeakKeyDictionary[type, bytes] = WeakKeyDictionary()


_loaded: Final = _Loaded()


def load_class(pickled: bytes) -> type:
    """Make a class, or find it if it is what it was; see `dumps_apart`.

    Raises:
        Exception: Whatever unpickling raised.
    """
    kind = _loaded.classes.get(pickled)
    if kind is None or _loaded.latest.get(kind) != pickled:
        kind = by_value.loads(pickled, ())
        if len(_loaded.classes) >= _MOST_CLASSES:
            _loaded.classes.clear()
        _loaded.classes[pickled] = kind
        _loaded.latest[kind] = pickled
    return kind
