"""Reading one event: from a file, a line of a file, or the command line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import IO, Any

from evproc import Event
from evproc_pool.cli.json_event import BadInputError, parse
from evproc_pool.cli.problems import STANDARD_INPUT, CommandError


def read_event(given: str, make: Callable[[Any], Event], line: int | None = None) -> Event:
    """Read one event.

    Args:
        given: A file, or the JSON itself.
        make: Makes an event of parsed JSON.
        line: Which line of the file has it; None: all of the file is the event.

    Raises:
        CommandError: The file cannot be read, or holds no event.
    """
    name, data = _read(given, line)
    where = name if line is None else f"{name}: line {line}"
    try:
        text = data.decode("utf-8-sig")
        try:
            return make(parse(text))
        except BadInputError as error:
            if line is None and _has_several(text):
                raise CommandError(
                    f"{where}: a JSON object on each of several lines, and explain takes one event:"
                    " --line N takes that of line N"
                ) from error
            raise
    except UnicodeDecodeError as error:
        place = (line or 1) + data.count(b"\n", 0, error.start)
        raise CommandError(f"{name}: line {place} is no UTF-8 text") from None
    except BadInputError as error:
        raise CommandError(f"{where}: {error}") from error


def _read(given: str, line: int | None) -> tuple[str, bytes]:
    """Return the name of the source, and what it has."""
    if given.lstrip().startswith("{"):
        if line is not None:
            raise CommandError(
                "--line takes a line of a file, and the argument is the event itself"
            )
        return "the event", given.encode(errors="surrogateescape")
    if given == STANDARD_INPUT:
        return "standard input", _part(sys.stdin.buffer, "standard input", line)
    try:
        with Path(given).open("rb") as file:
            return given, _part(file, given, line)
    except OSError as error:
        raise CommandError(f"{given}: {error.strerror}") from None


def _part(file: IO[bytes], name: str, line: int | None) -> bytes:
    if line is None:
        return file.read()
    lines = 0
    for lines, found in enumerate(islice(file, min(line, sys.maxsize)), 1):
        if lines == line:
            return found.removesuffix(b"\n")
    raise CommandError(f"{name}: there is no line {line}; it has {lines:,}")


def _has_several(text: str) -> bool:
    """Whether the text is one JSON value and then more."""
    first, newline, rest = text.lstrip().partition("\n")
    if not newline or not rest.strip():
        return False
    try:
        parse(first)
    except BadInputError:
        return False
    return True
