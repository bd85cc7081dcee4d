"""Descriptors that a process passes to a process that it starts."""

from __future__ import annotations

import errno
import mmap
import os
import sys
from collections.abc import Callable
from multiprocessing import reduction
from typing import Any, Final

#: How many descriptors `mapped` holds: mmap keeps a copy up to Python 3.12.
MAP_DESCRIPTORS: Final = 0 if sys.version_info >= (3, 13) else 1


def mapped(fd: int, size_bytes: int) -> mmap.mmap:
    """Map the beginning of a file. The descriptor may be closed afterwards."""
    if sys.version_info >= (3, 13):
        return mmap.mmap(fd, size_bytes, trackfd=False)
    return mmap.mmap(fd, size_bytes)


def check_room(count: int) -> None:
    """Raise OSError unless `count` more descriptors can be opened; it says what to set.

    Opens them, since not every system says how many are open.
    """
    opened: list[int] = []
    try:
        opened.extend(os.pipe())
        opened.extend(os.dup(opened[0]) for _ in range(count - 2))
    except OSError as error:
        if error.errno != errno.EMFILE:
            raise
        import resource  # some systems lack it

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        raise OSError(
            errno.EMFILE,
            f"too few file descriptors are left for a worker: this process may have {soft}"
            f" (RLIMIT_NOFILE; the hard limit is {hard}): raise the limit (ulimit -n,"
            " LimitNOFILE= of systemd, resource.setrlimit), close files, or use fewer workers",
        ) from None
    finally:
        for each in opened:
            os.close(each)


def anonymous_file(size_bytes: int = 0) -> int:
    """Create a file without a name, for this user only. Return its descriptor.

    Raises OSError if no descriptor or no room is left; nothing was created then.
    """
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("evproc_pool", os.MFD_CLOEXEC)
    else:
        import tempfile  # slow to import, and seldom needed

        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    try:
        os.fchmod(fd, 0o600)  # other users could open it through /proc
        os.truncate(fd, size_bytes)
    except BaseException:
        os.close(fd)
        raise
    return fd


class InheritedDescriptor:
    """Owns a descriptor. It can be pickled only for a process that is being started."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @property
    def fd(self) -> int:
        """The descriptor; -1 once it is closed."""
        return self._fd

    def close(self) -> None:
        """Close the descriptor. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return _rebuild, (type(self), reduction.DupFd(self._fd))


def _rebuild(kind: Callable[[int], InheritedDescriptor], duplicate: Any) -> InheritedDescriptor:
    return kind(duplicate.detach())
