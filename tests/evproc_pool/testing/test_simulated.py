"""`evproc_pool.testing.simulated_pool`: a real pool without processes, and without chance."""

from __future__ import annotations

import gc
import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Final

import psutil
import pytest

from evproc import Event, Processor, StopProcessing, want
from evproc_pool import (
    EventTimeoutError,
    Outcome,
    PoolBrokenError,
    PoolClosedError,
    PoolProcessor,
    SerializationError,
    WorkerLostError,
)
from evproc_pool.testing import (
    ManualClock,
    Mishap,
    abort,
    exit_process,
    hang,
    kill,
    sabotage,
    segfault,
    simulated_pool,
    worker_pids,
)
from evproc_pool.testing.backend import FakeBackend
from tests.support import actions
from tests.support.actions import Do
from tests.support.helpers import ROOT, ending, endings, register_all
from tests.support.sizes import BARS

_SEEDS = pytest.mark.parametrize("seed", range(100 if BARS else 3))

#: What handlers did, in order: in this process.
_calls: list[tuple[str, int, int]] = []

_MINUTE: Final = 60.0
_HOUR: Final = 60 * _MINUTE


class Step(Event):
    name = "step"

    def __init__(self, number: int, depth: int = 0) -> None:
        super().__init__()
        self.number = number
        self.depth = depth


@want("step")
def first(proc: Any, ev: Step) -> list[Event] | None:
    assert not hasattr(ev.proc.steps, "seen")  # a copy, also of what was tried before
    ev.proc.steps.seen = True
    _calls.append(("first", ev.number, ev.depth))
    return [Step(ev.number, ev.depth - 1)] if ev.depth else None


@want("step")
def second(proc: Any, ev: Step) -> None:
    _calls.append(("second", ev.number, ev.depth))
    if ev.depth:
        return
    if ev.number % 5 == 0:
        raise StopProcessing(ev.number)
    if ev.number % 7 == 0:
        raise ArithmeticError(ev.number)


def _steps(count: int = 40) -> list[Event]:
    return [Step(number, number % 3) for number in range(count)]


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    _calls.clear()
    yield
    gc.collect()
    for thread in threading.enumerate():
        if thread.name.startswith("evproc"):
            thread.join(30)
            assert not thread.is_alive(), thread


def _pool(seed: int, workers: int = 3, **options: Any) -> PoolProcessor:
    pool: PoolProcessor = register_all(
        simulated_pool(workers, seed=seed, **options), [first, second, actions.act]
    )
    return pool


def _is_seven(ev: Any) -> bool:
    return bool((ev.number, ev.depth) == (7, 0))


def _told(outcome: Outcome) -> tuple[Any, ...]:
    return (
        outcome.index,
        outcome.value,
        outcome.stopped,
        repr(outcome.error),
        outcome.attempts,
        outcome.events,
        outcome.seconds,
    )


# --- it is a pool ---


@_SEEDS
def test_values_and_errors_are_those_of_the_processor(seed: int) -> None:
    processor = register_all(Processor(), [first, second])
    expected = [ending(lambda ev=ev: processor.process(ev)) for ev in _steps()]  # type: ignore[misc]
    with _pool(seed) as pool:
        assert endings(pool.process_many(_steps(), return_exceptions=True)) == expected
        with pytest.raises(ArithmeticError, match="7"):
            pool.process_many(_steps())
        assert pool.process(Step(5)) == 5


@_SEEDS
@pytest.mark.parametrize("options", [{"ordering": "unordered"}, {"key": lambda ev: ev.number % 4}])
def test_what_is_independent(seed: int, options: dict[str, Any]) -> None:
    with _pool(seed, **options) as pool:
        outcomes = list(pool.stream(_steps(), ordered=False))
    assert sorted(outcome.index for outcome in outcomes) == list(range(40))
    assert Counter(_calls) == Counter(
        (handler, number, depth)
        for handler in ("first", "second")
        for number in range(40)
        for depth in range(number % 3 + 1)
    )
    if "key" in options:
        last: dict[int, int] = {}
        for _, number, _ in _calls:
            assert number >= last.get(number % 4, 0)
            last[number % 4] = number


@_SEEDS
def test_what_cannot_be_pickled_or_rebuilt_fails_alone(seed: int) -> None:
    events = [Do("stop", number) for number in range(20)]
    events[3] = Do("stop", threading.Lock())
    events[5] = Do("stop_with", "lock")
    events[7] = Do("follow_with", "lock")
    with _pool(seed) as pool:
        values = pool.process_many(events, return_exceptions=True)
    for number, value in enumerate(values):
        if number in (3, 5, 7):
            assert isinstance(value, SerializationError)
        else:
            assert value == number


class _LoadsNever(Event):
    """Is pickled, and cannot be rebuilt."""

    name = "step"
    number = depth = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return actions.raise_it, (LookupError, "never")


@_SEEDS
def test_events_that_cannot_be_rebuilt_are_asked_for_one_by_one(seed: int) -> None:
    events = [_LoadsNever() if number % 9 == 4 else Step(number) for number in range(40)]
    with _pool(seed) as pool:
        values = pool.process_many(events, return_exceptions=True)
    failed = [number for number, value in enumerate(values) if type(value) is SerializationError]
    assert failed == [4, 13, 22, 31]


@_SEEDS
def test_workers_are_replaced_after_so_many_events(seed: int) -> None:
    with _pool(seed, max_tasks_per_child=3) as pool:
        assert pool.process_many([Do("stop", number) for number in range(50)]) == list(range(50))


@_SEEDS
def test_events_come_back_and_futures_are_done(seed: int) -> None:
    with _pool(seed) as pool:
        (outcome,) = pool.stream([Step(1)], return_events=True)
        assert outcome.processed is not None
        assert outcome.processed.proc.steps.seen
        futures = [pool.submit(Do("stop", number)) for number in range(20)]
        assert [future.result() for future in futures] == list(range(20))


def test_handlers_may_be_added_and_workers_are_new() -> None:
    pool = simulated_pool(2, seed=3)
    pool.register(first)
    with pool:
        pool.process_many(_steps())
        pool.register(second)
        assert pool.process(Step(5)) == 5
    with pytest.raises(PoolClosedError):
        pool.process(Step(5))


def test_a_pool_that_nobody_closes_leaves_nothing() -> None:
    _pool(1).process(Step(1))  # the fixture looks


@pytest.mark.parametrize("end", [PoolProcessor.terminate, PoolProcessor.close])
def test_a_pool_may_be_ended_in_the_middle_of_a_stream(end: Callable[[Any], None]) -> None:
    pool = _pool(2)
    stream = pool.stream(_steps(400), buffersize=20)
    next(stream)
    end(pool)
    with pytest.raises(PoolClosedError):
        list(stream)


def test_what_breaks_a_real_pool_breaks_it() -> None:
    pool = register_all(simulated_pool(initializer=actions.raise_it, initargs=[OSError]), [first])
    with pytest.raises(PoolBrokenError, match="OSError"):
        pool.process(Step(1))


# --- it has no processes ---


def test_all_of_it_is_in_this_process() -> None:
    before = psutil.Process().children()
    with _pool(1) as pool:
        assert set(pool.process_many([Do("pid")] * 50)) == {os.getpid()}
        assert psutil.Process().children() == before
        assert worker_pids(pool) == []  # a kill from outside would hit this process


def test_one_thread_at_a_time_runs() -> None:
    with register_all(simulated_pool(4, seed=1), [_alone]) as pool:
        pool.process_many([Step(number) for number in range(50)])
        assert len({name for name, *_ in _calls}) > 1


_running = threading.Lock()


def _alone(proc: Any, ev: Step) -> None:
    assert _running.acquire(blocking=False)
    _calls.append((threading.current_thread().name, ev.number, 0))
    _running.release()


# --- it has no chance ---


def _history(seed: int) -> tuple[list[Any], list[Any], float]:
    _calls.clear()
    clock = ManualClock()
    options: dict[str, Any] = {
        "max_retries": 2,
        "retry_exceptions": ArithmeticError,
        "crash_limit": 2,
    }
    with _pool(seed, clock=clock, event_timeout=2.0, **options) as pool:
        with sabotage(pool, "second", kill, when=_is_seven):
            told = [_told(each) for each in pool.stream(_steps(), ordered=False)]
        told += [_told(each) for each in pool.stream(_steps(), ordering="unordered")]
    return told, list(_calls), clock()


@_SEEDS
def test_an_equal_seed_is_an_equal_history(seed: int) -> None:
    assert _history(seed) == _history(seed)


def test_an_equal_seed_is_an_equal_history_in_another_process() -> None:
    code = f"from {__name__} import _history; print([_history(seed) for seed in range(3)])"
    printed = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": hash_seed},
            stdout=subprocess.PIPE,
            check=True,
            text=True,
            timeout=120,
        ).stdout
        for hash_seed in ("1", "2")
    ]
    assert printed[0] == printed[1]
    assert "ArithmeticError" in printed[0]


def test_another_seed_is_another_history() -> None:
    histories = [_history(seed) for seed in range(10)]
    assert len({tuple(calls) for _, calls, _ in histories}) == 10
    # results, too, come in another order
    assert len({tuple(each[0] for each in told[:40]) for told, _, _ in histories}) > 5


def test_some_seeds_have_tiny_events_and_some_have_long_ones() -> None:
    seconds = []
    for seed in range(20):
        with _pool(seed) as pool:
            outcomes = list(pool.stream([Step(1)] * 20))
        seconds.append(sum(outcome.seconds for outcome in outcomes) / 20)
    assert min(seconds) < 1e-4
    assert max(seconds) > 1e-3


# --- it has its own time ---


@_SEEDS
def test_pauses_before_retries_pass_at_once(seed: int) -> None:
    clock = ManualClock(start=100.0)
    pauses: dict[str, Any] = {"retry_backoff": _HOUR, "retry_backoff_max": 9 * _HOUR}
    with _pool(seed, clock=clock, max_retries=2, **pauses) as pool:
        (outcome,) = pool.stream([Step(7)])
    assert isinstance(outcome.error, ArithmeticError)
    assert outcome.attempts == 3
    assert _calls == [("first", 7, 0), ("second", 7, 0)] * 3
    # each pause has up to a half taken off; the second one is twice as long
    assert 1.5 * _HOUR < clock() - 100.0 < 3 * _HOUR + 60


@_SEEDS
def test_a_hang_is_timed_out_at_once(seed: int) -> None:
    clock = ManualClock()
    with (
        _pool(seed, clock=clock, event_timeout=_MINUTE) as pool,
        sabotage(pool, "second", hang, when=_is_seven),
    ):
        values = pool.process_many(_steps(), return_exceptions=True)
    assert isinstance(values[7], EventTimeoutError)
    assert values[7].handler == "second"
    assert [number for number, value in enumerate(values) if type(value) is EventTimeoutError] == [
        7
    ]
    assert _MINUTE <= clock() < 1.5 * _MINUTE


@_SEEDS
def test_a_long_hang_is_looked_at_now_and_then(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    polls = []
    poll = FakeBackend.poll

    def count(backend: FakeBackend, timeout: float | None) -> Any:
        polls.append(timeout)
        return poll(backend, timeout)

    monkeypatch.setattr(FakeBackend, "poll", count)
    with _pool(seed, event_timeout=100.0) as pool, sabotage(pool, "first", hang, when=_is_seven):
        values = pool.process_many(_steps(), return_exceptions=True)
    assert isinstance(values[7], EventTimeoutError)
    # four times a second, and not each time that it could be asked what waits behind it
    assert len(polls) < 1000


def test_a_hang_without_a_timeout_is_an_error() -> None:
    with _pool(1) as pool, sabotage(pool, "second", hang):
        with pytest.raises(RuntimeError, match="event_timeout="):
            pool.process(Step(1))
        assert pool.process(Step(5)) == 5


def test_the_clock() -> None:
    clock = ManualClock(5.0)
    clock.advance(0.5)
    clock.advance(0.0)
    assert clock() == 5.5
    assert repr(clock) == "<ManualClock at 5.5 s>"
    for seconds in (-1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="must not be negative"):
            clock.advance(seconds)
    assert clock() == 5.5


# --- its workers die ---


@_SEEDS
@pytest.mark.parametrize(
    ("mishap", "exitcode"), [(kill, -9), (segfault, -11), (abort, -6), (exit_process, 1)]
)
@pytest.mark.parametrize("after", [False, True])
def test_a_death_costs_the_event_that_was_running(
    seed: int, mishap: Mishap, exitcode: int, after: bool
) -> None:
    with _pool(seed) as pool, sabotage(pool, "second", mishap, when=_is_seven, after=after):
        values = pool.process_many(_steps(), return_exceptions=True)
    error = values[7]
    assert isinstance(error, WorkerLostError)
    assert (error.handler, error.exitcode) == ("second", exitcode)
    lost = [number for number, value in enumerate(values) if type(value) is WorkerLostError]
    assert lost == [7]
    # none of the others was charged; behind its death a worker runs nothing more
    assert Counter(_calls)["second", 7, 0] == after


@_SEEDS
def test_whatever_dies_every_event_ends_once(seed: int) -> None:
    doomed = set(random.Random(seed).sample(range(60), 8))
    with (
        _pool(seed, key=lambda ev: ev.number % 10) as pool,
        sabotage(pool, "first", kill, when=lambda ev: ev.number in doomed, times=None),
        sabotage(pool, "second", segfault, when=lambda ev: ev.number == 59, after=True),
    ):
        outcomes = list(pool.stream([Step(number, 2) for number in range(60)]))
    assert [outcome.index for outcome in outcomes] == list(range(60))
    lost = {outcome.index for outcome in outcomes if type(outcome.error) is WorkerLostError}
    assert lost == doomed | {59}


@_SEEDS
def test_a_suspect_is_run_again_alone(seed: int) -> None:
    with (
        _pool(seed, crash_limit=3) as pool,
        sabotage(pool, "second", kill, when=_is_seven, times=2),
    ):
        outcomes = list(pool.stream(_steps(10)))
    assert isinstance(outcomes[7].error, ArithmeticError)
    assert outcomes[7].attempts == 3


def test_a_mishap_that_a_handler_catches_is_a_death_all_the_same() -> None:
    with register_all(simulated_pool(1), [_nests, second]) as pool:
        with sabotage(pool, "second", kill):
            error = ending(lambda: pool.process(Do("nothing")))
        assert error.error is WorkerLostError
        assert pool.process(Do("nothing")) == "caught nothing"


@want("do")
def _nests(proc: Processor, ev: Event) -> None:
    try:
        proc.process(Step(1))
    except BaseException:
        raise StopProcessing("caught") from None
    raise StopProcessing("caught nothing")


@pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")
def test_an_interrupt_leaves_it_usable() -> None:
    pool = register_all(simulated_pool(2), [actions.act])
    with pytest.raises(KeyboardInterrupt):
        pool.process(Do("call", os.kill, os.getpid(), signal.SIGINT))
    assert pool.process(Do("stop", 1)) == 1


# --- arguments ---


def test_it_says_what_it_is() -> None:
    assert repr(simulated_pool(2, seed=7)) == (
        "<PoolProcessor workers=2 handlers=0 idle simulated seed=7>"
    )


@pytest.mark.parametrize(
    ("error", "arguments"),
    [
        (TypeError, {"mp_context": "spawn"}),
        (TypeError, {"preload": True}),
        (TypeError, {"max_worker_memory_bytes": 1 << 30}),
        (TypeError, {"event_soft_timeout": 1.0}),
        (TypeError, {"no_such": 1}),
        (TypeError, {"workers": None}),
        (TypeError, {"workers": 1.5}),
        (ValueError, {"workers": 0}),
        (TypeError, {"seed": "seven"}),
        (TypeError, {"clock": 7}),
        (ValueError, {"crash_limit": 0}),
    ],
)
def test_wrong_arguments(error: type[Exception], arguments: dict[str, Any]) -> None:
    with pytest.raises(error, match=next(iter(arguments))):
        simulated_pool(**arguments)
