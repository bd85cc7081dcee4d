"""`evproc bench`: runs a sample of events serially and in pools, and takes the times."""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final, NamedTuple, Protocol, TypeVar

import psutil

from evproc import Event, Processor
from evproc_pool import Outcome, PoolProcessor
from evproc_pool.cli.bench_verdict import HandlerTime, Measured, PoolTime
from evproc_pool.cli.json_event import BadInputError, parse
from evproc_pool.cli.json_output import failure_sentence
from evproc_pool.cli.line_input import LineSplitter
from evproc_pool.cli.output import counted

# How often each run is made, if none takes too long. The least time counts, since whatever disturbs
# a run makes it longer.
_REPEATS: Final = 3

# A sample that takes so many times as long as it may is shortened.
_TOO_LONG: Final = 1.25

# About how long a pool takes to start.
_START_SECONDS: Final = 1.0

# How much of the input is read at a time.
_PORTION: Final = 1 << 16


class Sample(NamedTuple):
    """Events of an input that can be made again and again: handlers change them.

    Attributes:
        lines: The JSON texts.
        make: Makes an event of parsed JSON.
        numbers: The numbers of the lines in the input.
    """

    lines: list[str]
    make: Callable[[Any], Event]
    numbers: Sequence[int] = ()

    def events(self) -> list[Event]:
        """Make the events."""
        return [self.make(parse(line)) for line in self.lines]

    def shortened(self, took: float, seconds: float) -> Sample:
        """Return as much of the sample as takes `seconds`, if all of it `took` much longer."""
        if took <= _TOO_LONG * seconds:
            return self
        events = max(1, int(len(self.lines) * seconds / took))
        return self._replace(lines=self.lines[:events])


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
    bad: Callable[[int, BadInputError], None],
    clock: Callable[[], float] = time.perf_counter,
) -> Sample:
    """Take the first events of an input, as many as a serial run handles in some time.

    Args:
        lines: The input.
        make: Makes an event of parsed JSON.
        processor: Has the handlers. They run, so that modules that they import are there later.
        most: The most events.
        seconds: The most time.
        bad: Called with the number of each line that makes no event, and why.
        clock: Tells the time.
    """
    taken: list[str] = []
    numbers: list[int] = []
    end = clock() + seconds
    for number, line in lines:
        try:
            event = make(parse(line))
        except BadInputError as error:
            bad(number, error)
            continue
        taken.append(line)
        numbers.append(number)
        _attempt(processor, event)
        if len(taken) >= most or clock() >= end:
            break
    return Sample(taken, make, numbers)


def _attempt(processor: Processor, event: Event) -> Exception | None:
    """Process an event; return what it raised."""
    try:
        processor.process(event)
    except Exception as error:
        return error
    return None


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


class Timed(NamedTuple):
    """A run that takes the time of each handler.

    Attributes:
        seconds: Its time.
        handlers: What the handlers took.
        events: What each event took.
        failed: How many events failed.
        failure: Which one failed first, and why.
    """

    seconds: float
    handlers: list[HandlerTime]
    events: list[float]
    failed: int
    failure: str


def time_handlers(processor: Processor, sample: Sample) -> Callable[[], Timed]:
    """Return a function that makes a run; the processor is of no other use afterwards."""
    functions = {name: handler.func for name, handler in processor.nodes.items()}

    def run() -> Timed:
        timers = {name: _Timer(func) for name, func in functions.items()}
        for name, handler in processor.nodes.items():
            handler.func = timers[name]
        took, failed, failure = [], 0, ""
        for place, event in enumerate(sample.events()):
            began = time.perf_counter()
            error = _attempt(processor, event)
            took.append(time.perf_counter() - began)
            if error is not None:
                failed += 1
                failure = failure or _failure(event, error, sample.numbers[place])
        times = [
            HandlerTime(name, each.calls, each.seconds, each.longest)
            for name, each in timers.items()
        ]
        return Timed(sum(took), times, took, failed, failure)

    return run


def _failure(event: Event, error: Exception, line: int) -> str:
    return failure_sentence(Outcome(event, 0, error=error), line)


def longest_share(runs: Sequence[Timed]) -> float:
    """Return the longest event's share of its run, by the least time of each event."""
    least: list[float] = [min(times) for times in zip(*(run.events for run in runs), strict=True)]
    return max(least) / (sum(least) or 1.0)


def others_share(busy: float, own: float, available: float) -> float:
    """Return which share of the CPUs other programs had.

    Args:
        busy: CPU time of all programs, in seconds.
        own: That of this one.
        available: How much there was to have.
    """
    return min(1.0, max(0.0, busy - own) / available) if available > 0 else 0.0


def share_of_usable(others: float, every: int, usable: int) -> float:
    """Return which share of the CPUs that this process may use is not left to it.

    Args:
        others: The share of all CPUs that other programs had.
        every: How many CPUs there are: those of the host, in a container.
        usable: How many of them this process may use. Others are on the rest first.
    """
    every = max(every, usable)
    return max(0.0, others * every - (every - usable)) / usable


class _Load:
    """How busy other programs kept the CPUs during the runs."""

    def __init__(self) -> None:
        self._busy = self._own = self._available = 0.0

    @contextmanager
    def watched(self, pids: Sequence[int] = ()) -> Iterator[None]:
        """Watch a run of this process and of these others."""
        before = *_cpu_seconds(), _own_seconds(pids)
        yield
        after = *_cpu_seconds(), _own_seconds(pids)
        busy, available, own = (now - then for now, then in zip(after, before, strict=True))
        self._busy += busy
        self._available += available
        self._own += own

    @property
    def others(self) -> float:
        """See `others_share`."""
        return others_share(self._busy, self._own, self._available)


def _cpu_seconds() -> tuple[float, float]:
    """Return how long the CPUs were busy since the start of the system, and how long in all."""
    times = psutil.cpu_times()
    # `user` and `nice` have the time of guests
    total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    return total - times.idle - getattr(times, "iowait", 0.0), total


def _own_seconds(pids: Sequence[int]) -> float:
    """Return the CPU time of this process and of its workers."""
    total: float = time.process_time()
    for pid in pids:
        with suppress(psutil.Error):  # it has ended
            times = psutil.Process(pid).cpu_times()
            total += float(times.user + times.system)
    return total


class _Run(Protocol):
    @property
    def seconds(self) -> float:
        """What it took."""


R = TypeVar("R", bound=_Run)


def repeated(run: Callable[[], R], seconds: float) -> list[R]:
    """Make a run several times, if that takes no longer than as many runs of `seconds`."""
    runs = [run()]
    while len(runs) < _REPEATS:
        if sum(each.seconds for each in runs) + runs[-1].seconds > _REPEATS * _TOO_LONG * seconds:
            break
        runs.append(run())
    return runs


def most_seconds(seconds: float, workers: int) -> float:
    """Return how long a measurement takes at most, about; see `measure`."""
    pools = len(numbers_of_workers(workers))
    # the sample is taken in one run more, and timed in three
    return seconds * (1 + _REPEATS * (2 + pools)) + _START_SECONDS * pools


def _run_pool(group: str, sample: Sample, workers: int, seconds: float, load: _Load) -> PoolTime:
    began = time.perf_counter()
    with PoolProcessor(workers=workers) as pool:
        pool.load_from(group)
        # every worker must be there before the time is taken
        pool.process_many(sample.events()[: 2 * workers], return_exceptions=True)
        start = time.perf_counter() - began
        pids = [each.pid for each in pool.statistics().workers if each.pid is not None]

        def run() -> PoolTime:
            events = sample.events()
            with load.watched(pids):
                cpu, began = time.process_time(), time.perf_counter()
                pool.process_many(events, return_exceptions=True)
                took = time.perf_counter() - began
                return PoolTime(took, time.process_time() - cpu, start)

        runs = repeated(run, seconds)
    return min(runs)._replace(slowest=max(runs).seconds)


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
    group: str,
    sample: Sample,
    *,
    workers: int,
    cpus: int,
    seconds: float,
    tell: Callable[[str], None],
) -> Measured:
    """Run a sample serially, and with 1 to `workers` workers.

    Args:
        group: The handlers.
        sample: The events, at least one.
        workers: The most workers.
        cpus: How many CPUs there are to use.
        seconds: What a run may take. A sample that takes longer than that is shortened: the machine
            may have become slower since it was taken.
        tell: Told what goes on, a line each.
    """
    tell(f"{counted(len(sample.lines), 'event')} serially")
    processor = Processor()
    processor.load_from(group)
    load = _Load()

    def run() -> _Serial:
        events = sample.events()
        with load.watched():
            return _run_serially(processor, events)

    first = run()
    sample = sample.shortened(first.seconds, seconds)
    runs = repeated(run, seconds)
    timed = repeated(time_handlers(processor, sample), seconds)
    events = counted(len(sample.lines), "event")
    pools = {}
    for number in numbers_of_workers(workers):
        tell(f"{events} with workers={number}")
        pools[number] = _run_pool(group, sample, number, seconds, load)
    serial, quickest = min(runs), min(timed)
    return Measured(
        len(sample.lines),
        quickest.failed,
        serial.seconds,
        serial.cpu,
        longest_share(timed) * serial.seconds,
        quickest.handlers,
        pools,
        cpus,
        _mean_bytes(sample.events()),
        share_of_usable(load.others, psutil.cpu_count() or cpus, cpus),
        max(runs).seconds,
        quickest.failure,
    )
