"""Single events that go to a worker past the scheduler.

A round trip through the scheduler takes three times as long as one through the worker: 110 us of
CPU time for `process` in the caller, and 340 us through the scheduler (an event that is answered
by an int, CPython 3.11). So if nothing else is going on, a single event goes straight to the
worker that would get it. If what comes back is its value, or nothing, the scheduler never hears of
it. Otherwise (it takes longer, the worker died, somebody else wants something) the scheduler
takes the event in before anything else is done: see `Coordinator.adopt`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import Any, Final

from evproc_pool.coordinator.codec import Answer, Codec
from evproc_pool.coordinator.worker_record import WorkerRecord
from evproc_pool.core.event_columns import PlanLike
from evproc_pool.core.supervisor import Supervisor
from evproc_pool.protocol.backend import Arrived, Backend, Link
from evproc_pool.protocol.frame import Frame
from evproc_pool.protocol.messages import OUTPUT

# How long the short way waits for an answer before the scheduler takes the event in.
_ANSWER_SECONDS: Final = 0.005


class SentSingle:
    """An event that was sent to a worker by itself, past the scheduler.

    Attributes:
        worker: Which.
        number: Of the worker's batches.
        link: To the worker.
        frames: What has come back.
    """

    __slots__ = ("frames", "link", "number", "worker")

    def __init__(self, worker: int, number: int, link: Link) -> None:
        self.worker = worker
        self.number = number
        self.link = link
        self.frames: Sequence[Frame] = ()


class SingleEvents:
    """Sends single events, one at a time, and takes in their answers.

    `arrived` is called with what else a worker has sent.
    """

    def __init__(
        self,
        codec: Codec,
        backend: Backend,
        supervisor: Supervisor,
        workers: Mapping[int, WorkerRecord],
        arrived: Callable[[Arrived], None],
    ) -> None:
        self._codec = codec
        self._backend = backend
        self._supervisor = supervisor
        self._workers = workers
        self._arrived = arrived
        # The worker that may get one; None: not known, since something has happened.
        self._free: tuple[WorkerRecord, Link] | None = None

    def forget(self) -> None:
        """Find out anew which worker may get one, since something has happened."""
        self._free = None

    def send(self, ev: Any, plan: PlanLike) -> SentSingle | None:
        """Send an event to a worker that has nothing to do; None: there is none, or it may not."""
        free = self._free or self._find_free()
        if free is None:
            return None
        record, link = free
        try:
            frame = self._codec.encode_one(ev, plan, record.plans)
        except Exception:
            return None  # the scheduler's way will say what is wrong with it
        if frame is None:
            return None
        record.batches += 1
        link.send(*frame)
        return SentSingle(record.worker, record.batches, link)

    def _find_free(self) -> tuple[WorkerRecord, Link] | None:
        worker = self._supervisor.single
        link = None if worker is None else self._backend.link(worker)
        if worker is not None and link is not None:
            self._free = self._workers[worker], link
        return self._free

    def wait(self, single: SentSingle, seconds: float = inf) -> bool:
        """Wait a moment for the answer; return whether it is there, or something else."""
        return single.link.wait(min(_ANSWER_SECONDS, seconds))

    def answer(self, single: SentSingle) -> Answer | None:
        """Take in what has come back; None if that is no answer: an error, or follow-ups."""
        frames = single.link.receive()
        if frames and frames[0].tag in OUTPUT:
            frames = self._behind_output(single, frames)
        answer = self._codec.answer(frames[0]) if frames else None
        single.frames = frames
        if answer is not None and len(frames) > 1:
            for frame in frames[1:]:
                self._arrived(Arrived(single.worker, *frame))
        return answer

    def _behind_output(self, single: SentSingle, frames: list[Frame]) -> list[Frame]:
        """Take in what handlers have logged; return what follows, for which it waits a moment."""
        end = time.perf_counter() + _ANSWER_SECONDS
        while True:
            others = [frame for frame in frames if frame.tag not in OUTPUT]
            for frame in frames:
                if frame.tag in OUTPUT:
                    self._arrived(Arrived(single.worker, *frame))
            left = end - time.perf_counter()
            if others or left <= 0 or not single.link.wait(left):
                return others
            frames = single.link.receive()
