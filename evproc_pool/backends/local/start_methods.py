"""Starts worker processes without running the caller's main script again."""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any, Final
from weakref import WeakSet

from evproc_pool.backends.local.preloading import Sources, entries, may_change, without_entries
from evproc_pool.errors import PoolError
from evproc_pool.internals.stdlib_multiprocessing import (
    allow_missing_folder,
    await_end_of_forkserver,
    complete_main,
    forget_child,
    forkserver_pid,
    is_folder_gone,
    preloaded_modules,
    preloading_options,
    shield_forkserver,
    signals_held_back,
)
from evproc_pool.ipc.parent_death import Anchor


def default_context(first: int) -> BaseContext:
    """The context for `mp_context=None`: never a `fork` of this process.

    `first` is the pid of the process that imported this package. A process that os.fork made from
    it has its modules, and takes its forkserver for its own, which it cannot use. (A child of a
    forkserver can use that one, and knows no pid of it.)
    """
    if sys.platform == "linux" and (os.getpid() == first or forkserver_pid() is None):
        return multiprocessing.get_context("forkserver")
    return multiprocessing.get_context("spawn")


class NoForkserverError(OSError):
    """No forkserver can be started or reached; another start method may work."""


# The longest wait for the end of a forkserver that has closed its connections, in seconds.
_END_SECONDS: Final = 1.0

# Errors of the socket of a forkserver. None: its path is too long.
_NO_SOCKET: Final = {
    None,
    errno.EACCES,
    errno.ENAMETOOLONG,
    errno.ENOENT,
    errno.ENOSPC,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
}


class _Forkserver:
    """The facts that are known here of the forkserver of this process."""

    #: One thread at a time starts a process; new in a process that os.fork made.
    lock = threading.Lock()
    #: The sources when it imported the handlers' modules; None if it did not.
    sources: Sources | None = None
    #: The user that started it, who alone can use it; None: unknown.
    user: tuple[int, int] | None = None
    #: Its parent death ends it while it imports.
    anchor: Anchor | None = None
    #: The pid of the last forkserver that started a worker.
    answered: int | None = None


_forkserver: Final = _Forkserver()

# Worker processes of this process; multiprocessing knows them as its children.
_processes: WeakSet[BaseProcess] = WeakSet()


def _disown_all() -> None:
    """Forget the parent's workers, in a process that os.fork made: they are not its children."""
    _forkserver.lock = threading.Lock()
    for process in _processes:
        forget_child(process)
    if _forkserver.anchor is not None:
        _forkserver.anchor.close()
        _forkserver.anchor = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_disown_all)


_FREEZE: Final = (
    "a frozen program calls multiprocessing.freeze_support() first, in its main module, so that the"
    " processes that it starts do not run the program again"
)


def check_is_no_child(arguments: Sequence[str]) -> None:
    """Raise a `PoolError` in a frozen program that was started to be a process of another one."""
    is_child = "--multiprocessing-fork" in arguments or any(
        "from multiprocessing." in each and "import main" in each for each in map(str, arguments)
    )
    if is_child and getattr(sys, "frozen", False):
        raise PoolError(
            f"this process is to serve multiprocessing, and runs the program: {_FREEZE}"
        )


def has_started(context: BaseContext) -> bool:
    """Whether a process starts at once: no forkserver has to begin before it."""
    pid = forkserver_pid()
    is_forkserver = context.get_start_method() == "forkserver"
    return not is_forkserver or (pid is not None and pid == _forkserver.answered)


def start(process: BaseProcess, context: BaseContext, modules: Sequence[str]) -> None:
    """Start a worker process; see `prepared`.

    Raises:
        OSError: It cannot be started. Nothing is left of it.
    """
    if multiprocessing.current_process().daemon:
        raise OSError(
            "this process is a daemon of multiprocessing, which must not start processes: make the"
            " PoolProcessor here, and not before the fork, or start this process with daemon=False"
        )
    is_forkserver = context.get_start_method() == "forkserver"
    try:
        with prepared(context, modules), signals_held_back(context.get_start_method()):
            _start(process, is_forkserver=is_forkserver)
        _processes.add(process)  # this process may fork
        _forkserver.answered = forkserver_pid()
    except BaseException as error:
        if process.pid is not None:
            process.kill()
            process.join()
            process.close()
        if isinstance(error, RuntimeError) and "context" in str(error):
            # a lock in the arguments of the initializer
            raise OSError(
                f"{error} Make what goes into initargs with the context that you give to the pool:"
                f" multiprocessing.get_context({context.get_start_method()!r})"
            ) from error
        if isinstance(error, ImportError):
            raise OSError(
                f"what starts processes cannot be imported ({error}): may this process, after a"
                " change of its user, still read the standard library?"
            ) from error
        if is_forkserver and isinstance(error, OSError) and error.errno in _NO_SOCKET:
            raise NoForkserverError(
                f"no forkserver can be started or reached ({error}): it needs a temporary folder"
                " (TMPDIR) that can be written to, stays, and has a path of 80 characters at most"
            ) from error
        if not isinstance(error, EOFError | ConnectionError):
            raise
        if getattr(sys, "frozen", False):
            raise OSError(f"the forkserver has died; {_FREEZE}") from error
        # multiprocessing's words for it
        raise OSError(
            "the forkserver has died; look at what it imports: what"
            " multiprocessing.set_forkserver_preload names, and with preload=True the handlers'"
            " modules, by default NumPy and SciPy where this program has imported them"
            " (preload=False: nothing); and at the limits of processes (ulimit -u, a container's"
            " pids limit) and memory"
        ) from error


def _start(process: BaseProcess, *, is_forkserver: bool) -> None:
    try:
        process.start()
    except (EOFError, ConnectionError):
        if not is_forkserver:
            raise
        # A signal to the process group ends a forkserver that is starting itself.
        await_end_of_forkserver(_END_SECONDS)
        process.start()


def fresh(context: BaseContext) -> BaseContext:
    """The context that starts the next worker.

    It is `spawn` if a forkserver has old sources, the privileges that this process has dropped, or
    another working directory than this process, whose own is gone. And in an unknown Python, where
    a forkserver may run the main script, and die of that.
    """
    is_gone = is_folder_gone()
    if is_gone:
        allow_missing_folder()
    sources = _forkserver.sources
    if context.get_start_method() == "forkserver" and (
        is_gone
        or (sources is not None and sources.have_changed)
        or _forkserver.user not in {None, _user()}
        or preloaded_modules() is None
    ):
        return multiprocessing.get_context("spawn")
    return context


def _user() -> tuple[int, int]:
    """The effective ids of user and group."""
    return os.geteuid(), os.getegid()


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Delay a Ctrl-C until the end of a short block.

    A forkserver dies, with a traceback, if a client goes away in the middle of its request.
    """
    handler = signal.getsignal(signal.SIGINT)
    struck: list[tuple[int, FrameType | None]] = []
    try:
        if callable(handler):
            signal.signal(signal.SIGINT, lambda *args: struck.append(args))
    except ValueError:
        handler = None  # not the main thread, which alone gets it
    try:
        yield
    finally:
        if callable(handler):
            signal.signal(signal.SIGINT, handler)
            if struck:
                handler(*struck[0])


def begin(context: BaseContext, modules: Sequence[str] = ()) -> None:
    """Start a forkserver, if there is none yet, and do not wait for it; see `prepared`.

    It starts while this process imports the rest of the engine, which takes as long.
    """
    if fresh(context).get_start_method() == "forkserver":
        from multiprocessing import forkserver

        with prepared(context, modules), contextlib.suppress(OSError):
            # the error comes again when a worker is started
            forkserver.ensure_running()


@contextlib.contextmanager
def prepared(context: BaseContext, modules: Sequence[str] = ()) -> Iterator[None]:
    """Choose what a forkserver imports if it starts together with a process of a context.

    It imports the worker's module and `modules` (see `preloading`). Its processes then need not,
    so a new worker is ready in milliseconds. It does not import ``__main__``, which it would run
    before it forks, from Python 3.13.8 on (https://github.com/python/cpython/issues/126631). The
    modules that the application has chosen stay. A forkserver that runs already is left alone.
    """
    complete_main()
    is_forkserver = context.get_start_method() == "forkserver"
    if not is_forkserver or preloaded_modules() is None:
        yield  # another start method, or an unknown Python
        return
    shield_forkserver()
    with _forkserver.lock:
        preloaded = without_entries(preloaded_modules() or ())
        chosen = [] if preloaded == ["__main__"] else preloaded
        options: dict[str, Any] = preloading_options()
        # the forkserver's command line can pass on only text; from Python 3.14 on it has both
        is_text = all(type(each) is str for each in (*sys.path, *sys.argv))
        before = forkserver_pid()
        sources = Sources() if is_text and any(map(may_change, modules)) else None
        anchor = _forkserver.anchor
        if anchor is None or not anchor.is_open:
            _forkserver.anchor = anchor = Anchor()
        try:
            ours = entries(modules, anchor.name) if is_text else []
            context.set_forkserver_preload([*chosen, *ours], **options)
            yield
        finally:
            context.set_forkserver_preload(preloaded, **options)
            if forkserver_pid() != before:
                # a new forkserver, the first or after the death of another, has imported them
                _forkserver.sources, _forkserver.user = sources, _user()
