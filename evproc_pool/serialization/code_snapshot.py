"""Detects whether a class or a function has changed since it was pickled by value.

A snapshot holds the parts of a class or function: the attributes of a class; the code, defaults and
globals of its methods; and the same of every class and function among these that also goes by
value. It compares identities only.
"""

from __future__ import annotations

import enum
import functools
import operator
import sys
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from evproc_pool.serialization.basics import lives_in_main
from evproc_pool.serialization.name_watch import NameWatch, cells_that_change, content_of


def goes_by_value(named: Any) -> bool:
    """Whether a class or a function cannot be imported."""
    return lives_in_main(named) or "<locals>" in named.__qualname__


class CodeSnapshot:
    """The parts of classes and functions.

    Args:
        parts: The classes and functions.
        with_data: Whether to include class attributes that are neither classes nor functions.

    Attributes:
        must_not_mutate: Parts whose in-place changes this does not detect. Without names like
            ``__doc__``, which belong to Python and its library.
    """

    def __init__(self, *parts: Any, with_data: bool = True) -> None:
        self._with_data = with_data
        self._names = NameWatch()
        self.must_not_mutate: list[Any] = []
        self._seen: set[int] = set()
        self._classes: list[tuple[type, tuple[type, ...]]] = []
        # Namespaces: the mapping, the names, and the parts; all of them, or only definitions.
        self._maps: list[tuple[Mapping[str, Any], list[str], list[Any]]] = []
        # Other parts: how to get them, by which keys, and what they were.
        self._parts: list[tuple[Callable[[Any], Any], Sequence[Any], Sequence[Any]]] = []
        for part in parts:
            self._add(part)

    @property
    def names_are_unchanged(self) -> bool:
        """Whether no global and no shared variable of functions was redefined.

        Much faster than `is_up_to_date`, which also detects changes of classes and functions: an
        attribute of a class, the code of a function.
        """
        return self._names.are_unchanged

    @property
    def is_up_to_date(self) -> bool:
        """Whether no part was replaced, added or removed."""
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
        """The classes that are sent with it, itself included."""
        return [kind for kind, _ in self._classes]

    def _add(self, part: Any) -> None:  # noqa: C901, PLR0912 - a case each
        """Add the parts of an object, if they are sent with the class."""
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
            case _ if type(part) is type(names_in):  # an `lru_cache`
                self._add(part.__wrapped__)
            case _:
                self._add_class(type(part))

    def _is_new(self, part: Any) -> bool:
        if id(part) in self._seen:
            return False
        self._seen.add(id(part))
        return goes_by_value(part)

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
                self.must_not_mutate.append(part)
            self._add(part)
        if isinstance(kind, enum.EnumMeta):
            members: Iterable[Any] = kind.__members__.values()
            for member in members:
                for name, part in self._add_map(vars(member)):
                    if name not in _OF_PYTHON:
                        self.must_not_mutate.append(part)

    def _add_function(self, function: types.FunctionType) -> None:
        if not self._is_new(function):
            return
        own = (function.__code__, function.__defaults__, function.__kwdefaults__)
        self._parts.append((function.__getattribute__, _OF_FUNCTIONS, own))
        cells = function.__closure__ or ()
        if _is_library(function):
            # a function that a decorator of the standard library has made of a user's function
            for part in map(content_of, cells):
                if isinstance(part, types.FunctionType):
                    self._add(part)
            return
        if function.__dict__:
            self.must_not_mutate += [part for _, part in self._add_map(function.__dict__)]
        self.must_not_mutate += function.__defaults__ or ()
        self.must_not_mutate += (function.__kwdefaults__ or {}).values()
        self._names.watch(cells_that_change(function))
        contents = [*map(content_of, cells)]
        if contents:
            self._parts.append((content_of, cells, contents))
        found = function.__globals__
        used = [self._names.read(found, name) for name in names_in(function.__code__)]
        self.must_not_mutate += used + contents
        for part in used + contents:
            self._add(part)


def _definitions(known: Mapping[str, Any]) -> dict[str, Any]:
    return {name: part for name, part in known.items() if isinstance(part, _DEFINITIONS)}


def _is_library(function: types.FunctionType) -> bool:
    """Whether the standard library defines a function, whatever the function's name."""
    module = function.__globals__.get("__name__")
    return isinstance(module, str) and module.partition(".")[0] in sys.stdlib_module_names


# Names whose values Python and its library make when a class is made.
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


# Python adds it when it pickles the first instance.
_SLOT_NAMES: Final = "__slotnames__"


_OF_FUNCTIONS: Final = ("__code__", "__defaults__", "__kwdefaults__")


@functools.lru_cache(maxsize=1024)
def names_in(code: types.CodeType) -> tuple[str, ...]:
    """The globals that a function uses, also in functions within it."""
    import dis  # slow to import

    instructions = list(dis.get_instructions(code))
    # in the body of a class a name may be local
    own = {each.argval for each in instructions if each.opname == "STORE_NAME"}
    used = [each.argval for each in instructions if each.opname == "LOAD_GLOBAL"]
    used += [each.argval for each in instructions if each.opname == "LOAD_NAME"]
    names = dict.fromkeys(name for name in used if name not in own)
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            names.update(dict.fromkeys(names_in(const)))
    return tuple(names)


_DEFINITIONS: Final = (
    type,
    types.FunctionType,
    staticmethod,
    classmethod,
    property,
    functools.cached_property,
    functools.partial,
    type(names_in),
)
