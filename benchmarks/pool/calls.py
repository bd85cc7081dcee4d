"""The cases of `pool` about answers: how soon one is there, and what many small calls cost.

A quick event is to be answered although a slow one came with it. Each trial has pools of
its own, since the first answer of a pool whose workers are only starting is what users
wait for first. An executor with as many workers is beside it.
"""

from __future__ import annotations

import compileall
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

import benchmarks
import evproc
import evproc_pool
from benchmarks.model import Bar, Figure, Note, Row, ratio
from benchmarks.pool import loads
from benchmarks.pool.bench import (
    FEW,
    SECONDS,
    Bench,
    Case,
    efficiency_of,
    over_peers,
    take_figures,
)
from benchmarks.pool.handlers import Nap, Step, register_all
from benchmarks.pool.limits import Control
from benchmarks.pool.peers import Executor
from benchmarks.pool.processes import Helper, start_method
from benchmarks.pool.samples import ControlSample, Sample, await_workers
from evproc import Event
from evproc_pool import PoolProcessor

#: The bars: how much later than the executor's; over the control; over `submit` there.
LATER_MILLISECONDS: Final = 20.0
SUBMIT_EFFICIENCY: Final = 0.75
SUBMIT_TIMES: Final = 1.0

_WORKERS: Final = 4
_SLOW_SECONDS: Final = 0.5
_LEAST_SLOW_SECONDS: Final = 0.02

# Warm: so many calls, so often, behind the start of all workers.
_WARM_CALLS: Final = 50
_WARM_ROUNDS: Final = 4

# How long an event waits for what follows from another's answer. An answer that comes only
# then does not count.
_PATIENCE_SECONDS: Final = 3.0
_LEAST_PATIENCE_SECONDS: Final = 1.0

_SUBMITTED: Final = 2_000
_SUBMIT_ROUNDS: Final = 8
_THREADS: Final = 4

_EXECUTOR: Final = "ProcessPoolExecutor"
_POOL: Final = "PoolProcessor"

Submit = Callable[[Event], "Future[Any]"]


# --- quick ones beside slow ones ---


class Quick(NamedTuple):
    """Events of which some are quick and some slow, handed in at once.

    Attributes:
        label: What the table calls it.
        is_warm: Whether all workers have worked before.
        slow: For each event, in order, whether it is slow.
    """

    label: str
    is_warm: bool
    slow: Sequence[bool]


QUICK: Final = (
    Quick("1 quick and 1 slow, workers not started", False, (False, True)),
    Quick("1 quick and 1 slow, workers at hand", True, (False, True)),
    Quick("7 quick and 4 slow ones behind them", True, (False,) * 7 + (True,) * 4),
    Quick("20 times 3 quick and 1 slow", True, (False, False, False, True) * 20),
)


class Answered(NamedTuple):
    """When answers were there, in seconds after the first event was handed in.

    Attributes:
        first: The first of all.
        quick: The last of the quick ones.
        last: The last of all.
    """

    first: float
    quick: float
    last: float


def answer(submit: Submit, slow: Sequence[bool], slow_seconds: float) -> Answered:
    """Hand in events at once, and take the time at which each is answered."""
    seconds: dict[int, float] = {}
    answered = threading.Semaphore(0)
    begin = time.perf_counter()

    def note(number: int, _: Future[Any]) -> None:
        seconds[number] = time.perf_counter() - begin
        answered.release()

    futures = []
    for number, is_slow in enumerate(slow):
        future = submit(Nap(slow_seconds if is_slow else 0.0))
        future.add_done_callback(partial(note, number))
        futures.append(future)
    for _ in futures:
        answered.acquire()
    for future in futures:
        future.result()
    return Answered(
        min(seconds.values()),
        max(each for number, each in seconds.items() if not slow[number]),
        max(seconds.values()),
    )


def _warm_up(submit: Submit) -> None:
    def call_roll(events: list[Event]) -> list[Any]:
        return [future.result() for future in [submit(ev) for ev in events]]

    await_workers(call_roll, _WORKERS)
    for _ in range(_WARM_ROUNDS):
        for future in [submit(Nap(0.0)) for _ in range(_WARM_CALLS)]:
            future.result()


def try_pool(quick: Quick, slow_seconds: float) -> Answered:
    """Take a trial with a new pool."""
    with PoolProcessor(_WORKERS, mp_context=start_method()) as pool:
        register_all(pool)
        if quick.is_warm:
            _warm_up(pool.submit)
        return answer(pool.submit, quick.slow, slow_seconds)


def try_executor(quick: Quick, slow_seconds: float) -> Answered:
    """Take a trial with a new `ProcessPoolExecutor`."""
    with closing(Executor(workers=_WORKERS)) as executor:
        if quick.is_warm:
            _warm_up(executor.submit)
        return answer(executor.submit, quick.slow, slow_seconds)


def try_side(side: str, quick: Quick, slow_seconds: float) -> Answered:
    """Take a trial; with workers that are not started, in a new process.

    There neither side finds anything of an earlier pool, as a forkserver that runs.
    """
    if quick.is_warm:
        return _TRIALS[side](quick, slow_seconds)
    with closing(Helper(_serve_trial, side, quick, slow_seconds, start="spawn")) as helper:
        return Answered(*helper.receive())


def _compile() -> None:
    """Compile what installed packages have compiled, whatever PYTHONDONTWRITEBYTECODE says."""
    for package in (benchmarks, evproc, evproc_pool):
        compileall.compile_dir(package.__path__[0], quiet=2)


def _serve_trial(
    connection: Connection[Any, Any], side: str, quick: Quick, slow_seconds: float
) -> None:
    connection.send(tuple(_TRIALS[side](quick, slow_seconds)))


_TRIALS: Final = {_POOL: try_pool, _EXECUTOR: try_executor}


def _quick(quick: Quick, bench: Bench, label: str) -> Iterator[Row | Note]:
    """Whether quick ones are answered while slow ones run, beside the executor."""
    part = min(1.0, bench.seconds / SECONDS)
    slow_seconds = max(_LEAST_SLOW_SECONDS, _SLOW_SECONDS * part)
    if not quick.is_warm:
        _compile()
    taken: dict[str, list[Answered]] = {side: [] for side in _TRIALS}
    for _ in range(bench.settings.repeats):
        for side, answers in taken.items():
            answers.append(try_side(side, quick, slow_seconds))

    def figure(name: str, side: str, field: str) -> Figure:
        times = tuple(getattr(each, field) * 1e3 for each in taken[side])
        return Figure(f"{name}, {side}", "ms", times)

    names = {"first": "first answer", "quick": "last quick answer", "last": "last answer"}
    figures = {
        (field, side): figure(name, side, field) for field, name in names.items() for side in taken
    }
    pairs = zip(figures["quick", _POOL].values, figures["quick", _EXECUTOR].values, strict=True)
    later = Figure(
        f"last quick answer later than {_EXECUTOR}'s",
        "ms",
        tuple(ours - theirs for ours, theirs in pairs),
        Bar("at most", LATER_MILLISECONDS),
    )
    over = tuple(
        ratio(
            f"{name}, time / that of {_EXECUTOR}",
            figures[field, _POOL],
            figures[field, _EXECUTOR],
            better="smaller",
        )
        for field, name in names.items()
    )
    yield Row(label, (*figures.values(), later), over)
    yield Note(f"{label}: {_WORKERS} workers, a slow one sleeps for {slow_seconds:g} s")


# --- an answer that another event waits for ---


def answered_at_once(submit: Submit, file: Path, patience_seconds: float, *, is_warm: bool) -> bool:
    """Whether an answer is there before the end of an event that waits for its consequences."""
    if is_warm:
        submit(Step()).result()
    first, second = submit(Step()), submit(Step(str(file), patience_seconds))
    first.result()
    file.touch()
    value: bool = second.result()
    return value


def streamed_at_once(
    pool: PoolProcessor, file: Path, patience_seconds: float, *, is_ordered: bool
) -> bool:
    """Likewise by `stream`: behind the first outcome the file is made."""
    values = []
    events: list[Event] = [Step(), Step(), Step(str(file), patience_seconds)]
    for outcome in pool.stream(events, ordered=is_ordered):
        values.append(outcome.unwrap())
        file.touch()
    return all(values)


def _try_steps(patience_seconds: float) -> tuple[int, int]:
    """How many of our six trials and of the executor's two were answered at once."""
    ours = theirs = number = 0
    with TemporaryDirectory(prefix="evp") as folder:
        for is_warm in (False, True):
            for is_ordered in (None, True, False):
                number += 1
                file = Path(folder, f"ours {number}")
                with PoolProcessor(_WORKERS, mp_context=start_method()) as pool:
                    register_all(pool)
                    if is_ordered is None:
                        ours += answered_at_once(
                            pool.submit, file, patience_seconds, is_warm=is_warm
                        )
                        continue
                    if is_warm:
                        pool.process(Step())
                    ours += streamed_at_once(pool, file, patience_seconds, is_ordered=is_ordered)
            file = Path(folder, f"theirs {is_warm}")
            with closing(Executor(workers=_WORKERS)) as executor:
                theirs += answered_at_once(executor.submit, file, patience_seconds, is_warm=is_warm)
    return ours, theirs


def _steps(bench: Bench, label: str) -> Iterator[Row | Note]:
    """Whether a program can hang whose event waits for what another's answer leads to."""
    part = min(1.0, bench.seconds / SECONDS)
    patience = max(_LEAST_PATIENCE_SECONDS, _PATIENCE_SECONDS * part)
    taken = [_try_steps(patience) for _ in range(min(FEW, bench.settings.repeats))]
    yield Row(
        label,
        (
            Figure(
                f"answered at once, {_POOL}, of 6",
                "trials",
                tuple(float(ours) for ours, _ in taken),
                Bar("at least", 6),
            ),
            Figure(
                f"answered at once, {_EXECUTOR}, of 2",
                "trials",
                tuple(float(theirs) for _, theirs in taken),
            ),
        ),
    )
    yield Note(
        f"{label}: submit, stream, and stream unordered; with {_WORKERS} workers not started, and"
        f" behind one event. The waiting event gives up after {patience:g} s"
    )


# --- many small calls ---


def submit_all(submit: Submit, events: list[Event]) -> list[Any]:
    """Hand in events one by one, then wait for all of them."""
    return [future.result() for future in [submit(ev) for ev in events]]


def submit_by_threads(submit: Submit, events: list[Event]) -> list[Any]:
    """Likewise, from some threads at once."""
    shares = [events[number::_THREADS] for number in range(_THREADS)]
    with ThreadPoolExecutor(_THREADS) as threads:
        each = threads.map(partial(submit_all, submit), shares)
        return [value for values in each for value in values]


def _submit(bench: Bench, label: str) -> Iterator[Row | Note]:
    """What a call costs where there are many, over the control and over the executor."""
    make = loads.TWENTY_MICROSECONDS.make
    count = bench.scaled(_SUBMITTED, 2 * _THREADS)
    ours, theirs = f"{_POOL}.submit", f"{_EXECUTOR}.submit"
    by_threads = f"{ours}, {_THREADS} threads"

    def sample(run: Callable[[list[Event]], list[Any]]) -> Sample:
        return Sample(make, count, run, rounds=_SUBMIT_ROUNDS)

    figures = take_figures(
        {
            ours: sample(partial(submit_all, bench.pool.submit)),
            Control.label: ControlSample(bench.control, make, count, rounds=_SUBMIT_ROUNDS),
            theirs: sample(partial(submit_all, bench.executor.submit)),
            by_threads: sample(partial(submit_by_threads, bench.pool.submit)),
        },
        bench.settings.repeats,
    )
    control = figures[Control.label]
    yield Row(
        label,
        (
            *figures.values(),
            efficiency_of(figures[ours], control, SUBMIT_EFFICIENCY),
            efficiency_of(figures[by_threads], control),
            *over_peers(figures[ours], [figures[theirs]], {theirs: SUBMIT_TIMES}),
        ),
    )


CASES: Final = (
    *(Case(quick.label, partial(_quick, quick)) for quick in QUICK),
    Case("an answer that another event waits for", _steps),
    Case(f"submit of {_SUBMITTED:,} events of 20 us", _submit),
)
