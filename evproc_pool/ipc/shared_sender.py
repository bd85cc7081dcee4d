"""Puts messages into shared memory; see `shared_memory`."""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from pickle import PickleBuffer
from typing import Any, Final, NamedTuple

from evproc_pool.ipc.shared_memory import (
    KEPT_BYTES,
    MOST_SENT_BYTES,
    RANGE_BYTES,
    SENT,
    SLOTS,
    Segment,
    SharedMemory,
)

# Each part of a message begins at a multiple of it, as arrays prefer.
_ALIGNED: Final = 64

#: The most kept bytes that a receiver holds, unless one message is larger.
MOST_HELD_KEPT_BYTES: Final = KEPT_BYTES // 2


class Placed(NamedTuple):
    """The place of a message in its range."""

    slot: int
    start: int  # the offset of its first byte in the range
    lengths: tuple[int, ...]  # of each part, in bytes


class Allocator:
    """The segments in use of a range. A new one takes the first gap that is large enough.

    Each has a slot number of its own.
    """

    def __init__(self, size_bytes: int, slots: int) -> None:
        self._size_bytes = size_bytes
        self._free_slots = list(range(slots - 1, -1, -1))
        self.used: list[Segment] = []  # in order

    def take(self, size_bytes: int, start: int = 0) -> Segment | None:
        """Take a segment at `start` or behind it; None without a large gap or a free slot."""
        if not self._free_slots:
            return None
        for each in self.used:
            if each.start - start >= size_bytes:
                break
            start = max(start, each.stop)
        if start + size_bytes > self._size_bytes:
            return None
        segment = Segment(start, start + size_bytes, self._free_slots.pop())
        insort(self.used, segment)
        return segment

    def give_back(self, segment: Segment) -> None:
        """Free a segment. If it is not in use, raises ValueError and changes nothing."""
        self.used.remove(segment)
        self._free_slots.append(segment.slot)


class Sender:
    """Puts messages into one range; direction 0 is from the coordinator, 1 from the worker."""

    def __init__(self, memory: SharedMemory, direction: int) -> None:
        self._memory = memory
        self._direction = direction
        self._segments = Allocator(RANGE_BYTES, SLOTS)
        self._allocated = 0  # the kept pages up to here exist

    def put(self, parts: Sequence[Any]) -> Placed | None:
        """Copy a message of bytes-like parts; None if it finds no room or no memory."""
        if not self._memory.can_be_used:
            return None
        lengths = tuple([memoryview(part).nbytes for part in parts])
        size_bytes = sum(map(rounded_up, lengths))
        if self._reclaim() + size_bytes > MOST_SENT_BYTES:
            return None
        segment = self._segments.take(size_bytes, self._least_start(size_bytes))
        if segment is None:
            return None
        try:
            if segment.is_kept:
                self._allocate(segment)
                write = self._memory.copy
            else:
                write = self._memory.write
            start = segment.start
            for part, length in zip(parts, lengths, strict=True):
                # Release it in any case. The traceback of an interrupt would keep it; if both
                # became garbage together, Python would crash (it clears a `memoryview` that has
                # exports).
                with PickleBuffer(part).raw() as content:
                    write(self._direction, start, content)
                start += rounded_up(length)
        except OSError:
            self._segments.give_back(segment)
            self._memory.give_back(self._direction, segment)
            return None
        self._memory.set_word(self._direction, segment.slot, SENT)
        return Placed(segment.slot, segment.start, lengths)

    def _least_start(self, size_bytes: int) -> int:
        """The first offset that a message may have.

        The coordinator copies kept pages beyond the amount that it may hold. It holds new pages,
        so the worker writes the message into these.
        """
        if not self._direction:
            return 0
        kept = [each for each in self._segments.used if each.is_kept]
        if not any(self._memory.is_held(self._direction, each.slot) for each in kept):
            return 0
        used_bytes = sum([each.size_bytes for each in kept])
        return KEPT_BYTES if used_bytes + size_bytes > MOST_HELD_KEPT_BYTES else 0

    def read_back(self, start: int, length: int) -> memoryview:
        """Copy a part of the range, in a message that the receiver holds. May raise MemoryError."""
        place = self._memory.begin(self._direction) + start
        # a bytearray often reuses the memory of the last copy: half the time of new pages
        return memoryview(bytearray(self._memory.view[place : place + length]))

    @property
    def held(self) -> list[Segment]:
        """The segments that the receiver holds, in order."""
        is_held = self._memory.is_held
        return [each for each in self._segments.used if is_held(self._direction, each.slot)]

    def _reclaim(self) -> int:
        """Take back free segments. Return how many bytes are on their way."""
        sent_bytes = 0
        for segment in list(self._segments.used):
            state = self._memory.word(self._direction, segment.slot)
            if not state:
                self._segments.give_back(segment)
            elif state == SENT:
                sent_bytes += segment.size_bytes
        return sent_bytes

    def _allocate(self, segment: Segment) -> None:
        """Give pages to a kept segment. Raises OSError, and changes nothing, if none are left."""
        if self._allocated < segment.stop:
            missing = segment.stop - self._allocated
            self._memory.allocate(self._direction, self._allocated, missing)
            self._allocated = segment.stop


def rounded_up(length: int) -> int:
    """How many bytes a part of a message takes, with what aligns the next one."""
    return -(-max(1, length) // _ALIGNED) * _ALIGNED
