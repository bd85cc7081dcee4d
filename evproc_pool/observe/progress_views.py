"""Shows a person how far a call is: a bar in a terminal or a notebook, lines anywhere else.

All of it goes to standard error. A view asks for the counts whenever it shows them, in a thread of
its own, also while no event ends: a line then says that the program is alive. If showing fails, for
example because the terminal is gone, the call goes on without it.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any, Final, Protocol

from evproc_pool.observe.progress_text import line
from evproc_pool.observe.showing import Counts, Ticker, is_terminal

_LINE_SECONDS: Final = 10.0
_NOTEBOOK_SECONDS: Final = 0.5


class View(Protocol):
    """Shows one call."""

    def end(self) -> None:
        """Show the final counts, and stop."""


class Lines:
    """Prints a line now and then."""

    def __init__(self, counts: Counts, seconds: float = _LINE_SECONDS) -> None:
        self._counts = counts
        self._ticker = Ticker(seconds, self.show)

    def show(self) -> None:
        """Print a line, to what is standard error at the moment."""
        if sys.stderr is not None:
            # one write: those of other threads must not come between
            sys.stderr.write(f"{line(self._counts())}\n")
            sys.stderr.flush()

    def end(self) -> None:
        """See `View`."""
        self._ticker.stop()
        with suppress(Exception):  # it is closed, nobody reads it, or it is no file at all
            self.show()


class Notebook:
    """A bar below a cell, which takes no widgets."""

    def __init__(self, counts: Counts, seconds: float = _NOTEBOOK_SECONDS) -> None:
        from IPython.display import display  # a notebook has it

        self._counts = counts
        show: Any = display
        self._handle = show(self._bar(), display_id=True)
        self._ticker = Ticker(seconds, self.show)

    def _bar(self) -> Any:
        from evproc_pool.observe.progress_bars import table

        return table([self._counts()])

    def show(self) -> None:
        """Show the counts of now."""
        self._handle.update(self._bar())

    def end(self) -> None:
        """See `View`."""
        self._ticker.stop()
        with suppress(Exception):  # the code of IPython may fail in its own ways
            self.show()


def begin_view(counts: Counts) -> View:
    """Begin to show a call in the way that fits this process."""
    if _is_notebook():
        return Notebook(counts)
    if is_terminal(sys.stderr):
        from evproc_pool.observe.progress_bars import begin_bar

        bar = begin_bar(counts)
        if bar is not None:
            return bar
    return Lines(counts)


def _is_notebook() -> bool:
    if "IPython" not in sys.modules:
        return False
    from rich.console import Console

    return Console().is_jupyter
