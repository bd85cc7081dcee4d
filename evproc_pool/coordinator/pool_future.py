"""The futures of submitted events, and how the states of many change at once.

All futures of a pool share a lock, so that those that go together change under it at once.
`internals.stdlib_futures` has the two ways to make one, and the rules.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from math import inf
from typing import TYPE_CHECKING, Any, Protocol

from evproc_pool.coordinator.cancellation import NOT_BEGUN
from evproc_pool.internals import stdlib_futures

if TYPE_CHECKING:
    from concurrent.futures import Future
    from contextlib import AbstractContextManager

if TYPE_CHECKING or stdlib_futures.IS_KNOWN:
    Promise = stdlib_futures.SharedLockFuture
else:
    Promise = stdlib_futures.PlainFuture


class Driver(Protocol):
    """The methods of `futures.Futures` that a future calls."""

    def help(self, root: int, seconds: float) -> None:
        """Wait a moment for the answer to a root that was sent at once."""

    def hurry(self) -> None:
        """Have the thread drive."""

    def interrupt(self, error: BaseException) -> None:
        """Drop what is in flight: a thread that waited for a future was interrupted."""

    def cancel(self, roots: Sequence[int], *, kill: bool) -> str:
        """Give up roots that were sent; return where they were, in words."""

    def reclaim(self, future: PoolFuture) -> bool:
        """Cancel a future whose event was sent, and not begun; return whether it is cancelled."""


class PoolFuture(Promise):
    """A future whose waiting thread does the work, if no other thread does.

    Attributes:
        driver: The futures of its pool.
        root: The index of its root, once that is handed in.
        may_have_run: Whether a worker had it that has died.
        is_unwanted: Whether it is to be cancelled as soon as it comes back from a worker.
    """

    root = -1
    may_have_run = False
    is_unwanted = False

    def __init__(self, driver: Driver, lock: AbstractContextManager[Any]) -> None:
        self._lock = lock  # not by a call of the base: it would take as long as all the rest
        self.driver = driver

    def await_end(self, timeout: float | None) -> None:
        """See the base. Raises `RuntimeError` in a callback of a future of the same pool."""
        if self.done():
            return
        try:
            self.driver.help(self.root, inf if timeout is None else max(0.0, timeout))
            super().await_end(timeout)
        except KeyboardInterrupt as error:
            self.driver.interrupt(error)
            raise

    def cancel(self) -> bool:
        """See `concurrent.futures.Future`.

        An event that a worker has not begun is taken back. This takes some milliseconds.
        """
        return self.cancel_unsent() or (self.running() and self.driver.reclaim(self))

    def cancel_unsent(self) -> bool:
        """Cancel it if no worker has it."""
        return super().cancel()

    def is_over_within(self, seconds: float) -> bool:
        """Wait for its end without helping; return whether it has come."""
        with contextlib.suppress(TimeoutError):
            super().await_end(seconds)
        return self.done()

    def add_done_callback(self, fn: Callable[[Future[Any]], object]) -> None:
        """See `concurrent.futures.Future`."""
        super().add_done_callback(fn)
        if not self.done():
            self.driver.hurry()

    def give_up(self, *, kill: bool) -> str:
        """See the function `give_up`."""
        if self.cancel_unsent() or self.done():
            return NOT_BEGUN
        return self.driver.cancel((self.root,), kill=kill)


def give_up(future: Future[Any], *, kill: bool) -> str:
    """Cancel an event, also one that was sent; return its place in words.

    `kill` ends the worker that runs an event of the cascade, too.
    """
    return future.give_up(kill=kill) if isinstance(future, PoolFuture) else ""


def cancel_all(futures: Iterable[Future[Any]]) -> None:
    """Cancel events that no worker has begun, also those that were sent to one."""
    sent: dict[Driver, list[int]] = {}
    for future in futures:
        if not isinstance(future, PoolFuture):
            future.cancel()
        elif not (future.cancel_unsent() or future.done()):
            future.is_unwanted = True
            sent.setdefault(future.driver, []).append(future.root)
    for driver, roots in sent.items():
        driver.cancel(roots, kill=False)


def begin_all(lock: AbstractContextManager[Any], promises: Sequence[Promise]) -> bool:
    """Set futures running; return whether all are to run. If not, their `begin` says which."""
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

    Those that are done already stay what they are. Not by `settle_all`: a single one takes longer.
    """
    watched: Sequence[Promise] = promises  # all of them, if an interrupt comes in between
    try:
        with lock:
            watched = [each for each in promises if each.finish_unwatched(value, error)]
    finally:
        for promise in watched:
            promise.finish(value, error)
