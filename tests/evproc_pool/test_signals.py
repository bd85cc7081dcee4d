"""Signals to the whole process group, deaths that nobody saw, and a user that has changed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from evproc_pool import PoolProcessor
from tests.support.actions import Do, act
from tests.support.helpers import (
    ROOT,
    Gate,
    Script,
    error_of,
    notes_of,
    run_script,
    still_alive,
    wait_until,
    warm,
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")

_SERVICE = """
import signal
import sys
import threading

from evproc_pool import PoolProcessor
from tests.support import actions
from tests.support.actions import Do

stop = threading.Event()
for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, lambda *_: stop.set())
pool = PoolProcessor(workers=2, mp_context={method!r}, max_tasks_per_child=2)
pool.register(actions.act)
futures = [pool.submit(Do("wait_at", {address!r}, "", number)) for number in range(8)]
stop.wait()
print("stopped", flush=True)
pool.close()
print([future.result() for future in futures])
"""


@pytest.mark.parametrize("method", ["forkserver", "spawn", "fork"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_group_is_the_coordinators_matter(
    tmp_path: Path, gate: Gate, method: str, number: signal.Signals
) -> None:
    code = _SERVICE.format(method=method, address=gate.address)
    with Script(code, tmp_path) as script:
        arrivals = [gate.arrival(), gate.arrival()]
        os.killpg(script.process.pid, number)  # also of the forkserver
        wait_until(lambda: "stopped" in (tmp_path / "out.txt").read_text(), "it stops")
        for _ in range(6):  # workers are replaced meanwhile
            arrivals.pop(0).release()
            arrivals.append(gate.arrival())
        gate.close()
        finished = script.finish()
    out = f"stopped\n{list(range(8))}\n"
    assert (finished.code, finished.out, finished.left) == (0, out, []), finished
    # SIGHUP ends the resource tracker of multiprocessing, which says so
    assert not finished.err or (number == signal.SIGHUP and "Traceback" not in finished.err)


# Runs in each new interpreter, before anything of ours.
_STRUCK_AT_ONCE = """
import os, re, select, signal, sys

command = " ".join(sys.orig_argv)
forkserver = re.search(r"forkserver import main; main\\((\\d+),", command)
if forkserver and not os.path.exists("struck"):
    open("struck", "w").close()
    select.select([int(forkserver[1])], [], [])  # the coordinator asks for a worker
    os.kill(os.getpid(), {number})
elif "spawn import spawn_main" in command:
    os.kill(os.getpid(), {number})
"""

_STARTS = """
from evproc_pool import PoolProcessor
from tests.support import actions
from tests.support.actions import Do

with PoolProcessor(workers=2, mp_context={method!r}) as pool:
    pool.register(actions.act)
    print(pool.process_many([Do("stop", number) for number in range(4)]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="there is a forkserver, and /proc")
@pytest.mark.parametrize("method", ["forkserver", "spawn"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_interpreters_start_ends_no_pool(
    tmp_path: Path, method: str, number: signal.Signals
) -> None:
    struck = _STRUCK_AT_ONCE.format(number=int(number))
    (tmp_path / "sitecustomize.py").write_text(struck, "utf-8")
    path = os.pathsep.join(filter(None, [str(tmp_path), str(ROOT), os.environ.get("PYTHONPATH")]))
    with Script(
        _STARTS.format(method=method), tmp_path, environment={"PYTHONPATH": path}
    ) as script:
        finished = script.finish()
    assert (finished.code, finished.out, finished.left) == (0, "[0, 1, 2, 3]\n", []), finished
    assert not finished.err
    assert (tmp_path / "struck").exists() == (method == "forkserver")


_WATCHED = {signal.SIGINT, signal.SIGTERM, signal.SIGUSR1}


def _masks() -> list[set[signal.Signals]]:
    """Which of these signals a worker blocks, and what it starts."""
    ask = "import signal; print({*map(int, signal.pthread_sigmask(signal.SIG_BLOCK, []))})"
    started = subprocess.run([sys.executable, "-c", ask], capture_output=True, check=True)
    masks = [signal.pthread_sigmask(signal.SIG_BLOCK, []), eval(started.stdout)]
    return [_WATCHED.intersection(mask) for mask in masks]


@pytest.mark.parametrize(
    ("method", "blocked"),
    [
        *((method, set()) for method in multiprocessing.get_all_start_methods()),
        # those of a forkserver are as when it was started
        ("spawn", {signal.SIGTERM, signal.SIGUSR1}),
        ("fork", {signal.SIGTERM, signal.SIGUSR1}),
    ],
)
def test_workers_block_the_signals_that_the_application_blocks(
    method: str, blocked: set[signal.Signals]
) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    try:
        with PoolProcessor(workers=1, mp_context=method) as pool:
            pool.register(act)
            assert pool.process(Do("call", _masks)) == [blocked, blocked]
        assert _WATCHED & signal.pthread_sigmask(signal.SIG_BLOCK, []) == blocked
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_DEATH_OF_THE_FORKSERVER = """
from evproc_pool import PoolProcessor, WorkerLostError
from evproc_pool.internals.stdlib_multiprocessing import forkserver_pid
from tests.support import actions
from tests.support.actions import Do

with PoolProcessor(workers=1) as pool:
    pool.register(actions.act)
    pool.process(Do("nothing"))
    print(forkserver_pid(), flush=True)
    print(pool.process(Do("wait_at", {address!r}, "", "finished")))
    try:
        pool.process(Do("leave", 3))
    except WorkerLostError as error:
        print(error.exitcode, error)
    print(pool.process(Do("stop", "goes on")))
"""


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="the worker itself cannot be watched")
def test_the_death_of_a_forkserver_is_not_that_of_its_workers(tmp_path: Path, gate: Gate) -> None:
    code = _DEATH_OF_THE_FORKSERVER.format(address=gate.address)
    with Script(code, tmp_path) as script:
        arrival = gate.arrival()
        forkserver = psutil.Process(int((tmp_path / "out.txt").read_text()))
        forkserver.kill()
        assert not still_alive([forkserver])
        arrival.release()
        finished = script.finish()
    assert (finished.code, finished.left) == (0, []), finished
    _, first, lost, last = finished.out.splitlines()
    assert (first, last) == ("finished", "goes on")
    assert lost.startswith("None worker")
    # between them may stand how much memory it had
    assert "by an exit status that is not known" in lost
    assert "; its forkserver had died" in lost


# --- after dropping privileges ---

_DROPPED = """
import os

import psutil

from evproc_pool import PoolProcessor
from tests.support import actions
from tests.support.actions import Do

pool = PoolProcessor(workers=2, mp_context={method!r}, event_timeout={timeout!r})
pool.register(actions.act)
print(pool.process_many([Do("stop", 1)] * 2))
pool.submit(Do("stop", 1)).result()  # imports what may not be readable then
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
print(pool.process_many([Do("stop", 2)] * 2), flush=True)
{end}
print("ended")
"""

_DROPPED_ENDS = {
    "closed": "pool.close()",
    "terminated": "pool.terminate()",
    "forgotten": "",
    "at work": "future = pool.submit(Do('wait_at', {address!r}))\n"
    "while not future.running(): pass\npool.terminate()",
    "hung": "future = pool.submit(Do('wait_at', {address!r}))\n"
    "print(type(future.exception()).__name__)\npool.close()",
}


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs privileges to drop"
)
@pytest.mark.parametrize("method", ["forkserver", "spawn", "fork"])
@pytest.mark.parametrize("end", _DROPPED_ENDS)
def test_workers_end_after_privileges_were_dropped(
    tmp_path: Path, gate: Gate, method: str, end: str
) -> None:
    timeout = 0.5 if end == "hung" else None
    last = _DROPPED_ENDS[end].format(address=gate.address)
    code = _DROPPED.format(method=method, timeout=timeout, end=last)
    with Script(code, tmp_path) as script:
        finished = script.finish()  # nobody opens the gate
    assert (finished.code, finished.left) == (0, []), finished
    ended = ["EventTimeoutError", "ended"] if end == "hung" else ["ended"]
    assert finished.out.splitlines() == ["[1, 1]", "[2, 2]", *ended]


def test_workers_that_are_there_go_on_if_others_cannot_be_imported(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, gate: Gate
) -> None:
    name = "multiprocessing.popen_spawn_posix"
    with PoolProcessor(workers=2, mp_context="spawn") as pool:
        pool.register(act)
        assert pool.process(Do("stop", 1)) == 1
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, name, None)  # as where the standard library is unreadable
            futures = [pool.submit(Do("wait_at", gate.address, "", 2)) for _ in range(2)]
            for _ in futures:
                gate.arrival().release()
            assert [future.result() for future in futures] == [2, 2]
    assert f"cannot be imported (import of {name} halted" in caplog.text


@pytest.mark.skipif(sys.platform != "linux", reason="only this kernel does it")
@pytest.mark.parametrize("can_ask_kernel", [True, False])
def test_a_worker_that_may_not_be_killed(
    one_worker: PoolProcessor, monkeypatch: pytest.MonkeyPatch, can_ask_kernel: bool
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    (pid,) = warm(one_worker)
    worker = psutil.Process(pid)
    engine: Any = one_worker._engine
    (process,) = engine._backend._processes.values()
    with monkeypatch.context() as patch:
        patch.setattr(signal, "pidfd_send_signal", refuse)
        if can_ask_kernel:
            one_worker.terminate()
            assert not still_alive([worker])
        else:
            patch.setattr("evproc_pool.backends.local.worker_process.seem_dead", lambda _: False)
            error = error_of(process.kill)
            assert isinstance(error, PermissionError)
            assert "change it before the pool's first call" in notes_of(error)


_OTHER_USER = """
import os
import psutil
from evproc_pool import PoolProcessor
from tests.support.actions import act
from tests.support.helpers import still_alive, warm

pool = PoolProcessor(workers=3, mp_context={method!r})
pool.register(act)
workers = [psutil.Process(pid) for pid in warm(pool)]
os.setresuid(65534, 65534, 0)
try:
    workers[0].kill()
except psutil.AccessDenied:
    pool.terminate()
    print(len(workers), still_alive(workers))
os.setresuid(0, 0, 0)
"""


@pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="only root can change its user"
)
@pytest.mark.parametrize("method", ["forkserver", "spawn", "fork"])
def test_workers_end_when_the_user_has_changed(method: str, tmp_path: Path) -> None:
    assert run_script(_OTHER_USER.format(method=method), tmp_path) == "3 []\n"
