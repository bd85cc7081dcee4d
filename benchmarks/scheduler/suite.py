"""The benchmark `scheduler`: cost per event, by the number of workers."""

from __future__ import annotations

import gc
from collections.abc import Callable, Generator
from typing import Final, NamedTuple

from benchmarks.model import Benchmark, Figure, Note, Row, Settings, ratio
from benchmarks.scheduler.simulation import Simulated, Simulation
from benchmarks.timing import interleaved

_WORKERS: Final = (1, 8, 64, 512)

# What a sample takes with the default settings, about; see `_Case.events`.
_SECONDS: Final = 0.2


class _Case(NamedTuple):
    """A case.

    Attributes:
        label: What the table calls it.
        service_seconds: What an event takes a worker.
        events: How many there are in a sample of `_SECONDS`.
        events_per_worker: Likewise; for many workers this is more. The first batches
            and the last are smaller than others, and are not to be all there is.
    """

    label: str
    service_seconds: float
    events: int
    events_per_worker: int

    def events_for(self, workers: int, part: float) -> int:
        """How many events there are, for a part of a sample of `_SECONDS`."""
        return max(1, round(part * max(self.events, workers * self.events_per_worker)))


_CASES: Final = (
    _Case("events of 100 us", 1e-4, 300_000, 1_000),
    _Case("events of 1 ms", 1e-3, 30_000, 100),
)


def run(settings: Settings) -> Generator[Row | Note, None, None]:
    """Yield a row per service time."""
    for case in _CASES:
        if settings.wants(case.label):
            yield _row(case, settings)


def _row(case: _Case, settings: Settings) -> Row:
    simulated: dict[int, list[Simulated]] = {workers: [] for workers in _WORKERS}

    def sampler(workers: int) -> Callable[[], float]:
        def sample() -> float:
            events = case.events_for(workers, settings.min_seconds / _SECONDS)
            seed = len(simulated[workers])
            simulation = Simulation(workers, case.service_seconds, events, seed)
            gc.collect()
            simulated[workers].append(simulation.run())
            return simulated[workers][-1].seconds / events

        return sample

    names = {workers: f"{workers} worker{'s' if workers > 1 else ''}" for workers in _WORKERS}
    samplers = {names[workers]: sampler(workers) for workers in _WORKERS}
    costs = {
        name: Figure(name, "us/event", tuple(each * 1e6 for each in values))
        for name, values in interleaved(samplers, settings.repeats).items()
    }
    one = costs[names[1]]
    ratios = [
        ratio(f"cost with {workers} / with 1", costs[names[workers]], one)
        for workers in _WORKERS[1:]
    ]
    busy = [
        Figure(
            f"workers at work, of {workers}",
            "ratio",
            tuple(each.busy for each in simulated[workers]),
        )
        for workers in _WORKERS
    ]
    return Row(case.label, (*costs.values(), *ratios, *busy))


BENCHMARK: Final = Benchmark(
    name="scheduler",
    title="the pure scheduler in virtual time: what its decisions cost",
    run=run,
    defaults=Settings(repeats=5, min_seconds=_SECONDS, turns=1),
    quick=Settings(repeats=2, min_seconds=0.002, turns=1),
)
