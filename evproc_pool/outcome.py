"""`Outcome`: how the cascade of one root event ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from evproc import Event


@dataclass(slots=True)
class Outcome:
    """How a root event and its follow-ups ended.

    Attributes:
        event: The root event, the object that was handed in.
        index: Its place in the input, from 0.
        value: What `Processor.process` would return.
        stopped: Whether a handler ended the cascade by `StopProcessing(value)`.
        error: What `Processor.process` would raise, or None.
        handler: The name of the handler that raised it, if one did.
        attempts: How often the event of the cascade was run that was run most often: 1,
            unless one failed and was run again (`max_retries`, `crash_limit`).
        events: How many events of the cascade were handled.
        seconds: How long that took in the workers.
        processed: With `return_events=True`, the root event as the handlers left it,
            its `proc` namespaces included; None if it failed.
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

    def unwrap(self) -> Any:
        """Return the value, or raise the error."""
        if self.error is not None:
            raise self.error
        return self.value
