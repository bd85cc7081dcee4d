"""Tables and progress, through ``rich`` where it is installed, plain otherwise.

A terminal has a progress bar. Where stderr is a pipe or a file, lines say what goes on:
a log of a build, or a person who reads through ``cat``, sees that something happens.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, Literal, TextIO, TypeVar

from evproc_pool.demo.findings import Table

if TYPE_CHECKING:
    from rich.table import Table as RichTable

T = TypeVar("T")

# How wide a table may get where no terminal sets the limit.
_UNLIMITED: Final = 1000

# Seconds between two states of the plain progress line.
_INTERVAL: Final = 0.1

# Seconds between two lines where there is no terminal.
_LINE_INTERVAL: Final = 1.0


def has_rich() -> bool:
    """Whether the extra ``progress`` is installed."""
    try:
        import rich  # noqa: F401 - an extra; the question is whether it can be imported
    except ImportError:
        return False
    return True


def printable(text: str) -> str:
    """Text that cannot move a terminal's cursor: names of files may hold anything."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


# --- tables ---


def print_tables(tables: Sequence[Table], out: TextIO) -> None:
    """Print tables one below the other; one without rows as its title only."""
    show = _print_rich if has_rich() else _print_plain
    for table in tables:
        rows = [tuple(map(printable, row)) for row in table.rows]
        show(table._replace(rows=rows), out)
        print(file=out)


def _print_plain(table: Table, out: TextIO) -> None:
    print(table.title, file=out)
    if not table.rows:
        return
    heads = tuple(head.lstrip(">") for head in table.columns)
    widths = [max(map(len, cells)) for cells in zip(heads, *table.rows, strict=True)]
    for row in (heads, tuple("-" * width for width in widths), *table.rows):
        cells = [
            cell.rjust(width) if head.startswith(">") else cell.ljust(width)
            for head, cell, width in zip(table.columns, row, widths, strict=True)
        ]
        print("  ".join(["", *cells]).rstrip(), file=out)


def _print_rich(table: Table, out: TextIO) -> None:
    from rich.console import Console
    from rich.text import Text

    class Tables(Console):
        def on_broken_pipe(self) -> None:
            raise  # noqa: PLE0704 - within an `except` of rich, which would end the program

    console = Tables(file=out, highlight=False)
    if not console.is_terminal:
        # nobody to wrap lines for; what reads them may want them whole
        console = Tables(file=out, highlight=False, width=_UNLIMITED)
    # captured, so that colours are right and `out` decides how it is encoded
    with console.capture() as captured:
        # Text, because a string would be read as markup
        console.print(Text(table.title, style="bold"))
        if table.rows:
            console.print(_rich_table(table))
    out.write(captured.get())


def _rich_table(table: Table) -> RichTable:
    from rich.table import Table as RichTable
    from rich.text import Text

    made = RichTable()
    for head in table.columns:
        justify: Literal["right", "left"] = "right" if head.startswith(">") else "left"
        made.add_column(head.lstrip(">"), justify=justify, overflow="fold")
    for row in table.rows:
        made.add_row(*map(Text, row))
    return made


# --- progress ---


@contextmanager
def progress(label: str, total: int, err: TextIO | None) -> Iterator[Callable[[], None]]:
    """Show how far a run is: in place on a terminal, line by line anywhere else.

    Yields:
        What to call when one more file is under way.
    """
    if err is None:
        yield lambda: None
    elif not err.isatty():
        with _lines(label, total, err) as advance:
            yield advance
    elif has_rich():
        with _rich_bar(label, total, err) as advance:
            yield advance
    else:
        with _plain_line(label, total, err) as advance:
            yield advance


def counted(items: Iterable[T], advance: Callable[[], None]) -> Iterator[T]:
    """Count items as they are taken.

    A run takes its events one by one, so this is all that a progress bar needs
    to know: a pool has them under way, and the last but a window's worth done.
    """
    for item in items:
        advance()
        yield item


@contextmanager
def _rich_bar(label: str, total: int, err: TextIO) -> Iterator[Callable[[], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(file=err),
        transient=True,  # the figures on stdout say how it ended
    )
    with bar:
        task = bar.add_task(label, total=total)
        yield lambda: bar.advance(task)


@contextmanager
def _plain_line(label: str, total: int, err: TextIO) -> Iterator[Callable[[], None]]:
    done = 0
    shown_at = float("-inf")

    def advance() -> None:
        nonlocal done, shown_at
        done += 1
        now = time.monotonic()
        if now - shown_at >= _INTERVAL:
            shown_at = now
            print(f"\r{label}: {done:,} of {total:,} files", end="", file=err, flush=True)

    try:
        yield advance
    finally:
        # over what is there: not every terminal knows how to clear a line
        width = len(f"{label}: {total:,} of {total:,} files")
        print("\r" + " " * width + "\r", end="", file=err, flush=True)


@contextmanager
def _lines(label: str, total: int, err: TextIO) -> Iterator[Callable[[], None]]:
    done = 0
    started_at = said_at = time.monotonic()

    def advance() -> None:
        nonlocal done, said_at
        done += 1
        now = time.monotonic()
        if now - said_at >= _LINE_INTERVAL:
            said_at = now
            say(f"{label}: {done:,} of {total:,} files handed out", err)

    say(f"{label}: started, {total:,} files", err)
    yield advance
    say(f"{label}: finished after {time.monotonic() - started_at:.1f} s", err)


def say(line: str, err: TextIO | None) -> None:
    """Print a line about what goes on; nothing on a terminal, which has a progress bar."""
    if err is None or err.isatty():
        return
    try:
        print(line, file=err, flush=True)
    except OSError:  # who reads has seen enough, or a disk is full: the survey goes on
        discard(err)


def discard(stream: TextIO) -> None:
    """Send the rest to nowhere; otherwise Python complains when it flushes at the end."""
    with suppress(OSError), open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - no real path
        os.dup2(nowhere.fileno(), stream.fileno())  # raises where it has no descriptor


def tolerate_any_text() -> None:
    """Let stdout and stderr escape what their encoding has no character for."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
