"""A program in a terminal: what a person sees on the screen, through an emulator."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.helpers import ROOT

#: What bounds a program that hangs; no test waits for it to pass.
SECONDS = 120.0


class Seen(NamedTuple):
    """How a program ended.

    Attributes:
        code: Its exit code.
        lines: All lines that were ever on the screen, as they were last.
        has_cursor: Whether the cursor is visible at the end.
        out: What it wrote to standard output, if that was a pipe.
        raw: All that it wrote to the terminal.
    """

    code: int
    lines: list[str]
    has_cursor: bool
    out: str
    raw: str


class Terminal:
    """A program whose standard error, and mostly also its output, is a terminal.

    Args:
        words: The program and its arguments.
        columns: The width of the terminal.
        pipes_output: Whether standard output is a pipe.
        options: Further ones of `Popen`.
    """

    def __init__(
        self, *words: str, columns: int = 120, pipes_output: bool = False, **options: Any
    ) -> None:
        import fcntl
        import struct
        import termios

        import pyte

        self._columns = columns
        self._end = time.monotonic() + SECONDS
        self.screen = pyte.HistoryScreen(columns, 40, history=100_000)
        self._stream = pyte.ByteStream(self.screen)
        self.raw = ""
        self._terminal, other = os.openpty()
        fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        env = {
            **{key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")},
            "TERM": "xterm",
            "PYTHONPATH": str(ROOT),
            **options.pop("env", {}),
        }
        try:
            self.process = subprocess.Popen(
                words,
                stdin=options.pop("stdin", subprocess.DEVNULL),
                stdout=subprocess.PIPE if pipes_output else other,
                stderr=other,
                env=env,
                **options,
            )
        finally:
            os.close(other)

    def read(self) -> bool:
        """Read what is there; return whether there may be more."""
        ready, _, _ = select.select([self._terminal], [], [], self._end - time.monotonic())
        assert ready, f"the program hangs; it wrote {self.raw!r}"
        try:
            data = os.read(self._terminal, 65536)
        except OSError:  # how Linux says that nobody is at the other end
            return False
        self._stream.feed(data)
        self.raw += data.decode(errors="replace")
        return bool(data)

    def wait_for(self, text: str) -> None:
        while text not in self.raw:
            assert self.read(), f"{text!r} is not in {self.raw!r}"

    def finish(self) -> Seen:
        while self.read():
            pass
        out = b"" if self.process.stdout is None else self.process.stdout.read()
        code = self.process.wait(SECONDS)
        past = ["".join(row[column].data for column in range(self._columns)) for row in self._past]
        lines = [line.rstrip() for line in (*past, *self.screen.display)]
        while lines and not lines[-1]:
            lines.pop()
        return Seen(code, lines, not self.screen.cursor.hidden, out.decode(), self.raw)

    @property
    def _past(self) -> list[Any]:
        return list(self.screen.history.top)

    def __enter__(self) -> Terminal:  # noqa: PYI034 - typing.Self came with Python 3.11
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._terminal)
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


def in_terminal(code: str, folder: Path, **options: Any) -> Seen:
    """Run a script in a terminal."""
    script = folder / "script.py"
    script.write_text(code, encoding="utf-8")
    with Terminal(sys.executable, "-W", "error", str(script), cwd=folder, **options) as terminal:
        return terminal.finish()
