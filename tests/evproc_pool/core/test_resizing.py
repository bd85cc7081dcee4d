"""The size of a pool changes while it works: nodes join and are lost."""

from __future__ import annotations

from evproc_pool.core.event_limits import EventLimits
from evproc_pool.core.inputs_and_effects import Accepted, Opened, WorkerGone, WorkerReady
from evproc_pool.core.retry_policy import RetryPolicy
from evproc_pool.core.supervisor import Supervisor
from evproc_pool.core.supervisor_inputs import Start


class _Plan:
    indices = (0,)


def _busy(size: int) -> Supervisor:
    """A supervisor with work for any number of workers."""
    supervisor = Supervisor(RetryPolicy(), size, EventLimits(), lambda: 0.5)
    supervisor.step(Opened(1), 0.0)
    supervisor.step(Accepted(1, 0, ["event"] * 100, [_Plan()] * 100), 0.0)
    return supervisor


def _starts(supervisor: Supervisor) -> list[int]:
    return [each.worker for each in supervisor.begin_turn(0.0) if isinstance(each, Start)]


def test_there_are_more_workers_once_there_is_room_for_more() -> None:
    supervisor = _busy(1)
    assert _starts(supervisor) == [1]
    supervisor.resize(3)
    assert _starts(supervisor) == [2, 3]


def test_the_workers_of_a_lost_node_are_not_replaced_beyond_the_room_that_is_left() -> None:
    supervisor = _busy(3)
    for worker in _starts(supervisor):
        supervisor.step(WorkerReady(worker), 0.0)
    supervisor.resize(2)
    supervisor.step(WorkerGone(1, None, None, None), 0.0)
    assert _starts(supervisor) == []
    supervisor.step(WorkerGone(2, None, None, None), 0.0)
    assert _starts(supervisor) == [4]


def test_the_demand_for_roots_grows_with_the_room() -> None:
    supervisor = Supervisor(RetryPolicy(), 1, EventLimits(), lambda: 0.5)
    supervisor.step(Opened(1), 0.0)
    before = supervisor.scheduler.demand(1)
    supervisor.resize(4)
    assert supervisor.scheduler.demand(1) == 4 * before
