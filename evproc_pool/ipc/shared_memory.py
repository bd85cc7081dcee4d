"""Memory that a worker shares with the coordinator, for messages too large for the channel.

::

    file:   | words | coordinator to worker | worker to coordinator |
    words:  one for each direction and slot: free, sent or held

Each worker has one anonymous file, which it inherits when it starts. The file has no name; it is
gone with the last process that has it, however that process dies. Each direction has a range of
the file. The sender of a direction keeps the books of its range (`shared_sender.Allocator`). Behind
the ranges stand the worker's stacks (`resources.StackDumps`).

1. The sender copies a message into a free segment, sets the word of its slot, and sends a frame
   that says where the message is (`shared_sender`).
2. The receiver unpickles from the segment without another copy (`shared_receiver`). An array that
   outlives its event keeps the segment.
3. When nothing refers to the segment any more, the receiver clears the word. The sender sees that
   when it needs room. So no message says what is free, and there is no lock.

Rules:

- The file gets pages when they are first needed, before they are written to or by a system call
  that does both. If there is no memory for them, the message goes through the channel.
- The first `KEPT_BYTES` of a range keep their pages: existing pages are five times as fast as new
  ones. Pages behind them go back to the system when they are free.
- A receiver holds at most half of the kept pages and copies the rest, so that later messages find
  room. It holds much more of the other pages: these are new already, and several workers make
  them at once. So a worker writes directly into new pages what the coordinator would copy.
- A fork holds every held segment for good. The child has the same memory, not a copy: each process
  sees what the other writes.
- A segment is free when nothing refers to it, or only garbage. An object in a reference cycle that
  has a bare `memoryview` of a segment, and reads it in its ``__del__``, may find other contents.
  (NumPy's arrays are not concerned.)
- The file is mapped when it is first needed. It is never mapped if addresses are limited: then
  nothing is sent from this process, and arriving messages are read as from any file.
- The coordinator never sends a worker a buffer that lies in a held segment of this worker. It says
  where the buffer is (`Receiver.find`), and the worker copies it (`Sender.read_back`). The worker
  needs its own copy, since the coordinator may have to send the same event again.

Rejected: a file for each message (new pages each time); a name in /dev/shm (a kill leaves it
behind, and others may find it); a frame that tells the sender what is free (a worker may not send
anything for hours).

Cost: a copy, and O(slots) for each message.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import sys
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from evproc_pool.ipc.descriptors import InheritedDescriptor, anonymous_file, mapped

#: The first bytes of a range, whose pages stay once they were used.
KEPT_BYTES: Final = 32 << 20

#: Smaller messages go through the channel: a socket takes them in one call. 100 kB arrive in a
#: fifth of the time that they take through a pipe.
SHARED_BYTES: Final = 1 << 16

#: The most bytes on their way in one direction.
MOST_SENT_BYTES: Final = 1 << 27

#: The size of a range: address space, not memory.
RANGE_BYTES: Final = 1 << 29

#: How many messages may be in use at once in one direction.
SLOTS: Final = 128

# Larger copies are made in pages that are requested all at once: 10 MB take three quarters of the
# time. (Huge pages take a third of it; but three times as much in a virtual machine that has to
# be given them first.)
_POPULATED_BYTES: Final = 1 << 20

#: What the word of a slot says, if it is not 0 (free).
SENT: Final = 1
HELD: Final = 2

_WORD_BYTES: Final = 8
_WORDS_BYTES: Final = 1 << 14  # of both directions, with room to spare: whole pages

#: Linux only: elsewhere a file is written to disk.
IS_SUPPORTED: Final = hasattr(os, "memfd_create") and sys.maxsize > 1 << 32


class Segment(NamedTuple):
    """A part of a range, which holds one message."""

    start: int
    stop: int
    slot: int

    @property
    def size_bytes(self) -> int:
        """Its length."""
        return self.stop - self.start

    @property
    def is_kept(self) -> bool:
        """Whether its pages stay when it is free."""
        return self.stop <= KEPT_BYTES


class SharedMemory(InheritedDescriptor):
    """The memory itself."""

    # only once it is mapped
    words: memoryview  # one for each slot; see `SENT` and `HELD`
    view: memoryview  # all of it

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self._map: mmap.mmap | None = None
        self._is_closed = False

    @classmethod
    def create(cls) -> SharedMemory | None:
        """Make the file, which takes neither memory nor addresses yet; None if it fails."""
        if not IS_SUPPORTED:
            return None
        try:
            return cls(anonymous_file(_WORDS_BYTES + 2 * RANGE_BYTES))
        except OSError:
            return None

    @property
    def is_mapped(self) -> bool:
        """Whether it was needed here."""
        return self._map is not None

    @property
    def can_be_used(self) -> bool:
        """Whether it can be mapped here."""
        if self._map is None and not _has_limited_addresses():
            with contextlib.suppress(OSError, ValueError):
                self._mapped()
        return self._map is not None

    def _mapped(self) -> mmap.mmap:
        if self._map is None:
            self._map = mapped(self._fd, _WORDS_BYTES + 2 * RANGE_BYTES)
            with contextlib.suppress(OSError):
                # a core dump would hold all of it, and create the pages that were never used
                self._map.madvise(mmap.MADV_DONTDUMP)
            self.view = memoryview(self._map)
            self.words = self.view[:_WORDS_BYTES].cast("q")
        return self._map

    def begin(self, direction: int) -> int:
        """Where a range begins in the file."""
        return _WORDS_BYTES + direction * RANGE_BYTES

    def allocate(self, direction: int, start: int, length: int) -> None:
        """Give memory to a part of a range. Raises OSError if none is left."""
        os.posix_fallocate(self._fd, self.begin(direction) + start, length)

    def copy(self, direction: int, start: int, content: memoryview) -> None:
        """Write to a part of a range that has memory."""
        place = self.begin(direction) + start
        self.view[place : place + content.nbytes] = content

    def write(self, direction: int, start: int, content: memoryview) -> None:
        """Write to a part of a range that may have no memory yet.

        Takes a third of the time that mapping new pages takes, and the pages do not count as this
        process's. Raises OSError if no memory is left; part of the content may be written then.
        """
        place = self.begin(direction) + start
        done = 0
        while done < content.nbytes:
            done += os.pwrite(self._fd, content[done:], place + done)

    def read(self, direction: int, segment: Segment) -> memoryview:
        """Copy a segment into memory of its own. Works without a mapping, too.

        Raises OSError or MemoryError if no memory is left.
        """
        start = self.begin(direction) + segment.start
        if segment.size_bytes < _POPULATED_BYTES or not self.can_be_used:
            copy: Any = bytearray(segment.size_bytes)
        else:
            flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
            copy = mmap.mmap(-1, segment.size_bytes, flags=flags)
        done = 0
        with memoryview(copy) as content:
            while done < content.nbytes:
                done += os.preadv(self._fd, [content[done:]], start + done)
        return memoryview(copy)

    def word(self, direction: int, slot: int) -> int:
        """The word of a slot."""
        return self.words[direction * SLOTS + slot]

    def set_word(self, direction: int, slot: int, state: int) -> None:
        """Write the word of a slot; nothing once the memory is closed."""
        if self._map is None:
            content = state.to_bytes(_WORD_BYTES, sys.byteorder)
            os.pwrite(self._fd, content, _WORD_BYTES * (direction * SLOTS + slot))
        elif not self._is_closed:
            self.words[direction * SLOTS + slot] = state

    def is_held(self, direction: int, slot: int) -> bool:
        """Whether the receiver holds a slot's message; False once the memory is closed."""
        return not self._is_closed and self.word(direction, slot) == HELD

    def owner(self, direction: int, segment: Segment) -> Any:
        """An object that stands for a segment: every view of the segment refers to it."""
        from ctypes import c_ubyte  # slow to import, and only large messages need it

        kind = c_ubyte * segment.size_bytes
        return kind.from_buffer(self._mapped(), self.begin(direction) + segment.start)

    def offset_of(self, direction: int, buffer: memoryview) -> int:
        """The distance of a writable buffer from the start of a range; any number."""
        from ctypes import addressof, c_ubyte  # likewise

        begin = addressof(c_ubyte.from_buffer(self._mapped(), self.begin(direction)))
        return addressof(c_ubyte.from_buffer(buffer)) - begin

    def give_back(self, direction: int, segment: Segment) -> None:
        """Free a segment, for its receiver."""
        self.remove(direction, max(segment.start, KEPT_BYTES), segment.stop)
        self.set_word(direction, segment.slot, 0)

    def remove_others(self, direction: int, segments: Sequence[Segment]) -> None:
        """Remove the pages of a range, but not those of these segments, in order."""
        begin = 0
        for segment in segments:
            self.remove(direction, begin, segment.start)
            begin = segment.stop
        self.remove(direction, begin, RANGE_BYTES)

    def remove(self, direction: int, start: int, stop: int) -> None:
        """Remove the whole pages of a part of a range."""
        start = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
        length = stop // mmap.PAGESIZE * mmap.PAGESIZE - start
        if self._map is not None and length > 0:
            with contextlib.suppress(ValueError):  # closed: the memory is gone
                self._map.madvise(mmap.MADV_REMOVE, self.begin(direction) + start, length)

    def close(self) -> None:
        """Unmap and close it. Idempotent. Values that are views of it keep their memory."""
        self._is_closed = True
        if self._map is not None:
            self.words.release()
            self.view.release()
            with contextlib.suppress(BufferError):
                self._map.close()
        super().close()


def _has_limited_addresses() -> bool:
    import resource  # some systems lack it

    return resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY
