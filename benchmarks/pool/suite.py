"""The benchmark `pool`: every case, side by side with its peers and limits."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing
from functools import partial
from itertools import islice
from typing import Any, Final

from benchmarks.model import Bar, Benchmark, Figure, Note, Row, Settings, ratio
from benchmarks.pool import calls, keys, loads, memory, observed, shapes, values
from benchmarks.pool.bench import (
    FEW,
    LONGER,
    OURS,
    PER_SECOND,
    SECONDS,
    STREAM,
    Bench,
    Case,
    chunked,
    cpu_figure,
    efficiency_of,
    make_peer,
    over_peers,
    sized,
    sweep,
    take_figures,
)
from benchmarks.pool.handlers import Blob, FanOut, Level, Order, Wait, answer_to, register_all
from benchmarks.pool.limits import Control, SocketPair
from benchmarks.pool.peers import Chunked, Executor, MultiprocessingPool
from benchmarks.pool.processes import WORKERS, start_method
from benchmarks.pool.samples import ControlSample, Sample, await_workers
from evproc import Event
from evproc_pool import PoolProcessor
from evproc_pool.pool import BUFFER_PER_WORKER

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

# How many events a second two workers get done of the other loads, to size samples by.
_LEVELS_ROUNDS: Final = 3

_WAIT_SECONDS: Final = 0.002

# The input behind a consumer that stops: no buffer is as large.
_READ_AHEAD_INPUT: Final = 100_000
_SMALL_BUFFER: Final = 100
_STOP_AFTER: Final = 1_000


def run(settings: Settings) -> Generator[Row | Note, None, None]:
    """Start every side; yield the cases' rows, and notes on chunk sizes."""
    chosen = settings.choose(case.label for case in _CASES)
    cases = [case for case in _CASES if case.label in chosen]
    if not cases:
        return
    with ExitStack() as stack:
        pool = stack.enter_context(PoolProcessor(WORKERS, mp_context=start_method()))
        register_all(pool)
        bench = Bench(
            settings,
            pool,
            stack.enter_context(closing(MultiprocessingPool())),
            stack.enter_context(closing(Executor())),
            stack.enter_context(closing(SocketPair())),
            stack.enter_context(closing(Control())),
        )
        await_workers(pool.process_many, WORKERS)
        for peer in (bench.multiprocessing_pool, bench.executor, bench.socket_pair):
            await_workers(chunked(peer, 1), WORKERS)
        for case in cases:
            yield from case.measure(bench, case.label)
        yield Note(f"every side has {WORKERS} workers, by the start method {start_method()}")


# --- loads that every side runs ---


def _compared(load: loads.Load, bench: Bench, label: str) -> Iterator[Row | Note]:
    """A load, against both peers and the control."""
    _, few, part = sized(bench, load)
    count = load.events_in(bench.seconds * LONGER)
    sides: tuple[Chunked, ...] = (bench.multiprocessing_pool, bench.executor)
    best, note = sweep(load, part, sides, bench.settings.repeats)
    yield note
    peers = [make_peer(load, count, few, side, best[side.label]) for side in sides]
    # side by side, since the bar is on the ratio of these two
    samplers: dict[str, Sample | ControlSample] = {
        OURS: Sample(load.make, count, bench.pool.process_many),
        bench.control.label: ControlSample(bench.control, load.make, count),
    }
    for peer in peers:
        samplers.update(peer.samplers)
    figures = take_figures(samplers, bench.settings.repeats)
    control = figures[bench.control.label]
    ratios = [efficiency_of(figures[OURS], control, load.efficiency)]
    ratios += [efficiency_of(figures[peer.best], control) for peer in peers]
    best_ones = [figures[peer.best] for peer in peers]
    yield Row(label, (*figures.values(), *ratios), over_peers(figures[OURS], best_ones))


def _no_op(bench: Bench, label: str) -> Iterator[Row | Note]:
    """What the pool costs: against both peers and both limits."""
    load = loads.NO_OP
    count, few, part = sized(bench, load)
    pool, executor, pair = bench.multiprocessing_pool, bench.executor, bench.socket_pair
    best, note = sweep(load, part, (pool, executor, pair), bench.settings.repeats)
    yield note
    ours = Sample(load.make, count, bench.pool.process_many)
    first = make_peer(load, count, few, pool, best[pool.label])
    second = make_peer(load, count, few, executor, best[executor.label])
    pair_name = f"{pair.label}, batches of {best[pair.label]}"
    samplers: dict[str, Sample | ControlSample] = {
        OURS: ours,
        **first.samplers,
        **second.samplers,
        STREAM: Sample(load.make, count, lambda events: _streamed(bench.pool, events)),
        pair_name: Sample(load.make, count, chunked(pair, best[pair.label])),
        bench.control.label: ControlSample(bench.control, load.make, count),
    }
    figures = take_figures(samplers, bench.settings.repeats)
    mine, control = figures[OURS], bench.control.label
    limits = {
        first.best: 1.5,
        second.best: 2.2,
        first.one_by_one: 20.0,
        second.one_by_one: 20.0,
    }
    yield Row(
        label,
        (
            *figures.values(),
            cpu_figure("coordinator's CPU time", ours, Bar("at most", 1.2)),
            *over_peers(mine, [figures[name] for name in limits], limits),
            ratio(f"events/s / those of {pair_name}", mine, figures[pair_name]),
            ratio(f"events/s / those of {control}", mine, figures[control]),
            ratio(f"events/s of {STREAM} / of {OURS}", figures[STREAM], mine),
        ),
    )


def _streamed(pool: PoolProcessor, events: list[Event]) -> range:
    """Process events by `stream`, and say for how many there was an outcome."""
    outcomes = 0
    for outcome in pool.stream(events):
        outcome.unwrap()
        outcomes += 1
    return range(outcomes)


# --- cascades ---


def _fan_out(bench: Bench, label: str) -> Iterator[Row | Note]:
    """One root with many follow-ups, against the control with as many roots."""
    follow_ups = bench.scaled(_FOLLOW_UPS, 2)
    seconds = 1e-4

    def make(count: int) -> list[Event]:
        return [FanOut(follow_ups, seconds) for _ in range(count)]

    def run(events: list[Event]) -> list[Any]:
        return bench.pool.process_many(events, ordering="unordered")

    figures = take_figures(
        {
            OURS: Sample(make, 1, run, events_each=follow_ups),
            bench.control.label: ControlSample(
                bench.control, partial(loads.make_work, seconds), follow_ups
            ),
        },
        bench.settings.repeats,
    )
    share = efficiency_of(figures[OURS], figures[bench.control.label], 0.94)
    yield Row(label, (*figures.values(), share))


def _levels(bench: Bench, label: str) -> Iterator[Row | Note]:
    """Roots with a follow-up each, which has one too, against roots without any."""

    def make(count: int) -> list[Event]:
        return [Level(number, _LEVELS) for number in range(count)]

    roots = bench.scaled(_ROOTS)
    no_op = loads.NO_OP
    cascades, plain = "3 levels of follow-ups", "no-op"
    figures = take_figures(
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


# --- memory and sizes ---


def _memory(bench: Bench, label: str) -> Iterator[Row | Note]:
    """What a long stream adds to the coordinator."""
    events, first = bench.scaled(_STREAMED), bench.scaled(_STREAMED_FIRST)
    repeats = min(FEW, bench.settings.repeats)
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
                PER_SECOND,
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


def _read_ahead(bench: Bench, label: str) -> Iterator[Row | Note]:
    """How far the input is read ahead of a consumer that stops for a while.

    All streams have the same pause: while it lasts, nobody reads from any of them.
    """
    default = BUFFER_PER_WORKER * WORKERS
    events = bench.scaled(_READ_AHEAD_INPUT, 2 * default)
    pause = _PAUSE_SECONDS * min(1.0, bench.seconds / SECONDS)
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


def _many_workers(bench: Bench, label: str) -> Iterator[Row | Note]:
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
        figures = take_figures(by_name, bench.settings.repeats)
    cpu = {
        workers: cpu_figure(f"coordinator's CPU time, {workers} workers", sample)
        for workers, sample in samplers.items()
    }
    over = ratio(
        f"CPU time with {many} / with {WORKERS}", cpu[many], cpu[WORKERS], Bar("at most", 1.3)
    )
    yield Row(label, (*figures.values(), *cpu.values(), over))


def _large(bench: Bench, label: str) -> Iterator[Row | Note]:
    """Large events and large values at once."""
    size = bench.scaled(_BLOB_BYTES)
    right: list[float] = []
    speeds: list[float] = []
    for _ in range(min(FEW, bench.settings.repeats)):
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
    Case("no-op", _no_op),
    *(Case(load.label, partial(_compared, load)) for load in loads.COMPARED),
    *values.CASES,
    Case("1 root, 10,000 unordered follow-ups of 100 us", _fan_out),
    Case("10,000 roots, 3 levels of 1 follow-up", _levels),
    *keys.CASES,
    Case("2,000,000 events streamed", _memory),
    Case("a consumer that stops for 2 s", _read_ahead),
    Case("64 workers, 2 ms of sleep", _many_workers),
    Case("50 MB events and values", _large),
    *calls.CASES,
    *observed.CASES,
    *shapes.CASES,
)


BENCHMARK: Final = Benchmark(
    name="pool",
    title="PoolProcessor, against multiprocessing.Pool, ProcessPoolExecutor and two limits",
    run=run,
    defaults=Settings(repeats=5, min_seconds=SECONDS, turns=1),
    quick=Settings(repeats=2, min_seconds=0.01, turns=1),
)
