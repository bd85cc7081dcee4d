"""What ending an executor uses of `concurrent.futures`.

Checked with CPython 3.11, 3.13. A free-threaded build breaks nothing: what is read takes one atomic
call.

- ``ProcessPoolExecutor._processes``: its processes by their ids, to kill them. Python 3.14 has a
  public method. Fallback: they end when they have run what they have.
"""

from __future__ import annotations

from concurrent.futures import Executor
from typing import Any


def kill_processes(executor: Executor) -> bool:
    """Kill the processes of a `ProcessPoolExecutor`; return whether there was a way."""
    kill: Any = getattr(executor, "kill_workers", None)
    if callable(kill):
        kill()
        return True
    processes = getattr(executor, "_processes", None)
    if not isinstance(processes, dict):
        return False
    for process in list(processes.values()):
        process.kill()
    return True
