"""Where a worker is, in a few words of shared memory.

The worker writes which batch, which event of it and which handler it is at; the
coordinator reads it when the worker is dead. A write is a store of a machine
word, tens of nanoseconds, no system call. The memory has no name: it is an
unlinked file that only the two processes hold.
"""

from __future__ import annotations

import mmap
import os
import sys
import tempfile
from collections.abc import Callable
from multiprocessing import reduction
from typing import Any, Final, NamedTuple

# the words
BATCH: Final = 0  # which batch, from 1
PLACE: Final = 1  # position << HANDLER_BITS | index of the handler + 1, or one of the below
UNSENT: Final = 2  # the first position with a result that was not sent, or NONE
_WORDS: Final = 3
_BYTES: Final = 8 * _WORDS

#: Bits of `PLACE` that hold the handler; 0 in them is "between handlers".
HANDLER_BITS: Final = 20

#: `PLACE` between batches; no position in `UNSENT`.
NONE: Final = -1
#: `PLACE` while the events of a batch are being unpickled together.
UNPICKLING: Final = -2


class Progress(NamedTuple):
    """What was last written.

    Attributes:
        batch: Which batch, from 1.
        position: The event in it, or NONE or UNPICKLING.
        handler: The handler's index in the registry, or None.
        unsent: The first position whose result has not been sent, or None.
    """

    batch: int
    position: int
    handler: int | None
    unsent: int | None


class ProgressWords:
    """The words; picklable only for a process that is being started."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._map = mmap.mmap(fd, _BYTES)
        #: Signed words, by the constants above.
        self.words = memoryview(self._map).cast("q")

    @classmethod
    def create(cls) -> ProgressWords:
        """Make them: no batch yet."""
        if hasattr(os, "memfd_create"):
            fd = os.memfd_create("evproc_pool", os.MFD_CLOEXEC)
        else:
            with tempfile.TemporaryFile() as file:
                fd = os.dup(file.fileno())
        os.truncate(fd, _BYTES)
        made = cls(fd)
        made.words[PLACE] = made.words[UNSENT] = NONE
        return made

    def read(self) -> Progress:
        """What the worker wrote last; torn while it is alive."""
        batch, place, unsent = self.words
        if place < 0:
            return Progress(batch, place, None, None)
        handler = place & ((1 << HANDLER_BITS) - 1)
        return Progress(
            batch,
            place >> HANDLER_BITS,
            handler - 1 if handler else None,
            unsent if unsent >= 0 else None,
        )

    def close(self) -> None:
        """Let go of the memory."""
        self.words.release()
        self._map.close()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return _rebuild, (reduction.DupFd(self._fd),)


def _rebuild(duplicate: Any) -> ProgressWords:
    return ProgressWords(duplicate.detach())


#: Whether a descriptor can be handed to a process of any start method here. Where
#: it cannot (Windows), a dead worker's first unreported event is taken for the
#: one that was running.
IS_SUPPORTED: Final = sys.platform != "win32"
