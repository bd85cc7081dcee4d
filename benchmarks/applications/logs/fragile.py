"""A plug-in that goes wrong at certain lines, and the function that does the same.

`spoil` puts such a line into a log: one whose agent says what is to happen.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, Final

from benchmarks.applications.logs import plugins, reading
from benchmarks.applications.logs.plugins import LogLine
from benchmarks.applications.logs.reading import Summary
from evproc import AnyProcessor, required_by, want

#: Ends the process, as a native library that fails does.
EXIT: Final = "exits the process"
#: Never returns.
HANG: Final = "never returns"

_MEMBER: Final = '"agent": "'


def spoil(file: Path, number: int, fault: str) -> None:
    """Have the line of this number, from 0, do what `fault` says."""
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    lines[number] = lines[number].replace(_MEMBER, f"{_MEMBER}{fault} ")
    file.write_text("".join(lines), encoding="utf-8")


def fail(text: str) -> None:
    """Do what the line says, if it says so."""
    if EXIT in text:
        os._exit(3)
    while HANG in text:
        time.sleep(1)


def read(text: str) -> Summary:
    """`reading.read`, for those that map a function."""
    fail(text)
    return reading.read(text)


@want("log line")
@required_by("decode")
def fail_at(proc: Any, ev: LogLine) -> None:
    fail(ev.text)


def register_all(processor: AnyProcessor) -> None:
    """Register this plug-in beside the others."""
    plugins.register_all(processor)
    processor.register(fail_at)
