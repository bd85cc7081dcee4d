"""`RunHandle`, which the engine and a caller share, and `OutcomeSink`, which gets the endings."""

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
    """Gets the endings of a run. The driver calls it, one call at a time."""

    def begins(self, root: int) -> bool:
        """Take note that a root goes to a worker. False, if it was cancelled: it does not run."""

    def refused(self, roots: Sequence[int]) -> Sequence[int]:
        """As `begins`, for several roots; return those that do not run."""

    def ended(self, root: int, ending: Ending) -> None:
        """Take the ending of a root's cascade that `settled` and `over` cannot express."""

    def settled(self, item: Settled) -> None:
        """Take the endings of neighbouring roots without follow-ups or error."""

    def over(self, item: Over) -> None:
        """Take the endings of cascades without error."""

    def event_ended(self, item: EventEnded) -> None:
        """Take the ending of a follow-up. Only called with `every_event`."""

    def dropped(self, first: int, roots: int) -> None:
        """Take note of roots that were given up."""

    def broken(self, error: PoolError) -> None:
        """Take the reason why no more endings come: the pool has ended."""


class RunHandle:
    """A run, shared by the engine and its caller.

    Attributes:
        id: For the scheduler.
        sink: Gets the endings.
        can_cancel: Whether the sink's `begins` decides for each root whether it runs.
        return_events: Whether roots come back as the handlers left them.
        has_several: Whether its roots have places in an input, by which errors name them.
        is_closing: Whether no more roots come.
        caller: The thread that is in a call until the run is finished, or None.
        is_finished: Whether no more endings come.
        error: The reason, if the engine ended the run.
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
