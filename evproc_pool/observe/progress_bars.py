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

# Colours that a terminal of 16 colours has: there those of `rich` become one grey.
_EMPTY: Final = "bright_black"
_DONE: Final = "magenta"
_FINISHED: Final = "green"


class _Terminal(Console):
    """Standard error. Long lines stay whole, so that they can be copied."""

    def __init__(self) -> None:
        # what a program prints is no markup
        super().__init__(
            file=_own_stream("stderr"), soft_wrap=True, highlight=False, markup=False, emoji=False
        )

    def on_broken_pipe(self) -> NoReturn:
        raise  # noqa: PLE0704 - within an `except` of rich, which would end the program


class _Above(FileProxy):
    """Stands for a standard stream: writes above the bars, and to the stream when they are gone.

    The application may keep it longer than there are bars: `contextlib.redirect_stderr` that begins
    meanwhile puts it back at its end.

    Rejected: that `Live` redirects. It puts back what it found, over what the application has put
    there meanwhile.
    """

    is_over = False

    def __init__(self, name: str, console: Console) -> None:
        self._name = name
        self.stream = _own_stream(name)
        super().__init__(console, self.stream)

    def write(self, text: str) -> int:
        """Write lines; the rest of the text waits for the end of its line."""
        return self.stream.write(text) if self.is_over else super().write(text)

    def flush(self) -> None:
        """Write what waits."""
        if self.is_over:
            self.stream.flush()
        else:
            super().flush()

    def begin(self) -> None:
        """Take the place of the stream."""
        setattr(sys, self._name, self)
        for handler in _log_handlers(self.stream):
            handler.setStream(self)

    def end(self) -> None:
        """Give the place back, if it is still taken."""
        with suppress(Exception):  # the terminal is gone
            self.flush()
        for handler in _log_handlers(self):
            handler.setStream(self.stream)
        self.leave()

    def leave(self) -> None:
        """As `end`, in a process that was forked: write nothing, and take no lock."""
        self.is_over = True
        for handler in _log_handlers(self):
            handler.stream = self.stream
        if getattr(sys, self._name) is self:
            setattr(sys, self._name, self.stream)


class Bar:
    """The row of one call.

    Attributes:
        counts: Returns its counts of now.
    """

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
        self._above: list[_Above] = []
        self._live: Live | None = None
        self._ticker: Ticker | None = None

    @property
    def is_started(self) -> bool:
        """Whether it has drawn its rows."""
        return self._live is not None

    def _table(self) -> Table:
        return table([bar.counts() for bar in self.bars])

    def start(self) -> None:
        """Draw the rows, and go on drawing them."""
        self._live = Live(
            console=self.console,
            auto_refresh=False,  # its own thread would print the error if the terminal is gone
            get_renderable=self._table,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        atexit.register(self.stop)
        with suppress(Exception):  # the terminal is gone
            self._live.start(refresh=True)
        for name in ("stderr", "stdout"):
            if is_terminal(getattr(sys, name)):
                self._above.append(_Above(name, self.console))
                self._above[-1].begin()
        self._ticker = Ticker(_SECONDS, self._live.refresh)

    def stop(self) -> None:
        """Draw the rows for the last time."""
        atexit.unregister(self.stop)
        try:
            for above in self._above:
                above.end()
            if self._ticker is not None:
                self._ticker.stop()
        finally:  # also if Ctrl-C strikes: the cursor is hidden
            if self._live is not None:
                with suppress(Exception):  # likewise
                    self._live.stop()

    def restore(self) -> None:
        """Undo the redirection, and draw nothing."""
        atexit.unregister(self.stop)
        for above in self._above:
            above.leave()


class Bars:
    """The display of this process, if there is one.

    A display that begins while another one ends is started when that has ended: two of them would
    draw over each other. While a display ends, no row is drawn above it: `rich` would erase as many
    lines as the display has had. So rows are drawn one after the other. No call waits for that but
    those that end.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._drawing = threading.RLock()  # held while the row of a call that has ended is drawn
        self._display: Display | None = None
        self._ending: Display | None = None  # still has the screen

    def add(self, bar: Bar) -> bool:
        """Show one more call; False: there is no terminal for it."""
        with self._lock:
            display = self._display
            is_first = display is None
            if display is None:
                display = Display()
                if not display.console.is_interactive or _is_live(sys.stderr):
                    return False  # a terminal that can do nothing, or a display of another one
                self._display = display
            display.bars += (bar,)
            starts = is_first and self._ending is None
        if starts:
            display.start()
        return True

    def remove(self, bar: Bar) -> None:
        """Show a call no longer; its row stays on the screen."""
        with self._lock:
            display, ending = self._display, self._ending
            if display is None or bar not in display.bars:
                return
            others = tuple(each for each in display.bars if each is not bar)
            if others or ending is not None:
                display.bars = others
            if not others:
                self._display = None
                self._ending = ending or display
        if others or ending is not None:
            console = display.console if display.is_started or ending is None else ending.console
            with self._drawing, suppress(Exception):  # the terminal is gone
                console.print(table([bar.counts()]))
            return
        try:
            with self._drawing:
                display.stop()  # with the row
        finally:
            self._has_ended()

    def _has_ended(self) -> None:
        """Start the display that has begun meanwhile."""
        with self._lock:
            following = self._display
            if following is None:
                self._ending = None
                return
        try:
            following.start()
        finally:
            with self._lock:
                is_over = self._display is not following
                if not is_over:
                    self._ending = None
            if is_over:  # all of its calls, meanwhile
                try:
                    with self._drawing:
                        following.stop()
                finally:
                    self._has_ended()

    def restore(self) -> None:
        """Begin anew in a process that was forked, where nothing is drawn."""
        if self._display is not None:
            self._display.restore()
        self._lock = threading.RLock()
        self._drawing = threading.RLock()
        self._display = None
        self._ending = None


def _own_stream(name: str) -> Any:
    """A standard stream, not what stands for it while an earlier display ends."""
    stream = getattr(sys, name)
    return stream.stream if isinstance(stream, _Above) else stream


def _log_handlers(stream: object) -> Iterator[logging.StreamHandler[Any]]:
    """Yield the handlers of all loggers that write to a stream."""
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    for logger in loggers:
        for handler in getattr(logger, "handlers", ()):
            if isinstance(handler, logging.StreamHandler) and handler.stream is stream:
                yield handler


def _is_live(stream: object) -> bool:
    """Whether a live display of `rich` stands for it that is none of ours."""
    return isinstance(stream, FileProxy) and not isinstance(stream, _Above)


def table(rows: Sequence[ProgressCounts]) -> Table:
    """Return the rows of calls."""
    grid = Table.grid(padding=(0, 1))
    grid.add_column(max_width=_WIDTH)
    grid.add_column(no_wrap=True, overflow="crop")
    for counts in rows:
        total = counts.roots_total
        if counts.is_over and total is None:
            total = counts.roots_done
        bar = ProgressBar(
            total,
            counts.roots_done,
            width=_WIDTH,
            pulse=total is None,
            style=_EMPTY,
            complete_style=_DONE,
            finished_style=_FINISHED,
            pulse_style=_DONE,
        )
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
    try:
        return bar if _BARS.add(bar) else None
    except BaseException:  # an interrupt: the call does not begin
        bar.end()
        raise
