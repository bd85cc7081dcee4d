"""How much memory a long stream costs its caller, in an interpreter of its own.

In this one it would not be seen: what the samples before have left free in the
heap is taken first, and the resident memory stays as it is.
"""

from __future__ import annotations

import itertools
import time
from contextlib import closing
from multiprocessing.connection import Connection
from typing import Any, Final, NamedTuple

import psutil

from benchmarks.pool.handlers import Order, register_all
from benchmarks.pool.processes import WORKERS, Helper, start_method
from evproc_pool import PoolProcessor

# Often enough to find what is there for a moment, seldom enough to cost nothing.
_LOOK_EVERY: Final = 5_000


class Measured(NamedTuple):
    """What a stream cost.

    Attributes:
        grown_bytes: By how much the resident memory was larger, at its largest, than
            after the first events.
        seconds: How long the stream took.
    """

    grown_bytes: int
    seconds: float


def measure(events: int, first: int) -> Measured:
    """Stream events from a generator through a new pool, in a new process.

    Args:
        events: How many.
        first: Behind so many of them the memory is taken to be what is needed.

    Raises:
        BenchmarkError: The process has ended.
    """
    # spawn: a forked process has pages of its parent's in its resident memory
    with closing(Helper(_serve, events, first, start="spawn")) as helper:
        return Measured(*helper.receive())


def _serve(connection: Connection[Any, Any], events: int, first: int) -> None:
    this = psutil.Process()
    with PoolProcessor(WORKERS, mp_context=start_method()) as pool:
        register_all(pool)
        # the workers' start is not the stream's
        pool.process_many([Order(number) for number in range(WORKERS)])
        begin = time.perf_counter()
        outcomes = pool.stream(Order(number) for number in range(events))
        for outcome in itertools.islice(outcomes, first):
            outcome.unwrap()
        before = most = this.memory_info().rss
        for number, outcome in enumerate(outcomes):
            outcome.unwrap()
            if number % _LOOK_EVERY == 0:
                most = max(most, this.memory_info().rss)
        most = max(most, this.memory_info().rss)
        seconds = time.perf_counter() - begin
    connection.send((most - before, seconds))
