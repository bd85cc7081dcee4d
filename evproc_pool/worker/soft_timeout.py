"""Raises the soft timeout in the handler that is running, in a worker.

1. The coordinator, which looks at the place of each worker anyway (`watch`), finds that
   one has been at the same event for too long. It writes which event that is into
   `status_words.STRUCK`, and sends `SIGNAL`.
2. Python runs `SoftTimeout._strike` between two instructions of the main thread, or in
   a call that waits and lets signals be handled. It raises if, and only if, what it has
   interrupted is a handler of that event, or the iterable that one returned; and it
   clears the word first, so that it never raises twice.
3. Where it has come at another moment (between two handlers, while what an event left
   behind is being pickled) it does nothing. The word stays, and while the worker is
   still at a handler of that event, the coordinator sends the signal again.

What was interrupted is told by the stack. The line at which the worker's loop is says
what it is doing: calling a handler, or taking what that returned; both stand in the
`try` that catches whatever a handler raises, so the worker is as it is after any other
error. A signal that comes late finds that the word names an event that is over. One
that is lost, since it came just before a call that waits, is sent again.

Nothing is armed or looked at for an event that is not too slow, so it costs nothing.

Rejected: a timer in the worker, which is a system call per event;
`PyThreadState_SetAsyncExc`, which does not end a call that waits, and may strike in the
worker's own code; a wrapper around handlers, which is a call per event.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from types import CodeType, FrameType
from typing import Any, Final

from evproc.event import describe_event
from evproc_pool.errors import SoftTimeoutError
from evproc_pool.protocol import status_words

# Numbers next to SIGRTMIN are the ones that programs take first.
_REAL_TIME_OFFSET: Final = 11


def _choose() -> int | None:
    """A signal that nobody else is likely to use."""
    first: int | None = getattr(signal, "SIGRTMIN", None)
    if first is not None:
        return first + _REAL_TIME_OFFSET
    # macOS: does nothing to a process that does not expect it
    return getattr(signal, "SIGINFO", None)


#: Sent to a worker; None: there is no soft timeout here (Windows).
SIGNAL: Final = _choose()


class SoftTimeout:
    """Takes the signal, in a worker.

    Args:
        seconds: The limit.
        words: See `status_words`.
        loop: The function that calls handlers, by `handler.func(...)` in a line of its
            own, and takes what they return, by `collect_follow_ups` in another. Its
            variables `handler` and `ev` say which handler and event these are.
    """

    def __init__(self, seconds: float, words: Any, loop: CodeType) -> None:
        self._seconds = seconds
        self._words = words
        self._loop = loop
        self._calls = _line_of(loop, "func")
        self._collects = _line_of(loop, "collect_follow_ups")
        self._pid = os.getpid()

    def install(self) -> None:
        """From now on the signal is taken. Without effect but in the main thread."""
        if SIGNAL is None:
            return
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
                return None  # the signal has come twice: that one decides
            frame = frame.f_back
        if frame is None:
            return None
        if frame is not interrupted:
            return frame if frame.f_lineno in {self._calls, self._collects} else None
        # A handler may be no Python function: then the loop itself is at its call. If that
        # has raised, Python 3.10 may run this before the first line of the `except`, where
        # nothing would catch it.
        is_caught = sys.exc_info()[1] is not None
        return frame if frame.f_lineno == self._calls and not is_caught else None


_STRIKE: Final = SoftTimeout._strike.__code__  # noqa: SLF001 - it is ours


def _line_of(code: CodeType, name: str) -> int:
    """The line in which a function uses a name, which it does once."""
    import dis  # takes a while to import, and few workers need it

    (offset,) = [each.offset for each in dis.get_instructions(code) if each.argval == name]
    [line] = [line for start, stop, line in code.co_lines() if start <= offset < stop]
    if line is None:
        raise ValueError(f"{code.co_name} has no line for {name}")
    return line
