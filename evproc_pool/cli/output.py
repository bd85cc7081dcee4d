"""Lines for people, on standard output and standard error."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Final, TextIO

from evproc_pool.cli.problems import CommandError


class ClosedOutput(io.TextIOBase):
    """Standard output that was closed when the program began: prints nothing, as Python does."""

    def write(self, text: str, /) -> int:
        """Write nothing."""
        return len(text)

    def fileno(self) -> int:
        """Raise a `CommandError`: who asks has something to write that must not be lost."""
        raise CommandError("standard output is closed")


def open_closed_streams() -> None:
    """Have files in the place of standard output and standard error, if these are closed.

    Otherwise the next file that is opened would get the number of one, and what is printed, in
    workers, too.
    """
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR)
            if descriptor != number:
                os.dup2(descriptor, number)
                os.close(descriptor)
            os.set_inheritable(number, True)
            nowhere = open(number, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - until the end
            setattr(sys, name, ClosedOutput() if number == 1 else nowhere)


#: The name of standard output, in errors.
STANDARD_OUTPUT: Final = "standard output"


@contextmanager
def naming(file: str) -> Iterator[None]:
    """Have an error that a write to this file raises name it."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = file
        raise


def to_standard_output() -> AbstractContextManager[None]:
    """Have an error name standard output."""
    return naming(STANDARD_OUTPUT)


def say(line: str) -> None:
    """Print a line to standard error, if anybody reads it."""
    try:
        print(line, file=sys.stderr, flush=True)  # noqa: T201 - a command-line program
    except OSError:
        discard(sys.stderr)


def discard(stream: TextIO) -> None:
    """Send the rest to nowhere; otherwise Python complains when it flushes at the end."""
    with suppress(OSError), open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - no real path
        os.dup2(nowhere.fileno(), stream.fileno())  # raises if it has no descriptor


def printable(text: str) -> str:
    """Return one line of text that cannot move a terminal's cursor."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: "1 event", "1,000 events"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
