"""Which places of workers an agent tells its coordinator. Pure.

The coordinator decides by where workers are: about timeouts, about work behind a slow event, about
results that wait. It cannot read the status words of another node. So the agent reads them every
`TICK_SECONDS`, and tells what has changed:

- a worker that is at the same event at two ticks is slow, and its place is told, once;
- when it has gone on, that is told, once;
- the place of a worker that has just sent something is told with it, for the case that the node is
  lost: it says which event was running.

So a long event costs no message while it runs, and quick events cost a tuple in a message that is
sent anyway. **Precision**: the coordinator knows of a slow event after two ticks and the message's
way at the latest, so timeouts strike that much later than on one machine. It never takes a worker
for slow that is not: `take_back` and `kill_stuck` are decided by the agent, which looks again.

Rejected: places of all workers at every tick (200 messages a second for each node, which say
nothing new); the supervisor on each node (the decisions would be in two places).
"""

from __future__ import annotations

from typing import Final

from evproc_pool.backends.agents.messages import Seen
from evproc_pool.protocol.status_words import NONE, WorkerStatus

#: How often an agent looks at its busy workers, in seconds.
TICK_SECONDS: Final = 0.01


class _Record:
    """What is known of a worker.

    Attributes:
        sent: How many batches it was sent.
        at: Where it was at the last look; None: there was none.
        since: When it was first seen there.
        is_told: Whether the coordinator knows that it is slow.
    """

    __slots__ = ("at", "is_told", "sent", "since")

    def __init__(self) -> None:
        self.sent = 0
        self.at: WorkerStatus | None = None
        self.since = 0.0
        self.is_told = False

    @property
    def is_busy(self) -> bool:
        """Whether it may become slow, or go on, without a frame."""
        if self.at is None:
            return self.sent > 0
        return self.at.position != NONE or self.at.batch < self.sent or self.is_told


class ActivityWatch:
    """See the module's text."""

    def __init__(self) -> None:
        self._records: dict[int, _Record] = {}

    @property
    def busy(self) -> list[int]:
        """The workers that have to be looked at with the next tick."""
        return [worker for worker, record in self._records.items() if record.is_busy]

    def has_more(self, worker: int) -> bool:
        """Whether a worker certainly has more to do than what it has reported.

        An event that is over may be the last one of its batch.
        """
        record = self._records.get(worker)
        if record is None or record.at is None:
            return False
        at = record.at
        return at.batch < record.sent or (at.position != NONE and not at.is_over)

    def note_batch(self, worker: int) -> None:
        """Note that a worker was sent a batch."""
        self._records.setdefault(worker, _Record()).sent += 1

    def forget(self, worker: int) -> None:
        """Forget a worker that is gone."""
        self._records.pop(worker, None)

    def look(
        self, worker: int, at: WorkerStatus, now: float, *, has_sent: bool = False
    ) -> Seen | None:
        """Take in where a worker is; return what to tell, if anything.

        `has_sent`: whether a frame of it is about to be told.
        """
        record = self._records.setdefault(worker, _Record())
        before, record.at = record.at, at
        if before is None or before.activity != at.activity:
            record.since = now
        is_slow = at.position != NONE and now - record.since >= TICK_SECONDS
        is_news = has_sent or is_slow != record.is_told or (is_slow and before != at)
        record.is_told = is_slow
        return Seen(worker, at, is_slow) if is_news else None
