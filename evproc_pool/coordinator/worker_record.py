"""What the coordinator knows of a worker besides its process, and of the batches that it has."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple

from evproc_pool.core.batches import Batch
from evproc_pool.core.supervisor_inputs import Seen
from evproc_pool.protocol import messages
from evproc_pool.protocol.status_words import NONE, WorkerStatus

_NOTHING: Final = array("d")


class Stopped(NamedTuple):
    """The event that a dead worker ran, and for about how many seconds."""

    batch: Batch
    position: int
    seconds: float


class Sent:
    """A batch on its way.

    Attributes:
        batch: The batch of the scheduler.
        number: The number of the batch for its worker, from 1.
        failures: By position, why an event is not sent.
        is_one_by_one: Whether each event is pickled by itself, to find the one that crashes.
        large: The large buffers of its events that the worker may read until they are over.
        chains: See `messages.BatchFrame`.
        skip_to: Events before this position do not run any more, since their chain has ended.
        begins: When handlers began, of events that are not reported yet.
    """

    __slots__ = (
        "batch",
        "begins",
        "chains",
        "failures",
        "is_one_by_one",
        "large",
        "number",
        "skip_to",
    )

    def __init__(self, batch: Batch, number: int) -> None:
        self.batch = batch
        self.number = number
        self.failures: dict[int, BaseException] = {}
        self.is_one_by_one = False
        self.large: Sequence[memoryview] = ()
        self.chains: Sequence[tuple[int, int, int]] = ()
        self.skip_to = 0
        self.begins: array[float] = _NOTHING


class WorkerRecord:
    """What the coordinator knows of one worker.

    Attributes:
        worker: Its number.
        is_ready: Whether it has made its registry.
        batches: How many batches it was sent.
        sent: Its batches that are not over, in order.
        plans: The numbers of the plans that it knows.
        stalled: Frames, and numbers of batches that it left out, which wait until the results of
            the first one have come again, packed one by one.
        seen: Where it was at the last look.
        stack: Its stacks just before it was killed.
    """

    def __init__(self, worker: int) -> None:
        self.worker = worker
        self.is_ready = False
        self.batches = 0
        self.sent: deque[Sent] = deque()
        self.plans: set[int] = set()
        self.stalled: deque[messages.ProgressFrame | int] = deque()
        self.seen: WorkerStatus | None = None
        self.stack = ""

    @property
    def in_flight(self) -> int:
        """How many events it has that are not known to be over."""
        return sum([sent.batch.size - sent.batch.done for sent in list(self.sent)])


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
