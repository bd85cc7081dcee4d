"""What handlers fork, start and run beside themselves behaves as in one process."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Final

import psutil
import pytest

from evproc import Event, StopProcessing, want
from evproc_pool import PoolProcessor
from tests.support import actions
from tests.support.actions import Do
from tests.support.helpers import Gate, close_in_time, exit_code, register_all, run_script, warm

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")


class _Job(Event):
    """Has a handler do something, by its name in `_ACTS`."""

    name = "job"

    def __init__(self, act: str, *args: Any) -> None:
        super().__init__()
        self.act = act
        self.args = args


@want("job")
def _work(proc: Any, ev: _Job) -> Any:
    return _ACTS[ev.act](ev, *ev.args)


@want("job")
def _work_after(proc: Any, ev: _Job) -> None:
    assert ev.proc.worker.pid == os.getpid(), "the handler of another process"


@want("job")
def _work_before(proc: Any, ev: _Job) -> None:
    ev.proc.worker.pid = os.getpid()


def _child_leaves(ev: _Job, how: str) -> Any:
    """Fork a process that leaves the handler; its exit code."""
    pid = os.fork()
    if not pid:
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 - tracebacks
        return _LEAVE[how](ev)
    raise StopProcessing(exit_code(pid))


def _raise(error: BaseException) -> None:
    raise error


_LEAVE: Final[dict[str, Callable[[_Job], Any]]] = {
    "returns": lambda ev: None,
    "returns follow-ups": lambda ev: [_Job("nothing")],
    "emits": lambda ev: ev.emit("from a child"),
    "returns a generator": lambda ev: (_Job("nothing") for _ in range(2)),
    "stops": lambda ev: _raise(StopProcessing("from a child")),
    "stops with an object": lambda ev: _raise(StopProcessing({"from": ["a child"]})),
    "raises": lambda ev: _raise(LookupError("from a child")),
    "exits": lambda ev: sys.exit(7),
    "exits with nothing": lambda ev: sys.exit(),
    "interrupts": lambda ev: _raise(KeyboardInterrupt()),
    "exits at once": lambda ev: os._exit(9),
    "crashes": lambda ev: os.abort(),
}

_CODES: Final = {
    "raises": 1,
    "interrupts": 1,
    "exits": 7,
    "exits at once": 9,
    "crashes": -signal.SIGABRT,
}


def _thread_forks(ev: _Job) -> None:
    codes: list[int] = []

    def fork() -> None:
        pid = os.fork()
        if pid:
            codes.append(exit_code(pid))

    thread = threading.Thread(target=fork)
    thread.start()
    thread.join()
    raise StopProcessing(codes)


def _square(number: int) -> int:
    return number**2


def _with_pools(ev: _Job) -> None:
    context = multiprocessing.get_context("fork")
    with context.Pool(2) as pool:  # ends its processes by SIGTERM
        squares = pool.map(_square, range(5))
    with ProcessPoolExecutor(2, mp_context=context) as executor:
        squares += executor.map(_square, range(5))
    process = context.Process(target=sys.exit, args=(3,))
    process.start()
    process.join()
    # at once: the new process must not miss the signal
    ended = [context.Process(target=signal.pause) for _ in range(20)]
    for each in ended:
        each.start()
        each.terminate()
    for each in ended:
        each.join()
    raise StopProcessing((squares, process.exitcode, {each.exitcode for each in ended}))


_SIGNALS: Final = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1]


def _signals_of_children(ev: _Job) -> None:
    """What a program that is started, and a process that is forked, do on signals."""
    ask = "import signal, sys; print(*[signal.getsignal(int(each)) for each in sys.argv[1:]])"
    numbers = [str(int(each)) for each in _SIGNALS]
    started = subprocess.run(
        [sys.executable, "-c", ask, *numbers], check=True, capture_output=True, text=True
    )
    reads, writes = os.pipe()
    pid = os.fork()
    if not pid:
        os.write(writes, repr([signal.getsignal(each) for each in _SIGNALS]).encode())
        os._exit(0)
    os.close(writes)
    exit_code(pid)
    forked = os.read(reads, 10_000).decode()
    os.close(reads)
    raise StopProcessing((started.stdout, forked))


def _descriptors_of_a_child(ev: _Job) -> None:
    """What the worker has open that a process that it forks has not."""
    reads, writes = os.pipe()
    before = _open_files()
    pid = os.fork()
    if not pid:
        os.write(writes, "\n".join(_open_files()).encode())
        os._exit(0)
    exit_code(pid)
    child = set(os.read(reads, 100_000).decode().split("\n"))
    os.close(reads)
    os.close(writes)
    raise StopProcessing((sorted(before), sorted(child)))


def _open_files() -> set[str]:
    links = Path("/proc/self/fd").glob("*")
    return {str(link.readlink()) for link in links if link.is_symlink()}


def _leave_a_child(ev: _Job, address: tuple[str, int]) -> None:
    """Fork a process that goes on when its worker has ended."""
    if not os.fork():
        actions.pass_gate(address)
        os._exit(0)


_ACTS: Final[dict[str, Callable[..., Any]]] = {
    "nothing": lambda ev: None,
    "child leaves": _child_leaves,
    "thread forks": _thread_forks,
    "with pools": _with_pools,
    "signals": _signals_of_children,
    "descriptors": _descriptors_of_a_child,
    "leave a child": _leave_a_child,
}

_HANDLERS: Final = [_work_before, _work, _work_after]


@pytest.fixture(scope="module", params=["forkserver", "spawn"])
def forking_pool(request: pytest.FixtureRequest) -> Iterator[PoolProcessor]:
    with PoolProcessor(workers=2, mp_context=request.param) as pool:
        register_all(pool, [*_HANDLERS, actions.act])
        warm(pool)
        yield pool


@pytest.mark.parametrize("how", _LEAVE)
def test_a_forked_process_ends_as_its_handler_ends(forking_pool: PoolProcessor, how: str) -> None:
    before = warm(forking_pool)
    ev, code = _Job("child leaves", how), _CODES.get(how, 0)
    # alone, among others in a batch, and behind results that were not sent
    assert forking_pool.process(ev) == code
    values = forking_pool.process_many([Do("stop", 1), ev, Do("stop", 2)] * 30)
    assert values == [1, code, 2] * 30
    assert warm(forking_pool) == before, "a worker has died"


def test_a_thread_may_fork(forking_pool: PoolProcessor) -> None:
    assert forking_pool.process_many([_Job("thread forks")] * 5) == [[0]] * 5


def test_pools_of_forked_processes_work_in_handlers(forking_pool: PoolProcessor) -> None:
    squares = [0, 1, 4, 9, 16] * 2
    ended = (squares, 3, {-signal.SIGTERM})
    assert forking_pool.process_many([_Job("with pools")] * 3) == [ended] * 3


@pytest.mark.usefixtures("forking_pool")
def test_other_processes_of_the_forkserver_take_signals() -> None:
    for _ in range(10):
        process = multiprocessing.get_context("forkserver").Process(target=signal.pause)
        process.start()
        process.terminate()
        process.join()
        assert process.exitcode == -signal.SIGTERM
        process.close()


def test_signals_are_as_in_one_process(forking_pool: PoolProcessor) -> None:
    with PoolProcessor(workers=0) as alone:
        register_all(alone, _HANDLERS)
        assert forking_pool.process(_Job("signals")) == alone.process(_Job("signals"))


def test_a_forked_process_has_no_descriptor_of_the_pool(forking_pool: PoolProcessor) -> None:
    worker, child = forking_pool.process(_Job("descriptors"))
    assert any("evproc_pool" in each for each in worker)
    assert not any("evproc_pool" in each or each.startswith("socket:") for each in child), child


def test_a_forked_process_may_outlive_its_worker(gate: Gate) -> None:
    pool = PoolProcessor(workers=1)
    register_all(pool, _HANDLERS)
    assert pool.process(_Job("leave a child", gate.address)) is None
    arrival = gate.arrival()
    close_in_time(pool)
    child = psutil.Process(arrival.pid)
    assert child.is_running()
    gate.close()


@pytest.mark.parametrize("how", ["returns", "raises", "exits"])
def test_an_initializer_may_fork(how: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with PoolProcessor(workers=1, initializer=_fork_and_note, initargs=(how, str(log))) as pool:
        register_all(pool, [actions.act])
        assert pool.process(Do("stop", 1)) == 1
    assert log.read_text() == str(_CODES.get(how, 0))


def _fork_and_note(how: str, log: str) -> None:
    pid = os.fork()
    if not pid:
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 - tracebacks
        _LEAVE[how](_Job("nothing"))
        return
    Path(log).write_text(str(exit_code(pid)), "utf-8")


_SCRIPT = """
import atexit
import os
import sys

import evproc
from evproc_pool import PoolProcessor


class Job(evproc.Event):
    name = "job"


@evproc.want("job")
def work(proc, ev):
    print("before")
    pid = os.fork()
    if not pid:
        atexit.register(print, "the child's")
        print("child")
        sys.exit(3)
    print("exit code", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


with PoolProcessor(workers=1, mp_context={method!r}, initializer=atexit.register,
                   initargs=(print, "the worker's")) as pool:
    pool.register(work)
    pool.process_many([Job(), Job()])
"""


@pytest.mark.parametrize("method", ["forkserver", "spawn", "fork"])
def test_nothing_is_printed_or_called_twice(method: str, tmp_path: Path) -> None:
    printed = run_script(_SCRIPT.format(method=method), tmp_path).splitlines()
    one = ["before", "child", "the child's", "exit code 3"]
    assert printed == [*one, *one, "the worker's"]


# --- a pool without workers ---

_WITHOUT_WORKERS = """
import os
import sys

import evproc
from evproc_pool import PoolProcessor


class Job(evproc.Event):
    name = "job"


def finalizer():
    print("finalizer of", names[os.getpid()], flush=True)


@evproc.want("job")
def work(proc, ev):
    pass


names = {{os.getpid(): "the parent"}}
pool = PoolProcessor(workers=0, finalizer=finalizer)
pool.register(work)
pool.process(Job())
if not os.fork():
    names[os.getpid()] = "the child"
    {does}
    sys.exit(0)
os.wait()
"""


@pytest.mark.parametrize(
    ("does", "who"),
    [
        ("pass", ["the parent"]),
        ("pool.close()", ["the parent"]),
        ("pool.process(Job())", ["the child", "the parent"]),
    ],
    ids=["leaves it", "closes it", "uses it"],
)
def test_the_finalizer_is_called_in_the_processes_that_use_the_pool(
    does: str, who: list[str], tmp_path: Path
) -> None:
    printed = run_script(_WITHOUT_WORKERS.format(does=does), tmp_path).splitlines()
    assert printed == [f"finalizer of {each}" for each in who]
