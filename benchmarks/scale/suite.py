"""The benchmark `scale`: how many workers one coordinator keeps busy, by the length of an event."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from typing import Final

from benchmarks.model import Benchmark, Figure, Note, Row, Settings
from benchmarks.scale.costs import measure
from benchmarks.scale.simulation import Scaled

WORKERS: Final = (16, 64, 256, 1024, 4096)

#: Lengths of events, in seconds, by what the table calls them.
LENGTHS: Final = {"100 us": 1e-4, "1 ms": 1e-3, "10 ms": 1e-2, "100 ms": 0.1, "1 s": 1.0}

#: How long a message is on its way, in seconds: on this machine, and through an engine.
LATENCIES: Final = {"0.1 ms": 1e-4, "5 ms": 5e-3}

# Enough of them are kept busy.
_BUSY: Final = 0.9

# A sample is so long in virtual time, and has so many events for each worker.
_SECONDS: Final = 4.0
_EVENTS_EACH: Final = 20

# What the costs are measured with: seconds of a sample, repeats.
_COSTS_SECONDS: Final = 1.0
_COSTS_REPEATS: Final = 5


def events_for(workers: int, seconds: float, cost: float, part: float) -> int:
    """How many events there are in a sample, or in a part of it."""
    duration = max(_SECONDS, _EVENTS_EACH * seconds) * part
    # no more than a coordinator can do in that time
    return max(workers, round(duration * min(workers / seconds, 1 / cost)))


def kept_busy(workers: Sequence[int], busy: Sequence[float]) -> float:
    """How many workers are kept busy, between the numbers that were simulated."""
    if busy[0] < _BUSY:
        return busy[0] * workers[0] / _BUSY
    for (less, above), (more, below) in zip(
        zip(workers, busy, strict=True), zip(workers[1:], busy[1:], strict=True), strict=False
    ):
        if below < _BUSY:
            share = (above - _BUSY) / (above - below)
            return math.exp(math.log(less) + share * (math.log(more) - math.log(less)))
    return workers[-1]


def run(settings: Settings) -> Generator[Row | Note, None, None]:
    """Yield a row for each length of events."""
    chosen = [label for label in LENGTHS if settings.wants(label)]
    if not chosen:
        return
    part = settings.min_seconds / _SECONDS
    costs = measure(
        [LENGTHS[label] for label in chosen],
        _COSTS_SECONDS * min(1.0, part),
        _COSTS_REPEATS if part >= 1 else 1,
    )
    for label, cost in zip(chosen, costs, strict=True):
        yield _row(label, cost, settings, part)


def _row(label: str, cost: float, settings: Settings, part: float) -> Row:
    seconds = LENGTHS[label]
    figures = [Figure("coordinator's CPU time, measured", "us/event", (cost * 1e6,))]
    for latency, on_its_way in LATENCIES.items():
        busy: list[tuple[float, ...]] = []
        for workers in WORKERS:
            count = events_for(workers, seconds, cost, part)
            simulations = [
                Scaled(workers, seconds, count, seed, cost=cost, latency=on_its_way)
                for seed in range(settings.repeats)
            ]
            busy.append(tuple(each.run_all() for each in simulations))
            figures.append(
                Figure(f"at work, of {workers:,}, messages {latency}", "ratio", busy[-1])
            )
        kept = tuple(kept_busy(WORKERS, each) for each in zip(*busy, strict=True))
        figures.append(Figure(f"workers kept busy, messages {latency}", "workers", kept))
    return Row(label, tuple(figures))


BENCHMARK: Final = Benchmark(
    name="scale",
    title="how many workers one coordinator keeps busy, in virtual time",
    run=run,
    defaults=Settings(repeats=3, min_seconds=_SECONDS, turns=1),
    quick=Settings(repeats=1, min_seconds=0.02, turns=1),
)
