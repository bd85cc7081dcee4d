"""One worker process, and the coordinator's ends of what it shares with it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Final

from evproc_pool.internals.stdlib_multiprocessing import release
from evproc_pool.ipc.channel import Channel
from evproc_pool.ipc.shared_memory import SharedMemory
from evproc_pool.ipc.stack_dumps import StackDumpFile
from evproc_pool.ipc.status_memory import StatusMemory
from evproc_pool.protocol.backend import Gone, Link
from evproc_pool.protocol.status_words import WorkerStatus
from evproc_pool.worker import reporter, soft_timeout

if TYPE_CHECKING:
    import psutil

# How long to wait for a process to stop after SIGSTOP, in seconds.
_STOP_SECONDS: Final = 0.1

# The exit code of a process where nobody knows it.
_UNKNOWN: Final = 255


class Member:
    """A worker process.

    Attributes:
        number: Which worker.
        process: Its process.
        channel: To the worker.
        words: The status words of the worker, or None.
        stacks: The file into which it writes its stacks when it crashes or is asked, or None.
        answered_bytes: How much of that file is the answer to a request.
        parent_watch: The descriptor whose end the worker notices as parent death, or None.
        link: To this worker alone; made when needed.
        shared_memory: The memory that it shares with the coordinator, or None.
        pidfd: A descriptor of the process, or None.
        sentinels: Descriptors that can be read from when the process is dead.
    """

    __slots__ = (
        "_handle",
        "answered_bytes",
        "channel",
        "link",
        "number",
        "parent_watch",
        "pidfd",
        "process",
        "sentinels",
        "shared_memory",
        "stacks",
        "words",
    )

    def __init__(
        self,
        number: int,
        process: BaseProcess,
        channel: Channel,
        words: StatusMemory | None,
        stacks: StackDumpFile | None,
        *,
        parent_watch: int | None,
        shared_memory: SharedMemory | None,
    ) -> None:
        self.number = number
        self.process = process
        self.channel = channel
        self.words = words
        self.stacks = stacks
        self.parent_watch = parent_watch
        self.shared_memory = shared_memory
        self.link: Link | None = None
        self.answered_bytes = 0
        self._handle: psutil.Process | None = None
        self.pidfd: int | None = None
        self.sentinels: list[int] = []
        if sys.platform != "win32":
            self.sentinels.append(process.sentinel)
        if hasattr(os, "pidfd_open") and process.pid is not None:
            # Except with forkserver, the sentinel of multiprocessing is a pipe that a
            # child of the worker holds open as well; this is the process itself.
            with contextlib.suppress(OSError):
                self.pidfd = os.pidfd_open(process.pid)
                self.sentinels.append(self.pidfd)
        if self.pidfd is None:
            self._handle = self._find()

    @property
    def handle(self) -> psutil.Process | None:
        """The process, for signals: never a later process with the same id; None: it is gone.

        Looked up when it is first needed, since psutil takes a while to import. Without a
        pidfd, which shows whether the process was still there then, it is looked up at once.
        """
        if self._handle is None and self.pidfd is not None:
            found = self._find()
            if not select.select([self.pidfd], [], [], 0)[0]:
                self._handle = found
        return self._handle

    def _find(self) -> psutil.Process | None:
        import psutil

        with contextlib.suppress(psutil.Error):
            return psutil.Process(self.process.pid)
        return None

    # --- while it is alive ---

    def memory_bytes(self) -> int:
        """Its resident memory; 0 if it is gone."""
        process = self.handle
        if process is not None:
            import psutil

            with contextlib.suppress(psutil.Error):
                size: int = process.memory_info().rss
                return size
        return 0

    def ask_for_report(self) -> None:
        """See `backend.Backend`."""
        if self.pidfd is not None and reporter.SIGNAL is not None:
            with contextlib.suppress(OSError):  # it has died by itself
                signal.pidfd_send_signal(self.pidfd, reporter.SIGNAL)

    def strike(self, seen: WorkerStatus, *, is_again: bool) -> None:
        """See `LocalBackend.strike`."""
        process = self.handle
        if self.words is None or process is None or soft_timeout.SIGNAL is None:
            return
        if not is_again:
            self.words.strike(seen)
        elif not self.words.is_struck(seen):
            return
        import psutil

        with contextlib.suppress(psutil.Error):  # it has died by itself
            process.send_signal(soft_timeout.SIGNAL)

    def kill_stuck(self, seen: WorkerStatus) -> str | None:
        """See `LocalBackend.kill_stuck`."""
        process = self.handle
        if self.words is None or process is None:
            return None
        import psutil

        stack = ""
        try:
            if self.stacks is not None:
                stack = self.stacks.ask(process)
                self.answered_bytes = self.stacks.size_bytes
            # so that it neither moves on nor starts another process meanwhile
            process.suspend()
            _await_stop(process)
            now = self.words.read()
            if now.activity != seen.activity or not now.runs_code:
                process.resume()
                return None
            descendants = process.children(recursive=True)
            process.kill()
        except psutil.Error:
            with contextlib.suppress(psutil.Error):
                process.resume()
            return None  # it has died by itself
        for each in descendants:
            with contextlib.suppress(psutil.Error):
                each.kill()
        return stack

    # --- its end ---

    def join(self, most_seconds: float) -> None:
        """Wait until the process is dead; kill it if it closed its channel and takes longer.

        Args:
            most_seconds: How long it may take then.
        """
        if self.channel.at_end:
            # It closed its end: it is dead or about to be, or a handler closed a descriptor
            # that it did not own. In each case it is of no more use.
            self.process.join(most_seconds)
            if self.process.exitcode is None:
                self.process.kill()
        self.process.join()

    def gone(self) -> Gone:
        """Describe how it ended; the process must be dead."""
        progress = self.words.read() if self.words is not None else None
        stack = self.stacks.read(self.answered_bytes) if self.stacks is not None else ""
        return Gone(self.number, self.process.pid, self.process.exitcode, progress, stack)

    def close(self) -> None:
        """Close everything; the process must be dead."""
        self.channel.close()
        if self.words is not None:
            self.words.close()
        if self.stacks is not None:
            self.stacks.close()
        if self.parent_watch is not None:
            os.close(self.parent_watch)
        if self.shared_memory is not None:
            self.shared_memory.close()
        if self.pidfd is not None:
            os.close(self.pidfd)
        release(self.process, _UNKNOWN)


def start(process: BaseProcess) -> None:
    """Start a process.

    Raises:
        OSError: It cannot be started.
    """
    try:
        process.start()
    except (EOFError, ConnectionError) as error:
        # multiprocessing's words for it
        raise OSError(
            "the forkserver has died; look at what it imports: what"
            " multiprocessing.set_forkserver_preload names, and with preload=True the handlers'"
            " modules, by default NumPy and SciPy where this program has imported them"
            " (preload=False: nothing)"
        ) from error


def abandon(process: BaseProcess) -> None:
    """End a process for which there will be no `Member`, if it was started."""
    if process.pid is not None:
        process.kill()
        process.join()
        process.close()


def _await_stop(process: psutil.Process) -> None:
    """Wait until a process that was sent SIGSTOP has stopped, which is soon."""
    import psutil

    end = time.monotonic() + _STOP_SECONDS
    while process.status() != psutil.STATUS_STOPPED and time.monotonic() < end:
        time.sleep(0)
