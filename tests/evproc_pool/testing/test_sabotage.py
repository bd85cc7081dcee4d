"""`evproc_pool.testing.sabotage`: mishaps strike where they are to, and nowhere else."""

from __future__ import annotations

import functools
import os
import signal
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from evproc import Event, StopProcessing, want
from evproc_pool import (
    EventTimeoutError,
    Outcome,
    PoolBusyError,
    PoolClosedError,
    PoolProcessor,
    WorkerLostError,
)
from evproc_pool.testing import (
    Mishap,
    abort,
    exit_process,
    hang,
    kill,
    sabotage,
    segfault,
    worker_pids,
)
from tests.support import actions
from tests.support.actions import Do
from tests.support.helpers import Gate, installed, notes_of, register_all, warm

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")

_LOST: dict[Mishap, int] = {
    kill: -signal.SIGKILL,
    segfault: -signal.SIGSEGV,
    abort: -signal.SIGABRT,
    exit_process: 1,
}


class Step(Event):
    """Is noted in a file by each of its handlers."""

    name = "step"

    def __init__(self, log: Path, number: int, *, ends: str = "returns") -> None:
        super().__init__()
        self.log = log
        self.number = number
        self.ends = ends


@want("step")
def first(proc: Any, ev: Step) -> None:
    actions.log(str(ev.log), f"first {ev.number}")


@want("step")
def second(proc: Any, ev: Step) -> Any:
    if ev.ends == "yields":
        return _noting(ev)
    actions.log(str(ev.log), f"second {ev.number}")
    if ev.ends == "stops":
        raise StopProcessing(ev.number)
    if ev.ends == "raises":
        raise ArithmeticError(ev.number)
    return None


def _noting(ev: Step) -> Iterator[Event]:
    yield Do("nothing")
    actions.log(str(ev.log), f"second {ev.number}")


@want("step")
def third(proc: Any, ev: Step) -> None:
    actions.log(str(ev.log), f"third {ev.number}")


def _pool(workers: int = 2, **options: Any) -> PoolProcessor:
    pool: PoolProcessor = register_all(
        PoolProcessor(workers, **options), [first, second, third, actions.act]
    )
    return pool


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log"
    path.touch()
    return path


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made, to see what is left of them."""
    path = tmp_path / "temporary"
    path.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(path))
    return path


def _lines(log: Path, number: int) -> list[str]:
    """Which handlers noted an event, in order."""
    lines = [line.split() for line in log.read_text().splitlines()]
    return [who for who, which in lines if int(which) == number]


def _steps(log: Path, count: int = 20, **how: Any) -> list[Event]:
    return [Step(log, number, **how) for number in range(count)]


def _is_seven(ev: Any) -> bool:
    return bool(ev.number == 7)


def _failed(outcomes: Iterable[Outcome]) -> dict[int, BaseException]:
    return {outcome.index: outcome.error for outcome in outcomes if outcome.error is not None}


class Tell(Event):
    """Answers with the type of what a handler is, in a worker."""

    name = "tell"

    def __init__(self, handler: str) -> None:
        super().__init__()
        self.handler = handler


@want("tell")
def tells(proc: Any, ev: Tell) -> None:
    raise StopProcessing(type(proc.nodes[ev.handler].func).__name__)


# --- what strikes, and where ---


@pytest.mark.parametrize("mishap", _LOST)
def test_a_worker_is_lost_at_the_chosen_event_and_handler(mishap: Mishap, log: Path) -> None:
    with _pool() as pool, sabotage(pool, "second", mishap, when=_is_seven):
        failed = _failed(list(pool.stream(_steps(log))))
    assert list(failed) == [7]
    error = failed[7]
    assert isinstance(error, WorkerLostError)
    assert (error.handler, error.exitcode) == ("second", _LOST[mishap])
    assert _lines(log, 7) == ["first"]
    assert all(_lines(log, number) == ["first", "second", "third"] for number in {*range(20)} - {7})


def test_a_worker_hangs_at_the_chosen_event_and_handler(log: Path) -> None:
    pool = _pool(event_timeout=1.0)
    with pool, sabotage(pool, "second", hang, when=lambda ev: ev.number == 7):
        failed = _failed(list(pool.stream(_steps(log))))
    assert list(failed) == [7]
    assert isinstance(failed[7], EventTimeoutError)
    assert failed[7].handler == "second"


def test_what_a_mishap_raises_is_raised_by_the_handler(log: Path) -> None:
    def mishap(ev: Any) -> None:
        raise LookupError(f"mishap {ev.number}")

    with _pool() as pool, sabotage(pool, "second", mishap, when=_is_seven):
        (outcome,) = (each for each in pool.stream(_steps(log)) if each.error is not None)
    assert outcome.handler == "second"
    assert isinstance(outcome.error, LookupError)
    assert outcome.error.args == ("mishap 7",)
    # the handler is still described as what it is
    assert f"'second' ({__name__}.second)" in notes_of(outcome.error)


def test_a_mishap_may_do_no_harm(log: Path) -> None:
    def mishap(ev: Any) -> None:
        actions.log(str(ev.log), f"mishap {ev.number}")

    with _pool() as pool, sabotage(pool, "second", mishap, when=_is_seven):
        assert pool.process_many(_steps(log)) == [None] * 20
    assert _lines(log, 7) == ["first", "mishap", "second", "third"]


@pytest.mark.parametrize("ends", ["returns", "yields", "stops", "raises"])
def test_afterwards_is_behind_whatever_the_handler_does(ends: str, log: Path) -> None:
    with _pool(1) as pool, sabotage(pool, "second", kill, when=_is_seven, after=True):
        failed = _failed(list(pool.stream(_steps(log, 8, ends=ends))))
    error = failed[7]
    assert isinstance(error, WorkerLostError)
    assert error.handler == "second"
    assert _lines(log, 7) == ["first", "second"]
    assert all(isinstance(failed[number], ArithmeticError) for number in {*failed} - {7})


@pytest.mark.parametrize("after", [False, True])
def test_it_happens_the_first_time_that_it_may(after: bool, log: Path) -> None:
    with _pool(1) as pool, sabotage(pool, "first", kill, after=after):
        assert list(_failed(list(pool.stream(_steps(log))))) == [0]


# --- how often ---


def test_replaced_workers_are_counted_in(log: Path) -> None:
    pool = _pool(crash_limit=5)
    with pool, sabotage(pool, "second", kill, when=_is_seven, times=3):
        outcomes = list(pool.stream(_steps(log)))
    assert _failed(outcomes) == {}
    assert outcomes[7].attempts == 4
    assert _lines(log, 7) == ["first"] * 4 + ["second", "third"]


def test_it_may_happen_every_time(log: Path) -> None:
    pool = _pool(crash_limit=4)
    with pool, sabotage(pool, "second", kill, when=_is_seven, times=None):
        failed = _failed(list(pool.stream(_steps(log))))
    assert isinstance(failed[7], WorkerLostError)
    assert failed[7].attempt == 4


def test_all_workers_together_are_struck_so_often(log: Path) -> None:
    with _pool(3) as pool, sabotage(pool, "second", _raise, times=5):
        failed = _failed(list(pool.stream(_steps(log, 60))))
    assert [type(error) for error in failed.values()] == [ArithmeticError] * 5


def _raise(ev: Any) -> None:
    raise ArithmeticError


# --- what stays as it is ---


def test_behind_the_block_handlers_are_what_they_were(log: Path, folder: Path) -> None:
    tell = Tell("second")
    with register_all(_pool(1), [tells]) as pool:
        names = list(pool.nodes)
        assert pool.process(tell) == "function"
        before = worker_pids(pool)
        with sabotage(pool, "second", kill, when=_is_seven):
            assert pool.process(tell) == "_Sabotaged"
            assert len(list(folder.iterdir())) == 1
            assert list(pool.nodes) == names
        assert pool.process(tell) == "function"
        assert not set(worker_pids(pool)) & set(before)
        assert pool.process_many(_steps(log)) == [None] * 20
    assert list(folder.iterdir()) == []


def test_two_mishaps_in_one_handler(log: Path) -> None:
    with (
        _pool() as pool,
        sabotage(pool, "second", kill, when=_is_seven),
        sabotage(pool, "second", _raise, when=lambda ev: ev.number == 9),
    ):
        failed = _failed(list(pool.stream(_steps(log))))
    assert {index: type(error) for index, error in failed.items()} == {
        7: WorkerLostError,
        9: ArithmeticError,
    }


def test_handlers_that_are_registered_within_the_block_run_too(log: Path) -> None:
    with register_all(PoolProcessor(1), [first]) as pool, sabotage(pool, "first", _raise):
        pool.register(second)
        pool.register(tells)
        assert pool.process(Tell("first")) == "_Sabotaged"
        assert list(_failed(list(pool.stream(_steps(log))))) == [0]
    assert _lines(log, 1) == ["first", "second"]


def test_entry_points(tmp_path: Path) -> None:
    code = "def a(proc, ev): ...\ndef b(proc, ev): ..."
    entries = {"sabotaged": {"one": "sabotaged_mod:a", "two": "sabotaged_mod:b"}}
    with installed(tmp_path, "sabotaged_dist", "1", {"sabotaged_mod": code}, entries):
        pool = PoolProcessor(1)
        pool.load_from("sabotaged")
        with pool, sabotage(pool, "two", exit_process, times=2):
            outcomes = list(pool.stream([Do("nothing")] * 5))
    failed = _failed(outcomes)
    assert [(each.handler, each.exitcode) for each in failed.values()] == [("two", 1)] * 2  # type: ignore[attr-defined]  # checked by this


class _Object:
    """A handler that is an object, and passes on what it was made with."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __call__(self, proc: Any, ev: Any) -> None:
        raise StopProcessing(self.value)


def _prefixed(prefix: str, proc: Any, ev: Any) -> None:
    raise StopProcessing(prefix)


@pytest.mark.parametrize("handler", [_Object("value"), functools.partial(_prefixed, "value")])
def test_handlers_that_are_no_functions(handler: Any) -> None:
    pool = PoolProcessor(1)
    pool.register(handler, "handler")
    with pool, sabotage(pool, "handler", kill):
        with pytest.raises(WorkerLostError, match="'handler'"):
            pool.process(Do())
        assert pool.process(Do()) == "value"


# --- when it may not ---


def test_it_needs_an_idle_pool_at_the_beginning(
    pool: PoolProcessor, gate: Gate, folder: Path
) -> None:
    future = pool.submit(Do("wait_at", gate.address, "", 1))
    arrival = gate.arrival()
    with pytest.raises(PoolBusyError, match="sabotage"), sabotage(pool, "act", kill):
        raise AssertionError("not reached")
    assert list(folder.iterdir()) == []
    arrival.release()
    assert future.result() == 1
    assert pool.process(Do("stop", 2)) == 2


def test_it_needs_an_idle_pool_at_the_end(pool: PoolProcessor, gate: Gate, folder: Path) -> None:
    block = sabotage(pool, "act", kill, when=_stops, times=None)
    block.__enter__()
    future = pool.submit(Do("wait_at", gate.address, "", 1))
    arrival = gate.arrival()
    with pytest.raises(PoolBusyError, match="the end of sabotage"):
        block.__exit__(None, None, None)
    assert list(folder.iterdir()) == []
    arrival.release()
    assert future.result() == 1
    # the workers are the same ones, and nothing happens to them any more
    assert pool.process(Do("stop", 2)) == 2
    pool.register(tells)
    assert pool.process(Tell("act")) == "function"


def _stops(ev: Do) -> bool:
    return ev.what == "stop"


def test_a_pool_may_be_closed_within_the_block(pool: PoolProcessor, folder: Path) -> None:
    with sabotage(pool, "act", kill):
        pool.close()
    assert list(folder.iterdir()) == []
    with pytest.raises(PoolClosedError), sabotage(pool, "act", kill):
        raise AssertionError("not reached")


def test_what_is_raised_in_the_block_is_raised(pool: PoolProcessor, folder: Path) -> None:
    with pytest.raises(ArithmeticError), sabotage(pool, "act", kill):
        raise ArithmeticError
    assert list(folder.iterdir()) == []
    assert pool.process(Do("stop", 2)) == 2


def test_what_is_raised_in_the_block_is_raised_whatever_is_in_flight(
    pool: PoolProcessor, gate: Gate
) -> None:
    block = sabotage(pool, "act", kill, when=_stops, times=None)
    block.__enter__()
    future = pool.submit(Do("wait_at", gate.address, "", 1))
    arrival = gate.arrival()
    assert not block.__exit__(ArithmeticError, ArithmeticError(), None)  # it goes on
    arrival.release()
    assert future.result() == 1
    assert pool.process(Do("stop", 2)) == 2


def test_a_pool_without_workers_is_refused() -> None:
    pool = register_all(PoolProcessor(0), [actions.act])
    with pytest.raises(ValueError, match="this very process"), sabotage(pool, "act", kill):
        raise AssertionError("not reached")


@pytest.mark.parametrize(
    ("error", "text", "arguments"),
    [
        (KeyError, "no handler 'atc' to sabotage; registered: 'act', 'nested'", {"handler": "atc"}),
        (TypeError, "mishap", {"mishap": 9}),
        (TypeError, "when", {"when": 7}),
        (TypeError, "times", {"times": 1.5}),
        (TypeError, "times", {"times": True}),
        (ValueError, "at least 1", {"times": 0}),
    ],
)
def test_wrong_arguments(
    error: type[Exception], text: str, arguments: dict[str, Any], pool: PoolProcessor
) -> None:
    given: dict[str, Any] = {"handler": "act", "mishap": kill, **arguments}
    with pytest.raises(error, match=text), sabotage(pool, **given):
        raise AssertionError("not reached")
    assert pool._handlers.changes == []


# --- from outside ---


def test_the_pids_are_those_of_the_workers(pool: PoolProcessor) -> None:
    assert worker_pids(pool) == []
    assert warm(pool) == set(worker_pids(pool))
    pids = set(pool.process_many([Do("pid")] * 100))
    assert pids <= set(worker_pids(pool))
    assert len(worker_pids(pool)) == 2
    before = worker_pids(pool)
    os.kill(before[0], signal.SIGKILL)
    while before[0] in worker_pids(pool):  # until its death is noticed
        pool.process(Do())
    after = warm(pool)
    assert before[1] in after
    assert len(after) == 2
    pool.close()
    assert worker_pids(pool) == []


def test_a_pool_without_workers_has_no_pids() -> None:
    with register_all(PoolProcessor(0), [actions.act]) as pool:
        pool.process(Do())
        assert worker_pids(pool) == []
