"""Tells what is over while a handler is running, in a worker.

What a worker has finished goes to the coordinator when a batch is over, or a few
milliseconds after the last time. Where the next event takes minutes, the loop cannot do
that. So the coordinator, which looks at the place of each worker anyway, asks for it: by a
signal that one thread of the worker waits for. That thread sends what is over
(`ResultBuffer.tell`). A handler notices nothing: the signal interrupts no call of its.

It waits in the kernel, so it costs nothing until it is asked. It needs the interpreter's
lock to answer, and so comes too late where native code holds that for long.

A handler may fork. Python warns of that beside threads, and rightly: so the thread ends
before each fork, once it has told what is over. It begins again with the next batch, or when
it is asked: until then the main thread takes the signal, and starts it.

Where there is no such signal (macOS, Windows), the loop sends after every event for which
somebody may wait.

Rejected: a signal handler in the main thread (it runs in the middle of the user's code, which
may hold the lock that pickling needs, and interrupts system calls of libraries that do not
expect it); a thread that wakes up by itself (it takes the interpreter's lock from handlers);
results in shared memory one by one (each event would pay for a pickle of its own).
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Final

# Next to that of the soft timeout.
_REAL_TIME_OFFSET: Final = 12


def _choose() -> int | None:
    """A signal that nobody else is likely to use; None: there is none here."""
    first: int | None = getattr(signal, "SIGRTMIN", None)
    if first is None or sys.platform != "linux" or not hasattr(signal, "pidfd_send_signal"):
        return None
    return first + _REAL_TIME_OFFSET


#: Sent to a worker that is to tell what is over.
SIGNAL: Final = _choose()

# How long a handler that waits for the interpreter's lock waits for it at the most: an answer
# takes so long where a handler runs Python code. The usual is 0.005 s.
_SWITCH_SECONDS: Final = 0.001

# Those that a thread gets for what it does itself.
_OF_THE_THREAD: Final = {
    getattr(signal, name)
    for name in ("SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT", "SIGTRAP", "SIGSYS")
    if hasattr(signal, name)
}

# How long to wait until the kernel has forgotten a thread, in seconds.
_GONE_SECONDS: Final = 0.1


class Reporter:
    """The thread.

    Args:
        tell: Sends what is over; `ResultBuffer.tell`.
    """

    def __init__(self, tell: Callable[[], object]) -> None:
        self._tell = tell
        self._pid = os.getpid()
        self._thread: threading.Thread | None = None
        self._ends = False

    def install(self) -> bool:
        """Begin; say whether there is somebody to be asked now. For the main thread."""
        if SIGNAL is None:
            return False
        try:
            # for a thread that does not block it: one that was there before, or unblocks it
            signal.signal(SIGNAL, self._pass_on)
        except ValueError:  # not the main thread
            return False
        sys.setswitchinterval(min(sys.getswitchinterval(), _SWITCH_SECONDS))
        os.register_at_fork(before=self._before_fork)
        self.resume()
        return True

    def resume(self) -> None:
        """Begin again, if a fork has ended it."""
        if self._thread is None and SIGNAL is not None:
            signal.pthread_sigmask(signal.SIG_BLOCK, [SIGNAL])
            self._ends = False
            self._thread = threading.Thread(target=self._serve, name="evproc reporter", daemon=True)
            self._thread.start()

    def _serve(self) -> None:
        # Signals are for the main thread, also where a handler blocks them there for a while.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - _OF_THE_THREAD)
        while True:
            signal.sigwait({SIGNAL or 0})
            if self._ends:
                return
            self._tell()

    def _pass_on(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a handler's
        """Another thread got the signal."""
        if os.getpid() == self._pid:
            self.resume()
            thread = self._thread
            if thread is not None and thread.ident is not None:
                signal.pthread_kill(thread.ident, number)

    def _before_fork(self) -> None:
        thread = self._thread
        if thread is None or os.getpid() != self._pid or thread is threading.current_thread():
            return
        self._tell()
        self._ends = True
        if thread.ident is not None and SIGNAL is not None:
            signal.pthread_kill(thread.ident, SIGNAL)
        thread.join()
        self._thread = None
        if SIGNAL is not None:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [SIGNAL])
        # Python counts the threads that the kernel knows
        place = Path(f"/proc/self/task/{thread.native_id}")
        end = time.monotonic() + _GONE_SECONDS
        with contextlib.suppress(OSError):
            while place.exists() and time.monotonic() < end:
                time.sleep(0)
