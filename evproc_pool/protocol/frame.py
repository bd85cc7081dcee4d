"""What crosses between the coordinator and a worker, whatever carries it. Plain data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

#: What a payload may be.
Data = bytes | bytearray | memoryview


class Frame(NamedTuple):
    """What is sent.

    Attributes:
        tag: See `messages`.
        payload: What it says.
        buffers: What of it is large; writable where it arrives.
    """

    tag: int
    payload: Data
    buffers: Sequence[memoryview] = ()

    @property
    def size_bytes(self) -> int:
        """All of it."""
        return len(self.payload) + sum(each.nbytes for each in self.buffers)
