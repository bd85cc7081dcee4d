"""A program that may go wrong, in a process group of its own: how it ended, what it left.

A fault is tried in a new interpreter, since it may take the program with it, or never end.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import psutil

#: How long processes may take to be gone that know of the end of their program.
GRACE_SECONDS: Final = 2.0

#: How long a program that is ended may take to write the stacks of its threads.
_STACKS_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Ending:
    """How a program ended.

    Attributes:
        code: Its exit status, negative for a signal; None if it was still running at the limit.
        seconds: How long it ran.
        output: What it and its processes wrote to both streams; at the limit, their stacks too.
        orphans: How many of its processes were there `GRACE_SECONDS` after it.
        interrupted: The seconds from Ctrl-C to the end; None without one.
    """

    code: int | None
    seconds: float
    output: str
    orphans: int
    interrupted: float | None = None


def run(
    arguments: Sequence[str], limit_seconds: float, *, interrupt_at: str | None = None
) -> Ending:
    """Run `python ARGUMENTS` until it ends, or until the limit; leave no process of it.

    Args:
        arguments: Those of the interpreter.
        limit_seconds: It is killed then, after its processes have written their stacks.
        interrupt_at: When its output has this text, its process group gets SIGINT, once, as from
            Ctrl-C at a terminal.
    """
    begin = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        # for `_write_stacks`
        env={**os.environ, "PYTHONFAULTHANDLER": "1"},
    )
    reader = _Reader(process, interrupt_at)
    code: int | None
    try:
        reader.start()
        try:
            code = process.wait(limit_seconds)
        except subprocess.TimeoutExpired:
            code = None
        end = time.perf_counter()
        if code is None:
            orphans = _write_stacks(process.pid)
        else:
            orphans = _end_session(process.pid, GRACE_SECONDS)
    finally:
        # also if this process is interrupted
        _end_session(process.pid, 0)
        process.wait()
    # a process that has left the session may hold the pipe for ever
    reader.join(GRACE_SECONDS)
    interrupted = None if reader.interrupted is None else end - reader.interrupted
    return Ending(code, end - begin, reader.output, orphans, interrupted)


def show_if_it_hung(ending: Ending, title: str) -> None:
    """Print what a program wrote that was killed at the limit: its stacks say why it hung."""
    if ending.code is None:
        print(f"{title} did not end:\n{ending.output}", file=sys.stderr)


class _Reader(threading.Thread):
    """Reads what a program writes, until nobody is left who could; may interrupt it."""

    def __init__(self, process: subprocess.Popen[str], interrupt_at: str | None) -> None:
        super().__init__(daemon=True)
        self._process = process
        self._interrupt_at = interrupt_at
        self.interrupted: float | None = None
        self._lines: list[str] = []

    @property
    def output(self) -> str:
        return "".join(self._lines)

    def run(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as stream:
            for line in stream:
                self._lines.append(line)
                at = self._interrupt_at
                if at is not None and at in line and self.interrupted is None:
                    self.interrupted = time.perf_counter()
                    with suppress(ProcessLookupError):
                        os.killpg(self._process.pid, signal.SIGINT)


def _write_stacks(session: int) -> int:
    """Have the processes of a session write their stacks and end; count those beside its program.

    One after the other: they write to the same pipe, in pieces. Those that do neither are still
    there after `_STACKS_SECONDS` each.
    """
    found = _members(session)
    for process in found:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGABRT)
        end = time.monotonic() + _STACKS_SECONDS
        while process in _members(session) and time.monotonic() < end:
            time.sleep(0.02)
    return sum(process.pid != session for process in found)


def _end_session(session: int, grace_seconds: float) -> int:
    """Wait for the processes of a session, kill what is left, and count it.

    A program that runs still is one of them.
    """
    end = time.monotonic() + grace_seconds
    while (left := _members(session)) and time.monotonic() < end:
        time.sleep(0.02)
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    return sum(process.pid != session for process in left)


def _members(session: int) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            ended = process.status() == psutil.STATUS_ZOMBIE
            if os.getsid(process.pid) == session and not ended:
                found.append(process)
    return found
