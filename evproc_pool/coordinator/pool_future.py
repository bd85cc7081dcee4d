"""The future of a submitted event."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Any, Protocol

from evproc_pool.coordinator.cancellation import NOT_BEGUN
from evproc_pool.coordinator.promises import Promise

if TYPE_CHECKING:
    from concurrent.futures import Future
    from contextlib import AbstractContextManager


class Driver(Protocol):
    """The methods of `futures.Futures` that a future calls."""

    def help(self, root: int, seconds: float) -> None:
        """Wait a moment for the answer to a root that was sent at once."""

    def hurry(self) -> None:
        """Have the thread drive."""

    def interrupt(self, error: BaseException) -> None:
        """Drop what is in flight: a thread that waited for a future was interrupted."""

    def cancel(self, root: int, *, kill: bool) -> str:
        """Give up a root that was sent; return where it was, in words."""


class PoolFuture(Promise):
    """A future whose waiting thread does the work, if no other thread does.

    Attributes:
        root: The index of its root, once that is handed in.
    """

    root = -1

    def __init__(self, driver: Driver, lock: AbstractContextManager[Any]) -> None:
        self._lock = lock  # not by a call of the base: it would take as long as all the rest
        self._driver = driver

    def await_end(self, timeout: float | None) -> None:
        """See `Promise.await_end`.

        Raises:
            RuntimeError: Called from a callback of a future of the same pool, before this
                one is done.
        """
        if self.done():
            return
        try:
            self._driver.help(self.root, inf if timeout is None else max(0.0, timeout))
            super().await_end(timeout)
        except KeyboardInterrupt as error:
            self._driver.interrupt(error)
            raise

    def add_done_callback(self, fn: Callable[[Future[Any]], object]) -> None:
        """See `concurrent.futures.Future`."""
        super().add_done_callback(fn)
        if not self.done():
            self._driver.hurry()

    def give_up(self, *, kill: bool) -> str:
        """See the function `give_up`."""
        if self.cancel() or self.done():
            return NOT_BEGUN
        return self._driver.cancel(self.root, kill=kill)


def give_up(future: Future[Any], *, kill: bool) -> str:
    """Cancel the future of an event, also one that was sent.

    Args:
        future: The future.
        kill: Also kill the worker that runs an event of the cascade.

    Returns:
        The place of the event, in words.
    """
    return future.give_up(kill=kill) if isinstance(future, PoolFuture) else ""
