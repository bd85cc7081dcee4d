"""Descriptors that a process passes to a process that it starts."""

from __future__ import annotations

import os
from collections.abc import Callable
from multiprocessing import reduction
from typing import Any


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

    def fileno(self) -> int:
        """The descriptor; -1: it is closed."""
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
