"""Detects that names or cells have got other values.

`NameWatch.are_unchanged` is checked at every call of a pool. It costs about 25 ns for each distinct
name, however many functions use it: one call into C reads the names of a module, and another one
compares them.

Functions, classes and modules compare by identity, so ``==`` of two tuples of them compares
identities. Other values are compared one by one, with ``is``.
"""

from __future__ import annotations

import functools
import operator
import types
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from evproc_pool.internals.cpython import IN_TUPLE, counts_of


class Missing:
    """Stands for a value that does not exist."""


class NameWatch:
    """Names of modules and cells of closures, with their values when first read."""

    def __init__(self) -> None:
        # by the ids of the modules' dictionaries
        self._spaces: dict[int, tuple[dict[str, Any], dict[str, Any]]] = {}
        self._cells: dict[int, tuple[types.CellType, Any]] = {}
        self._checks: tuple[Callable[[], bool], ...] | None = None

    def read(self, space: dict[str, Any], name: str) -> Any:
        """Return the value of a name, the same each time; `Missing` if it has none."""
        _, values = self._spaces.setdefault(id(space), (space, {}))
        if name not in values:
            values[name] = space.get(name, Missing)
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

    def _make_checks(self) -> Iterable[Callable[[], bool]]:
        for space, values in self._spaces.values():
            alike = {key: value for key, value in values.items() if _is_compared_by_identity(value)}
            missing = frozenset(key for key, value in values.items() if value is Missing)
            others = values.keys() - alike.keys() - missing
            if alike:
                yield functools.partial(_are_equal, _reader(alike), space, (*alike.values(),))
            if others:
                then = tuple(values[key] for key in others)
                yield functools.partial(_are_same, _reader(others), space, then)
            if missing:
                yield functools.partial(space.keys().isdisjoint, missing)
        if self._cells:
            cells, contents = zip(*self._cells.values(), strict=True)
            yield functools.partial(_hold_the_same, cells, contents)


def _is_compared_by_identity(value: object) -> bool:
    if value is Missing or not isinstance(value, _DEFINITIONS):
        return False
    return type(value).__eq__ is object.__eq__  # a metaclass may define equality


_DEFINITIONS: Final = (types.FunctionType, types.ModuleType, type)


def _reader(names: Iterable[str]) -> Callable[[dict[str, Any]], Sequence[Any]]:
    """Return a function that returns the values of all names as a tuple."""
    first, *rest = names
    if rest:
        return operator.itemgetter(first, *rest)
    return lambda space: (space[first],)


def _are_equal(
    read: Callable[[dict[str, Any]], Sequence[Any]], space: dict[str, Any], then: Sequence[Any]
) -> bool:
    return then == read(space)


def _are_same(
    read: Callable[[dict[str, Any]], Sequence[Any]], space: dict[str, Any], then: Sequence[Any]
) -> bool:
    return all(map(operator.is_, read(space), then))


def _hold_the_same(cells: Sequence[types.CellType], contents: Sequence[Any]) -> bool:
    return all(map(operator.is_, map(content_of, cells), contents))


# --- cells ---


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
    assigned = _assigned_in(function.__code__)
    return [
        cell
        for cell, name, count in zip(cells, names, counts_of(cells), strict=True)
        if count > IN_TUPLE or name in assigned
    ]


@functools.lru_cache(maxsize=1024)
def _assigned_in(code: types.CodeType) -> frozenset[str]:
    """The variables of enclosing functions that a function assigns to."""
    import dis  # slow to import

    assigned = {
        each.argval
        for each in dis.get_instructions(code)
        if each.opname in ("STORE_DEREF", "DELETE_DEREF")
    }
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            assigned |= _assigned_in(const)
    return frozenset(assigned)
