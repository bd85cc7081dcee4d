"""What the cases of the benchmark `pool` share: every side, and figures made of samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from statistics import median
from typing import Any, Final, NamedTuple

from benchmarks.model import Bar, Figure, Note, Row, Settings, ratio
from benchmarks.pool import loads
from benchmarks.pool.limits import Control, SocketPair
from benchmarks.pool.peers import Chunked, Executor, MultiprocessingPool
from benchmarks.pool.processes import WORKERS
from benchmarks.pool.samples import ControlSample, Sample
from benchmarks.timing import interleaved
from evproc import Event, Processor
from evproc_pool import Outcome, PoolProcessor

#: What a sample takes with the default settings, and the sizes of cases go with it. With
#: others they are in proportion.
SECONDS: Final = 0.5

#: Samples that are compared with the control are so much longer: the few milliseconds
#: of its start and its end, in which not all work, are to count for little.
LONGER: Final = 3

#: The most repeats of what takes many seconds and differs little from one time to
#: the next: 2,000,000 events, and 2 GB.
FEW: Final = 2

# How many events a second two workers get done one by one, to size samples by.
_ONE_BY_ONE_PER_SECOND: Final = 5_000

# The part of a sample with which the best chunk size is found, and how often.
_SWEEP_PART: Final = 1 / 3
_SWEEP_REPEATS: Final = 3

PER_SECOND: Final = "events/s"
MICROSECONDS: Final = "us/event"
OURS: Final = "PoolProcessor.process_many"
STREAM: Final = "PoolProcessor.stream"


class Bench(NamedTuple):
    """The settings, and every side, started."""

    settings: Settings
    pool: PoolProcessor
    multiprocessing_pool: MultiprocessingPool
    executor: Executor
    socket_pair: SocketPair
    control: Control

    @property
    def seconds(self) -> float:
        """What a sample should take."""
        return self.settings.min_seconds

    def scaled(self, size: int, least: int = 1) -> int:
        """A size that goes with `SECONDS`, for the samples of this run."""
        return max(least, round(size * self.seconds / SECONDS))


class Case(NamedTuple):
    """A case.

    Attributes:
        label: What the table calls it.
        measure: Yields its row, and perhaps notes.
    """

    label: str
    measure: Callable[[Bench, str], Iterator[Row | Note]]


# --- figures of samples ---


def take_figures(samplers: Mapping[str, Sample | ControlSample], repeats: int) -> dict[str, Figure]:
    """Warm up, sample in turn, and give the events per second of each side."""
    for sampler in samplers.values():
        sampler.warm_up()
    return {
        side: Figure(side, PER_SECOND, tuple(1 / each for each in values))
        for side, values in interleaved(samplers, repeats).items()
    }


def cpu_figure(name: str, sample: Sample, bar: Bar | None = None) -> Figure:
    """What the calling thread spent; of the samples that were taken."""
    return Figure(name, MICROSECONDS, tuple(each * 1e6 for each in sample.cpu_seconds), bar)


def efficiency_of(of: Figure, control: Figure, bar: float | None = None) -> Figure:
    """The control's time over another's: its speed over the control's."""
    limit = None if bar is None else Bar("at least", bar)
    return ratio(f"control's time / that of {of.name}", of, control, limit)


def over_peers(
    ours: Figure, figures: Iterable[Figure], limits: Mapping[str, float] | None = None
) -> tuple[Figure, ...]:
    """Our speed over that of each peer, with a bar for those that have a limit by name."""
    bars = {name: Bar("at least", limit) for name, limit in (limits or {}).items()}
    return tuple(
        ratio(f"events/s / those of {each.name}", ours, each, bars.get(each.name), "larger")
        for each in figures
    )


def can_emit() -> bool:
    """Whether handlers can emit, and processors and outcomes have what was emitted."""
    of_outcome = {*dir(Outcome), *(each.name for each in fields(Outcome))}
    return hasattr(Event, "emit") and hasattr(Processor(), "emitted") and "emitted" in of_outcome


def streamed(
    pool: PoolProcessor,
    events: list[Event],
    look: Callable[[Outcome], Any] = Outcome.unwrap,
    **options: Any,
) -> list[Any]:
    """Process events by `stream`, and give a part of each outcome."""
    return [look(outcome) for outcome in pool.stream(events, **options)]


# --- loads that every side runs ---


class Peer(NamedTuple):
    """A side that is handed chunks, with its samples for a load.

    Attributes:
        best: What its figure is called with the best chunk size.
        one_by_one: Likewise with chunks of one; the same if these are the best.
    """

    best: str
    one_by_one: str
    samplers: dict[str, Sample]


def sweep(
    load: loads.Load, count: int, sides: Sequence[Chunked], repeats: int
) -> tuple[dict[str, int], Note]:
    """Find the best chunk size for each side.

    Args:
        load: What they are handed.
        count: How many events.
        sides: Each has all of the load's chunk sizes.
        repeats: Those of the run; fewer of them do.

    Returns:
        The chunk sizes by the sides' labels, and a note of how fast each of those
        was that were tried.
    """
    # no side is to have less work at a time than it has workers
    chunks = [chunk for chunk in load.chunks if chunk * WORKERS <= count] or load.chunks[:1]

    def name(side: Chunked, chunk: int) -> str:
        return f"{side.label} {chunk}"

    samplers = {
        name(side, chunk): Sample(load.make, count, chunked(side, chunk))
        for side in sides
        for chunk in chunks
    }
    for side in sides:
        samplers[name(side, chunks[0])].warm_up()
    values = interleaved(samplers, min(_SWEEP_REPEATS, repeats))
    best = {}
    told = []
    for side in sides:
        speeds = {chunk: 1 / median(values[name(side, chunk)]) for chunk in chunks}
        best[side.label] = max(speeds, key=speeds.__getitem__)
        each = ", ".join(f"{chunk}: {speed:,.0f}" for chunk, speed in speeds.items())
        told.append(f"{side.label} {each}")
    return best, Note(f"{load.label}: events/s by chunk size, as tried: {'; '.join(told)}")


def chunked(side: Chunked, chunk: int) -> Callable[[list[Event]], list[Any]]:
    """Hand a side its events in chunks of this size."""
    return lambda events: side.run(events, chunk)


def make_peer(load: loads.Load, count: int, few: int, side: Chunked, chunk: int) -> Peer:
    """Make the samples of a side: `count` events with its best chunk, `few` one by one."""
    one_by_one = f"{side.label}, one by one"
    samplers = {one_by_one: Sample(load.make, count if chunk == 1 else few, chunked(side, 1))}
    if chunk == 1:
        return Peer(one_by_one, one_by_one, samplers)
    best = f"{side.label}, chunks of {chunk}"
    samplers[best] = Sample(load.make, count, chunked(side, chunk))
    return Peer(best, one_by_one, samplers)


def sized(bench: Bench, load: loads.Load) -> tuple[int, int, int]:
    """How many events a sample has; one by one; and when looking for a chunk size."""
    count = load.events_in(bench.seconds)
    few = min(count, max(1, int(_ONE_BY_ONE_PER_SECOND * bench.seconds)))
    return count, few, load.events_in(bench.seconds * _SWEEP_PART)
