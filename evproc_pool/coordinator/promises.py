"""Futures as those of `concurrent.futures`, for a fraction of the cost.

A `Future` makes a condition for itself, and takes its lock for each step. Here all futures
of a pool change their states under one lock, those that go together at once. One gets a
condition when somebody waits for it or wants a callback.

The rules that make this right:

- states change under the shared lock, and conditions are made under it;
- the end of a future that has a condition is also under that, together with what its
  waiters are told, as `concurrent.futures.wait` and `as_completed` rely on;
- who holds the shared lock never waits for a condition: `wait` holds those of many
  futures at once, and makes the next one meanwhile.

This is the module that reaches into `concurrent.futures.Future`: its attributes and its
states, which `concurrent.futures.wait` and `as_completed` use, too. They are the same in
Python 3.10 to 3.14; a test compares them with those of the Python that runs it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError  # another up to 3.10
from concurrent.futures._base import (
    CANCELLED,
    CANCELLED_AND_NOTIFIED,
    FINISHED,
    PENDING,
    RUNNING,
)
from contextlib import AbstractContextManager
from typing import Any, Final

from evproc_pool.log import LOG

_CANCELLED: Final = (CANCELLED, CANCELLED_AND_NOTIFIED)
_DONE: Final = (FINISHED, *_CANCELLED)


class Promise(Future[Any]):
    """A future that is set by `begin` and `settle`.

    Args:
        lock: Shared with others. Reentrant: a garbage collection may strike anywhere, and
            call code of the user's that cancels a future.
    """

    # What `Future.__init__` sets: here for all of them, until one differs. The lists are made
    # with the condition, under which they are used.
    _made: threading.Condition | None = None
    _state: str = PENDING
    _result: Any = None
    _exception: BaseException | None = None
    _waiters: Sequence[Any] = ()  # type: ignore[assignment]
    _done_callbacks: Sequence[Any] = ()

    def __init__(self, lock: AbstractContextManager[Any]) -> None:
        self._lock = lock

    @property
    def _condition(self) -> threading.Condition:  # type: ignore[override]  # set by nobody
        """Made for whoever asks first."""
        if self._made is None:
            with self._lock:
                if self._made is None:
                    self._waiters, self._done_callbacks = [], []
                    self._made = threading.Condition()
        return self._made

    def cancelled(self) -> bool:
        """See `concurrent.futures.Future`."""
        return self._state in _CANCELLED

    def running(self) -> bool:
        """See `concurrent.futures.Future`."""
        return self._state == RUNNING

    def done(self) -> bool:
        """See `concurrent.futures.Future`."""
        return self._state in _DONE

    def cancel(self) -> bool:
        """See `concurrent.futures.Future`."""
        with self._lock:
            if self._state != PENDING:
                return self._state in _CANCELLED
            self._state = CANCELLED
        with self._condition:
            self._condition.notify_all()
        self._call_back()
        return True

    def begin(self) -> bool:
        """Set it running, or tell those who wait for it that it was cancelled.

        May be called again, when a batch comes back; `set_running_or_notify_cancel` may not.

        Returns:
            Whether it is to run.
        """
        with self._lock:
            is_running = self.begin_locked()
        if self._state == CANCELLED:
            with self._condition:
                if self._state == CANCELLED:
                    self._state = CANCELLED_AND_NOTIFIED
                    for waiter in self._waiters:
                        waiter.add_cancelled(self)
        return is_running

    def begin_locked(self) -> bool:
        """Set it running, if it waits for that; with the lock. Say whether it runs."""
        if self._state == PENDING:
            self._state = RUNNING
        return self._state == RUNNING

    def finish_unwatched(self, value: object, error: BaseException | None) -> bool:
        """Let it be done, if nobody waits for that; with the lock.

        Returns:
            Whether `finish` is to do it.
        """
        if self._state in _DONE:
            return False
        if self._made is not None:
            return True
        self._exception = error
        self._result = value
        self._state = FINISHED
        return False

    def finish(self, value: object, error: BaseException | None) -> None:
        """Let it be done, if it is not, tell those who wait, and call the callbacks."""
        with self._condition:
            with self._lock:
                if self._state in _DONE:
                    return
                self._exception = error
                self._result = value
                self._state = FINISHED
            for waiter in self._waiters:
                if error is None:
                    waiter.add_result(self)
                else:
                    waiter.add_exception(self)
            self._condition.notify_all()
        self._call_back()

    def _call_back(self) -> None:
        try:
            self._invoke_callbacks()  # type: ignore[attr-defined]
        except KeyboardInterrupt:
            raise
        except BaseException:
            # not an `Exception`: those are logged by the future itself
            LOG.exception("a callback of a future raised")

    def await_end(self, timeout: float | None) -> None:
        """Wait until it is done.

        Raises:
            TimeoutError: It takes longer; the class of `concurrent.futures`.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._condition:
            while self._state not in _DONE:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    raise FutureTimeoutError
                self._condition.wait(None if left is None else min(left, threading.TIMEOUT_MAX))

    def result(self, timeout: float | None = None) -> Any:
        """See `concurrent.futures.Future`."""
        # the state is set last, so that no lock is needed to see that it is done
        if self._state == FINISHED and self._exception is None:
            return self._result
        self.await_end(timeout)
        return super().result(0)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """See `concurrent.futures.Future`."""
        if self._state != FINISHED:
            self.await_end(timeout)
        return super().exception(0)


def begin_all(lock: AbstractContextManager[Any], promises: Sequence[Promise]) -> bool:
    """Set futures running; see `Promise.begin`.

    Args:
        lock: That of all of them.
        promises: Which.

    Returns:
        Whether all of them are to run. If not, `begin` says which.
    """
    with lock:
        # a list, which is quicker: mostly all of them run
        return all([promise.begin_locked() for promise in promises])  # noqa: C419


def settle_all(
    lock: AbstractContextManager[Any], promises: Sequence[Promise], values: Sequence[object]
) -> None:
    """Let futures be done, each with a value of its own; see `settle`."""
    watched = list(zip(promises, values, strict=True))
    try:
        with lock:
            watched = [pair for pair in watched if pair[0].finish_unwatched(pair[1], None)]
    finally:
        for promise, value in watched:
            promise.finish(value, None)


def settle(
    lock: AbstractContextManager[Any],
    promises: Sequence[Promise],
    value: object = None,
    error: BaseException | None = None,
) -> None:
    """Let futures be done, all alike, whatever their callbacks raise.

    Those that are done already stay what they are.

    Args:
        lock: That of all of them.
        promises: Which.
        value: Their value.
        error: Or what they fail with.
    """
    watched: Sequence[Promise] = promises  # all of them, if an interrupt comes in between
    try:
        with lock:
            watched = [each for each in promises if each.finish_unwatched(value, error)]
    finally:
        for promise in watched:
            promise.finish(value, error)
