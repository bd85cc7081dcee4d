"""What starting and ending of workers uses of `multiprocessing`.

Checked with CPython 3.11, 3.13, 3.15. A free-threaded build breaks nothing: `start_methods` holds
a lock, and what else is read or changed belongs to one thread, or takes one atomic call.

- ``forkserver._forkserver`` and its ``_forkserver_pid``: whether a forkserver runs, and which
  process it is. Fallback: unknown (None). A process made by ``os.fork`` may then ask its parent's
  forkserver, which fails with an error.
- Its ``_preload_modules``: the modules that a forkserver is to import, so that the application's
  choice stays. Fallback: unknown (None); workers start by `spawn`, since a forkserver might run the
  main script. And from Python 3.15 on ``_preload_on_error``. Fallback: it becomes ``"ignore"``.
- The locals ``preload``, ``sys_path`` and ``alive_r`` in the forkserver's frames, which it hands to
  nobody. Fallback: not found (None); likewise.
- ``process._parent_process``, ``_ParentProcess``: modules that the forkserver imports see that this
  is a child. Fallback: they take it for the main process.
- ``process._children``: at exit `multiprocessing` joins its children; workers are removed.
  Fallback: it joins them, which ends once they have ended; in a process made by ``os.fork`` it
  raises at exit.
- ``Process._popen``, its ``returncode`` and ``close`` release a dead worker whose exit status
  somebody else has taken. Fallback: `Process.close`; if that refuses, descriptors stay open until
  the process object is collected.
- A forkserver's child has its exit code written into the pipe ``sentinel``, in eight bytes.
  Fallback: `Process.exitcode`, which is 255 if the forkserver is dead.
- Its ``finalizer``: the descriptors that the parent holds of a child. A forked worker closes those
  of other workers. Fallback: it keeps them; if the coordinator dies, workers end one by one. And
  one of them is closed to kill a worker that may not be signalled. Fallback: an error.
- ``spawn.os.getcwd`` raises in a deleted working directory, where no process could be started; and
  there Python 3.13.0 imports no `socket`, unless ``util._args_from_interpreter_flags`` has ``-P``.
  Fallback: no process is started.
- ``forkserver.util.spawnv_passfds`` starts a forkserver with a line of code, and that calls
  ``signal.set_wakeup_fd`` once it ignores Ctrl-C: until then the signal is blocked in it. Fallback:
  Ctrl-C ends a forkserver that is starting, with a traceback, and it is started again.
- A start of the resource tracker unblocks signals that this thread has blocked, so it is started
  before. Fallback: a signal to the process group may end a worker that is starting.
- ``get_spawning_popen``: whether a name is pickled for a new process. Fallback: it never is; as for
  the next one.
- The modules of queues, locks, connections and values, and the ``_wrapper`` of values without a
  lock: only the arguments of a process may have them. Fallback: they cannot be pickled, or are
  copies.
- ``spawn.get_preparation_data`` reads ``__main__.__spec__``, which debuggers leave out. Fallback:
  an error names it.
- ``spawn._fixup_main_from_name`` and ``path``: in a new process these run the main script again,
  and are replaced. Fallback: it is run again; a script then needs a ``__main__`` guard.
"""

from __future__ import annotations

import contextlib
import multiprocessing.context
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from multiprocessing import process
from multiprocessing.process import BaseProcess
from types import FrameType, ModuleType
from typing import Any, Final, NamedTuple

_FORKSERVER: Final = "multiprocessing.forkserver"

# How often to look whether a forkserver is dead.
_POLL_SECONDS: Final = 0.001

# How many bytes a forkserver writes for an exit code.
_EXIT_CODE_BYTES: Final = 8

# --- the forkserver of this process ---


def _server() -> Any:
    return getattr(sys.modules.get(_FORKSERVER), "_forkserver", None)


def forkserver_pid() -> int | None:
    """The forkserver that this process has started or was forked with; None: none is known."""
    pid: int | None = getattr(_server(), "_forkserver_pid", None)
    return pid


def preloaded_modules() -> list[str] | None:
    """The modules that a forkserver is to import when it begins; None: nobody can say."""
    from multiprocessing import forkserver  # noqa: F401 - there is none on Windows

    modules: list[str] | None = getattr(_server(), "_preload_modules", None)
    return modules


def await_end_of_forkserver(most_seconds: float) -> None:
    """Wait until a forkserver that has closed its connections is dead, or so long.

    Until then `multiprocessing` takes it for alive. It is not reaped here.
    """
    pid, end = forkserver_pid(), time.monotonic() + most_seconds
    if pid is None or not hasattr(os, "waitid"):
        return
    options = os.WEXITED | os.WNOWAIT | os.WNOHANG
    with contextlib.suppress(ChildProcessError):
        while os.waitid(os.P_PID, pid, options) is None and time.monotonic() < end:
            time.sleep(_POLL_SECONDS)


def preloading_options() -> dict[str, Any]:
    """What else the application has given to `set_forkserver_preload`, by name."""
    on_error = getattr(_server(), "_preload_on_error", None)
    return {} if on_error is None else {"on_error": on_error}


# --- within a forkserver ---


class ForkserverImports(NamedTuple):
    """The arguments of a forkserver that is importing, and the module that forks.

    It imports what the list `preload` itself holds then, changes included. `sys_path` is that of
    the process that has started it, if it gave one. `alive` is a descriptor that becomes readable
    when that process has ended.
    """

    preload: list[str]
    sys_path: list[str] | None = None
    alive: int | None = None
    module: str = _FORKSERVER


def forkserver_imports() -> ForkserverImports | None:
    """The arguments of the forkserver that is importing the caller, if one is."""
    if not hasattr(sys, "_getframe"):
        return None
    found: dict[str, Any] = {}
    frame: FrameType | None = sys._getframe()  # noqa: SLF001 - it passes its list to nobody
    while frame is not None:
        if frame.f_globals.get("__name__") == _FORKSERVER:
            # the innermost first; a later Python may divide them between two functions
            found = {**frame.f_locals, **found}
        frame = frame.f_back
    if not isinstance(found.get("preload"), list):
        return None
    return ForkserverImports(found["preload"], found.get("sys_path"), found.get("alive_r"))


@contextlib.contextmanager
def as_child(alive: int | None) -> Iterator[None]:
    """In a forkserver, let modules see for a while that this is not the main process."""
    inner: Any = process
    me, name = process.current_process(), process.current_process().name
    is_known = hasattr(inner, "_parent_process") and hasattr(inner, "_ParentProcess")
    try:
        me.name = "forkserver"
        if alive is not None and is_known:
            inner._parent_process = inner._ParentProcess(name, os.getppid(), alive)  # noqa: SLF001
        yield
    finally:
        me.name = name
        if is_known:
            inner._parent_process = None  # noqa: SLF001


# --- processes that were started ---


def forget_child(child: BaseProcess) -> None:
    """Let `multiprocessing` forget a process: it would join it at exit. Idempotent."""
    getattr(process, "_children", set()).discard(child)


def forget_children() -> None:
    """Let `multiprocessing` forget all children, in a forked process: they are its parent's."""
    for child in list(getattr(process, "_children", ())):
        forget_child(child)


def exit_code(dead: BaseProcess) -> int | None:
    """The exit code of a dead process; None: nobody knows it."""
    popen: Any = getattr(dead, "_popen", None)
    if getattr(popen, "method", None) == "forkserver" and popen.returncode is None:
        # the forkserver writes it there; if it is dead, `multiprocessing` makes one up
        code = os.read(popen.sentinel, _EXIT_CODE_BYTES)
        if len(code) < _EXIT_CODE_BYTES:
            return None
        popen.returncode = int.from_bytes(code, sys.byteorder, signed=True)
    return dead.exitcode


def release(dead: BaseProcess, exit_code: int) -> None:
    """Close what `multiprocessing` holds of a dead process, and forget it. Idempotent.

    The application may have waited for the process, or ignore SIGCHLD. Then `multiprocessing`
    cannot, and would take it for alive for ever; `exit_code` stands for the unknown one.
    """
    if not hasattr(dead, "_popen"):
        with contextlib.suppress(ValueError):  # it is taken for alive
            dead.close()
        return
    popen: Any = dead._popen  # noqa: SLF001 - no public way
    if popen is None:
        return
    if popen.returncode is None:
        popen.returncode = exit_code
    # Not `dead.close`: this may be a garbage collection that strikes while `multiprocessing` goes
    # through its children, and trips over a closed one.
    popen.close()
    forget_child(dead)


def descriptors_of(child: BaseProcess) -> list[int]:
    """The descriptors that `multiprocessing` holds in this process of a child."""
    finalizer = getattr(getattr(child, "_popen", None), "finalizer", None)
    return [each for each in getattr(finalizer, "_args", ()) if isinstance(each, int)]


def seem_dead(child: BaseProcess) -> bool:
    """Let a child see this process, its parent, as dead. Return whether that can be done."""
    ends = [each for each in descriptors_of(child) if each != child.sentinel]
    for end in ends:
        # It is closed, but its number stays taken: `multiprocessing` closes that later.
        os.dup2(child.sentinel, end, inheritable=False)
    return bool(ends)


# --- processes that are starting ---


class _OsWithoutFolder:
    """`os` for `multiprocessing.spawn`, where the working directory may be gone."""

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def getcwd(self) -> str:
        """The working directory; if it is gone, the one in which the child begins."""
        return os.curdir if is_folder_gone() else os.getcwd()  # noqa: PTH109 - as there


def is_folder_gone() -> bool:
    """Whether the working directory was deleted."""
    try:
        os.getcwd()  # noqa: PTH109 - as `multiprocessing` does
    except OSError:
        return True
    return False


def allow_missing_folder() -> None:
    """Let processes start although the working directory is gone. Idempotent."""
    from multiprocessing import spawn

    inner: Any = spawn
    if getattr(inner, "os", None) is os:
        inner.os = _OsWithoutFolder()
        flags = inner.util._args_from_interpreter_flags  # noqa: SLF001 - of all that it starts
        inner.util._args_from_interpreter_flags = lambda: flags() + ["-P"] * is_folder_gone()  # noqa: SLF001 - likewise


# Runs in the new process, before anything is imported there and before it knows the caller's
# sys.path; so it is text, and needs nothing but the standard library.
_LEAVE_MAIN_ALONE: Final = """[
    setattr(__import__("multiprocessing.spawn", fromlist=["spawn"]), name, lambda *args: None)
    for name in ("_fixup_main_from_name", "_fixup_main_from_path")
] and [
    signal.signal(number, lambda *args: None)
    for signal in [__import__("signal")]
    for name in ("SIGINT", "SIGTERM", "SIGHUP")
    for number in [getattr(signal, name, signal.SIGINT)]
    if signal.getsignal(number) != signal.SIG_IGN
] is not None and [
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {held})
    for signal in [__import__("signal")]
    if {held}
] is not None and {name!r}"""

# The signals that may reach all processes of a program at once.
_GROUP_SIGNALS: Final = {
    int(getattr(signal, name)) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
}


# Runs in a new forkserver, before `main`; it calls `set_wakeup_fd` when it has ignored Ctrl-C, but
# for its children. Text, as above.
_RELEASE_CTRL_C: Final = """[
    setattr(signal, "set_wakeup_fd", lambda *args: [
        setattr(signal, "set_wakeup_fd", inner),
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT]),
        inner(*args),
    ][2])
    for signal in [__import__("signal")]
    for inner in [signal.set_wakeup_fd]
]
"""


class _UtilOfForkserver:
    """`multiprocessing.util` for `multiprocessing.forkserver`: no Ctrl-C ends its start."""

    def __init__(self, inner: ModuleType) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def spawnv_passfds(self, path: Any, words: Sequence[Any], passed: Sequence[int]) -> int:
        """Start a process that holds Ctrl-C back until it ignores it."""
        words = list(words)
        # options of the interpreter, then the code; in Python 3.15 also the words of the program
        place = words.index("-c") + 1 if "-c" in words else 0
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
        if place and signal.SIGINT not in before:
            words[place] = _RELEASE_CTRL_C + words[place]
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            pid: int = self._inner.spawnv_passfds(path, words, passed)
            return pid
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def shield_forkserver() -> None:
    """Let no Ctrl-C end a forkserver that is starting. Idempotent.

    It holds Ctrl-C back while it imports what is preloaded, and so does a process that such a
    module starts: no handler may stand there, since forked workers would have it.
    """
    from multiprocessing import forkserver

    inner: Any = forkserver
    util = getattr(inner, "util", None)
    if isinstance(util, ModuleType) and hasattr(util, "spawnv_passfds"):
        inner.util = _UtilOfForkserver(util)


class _HeldBack(threading.local):
    """The signals that this thread holds back, and what it starts."""

    numbers: tuple[int, ...] = ()


_held: Final = _HeldBack()


@contextlib.contextmanager
def signals_held_back(method: str) -> Iterator[None]:
    """Hold back the signals of the process group, also in the worker that starts meanwhile.

    Its interpreter would die of them before a handler can stand: they wait until `release_signals`
    there, or until its name has arrived (see `ProcessName`). A forkserver is not held: where it
    cannot import this package, nothing would release what others start with it.
    """
    if method == "forkserver" or not hasattr(signal, "pthread_sigmask"):
        yield
        return
    if method == "spawn":
        from multiprocessing import resource_tracker

        resource_tracker.ensure_running()  # a start of it would release them
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _GROUP_SIGNALS)
    try:
        _held.numbers = tuple(sorted(_GROUP_SIGNALS - before))
        yield
    finally:
        _held.numbers = ()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def release_signals() -> None:
    """Let the signals come that a forked worker holds back."""
    numbers, _held.numbers = _held.numbers, ()
    if numbers:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)


# The modules of what can be handed over only to a process that is starting.
_MODULES_OF_SHARED: Final = tuple(
    f"multiprocessing.{name}" for name in ("synchronize", "queues", "connection", "sharedctypes")
)


def is_shared(content: Any) -> bool:
    """Whether an object can be handed over only to a process that is starting: a queue, say."""
    if isinstance(content, type):
        return False
    if any(base.__module__ in _MODULES_OF_SHARED for base in type(content).__mro__):
        return True
    # what `multiprocessing.RawValue` returns has its memory here
    parts = getattr(content, "__dict__", None)
    memory = parts.get("_wrapper") if type(parts) is dict else None
    return type(memory).__module__ == "multiprocessing.heap"


def may_have_shared() -> bool:
    """Whether this process has any such object."""
    return not sys.modules.keys().isdisjoint(_MODULES_OF_SHARED)


def complete_main() -> None:
    """Give the main module a ``__spec__``, as scripts have it: None. Under pdb there is none."""
    main = sys.modules.setdefault("__main__", ModuleType("__main__"))
    vars(main).setdefault("__spec__", None)


class ProcessName(str):
    """The name of a worker process, which in passing keeps ``__main__`` from being rerun.

    `multiprocessing` runs the caller's main script again in every child, under another name; a
    script without a ``__main__`` guard would start pools within pools. Workers do not need it: what
    lives in ``__main__`` reaches them by value. Nor do they die of Ctrl-C, with a traceback each,
    from then on, or of other signals to the process group. The name is the first thing of ours
    that the child unpickles, ahead of that step.
    """

    __slots__ = ()

    def __reduce__(self) -> tuple[Any, ...]:
        # what this thread starts, if it pickles for that
        if getattr(multiprocessing.context, "get_spawning_popen", lambda: None)() is None:
            return str, (str(self),)  # it goes somewhere else: with a log record, say
        return eval, (_LEAVE_MAIN_ALONE.format(name=str(self), held=_held.numbers),)
