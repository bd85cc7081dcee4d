"""The stacks of a worker, which `faulthandler` writes and the coordinator reads.

They go to an anonymous file that only the two processes hold. `faulthandler` writes the stacks of
all threads at a crash (SIGSEGV, SIGABRT, SIGBUS, SIGFPE, SIGILL), and when the coordinator sends a
signal. Neither needs the GIL or a working interpreter.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import time
from typing import TYPE_CHECKING, Final

from evproc_pool.ipc.descriptors import InheritedDescriptor, anonymous_file

if TYPE_CHECKING:
    import psutil  # slow to import, and a worker does not need it

# A process that does not expect this signal ignores it, and hardly any program uses it.
_DUMP_SIGNAL: Final = getattr(signal, "SIGURG", None)

# How long to wait for the stacks, in all and between two checks. A process that blocks the signal
# never writes them.
_ANSWER_SECONDS: Final = 0.1
_CHECK_SECONDS: Final = 0.002

# enough for a deep recursion, or very many threads
_MOST_BYTES: Final = 1 << 16


class StackDumpFile(InheritedDescriptor):
    """The file that receives the stacks."""

    @classmethod
    def create(cls) -> StackDumpFile:
        """Create an empty file."""
        return cls(anonymous_file())

    def install(self) -> None:
        """Write the stacks of this process, a worker, to the file from now on."""
        faulthandler.enable(self._fd)
        if _DUMP_SIGNAL is not None:
            faulthandler.register(_DUMP_SIGNAL, self._fd)

    @property
    def size_bytes(self) -> int:
        """How many bytes were written."""
        return os.fstat(self._fd).st_size

    def read(self, start: int = 0) -> str:
        """The text behind an offset."""
        return os.pread(self._fd, _MOST_BYTES, start).decode(errors="replace")

    def ask(self, process: psutil.Process) -> str:
        """Return the current stacks of a worker; empty if it does not answer.

        Raises:
            psutil.Error: The process is gone.
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
