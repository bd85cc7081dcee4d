"""The pool's futures are those of `concurrent.futures`, in all that can be seen."""

from __future__ import annotations

import concurrent.futures
import sys
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from contextlib import AbstractContextManager
from typing import Any

import pytest

from evproc_pool.coordinator import pool_future
from evproc_pool.coordinator.pool_future import Promise, settle
from evproc_pool.internals.stdlib_futures import PlainFuture
from tests.support.helpers import PATIENCE_SECONDS, Background

Lock = AbstractContextManager[Any]


@pytest.fixture
def lock() -> Lock:
    return threading.RLock()


@pytest.fixture(autouse=True, params=[Promise, PlainFuture])
def _kind_of_promise(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "Promise", request.param)


def test_this_python_has_futures_of_the_kind_that_promises_are_made_as(
    lock: Lock,
) -> None:
    future: Future[Any] = Future()
    promise = pool_future.Promise(lock)
    assert vars(promise) == {"_lock": lock}
    assert type(future._condition) is threading.Condition
    assert isinstance(promise._condition, threading.Condition)
    of_promises = {"_lock", "_made"}
    assert set(vars(promise)) - of_promises <= set(vars(future))
    for name in vars(future).keys() - {"_condition"}:
        assert getattr(promise, name) == getattr(future, name)


def test_a_promise_goes_through_the_states_of_a_future(lock: Lock) -> None:
    ours, theirs = Promise(lock), Future[Any]()
    steps: list[Callable[[], object]] = [
        lambda: None,
        lambda: (ours.begin(), theirs.set_running_or_notify_cancel()),
        lambda: (settle(lock, [ours], 5), theirs.set_result(5)),  # type: ignore[func-returns-value]
    ]
    for step in steps:
        step()
        states = [(each.done(), each.running(), each.cancelled()) for each in (ours, theirs)]
        assert states[0] == states[1]
    assert ours.result() == theirs.result() == 5
    assert ours.exception() is theirs.exception() is None


def test_one_that_was_cancelled_does_not_begin_and_keeps_its_end(
    lock: Lock,
) -> None:
    promise = Promise(lock)
    assert promise.cancel()
    assert not promise.begin()
    assert not promise.begin()
    settle(lock, [promise], 1)
    with pytest.raises(CancelledError):
        promise.result(0)


def test_one_that_runs_cannot_be_cancelled(lock: Lock) -> None:
    promise = Promise(lock)
    assert promise.begin()
    assert promise.begin()  # as when its batch comes back
    assert not promise.cancel()


def test_the_first_end_counts(lock: Lock) -> None:
    promise = Promise(lock)
    calls: list[object] = []
    promise.add_done_callback(calls.append)
    settle(lock, [promise], 1)
    settle(lock, [promise], error=KeyError(2))
    assert promise.result(0) == 1
    assert calls == [promise]


def test_who_waits_for_one_gets_its_value(lock: Lock) -> None:
    promises = [Promise(lock) for _ in range(3)]
    with Background(lambda: promises[0].result(PATIENCE_SECONDS)) as call:
        while getattr(promises[0], "_made", True) is None:  # it is about to wait
            pass
        settle(lock, promises[1:], 1)
        settle(lock, promises[:1], 2)
        assert call.result() == 2


def test_the_time_limit_holds(lock: Lock) -> None:
    promise = Promise(lock)
    with pytest.raises(concurrent.futures.TimeoutError):
        promise.result(0.01)
    with pytest.raises(concurrent.futures.TimeoutError):
        promise.exception(-1)
    with Background(lambda: promise.result(1e300)) as call:  # longer than a lock can wait
        settle(lock, [promise], 1)
        assert call.result() == 1


def test_wait_and_as_completed_take_promises(lock: Lock) -> None:
    promises = [Promise(lock) for _ in range(4)]
    futures: list[Future[Any]] = list(promises)
    wait = Background(lambda: concurrent.futures.wait(futures, timeout=PATIENCE_SECONDS))
    every = Background(
        lambda: list(concurrent.futures.as_completed(futures, timeout=PATIENCE_SECONDS))
    )
    while any(len(each._waiters) < 2 for each in promises):
        pass
    settle(lock, promises[:3], 1)
    settle(lock, promises[3:], error=KeyError(1))
    assert wait.result() == (set(promises), set())
    assert set(every.result()) == set(promises)


def test_all_callbacks_are_called_whatever_one_of_them_raises(
    lock: Lock, caplog: pytest.LogCaptureFixture
) -> None:
    class Leaves(BaseException):
        pass

    def leave(_: object) -> None:
        raise Leaves("callback")

    promises = [Promise(lock) for _ in range(3)]
    called: list[object] = []
    promises[0].add_done_callback(leave)
    for promise in promises:
        promise.add_done_callback(called.append)
    settle(lock, promises)
    assert called[-2:] == promises[1:]
    assert "a callback of a future raised" in caplog.text


def test_threads_that_end_cancel_and_wait_agree(lock: Lock) -> None:
    """Each promise is either cancelled or has its value, and whoever waits sees all of them."""
    for _ in range(50):
        promises = [Promise(lock) for _ in range(40)]
        futures: list[Future[Any]] = list(promises)
        start = threading.Barrier(4)

        def wait(futures: list[Future[Any]] = futures, start: threading.Barrier = start) -> object:
            start.wait(PATIENCE_SECONDS)
            return concurrent.futures.wait(futures, timeout=PATIENCE_SECONDS).not_done

        def complete(
            futures: list[Future[Any]] = futures, start: threading.Barrier = start
        ) -> object:
            start.wait(PATIENCE_SECONDS)
            done = list(concurrent.futures.as_completed(futures, timeout=PATIENCE_SECONDS))
            return len(done) - len(set(done)), set(done) == set(futures)

        def cancel(
            futures: list[Future[Any]] = futures, start: threading.Barrier = start
        ) -> set[Future[Any]]:
            start.wait(PATIENCE_SECONDS)
            return {future for future in futures[::3] if future.cancel()}

        calls = [Background(each) for each in (wait, complete, cancel)]
        start.wait(PATIENCE_SECONDS)
        for place in range(0, 40, 8):
            some = promises[place : place + 8]
            settle(lock, [each for each in some if each.begin()], 1)
        cancelled = calls[2].result()
        assert calls[0].result() == set()
        assert calls[1].result() == (0, True)
        for promise in promises:
            assert promise.cancelled() == (promise in cancelled)
            assert promise.cancelled() or promise.result(0) == 1
