"""Reads messages from shared memory; see `shared_memory`."""

from __future__ import annotations

import _thread
import itertools
import os
import signal
import weakref
from functools import partial
from pickle import PickleBuffer
from typing import Any, Final

from evproc_pool.ipc.shared_memory import (
    HELD,
    KEPT_BYTES,
    MOST_SENT_BYTES,
    RANGE_BYTES,
    SLOTS,
    Segment,
    SharedMemory,
)
from evproc_pool.ipc.shared_sender import MOST_HELD_KEPT_BYTES, Placed, Sender, rounded_up

# The most bytes behind `KEPT_BYTES` that a receiver holds.
_MOST_HELD_BYTES: Final = RANGE_BYTES - KEPT_BYTES - MOST_SENT_BYTES

# The most messages that a receiver holds.
_MOST_HELD: Final = SLOTS // 2


class Receiver:
    """Reads messages from one range; `direction` is that of its `Sender`."""

    def __init__(self, memory: SharedMemory, direction: int) -> None:
        self._memory = memory
        self._direction = direction
        self._shared_by_fork: list[Segment] = []
        # By slot: segments that values refer to, and what calls `_release` once none does. Any
        # collection of garbage may take some out.
        self._held: dict[int, tuple[Segment, weakref.ref[Any]]] = {}
        _RECEIVERS[id(self)] = self

    @property
    def held(self) -> list[Segment]:
        """The segments that values refer to."""
        return [segment for segment, _ in list(self._held.values())]

    def open(self, placed: Placed) -> list[memoryview]:
        """The parts of a message. The segment stays in use as long as anything refers to them.

        Raises OSError or MemoryError if it is not mapped, and no memory is left for a copy. Then
        the message is lost.
        """
        size_bytes = sum(map(rounded_up, placed.lengths))
        segment = Segment(placed.start, placed.start + size_bytes, placed.slot)
        whole = self._hold(segment) if self._may_hold(segment) else self._copy(segment)
        starts = itertools.accumulate(map(rounded_up, placed.lengths), initial=0)
        return [
            whole[start : start + length]
            for start, length in zip(starts, placed.lengths, strict=False)
        ]

    def find(self, buffer: memoryview) -> int | None:
        """Where in the range a contiguous buffer begins; None if it lies in no held segment.

        A read-only buffer is not found.
        """
        if not self._held or buffer.readonly:
            return None
        start = self._memory.offset_of(self._direction, buffer)
        stop = start + buffer.nbytes
        return start if any(s.start <= start and stop <= s.stop for s in self.held) else None

    def _may_hold(self, segment: Segment) -> bool:
        if not self._memory.can_be_used:
            return False
        held = self._shared_by_fork + self.held
        others = [each.size_bytes for each in held if each.is_kept == segment.is_kept]
        if segment.is_kept:
            most = MOST_HELD_KEPT_BYTES
        else:
            # a process that forks may fork again, and each fork holds everything for good
            most = KEPT_BYTES if self._shared_by_fork else _MOST_HELD_BYTES
        return len(held) < _MOST_HELD and (not others or sum(others) + segment.size_bytes <= most)

    def _hold(self, segment: Segment) -> memoryview:
        owner = self._memory.owner(self._direction, segment)
        on_release = weakref.ref(owner, partial(self._release, segment))
        self._held[segment.slot] = segment, on_release
        self._memory.set_word(self._direction, segment.slot, HELD)
        return PickleBuffer(owner).raw()

    def _copy(self, segment: Segment) -> memoryview:
        try:
            copy = self._memory.read(self._direction, segment)
        except (OSError, MemoryError):
            if not self._memory.can_be_used:
                raise
            return self._hold(segment)  # no memory for a second one
        self._memory.give_back(self._direction, segment)
        return copy

    def _release(self, segment: Segment, _: weakref.ref[Any]) -> None:
        try:
            self._held.pop(segment.slot, None)  # first: afterwards the sender may use it again
            self._memory.give_back(self._direction, segment)
        except KeyboardInterrupt:
            # Python ignores an interrupt in a weakref callback. So release the segment completely,
            # and send this thread, the main one, another interrupt. Do not release it twice: the
            # sender may use it again.
            if self._memory.is_held(self._direction, segment.slot):
                self._held.pop(segment.slot, None)
                self._memory.give_back(self._direction, segment)
            _thread.start_new_thread(signal.pthread_kill, (_thread.get_ident(), signal.SIGINT))

    def share(self) -> None:
        """Hold for good what is held: a fork is about to share it."""
        held, self._held = self._held, {}
        self._shared_by_fork += [segment for segment, _ in list(held.values())]

    def close(self, sender: Sender) -> None:
        """Remove what nobody holds from both ranges. The other process is dead.

        The segments that `sender`'s receiver held are kept, too: processes that the dead one forked
        may still use them.
        """
        held = sorted(self.held)
        if not held or self._shared_by_fork:
            return  # no value needs the file; or nobody knows what the forks use
        self._memory.remove_others(1 - self._direction, sender.held)
        self._memory.remove_others(self._direction, held)


# A forked process shares the memory and has no copy of it: held segments must stay as they are, and
# neither process may free them. This runs before the fork, since other fork hooks and other threads
# may release segments after it.
_RECEIVERS: Final[weakref.WeakValueDictionary[int, Receiver]] = weakref.WeakValueDictionary()


def _share_all() -> None:
    for reference in _RECEIVERS.valuerefs():  # one call: another thread may add one meanwhile
        receiver = reference()
        if receiver is not None:
            receiver.share()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_share_all)
