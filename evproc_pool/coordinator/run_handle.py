"""`RunHandle`, which the engine and a caller share, and `OutcomeSink`, which gets the endings."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

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


class OutcomeSink:
    """Gets the endings of a run: the base of all sinks. The driver calls it, one call at a time.

    The caller's thread reports roots that it has read, and the endings of those that never reach a
    worker.

    Attributes:
        has_failed: Whether a root has failed.
    """

    has_failed = False

    def begins(self, root: int) -> bool:
        """Take note that a root goes to a worker. False, if it was cancelled: it does not run."""
        return root >= 0

    def refused(self, roots: Sequence[int]) -> Sequence[int]:
        """As `begins`, for several roots; return those that do not run."""
        return [root for root in roots if not self.begins(root)]

    def returned(self, roots: Sequence[int], *, may_have_run: bool) -> None:
        """Take note that roots come back from a worker, which has reported none of them."""

    def accepted(self, first: int, events: Sequence[Any]) -> None:
        """Take note of roots that were read."""

    def ended(self, root: int, ending: Ending) -> None:
        """Take the ending of a root's cascade that `settled` and `over` cannot express."""

    def settled(self, item: Settled) -> None:
        """Take the endings of neighbouring roots without follow-ups or error."""

    def unwanted(self, first: int, roots: int) -> None:
        """Take note of roots that no handler wants: they end at once, without a value."""
        self.settled(Settled(0, first, [0.0] * roots, 0))

    def over(self, item: Over) -> None:
        """Take the endings of cascades without error."""
        for ending, root in zip(endings_of(item), item.roots, strict=True):
            self.ended(root, ending)

    def event_ended(self, item: EventEnded) -> None:
        """Take the ending of a follow-up. Only called with `every_event`."""

    def broken(self, error: PoolError) -> None:
        """Take the reason why no more endings come: the pool has ended."""


def endings_of(item: Over) -> Iterator[Ending]:
    """Yield the ending of each cascade."""
    stopped = set(item.values.places) if item.values is not None else ()
    values = item.values.items if item.values is not None else itertools.repeat(None)
    columns = zip(values, item.events, item.seconds, item.handlers, strict=False)
    for place, (value, events, seconds, handlers) in enumerate(columns):
        is_stopped = place in stopped
        yield Ending(value, is_stopped, events=events, seconds=seconds, handlers=handlers)


class RunHandle:
    """A run, shared by the engine and its caller.

    Attributes:
        id: For the scheduler.
        sink: Gets the endings.
        can_cancel: Whether the sink's `begins` decides for each root whether it runs.
        has_several: Whether its roots have places in an input, by which errors name them.
        is_closing: Whether no more roots come.
        caller: The thread that is in a call until the run is finished, or None.
        is_finished: Whether no more endings come.
        error: The reason, if the engine ended the run.
    """

    def __init__(self, opened: Opened, sink: OutcomeSink, *, can_cancel: bool) -> None:
        self.id = opened.run
        self.sink = sink
        self.can_cancel = can_cancel
        self.has_several = opened.has_several
        self.is_closing = False
        self.caller: int | None = None
        self.is_finished = False
        self.error: PoolError | None = None


def deliver(
    effect: Settled | Over | Ended | EventEnded | Dropped | Finished, runs: dict[int, RunHandle]
) -> None:
    """Tell the sink of a run what the scheduler has decided; forget a run that is finished."""
    run = runs[effect.run]
    match effect:
        case Settled():
            run.sink.settled(effect)
        case Over():
            run.sink.over(effect)
        case Ended():
            run.sink.ended(effect.root, effect.ending)
        case EventEnded():
            run.sink.event_ended(effect)
        case Finished():
            run.is_finished = True
            del runs[effect.run]


def break_all(runs: dict[int, RunHandle], reason: PoolError) -> None:
    """Tell all runs why they end, and forget them."""
    for run in list(runs.values()):
        run.error = reason
        run.is_finished = True
        run.sink.broken(reason)
    runs.clear()
