"""The executor that runs a pool's calls, and the next one when it breaks.

A pool ends an executor that its factory made, and no other.
"""

from __future__ import annotations

import contextlib
import inspect
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, Final, cast

from evproc.event import qualname
from evproc_pool.backends.choice import FACTORY, Choice
from evproc_pool.errors import PoolBrokenError
from evproc_pool.internals.stdlib_executors import kill_processes, workers_of

_OF_A_FUTURE: Final = ("add_done_callback", "cancel", "cancelled", "exception", "result", "running")


class Executors:
    """Has one executor at a time.

    Attributes:
        current: The executor.
        makes_others: Whether another one can take its place.
    """

    def __init__(self, choice: Choice) -> None:
        self.makes_others = choice.kind == FACTORY
        self._choice = choice
        self._has_taken = False
        self.current: Executor = self._made() if self.makes_others else choice.value

    def _made(self) -> Executor:
        factory: Callable[[], Executor] = self._choice.value
        try:
            executor = factory()
        except Exception as error:
            raise PoolBrokenError(
                f"executor={factory!r} raised {type(error).__name__}: {error}"
            ) from error
        if not isinstance(executor, Executor):
            raise PoolBrokenError(
                f"executor={factory!r} made {executor!r}, which is no concurrent.futures.Executor"
            )
        return executor

    def lanes(self, most: int, *, is_limit: bool = True) -> int:
        """How many calls to have on their way, if at most so many may run.

        Twice as many as the executor has workers, so that none of these waits for the next; no more
        than may run if it has more workers, or does not say how many. If not `is_limit`, the
        executor decides, and `most` counts only if it does not say how many workers it has.
        """
        workers = workers_of(self.current)
        if workers is None or (is_limit and most < workers):
            return most
        return 2 * workers

    def submit(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        """Submit a call; raises what the executor raises.

        Raises:
            TypeError: The executor gave no future.
        """
        future: Any = self.current.submit(function, *args)
        self._has_taken = True
        if not all(hasattr(future, name) for name in _OF_A_FUTURE):
            raise TypeError(f"submit() returned {qualname(type(future))}, which is no future")
        return cast("Future[Any]", future)

    def replace(self) -> None:
        """Make another executor in the place of one that broke, and end that with its processes.

        Raises:
            PoolBrokenError: The factory does not make one.
        """
        self.end(0.0)
        self.current = self._made()

    def broken(self, error: BaseException) -> PoolBrokenError:
        """Say that the executor runs nothing more."""
        effects = "what ran there may have had effects, and what had come back is not lost"
        if not self._has_taken:
            effects = "nothing has run there"
        broken = PoolBrokenError(
            f"executor={self.current!r} broke, or takes no more calls ({type(error).__name__}:"
            f" {error}); {effects}{self._advice()}"
        )
        broken.__cause__ = error
        return broken

    def hung(self, error: BaseException, worker: int) -> PoolBrokenError:
        """Say that a call of that worker does not end."""
        broken = PoolBrokenError(
            f"executor={self.current!r} runs a call that cannot be ended: {error}; it may have had"
            " effects, and what had come back is not lost; the pool can be used again, but the"
            f" call has its worker until it ends{self._advice()}"
        )
        broken.__cause__ = error
        broken.hung_workers = (worker,)
        return broken

    def _advice(self) -> str:
        if self.makes_others:
            return ", but the executor that the callable made in its place is no better"
        name = type(self.current).__name__
        return (
            f": give a callable that makes the executor, as in executor=lambda: {name}(4): then the"
            " pool makes another one and goes on"
        )

    def end(self, most_seconds: float) -> None:
        """End an executor that the factory made; after that many seconds, with its processes."""
        if not self.makes_others:
            return
        if most_seconds > 0 and within(most_seconds, self.current.shutdown):
            return
        with contextlib.suppress(Exception):  # it may be broken
            known = inspect.signature(self.current.shutdown).parameters
            is_killed = "kill_workers" in known or kill_processes(self.current)
            # of killed ones: until its threads know
            _shut_down(self.current, wait=is_killed, cancel_futures=True, kill_workers=True)


def within(seconds: float, function: Callable[[], object]) -> bool:
    """Call a function in a thread, and return whether it ended in time; if not, it goes on."""

    def call() -> None:
        with contextlib.suppress(Exception):
            function()

    thread = threading.Thread(target=call, daemon=True)
    try:
        thread.start()
    except RuntimeError:  # no thread starts once the program ends
        call()
        return True
    thread.join(min(seconds, threading.TIMEOUT_MAX))
    return not thread.is_alive()


def _shut_down(executor: Executor, **options: bool) -> None:
    """Call `shutdown` with those of the options that it has; loky kills its workers by one."""
    known = inspect.signature(executor.shutdown).parameters
    executor.shutdown(**{name: value for name, value in options.items() if name in known})
