"""Starters: make the backend of each new engine of a pool.

`starter_of` chooses by `executor=`. The modules of a backend are imported when it is made.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Protocol

from evproc_pool.errors import InternalError

if TYPE_CHECKING:
    from evproc_pool.options import StartOptions
    from evproc_pool.protocol.backend import Backend


class Starter(Protocol):
    """Makes the backend of each new engine; `functions` are those of the handlers."""

    def begin(self, functions: list[Any]) -> None:
        """Begin what takes long and can go on while this process imports the engine."""

    def make_backend(self, functions: list[Any]) -> Backend:
        """Make a backend that starts workers for these handlers."""


class ProcessStarter:
    """Starts worker processes."""

    def __init__(self, start: StartOptions) -> None:
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


def starter_of(start: StartOptions) -> Starter:
    """Make what starts the workers of a pool."""
    if start.executor is None:
        return ProcessStarter(start)
    raise InternalError(f"no starter for {start.executor.kind!r}")
