"""`evproc run`: lines in, outcomes out, in one event loop.

An event loop, since input that is slow must not hold outcomes back: while no line comes, the
outcomes of the lines before it are written. The output is flushed whenever the loop waits.
"""

from __future__ import annotations

import asyncio
import os
import select
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import aclosing, contextmanager, suppress
from io import FileIO, RawIOBase
from typing import Any, Final, NamedTuple

from evproc_pool import Outcome, PoolProcessor
from evproc_pool.cli import json_output
from evproc_pool.cli.json_event import BadInputError
from evproc_pool.cli.line_input import EventSource, InputStoppedError
from evproc_pool.cli.output import STANDARD_OUTPUT, counted, naming, printable, say

#: How many failures are told on standard error, if no file takes them.
MOST_SENTENCES: Final = 10

# How many characters of output are kept before they are written.
_FULL: Final = 1 << 16


class LineWriter:
    """Writes lines to a file, many at a time.

    Args:
        file: Takes the lines, unbuffered: after Ctrl-C nothing is left that could block. Closing
            it is the caller's.
    """

    def __init__(self, file: RawIOBase) -> None:
        self._file = file
        name = getattr(file, "name", None)
        self._name = name if isinstance(name, str) else STANDARD_OUTPUT
        self._lines: list[str] = []
        self._size = 0

    def write(self, line: str) -> None:
        """Write a line now or at the next `flush`."""
        if not self._lines:
            self._flush_when_idle()
        self._lines.append(line)
        self._size += len(line)
        if self._size >= _FULL:
            self.flush()

    def flush(self) -> None:
        """Write what was kept.

        Raises:
            OSError: The file takes no more. What was kept is dropped.
        """
        if self._lines:
            lines, self._lines, self._size = self._lines, [], 0
            left = memoryview("\n".join([*lines, ""]).encode())
            with naming(self._name):
                while left:
                    left = left[self._file.write(left) or self._wait() :]

    def _wait(self) -> int:
        """Wait until the file takes more: somebody has made it non-blocking."""
        select.select([], [self._file], [])
        return 0

    def _flush_when_idle(self) -> None:
        asyncio.get_running_loop().call_soon(self._flush_quietly)

    def _flush_quietly(self) -> None:
        # an error would go to the loop, which goes on; the task gets it from the next `write`
        lines = self._lines
        try:
            self.flush()
        except OSError:
            self._lines, self._size = lines, _FULL


class AboveProgress(RawIOBase):
    """A terminal that shows progress, too: lines go above the bar, which standard error draws."""

    def write(self, data: Any, /) -> int:
        """Write some lines."""
        sys.stderr.write(bytes(data).decode())
        sys.stderr.flush()
        return len(data)


class Totals(NamedTuple):
    """What came of the lines.

    Attributes:
        events: Root events that came to an outcome.
        failed: How many of these have an error.
        bad: Lines from which no event could be made.
    """

    events: int
    failed: int
    bad: int

    @property
    def is_all_well(self) -> bool:
        """Whether nothing failed."""
        return not (self.failed or self.bad)

    def __str__(self) -> str:
        bad = f", {counted(self.bad, 'bad line')}" if self.bad else ""
        return f"{counted(self.events, 'event')}, {self.failed:,} failed{bad}"


class Recorder:
    """Writes each outcome where it belongs, and counts.

    Args:
        output: Takes outcomes.
        errors: Takes failures; None: `output` takes them, and the first ones are told.
        tell: Prints a sentence.
        with_traceback: Whether to show tracebacks.
        with_path: Whether lines have the paths of events.
    """

    def __init__(
        self,
        output: LineWriter,
        errors: LineWriter | None,
        tell: Callable[[str], None] = say,
        *,
        with_traceback: bool = False,
        with_path: bool = False,
    ) -> None:
        self._output = output
        self._errors = errors
        self._tell = tell
        self._with_traceback = with_traceback
        self._with_path = with_path
        self._told = 0
        self.totals = Totals(0, 0, 0)
        self._events = 0

    def outcome(self, outcome: Outcome, source: EventSource) -> None:
        """Write an outcome."""
        is_root = len(outcome.path) == 1
        line, given = source.taken(outcome.index, is_over=is_root)
        self._events += is_root
        if outcome.error is None:
            self._output.write(json_output.outcome_line(outcome, line, with_path=self._with_path))
            return
        text = json_output.failure_line(
            outcome,
            line,
            with_path=self._with_path,
            with_traceback=self._with_traceback,
            given=given,
        )
        (self._errors or self._output).write(text)
        if is_root:
            self.totals = self.totals._replace(failed=self.totals.failed + 1)
            self._say(json_output.failure_sentence(outcome, line), outcome.error)

    def bad(self, line: int, given: str, error: BadInputError) -> None:
        """Count a line from which no event can be made, and tell or write it."""
        self.totals = self.totals._replace(bad=self.totals.bad + 1)
        if self._errors is not None:
            self._errors.write(json_output.bad_line(line, str(error), given))
        self._say(f"line {line}: {error}", error.__cause__)

    def _say(self, sentence: str, error: BaseException | None) -> None:
        if self._errors is not None and not self._with_traceback:
            return
        self._told += 1
        if self._told > MOST_SENTENCES:
            if self._told == MOST_SENTENCES + 1:
                self._tell("further failures are not told: --errors FILE takes all of them")
            return
        if self._with_traceback and error is not None:
            self._tell(json_output.traceback_text(error).rstrip())
        self._tell(printable(sentence))

    def finish(self) -> Totals:
        """Write what is left; return the counts."""
        self._output.flush()
        if self._errors is not None:
            self._errors.flush()
        return self.totals._replace(events=self._events)


async def stream_lines(
    pool: PoolProcessor,
    source: EventSource,
    recorder: Recorder,
    *,
    ordered: bool,
    buffersize: int | None,
    every_event: bool,
    progress: bool = False,
) -> None:
    """Run every event of a source, and record the outcomes."""
    outcomes = pool.stream_async(
        source,
        ordered=ordered,
        buffersize=buffersize,
        every_event=every_event,
        progress=progress,
    )
    record = recorder.outcome
    with suppress(InputStoppedError):
        async with aclosing(outcomes):
            async for outcome in outcomes:
                record(outcome, source)


@contextmanager
def output_file(path: str | None) -> Iterator[FileIO]:
    """Open the output as it is; None is standard output, which is kept for outcomes alone.

    Whatever handlers print goes to standard error meanwhile, in workers, too.

    Raises:
        OSError: The file cannot be opened.
    """
    if path is not None:
        with FileIO(path, "ab") as file:  # `empty` comes later
            yield file
        return
    sys.stdout.flush()
    kept = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        with FileIO(kept, "wb", closefd=False) as file:
            yield file
    finally:
        sys.stdout.flush()
        os.dup2(kept, sys.stdout.fileno())
        os.close(kept)


def empty(files: Iterable[FileIO]) -> None:
    """Remove what files had before that `output_file` has opened by their paths."""
    for file in files:
        # not of standard output, which the shell has opened; devices and pipes keep nothing
        if file.mode == "ab" and stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            file.truncate(0)
