"""The cases of `pool` that show what it costs to see what a pool does."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Final

from benchmarks.model import Bar, Note, Row, ratio
from benchmarks.pool import loads
from benchmarks.pool.bench import LONGER, OURS, Bench, Case, cpu_figure, take_figures
from benchmarks.pool.handlers import register_all
from benchmarks.pool.processes import WORKERS, start_method
from benchmarks.pool.samples import Sample, await_workers
from evproc_pool import PoolProcessor

# What every event has for a value.
_KIND: Final = "dict of five"

#: The least part of the speed that is left with statistics, by load.
STATISTICS: Final = {loads.NO_OP: 0.95, loads.HUNDRED_MICROSECONDS: 0.99}


def _observed(base: loads.Load, bench: Bench, label: str) -> Iterator[Row | Note]:
    """Statistics and progress, each beside the same load without."""
    load = loads.asked(base, _KIND)
    count = load.events_in(bench.seconds * LONGER)
    with PoolProcessor(WORKERS, mp_context=start_method(), statistics=True) as pool:
        register_all(pool)
        await_workers(pool.process_many, WORKERS)
        plain = Sample(load.make, count, bench.pool.process_many)
        statistics = Sample(load.make, count, pool.process_many)
        # a function, since what a bar costs depends on the terminal
        progress = partial(bench.pool.process_many, progress=lambda counts: counts)
        samples = {
            OURS: plain,
            "with statistics": statistics,
            "with progress": Sample(load.make, count, progress),
        }
        figures = take_figures({**samples}, bench.settings.repeats)
    ours, *others = figures.values()
    bars = (Bar("at least", STATISTICS[base]), None)
    yield Row(
        label,
        (
            *figures.values(),
            *(
                cpu_figure(f"coordinator's CPU time, {name}", each)
                for name, each in samples.items()
            ),
            *(
                ratio(f"events/s {each.name} / without", each, ours, bar)
                for each, bar in zip(others, bars, strict=True)
            ),
        ),
    )


CASES: Final = tuple(
    Case(f"statistics and progress, {load.label}", partial(_observed, load)) for load in STATISTICS
)
