"""Canaries for what the pool uses of other libraries' internals, and tests of the fallbacks.

A canary fails where a new version of Python or cloudpickle has given an internal another
meaning; `evproc_pool.internals` says what depends on it.
"""

from __future__ import annotations

import ast
import atexit
import collections
import concurrent.futures
import contextlib
import enum
import gc
import inspect
import io
import itertools
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from concurrent.futures import (
    BrokenExecutor,
    CancelledError,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
)
from concurrent.futures import _base as futures_base
from multiprocessing import connection, reduction, util
from multiprocessing import context as contexts
from multiprocessing import process as processes
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NamedTuple

import cloudpickle
import psutil
import pytest

from evproc_pool import PoolProcessor
from evproc_pool.backends.local import preloading, start_methods
from evproc_pool.internals import (
    cloudpickle_classes,
    cpython,
    stdlib_executors,
    stdlib_futures,
    stdlib_multiprocessing,
)
from evproc_pool.internals.stdlib_futures import PlainFuture, SharedLockFuture
from evproc_pool.serialization import by_value, code_snapshot, pickling, privacy
from evproc_pool.worker.loop import Worker
from tests.support import actions
from tests.support.actions import Do
from tests.support.helpers import PATIENCE_SECONDS, ROOT, STARTS_THREADS_AT_THE_END, run_script

_HAS_FORKSERVER = "forkserver" in multiprocessing.get_all_start_methods()
_WITH_FORKSERVER = pytest.mark.skipif(not _HAS_FORKSERVER, reason="there is no forkserver")
# `multiprocessing` keeps the memory of small values for ever, which is no leak of the pool
_MEMORY = multiprocessing.RawValue("i")
_WITH_FORK = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")


# --- nobody else does ---

#: Public, in spite of their names.
_PUBLIC = {"os._exit", "_asdict", "_replace", "_fields"}


def _names_made_by(tree: ast.AST) -> Iterator[str]:
    """The names that a source gives to attributes, functions, classes and variables."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.ClassDef() | ast.AsyncFunctionDef():
                yield node.name
            case ast.Attribute(value=ast.Name(id="self" | "cls"), ctx=ast.Store()):
                yield node.attr
            case ast.Name(ctx=ast.Store()):
                yield node.id


def _foreign_internals(tree: ast.AST, own: set[str]) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Attribute() if node.attr.startswith("_") and not node.attr.startswith("__"):
                if not {node.attr, ast.unparse(node)} & (own | _PUBLIC):
                    yield f"{node.lineno}: {ast.unparse(node)}"
            case ast.ImportFrom() if node.module and "._" in node.module:
                yield f"{node.lineno}: {node.module}"
            case ast.ImportFrom() if node.module in sys.stdlib_module_names:
                found = [each.name for each in node.names if each.name.startswith("_")]
                if found and not node.module.startswith("_"):
                    yield f"{node.lineno}: {node.module} {found}"


def test_no_other_module_uses_internals() -> None:
    paths = [*(ROOT / "evproc").rglob("*.py"), *(ROOT / "evproc_pool").rglob("*.py")]
    trees = {path: ast.parse(path.read_text("utf-8")) for path in paths}
    internals = ROOT / "evproc_pool" / "internals"
    others = {path: tree for path, tree in trees.items() if path.parent != internals}
    own = {name for tree in others.values() for name in _names_made_by(tree)}
    found = {str(path): list(_foreign_internals(tree, own)) for path, tree in others.items()}
    assert {path: each for path, each in found.items() if each} == {}


def test_the_search_finds_internals() -> None:
    source = """
import concurrent.futures._base
from concurrent.futures._base import FINISHED
from enum import _decompose
def here(self):
    self._mine = other._mine
    return sys._getframe(), self.process._popen, os._exit(1)
"""
    tree = ast.parse(source)
    found = list(_foreign_internals(tree, set(_names_made_by(tree))))
    assert sorted(each.partition(": ")[2] for each in found) == [
        "concurrent.futures._base",
        "enum ['_decompose']",
        "self.process._popen",
        "sys._getframe",
    ]


# --- CPython: the end of a process ---

_END = """
import atexit
import threading

from evproc_pool.internals import cpython

atexit.register(print, "forgotten")
cpython.forget_exit_functions()
atexit.register(print, "called")
begun = threading.Event()
thread = threading.Thread(target=lambda: (begun.wait(), print("thread")))
thread.start()
threading.Timer(0, begun.set).start()
cpython.run_exit_functions()
print("once")
cpython.run_exit_functions()
"""


def test_exit_functions_are_called_once_or_forgotten(tmp_path: Path) -> None:
    assert run_script(_END, tmp_path).split() == ["thread", "called", "once"]


def test_where_exit_functions_are_unknown_none_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_run_exitfuncs", "_clear"):
        monkeypatch.delattr(atexit, name)
    monkeypatch.delattr(threading, "_shutdown")
    cpython.run_exit_functions()
    cpython.forget_exit_functions()


# --- CPython: frames ---


def test_the_frames_of_a_thread_lead_to_its_functions() -> None:
    at, go_on = threading.Event(), threading.Event()

    def waiting(text: str) -> None:
        at.set()
        go_on.wait()

    thread = threading.Thread(target=waiting, args=("known",))
    thread.start()
    at.wait()
    here, there = cpython.frame_of(threading.get_ident()), cpython.frame_of(thread.ident or 0)
    while there is not None and there.f_code is not waiting.__code__:
        there = there.f_back
    go_on.set()
    thread.join()
    assert here is not None
    assert here.f_back is sys._getframe()
    assert there is not None
    assert there.f_locals["text"] == "known"


def test_without_the_frames_of_threads_none_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(sys, "_current_frames")
    assert cpython.frame_of(threading.get_ident()) is None


# --- CPython: reference counts ---


def test_reference_counts_show_who_has_an_object() -> None:
    item: object = []
    alone = cpython.getrefcount(item)
    also = item
    shared = cpython.getrefcount(item)
    assert (alone, shared, also) == (cpython.UNSHARED, cpython.UNSHARED + 1, [])
    held: object = []
    items: list[object] = [[], held]
    assert [cpython.getrefcount(each) - cpython.IN_CONTAINER for each in items] == [0, 1]
    assert [each - cpython.IN_TUPLE for each in cpython.counts_of(([], held))] == [0, 2]


class _Holder:
    def __init__(self, item: object) -> None:
        self.item = item


def test_an_attribute_that_somebody_else_has_is_counted() -> None:
    held: dict[str, int] = {}
    instances: list[object] = [_Holder({}), _Holder(held)]
    counts = [
        [cpython.getrefcount(each) for each in gc.get_referents(instance) if type(each) is dict]
        for instance in instances
    ]
    assert counts == [[cpython.OF_INSTANCE], [cpython.OF_INSTANCE + 1]]


def test_the_dictionary_of_an_instance_is_hidden_on_python_3_13() -> None:
    assert (sys.version_info[:2] == (3, 13)) == cpython.HIDES_DICT


@pytest.fixture(params=["no sys.getrefcount", "no interpreter lock"])
def without_counts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "no sys.getrefcount":
        monkeypatch.delattr(sys, "getrefcount")
    else:
        monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    getrefcount = cpython.choose_getrefcount()
    assert getrefcount is not cpython.getrefcount
    for module in (cpython, privacy):
        monkeypatch.setattr(module, "getrefcount", getrefcount)


@pytest.mark.usefixtures("without_counts")
def test_without_exact_counts_every_object_is_shared() -> None:
    record = _Holder([1])
    values: list[Any] = [[[]], {"a": []}, record, [record]]
    assert [privacy.is_private(value) for value in values] == [0] * 4
    assert privacy.is_private([1, (2, "three")]) == privacy.BUILT_IN  # it cannot change
    # as the worker's loop asks whether a handler has kept an event
    before = cpython.getrefcount(record)
    assert cpython.getrefcount(record) > before + 3
    number = 1
    function: Any = lambda: number  # noqa: E731
    assert code_snapshot.cells_that_change(function) == [*function.__closure__]


# --- CPython: object layout ---


class _Slotted:
    __slots__ = ("left", "right")


class _Table(dict[str, int]):
    """A dict with attributes."""


class _Buffer(io.BytesIO):
    """Has memory that Python does not see."""


class _Pair(NamedTuple):
    left: int


def test_a_class_shows_whether_it_has_memory_that_python_does_not_see() -> None:
    built_in = frozenset({object, tuple, list, dict, set, frozenset})
    known = (_Holder, _Slotted, _Table, _Pair)
    hidden = (_Buffer, io.BytesIO, collections.deque, type("Error", (Exception,), {}), CodeType)
    assert [cpython.has_python_layout(kind, built_in) for kind in known] == [True] * 4
    assert [cpython.has_python_layout(kind, built_in) for kind in hidden] == [False] * 5


def test_without_a_known_layout_no_instance_may_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpython, "_HEAP_TYPE", 0)
    assert not cpython.has_python_layout(_Holder, frozenset({object}))
    monkeypatch.delattr(cpython, "_HEAP_TYPE")
    monkeypatch.setattr(privacy, "_kinds", privacy._Kinds())
    assert not privacy.is_private(_Holder(1))


def test_named_tuples_share_the_code_of_their_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    other = collections.namedtuple("other", "a b")  # noqa: PYI024 - as others do
    kinds: list[Any] = [_Pair, other]
    for kind in kinds:
        assert cpython.is_of_named_tuple(kind.__getnewargs__)
    assert not cpython.is_of_named_tuple(lambda self: ())
    monkeypatch.setattr(cpython, "_NEW_ARGUMENTS", None)
    assert not cpython.is_of_named_tuple(kinds[0].__getnewargs__)
    assert not cpython.is_of_named_tuple(object())


# --- CPython: instructions ---


def _where(seen: list[int], frame: FrameType | None) -> None:
    assert frame is not None
    assert frame.f_back is not None
    seen.append(frame.f_back.f_lasti)


def _look(seen: list[int], *_: object, **__: object) -> None:
    _where(seen, inspect.currentframe())


_LOOKS = types.SimpleNamespace(look=_look)


def _calls_in_every_way(seen: list[int], rest: tuple[Any, ...]) -> None:
    _look(seen)
    len("another call")
    _look(seen, 1, key=2)
    _look(seen, *rest)
    try:
        _look(seen)
    finally:
        seen.append(-1)


def _calls_a_method(seen: list[int], rest: tuple[Any, ...]) -> None:
    _LOOKS.look(seen)
    len("look")
    _LOOKS.look(seen, *rest)


@pytest.mark.parametrize(
    ("function", "name", "calls"), [(_calls_in_every_way, "_look", 4), (_calls_a_method, "look", 2)]
)
def test_the_instruction_of_a_frame_shows_which_call_is_running(
    function: Any, name: str, calls: int
) -> None:
    stripped = types.FunctionType(function.__code__.replace(co_linetable=b""), function.__globals__)
    for each in (function, stripped):
        seen: list[int] = []
        each(seen, (1, 2))
        spans = cpython.call_spans(each.__code__, name)
        assert len(spans) == calls
        offsets = [offset for offset in seen if offset >= 0]
        assert [offset in span for offset, span in zip(offsets, spans, strict=True)] == [
            True
        ] * calls
        # not one call's for another, nor that of `len`
        assert len(set(itertools.chain(*spans))) == sum(map(len, spans))
        assert cpython.call_spans(each.__code__, "absent") == ()


def test_the_workers_loop_has_the_calls_that_the_soft_timeout_searches() -> None:
    loop = Worker._run.__code__
    assert len(cpython.call_spans(loop, "func")) == 1
    assert len(cpython.call_spans(loop, "collect_follow_ups")) == 1


# --- pickle ---


@pytest.mark.parametrize("size", [(1 << 16) + 1, 1 << 20])
@pytest.mark.parametrize("make", [bytes, bytearray, lambda size: "x" * size])
def test_pickle_writes_large_contents_by_themselves(make: Callable[[int], Any], size: int) -> None:
    chunks: list[bytes] = []
    file: Any = types.SimpleNamespace(write=lambda chunk: chunks.append(bytes(chunk)))
    pickle.Pickler(file, 5).dump(["before", make(size), "behind"])
    place = [len(chunk) for chunk in chunks].index(size)
    assert size > cpython.LARGE_CONTENT
    assert chunks[place - 1].endswith(cpython.announcements(size))


def test_contents_that_are_not_recognized_are_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    value = {"text": "x" * (1 << 17), "bytes": b"__main__" * (1 << 14)}
    plain = pickling.dumps(value)
    monkeypatch.setattr(pickling, "announcements", lambda size_bytes: (b"nothing of the kind",))
    searched = pickling.dumps(value)
    assert pickling.loads(plain) == pickling.loads(searched) == value


# --- concurrent.futures ---


def test_a_condition_is_taken_without_a_call_of_python_code() -> None:
    """An interrupt in such a call would leave its lock taken for ever."""
    assert hasattr(threading.Condition(), "_lock")
    called: list[str] = []

    def note(frame: types.FrameType, event: str, arg: object) -> None:
        if event == "call":
            called.append(frame.f_code.co_qualname)

    condition = stdlib_futures.Condition()
    sys.setprofile(note)
    with condition:
        pass
    sys.setprofile(None)
    assert called == []
    with condition:
        assert not condition.wait(0)  # as ever


def test_futures_of_this_python_are_known() -> None:
    assert stdlib_futures.IS_KNOWN
    assert issubclass(SharedLockFuture, Future)
    future: Future[int] = Future()
    states = [future._state]
    future.set_running_or_notify_cancel()
    states.append(future._state)
    future.set_result(1)
    states.append(future._state)
    cancelled: Future[int] = Future()
    cancelled.cancel()
    states.append(cancelled._state)
    cancelled.set_running_or_notify_cancel()
    states.append(cancelled._state)
    assert states == ["PENDING", "RUNNING", "FINISHED", "CANCELLED", "CANCELLED_AND_NOTIFIED"]
    assert (future._result, future._exception) == (1, None)


def test_wait_reads_states_and_appends_its_waiters_under_the_conditions() -> None:
    future = SharedLockFuture(threading.RLock())
    others: list[Future[Any]] = [future]
    assert concurrent.futures.wait(others, timeout=0).not_done == {future}
    assert isinstance(future._waiters, list)
    with contextlib.suppress(TimeoutError):
        next(concurrent.futures.as_completed(others, timeout=0))
    future.finish(1, None)
    assert concurrent.futures.wait(others, timeout=0).done == {future}


def test_futures_with_other_attributes_or_states_are_not_known() -> None:
    class Renamed(Future[Any]):
        def __init__(self) -> None:
            super().__init__()
            self.__dict__["_outcome"] = self.__dict__.pop("_result")

    class Silent(Future[Any]):
        _invoke_callbacks = None

    states = {name: name for name in stdlib_futures._STATES}
    assert stdlib_futures.is_known(Future, types.SimpleNamespace(**states))
    assert stdlib_futures.is_known(Future, futures_base)
    for kind in (Renamed, Silent):
        assert not stdlib_futures.is_known(kind, futures_base)
    for changed in ({**states, "RUNNING": 2}, {"RUNNING": "RUNNING"}):
        assert not stdlib_futures.is_known(Future, types.SimpleNamespace(**changed))


def test_a_plain_future_needs_nothing_but_public_methods() -> None:
    source = ast.parse(inspect.getsource(PlainFuture))
    own = {"_lock", "_has_begun", "_guarded"}
    used = {node.attr for node in ast.walk(source) if isinstance(node, ast.Attribute)}
    assert {name for name in used if name.startswith("_")} - own == {"__new__", "__init__"}
    future = PlainFuture(threading.RLock())
    assert future.cancel()
    assert not future.begin()
    with pytest.raises(CancelledError):
        future.exception()


def test_executors_say_how_many_workers_they_have() -> None:
    with ThreadPoolExecutor(3) as threads, ProcessPoolExecutor(2) as processes:
        assert list(map(stdlib_executors.workers_of, (threads, processes))) == [3, 2]
    assert stdlib_executors.workers_of(object()) is None
    assert stdlib_executors.workers_of(types.SimpleNamespace(_max_workers="many")) is None


def test_the_processes_of_an_executor_are_killed() -> None:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as executor:
        future = executor.submit(time.sleep, 600)
        assert stdlib_executors.kill_processes(executor)
        assert isinstance(future.exception(), BrokenExecutor)
    with ThreadPoolExecutor(1) as threads:
        assert not stdlib_executors.kill_processes(threads)


@pytest.mark.skipif(not STARTS_THREADS_AT_THE_END, reason="a fault of CPython, see there")
def test_a_function_is_called_before_executors_end(tmp_path: Path) -> None:
    code = """
from concurrent.futures import ThreadPoolExecutor
from evproc_pool.internals.stdlib_executors import call_before_executors_end
executor = ThreadPoolExecutor(1)
call_before_executors_end(lambda: print(executor.submit(int, 5).result(), flush=True))
"""
    assert run_script(code, tmp_path) == "5\n"


def test_without_such_a_place_nothing_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(threading, "_register_atexit")
    stdlib_executors.call_before_executors_end.__wrapped__(pytest.fail)


# --- multiprocessing: the forkserver ---


@_WITH_FORKSERVER
def test_the_forkserver_says_which_process_it_is_and_what_it_imports() -> None:
    context = multiprocessing.get_context("forkserver")
    process = context.Process(target=int)
    process.start()
    process.join()
    pid = stdlib_multiprocessing.forkserver_pid()
    assert psutil.Process(pid).ppid() == os.getpid()
    before = stdlib_multiprocessing.preloaded_modules()
    assert before is not None
    try:
        context.set_forkserver_preload(["sys", "os"])
        assert stdlib_multiprocessing.preloaded_modules() == ["sys", "os"]
        options = {"on_error": "ignore"} if sys.version_info >= (3, 15) else {}
        assert stdlib_multiprocessing.preloading_options() == options
    finally:
        context.set_forkserver_preload(before)


@_WITH_FORKSERVER
def test_without_a_known_forkserver_workers_start_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stdlib_multiprocessing, "_server", lambda: None)
    assert stdlib_multiprocessing.forkserver_pid() is None
    assert stdlib_multiprocessing.preloaded_modules() is None
    context = multiprocessing.get_context("forkserver")
    assert not start_methods.has_started(context)
    with PoolProcessor(1, mp_context="forkserver") as pool:
        pool.register(actions.act)
        assert pool.process(Do("stop", 3)) == 3


@_WITH_FORKSERVER
def test_a_forkserver_has_its_arguments_in_its_frame() -> None:
    from multiprocessing import forkserver

    names = set(forkserver.main.__code__.co_varnames)
    assert {"preload", "sys_path", "alive_r"} <= names
    arguments = inspect.signature(forkserver.main).parameters
    assert {"preload", "sys_path", "alive_r"} <= set(arguments)


def _called_by(code: str) -> Any:
    """The answer of `forkserver_imports` to functions of a module of that name."""
    space: dict[str, Any] = {
        "__name__": "multiprocessing.forkserver",
        "ask": stdlib_multiprocessing.forkserver_imports,
    }
    exec(code, space)
    return space["main"](["a", "b"], 7, sys_path=["path"])


@pytest.mark.parametrize(
    "code",
    [
        "def main(preload, alive_r, sys_path=None): return ask()",
        # as in later versions
        (
            "def main(preload, alive_r, sys_path=None): return inner(preload, sys_path)\n"
            "def inner(preload, sys_path): return ask()"
        ),
    ],
)
def test_the_arguments_of_a_forkserver_are_found(
    code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = _called_by(code)
    assert found == (["a", "b"], ["path"], 7, "multiprocessing.forkserver")
    monkeypatch.delattr(sys, "_getframe")
    assert _called_by(code) is None


def test_where_no_forkserver_is_found_nothing_is_imported() -> None:
    assert stdlib_multiprocessing.forkserver_imports() is None
    assert _called_by("def main(modules, alive_r, sys_path=None): return ask()") is None
    before = list(sys.path)
    preloading.run()
    assert sys.path == before


def test_modules_see_that_a_forkserver_is_a_child(monkeypatch: pytest.MonkeyPatch) -> None:
    reads, writes = os.pipe()
    name = multiprocessing.current_process().name
    with stdlib_multiprocessing.as_child(reads):
        parent = multiprocessing.parent_process()
        assert parent is not None
        assert (parent.name, parent.pid, parent.is_alive()) == (name, os.getppid(), True)
        assert multiprocessing.current_process().name == "forkserver"
    assert multiprocessing.parent_process() is None
    assert multiprocessing.current_process().name == name
    monkeypatch.delattr(processes, "_ParentProcess")
    with stdlib_multiprocessing.as_child(reads):
        assert multiprocessing.parent_process() is None
        assert multiprocessing.current_process().name == "forkserver"
    assert multiprocessing.current_process().name == name
    os.close(reads)
    os.close(writes)


# --- multiprocessing: processes ---


@contextlib.contextmanager
def _dead_process() -> Iterator[processes.BaseProcess]:
    """A process that somebody else has waited for."""
    process = multiprocessing.get_context("fork").Process(target=int)
    process.start()
    assert process.pid is not None
    os.waitpid(process.pid, 0)
    assert process.exitcode is None
    try:
        yield process
    finally:
        stdlib_multiprocessing.forget_child(process)


_FORKS = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@_WITH_FORK
@_FORKS
def test_a_process_is_a_child_until_it_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    with _dead_process() as process:
        assert process in multiprocessing.active_children()
        stdlib_multiprocessing.forget_child(process)
        assert process not in multiprocessing.active_children()
        stdlib_multiprocessing.release(process, 255)
    with _dead_process() as process, monkeypatch.context() as patch:
        stdlib_multiprocessing.release(process, 255)
        patch.delattr(processes, "_children")
        stdlib_multiprocessing.forget_child(process)  # and nothing else


@_WITH_FORK
@_FORKS
def test_a_process_that_somebody_else_has_waited_for_is_released() -> None:
    with _dead_process() as process:
        sentinel = process.sentinel
        stdlib_multiprocessing.release(process, 255)
        assert process.exitcode == 255
        assert process not in multiprocessing.active_children()
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(sentinel)
        stdlib_multiprocessing.release(process, 255)
    unstarted = multiprocessing.get_context("spawn").Process(target=int)
    stdlib_multiprocessing.release(unstarted, 255)


def test_the_descriptors_of_a_child_are_known() -> None:
    process = multiprocessing.get_context("spawn").Process(target=int)
    assert stdlib_multiprocessing.descriptors_of(process) == []
    process.start()
    process.join()
    found = stdlib_multiprocessing.descriptors_of(process)
    assert process.sentinel in found
    assert [os.fstat(fd).st_size for fd in found] == [0, 0]  # pipes
    process.close()
    for fd in found:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


@pytest.mark.skipif(sys.platform == "win32", reason="other handles")
@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_a_child_can_see_its_parent_as_dead(method: str) -> None:
    context: Any = multiprocessing.get_context(method)
    process = context.Process(target=_wait_for_parent)
    assert not stdlib_multiprocessing.seem_dead(process)
    process.start()
    found = stdlib_multiprocessing.descriptors_of(process)
    assert stdlib_multiprocessing.seem_dead(process)
    process.join()
    assert process.exitcode == 0
    assert stdlib_multiprocessing.descriptors_of(process) == found, "each is closed once, later"
    for fd in found:
        os.fstat(fd)
    process.close()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()


def test_a_process_that_starts_is_given_a_working_folder_even_if_it_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from multiprocessing import spawn

    def gone() -> str:
        raise FileNotFoundError

    monkeypatch.setattr(spawn, "os", os)
    monkeypatch.setattr(util, "_args_from_interpreter_flags", list)
    stdlib_multiprocessing.allow_missing_folder()
    assert spawn.get_preparation_data("name")["dir"] == str(Path.cwd())
    assert "-P" not in spawn.get_command_line(pipe_handle=3)
    monkeypatch.setattr(os, "getcwd", gone)
    assert spawn.get_preparation_data("name")["dir"] == "."
    assert spawn.get_command_line(pipe_handle=3)[1] == "-P"
    monkeypatch.delattr(spawn, "os")
    stdlib_multiprocessing.allow_missing_folder()  # nothing is changed
    assert not hasattr(spawn, "os")


def test_a_process_of_another_kind_is_closed_if_it_can_be() -> None:
    calls: list[str] = []

    class Other:
        def close(self) -> None:
            calls.append("closed")
            raise ValueError("it is taken for alive")

    other: Any = Other()
    stdlib_multiprocessing.release(other, 255)
    assert calls == ["closed"]


@_WITH_FORKSERVER
@pytest.mark.parametrize("code", [3, 255, -9])
def test_the_exit_code_of_a_child_of_a_forkserver_is_read(code: int) -> None:
    context = multiprocessing.get_context("forkserver")
    end, argument = (os._exit, code) if code >= 0 else (_kill_itself, -code)
    process = context.Process(target=end, args=(argument,))
    with start_methods.prepared(context):
        process.start()
    assert connection.wait([process.sentinel], PATIENCE_SECONDS)  # the forkserver has written it
    assert process._popen.returncode is None  # type: ignore[attr-defined]  # nobody has asked
    assert stdlib_multiprocessing.exit_code(process) == code
    assert stdlib_multiprocessing.exit_code(process) == code
    process.close()


def _kill_itself(number: int) -> None:
    os.kill(os.getpid(), number)


def test_the_exit_code_of_another_kind_of_process_is_its_own() -> None:
    other: Any = types.SimpleNamespace(exitcode=5)
    assert stdlib_multiprocessing.exit_code(other) == 5


@_WITH_FORK
@_FORKS
def test_all_children_are_forgotten() -> None:
    with _dead_process() as one, _dead_process() as other:
        stdlib_multiprocessing.forget_children()
        assert not {one, other} & set(multiprocessing.active_children())
        stdlib_multiprocessing.release(one, 255)
        stdlib_multiprocessing.release(other, 255)


# --- multiprocessing: the main script ---


def test_a_new_process_reruns_the_main_script_by_two_functions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from multiprocessing import spawn

    calls: list[object] = []
    for name in ("_fixup_main_from_name", "_fixup_main_from_path"):
        monkeypatch.setattr(spawn, name, calls.append)
    for key in ("init_main_from_name", "init_main_from_path"):
        spawn.prepare({key: key})
    assert calls == ["init_main_from_name", "init_main_from_path"]


def test_a_main_module_without_a_spec_is_completed(monkeypatch: pytest.MonkeyPatch) -> None:
    from multiprocessing import spawn

    monkeypatch.setitem(sys.modules, "__main__", types.ModuleType("__main__"))
    del vars(sys.modules["__main__"])["__spec__"]
    with pytest.raises(AttributeError, match="__spec__"):
        spawn.get_preparation_data("a process")
    stdlib_multiprocessing.complete_main()
    assert spawn.get_preparation_data("a process")["name"] == "a process"
    monkeypatch.delitem(sys.modules, "__main__")
    stdlib_multiprocessing.complete_main()
    assert spawn.get_preparation_data("a process")["name"] == "a process"


def test_what_only_a_starting_process_can_take_over_is_known() -> None:
    context = multiprocessing.get_context("spawn")
    connections = context.Pipe()
    shared = [
        *(context.Lock(), context.Condition(), context.Event(), context.Barrier(2)),
        *(
            context.Value("i"),
            context.Array("i", 2),
            context.RawValue("i"),
            context.RawArray("i", 2),
        ),
        *(context.SimpleQueue(), context.Queue(), *connections),
    ]
    assert all(map(stdlib_multiprocessing.is_shared, shared))
    others = [threading.Lock(), io.BytesIO(), 5, type(shared[0]), context, types.SimpleNamespace()]
    assert not any(map(stdlib_multiprocessing.is_shared, others))
    for each in connections:
        each.close()


def test_a_name_is_text_but_for_a_process_that_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    name = stdlib_multiprocessing.ProcessName("worker")
    elsewhere = pickle.dumps(name)
    starting: Any = object()
    contexts.set_spawning_popen(starting)
    try:
        assert b"_fixup_main_from_path" in pickle.dumps(name)
        monkeypatch.delattr(contexts, "get_spawning_popen")
        assert pickle.dumps(name) == elsewhere  # the script is run again
    finally:
        contexts.set_spawning_popen(None)
    assert pickle.loads(elsewhere) == "worker"


@pytest.mark.skipif(not _HAS_FORKSERVER, reason="no forkserver")
def test_a_forkserver_that_starts_holds_ctrl_c_back(monkeypatch: pytest.MonkeyPatch) -> None:
    from multiprocessing import forkserver

    started: list[list[Any]] = []
    blocked: list[bool] = []

    class Util(types.ModuleType):
        @staticmethod
        def spawnv_passfds(path: str, words: list[Any], passed: list[int]) -> int:
            blocked.append(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))
            started.append([path, words, passed])
            return 7

    monkeypatch.setattr(forkserver, "util", Util("util"))
    for _ in range(2):
        stdlib_multiprocessing.shield_forkserver()
    inner: Any = forkserver
    assert inner.util.spawnv_passfds("python", ["python", "-c", "main()"], [3]) == 7
    (words,) = [words for _, words, _ in started]
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    code = f"""
import os, signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
def main():
    os.kill(os.getpid(), signal.SIGINT)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    for _ in range(2):
        print(signal.set_wakeup_fd(-1), signal.pthread_sigmask(signal.SIG_BLOCK, []))
    print(before is signal.default_int_handler)
{words[-1]}
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "-1 set()\n-1 set()\nTrue\n"
    # where Ctrl-C is held back already, and where it is another program
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        inner.util.spawnv_passfds("python", ["python", "-c", "main()"], [])
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    inner.util.spawnv_passfds("program", ["program", "main()"], [])
    assert [words[-1] for _, words, _ in started[1:]] == ["main()", "main()"]
    # a program of one word, and what it is called with, as Python 3.15 hands them on
    inner.util.spawnv_passfds("python", ["python", "-I", "-c", "main()", "-c", "own"], [])
    words = started[-1][1]
    assert (words[:3], words[4:]) == (["python", "-I", "-c"], ["-c", "own"])
    assert words[3].endswith("]\nmain()")
    assert blocked == [True, True, False, True]
    monkeypatch.delattr(forkserver, "util")
    stdlib_multiprocessing.shield_forkserver()  # nothing is changed
    assert not hasattr(forkserver, "util")


def test_what_has_a_public_name_is_as_it_was() -> None:
    assert {"obj", "callback", "exitpriority"} <= set(inspect.signature(util.Finalize).parameters)
    if _HAS_FORKSERVER:
        from multiprocessing import forkserver

        assert not inspect.signature(forkserver.ensure_running).parameters
    popen: Any = types.SimpleNamespace(
        duplicate_for_child=lambda fd: fd, DupFd=lambda fd: ("duplicate", fd)
    )
    contexts.set_spawning_popen(popen)
    try:
        assert reduction.DupFd(7) == ("duplicate", 7)  # type: ignore[comparison-overlap]
    finally:
        contexts.set_spawning_popen(None)


# --- cloudpickle ---


def _colours() -> Any:
    class Colour(enum.Enum):
        RED = (1, "r")
        ROUGE = (1, "r")  # noqa: PIE796 - an alias

        def __init__(self, number: int, letter: str) -> None:
            self.letter = letter

    return Colour


def _reduced(kind: type) -> Any:
    return cloudpickle.Pickler(io.BytesIO()).reducer_override(kind)


def test_cloudpickle_makes_and_fills_classes_as_expected() -> None:
    class Local:
        number = 1

    assert cloudpickle_classes.IS_KNOWN
    make, args, state, _, _, fill = _reduced(Local)
    assert cloudpickle_classes.makes_class(make.__name__)
    assert cloudpickle_classes.fills_class(fill.__name__)
    assert cloudpickle_classes.find_class(args) is Local
    assert cloudpickle_classes.find_class((*args[:-2], "another number", None)) is None
    made = make(*args[:-2], "another number", None)
    assert cloudpickle_classes.find_class((*args[:-2], "another number", None)) is made
    fill(made, state)
    assert vars(made)["number"] == 1


def test_cloudpickle_reduces_enumerations_as_expected() -> None:
    colours = _colours()
    reduced = _reduced(colours)
    other = _reduced(_Local)
    assert cloudpickle_classes.with_members(_Local, other) is other
    make, args, state, _, _, fill = cloudpickle_classes.with_members(colours, reduced)
    assert cloudpickle_classes.makes_class(make.__name__)
    assert cloudpickle_classes.fills_class(fill.__name__)
    copy = fill(make(*args[:-2], "its own number", None), state)
    assert list(copy.__members__) == ["RED", "ROUGE"]
    assert (copy.RED.letter, copy.RED.value) == ("r", (1, "r"))


class _Local:
    """Goes by reference, but not where this module goes by value."""


def test_cloudpickle_reduces_code_by_its_table() -> None:
    table = cloudpickle.Pickler(io.BytesIO()).dispatch_table
    code = compile("1 + 1", "a file", "eval")
    reduced = cloudpickle_classes.reduce_code(table, code)
    assert reduced is not None
    make, args = reduced
    assert eval(make(*args)) == 2


def test_with_another_cloudpickle_its_own_behaviour_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("_class_setstate", "_make_skeleton_class", "_DYNAMIC_CLASS_TRACKER_BY_ID"):
        other = types.SimpleNamespace(**vars(cloudpickle.cloudpickle))
        delattr(other, name)
        assert not cloudpickle_classes.is_known(other)
    for reduced in ("_make_skeleton_enum", (enum, ()), _reduced(_colours())[:5], ()):
        assert cloudpickle_classes.with_members(enum.Enum, reduced) is reduced
    code = compile("1", "a file", "eval")
    assert cloudpickle_classes.reduce_code({}, code) is None
    assert cloudpickle_classes.reduce_code({CodeType: lambda _: "a name"}, code) is None

    monkeypatch.setattr(cloudpickle_classes, "IS_KNOWN", False)
    monkeypatch.setattr(cloudpickle_classes, "with_members", lambda kind, reduced: reduced)
    monkeypatch.setattr(cloudpickle_classes, "reduce_code", lambda table, code: None)
    filled = by_value.Filled.count

    class Colour(enum.Enum):
        RED = 1

    red, function = pickling.loads(pickling.dumps([Colour.RED, lambda: 7]))
    assert (red.name, function()) == ("RED", 7)
    assert by_value.Filled.count > filled


# --- all of a pool ---

_WITHOUT = {
    "reference counts": "import sys; del sys.getrefcount",
    "known futures": "from evproc_pool.internals import stdlib_futures as them",
    "known cloudpickle": "from evproc_pool.internals import cloudpickle_classes as them",
    "a known forkserver": "from evproc_pool.internals import stdlib_multiprocessing as them",
}

_SCRIPT = """
import enum
them = None
{change}
if hasattr(them, "IS_KNOWN"):
    them.IS_KNOWN = False
elif them is not None:
    them._server = lambda: None
from evproc import Event, StopProcessing, want
from evproc_pool import PoolProcessor
from evproc_pool.coordinator.pool_future import Promise

class Colour(enum.Enum):
    RED = 1

class Ev(Event):
    name = "ev"

    def __init__(self, number, left):
        self.number, self.left = number, left

kept = []

@want("ev")
def handle(proc, ev):
    if ev.left:
        return [Ev(ev.number, ev.left - 1)]
    value = [ev.number, [Colour.RED], {{"a": [ev.number]}}]
    kept.append(value)  # and changes it behind the next event
    for each in kept[:-1]:
        each[0] = "changed"
    raise StopProcessing(value)

expected = [[number, [Colour.RED], {{"a": [number]}}] for number in range(100)]
with PoolProcessor(2, mp_context={method!r}) as pool:
    pool.register(handle)
    assert pool.process_many([Ev(number, 1) for number in range(100)]) == expected
    futures = [pool.submit(Ev(number, 2)) for number in range(100)]
    assert [future.result() for future in futures] == expected
    assert pool.submit(Ev(1, 0)).result(timeout=60) == expected[1]
print(Promise.__name__)
"""


@_WITH_FORK
@pytest.mark.parametrize("what", _WITHOUT)
def test_a_pool_works_without(what: str, tmp_path: Path) -> None:
    method = "forkserver" if what == "a known forkserver" and _HAS_FORKSERVER else "fork"
    script = _SCRIPT.format(change=_WITHOUT[what], method=method)
    name = "PlainFuture" if what == "known futures" else "SharedLockFuture"
    assert run_script(script, tmp_path, python=("-W", "ignore")) == f"{name}\n"
