"""Which handlers an event of each name runs, and which of them wait for which: a pure function.

Filters are not asked, so a handler that has one may decline. Events that run the same handlers
share a flow.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from evproc.handler import Handler
from evproc.index import relevant
from evproc.ordering import CycleFound, topological_order


class Node(NamedTuple):
    """A handler of a flow.

    Attributes:
        name: Its name.
        may_decline: Whether a filter decides if it runs.
        requires: The handlers of the flow that run before it, by any declaration, in order.
        absent: The handlers that it requires and that are not in the flow.
    """

    name: str
    may_decline: bool
    requires: tuple[str, ...]
    absent: tuple[str, ...] = ()


class Flow(NamedTuple):
    """The handlers of some events.

    Attributes:
        events: The names of the events; empty for all that no handler mentions.
        nodes: The handlers, in the order in which they run. With a cycle, in that of their
            registration.
        cycle: The names of a cycle, the first also at the end; otherwise empty.
    """

    events: tuple[str, ...]
    nodes: tuple[Node, ...]
    cycle: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The names of the events."""
        return ", ".join(self.events) or "any other event"


def flows(handlers: Sequence[Handler], event: str | None = None) -> list[Flow]:
    """Return the flows of all event names that handlers mention, or that of one event.

    Args:
        handlers: In registration order.
        event: The name of an event; None: all.
    """
    required = _requirements(handlers)
    if event is not None:
        flow = _flow(event, handlers, required)
        return [flow] if flow.nodes else []
    merged: dict[tuple[tuple[Node, ...], tuple[str, ...]], list[str]] = {}
    for name in _names(handlers):
        flow = _flow(name, handlers, required)
        merged.setdefault((flow.nodes, flow.cycle), []).append(name)
    found = [Flow(tuple(names), *key) for key, names in merged.items()]
    others = _flow(None, handlers, required)
    return [*found, others] if others.nodes else found


def _names(handlers: Iterable[Handler]) -> Iterable[str]:
    return dict.fromkeys(
        name for handler in handlers for clause in handler.clauses for name in sorted(clause.names)
    )


def _requirements(handlers: Sequence[Handler]) -> dict[str, dict[str, None]]:
    """Return the names that each handler requires, by its own declaration or by another's."""
    required = {handler.name: dict.fromkeys(handler.requires) for handler in handlers}
    for handler in handlers:
        for dependent in handler.required_by:
            if dependent in required:
                required[dependent][handler.name] = None
    return required


def _flow(
    name: str | None, handlers: Sequence[Handler], required: dict[str, dict[str, None]]
) -> Flow:
    """Return the flow of one event name; None: of those that no handler mentions."""
    present = {handler.name: handler for handler in handlers if _may_want(handler, name)}
    edges = {
        handler.index: [present[each].index for each in required[handler.name] if each in present]
        for handler in present.values()
    }
    cycle: tuple[str, ...] = ()
    by_index = {handler.index: handler for handler in present.values()}
    try:
        order = topological_order(edges)
    except CycleFound as error:
        order = sorted(edges)
        cycle = tuple(by_index[index].name for index in error.cycle)
    place = {by_index[index].name: number for number, index in enumerate(order)}
    nodes = [
        Node(
            handler.name,
            bool(relevant(handler.clauses, name)),
            tuple(sorted((e for e in required[handler.name] if e in place), key=place.__getitem__)),
            tuple(each for each in required[handler.name] if each not in place),
        )
        for handler in (by_index[index] for index in order)
    ]
    return Flow(() if name is None else (name,), tuple(nodes), cycle)


def _may_want(handler: Handler, name: str | None) -> bool:
    return not handler.clauses or any(
        not clause.names or name in clause.names for clause in handler.clauses
    )


class Branch(NamedTuple):
    """A place in the tree of a flow.

    Attributes:
        text: The handler, its place in the order, and what the tree cannot show.
        branches: The handlers below it.
    """

    text: str
    branches: list[Branch]


def tree(flow: Flow) -> Branch:
    """Make a flow a tree: each handler is below the last one that it waits for."""
    root = Branch(flow.title, [])
    if flow.cycle:
        root.branches.append(Branch(f"fault: a cycle: {' -> '.join(flow.cycle)}", []))
        root.branches.extend(Branch(_text(node.name, node, ()), []) for node in flow.nodes)
        return root
    made: dict[str, Branch] = {}
    for number, node in enumerate(flow.nodes, 1):
        *others, above = node.requires or ("",)
        branch = made[node.name] = Branch(_text(f"{number} {node.name}", node, others), [])
        made.get(above, root).branches.append(branch)
    return root


def _text(name: str, node: Node, others: Sequence[str]) -> str:
    remarks = ["if its filter agrees"] if node.may_decline else []
    if others:
        remarks.append(f"also after {', '.join(others)}")
    remarks += [f"requires {each}, which never runs here" for each in node.absent]
    return f"{name} ({'; '.join(remarks)})" if remarks else name
