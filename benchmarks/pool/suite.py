"""The benchmark `pool`: every case, side by side with its peers and limits."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from functools import partial
from itertools import islice
from statistics import median
from typing import Any, Final, NamedTuple

from benchmarks.model import Bar, Benchmark, Figure, Note, Row, Settings, ratio
from benchmarks.pool import loads, memory
from benchmarks.pool.handlers import (
    KEYS,
    Blob,
    FanOut,
    Level,
    Order,
    Wait,
    answer_to,
    key_of,
    register_all,
)
from benchmarks.pool.limits import Control, SocketPair
from benchmarks.pool.peers import Chunked, Executor, MultiprocessingPool
from benchmarks.pool.processes import WORKERS, start_method
from benchmarks.pool.samples import ControlSample, Sample, await_workers
from benchmarks.timing import interleaved
from evproc import Event
from evproc_pool import PoolProcessor
from evproc_pool.pool import BUFFER_PER_WORKER

# What a sample takes with the default settings, and the sizes that go with it. With
# others they are in proportion.
_SECONDS: Final = 0.5
_FOLLOW_UPS: Final = 10_000
_ROOTS: Final = 10_000
_LEVELS: Final = 3
_STREAMED: Final = 2_000_000
_STREAMED_FIRST: Final = 50_000
_BLOB_BYTES: Final = 50 * 10**6
_PAUSE_SECONDS: Final = 2.0
_MANY_WORKERS: Final = 64

# Not in proportion: they are few.
_BLOBS: Final = 20

# The most repeats of what takes many seconds and differs little from one time to
# the next: 2,000,000 events, and 2 GB.
_FEW: Final = 2

# How many events a second two workers get done of the other loads, to size samples by.
_ONE_BY_ONE_PER_SECOND: Final = 5_000
_KEYED_PER_SECOND: Final = 60_000
_LEVELS_ROUNDS: Final = 3

# The part of a sample that the best chunk size is looked for with, and how often.
_SWEEP_PART: Final = 1 / 3
_SWEEP_REPEATS: Final = 3

# Samples that are compared with the control are so much longer: the few milliseconds
# of its start and its end, in which not all work, are to count for little.
_LONGER: Final = 3

_WAIT_SECONDS: Final = 0.002

# The input behind a consumer that stops: no buffer is as large.
_READ_AHEAD_INPUT: Final = 100_000
_SMALL_BUFFER: Final = 100
_STOP_AFTER: Final = 1_000

_PER_SECOND: Final = "events/s"
_MICROSECONDS: Final = "us/event"
_OURS: Final = "PoolProcessor.process_many"
_STREAM: Final = "PoolProcessor.stream"

_Sampler = Callable[[], float]


class _Bench(NamedTuple):
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
        """A size that goes with `_SECONDS`, for the samples of this run."""
        return max(least, round(size * self.seconds / _SECONDS))


class _Case(NamedTuple):
    """A case.

    Attributes:
        label: What the table calls it.
        measure: Yields its row, and perhaps notes.
    """

    label: str
    measure: Callable[[_Bench, str], Iterator[Row | Note]]


def run(settings: Settings) -> Generator[Row | Note, None, None]:
    """Start every side; yield the cases' rows, and notes on chunk sizes."""
    cases = [case for case in _CASES if settings.wants(case.label)]
    if not cases:
        return
    with ExitStack() as stack:
        pool = stack.enter_context(PoolProcessor(WORKERS, mp_context=start_method()))
        register_all(pool)
        bench = _Bench(
            settings,
            pool,
            stack.enter_context(closing(MultiprocessingPool())),
            stack.enter_context(closing(Executor())),
            stack.enter_context(closing(SocketPair())),
            stack.enter_context(closing(Control())),
        )
        await_workers(pool.process_many, WORKERS)
        for peer in (bench.multiprocessing_pool, bench.executor, bench.socket_pair):
            await_workers(_chunked(peer, 1), WORKERS)
        for case in cases:
            yield from case.measure(bench, case.label)
        yield Note(f"every side has {WORKERS} workers, by the start method {start_method()}")


# --- figures of samples ---


def _take(samplers: Mapping[str, Sample | ControlSample], repeats: int) -> dict[str, Figure]:
    """Warm up, sample in turn, and give the events per second of each side."""
    for sampler in samplers.values():
        sampler.warm_up()
    return {
        side: Figure(side, _PER_SECOND, tuple(1 / each for each in values))
        for side, values in interleaved(samplers, repeats).items()
    }


def _cpu(name: str, sample: Sample, bar: Bar | None = None) -> Figure:
    """What the calling thread spent; of the samples that were taken."""
    return Figure(name, _MICROSECONDS, tuple(each * 1e6 for each in sample.cpu_seconds), bar)


def _efficiency(of: Figure, control: Figure, bar: float | None = None) -> Figure:
    """The control's time over another's: its speed over the control's."""
    limit = None if bar is None else Bar("at least", bar)
    return ratio(f"control's time / that of {of.name}", of, control, limit)


# --- loads that every side runs ---


class _Peer(NamedTuple):
    """A side that is handed chunks, with its samples for a load.

    Attributes:
        best: What its figure is called with the best chunk size.
        one_by_one: Likewise with chunks of one; the same if these are the best.
    """

    best: str
    one_by_one: str
    samplers: dict[str, Sample]


def _sweep(
    load: loads.Load, count: int, sides: Sequence[Chunked], repeats: int
) -> tuple[dict[str, int], Note]:
    """Find the best chunk size for each side.

    Returns:
        The chunk sizes by the sides' labels, and a note of how fast each of those
        was that were tried.
    """
    # no side is to have less work at a time than it has workers
    chunks = [chunk for chunk in load.chunks if chunk * WORKERS <= count] or load.chunks[:1]

    def name(side: Chunked, chunk: int) -> str:
        return f"{side.label} {chunk}"

    samplers = {
        name(side, chunk): Sample(load.make, count, _chunked(side, chunk))
        for side in sides
        for chunk in chunks
    }
    for side in sides:
        samplers[name(side, chunks[0])].warm_up()
    values = interleaved(samplers, repeats)
    best = {}
    told = []
    for side in sides:
        speeds = {chunk: 1 / median(values[name(side, chunk)]) for chunk in chunks}
        best[side.label] = max(speeds, key=speeds.__getitem__)
        each = ", ".join(f"{chunk}: {speed:,.0f}" for chunk, speed in speeds.items())
        told.append(f"{side.label} {each}")
    return best, Note(f"{load.label}: events/s by chunk size, as tried: {'; '.join(told)}")


def _chunked(side: Chunked, chunk: int) -> Callable[[list[Event]], list[Any]]:
    return lambda events: side.run(events, chunk)


def _peer(load: loads.Load, count: int, few: int, side: Chunked, chunk: int) -> _Peer:
    one_by_one = f"{side.label}, one by one"
    samplers = {one_by_one: Sample(load.make, count if chunk == 1 else few, _chunked(side, 1))}
    if chunk == 1:
        return _Peer(one_by_one, one_by_one, samplers)
    best = f"{side.label}, chunks of {chunk}"
    samplers[best] = Sample(load.make, count, _chunked(side, chunk))
    return _Peer(best, one_by_one, samplers)


def _sized(bench: _Bench, load: loads.Load) -> tuple[int, int, int]:
    """How many events a sample has; one by one; and when looking for a chunk size."""
    count = load.events_in(bench.seconds)
    few = min(count, max(1, int(_ONE_BY_ONE_PER_SECOND * bench.seconds)))
    return count, few, load.events_in(bench.seconds * _SWEEP_PART)


def _compared(load: loads.Load, bench: _Bench, label: str) -> Iterator[Row | Note]:
    """A load, against both peers and the control."""
    _, few, part = _sized(bench, load)
    count = load.events_in(bench.seconds * _LONGER)
    sides: tuple[Chunked, ...] = (bench.multiprocessing_pool, bench.executor)
    best, note = _sweep(load, part, sides, min(_SWEEP_REPEATS, bench.settings.repeats))
    yield note
    peers = [_peer(load, count, few, side, best[side.label]) for side in sides]
    # side by side, since the bar is on the ratio of these two
    samplers: dict[str, Sample | ControlSample] = {
        _OURS: Sample(load.make, count, bench.pool.process_many),
        bench.control.label: ControlSample(bench.control, load.make, count),
    }
    for peer in peers:
        samplers.update(peer.samplers)
    figures = _take(samplers, bench.settings.repeats)
    control = figures[bench.control.label]
    ratios = [_efficiency(figures[_OURS], control, load.efficiency)]
    ratios += [_efficiency(figures[peer.best], control) for peer in peers]
    yield Row(label, (*figures.values(), *ratios))


def _no_op(bench: _Bench, label: str) -> Iterator[Row | Note]:
    """What the pool costs: against both peers and both limits."""
    load = loads.NO_OP
    count, few, part = _sized(bench, load)
    pool, executor, pair = bench.multiprocessing_pool, bench.executor, bench.socket_pair
    best, note = _sweep(
        load, part, (pool, executor, pair), min(_SWEEP_REPEATS, bench.settings.repeats)
    )
    yield note
    ours = Sample(load.make, count, bench.pool.process_many)
    first = _peer(load, count, few, pool, best[pool.label])
    second = _peer(load, count, few, executor, best[executor.label])
    pair_name = f"{pair.label}, batches of {best[pair.label]}"
    samplers: dict[str, Sample | ControlSample] = {
        _OURS: ours,
        **first.samplers,
        **second.samplers,
        _STREAM: Sample(load.make, count, lambda events: _streamed(bench.pool, events)),
        pair_name: Sample(load.make, count, _chunked(pair, best[pair.label])),
        bench.control.label: ControlSample(bench.control, load.make, count),
    }
    figures = _take(samplers, bench.settings.repeats)
    mine = figures[_OURS]

    def over(name: str, limit: float | None = None) -> Figure:
        bar = None if limit is None else Bar("at least", limit)
        return ratio(f"events/s / those of {name}", mine, figures[name], bar)

    yield Row(
        label,
        (
            *figures.values(),
            _cpu("coordinator's CPU time", ours, Bar("at most", 1.0)),
            over(first.best, 1.5),
            over(second.best, 2.2),
            over(first.one_by_one, 20),
            over(second.one_by_one, 20),
            over(pair_name),
            over(bench.control.label),
            ratio(f"events/s of {_STREAM} / of {_OURS}", figures[_STREAM], mine),
        ),
    )


def _streamed(pool: PoolProcessor, events: list[Event]) -> range:
    """Process events by `stream`, and say for how many there was an outcome."""
    outcomes = 0
    for outcome in pool.stream(events):
        outcome.unwrap()
        outcomes += 1
    return range(outcomes)


# --- cascades and keys ---


def _fan_out(bench: _Bench, label: str) -> Iterator[Row | Note]:
    """One root with many follow-ups, against the control with as many roots."""
    follow_ups = bench.scaled(_FOLLOW_UPS, 2)
    seconds = 1e-4

    def make(count: int) -> list[Event]:
        return [FanOut(follow_ups, seconds) for _ in range(count)]

    def run(events: list[Event]) -> list[Any]:
        return bench.pool.process_many(events, ordering="unordered")

    figures = _take(
        {
            _OURS: Sample(make, 1, run, events_each=follow_ups),
            bench.control.label: ControlSample(
                bench.control, partial(loads.make_work, seconds), follow_ups
            ),
        },
        bench.settings.repeats,
    )
    efficiency = _efficiency(figures[_OURS], figures[bench.control.label], 0.94)
    yield Row(label, (*figures.values(), efficiency))


def _levels(bench: _Bench, label: str) -> Iterator[Row | Note]:
    """Roots with a follow-up each, which has one too, against roots without any."""

    def make(count: int) -> list[Event]:
        return [Level(number, _LEVELS) for number in range(count)]

    roots = bench.scaled(_ROOTS)
    no_op = loads.NO_OP
    cascades, plain = "3 levels of follow-ups", "no-op"
    figures = _take(
        {
            cascades: Sample(
                make,
                roots,
                bench.pool.process_many,
                rounds=_LEVELS_ROUNDS,
                events_each=1 + _LEVELS,
            ),
            plain: Sample(no_op.make, no_op.events_in(bench.seconds), bench.pool.process_many),
        },
        bench.settings.repeats,
    )
    share = ratio(
        "events/s / those of no-op", figures[cascades], figures[plain], Bar("at least", 0.45)
    )
    yield Row(label, (*figures.values(), share))


def _keyed_no_op(bench: _Bench, label: str) -> Iterator[Row | Note]:
    """What a key costs where nothing else does."""
    count = max(KEYS, int(_KEYED_PER_SECOND * bench.seconds))
    no_op = loads.NO_OP
    keyed, plain = "keyed", "no key"
    figures = _take(
        {
            keyed: Sample(
                no_op.make, count, lambda events: bench.pool.process_many(events, key=key_of)
            ),
            plain: Sample(no_op.make, no_op.events_in(bench.seconds), bench.pool.process_many),
        },
        bench.settings.repeats,
    )
    share = ratio("events/s / those with no key", figures[keyed], figures[plain])
    yield Row(label, (*figures.values(), share))


def _keyed_work(bench: _Bench, label: str) -> Iterator[Row | Note]:
    """What a key costs where events need time."""
    load = loads.HUNDRED_MICROSECONDS
    count = load.events_in(bench.seconds)
    figures = _take(
        {
            "keyed": Sample(
                load.make, count, lambda events: bench.pool.process_many(events, key=key_of)
            ),
            bench.control.label: ControlSample(bench.control, load.make, count),
        },
        bench.settings.repeats,
    )
    efficiency = _efficiency(figures["keyed"], figures[bench.control.label])
    yield Row(label, (*figures.values(), efficiency))


# --- memory and sizes ---


def _memory(bench: _Bench, label: str) -> Iterator[Row | Note]:
    """What a long stream adds to the coordinator."""
    events, first = bench.scaled(_STREAMED), bench.scaled(_STREAMED_FIRST)
    repeats = min(_FEW, bench.settings.repeats)
    measured = [memory.measure(events, first) for _ in range(repeats)]
    yield Row(
        label,
        (
            Figure(
                f"resident memory, growth after {first:,} of {events:,}",
                "MB",
                tuple(each.grown_bytes / 1e6 for each in measured),
                Bar("at most", 5),
            ),
            Figure(
                "stream from a generator",
                _PER_SECOND,
                tuple(events / each.seconds for each in measured),
            ),
        ),
    )


class _Input:
    """Events, and how many of them were read before they were needed.

    Attributes:
        yielded: How many outcomes the consumer has got; it counts.
        ahead: The most that were read at a time when so many had been yielded.
    """

    def __init__(self, events: int) -> None:
        self._events = events
        self.yielded = 0
        self.ahead = 0

    def __iter__(self) -> Iterator[Event]:
        for number in range(self._events):
            self.ahead = max(self.ahead, number + 1 - self.yielded)
            yield Order(number)


def _read_ahead(bench: _Bench, label: str) -> Iterator[Row | Note]:
    """How far the input is read ahead of a consumer that stops for a while.

    All streams have the same pause: while it lasts, nobody reads from any of them.
    """
    default = BUFFER_PER_WORKER * WORKERS
    events = bench.scaled(_READ_AHEAD_INPUT, 2 * default)
    pause = _PAUSE_SECONDS * min(1.0, bench.seconds / _SECONDS)
    chunk = 64
    streams: dict[str, Callable[[_Input], Iterator[Any]]] = {
        "default": bench.pool.stream,
        "small": lambda each: bench.pool.stream(each, buffersize=_SMALL_BUFFER),
        bench.multiprocessing_pool.label: lambda each: bench.multiprocessing_pool.stream(
            each, chunk
        ),
        bench.executor.label: lambda each: bench.executor.stream(each, chunk),
    }
    ahead: dict[str, list[float]] = {name: [] for name in streams}
    for _ in range(bench.settings.repeats):
        inputs = {name: _Input(events) for name in streams}
        outcomes = {name: make(inputs[name]) for name, make in streams.items()}
        for name, each in outcomes.items():
            for _outcome in islice(each, _STOP_AFTER):
                inputs[name].yielded += 1
        time.sleep(pause)
        for name, each in outcomes.items():
            ahead[name].append(inputs[name].ahead)
            for _outcome in each:  # or else it would be in the way of the next case
                inputs[name].yielded += 1
    read = {name: Figure(f"read ahead, {name}", "events", tuple(ahead[name])) for name in streams}

    def of_buffer(name: str, size: int) -> Figure:
        values = tuple(each / size for each in ahead[name])
        name = f"read ahead / buffersize, {name}: {size:,}"
        return Figure(name, "ratio", values, Bar("at most", 1))

    yield Row(
        label,
        (
            *read.values(),
            of_buffer("default", default),
            of_buffer("small", _SMALL_BUFFER),
        ),
    )
    yield Note(
        f"{label}: {pause:g} s behind {_STOP_AFTER:,} outcomes of {events:,}; the peers in chunks"
        f" of {chunk}"
    )


def _many_workers(bench: _Bench, label: str) -> Iterator[Row | Note]:
    """What an event costs the coordinator with many workers, and with two."""
    many = bench.scaled(_MANY_WORKERS, 4)

    def make(count: int) -> list[Event]:
        return [Wait(_WAIT_SECONDS) for _ in range(count)]

    samplers: dict[int, Sample] = {}
    with ExitStack() as stack:
        for workers in (WORKERS, many):
            pool = stack.enter_context(PoolProcessor(workers, mp_context=start_method()))
            register_all(pool)
            await_workers(pool.process_many, workers)
            # as long a time for both, so that the start and the end weigh the same
            count = max(workers, int(bench.seconds * workers / _WAIT_SECONDS))
            samplers[workers] = Sample(make, count, pool.process_many)
        by_name: dict[str, Sample | ControlSample] = {
            f"{workers} workers": sample for workers, sample in samplers.items()
        }
        figures = _take(by_name, bench.settings.repeats)
    cpu = {
        workers: _cpu(f"coordinator's CPU time, {workers} workers", sample)
        for workers, sample in samplers.items()
    }
    over = ratio(
        f"CPU time with {many} / with {WORKERS}", cpu[many], cpu[WORKERS], Bar("at most", 1.3)
    )
    yield Row(label, (*figures.values(), *cpu.values(), over))


def _large(bench: _Bench, label: str) -> Iterator[Row | Note]:
    """Large events and large values at once."""
    size = bench.scaled(_BLOB_BYTES)
    right: list[float] = []
    speeds: list[float] = []
    for _ in range(min(_FEW, bench.settings.repeats)):
        # one object of bytes for all events: they are pickled each for itself
        data = bytes(size)
        begin = time.perf_counter()
        values = bench.pool.process_many([Blob(number, data) for number in range(_BLOBS)])
        seconds = time.perf_counter() - begin
        speeds.append(2 * _BLOBS * size / 1e6 / seconds)
        right.append(sum(value == answer_to(number, size) for number, value in enumerate(values)))
    yield Row(
        label,
        (
            Figure(f"right values of {_BLOBS}", "values", tuple(right), Bar("at least", _BLOBS)),
            Figure(f"there and back, {size / 1e6:.3g} MB each", "MB/s", tuple(speeds)),
        ),
    )


_CASES: Final = (
    _Case("no-op", _no_op),
    *(_Case(load.label, partial(_compared, load)) for load in loads.COMPARED),
    _Case("1 root, 10,000 unordered follow-ups of 100 us", _fan_out),
    _Case("10,000 roots, 3 levels of 1 follow-up", _levels),
    _Case(f"{KEYS} keys, no-op", _keyed_no_op),
    _Case(f"{KEYS} keys, 100 us", _keyed_work),
    _Case("2,000,000 events streamed", _memory),
    _Case("a consumer that stops for 2 s", _read_ahead),
    _Case("64 workers, 2 ms of sleep", _many_workers),
    _Case("50 MB events and values", _large),
)


BENCHMARK: Final = Benchmark(
    name="pool",
    title="PoolProcessor, against multiprocessing.Pool, ProcessPoolExecutor and two limits",
    run=run,
    defaults=Settings(repeats=5, min_seconds=_SECONDS, turns=1),
    quick=Settings(repeats=2, min_seconds=0.01, turns=1),
)
