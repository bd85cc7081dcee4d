"""Ends a process when its coordinator is gone, whatever the process is doing.

A pipe: the coordinator holds one end, never writes, and closes it by dying at the
latest. On Linux the kernel then sends a signal to the worker that holds the other end
(`O_ASYNC` with `F_SETSIG`, see fcntl(2)): SIGKILL, which reaches a worker in a tight
loop, in a C call that holds the GIL, and one that blocks every signal. Nobody has to
look, so it costs nothing. Elsewhere a worker notices when it next reads its channel.

A worker inherits its end (`ParentWatch`). A forkserver that imports its modules is given
the name of a pipe (`Anchor`), and opens it itself (`hanging_on`).

Rejected: a thread that waits for the end of the pipe (it cannot run while a C call
holds the GIL); PR_SET_PDEATHSIG (the parent of a worker may be the forkserver).
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Iterator
from typing import Final

from evproc_pool.ipc.descriptors import InheritedDescriptor

try:
    import fcntl
except ImportError:  # Windows
    _SETSIG = None
else:
    _SETSIG = getattr(fcntl, "F_SETSIG", None)

#: Whether the kernel can be asked to see to it.
CAN_KILL: Final = _SETSIG is not None


class ParentWatch(InheritedDescriptor):
    """The worker's end. The coordinator closes it once the worker has it."""

    @classmethod
    def create(cls) -> tuple[ParentWatch, int]:
        """Make a pipe: the worker's end, and the descriptor of the coordinator's."""
        reads, writes = os.pipe()
        return cls(reads), writes

    def hold(self) -> None:
        """In the worker: from now on its life hangs on it."""
        _hold(self._fd)


class Anchor:
    """One end of a pipe, which this process keeps as long as it lives.

    Kept and not closed after use, since who hangs on it would be killed then.
    """

    def __init__(self) -> None:
        reads, self._fd = os.pipe()
        os.close(reads)
        self._inode = os.fstat(self._fd).st_ino
        #: By which a child can hang on it.
        self.name: Final = f"{os.getpid()}.{self._fd}.{self._inode}"

    @property
    def is_open(self) -> bool:
        """Whether nobody has closed it, as programs do that close all descriptors."""
        try:
            return os.fstat(self._fd).st_ino == self._inode
        except OSError:
            return False

    def close(self) -> None:
        """In a process that was forked from this one: have no part in it."""
        if self.is_open:
            os.close(self._fd)


@contextlib.contextmanager
def hanging_on(name: str) -> Iterator[None]:
    """For a while have this process end with another, or now if that has ended.

    The life of a forkserver hangs on a pipe of its own, but not while it imports: whoever
    asks it for a process meanwhile sends the other end along, which so stays open.

    Args:
        name: Of an `Anchor` of the other.
    """
    pid, fd, inode = map(int, name.split("."))
    here = _open_pipe(f"/proc/{pid}/fd/{fd}", inode)
    if here is None:
        # the parent is another process where a wrapper has started this one
        if os.getppid() != pid and not _lives(pid):
            os._exit(1)
        yield  # no /proc, or none that may be read
        return
    try:
        _hold(here)
        end = select.poll()
        end.register(here)
        if end.poll(0):
            os._exit(1)  # it went before we held it
        yield
    finally:
        os.close(here)


def _open_pipe(path: str, inode: int) -> int | None:
    """A reading end of the pipe that has a place and a number, if there is one."""
    try:
        if os.stat(path).st_ino == inode:  # noqa: PTH116 - of what a link leads to
            # which does not wait for a writer
            return os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        pass
    return None


def _lives(pid: int) -> bool:
    import psutil  # takes a while to import, and is seldom needed

    try:
        # one that is dead may wait for its parent to notice
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True  # somebody else's, it seems


def _hold(fd: int) -> None:
    """From now on this process ends with the last one that has the pipe's other end."""
    if _SETSIG is not None:
        fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(fd, _SETSIG, signal.SIGKILL)
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)
