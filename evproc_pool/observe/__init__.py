"""What can be seen of a pool: its notifications, and who listens to them.

`notifications` has the notifications, and begins with how they follow each other. `notifier` hands
them to listeners. `collector` is the listener that collects `Statistics`; `histogram` and `seconds`
let it do so in bounded memory, at a small part of the cost of the events. More listeners (traces,
metrics) would stand beside it.

`call_progress` counts one call, by `progress`; `progress_views` shows that to a person.

May import: itself, `log`, `evproc`.
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
    Same,
    WorkerLost,
    WorkerReady,
    WorkerReplaced,
    WorkersEnded,
    WorkerStarted,
)
from evproc_pool.observe.progress import ProgressCounts
from evproc_pool.observe.seconds import Seconds
from evproc_pool.observe.statistics import (
    BatchStatistics,
    HandlerStatistics,
    SlowEvent,
    Statistics,
    WorkerState,
    WorkerStatistics,
)

__all__ = [
    "SINGLE_CALL",
    "Accepted",
    "BatchStatistics",
    "CascadesDone",
    "Dispatched",
    "Drained",
    "EventFailed",
    "EventRetried",
    "EventsDone",
    "EventsUnmatched",
    "HandlerStatistics",
    "Listener",
    "Notification",
    "ProgressCounts",
    "Same",
    "Seconds",
    "SlowEvent",
    "Statistics",
    "WorkerLost",
    "WorkerReady",
    "WorkerReplaced",
    "WorkerState",
    "WorkerStarted",
    "WorkerStatistics",
    "WorkersEnded",
]
