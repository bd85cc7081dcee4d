"""The registry: named handlers, which of them want an event, and in which order.

A registry is plain data and pure functions over it: no I/O, no clock, no
process. A `Processor` holds one; so do the coordinator and every worker of
``evproc_pool``, where handlers are known by their index in it.

Matching is indexed by the event's name. For each name that a `@want` mentions,
and once for all other names, a `Selection` keeps the handlers that can match at
all; where none of these has a filter to ask, the plan is the same for every
event of the name and is computed once. Otherwise the filters are asked, in
registration order, and the plan is remembered by which of them agreed. So an
event costs O(filters that its name leaves open), not O(handlers).

The index is made on first use and replaced when a handler is added. It has one
selection per name that a handler mentions, so an application with endlessly
many event names does not grow it.
"""

from __future__ import annotations

import operator
from types import MappingProxyType

from evproc.decorator import (
    Clause,
    Declare,
    declarations_of,
    default_name,
    describe_callable,
    is_async,
    takes_two,
)
from evproc.event import Event, describe_event
from evproc.exc import (
    EventException,
    IncompatibleRequirementsException,
    ProcessorReregisterException,
    StopProcessing,
    add_note,
)
from evproc.handler import Handler, Plan
from evproc.ordering import CycleFound, topological_order

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from typing import Any, Final, NoReturn

    from evproc.annotations import Filter, HandlerFunc, Unmatched
    from evproc.origin import Origin
    from evproc.report import CheckReport, Conflict, Explanation

# Names that no `@want` mentions are remembered, too, up to this many: a look-up that finds
# something is quicker than one that does not, and a name is checked only then.
_MOST_UNMENTIONED: Final = 64

# What Python calls a lambda.
_LAMBDA: Final = "<lambda>"

# Plans remembered per event name. With k filters there may be 2**k of them;
# past this many the memory is worth more than the time to order them again.
_MOST_PLANS: Final = 1024


class _Candidate:
    """A handler that can match; `clauses` is empty if it does so in any case."""

    __slots__ = ("clauses", "handler")

    def __init__(self, handler: Handler, clauses: tuple[Clause, ...]) -> None:
        self.handler = handler
        self.clauses = clauses

    def wants(self, ev: Any) -> bool:
        """Ask the filters; see `Registry.match`."""
        for clause in self.clauses:
            function: Filter | None = None
            try:
                for function in clause.filters:
                    if not function(ev):
                        break
                else:
                    return True
            except Exception as error:
                self._annotate(error, function, clause, ev)
                raise
        return not self.clauses

    def _annotate(self, error: Exception, function: Filter | None, clause: Clause, ev: Any) -> None:
        place = self.handler.clauses.index(clause) + 1
        add_note(
            error,
            f"evproc: raised by filter {describe_callable(function)} (@want {place}) of"
            f" handler {self.handler.name!r} on event {describe_event(ev)}",
        )
        if isinstance(error, StopProcessing):
            add_note(error, "evproc: StopProcessing stops nothing when a filter raises it")


class Selection:
    """The handlers that can match the events of one name.

    Attributes:
        plan: The plan for all of these events, or None if filters must be asked
            (or the handlers cannot be ordered, which `select` says each time).
    """

    __slots__ = ("_candidates", "_make_plan", "_plans", "plan")

    def __init__(
        self,
        candidates: Sequence[_Candidate],
        make_plan: Callable[[Sequence[Handler], Any], Plan],
    ) -> None:
        self._candidates = candidates
        self._make_plan = make_plan
        self._plans: dict[tuple[Handler, ...], Plan] = {}
        self.plan: Plan | None = None

    @property
    def is_fixed(self) -> bool:
        """Whether no filter needs to be asked."""
        return not any(candidate.clauses for candidate in self._candidates)

    def select(self, ev: Any) -> Plan:
        """Ask the filters and return the plan; see `Registry.match`."""
        matched = tuple(
            [
                candidate.handler
                for candidate in self._candidates
                if not candidate.clauses or candidate.wants(ev)
            ]
        )
        plan = self._plans.get(matched)
        if plan is None:
            plan = self._make_plan(matched, ev)
            if len(self._plans) >= _MOST_PLANS:
                self._plans.clear()
            self._plans[matched] = plan
            if self.is_fixed:
                self.plan = plan
        return plan


class Registry:
    """The named handlers, in registration order.

    Every change is atomic, and replaces the index as a whole: a thread that is reading
    while another changes it sees the handlers from before or from after. One thread at a
    time may change it; `Processor` sees to that.

    Args:
        unmatched: What happens to an event that no handler wants; see `Processor`.
    """

    __slots__ = ("_by_name", "_index", "_unmatched")

    def __init__(self, *, unmatched: Unmatched = "ignore") -> None:
        if unmatched not in ("ignore", "error"):
            raise ValueError(f"unmatched is 'ignore' or 'error', not {unmatched!r}")
        self._unmatched = unmatched
        self._by_name: dict[str, Handler] = {}
        self._index = _Index((), unmatched)

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
        self._index = _Index(tuple(handlers), self._unmatched)
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
        self._index = _Index((*present, *added.values()), self._unmatched)
        return tuple(added)

    def _name_of_lambda(self, func: HandlerFunc, added: Mapping[str, Handler]) -> str:
        """The first name that is free; that of the same lambda, if it is registered."""
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
        self._index = _Index(tuple(moved), self._unmatched)
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
        """Find the plan of many events at once, if that can be seen without a loop.

        Returns:
            The plan, if all are events of one name whose handlers have no filter to
            ask; None says nothing. A tenth of the time of as many calls of `match`.
        """
        if not all(Event in kind.__mro__ for kind in set(map(type, events))):
            return None
        try:
            names = set(map(_name_of, events))
            return self.plan_of_name(names.pop()) if len(names) == 1 else None
        except Exception:
            # whichever event it was: `match` raises it again for that one
            return None

    def plan_of_name(self, name: str) -> Plan | None:
        """The plan of every event of a name, if no filter is asked; None says nothing."""
        index = self._index
        selection = index.selections.get(name)
        if selection is None and isinstance(name, str):
            selection = index.others
        return None if selection is None else selection.plan

    def plan(self, indices: Iterable[int]) -> Plan:
        """Rebuild a plan from its indices.

        Raises:
            IndexError: An index that is not in this registry.
        """
        handlers = self.handlers
        return Plan(tuple([handlers[index] for index in indices]))

    def check(self) -> CheckReport:
        """See `Processor.check`."""
        return self._index.check()

    def explain(self, ev: Any) -> Explanation:
        """See `Processor.explain`."""
        return self._index.explain(ev)


class _Index:
    """What follows from one set of handlers; computed on first use.

    Attributes:
        handlers: In registration order.
        selections: The selection of each name that a `@want` mentions, and of some others.
        others: The selection of all other names; None until `build`.
        unmentioned: The same, once `selections` takes no more of these names.
    """

    __slots__ = (
        "_by_name",
        "_requirements",
        "_room",
        "_unmatched",
        "handlers",
        "others",
        "selections",
        "unmentioned",
    )

    def __init__(self, handlers: tuple[Handler, ...], unmatched: Unmatched) -> None:
        self.handlers = handlers
        self.selections: dict[Any, Selection] = {}
        self.others: Selection | None = None
        self.unmentioned: Selection | None = None
        self._unmatched = unmatched
        self._room = _MOST_UNMENTIONED
        self._by_name: dict[str, Handler] = {}
        # handler name -> what it requires (names, which may be unregistered) ->
        # the declaration that says so
        self._requirements: dict[str, dict[str, str]] = {}

    # --- matching and ordering ---

    def build(self, name: Any) -> Selection:
        """Make every selection, and return the one for a name."""
        self._resolve_names()
        nameless, named = self._by_event_name()
        others = self._selection(None, nameless)
        self.selections = {
            each: self._selection(each, handlers) for each, handlers in named.items()
        }
        self.others = others
        return self.selections.get(name, others)

    def learn(self, name: str) -> Selection:
        """The selection for a name that is not in `selections` yet, or for the first time."""
        others = self.others
        selection = self.build(name) if others is None else others
        if selection is self.others and type(name) is str:
            self.selections[name] = selection
            self._room -= 1
            if self._room <= 0:
                self.unmentioned = selection
        return selection

    def _resolve_names(self) -> None:
        if self._by_name or not self.handlers:
            return
        requirements: dict[str, dict[str, str]] = {
            handler.name: dict.fromkeys(handler.requires, "@requires") for handler in self.handlers
        }
        for handler in self.handlers:
            for dependent in handler.required_by:
                # nobody waits where `dependent` is not registered
                if dependent in requirements:
                    requirements[dependent].setdefault(
                        handler.name, f"@required_by of {handler.name!r}"
                    )
        self._requirements = requirements
        self._by_name = {handler.name: handler for handler in self.handlers}

    def _by_event_name(self) -> tuple[list[Handler], dict[str, list[Handler]]]:
        """The handlers that events of unmentioned names may concern, and those of each name.

        In registration order; one pass over the handlers, since there may be thousands
        of both.
        """
        nameless: list[Handler] = []
        named: dict[str, list[Handler]] = {}
        for handler in self.handlers:
            if not handler.clauses or any(not clause.names for clause in handler.clauses):
                nameless.append(handler)
                continue
            for name in dict.fromkeys(
                name for clause in handler.clauses for name in sorted(clause.names)
            ):
                named.setdefault(name, []).append(handler)
        for handler in nameless:  # may mention names besides; must not be in twice
            for clause in handler.clauses:
                for name in sorted(clause.names):
                    named.setdefault(name, [])
        merged = {
            name: sorted([*nameless, *handlers], key=_registration)
            for name, handlers in named.items()
        }
        return nameless, merged

    def _selection(self, name: str | None, handlers: Iterable[Handler]) -> Selection:
        """The selection for a name, from the handlers that mention it or no name."""
        candidates = [_Candidate(handler, _relevant(handler.clauses, name)) for handler in handlers]
        return Selection(candidates, self.make_plan)

    def make_plan(self, matched: Sequence[Handler], ev: Any) -> Plan:
        """Order the handlers that want an event; see `Registry.match`."""
        if not matched and self._unmatched == "error":
            from evproc.mistakes import unmatched

            nameless, named = self._by_event_name()
            raise unmatched(ev, named.get(ev.name, nameless), named, self.handlers)
        problems, requirements = self._requirements_of(matched)
        if not problems:
            try:
                order = topological_order(requirements)
            except CycleFound as error:
                problems = [self._cycle_text(error.cycle)]
            else:
                return Plan(tuple([self.handlers[index] for index in order]))
        raise IncompatibleRequirementsException(
            f"event {describe_event(ev)}: {'; '.join(problems)}"
        )

    def _requirements_of(
        self, matched: Sequence[Handler]
    ) -> tuple[list[str], dict[int, list[int]]]:
        """Turn the names that matched handlers require into indices, or into problems."""
        present = {handler.name: handler.index for handler in matched}
        problems = []
        requirements: dict[int, list[int]] = {}
        for handler in matched:
            indices = requirements[handler.index] = []
            for required, by in self._requirements[handler.name].items():
                if required in present:
                    indices.append(present[required])
                elif required in self._by_name:
                    problems.append(
                        f"handler {handler.name!r} requires {required!r} ({by}),"
                        " which does not want this event"
                    )
                else:
                    from evproc.mistakes import did_you_mean

                    problems.append(
                        f"handler {handler.name!r} requires {required!r}, which is not registered:"
                        f" register {required!r}, or load the entry points that hold it"
                        f"{did_you_mean(required, self._by_name)}"
                    )
        return problems, requirements

    def _cycle_text(self, cycle: Iterable[int]) -> str:
        path = " -> ".join(self.handlers[index].name for index in cycle)
        return f"requirement cycle: {path} (each requires the next)"

    # --- answering questions ---

    def check(self) -> CheckReport:
        """See `Processor.check`."""
        from evproc.report import Absence, CheckReport

        self._resolve_names()
        # with all handlers at hand, what is missing is not registered at all
        problems, requirements = self._requirements_of(self.handlers)
        problems += self._cycles(requirements)
        if problems:
            raise IncompatibleRequirementsException("; ".join(problems))
        absences = tuple(
            Absence(handler.name, dependent)
            for handler in self.handlers
            for dependent in handler.required_by
            if dependent not in self._by_name
        )
        return CheckReport(len(self.handlers), absences, tuple(self._conflicts()))

    def _cycles(self, requirements: dict[int, list[int]]) -> Iterator[str]:
        """One cycle of each knot of handlers that require each other."""
        while True:
            try:
                topological_order(requirements)
            except CycleFound as error:
                yield self._cycle_text(error.cycle)
                # without its members that cycle is gone, and the search goes on
                # for those that share none of them
                gone = set(error.cycle)
                requirements = {
                    index: [other for other in others if other not in gone]
                    for index, others in requirements.items()
                    if index not in gone
                }
            else:
                return

    def _conflicts(self) -> Iterator[Conflict]:
        from evproc.report import Conflict

        nameless, named = self._by_event_name()
        for name, handlers in [*named.items(), (None, nameless)]:
            candidates = {handler.name: _relevant(handler.clauses, name) for handler in handlers}
            for each, clauses in candidates.items():
                for required, by in self._requirements[each].items():
                    if not clauses and required not in candidates:
                        yield Conflict(
                            name,
                            f"handler {each!r} requires {required!r} ({by}), which never wants it",
                        )

    def explain(self, ev: Any) -> Explanation:
        """See `Processor.explain`."""
        from evproc.report import Explanation, HandlerExplanation

        self._resolve_names()
        error = _name_problem(ev)
        order: tuple[Handler, ...] = ()
        verdicts: dict[str, tuple[bool, str]] = {}
        for handler in self.handlers:
            try:
                verdicts[handler.name] = _why(handler, ev)
            except Exception as raised:
                error = error or raised
                reason = f"its filter raised {type(raised).__name__}: {raised}"
                verdicts[handler.name] = False, reason
        if error is None:
            matched = [handler for handler in self.handlers if verdicts[handler.name][0]]
            try:
                order = self.make_plan(matched, ev).handlers
            except EventException as raised:
                error = raised
        running = {handler.name: place for place, handler in enumerate(order)}
        names = [*running, *(name for name in verdicts if name not in running)]
        return Explanation(
            describe_event(ev),
            tuple(HandlerExplanation(name, *verdicts[name], running.get(name)) for name in names),
            error,
        )


_name_of: Final = operator.attrgetter("name")


def _registration(handler: Handler) -> int:
    return handler.index


def _refuse_name(ev: Any) -> NoReturn:
    from evproc.mistakes import no_string

    raise no_string(ev)


def _refuse_unhashable(ev: Any) -> NoReturn:
    """Say what is wrong with a name that cannot be looked up, while that is handled."""
    if type(ev.name).__hash__ is None:
        from evproc.mistakes import no_string

        raise no_string(ev) from None
    raise  # noqa: PLE0704 - the name property or its __hash__ raised it, on its own account


def _name_problem(ev: Any) -> Exception | None:
    """What looking an event's name up would raise."""
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
    """Whether a handler's name is only what every lambda is called."""
    return key == _LAMBDA and name is None


def validated_name(func: object, name: str | None) -> str:
    """Check that something can be a handler, and say under which name.

    Raises:
        TypeError: It cannot be called, or not with two arguments, is asynchronous, is
            what a decorator without its parentheses leaves behind, or has no name and
            was given none.
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


def _relevant(clauses: tuple[Clause, ...], name: str | None) -> tuple[Clause, ...]:
    """The clauses left to ask for events of a name that a handler may want.

    Returns:
        Empty if the handler matches whatever the event holds. Clauses keep their
        order, and those behind one that needs no filter are not asked, as in 0.2.0.
    """
    left: list[Clause] = []
    for clause in clauses:
        if clause.names and name not in clause.names:
            continue
        if not clause.filters:
            return _until_sure(left, clause)
        left.append(clause)
    return tuple(left)


def _until_sure(asked_first: list[Clause], sure: Clause) -> tuple[Clause, ...]:
    # a filter that is asked before the sure clause can still raise
    return (*asked_first, sure) if asked_first else ()


def _why(handler: Handler, ev: Any) -> tuple[bool, str]:
    """Whether a handler wants an event, and which of its clauses says so."""
    if not handler.clauses:
        return True, "wants every event"
    name = ev.name
    named = False
    for place, clause in enumerate(handler.clauses, 1):
        if clause.names and name not in clause.names:
            continue
        named = True
        if _Candidate(handler, (clause,)).wants(ev):
            which = [f"name {name!r}"] if clause.names else []
            which += [describe_callable(function) for function in clause.filters]
            return True, f"@want {place} matches: {', '.join(which)}"
    if named:
        return False, "a filter declines"
    wanted = sorted({name for clause in handler.clauses for name in clause.names})
    return False, f"wants {', '.join(map(repr, wanted))}"
