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
import itertools
import operator
import os
import pickle
import re
import sys
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from evproc_pool import by_value
from evproc_pool.frame import Frame
from evproc_pool.names import Missing, Names, cells_that_change, content_of
from evproc_pool.pickling import MAIN, PROTOCOL, lives_in_main

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
    head = _pickled.head_of(kind) if _goes_by_value(kind) else None
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
        if not isinstance(content, type) or not _goes_by_value(content):
            return NotImplemented
        pickled = _pickled.of(content)
        if pickled is None:
            raise _ChangesUnseen
        self.classes[id(content)] = pickled[0]
        return load_class, pickled


def _goes_by_value(named: Any) -> bool:
    """Whether a class or a function cannot be imported."""
    return lives_in_main(named) or "<locals>" in named.__qualname__


class _Known:
    """A class that was pickled.

    Attributes:
        kind: The class.
        anatomy: What it was made of.
        version: A number that it has had with nothing else.
        data: What `load_class` takes; made when needed.
        head: The pickle of an instance without a state, but for its end; None where that
            is not all that there is to an instance, or not known yet.
    """

    def __init__(self, kind: type) -> None:
        self.kind = kind
        self.anatomy = Anatomy(kind)
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
        if known.data is None and all(map(_cannot_change, known.anatomy.delicate)):
            versions = {id(each): self._look_at(each).version for each in known.anatomy.kinds}
            known.data = by_value.dumps(kind, PROTOCOL), versions
            known.head = _head(kind, known.data)
        return known

    def _look_at(self, kind: type) -> _Known:
        known = self._known.get(id(kind))
        if known is None or not known.anatomy.is_up_to_date:
            if len(self._known) >= _MOST_CLASSES:
                self._known.clear()
            known = self._known[id(kind)] = _Known(kind)
        return known


_pickled: Final = _Pickled()


def _head(kind: type, data: tuple[bytes, _Versions]) -> bytes | None:
    from evproc_pool.packing import has_default_state

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


class Anatomy:
    """What classes and functions are made of.

    Args:
        parts: These.
        with_data: Whether attributes of classes count that are no classes and functions.

    Attributes:
        delicate: Of these parts none may be able to change in place. Not what stands behind
            names like ``__doc__``, which is Python's and its library's.
    """

    def __init__(self, *parts: Any, with_data: bool = True) -> None:
        self._with_data = with_data
        self._names = Names()
        self.delicate: list[Any] = []
        self._seen: set[int] = set()
        self._classes: list[tuple[type, tuple[type, ...]]] = []
        # What maps names to parts; to all of these, or only to those that are definitions.
        self._maps: list[tuple[Mapping[str, Any], list[str], list[Any]]] = []
        # How to ask for parts, by which names, and what the answers were.
        self._parts: list[tuple[Callable[[Any], Any], Sequence[Any], Sequence[Any]]] = []
        for part in parts:
            self._add(part)

    @property
    def names_are_unchanged(self) -> bool:
        """Whether nothing was defined anew: no global and no variable that functions share.

        Much quicker than `is_up_to_date`, which also finds what was changed in place: an
        attribute of a class, the code of a function.
        """
        return self._names.are_unchanged

    @property
    def is_up_to_date(self) -> bool:
        """Whether nothing was replaced, added or removed."""
        if not self._names.are_unchanged:
            return False
        for kind, mro in self._classes:
            if kind.__mro__ is not mro:
                return False
        for known, names, parts in self._maps:
            now = known if self._with_data else _definitions(known)
            if len(now) > len(names) and [*now] == [*names, _SLOT_NAMES]:
                names.append(_SLOT_NAMES)
                parts.append(now[_SLOT_NAMES])
            if [*now] != names or not all(map(operator.is_, now.values(), parts)):
                return False
        for ask, keys, parts_asked in self._parts:
            if not all(map(operator.is_, map(ask, keys), parts_asked)):
                return False
        return True

    @property
    def kinds(self) -> list[type]:
        """The classes that are sent with it, itself among them."""
        return [kind for kind, _ in self._classes]

    def _add(self, part: Any) -> None:  # noqa: C901, PLR0912 - a case each
        """Take in what a part is made of, if it is to be sent with the class."""
        match part:
            case types.FunctionType():
                self._add_function(part)
            case type():
                self._add_class(part)
            case staticmethod() | classmethod():
                self._add(part.__func__)
            case property():
                for accessor in (part.fget, part.fset, part.fdel):
                    self._add(accessor)
            case functools.cached_property() | functools.partial():
                self._add(part.func)
            case types.MethodType():
                self._add(part.__func__)
                self._add(part.__self__)
            case tuple() | list() | set() | frozenset() if id(part) not in self._seen:
                self._seen.add(id(part))
                for item in part:
                    self._add(item)
            case dict() if id(part) not in self._seen:
                self._seen.add(id(part))
                for item in part.values():
                    self._add(item)
            case _ if type(part) is type(_names_in):  # an `lru_cache`
                self._add(part.__wrapped__)
            case _:
                self._add_class(type(part))

    def _is_new(self, part: Any) -> bool:
        if id(part) in self._seen:
            return False
        self._seen.add(id(part))
        return _goes_by_value(part)

    def _add_map(self, known: Mapping[str, Any]) -> list[tuple[str, Any]]:
        now = known if self._with_data else _definitions(known)
        self._maps.append((known, [*now], [*now.values()]))
        return [*now.items()]

    def _add_class(self, kind: type) -> None:
        if not self._is_new(kind):
            return
        self._classes.append((kind, kind.__mro__))
        for base in (type(kind), *kind.__mro__[1:]):
            self._add_class(base)
        for name, part in self._add_map(vars(kind)):
            if name not in _OF_PYTHON:
                self.delicate.append(part)
            self._add(part)
        if isinstance(kind, enum.EnumMeta):
            members: Iterable[Any] = kind.__members__.values()
            for member in members:
                for name, part in self._add_map(vars(member)):
                    if name not in _OF_PYTHON:
                        self.delicate.append(part)

    def _add_function(self, function: types.FunctionType) -> None:
        if not self._is_new(function):
            return
        own = (function.__code__, function.__defaults__, function.__kwdefaults__)
        self._parts.append((function.__getattribute__, _OF_FUNCTIONS, own))
        cells = function.__closure__ or ()
        if _is_library(function):
            # what a decorator of the standard library has made of one of the user's
            for part in map(content_of, cells):
                if isinstance(part, types.FunctionType):
                    self._add(part)
            return
        if function.__dict__:
            self.delicate += [part for _, part in self._add_map(function.__dict__)]
        self.delicate += function.__defaults__ or ()
        self.delicate += (function.__kwdefaults__ or {}).values()
        self._names.watch(cells_that_change(function))
        contents = [*map(content_of, cells)]
        if contents:
            self._parts.append((content_of, cells, contents))
        found = function.__globals__
        used = [self._names.read(found, name) for name in _names_in(function.__code__)]
        self.delicate += used + contents
        for part in used + contents:
            self._add(part)


def _definitions(known: Mapping[str, Any]) -> dict[str, Any]:
    return {name: part for name, part in known.items() if isinstance(part, _DEFINITIONS)}


def _is_library(function: types.FunctionType) -> bool:
    """Whether a function was defined in the standard library, whatever it calls itself."""
    module = function.__globals__.get("__name__")
    return isinstance(module, str) and module.partition(".")[0] in sys.stdlib_module_names


# Of these names the parts are Python's and its library's: they are made when a class is.
_OF_PYTHON: Final = frozenset(
    """
    __module__ __qualname__ __doc__ __dict__ __weakref__ __slots__ __slotnames__ __classcell__
    __annotations__ __annotate__ __annotate_func__ __annotations_cache__ __conditional_annotations__
    __parameters__ __orig_bases__ __type_params__ __static_attributes__ __firstlineno__
    __abstractmethods__ _abc_impl __match_args__ __dataclass_fields__ __dataclass_params__
    _fields _field_defaults _field_types
    _member_names_ _member_map_ _value2member_map_ _unhashable_values_ _unhashable_values_map_
    _hashable_values_ _member_type_ _value_repr_ _use_args_ _new_member_ _generate_next_value_
    _flag_mask_ _singles_mask_ _all_bits_ _boundary_ _inverted_ _sort_order_ _ignore_
    _value_ _name_ __objclass__
    """.split()  # noqa: SIM905 - as a list it is a page long
)

# Which Python adds when it pickles the first instance.
_SLOT_NAMES: Final = "__slotnames__"

_OF_FUNCTIONS: Final = ("__code__", "__defaults__", "__kwdefaults__")


@functools.lru_cache(maxsize=1024)
def _names_in(code: types.CodeType) -> tuple[str, ...]:
    """The globals that a function uses, also in functions within it."""
    import dis  # takes a while

    instructions = list(dis.get_instructions(code))
    # in the body of a class a name may be one of its own
    own = {each.argval for each in instructions if each.opname == "STORE_NAME"}
    used = [each.argval for each in instructions if each.opname == "LOAD_GLOBAL"]
    used += [each.argval for each in instructions if each.opname == "LOAD_NAME"]
    names = dict.fromkeys(name for name in used if name not in own)
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            names.update(dict.fromkeys(_names_in(const)))
    return tuple(names)


_DEFINITIONS: Final = (
    type,
    types.FunctionType,
    staticmethod,
    classmethod,
    property,
    functools.cached_property,
    functools.partial,
    type(_names_in),
)

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
    type(_names_in),
    type(Frame.tag),  # a field of a named tuple
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
