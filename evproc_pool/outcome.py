"""`Outcome`: how the cascade of a root event ended, or one event of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic

from evproc import Event

if TYPE_CHECKING:
    # part of every type checker; Python's own takes a `default` from 3.13 on
    from typing_extensions import TypeVar

    E_co = TypeVar("E_co", bound=Event, covariant=True, default=Event)
else:
    from typing import TypeVar

    E_co = TypeVar("E_co", bound=Event, covariant=True)


@dataclass(slots=True)
class Outcome(Generic[E_co]):
    """How a root event and its follow-ups ended.

    With `every_event=True` also how a single follow-up ended: the attributes describe that
    event alone then.

    For type checkers it is generic in the class of `event`: a stream of `Order` events gives
    an `Outcome[Order]` for each. `Outcome` alone is `Outcome[Event]`.

    Attributes:
        event: The root event, the object that was handed in; or the follow-up.
        index: The place of the root in the input, from 0.
        value: What `Processor.process` would return.
        stopped: Whether a handler ended the cascade by `StopProcessing(value)`.
        error: What `Processor.process` would raise, or None. With `errors="continue"` the
            first error in the cascade's order; there may be a value beside it.
        handler: The name of the handler that raised it, if one did.
        attempts: How often an event of the cascade was run, the greatest number of all. It is
            1 unless an event failed and was run again (`max_retries`, `crash_limit`).
        events: How many events of the cascade were handled.
        seconds: How long that took in the workers.
        processed: With `return_events=True`, the event as the handlers left it, its `proc`
            namespaces included. None if the event failed. A root's is also None if the error
            of a follow-up ended the cascade.
        path: Names the event; it does not depend on timing. `(17,)` is root 17, `(17, 2, 0)` the
            first follow-up of its third follow-up. All follow-ups that an event's handlers
            returned count, in order, from 0; also those that no handler wants.
        emitted: What the handlers gave to `ev.emit`, in the order of `Processor.process`: by
            path, shorter paths first. Values of a failed event or a failed attempt are dropped.
        handlers: How many handlers were called, each event's in its last attempt; 0 if no
            handler wanted the event.
        failed: How many events of the cascade failed. At most 1 without `errors="continue"`.
        failed_event: The event that raised `error`: the root or a follow-up; or None.
    """

    event: E_co
    index: int
    value: Any = None
    stopped: bool = False
    error: BaseException | None = None
    handler: str | None = None
    attempts: int = 1
    events: int = 1
    seconds: float = 0.0
    processed: E_co | None = None
    path: tuple[int, ...] = ()
    emitted: list[Any] = field(default_factory=list)
    handlers: int = 0
    failed: int = 0
    failed_event: Event | None = None

    def unwrap(self) -> Any:
        """Return the value, or raise the error."""
        try:
            if self.error is not None:
                raise self.error
            return self.value
        finally:
            del self  # the error's traceback refers to this frame
