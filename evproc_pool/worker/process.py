"""A worker as a process: its signals, the processes that handlers fork, and its output.

- **Signals.** Ctrl-C, a service manager's SIGTERM and a closed terminal reach the whole process
  group, and the coordinator decides what they mean. A worker takes them and does nothing. It does
  not ignore them: the programs that a handler starts would inherit that.
- **Forks.** A process that a handler forks is no worker. It gives up what the worker shares with
  the coordinator. So the worker's loop, to which the handler may return, fails at its next step,
  and the process ends as its handler has ended: see `ForkedChild`. An event pays nothing for this.
- **Output.** A worker flushes its streams before it sends results. So what a finished event has
  printed is not lost, however the worker ends. If nobody reads it, the flush may block: it counts
  as a part of the event (`status_words.FLUSHING`).

Rejected for forks: a comparison of process ids after each handler, a system call per event.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Final

from evproc import StopProcessing
from evproc_pool.internals.cpython import forget_exit_functions
from evproc_pool.internals.stdlib_multiprocessing import forget_children

#: Signals that end a service, or a program in a terminal.
END_SIGNALS: Final = [
    getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)
]


def _do_nothing(*_: object) -> None:
    """Take a signal."""


def leave_signals(*numbers: int) -> None:
    """Leave signals that reach the whole process group to the coordinator.

    Processes that this one forks take them again.
    """
    _watch_forks()
    with contextlib.suppress(ValueError):  # not the main thread, which alone gets them
        for number in numbers:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as `nohup` has it
                signal.signal(number, _do_nothing)
                if hasattr(signal, "siginterrupt"):
                    signal.siginterrupt(number, False)  # native code is not interrupted


@functools.cache  # once, also for the processes that it forks
def _watch_forks() -> None:
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=_hold_signals, after_in_parent=_release_signals, after_in_child=_take_signals
        )


_at_fork: Final = threading.local()


def _hold_signals() -> None:
    """Hold signals back: one that is sent to the new process at once would do nothing."""
    _at_fork.mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, *END_SIGNALS])


def _release_signals() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _at_fork.mask)


def _take_signals() -> None:
    for number in (signal.SIGINT, *END_SIGNALS):
        if signal.getsignal(number) is _do_nothing:
            is_int = number == signal.SIGINT
            signal.signal(number, signal.default_int_handler if is_int else signal.SIG_DFL)
    _release_signals()


class ForkedChild:
    """Makes processes that this worker forks give up what the worker has.

    Attributes:
        is_this: Whether this process is one.
    """

    def __init__(self, *give_up: Callable[[], object]) -> None:
        self._give_up = give_up
        self.is_this = False
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(before=flush_streams, after_in_child=self._begin)

    def _begin(self) -> None:
        self.is_this = True
        for each in self._give_up:
            each()
        # as in a process that `multiprocessing` forks
        forget_exit_functions()
        forget_children()


def left_by(error: BaseException) -> BaseException | None:
    """Return the error with which a handler has left, in a forked process; None: it returned.

    `error` has ended the worker's loop. It may be the loop's own, since everything was given up.
    Then the handler's is the one that was being handled, if any.
    """
    found: BaseException | None = error
    while found is not None and _is_of_loop(found):
        found = found.__context__
    return None if isinstance(found, StopProcessing) else found


def _is_of_loop(error: BaseException) -> bool:
    """Whether it says that the status words are released, or the channel is closed."""
    if isinstance(error, OSError):
        return error.errno == errno.EBADF
    return type(error) is ValueError and "released memoryview" in str(error)


def flush_streams() -> None:
    """Flush standard output and standard error; a handler may have replaced or deleted them."""
    for name in ("stdout", "stderr"):
        try:
            getattr(sys, name).flush()
        except BaseException:  # noqa: S112 - `suppress` takes longer than all the rest
            continue
