"""Futures as those of `concurrent.futures`, for a tenth of the cost: many share a condition.

A `Future` makes a condition for itself, and takes its lock for each step. Here all futures
of a pool have one condition, and those that end together end under one lock.

This is the module that reaches into `concurrent.futures.Future`: its attributes and its
states, which `concurrent.futures.wait` and `as_completed` use, too. They are the same in
Python 3.10 to 3.14; a test compares them with those of the Python that runs it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError  # another up to 3.10
from concurrent.futures._base import (
    CANCELLED,
    CANCELLED_AND_NOTIFIED,
    FINISHED,
    PENDING,
    RUNNING,
)
from typing import Any, Final

from evproc_pool.log import LOG

_CANCELLED: Final = (CANCELLED, CANCELLED_AND_NOTIFIED)
_DONE: Final = (FINISHED, *_CANCELLED)


class Promise(Future[Any]):
    """A future that is set by `begin` and `settle`.

    Args:
        shared: The condition of this one and others. Its lock is reentrant: `wait` of
            `concurrent.futures` takes it once for each future.
    """

    _condition: threading.Condition

    def __init__(self, shared: threading.Condition) -> None:
        # all that `Future.__init__` sets; that would make a condition
        self._condition = shared
        self._state = PENDING
        self._result: Any = None
        self._exception: BaseException | None = None
        self._waiters: list[Any] = []
        self._done_callbacks: list[Any] = []

    @property
    def has_ended(self) -> bool:
        """Whether it is done; in less time than `done` takes."""
        return self._state in _DONE

    def begin(self) -> bool:
        """Set it running, or tell those who wait for it that it was cancelled.

        May be called again, when a batch comes back; `set_running_or_notify_cancel` may not.

        Returns:
            Whether it is to run.
        """
        with self._condition:
            is_running = self.begin_locked()
        if self._state == CANCELLED:
            self.set_running_or_notify_cancel()
        return is_running

    def begin_locked(self) -> bool:
        """Set it running, if it waits for that; with the condition. Say whether it runs."""
        if self._state == PENDING:
            self._state = RUNNING
        return self._state == RUNNING

    def finish(self, value: object, error: BaseException | None) -> bool:
        """Let it be done, if it is not; with the condition. `call_back` is next.

        Returns:
            Whether it has callbacks.
        """
        if self._state in _DONE:
            return False
        self._exception = error
        self._result = value
        self._state = FINISHED
        for waiter in self._waiters:
            if error is None:
                waiter.add_result(self)
            else:
                waiter.add_exception(self)
        return bool(self._done_callbacks)

    def call_back(self) -> None:
        """Call the callbacks of one that is done."""
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
                # others share the condition, so it may be notified for one of these
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
        self.await_end(timeout)
        return super().exception(0)


def begin_all(shared: threading.Condition, promises: Sequence[Promise]) -> bool:
    """Set futures running; see `Promise.begin`.

    Args:
        shared: The condition of all of them.
        promises: Which.

    Returns:
        Whether all of them are to run. If not, `begin` says which.
    """
    with shared:
        # a list, which is quicker: mostly all of them run
        return all([promise.begin_locked() for promise in promises])  # noqa: C419


def settle(
    shared: threading.Condition,
    promises: Iterable[Promise],
    value: object = None,
    error: BaseException | None = None,
) -> None:
    """Let futures be done, all alike, whatever their callbacks raise.

    Those that are done already stay what they are.

    Args:
        shared: The condition of all of them.
        promises: Which.
        value: Their value.
        error: Or what they fail with.
    """
    has_callbacks: list[Promise] = []
    try:
        with shared:
            try:
                has_callbacks += [each for each in promises if each.finish(value, error)]
            finally:
                shared.notify_all()
    finally:
        for promise in has_callbacks:
            promise.call_back()
