"""The stacks of a worker, written by `faulthandler` where the coordinator can read them.

The file has no name and is held by the two processes only. A crash (SIGSEGV, SIGABRT,
SIGBUS, SIGFPE, SIGILL) leaves the stacks of all threads in it, and so does a signal by
which the coordinator asks for them. Neither needs the GIL or a live interpreter.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import time
from typing import TYPE_CHECKING, Final

from evproc_pool.ipc.descriptors import InheritedDescriptor, anonymous_file

if TYPE_CHECKING:
    import psutil  # takes a while to import, which a worker need not

# Of all signals the one that does nothing to a process that does not expect it, and
# that hardly any program uses.
_ASK: Final = getattr(signal, "SIGURG", None)

# How long to wait for an answer, in all and between two looks, in seconds. A process
# that blocks the signal gives none.
_PATIENCE_SECONDS: Final = 0.1
_LOOK_SECONDS: Final = 0.002

# of a deep recursion, or very many threads
_MOST_BYTES: Final = 1 << 16


class StackDumpFile(InheritedDescriptor):
    """The file."""

    @classmethod
    def create(cls) -> StackDumpFile:
        """Make it: empty."""
        return cls(anonymous_file())

    def install(self) -> None:
        """In the worker: from now on stacks are written to it."""
        faulthandler.enable(self._fd)
        if _ASK is not None:
            faulthandler.register(_ASK, self._fd)

    @property
    def size_bytes(self) -> int:
        """How much there is."""
        return os.fstat(self._fd).st_size

    def read(self, start: int = 0) -> str:
        """What was written from a place on."""
        return os.pread(self._fd, _MOST_BYTES, start).decode(errors="replace")

    def ask(self, process: psutil.Process) -> str:
        """Where a process that has installed it is; empty if it does not answer.

        Raises:
            psutil.Error: It is gone.
        """
        if _ASK is None:
            return ""
        before = size = self.size_bytes
        process.send_signal(_ASK)
        end = time.monotonic() + _PATIENCE_SECONDS
        # complete when it grows no more
        while time.monotonic() < end and (size == before or size != self.size_bytes):
            size = self.size_bytes
            time.sleep(_LOOK_SECONDS)
        return self.read(before)
