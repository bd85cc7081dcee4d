"""The registry: named handlers, which of them want an event, and in which order.

A registry is plain data and pure functions over it: no I/O, no clock, no process. A `Processor`
holds one; so do the coordinator and every worker of ``evproc_pool``, where handlers are known by
their index in it. `index` has the matching and the order, `checks` has `check` and `explain`.
"""

from __future__ import annotations

import operator
from types import MappingProxyType

from evproc.decorator import (
    Declare,
    declarations_of,
    default_name,
    describe_callable,
    is_async,
    takes_two,
)
from evproc.event import Event
from evproc.exc import ProcessorReregisterException
from evproc.handler import Handler, Plan
from evproc.index import Index

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any, Final, NoReturn

    from evproc.annotations import HandlerFunc, Unmatched
    from evproc.origin import Origin
    from evproc.report import CheckReport, Explanation

# The name that Python gives to every lambda.
_LAMBDA: Final = "<lambda>"


class Registry:
    """The named handlers, in registration order.

    Every change is atomic, and replaces the index as a whole. A thread that reads while another
    one changes it sees the handlers from before or from after. One thread at a time may change
    it; `Processor` holds a lock for that.

    Args:
        unmatched: What happens to an event that no handler wants; see `Processor`.
    """

    __slots__ = ("_by_name", "_index", "_unmatched")

    def __init__(self, *, unmatched: Unmatched = "ignore") -> None:
        if unmatched not in ("ignore", "error"):
            raise ValueError(f"unmatched is 'ignore' or 'error', not {unmatched!r}")
        self._unmatched = unmatched
        self._by_name: dict[str, Handler] = {}
        self._index = Index((), unmatched)

    @property
    def handlers(self) -> tuple[Handler, ...]:
        """All handlers, in registration order."""
        return self._index.handlers

    @property
    def by_name(self) -> Mapping[str, Handler]:
        """All handlers by name, in registration order; a live, read-only view."""
        return MappingProxyType(self._by_name)

    def add(self, func: HandlerFunc, name: str | None = None, *, replace: bool = False) -> str:
        """Add one handler; see `Processor.register`."""
        if not replace:
            (key,) = self.add_all([(func, name, None)])
            return key
        key = validated_name(func, name)
        if _is_lambda(key, name):
            raise TypeError(
                "all lambdas have the same name: say which handler to replace, with name=..."
            )
        present = self._by_name.get(key)
        handlers = list(self.handlers)
        new = Handler(len(handlers) if present is None else present.index, key, func, None)
        handlers[new.index : new.index + 1] = [new]
        self._index = Index(tuple(handlers), self._unmatched)
        self._by_name[key] = new
        return key

    def add_all(
        self, items: Iterable[tuple[HandlerFunc, str | None, Origin | None]]
    ) -> tuple[str, ...]:
        """Add several handlers or, where one of them cannot be added, none."""
        added: dict[str, Handler] = {}
        present = self._index.handlers
        for func, name, origin in items:
            key = validated_name(func, name)
            if _is_lambda(key, name):
                key = self._name_of_lambda(func, added)
            taken = self._by_name.get(key) or added.get(key)
            if taken is not None:
                raise ProcessorReregisterException(
                    f"handler {key!r} has already been registered, as"
                    f" {describe_callable(taken.func)}: give {describe_callable(func)} another"
                    " name (name=...), or put it in its place (replace=True)"
                )
            added[key] = Handler(len(present) + len(added), key, func, origin)
        self._by_name.update(added)
        self._index = Index((*present, *added.values()), self._unmatched)
        return tuple(added)

    def _name_of_lambda(self, func: HandlerFunc, added: Mapping[str, Handler]) -> str:
        """Return the first name that is free, or that the same lambda has."""
        key, number = _LAMBDA, 1
        while (taken := self._by_name.get(key) or added.get(key)) and taken.func is not func:
            number += 1
            key = f"{_LAMBDA}-{number}"
        return key

    def remove(self, name: str) -> None:
        """Remove one handler; see `Processor.unregister`."""
        if not isinstance(name, str) or name not in self._by_name:
            from evproc.mistakes import not_registered

            raise not_registered(name, self._by_name)
        left = [handler for handler in self.handlers if handler.name != name]
        moved = [handler.at(index) for index, handler in enumerate(left)]
        self._index = Index(tuple(moved), self._unmatched)
        del self._by_name[name]
        self._by_name.update({handler.name: handler for handler in moved})

    def match(self, ev: Any) -> Plan:
        """Find the handlers that want an event, in the order in which they run.

        Raises:
            IncompatibleRequirementsException: They cannot be ordered.
            UnmatchedEventException: There is none, and that is an error here.
            TypeError: The event's name is no string.
            Exception: What a filter raised, with a note that names the filter,
                the handler and the event.
        """
        index = self._index
        try:
            name = ev.name
            selection = index.selections.get(name)
        except TypeError:
            _refuse_unhashable(ev)
        if selection is None:
            if not isinstance(name, str):
                _refuse_name(ev)
            selection = index.unmentioned or index.learn(name)
        plan = selection.plan
        if plan is None:
            plan = selection.select(ev)
        return plan

    def common_plan(self, events: Sequence[Any]) -> Plan | None:
        """Find the plan of many events without a loop over them.

        It takes a tenth of the time of as many calls of `match`.

        Returns:
            The plan, if all events have one name whose handlers have no filter to ask. None
            means nothing: the events may have a plan in common all the same.
        """
        if not all(Event in kind.__mro__ for kind in set(map(type, events))):
            return None
        try:
            names = set(map(_name_of, events))
            return self.plan_of_name(names.pop()) if len(names) == 1 else None
        except Exception:
            # `match` raises it again, for the event in question
            return None

    def plan_of_name(self, name: str) -> Plan | None:
        """Return the plan of every event of a name, if no filter is asked; see `common_plan`."""
        index = self._index
        selection = index.selections.get(name)
        if selection is None and isinstance(name, str):
            selection = index.others
        return None if selection is None else selection.plan

    def plan(self, indices: Iterable[int]) -> Plan:
        """Rebuild a plan from its indices.

        Raises:
            IndexError: This registry has no such index.
        """
        handlers = self.handlers
        return Plan(tuple([handlers[index] for index in indices]))

    def check(self) -> CheckReport:
        """See `Processor.check`."""
        from evproc.checks import check

        return check(self._index)

    def explain(self, ev: Any) -> Explanation:
        """See `Processor.explain`."""
        from evproc.checks import explain

        return explain(self._index, ev, _name_problem(ev))


_name_of: Final = operator.attrgetter("name")


def _refuse_name(ev: Any) -> NoReturn:
    from evproc.mistakes import no_string

    raise no_string(ev)


def _refuse_unhashable(ev: Any) -> NoReturn:
    """Raise the error for a name that cannot be looked up. Call it in the `except` block."""
    if type(ev.name).__hash__ is None:
        from evproc.mistakes import no_string

        raise no_string(ev) from None
    raise  # noqa: PLE0704 - the name property or its __hash__ raised it, on its own account


def _name_problem(ev: Any) -> Exception | None:
    """Return what a look-up of the event's name would raise, or None."""
    try:
        name = ev.name
        hash(name)
        if not isinstance(name, str):
            _refuse_name(ev)
    except TypeError:
        try:
            _refuse_unhashable(ev)
        except TypeError as error:
            return error
    except Exception as error:
        return error
    return None


def _is_lambda(key: str, name: str | None) -> bool:
    """Whether a handler has only the name that Python gives to every lambda."""
    return key == _LAMBDA and name is None


def validated_name(func: object, name: str | None) -> str:
    """Check that something can be a handler, and return the name for it.

    Raises:
        TypeError: It cannot be called, or not with two arguments. Or it is asynchronous, or the
            result of a decorator without parentheses, or there is no name for it.
    """
    if (
        isinstance(func, Declare)
        or not callable(func)
        or (isinstance(func, type) and issubclass(func, Event))
        or is_async(func)
    ):
        from evproc.mistakes import no_handler

        raise no_handler(func, name)
    if name is not None and not isinstance(name, str):
        raise TypeError(f"a handler's name is a string, not {name!r}")
    key = name or default_name(func)
    if not key:
        raise TypeError(f"{func!r} has no __name__: register it with name=...")
    if not takes_two(func):
        from evproc.mistakes import misfit

        raise misfit(func)
    for clause in declarations_of(func)[0]:
        for function in clause.filters:
            if isinstance(function, type) and issubclass(function, Event):
                from evproc.mistakes import class_wanted

                raise class_wanted(func, function)
    return key
