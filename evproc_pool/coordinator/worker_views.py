"""What the workers do now, for `PoolProcessor.statistics`.

Any thread may ask, while another one drives. A worker that changes this very moment is shown
without its event.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from evproc.event import describe_event, shortened
from evproc.registry import Registry
from evproc_pool.coordinator.worker_record import WorkerRecord, seen_at
from evproc_pool.core.supervisor import Supervisor
from evproc_pool.observe.collector import WorkerView
from evproc_pool.observe.statistics import WorkerState
from evproc_pool.protocol.backend import Backend

_LONGEST_EVENT = 100


def now(
    records: Sequence[WorkerRecord],
    backend: Backend,
    supervisor: Supervisor,
    registry: Registry,
    moment: float,
) -> tuple[int, int, list[WorkerView]]:
    """How many events wait, how many these workers have, and what they do at the moment."""
    views = [_view_of(each, backend, supervisor, registry, moment) for each in records]
    in_flight = sum([each.in_flight for each in records])
    return supervisor.scheduler.pending, in_flight, [each for each in views if each is not None]


def _view_of(
    record: WorkerRecord, backend: Backend, supervisor: Supervisor, registry: Registry, now: float
) -> WorkerView | None:
    """What a worker does; None: it is gone."""
    number = record.worker
    state: WorkerState = "starting"
    event = handler = None
    seconds = 0.0
    try:
        pid = backend.pid(number)
    except ValueError:
        return None
    if record.is_ready:
        state = "working" if record.sent else "waiting"
    # the driver may change any of it meanwhile
    with contextlib.suppress(LookupError, RuntimeError, ValueError):
        if record.is_ready and supervisor.is_ending(number):
            state = "ending"
        if record.sent:
            event, handler, seconds = _current(record, backend, supervisor, registry, now)
    return WorkerView(number, pid, state, event, handler, seconds, backend.memory_bytes(number))


def _current(
    record: WorkerRecord, backend: Backend, supervisor: Supervisor, registry: Registry, now: float
) -> tuple[str | None, str | None, float]:
    """The event that a worker is at, its handler, and for how many seconds at most."""
    at = backend.look_at(record.worker)
    sent = record.sent[0]
    if at is None or at.is_over or at.batch != sent.number or at.position < 0:
        return None, None, 0.0
    event = shortened(describe_event(sent.batch.at(at.position)[0]), _LONGEST_EVENT)
    handler = None if at.handler is None else registry.handlers[at.handler].name
    since = supervisor.heard_last(record.worker, now)
    return (
        event,
        handler,
        now - max(since, supervisor.seen_since(record.worker, seen_at(sent, at), now)),
    )
