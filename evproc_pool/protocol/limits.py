"""What a worker may use, and who sees to it.

A worker keeps its own count of events and looks at its own memory (`Quota`). At four
fifths of a limit it says so, and its replacement is started; once that is ready, or
the limit is reached, it runs nothing more, hands back what it has not begun, and is
told to end. What it cannot do itself, being stuck in a handler, the coordinator does
(see `watch`).
"""

from __future__ import annotations

from typing import Final, NamedTuple

#: From this share of a limit on, a worker's replacement is started.
NEARLY: Final = 0.8


class Pace(NamedTuple):
    """How long a worker may wait until it reports; the coordinator's figures.

    Attributes:
        target_seconds: Work in a batch. Results wait that long at most, unless the next two say
            something else.
        tell_seconds: How long they wait while a caller waits for single events.
        keep_seconds: How long values wait where the caller waits only for the end of the run.
        overdue_seconds: After that long a single event is late.
        batches_ahead: How many batches a worker has at the most.
    """

    target_seconds: float
    tell_seconds: float
    keep_seconds: float
    overdue_seconds: float
    batches_ahead: int


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


def resident_bytes() -> int:
    """The resident memory of this process."""
    import psutil  # takes a while to import, and few workers need it

    size: int = psutil.Process().memory_info().rss
    return size
