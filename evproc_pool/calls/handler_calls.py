"""The methods of `PoolProcessor` for its handlers: a base class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evproc import Event
    from evproc.annotations import HandlerFunc, OnError
    from evproc.handler import Handler
    from evproc.report import CheckReport, Explanation
    from evproc_pool.calls.engines import EngineOwner
    from evproc_pool.calls.handlers import PoolHandlers


class HandlerCalls:
    """See `PoolProcessor`."""

    if TYPE_CHECKING:
        _handlers: PoolHandlers
        _owner: EngineOwner

    @property
    def nodes(self) -> Mapping[str, Handler]:
        """The registered handlers by name, in registration order; read-only."""
        return self._handlers.processor.nodes

    def register(self, proc: HandlerFunc, name: str | None = None, *, replace: bool = False) -> str:
        """Add a handler; see `Processor.register`. Running workers are replaced.

        Raises:
            PoolBusyError: Events are in flight. Nothing has changed.
            PoolClosedError: The pool is closed.
        """
        return self._owner.change(
            "register", lambda: self._handlers.register(proc, name, replace=replace)
        )

    def unregister(self, name: str) -> None:
        """Remove a handler; see `Processor.unregister`, and `register` for errors of the pool."""
        self._owner.change("unregister", lambda: self._handlers.unregister(name))

    def load_from(self, namespace: str, on_error: OnError = "raise") -> tuple[str, ...]:
        """Register every entry point of a group; see `Processor.load_from`.

        Workers load the same group. Running ones are replaced. A callable `on_error` is called
        in this process only. A worker leaves out what it cannot load; if that differs from this
        process, the comparison of the registries fails. See `register` for errors of the pool.
        """
        return self._owner.change(
            "load_from", lambda: self._handlers.load_from(namespace, on_error)
        )

    def check(self) -> CheckReport:
        """Find cycles and missing handlers; see `Processor.check`."""
        return self._handlers.processor.check()

    def explain(self, ev: Event) -> Explanation:
        """Say which handlers match an event, and why; see `Processor.explain`."""
        return self._handlers.processor.explain(ev)
