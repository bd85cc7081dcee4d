"""Starters: make the backend of each new engine of a pool.

`starter_of` chooses by `executor=`. The modules of a backend are imported when it is made.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Protocol

from evproc_pool.backends.choice import FACTORY, INSTANCE, Choice
from evproc_pool.errors import InternalError

if TYPE_CHECKING:
    from evproc_pool.options import StartOptions
    from evproc_pool.protocol.backend import Backend
    from evproc_pool.protocol.limits import Limits


class Starter(Protocol):
    """Makes the backend of each new engine; `functions` are those of the handlers.

    Attributes:
        workers: How many workers its last backend has at most.
        prefetch: How many batches each of them holds at most; None: as many as is usual.
    """

    workers: int
    prefetch: int | None

    def begin(self, functions: list[Any]) -> None:
        """Begin what takes long and can go on while this process imports the engine."""

    def make_backend(self, functions: list[Any]) -> Backend:
        """Make a backend that starts workers for these handlers."""


class ProcessStarter:
    """Starts worker processes."""

    prefetch: int | None = None

    def __init__(self, start: StartOptions) -> None:
        self.workers = start.workers
        self._start = start

    def begin(self, functions: list[Any]) -> None:
        """See `Starter`."""
        from evproc_pool.backends.local.start_methods import begin, check_is_no_child

        check_is_no_child(sys.argv)
        begin(self._start.context, self._modules_to_preload(functions))

    def make_backend(self, functions: list[Any]) -> Backend:
        """See `Starter`."""
        from evproc_pool.backends.local.processes import LocalBackend

        return LocalBackend(self._start.context, self._modules_to_preload(functions))

    def _modules_to_preload(self, functions: list[Any]) -> list[str]:
        from evproc_pool.backends.local.preloading import chosen

        # with an initializer: entry points may need what it sets up
        preload = False if self._start.initializer is not None else self._start.preload
        return chosen(functions, preload, self._start.thread_limit)


class CallStarter:
    """Has plain calls of an executor for workers."""

    prefetch: int | None = 1

    def __init__(self, start: StartOptions, choice: Choice, limits: Limits) -> None:
        self.workers = self._most = start.workers
        self._is_limit = start.is_limit
        self._choice = choice
        self._limits = limits

    def begin(self, functions: list[Any]) -> None:
        """Do nothing: the executor starts its workers."""

    def make_backend(self, functions: list[Any]) -> Backend:  # noqa: ARG002 - calls bring them
        """See `Starter`."""
        from evproc_pool.backends.executor.calls import ExecutorBackend
        from evproc_pool.backends.executor.executors import Executors

        executors = Executors(self._choice)
        self.workers = executors.lanes(self._most, is_limit=self._is_limit)
        return ExecutorBackend(executors, self._limits.event_timeout)


def starter_of(start: StartOptions, limits: Limits) -> Starter:
    """Make what starts the workers of a pool."""
    choice = start.executor
    if choice is None:
        return ProcessStarter(start)
    if choice.kind in (INSTANCE, FACTORY):
        return CallStarter(start, choice, limits)
    raise InternalError(f"no starter for {choice.kind!r}")
