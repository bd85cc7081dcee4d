"""Agents on a Dask cluster of separate processes; few tests, since each process starts slowly."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import evproc
from evproc import Event
from evproc_pool import (
    EventTimeoutError,
    PoolBrokenError,
    PoolProcessor,
    WorkerLostError,
)
from evproc_pool.backends.agents import messages, versions
from evproc_pool.backends.agents.remote_backend import Inbox
from evproc_pool.backends.promises import AGENTS
from evproc_pool.testing import Conformance
from tests.support import actions, programs
from tests.support.actions import Do
from tests.support.agent_pools import play, warm
from tests.support.helpers import PATIENCE_SECONDS, Gate, register_all, wait_until
from tests.support.sizes import BARS

pytest.importorskip("distributed", reason="needs the extra [dask]")

from tests.support.dask_cluster import DaskCluster, dask_cluster

pytestmark = pytest.mark.cluster

_PROGRAMS = 300 if BARS else 6
_PER_TEST = 25 if BARS else 6


@pytest.fixture(scope="module")
def processes() -> Iterator[DaskCluster]:
    """A scheduler and two workers of Dask."""
    with dask_cluster() as cluster:
        cluster.disconnect()
        yield cluster


@pytest.fixture
def cluster(processes: DaskCluster) -> Iterator[DaskCluster]:
    """The same with a client of its own; no test may kill these."""
    processes.connect()
    yield processes
    processes.disconnect()


@pytest.fixture
def fragile() -> Iterator[DaskCluster]:
    """Two workers of Dask."""
    with dask_cluster() as cluster:
        yield cluster


def _pool(cluster: DaskCluster, **options: Any) -> PoolProcessor:
    pool = PoolProcessor(executor=cluster.client, **options)
    register_all(pool, [actions.act, actions.nested])
    return pool


@pytest.mark.parametrize("first", range(0, _PROGRAMS, _PER_TEST))
def test_random_programs_come_to_the_same_as_with_a_processor(
    cluster: DaskCluster, tmp_path: Path, first: int
) -> None:
    for seed in range(first, first + _PER_TEST):
        program = programs.random_program(random.Random(seed))
        serial = programs.play({**program, "log_path": str(tmp_path / f"{seed}.serial")}, evproc)
        program["log_path"] = str(tmp_path / f"{seed}.pool")
        way = ("many", "keyed", "stream")[seed % 3]
        pooled = play(program, PoolProcessor(executor=cluster.client), way)
        assert pooled == serial, f"seed {seed}"


def test_a_poison_event_costs_one_worker_process_and_no_worker_of_dask(
    cluster: DaskCluster,
) -> None:
    before = cluster.pids
    with _pool(cluster) as pool:
        workers = warm(pool)
        events: list[Event] = [Do("stop", place) for place in range(500)]
        events[250] = Do("signalled", signal.SIGKILL)
        values = pool.process_many(events, return_exceptions=True)
        error = values.pop(250)
        assert values == [place for place in range(500) if place != 250]
        assert isinstance(error, WorkerLostError)
        assert (error.handler, error.exitcode) == ("act", -signal.SIGKILL)
        assert "SIGKILL" in str(error)
        assert len(workers & warm(pool)) == 1
    assert cluster.pids == before


def test_an_event_that_takes_too_long_fails_alone(cluster: DaskCluster) -> None:
    before = cluster.pids
    with _pool(cluster, event_timeout=0.5) as pool, Gate() as gate:
        warm(pool)
        events: list[Event] = [Do("stop", place) for place in range(100)]
        events[50] = Do("wait_at", gate.address)
        values = pool.process_many(events, return_exceptions=True)
        error = values.pop(50)
        assert values == [place for place in range(100) if place != 50]
        assert isinstance(error, EventTimeoutError)
        assert error.handler == "act"
    assert cluster.pids == before


def test_the_address_of_the_scheduler_is_enough(cluster: DaskCluster) -> None:
    with PoolProcessor(1, executor=cluster.address) as pool:
        pool.register(actions.act)
        assert pool.process_many([Do("stop", place) for place in range(9)]) == list(range(9))
        assert pool._engine is not None
        assert len(pool._engine.pids()) == 1  # and `workers` is the most


def test_other_versions_on_a_node_fail_before_the_first_event(
    cluster: DaskCluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(versions, "_own_version", lambda: "0.0.1")
    log = tmp_path / "log"
    with _pool(cluster) as pool:
        with pytest.raises(PoolBrokenError) as caught:
            pool.process(Do("log", str(log), "ran"))
        text = str(caught.value)
        assert "node tcp://127.0.0.1:" in text
        assert "evproc-pool 0.0.1 in the pool's process, " in text
    assert not log.exists()


def test_a_killed_worker_of_dask_costs_what_ran_there_and_another_one_is_used(
    fragile: DaskCluster,
) -> None:
    with _pool(fragile) as pool, Gate() as gate:
        warm(pool)
        waits: list[Event] = [Do("wait_at", gate.address), Do("wait_at", gate.address)]
        others: list[Event] = [Do("stop", place) for place in range(500)]
        futures = [pool.submit(each) for each in (*waits, *others)]
        gate.arrival()
        gate.arrival()
        address, pid = next(iter(fragile.pids.items()))
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: any(each.done() for each in futures[:2]), "the death is noticed")
        gate.close()
        errors = [each.exception(PATIENCE_SECONDS) for each in futures]
        (error,) = [each for each in errors if each is not None]
        assert error in errors[:2]
        assert isinstance(error, WorkerLostError)
        assert f"its node {address} is lost" in str(error)
        assert [each.result() for each in futures[2:]] == list(range(500))
        fragile.wait_for_loss(address)
        fragile.add_worker()
        warm(pool)


def test_a_worker_of_dask_that_freezes_is_given_up(
    fragile: DaskCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messages, "FROZEN_SECONDS", 1.5)
    with _pool(fragile) as pool, Gate() as gate:
        warm(pool)
        futures = [pool.submit(Do("wait_at", gate.address)) for _ in range(2)]
        arrivals = [gate.arrival(), gate.arrival()]
        address, pid = next(iter(fragile.pids.items()))
        os.kill(pid, signal.SIGSTOP)
        try:
            wait_until(lambda: any(each.done() for each in futures), "the node is given up")
            for each in arrivals:
                each.release()
            errors = [each.exception(PATIENCE_SECONDS) for each in futures]
            (error,) = [each for each in errors if each is not None]
            assert f"its node {address} is lost: nothing has come from it for 1.5 s" in str(error)
            assert pool.process_many([Do("stop", 1)] * 20) == [1] * 20
        finally:
            os.kill(pid, signal.SIGCONT)


def test_a_worker_of_dask_that_is_frozen_at_the_start_holds_up_no_other(
    fragile: DaskCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messages, "FROZEN_SECONDS", 1.5)
    pid = next(iter(fragile.pids.values()))
    os.kill(pid, signal.SIGSTOP)
    try:
        with _pool(fragile) as pool:
            assert pool.process_many([Do("stop", 1)] * 20) == [1] * 20
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_client_that_is_closed_before_the_first_event_is_said_to_be() -> None:
    with dask_cluster(1) as cluster, _pool(cluster) as pool:
        cluster.disconnect()
        for _ in range(2):
            with pytest.raises(PoolBrokenError, match="the client of Dask is closed"):
                pool.process(Do("stop", 1))


def test_a_pool_whose_client_is_closed_says_so() -> None:
    with dask_cluster(1) as cluster, _pool(cluster) as pool:
        assert pool.process_many([Do("stop", 1)] * 9) == [1] * 9
        cluster.disconnect()
        with pytest.raises(PoolBrokenError, match="the client of Dask is closed"):
            pool.process_many([Do("stop", 1)] * 9)


def test_an_asynchronous_client_is_refused() -> None:
    class Client:
        """As that of Dask."""

        asynchronous = True

    Client.__module__, Client.__qualname__ = "distributed.client", "Client"
    with pytest.raises(ValueError, match="needs a synchronous Client"):
        PoolProcessor(executor=Client())


def test_nodes_without_the_package_are_said_to_lack_it() -> None:
    from evproc_pool.backends.agents.dask import DaskCluster as Nodes

    loop = asyncio.new_event_loop()

    class Client:
        """Whose plug-in no worker can import."""

        class loop:  # noqa: N801 - as Dask has it
            asyncio_loop = loop

        def sync(self, function: Any) -> None:
            loop.run_until_complete(function())

        async def register_plugin(self, plugin: Any) -> None:
            raise ModuleNotFoundError("No module named 'evproc_pool'")

    try:
        nodes = Nodes(Client(), Inbox(), messages.Setup((), (), "spawn"))
        with pytest.raises(PoolBrokenError, match=r"pip install 'evproc-pool\[dask\]' on each"):
            nodes.open()
    finally:
        loop.close()


def test_a_worker_of_dask_that_retires_finishes_what_runs(fragile: DaskCluster) -> None:
    with _pool(fragile) as pool, Gate() as gate:
        warm(pool)
        futures = [pool.submit(Do("wait_at", gate.address)) for _ in range(2)]
        arrivals = [gate.arrival(), gate.arrival()]
        retired = fragile.client.retire_workers([next(iter(fragile.pids))], asynchronous=False)
        others = [pool.submit(Do("stop", place)) for place in range(50)]
        for each in arrivals:
            each.release()
        assert [each.result(PATIENCE_SECONDS) for each in futures] == [None, None]
        assert [each.result(PATIENCE_SECONDS) for each in others] == list(range(50))
        (address,) = retired
        fragile.wait_for_loss(address)


def test_a_nanny_brings_a_new_agent_at_the_same_place() -> None:
    with dask_cluster(1, has_nanny=True) as cluster, _pool(cluster) as pool:
        assert pool.process_many([Do("stop", 1)] * 9) == [1] * 9
        (pid,) = cluster.pids.values()
        os.kill(pid, signal.SIGKILL)

        def is_back() -> bool:
            value = pool.process_many([Do("stop", 1)], return_exceptions=True)[0]
            assert value == 1 or isinstance(value, WorkerLostError)
            return bool(value == 1) and pid not in cluster.pids.values()

        wait_until(is_back, "the pool works again")


class _OnDask(Conformance):
    promises = AGENTS
    cluster: DaskCluster

    def make_pool(self, **options: Any) -> PoolProcessor:
        return PoolProcessor(executor=self.cluster.client, **options)

    @contextlib.contextmanager
    def replaced_workers(self) -> Iterator[None]:
        old = list(self.cluster.client.nthreads())
        for _ in old:
            self.cluster.add_worker()
        self.cluster.client.retire_workers(old)
        yield
        for each in old:
            self.cluster.wait_for_loss(each)


def test_workers_of_dask_come_and_go(fragile: DaskCluster) -> None:
    suite = _OnDask()
    suite.cluster = fragile
    suite.test_workers_come_and_go()


@pytest.mark.skipif(not BARS, reason="takes a minute; the same suite runs over agents in threads")
class TestDask(_OnDask):
    @pytest.fixture(autouse=True)
    def _on(self, cluster: DaskCluster) -> None:
        self.cluster = cluster
