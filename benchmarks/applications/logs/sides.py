"""The pipeline on every pool, as its users write it: a program from the log to the result file.

Each makes its pool, reads the log line by line, and gives the summaries to `Job.write`. A job
says what else there is: faults need another function, and other handlers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.applications.logs import plugins, reading, sessions
from benchmarks.applications.logs.plugins import LogLine
from benchmarks.applications.logs.reading import Summary
from benchmarks.pool.processes import WORKERS, context
from evproc import Processor
from evproc_pool import PoolProcessor

if TYPE_CHECKING:
    from evproc_pool import Outcome

_LOG: Final = logging.getLogger(__name__)

#: How many lines are an event, where it is a block of them.
BLOCK: Final = 100
#: In how many parts the users are, where an event has lines of one of them.
PARTS: Final = 64


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be done.

    Attributes:
        source: The log.
        result: The result file.
        chunk: How many lines are handed over at once, where a side has to be told.
        timeout: Seconds that a line may take, where a side can be told; None: any time.
        read: The function of those that map one.
        register: Registers the handlers of the others.
        register_blocks: Likewise, where an event is a block of lines.
        write: Makes the result of summaries.
    """

    source: Path
    result: Path
    chunk: int = 1
    timeout: float | None = None
    read: Callable[[str], Summary] = reading.read
    register: Callable[[Any], None] = plugins.register_all
    register_blocks: Callable[[Any], None] = plugins.register_blocks
    write: Callable[[Path, Iterable[Summary]], object] = sessions.write


Side = Callable[[Job], None]


def serial(job: Job) -> None:
    """`Processor`, in this process: what all results are compared with."""
    processor = Processor()
    job.register(processor)
    with job.source.open(encoding="utf-8") as lines:
        job.write(job.result, map(processor.process, map(LogLine, lines)))


def plain(job: Job) -> None:
    """The function in a loop, in this process."""
    with job.source.open(encoding="utf-8") as lines:
        job.write(job.result, map(job.read, lines))


def pool(job: Job) -> None:
    """`PoolProcessor`: an event is a line."""
    with (
        PoolProcessor(WORKERS, mp_context=context(), event_timeout=job.timeout) as processor,
        job.source.open(encoding="utf-8") as lines,
    ):
        job.register(processor)
        job.write(job.result, _values(processor.stream(map(LogLine, lines))))


def pool_by_user(job: Job) -> None:
    """Likewise, with keys: the lines of a user in order, those of others as they are done."""
    with (
        PoolProcessor(WORKERS, mp_context=context(), event_timeout=job.timeout) as processor,
        job.source.open(encoding="utf-8") as lines,
    ):
        job.register(processor)
        outcomes = processor.stream(map(LogLine, lines), key=LogLine.user, ordered=False)
        job.write(job.result, _values(outcomes))


def pool_blocks(job: Job) -> None:
    """`PoolProcessor`: an event is a block of lines."""
    with (
        PoolProcessor(WORKERS, mp_context=context(), event_timeout=job.timeout) as processor,
        job.source.open(encoding="utf-8") as lines,
    ):
        job.register_blocks(processor)
        outcomes = processor.stream(plugins.blocks(lines, BLOCK))
        job.write(job.result, chain.from_iterable(_values(outcomes)))


def pool_parts(job: Job) -> None:
    """Likewise, with keys: blocks of lines of the same users, those of others as they are done."""
    with (
        PoolProcessor(WORKERS, mp_context=context(), event_timeout=job.timeout) as processor,
        job.source.open(encoding="utf-8") as lines,
    ):
        job.register_blocks(processor)
        blocks = plugins.parts(lines, BLOCK, PARTS)
        outcomes = processor.stream(blocks, key=attrgetter("part"), ordered=False)
        job.write(job.result, chain.from_iterable(_values(outcomes)))


def _values(outcomes: Iterable[Outcome[Any]]) -> Iterator[Any]:
    for outcome in outcomes:
        if outcome.error is None:
            yield outcome.value
        else:
            _LOG.error("event %d is left out: %r", outcome.index, outcome.error)


def multiprocessing_pool(job: Job) -> None:
    """`multiprocessing.Pool.imap`."""
    with (
        context().Pool(WORKERS) as processes,
        job.source.open(encoding="utf-8") as lines,
    ):
        job.write(job.result, processes.imap(job.read, lines, job.chunk))


def executor(job: Job) -> None:
    """`ProcessPoolExecutor.map`."""
    with (
        ProcessPoolExecutor(WORKERS, mp_context=context()) as processes,
        job.source.open(encoding="utf-8") as lines,
    ):
        job.write(job.result, processes.map(job.read, lines, chunksize=job.chunk))


def joblib(job: Job) -> None:
    """`joblib.Parallel`, which has loky's processes and gives its values as they come."""
    from joblib import Parallel, delayed
    from joblib.externals.loky import get_reusable_executor

    parallel = Parallel(
        WORKERS,
        batch_size=job.chunk,
        pre_dispatch=8 * job.chunk,  # in calls: by default no batch waits behind those that run
        return_as="generator",
        timeout=job.timeout,
    )
    call = delayed(job.read)
    try:
        with job.source.open(encoding="utf-8") as lines:
            job.write(job.result, parallel(call(line) for line in lines))
    finally:
        get_reusable_executor().shutdown()


def mpire(job: Job) -> None:
    """`mpire.WorkerPool.imap`."""
    from mpire import WorkerPool

    with (
        WorkerPool(WORKERS, start_method=context().get_start_method()) as processes,
        job.source.open(encoding="utf-8") as lines,
    ):
        job.write(
            job.result,
            processes.imap(job.read, lines, chunk_size=job.chunk, task_timeout=job.timeout),
        )


OURS: Final = "PoolProcessor"
OURS_BLOCKS: Final = f"PoolProcessor, {BLOCK} lines an event"
OURS_BY_USER: Final = "PoolProcessor, a key for each user"
OURS_PARTS: Final = f"PoolProcessor, {BLOCK} lines an event, {PARTS} keys"
SERIAL: Final = "Processor, one process"
PLAIN: Final = "plain function, one process"

#: Those that have processes and map a function over lines.
PEERS: Final[Mapping[str, Side]] = {
    "multiprocessing.Pool": multiprocessing_pool,
    "ProcessPoolExecutor": executor,
    "joblib": joblib,
    "mpire": mpire,
}

#: All sides, by what tables call them.
SIDES: Final[Mapping[str, Side]] = {
    SERIAL: serial,
    PLAIN: plain,
    OURS: pool,
    OURS_BLOCKS: pool_blocks,
    OURS_BY_USER: pool_by_user,
    OURS_PARTS: pool_parts,
    **PEERS,
}
