"""Frames: what coordinator and worker send each other. Plain data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

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
