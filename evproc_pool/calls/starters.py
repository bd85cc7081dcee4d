"""Starters: make the backend of each new engine of a pool.

`starter_of` chooses by `executor=`. The modules of a backend are imported when it is made.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Protocol

from evproc_pool.backends.choice import DASK_ENGINE, FACTORY, INSTANCE, RAY_ENGINE, Choice
from evproc_pool.errors import InternalError

if TYPE_CHECKING:
    from evproc.registry import Registry
    from evproc_pool.options import StartOptions
    from evproc_pool.protocol.backend import Backend
    from evproc_pool.protocol.limits import Limits


class Starter(Protocol):
    """Makes the backend of each new engine; `functions` are those of the handlers.

    Attributes:
        workers: How many workers its last backend has at most.
        prefetch: How many batches each of them holds at most; None: as many as is usual.
        is_elsewhere: Whether workers may be on other machines, with an environment of their own.
    """

    workers: int
    prefetch: int | None
    is_elsewhere: bool

    def begin(self, functions: list[Any]) -> None:
        """Begin what takes long and can go on while this process imports the engine."""

    def make_backend(self, functions: list[Any]) -> Backend:
        """Make a backend that starts workers for these handlers."""


class ProcessStarter:
    """Starts worker processes."""

    prefetch: int | None = None
    is_elsewhere = False

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
        return _modules_to_preload(self._start, functions)


class CallStarter:
    """Has plain calls of an executor for workers."""

    prefetch: int | None = 1
    is_elsewhere = False

    def __init__(self, start: StartOptions, choice: Choice, limits: Limits) -> None:
        self.workers = self._most = start.workers
        self._is_limit = start.has_size
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


class AgentStarter:
    """Has agents on the nodes of a cluster start worker processes."""

    prefetch: int | None = None
    is_elsewhere = True

    def __init__(self, start: StartOptions, choice: Choice, registry: Registry) -> None:
        if getattr(choice.value, "asynchronous", False):
            raise ValueError(
                "executor= needs a synchronous Client of Dask: the pool waits in the caller's"
                " thread, which an asynchronous client's event loop needs; Client(address)"
            )
        self.workers = start.workers  # until the backend says how many fit
        self._start = start
        self._choice = choice
        self._registry = registry

    def begin(self, functions: list[Any]) -> None:
        """Do nothing: agents start with the backend."""

    def make_backend(self, functions: list[Any]) -> Backend:
        """See `Starter`."""
        from evproc_pool.backends.agents.messages import Setup
        from evproc_pool.backends.agents.versions import expected_versions

        start = self._start
        setup = Setup(
            _modules_to_preload(start, functions),
            expected_versions(self._registry),
            start.context.get_start_method(),
        )
        most_workers = start.workers if start.has_size else None
        if self._choice.kind == RAY_ENGINE.kind:
            from evproc_pool.backends.agents import ray as engine
        else:
            from evproc_pool.backends.agents import dask as engine  # type: ignore[no-redef]  # the other one
        return engine.make_backend(self._choice.value, setup, most_workers)


def _modules_to_preload(start: StartOptions, functions: list[Any]) -> list[str]:
    from evproc_pool.backends.local.preloading import chosen

    # with an initializer: entry points may need what it sets up
    preload = False if start.initializer is not None else start.preload
    return chosen(functions, preload, start.thread_limit)


def starter_of(start: StartOptions, limits: Limits, registry: Registry) -> Starter:
    """Make what starts the workers of a pool."""
    choice = start.executor
    if choice is None:
        return ProcessStarter(start)
    if choice.kind in (INSTANCE, FACTORY):
        return CallStarter(start, choice, limits)
    if choice.kind in (DASK_ENGINE.kind, RAY_ENGINE.kind):
        return AgentStarter(start, choice, registry)
    raise InternalError(f"no starter for {choice.kind!r}")
