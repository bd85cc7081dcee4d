"""What the coordinator knows of a worker besides its process. Plain data."""

from __future__ import annotations

from collections import deque

from evproc_pool.coordinator.codec import Sent
from evproc_pool.protocol import messages


class WorkerRecord:
    """A worker.

    Attributes:
        is_ready: Whether it has made its registry.
        batches: How many it was sent.
        sent: Those that are not over, in order.
        plans: The numbers of the plans that it knows.
        stalled: Frames (and the numbers of skipped batches) that wait until the
            follow-ups of the first of them have come again, packed one by one.
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
