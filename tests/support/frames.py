"""A worker that is fed with frames in this process."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import evproc
from evproc_pool.coordinator.codec import PACE
from evproc_pool.protocol import messages, status_words
from evproc_pool.protocol.frame import Data, Frame
from evproc_pool.protocol.limits import Limits
from evproc_pool.serialization import packing, pickling
from evproc_pool.testing import ManualClock
from evproc_pool.worker.loop import Worker
from evproc_pool.worker.quota import Quota

_NO_LIMITS = Limits()


class Plain(evproc.Event):
    name = "plain"

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class FedChannel:
    """Gives frames, then says QUIT; keeps what is sent."""

    takes_buffers = True

    def __init__(self, *frames: Frame) -> None:
        self.frames = deque(frames)
        self.sent: list[Frame] = []

    def receive(self) -> Frame:
        return self.frames.popleft() if self.frames else Frame(messages.QUIT, b"")

    def send(self, tag: int, payload: Data, buffers: Sequence[memoryview] = ()) -> None:
        self.sent.append(Frame(tag, payload, [memoryview(bytes(each)) for each in buffers]))


def make_worker(
    channel: FedChannel,
    words: list[int],
    limits: Limits = _NO_LIMITS,
    clock: ManualClock | None = None,
) -> Worker:
    processor = evproc.Processor()
    processor.register(lambda proc, ev: None, "quiet")
    processor.register(evproc.want(lambda ev: ev.number % 2)(_odd), "odd")
    return Worker(
        channel, processor, words, quota=Quota(limits), pace=PACE, clock=clock or ManualClock(1.0)
    )


def _odd(proc: Any, ev: Any) -> None:
    raise evproc.StopProcessing(ev.number)


def items_of(column: packing.PackedColumn | None) -> dict[int, Any]:
    """What events left behind of one kind, by position; `ErrorRecord` for what cannot be."""
    if column is None:
        return {}
    column = packing.PackedColumn(*column)
    if column.is_together:
        items = packing.unpack_column(column)
    else:
        items = [
            each if isinstance(each, messages.ErrorRecord) else packing.unpack_value(each)
            for each in column.data
        ]
    return dict(zip(column.positions, items, strict=True))


def run_batches(
    handler: Any, *sizes: int, frames: Sequence[Frame] = ()
) -> list[messages.ProgressFrame]:
    """Let a worker run batches of so many events for one handler; give what it results.

    Args:
        handler: Is given the worker, too, as its third argument.
        sizes: Of the batches.
        frames: What it is sent after these.
    """
    batches = [batch_of(range(sizes[0]), plan=(2,))]
    batches += [batch_of(range(size), is_known=True) for size in sizes[1:]]
    channel = FedChannel(*batches, *frames)
    worker = make_worker(channel, words_of())
    worker._processor.register(lambda proc, ev: handler(proc, ev, worker), "handler")
    worker.run()
    return [
        load_any_progress(frame)
        for frame in channel.sent
        if frame.tag in (messages.PROGRESS, messages.QUIET)
    ]


def load_any_progress(frame: Frame) -> messages.ProgressFrame:
    """Load a frame of either kind."""
    if frame.tag == messages.QUIET:
        return messages.load_quiet(frame.payload)
    return messages.load_progress(frame.payload, frame.buffers)


def batch_of(numbers: range, plan: tuple[int, ...] = (0,), *, is_known: bool = False) -> Frame:
    packed = packing.EventPacker().pack([Plain(number) for number in numbers])
    if is_known:
        return Frame(messages.EVENTS, messages.dump_events(0, len(numbers), 1.0, packed.data))
    new = [(0, plan)]
    frame = messages.BatchFrame(new, 0, len(numbers), (), (), 1.0, packed)
    return Frame(messages.BATCH, pickling.dumps(tuple(frame)))


def words_of(taken_to: int = 0) -> list[int]:
    words = [0] * status_words.WORDS
    words[status_words.UNSENT] = status_words.NONE
    words[status_words.TAKEN_TO] = taken_to
    return words
