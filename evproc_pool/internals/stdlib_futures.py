"""Futures of `concurrent.futures` that share one lock, for a fraction of the cost.

A `Future` makes a condition for itself, and takes its lock for each step. `SharedLockFuture`
changes its state under a lock that it shares with others, so many can change at once. It gets a
condition when somebody waits for it or wants a callback. `PlainFuture` does the same with public
methods only. `coordinator.pool_future` uses the first if `IS_KNOWN`.

The rules that make this right:

- states change under the shared lock, and conditions are made under it;
- the end of a future that has a condition is also under that, together with the calls of its
  waiters, as `concurrent.futures.wait` and `as_completed` rely on;
- a thread that holds the shared lock never waits for a condition: `wait` holds those of many
  futures at once, and makes the next one meanwhile.

Checked with CPython 3.11, 3.13 and 3.15.

====================  =========================================================================
internal              use; fallback; what a free-threaded build would break
====================  =========================================================================
attributes of         ``_condition``, ``_state``, ``_result``, ``_exception``, ``_waiters``,
`Future`              ``_done_callbacks``, ``_invoke_callbacks``: `SharedLockFuture` has them for
                      the inherited methods, and for `wait` and `as_completed`.
                      Fallback: `PlainFuture`, some microseconds slower for each event.
                      Free-threaded: `SharedLockFuture.result` reads the state without a lock,
                      and then the value, which was written first. A build without the lock on
                      hardware that reorders loads may read them in another order.
lock of `Condition`   ``_lock``: `Condition` takes it without a call of Python code. Fallback: an
                      interrupt in a ``with`` of a future's condition may lock it for ever.
                      Free-threaded: nothing.
names of states       ``PENDING``, ``RUNNING``, ``CANCELLED``, ``CANCELLED_AND_NOTIFIED``,
                      ``FINISHED``: the values of ``_state``. Fallback: as above.
                      Free-threaded: nothing.
====================  =========================================================================
"""

from __future__ import annotations

import contextlib
import logging
import operator
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, InvalidStateError, _base
from contextlib import AbstractContextManager
from typing import Any, Final, Self

_LOG: Final = logging.getLogger("evproc_pool")  # that of `evproc_pool.log`
_RAISED: Final = "a callback of a future raised"

_ATTRIBUTES: Final = frozenset(
    ("_condition", "_state", "_result", "_exception", "_waiters", "_done_callbacks")
)
_STATES: Final = ("PENDING", "RUNNING", "CANCELLED", "CANCELLED_AND_NOTIFIED", "FINISHED")


def is_known(future: type[Future[Any]], base: object) -> bool:
    """Whether futures are made of what `SharedLockFuture` has."""
    return (
        vars(future()).keys() == _ATTRIBUTES
        and callable(getattr(future, "_invoke_callbacks", None))
        and all(getattr(base, name, None) == name for name in _STATES)
    )


#: Whether this Python's futures are as `SharedLockFuture` expects.
IS_KNOWN: Final = is_known(Future, _base)

_PENDING, _RUNNING, _CANCELLED_ONLY, _NOTIFIED, _FINISHED = _STATES
_CANCELLED: Final = (_CANCELLED_ONLY, _NOTIFIED)
_DONE: Final = (_FINISHED, *_CANCELLED)


class Condition(threading.Condition):
    """A condition whose `with` calls no Python code between the lock and the block.

    An interrupt in `threading.Condition.__enter__` or `__exit__` leaves the lock taken for ever.
    """

    if hasattr(threading.Condition(), "_lock"):
        __enter__ = property(operator.attrgetter("_lock.__enter__"))
        __exit__ = property(operator.attrgetter("_lock.__exit__"))


class SharedLockFuture(Future[Any]):
    """A future that is set by `begin` and `finish`.

    It shares its lock with others. Reentrant: a garbage collection may strike anywhere, and call
    code of the user's that cancels a future.
    """

    # The attributes that `Future.__init__` sets: here for all of them, until one differs. The
    # lists are made with the condition, under which they are used.
    _made: threading.Condition | None = None
    _state: str = _PENDING
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
                    self._made = Condition()
        return self._made

    def cancelled(self) -> bool:
        """See `concurrent.futures.Future`."""
        return self._state in _CANCELLED

    def running(self) -> bool:
        """See `concurrent.futures.Future`."""
        return self._state == _RUNNING

    def done(self) -> bool:
        """See `concurrent.futures.Future`."""
        return self._state in _DONE

    def cancel(self) -> bool:
        """See `concurrent.futures.Future`."""
        with self._lock:
            if self._state != _PENDING:
                return self._state in _CANCELLED
            self._state = _CANCELLED_ONLY
        with self._condition:
            self._condition.notify_all()
        self._call_back()
        return True

    def begin(self) -> bool:
        """Set it running, or notify those who wait that it was cancelled; return which.

        May be called again, when a batch comes back; `set_running_or_notify_cancel` may not.
        """
        with self._lock:
            is_running = self.begin_locked()
        if self._state == _CANCELLED_ONLY:
            with self._condition:
                if self._state == _CANCELLED_ONLY:
                    self._state = _NOTIFIED
                    for waiter in self._waiters:
                        waiter.add_cancelled(self)
        return is_running

    def withdraw(self) -> None:
        """Let it be cancelled, if it is not done: it was set running, and does not run."""
        self.put_back()
        if self.cancel():
            self.begin()

    def put_back(self) -> None:
        """Let it wait again: it was set running, and nothing has begun."""
        with self._lock:
            if self._state == _RUNNING:
                self._state = _PENDING

    def begin_locked(self) -> bool:
        """Set it running, if it waits for that; with the lock. Say whether it runs."""
        if self._state == _PENDING:
            self._state = _RUNNING
        return self._state == _RUNNING

    def finish_unwatched(self, value: object, error: BaseException | None) -> bool:
        """Let it be done, with the lock, if nobody waits. Return whether `finish` is to do it."""
        if self._state in _DONE:
            return False
        if self._made is not None:
            return True
        self._exception = error
        self._result = value
        self._state = _FINISHED
        return False

    def finish(self, value: object, error: BaseException | None) -> None:
        """Let it be done, if it is not, notify those who wait, and call the callbacks."""
        with self._condition:
            with self._lock:
                if self._state in _DONE:
                    return
                self._exception = error
                self._result = value
                self._state = _FINISHED
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
            _LOG.exception(_RAISED)

    def await_end(self, timeout: float | None) -> None:
        """Wait until it is done, or raise `TimeoutError`."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._condition:
            while self._state not in _DONE:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    raise TimeoutError
                self._condition.wait(None if left is None else min(left, threading.TIMEOUT_MAX))

    def result(self, timeout: float | None = None) -> Any:
        """See `concurrent.futures.Future`."""
        # the state is set last, so that no lock is needed to see that it is done
        if self._state == _FINISHED and self._exception is None:
            return self._result
        try:
            self.await_end(timeout)
            return super().result(0)
        finally:
            del self  # the error's traceback refers to this frame

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """See `concurrent.futures.Future`."""
        if self._state != _FINISHED:
            self.await_end(timeout)
        return super().exception(0)


class PlainFuture(Future[Any]):
    """As `SharedLockFuture`, by public methods only.

    The lock only keeps two threads from calling `begin` at once.
    """

    _lock: AbstractContextManager[Any]
    _has_begun = False

    def __new__(cls, *_: object, **__: object) -> Self:
        """Make one that is ready without a call of `__init__`, as classes derived from it do."""
        made = super().__new__(cls)
        Future.__init__(made)
        return made

    def __init__(self, lock: AbstractContextManager[Any]) -> None:  # not that of `Future` again
        self._lock = lock

    def cancel(self) -> bool:
        """See `concurrent.futures.Future`."""
        self._guarded(super().cancel)
        return self.cancelled()

    def begin(self) -> bool:
        """See `SharedLockFuture`."""
        with self._lock:
            return self.begin_locked()

    def withdraw(self) -> None:
        """See `SharedLockFuture`; no public method cancels a future that was set running."""
        self.finish(None, CancelledError())

    def put_back(self) -> None:
        """See `SharedLockFuture`; no public method does that, and it stays running."""

    def begin_locked(self) -> bool:
        """See `SharedLockFuture`."""
        if not self._has_begun:
            self._has_begun = True
            if not self.done() or self.cancelled():
                self.set_running_or_notify_cancel()
        return self.running()

    def finish_unwatched(self, value: object, error: BaseException | None) -> bool:  # noqa: ARG002 - see `SharedLockFuture`
        """See `SharedLockFuture`; nobody can see whether somebody waits."""
        return not self.done()

    def finish(self, value: object, error: BaseException | None) -> None:
        """See `SharedLockFuture`."""
        with contextlib.suppress(InvalidStateError):  # it is done
            if error is None:
                self._guarded(lambda: self.set_result(value))
            else:
                self._guarded(lambda: self.set_exception(error))

    def _guarded(self, step: Callable[[], object]) -> None:
        try:
            step()
        except (KeyboardInterrupt, InvalidStateError):
            raise
        except BaseException:  # of a callback; not an `Exception`
            _LOG.exception(_RAISED)

    def await_end(self, timeout: float | None) -> None:
        """See `SharedLockFuture`."""
        left = None if timeout is None else max(0.0, min(timeout, threading.TIMEOUT_MAX))
        with contextlib.suppress(CancelledError):
            super().exception(left)

    def result(self, timeout: float | None = None) -> Any:
        """See `concurrent.futures.Future`."""
        try:
            self.await_end(timeout)
            return super().result(0)
        finally:
            del self  # as above

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """See `concurrent.futures.Future`."""
        self.await_end(timeout)
        return super().exception(0)
