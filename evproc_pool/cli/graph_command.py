"""`evproc graph`: from a group to a tree or a file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from evproc.mistakes import near_names
from evproc_pool.cli import diagrams
from evproc_pool.cli.graphs import Flow, flows
from evproc_pool.cli.inventory import load_all, take_inventory
from evproc_pool.cli.output import STANDARD_OUTPUT, naming, printable, say, to_standard_output
from evproc_pool.cli.problems import FOUND, CommandError

#: Suffixes of files, and what is written into them.
FORMATS: Final = {".svg": "svg", ".dot": "dot", ".gv": "dot", ".mmd": "mmd"}


def chosen_format(output: str | None, wanted: str | None) -> str:
    """Return the format, from `--format` or from the suffix of a file.

    Raises:
        CommandError: The suffix is none of `FORMATS`.
    """
    if wanted is not None:
        return wanted
    if output is None:
        return "tree"
    suffix = Path(output).suffix
    if suffix not in FORMATS:
        raise CommandError(f"-o {output}: name a file that ends in .svg, .dot or .mmd")
    return FORMATS[suffix]


def found_flows(group: str, event: str | None) -> list[Flow]:
    """Load a group, and return its flows.

    Raises:
        CommandError: No handler wants the event.
        EntryPointException: Likewise, and one that might could not be loaded.
    """
    processor, broken = load_all(group)
    handlers = tuple(processor.nodes.values())
    found = flows(handlers, event)
    if not found and event is not None:
        if broken:
            raise broken[0]
        names = {name for each in handlers for clause in each.clauses for name in clause.names}
        near = near_names(event, names) or sorted(names)[:5]
        hint = f"; there is {', '.join(map(repr, near))}" if near else ""
        raise CommandError(f"no handler wants event {event!r}{hint}")
    return found


def draw(group: str, event: str | None, output: str | None, kind: str) -> int:
    """Draw the flows of a group; return the exit status."""
    found = found_flows(group, event)
    if kind == "tree":
        with to_standard_output():
            diagrams.print_trees(found, sys.stdout)
    else:
        _write(_drawn(found, group, kind), output)
    faults = take_inventory(group).faults
    for fault in faults:
        say(printable(f"fault: {fault}"))
    return FOUND if faults else 0


def _drawn(found: list[Flow], group: str, kind: str) -> bytes:
    if kind == "svg":
        return diagrams.svg(found, group)
    return (diagrams.dot(found, group) if kind == "dot" else diagrams.mermaid(found)).encode()


def _write(data: bytes, output: str | None) -> None:
    with naming(output or STANDARD_OUTPUT):
        if output is None:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        else:
            Path(output).write_bytes(data)
