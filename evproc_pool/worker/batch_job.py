"""A batch that a worker is running: what to call for its events, and what ends its chains."""

from __future__ import annotations

from math import inf
from typing import Final

from evproc.handler import Handler
from evproc_pool.protocol import messages

#: The handlers of an event, each with the code that its place is published with.
Calls = tuple[tuple[int, Handler], ...]


class BatchJob:
    """A batch that is being run.

    Attributes:
        calls: What to call for each event; empty for an event that must not run any more.
        returns: Positions of events to send back.
        overdue: When it takes longer than planned, by the worker's clock.
        stop: How many of its events this worker may run.
        report_seconds: How long results may wait until they are sent, while events are fast.
        has_chains: Whether an event of it may leave others unrun.
        is_timed: Whether to note when each handler begins.
    """

    def __init__(
        self,
        batch: messages.BatchFrame,
        calls: list[Calls],
        overdue: float,
        stop: int,
        report_seconds: float,
        *,
        is_timed: bool = False,
    ) -> None:
        self.size = batch.size
        self.calls = calls
        self.returns = frozenset(batch.return_events)
        self.overdue = overdue
        self.stop = stop
        self.is_prompt = batch.is_prompt
        self.report_seconds = report_seconds
        self.has_chains = bool(batch.chains)
        self.is_timed = is_timed
        self._chains: dict[int, tuple[int, int]] = {}
        if batch.chains:
            for first, last, ends in batch.chains:
                self._chains.update(dict.fromkeys(range(first, last), (last, ends)))
            for position, to_call in enumerate(calls):
                if not to_call:
                    self.end_chain(position, messages.ENDS_BY_ERROR)

    def end_chain(self, position: int, how: int) -> None:
        """Let the rest of an event's chain not run, if the chain ends in this way."""
        stop, ends = self._chains.get(position, (0, 0))
        if ends & how:
            self.calls[position + 1 : stop] = [()] * (stop - position - 1)


class SingleEventJob:
    """A batch of one event; see `BatchJob`. It has no later event to send results before."""

    size = stop = 1
    returns: frozenset[int] = frozenset()
    overdue = report_seconds = inf
    has_chains = is_prompt = False

    def __init__(self, *, is_timed: bool) -> None:
        self.is_timed = is_timed

    def end_chain(self, position: int, how: int) -> None:
        """Do nothing: one event has no chain."""


SINGLE_EVENT: Final = SingleEventJob(is_timed=False)
TIMED_EVENT: Final = SingleEventJob(is_timed=True)
