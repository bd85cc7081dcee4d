"""Flows as text: a tree, Mermaid and DOT; and as SVG with the extra `[graph]`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Final, TextIO

from evproc_pool.cli.graphs import Branch, Flow, tree
from evproc_pool.cli.output import printable
from evproc_pool.cli.problems import CommandError, missing_extra

if TYPE_CHECKING:
    from rich.tree import Tree

_FAULT: Final = "red"


def _lines_below(branch: Branch, indent: str) -> Iterator[str]:
    for number, each in enumerate(branch.branches, 1):
        is_last = number == len(branch.branches)
        yield f"{indent}{'└── ' if is_last else '├── '}{each.text}"
        yield from _lines_below(each, indent + ("    " if is_last else "│   "))


def print_trees(flows: Sequence[Flow], out: TextIO) -> None:
    """Print the tree of each flow."""
    if out.isatty():
        _print_rich([tree(flow) for flow in flows], out)
        return
    for number, flow in enumerate(flows):
        if number:
            print(file=out)
        root = tree(flow)
        for line in (root.text, *_lines_below(root, "  ")):
            print(printable(line), file=out)


def _print_rich(branches: Sequence[Branch], out: TextIO) -> None:
    from rich.console import Console
    from rich.text import Text
    from rich.tree import Tree

    def add(to: Tree, branch: Branch) -> None:
        for each in branch.branches:
            style = _FAULT if each.text.startswith("fault") else ""
            add(to.add(Text(printable(each.text), style)), each)

    console = Console(file=out, highlight=False)
    with console.capture() as captured:
        for branch in branches:
            made = Tree(Text(printable(branch.text), "bold"), guide_style="dim")
            add(made, branch)
            console.print(made)
    out.write(captured.get())


def mermaid(flows: Sequence[Flow]) -> str:
    """Return a flow chart for Mermaid."""
    lines = ["flowchart TD"]
    for place, flow in enumerate(flows):
        ids = _ids(place, flow)
        lines.append(f'  subgraph e{place}["{_mermaid_text(flow.title)}"]')
        for number, node in enumerate(flow.nodes, 1):
            label = _mermaid_text(node.name if flow.cycle else f"{number} {node.name}")
            begin, end = ('{{"', '"}}') if node.may_decline else ('["', '"]')
            lines.append(f"    {ids[node.name]}{begin}{label}{end}")
        lines += [f"    {ids[each]} --> {ids[n.name]}" for n in flow.nodes for each in n.requires]
        lines.append("  end")
    return "\n".join([*lines, ""])


def _mermaid_text(text: str) -> str:
    # as Mermaid escapes characters
    return "".join(
        each if each.isalnum() or each in " -_.,:" else f"#{ord(each)};" for each in text
    )


def dot(flows: Sequence[Flow], group: str) -> str:
    """Return a graph for Graphviz."""
    lines = [
        f"digraph {_dot_text(group)} {{",
        '  node [shape=box, style=rounded, fontname="Helvetica"];',
        '  graph [fontname="Helvetica", labeljust=l];',
    ]
    for place, flow in enumerate(flows):
        ids = _ids(place, flow)
        lines.append(f"  subgraph cluster_{place} {{")
        lines.append(f"    label={_dot_text(flow.title)};")
        for number, node in enumerate(flow.nodes, 1):
            label = _dot_text(node.name if flow.cycle else f"{number} {node.name}")
            style = ', style="rounded,dashed"' if node.may_decline else ""
            lines.append(f"    {ids[node.name]} [label={label}{style}];")
        faulty = set(pairwise(flow.cycle))
        for node in flow.nodes:
            for each in node.requires:
                color = f" [color={_FAULT}]" if (node.name, each) in faulty else ""
                lines.append(f"    {ids[each]} -> {ids[node.name]}{color};")
        lines.append("  }")
    return "\n".join([*lines, "}", ""])


def _dot_text(text: str) -> str:
    escaped = printable(text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _ids(place: int, flow: Flow) -> dict[str, str]:
    return {node.name: f"e{place}h{number}" for number, node in enumerate(flow.nodes)}


def svg(flows: Sequence[Flow], group: str) -> bytes:
    """Draw the graph.

    Raises:
        CommandError: `pygraphviz` is not installed, or is one that has no Graphviz.
    """
    try:
        from pygraphviz import AGraph
    except ImportError as error:
        raise missing_extra("an SVG file", "graph", error) from None
    try:
        drawn: bytes = AGraph(string=dot(flows, group)).draw(format="svg", prog="dot")
    except (OSError, ValueError) as error:  # version 1 looks for programs
        raise CommandError(
            f"Graphviz cannot draw: {error}: pip install 'evproc-pool[graph]'"
        ) from error
    return drawn
