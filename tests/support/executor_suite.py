"""Runs CPython's own tests of executors over `PoolExecutor`, and prints the outcome as JSON.

Called with a start method, in a process of its own, because it puts `PoolExecutor` in the place
of `ProcessPoolExecutor`. The suite looks inside its executor; `Examined` has what can be had.
"""

from __future__ import annotations

import concurrent.futures.process
import contextlib
import importlib
import io
import json
import os
import sys
import unittest
from typing import Any, Final

import psutil

from evproc_pool import PoolBrokenError, PoolExecutor, SerializationError, WorkerLostError

#: Those of the suite with executors of processes. `test_future` has no executor, and
#: `test_thread_pool` is about threads.
MODULES: Final = ("as_completed", "deadlock", "init", "process_pool", "shutdown", "wait")

_INSIDE: Final = "looks at threads and queues inside ProcessPoolExecutor"
_COUNTS: Final = "counts processes right after submit, and here they start in the background"

#: What does not apply, and why. Most have a test of their own in `test_executor`.
NOT_FOR_POOLS: Final = {
    "test_killed_child": "a dead worker breaks the executor; here it costs one call",
    "test_max_tasks_per_child": "fork must be refused with it; here it works with every method",
    "test_max_tasks_per_child_defaults_to_spawn_context": "likewise: the start method stays",
    "test_traceback": "the cause is of a private class; here it is RemoteTraceback",
    "test_python_finalization_error": _INSIDE,
    "test_del_shutdown": _INSIDE,
    "test_shutdown_no_wait": _INSIDE,
    "test_shutdown_deadlock_pickle": _INSIDE,
    "test_saturation": _COUNTS,
    "test_processes_terminate": _COUNTS,
}
NOT_FOR_POOLS_OF_CLASS: Final = {
    "FailingInitializer": "expects a line in the log of concurrent.futures in the worker; here"
    " the error has the cause",
}

#: What the suite itself leaves out of executors of processes.
SKIPPED_BY_ITSELF: Final = {
    "test_hang_gh83386",
    "test_max_workers_too_large",
    "test_idle_process_reuse_one",  # with fork
    "test_idle_process_reuse_multiple",  # likewise
    "test_max_tasks_early_shutdown",  # likewise
}


class Examined(PoolExecutor):
    """With the attributes that the suite reads."""

    @property
    def _processes(self) -> dict[int, psutil.Process]:
        engine = self._pool and self._pool._engine
        return {pid: psutil.Process(pid) for pid in (engine.pids() if engine else ())}

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Cancel calls only once one has begun: the suite relies on that, and here none has."""
        if cancel_futures:
            first = concurrent.futures.FIRST_COMPLETED
            concurrent.futures.wait(list(self._futures), return_when=first)
        super().shutdown(wait, cancel_futures=cancel_futures)

    @property
    def _max_workers(self) -> int:
        assert self._pool is not None
        return self._pool.workers


Examined.__name__ = "PoolExecutor"


def _substitute() -> dict[str, Any]:
    """Import the suite's modules with `Examined` in the place of `ProcessPoolExecutor`."""
    concurrent.futures.ProcessPoolExecutor = Examined  # type: ignore[misc,assignment]
    errors = WorkerLostError, PoolBrokenError, SerializationError
    concurrent.futures.process.BrokenProcessPool = errors  # type: ignore[misc,assignment]
    suite = "test.test_concurrent_futures.test_"
    modules: dict[str, Any] = {name: importlib.import_module(suite + name) for name in MODULES}
    deadlock, shutdown = modules["deadlock"], modules["shutdown"]
    deadlock.PicklingError = (deadlock.PicklingError, SerializationError)
    deadlock.SystemExit = (SystemExit, SerializationError)  # an exit while it is pickled
    original = shutdown.assert_python_ok

    def assert_python_ok(option: str, code: str) -> Any:
        code = code.replace("concurrent.futures import PoolE", "evproc_pool import PoolE")
        return original(option, code, __isolated=False, PYTHONPATH=os.pathsep.join(sys.path))

    shutdown.assert_python_ok = assert_python_ok
    return modules


def _selected(module: Any, method: str) -> unittest.TestSuite:
    """The tests of a module for a start method; those that do not apply are skipped."""
    tests = unittest.TestSuite()
    tests.addTests(
        unittest.defaultTestLoader.loadTestsFromTestCase(case)
        for name, case in vars(module).items()
        if name.startswith(f"ProcessPool{method.capitalize()}")
        and not (method == "fork" and name.startswith("ProcessPoolForkserver"))
    )
    cases: list[Any] = [case for group in tests for case in group]  # type: ignore[union-attr]
    for case in cases:
        name = case._testMethodName
        reason = NOT_FOR_POOLS.get(name) or next(
            (why for of, why in NOT_FOR_POOLS_OF_CLASS.items() if of in type(case).__name__), None
        )
        if reason is not None:
            setattr(case, name, unittest.skip(reason)(getattr(case, name)))
    return tests


def main(method: str) -> None:
    """Run it, and print how many tests passed, which failed, and which were skipped and why."""
    support: Any = importlib.import_module("test.support")

    modules = _substitute()
    result = unittest.TestResult()
    said = io.StringIO()  # what tests and dangling threads write
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        for module in modules.values():
            module.setUpModule()
            _selected(module, method).run(result)
            unittest.doModuleCleanups()
    failed = [(str(case), text) for case, text in (*result.errors, *result.failures)]
    summary = {
        "passed": result.testsRun - len(result.skipped) - len(failed),
        "failed": failed,
        "skipped": {case.id().rsplit(".", 1)[1]: reason for case, reason in result.skipped},
        "left_behind": support.environment_altered,
        "said": said.getvalue(),
    }
    sys.stdout.write(json.dumps(summary) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
