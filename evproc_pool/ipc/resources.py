"""What a worker process shares with the coordinator besides its channel.

Status words and stack dumps are in anonymous files that only the two processes hold.
"""

from __future__ import annotations

import faulthandler
import mmap
import os
import signal
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from evproc_pool.ipc.descriptors import InheritedDescriptor, anonymous_file
from evproc_pool.ipc.parent_death import ParentWatch
from evproc_pool.ipc.shared_memory import SharedMemory
from evproc_pool.protocol.status_words import NONE, PLACE, UNSENT, WORDS, StatusWords

if TYPE_CHECKING:
    import psutil  # slow to import, and a worker does not need it

#: Whether a process of any start method can inherit a descriptor. If not (Windows), a dead worker's
#: first unreported event counts as the one that was running.
IS_SUPPORTED: Final = sys.platform != "win32"

_WORDS_BYTES: Final = 8 * WORDS

# A process that does not expect this signal ignores it, and hardly any program uses it.
_DUMP_SIGNAL: Final = getattr(signal, "SIGURG", None)

# How long to wait for the stacks, in all and between two checks. A process that blocks the signal
# never writes them.
_ANSWER_SECONDS: Final = 0.1
_CHECK_SECONDS: Final = 0.002

# enough for a deep recursion, or very many threads
_MOST_DUMP_BYTES: Final = 1 << 16


class StatusMemory(StatusWords, InheritedDescriptor):
    """Status words that a worker writes and the coordinator reads."""

    words: memoryview

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self._map = mmap.mmap(fd, _WORDS_BYTES)
        self.words = memoryview(self._map).cast("q")

    @classmethod
    def create(cls) -> StatusMemory:
        """Create the words; they name no batch yet."""
        made = cls(anonymous_file(_WORDS_BYTES))
        made.words[PLACE] = made.words[UNSENT] = NONE
        return made

    def close(self) -> None:
        """Unmap and close the memory."""
        self.words.release()
        self._map.close()
        super().close()


class StackDumpFile(InheritedDescriptor):
    """The file that receives a worker's stacks.

    `faulthandler` writes the stacks of all threads at a crash (SIGSEGV, SIGABRT, SIGBUS, SIGFPE,
    SIGILL), and when the coordinator sends a signal. Neither needs the GIL or a working
    interpreter.
    """

    @classmethod
    def create(cls) -> StackDumpFile:
        """Create an empty file."""
        return cls(anonymous_file())

    def install(self) -> None:
        """Write the stacks of this process, a worker, to the file from now on."""
        faulthandler.enable(self._fd)
        if _DUMP_SIGNAL is not None:
            faulthandler.register(_DUMP_SIGNAL, self._fd)

    def uninstall(self) -> None:
        """Write nothing to the file any more."""
        faulthandler.disable()
        if _DUMP_SIGNAL is not None:
            faulthandler.unregister(_DUMP_SIGNAL)

    @property
    def size_bytes(self) -> int:
        """How many bytes were written."""
        return os.fstat(self._fd).st_size

    def read(self, start: int) -> str:
        """The text behind an offset."""
        return os.pread(self._fd, _MOST_DUMP_BYTES, start).decode(errors="replace")

    def ask(self, process: psutil.Process) -> str:
        """Return the current stacks of a worker; empty if it does not answer.

        Raises `psutil.Error` if the process is gone.
        """
        if _DUMP_SIGNAL is None:
            return ""
        before = size = self.size_bytes
        process.send_signal(_DUMP_SIGNAL)
        end = time.monotonic() + _ANSWER_SECONDS
        # the text is complete when it stops growing
        while time.monotonic() < end and (size == before or size != self.size_bytes):
            size = self.size_bytes
            time.sleep(_CHECK_SECONDS)
        return self.read(before)


class WorkerResources(NamedTuple):
    """The resources of one worker; None if this platform lacks one."""

    words: StatusMemory | None = None  # in which the worker says what it is doing
    stacks: StackDumpFile | None = None  # receives the worker's stacks when it crashes
    parent_watch: ParentWatch | None = None  # ends the worker when the coordinator is dead
    shared_memory: SharedMemory | None = None  # carries large messages
    shared: Sequence[Any] = ()  # of the `Config`

    def install(self) -> None:
        """Use them from now on, in the worker."""
        if self.stacks is not None:
            self.stacks.install()
        if self.parent_watch is not None:
            self.parent_watch.install()

    def disown(self) -> None:
        """Give them up, in a process that the worker has forked.

        Whoever writes a status word raises `ValueError`. What lies in shared memory can be read.
        """
        if self.stacks is not None:
            self.stacks.uninstall()
        for each in (self.words, self.stacks, self.parent_watch):
            if each is not None:
                each.close()
        if self.shared_memory is not None:
            InheritedDescriptor.close(self.shared_memory)  # it stays mapped
