"""The bars of calls in a terminal, through `rich`: one live display, with a row for each call.

While it is there, `sys.stderr` writes above the bars, and so do `sys.stdout` if it is a terminal
(what goes to a pipe or a file must still go there) and the handlers of `logging` that have one of
these two. What worker processes print goes past it: the next refresh draws the bars below.

A call that ends while others go on leaves its row above the bars.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, Final, NoReturn

from rich.console import Console
from rich.file_proxy import FileProxy
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from evproc_pool.observe.progress import ProgressCounts
from evproc_pool.observe.progress_text import amount, duration, rate
from evproc_pool.observe.showing import Counts, Ticker, is_terminal

_SECONDS: Final = 0.2
_WIDTH: Final = 20


class _Terminal(Console):
    """Standard error. Long lines stay whole, so that they can be copied."""

    def __init__(self) -> None:
        super().__init__(file=sys.stderr, soft_wrap=True, highlight=False)

    def on_broken_pipe(self) -> NoReturn:
        raise  # noqa: PLE0704 - within an `except` of rich, which would end the program


class Bar:
    """The row of one call."""

    def __init__(self, counts: Counts) -> None:
        self.counts = counts

    def end(self) -> None:
        """See `progress_views.View`."""
        _BARS.remove(self)


class Display:
    """The live display, as long as there are rows.

    Attributes:
        bars: The rows.
        console: Draws them.
    """

    def __init__(self) -> None:
        self.bars: tuple[Bar, ...] = ()
        self.console = _Terminal()
        self._streams: list[tuple[Any, Any]] = []  # what was redirected, and to what
        self._live: Live | None = None
        self._ticker: Ticker | None = None

    def _table(self) -> Table:
        return table([bar.counts() for bar in self.bars])

    def start(self) -> None:
        """Draw the rows, and go on drawing them."""
        has_terminal = is_terminal(sys.stdout)
        before = sys.stderr, sys.stdout
        self._live = Live(
            console=self.console,
            auto_refresh=False,  # its own thread would print the error if the terminal is gone
            get_renderable=self._table,
            redirect_stdout=has_terminal,
        )
        atexit.register(self.stop)
        with suppress(Exception):  # the terminal is gone
            self._live.start(refresh=True)
        after = sys.stderr, sys.stdout
        self._streams = [pair for pair in zip(before, after, strict=True) if pair[0] is not pair[1]]
        for old, new in self._streams:
            _swap(old, new)
        self._ticker = Ticker(_SECONDS, self._live.refresh)

    def stop(self) -> None:
        """Draw the rows for the last time."""
        atexit.unregister(self.stop)
        for old, new in self._streams:
            _swap(new, old)
        try:
            if self._ticker is not None:
                self._ticker.stop()
        finally:  # also if Ctrl-C strikes: the cursor is hidden
            if self._live is not None:
                with suppress(Exception):  # likewise
                    self._live.stop()

    def restore(self) -> None:
        """Undo the redirection, and draw nothing."""
        atexit.unregister(self.stop)
        for old, new in self._streams:
            for handler in _log_handlers(new):
                handler.stream = old
        sys.stdout = getattr(sys.stdout, "rich_proxied_file", sys.stdout)
        sys.stderr = getattr(sys.stderr, "rich_proxied_file", sys.stderr)


class Bars:
    """The display of this process, if there is one. No lock is held while something is drawn."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._display: Display | None = None

    def add(self, bar: Bar) -> bool:
        """Show one more call; False: there is no terminal for it."""
        with self._lock:
            display = self._display
            is_first = display is None
            if display is None:
                display = Display()
                if not display.console.is_interactive or isinstance(sys.stderr, FileProxy):
                    return False  # a terminal that can do nothing, or a display of another one
                self._display = display
            display.bars += (bar,)
        if is_first:
            display.start()
        return True

    def remove(self, bar: Bar) -> None:
        """Show a call no longer; its row stays on the screen."""
        with self._lock:
            display = self._display
            if display is None or bar not in display.bars:
                return
            is_last = len(display.bars) == 1
            if is_last:
                self._display = None
            else:
                display.bars = tuple(each for each in display.bars if each is not bar)
        if is_last:
            display.stop()
        else:
            with suppress(Exception):  # the terminal is gone
                display.console.print(table([bar.counts()]))

    def restore(self) -> None:
        """Begin anew in a process that was forked, where nothing is drawn."""
        if self._display is not None:
            self._display.restore()
        self._lock = threading.RLock()
        self._display = None


def _log_handlers(stream: object) -> Iterator[logging.StreamHandler[Any]]:
    """Yield the handlers of all loggers that write to a stream."""
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    for logger in loggers:
        for handler in getattr(logger, "handlers", ()):
            if isinstance(handler, logging.StreamHandler) and handler.stream is stream:
                yield handler


def _swap(old: object, new: Any) -> None:
    for handler in _log_handlers(old):
        handler.setStream(new)


def table(rows: Sequence[ProgressCounts]) -> Table:
    """Return the rows of calls."""
    grid = Table.grid(padding=(0, 1))
    grid.add_column(max_width=_WIDTH)
    grid.add_column(no_wrap=True, overflow="crop")
    for counts in rows:
        total = counts.roots_total
        if counts.is_over and total is None:
            total = counts.roots_done
        bar = ProgressBar(total, counts.roots_done, width=_WIDTH, pulse=total is None)
        grid.add_row(bar, _text(counts))
    return grid


def _text(counts: ProgressCounts) -> Text:
    parts: list[tuple[str, str]] = [(amount(counts), ""), (rate(counts), "cyan")]
    if counts.failed:
        parts.append((f"{counts.failed:,} failed", "bold red"))
    if counts.retried:
        parts.append((f"{counts.retried:,} retried", "yellow"))
    parts.append((duration(counts.seconds), "dim"))
    if counts.seconds_left is not None:
        parts.append((f"{duration(counts.seconds_left)} left", "green"))
    return Text("  ").join([Text(text, style) for text, style in parts])


_BARS: Final = Bars()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_BARS.restore)


def begin_bar(counts: Counts) -> Bar | None:
    """Begin to show a call; None: standard error is no terminal of a kind that has bars."""
    bar = Bar(counts)
    return bar if _BARS.add(bar) else None
