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
BATCH: Final = 0
POSITION: Final = 1
HANDLER: Final = 2
_WORDS: Final = 3
_BYTES: Final = 8 * _WORDS

#: `POSITION` between events, `HANDLER` between handlers.
IDLE: Final = -1
#: `POSITION` while the events of a batch are being unpickled together.
UNPICKLING: Final = -2


class Progress(NamedTuple):
    """What was last written."""

    batch: int
    position: int
    handler: int


class ProgressWords:
    """The words; picklable only for a process that is being started."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._map = mmap.mmap(fd, _BYTES)
        #: Signed words, by the constants above.
        self.words = memoryview(self._map).cast("q")

    @classmethod
    def create(cls) -> ProgressWords:
        """Make them: no batch yet, idle."""
        if hasattr(os, "memfd_create"):
            fd = os.memfd_create("evproc_pool", os.MFD_CLOEXEC)
        else:
            with tempfile.TemporaryFile() as file:
                fd = os.dup(file.fileno())
        os.truncate(fd, _BYTES)
        made = cls(fd)
        made.words[POSITION] = made.words[HANDLER] = IDLE
        return made

    def read(self) -> Progress:
        """What the worker wrote last; torn while it is alive."""
        return Progress(*self.words)

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
