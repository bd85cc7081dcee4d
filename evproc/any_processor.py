"""`AnyProcessor`: the type of a processor, whether it has workers or not.

By itself, and imported when it is first asked for: `typing` takes as long to import as all of
evproc. Type checkers use it; it cannot be asked for with `isinstance`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from evproc.annotations import HandlerFunc, OnError
    from evproc.event import Event
    from evproc.handler import Handler
    from evproc.report import CheckReport, Explanation


class AnyProcessor(Protocol):
    """Has what `evproc.Processor` and `evproc_pool.PoolProcessor` share.

    Annotate with it what works with either, and the application chooses::

        def set_up(processor: evproc.AnyProcessor) -> None:
            processor.load_from("app.handlers")
            processor.check()

    The constructors are no part of it; both take `unmatched`. Each method does what the
    `Processor`'s does. A pool raises its own errors besides, such as `PoolClosedError`.
    """

    @property
    def nodes(self) -> Mapping[str, Handler]:
        """See `Processor.nodes`."""

    def register(self, proc: HandlerFunc, name: str | None = None, *, replace: bool = False) -> str:
        """See `Processor.register`."""

    def unregister(self, name: str) -> None:
        """See `Processor.unregister`."""

    def load_from(self, namespace: str, on_error: OnError = "raise") -> tuple[str, ...]:
        """See `Processor.load_from`."""

    def process(self, ev: Event) -> Any:
        """See `Processor.process`. A pool's also takes options, which all have defaults."""

    def check(self) -> CheckReport:
        """See `Processor.check`."""

    def explain(self, ev: Event) -> Explanation:
        """See `Processor.explain`."""
