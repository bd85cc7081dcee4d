"""How worker processes are started without running the caller's main script again."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
from collections.abc import Iterator
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any, Final
from weakref import WeakSet


def default_context() -> BaseContext:
    """The context for `mp_context=None`: never a `fork` of this process as it is."""
    # a process that os.fork made cannot use the forkserver of its parent
    if sys.platform == "linux" and os.getpid() == _IMPORTED_BY:
        return multiprocessing.get_context("forkserver")
    return multiprocessing.get_context("spawn")


_IMPORTED_BY: Final = os.getpid()

# Worker processes of this process; multiprocessing knows them as its children.
_processes: WeakSet[BaseProcess] = WeakSet()


def own(process: BaseProcess) -> None:
    """Remember a worker process, for the case that this process forks."""
    _processes.add(process)


def _disown() -> None:
    """In a process that os.fork made: its parent's workers are not its children.

    `multiprocessing` would join them at exit, and fail.
    """
    for process in _processes:
        multiprocessing.process._children.discard(process)  # type: ignore[attr-defined]  # noqa: SLF001 - no public way


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_disown)


# Runs in the new process, before anything is imported there and before it knows
# the caller's sys.path; so it is text, and needs nothing but the standard library.
_LEAVE_MAIN_ALONE: Final = """[
    setattr(__import__("multiprocessing.spawn", fromlist=["spawn"]), name, lambda *args: None)
    for name in ("_fixup_main_from_name", "_fixup_main_from_path")
] and {!r}"""


class ProcessName(str):
    """The name of a worker process, which in passing keeps ``__main__`` from being rerun.

    `multiprocessing` runs the caller's main script again in every child, under
    another name; a script without a ``__main__`` guard would start pools within
    pools. Workers do not need it: what lives in ``__main__`` reaches them by value.
    The name is the first thing of ours that the child unpickles, ahead of that step.
    """

    __slots__ = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return eval, (_LEAVE_MAIN_ALONE.format(str(self)),)


@contextlib.contextmanager
def main_left_alone(context: BaseContext) -> Iterator[None]:
    """While a process is started, keep ``__main__`` from being run by the forkserver, too.

    From Python 3.13.8 on the forkserver runs the main script before it forks
    (https://github.com/python/cpython/issues/126631), unless it is told otherwise;
    which it is told here for the time in which it may be started.
    """
    preloaded = None
    if context.get_start_method() == "forkserver":
        from multiprocessing import forkserver

        server = getattr(forkserver, "_forkserver", None)
        preloaded = getattr(server, "_preload_modules", None)
    if preloaded != ["__main__"]:
        yield  # the caller has chosen
        return
    context.set_forkserver_preload([])
    try:
        yield
    finally:
        context.set_forkserver_preload(preloaded)
