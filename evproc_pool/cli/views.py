"""How inventories and explanations read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TextIO

from evproc.report import Explanation, HandlerExplanation
from evproc_pool.cli.inventory import Inventory
from evproc_pool.cli.json_event import by_members
from evproc_pool.cli.output import counted, printable
from evproc_pool.cli.tables import Table, print_table


def show_inventory(inventory: Inventory, out: TextIO) -> None:
    """Print a table of the handlers, then faults and notes."""
    rows: list[tuple[str, ...]] = [
        (
            row.name,
            f"{row.distribution} {row.version}".strip(),
            row.wants,
            ", ".join(row.requires),
            ", ".join(row.required_by),
            row.place,
        )
        for row in inventory.handlers
    ]
    columns: tuple[str, ...] = (
        "handler",
        "distribution",
        "wants",
        "requires",
        "required by",
        "where",
    )
    if not any(row[4] for row in rows):  # few handlers have it
        rows = [(*row[:4], *row[5:]) for row in rows]
        columns = (*columns[:4], *columns[5:])
    if rows:
        print_table(Table(columns, rows), out)
    for line in _remarks(inventory):
        print(printable(line), file=out)


def _remarks(inventory: Inventory) -> Iterator[str]:
    for note in inventory.notes:
        yield f"note: {note}"
    for fault in inventory.faults:
        yield f"fault: {fault}"
    handlers = counted(len(inventory.handlers), "handler")
    if inventory.faults:
        yield f"{handlers} loaded, {counted(len(inventory.faults), 'fault')}"
    else:
        yield f"{handlers}, no fault"


def show_explanation(
    explanation: Explanation, out: TextIO, filters: Mapping[str, str] | None = None
) -> None:
    """Print which handlers run for an event, in order and why; then the others.

    Args:
        explanation: Says why.
        out: Where to print.
        filters: Shorter texts for filters, by what the explanation calls them.
    """
    explanation = explanation._replace(
        handlers=tuple(_with_filters(entry, filters or {}) for entry in explanation.handlers)
    )

    def say(line: str) -> None:
        print(printable(line), file=out)

    say(f"event {by_members(explanation.event)}")
    if explanation.error is not None:
        say(f"fault: {type(explanation.error).__name__}: {explanation.error}")
    running = [entry for entry in explanation.handlers if entry.position is not None]
    matched = [entry for entry in explanation.handlers if entry.matches]
    others = [entry for entry in explanation.handlers if not entry.matches]
    if matched and not running:
        say("These handlers match. None of them runs:")
        print_table(Table(("handler", "why"), [(e.name, e.reason) for e in matched]), out)
    elif running:
        say("These handlers run, in this order:")
        rows = [(f"{place}", e.name, e.reason) for place, e in enumerate(running, 1)]
        print_table(Table((">", "handler", "why"), rows), out)
    else:
        say("No handler wants this event.")
    if others:
        say("These handlers do not match:")
        print_table(Table(("handler", "why not"), [(e.name, e.reason) for e in others]), out)


def _with_filters(entry: HandlerExplanation, filters: Mapping[str, str]) -> HandlerExplanation:
    reason = entry.reason
    for name in sorted(filters, key=len, reverse=True):  # one may begin like another
        reason = reason.replace(name, filters[name])
    return entry._replace(reason=reason)
