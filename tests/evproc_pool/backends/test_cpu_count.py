"""The number of usable CPUs: affinity and quota."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from evproc_pool import PoolProcessor
from evproc_pool.backends.local import cpu_count as cpus_module
from evproc_pool.backends.local.cpu_count import _cgroup_cpus, usable_cpus
from tests.support.helpers import ROOT


@pytest.mark.parametrize(
    ("cpu_max", "cpus"),
    [
        ("100000 100000", 1),
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("50000 100000", 1),
        ("1000 100000", 1),
        ("200001 100000", 3),
        ("max 100000", None),
        ("max", None),
        ("", None),
        ("100000", None),
        ("100000 0", None),
        ("0 100000", None),
        ("-1 100000", None),
        ("1 2 3", None),
        ("nonsense here", None),
    ],
)
def test_the_quota_of_version_2_in_whole_cpus_rounded_up(cpu_max: str, cpus: int | None) -> None:
    assert _cgroup_cpus(cpu_max.split(), [], []) == cpus


@pytest.mark.parametrize(
    ("quota", "period", "cpus"),
    [("400000", "100000", 4), ("-1", "100000", None), ("", "", None), ("250000", "", None)],
)
def test_the_quota_of_version_1(quota: str, period: str, cpus: int | None) -> None:
    assert _cgroup_cpus([], quota.split(), period.split()) == cpus


def test_version_2_goes_before_version_1() -> None:
    assert _cgroup_cpus(["300000", "100000"], ["100000"], ["100000"]) == 3


@pytest.mark.parametrize(
    ("affinity", "cpu_max", "cpus"),
    [(8, "max 100000", 8), (8, "300000 100000", 3), (2, "300000 100000", 2), (1, None, 1)],
)
def test_the_smaller_of_affinity_and_quota(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, affinity: int, cpu_max: str | None, cpus: int
) -> None:
    file = tmp_path / "cpu.max"
    if cpu_max is not None:
        file.write_text(f"{cpu_max}\n", "ascii")
    monkeypatch.setattr(cpus_module, "_CPU_MAX", str(file))
    for name in ("_CFS_QUOTA", "_CFS_PERIOD"):
        monkeypatch.setattr(cpus_module, name, str(tmp_path / "none"))
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(affinity)), raising=False)
    assert usable_cpus() == cpus
    assert PoolProcessor().workers == cpus


@pytest.mark.parametrize(
    ("text", "cpus"), [("3", 3), ("0", 8), ("default", 8), ("", 8), ("-1", 8), ("many", 8)]
)
def test_the_number_that_the_user_has_set(
    monkeypatch: pytest.MonkeyPatch, text: str, cpus: int
) -> None:
    monkeypatch.setattr(cpus_module, "_read_lines", lambda path: [])
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setenv("PYTHON_CPU_COUNT", text)
    assert usable_cpus() == cpus


def test_the_number_is_not_that_of_an_environment_that_python_ignores() -> None:
    code = "from evproc_pool import PoolProcessor; print(PoolProcessor().workers)"
    answers = [
        subprocess.check_output(
            [sys.executable, *options, "-c", code],
            env={**os.environ, "PYTHON_CPU_COUNT": "77"},
            cwd=ROOT,
            text=True,
        )
        for options in ([], ["-E"], ["-X", "cpu_count=66"])
    ]
    option = 66 if sys.version_info >= (3, 13) else 77
    assert answers == ["77\n", f"{usable_cpus()}\n", f"{option}\n"]


def test_a_system_without_affinity_is_asked_for_its_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpus_module, "_read_lines", lambda path: [])
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "process_cpu_count", lambda: 5, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    assert usable_cpus() == 5
    monkeypatch.setattr(os, "process_cpu_count", lambda: None, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cpus() == 1


def test_a_quota_that_cannot_be_read_is_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "cpu.max"
    file.write_bytes(b"\xff\xfe 100000")
    assert cpus_module._read_lines(str(file)) == []
    assert cpus_module._read_lines(str(tmp_path)) == []
