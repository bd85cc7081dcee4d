"""Raises the soft timeout in the handler that is running, in a worker.

1. The coordinator finds a worker that has been at the same event for too long
   (`core.event_limits`). It writes the event into `status_words.STRUCK`, and sends `SIGNAL`.
2. Python runs `SoftTimeout._strike` between two instructions of the main thread, or in
   a call that waits and lets signals be handled. It raises only if it has interrupted a
   handler of that event, or the iterable that one returned. It clears the word first, so
   that it never raises twice.
3. At any other moment (between two handlers, while values of an event are pickled) it does
   nothing. While the worker is still at a handler of that event, the coordinator sends the signal
   again. So a signal that comes just before a call that waits is not lost either.

The stack shows what was interrupted. The frame of the worker's loop has the offset of the
instruction that is running: the call of a handler, or the call that collects what it returned
(`internals.cpython.call_spans`). Offsets need no source file and no line numbers. Both calls
stand in the `try` that catches whatever a handler raises, so the worker is as it is after any
other error. A late signal finds that the word names an event that is over.

An event that is not too slow pays nothing: there is no timer and no check.

Rejected: a timer in the worker, which is a system call per event;
`PyThreadState_SetAsyncExc`, which does not end a call that waits, and may strike in the
worker's own code; a wrapper around handlers, which is a call per event; a word that the loop
writes after each handler, which is a store per event.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import warnings
from _thread import get_ident
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any, Final

from evproc.event import describe_event
from evproc_pool.errors import SoftTimeoutError
from evproc_pool.internals.cpython import call_spans, frame_of
from evproc_pool.protocol import status_words

#: Sent to a worker; None: this system has no soft timeout (Windows). Programs take the numbers next
#: to SIGRTMIN first. On macOS it does nothing to a process that does not expect it.
SIGNAL: Final[int | None] = (
    signal.SIGRTMIN + 11 if hasattr(signal, "SIGRTMIN") else getattr(signal, "SIGINFO", None)
)

#: Code that handlers call and that must not be interrupted. Who calls it calls `end_shield` next.
SHIELDED: Final[set[CodeType]] = set()


class _Postponed:
    """A soft timeout that has come in shielded code."""

    strike: Callable[[int, FrameType | None], None] | None = None
    thread = 0


def end_shield() -> None:
    """Raise a soft timeout that has come in shielded code, if the event is still running."""
    strike = _Postponed.strike
    if strike is not None and _Postponed.thread == get_ident():
        _Postponed.strike = None
        strike(0, frame_of(_Postponed.thread))


class SoftTimeout:
    """Takes the signal, in a worker.

    Args:
        loop: The function that calls handlers, by `handler.func(...)`, and collects what they
            return, by `collect_follow_ups(...)`. The arguments of both contain no calls. Its
            variables `handler` and `ev` say which handler and event these are.
    """

    def __init__(self, seconds: float, words: Any, loop: CodeType) -> None:
        self._seconds = seconds
        self._words = words
        self._loop = loop
        # the offsets of the instructions that call these
        self._calls = frozenset[int]().union(*call_spans(loop, "func"))
        self._calls_and_collects = self._calls.union(*call_spans(loop, "collect_follow_ups"))
        self._pid = os.getpid()

    def install(self) -> None:
        """Take the signal from now on. Has no effect except in the main thread."""
        if SIGNAL is None:
            return
        if not self._calls:
            with contextlib.suppress(RuntimeWarning):  # where warnings are errors
                warnings.warn(_UNKNOWN_PYTHON, RuntimeWarning, stacklevel=2)
        with contextlib.suppress(ValueError):
            signal.signal(SIGNAL, self._strike)
            # whoever started the process may have blocked it
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [SIGNAL])

    def _strike(self, _: int, interrupted: FrameType | None) -> None:
        # a process that a handler has forked shares the words
        if os.getpid() != self._pid or not self._is_meant():
            return
        loop = self._find_loop(interrupted)
        if loop is None:
            return
        self._words[status_words.STRUCK] = 0
        event, name = describe_event(loop.f_locals["ev"]), loop.f_locals["handler"].name
        raise SoftTimeoutError(
            f"event {event} took longer than event_soft_timeout={self._seconds:g} s and was in"
            f" handler {name!r}",
            event,
            name,
            self._seconds,
        )

    def _is_meant(self) -> bool:
        """Whether the worker is at the event that is to be struck."""
        batch, place = self._words[status_words.BATCH], self._words[status_words.PLACE]
        if place < 0:
            return False
        event = status_words.event_at(batch, place >> status_words.HANDLER_BITS)
        return bool(self._words[status_words.STRUCK] == event)

    def _find_loop(self, interrupted: FrameType | None) -> FrameType | None:
        """The frame of the loop, if code of the user's was interrupted; otherwise None."""
        frame = interrupted
        while frame is not None and frame.f_code is not self._loop:
            if frame.f_code is _STRIKE:
                return None  # the signal has come twice: the first one decides
            if frame.f_code in SHIELDED:
                _Postponed.strike, _Postponed.thread = self._strike, get_ident()
                return None
            frame = frame.f_back
        if frame is None:
            return None
        if frame is not interrupted:
            return frame if frame.f_lasti in self._calls_and_collects else None
        # A handler may be no Python function: then the loop itself is at its call. If the call
        # has raised, the error is on its way to the `except`, and nothing would catch this one.
        is_caught = sys.exc_info()[1] is not None
        return frame if frame.f_lasti in self._calls and not is_caught else None


_STRIKE: Final = SoftTimeout._strike.__code__  # noqa: SLF001 - it is ours

_UNKNOWN_PYTHON: Final = (
    "event_soft_timeout has no effect with this version of Python, of which evproc_pool does not"
    " know the instructions; event_timeout has"
)
