"""How many events a second each system gets done of a load, with the best of its settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from statistics import median
from typing import Any, Final, NamedTuple

from benchmarks.comparison.hosts import Host, Hosts
from benchmarks.comparison.loads import NO_OP, Mixed, Plain
from benchmarks.comparison.systems import AUTO, MultiprocessingPool, Ours, System
from benchmarks.machine import claim_memory
from benchmarks.model import Bar, BenchmarkError, Figure, Note, Row, Settings, ratio
from benchmarks.pool.bench import can_emit
from benchmarks.pool.kinds import touch
from benchmarks.pool.limits import Control
from benchmarks.pool.loads import Load
from benchmarks.pool.processes import WORKERS
from benchmarks.pool.samples import ControlSample, Sample
from benchmarks.timing import interleaved

#: What the figures with chunks of one event are called besides.
ONE_BY_ONE: Final = "one by one"

PER_SECOND: Final = "events/s"

# The usual length of a sample.
_USUAL_SECONDS: Final = 0.5

# The part of the lines with which the best chunk size is found.
_LINES_SWEEP_PART: Final = 1 / 10

# The part of a sample with which the best chunk size is found, and how often.
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
    system: System,
    load: Load,
    count: int,
    chunk: int,
    *,
    plain: Plain | None = None,
    warm_up: bool = False,
) -> float:
    """Seconds per event; a `hosts.Request`.

    Args:
        system: What processes them.
        load: The events.
        count: How many.
        chunk: How many are handed over at once.
        plain: What every system but ours is given instead of the load's events.
        warm_up: Only process a few of them.
    """
    claim_memory(_COPIES * count * load.content_bytes)
    if plain is None or isinstance(system, Ours):
        make, function = load.make, None
    else:
        make, function = plain.make, plain.function

    def run(events: list[Any]) -> list[Any]:
        if load.emits:
            emitted = system.run_emitting(events, chunk)
            if not all(emitted):
                raise BenchmarkError("of some event nothing was emitted")
            return emitted
        values = system.run(events, chunk, function)
        if load.content_bytes and values[0] is not None:
            for value in values:  # large ones are there when they have been read
                touch(value)
        return values

    sample = Sample(make, count, run)
    if warm_up:
        sample.warm_up()
        return 0.0
    return sample()


class HostedSample:
    """Times a system where it is hosted; see `pool.samples.Sample`."""

    def __init__(
        self, host: Host, load: Load, count: int, chunk: int, plain: Plain | None = None
    ) -> None:
        self._host = host
        self._request = partial(take_sample, load=load, count=count, chunk=chunk, plain=plain)

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


def sweep(
    hosts: Hosts, load: Load, part: int, repeats: int, plain: Plain | None = None
) -> tuple[dict[str, int], list[Note]]:
    """Find the best chunk size for each system, with `part` events.

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
        own = {str(chunk): HostedSample(hosts[label], load, part, chunk, plain) for chunk in chunks}
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
    figures = _take(samplers, settings.repeats)
    yield Row(load.label, (*figures.values(), *ratios(figures, times)))


def _take(samplers: Mapping[str, HostedSample | ControlSample], repeats: int) -> dict[str, Figure]:
    for sampler in samplers.values():
        sampler.warm_up()
    return {
        name: Figure(name, PER_SECOND, tuple(1 / each for each in values))
        for name, values in interleaved(samplers, repeats).items()
    }


def measure_values(
    hosts: Hosts, load: Load, settings: Settings, control: Control
) -> Iterator[Row | Note]:
    """Sample every system with its best chunk size, where handlers have values or emit.

    There are many of these cases, so nobody is sampled one by one, and samples are no
    longer than others although the control is among them.
    """
    if load.emits and not can_emit():
        yield Row(load.label, (Figure(Ours.label, PER_SECOND, ()),))
        yield Note(f"{load.label}: not measured, since Event has no emit")
        return
    size = sizes(load, settings.min_seconds)
    best, notes = sweep(hosts, load, size.part, min(_SWEEP_REPEATS, settings.repeats))
    yield from notes
    figures = _take(_best_samplers(hosts, load, size.full, best, control), settings.repeats)
    yield Row(load.label, (*figures.values(), *ratios(figures, None)))


def _best_samplers(
    hosts: Hosts,
    load: Load,
    count: int,
    best: Mapping[str, int],
    control: Control,
    plain: Plain | None = None,
) -> dict[str, HostedSample | ControlSample]:
    samplers: dict[str, HostedSample | ControlSample] = {}
    for label in hosts:
        samplers[label] = HostedSample(hosts[label], load, count, best[label], plain)
        if label == Ours.label:
            samplers[control.label] = ControlSample(control, load.make, count)
    return samplers


def measure_lines(
    hosts: Hosts, mixed: Mixed, settings: Settings, control: Control
) -> Iterator[Row | Note]:
    """Have log lines read: by our handler, and by the peers' plain function."""
    load = mixed.load._replace(label=mixed.label)
    count = max(WORKERS, round(mixed.lines * settings.min_seconds / _USUAL_SECONDS))
    part = max(WORKERS, round(count * _LINES_SWEEP_PART))
    repeats = min(_SWEEP_REPEATS, settings.repeats)
    best, notes = sweep(hosts, load, part, repeats, mixed.plain)
    yield from notes
    samplers = _best_samplers(hosts, load, count, best, control, mixed.plain)
    figures = _take(samplers, settings.repeats)
    best_peer = over_best(figures, mixed.times)
    yield Row(load.label, (*figures.values(), *ratios(figures, None), best_peer))


def over_best(figures: Mapping[str, Figure], times: float | None) -> Figure:
    """Our speed over that of the fastest peer, by its median; `times` is the bar."""
    peers = [
        each
        for name, each in figures.items()
        if "," not in name and name not in (Ours.label, Control.label)
    ]
    best = max(peers, key=lambda each: median(each.values))
    name = f"events/s of {Ours.label} / of the best peer, {best.name}"
    bar = None if times is None else Bar("at least", times)
    return ratio(name, figures[Ours.label], best, bar)


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
            yield ratio(name, figures[Ours.label], figures[label], bar, "larger")
