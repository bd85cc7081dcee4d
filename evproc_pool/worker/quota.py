"""What is left to a worker of its limits; see `protocol.limits`."""

from __future__ import annotations

from math import inf
from typing import Final

from evproc_pool.protocol.limits import Limits, resident_bytes

# How often a worker looks at its memory, in seconds: some microseconds a look.
_MEMORY_LOOK_SECONDS: Final = 0.001


class Quota:
    """What is left to a worker of its limits, in that worker.

    Attributes:
        tasks_left: How many events more it may run.
        look_at: When it is time to `look`, by the worker's clock.
        share: How much of its limits it has used; 1 or more: all.
        is_timed: Whether an event may take so long only.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.is_timed = limits.event_timeout is not None
        self.tasks_left: float = inf if limits.max_tasks is None else limits.max_tasks
        self.look_at = inf if limits.max_memory_bytes is None else 0.0
        self.share = 0.0

    @property
    def is_used_up(self) -> bool:
        """Whether it may run nothing more."""
        return self.share >= 1

    def spend(self, events: int) -> None:
        """So many events were run."""
        if self._limits.max_tasks is not None:
            self.tasks_left -= events
            self.share = max(self.share, 1 - self.tasks_left / self._limits.max_tasks)

    def look(self, now: float) -> None:
        """Look at the memory of this process."""
        if self._limits.max_memory_bytes is not None:
            self.share = max(self.share, resident_bytes() / self._limits.max_memory_bytes)
            self.look_at = now + _MEMORY_LOOK_SECONDS
