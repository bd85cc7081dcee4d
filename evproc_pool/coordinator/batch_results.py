"""Progress of workers: unpacked, and reported to the supervisor."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from evproc.event import describe_event
from evproc.exc import add_note
from evproc.registry import Registry
from evproc_pool.coordinator.codec import NO_RESULTS, Codec, UnpackedResults
from evproc_pool.coordinator.worker_record import Sent, WorkerRecord
from evproc_pool.core.batches import Batch
from evproc_pool.core.event_columns import Times
from evproc_pool.core.inputs_and_effects import Progress, Result
from evproc_pool.core.supervisor_inputs import Input
from evproc_pool.errors import InternalError, SerializationError
from evproc_pool.protocol import messages
from evproc_pool.protocol.backend import Backend
from evproc_pool.protocol.path_modules import find_missing
from evproc_pool.serialization import packing, pickling

if TYPE_CHECKING:
    from evproc_pool.coordinator.notices import Notices


class BatchResults:
    """Takes in progress frames, in order.

    A frame that cannot be unpacked stalls the worker's next ones until its content has come again,
    packed one by one.

    Attributes:
        notices: Tells the listeners; None: there are none.
    """

    def __init__(
        self,
        codec: Codec,
        registry: Registry,
        backend: Backend,
        step: Callable[[Input], bool],
        returned: Callable[[Batch, int], None],
    ) -> None:
        self._codec = codec
        self._registry = registry
        self._backend = backend
        self._step = step
        self._returned = returned  # called before the step, with the position of the first event
        self.notices: Notices | None = None

    def take(
        self, state: WorkerRecord, frame: messages.ProgressFrame, *, is_last_chance: bool = False
    ) -> None:
        """Unpack the results of a frame, plan follow-ups, and report it all.

        The frame waits behind those that are stalled. For `is_last_chance` see `Codec.unpack`.
        """
        if state.stalled:
            state.stalled.append(frame)
            return
        reported = frame.results
        if reported is None:
            self._apply(state, frame, NO_RESULTS)
            return
        pid = self._backend.pid(state.worker)
        where = (
            f"worker {state.worker}" if pid is None else f"worker {state.worker} (process {pid})"
        )
        try:
            unpacked = self._codec.unpack(
                reported, where, frame.large, is_last_chance=is_last_chance
            )
        except SerializationError:
            state.stalled.append(frame)
            self._backend.send(state.worker, messages.REPACK, pickling.dumps(reported.number))
        else:
            self._apply(state, frame, unpacked)

    def skipped(self, state: WorkerRecord, number: int) -> None:
        """Note that a worker left out a batch that was taken back."""
        if state.stalled:
            state.stalled.append(number)
        elif state.sent and state.sent[0].number == number:
            self._returned(state.sent[0].batch, 0)
            state.sent.popleft()
            self._step(Progress(state.worker, 0, (), gave_back=True))
        # otherwise it is known that it was taken back

    def unreadable(self, state: WorkerRecord, number: int, missing: str | None) -> None:
        """Send a batch again, one by one, after a module that the worker has missed."""
        modules = None if missing is None else find_missing(missing)
        if modules is not None:
            self._backend.send(state.worker, messages.MODULES, pickling.dumps(modules))
        (sent,) = [each for each in state.sent if each.number == number]
        packed = self._codec.pack_one_by_one(sent)
        self._backend.send(state.worker, messages.REPACKED, pickling.dumps(packed.data))

    def repacked(
        self,
        state: WorkerRecord,
        blobs: Sequence[Any],
        columns: Sequence[Sequence[packing.PackedValue]],
    ) -> None:
        """Take in the results of the first stalled frame, which have come again, one by one."""
        frames, state.stalled = state.stalled, deque()
        first = frames[0]
        if isinstance(first, int) or first.results is None:
            raise InternalError(f"worker {state.worker} repacked what was not asked for")
        reported = first.results.one_by_one(blobs, columns)
        frames[0] = first._replace(results=reported)
        for frame in frames:
            if isinstance(frame, int):
                self.skipped(state, frame)
            else:
                self.take(state, frame)

    def _apply(
        self, state: WorkerRecord, frame: messages.ProgressFrame, unpacked: UnpackedResults
    ) -> None:
        """Report a frame to the supervisor."""
        results = unpacked.results
        if not state.sent or state.sent[0].number != frame.number:
            # All of it was reported while its last event ran, and the rest taken back: the worker
            # gives back the same rest, which is no news.
            if len(frame.ends):
                raise InternalError(
                    f"worker {state.worker} reported batch {frame.number}, which is over"
                )
            return
        sent = state.sent[0]
        begin = sent.batch.done
        times = Times(frame.begun, memoryview(frame.ends).cast("d"))
        if (notices := self.notices) is not None and times:
            # first: the scheduler's step ends the cascades of these events
            notices.reported(state.worker, sent, frame, unpacked.follow_ups)
        ran = {
            position: 1 + sent.batch.at(position)[1].indices.index(index)
            for position, index in unpacked.last_ran.items()
        }
        for position, result in results.items():
            if result.error is not None and result.handler is None:
                event = describe_event(sent.batch.at(position)[0])
                add_note(result.error, f"evproc_pool: with event {event}")
        self._codec.over(sent, frame.done - begin)
        if sent.failures:
            results = {**results, **failures_within(sent, begin, frame.done)}
        if frame.done == sent.batch.size or frame.gave_back:
            if frame.gave_back:
                self._returned(sent.batch, frame.done)
            state.sent.popleft()
        self._step(
            Progress(
                state.worker,
                frame.done,
                times,
                unpacked.follow_ups,
                results,
                unpacked.processed,
                self._codec.timings(frame, sent.batch, times),
                gave_back=frame.gave_back,
                values=unpacked.values,
                emitted=unpacked.emitted,
                ran=ran,
                givers={
                    position: self._registry.handlers[index].name
                    for position, index in unpacked.givers.items()
                },
                cut=self._codec.cut(sent, frame.results) if results or unpacked.follow_ups else (),
                has_large=frame.results is not None and frame.results.follow_ups.has_large,
            )
        )


def failures_within(sent: Sent, begin: int, end: int) -> dict[int, Result]:
    """The failures of events that were not sent, from position `begin` up to `end`."""
    return {
        position: Result(error=failure)
        for position, failure in sent.failures.items()
        if begin <= position < end
    }
