"""The limits of a worker.

A worker counts its events and checks its memory itself (`Quota`). At four fifths of a limit it
says so, and the coordinator starts its replacement. Once that is ready, or the limit is reached,
the worker runs no further event, gives back what it has not begun, and ends when asked to. A
worker that is stuck in a handler cannot do this; then the coordinator does
(see `core.event_limits`).
"""

from __future__ import annotations

from typing import Final, NamedTuple

#: The share of a limit at which a worker's replacement is started.
NEARLY: Final = 0.8


class Pace(NamedTuple):
    """When a worker reports, and whether with the times of handlers. The coordinator sets these."""

    target_seconds: float  # the work in a batch; results wait no longer, except as follows
    report_seconds: float  # how long results wait while a caller waits for single events
    keep_seconds: float  # how long values wait if the caller waits only for the end of the run
    overdue_seconds: float  # when a single event is late
    batches_ahead: int  # the most batches that a worker has at once
    # whether it notes when each handler begins, in plans of several
    times_handlers: bool = False


class Limits(NamedTuple):
    """The limits of each worker; None: no limit."""

    event_timeout: float | None = None  # seconds in one event
    max_tasks: int | None = None  # events in all
    max_memory_bytes: int | None = None  # resident
    event_soft_timeout: float | None = None  # seconds until an exception is raised in its handler

    def check_room(self) -> None:
        """Raise ValueError if a new worker's memory already has nearly the size of the limit."""
        if self.max_memory_bytes is not None:
            size = resident_bytes()
            if size >= NEARLY * self.max_memory_bytes:
                raise ValueError(
                    f"max_worker_memory_bytes is {self.max_memory_bytes:,}, and a worker has"
                    f" {size:,} before its first event: it must be well above that (what"
                    " `preload` imports counts, and what handlers' modules import)"
                )


#: The limits of a pool that was given none.
NO_LIMITS: Final = Limits()


def resident_bytes() -> int:
    """The resident memory of this process. Raises OSError if nobody can tell."""
    import psutil  # slow to import, and few workers need it

    try:
        size: int = psutil.Process().memory_info().rss
    except psutil.Error as error:
        raise OSError(
            f"max_worker_memory_bytes needs /proc, to see how much memory a worker has: {error}"
        ) from error
    return size
