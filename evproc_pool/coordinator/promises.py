"""The futures of a pool: those of `concurrent.futures`, whose states change many at once.

All futures of a pool share a lock, so that those that go together change under it at once.
`internals.stdlib_futures` has the two ways to make one, and the rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from evproc_pool.internals import stdlib_futures
from evproc_pool.log import LOG

if TYPE_CHECKING or stdlib_futures.IS_KNOWN:
    _Future = stdlib_futures.SharedLockFuture
else:
    _Future = stdlib_futures.PlainFuture


class Promise(_Future):
    """A future that is set by `begin` and `settle`.

    Args:
        lock: Shared with others; see `SharedLockFuture`.
    """

    def callback_raised(self) -> None:
        """See `SharedLockFuture`."""
        LOG.exception("a callback of a future raised")


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
