"""How a registry is made again in a worker, and how two registries are compared."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from evproc import Processor
from evproc.decorator import default_name, describe_callable
from evproc.registry import Registry
from evproc_pool.errors import SerializationError

if TYPE_CHECKING:
    import logging

    from evproc.annotations import HandlerFunc, Unmatched
    from evproc_pool.serialization.code_snapshot import CodeSnapshot

# how many differences an error lists
_MOST_LINES: Final = 5


class Register(NamedTuple):
    """A call of `register`.

    Attributes:
        func: The handler.
        name: Its name.
        replace: Whether it takes the place of one that an entry point names.
    """

    func: HandlerFunc
    name: str | None
    replace: bool = False


class Unregister(NamedTuple):
    """A call of `unregister`, for a handler that a group of entry points has."""

    name: str


class LoadFrom(NamedTuple):
    """A call of `load_from`.

    Attributes:
        group: The entry-point group.
        skip: Whether entry points that cannot be loaded were left out.
    """

    group: str
    skip: bool


#: What was done to the registry.
Step = Register | LoadFrom | Unregister


def registered(steps: list[Step], step: Register) -> None:
    """Note a call of `register`. What it replaces need not be sent to workers any more.

    Args:
        steps: What has been done so far; changed.
        step: With the handler's name, and `replace` if there was one of that name.
    """
    place = _place_of(steps, step.name)
    if place is None:
        steps.append(step)
    else:
        steps[place] = step._replace(replace=_replaces(steps[place]))


def unregistered(steps: list[Step], name: str) -> None:
    """Note a call of `unregister`; see `registered`."""
    place = _place_of(steps, name)
    # None: an entry point names it
    if place is None or _replaces(steps.pop(place)):
        steps.append(Unregister(name))


def _place_of(steps: list[Step], name: str | None) -> int | None:
    for place, step in enumerate(steps):
        if isinstance(step, Register) and step.name == name:
            return place
    return None


def _replaces(step: Step) -> bool:
    return isinstance(step, Register) and step.replace


#: What is done to a registry that is full; its fingerprint must stay the same.
Change = Callable[[Registry], object]


class RegistrySpec(NamedTuple):
    """What a worker does before it is ready, in order.

    Attributes:
        initializer: Called first, since handlers may need what it sets up.
        initargs: Its arguments.
        steps: How the registry was filled.
        changes: What is done to it then; for tests.
        unmatched: The `Processor`'s, for handlers that call `process`.
    """

    initializer: Callable[..., object] | None
    initargs: tuple[Any, ...]
    steps: tuple[Step, ...]
    changes: tuple[Change, ...] = ()
    unmatched: Unmatched = "ignore"

    def follow(self) -> Processor:
        """Run the initializer and fill a new `Processor`.

        Raises:
            Exception: What the initializer or an import raised.
        """
        if self.initializer is not None:
            self.initializer(*self.initargs)
        processor = Processor(unmatched=self.unmatched)
        for step in self.steps:
            if isinstance(step, Register):
                processor.register(step.func, step.name, replace=step.replace)
            elif isinstance(step, Unregister):
                processor.unregister(step.name)
            elif step.skip:
                with _silence():
                    processor.load_from(step.group, on_error="skip")
            else:
                processor.load_from(step.group)
        for change in self.changes:
            change(processor.registry)
        return processor


class Stock:
    """What workers have of the main script.

    Args:
        snapshot: What it is made of.
    """

    def __init__(self, snapshot: CodeSnapshot) -> None:
        self._anatomy = snapshot
        self._shell = _shell()
        self._cell = self._cell_number

    @property
    def is_up_to_date(self) -> bool:
        """Whether nothing of it was defined anew.

        Asked at every call. What was changed in place is looked for in IPython only, once for
        each cell: there it is usual to add methods to a class in a later cell.
        """
        if not self._anatomy.names_are_unchanged:
            return False
        if self._shell is None:
            return True
        cell = self._cell_number
        if cell != self._cell:
            if not self._anatomy.is_up_to_date:
                return False
            self._cell = cell
        return True

    @property
    def _cell_number(self) -> object:
        return getattr(self._shell, "execution_count", None)


def _shell() -> object:
    """IPython's, if this is a notebook or the like, or None."""
    get_ipython = getattr(sys.modules.get("IPython"), "get_ipython", None)
    return get_ipython() if callable(get_ipython) else None


def take_stock(functions: Iterable[object]) -> Stock | None:
    """What workers are given that lives in the main script; None: nothing.

    Args:
        functions: Those that they are given.
    """
    from evproc_pool.serialization.basics import lives_in_main

    in_main = [function for function in functions if lives_in_main(function)]
    if not in_main:
        return None
    from evproc_pool.serialization.code_snapshot import CodeSnapshot

    # a class is sent with its events as it is then; it may well count its instances
    return Stock(CodeSnapshot(*in_main, with_data=False))


def cannot_send(spec: RegistrySpec, cause: BaseException) -> SerializationError:
    """Say what of a spec cannot be pickled."""
    from evproc_pool.serialization import (
        diagnosis,  # it takes long to import
    )

    what = "what workers need to start"
    value: object = spec
    move = ", or move the function into a module that workers import"
    more = ""
    parts: list[tuple[str, object, str]] = [
        ("the initializer", spec.initializer, move),
        ("an argument of the initializer", spec.initargs, ""),
    ]
    for step in spec.steps:
        if isinstance(step, Register):
            origin = describe_callable(step.func)
            name = step.name or default_name(step.func)
            parts.append((f"handler {name!r} ({origin})", step.func, move))
    for name, part, advice in parts:
        if not diagnosis.can_pickle(part):
            what, value, more = name, part, advice
            break
    in_each = "make it in each worker (in the handler, or in an initializer)"
    return diagnosis.cannot_pickle(what, value, cause, in_each, more)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Log nothing of what is skipped: the coordinator has, and once is enough."""
    import logging  # takes a while, and few workers need it

    logger = logging.getLogger("evproc")
    logger.addFilter(_is_not_skip)
    try:
        yield
    finally:
        logger.removeFilter(_is_not_skip)


def _is_not_skip(record: logging.LogRecord) -> bool:
    return record.msg != "skipped: %s"


class HandlerPrint(NamedTuple):
    """What identifies a handler across processes."""

    name: str
    function: str
    distribution: str
    version: str

    def __str__(self) -> str:
        origin = f", {self.distribution} {self.version}" if self.distribution else ""
        return f"{self.name!r} ({self.function}{origin})"


Fingerprint = tuple[HandlerPrint, ...]


def fingerprint(registry: Registry) -> Fingerprint:
    """The handlers in order: name, function, distribution and its version."""
    return tuple(
        HandlerPrint(
            handler.name,
            describe_callable(handler.func),
            handler.origin.distribution if handler.origin else "",
            handler.origin.version if handler.origin else "",
        )
        for handler in registry.handlers
    )


def describe_difference(expected: Fingerprint, actual: Fingerprint) -> str:
    """Say where two registries differ; empty if they do not."""
    if expected == actual:
        return ""
    lines = []
    for place in range(max(len(expected), len(actual))):
        mine = str(expected[place]) if place < len(expected) else "nothing"
        theirs = str(actual[place]) if place < len(actual) else "nothing"
        if mine != theirs:
            lines.append(f"handler {place}: {mine} here, {theirs} in the worker")
    if len(lines) > _MOST_LINES:
        lines[_MOST_LINES:] = [f"and {len(lines) - _MOST_LINES} more"]
    return "; ".join(lines)
