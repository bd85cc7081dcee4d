"""What can be seen of a pool: its notifications, and who listens to them.

`notifications` has the notifications, and begins with how they follow each other. `notifier` hands
them to listeners. `statistics` is a listener.

May import: itself, `log`.
"""

from evproc_pool.observe.notifications import (
    SINGLE_CALL,
    Accepted,
    CascadesDone,
    Dispatched,
    Drained,
    EventFailed,
    EventRetried,
    EventsDone,
    EventsUnmatched,
    Listener,
    Notification,
    WorkerLost,
    WorkerReady,
    WorkerReplaced,
    WorkersEnded,
    WorkerStarted,
)

__all__ = [
    "SINGLE_CALL",
    "Accepted",
    "CascadesDone",
    "Dispatched",
    "Drained",
    "EventFailed",
    "EventRetried",
    "EventsDone",
    "EventsUnmatched",
    "Listener",
    "Notification",
    "WorkerLost",
    "WorkerReady",
    "WorkerReplaced",
    "WorkerStarted",
    "WorkersEnded",
]
