"""What listeners are told, by pools of all kinds."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any, TypeVar

import pytest

from evproc import Event, StopProcessing, requires, want
from evproc_pool import PoolProcessor, WorkerLostError
from evproc_pool.coordinator import notices
from evproc_pool.inprocess import calls
from evproc_pool.observe import (
    SINGLE_CALL,
    Accepted,
    CascadesDone,
    Dispatched,
    Drained,
    EventFailed,
    EventRetried,
    EventsDone,
    EventsUnmatched,
    Notification,
    WorkerLost,
    WorkerReady,
    WorkerReplaced,
    WorkersEnded,
    WorkerStarted,
)
from evproc_pool.testing import kill, sabotage, simulated_pool
from tests.support.actions import Do, act
from tests.support.helpers import PATIENCE_SECONDS, close_in_time

N = TypeVar("N")

SEEDS = range(30)


class Told(list[Notification]):
    """A listener that keeps everything."""

    __call__ = list.append

    def of(self, kind: type[N]) -> list[N]:
        return [item for item in self if isinstance(item, kind)]


class Job(Event):
    """Its handlers do what it says: a letter for each of the two."""

    name = "job"

    def __init__(self, what: str, *then: Event) -> None:
        self.what = what
        self.then = then

    def __repr__(self) -> str:
        return f"Job({self.what})"


class Plain(Event):
    name = "plain"


class Unwanted(Event):
    name = "unwanted"


def _do(letter: str, ev: Job) -> Iterable[Event] | None:
    if letter == "e":
        raise ValueError(ev.what)
    if letter == "s":
        raise StopProcessing(ev.what)
    if letter == "c":
        raise StopProcessing
    return ev.then if letter == "f" else None


@want("job")
def first(proc: Any, ev: Job) -> Iterable[Event] | None:
    return _do(ev.what[0], ev)


@want("job")
@requires("first")
def second(proc: Any, ev: Job) -> Iterable[Event] | None:
    return _do(ev.what[1], ev)


@want("plain")
def plain(proc: Any, ev: Event) -> None: ...


def jobs() -> list[Event]:
    """Cascades of all kinds."""
    few = [Job("--"), Plain(), Job("e-"), Job("-e"), Job("s-"), Job("-s"), Job("c-"), Unwanted()]
    wide = Job("f-", *[Job("--"), Plain(), Unwanted()] * 3)
    ends = Job("-f", Job("--"), Job("-s"), Job("--"), Job("f-", Job("--")))
    fails = Job("f-", Job("--"), Job("e-"), Job("--"), Job("--"))
    deep = Job("f-", Job("f-", Job("f-", Job("-c"))))
    return [*few * 3, wide, ends, fails, deep, *[Job("--")] * 20, wide, *few]


def _numbers(told: Told) -> dict[str, int]:
    return {
        "accepted": sum(item.roots for item in told.of(Accepted)),
        "cascades": sum(item.cascades for item in told.of(CascadesDone)),
        "failed": sum(item.failed for item in told.of(CascadesDone)),
        "stopped": sum(item.values for item in told.of(CascadesDone)),
        "dropped": sum(item.dropped for item in told.of(CascadesDone)),
        "events": sum(len(item.seconds) for item in told.of(EventsDone))
        + sum(item.events for item in told.of(EventsUnmatched)),
        "handlers": sum(len(names) for item in told.of(EventsDone) for names in item.handlers),
    }


def _expect(pool: PoolProcessor, told: Told, events: list[Event], **options: Any) -> None:
    """Compare what a listener is told with the outcomes of a stream."""
    outcomes = list(pool.stream(events, **options))
    assert _numbers(told) == {
        "accepted": len(events),
        "cascades": len(events),
        "failed": sum(each.error is not None for each in outcomes),
        "stopped": sum(each.stopped for each in outcomes),
        "dropped": 0,
        "events": sum(each.events for each in outcomes),
        "handlers": sum(each.handlers for each in outcomes),
    }
    failed = Counter(item.path for item in told.of(EventFailed))
    assert sum(failed.values()) == sum(each.failed for each in outcomes)
    assert {path[0] for path in failed} == {each.index for each in outcomes if each.error}
    for done in told.of(EventsDone):
        assert done.handler_seconds is not None
        assert len(done.handler_seconds) == sum(map(len, done.handlers))
        assert len(done.events) == len(done.paths) == len(done.handlers) == len(done.seconds)
        assert min(done.handler_seconds) >= 0
        by_handler = Counter[str]()
        for name, seconds in done.by_handler():
            by_handler[name] += len(seconds)
        assert by_handler == Counter(name for names in done.handlers for name in names)
        whole = sum(done.seconds)
        assert sum(done.handler_seconds) <= whole * 1.000001 + 1e-9


def _registered(pool: PoolProcessor) -> PoolProcessor:
    for handler in (first, second, plain):
        pool.register(handler)
    return pool


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("options", [{}, {"ordering": "unordered"}, {"errors": "continue"}])
def test_a_simulated_pool_tells_what_its_outcomes_say(seed: int, options: Any) -> None:
    told = Told()
    with _registered(simulated_pool(2, seed=seed, listeners=[told])) as pool:
        events = jobs()
        if options.get("ordering") == "unordered":
            # events of a cascade that is over run all the same, and no outcome counts them
            events = [ev for ev in events if not (isinstance(ev, Job) and len(ev.then) == 4)]
        _expect(pool, told, events, **options)


@pytest.mark.parametrize("seed", SEEDS)
def test_roots_of_a_key_that_did_not_run_are_not_told(seed: int) -> None:
    told = Told()
    pool = simulated_pool(2, seed=seed, listeners=[told], key=lambda ev: ev.name)
    with _registered(pool):
        _expect(pool, told, jobs())


@pytest.mark.parametrize("errors", ["end", "continue"])
def test_a_pool_without_workers_tells_the_same(errors: Any) -> None:
    told = Told()
    with _registered(PoolProcessor(0, listeners=[told])) as pool:
        _expect(pool, told, jobs(), errors=errors)
        assert isinstance(told[-1], Drained)


def test_workers_tell_what_their_outcomes_say() -> None:
    told = Told()
    with _registered(PoolProcessor(2, listeners=[told])) as pool:
        _expect(pool, told, jobs() * 20)
        pids = {item.pid for item in told.of(WorkerStarted)}
        ready = {item.pid for item in told.of(WorkerReady)}
        assert ready
        assert ready <= pids  # one may have done all before the other was ready
        assert None not in pids
        assert sum(item.events for item in told.of(Dispatched)) >= sum(
            len(item.seconds) for item in told.of(EventsDone)
        )
        assert isinstance(told[-1], Drained)
    assert isinstance(told[-1], WorkersEnded)
    assert told[-1].reason == ""


@pytest.mark.parametrize("seed", range(10))
def test_a_retry_is_told_with_its_error_and_its_attempt(seed: int) -> None:
    told = Told()
    pool = simulated_pool(2, seed=seed, listeners=[told], max_retries=2)
    with _registered(pool):
        pool.process_many([Job("--"), Job("-e")], return_exceptions=True)
    retried = [(item.path, item.handler, item.attempts) for item in told.of(EventRetried)]
    assert retried == [((1,), "second", 1), ((1,), "second", 2)]
    (failed,) = told.of(EventFailed)
    assert (failed.path, failed.handler, failed.attempts) == ((1,), "second", 3)
    assert "Job(-e)" in failed.event
    assert isinstance(failed.error, ValueError)
    assert _numbers(told)["events"] == 4


def test_a_retry_in_this_process_is_told_alike() -> None:
    told = Told()
    pool = PoolProcessor(0, listeners=[told], max_retries=1, retry_backoff=0)
    with _registered(pool):
        pool.process_many([Job("--"), Job("-e")], return_exceptions=True)
    (retried,) = told.of(EventRetried)
    assert (retried.path, retried.handler, retried.attempts) == ((1,), "second", 1)
    (failed,) = told.of(EventFailed)
    assert (failed.path, failed.attempts) == ((1,), 2)
    assert _numbers(told)["events"] == 3


def test_a_death_is_told_with_the_event_and_the_handler() -> None:
    told = Told()
    pool = PoolProcessor(1, listeners=[told])
    pool.register(act)
    with pytest.raises(WorkerLostError):
        pool.process(Do("leave", 3))
    assert pool.process(Do("stop", 1)) == 1
    close_in_time(pool)
    (lost,) = told.of(WorkerLost)
    assert (lost.exitcode, lost.handler) == (3, "act")
    assert lost.event is not None
    assert "leave" in lost.event
    assert lost.pid == told.of(WorkerStarted)[0].pid
    (failed,) = told.of(EventFailed)
    assert isinstance(failed.error, WorkerLostError)
    assert len(told.of(WorkerStarted)) == 2


def _is_doomed(ev: Any) -> bool:
    return bool(getattr(ev, "what", "").startswith("k"))


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("errors", ["end", "continue"])
def test_events_are_told_once_also_where_workers_die(seed: int, errors: Any) -> None:
    told = Told()
    doomed = [Job("f-", Job("--"), Job("-s" if seed % 2 else "--"), Job("k-"), Job("--"))]
    events: list[Event] = [*[Job("--")] * 30, *doomed, *jobs(), Job("k-"), *[Plain()] * 10]
    pool = _registered(simulated_pool(2, seed=seed, listeners=[told]))
    with pool, sabotage(pool, "second", kill, when=_is_doomed, times=None):
        told.clear()
        outcomes = list(pool.stream(events, errors=errors))
    lost = sum(isinstance(each.error, WorkerLostError) for each in outcomes)
    assert len([item for item in told.of(WorkerLost) if item.event is not None]) == lost
    numbers = _numbers(told)
    assert numbers["accepted"] == numbers["cascades"] == len(events)
    assert numbers["events"] + lost == sum(each.events for each in outcomes)
    assert len(told.of(EventFailed)) == sum(each.failed for each in outcomes)


def test_a_replaced_worker_is_no_lost_one() -> None:
    told = Told()
    pool = PoolProcessor(1, listeners=[told], max_tasks_per_child=3)
    pool.register(act)
    pool.process_many([Do("nothing")] * 10)
    close_in_time(pool)
    assert told.of(WorkerReplaced)
    assert not told.of(WorkerLost)
    assert sum(len(item.seconds) for item in told.of(EventsDone)) == 10


def test_single_events_are_told_too() -> None:
    told = Told()
    pool = _registered(PoolProcessor(1, listeners=[told]))
    pool.process(Job("--"))
    deadline = time.monotonic() + PATIENCE_SECONDS
    while SINGLE_CALL not in [item.call for item in told.of(EventsDone)]:
        told.clear()
        pool.process(Job("-s"))
        assert time.monotonic() < deadline
    names = [type(item).__name__ for item in told]
    assert names == ["Accepted", "Dispatched", "EventsDone", "CascadesDone", "Drained"]
    (done,) = told.of(EventsDone)
    assert done.handlers[0] == ("first", "second")
    assert done.handler_seconds is not None
    assert 0 < sum(done.handler_seconds) <= done.seconds[0]
    assert done.values == 1
    told.clear()
    assert pool.process(Unwanted()) is None
    assert [type(item) for item in told] == [Accepted, EventsUnmatched, CascadesDone]
    told.clear()
    assert pool.submit(Job("s-")).result(PATIENCE_SECONDS) == "s-"
    assert _numbers(told)["stopped"] == 1
    assert pool.submit(Unwanted()).result(PATIENCE_SECONDS) is None
    assert _numbers(told)["cascades"] == 2
    close_in_time(pool)


def test_what_is_dropped_is_told() -> None:
    told = Told()
    pool = _registered(simulated_pool(1, listeners=[told]))
    with pool, pytest.raises(ValueError, match="e-"):
        pool.process_many([Job("e-"), *[Job("--")] * 3000])
    numbers = _numbers(told)
    assert numbers["accepted"] == numbers["cascades"]
    assert numbers["failed"] == 1


def test_an_event_that_cannot_be_planned_has_failed() -> None:
    def bad(ev: Event) -> bool:
        raise LookupError(ev.name)

    @want("plain", bad)
    def picky(proc: Any, ev: Event) -> None: ...

    for pool in (simulated_pool(1, listeners=[told := Told()]),):
        with pool:
            pool.register(picky)
            pool.process_many([Plain()], return_exceptions=True)
        (failed,) = told.of(EventFailed)
        assert isinstance(failed.error, LookupError)
        assert _numbers(told)["failed"] == _numbers(told)["accepted"] == 1


# --- listeners ---


def test_a_listener_hears_of_a_cascade_before_its_caller() -> None:
    told = Told()
    with _registered(PoolProcessor(1, listeners=[told])) as pool:
        for number in range(1, 20):
            pool.submit(Job("--")).result(PATIENCE_SECONDS)
            assert _numbers(told)["cascades"] == number


@pytest.mark.parametrize("workers", [0, 1])
def test_a_listener_that_raises_is_left_out(workers: int, caplog: pytest.LogCaptureFixture) -> None:
    heard: list[Notification] = []

    def bad(item: Notification) -> None:
        heard.append(item)
        raise RuntimeError("not today")

    told = Told()
    with _registered(PoolProcessor(workers, listeners=[bad, told])) as pool:
        assert pool.process_many([Job("-s")] * 3) == ["-s"] * 3
    assert len(heard) == 1
    assert _numbers(told)["cascades"] == 3
    (record,) = [each for each in caplog.records if each.levelno >= logging.ERROR]
    assert record.name == "evproc_pool"
    assert "bad" in record.getMessage()
    assert record.exc_info is not None


def test_a_listener_may_ask_for_statistics() -> None:
    done: list[int] = []

    def asks(item: Notification) -> None:
        done.append(pool.statistics().done)

    pool = _registered(PoolProcessor(2, listeners=[asks], statistics=True))
    pool.process_many(jobs(), return_exceptions=True)
    close_in_time(pool)
    assert done[-1] == len(jobs())


@pytest.mark.parametrize("workers", [0, 1])
def test_an_interrupt_in_a_listener_reaches_the_caller(workers: int) -> None:
    told = Told()
    interrupts = [KeyboardInterrupt]

    def interrupted(item: Notification) -> None:
        if isinstance(item, EventsDone) and interrupts:
            raise interrupts.pop()

    pool = _registered(PoolProcessor(workers, listeners=[interrupted, told]))
    with pytest.raises(KeyboardInterrupt):
        pool.process_many([Plain()] * 3)
    told.clear()
    assert pool.process_many([Job("-s")]) == ["-s"]
    assert _numbers(told)["stopped"] == 1
    close_in_time(pool)


def test_nothing_is_made_without_a_listener(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(notices.Notices, "__init__", fail)
    monkeypatch.setattr(calls.InProcessCalls, "_process_all", fail)
    for workers in (0, 1):
        with _registered(PoolProcessor(workers)) as pool:
            assert pool.process_many([Job("-s")]) == ["-s"]


def test_a_listener_that_is_none_is_an_error() -> None:
    with pytest.raises(TypeError, match="a listener is a callable"):
        PoolProcessor(1, listeners=[3])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="listeners is a list of callables"):
        PoolProcessor(1, listeners=3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="statistics is True or False"):
        PoolProcessor(1, statistics=3)  # type: ignore[arg-type]


def test_a_forked_process_tells_its_own() -> None:
    told = Told()
    pool = PoolProcessor(0, listeners=[told])
    pool.register(plain)
    pid = os.fork() if hasattr(os, "fork") and threading.active_count() == 1 else -1
    if pid == 0:
        try:
            pool.process(Plain())
            os._exit(0 if _numbers(told)["cascades"] == 1 else 1)
        finally:
            os._exit(2)
    if pid > 0:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
