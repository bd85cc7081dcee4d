"""The pool's futures are those of `concurrent.futures`, in all that can be seen."""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import Any

import pytest

from evproc_pool.promises import Promise, settle
from tests.pool_tests.helpers import PATIENCE_SECONDS, Background


@pytest.fixture
def shared() -> threading.Condition:
    return threading.Condition()


def test_this_python_has_futures_of_the_kind_that_promises_are_made_as(
    shared: threading.Condition,
) -> None:
    future: Future[Any] = Future()
    ours, theirs = vars(Promise(shared)), vars(future)
    assert ours.keys() == theirs.keys()
    assert ours.pop("_condition") is shared
    assert type(theirs.pop("_condition")) is threading.Condition
    assert ours == theirs


def test_a_promise_goes_through_the_states_of_a_future(shared: threading.Condition) -> None:
    ours, theirs = Promise(shared), Future[Any]()
    steps: list[Callable[[], object]] = [
        lambda: None,
        lambda: (ours.begin(), theirs.set_running_or_notify_cancel()),
        lambda: (settle(shared, [ours], 5), theirs.set_result(5)),  # type: ignore[func-returns-value]
    ]
    for step in steps:
        step()
        states = [(each.done(), each.running(), each.cancelled()) for each in (ours, theirs)]
        assert states[0] == states[1]
    assert ours.result() == theirs.result() == 5
    assert ours.exception() is theirs.exception() is None


def test_one_that_was_cancelled_does_not_begin_and_keeps_its_end(
    shared: threading.Condition,
) -> None:
    promise = Promise(shared)
    assert promise.cancel()
    assert not promise.begin()
    assert not promise.begin()
    settle(shared, [promise], 1)
    with pytest.raises(CancelledError):
        promise.result(0)


def test_one_that_runs_cannot_be_cancelled(shared: threading.Condition) -> None:
    promise = Promise(shared)
    assert promise.begin()
    assert promise.begin()  # as when its batch comes back
    assert not promise.cancel()


def test_the_first_end_counts(shared: threading.Condition) -> None:
    promise = Promise(shared)
    calls: list[object] = []
    promise.add_done_callback(calls.append)
    settle(shared, [promise], 1)
    settle(shared, [promise], error=KeyError(2))
    assert promise.result(0) == 1
    assert calls == [promise]


def test_who_waits_for_one_is_not_content_with_another(shared: threading.Condition) -> None:
    promises = [Promise(shared) for _ in range(3)]
    with Background(lambda: promises[0].result(PATIENCE_SECONDS)) as call:
        while not shared._waiters:  # type: ignore[attr-defined]  # it waits
            pass
        settle(shared, promises[1:], 1)
        settle(shared, promises[:1], 2)
        assert call.result() == 2


def test_the_time_limit_holds(shared: threading.Condition) -> None:
    promise = Promise(shared)
    with pytest.raises(concurrent.futures.TimeoutError):
        promise.result(0.01)
    with pytest.raises(concurrent.futures.TimeoutError):
        promise.exception(-1)
    with Background(lambda: promise.result(1e300)) as call:  # longer than a lock can wait
        settle(shared, [promise], 1)
        assert call.result() == 1


def test_wait_and_as_completed_take_promises(shared: threading.Condition) -> None:
    promises = [Promise(shared) for _ in range(4)]
    wait = Background(lambda: concurrent.futures.wait(promises, timeout=PATIENCE_SECONDS))
    every = Background(
        lambda: list(concurrent.futures.as_completed(promises, timeout=PATIENCE_SECONDS))
    )
    while any(len(each._waiters) < 2 for each in promises):
        pass
    settle(shared, promises[:3], 1)
    settle(shared, promises[3:], error=KeyError(1))
    assert wait.result() == (set(promises), set())
    assert set(every.result()) == set(promises)


def test_all_callbacks_are_called_whatever_one_of_them_raises(
    shared: threading.Condition, caplog: pytest.LogCaptureFixture
) -> None:
    class Leaves(BaseException):
        pass

    def leave(_: object) -> None:
        raise Leaves("callback")

    promises = [Promise(shared) for _ in range(3)]
    called: list[object] = []
    promises[0].add_done_callback(leave)
    for promise in promises:
        promise.add_done_callback(called.append)
    settle(shared, promises)
    assert called[-2:] == promises[1:]
    assert "a callback of a future raised" in caplog.text
