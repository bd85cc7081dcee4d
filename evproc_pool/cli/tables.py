"""Tables: with `rich` on a terminal, in plain columns otherwise."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, TextIO

from evproc_pool.cli.output import printable


class Table(NamedTuple):
    """A table.

    Attributes:
        columns: The heads; one that begins with ">" is that of numbers, on the right.
        rows: The cells of each row.
    """

    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def print_table(table: Table, out: TextIO) -> None:
    """Print a table, cells on one line each where no terminal sets a width."""
    rows = [tuple(map(printable, row)) for row in table.rows]
    if out.isatty():
        _print_rich(Table(table.columns, rows), out)
    else:
        for line in plain_lines(Table(table.columns, rows)):
            print(line, file=out)


def plain_lines(table: Table) -> Iterable[str]:
    """Yield the lines of a table in plain columns."""
    heads = tuple(head.lstrip(">") for head in table.columns)
    widths = [max(map(len, cells)) for cells in zip(heads, *table.rows, strict=True)]
    for row in (heads, tuple("-" * width for width in widths), *table.rows):
        cells = [
            cell.rjust(width) if head.startswith(">") else cell.ljust(width)
            for head, cell, width in zip(table.columns, row, widths, strict=True)
        ]
        yield "  ".join(cells).rstrip()


def _print_rich(table: Table, out: TextIO) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    made = RichTable(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for head in table.columns:
        if head.startswith(">"):
            made.add_column(head[1:], justify="right", overflow="fold")
        else:
            # a place that is cut cannot be clicked or copied
            made.add_column(head, overflow="fold", no_wrap=head == "where")
    for row in table.rows:
        made.add_row(*map(Text, row))  # Text: a string would be read as markup
    console = Console(file=out, highlight=False)
    with console.capture() as captured:  # so that a broken pipe is raised here, not in `rich`
        console.print(made)
    out.write(captured.get())
