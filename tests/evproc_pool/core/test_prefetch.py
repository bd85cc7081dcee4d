"""Workers that hold one batch each, and are no processes of the pool."""

from __future__ import annotations

import pytest

from evproc_pool.core.event_limits import EventLimits
from evproc_pool.core.inputs_and_effects import Accepted, Opened, Progress, Send, WorkerReady
from evproc_pool.core.retry_policy import RetryPolicy
from evproc_pool.core.scheduler import Scheduler
from evproc_pool.core.supervisor import Supervisor
from evproc_pool.core.supervisor_inputs import Start
from evproc_pool.core.worker_loads import PREFETCH


class _Plan:
    indices = (0,)


_PLAN = _Plan()


@pytest.mark.parametrize("prefetch", [1, 2, PREFETCH])
def test_a_worker_holds_as_many_batches_as_it_may(prefetch: int) -> None:
    scheduler = Scheduler(RetryPolicy(), 2, prefetch=prefetch)
    for item in (WorkerReady(1), WorkerReady(2), Opened(1)):
        scheduler.step(item)
    sent: list[Send] = []
    for first in range(0, 300, 3):
        effects = scheduler.step(Accepted(1, first, ["event"] * 3, [_PLAN] * 3))
        sent += [each for each in effects if isinstance(each, Send)]
    assert [scheduler.batches_of(worker) for worker in (1, 2)] == [prefetch] * 2
    size = sent[0].batch.size
    effects = scheduler.step(Progress(sent[0].worker, size, [0.001] * size))
    assert any(isinstance(each, Send) for each in effects)
    assert [scheduler.batches_of(worker) for worker in (1, 2)] == [prefetch] * 2


@pytest.mark.parametrize(("prefetch", "started"), [(None, 1), (1, 4)])
def test_workers_that_are_calls_start_all_at_once(prefetch: int | None, started: int) -> None:
    limits = EventLimits(None, None, None)
    supervisor = Supervisor(RetryPolicy(), 4, limits, lambda: 0.5, prefetch=prefetch)
    effects = supervisor.begin_turn(0.0)
    assert [type(each) for each in effects] == [Start] * started
