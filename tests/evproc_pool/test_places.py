"""Where a pool may find itself: few descriptors, no folder, no /proc, within other pools."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from evproc_pool import EventTimeoutError, PoolBrokenError, PoolExecutor, PoolProcessor
from evproc_pool.ipc import descriptors
from evproc_pool.protocol import limits
from tests.support import actions
from tests.support.actions import Do
from tests.support.helpers import error_of, map_regions, register_all, run_script, warm
from tests.support.sizes import BARS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="as Linux has them")

_HEAD = """
import logging, os, resource, sys, time
logging.basicConfig(stream=sys.stdout, format="%(message)s")
from evproc_pool import PoolProcessor
from tests.support.actions import Do, act

def limit(count):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))

def fill(but):
    held = []
    try:
        while True:
            held.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        for _ in range(but):
            os.close(held.pop())
    return held

def make(workers=2, **options):
    pool = PoolProcessor(workers=workers, **options)
    pool.register(act)
    return pool

def serve(pool, count=20):
    assert pool.process_many([Do("stop", n) for n in range(count)]) == list(range(count))
"""


# --- descriptors ---


@pytest.mark.parametrize(
    "options",
    ["", "event_timeout=0.5", "event_soft_timeout=0.5", "max_worker_memory_bytes=1 << 32"],
)
def test_a_program_with_more_than_a_thousand_open_files(options: str, tmp_path: Path) -> None:
    code = f"""{_HEAD}
limit(2048)
held = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
with make({options}) as pool:
    serve(pool)
    if "timeout" in {options!r}:
        failed, value = pool.process_many(
            [Do("call", time.sleep, 60), Do("stop", 1)], return_exceptions=True
        )
        print(type(failed).__name__, value)
"""
    ends = {"event_timeout=0.5": ["EventTimeoutError 1"]}
    ends["event_soft_timeout=0.5"] = ["SoftTimeoutError 1"]
    assert run_script(code, tmp_path).splitlines()[-1:] == ends.get(options, [])


@pytest.mark.parametrize("method", ["forkserver", "spawn", "fork"])
def test_with_few_descriptors_fewer_workers_do_the_work(method: str, tmp_path: Path) -> None:
    code = f"""{_HEAD}
limit(100)
with make(40, mp_context={method!r}) as pool:
    for _ in range(3):
        serve(pool, 80)
    from evproc_pool.testing import worker_pids
    assert 1 < len(worker_pids(pool)) < 12
    open(os.devnull).close()
"""
    (warning,) = run_script(code, tmp_path).splitlines()
    assert warning.startswith("only ")
    assert "workers could be started" in warning
    assert "this process may have 100 (RLIMIT_NOFILE" in warning
    assert "ulimit -n" in warning


def test_a_pool_without_descriptors_for_a_worker_says_what_to_set(tmp_path: Path) -> None:
    code = f"""{_HEAD}
from evproc_pool import PoolBrokenError
serve(make())  # imports everything
limit(100)
held = fill(but=12)
pool = make()
try:
    serve(pool)
except PoolBrokenError as error:
    print(error)
for each in held:
    os.close(each)
serve(pool)
"""
    (text,) = run_script(code, tmp_path).splitlines()
    assert "no worker process can be started" in text
    assert "100 (RLIMIT_NOFILE" in text
    assert "LimitNOFILE=" in text


@pytest.mark.parametrize("options", ["event_timeout=0.5", "event_soft_timeout=0.5"])
def test_limits_hold_while_the_program_has_no_descriptor_left(options: str, tmp_path: Path) -> None:
    code = f"""{_HEAD}
with make({options}, max_worker_memory_bytes=1 << 32) as pool:
    serve(pool)
    limit(100)
    held = fill(but=0)
    values = pool.process_many(
        [Do("call", time.sleep, 60), *[Do("stop", n) for n in range(20)]], return_exceptions=True
    )
    for each in held:
        os.close(each)
    print(type(values[0]).__name__, values[1:] == list(range(20)))
"""
    *warnings, line = run_script(code, tmp_path).splitlines()
    assert line in {"EventTimeoutError True", "SoftTimeoutError True"}
    assert len(warnings) <= 2


def test_the_death_of_the_forkserver_costs_no_worker_and_no_event(tmp_path: Path) -> None:
    code = f"""{_HEAD}
import signal
from evproc_pool.testing import worker_pids
from tests.support.helpers import warm

def end_forkserver():
    os.kill(os.getppid(), signal.SIGKILL)
    while os.getppid() == forkserver:
        time.sleep(0)

def parent():
    global forkserver
    forkserver = os.getppid()
    return end_forkserver()

with make(2, mp_context="forkserver") as pool:
    warm(pool)  # the death of one that is still starting is none between events
    before = worker_pids(pool)
    assert pool.process(Do("call", parent)) is None
    serve(pool)
    assert worker_pids(pool) == before
    os.kill(before[0], signal.SIGKILL)
    while before[0] in worker_pids(pool) or len(worker_pids(pool)) < 2:
        serve(pool)
"""
    assert "died between events, by" in run_script(code, tmp_path)


def test_a_worker_takes_few_descriptors() -> None:
    opened = []
    for workers in (1, 3):
        with register_all(PoolProcessor(workers=workers), [actions.act]) as pool:
            warm(pool)
            map_regions(pool)
            opened.append(len(list(Path("/proc/self/fd").iterdir())))
    assert opened[1] - opened[0] == 2 * (5 + 2 * descriptors.MAP_DESCRIPTORS)


@pytest.mark.skipif(not BARS, reason="128 processes")
def test_128_workers_have_room_under_the_usual_limit(tmp_path: Path) -> None:
    code = f"""{_HEAD}
limit(1024)
from tests.support.helpers import map_regions, warm
with make(128) as pool:
    assert len(warm(pool)) == 128
    map_regions(pool)
    open(os.devnull).close()
"""
    assert run_script(code, tmp_path) == ""


def test_room_is_looked_for_and_given_back() -> None:
    before = set(Path("/proc/self/fd").iterdir())
    descriptors.check_room(50)
    with pytest.raises(OSError, match="RLIMIT_NOFILE") as caught:
        descriptors.check_room(10**7)
    assert caught.value.errno == 24
    assert set(Path("/proc/self/fd").iterdir()) == before


# --- folders ---


def test_a_long_temporary_folder(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 90)
    folder.mkdir()
    code = f"{_HEAD}\nwith make() as pool: serve(pool)"
    lines = run_script(code, tmp_path, environment={"TMPDIR": str(folder)}).splitlines()
    # later Pythons go elsewhere by themselves
    assert [("TMPDIR" in line, "spawn" in line) for line in lines] in ([], [(True, True)])


def test_no_temporary_folder_at_all(tmp_path: Path) -> None:
    code = f"""{_HEAD}
import tempfile
tempfile._candidate_tempdir_list = list  # as on a read-only file system
with make(mp_context="forkserver") as pool:
    serve(pool)
    serve(pool)
"""
    (warning,) = run_script(code, tmp_path).splitlines()
    assert "No usable temporary directory" in warning
    assert "workers start by spawn" in warning


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
@pytest.mark.parametrize("when", ["before", "between"])
def test_the_working_folder_is_gone(method: str, when: str, tmp_path: Path) -> None:
    code = f"""{_HEAD}
here = os.path.join(os.getcwd(), "scratch")
os.mkdir(here)
os.chdir(here)
if {when!r} == "between":
    with make(mp_context={method!r}) as pool:
        serve(pool)
os.rmdir(here)
with make(mp_context={method!r}) as pool:
    serve(pool)
    print(pool.process(Do("call", os.readlink, "/proc/self/cwd")))
"""
    assert run_script(code, tmp_path) == f"{tmp_path}/scratch (deleted)\n"


# --- without /proc ---


@pytest.fixture
def no_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    def process(pid: int | None = None) -> psutil.Process:
        raise psutil.NoSuchProcess(pid or os.getpid())

    monkeypatch.setattr(psutil, "Process", process)


@pytest.mark.usefixtures("no_proc")
def test_an_event_that_takes_too_long_is_ended_without_proc(tmp_path: Path) -> None:
    path = str(tmp_path / "log")
    with register_all(PoolProcessor(workers=1, event_timeout=0.3), [actions.act]) as pool:
        failed, value = pool.process_many([Do("spin", path), Do("stop", 1)], return_exceptions=True)
    assert isinstance(failed, EventTimeoutError)
    assert value == 1


@pytest.mark.usefixtures("no_proc")
def test_a_limit_of_memory_needs_proc() -> None:
    with pytest.raises(OSError, match="max_worker_memory_bytes needs /proc"):
        limits.resident_bytes()


# --- within other pools ---


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    config: dict[str, Any] = multiprocessing.current_process()._config  # type: ignore[attr-defined]  # no public way
    return lambda: monkeypatch.setitem(config, "daemon", True)


def test_a_pool_in_a_daemonic_process_has_no_workers(daemon: Callable[[], None]) -> None:
    daemon()
    with pytest.warns(RuntimeWarning, match="this process is a daemon") as caught:
        pool, _ = PoolProcessor(workers=2), PoolExecutor(2)
    assert [each.filename for each in caught] == [__file__, __file__]
    with register_all(pool, [actions.act]):
        assert pool.workers == 0
        assert pool.process_many([Do("stop", 1), Do("pid")]) == [1, os.getpid()]
    assert PoolProcessor(workers=0).workers == 0  # as asked: nothing to warn of


def test_a_pool_that_a_daemonic_process_has_from_its_parent_says_so(
    daemon: Callable[[], None],
) -> None:
    pool = register_all(PoolProcessor(workers=2), [actions.act])
    daemon()
    error = error_of(lambda: pool.process(Do("stop", 1)))
    assert isinstance(error, PoolBrokenError)
    assert "daemon=False" in str(error)


_OUTER = """
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from evproc_pool import PoolProcessor
from tests.support.actions import Do, act

def task(workers):
    with PoolProcessor(workers=workers) as pool:
        pool.register(act)
        return pool.process_many([Do("stop", n) for n in range(5)])

if __name__ == "__main__":
    with {outer} as outer:
        print(list(outer.map(task, [0, 2])))
"""


@pytest.mark.parametrize(
    "outer",
    [
        "multiprocessing.get_context('spawn').Pool(1)",
        "multiprocessing.get_context('forkserver').Pool(1)",
        "multiprocessing.get_context('fork').Pool(1)",
        "ProcessPoolExecutor(1, multiprocessing.get_context('forkserver'))",
        "ProcessPoolExecutor(1, multiprocessing.get_context('spawn'))",
    ],
)
def test_a_pool_in_a_task_of_another_pool(outer: str, tmp_path: Path) -> None:
    environment = {"PYTHONWARNINGS": "ignore:this process is a daemon"}
    out = run_script(_OUTER.format(outer=outer), tmp_path, environment=environment)
    assert out == "[[0, 1, 2, 3, 4], [0, 1, 2, 3, 4]]\n"


_INNER = """
import evproc
from evproc_pool import PoolProcessor

class Outer(evproc.Event):
    name = "outer"

class Inner(evproc.Event):
    name = "inner"
    def __init__(self, number):
        super().__init__()
        self.number = number

@evproc.want("inner")
def double(proc, ev):
    raise evproc.StopProcessing(2 * ev.number)

@evproc.want("outer")
def delegate(proc, ev):
    with PoolProcessor(workers=2, event_timeout=30) as inner:
        inner.register(double)
        raise evproc.StopProcessing(inner.process_many([Inner(n) for n in range(5)]))

with PoolProcessor(workers=2, mp_context={method!r}) as pool:
    pool.register(delegate)
    print(pool.process_many([Outer(), Outer()]))
"""


@pytest.mark.parametrize("method", ["forkserver", "spawn", "fork"])
def test_a_pool_in_a_handler_of_a_script(method: str, tmp_path: Path) -> None:
    out = run_script(_INNER.format(method=method), tmp_path)
    assert out == "[[0, 2, 4, 6, 8], [0, 2, 4, 6, 8]]\n"
