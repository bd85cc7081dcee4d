"""What a pool tells its listeners: one stream of typed, frozen notifications.

::

    PoolProcessor(listeners=[listener])        listener(notification)

A listener is a callable. It gets each notification, one at a time, in order, usually in the thread
that drives the pool. So it should be quick; a slow one slows the pool down. It may call
`pool.statistics()`. It may not wait for the same pool. If it raises, the error is logged (logger
``evproc_pool``) and the listener is left out from then on.

The life of a root event, and of its follow-ups::

    Accepted --> Dispatched --> EventsDone --> CascadesDone --> Drained
                    ^   |
                    |   +-----> EventRetried (goes back)
                    |   +-----> EventFailed
                    +---------- follow-ups, events taken back

    WorkerStarted --> WorkerReady --> WorkerLost or WorkerReplaced, or WorkersEnded

Notifications about events come for a whole batch, never one for each event. A listener hears that
a cascade is done before its caller does, unless another thread is in a listener at that moment.
Objects in a notification are the pool's own: a listener must not change them, nor keep them after
it returns, except texts and numbers.

More kinds, and more fields, may be added: a listener ignores what it does not know. Select by
class, as in ``match``, and read fields by name.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

from evproc_pool.observe.seconds import Seconds

_T = TypeVar("_T")

#: The `call` of an event that `process` sent to a worker by itself.
SINGLE_CALL = -1


class Same(Sequence[_T], Generic[_T]):
    """The same item so many times, in constant memory."""

    __slots__ = ("_count", "item")

    def __init__(self, item: _T, count: int) -> None:
        self.item = item
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return Same(self.item, len(range(*place.indices(self._count))))
        if not -self._count <= place < self._count:
            raise IndexError("Same index out of range")
        return self.item


class Accepted(NamedTuple):
    """Root events were accepted: neighbours in the input of a call."""

    at: float  # when, in seconds of the pool's monotonic clock; likewise in all others
    call: int  # the number of the call that they belong to
    first: int  # the index of the first one in the input
    roots: int  # how many


class Dispatched(NamedTuple):
    """A batch was sent to a worker. Events that are run again are dispatched again."""

    at: float
    call: int
    worker: int
    events: int  # how many it has


class EventsDone(NamedTuple):
    """A worker has run some events of a batch, roots or follow-ups, whatever came of them.

    The columns have an item for each event, in the order in which they ran. Failed events are
    among them, each time that they are run.
    """

    at: float
    call: int
    worker: int  # 0: this process, with `workers=0`
    begun: float  # when the first one began, in seconds of the worker's `time.perf_counter`
    seconds: Seconds  # how long each took, all of its handlers
    handlers: Sequence[tuple[str, ...]]  # the names of the handlers that ran, in order
    # how long each of these handlers took, event by event. None: not known, which is rare.
    handler_seconds: Seconds | None
    values: int  # how many ended their cascade by `StopProcessing(value)`
    errors: int  # how many raised an error
    follow_ups: int  # how many events they returned, which are accepted with that
    events: Sequence[Any]  # the events, as they were sent; made when they are read
    paths: Sequence[tuple[int, ...]]  # see `Outcome.path`; made when they are read

    def by_handler(self) -> Iterator[tuple[str, Sequence[float]]]:
        """Yield the seconds of handlers by name; a name may come more than once."""
        flat = self.handler_seconds
        if flat is None:
            return
        if isinstance(self.handlers, Same):
            names = self.handlers.item
            for place, name in enumerate(names):
                yield name, (flat if len(names) == 1 else flat[place :: len(names)])
            return
        columns: defaultdict[str, list[float]] = defaultdict(list)
        every = itertools.chain.from_iterable(self.handlers)
        for name, seconds in zip(every, flat, strict=True):
            columns[name].append(seconds)
        yield from columns.items()


class EventFailed(NamedTuple):
    """An event has failed and is not run again."""

    at: float
    call: int
    path: tuple[int, ...]  # see `Outcome.path`; the first number is the root's index in the input
    event: str  # a short `repr`
    handler: str | None  # which was running; None: no handler was
    error: BaseException
    attempts: int


class EventRetried(NamedTuple):
    """An event has failed, or its worker died of it, and it will be run again."""

    at: float
    call: int
    path: tuple[int, ...]
    event: str  # a short `repr`
    handler: str | None
    error: BaseException
    attempts: int  # how many there were so far


class EventsUnmatched(NamedTuple):
    """Events that no handler wants are over: accepted roots, or follow-ups."""

    at: float
    call: int
    events: int  # how many


class CascadesDone(NamedTuple):
    """Cascades are over: root events with all of their follow-ups."""

    at: float
    call: int
    cascades: int  # how many, all of the following included
    failed: int  # how many ended with an error
    values: int  # how many were ended by `StopProcessing(value)`
    dropped: int  # how many were dropped, because the call ended before
    events: int = 0  # how many events they had that were handled, without those of dropped ones


class Drained(NamedTuple):
    """Nothing that was accepted is left to do. Comes again each time that this is so again."""

    at: float


class WorkerStarted(NamedTuple):
    """A worker process was started."""

    at: float
    worker: int  # its number, from 1; not used again before `WorkersEnded`
    pid: int | None  # None: it has no process


class WorkerReady(NamedTuple):
    """A worker has loaded its handlers and takes events."""

    at: float
    worker: int
    pid: int | None


class WorkerLost(NamedTuple):
    """A worker died, or was killed. Another one takes its place if there is work for it."""

    at: float
    worker: int
    pid: int | None
    exitcode: int | None  # as in `multiprocessing`: negative for a signal
    event: str | None  # a short `repr` of the event that was running; None: none was
    handler: str | None  # which was running
    path: tuple[int, ...] = ()  # of the event
    seconds: float = 0.0  # about how long the event ran


class WorkerReplaced(NamedTuple):
    """A worker has ended as it was asked to, because another one took its place."""

    at: float
    worker: int
    pid: int | None


class WorkersEnded(NamedTuple):
    """All workers are ended: at the end of the pool, for new handlers, or by an interrupt.

    What was accepted and is not over is dropped. Workers count from 1 again after this, and calls
    from 0.
    """

    at: float
    reason: str  # the error that ended them; empty: they were asked to end
    dropped: int = 0  # how many cascades


Notification: TypeAlias = (
    Accepted
    | Dispatched
    | EventsDone
    | EventFailed
    | EventRetried
    | EventsUnmatched
    | CascadesDone
    | Drained
    | WorkerStarted
    | WorkerReady
    | WorkerLost
    | WorkerReplaced
    | WorkersEnded
)

#: Gets each notification; what it returns is ignored.
Listener: TypeAlias = Callable[[Notification], object]
