"""`PoolExecutor`, by CPython's own tests of executors, and what these do not ask."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import gc
import importlib.util
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import pytest

from evproc import StopProcessing
from evproc_pool import (
    PoolBrokenError,
    PoolExecutor,
    PoolProcessor,
    SerializationError,
    WorkerLostError,
)
from evproc_pool.backends.local.processes import LocalBackend
from evproc_pool.testing import worker_pids
from tests.support import actions, executor_suite
from tests.support.actions import Do, wait_at
from tests.support.helpers import PATIENCE_SECONDS, Gate, error_of, run_script, wait_until

ROOT = Path(__file__).parents[2]

# one takes a minute
_ALL = ("forkserver", "spawn", "fork")
METHODS = _ALL if os.environ.get("EVPROC_BARS") == "1" else _ALL[:1]


@pytest.fixture
def executor() -> Iterator[PoolExecutor]:
    with PoolExecutor(2) as executor:
        yield executor


def wait_there(address: tuple[str, int], value: object = None) -> object:
    """Wait at a gate."""
    try:
        wait_at(address, value=value)
    except StopProcessing as stop:
        return stop.retval
    return None


# --- CPython's own tests ---


@pytest.mark.skipif(sys.version_info[:2] != (3, 13), reason="those of CPython 3.13")
@pytest.mark.parametrize("method", METHODS)
def test_cpythons_own_tests_of_executors_pass(method: str) -> None:
    pytest.importorskip("test.test_concurrent_futures.executor", reason="not installed here")
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.executor_suite", method],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["failed"] == []
    assert summary["passed"] >= 40
    assert not summary["left_behind"], summary["said"]
    ours = {*executor_suite.NOT_FOR_POOLS.values(), *executor_suite.NOT_FOR_POOLS_OF_CLASS.values()}
    theirs = {name for name, why in summary["skipped"].items() if why not in ours}
    assert theirs <= executor_suite.SKIPPED_BY_ITSELF


# --- calls ---


def test_functions_of_any_kind_are_called(executor: PoolExecutor) -> None:
    assert executor.submit(pow, 2, exp=5).result() == 32
    assert list(executor.map(lambda x, y: x + y, [1, 2], [3, 4])) == [4, 6]
    assert executor.submit(str.upper, "a").result() == "A"


def test_an_error_names_the_call(executor: PoolExecutor) -> None:
    error = executor.submit(int, "x", base=16).exception()
    assert isinstance(error, ValueError)
    assert "int('x', base=16)" in "".join(error.__notes__)


def test_it_works_in_an_event_loop(executor: PoolExecutor) -> None:
    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        return await asyncio.gather(*[loop.run_in_executor(executor, abs, -n) for n in range(9)])

    assert asyncio.run(main()) == list(range(9))


def test_the_initializer_is_called_in_each_worker_and_workers_are_replaced() -> None:
    with PoolExecutor(1, None, actions.set_state, (7,), max_tasks_per_child=2) as executor:
        found = [executor.submit(get_state_and_pid).result() for _ in range(4)]
    assert {state for state, _ in found} == {7}
    assert found[0] == found[1] != found[2] == found[3]


def get_state_and_pid() -> tuple[int, int]:
    return actions.get_state(), os.getpid()


# --- failures ---


def raise_stop(value: object) -> None:
    """Raise what ends a cascade, where no cascade is."""
    raise StopProcessing(value)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_function_that_raises_stop_processing_fails(workers: int) -> None:
    with PoolProcessor(workers=workers) as pool, PoolExecutor(pool=pool) as executor:
        error = executor.submit(raise_stop, 5).exception()
        assert isinstance(error, StopProcessing)
        assert error.retval == 5
        assert any("raise_stop(5)" in note for note in error.__notes__)
        assert executor.submit(abs, -1).result() == 1


def test_a_dead_worker_costs_one_call(executor: PoolExecutor) -> None:
    futures = [executor.submit(pow, n, 2) for n in range(20)]
    lost = executor.submit(signal.raise_signal, signal.SIGKILL)
    futures += [executor.submit(pow, n, 2) for n in range(20)]
    error = lost.exception()
    assert isinstance(error, WorkerLostError)
    assert "raise_signal" in str(error)
    assert [future.result() for future in futures] == [n * n for n in range(20)] * 2


def test_without_workers_the_executor_is_broken() -> None:
    executor = PoolExecutor(1, initializer=int, initargs=("no number",))
    for raised in (executor.submit(abs, 1).exception(), error_of(lambda: executor.submit(abs, 1))):
        assert isinstance(raised, concurrent.futures.BrokenExecutor)
        assert isinstance(raised, PoolBrokenError)


@pytest.mark.parametrize("size", [0, -1])
def test_an_executor_of_its_own_has_workers(size: int) -> None:
    with pytest.raises(ValueError, match="greater than 0"):
        PoolExecutor(size)


def test_a_chunk_has_a_size(executor: PoolExecutor) -> None:
    assert list(executor.map(abs, [-1, -2], chunksize=10)) == [1, 2]
    with pytest.raises(ValueError, match="chunksize"):
        executor.map(abs, [1], chunksize=0)


# --- functions of modules that no import finds ---


def call_late(executor: PoolExecutor, module: ModuleType) -> int:
    """Call a function of a module from a worker that does not know it."""
    assert executor.submit(abs, -1).result() == 1
    sys.modules[module.__name__] = module
    try:
        assert list(executor.map(module.add, range(50))) == list(range(1, 51))
        value: int = executor.submit(module.add, 1).result()
        return value
    finally:
        del sys.modules[module.__name__]


def test_a_plug_in_may_be_loaded_from_a_path_after_the_first_call(
    executor: PoolExecutor, tmp_path: Path
) -> None:
    path = tmp_path / "late_plug_in.py"
    path.write_text("def add(number):\n    return number + 1\n")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert call_late(executor, module) == 2


def test_functions_of_a_module_without_a_file_are_sent_by_value(executor: PoolExecutor) -> None:
    module = ModuleType("late_module")
    exec("STEP = 1\ndef add(number):\n    return number + STEP\n", vars(module))
    assert call_late(executor, module) == 2


def test_a_module_that_is_nowhere_is_named(executor: PoolExecutor) -> None:
    module = ModuleType("late_module_with_a_lock")
    source = "import threading\nLOCK = threading.Lock()\ndef add(number):\n    return LOCK\n"
    exec(source, vars(module))
    sys.modules[module.__name__] = module
    try:
        error = executor.submit(module.add, 1).exception()
    finally:
        del sys.modules[module.__name__]
    assert isinstance(error, SerializationError)
    assert "No module named 'late_module_with_a_lock'" in str(error)


@pytest.mark.parametrize("name", ["<run_path>", "other"])
def test_a_script_of_runpy_may_give_its_own_functions(tmp_path: Path, name: str) -> None:
    (tmp_path / "ran.py").write_text(
        """
import dataclasses
from evproc_pool import PoolExecutor

@dataclasses.dataclass
class Point:
    x: int

def point(x):
    return Point(x)

with PoolExecutor(1) as executor:
    print(executor.submit(point, 2).result() == Point(2), executor.submit(repr, Point(1)).result())
"""
    )
    run = "run_module('ran', run_name='other', alter_sys=True)"
    code = "import runpy\nrunpy." + (run if name == "other" else "run_path('ran.py')")
    assert run_script(code, tmp_path) == "True Point(x=1)\n"


# --- the end ---


def test_after_the_end_a_call_is_refused(executor: PoolExecutor) -> None:
    executor.shutdown()
    executor.shutdown()
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.submit(abs, 1)


def test_a_pool_that_was_closed_takes_no_calls() -> None:
    pool = PoolProcessor(workers=1)
    executor = PoolExecutor(pool=pool)
    pool.close()
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.submit(abs, 1)


@pytest.mark.parametrize("how", ["shutdown", "collected"])
def test_calls_are_finished_without_the_executor(how: str, gate: Gate) -> None:
    executor = PoolExecutor(1)
    future = executor.submit(wait_there, gate.address, 5)
    pids = [psutil.Process(gate.arrival().pid)]
    if how == "shutdown":
        executor.shutdown(wait=False)
    del executor
    gc.collect()
    gate.close()
    assert future.result(PATIENCE_SECONDS) == 5
    gone, alive = psutil.wait_procs(pids, PATIENCE_SECONDS)
    assert (len(gone), alive) == (1, [])


def test_calls_that_no_worker_has_begun_can_be_cancelled(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = threading.Event()
    take_back = LocalBackend.take_back

    def watched(*args: Any) -> bool:
        is_taken = take_back(*args)
        taken.set()
        return is_taken

    monkeypatch.setattr(LocalBackend, "take_back", watched)
    executor = PoolExecutor(1)
    executor.submit(abs, 1).result()
    first = executor.submit(wait_there, gate.address, 5)
    gate.arrival()
    others = [executor.submit(abs, n) for n in range(50)]
    wait_until(others[0].running, "some are sent")
    executor.shutdown(wait=False, cancel_futures=True)
    assert taken.wait(PATIENCE_SECONDS)
    assert not first.done()
    gate.close()
    executor.shutdown()
    assert first.result(0) == 5
    assert [other.cancelled() for other in others] == [True] * 50


def test_a_call_that_waits_in_a_worker_can_be_cancelled(gate: Gate) -> None:
    with PoolExecutor(1) as executor:
        list(executor.map(abs, range(100)))
        first = executor.submit(wait_there, gate.address, 5)
        gate.arrival()
        others = [executor.submit(wait_there, gate.address) for _ in range(100)]
        wait_until(others[0].running, "some are sent")
        assert not first.cancel()
        assert all(other.cancel() for other in reversed(others))
        assert all(other.cancelled() for other in others)
        gate.close()
        assert first.result() == 5
        assert executor.submit(abs, -1).result() == 1


def count_left(executor: PoolExecutor) -> int:
    """Return how many calls are not done."""
    return sum(not future.done() for future in list(executor._futures))


@pytest.mark.parametrize("how", ["closed", "timeout", "error"])
def test_whoever_leaves_map_early_cancels_the_rest(
    executor: PoolExecutor, gate: Gate, how: str, tmp_path: Path
) -> None:
    list(executor.map(abs, range(100)))
    address, log = gate.address, tmp_path / "log"

    def act(number: int) -> int:
        with log.open("a") as file:
            file.write(".")
        if number == 0 and how == "error":
            raise KeyError
        if number:
            wait_there(address)
        return number

    results = executor.map(act, range(200), timeout=0 if how == "timeout" else None)
    if how == "closed":
        assert next(results) == 0
        results.close()  # type: ignore[attr-defined]
    else:
        with pytest.raises(KeyError if how == "error" else TimeoutError):
            next(results)
    wait_until(lambda: count_left(executor) <= 2, "all are cancelled but those that run")
    gate.close()
    executor.shutdown()
    assert not log.exists() or len(log.read_text()) < 50


def test_map_reads_no_further_than_its_buffer(executor: PoolExecutor) -> None:
    read: list[int] = []

    def numbers() -> Iterator[int]:
        for number in itertools.count():
            read.append(number)
            yield number

    results = executor.map(abs, numbers(), buffersize=3)
    assert [next(results) for _ in range(5)] == list(range(5))
    assert len(read) == 8
    for wrong, kind in ((0, ValueError), ("3", TypeError)):
        with pytest.raises(kind, match="buffersize"):
            executor.map(abs, [1], buffersize=wrong)  # type: ignore[arg-type]


def test_calls_are_finished_at_the_end_of_the_program(tmp_path: Path) -> None:
    code = """
from evproc_pool import PoolExecutor

def say(text):
    print(text, flush=True)

PoolExecutor(1).submit(say, "said")
"""
    assert run_script(code, tmp_path) == "said\n"


# --- with a pool that was handed in ---


@pytest.mark.parametrize("workers", [0, 1])
def test_calls_and_events_share_a_pool(workers: int) -> None:
    with PoolProcessor(workers=workers) as pool:
        pool.register(actions.act)
        with PoolExecutor(pool=pool) as first, PoolExecutor(pool=pool) as second:
            calls = [first.submit(abs, -1), second.submit(abs, -2)]
            assert pool.process(Do("stop", 3)) == 3
            assert [call.result() for call in calls] == [1, 2]
        assert pool.process(Do("stop", 4)) == 4
        with pytest.raises(RuntimeError, match="after shutdown"):
            first.submit(abs, 1)


def test_the_end_of_an_executor_waits_for_its_own_calls_only(gate: Gate) -> None:
    with PoolProcessor(workers=2) as pool:
        pool.register(actions.act)
        executor = PoolExecutor(pool=pool)
        other = pool.submit(Do("wait_at", gate.address))
        gate.arrival()
        call = executor.submit(pow, 3, 2)
        executor.shutdown()
        assert call.done()
        assert not other.done()
        gate.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.parametrize("is_owner", [True, False])
def test_a_forked_process_may_leave_the_block(gate: Gate, is_owner: bool) -> None:
    with contextlib.ExitStack() as at_end:
        pool = None if is_owner else at_end.enter_context(PoolProcessor(workers=1))
        executor = PoolExecutor(pool=pool) if pool else PoolExecutor(1)
        with executor:
            call = executor.submit(wait_there, gate.address, 5)
            gate.arrival()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of a fork with threads
                pid = os.fork()
            if not pid:
                try:
                    executor.shutdown(cancel_futures=True)
                finally:
                    os._exit(0)
            child = psutil.Process(pid)
            assert child.wait(PATIENCE_SECONDS) == 0
            assert not call.done()
            gate.close()
            assert call.result() == 5


def test_a_pool_that_is_handed_in_has_all_options() -> None:
    with PoolProcessor(workers=0) as pool, pytest.raises(TypeError, match="with pool="):
        PoolExecutor(3, pool=pool)


def test_the_pool_goes_on_after_its_executor() -> None:
    with PoolProcessor(workers=1) as pool:
        pool.register(actions.act)
        with PoolExecutor(pool=pool) as executor:
            pid = executor.submit(os.getpid).result()
        assert worker_pids(pool) == [pid]
