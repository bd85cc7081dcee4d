"""Which parts of a range of memory are in use. Pure: the memory is in `shared_memory`."""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from typing import NamedTuple


class Segment(NamedTuple):
    """A part of a range, for one message."""

    start: int
    stop: int
    slot: int

    @property
    def size_bytes(self) -> int:
        """How many bytes it has."""
        return self.stop - self.start


class Allocator:
    """The parts of one range; a new one goes as far in front as there is room (first fit).

    Args:
        size_bytes: Of the range.
        slots: How many parts may be in use at once; each has a number of its own.
    """

    def __init__(self, size_bytes: int, slots: int) -> None:
        self._size_bytes = size_bytes
        self._free_slots = list(range(slots - 1, -1, -1))
        self._used: list[Segment] = []  # in order

    @property
    def used(self) -> Sequence[Segment]:
        """Those in use, by their start."""
        return self._used

    def take(self, size_bytes: int, start: int = 0) -> Segment | None:
        """Take a free part from `start` on; None if there is none as large as that, or no slot."""
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
        """A part is free again.

        Raises:
            ValueError: It was not in use. Nothing has changed.
        """
        self._used.remove(segment)
        self._free_slots.append(segment.slot)
