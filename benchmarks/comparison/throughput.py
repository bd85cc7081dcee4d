"""How many events a second each system gets done of a load, with the best of its settings."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from statistics import median
from typing import Any, Final, NamedTuple

from benchmarks.comparison.handlers import touch
from benchmarks.comparison.hosts import Host, Hosts
from benchmarks.comparison.loads import NO_OP
from benchmarks.comparison.systems import AUTO, MultiprocessingPool, Ours, System
from benchmarks.machine import claim_memory
from benchmarks.model import Bar, Figure, Note, Row, Settings, ratio
from benchmarks.pool.limits import Control
from benchmarks.pool.loads import Load
from benchmarks.pool.processes import WORKERS
from benchmarks.pool.samples import ControlSample, Sample
from benchmarks.timing import interleaved
from evproc import Event

#: What the figures with chunks of one event are called besides.
ONE_BY_ONE: Final = "one by one"

PER_SECOND: Final = "events/s"

# The part of a sample that the best chunk size is looked for with, and how often.
_SWEEP_PART: Final = 1 / 3
_SWEEP_REPEATS: Final = 3

# Samples that are compared with the control are so much longer, as in `pool`: the few
# milliseconds of their start and their end are to count for little.
_LONGER: Final = 3

# So many copies of what is large in a sample may be in memory at once, about.
_COPIES: Final = 4

# About how many events a second the slow ones get done one by one, to size samples by.
_ONE_BY_ONE_PER_SECOND: Final = 2_000


def take_sample(
    system: System, load: Load, count: int, chunk: int, *, warm_up: bool = False
) -> float:
    """Seconds per event; a `hosts.Request`."""
    claim_memory(_COPIES * count * load.content_bytes)
    sample = Sample(load.make, count, lambda events: _run(system, events, chunk))
    if warm_up:
        sample.warm_up()
        return 0.0
    return sample()


def _run(system: System, events: list[Event], chunk: int) -> list[Any]:
    values = system.run(events, chunk)
    if values and values[0] is not None:  # large ones are there when they have been read
        for value in values:
            touch(value)
    return values


class HostedSample:
    """Times a system where it is hosted; see `pool.samples.Sample`."""

    def __init__(self, host: Host, load: Load, count: int, chunk: int) -> None:
        self._host = host
        self._request = partial(take_sample, load=load, count=count, chunk=chunk)

    def warm_up(self) -> None:
        """See `pool.samples.Sample`."""
        self._host.ask(partial(self._request, warm_up=True))

    def __call__(self) -> float:
        """Take a sample: seconds per event."""
        seconds: float = self._host.ask(self._request)
        return seconds


class Sizes(NamedTuple):
    """How many events a sample has: with the best chunks, one by one, in the sweep."""

    full: int
    few: int
    part: int


def sizes(load: Load, seconds: float) -> Sizes:
    """Size the samples of a load that are to take so long."""
    full = load.events_in(seconds)
    few = min(full, max(WORKERS, int(_ONE_BY_ONE_PER_SECOND * seconds)))
    return Sizes(full, few, load.events_in(seconds * _SWEEP_PART))


def candidates(system: type[System], load: Load, part: int) -> tuple[int, ...]:
    """The chunk sizes to try: none with which a worker would have nothing to do."""
    chunks = tuple(each for each in load.chunks if each * WORKERS <= part) or load.chunks[:1]
    return system.candidates(chunks)


def sweep(hosts: Hosts, load: Load, part: int, repeats: int) -> tuple[dict[str, int], list[Note]]:
    """Find the best chunk size for each system.

    Returns:
        The chunk sizes by label, and how fast those were that were tried.
    """
    tried = {label: candidates(hosts.systems[label], load, part) for label in hosts}
    best = {label: chunks[0] for label, chunks in tried.items()}
    told = []
    # each by itself: only sizes of one system are compared with each other
    for label, chunks in tried.items():
        if len(chunks) == 1:
            continue
        own = {str(chunk): HostedSample(hosts[label], load, part, chunk) for chunk in chunks}
        own[str(chunks[0])].warm_up()
        values = interleaved(own, repeats)
        speeds = {chunk: 1 / median(values[str(chunk)]) for chunk in chunks}
        best[label] = max(speeds, key=speeds.__getitem__)
        each = ", ".join(f"{_size(chunk)}: {speed:,.0f}" for chunk, speed in speeds.items())
        told.append(f"{label} {each}")
    text = f"{load.label}: events/s by chunk size, as tried: {'; '.join(told)}"
    return best, [Note(text)] if told else []


def _size(chunk: int) -> str:
    return "auto" if chunk == AUTO else str(chunk)


def measure(
    hosts: Hosts,
    load: Load,
    settings: Settings,
    *,
    control: Control | None = None,
    times: float | None = None,
) -> Iterator[Row | Note]:
    """Sample every system, in turn, with its best chunk size and one by one.

    Args:
        hosts: The systems.
        load: What they are handed.
        settings: Those of the run.
        control: Two plain processes to compare with, where no contents count.
        times: How many times `multiprocessing.Pool`'s speed is the bar.
    """
    size = sizes(load, settings.min_seconds)
    full = size.full
    if control is not None and load is not NO_OP:
        full = load.events_in(settings.min_seconds * _LONGER)
    best, notes = sweep(hosts, load, size.part, min(_SWEEP_REPEATS, settings.repeats))
    yield from notes
    samplers: dict[str, HostedSample | ControlSample] = {}
    for label in hosts:
        samplers[label] = HostedSample(hosts[label], load, full, best[label])
        if label == Ours.label and control is not None:
            samplers[control.label] = ControlSample(control, load.make, full)
    for label in hosts:
        if hosts.systems[label].has_chunks and best[label] != 1:
            samplers[f"{label}, {ONE_BY_ONE}"] = HostedSample(hosts[label], load, size.few, 1)
    for sampler in samplers.values():
        sampler.warm_up()
    figures = {
        name: Figure(name, PER_SECOND, tuple(1 / each for each in values))
        for name, values in interleaved(samplers, settings.repeats).items()
    }
    yield Row(load.label, (*figures.values(), *ratios(figures, times)))


def ratios(figures: dict[str, Figure], times: float | None) -> Iterator[Figure]:
    """Compare what was sampled: with the control, and ours with the others."""
    control = figures.get(Control.label)
    labels = [name for name in figures if "," not in name and name != Control.label]
    if control is not None:
        for label in labels:
            yield ratio(f"control's time / that of {label}", figures[label], control)
    for label in labels:
        if label != Ours.label:
            limit = times if label == MultiprocessingPool.label else None
            bar = None if limit is None else Bar("at least", limit)
            name = f"events/s of {Ours.label} / of {label}"
            yield ratio(name, figures[Ours.label], figures[label], bar)
