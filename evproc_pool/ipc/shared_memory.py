"""Memory that a worker shares with the coordinator, for what is too large for the channel.

::

    file:   | words | coordinator to worker | worker to coordinator |
    words:  for each direction and slot: whether something is on its way, or held

One anonymous file for each worker, inherited when it starts; nothing has a name, and it is
gone with the last process that has it, however that dies. Each direction is a range of its
own, of which the sender keeps the books (`Allocator`): it copies a message into a free
segment, sets the word of its slot, and says in a frame where it is. The receiver unpickles
from there without another copy. A segment is free again when nobody refers to it any more:
an array that outlives its event keeps it. The receiver clears the word then, and the
sender sees that when it needs room. So no message says what is free, and there is no lock.

- Pages are given to the file when they are first needed, before they are written to or by a
  system call that does both: where there is no memory for that, the message goes through
  the channel.
- The first `KEPT_BYTES` of a range stay, since pages that are there already are five times
  as fast as new ones. What is behind them goes back when it is free.
- Of what stays a receiver holds half at the most, and copies the rest, so that there is
  some for the messages to come. Of what does not stay it holds much more: these pages
  are new ones already, and several workers make them at once. So a worker writes into new
  pages at once what the coordinator would copy.
- What is held when a process is forked is held for good, since the child has it, too: the
  same memory, and not a copy of it, so that what one of them writes the other one sees.
- A segment is over when nothing refers to it, or only garbage: an object in a reference
  cycle that has a bare `memoryview` of it, and looks at that in its ``__del__``, may find
  other contents. (NumPy's arrays are not concerned.)
- It is mapped when it is first needed, and not where addresses are limited: nothing is sent
  from there, and what arrives is read as from any file.
- The coordinator sends a worker no buffer that lies in a segment of this worker and is held:
  it says where that is (`Receiver.find`), and the worker copies it from there
  (`Sender.read_back`). The copy is the worker's own, since the coordinator may have to send
  the same event again.

Rejected: a file for each message (new pages each time); a name in /dev/shm (left behind by
a kill, and others may find it); telling the sender in a frame (a worker may not send
anything for hours).

Cost: a copy, and O(slots) for each message.
"""

from __future__ import annotations

import _thread
import contextlib
import itertools
import mmap
import os
import signal
import sys
import weakref
from collections.abc import Sequence
from functools import partial
from pickle import PickleBuffer
from typing import Any, Final, NamedTuple

from evproc_pool.ipc.allocator import Allocator, Segment
from evproc_pool.ipc.descriptors import InheritedDescriptor, anonymous_file

#: Of a range so many bytes stay once they were used.
KEPT_BYTES: Final = 32 << 20

# Of these a receiver holds so many at the most, or one message.
_MOST_HELD_KEPT: Final = KEPT_BYTES // 2

#: A message of so many bytes or more is worth it: 100 kB arrive in a fifth of the time that
#: they take through a pipe, and less is written to a socket at once.
SHARED_BYTES: Final = 1 << 16

#: So many bytes are on their way at the most, in each direction.
MOST_SENT_BYTES: Final = 1 << 27

#: What a range has. Address space, not memory.
RANGE_BYTES: Final = 1 << 29

# Of what is behind `KEPT_BYTES` a receiver holds so many at the most.
_MOST_HELD_BYTES: Final = RANGE_BYTES - KEPT_BYTES - MOST_SENT_BYTES

#: So many messages may be in use at once in each direction.
SLOTS: Final = 128

# So many of them may be held.
_MOST_HELD: Final = SLOTS // 2

# A copy of so many bytes is made in pages that are asked for all at once: 10 MB are there in
# three quarters of the time. (In huge pages it is a third, but where a virtual machine has
# to be given them first it is three times as much.)
_POPULATED_BYTES: Final = 1 << 20

# What a word says, if it is not 0.
_SENT: Final = 1
_HELD: Final = 2

# What is in a message begins at a multiple of it, as arrays like it.
_ALIGNED: Final = 64

_WORD_BYTES: Final = 8
_WORDS_BYTES: Final = 1 << 14  # of both directions, with room to spare: whole pages

#: Whether there can be such memory here. Linux only: elsewhere a file is written to disk.
IS_SUPPORTED: Final = hasattr(os, "memfd_create") and sys.maxsize > 1 << 32


class Placed(NamedTuple):
    """Where a message is.

    Attributes:
        slot: Its slot.
        start: Where it begins in its range.
        lengths: Of each of its parts, in bytes.
    """

    slot: int
    start: int
    lengths: tuple[int, ...]


class Sender:
    """Puts messages into one range.

    Args:
        region: The memory.
        direction: 0: from the coordinator, 1: from the worker.
    """

    def __init__(self, region: SharedMemory, direction: int) -> None:
        self._region = region
        self._direction = direction
        self._segments = Allocator(RANGE_BYTES, SLOTS)
        self._backed = 0  # pages before it are there to stay, none behind KEPT_BYTES

    def put(self, parts: Sequence[Any]) -> Placed | None:
        """Copy what is in these bytes-like objects; None if there is no room or no memory."""
        lengths = tuple([memoryview(part).nbytes for part in parts])
        if not self._region.can_be_used:
            return None
        size_bytes = sum(map(_rounded_up, lengths))
        if self._look_for_free_ones() + size_bytes > MOST_SENT_BYTES:
            return None
        segment = self._segments.take(size_bytes, self._least_start(size_bytes))
        if segment is None:
            return None
        try:
            if is_kept(segment):
                self._back(segment)
                write = self._region.copy
            else:
                write = self._region.write
            start = segment.start
            for part, length in zip(parts, lengths, strict=True):
                # Let go of in any case: in the traceback of an interrupt it might become garbage
                # together with the part, and Python does not survive that
                # (a `memoryview` with exports that is cleared).
                with PickleBuffer(part).raw() as content:
                    write(self._direction, start, content)
                start += _rounded_up(length)
        except OSError:
            self._segments.give_back(segment)
            self._region.give_back(self._direction, segment)
            return None
        self._region.set_word(self._direction, segment.slot, _SENT)
        return Placed(segment.slot, segment.start, lengths)

    def _least_start(self, size_bytes: int) -> int:
        """Where a message begins at the least.

        Of what stays the coordinator would copy what is more than it may hold. The worker
        writes that into new pages: these are held.
        """
        if not self._direction:
            return 0
        used = [each for each in self._segments.used if is_kept(each)]
        if not any(self._region.is_held(self._direction, each.slot) for each in used):
            return 0
        used_bytes = sum([each.size_bytes for each in used])
        return KEPT_BYTES if used_bytes + size_bytes > _MOST_HELD_KEPT else 0

    def read_back(self, start: int, length: int) -> memoryview:
        """Copy a part of what was put into the range, which the receiver holds.

        Raises:
            MemoryError: There is no memory for a copy.
        """
        place = self._region.begin(self._direction) + start
        # most often in memory that the last copy has had, which takes half the time of new pages
        return memoryview(bytearray(self._region.view[place : place + length]))

    @property
    def held(self) -> list[Segment]:
        """What the receiver holds, in order."""
        return [
            each for each in self._segments.used if self._region.is_held(self._direction, each.slot)
        ]

    def _look_for_free_ones(self) -> int:
        """Take back what is not used any more; say how many bytes are on their way."""
        sent_bytes = 0
        words = self._region.words
        for segment in list(self._segments.used):
            state = words[_word(self._direction, segment.slot)]
            if not state:
                self._segments.give_back(segment)
            elif state == _SENT:
                sent_bytes += segment.size_bytes
        return sent_bytes

    def _back(self, segment: Segment) -> None:
        """See to it that there is memory.

        Raises:
            OSError: There is none. It is as it was.
        """
        if self._backed < segment.stop:
            missing = segment.stop - self._backed
            self._region.allocate(self._direction, self._backed, missing)
            self._backed = segment.stop


class _Held(NamedTuple):
    """A segment in use.

    Attributes:
        segment: Which.
        is_over: Says when it is not any more, as long as it is referred to.
    """

    segment: Segment
    is_over: weakref.ref[Any]


class Receiver:
    """Reads messages from one range.

    Args:
        region: The memory.
        direction: See `Sender`.
    """

    def __init__(self, region: SharedMemory, direction: int) -> None:
        self._region = region
        self._direction = direction
        self._forever: list[Segment] = []
        self._held: dict[int, _Held] = {}  # by slot
        key = id(self)
        _RECEIVERS[key] = weakref.ref(self, lambda _: _RECEIVERS.pop(key, None))

    def open(self, placed: Placed) -> list[memoryview]:
        """The parts of a message; the memory is theirs as long as anything refers to them.

        Raises:
            OSError: It is neither mapped nor is there memory for a copy. The message is lost.
            MemoryError: Likewise.
        """
        size_bytes = sum(map(_rounded_up, placed.lengths))
        segment = Segment(placed.start, placed.start + size_bytes, placed.slot)
        whole = self._hold(segment) if self._may_hold(segment) else self._copy(segment)
        starts = itertools.accumulate(map(_rounded_up, placed.lengths), initial=0)
        return [
            whole[start : start + length]
            for start, length in zip(starts, placed.lengths, strict=False)
        ]

    def find(self, buffer: memoryview) -> int | None:
        """Where in the range a buffer begins; None if it is not in a segment that is held.

        Args:
            buffer: Its bytes, in one piece. It is not found if it is read-only.
        """
        if not self._held or buffer.readonly:
            return None
        start = self._region.offset_of(self._direction, buffer)
        stop = start + buffer.nbytes
        for each in list(self._held.values()):
            if each.segment.start <= start and stop <= each.segment.stop:
                return start
        return None

    def _may_hold(self, segment: Segment) -> bool:
        if not self._region.can_be_used:
            return False
        held = self._forever + [each.segment for each in list(self._held.values())]
        others = [each.size_bytes for each in held if is_kept(each) == is_kept(segment)]
        if is_kept(segment):
            most = _MOST_HELD_KEPT
        else:
            # a process that forks may do so again, and each time all of it is held for good
            most = KEPT_BYTES if self._forever else _MOST_HELD_BYTES
        return len(held) < _MOST_HELD and (not others or sum(others) + segment.size_bytes <= most)

    def _hold(self, segment: Segment) -> memoryview:
        owner = self._region.owner(self._direction, segment)
        is_over = weakref.ref(owner, partial(self._is_over, segment))
        self._held[segment.slot] = _Held(segment, is_over)
        self._region.set_word(self._direction, segment.slot, _HELD)
        return PickleBuffer(owner).raw()

    def _copy(self, segment: Segment) -> memoryview:
        try:
            copy = self._region.read(self._direction, segment)
        except (OSError, MemoryError):
            if not self._region.can_be_used:
                raise
            return self._hold(segment)  # then there is no memory for two of them
        self._region.give_back(self._direction, segment)
        return copy

    def _is_over(self, segment: Segment, _: weakref.ref[Any]) -> None:
        try:
            self._held.pop(segment.slot, None)  # before the sender may use it again
            self._region.give_back(self._direction, segment)
        except KeyboardInterrupt:
            # It would be ignored here, so this thread, the main one, gets another one in a
            # moment. And what it struck is not to be left half done; but what is done the
            # sender may be using again.
            if self._region.is_held(self._direction, segment.slot):
                self._held.pop(segment.slot, None)
                self._region.give_back(self._direction, segment)
            _thread.start_new_thread(signal.pthread_kill, (_thread.get_ident(), signal.SIGINT))

    def share(self) -> None:
        """Another process is about to have what is held as well: it is held for good."""
        held, self._held = self._held, {}
        self._forever += [each.segment for each in list(held.values())]

    def close(self, sender: Sender) -> None:
        """The other end is gone: let go of what is not held of the memory, in both directions.

        Args:
            sender: That of the other direction. What the other end held when it ended is kept:
                it may have forked others, which have it yet.
        """
        held = sorted(each.segment for each in list(self._held.values()))
        if not held or self._forever:
            return  # all of it goes; or nobody knows where that is which is kept
        self._region.remove_others(1 - self._direction, sender.held)
        self._region.remove_others(self._direction, held)


class SharedMemory(InheritedDescriptor):
    """The memory itself.

    Attributes:
        words: Of the slots.
        view: All of it.
    """

    words: memoryview
    view: memoryview

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self._map: mmap.mmap | None = None
        self._is_closed = False

    @classmethod
    def create(cls) -> SharedMemory | None:
        """Make it; it takes neither memory nor addresses yet. None if it cannot be made."""
        if not IS_SUPPORTED:
            return None
        try:
            return cls(anonymous_file(_WORDS_BYTES + 2 * RANGE_BYTES))
        except OSError:
            return None

    @property
    def can_be_used(self) -> bool:
        """Whether there are addresses for it."""
        if self._map is None:
            if _has_limited_addresses():
                return False
            try:
                self._mapped()
            except (OSError, ValueError):
                return False
        return True

    def _mapped(self) -> mmap.mmap:
        if self._map is None:
            self._map = mmap.mmap(self._fd, _WORDS_BYTES + 2 * RANGE_BYTES)
            with contextlib.suppress(OSError):
                # a core dump would have all of it, and make the pages that were never used
                self._map.madvise(mmap.MADV_DONTDUMP)
            self.view = memoryview(self._map)
            self.words = self.view[:_WORDS_BYTES].cast("q")
        return self._map

    def begin(self, direction: int) -> int:
        """Where a range begins."""
        return _WORDS_BYTES + direction * RANGE_BYTES

    def allocate(self, direction: int, start: int, length: int) -> None:
        """Give memory to a part of a range.

        Raises:
            OSError: There is none.
        """
        os.posix_fallocate(self._fd, self.begin(direction) + start, length)

    def copy(self, direction: int, start: int, content: memoryview) -> None:
        """Write to a part of a range that has memory."""
        place = self.begin(direction) + start
        self.view[place : place + content.nbytes] = content

    def write(self, direction: int, start: int, content: memoryview) -> None:
        """Write to a part of a range that may have none yet.

        In a third of the time that it takes to map new pages, too; and they do not count as
        this process's.

        Raises:
            OSError: There is none. Some of it may have been written.
        """
        place = self.begin(direction) + start
        done = 0
        while done < content.nbytes:
            done += os.pwrite(self._fd, content[done:], place + done)

    def read(self, direction: int, segment: Segment) -> memoryview:
        """Copy a part of a range into memory of its own; it need not be mapped.

        Raises:
            OSError: There is no memory.
            MemoryError: Likewise.
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

    def set_word(self, direction: int, slot: int, state: int) -> None:
        """Write the word of a slot."""
        if self._map is None:
            content = state.to_bytes(_WORD_BYTES, sys.byteorder)
            os.pwrite(self._fd, content, _WORD_BYTES * _word(direction, slot))
        elif not self._is_closed:
            self.words[_word(direction, slot)] = state

    def is_held(self, direction: int, slot: int) -> bool:
        """Whether a receiver holds what is in a slot; False once it is closed."""
        return not self._is_closed and self.words[_word(direction, slot)] == _HELD

    def owner(self, direction: int, segment: Segment) -> Any:
        """An object that stands for a segment: whoever has a view of it refers to it."""
        from ctypes import c_ubyte  # only where something large arrives

        length = segment.stop - segment.start
        kind = c_ubyte * length
        return kind.from_buffer(self._mapped(), self.begin(direction) + segment.start)

    def offset_of(self, direction: int, buffer: memoryview) -> int:
        """How far behind the beginning of a range a writable buffer is in memory; any number."""
        from ctypes import addressof, c_ubyte  # likewise

        begin = addressof(c_ubyte.from_buffer(self._mapped(), self.begin(direction)))
        return addressof(c_ubyte.from_buffer(buffer)) - begin

    def give_back(self, direction: int, segment: Segment) -> None:
        """A receiver does not use a segment any more."""
        self.remove(direction, max(segment.start, KEPT_BYTES), segment.stop)
        self.set_word(direction, segment.slot, 0)

    def remove_others(self, direction: int, segments: Sequence[Segment]) -> None:
        """Take the memory of a range but for these segments, which are in order."""
        begin = 0
        for segment in segments:
            self.remove(direction, begin, segment.start)
            begin = segment.stop
        self.remove(direction, begin, RANGE_BYTES)

    def remove(self, direction: int, start: int, stop: int) -> None:
        """Take the memory of the whole pages of a part of a range."""
        start = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
        length = stop // mmap.PAGESIZE * mmap.PAGESIZE - start
        if self._map is not None and length > 0:
            with contextlib.suppress(ValueError):  # it is closed, and its memory gone
                self._map.madvise(mmap.MADV_REMOVE, self.begin(direction) + start, length)

    def close(self) -> None:
        """Let go of it; values that are views of it keep their memory."""
        self._is_closed = True
        if self._map is not None:
            self.words.release()
            self.view.release()
            with contextlib.suppress(BufferError):
                self._map.close()
        super().close()


def is_kept(segment: Segment) -> bool:
    """Whether its memory stays."""
    return segment.stop <= KEPT_BYTES


def _has_limited_addresses() -> bool:
    import resource  # not on every system

    return resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY


def _rounded_up(length: int) -> int:
    return -(-max(1, length) // _ALIGNED) * _ALIGNED


def _word(direction: int, slot: int) -> int:
    return direction * SLOTS + slot


# A process that is forked from this one has the memory as well, and not its own copy of it:
# what was held then must stay as it is, and be given back by neither of them. Before the
# fork, since other hooks, and other threads, may let go of it behind it.
_RECEIVERS: Final[dict[int, weakref.ref[Receiver]]] = {}


def _share_all() -> None:
    for reference in list(_RECEIVERS.values()):
        receiver = reference()
        if receiver is not None:
            receiver.share()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_share_all)
