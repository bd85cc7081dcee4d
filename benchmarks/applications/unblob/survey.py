"""The coordinator's side: unblob's tasks as events of a pool, and one report of all outcomes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from unblob.models import ProcessResult, Task, TaskResult
from unblob.processing import ExtractionConfig
from unblob.report import Report, UnknownError

from benchmarks.applications.unblob.events import Extract, pending_of
from benchmarks.applications.unblob.handlers import first_event, format_handlers, inspect, set_up
from evproc_pool import Outcome, PoolProcessor


class Survey:
    """What was found, in the order of paths: it does not depend on who was quicker.

    Attributes:
        errors: Why events failed, by path.
    """

    def __init__(self) -> None:
        self.errors: dict[tuple[int, ...], BaseException] = {}
        self._found: dict[tuple[int, ...], list[TaskResult]] = {}
        self._extracted: dict[str, TaskResult | BaseException] = {}

    def add(self, outcome: Outcome[Any]) -> None:
        """Take in the outcome of an event."""
        event, results = outcome.event, outcome.emitted
        is_root = len(outcome.path) == 1
        # a root's outcome is that of its cascade: the first failure of all, all that was emitted
        error = outcome.error if not is_root or outcome.failed_event is event else None
        if error is not None:
            self.errors[outcome.path] = error
        if isinstance(event, Extract):
            self._extracted[event.piece.id] = results[0] if error is None else error
            results = results[1:]
        elif error is not None:
            results = [TaskResult(task=event.task, reports=[UnknownError(exception=error)])]
        self._found[outcome.path] = results[:1] if is_root else results

    def result(self) -> ProcessResult:
        """Make unblob's report."""
        paths = sorted(self._found)
        return ProcessResult(
            results=[self._complete(each) for path in paths for each in self._found[path]]
        )

    def _complete(self, result: TaskResult) -> TaskResult:
        """Put what came of the extractions into the place of what was pending."""
        if not any(map(pending_of, result.reports)):
            return result
        reports: list[Report] = []
        subtasks = list(result.subtasks)
        for report in result.reports:
            extracted = self._extracted.get(report.id) if pending_of(report) else None
            if isinstance(extracted, BaseException):
                why = [UnknownError(exception=extracted)]
                reports.append(report.model_copy(update={"extraction_reports": why}))
            elif extracted is not None:
                reports += extracted.reports
                subtasks += extracted.subtasks
            else:
                reports.append(report)
        return TaskResult(task=result.task, reports=reports, subtasks=subtasks)


def extract_files(
    config: ExtractionConfig,
    files: Iterable[Path],
    survey: Survey,
    *,
    event_timeout: float | None = None,
) -> None:
    """Extract files and all that is in them, in `config.process_num` workers.

    Args:
        config: unblob's own.
        files: The files.
        survey: Takes what is found, also of a run that is interrupted.
        event_timeout: The seconds that one file or chunk may take.
    """
    # unblob's processor is made before the workers are forked off: all of them have it. unblob
    # itself asks for "fork" when it is imported, which fails in processes that start otherwise
    set_up(config)
    with PoolProcessor(
        config.process_num,
        mp_context="fork",
        initializer=set_up,
        initargs=(config,),
        ordering="unordered",
        errors="continue",
        # a level of unblob's is a file, and the chunks in it
        max_cascade_depth=2 * config.max_depth,
        event_timeout=event_timeout,
        unmatched="error",
    ) as pool:
        pool.register(inspect)
        for name, handler in format_handlers(config).items():
            pool.register(handler, name=name)
        tasks = (first_event(config, Task(blob_id="", path=path, depth=0)) for path in files)
        for outcome in pool.stream(tasks, every_event=True, ordered=False, prompt=False):
            survey.add(outcome)
