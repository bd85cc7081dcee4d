"""The runs: the same events through a `Processor` and through a `PoolProcessor`."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from evproc import Processor
from evproc_pool import PoolProcessor
from evproc_pool.demo.events import BadFile, FileReport, Finding, Settings, SourceFile

#: The entry-point group of the demo's handlers.
GROUP: Final = "evproc_pool.demo.handlers"


class ExecutorError(Exception):
    """No pool can be made on an executor; the text says why."""


class Run(NamedTuple):
    """A run over all files.

    Attributes:
        title: What ran.
        findings: One for each file, in the order of the files.
        seconds: Wall-clock time, the start and end of the workers included.
    """

    title: str
    findings: list[Finding]
    seconds: float


def events_for(files: Sequence[str], settings: Settings) -> Iterator[SourceFile]:
    """Make the root events: a path each, since reading is work for a handler."""
    return (SourceFile(path, settings) for path in files)


def run_serial(files: Sequence[str], events: Iterable[SourceFile]) -> Run:
    """Survey the files one after another in this process."""
    started = time.perf_counter()
    processor = Processor()
    processor.load_from(GROUP)
    values = [_attempt(processor, event) for event in events]
    seconds = time.perf_counter() - started
    return Run("Processor, one event at a time", _findings(files, values), seconds)


def _attempt(processor: Processor, event: SourceFile) -> Any:
    """Process an event as `process_many(events, return_exceptions=True)` does."""
    try:
        return processor.process(event)
    except Exception as error:
        return error


def run_pool(
    files: Sequence[str],
    events: Iterable[SourceFile],
    workers: int | None,
    executor: str | None = None,
) -> Run:
    """Survey the files in worker processes.

    Raises:
        ExecutorError: `executor` is none, or needs an extra that is missing.
    """
    started = time.perf_counter()
    try:
        made = PoolProcessor(workers, executor=executor)
    except (ValueError, ImportError) as error:
        raise ExecutorError(str(error)) from error
    with made as pool:
        pool.load_from(GROUP)
        # one file that takes its worker down must not end the survey of the others
        values = pool.process_many(events, return_exceptions=True)
        # a cluster has as many workers as its nodes bring
        where = f", workers: {pool.workers}" if executor is None else f" on {executor}"
        title = f"PoolProcessor{where}"
    seconds = time.perf_counter() - started
    return Run(title, _findings(files, values), seconds)


def _findings(files: Sequence[str], values: Sequence[Any]) -> list[Finding]:
    return [_finding(path, value) for path, value in zip(files, values, strict=True)]


def _finding(path: str, value: Any) -> Finding:
    if isinstance(value, FileReport | BadFile):
        return value
    if isinstance(value, Exception):
        return BadFile(path, f"a handler failed: {type(value).__name__}: {value}")
    return BadFile(path, f"the handlers came to no end: {value!r}")


def differences(pool: Sequence[Finding], serial: Sequence[Finding]) -> list[str]:
    """Say where two runs differ, a line for each file and field; empty if they are equal."""
    lines = []
    for ours, theirs in zip(pool, serial, strict=True):
        if type(ours) is not type(theirs):
            lines.append(f"{ours.path}: pool {_ending(ours)}, serial {_ending(theirs)}")
            continue
        for field, our, their in zip(ours._fields, ours, theirs, strict=True):
            if our != their:
                lines.append(f"{ours.path}: {field}: pool {our!r}, serial {their!r}")
    return lines


def _ending(finding: Finding) -> str:
    return finding.reason if isinstance(finding, BadFile) else "reports"
