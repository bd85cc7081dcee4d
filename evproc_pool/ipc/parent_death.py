"""Ends a process when its coordinator dies, whatever the process is doing.

The coordinator holds the writing end of a pipe and writes nothing more to it; its death closes this
end. The worker holds the reading end. On Linux the kernel then sends the worker SIGKILL (`O_ASYNC`
with `F_SETSIG`, see fcntl(2)). This signal reaches a worker in a tight loop, in a C call that holds
the GIL, and one that blocks every signal. The worker never checks anything, so it costs nothing.
Elsewhere a worker notices when it next reads its channel.

`multiprocessing` gives a worker such a pipe: the sentinel of its parent (`end_with_coordinator`). A
forkserver that imports the handlers' modules gets the name of another one (`Anchor`), and opens it
itself (`ends_with_parent`).

Rejected: a thread that waits for the end of the pipe (it cannot run while a C call holds the GIL);
PR_SET_PDEATHSIG (the parent of a worker may be the forkserver).
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import select
import signal
from collections.abc import Iterator
from typing import Final

try:
    import fcntl
except ImportError:  # Windows
    _SETSIG = None
else:
    _SETSIG = getattr(fcntl, "F_SETSIG", None)

#: Whether the kernel can kill the worker.
CAN_KILL: Final = _SETSIG is not None


def end_with_coordinator() -> None:
    """End this process, a worker, when the coordinator dies, or at once if it is dead."""
    coordinator = multiprocessing.parent_process()
    if CAN_KILL and coordinator is not None:
        _end_with_pipe(coordinator.sentinel)


class Anchor:
    """One end of a pipe, which this process keeps open as long as it lives.

    Not closed after use: that would kill every process that depends on it.
    """

    def __init__(self) -> None:
        reads, self._fd = os.pipe()
        os.close(reads)
        self._inode = os.fstat(self._fd).st_ino
        #: Names the pipe for `ends_with_parent` in a child.
        self.name: Final = f"{os.getpid()}.{self._fd}.{self._inode}"

    @property
    def is_open(self) -> bool:
        """Whether it is still open. Some programs close all descriptors."""
        try:
            return os.fstat(self._fd).st_ino == self._inode
        except OSError:
            return False

    def close(self) -> None:
        """Close it in a process that was forked from this one."""
        if self.is_open:
            os.close(self._fd)


@contextlib.contextmanager
def ends_with_parent(name: str) -> Iterator[None]:
    """While this context lasts, end this process when the parent dies, or at once if it is dead.

    `name` is that of the parent's `Anchor`. A forkserver ends with a pipe of its own, but not
    while it imports: a process that requests a worker meanwhile sends the other end along, which
    keeps the pipe open.
    """
    pid, fd, inode = map(int, name.split("."))
    here = _open_pipe(f"/proc/{pid}/fd/{fd}", inode)
    if here is None:
        # not the direct parent if a wrapper has started this process
        if os.getppid() != pid and not _is_alive(pid):
            os._exit(1)
        yield  # no /proc, or it is not readable
        return
    try:
        _end_with_pipe(here)
        yield
    finally:
        os.close(here)


def _open_pipe(path: str, inode: int) -> int | None:
    """Open the reading end of a pipe, by its path and inode; None if it does not exist."""
    try:
        if os.stat(path).st_ino == inode:  # noqa: PTH116 - follows the link
            # O_NONBLOCK: do not wait for a writer
            return os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        pass
    return None


def _is_alive(pid: int) -> bool:
    import psutil  # slow to import, and seldom needed

    try:
        # a zombie is dead, but its parent has not noticed
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return not os.access("/proc/self", os.F_OK)  # no /proc: nobody can tell
    except psutil.Error:
        return True  # probably another user's process


def _end_with_pipe(fd: int) -> None:
    """Have the kernel kill this process when the last writing end of the pipe is closed."""
    if _SETSIG is not None:
        fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(fd, _SETSIG, signal.SIGKILL)
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)
    end = select.poll()
    end.register(fd)
    if end.poll(0):
        os._exit(1)  # it was closed before that
