"""A text stream that puts a label before each line."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable
from typing import Any, TextIO


class LabelledStream:
    """Stands for `sys.stdout` or `sys.stderr`; everything but text goes to the stream itself.

    A complete line is written at once, so that lines of several processes do not mix. `flush`
    writes the beginning of a line; what follows is not labelled again.

    Args:
        inner: The stream.
        label: Returns the label of a line that begins now.
    """

    def __init__(self, inner: TextIO, label: Callable[[], str]) -> None:
        self.inner = inner
        self._label = label
        self._lock = threading.RLock()
        self._held = ""  # the beginning of a line, with its label
        self._is_within = False  # whether part of the current line was written

    def write(self, text: str) -> int:
        """Write text."""
        with self._lock:
            *lines, rest = text.split("\n")
            done = ""
            for line in lines:
                done += f"{self._begun(line)}\n"
                self._held, self._is_within = "", False
            if rest:
                self._held = self._begun(rest)
            if done:
                self.inner.write(done)
                self.inner.flush()
        return len(text)

    def _begun(self, text: str) -> str:
        """The current line, continued by a text."""
        return self._held + text if self._held or self._is_within else self._label() + text

    def writelines(self, lines: Iterable[str]) -> None:
        """Write each text."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Write everything."""
        with self._lock:
            if self._held:
                self.inner.write(self._held)
                self._held, self._is_within = "", True
            self.inner.flush()

    def end(self) -> None:
        """Write everything, and pass on text as it is from now on."""
        self._lock = threading.RLock()  # a thread that a fork has left behind may hold it
        self._label = str
        with contextlib.suppress(Exception):
            self.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)
