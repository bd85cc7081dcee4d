"""Nodes that die, freeze, come back, join and leave, under a whole pool: agents in threads."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from evproc import Event
from evproc_pool import EventTimeoutError, PoolProcessor, WorkerLostError
from tests.support import actions
from tests.support.actions import Do
from tests.support.agents import ThreadCluster, ThreadLink, pool_over
from tests.support.helpers import (
    PATIENCE_SECONDS,
    Background,
    Gate,
    close_in_time,
    register_all,
    wait_until,
)
from tests.support.sizes import BARS

_SEEDS = 40 if BARS else 4


@contextmanager
def _pool(*rooms: int, **options: Any) -> Iterator[tuple[PoolProcessor, ThreadCluster]]:
    cluster = ThreadCluster(rooms)
    pool = pool_over(cluster, **options)
    register_all(pool, [actions.act, actions.nested])
    try:
        yield pool, cluster
    finally:
        close_in_time(pool)


def _warm(pool: PoolProcessor, cluster: ThreadCluster) -> None:
    """Work until all workers are ready."""

    def is_ready() -> bool:
        pool.process_many([Do() for _ in range(4 * pool.workers)])
        engine = pool._engine
        return engine is not None and (
            engine._coordinator._supervisor.scheduler.workers == cluster.workers
        )

    wait_until(is_ready, "all workers are ready")


def _link_of(cluster: ThreadCluster, pid: int) -> ThreadLink:
    """The link to the agent of a worker."""
    backend = cluster.backend
    assert backend is not None
    (number,) = [each for each in backend.numbers if backend.pid(each) == pid]
    (link,) = [each for each in cluster.links if each.key == backend._nodes.agent_of(number)]
    return link


def test_only_what_ran_on_a_lost_node_is_charged() -> None:
    with _pool(1, 1) as (pool, cluster), Gate() as gate:
        _warm(pool, cluster)
        waits: list[Event] = [Do("wait_at", gate.address), Do("wait_at", gate.address)]
        events = [*waits, *(Do("stop", place) for place in range(2, 300))]
        with Background(lambda: pool.process_many(events, return_exceptions=True)) as call:
            first, second = gate.arrival(), gate.arrival()
            _link_of(cluster, first.pid).lose()
            second.release()
            values = call.result()
        lost = [each for each in values if isinstance(each, BaseException)]
        (error,) = lost
        assert isinstance(error, WorkerLostError)
        assert "its node node-" in str(error)
        assert "is lost: the connection was closed" in str(error)
        assert error in values[:2]
        assert values[2:] == list(range(2, 300))
        # the pool goes on, on the other node
        assert pool.process_many([Do("stop", 1)] * 20) == [1] * 20


def test_the_handler_of_a_slow_event_on_a_lost_node_is_named() -> None:
    with _pool(1) as (pool, cluster), Gate() as gate:
        _warm(pool, cluster)
        future = pool.submit(Do("wait_at", gate.address))
        gate.arrival()
        backend = cluster.backend
        assert backend is not None
        (number,) = backend.numbers
        wait_until(lambda: backend.look_at(number) is not None, "the agent tells its place")
        cluster.add(1)
        cluster.links[0].lose()
        error = future.exception(PATIENCE_SECONDS)
        assert isinstance(error, WorkerLostError)
        assert error.handler == "act"


def test_a_suspect_of_a_lost_node_runs_again_if_it_may() -> None:
    with _pool(1, 1, crash_limit=2) as (pool, cluster), Gate() as gate:
        _warm(pool, cluster)
        future = pool.submit(Do("wait_at", gate.address))
        first = gate.arrival()
        _link_of(cluster, first.pid).lose()
        gate.arrival().release()
        assert future.result(PATIENCE_SECONDS) is None


def test_work_waits_for_a_node_that_comes_back() -> None:
    with _pool(1) as (pool, cluster):
        _warm(pool, cluster)
        cluster.links[0].lose()
        with Background(lambda: pool.process_many([Do("stop", 7)] * 50)) as call:
            cluster.add(1, name=cluster.links[0].name)
            assert call.result() == [7] * 50


def test_nothing_comes_from_a_node_that_was_frozen_and_given_up() -> None:
    with _pool(1, 1) as (pool, cluster), Gate() as gate:
        _warm(pool, cluster)
        events = [Do("wait_at", gate.address), Do("wait_at", gate.address)]
        with Background(lambda: pool.process_many(events, return_exceptions=True)) as call:
            first, second = gate.arrival(), gate.arrival()
            link = _link_of(cluster, first.pid)
            link.freeze()
            first.release()  # its result never arrives
            second.release()
            link.lose("nothing has come from it for a while")
            values = call.result()
        assert sorted(map(type, values), key=str) == [type(None), WorkerLostError]


def test_a_node_that_joins_is_used() -> None:
    with _pool(1) as (pool, cluster), Gate() as gate:
        _warm(pool, cluster)
        futures = [pool.submit(Do("wait_at", gate.address)) for _ in range(2)]
        gate.arrival()
        cluster.add(1)
        gate.arrival()  # by the new one: the other one still waits
        gate.close()
        assert [each.result(PATIENCE_SECONDS) for each in futures] == [None, None]


def test_a_node_that_retires_finishes_what_runs_and_gets_no_more() -> None:
    with _pool(1, 1) as (pool, cluster), Gate() as gate:
        _warm(pool, cluster)
        slow = pool.submit(Do("wait_at", gate.address))
        arrival = gate.arrival()
        link = _link_of(cluster, arrival.pid)
        link.retire()
        others = [pool.submit(Do("stop", place)) for place in range(50)]
        assert [each.result(PATIENCE_SECONDS) for each in others] == list(range(50))
        assert not slow.done()
        arrival.release()
        assert slow.result(PATIENCE_SECONDS) is None
        link.join()  # the agent ends by itself
        assert pool.process_many([Do("stop", 1)] * 20) == [1] * 20


def test_a_poison_event_costs_one_worker_of_one_agent() -> None:
    with _pool(1, 1) as (pool, cluster):
        _warm(pool, cluster)
        engine = pool._engine
        assert engine is not None
        before = set(engine.pids())
        events = [Do("stop", place) for place in range(100)]
        events[50] = Do("signalled", signal.SIGKILL)
        values = pool.process_many(events, return_exceptions=True)
        error = values.pop(50)
        assert values == [place for place in range(100) if place != 50]
        assert isinstance(error, WorkerLostError)
        assert (error.handler, error.exitcode) == ("act", -signal.SIGKILL)
        _warm(pool, cluster)
        assert len(before.intersection(engine.pids())) == 1


def test_an_event_that_takes_too_long_is_killed_by_its_agent() -> None:
    with _pool(1, 1, event_timeout=0.3) as (pool, cluster), Gate() as gate:
        _warm(pool, cluster)
        events = [Do("stop", place) for place in range(100)]
        events[50] = Do("wait_at", gate.address)
        values = pool.process_many(events, return_exceptions=True)
        error = values.pop(50)
        assert values == [place for place in range(100) if place != 50]
        assert isinstance(error, EventTimeoutError)
        assert error.handler == "act"
        assert "wait_at" in error.stack


def test_what_waits_behind_a_slow_event_is_taken_back() -> None:
    with _pool(1, 1) as (pool, cluster), Gate() as gate:
        _warm(pool, cluster)
        events = [Do("wait_at", gate.address), *(Do("stop", place) for place in range(1, 2000))]
        outcomes = pool.stream(events, ordered=False)
        others = [next(outcomes).value for _ in range(1999)]
        assert sorted(others) == list(range(1, 2000))
        gate.close()
        assert next(outcomes).index == 0


@pytest.mark.parametrize("seed", range(_SEEDS))
def test_each_event_has_one_outcome_whatever_happens_to_nodes(seed: int) -> None:
    rng = random.Random(seed)
    with _pool(*(rng.randint(1, 2) for _ in range(3))) as (pool, cluster):
        points = {rng.randrange(20, 380): rng.choice(("lose", "join", "retire")) for _ in range(5)}
        outcomes = []
        for outcome in pool.stream(Do("stop", place) for place in range(400)):
            outcomes.append(outcome)
            what = points.get(outcome.index)
            if what == "join":
                cluster.add(rng.randint(1, 2))
            elif what is not None:
                link = rng.choice(cluster.links)
                link.lose() if what == "lose" else link.retire()
                cluster.add(1)  # so that work never waits for ever
        assert [each.index for each in outcomes] == list(range(400))
        for each in outcomes:
            assert each.value == each.index or isinstance(each.error, WorkerLostError)
        # a node that is lost costs an event for each of its workers at most
        losses = sum(each.error is not None for each in outcomes)
        assert losses <= 2 * sum(what == "lose" for what in points.values())
