"""`Outcome`: how the cascade of a root event ended, or one event of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from evproc import Event


@dataclass(slots=True)
class Outcome:
    """How a root event and its follow-ups ended.

    With `every_event=True` also how a single follow-up ended: the attributes describe that
    event alone then.

    Attributes:
        event: The root event, the object that was handed in; or the follow-up.
        index: The place of the root in the input, from 0.
        value: What `Processor.process` would return.
        stopped: Whether a handler ended the cascade by `StopProcessing(value)`.
        error: What `Processor.process` would raise, or None. With `errors="continue"` the
            first error in the cascade's order; there may be a value beside it.
        handler: The name of the handler that raised it, if one did.
        attempts: How often the event of the cascade was run that was run most often: 1,
            unless one failed and was run again (`max_retries`, `crash_limit`).
        events: How many events of the cascade were handled.
        seconds: How long that took in the workers.
        processed: With `return_events=True`, the event as the handlers left it, its `proc`
            namespaces included. None if it failed, and for a root also if a follow-up's
            error ended the cascade.
        path: Names the event, whatever the timing: `(17,)` is root 17, `(17, 2, 0)` the first
            follow-up of its third follow-up. All follow-ups that an event's handlers returned
            count, in order, from 0; also those that no handler wants.
        emitted: What the handlers gave to `ev.emit`, in the order of the cascade: that of
            `Processor.process`, by path, shorter paths first. What a failed event or a failed
            attempt emitted is forgotten.
        handlers: How many handlers were called, each event's in its last attempt; 0 if no
            handler wanted the event.
        failed: How many events of the cascade failed. At most 1 without `errors="continue"`.
        failed_event: The event whose error this is: the root or a follow-up; or None.
    """

    event: Event
    index: int
    value: Any = None
    stopped: bool = False
    error: BaseException | None = None
    handler: str | None = None
    attempts: int = 1
    events: int = 1
    seconds: float = 0.0
    processed: Event | None = None
    path: tuple[int, ...] = ()
    emitted: list[Any] = field(default_factory=list)
    handlers: int = 0
    failed: int = 0
    failed_event: Event | None = None

    def unwrap(self) -> Any:
        """Return the value, or raise the error."""
        if self.error is not None:
            raise self.error
        return self.value
