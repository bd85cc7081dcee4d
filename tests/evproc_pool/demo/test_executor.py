"""The demo on a cluster of separate processes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.evproc_pool.demo.test_cli import run


@pytest.mark.cluster
def test_a_dask_cluster_finds_what_a_processor_finds() -> None:
    pytest.importorskip("distributed", reason="needs the extra [dask]")
    from tests.support.dask_cluster import dask_cluster

    with dask_cluster() as cluster:
        done = run("--limit", "60", "--executor", cluster.address)
        assert done.returncode == 0, done.stderr
        assert f"PoolProcessor on {cluster.address}" in done.stdout
        first, *_, last = done.stdout.splitlines()
        assert first.startswith("speed-up: ")
        assert last == "results: equal for all 60 files"


@pytest.fixture(scope="module")
def on_ray() -> Iterator[str]:
    pytest.importorskip("ray", reason="needs the extra [ray]")
    from tests.support.ray_cluster import ray_cluster

    with ray_cluster() as cluster:
        cluster.disconnect()
        yield cluster.address


@pytest.mark.cluster
def test_on_ray_a_cluster_finds_what_a_processor_finds(on_ray: str) -> None:
    from tests.support.ray_cluster import ENVIRONMENT

    done = run("--limit", "60", "--executor", f"ray:{on_ray}", env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    assert f"PoolProcessor on ray:{on_ray}" in done.stdout
    assert done.stdout.splitlines()[-1] == "results: equal for all 60 files"


WRONG = {
    "text": (["--executor", "there"], "and not the text 'there'"),
    "workers": (["--executor", "tcp://a:1", "--workers", "0"], "--workers 0 runs the pool in this"),
    "serial": (["--executor", "tcp://a:1", "--serial"], "--serial runs in this process only"),
}


@pytest.mark.parametrize("case", WRONG)
def test_an_executor_that_cannot_be_is_told(case: str) -> None:
    arguments, text = WRONG[case]
    done = run("--limit", "2", *arguments)
    assert done.returncode == 2
    assert text in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
