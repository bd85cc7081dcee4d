"""Lines for people, on standard output and standard error."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TextIO


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
