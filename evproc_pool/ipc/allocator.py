"""The books of a range of memory: which segments are in use. Pure; no memory of its own."""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from typing import NamedTuple


class Segment(NamedTuple):
    """A part of a range, which holds one message."""

    start: int
    stop: int
    slot: int

    @property
    def size_bytes(self) -> int:
        """Its length."""
        return self.stop - self.start


class Allocator:
    """The segments of one range. A new one takes the first gap that is large enough (first fit).

    Args:
        size_bytes: The size of the range.
        slots: How many segments may be in use at once. Each has a slot number of its own.
    """

    def __init__(self, size_bytes: int, slots: int) -> None:
        self._size_bytes = size_bytes
        self._free_slots = list(range(slots - 1, -1, -1))
        self._used: list[Segment] = []  # in order

    @property
    def used(self) -> Sequence[Segment]:
        """The segments in use, by their start."""
        return self._used

    def take(self, size_bytes: int, start: int = 0) -> Segment | None:
        """Take a segment at `start` or behind it; None without a large gap or a free slot."""
        if not self._free_slots:
            return None
        for each in self._used:
            if each.start - start >= size_bytes:
                break
            start = max(start, each.stop)
        if start + size_bytes > self._size_bytes:
            return None
        segment = Segment(start, start + size_bytes, self._free_slots.pop())
        insort(self._used, segment)
        return segment

    def give_back(self, segment: Segment) -> None:
        """Free a segment.

        Raises:
            ValueError: The segment is not in use. Nothing has changed.
        """
        self._used.remove(segment)
        self._free_slots.append(segment.slot)
