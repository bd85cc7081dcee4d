"""A descriptor that a process takes along to a process that it starts."""

from __future__ import annotations

import os
from collections.abc import Callable
from multiprocessing import reduction
from typing import Any


class Inherited:
    """Owns a descriptor; picklable only for a process that is being started."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def close(self) -> None:
        """Let go of it. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return _rebuild, (type(self), reduction.DupFd(self._fd))


def _rebuild(kind: Callable[[int], Inherited], duplicate: Any) -> Inherited:
    return kind(duplicate.detach())
