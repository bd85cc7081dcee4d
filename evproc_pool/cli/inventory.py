"""The handlers of a group, and what is wrong with them."""

from __future__ import annotations

import functools
import inspect
from typing import Any, NamedTuple

from evproc import (
    EntryPointException,
    EntryPointGroupException,
    IncompatibleRequirementsException,
    Processor,
)
from evproc.decorator import Clause
from evproc.handler import Handler
from evproc_pool.cli.filter_text import filter_text


class HandlerRow(NamedTuple):
    """One handler, in words.

    Attributes:
        name: Its name in the group.
        distribution: The name of its distribution.
        version: The distribution's version.
        wants: What its `@want` says.
        requires: The handlers that run before it, by its own declaration.
        required_by: The handlers that it runs before, likewise.
        place: `module:line` of its function.
    """

    name: str
    distribution: str
    version: str
    wants: str
    requires: tuple[str, ...]
    required_by: tuple[str, ...]
    place: str


class Inventory(NamedTuple):
    """The handlers of a group.

    Attributes:
        group: The entry-point group.
        handlers: In registration order, without those that cannot be loaded.
        faults: One sentence for each fault.
        notes: One sentence for each thing worth knowing that is no fault.
    """

    group: str
    handlers: tuple[HandlerRow, ...]
    faults: tuple[str, ...]
    notes: tuple[str, ...]


def load_all(group: str) -> tuple[Processor, list[EntryPointException]]:
    """Load what can be loaded of a group; return also the errors of the rest.

    Raises:
        EntryPointGroupException: There is no such group.
    """
    broken: list[EntryPointException] = []

    def note(error: EntryPointException) -> None:
        if isinstance(error, EntryPointGroupException):
            raise error
        broken.append(error)

    processor = Processor()
    processor.load_from(group, on_error=note)
    return processor, broken


def take_inventory(group: str) -> Inventory:
    """Load a group, and look for every fault that can be found without an event.

    Raises:
        EntryPointGroupException: There is no such group.
    """
    processor, broken = load_all(group)
    rows = tuple(map(describe_handler, processor.nodes.values()))
    for error in broken:
        # Others may require it. Its own fault is enough.
        if error.entry_point and error.entry_point not in processor.nodes:
            processor.register(_stand_in, error.entry_point)
    faults, notes = _check(processor)
    return Inventory(group, rows, (*map(str, broken), *faults), notes)


def _stand_in(proc: Processor, ev: Any) -> None:
    """Take the place of a handler that cannot be loaded."""


def _check(processor: Processor) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return faults and notes."""
    try:
        report = processor.check()
    except IncompatibleRequirementsException as error:
        return error.problems, ()
    return tuple(map(str, report.conflicts)), tuple(map(str, report.absences))


def describe_handler(handler: Handler) -> HandlerRow:
    """Describe a handler."""
    origin = handler.origin
    return HandlerRow(
        handler.name,
        origin.distribution if origin else "",
        origin.version if origin else "",
        wants(handler.clauses),
        handler.requires,
        handler.required_by,
        place_of(handler.func),
    )


def wants(clauses: tuple[Clause, ...]) -> str:
    """Say which events the clauses of a handler want."""
    if not clauses:
        return "every event"
    return "; or ".join(map(_clause, clauses))


def _clause(clause: Clause) -> str:
    parts = [" or ".join(sorted(clause.names))] if clause.names else []
    parts += [f"if {filter_text(function)}" for function in clause.filters]
    return " ".join(parts)


def place_of(func: Any) -> str:
    """Return `module:line` of a callable, or only its module if it has no line."""
    while isinstance(func, functools.partial):
        func = func.func
    module = getattr(func, "__module__", None) or type(func).__module__
    func = inspect.unwrap(func)
    code = getattr(func, "__code__", None) or getattr(type(func).__call__, "__code__", None)
    if isinstance(func, type):
        code = None  # a class is a place of its own, and has no line here
    return f"{module}:{code.co_firstlineno}" if code is not None else module
