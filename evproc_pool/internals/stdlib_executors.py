"""What a pool on an executor uses of `concurrent.futures` and of the end of a program.

Checked with CPython 3.11, 3.13, 3.15. A free-threaded build breaks nothing: what is read takes one
atomic call.

- ``_max_workers`` of executors, also of loky: how many calls they run at once. Fallback: unknown.
- ``ProcessPoolExecutor._processes``: its processes by their ids, to kill them. The public method
  of Python 3.14 waits for a shutdown that is on its way (in 3.15.0), which may wait for them.
  Fallback: that method; or they end when they have run what they have.
- ``threading._register_atexit``: executors end by it, before functions of `atexit`. What was
  registered last is called first. Fallback: what a pool had not begun at the end of the program
  fails, since the executor takes no more calls. So it does on CPython 3.12.0 to 3.12.2, where
  nothing starts a thread there (gh-113964, mended in 3.12.3).
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from concurrent.futures import Executor


def workers_of(executor: object) -> int | None:
    """How many workers an executor has; None: it does not say."""
    most = getattr(executor, "_max_workers", None)
    return most if type(most) is int and most > 0 else None


def kill_processes(executor: Executor) -> bool:
    """Kill the processes of a `ProcessPoolExecutor`; return whether there was a way."""
    processes = getattr(executor, "_processes", None)
    if isinstance(processes, dict):
        for process in list(processes.values()):
            process.kill()
        return True
    kill: Any = getattr(executor, "kill_workers", None)
    if callable(kill):
        kill()
        return True
    return False


@functools.cache  # once in a process: nothing takes it back
def call_before_executors_end(function: Callable[[], object]) -> None:
    """Have a function called at the end of the program, while executors still take calls."""
    # they register their ends when they are imported, which must come first
    import concurrent.futures.process
    import concurrent.futures.thread  # noqa: F401

    register: Any = getattr(threading, "_register_atexit", None)
    if callable(register):
        register(function)
