"""Reports results while a handler is running, in a worker.

If the next event takes minutes, the worker's loop cannot send the results so far. So the
coordinator, which checks the place of each worker anyway, asks for a report by a signal. One thread
of the worker waits for this signal in the kernel, at no cost, and sends the results
(`ResultBuffer.report`). A handler notices nothing: the signal interrupts none of its calls. The
thread needs the GIL, so the report is late if native code holds the GIL for long.

A handler may fork, and Python rightly warns of a fork beside threads. So the thread ends before
each fork, after a last report. It starts again with the next batch, or when it is asked: until
then the main thread takes the signal and starts it.

Some systems have no such signal (macOS, Windows). There the loop sends after every event for which
a caller may wait.

Rejected: a signal handler in the main thread (it runs inside user code, which may hold the lock
that pickling needs; and it interrupts system calls of libraries that do not expect it); a thread
that wakes up by itself (it takes the GIL from handlers); single results in shared memory (each
event would pay for a pickle of its own).
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

from evproc_pool.worker.process import flush_streams

#: Asks a worker to report; next to the soft timeout's. None: not possible here.
SIGNAL: Final[int | None] = (
    signal.SIGRTMIN + 12
    if sys.platform == "linux" and hasattr(signal, "pidfd_send_signal")
    else None
)

# The switch interval of a worker: a report waits that long for the GIL while a handler runs Python
# code. Python's default is 0.005 s.
_SWITCH_SECONDS: Final = 0.001

# Signals that a thread causes itself.
_THREAD_SIGNALS: Final = {
    getattr(signal, name)
    for name in ("SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT", "SIGTRAP", "SIGSYS")
    if hasattr(signal, name)
}

# How long to wait until the kernel has removed a thread.
_THREAD_EXIT_SECONDS: Final = 0.1


class Reporter:
    """The reporting thread; `report` sends the results so far."""

    def __init__(self, report: Callable[[], object]) -> None:
        self._report = report
        self._pid = os.getpid()
        self._thread: threading.Thread | None = None
        self._ends = False

    def install(self) -> bool:
        """Start the thread. Return whether it can be asked now. For the main thread."""
        if SIGNAL is None:
            return False
        try:
            # for threads that do not block it: older ones, and those that unblock it
            signal.signal(SIGNAL, self._pass_on)
        except ValueError:  # not the main thread
            return False
        sys.setswitchinterval(min(sys.getswitchinterval(), _SWITCH_SECONDS))
        os.register_at_fork(before=self._before_fork)
        self.resume()
        return True

    def resume(self) -> None:
        """Start the thread again, if a fork has ended it."""
        if self._thread is None and SIGNAL is not None:
            signal.pthread_sigmask(signal.SIG_BLOCK, [SIGNAL])
            self._ends = False
            self._thread = threading.Thread(target=self._serve, name="evproc reporter", daemon=True)
            self._thread.start()

    def _serve(self) -> None:
        # The main thread gets all signals, even while a handler blocks them there.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - _THREAD_SIGNALS)
        while True:
            signal.sigwait({SIGNAL or 0})
            if self._ends:
                return
            flush_streams()
            self._report()

    def _pass_on(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the signature of a signal handler
        """Forward the signal to the reporting thread: another thread has got it."""
        if os.getpid() == self._pid:
            self.resume()
            thread = self._thread
            if thread is not None and thread.ident is not None:
                signal.pthread_kill(thread.ident, number)

    def _before_fork(self) -> None:
        thread = self._thread
        if SIGNAL is None or thread is None or thread is threading.current_thread():
            return
        if os.getpid() != self._pid:
            return
        self._report()
        self._ends = True
        if thread.ident is not None:
            signal.pthread_kill(thread.ident, SIGNAL)
        thread.join()
        self._thread = None
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [SIGNAL])
        # Python counts the threads that the kernel knows
        entry = Path(f"/proc/self/task/{thread.native_id}")
        end = time.monotonic() + _THREAD_EXIT_SECONDS
        with contextlib.suppress(OSError):
            while entry.exists() and time.monotonic() < end:
                time.sleep(0)
