"""A worker of the scheduler, as calls of an executor: one on its way at a time."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, Final

from evproc_pool.backends.executor.one_at_a_time import OneAtATime
from evproc_pool.errors import InternalError
from evproc_pool.protocol import messages
from evproc_pool.protocol.frame import Data
from evproc_pool.serialization import pickling
from evproc_pool.worker.plain_calls import Batch

#: The numbers of plans, with the indices of their handlers. All workers have the same.
Plans = dict[int, tuple[int, ...]]

#: How often a call is submitted again that never began, since somebody else has cancelled it.
MOST_CANCELLED: Final = 3


def whole_frame(tag: int, payload: Data, plans: Plans) -> messages.BatchFrame:
    """Read a batch, with all plans that it uses: it may land where none is known.

    `plans` grows by those that are new.
    """
    if tag == messages.EVENTS:
        frame = messages.load_events(payload)
    else:
        frame = messages.BatchFrame(*pickling.loads(payload))
        plans.update(frame.new_plans)
    used = {frame.plans} if isinstance(frame.plans, int) else {*frame.plans}
    used.discard(messages.OMITTED)
    frame = frame._replace(new_plans=[(number, plans[number]) for number in sorted(used)])
    if isinstance(frame.events.data, memoryview):
        frame = frame._replace(events=frame.events._replace(data=bytes(frame.events.data)))
    return frame


class Running:
    """A call on its way.

    Attributes:
        lane: Its lane.
        future: Its future.
        generation: Which of the executors has it.
        is_start: Whether it only makes the registry.
        has_config: Whether it brings the config.
        has_company: Whether another call was on its way at any moment since.
        is_asked_back: Whether it was cancelled since the coordinator wants its batch back.
        is_given_up: Whether it ran for too long, so that nobody waits for it.
        since: When it was first seen to run, in monotonic seconds; None: not yet.
    """

    def __init__(
        self,
        lane: Lane,
        future: Future[Any],
        generation: int,
        *,
        is_start: bool,
        has_config: bool,
    ) -> None:
        self.lane = lane
        self.future = future
        self.generation = generation
        self.is_start = is_start
        self.has_config = has_config
        self.has_company = False
        self.is_asked_back = False
        self.is_given_up = False
        self.since: float | None = None


def is_answer(answer: object, running: Running) -> bool:
    """Whether an executor gave what `plain_calls.run` returns; some give something else."""
    if answer is None:
        return not running.has_config
    if not isinstance(answer, list) or (running.is_start and len(answer) != 1):
        return False
    return all(
        isinstance(each, tuple)
        and len(each) == 2
        and isinstance(each[0], int)
        and isinstance(each[1], bytes)
        for each in answer
    )


class Lane:
    """A worker; see the module's text.

    Attributes:
        number: The worker's.
        expected: The READY frame of its first call; None: it is starting.
        generation: Which of the executors has answered it last.
        batches: How many batches it was sent.
        frame: The batch that it has, or None.
        running: The call that is on its way, or None.
        cancelled: How many calls for this batch were cancelled by somebody else.
        needs_config: Whether the next call brings the config.
        waits: Whether it has asked the coordinator for the batch again, packed one by one.
        is_suspect: Whether its last call was lost, so that the next ones run alone.
        singles: Runs the batch one event at a time, or None.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.expected: bytes | None = None
        self.generation = -1
        self.batches = 0
        self.frame: messages.BatchFrame | None = None
        self.running: Running | None = None
        self.cancelled = 0
        self.needs_config = True
        self.waits = False
        self.is_suspect = False
        self.singles: OneAtATime | None = None
        self._buffers: list[bytearray] = []
        self._modules: bytes | None = None
        self._blobs: list[bytes] | None = None

    @property
    def has_call(self) -> bool:
        """Whether there is a call to submit."""
        is_free = self.running is None and not self.waits
        return is_free and (self.expected is None or self.frame is not None)

    def take(self, frame: messages.BatchFrame, buffers: Sequence[memoryview]) -> None:
        """Take the next batch; its buffers are copied."""
        self.batches += 1
        self.frame = frame
        self._buffers = [bytearray(each) for each in buffers]
        self._modules = self._blobs = None
        self.cancelled = 0

    def take_modules(self, payload: Data) -> None:
        """Take a MODULES frame, for the next call."""
        self._modules = bytes(payload)

    def take_one_by_one(self, payload: Data) -> None:
        """Take the batch again, packed one by one."""
        blobs: list[bytes] = pickling.loads(payload)
        self.waits = False
        self._blobs = blobs
        if self.frame is not None:
            events = self.frame.events._replace(
                one_by_one=True, data=blobs, in_parts=False, large=(0, 0)
            )
            self.frame = self.frame._replace(events=events)
            self._buffers = []
            self._run_apart()

    def suspect(self) -> bool:
        """Have what it has run alone; return whether it needs the events one by one for that."""
        self.is_suspect = True
        self._run_apart()
        self.waits = self.frame is not None and self.frame.size > 1 and self._blobs is None
        return self.waits

    def _run_apart(self) -> None:
        if self.is_suspect and self.frame is not None and self._blobs is not None:
            self.singles = OneAtATime(self.batches, self.frame, self._blobs)

    @property
    def overdue_seconds(self) -> float:
        """After how many seconds the call does not begin another event."""
        return 0.0 if self.frame is None or self.singles is not None else self.frame.overdue

    def end_batch(self) -> None:
        """Forget the batch, which is over."""
        self.frame = self.singles = self._blobs = self._modules = None
        self._buffers = []
        self.is_suspect = False

    def call(self) -> Batch:
        """What the next call is to run."""
        if self.frame is None:
            raise InternalError(f"worker {self.number} has nothing to run")
        if self.singles is not None:
            return self.singles.call()._replace(modules=self._modules)
        payload = messages.dump_batch(self.frame)
        return Batch(self.batches, payload, self._buffers, self._modules)
