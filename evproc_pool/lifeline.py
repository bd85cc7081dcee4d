"""Ends a worker when its coordinator is gone, whatever the worker is doing.

A pipe: the coordinator holds one end, never writes, and closes it by dying at the
latest. On Linux the kernel then sends a signal to the worker that holds the other end
(`O_ASYNC` with `F_SETSIG`, see fcntl(2)): SIGKILL, which reaches a worker in a tight
loop, in a C call that holds the GIL, and one that blocks every signal. Nobody has to
look, so it costs nothing. Elsewhere a worker notices when it next reads its channel.

Rejected: a thread that waits for the end of the pipe (it cannot run while a C call
holds the GIL); PR_SET_PDEATHSIG (the parent of a worker may be the forkserver).
"""

from __future__ import annotations

import os
import signal
from typing import Final

from evproc_pool.inherited import Inherited

try:
    import fcntl
except ImportError:  # Windows
    _SETSIG = None
else:
    _SETSIG = getattr(fcntl, "F_SETSIG", None)

#: Whether the kernel can be asked to see to it.
CAN_KILL: Final = _SETSIG is not None


class Lifeline(Inherited):
    """The worker's end. The coordinator closes it once the worker has it."""

    @classmethod
    def create(cls) -> tuple[Lifeline, int]:
        """Make a pipe: the worker's end, and the descriptor of the coordinator's."""
        reads, writes = os.pipe()
        return cls(reads), writes

    def hold(self) -> None:
        """In the worker: from now on its life hangs on it."""
        hold(self._fd)


def hold(fd: int) -> None:
    """From now on this process ends with the last one that has the pipe's other end."""
    if _SETSIG is not None:
        fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(fd, _SETSIG, signal.SIGKILL)
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)


def let_go(fd: int) -> None:
    """No longer."""
    if _SETSIG is not None:
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) & ~os.O_ASYNC)
