"""How much of its limits a worker has left; see `protocol.limits`."""

from __future__ import annotations

import contextlib
from math import inf
from typing import Final

from evproc_pool.protocol.limits import Limits, resident_bytes

# How often a worker checks its memory, in seconds; a check takes some microseconds.
_MEMORY_CHECK_SECONDS: Final = 0.001


class Quota:
    """What a worker may still use.

    Attributes:
        check_at: When to call `check_memory`, by the worker's clock.
        share: The used share of the limit that is nearest to its end; 1 or more: used up.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.is_timed = limits.event_timeout is not None
        self.tasks_left: float = inf if limits.max_tasks is None else limits.max_tasks
        self.check_at = inf if limits.max_memory_bytes is None else 0.0
        self.share = 0.0

    @property
    def is_used_up(self) -> bool:
        """Whether the worker may run no further event."""
        return self.share >= 1

    def spend(self, events: int) -> None:
        """Count events that were run."""
        if self._limits.max_tasks is not None:
            self.tasks_left -= events
            self.share = max(self.share, 1 - self.tasks_left / self._limits.max_tasks)

    def check_memory(self, now: float) -> None:
        """Check the memory of this process."""
        if self._limits.max_memory_bytes is not None:
            with contextlib.suppress(OSError):  # the handlers have left no descriptor
                self.share = max(self.share, resident_bytes() / self._limits.max_memory_bytes)
            self.check_at = now + _MEMORY_CHECK_SECONDS
