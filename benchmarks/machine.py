"""Where figures were measured: a figure without its machine says nothing."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import psutil

# what has a part in the figures, if it is installed
_PACKAGES: Final = ("evproc-pool", "cloudpickle", "importlib-metadata", "psutil")


def describe_machine() -> dict[str, Any]:
    """Describe the machine and the interpreter, as plain data for JSON."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "usable_cores": _usable_cores(),
        "load_1min": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "system": platform.platform(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": package_versions(_PACKAGES),
    }


def claim_memory(size_bytes: int) -> None:
    """Use so much memory for a moment.

    A virtual machine's host may take back what is free for some seconds, and it is slow to
    come by again. Whether a sample has to would be chance, and several times of what it measures.

    Args:
        size_bytes: No more than half of what there is.
    """
    available = int(psutil.virtual_memory().available)
    claimed = bytes([1]) * min(size_bytes, available // 2)
    del claimed


def package_versions(names: Iterable[str]) -> dict[str, str]:
    """The versions of those distributions that are installed."""
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _cpu_model() -> str:
    # platform.processor() is empty or the bare architecture on most Linux systems
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()


def _usable_cores() -> int | None:
    affinity = getattr(os, "sched_getaffinity", None)  # Linux and some BSDs
    return os.cpu_count() if affinity is None else len(affinity(0))
