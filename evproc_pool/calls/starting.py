"""`Starter`, which starts the workers of a pool. `evproc_pool.testing` has another one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from evproc_pool.options import StartOptions
    from evproc_pool.protocol.backend import Backend


class Starter(Protocol):
    """Makes the backend of each new engine."""

    def begin(self, functions: list[Any]) -> None:
        """Begin what takes long and can go on while this process imports the engine.

        Args:
            functions: Those of the handlers.
        """

    def make_backend(self, functions: list[Any]) -> Backend:
        """Make a backend that starts workers for these handlers."""


class ProcessStarter:
    """Starts worker processes.

    Args:
        start: How.
    """

    def __init__(self, start: StartOptions) -> None:
        self._start = start

    def begin(self, functions: list[Any]) -> None:
        """See `Starter`."""
        from evproc_pool.backends.local.start_methods import begin

        begin(self._start.context, self._modules_to_preload(functions))

    def make_backend(self, functions: list[Any]) -> Backend:
        """See `Starter`."""
        from evproc_pool.backends.local.processes import LocalBackend

        return LocalBackend(self._start.context, self._modules_to_preload(functions))

    def _modules_to_preload(self, functions: list[Any]) -> list[str]:
        from evproc_pool.backends.local.preloading import chosen

        # with an initializer: entry points may need what it sets up
        preload = False if self._start.initializer is not None else self._start.preload
        return chosen(functions, preload)
