"""One worker process, the coordinator's ends of what it shares, and a direct way to it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from math import inf
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Final

from evproc_pool.internals.stdlib_multiprocessing import exit_code, release, seem_dead
from evproc_pool.ipc.channel import CAN_WAIT, Channel
from evproc_pool.ipc.parent_death import CAN_KILL
from evproc_pool.ipc.resources import WorkerResources
from evproc_pool.protocol.backend import Gone, Link
from evproc_pool.protocol.frame import Data
from evproc_pool.protocol.status_words import WorkerStatus
from evproc_pool.worker import reporter, soft_timeout

if TYPE_CHECKING:
    import psutil

# How long to wait for a process to stop after SIGSTOP, in seconds.
_STOP_SECONDS: Final = 0.1

# The same where nobody can see it.
_UNSEEN_STOP_SECONDS: Final = 0.01

# The exit code of a process where nobody knows it.
_UNKNOWN: Final = 255

_OTHER_USER: Final = (
    "this process may not end its workers, since it has changed its user: change it before the"
    " pool's first call"
)

# A quick answer takes no longer, in seconds. Others may have to wait as long.
_QUICK_SECONDS: Final = 0.001


class WorkerProcess:
    """A worker process.

    Args:
        number: Which worker.
        process: Its process.
        channel: To the worker.
        resources: What else it shares with the coordinator.
        owned: Closes channel and resources.
    """

    def __init__(
        self,
        number: int,
        process: BaseProcess,
        channel: Channel,
        resources: WorkerResources,
        *,
        owned: contextlib.ExitStack,
    ) -> None:
        self.number = number
        self.process = process
        self.channel = channel
        self.words = resources.words
        self.shared_memory = resources.shared_memory
        self.link: Link | None = None  # to this worker alone; made when needed
        self._stacks = resources.stacks
        self._answered_bytes = 0  # how much of the stacks is the answer to a request
        self._owned = owned
        self._handle: psutil.Process | None = None
        self._pidfd: int | None = None
        #: Can be read from when the process is dead; None: not known here.
        self.sentinel: int | None = None
        if hasattr(os, "pidfd_open") and process.pid is not None:
            # The sentinel of multiprocessing is a pipe. A child of the worker holds it open as
            # well; or the forkserver does, whose death closes it. This is the process itself.
            with contextlib.suppress(OSError):
                self.sentinel = self._pidfd = os.pidfd_open(process.pid)
                owned.callback(os.close, self._pidfd)
        if self._pidfd is None:
            self.sentinel = process.sentinel if sys.platform != "win32" else None
            self._handle = self._find()

    @property
    def handle(self) -> psutil.Process | None:
        """The process, for signals: never a later process with the same id; None: it is gone.

        Looked up when it is first needed, since psutil takes a while to import. Without a
        pidfd, which shows whether the process was still there then, it is looked up at once.
        """
        if self._handle is None and self._pidfd is not None:
            found = self._find()
            if not self.wait(0):
                self._handle = found
        return self._handle

    def _find(self) -> psutil.Process | None:
        # OSError: no descriptor is left
        with contextlib.suppress(OSError):
            import psutil

            with contextlib.suppress(psutil.Error):
                return psutil.Process(self.process.pid)
        return None

    def _signal(self, number: int) -> None:
        """Send a signal, if the process is there."""
        if self._pidfd is not None:
            with contextlib.suppress(OSError):  # it has died by itself, or is another user's
                signal.pidfd_send_signal(self._pidfd, number)
        elif self.handle is not None:
            import psutil

            with contextlib.suppress(psutil.Error):
                self.handle.send_signal(number)

    # --- while it is alive ---

    def memory_bytes(self) -> int:
        """Its resident memory; 0 if it is gone."""
        process = self.handle
        if process is not None:
            import psutil

            with contextlib.suppress(psutil.Error, OSError):
                size: int = process.memory_info().rss
                return size
        return 0

    def ask_for_report(self) -> None:
        """See `Backend`."""
        if self._pidfd is not None and reporter.SIGNAL is not None:
            self._signal(reporter.SIGNAL)

    def raise_soft_timeout(self, seen: WorkerStatus, *, is_again: bool) -> None:
        """See `Backend`."""
        if self.words is None or soft_timeout.SIGNAL is None:
            return
        if not is_again:
            self.words.strike(seen)
        elif not self.words.is_struck(seen):
            return
        self._signal(soft_timeout.SIGNAL)

    def kill_stuck(self, seen: WorkerStatus) -> str | None:
        """See `Backend`."""
        if self.words is None or self.wait(0):
            return None
        stack = ""
        self.ask_for_report()  # which also flushes what other events have printed
        if self._stacks is not None:
            stack = self._stacks.ask(self._signal)
            self._answered_bytes = self._stacks.size_bytes
        # so that it neither moves on nor starts another process meanwhile
        self._signal(signal.SIGSTOP)
        descendants = self._wait_until_stopped()
        now = self.words.read()
        # Dead by now: of the request for its stacks, which reads those of running threads. So it
        # was stuck all the same.
        if now.activity != seen.activity or not now.runs_code:
            self._signal(signal.SIGCONT)
            return None
        self.kill()
        if descendants:
            import psutil

            for each in descendants:
                with contextlib.suppress(psutil.Error, OSError):
                    each.kill()
        return stack

    def _wait_until_stopped(self) -> list[psutil.Process]:
        """Wait until the process has stopped; return its descendants, if that can be seen here."""
        process = self.handle
        if process is None:
            time.sleep(_UNSEEN_STOP_SECONDS)  # no /proc, or no descriptor is left
            return []
        import psutil

        with contextlib.suppress(psutil.Error, OSError):
            end = time.monotonic() + _STOP_SECONDS
            while process.status() != psutil.STATUS_STOPPED and time.monotonic() < end:
                time.sleep(0)
            found: list[psutil.Process] = process.children(recursive=True)
            return found
        return []

    # --- its end ---

    def join(self, most_seconds: float) -> None:
        """Wait until the process is dead.

        Kills it if it has closed its channel and takes longer than `most_seconds`.
        """
        # If it closed its end, it is dead or about to be, or a handler closed a descriptor that it
        # did not own. In each case it is of no more use.
        if self.channel.at_end and not self.wait(most_seconds):
            self.kill()
        self.wait(inf)

    def wait(self, seconds: float) -> bool:
        """Wait so long until the process is dead; return whether it is."""
        most = None if seconds == inf else seconds
        if self._pidfd is not None:  # the forkserver, which multiprocessing asks, may be dead
            return bool(connection.wait([self._pidfd], most))
        self.process.join(most)
        return self.process.exitcode is not None

    def kill(self) -> None:
        """Kill the process, or do nothing if it is dead.

        Raises:
            PermissionError: This process has changed its user since it started the worker, and
                the kernel does not do it either.
        """
        try:
            if self._pidfd is not None:
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            else:
                self.process.kill()
        except ProcessLookupError:
            pass
        except PermissionError as error:
            if not (CAN_KILL and seem_dead(self.process)):
                error.add_note(_OTHER_USER)
                raise

    def gone(self) -> Gone:
        """Describe how it ended; the process must be dead."""
        progress = self.words.read() if self.words is not None else None
        stack = self._stacks.read(self._answered_bytes) if self._stacks is not None else ""
        return Gone(self.number, self.process.pid, exit_code(self.process), progress, stack)

    def close(self) -> None:
        """Close everything; the process must be dead."""
        self._owned.close()
        exit_code(self.process)  # so that it is no zombie
        release(self.process, _UNKNOWN)


class DirectLink:
    """See `backend.Link`. Makes few calls: in a process that has slept each call takes long.

    After an answer that came quickly, it waits for the next one in a call that is quicker
    yet, but notices nothing else meanwhile.

    Args:
        worker: Its process.
        wake: A socket that can be read from when somebody wants something.
        watch: Called if a frame could not be written at once.
    """

    __slots__ = ("_channel", "_found", "_is_quick", "_poll", "_watch", "_worker", "receive")

    def __init__(
        self, worker: WorkerProcess, wake: socket.socket, watch: Callable[[WorkerProcess], None]
    ) -> None:
        self._worker = worker
        self._channel = worker.channel
        self._watch = watch
        poller = select.poll()
        for each in (worker.channel.fileno(), worker.sentinel, wake.fileno()):
            if each is not None:
                poller.register(each, select.POLLIN)
        self._poll = poller.poll
        # the result when the channel can be read from, and nothing else has happened
        self._found = [(worker.channel.fileno(), select.POLLIN)]
        self.receive = worker.channel.receive
        self._is_quick = False

    def send(self, tag: int, payload: Data, buffers: Sequence[memoryview] = ()) -> None:
        """See `backend.Link`."""
        self._channel.send(tag, payload, buffers)
        if self._channel.outgoing:
            self._watch(self._worker)

    def wait(self, seconds: float) -> bool:
        """See `backend.Link`."""
        began = time.perf_counter()
        is_there = self._is_quick and seconds > _QUICK_SECONDS and self._channel.wait()
        if not is_there:
            left = max(0.0, seconds + began - time.perf_counter())
            is_there = self._poll(left * 1000) == self._found
        self._is_quick = CAN_WAIT and is_there and time.perf_counter() - began < _QUICK_SECONDS
        return is_there
