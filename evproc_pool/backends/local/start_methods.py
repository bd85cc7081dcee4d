"""How worker processes are started without running the caller's main script again."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Final
from weakref import WeakSet

from evproc_pool.backends.local.preloading import Sources, entries, may_change, without_entries
from evproc_pool.internals.stdlib_multiprocessing import (
    forget_child,
    forkserver_pid,
    preloaded_modules,
)
from evproc_pool.ipc.parent_death import Anchor


def default_context(first: int) -> BaseContext:
    """The context for `mp_context=None`: never a `fork` of this process as it is.

    Args:
        first: The process that imported this package. One that is forked from it has its
            modules.
    """
    if sys.platform == "linux" and (os.getpid() == first or not _has_parents_server()):
        return multiprocessing.get_context("forkserver")
    return multiprocessing.get_context("spawn")


def _has_parents_server() -> bool:
    """Whether this process, made by os.fork, takes its parent's forkserver for its own.

    Which it cannot use. A child of the forkserver can, and knows no pid of it.
    """
    return forkserver_pid() is not None


class _Lock:
    """One thread at a time starts a process; new in a process that os.fork made."""

    def __init__(self) -> None:
        self.held = threading.Lock()


_lock: Final = _Lock()

# Worker processes of this process; multiprocessing knows them as its children.
_processes: WeakSet[BaseProcess] = WeakSet()


def own(process: BaseProcess) -> None:
    """Remember a worker process that was started."""
    _processes.add(process)  # for the case that this process forks
    _forkserver.answered = forkserver_pid()


def has_started(context: BaseContext) -> bool:
    """Whether a process can be started in a moment: no forkserver is to begin before that."""
    pid = forkserver_pid()
    return context.get_start_method() != "forkserver" or (
        pid is not None and pid == _forkserver.answered
    )


def _disown_all() -> None:
    """In a process that os.fork made: its parent's workers are not its children."""
    _lock.held = threading.Lock()
    for process in _processes:
        forget_child(process)
    if _forkserver.anchor is not None:
        _forkserver.anchor.close()
        _forkserver.anchor = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_disown_all)


class _Forkserver:
    """The forkserver of this process, as far as it is known here."""

    #: As they were when it imported the handlers' modules; None if it did not.
    sources: Sources | None = None
    #: On which it hangs while it imports.
    anchor: Anchor | None = None
    #: The pid of the last one that started a worker.
    answered: int | None = None


_forkserver: Final = _Forkserver()


def fresh(context: BaseContext) -> BaseContext:
    """The context to start a worker by: `spawn` where a forkserver has old sources."""
    is_forkserver = context.get_start_method() == "forkserver"
    sources = _forkserver.sources if is_forkserver else None
    if sources is not None and sources.have_changed:
        return multiprocessing.get_context("spawn")
    return context


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Let a Ctrl-C strike at the end of the block; for what takes no longer than a moment.

    A forkserver dies, with a traceback, of a client that goes away in the middle of its request.
    """
    handler = signal.getsignal(signal.SIGINT)
    struck: list[tuple[int, FrameType | None]] = []
    try:
        if callable(handler):
            signal.signal(signal.SIGINT, lambda *args: struck.append(args))
    except ValueError:
        handler = None  # not the main thread, whose affair it is
    try:
        yield
    finally:
        if callable(handler):
            signal.signal(signal.SIGINT, handler)
            if struck:
                handler(*struck[0])


def begin(context: BaseContext, modules: Sequence[str] = ()) -> None:
    """Have a forkserver start, if there is none yet, and do not wait for it.

    It takes as long to start as what else is to be imported here does.

    Args:
        context: See `prepared`.
        modules: Likewise.
    """
    if context.get_start_method() == "forkserver":
        from multiprocessing import forkserver

        with prepared(context, modules), contextlib.suppress(OSError):
            # what it is shows when a worker is to be started
            forkserver.ensure_running()


@contextlib.contextmanager
def prepared(context: BaseContext, modules: Sequence[str] = ()) -> Iterator[None]:
    """While a process is started, tell a forkserver that may be started what to import.

    That is the worker's module and others (`preloading`), so that its processes need
    not: a new worker is ready in milliseconds. And it is not
    ``__main__``, which the forkserver would run before it forks, from Python 3.13.8 on
    (https://github.com/python/cpython/issues/126631). What the application has told it
    to import stays, and a forkserver that runs already stays as it is.

    Args:
        context: The context by which the process is started.
        modules: The others.
    """
    is_forkserver = context.get_start_method() == "forkserver"
    if not is_forkserver or preloaded_modules() is None:
        yield  # another start method, or another Python than is known
        return
    with _lock.held:
        preloaded = without_entries(preloaded_modules() or ())
        chosen = [] if preloaded == ["__main__"] else preloaded
        # an entry that is no text does not come through the forkserver's command line
        is_text = all(type(path) is str for path in sys.path)
        before = forkserver_pid()
        sources = Sources() if is_text and any(map(may_change, modules)) else None
        anchor = _forkserver.anchor
        if anchor is None or not anchor.is_open:
            _forkserver.anchor = anchor = Anchor()
        try:
            ours = entries(modules, anchor.name) if is_text else []
            context.set_forkserver_preload([*chosen, *ours])
            yield
        finally:
            context.set_forkserver_preload(preloaded)
            if forkserver_pid() != before:
                # the first one, or another since that has died: it has imported them now
                _forkserver.sources = sources
