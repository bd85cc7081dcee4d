"""The number of CPUs that this process may use."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Final


def usable_cpus() -> int:
    """The number of CPUs that its affinity and its cgroup's quota allow, or that the user has set.

    The user sets it by ``PYTHON_CPU_COUNT``, here also before Python 3.13, or ``-X cpu_count``.
    """
    has_affinity = hasattr(os, "sched_getaffinity")
    cpus = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    if sys.version_info >= (3, 13) and (chosen := os.process_cpu_count()) not in {None, cpus}:
        return chosen
    text = "" if sys.flags.ignore_environment else os.environ.get("PYTHON_CPU_COUNT", "")
    if text.isdecimal() and int(text):
        return int(text)
    quota = _cgroup_cpus(_read_lines(_CPU_MAX), _read_lines(_CFS_QUOTA), _read_lines(_CFS_PERIOD))
    return max(1, cpus if quota is None else min(cpus, quota))


# https://docs.kernel.org/admin-guide/cgroup-v2.html#cpu-interface-files and, for
# version 1, https://docs.kernel.org/scheduler/sched-bwc.html; both as a container
# sees its own group
_CPU_MAX: Final = "/sys/fs/cgroup/cpu.max"
_CFS_QUOTA: Final = "/sys/fs/cgroup/cpu/cpu.cfs_quota_us"
_CFS_PERIOD: Final = "/sys/fs/cgroup/cpu/cpu.cfs_period_us"


def _read_lines(path: str) -> list[str]:
    try:
        with open(path, encoding="ascii") as file:  # noqa: PTH123 - pathlib is slow to import
            return file.read().split()
    except (OSError, ValueError):
        return []


def _cgroup_cpus(
    cpu_max: Iterable[str], cfs_quota: Iterable[str], cfs_period: Iterable[str]
) -> int | None:
    """The quota in whole CPUs, rounded up; None if there is none."""
    words = list(cpu_max) or [*cfs_quota, *cfs_period]
    try:
        quota, period = (int(word) for word in words)
    except ValueError:  # "max", or nothing at all
        return None
    return -(-quota // period) if quota > 0 and period > 0 else None
