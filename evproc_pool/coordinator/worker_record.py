"""What the coordinator knows of a worker besides its process. Plain data."""

from __future__ import annotations

from collections import deque

from evproc_pool.coordinator.codec import Sent
from evproc_pool.protocol import messages


class WorkerRecord:
    """A worker.

    Attributes:
        asked_for: The number of the last batch that it was asked to give back.
        is_ready: Whether it has made its registry.
        is_ending: Whether it will end soon, and its replacement is to be started.
        is_retired: Whether it is sent nothing more.
        batches: How many it was sent.
        sent: Those that are not over, in order.
        plans: The numbers of the plans that it knows.
        stalled: Frames (and the numbers of skipped batches) that wait until the
            follow-ups of the first of them have come again, packed one by one.
    """

    __slots__ = (
        "asked_for",
        "batches",
        "is_ending",
        "is_ready",
        "is_retired",
        "plans",
        "sent",
        "stalled",
    )

    def __init__(self) -> None:
        self.asked_for = 0
        self.is_ready = False
        self.is_ending = False
        self.is_retired = False
        self.batches = 0
        self.sent: deque[Sent] = deque()
        self.plans: set[int] = set()
        self.stalled: deque[messages.ProgressFrame | int] = deque()
