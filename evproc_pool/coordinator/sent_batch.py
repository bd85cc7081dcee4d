"""What the coordinator knows of a batch that a worker has. Plain data."""

from __future__ import annotations

from collections.abc import Sequence

from evproc_pool.core.batches import Batch


class Sent:
    """A batch on its way.

    Attributes:
        batch: The batch of the scheduler.
        number: The number of the batch for its worker, from 1.
        failures: By position, why an event is not sent.
        is_one_by_one: Whether each event is pickled by itself, to find the one that crashes.
        class_bytes: How many of its bytes are classes, not events.
        large: The large buffers of its events that the worker may read until they are over.
    """

    __slots__ = ("batch", "class_bytes", "failures", "is_one_by_one", "large", "number")

    def __init__(self, batch: Batch, number: int) -> None:
        self.batch = batch
        self.number = number
        self.failures: dict[int, BaseException] = {}
        self.is_one_by_one = False
        self.class_bytes = 0
        self.large: Sequence[memoryview] = ()
