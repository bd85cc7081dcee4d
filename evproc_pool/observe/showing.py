"""What the views of progress have in common."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO

from evproc_pool.observe.progress import ProgressCounts

#: Returns the counts of now.
Counts = Callable[[], ProgressCounts]


class Ticker:
    """Calls a function every so many seconds, in a thread; an error ends that."""

    def __init__(self, seconds: float, act: Callable[[], object]) -> None:
        self._seconds = seconds
        self._act = act
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="evproc progress", daemon=True)
        # a thread that writes when the interpreter ends would crash it
        atexit.register(self.stop)
        try:
            self._thread.start()
        except RuntimeError:
            pass  # the system has no more threads: only the end is shown
        except BaseException:  # an interrupt
            self.stop()
            raise

    def _run(self) -> None:
        with suppress(Exception):
            while not self._is_over.wait(self._seconds):
                self._act()

    def stop(self) -> None:
        """Stop, and wait for a call of the function that is under way."""
        self._is_over.set()
        atexit.unregister(self.stop)
        # the garbage collector may end a call in any thread
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()


def is_terminal(stream: TextIO | None) -> bool:
    """Whether it writes to a terminal."""
    try:
        return stream is not None and stream.isatty()
    except (ValueError, AttributeError):  # it is closed, or something of the application's
        return False
