"""`PoolExecutor`: the pool for whatever wants a `concurrent.futures.Executor`.

Each call is an event (`calls.function_call`), and its future is that of `PoolProcessor.submit`.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from multiprocessing.util import is_exiting
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from evproc_pool.calls.function_call import CALL, Call, call
from evproc_pool.coordinator.pool_future import cancel_all
from evproc_pool.errors import PoolClosedError
from evproc_pool.pool import PoolProcessor

if TYPE_CHECKING:
    from multiprocessing.context import BaseContext

P = ParamSpec("P")
T = TypeVar("T")


class PoolExecutor(futures.Executor):
    """An executor that runs functions in the workers of a pool.

    It takes the place of `concurrent.futures.ProcessPoolExecutor`, with the pool's answers to
    failures: a worker that dies costs the call that it was running (`WorkerLostError`), and the
    executor goes on. Functions and arguments may be lambdas, and those of a script or a notebook,
    without a `__main__` guard. If no worker can be started, calls fail with a `PoolBrokenError`
    that is a `concurrent.futures.BrokenExecutor`, too.

    Calls that were submitted are finished if the executor is collected, and at the end of the
    program.

    Args:
        max_workers: The most worker processes; see `workers` of `PoolProcessor`.
        mp_context: As for `PoolProcessor`.
        initializer: As for `PoolProcessor`.
        initargs: As for `PoolProcessor`.
        max_tasks_per_child: As for `PoolProcessor`.
        pool: An idle pool that gets the calls, in place of one that the executor makes and ends.
            It may have handlers, `workers=0` and all other options. Calls are events: a handler
            without `@want` gets them, and so does `key`.

    Raises:
        TypeError: An argument of the wrong type, or `pool` beside others.
        ValueError: An invalid number or name.
        PoolBusyError: `pool` has events in flight, and had no executor before.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: BaseContext | str | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        *,
        max_tasks_per_child: int | None = None,
        pool: PoolProcessor | None = None,
    ) -> None:
        others = (max_workers, mp_context, initializer, initargs or None, max_tasks_per_child)
        if pool is not None and others != (None,) * len(others):
            raise TypeError("with pool=, give all other options to that pool")
        if isinstance(max_workers, int) and max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        self._pid = os.getpid()
        self._is_owner = pool is None
        self._pool: PoolProcessor | None = pool or PoolProcessor(
            max_workers,
            mp_context=mp_context,
            initializer=initializer,
            initargs=initargs,
            max_tasks_per_child=max_tasks_per_child,
        )
        if CALL not in self._pool.nodes:
            self._pool.register(call, CALL)
        self._lock = threading.Lock()
        self._futures: weakref.WeakSet[futures.Future[Any]] = weakref.WeakSet()  # with the lock
        self._is_shut = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> futures.Future[T]:
        """Call a function in a worker.

        Returns:
            A future of what the function returns; see `PoolProcessor.submit`.

        Raises:
            RuntimeError: After `shutdown`, and at the end of the program.
        """
        pool = self._pool
        if self._is_shut or pool is None or is_exiting():
            raise RuntimeError("cannot schedule new futures after shutdown")
        try:
            future = pool.submit(Call(fn, args, kwargs))
        except PoolClosedError as error:
            raise RuntimeError("cannot schedule new futures after shutdown") from error
        with self._lock:
            self._futures.add(future)
        return future

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """See `concurrent.futures.Executor.map`.

        If the iterator is closed, or raises an error, the calls that no worker has begun are
        cancelled.

        Args:
            fn: The function.
            iterables: Its arguments; all are read at once, unless `buffersize` says otherwise.
            timeout: How many seconds after this call the last result is waited for.
            chunksize: Has no effect: batches size themselves.
            buffersize: The most calls whose results were not yielded. None: no limit. With
                every version of Python.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if buffersize is not None and not isinstance(buffersize, int):
            raise TypeError("buffersize must be an integer or None")
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be None or > 0")
        deadline = None if timeout is None else time.monotonic() + timeout
        calls = (self.submit(fn, *args) for args in zip(*iterables, strict=False))
        return _results(deque(itertools.islice(calls, buffersize)), calls, deadline)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept no more calls, and finish those that were submitted. Idempotent.

        Args:
            wait: Wait for the calls, and for the end of the workers. If not, they end in the
                background. A pool that was handed in goes on.
            cancel_futures: Cancel the calls that no worker has begun.
        """
        self._is_shut = True
        if os.getpid() != self._pid:
            return  # a forked process: calls and workers are its parent's
        with self._lock:
            left = list(self._futures)
        if cancel_futures:
            cancel_all(left)
        pool, self._pool = self._pool, None  # the calls keep it until they are over
        if wait and self._is_owner and pool is not None:
            pool.close()
        elif wait:
            futures.wait(left)


def _results(
    begun: deque[futures.Future[T]], more: Iterator[futures.Future[T]], deadline: float | None
) -> Iterator[T]:
    """Yield the results of calls, and begin one more for each; then cancel the others."""
    try:
        while begun:
            begun.extend(itertools.islice(more, 1))
            yield _result(begun.popleft(), deadline)
    finally:
        cancel_all(begun)


def _result(future: futures.Future[T], deadline: float | None) -> T:
    """Wait for the result of a call, or cancel it."""
    try:
        return future.result(None if deadline is None else deadline - time.monotonic())
    finally:
        cancel_all((future,))
        del future  # see `errors`
