"""Reading events, a line each, from a file, a pipe or a terminal."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import Any, Final, Self

from evproc import Event
from evproc_pool.cli.json_event import BadInputError, parse
from evproc_pool.cli.problems import STANDARD_INPUT, CommandError

#: How much is read at a time: more than a pipe holds.
_PORTION: Final = 1 << 18

#: How much is read at a time to count lines, and how much at most: a second of the disk's time.
_COUNTED_PORTION: Final = 1 << 20
_MOST_COUNTED: Final = 1 << 29

#: Begins a text file on Windows.
_BOM: Final = b"\xef\xbb\xbf"


class LineSplitter:
    """Cuts what is read into lines, and counts them."""

    def __init__(self) -> None:
        self._rest: list[bytes] = []  # the beginning of a line that has not ended
        self._is_first = True

    def lines(self, data: bytes) -> list[bytes]:
        """Return the lines that `data` completes, without their ends; b"" ends the last one."""
        if not data:
            last, self._rest = b"".join(self._rest), []
            return self._without_bom([last] if last else [])
        head, newline, tail = data.rpartition(b"\n")
        if not newline:
            self._rest.append(data)
            return []
        lines = b"".join([*self._rest, head]).split(b"\n")
        self._rest = [tail] if tail else []
        return self._without_bom(lines)

    def _without_bom(self, lines: list[bytes]) -> list[bytes]:
        if self._is_first and lines:
            self._is_first = False
            lines[0] = lines[0].removeprefix(_BOM)
        return lines


class Portions:
    """Reads a file descriptor in an event loop, which runs other tasks while it waits.

    On Windows, and for files that a loop cannot watch, reading itself waits: outcomes come when
    there is more input, and Ctrl-C takes effect then.

    Args:
        descriptor: Where to read; it stays open.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._waiter: asyncio.Future[None] | None = None
        self._is_stopped = False

    def stop(self) -> None:
        """End the input here. Call it in the loop."""
        self._is_stopped = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def read(self) -> bytes:
        """Return what there is to read, at least one byte; b"" is the end."""
        await self._readable()
        return b"" if self._is_stopped else os.read(self._descriptor, _PORTION)

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        try:
            loop.add_reader(self._descriptor, self._wake)
        except (NotImplementedError, OSError):  # no file of this kind is watched
            await asyncio.sleep(0)
            return
        try:
            if not self._is_stopped:
                await self._waiter
        finally:
            loop.remove_reader(self._descriptor)


class InputStoppedError(Exception):
    """The input was ended by `EventSource.stop`: there may have been more."""


class EventSource:
    """An asynchronous iterator over the events of an input, a line each.

    Blank lines are passed over. It ends with an `InputStoppedError` if it is stopped.

    Args:
        portions: Where the lines come from.
        make: Makes an event of parsed JSON.
        bad: Called with the number of a line, the line, and why no event can be made of it.
        keep: Whether to remember each line until its number is taken.
        expected: About how many events will come, if that is known; see `operator.length_hint`.

    Attributes:
        read: How many lines were read.
    """

    def __init__(
        self,
        portions: Portions,
        make: Callable[[Any], Event],
        bad: Callable[[int, str, BadInputError], None],
        *,
        keep: bool,
        expected: int | None = None,
    ) -> None:
        self._expected = expected
        self._portions = portions
        self._make = make
        self._bad = bad
        self._keep = keep
        self._splitter = LineSplitter()
        self._events: Iterator[Event] = iter(())
        self._ended = self._is_stopped = False
        self._accepted = 0
        self._lines: dict[int, tuple[int, str | None]] = {}
        # the places of events behind lines that made none, and how many such lines there were
        self._after_gaps = array("Q")
        self._gaps = array("Q")
        self.read = 0

    def __length_hint__(self) -> int:
        return NotImplemented if self._expected is None else self._expected

    def line_of(self, index: int) -> int:
        """Return the number of the line of a root event, at any time."""
        place = bisect_right(self._after_gaps, index)
        return index + 1 + (self._gaps[place - 1] if place else 0)

    def taken(self, index: int, *, is_over: bool = True) -> tuple[int, str | None]:
        """Return the number of the line of a root event, and the line if lines are kept.

        Args:
            index: The place of the event.
            is_over: Whether to forget it.
        """
        return self._lines.pop(index) if is_over else self._lines[index]

    def stop(self) -> None:
        """End the input: what was read and not handed in is dropped."""
        self._is_stopped = True
        self._portions.stop()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        while not (self._ended or self._is_stopped):
            for event in self._events:
                return event
            data = await self._portions.read()
            if self._is_stopped:
                break  # the line that was begun is none
            self._events = self._made(self._splitter.lines(data))
            if not data:
                self._ended = True
                for event in self._events:
                    return event
        raise InputStoppedError if self._is_stopped else StopAsyncIteration

    def _made(self, lines: list[bytes]) -> Iterator[Event]:
        make, keep = self._make, self._keep
        for line in lines:
            self.read += 1
            try:
                text = line.decode()
                event = make(parse(text))
            except BadInputError as error:
                if not text or text.isspace():
                    continue
                self._bad(self.read, text, error)
            except UnicodeDecodeError:
                text = line.decode(errors="backslashreplace")
                self._bad(self.read, text, BadInputError("no UTF-8 text"))
            else:
                gap = self.read - 1 - self._accepted
                if gap != (self._gaps[-1] if self._gaps else 0):
                    self._after_gaps.append(self._accepted)
                    self._gaps.append(gap)
                self._lines[self._accepted] = self.read, text if keep else None
                self._accepted += 1
                yield event


def open_input(path: str) -> int:
    """Open a file for reading; return its descriptor, that of standard input for "-".

    Raises:
        CommandError: Standard input is closed.
        OSError: It cannot be opened.
    """
    if path == STANDARD_INPUT:
        if sys.stdin is None:
            raise CommandError("standard input is closed")
        return sys.stdin.fileno()
    return os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))


def count_lines(descriptor: int) -> int | None:
    """Return about how many lines are left in a file; None if that cannot be known.

    A large file is not read: the length of its first lines says how many there may be.
    """
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or not hasattr(os, "pread"):
        return None
    begin = os.lseek(descriptor, 0, os.SEEK_CUR)
    lines, at, last = 0, begin, b"\n"
    while data := os.pread(descriptor, _COUNTED_PORTION, at):
        lines, at, last = lines + data.count(b"\n"), at + len(data), data[-1:]
        if at - begin >= _MOST_COUNTED:
            return round(lines / (at - begin) * (status.st_size - begin))
    return lines + (last != b"\n")
