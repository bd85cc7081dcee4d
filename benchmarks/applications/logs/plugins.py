"""The pipeline as plug-ins: an event is a line, or a block of lines; each step is a handler."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any
from zlib import crc32

from benchmarks.applications.logs import reading
from evproc import Event, StopProcessing, requires, want

if TYPE_CHECKING:
    from evproc import AnyProcessor


class LogLine(Event):
    """A line of the log."""

    name = "log line"

    def __init__(self, text: str) -> None:
        self.text = text

    def user(self) -> str:
        """Whose line it is, without reading all of it: the key."""
        return reading.user_of(self.text)


@want("log line")
def decode(proc: Any, ev: LogLine) -> None:
    ev.proc.log.line = reading.decode(ev.text)


@want("log line")
@requires("decode")
def enrich(proc: Any, ev: LogLine) -> None:
    reading.enrich(ev.proc.log.line)


@want("log line")
@requires("enrich")
def classify(proc: Any, ev: LogLine) -> None:
    raise StopProcessing(reading.classify(ev.proc.log.line))


def register_all(processor: AnyProcessor) -> None:
    """Register the handlers with a `Processor` or a `PoolProcessor`."""
    for handler in (decode, enrich, classify):
        processor.register(handler)


# --- the same where an event is a block of lines ---


class LogLines(Event):
    """Some lines of the log.

    Args:
        texts: The lines.
        part: Whose they are, if they are not any: see `parts`.
    """

    name = "log lines"

    def __init__(self, texts: list[str], part: int = 0) -> None:
        self.texts = texts
        self.part = part


@want("log lines")
def decode_all(proc: Any, ev: LogLines) -> None:
    ev.proc.log.lines = list(map(reading.decode, ev.texts))


@want("log lines")
@requires("decode_all")
def enrich_all(proc: Any, ev: LogLines) -> None:
    for line in ev.proc.log.lines:
        reading.enrich(line)


@want("log lines")
@requires("enrich_all")
def classify_all(proc: Any, ev: LogLines) -> None:
    raise StopProcessing(list(map(reading.classify, ev.proc.log.lines)))


def register_blocks(processor: AnyProcessor) -> None:
    """Register the handlers for blocks."""
    for handler in (decode_all, enrich_all, classify_all):
        processor.register(handler)


def blocks(lines: Iterable[str], size: int) -> Iterator[LogLines]:
    """Make events of so many lines, in order."""
    lines = iter(lines)
    while texts := list(itertools.islice(lines, size)):
        yield LogLines(texts)


def parts(lines: Iterable[str], size: int, count: int) -> Iterator[LogLines]:
    """Make events of lines of the same users: all lines of a user are in one part, in order."""
    waiting: list[list[str]] = [[] for _ in range(count)]
    for line in lines:
        part = crc32(reading.user_of(line).encode()) % count
        texts = waiting[part]
        texts.append(line)
        if len(texts) == size:
            waiting[part] = []
            yield LogLines(texts, part)
    yield from (LogLines(texts, part) for part, texts in enumerate(waiting) if texts)
