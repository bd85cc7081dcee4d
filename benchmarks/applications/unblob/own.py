"""unblob's own run over many files: its processor in its pool, with all files at once.

Its command takes one file, and makes a pool for each. So this is the most that its pool can do.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from unblob.models import ProcessResult, Task, TaskResult
from unblob.pool import make_pool
from unblob.processing import ExtractionConfig, Processor


def extract_files(config: ExtractionConfig, files: Iterable[Path]) -> ProcessResult:
    """Extract files and all that is in them."""
    found = ProcessResult()

    def take(pool: Any, result: TaskResult) -> None:
        for task in result.subtasks:
            pool.submit(task)
        found.register(result)

    pool = make_pool(config.process_num, Processor(config).process_task, take)
    with pool:
        for file in files:
            pool.submit(Task(blob_id="", path=file, depth=0))
        pool.process_until_done()
    return found
