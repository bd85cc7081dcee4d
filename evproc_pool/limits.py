"""What a worker may use, and who sees to it.

A worker keeps its own count of events and looks at its own memory (`Quota`). At four
fifths of a limit it says so, and its replacement is started; once that is ready, or
the limit is reached, it runs nothing more, hands back what it has not begun, and is
told to end. What it cannot do itself, being stuck in a handler, the coordinator does
(see `watch`).
"""

from __future__ import annotations

from math import inf
from typing import Final, NamedTuple

#: From this share of a limit on, a worker's replacement is started.
NEARLY: Final = 0.8

# How often a worker looks at its memory, in seconds: some microseconds a look.
_MEMORY_LOOK_SECONDS: Final = 0.001


class Limits(NamedTuple):
    """The limits of each worker; None: there is none.

    Attributes:
        event_timeout: Seconds in one event.
        max_tasks: Events, all in all.
        max_memory_bytes: Resident memory.
        event_soft_timeout: Seconds in one event until its handler is told.
    """

    event_timeout: float | None = None
    max_tasks: int | None = None
    max_memory_bytes: int | None = None
    event_soft_timeout: float | None = None

    def check_room(self) -> None:
        """In a worker that has done nothing yet: see whether it can do anything.

        Raises:
            ValueError: It has nearly as much memory already as it may have.
        """
        if self.max_memory_bytes is not None:
            size = resident_bytes()
            if size >= NEARLY * self.max_memory_bytes:
                raise ValueError(
                    f"max_worker_memory_bytes is {self.max_memory_bytes:,}, and a worker has"
                    f" {size:,} before its first event: it must be well above that (what"
                    " `preload` imports counts, and what handlers' modules import)"
                )


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


def resident_bytes() -> int:
    """The resident memory of this process."""
    import psutil  # takes a while to import, and few workers need it

    size: int = psutil.Process().memory_info().rss
    return size
