"""What the coordinator takes for an event, by the event's length, measured with a real pool.

The pool has one worker, so that the coordinator has a CPU of its own, as it should beside hundreds.
Long events are reported one by one, short ones together, so they do not cost the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from statistics import median
from typing import Final

from benchmarks.pool import loads
from benchmarks.pool.handlers import register_all
from benchmarks.pool.processes import start_method
from benchmarks.pool.samples import Sample, await_workers
from evproc_pool import PoolProcessor

# What every event has for a value.
_KIND: Final = "dict of five"

#: Events by their length in seconds. Longer ones cost what the longest of these do.
LOADS: Final[Mapping[float, loads.Load]] = {
    1e-4: loads.HUNDRED_MICROSECONDS,
    1e-3: loads.ONE_MILLISECOND,
    1e-2: loads.TEN_MILLISECONDS,
}


def measure(lengths: list[float], seconds: float, repeats: int) -> Iterator[float]:
    """Yield the CPU seconds for an event of each length, by samples of about so many seconds."""
    with PoolProcessor(1, mp_context=start_method()) as pool:
        register_all(pool)
        await_workers(pool.process_many, 1)
        known: dict[loads.Load, float] = {}
        for length in lengths:
            load = LOADS[min(length, max(LOADS))]
            if load not in known:
                known[load] = _cost(pool, loads.asked(load, _KIND), seconds, repeats)
            yield known[load]


def _cost(pool: PoolProcessor, load: loads.Load, seconds: float, repeats: int) -> float:
    sample = Sample(load.make, load.events_in(seconds), pool.process_many)
    sample.warm_up()
    for _ in range(repeats):
        sample()
    return median(sample.cpu_seconds)
