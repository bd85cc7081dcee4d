"""`Processor.check` and `Processor.explain`: questions about an index.

Imported when they are first called: few programs ask in production.
"""

from __future__ import annotations

from evproc.decorator import describe_callable
from evproc.event import describe_event
from evproc.exc import EventException, IncompatibleRequirementsException
from evproc.index import Candidate, relevant
from evproc.ordering import CycleFound, topological_order
from evproc.report import Absence, CheckReport, Conflict, Explanation, HandlerExplanation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from evproc.annotations import Filter
    from evproc.decorator import Clause
    from evproc.handler import Handler
    from evproc.index import Index


def check(index: Index) -> CheckReport:
    """See `Processor.check`."""
    index.resolve_names()
    # of all handlers: a name that is missing is not registered at all
    problems, requirements = index.requirements_of(index.handlers)
    problems += _cycles(index, requirements)
    if problems:
        error = IncompatibleRequirementsException("; ".join(problems))
        error.problems = tuple(problems)
        raise error
    absences = tuple(
        Absence(handler.name, dependent)
        for handler in index.handlers
        for dependent in handler.required_by
        if dependent not in index.by_name
    )
    return CheckReport(len(index.handlers), absences, tuple(_conflicts(index)))


def _cycles(index: Index, requirements: dict[int, list[int]]) -> Iterator[str]:
    """Yield the text of one cycle of each group of handlers that require each other."""
    while True:
        try:
            topological_order(requirements)
        except CycleFound as error:
            yield index.cycle_text(error.cycle)
            # Without its members the cycle is gone. The search goes on for cycles that share
            # no member with it.
            gone = set(error.cycle)
            requirements = {
                place: [other for other in others if other not in gone]
                for place, others in requirements.items()
                if place not in gone
            }
        else:
            return


def _conflicts(index: Index) -> Iterator[Conflict]:
    """Yield the event names whose handlers cannot be ordered."""
    nameless, named = index.by_event_name()
    for name, handlers in [*named.items(), (None, nameless)]:
        candidates = {handler.name: relevant(handler.clauses, name) for handler in handlers}
        for each, clauses in candidates.items():
            for required, by in index.requirements[each].items():
                if not clauses and required not in candidates:
                    yield Conflict(
                        name,
                        f"handler {each!r} requires {required!r} ({by}), which never wants it",
                    )


def explain(index: Index, ev: Any, error: Exception | None) -> Explanation:
    """See `Processor.explain`.

    Args:
        index: Has the handlers.
        ev: The event.
        error: What the event's name raises, or None.
    """
    index.resolve_names()
    order: tuple[Handler, ...] = ()
    verdicts: dict[str, tuple[bool, str]] = {}
    for handler in index.handlers:
        try:
            verdicts[handler.name] = _why(handler, ev)
        except Exception as raised:
            error = error or raised
            reason = f"its filter raised {type(raised).__name__}: {raised}"
            verdicts[handler.name] = False, reason
    if error is None:
        matched = [handler for handler in index.handlers if verdicts[handler.name][0]]
        try:
            order = index.make_plan(matched, ev).handlers
        except EventException as raised:
            error = raised
    running = {handler.name: place for place, handler in enumerate(order)}
    names = [*running, *(name for name in verdicts if name not in running)]
    return Explanation(
        describe_event(ev),
        tuple(HandlerExplanation(name, *verdicts[name], running.get(name)) for name in names),
        error,
    )


def _why(handler: Handler, ev: Any) -> tuple[bool, str]:
    """Return whether a handler wants an event, and which of its clauses says so."""
    if not handler.clauses:
        return True, "wants every event"
    name = ev.name
    declined: list[str] = []
    for place, clause in enumerate(handler.clauses, 1):
        if clause.names and name not in clause.names:
            continue
        declining = _declining(Candidate(handler, (clause,)), clause, ev)
        if declining is None:
            which = [f"name {name!r}"] if clause.names else []
            which += [describe_callable(function) for function in clause.filters]
            return True, f"@want {place} matches: {', '.join(which)}"
        declined.append(f"@want {place}: filter {describe_callable(declining)} declines")
    if declined:
        return False, "; ".join(declined)
    wanted = sorted({name for clause in handler.clauses for name in clause.names})
    return False, f"wants {', '.join(map(repr, wanted))}"


def _declining(candidate: Candidate, clause: Clause, ev: Any) -> Filter | None:
    """Return the first filter of a clause that declines an event, or None."""
    function: Filter | None = None
    try:
        for function in clause.filters:
            if not function(ev):
                return function
    except Exception as error:
        candidate.annotate(error, function, clause, ev)
        raise
    return None
