"""What crosses between the coordinator and the workers; and what a format is called.

Events are of plain values: each goes to the coordinator and back to a worker, where unblob's own
classes take several times as long to unpickle.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unblob.models import Task, TaskResult
from unblob.report import ChunkReport, MultiFileReport, Report

from evproc import Event


class Pending(Report):  # type: ignore[misc]  # unblob's classes are untyped here
    """Stands for the reports of an extraction that is still to be done.

    Attributes:
        format: The name of the format's handler on the pool.
        inputs: What is extracted: the file that holds the chunk, or the parts of a multi-file.
        output: The folder that the extraction makes.
    """

    format: str
    inputs: list[str]
    output: str


class _OfTask(Event):
    """An event of one of unblob's tasks."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self._path, self._depth, self._blob_id = str(task.path), task.depth, task.blob_id

    @property
    def task(self) -> Task:
        return Task(path=Path(self._path), depth=self._depth, blob_id=self._blob_id)


class Inspect(_OfTask):
    """A file that is to be identified.

    Attributes:
        is_new: Whether there was no folder yet that takes what is carved out of it.
    """

    name = "task"

    def __init__(self, task: Task, *, is_new: bool) -> None:
        super().__init__(task)
        self.is_new = is_new


@dataclass(frozen=True, slots=True)
class Piece:
    """A chunk of a file, or a multi-file, that is to be extracted.

    Attributes:
        id: unblob's.
        format: The name of the format's handler on the pool.
        inputs: See `Pending`.
        output: See `Pending`.
        start: Where the chunk begins in the file of its task; 0 for a multi-file.
        end: Where it ends.
        name: The multi-file's; None for a chunk.
    """

    id: str
    format: str
    inputs: list[str]
    output: str
    start: int = 0
    end: int = 0
    name: str | None = None


class Extract(_OfTask):
    """A piece that is to be extracted; the event's name is that of the format."""

    def __init__(self, task: Task, piece: Piece) -> None:
        super().__init__(task)
        self.piece = piece

    @property
    def name(self) -> str:
        return event_name(self.piece.format)


def event_name(format_name: str) -> str:
    """Name the events of a format: no format is mistaken for a task."""
    return f"format:{format_name}"


def named(classes: Iterable[type[Any]]) -> dict[str, type[Any]]:
    """Name unblob's handlers by their formats; a name's second handler gets a number."""
    found: dict[str, type[Any]] = {}
    for each in classes:
        name, number = each.NAME, 1
        while name in found:
            number += 1
            name = f"{each.NAME}-{number}"
        found[name] = each
    return found


def pending_of(report: Report) -> Pending | None:
    """Return what a chunk's or a multi-file's report still waits for."""
    if isinstance(report, ChunkReport | MultiFileReport):
        for each in report.extraction_reports:
            if isinstance(each, Pending):
                return each
    return None


def extractions(result: TaskResult) -> Iterable[Extract]:
    """Make the events of all that a task's result waits for."""
    for report in result.reports:
        pending = pending_of(report)
        if pending is None:
            continue
        piece = Piece(report.id, pending.format, pending.inputs, pending.output)
        if isinstance(report, ChunkReport):
            piece = replace(piece, start=report.start_offset, end=report.end_offset)
        else:
            piece = replace(piece, name=report.name)
        yield Extract(result.task, piece)
