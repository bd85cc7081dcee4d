"""Frames, which coordinator and worker send each other, and the worker's end of their channel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

#: What a payload may be.
Data = bytes | bytearray | memoryview


class Frame(NamedTuple):
    """A message on its way."""

    tag: int  # the kind of the message; see `messages`
    payload: Data
    buffers: Sequence[memoryview] = ()  # large buffers; writable when they arrive

    @property
    def size_bytes(self) -> int:
        """Payload and buffers."""
        return len(self.payload) + sum(each.nbytes for each in self.buffers)


class WorkerChannel(Protocol):
    """A worker's end: an `ipc.channel.BlockingChannel`, or its substitute in a simulation.

    Both methods raise `EOFError` or `OSError` when the coordinator is gone.
    """

    #: Whether large buffers travel beside the payload. Not if others may change them before they
    #: are sent.
    takes_buffers: bool

    def send(self, tag: int, payload: Data, buffers: Sequence[memoryview] = ()) -> None:
        """Write a frame. The caller may change the buffers afterwards."""

    def receive(self) -> Frame:
        """Wait for a frame."""
