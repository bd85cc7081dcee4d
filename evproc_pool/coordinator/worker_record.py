"""What the coordinator knows of a worker besides its process. Plain data."""

from __future__ import annotations

from collections import deque

from evproc_pool.coordinator.sent_batch import Sent
from evproc_pool.core.supervisor_inputs import Seen
from evproc_pool.protocol import messages
from evproc_pool.protocol.status_words import NONE, WorkerStatus


class WorkerRecord:
    """What the coordinator knows of one worker.

    Attributes:
        is_ready: Whether it has made its registry.
        batches: How many batches it was sent.
        sent: Its batches that are not over, in order.
        plans: The numbers of the plans that it knows.
        stalled: Frames, and numbers of batches that it left out, which wait until the results of
            the first one have come again, packed one by one.
    """

    __slots__ = (
        "batches",
        "is_ready",
        "plans",
        "sent",
        "stalled",
    )

    def __init__(self) -> None:
        self.is_ready = False
        self.batches = 0
        self.sent: deque[Sent] = deque()
        self.plans: set[int] = set()
        self.stalled: deque[messages.ProgressFrame | int] = deque()


def seen_at(sent: Sent, at: WorkerStatus, *, is_cancelled: bool = False) -> Seen:
    """Return where a worker is, relative to its first batch."""
    is_at_event = at.batch == sent.number and at.position >= 0
    return Seen(
        at.position if is_at_event else None,
        at.activity,
        at.is_over,
        at.runs_code,
        at.handler,
        at.packing,
        is_cancelled,
        is_between=at.position == NONE,
    )
