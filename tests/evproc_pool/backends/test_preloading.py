"""The forkserver imports handlers' modules once, if that does no harm."""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import types
from multiprocessing import forkserver
from pathlib import Path
from typing import Any, cast

import psutil
import pytest

from evproc_pool import PoolProcessor
from evproc_pool.backends.local import preloading, start_methods
from evproc_pool.ipc import parent_death
from tests.support import actions
from tests.support.actions import Do
from tests.support.helpers import Script, exit_code, fork, run_script
from tests.support.sizes import BARS

_ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="there is no forkserver")

# Writes a line for each process that imports it. With a file `breaks`, it raises in all
# processes except the first.
_HANDLERS = """
import os, random, signal, sys
from pathlib import Path
from evproc import Event, StopProcessing, want
import helper_of_handlers

log = Path(__file__).with_name("imports")
first = log.exists()
with log.open("a") as file:
    print(os.getpid(), signal.getsignal(signal.SIGINT) is not signal.default_int_handler, file=file)
if first and (Path(__file__).with_name("breaks")).exists():
    raise {error}

class Ask(Event):
    name = "ask"

@want("ask")
def answer(proc, ev):
    raise StopProcessing((os.getpid(), helper_of_handlers.ANSWER))
"""

_SCRIPT = """
import multiprocessing, os, sys, time
from pathlib import Path
sys.path.insert(0, {folder!r})  # not where the forkserver would look
import handlers_here
from evproc_pool import PoolBrokenError, PoolProcessor

def imports():
    return [line.split() for line in (Path({folder!r}) / "imports").read_text().splitlines()]

def ask(pool):
    values = []
    while len({{pid for pid, _ in values}}) < pool.workers:
        time.sleep(0.001)  # leave the CPU to what is being started
        values += pool.process_many([handlers_here.Ask() for _ in range(50)])
    return values

def put(queue, value):
    queue.put(value())

def value_in_a_process(value):
    context = multiprocessing.get_context("forkserver")
    queue = context.SimpleQueue()
    process = context.Process(target=put, args=(queue, value))
    process.start()
    value = queue.get()
    process.join()
    queue.close()
    return value

"""


def _run(body: str, folder: Path, error: str = "KeyError('here')") -> list[str]:
    modules = folder / "modules"
    modules.mkdir()
    (modules / "handlers_here.py").write_text(_HANDLERS.format(error=error))
    (modules / "helper_of_handlers.py").write_text("ANSWER = 1\n")
    script = _SCRIPT.format(folder=str(modules)) + textwrap.dedent(body)
    return run_script(script, folder).splitlines()


_WORKERS = """
with PoolProcessor(workers=2, mp_context="forkserver"{arguments}) as pool:
    pool.register(handlers_here.answer)
    pids = {{str(pid) for pid, _ in ask(pool)}}
    importers = {{pid for pid, _ in imports()}}
    print(len(importers), len(importers & pids), imports()[1][1])
"""


@_ON_LINUX
def test_the_forkserver_imports_them_once_for_all_workers(tmp_path: Path) -> None:
    # Ctrl-C does not end it meanwhile
    assert _run(_WORKERS.format(arguments=", preload=True"), tmp_path) == ["2 0 True"]


@_ON_LINUX
@pytest.mark.parametrize("arguments", ["", ", preload=True, initializer=len, initargs=['']"])
def test_workers_import_them_if_the_forkserver_does_not(arguments: str, tmp_path: Path) -> None:
    assert _run(_WORKERS.format(arguments=arguments), tmp_path) == ["3 2 True"]


# --- imports by default ---

# Stands for NumPy, and writes a line for each process that imports it.
_LIBRARY = """
import multiprocessing, os
from pathlib import Path

def log():
    is_child = multiprocessing.parent_process() is not None
    name = multiprocessing.current_process().name
    with Path(__file__).with_name("imports").open("a") as file:
        print(os.getpid(), name, is_child, file=file)

log()
"""

_USES_A_LIBRARY = """
import os
from evproc import Event, StopProcessing, want
import helper_of_handlers

class Ask(Event):
    name = "ask"

@want("ask")
def answer(proc, ev):
    raise StopProcessing((os.getpid(), helper_of_handlers.log.__name__))
"""

_ASKS = """
import sys, threading, time
from pathlib import Path
sys.path[:0] = [{folder!r}, {installed!r}]
import handlers_here
from evproc_pool import PoolProcessor

def ask(pool):
    pids = set()
    while len(pids) < pool.workers:
        time.sleep(0.001)  # leave the CPU to what is being started
        pids |= {{pid for pid, _ in pool.process_many([handlers_here.Ask()] * 50)}}
    return pids

"""


def _with_library(body: str, folder: Path, library: str = _LIBRARY) -> tuple[str, Path]:
    """A script with handlers that use a library, and the file into which the library writes."""
    installed = folder / "site-packages"
    installed.mkdir()
    (installed / "numpy.py").write_text(library)
    (folder / "handlers_here.py").write_text(_USES_A_LIBRARY)
    (folder / "helper_of_handlers.py").write_text("from numpy import log\n")
    head = _ASKS.format(folder=str(folder), installed=str(installed))
    return head + textwrap.dedent(body), installed / "imports"


def _run_with_library(body: str, folder: Path) -> list[str]:
    script, imports = _with_library(body, folder)
    run_script(script, folder)
    return imports.read_text().splitlines()


@_ON_LINUX
def test_a_library_that_handlers_use_is_imported_once_for_all_workers(tmp_path: Path) -> None:
    body = """
    with PoolProcessor(workers=2, mp_context="forkserver") as pool:
        pool.register(handlers_here.answer)
        ask(pool)
    """
    here, there = [line.split()[1:] for line in _run_with_library(body, tmp_path)]
    assert here == ["MainProcess", "False"]
    assert there == ["forkserver", "True"]


@_ON_LINUX
@pytest.mark.parametrize("arguments", ["preload=False", "initializer=len, initargs=['']"])
def test_workers_import_a_library_if_the_forkserver_does_not(
    arguments: str, tmp_path: Path
) -> None:
    body = f"""
    with PoolProcessor(workers=2, mp_context="forkserver", {arguments}) as pool:
        pool.register(handlers_here.answer)
        ask(pool)
    """
    names = [line.split()[1] for line in _run_with_library(body, tmp_path)]
    assert "forkserver" not in names
    assert len(names) == 3


_REPLACES = """
import logging, os, signal, statistics, sys, time
sys.path.insert(0, {folder!r})
import handlers_here
from evproc_pool import PoolProcessor

logging.disable(logging.CRITICAL)
seconds = []
with PoolProcessor(workers=1) as pool:
    pool.register(handlers_here.answer)
    dead = pid = pool.process(handlers_here.Ask())
    for _ in range(20):
        begin = time.perf_counter()
        os.kill(pid, signal.SIGKILL)
        while pid == dead:
            pid = pool.process(handlers_here.Ask())
        seconds.append(time.perf_counter() - begin)
        dead = pid
print(statistics.median(seconds))
"""


@_ON_LINUX
@pytest.mark.skipif(not BARS, reason="looks at the clock")
def test_a_replacement_whose_handlers_import_numpy_is_ready_at_once(tmp_path: Path) -> None:
    pytest.importorskip("numpy")
    uses_numpy = _USES_A_LIBRARY.replace("import helper_of_handlers", "import numpy")
    uses_numpy = uses_numpy.replace("(os.getpid(), helper_of_handlers.log.__name__)", "os.getpid()")
    (tmp_path / "handlers_here.py").write_text(uses_numpy)
    assert float(run_script(_REPLACES.format(folder=str(tmp_path)), tmp_path)) < 0.050


@_ON_LINUX
def test_a_forkserver_that_is_importing_ends_with_the_program(tmp_path: Path) -> None:
    hangs = _LIBRARY + "\nwhile multiprocessing.parent_process() is not None:\n    pass\n"
    body = """
    import os, signal, time
    import numpy as a_library

    def kill_when_both_are_there():
        log = Path(a_library.__file__).with_name("imports")
        while len(log.read_text().splitlines()) < 2:
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGKILL)

    pool = PoolProcessor(workers=1, mp_context="forkserver")
    pool.register(handlers_here.answer)
    threading.Thread(target=kill_when_both_are_there, daemon=True).start()
    pool.process(handlers_here.Ask())
    """
    script, _ = _with_library(body, tmp_path, hangs)
    with Script(script, tmp_path) as running:
        finished = running.finish()
    assert finished.code == -signal.SIGKILL
    assert finished.left == []


# Waits in the forkserver until it may go on.
_WAITS = (
    _LIBRARY
    + """
import time
while multiprocessing.parent_process() is not None:
    if Path(__file__).with_name("go").exists():
        break
    time.sleep(0.001)
"""
)


@_ON_LINUX
def test_a_forkserver_ends_if_the_program_has_ended_before_it_begins(tmp_path: Path) -> None:
    body = """
    import os, signal
    from multiprocessing import forkserver
    import numpy
    spawn = forkserver.util.spawnv_passfds

    def spawn_and_die(path, args, fds):
        pid = spawn(path, args, fds)
        if "forkserver" in args[-1]:
            os.kill(os.getpid(), signal.SIGKILL)
        return pid

    pool = PoolProcessor(workers=1, mp_context="forkserver")
    pool.register(handlers_here.answer)
    forkserver.util.spawnv_passfds = spawn_and_die
    pool.process(handlers_here.Ask())
    """
    script, _ = _with_library(body, tmp_path, _WAITS)
    with Script(script, tmp_path) as running:
        finished = running.finish()
    assert finished.code == -signal.SIGKILL
    assert finished.left == []


def _hang_on(name: str) -> None:
    with parent_death.ends_with_parent(name):
        os._exit(7)


@_ON_LINUX
@pytest.mark.parametrize(
    ("lives", "opens", "error", "code"),
    [
        pytest.param(True, "a pipe", None, 7, id="it lives"),
        pytest.param(True, "a pipe without an end", None, 1, id="it ends in between"),
        pytest.param(True, "nothing", None, 7, id="its pipe cannot be opened"),
        pytest.param(True, "nothing", psutil.NoSuchProcess(1), 7, id="nothing can be seen"),
        pytest.param(False, "nothing", None, 1, id="it has ended"),
        pytest.param(False, "nothing", psutil.NoSuchProcess(1), 1, id="it is gone"),
        pytest.param(False, "nothing", psutil.AccessDenied(1), 7, id="nobody may see it"),
    ],
)
def test_a_process_that_hangs_on_another_ends_with_it(
    lives: bool,
    opens: str,
    error: psutil.Error | None,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def see(pid: int) -> psutil.Process:
        if error is not None:
            raise error
        return process(pid)

    process = psutil.Process
    monkeypatch.setattr(psutil, "Process", see)
    with subprocess.Popen([sys.executable, "-c", "pass"]) as ended:
        # dead, and noticed by nobody yet
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
        reads, writes = os.pipe()
        if opens == "a pipe without an end":
            os.close(writes)
        monkeypatch.setattr(
            parent_death, "_open_pipe", lambda *args: None if opens == "nothing" else os.dup(reads)
        )
        pid = os.getpid() if lives else ended.pid
        assert exit_code(fork(lambda: _hang_on(f"{pid}.0.0"))) == code
        if opens != "a pipe without an end":
            os.close(writes)
        os.close(reads)


@_ON_LINUX
def test_an_anchor_is_known_by_more_than_its_number() -> None:
    anchor = parent_death.Anchor()
    pid, fd, inode = map(int, anchor.name.split("."))
    path = f"/proc/{pid}/fd/{fd}"
    assert parent_death._open_pipe(path, inode + 1) is None
    reads = parent_death._open_pipe(path, inode)
    assert reads is not None
    os.close(reads)
    with Path(os.devnull).open() as other:
        os.dup2(other.fileno(), fd)  # something else has the number now
        assert not anchor.is_open
        assert parent_death._open_pipe(path, inode) is None
        anchor.close()
        os.close(fd)  # which left that alone
    assert not anchor.is_open


@_ON_LINUX
def test_a_forked_process_has_nothing_of_its_parents_forkserver() -> None:
    from multiprocessing import forkserver  # there is none on Windows

    context = multiprocessing.get_context("forkserver")
    server: Any = forkserver._forkserver

    def prepare() -> None:
        assert start_methods._forkserver.anchor is None
        with start_methods.prepared(context, ["a_module"]):
            anchor = start_methods._forkserver.anchor
            assert anchor is not None
            own = preloading.entries(["a_module"], anchor.name)
            assert preloading._named_in(server._preload_modules) == preloading._named_in(own)
            assert server._preload_modules[0] == "chosen"
        assert server._preload_modules == ["chosen"]

    chosen = server._preload_modules
    with start_methods.prepared(context):
        ours = list(server._preload_modules)
    anchor = start_methods._forkserver.anchor
    try:
        # as another thread has it for a moment
        context.set_forkserver_preload(["chosen", *ours])
        assert exit_code(fork(prepare)) == 0
        assert anchor is not None
        assert anchor.is_open
    finally:
        context.set_forkserver_preload(chosen)


@_ON_LINUX
def test_an_anchor_that_a_program_has_closed_is_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = parent_death.Anchor()
    closed.close()
    monkeypatch.setattr(start_methods._forkserver, "anchor", closed)
    with start_methods.prepared(multiprocessing.get_context("forkserver")):
        anchor = start_methods._forkserver.anchor
    assert anchor is not None
    assert anchor.is_open
    anchor.close()


@_ON_LINUX
def test_a_forkserver_whose_start_was_interrupted_serves_the_next_pool(tmp_path: Path) -> None:
    body = """
    import os, signal, time
    import numpy as a_library
    log = Path(a_library.__file__).with_name("imports")

    def interrupt_when_both_are_there():
        while len(log.read_text().splitlines()) < 2:
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt_when_both_are_there).start()
    try:
        with PoolProcessor(workers=1, mp_context="forkserver") as pool:
            pool.register(handlers_here.answer)
            pool.process(handlers_here.Ask())
    except KeyboardInterrupt:
        log.with_name("go").touch()
    with PoolProcessor(workers=1, mp_context="forkserver") as pool:
        pool.register(handlers_here.answer)
        print(len(ask(pool)), len(log.read_text().splitlines()))
    """
    script, _ = _with_library(body, tmp_path, _WAITS)
    assert run_script(script, tmp_path) == "1 2\n"


@_ON_LINUX
def test_an_interrupt_leaves_a_forkserver_that_others_use_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def new_pool() -> PoolProcessor:
        pool = PoolProcessor(workers=1, mp_context="forkserver")
        pool.register(actions.act)
        return pool

    connect = forkserver.connect_to_new_process
    server: Any = forkserver._forkserver

    def connects(fds: Any) -> Any:
        found = connect(fds)
        os.kill(os.getpid(), signal.SIGINT)  # before it gets the request
        return found

    with new_pool() as first:
        first.process(Do("nothing"))
        pid = server._forkserver_pid
        with monkeypatch.context() as patch, new_pool() as second:
            patch.setattr(forkserver, "connect_to_new_process", connects)
            with pytest.raises(KeyboardInterrupt):
                second.process(Do("nothing"))
        with new_pool() as third:
            assert third.process(Do("stop", 3)) == 3
        assert server._forkserver_pid == pid


_FORKS = """
import os, threading, warnings
from evproc import Event, StopProcessing, want

class Ask(Event):
    name = "ask"

@want("ask")
def answer(proc, ev):
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    with warnings.catch_warnings(record=True) as caught:
        pid = os.fork()
        if not pid:
            os._exit(0)
        os.waitpid(pid, 0)
    done.set()
    thread.join()
    raise StopProcessing((os.getpid(), [each.category.__name__ for each in caught]))
"""


@_ON_LINUX
@pytest.mark.skipif(sys.version_info < (3, 12), reason="only later Pythons warn of it")
def test_the_forkserver_may_fork_beside_threads_and_handlers_are_warned(tmp_path: Path) -> None:
    threaded = (
        _LIBRARY
        + """
if multiprocessing.parent_process() is not None:
    import threading
    threading.Thread(target=threading.Event().wait, daemon=True).start()
"""
    )
    body = """
    import numpy
    with PoolProcessor(workers=1, mp_context="forkserver") as pool:
        pool.register(handlers_here.answer)
        print(pool.process(handlers_here.Ask())[1])
    """
    script, _ = _with_library(body, tmp_path, threaded)
    (tmp_path / "handlers_here.py").write_text(_FORKS)
    printed = run_script(script, tmp_path, python=("-W", "default::DeprecationWarning"))
    assert printed == "['DeprecationWarning']\n"


def test_the_libraries_that_a_program_has(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(sys.modules):
        if name.partition(".")[0] in ("numpy", "scipy"):
            monkeypatch.delitem(sys.modules, name)
    assert preloading.libraries() == []
    ours = ["numpy", "scipy", "scipy.linalg"]
    for name in (*ours, "numpy._core", "scipy.linalg.blas", "numpylike", "pandas"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, cast("str", 7), types.ModuleType("seven"))
    assert preloading.libraries() == ours
    monkeypatch.setitem(sys.modules, "scipy", cast("Any", None))  # is not to be imported
    monkeypatch.setitem(sys.modules, "numpy", cast("Any", object()))  # a stand-in
    assert preloading.libraries() == []


# Prints the error of a pool whose handlers can be imported only here, and its cause.
_BREAKS = """
(Path(handlers_here.__file__).with_name("breaks")).touch()
pool = PoolProcessor(workers=1, mp_context="forkserver", preload=True)
pool.register(handlers_here.answer)
try:
    pool.process(handlers_here.Ask())
except PoolBrokenError as error:
    print(error)
    print(f"{type(error.__cause__).__name__}: {error.__cause__}")
"""


@_ON_LINUX
@pytest.mark.parametrize(
    ("error", "reported"),
    [
        ("KeyError('here')", "KeyError: 'here'"),
        ("ImportError('here')", "ImportError: here"),
        ("SystemExit(3)", "PicklingExit: SystemExit: 3"),
    ],
)
def test_a_worker_reports_what_a_module_raises(error: str, reported: str, tmp_path: Path) -> None:
    assert _run(_BREAKS, tmp_path, error)[1:] == [reported]


# A forkserver that has imported nothing, and dies.
_ANOTHER_BEFORE = """
    from multiprocessing import forkserver
    with PoolProcessor(workers=1, mp_context="forkserver") as pool:
        pool.register(handlers_here.answer)
        ask(pool)
    os.kill(forkserver._forkserver._forkserver_pid, 9)
"""


@_ON_LINUX
@pytest.mark.parametrize("before", ["", _ANOTHER_BEFORE], ids=["first", "after another"])
@pytest.mark.parametrize("changed", ["handlers_here", "helper_of_handlers"])
def test_a_module_that_has_changed_since_is_imported_anew(
    changed: str, before: str, tmp_path: Path
) -> None:
    body = f"""{before}
    def other(proc, ev):
        pass

    with PoolProcessor(workers=1, mp_context="forkserver", preload=True) as pool:
        pool.register(handlers_here.answer)
        print(ask(pool)[0][1])
        source = Path(handlers_here.__file__).with_name("{changed}.py")
        if source.stem == "handlers_here":
            source.write_text(source.read_text().replace("helper_of_handlers.ANSWER", "1 + 1"))
        else:
            source.write_text("ANSWER = 1 + 1\\n")
        pool.register(other)  # new workers
        print(ask(pool)[0][1])
    """
    assert _run(body, tmp_path) == ["1", "2"]


@_ON_LINUX
def test_other_processes_of_the_forkserver_are_as_before(tmp_path: Path) -> None:
    body = """
    import signal

    def is_interrupted():
        return signal.getsignal(signal.SIGINT) is signal.default_int_handler

    if __name__ == "__main__":
        with PoolProcessor(workers=1, mp_context="forkserver", preload=True) as pool:
            pool.register(handlers_here.answer)
            ask(pool)
            print(value_in_a_process(is_interrupted))
    """
    assert _run(body, tmp_path) == ["True"]


@_ON_LINUX
@pytest.mark.skipif(sys.version_info < (3, 15), reason="nothing can be chosen")
@pytest.mark.parametrize("on_error", ["warn", "fail"])
def test_an_application_chooses_what_an_import_that_fails_does(
    on_error: str, tmp_path: Path
) -> None:
    code = f"""
import multiprocessing
from evproc_pool import PoolBrokenError, PoolProcessor
from tests.support.actions import Do, act

multiprocessing.set_forkserver_preload(["there_is_none"], on_error={on_error!r})
with PoolProcessor(workers=1, mp_context="forkserver") as pool:
    pool.register(act)
    try:
        print(pool.process(Do("stop", 1)))
    except PoolBrokenError as error:
        print(error)
print(multiprocessing.forkserver._forkserver._preload_on_error)
"""
    with Script(code, tmp_path, python=["-W", "always:Failed to preload"]) as script:
        finished = script.finish()
    assert (finished.code, finished.left) == (0, [])
    assert "module 'there_is_none'" in finished.err or on_error == "fail"
    assert finished.err.count("Failed to preload") == (1 if on_error == "warn" else 0)
    said, kept = finished.out.splitlines()
    assert said == "1" if on_error == "warn" else "the forkserver has died" in said
    assert kept == on_error


@_ON_LINUX
def test_an_application_may_preload_what_preloads_itself(tmp_path: Path) -> None:
    body = """
    if __name__ == "__main__":
        multiprocessing.set_forkserver_preload(["evproc_pool.backends.local.forkserver_entry"])
        print(value_in_a_process(int))
    """
    assert _run(body, tmp_path) == ["0"]


class _Callable:
    def __call__(self, proc: Any, ev: Any) -> None: ...

    def method(self, proc: Any, ev: Any) -> None: ...


def test_the_modules_of_handlers() -> None:
    here = __name__
    by_hand = types.FunctionType(actions.nothing.__code__, {"__name__": "made_by_hand"})
    partial = functools.partial(functools.partial(actions.stop), 1)
    funcs = [actions.act, _Callable(), _Callable().method, partial, len, by_hand]
    assert preloading.modules_of(funcs) == [actions.__name__, here, "builtins"]
    in_main = types.FunctionType(actions.nothing.__code__, {"__name__": "__main__"})
    assert preloading.modules_of([in_main]) == []


def test_numpys_global_generator_is_seeded_in_each_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[tuple[Any, ...]] = []
    fake = types.ModuleType("numpy.random")
    monkeypatch.setattr(fake, "seed", lambda *args: calls.append(args), raising=False)
    monkeypatch.setitem(sys.modules, "numpy.random", fake)
    preloading._seed_numpy(os.getppid())
    assert calls == [()]
    preloading._seed_numpy(os.getpid())  # that of another process
    assert calls == [()]


def test_without_a_forkserver_nothing_is_imported() -> None:
    path = list(sys.path)
    preloading.run()
    assert sys.path == path


def test_a_module_that_is_no_module_does_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    class Lazy:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError(name)

    monkeypatch.setitem(sys.modules, "lazy_settings", Lazy())
    assert not preloading.Sources().have_changed


@_ON_LINUX
def test_a_module_that_ends_the_forkserver_is_reported(tmp_path: Path) -> None:
    text, _ = _run(_BREAKS, tmp_path, "os._exit(3)")
    assert "the forkserver has died" in text


@_ON_LINUX
@pytest.mark.parametrize("change", ['sys.path.append(Path("/nowhere"))', "sys.argv.append(5)"])
def test_what_is_no_text_keeps_nobody_from_starting(change: str, tmp_path: Path) -> None:
    body = f"""
    {change}
    with PoolProcessor(workers=1, mp_context="forkserver", preload=True) as pool:
        pool.register(handlers_here.answer)
        print(ask(pool)[0][1])
    """
    assert _run(body, tmp_path) == ["1"]


def test_by_value_is_imported_only_for_handlers_of_the_main_script(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def handler(proc: Any, ev: Any) -> None: ...

    assert preloading.own_modules([actions.act, handler]) == []
    monkeypatch.setattr(handler, "__module__", "__main__")
    assert preloading.own_modules([actions.act, handler]) == ["evproc_pool.serialization.by_value"]
    assert not any(
        map(preloading.may_change, ["evproc_pool.serialization.by_value", "numpy", "scipy.linalg"])
    )
    assert preloading.may_change("tests")
