"""Detects whether a class or a function has changed since it was pickled by value.

A snapshot holds the parts of a class or function: the attributes of a class; the code, defaults and
globals of its methods; and the same of every class and function among these that also goes by
value. It compares identities only, so it does not detect in-place changes.
"""

from __future__ import annotations

import contextlib
import enum
import functools
import operator
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from evproc_pool.internals.cpython import IN_TUPLE, counts_of
from evproc_pool.serialization.basics import LazyImport, LruCache, lives_in_main


class Missing:
    """Stands for a value that does not exist."""


# --- names and cells ---


class NameWatch:
    """Names of modules and cells of closures, with their values when first read.

    `are_unchanged` is checked at every call of a pool. It costs about 25 ns for each distinct name,
    however many functions use it: one call into C reads the names of a module, and another one
    compares them, if ``==`` compares identities, as of functions, classes and modules.
    """

    def __init__(self) -> None:
        # by the ids of the modules' dictionaries
        self._spaces: dict[int, tuple[dict[str, Any], dict[str, Any]]] = {}
        self._cells: dict[int, tuple[types.CellType, Any]] = {}
        self._checks: tuple[Callable[[], bool], ...] | None = None

    def read(self, space: dict[str, Any], name: str) -> Any:
        """Return the value of a name, the same each time; `Missing` if it has none."""
        _, values = self._spaces.setdefault(id(space), (space, {}))
        if name not in values:
            value = space.get(name, Missing)
            if type(value) is LazyImport:
                # its first use would replace it, which is no redefinition
                with contextlib.suppress(ImportError):
                    space[name] = value = value.resolve()
            values[name] = value
            self._checks = None
        return values[name]

    def watch(self, cells: Iterable[types.CellType]) -> None:
        """Watch cells as well."""
        for cell in cells:
            self._cells.setdefault(id(cell), (cell, content_of(cell)))
        self._checks = None

    @property
    def are_unchanged(self) -> bool:
        """Whether all names and cells have the values that they had."""
        if self._checks is None:
            self._checks = tuple(self._make_checks())
        try:
            for check in self._checks:
                if not check():
                    return False
        except Exception:
            return False  # a name is gone, or its value cannot be compared
        return True

    def _make_checks(self) -> Iterator[Callable[[], bool]]:
        for space, values in self._spaces.values():
            alike = [name for name, value in values.items() if _is_compared_by_identity(value)]
            missing = [name for name, value in values.items() if value is Missing]
            others = [*values.keys() - {*alike, *missing}]
            for names, is_unchanged in ((alike, _are_equal), (others, _are_same)):
                if names:
                    # an `itemgetter` of one name returns no tuple
                    read = operator.itemgetter(*(names if len(names) > 1 else 2 * names))
                    yield functools.partial(is_unchanged, read, space, read(values))
            if missing:
                yield functools.partial(space.keys().isdisjoint, missing)
        if self._cells:
            cells, contents = zip(*self._cells.values(), strict=True)
            yield functools.partial(_are_same, functools.partial(map, content_of), cells, contents)


def _is_compared_by_identity(value: object) -> bool:
    is_definition = isinstance(value, (types.FunctionType, types.ModuleType, type))
    # a metaclass may define equality
    return is_definition and value is not Missing and type(value).__eq__ is object.__eq__


def _are_equal(read: Callable[[Any], Iterable[Any]], source: Any, then: Sequence[Any]) -> bool:
    return then == read(source)


def _are_same(read: Callable[[Any], Iterable[Any]], source: Any, then: Sequence[Any]) -> bool:
    return all(map(operator.is_, read(source), then))


def content_of(cell: types.CellType) -> Any:
    """Return the content of a cell; `Missing` if it is empty."""
    try:
        return cell.cell_contents
    except ValueError:
        return Missing


def cells_that_change(function: types.FunctionType) -> list[types.CellType]:
    """Return the cells of a closure to which code may still assign.

    If nothing else refers to a cell, it belongs to this function alone: the function that made it
    has ended, and no other function shares it. Handlers made in a loop have thousands of these. (An
    assignment to `cell_contents` is an in-place change.)
    """
    cells = function.__closure__ or ()
    names = function.__code__.co_freevars
    assigned = _names_in(function.__code__).assigned
    return [
        cell
        for cell, name, count in zip(cells, names, counts_of(cells), strict=True)
        if count > IN_TUPLE or name in assigned
    ]


class _Names(NamedTuple):
    """Globals that a function uses, and outer variables that it assigns to, or one within it."""

    used: list[str]
    assigned: set[str]


@functools.lru_cache(maxsize=1024)
def _names_in(code: types.CodeType) -> _Names:
    import dis  # slow to import

    found = [(each.opname, each.argval) for each in dis.get_instructions(code)]
    # in the body of a class a name may be local
    local = {name for opname, name in found if opname == "STORE_NAME"}
    used = {name for opname, name in found if opname in ("LOAD_GLOBAL", "LOAD_NAME")} - local
    assigned = {name for opname, name in found if opname in ("STORE_DEREF", "DELETE_DEREF")}
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            used.update(_names_in(const).used)
            assigned |= _names_in(const).assigned
    return _Names(sorted(used), assigned)


# --- parts ---


def goes_by_value(named: Any) -> bool:
    """Whether a class or a function cannot be imported."""
    return lives_in_main(named) or "<locals>" in named.__qualname__


def parts_within(wrapper: Any) -> Iterable[Any]:  # noqa: PLR0911 - a case each
    """The objects in a container, or behind a descriptor or a wrapped function."""
    match wrapper:
        case staticmethod() | classmethod():
            return (wrapper.__func__,)
        case property():
            return wrapper.fget, wrapper.fset, wrapper.fdel
        case functools.cached_property() | functools.partial():
            return (wrapper.func,)
        case types.MethodType():
            return wrapper.__func__, wrapper.__self__
        case LruCache():
            return (wrapper.__wrapped__,)
        case dict():
            return wrapper.values()
        case tuple() | list() | set() | frozenset():
            return wrapper
    return ()


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
        """Whether no global and no shared variable of functions was redefined; much faster."""
        return self._names.are_unchanged

    @property
    def is_up_to_date(self) -> bool:
        """Whether no part was replaced, added or removed, attributes and code included."""
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

    def _add(self, part: Any) -> None:
        """Add the parts of an object, if they are sent with the class."""
        if isinstance(part, types.FunctionType):
            self._add_function(part)
        elif isinstance(part, type):
            self._add_class(part)
        elif id(part) not in self._seen:
            self._seen.add(id(part))
            for each in parts_within(part):
                self._add(each)
            self._add_class(type(part))

    def _is_new(self, part: Any) -> bool:
        if id(part) in self._seen:
            return False
        self._seen.add(id(part))
        return goes_by_value(part)

    def _add_map(self, known: Mapping[str, Any]) -> list[Any]:
        """Add a namespace, and return its parts."""
        now = known if self._with_data else _definitions(known)
        parts = [*now.values()]
        self._maps.append((known, [*now], parts))
        self.must_not_mutate += [part for name, part in now.items() if name not in _OF_PYTHON]
        return parts

    def _add_class(self, kind: type) -> None:
        if not self._is_new(kind):
            return
        self._classes.append((kind, kind.__mro__))
        for base in (type(kind), *kind.__mro__[1:]):
            self._add_class(base)
        for part in self._add_map(vars(kind)):
            self._add(part)
        if isinstance(kind, enum.EnumMeta):
            members: Iterable[Any] = kind.__members__.values()
            for member in members:
                self._add_map(vars(member))

    def _add_function(self, function: types.FunctionType) -> None:
        if not self._is_new(function):
            return
        ask, names = function.__getattribute__, ("__code__", "__defaults__", "__kwdefaults__")
        self._parts.append((ask, names, [*map(ask, names)]))
        cells = function.__closure__ or ()
        contents = [*map(content_of, cells)]
        found = function.__globals__
        module = found.get("__name__")
        if isinstance(module, str) and module.partition(".")[0] in sys.stdlib_module_names:
            # A decorator of the standard library has made it of a user's function, and may have
            # given it that function's name.
            for part in contents:
                if isinstance(part, types.FunctionType):
                    self._add_function(part)
            return
        if function.__dict__:
            self._add_map(function.__dict__)
        self.must_not_mutate += function.__defaults__ or ()
        self.must_not_mutate += (function.__kwdefaults__ or {}).values()
        self._names.watch(cells_that_change(function))
        if cells:
            self._parts.append((content_of, cells, contents))
        used = [self._names.read(found, name) for name in _names_in(function.__code__).used]
        self.must_not_mutate += used + contents
        for part in used + contents:
            self._add(part)


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

_DEFINITIONS: Final = (
    type,
    types.FunctionType,
    staticmethod,
    classmethod,
    property,
    functools.cached_property,
    functools.partial,
    LruCache,
)


def _definitions(known: Mapping[str, Any]) -> dict[str, Any]:
    return {name: part for name, part in known.items() if isinstance(part, _DEFINITIONS)}
