"""A pool on a Dask cluster of two hosts that lose each other; ``.ci/two-hosts`` runs it."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from evproc import Event
from evproc_pool import PoolProcessor, WorkerLostError
from evproc_pool.backends.agents.messages import FROZEN_SECONDS
from evproc_pool.testing.conformance_handlers import HANDLERS, Job
from tests.support import actions
from tests.support.actions import Do
from tests.support.dask_cluster import DaskCluster, dask_cluster
from tests.support.helpers import PATIENCE_SECONDS, register_all, wait_until

#: The network namespace that is the other host.
FAR: Final = os.environ.get("EVPROC_FAR_HOST", "")

if not FAR:
    pytest.skip("needs two hosts: .ci/two-hosts", allow_module_level=True)

pytestmark = pytest.mark.cluster

NEAR_ADDRESS: Final = "192.0.2.1"
FAR_ADDRESS: Final = "192.0.2.2"

# The silence is counted in heartbeats, and this machine may be busy.
_LATE_SECONDS: Final = 10.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[DaskCluster]:
    """A scheduler and a worker here, and a worker on the other host."""
    with dask_cluster(1, host=NEAR_ADDRESS) as made:
        made.add_worker(host=FAR_ADDRESS, within=("ip", "netns", "exec", FAR))
        made.disconnect()
        yield made


@pytest.fixture
def pool(cluster: DaskCluster) -> Iterator[PoolProcessor]:
    """A pool with a ready worker on both hosts; the network is whole before and after."""
    with PoolProcessor(executor=cluster.address) as made:
        register_all(made, [actions.act, *HANDLERS])
        wait_until(lambda: _hosts(made) == {NEAR_ADDRESS, FAR_ADDRESS}, "both hosts work")
        yield made
        link("up")


def link(state: str) -> None:
    """Take the other host off the network, or bring it back."""
    subprocess.run(["ip", "-n", FAR, "link", "set", "evproc", state], check=True)


def _hosts(pool: PoolProcessor) -> set[str]:
    """The hosts whose workers are ready."""
    assert pool.process_many([Do("stop", 1)] * 20) == [1] * 20
    engine = pool._engine
    assert engine is not None
    backend: Any = engine._coordinator._backend
    ready = engine._coordinator._supervisor.scheduler.workers
    nodes = {backend.node(number).split("//")[-1].split(":")[0] for number in backend.numbers}
    return nodes if ready == len(backend.numbers) else set()


def agents_there() -> set[str]:
    """The processes of agents on the other host."""
    command = ["ip", "netns", "pids", FAR]
    pids = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    commands = {}
    for pid in pids:
        file = Path(f"/proc/{pid}/cmdline")
        commands[pid] = file.read_bytes().decode() if file.exists() else ""
    return {pid for pid, text in commands.items() if text and "-m\0dask\0worker" not in text}


def test_a_host_that_is_cut_off_costs_what_ran_there_and_is_used_again(
    pool: PoolProcessor, tmp_path: Path
) -> None:
    log, begun, go = tmp_path / "log", tmp_path / "begun", tmp_path / "go"
    ways = [(f"{begun}-{number}", f"{go}-{number}") for number in range(2)]
    futures = [pool.submit(Job("await_file", *each)) for each in ways]
    for begins, _ in ways:
        wait_until(Path(begins).exists, "both hosts are busy")
    others = [pool.submit(Do("log", str(log), f"{number}\n")) for number in range(500)]
    link("down")
    cut = time.monotonic()
    wait_until(lambda: any(each.done() for each in futures), "the loss is noticed")
    assert time.monotonic() - cut <= FROZEN_SECONDS + _LATE_SECONDS
    link("up")
    # the other handler never goes on: it would run what waits behind it before its agent ends
    Path(ways[futures[0].done()][1]).touch()
    errors = [each.exception(PATIENCE_SECONDS) for each in futures]
    (error,) = [each for each in errors if each is not None]
    assert isinstance(error, WorkerLostError)
    assert f"its node tcp://{FAR_ADDRESS}:" in str(error)
    assert f"nothing has come from it for {FROZEN_SECONDS:g} s" in str(error)
    assert [each.exception(PATIENCE_SECONDS) for each in others] == [None] * 500
    # not one of those that waited behind it was charged, or ran twice
    assert sorted(map(int, log.read_text().split())) == list(range(500))
    wait_until(lambda: _hosts(pool) == {NEAR_ADDRESS, FAR_ADDRESS}, "the other host is used again")


def test_a_run_that_loses_a_host_in_the_middle_ends_with_every_outcome(
    pool: PoolProcessor,
) -> None:
    events: list[Event] = [Do("stop_after", 0.02, number) for number in range(500)]
    outcomes = []
    for outcome in pool.stream(events, ordered=False):
        outcomes.append(outcome)
        if len(outcomes) == 100:
            link("down")
    assert sorted(each.index for each in outcomes) == list(range(500))
    lost = [each for each in outcomes if each.error is not None]
    assert len(lost) <= 1
    for each in lost:
        assert isinstance(each.error, WorkerLostError)
        assert f"its node tcp://{FAR_ADDRESS}:" in str(each.error)
    for each in outcomes:
        assert each.error is not None or each.value == each.index
    # nobody is left there either, although its network is still down
    wait_until(lambda: not agents_there(), "the agent there has ended")
    assert pool.process_many([Do("stop", 1)] * 20) == [1] * 20
