"""The handlers of a pool: in this process, and how workers get the same ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evproc import Processor
from evproc_pool.protocol.registry_spec import (
    Change,
    LoadFrom,
    Register,
    RegistrySpec,
    Step,
    registered,
    unregistered,
)
from evproc_pool.serialization.redefinition import RedefinedHandlers

if TYPE_CHECKING:
    from collections.abc import Callable

    from evproc.annotations import HandlerFunc, OnError, Unmatched


class PoolHandlers:
    """A `Processor`, and the steps by which a worker fills its own.

    Not safe for threads: `engines.EngineOwner` calls it with its lock held.

    Attributes:
        changes: What workers do to their registry at the end; for `evproc_pool.testing`.
    """

    def __init__(self, unmatched: Unmatched) -> None:
        self.processor = Processor(unmatched=unmatched)
        self.redefined = RedefinedHandlers(self.processor.registry)
        self.changes: list[Change] = []
        self._steps: list[Step] = []
        self._unmatched = unmatched

    def register(self, proc: HandlerFunc, name: str | None, *, replace: bool) -> str:
        """See `Processor.register`."""
        before = len(self.processor.nodes)
        key = self.processor.register(proc, name, replace=replace)
        has_replaced = len(self.processor.nodes) == before
        registered(self._steps, Register(proc, key, has_replaced))
        self.redefined.note(proc, key)
        return key

    def unregister(self, name: str) -> None:
        """See `Processor.unregister`."""
        self.processor.unregister(name)
        unregistered(self._steps, name)
        self.redefined.forget(name)

    def load_from(self, namespace: str, on_error: OnError) -> tuple[str, ...]:
        """See `Processor.load_from`."""
        names = self.processor.load_from(namespace, on_error)
        self._steps.append(LoadFrom(namespace, skip=on_error != "raise"))
        return names

    def use_redefined(self) -> None:
        """Replace handlers that were redefined. Nothing may be in flight."""
        found = {} if self.redefined.is_up_to_date else self.redefined.replace()
        if not found:
            return
        for place, step in enumerate(self._steps):
            if isinstance(step, Register) and step.name is not None and step.name in found:
                self._steps[place] = step._replace(func=found[step.name])
        from evproc_pool.log import LOG

        LOG.info("handlers that were defined anew are used from now on: %s", ", ".join(found))

    def spec(
        self,
        initializer: Callable[..., object] | None,
        initargs: tuple[Any, ...],
        finalizer: Callable[[], object] | None,
    ) -> RegistrySpec:
        """Describe what a worker does to get the same handlers."""
        steps, changes = tuple(self._steps), tuple(self.changes)
        return RegistrySpec(initializer, initargs, steps, changes, self._unmatched, finalizer)
