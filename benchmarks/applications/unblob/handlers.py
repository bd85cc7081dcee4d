"""The worker's side: identify a file, extract a chunk. unblob does both, in its own classes.

unblob's processor identifies the chunks of a file, carves them and has each extracted by
`Handler.extract`. It gets handlers here whose `extract` puts that off: it reports a `Pending`, by
way of unblob's own `ExtractError`. Each `Pending` becomes an event that is named by its format, and
the format's handler extracts it, by unblob's own methods for one chunk. The files in the new
folder are the next tasks. Folders are walked at once: they take unblob no time. (An ELF file has
no format to wait for: unblob keeps it, or unpacks it, while it identifies it.)

The cut needs two methods of unblob's that are not public, `_extract_chunk` and
`_extract_multi_file` (checked with 26.6.4): all around an extraction stays unblob's.

Quick events of a worker that dies may run twice, see `evproc_pool.WorkerLostError`. So each
handler first removes what it may have left half an event ago, and carves again what it removed.
"""

from __future__ import annotations

import functools
import logging
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import attrs
import structlog
from unblob import processing
from unblob.extractor import carve_valid_chunk
from unblob.finder import build_hyperscan_database
from unblob.models import ExtractError, File, MultiFile, Task, TaskResult, ValidChunk

from benchmarks.applications.unblob.events import (
    Extract,
    Inspect,
    Pending,
    event_name,
    extractions,
    named,
)
from evproc import Event, want

Follow = list[Event]

#: unblob's configuration in this worker, and its processor, whose handlers put extraction off.
_config: Any = None
_processor: Any = None
#: unblob's handlers for extraction, by their class.
_made: dict[type[Any], Any] = {}


def set_up(config: processing.ExtractionConfig) -> None:
    """Make unblob's processor, once in each worker.

    Raises:
        ValueError: It is to delete what was extracted. unblob takes an extraction that is put off
            for one that is done, and would delete its input first.
    """
    global _config, _processor  # noqa: PLW0603 - a worker's own state, as an initializer makes it
    mode = config.extracted_file_deletion
    if mode is not processing.ExtractedFileDeletionMode.NONE:
        raise ValueError(
            f"extracted_file_deletion={mode.name} would delete files before they are extracted:"
            " use ExtractedFileDeletionMode.NONE, and delete them after the run"
        )
    use_logging()
    # a worker that is forked off has it already
    if _config != config:
        _config = config
        _processor = processing.Processor(
            attrs.evolve(
                config,
                handlers=_put_off(config.handlers),
                dir_handlers=_put_off(config.dir_handlers),
            )
        )
        build_hyperscan_database(_processor._config.handlers)  # noqa: SLF001 - those just made


@functools.cache
def _put_off(classes: tuple[type[Any], ...]) -> tuple[type[Any], ...]:
    return tuple(
        type(each.__name__, (each,), {"extract": functools.partialmethod(_report_pending, name)})
        for name, each in named(classes).items()
    )


def _report_pending(_: object, name: str, inputs: Path | list[Path], output: Path) -> None:
    inputs = inputs if isinstance(inputs, list) else [inputs]
    raise ExtractError(
        Pending(format=name, inputs=[str(each) for each in inputs], output=str(output))
    )


# --- handlers ---


@want(Inspect.name)
def inspect(proc: object, ev: Inspect) -> Follow:
    """Identify a file."""
    task = ev.task
    if ev.is_new:
        shutil.rmtree(_config.get_carve_dir_for(task.path), ignore_errors=True)
    result = _processor.process_task(task)
    ev.emit(result)
    return list(extractions(result))


def extract(unblob_handler: type[Any], proc: object, ev: Extract) -> Follow:
    """Extract a piece by the format's handler, and find the files in it."""
    shutil.rmtree(ev.piece.output, ignore_errors=True)
    result = TaskResult(task=ev.task)
    # one for all: it may parse definitions of structures in C when it is first used
    handler = _made[unblob_handler] = _made.get(unblob_handler) or unblob_handler()
    if ev.piece.name is None:
        _extract_chunk(result, handler, ev)
    else:
        _extract_multi_file(result, handler, ev)
    ev.emit(result)
    return [follow for task in result.subtasks for follow in _walk(task, ev)]


def format_handlers(
    config: processing.ExtractionConfig,
) -> dict[str, Callable[[object, Extract], Follow]]:
    """Make a handler for each of unblob's, those of plug-ins included, by the format's name."""
    classes = named((*config.handlers, *config.dir_handlers))
    return {
        name: want(event_name(name))(functools.partial(extract, each))
        for name, each in classes.items()
    }


def first_event(config: processing.ExtractionConfig, task: Task) -> Inspect:
    """Make the event of a file."""
    return Inspect(task, is_new=not config.get_carve_dir_for(task.path).exists())


def _extract_chunk(result: TaskResult, handler: Any, ev: Extract) -> None:
    piece, task = ev.piece, result.task
    chunk = ValidChunk(id=piece.id, start_offset=piece.start, end_offset=piece.end)
    chunk.handler = handler
    path = Path(piece.inputs[0])
    is_carved = path != task.path
    if is_carved and not path.exists():
        with File.from_path(task.path) as file:
            carve_valid_chunk(path.parent, file, chunk)
    processing._FileTask(_config, task, chunk.size, result)._extract_chunk(  # noqa: SLF001
        path,
        chunk,
        Path(piece.output),
        remove_extracted_input=is_carved and not _config.keep_extracted_chunks,
    )


def _extract_multi_file(result: TaskResult, handler: Any, ev: Extract) -> None:
    piece, task = ev.piece, result.task
    multi_file = MultiFile(
        id=piece.id, name=piece.name, paths=[Path(each) for each in piece.inputs]
    )
    multi_file.handler = handler
    output = processing._DirectoryTask(_config, task, result)._extract_multi_file(  # noqa: SLF001
        multi_file
    )
    if output.exists():
        result.add_subtask(Task(blob_id=multi_file.id, path=output, depth=task.depth + 1))


def _walk(task: Task, ev: Event) -> Iterable[Event]:
    if task.path.is_file() and not task.path.is_symlink() and not task.is_multi_file:
        yield first_event(_config, task)
        return
    # a folder, a link, a device, a part of a multi-file: nothing that takes time
    result = _processor.process_task(task)
    ev.emit(result)
    yield from extractions(result)
    for subtask in result.subtasks:
        yield from _walk(subtask, ev)


# --- logging ---


def use_logging() -> None:
    """Send what unblob logs to the standard `logging`, as one line each.

    The pool brings it from the workers to the loggers of the main program.
    """
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLogger().getEffectiveLevel()
        ),
        processors=[
            structlog.stdlib.add_log_level,
            structlog.processors.format_exc_info,
            structlog.processors.KeyValueRenderer(key_order=["event"], drop_missing=True),
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
