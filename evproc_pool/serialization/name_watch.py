"""Notices that names or cells stand for something else than before.

`NameWatch.are_unchanged` is asked at every call of a pool. It costs some 25 ns for each distinct
name, however many functions use it: the names of one module are read by one call into C and
compared by another one.

Functions, classes and modules compare by identity, so that ``==`` of two tuples of them is a
comparison of identities. Other values are compared one by one, with ``is``.
"""

from __future__ import annotations

import functools
import operator
import types
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from evproc_pool.internals.cpython import IN_TUPLE, counts_of


class Missing:
    """Stands for what there is none of."""


class NameWatch:
    """Names of modules and cells of closures, with what they stood for when first read."""

    def __init__(self) -> None:
        # by the ids of the modules' dictionaries
        self._spaces: dict[int, tuple[dict[str, Any], dict[str, Any]]] = {}
        self._cells: dict[int, tuple[types.CellType, Any]] = {}
        self._checks: tuple[Callable[[], bool], ...] | None = None

    def read(self, space: dict[str, Any], name: str) -> Any:
        """Return what a name stands for, the same each time; `Missing` for nothing."""
        _, values = self._spaces.setdefault(id(space), (space, {}))
        if name not in values:
            values[name] = space.get(name, Missing)
            self._checks = None
        return values[name]

    def watch(self, cells: Iterable[types.CellType]) -> None:
        """Have cells count as well."""
        for cell in cells:
            self._cells.setdefault(id(cell), (cell, content_of(cell)))
        self._checks = None

    @property
    def are_unchanged(self) -> bool:
        """Whether all stand for what they stood for."""
        if self._checks is None:
            self._checks = tuple(self._make_checks())
        try:
            for check in self._checks:
                if not check():
                    return False
        except Exception:
            return False  # a name is gone, or what it stands for now does not compare
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
    return type(value).__eq__ is object.__eq__  # a metaclass may have its own idea


_DEFINITIONS: Final = (types.FunctionType, types.ModuleType, type)


def _reader(names: Iterable[str]) -> Callable[[dict[str, Any]], Sequence[Any]]:
    """Return what gives the values of all names as a tuple."""
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
    """Return what a cell holds; `Missing` if it is empty."""
    try:
        return cell.cell_contents
    except ValueError:
        return Missing


def cells_that_change(function: types.FunctionType) -> list[types.CellType]:
    """Return the cells of a closure to which code may still assign.

    A cell that nothing else refers to belongs to this function alone: the function that has
    made it is over, and no other one shares it. Handlers made in a loop have thousands of
    these. (An assignment to `cell_contents` is a change in place.)
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
    import dis  # takes a while

    assigned = {
        each.argval
        for each in dis.get_instructions(code)
        if each.opname in ("STORE_DEREF", "DELETE_DEREF")
    }
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            assigned |= _assigned_in(const)
    return frozenset(assigned)
