"""What a coordinator and an agent say to each other: lists of plain tuples, pickled.

The coordinator sends commands, the agent events, each in order. Everything that happens together
travels in one message. Frames are carried as they are; nobody on the way unpacks them.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from evproc_pool.protocol.frame import Data, Frame
from evproc_pool.protocol.status_words import WorkerStatus

#: Sends an empty message at least so often, in seconds; both sides.
HEARTBEAT_SECONDS: Final = 1.0

#: An agent that has sent nothing for so many seconds counts as lost.
FROZEN_SECONDS: Final = 15.0

#: An agent that has heard nothing of its coordinator for so many seconds ends. Longer: it may be
#: a program that does not let its other threads run.
ORPHANED_SECONDS: Final = 60.0


class Setup(NamedTuple):
    """The first message to an agent.

    Attributes:
        modules: What its forkserver imports; see `local.preloading`.
        versions: Expected versions; see `versions`.
        start_method: Of its workers, where the node has that.
    """

    modules: Sequence[str]
    versions: Sequence[Any]
    start_method: str


class Hello(NamedTuple):
    """The first message of an agent.

    Attributes:
        pid: Its process.
        differences: Between what it has and the expected versions, in words.
    """

    pid: int
    differences: Sequence[str]


# --- commands ---


class StartWorker(NamedTuple):
    """Start a worker. `config` is its first frame; None: the last one that was sent."""

    worker: int
    config: bytes | None


class SendFrame(NamedTuple):
    """Send a frame to a worker."""

    worker: int
    tag: int
    payload: Data
    buffers: Sequence[Data] = ()


class TakeBack(NamedTuple):
    """See `Backend.take_back`."""

    worker: int
    seen: WorkerStatus
    newest: int


class AskBack(NamedTuple):
    """See `Backend.ask_back`."""

    worker: int
    newest: int


class AskForReport(NamedTuple):
    """See `Backend.ask_for_report`."""

    worker: int


class RaiseSoftTimeout(NamedTuple):
    """See `Backend.raise_soft_timeout`."""

    worker: int
    seen: WorkerStatus
    is_again: bool


class KillStuck(NamedTuple):
    """See `Backend.kill_stuck`."""

    worker: int
    seen: WorkerStatus


class AskMemory(NamedTuple):
    """Ask for the memory of all workers."""


class End(NamedTuple):
    """End the workers, which are killed after so many seconds, and then the agent."""

    most_seconds: float


Command = (
    StartWorker
    | SendFrame
    | TakeBack
    | AskBack
    | AskForReport
    | RaiseSoftTimeout
    | KillStuck
    | AskMemory
    | End
)


# --- events ---


class Started(NamedTuple):
    """A worker's process was started."""

    worker: int
    pid: int | None


class NotStarted(NamedTuple):
    """A worker could not be started."""

    worker: int
    why: str


class Received(NamedTuple):
    """A frame of a worker."""

    worker: int
    tag: int
    payload: Data
    buffers: Sequence[Data] = ()


class Died(NamedTuple):
    """A worker is dead; the fields of `protocol.backend.Gone`."""

    worker: int
    pid: int | None
    exitcode: int | None
    progress: WorkerStatus | None
    stack: str


class Took(NamedTuple):
    """A `TakeBack` was successful."""

    worker: int
    seen: WorkerStatus
    newest: int


class KillMissed(NamedTuple):
    """A `KillStuck` has killed nothing: the worker had moved on."""

    worker: int


class Killed(NamedTuple):
    """A `KillStuck` has killed the worker."""

    worker: int
    stack: str


class Seen(NamedTuple):
    """Where a worker is.

    Attributes:
        is_slow: Whether it has been there for some time. If not, it is going on.
    """

    worker: int
    at: WorkerStatus
    is_slow: bool


class Memory(NamedTuple):
    """The resident memory of a worker."""

    worker: int
    size_bytes: int


class Retiring(NamedTuple):
    """The node is about to leave: its workers get nothing more."""


class Ended(NamedTuple):
    """All workers are dead, and the agent ends. Nothing follows."""


Event = (
    Started
    | NotStarted
    | Received
    | Died
    | Took
    | KillMissed
    | Killed
    | Seen
    | Memory
    | Retiring
    | Ended
)

#: What is sent at once.
Message = Sequence[Command] | Sequence[Event] | Setup | Hello


def dump(message: Message) -> bytes:
    """Encode a message. It has copies of all buffers."""
    return pickle.dumps(message, protocol=5)


def load(data: Data) -> Any:
    """Decode a message."""
    return pickle.loads(data)


def sendable(frame: Frame) -> tuple[Data, tuple[Data, ...]]:
    """Payload and buffers as bytes, which the sender cannot change any more."""
    payload, buffers = frame.payload, frame.buffers
    if isinstance(payload, memoryview):
        payload = bytes(payload)
    return payload, tuple(bytearray(each) for each in buffers)


def received(buffers: Sequence[Data]) -> list[memoryview]:
    """The buffers of a frame that has arrived; writable."""
    return [memoryview(each) for each in buffers]
