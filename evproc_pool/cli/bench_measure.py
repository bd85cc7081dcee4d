"""`evproc bench`: runs a sample of events serially and in pools, and takes the times."""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NamedTuple

import psutil

from evproc import Event, Processor
from evproc_pool import PoolProcessor
from evproc_pool.cli.bench_verdict import HandlerTime, Measured, PoolTime
from evproc_pool.cli.json_event import BadInputError, parse
from evproc_pool.cli.line_input import LineSplitter
from evproc_pool.cli.output import counted

# How often each run is made; the least time counts, since whatever disturbs a run makes it longer.
_REPEATS: Final = 3

# How much of the input is read at a time.
_PORTION: Final = 1 << 16


class Sample(NamedTuple):
    """Events of an input that can be made again and again: handlers change them.

    Attributes:
        lines: The JSON texts.
        make: Makes an event of parsed JSON.
    """

    lines: list[str]
    make: Callable[[Any], Event]

    def events(self) -> list[Event]:
        """Make the events."""
        return [self.make(parse(line)) for line in self.lines]


def read_lines(descriptor: int) -> Iterator[tuple[int, str]]:
    """Yield the lines of a file that are not blank, each with its number."""
    splitter = LineSplitter()
    number = 0
    while True:
        data = os.read(descriptor, _PORTION)
        for line in splitter.lines(data):
            number += 1
            text = line.decode(errors="backslashreplace")
            if text and not text.isspace():
                yield number, text
        if not data:
            return


def take_sample(
    lines: Iterable[tuple[int, str]],
    make: Callable[[Any], Event],
    processor: Processor,
    *,
    most: int,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> Sample:
    """Take the first events of an input, as many as a serial run handles in some time.

    Args:
        lines: The input.
        make: Makes an event of parsed JSON.
        processor: Has the handlers. They run, so that modules that they import are there later.
        most: The most events.
        seconds: The most time.
        clock: Tells the time.

    Raises:
        BadInputError: A line is bad; the text names it.
    """
    taken: list[str] = []
    end = clock() + seconds
    for number, line in lines:
        try:
            event = make(parse(line))
        except BadInputError as error:
            raise BadInputError(f"line {number}: {error}") from error
        taken.append(line)
        _attempt(processor, event)
        if len(taken) >= most or clock() >= end:
            break
    return Sample(taken, make)


def _attempt(processor: Processor, event: Event) -> bool:
    """Process an event; return whether it failed."""
    try:
        processor.process(event)
    except Exception:
        return True
    return False


class _Serial(NamedTuple):
    seconds: float
    cpu: float


def _run_serially(processor: Processor, events: list[Event]) -> _Serial:
    cpu, began = time.process_time(), time.perf_counter()
    for event in events:
        _attempt(processor, event)
    return _Serial(time.perf_counter() - began, time.process_time() - cpu)


class _Timer:
    """Takes the time of a handler, in its place."""

    def __init__(self, func: Callable[..., Any]) -> None:
        self._func = func
        self.calls = 0
        self.seconds = 0.0
        self.longest = 0.0

    def __call__(self, proc: Processor, ev: Event) -> Any:
        began = time.perf_counter()
        try:
            return self._func(proc, ev)
        finally:
            took = time.perf_counter() - began
            self.calls += 1
            self.seconds += took
            self.longest = max(self.longest, took)


def time_handlers(
    processor: Processor, sample: Sample, repeats: int = _REPEATS
) -> tuple[list[HandlerTime], float, int]:
    """Process events, and take the time of each handler; the processor is of no use afterwards.

    Returns:
        What the handlers took in the quickest run; the longest event's share of its run, by the
        least time of each event; and how many events failed.
    """
    functions = {name: handler.func for name, handler in processor.nodes.items()}
    runs: list[tuple[float, list[HandlerTime], int]] = []
    least: list[float] = []
    for _ in range(repeats):
        timers = {name: _Timer(func) for name, func in functions.items()}
        for name, handler in processor.nodes.items():
            handler.func = timers[name]
        took, failed = [], 0
        for event in sample.events():
            began = time.perf_counter()
            failed += _attempt(processor, event)
            took.append(time.perf_counter() - began)
        least = took if not least else list(map(min, least, took))
        times = [
            HandlerTime(name, each.calls, each.seconds, each.longest)
            for name, each in timers.items()
        ]
        runs.append((sum(took), times, failed))
    _, times, failed = min(runs, key=lambda run: run[0])
    return times, max(least) / (sum(least) or 1.0), failed


def others_share(busy: float, own: float, available: float) -> float:
    """Return which share of the CPUs other programs had.

    Args:
        busy: CPU time of all programs, in seconds.
        own: That of this one.
        available: How much there was to have.
    """
    return min(1.0, max(0.0, busy - own) / available) if available > 0 else 0.0


def _cpu_seconds() -> tuple[float, float]:
    """Return how long the CPUs were busy since the start of the system, and how long in all."""
    times = psutil.cpu_times()
    # `user` and `nice` have the time of guests
    total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    return total - times.idle - getattr(times, "iowait", 0.0), total


def _run_pool(group: str, sample: Sample, workers: int) -> PoolTime:
    runs = []
    began = time.perf_counter()
    with PoolProcessor(workers=workers) as pool:
        pool.load_from(group)
        # every worker must be there before the time is taken
        pool.process_many(sample.events()[: 2 * workers], return_exceptions=True)
        start = time.perf_counter() - began
        for _ in range(_REPEATS):
            events = sample.events()
            cpu, began = time.process_time(), time.perf_counter()
            pool.process_many(events, return_exceptions=True)
            runs.append(PoolTime(time.perf_counter() - began, time.process_time() - cpu, start))
    return min(runs)


def _mean_bytes(events: list[Event]) -> float:
    try:
        return len(pickle.dumps(events, pickle.HIGHEST_PROTOCOL)) / len(events)
    except Exception:
        return 0.0  # the pool says what is wrong with them


def numbers_of_workers(most: int) -> list[int]:
    """Return 1, 2, 3, 4, then powers of two, and `most`."""
    numbers = {each for each in (1, 2, 3, 4, 8, 16, 32, 64, 128) if each < most}
    return sorted({*numbers, most})


def measure(
    group: str, sample: Sample, workers: int, cpus: int, tell: Callable[[str], None]
) -> Measured:
    """Run a sample serially, and with 1 to `workers` workers.

    Args:
        group: The handlers.
        sample: The events, at least one.
        workers: The most workers.
        cpus: How many CPUs there are to use.
        tell: Told what goes on, a line each.
    """
    events = counted(len(sample.lines), "event")
    tell(f"{events} serially")
    processor = Processor()
    processor.load_from(group)
    before = _cpu_seconds()
    runs = [_run_serially(processor, sample.events()) for _ in range(_REPEATS)]
    busy, available = (now - then for now, then in zip(_cpu_seconds(), before, strict=True))
    others = others_share(busy, sum(run.cpu for run in runs), available)
    serial = min(runs)
    times, longest, failed = time_handlers(processor, sample)
    pools = {}
    for number in numbers_of_workers(workers):
        tell(f"{events} with workers={number}")
        pools[number] = _run_pool(group, sample, number)
    return Measured(
        len(sample.lines),
        failed,
        serial.seconds,
        serial.cpu,
        longest * serial.seconds,
        times,
        pools,
        cpus,
        _mean_bytes(sample.events()),
        others,
    )
