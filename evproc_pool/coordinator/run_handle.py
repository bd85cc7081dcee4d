"""A run as the engine and its caller share it, and where its endings go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from evproc_pool.core.inputs_and_effects import (
    Dropped,
    Ended,
    Ending,
    EventEnded,
    Finished,
    Opened,
    Over,
    Settled,
)
from evproc_pool.errors import PoolError


class OutcomeSink(Protocol):
    """Where a run's endings go. Called by the driver, one call at a time."""

    def begins(self, root: int) -> bool:
        """The root goes to a worker; False (it was cancelled) keeps it from running."""

    def refused(self, roots: Sequence[int]) -> Sequence[int]:
        """These roots go to a worker; those of them that `begins` would keep from running."""

    def ended(self, root: int, ending: Ending) -> None:
        """A root's cascade ended with something to tell."""

    def settled(self, item: Settled) -> None:
        """Roots ended without follow-ups or error."""

    def over(self, item: Over) -> None:
        """Cascades ended without error."""

    def event_ended(self, item: EventEnded) -> None:
        """An event that is no root is over; only where that is asked for."""

    def dropped(self, first: int, roots: int) -> None:
        """These roots were given up."""

    def broken(self, error: PoolError) -> None:
        """No more endings come, because the pool has ended."""


class RunHandle:
    """A run as the engine and its caller share it.

    Attributes:
        id: For the scheduler.
        sink: Where its endings go.
        can_cancel: Whether to ask `run_handle.begins` for each root.
        return_events: Whether roots come back as the handlers left them.
        has_several: Whether its roots have places in an input, by which errors name them.
        is_closing: Whether no more roots come.
        caller: The thread that is in a call until the run is finished, if one is.
        is_finished: Whether there will be no more endings.
        error: Why the engine ended it, if it did.
    """

    __slots__ = (
        "caller",
        "can_cancel",
        "error",
        "has_several",
        "id",
        "is_closing",
        "is_finished",
        "return_events",
        "sink",
    )

    def __init__(self, opened: Opened, sink: OutcomeSink, *, can_cancel: bool) -> None:
        self.id = opened.run
        self.sink = sink
        self.can_cancel = can_cancel
        self.return_events = opened.return_events
        self.has_several = opened.has_several
        self.is_closing = False
        self.caller: int | None = None
        self.is_finished = False
        self.error: PoolError | None = None

    def deliver(self, effect: Settled | Over | Ended | EventEnded | Dropped | Finished) -> None:
        """Give the sink what has ended."""
        match effect:
            case Settled():
                self.sink.settled(effect)
            case Over():
                self.sink.over(effect)
            case Ended():
                self.sink.ended(effect.root, effect.ending)
            case EventEnded():
                self.sink.event_ended(effect)
            case Dropped():
                self.sink.dropped(effect.first, effect.roots)
            case Finished():
                self.is_finished = True
