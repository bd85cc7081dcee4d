"""The index of a registry: which handlers can match an event of a name, and in which order.

For each name that a `@want` mentions, and once for all other names, a `Selection` keeps the
handlers that can match at all. If none of these has a filter to ask, all events of the name have
one plan, which is computed once. Otherwise the filters are asked, in registration order, and the
plan is remembered by which of them agreed. So an event costs O(filters that its name leaves
open), not O(handlers).

The index is made on first use and replaced when a handler is added. It has one selection for each
name that a handler mentions. An application with endlessly many event names does not grow it.
"""

from __future__ import annotations

from evproc.decorator import Clause, describe_callable
from evproc.event import describe_event
from evproc.exc import IncompatibleRequirementsException, StopProcessing, add_note
from evproc.handler import Handler, Plan
from evproc.ordering import CycleFound, topological_order

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any, Final

    from evproc.annotations import Filter, Unmatched

# The most names that no `@want` mentions and that the index remembers all the same. A look-up
# that finds a name is quicker than one that does not, and a name is checked only then.
_MOST_UNMENTIONED: Final = 64

# The most plans remembered for each event name. With k filters there may be 2**k of them; past
# this many the memory is worth more than the time to order them again.
_MOST_PLANS: Final = 1024


class Candidate:
    """A handler that can match. `clauses` is empty if it matches in any case."""

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
                self.annotate(error, function, clause, ev)
                raise
        return not self.clauses

    def annotate(self, error: Exception, function: Filter | None, clause: Clause, ev: Any) -> None:
        """Add a note to what a filter raised."""
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
        plan: The plan for all of these events. None if filters must be asked, and also if the
            handlers cannot be ordered: then `select` raises each time.
    """

    __slots__ = ("_candidates", "_make_plan", "_plans", "plan")

    def __init__(
        self,
        candidates: Sequence[Candidate],
        make_plan: Callable[[Sequence[Handler], Any], Plan],
    ) -> None:
        self._candidates = candidates
        self._make_plan = make_plan
        self._plans: dict[tuple[Handler, ...], Plan] = {}
        self.plan: Plan | None = None

    @property
    def is_fixed(self) -> bool:
        """Whether no filter has to be asked."""
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


class Index:
    """The index of one set of handlers; computed on first use.

    Attributes:
        handlers: In registration order.
        selections: The selection of each name that a `@want` mentions, and of some others.
        others: The selection of all other names; None until `build`.
        unmentioned: The same, once `selections` takes no more of these names.
        by_name: The handlers by name; empty until `resolve_names`, like the next one.
        requirements: For each handler's name the names that it requires, which may be
            unregistered, with the declaration that says so.
    """

    __slots__ = (
        "_room",
        "_unmatched",
        "by_name",
        "handlers",
        "others",
        "requirements",
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
        self.by_name: dict[str, Handler] = {}
        self.requirements: dict[str, dict[str, str]] = {}

    def build(self, name: Any) -> Selection:
        """Make every selection, and return the one for a name."""
        self.resolve_names()
        nameless, named = self.by_event_name()
        others = self._selection(None, nameless)
        self.selections = {
            each: self._selection(each, handlers) for each, handlers in named.items()
        }
        self.others = others
        return self.selections.get(name, others)

    def learn(self, name: str) -> Selection:
        """Return the selection for a name that is not in `selections`; remember a few names."""
        others = self.others
        selection = self.build(name) if others is None else others
        if selection is self.others and type(name) is str:
            self.selections[name] = selection
            self._room -= 1
            if self._room <= 0:
                self.unmentioned = selection
        return selection

    def resolve_names(self) -> None:
        """Find out which handlers require which."""
        if self.by_name or not self.handlers:
            return
        requirements: dict[str, dict[str, str]] = {
            handler.name: dict.fromkeys(handler.requires, "@requires") for handler in self.handlers
        }
        for handler in self.handlers:
            for dependent in handler.required_by:
                # if `dependent` is not registered, no handler waits
                if dependent in requirements:
                    requirements[dependent].setdefault(
                        handler.name, f"@required_by of {handler.name!r}"
                    )
        self.requirements = requirements
        self.by_name = {handler.name: handler for handler in self.handlers}

    def by_event_name(self) -> tuple[list[Handler], dict[str, list[Handler]]]:
        """Return the handlers that may want events of unmentioned names, and those of each name.

        In registration order. One pass over the handlers: there may be thousands of handlers
        and of names.
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
        for handler in nameless:  # it may mention names too, and must not be in a list twice
            for clause in handler.clauses:
                for name in sorted(clause.names):
                    named.setdefault(name, [])
        merged = {
            name: sorted([*nameless, *handlers], key=_registration)
            for name, handlers in named.items()
        }
        return nameless, merged

    def _selection(self, name: str | None, handlers: Iterable[Handler]) -> Selection:
        """Make the selection for a name, from the handlers that mention it or no name."""
        candidates = [Candidate(handler, relevant(handler.clauses, name)) for handler in handlers]
        return Selection(candidates, self.make_plan)

    def make_plan(self, matched: Sequence[Handler], ev: Any) -> Plan:
        """Order the handlers that want an event; see `Registry.match`."""
        if not matched and self._unmatched == "error":
            from evproc.mistakes import unmatched

            nameless, named = self.by_event_name()
            raise unmatched(ev, named.get(ev.name, nameless), named, self.handlers)
        problems, requirements = self.requirements_of(matched)
        if not problems:
            try:
                order = topological_order(requirements)
            except CycleFound as error:
                problems = [self.cycle_text(error.cycle)]
            else:
                return Plan(tuple([self.handlers[index] for index in order]))
        raise IncompatibleRequirementsException(
            f"event {describe_event(ev)}: {'; '.join(problems)}"
        )

    def requirements_of(self, matched: Sequence[Handler]) -> tuple[list[str], dict[int, list[int]]]:
        """Return the problems with what matched handlers require, and the indices required."""
        present = {handler.name: handler.index for handler in matched}
        problems = []
        requirements: dict[int, list[int]] = {}
        for handler in matched:
            indices = requirements[handler.index] = []
            for required, by in self.requirements[handler.name].items():
                if required in present:
                    indices.append(present[required])
                elif required in self.by_name:
                    problems.append(
                        f"handler {handler.name!r} requires {required!r} ({by}),"
                        " which does not want this event"
                    )
                else:
                    from evproc.mistakes import did_you_mean

                    problems.append(
                        f"handler {handler.name!r} requires {required!r}, which is not registered:"
                        f" register {required!r}, or load the entry points that hold it"
                        f"{did_you_mean(required, self.by_name)}"
                    )
        return problems, requirements

    def cycle_text(self, cycle: Iterable[int]) -> str:
        """Name the handlers of a cycle, in an error."""
        path = " -> ".join(self.handlers[index].name for index in cycle)
        return f"requirement cycle: {path} (each requires the next)"


def _registration(handler: Handler) -> int:
    return handler.index


def relevant(clauses: tuple[Clause, ...], name: str | None) -> tuple[Clause, ...]:
    """Return the clauses to ask for events of a name that a handler may want.

    Returns:
        Empty if the handler wants every event of the name. Clauses keep their order. Those
        behind a clause without filters are not asked, as in 0.2.0.
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
