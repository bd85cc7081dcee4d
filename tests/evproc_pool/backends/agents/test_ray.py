"""Agents on a Ray cluster of separate processes; few tests, since each process starts slowly."""

from __future__ import annotations

import contextlib
import random
import signal
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import evproc
from evproc import Event
from evproc_pool import EventTimeoutError, PoolBrokenError, PoolProcessor, WorkerLostError
from evproc_pool.backends.agents import messages, versions
from evproc_pool.backends.promises import AGENTS
from evproc_pool.testing import Conformance
from evproc_pool.testing.conformance_handlers import HANDLERS, Job
from tests.support import actions, programs
from tests.support.actions import Do
from tests.support.agent_pools import play, warm
from tests.support.helpers import (
    PATIENCE_SECONDS,
    Gate,
    Script,
    register_all,
    still_alive,
    wait_until,
)
from tests.support.sizes import BARS

pytest.importorskip("ray", reason="needs the extra [ray]")

import ray

from evproc_pool.internals.ray_nodes import draining_nodes
from tests.support.ray_cluster import ENVIRONMENT, RayCluster, agents, ray_cluster

pytestmark = pytest.mark.cluster

_PROGRAMS = 300 if BARS else 6
_PER_TEST = 25 if BARS else 6


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Fail a test that leaves an agent, or a worker of one; Ray keeps its own processes."""
    before = _segments()
    yield
    assert still_alive(agents()) == []
    wait_until(lambda: _segments() <= before, "no shared memory is left")


def _segments() -> set[str]:
    return {each.name for each in Path("/dev/shm").iterdir() if not each.name.startswith("sem.")}


@pytest.fixture(scope="module")
def processes() -> Iterator[RayCluster]:
    """Two nodes of Ray with a CPU each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        with ray_cluster() as cluster:
            yield cluster


@pytest.fixture
def cluster(processes: RayCluster) -> RayCluster:
    """The same, with this process connected; no test may kill these."""
    processes.connect()
    return processes


def _pool(**options: Any) -> PoolProcessor:
    pool = PoolProcessor(executor="ray", **options)
    register_all(pool, [actions.act, actions.nested])
    return pool


@pytest.mark.parametrize("first", range(0, _PROGRAMS, _PER_TEST))
@pytest.mark.usefixtures("cluster")
def test_random_programs_come_to_the_same_as_with_a_processor(tmp_path: Path, first: int) -> None:
    for seed in range(first, first + _PER_TEST):
        program = programs.random_program(random.Random(seed))
        serial = programs.play({**program, "log_path": str(tmp_path / f"{seed}.serial")}, evproc)
        program["log_path"] = str(tmp_path / f"{seed}.pool")
        way = ("many", "keyed", "stream")[seed % 3]
        pooled = play(program, PoolProcessor(executor="ray"), way)
        assert pooled == serial, f"seed {seed}"


def test_a_poison_event_costs_one_worker_process_and_no_actor(cluster: RayCluster) -> None:
    with _pool() as pool:
        workers = warm(pool)
        before = [cluster.actors(node) for node in cluster.node_ids()]
        events: list[Event] = [Do("call", time.sleep, 0.005) for _ in range(500)]
        events[250] = Do("signalled", signal.SIGKILL)
        values = pool.process_many(events, return_exceptions=True)
        error = values.pop(250)
        assert values == [None] * 499
        assert isinstance(error, WorkerLostError)
        assert (error.handler, error.exitcode) == ("act", -signal.SIGKILL)
        assert "SIGKILL" in str(error)
        assert len(workers & warm(pool)) == 1
        assert [cluster.actors(node) for node in cluster.node_ids()] == before
        assert all(before)


def test_an_event_that_takes_too_long_fails_alone(cluster: RayCluster) -> None:
    with _pool(event_timeout=0.5) as pool, Gate() as gate:
        warm(pool)
        before = [cluster.actors(node) for node in cluster.node_ids()]
        events: list[Event] = [Do("stop", place) for place in range(100)]
        events[50] = Do("wait_at", gate.address)
        values = pool.process_many(events, return_exceptions=True)
        error = values.pop(50)
        assert values == [place for place in range(100) if place != 50]
        assert isinstance(error, EventTimeoutError)
        assert error.handler == "act"
        assert [cluster.actors(node) for node in cluster.node_ids()] == before


def test_an_event_that_takes_too_much_memory_fails_alone(cluster: RayCluster) -> None:
    most = 1 << 28
    with PoolProcessor(executor="ray", max_worker_memory_bytes=most) as pool:
        register_all(pool, [actions.act, *HANDLERS])
        warm(pool)
        before = [cluster.actors(node) for node in cluster.node_ids()]
        events: list[Event] = [Do("stop", place) for place in range(100)]
        events[50] = Job("hoard", 2 * most)
        values = pool.process_many(events, return_exceptions=True)
        error = values.pop(50)
        assert values == [place for place in range(100) if place != 50]
        assert isinstance(error, WorkerLostError)
        assert "max_worker_memory_bytes" in str(error)
        assert [cluster.actors(node) for node in cluster.node_ids()] == before


def test_the_address_of_the_cluster_is_enough_and_others_are_refused(
    processes: RayCluster,
) -> None:
    processes.disconnect()
    port = processes.address.rpartition(":")[2]
    with PoolProcessor(1, executor=f"ray:{processes.address}") as pool:
        pool.register(actions.act)
        assert pool.process_many([Do("stop", place) for place in range(9)]) == list(range(9))
        assert pool._engine is not None
        assert len(pool._engine.pids()) == 1  # and `workers` is the most
        assert ray.is_initialized()
        # the same connection
        for same in ("ray", f"ray:{processes.address}", f"ray:localhost:{port}"):
            with PoolProcessor(executor=same) as other:
                other.register(actions.act)
                assert other.process(Do("stop", 1)) == 1
        assert pool.process(Do("stop", 1)) == 1
        elsewhere = PoolProcessor(executor="ray:127.0.0.1:1")
        with pytest.raises(PoolBrokenError, match="is connected to the Ray cluster at"):
            elsewhere.process(Do("stop", 1))
    assert not ray.is_initialized()


@pytest.mark.usefixtures("cluster")
def test_other_versions_on_a_node_fail_before_the_first_event(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(versions, "_own_version", lambda: "0.0.1")
    log = tmp_path / "log"
    with _pool() as pool:
        with pytest.raises(PoolBrokenError) as caught:
            pool.process(Do("log", str(log), "ran"))
        text = str(caught.value)
        assert text.startswith("node ")
        assert "evproc-pool 0.0.1 in the pool's process, " in text
    assert not log.exists()


@pytest.mark.usefixtures("cluster")
def test_nodes_without_the_package_are_said_to_lack_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import evproc_pool.backends.agents.ray as module

    class Actor:
        """Like the actor, in a module that no node has."""

        def __init__(self, secret: bytes) -> None: ...

        def listen(self, host: str) -> None: ...

    Actor.__module__, Actor.__qualname__ = "no_such_module", "Actor"
    monkeypatch.setitem(sys.modules, "no_such_module", types.ModuleType("no_such_module"))
    monkeypatch.setattr(sys.modules["no_such_module"], "Actor", Actor, raising=False)
    monkeypatch.setattr(module, "EvprocAgent", Actor)
    with _pool() as pool, pytest.raises(PoolBrokenError, match=r"pip install 'evproc-pool\[ray\]'"):
        pool.process(Do("stop", 1))


def test_what_a_pool_cannot_use_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PoolBrokenError, match=r"is Ray Client, .* `ray job submit`"):
        PoolProcessor(executor="ray://127.0.0.1:1").process(Do("stop", 1))
    monkeypatch.setenv("RAY_USE_TLS", "1")
    with pytest.raises(PoolBrokenError, match="RAY_USE_TLS is set"):
        PoolProcessor(executor="ray:127.0.0.1:1").process(Do("stop", 1))


def test_a_pool_whose_connection_to_ray_is_closed_says_so(cluster: RayCluster) -> None:
    with _pool() as pool:
        assert pool.process_many([Do("stop", 1)] * 9) == [1] * 9
        cluster.disconnect()
        with pytest.raises(PoolBrokenError, match="is not connected to Ray any more"):
            pool.process_many([Do("stop", 1)] * 9)
    assert not ray.is_initialized()  # and nobody has started another one
    wait_until(lambda: not agents(), "the agents are gone")


@pytest.mark.usefixtures("cluster")
def test_a_pool_works_in_a_task_of_ray() -> None:
    def task() -> list[Any]:
        with PoolProcessor(executor="ray") as pool:
            pool.register(actions.act)
            return pool.process_many([Do("stop", place) for place in range(9)])

    tasks = [ray.remote(task).remote() for _ in range(2)]  # they take all CPUs
    assert ray.get(tasks, timeout=PATIENCE_SECONDS) == [list(range(9))] * 2


def test_a_killed_actor_costs_what_ran_there_and_another_one_begins(cluster: RayCluster) -> None:
    def kill() -> None:
        (actor,) = cluster.actors(cluster.node_ids()[0])
        actor.kill()

    with _pool() as pool:
        _check_that_a_loss_costs_one_event(pool, kill)
        warm(pool)  # on two nodes again


def _check_that_a_loss_costs_one_event(
    pool: PoolProcessor, kill: Callable[[], object], nodes: int = 2
) -> None:
    warm(pool, nodes)
    with Gate() as gate:
        waits: list[Event] = [Do("wait_at", gate.address) for _ in range(nodes)]
        others: list[Event] = [Do("stop", place) for place in range(500 - nodes)]
        futures = [pool.submit(each) for each in (*waits, *others)]
        arrivals = [gate.arrival() for _ in waits]
        kill()
        begun = time.monotonic()
        wait_until(lambda: any(each.done() for each in futures[:nodes]), "the death is noticed")
        if BARS:  # on a quiet machine
            assert time.monotonic() - begun < 2
        for each in arrivals:
            each.release()
        errors = [each.exception(PATIENCE_SECONDS) for each in futures]
    (error,) = [each for each in errors if each is not None]
    assert error in errors[:nodes]
    assert isinstance(error, WorkerLostError)
    assert "its node " in str(error)
    assert "is lost: the connection was closed" in str(error)
    assert [each.result() for each in futures[nodes:]] == list(range(500 - nodes))


def test_a_node_that_joins_is_used_and_one_that_drains_finishes_what_runs(
    cluster: RayCluster,
) -> None:
    with _pool() as pool, Gate() as gate:
        warm(pool)
        node = cluster.add_node()
        warm(pool, 3)
        futures = [pool.submit(Do("wait_at", gate.address)) for _ in range(3)]
        arrivals = [gate.arrival() for _ in range(3)]
        actors = cluster.actors(node)
        assert len(actors) == 1
        cluster.drain(node)
        backend: Any = pool._engine._backend if pool._engine is not None else None
        wait_until(lambda: backend._nodes.size == 2, "the pool gives it no more")
        for each in arrivals:
            each.release()
        assert [each.result(PATIENCE_SECONDS) for each in futures] == [None] * 3
        assert pool.process_many([Do("stop", 1)] * 20) == [1] * 20
        assert still_alive(actors) == []
        wait_until(lambda: node not in cluster.node_ids(), "the node has left")


def test_no_node_drains_if_ray_does_not_say_which(
    cluster: RayCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(draining_nodes()) == 0
    monkeypatch.setattr("ray._private.state.state", None)
    assert draining_nodes() == ()


def test_a_killed_node_costs_what_ran_there_and_another_one_is_used(cluster: RayCluster) -> None:
    other = cluster.add_node()
    with _pool() as pool:
        warm(pool, 3)
        _check_that_a_loss_costs_one_event(pool, lambda: cluster.raylet(other).kill(), 3)
        warm(pool)


def test_a_node_that_freezes_is_given_up(
    cluster: RayCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messages, "FROZEN_SECONDS", 1.5)
    with _pool() as pool, Gate() as gate:
        warm(pool)
        futures = [pool.submit(Do("wait_at", gate.address)) for _ in range(2)]
        arrivals = [gate.arrival(), gate.arrival()]
        (actor,) = cluster.actors(cluster.node_ids()[0])
        actor.suspend()
        try:
            wait_until(lambda: any(each.done() for each in futures), "the node is given up")
            for each in arrivals:
                each.release()
            errors = [each.exception(PATIENCE_SECONDS) for each in futures]
            (error,) = [each for each in errors if each is not None]
            assert "is lost: nothing has come from it for 1.5 s" in str(error)
            assert pool.process_many([Do("stop", 1)] * 20) == [1] * 20
        finally:
            with contextlib.suppress(psutil.Error):
                actor.resume()


_SCRIPT = """
import sys
from evproc_pool import PoolProcessor
from tests.support.actions import Do, act

for _ in range(2):
    with PoolProcessor(executor="ray") as pool:
        pool.register(act)
        print(pool.process_many([Do("stop", place) for place in range(5)]))
assert not sys.modules["ray"].is_initialized()
"""


def test_a_pool_starts_ray_and_ends_it(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        environment = {**ENVIRONMENT, "RAY_TMPDIR": folder}  # no cluster is there
        with Script(_SCRIPT, tmp_path, environment=environment) as script:
            ray_processes = _collected(script)
            finished = script.finish()
    assert (finished.code, finished.out) == (0, "[0, 1, 2, 3, 4]\n" * 2), finished
    assert finished.err == ""
    assert still_alive(ray_processes) == []
    assert finished.left == []


def _collected(script: Script) -> list[psutil.Process]:
    """The processes below a script, until it ends."""
    found: set[psutil.Process] = set()

    def has_ended() -> bool:
        with contextlib.suppress(psutil.Error):
            found.update(psutil.Process(script.process.pid).children(recursive=True))
        return script.process.poll() is not None

    wait_until(has_ended, "the script has ended")
    return list(found)


def test_ctrl_c_leaves_the_pool_usable(tmp_path: Path, cluster: RayCluster) -> None:
    code = """
import ray, sys
from evproc_pool import PoolProcessor
from tests.support.actions import Do, act

with PoolProcessor(executor="ray:{cluster}") as pool:
    pool.register(act)
    try:
        pool.process_many([Do("wait_at", {gate!r})] * 2)
    except KeyboardInterrupt:
        print("interrupted")
    print(pool.process(Do("stop", 7)))
"""
    with Gate() as gate:
        code = code.format(cluster=cluster.address, gate=gate.address)
        with Script(code, tmp_path, environment=ENVIRONMENT) as script:
            gate.arrival()
            script.process.send_signal(signal.SIGINT)
            finished = script.finish()
    assert (finished.code, finished.out, finished.err) == (0, "interrupted\n7\n", ""), finished


def test_the_agents_end_with_a_program_that_is_killed(tmp_path: Path, cluster: RayCluster) -> None:
    code = """
from evproc_pool import PoolProcessor
from tests.support.actions import Do, act

with PoolProcessor(executor="ray:{cluster}") as pool:
    pool.register(act)
    pool.process_many([Do("wait_at", {gate!r})] * 2)
"""
    with Gate() as gate:
        code = code.format(cluster=cluster.address, gate=gate.address)
        with Script(code, tmp_path, environment=ENVIRONMENT) as script:
            gate.arrival()
            assert agents()
            script.process.kill()
            script.finish()
            assert still_alive(agents()) == []


@pytest.mark.skipif(not BARS, reason="takes a minute; the same suite runs over agents in threads")
class TestRay(Conformance):
    promises = AGENTS

    @pytest.fixture(autouse=True)
    def _on(self, cluster: RayCluster) -> None:
        assert cluster.address

    def make_pool(self, **options: Any) -> PoolProcessor:
        return PoolProcessor(executor="ray", **options)

    def test_workers_come_and_go(self) -> None:
        """On a cluster of its own, whose head has no workers: it cannot leave."""
        ray.shutdown()
        with ray_cluster(nodes=0) as self.replaced:
            self.replaced.add_node(cpus=0)
            for _ in range(2):
                self.replaced.add_node()
            super().test_workers_come_and_go()

    @contextlib.contextmanager
    def replaced_workers(self) -> Iterator[None]:
        old = set(self.replaced.node_ids()) - {self.replaced.head}
        for _ in old:
            self.replaced.add_node()
        for node in old:
            self.replaced.drain(node)
        yield
        wait_until(lambda: not old & set(self.replaced.node_ids()), "the old nodes have left")
