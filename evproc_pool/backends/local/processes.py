"""The backend of local processes: starts workers, moves frames, notices deaths.

One socket pair per worker and nothing shared between workers, so a worker that
is killed in the middle of a write spoils its own channel only. `poll` waits on
all channels, on the processes themselves (a dead worker does not write, and one
of its own children may keep its socket open) and on a wake-up from other threads.
"""

from __future__ import annotations

import contextlib
import os
import select
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Final

from evproc_pool.backends.local.start_methods import (
    ProcessName,
    disown,
    fresh,
    has_started,
    own,
    prepared,
    uninterrupted,
)
from evproc_pool.ipc.channel import CAN_WAIT, Channel
from evproc_pool.ipc.parent_death import CAN_KILL, ParentWatch
from evproc_pool.ipc.resources import WorkerResources
from evproc_pool.ipc.shared_memory import SharedMemory
from evproc_pool.ipc.stack_dumps import StackDumpFile
from evproc_pool.ipc.status_memory import IS_SUPPORTED, StatusMemory
from evproc_pool.protocol import messages
from evproc_pool.protocol.backend import Arrived, Gone
from evproc_pool.protocol.frame import Data
from evproc_pool.protocol.status_words import WorkerStatus
from evproc_pool.worker import reporter
from evproc_pool.worker.entry import enter
from evproc_pool.worker.soft_timeout import SIGNAL

if TYPE_CHECKING:
    import psutil

# How long a worker may take to end by itself once it was told to, in seconds.
# Idle workers end at once; this is for one whose handlers left threads behind.
_QUIT_SECONDS: Final = 5.0

# How long to wait for a process to stop that was told to, in seconds.
_STOP_SECONDS: Final = 0.1

# How long to wait for the exit status of a process whose socket is closed.
_REAP_SECONDS: Final = 5.0


class _Member:
    """A worker process and the coordinator's ends of what it shares with it.

    Attributes:
        number: Which worker.
        process: Its process.
        channel: To it.
        words: Where it is.
        stacks: Where its stacks go when it crashes, or is asked for them.
        answered_bytes: How much of that was in answer to being asked.
        parent_watch: The descriptor on which its life hangs, or None.
        link: To this worker alone; made when needed.
        shared_memory: The memory that it shares with the coordinator, or None.
        pidfd: A descriptor of the process, or None.
        sentinels: Descriptors that can be read from when it is dead.
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
            # But for forkserver, the sentinel of multiprocessing is a pipe that a
            # child of the worker holds open as well; this is the process itself.
            with contextlib.suppress(OSError):
                self.pidfd = os.pidfd_open(process.pid)
                self.sentinels.append(self.pidfd)
        if self.pidfd is None:
            self._handle = self._find()

    @property
    def handle(self) -> psutil.Process | None:
        """The process, for signals: never another one that got its id later on; None: it is gone.

        Looked up when it is first needed, since psutil takes a while to import. Where nobody
        can say whether the process was still there then, it was looked up at once.
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

    def close(self) -> None:
        """Let go of everything; the process must be dead."""
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
        popen = self.process._popen  # type: ignore[attr-defined]  # noqa: SLF001 - no public way
        if popen is not None:
            if popen.returncode is None:
                # The application has waited for it, or ignores SIGCHLD: `multiprocessing`
                # cannot, and would take it for alive for ever.
                popen.returncode = _UNKNOWN
            # Not `process.close`: this may be a garbage collection that strikes while
            # `multiprocessing` goes through its children, and trips over a closed one.
            popen.close()
            disown(self.process)


# What an answer takes at the most that comes quickly. So long others may have to wait.
_QUICK_SECONDS: Final = 0.001


class Link:
    """See `backend.Link`. With as few calls as can be: in a process that has slept each takes long.

    Where the last answer came quickly, the next one is waited for in a way that is quicker
    yet, but in which nothing else is noticed meanwhile.

    Args:
        member: The worker.
        wake: What can be read from when somebody wants something.
        watch: Called where not all could be written at once.
    """

    __slots__ = ("_channel", "_found", "_is_quick", "_member", "_poll", "_watch", "receive")

    def __init__(
        self, member: _Member, wake: socket.socket, watch: Callable[[_Member], None]
    ) -> None:
        self._member = member
        self._channel = member.channel
        self._watch = watch
        poller = select.poll()
        for each in (member.channel.fileno(), *member.sentinels, wake.fileno()):
            poller.register(each, select.POLLIN)
        self._poll = poller.poll
        # what it finds when there is something to be read, and nothing else
        self._found = [(member.channel.fileno(), select.POLLIN)]
        self.receive = member.channel.receive
        self._is_quick = False

    def send(self, tag: int, payload: Data, buffers: Sequence[memoryview] = ()) -> None:
        """See `backend.Link`."""
        self._channel.send(tag, payload, buffers)
        if self._channel.outgoing:
            self._watch(self._member)

    def wait(self, seconds: float) -> bool:
        """See `backend.Link`."""
        began = time.perf_counter()
        is_there = self._is_quick and seconds > _QUICK_SECONDS and self._channel.wait()
        if not is_there:
            left = max(0.0, seconds + began - time.perf_counter())
            is_there = self._poll(left * 1000) == self._found
        self._is_quick = CAN_WAIT and is_there and time.perf_counter() - began < _QUICK_SECONDS
        return is_there


# What a process's exit code is where nobody can say.
_UNKNOWN: Final = 255


class LocalBackend:
    """Worker processes on this machine.

    One thread at a time may use it, but for `wake`, which any may call.

    Args:
        context: By which they are started.
        modules: What a forkserver imports for them.
    """

    def __init__(self, context: BaseContext, modules: Sequence[str] = ()) -> None:
        self._context = context
        self._modules = modules
        self._members: dict[int, _Member] = {}
        # workers that closed their channel, with the time at which they are killed
        self._ending: dict[int, float] = {}
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)
        self._selector.register(self._wake_read, selectors.EVENT_READ, None)
        self._wake_selector = selectors.DefaultSelector()
        self._wake_selector.register(self._wake_read, selectors.EVENT_READ)

    @property
    def numbers(self) -> list[int]:
        """The workers that were started and are not known to be gone."""
        return list(self._members)

    def pid(self, number: int) -> int | None:
        """The process id of a worker; None if it is gone."""
        member = self._members.get(number)
        return None if member is None else member.process.pid

    def start(self, number: int, config: bytes) -> None:
        """Start a worker process; its first frame says whether it is ready.

        Raises:
            OSError: The process cannot be started. Nothing is left of it.
        """
        with contextlib.ExitStack() as on_failure, contextlib.ExitStack() as in_any_case:
            ours, theirs = socket.socketpair()
            on_failure.callback(ours.close)
            in_any_case.callback(theirs.close)
            words = stacks = parent_watch = line = None
            if IS_SUPPORTED:
                words = StatusMemory.create()
                on_failure.callback(words.close)
                stacks = StackDumpFile.create()
                on_failure.callback(stacks.close)
            if CAN_KILL:
                parent_watch, line = ParentWatch.create()
                on_failure.callback(os.close, line)
                in_any_case.callback(parent_watch.close)
            memory = SharedMemory.create()
            if memory is not None:
                on_failure.callback(memory.close)
            to_close = self._inherited(ours, line) if self._is_fork else ()
            context = fresh(self._context)
            process: BaseProcess = context.Process(  # type: ignore[attr-defined]  # each context has it
                target=enter,
                args=(theirs, WorkerResources(words, stacks, parent_watch, memory), to_close),
                name=ProcessName(f"evproc-worker-{number}"),
            )
            on_failure.callback(_abandon, process)
            # the first one may have to wait for a forkserver, as long as that takes to start
            in_a_moment = uninterrupted() if has_started(context) else contextlib.nullcontext()
            with prepared(context, self._modules), in_a_moment:
                _start(process)
            own(process)
            on_failure.pop_all()
        channel = Channel(ours, memory)
        member = _Member(
            number, process, channel, words, stacks, parent_watch=line, shared_memory=memory
        )
        self._members[number] = member
        self._selector.register(ours, selectors.EVENT_READ, member)
        for sentinel in member.sentinels:
            self._selector.register(sentinel, selectors.EVENT_READ, member)
        self.send(number, messages.CONFIG, config)

    @property
    def _is_fork(self) -> bool:
        return self._context.get_start_method() == "fork"

    def _inherited(self, ours: socket.socket, line: int | None) -> tuple[int, ...]:
        """What a forked child gets of us and must close."""
        mine = [self._wake_read.fileno(), self._wake_write.fileno(), ours.fileno()]
        theirs = [member.channel.fileno() for member in self._members.values()]
        lines = [line, *(member.parent_watch for member in self._members.values())]
        return (*mine, *theirs, *(each for each in lines if each is not None))

    def send(
        self,
        number: int,
        tag: int,
        payload: Data,
        buffers: Sequence[memoryview] = (),
        *,
        may_refer: bool = False,
    ) -> None:
        """Queue a frame for a worker; what does not fit now is written by `poll`.

        A frame for a worker whose death `poll` has found already is dropped: the
        caller is about to come to the `Gone` of the same poll.
        """
        member = self._members.get(number)
        if member is None:
            return
        member.channel.send(tag, payload, buffers, may_refer=may_refer)
        if member.channel.outgoing and not member.channel.at_end:
            self._watch(member)

    def link(self, number: int) -> Link | None:
        """See `backend.Backend`."""
        member = self._members.get(number)
        if member is None or not hasattr(select, "poll") or member.channel.outgoing:
            return None
        if member.link is None:
            member.link = Link(member, self._wake_read, self._watch)
        return member.link

    def _watch(self, member: _Member) -> None:
        events = selectors.EVENT_READ
        if member.channel.outgoing:
            events |= selectors.EVENT_WRITE
        self._selector.modify(member.channel, events, member)

    def look_at(self, number: int) -> WorkerStatus | None:
        """Where a worker is; None where that cannot be known."""
        member = self._members.get(number)
        return None if member is None or member.words is None else member.words.read()

    def take_back(self, number: int, seen: WorkerStatus, newest: int) -> bool:
        """See `status_words.StatusWords.take_back`."""
        member = self._members.get(number)
        return (
            member is not None and member.words is not None and member.words.take_back(seen, newest)
        )

    def ask_back(self, number: int, newest: int) -> None:
        """See `status_words.StatusWords.ask_back`."""
        member = self._members.get(number)
        if member is not None and member.words is not None:
            member.words.ask_back(newest)

    def ask_for_report(self, number: int) -> None:
        """See `backend.Backend`."""
        member = self._members.get(number)
        if member is not None and member.pidfd is not None and reporter.SIGNAL is not None:
            with contextlib.suppress(OSError):  # it has died by itself
                signal.pidfd_send_signal(member.pidfd, reporter.SIGNAL)

    def strike(self, number: int, seen: WorkerStatus, *, is_again: bool) -> None:
        """Have a worker raise the soft timeout in the event that it is at; see `soft_timeout`.

        Args:
            number: Which worker.
            seen: Where it was.
            is_again: Whether it was told before; then it is only if it has not raised it.
        """
        member = self._members.get(number)
        process = None if member is None else member.handle
        if member is None or member.words is None or process is None or SIGNAL is None:
            return
        if not is_again:
            member.words.strike(seen)
        elif not member.words.is_struck(seen):
            return
        import psutil

        with contextlib.suppress(psutil.Error):  # it has died by itself
            process.send_signal(SIGNAL)

    def kill_stuck(self, number: int, seen: WorkerStatus) -> str | None:
        """Kill a worker that is still at an event, with all its descendants.

        Args:
            number: Which worker.
            seen: Where it was.

        Returns:
            Its stacks, as text, maybe empty. None if it has moved on, and lives.
        """
        member = self._members.get(number)
        process = None if member is None else member.handle
        if member is None or member.words is None or process is None:
            return None
        import psutil

        stack = ""
        try:
            if member.stacks is not None:
                stack = member.stacks.ask(process)
                member.answered_bytes = member.stacks.size_bytes
            # so that it neither moves on nor starts another process meanwhile
            process.suspend()
            _await_stop(process)
            now = member.words.read()
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

    def memory_bytes(self, number: int) -> int:
        """The resident memory of a worker; 0 if it is gone."""
        member = self._members.get(number)
        process = None if member is None else member.handle
        if process is not None:
            import psutil

            with contextlib.suppress(psutil.Error):
                size: int = process.memory_info().rss
                return size
        return 0

    def wake(self) -> None:
        """Let a `poll` in another thread, or the next one, return."""
        # full: it will wake anyway; closed: nobody polls any more
        with contextlib.suppress(OSError):
            self._wake_write.send(b"\0")

    def rest(self, seconds: float) -> None:
        """Wait, whatever workers do meanwhile; `wake` ends it."""
        self._wake_selector.select(seconds)

    @property
    def is_writing(self) -> bool:
        """Whether there is more to send than the workers have taken so far."""
        return any(member.channel.outgoing for member in self._members.values())

    def poll(self, timeout: float | None) -> list[Arrived | Gone]:
        """Wait until something happens, and say what.

        Args:
            timeout: Seconds; None waits for ever, 0 only looks.
        """
        happened: list[Arrived | Gone] = []
        dead: dict[int, _Member] = {}
        for key, events in self._selector.select(self._until_overdue(timeout)):
            member: _Member | None = key.data
            if member is None:
                with contextlib.suppress(BlockingIOError):
                    self._wake_read.recv(4096)
                continue
            if isinstance(key.fileobj, int):  # a sentinel
                dead[member.number] = member
                continue
            if events & selectors.EVENT_WRITE:
                member.channel.flush()
                self._watch(member)
            if events & selectors.EVENT_READ:
                happened += self._receive(member)
                if member.channel.at_end and member.sentinels:
                    self._await_end(member)
                elif member.channel.at_end:
                    dead[member.number] = member
        for member in dead.values():
            happened += self._bury(member)
        return happened

    def _await_end(self, member: _Member) -> None:
        """A worker has closed its channel: it is about to end, which may take a while.

        Its threads or children may keep it; or a handler closed what it did not own.
        In each case it is of no more use.
        """
        self._selector.unregister(member.channel)
        self._ending[member.number] = time.monotonic() + _REAP_SECONDS

    def _until_overdue(self, timeout: float | None) -> float | None:
        """Kill workers that do not come to an end; a timeout in which none would be missed."""
        if self._ending:
            now = time.monotonic()
            for number, deadline in list(self._ending.items()):
                if now < deadline:
                    left = deadline - now
                    timeout = left if timeout is None else min(timeout, left)
                    continue
                del self._ending[number]
                member = self._members.get(number)
                if member is not None:
                    member.process.kill()
        return timeout

    def _receive(self, member: _Member, *most_bytes: float) -> list[Arrived]:
        return [Arrived(member.number, *frame) for frame in member.channel.receive(*most_bytes)]

    def _bury(self, member: _Member) -> list[Arrived | Gone]:
        """Read what is left of a dead worker, and let go of it."""
        process = member.process
        if member.channel.at_end:
            # it closed its end: dead, or about to be, or a handler closed what it
            # did not own; in each case it is of no more use
            process.join(_REAP_SECONDS)
            if process.exitcode is None:
                process.kill()
        process.join()
        happened: list[Arrived | Gone] = [*self._receive(member, float("inf"))]
        progress = member.words.read() if member.words is not None else None
        stack = member.stacks.read(member.answered_bytes) if member.stacks is not None else ""
        happened.append(Gone(member.number, process.pid, process.exitcode, progress, stack))
        self._forget(member)
        return happened

    def _forget(self, member: _Member) -> None:
        del self._members[member.number]
        self._ending.pop(member.number, None)
        registered: list[Channel | int] = [member.channel, *member.sentinels]
        for each in registered:
            # one that an interrupt kept from being registered
            with contextlib.suppress(KeyError):
                self._selector.unregister(each)
        member.close()

    def quit(self, most_seconds: float) -> None:
        """Tell idle workers to end, wait for them, though not for long, and close everything."""
        for member in self._members.values():
            member.channel.send(messages.QUIT, b"")
        self._end(min(_QUIT_SECONDS, most_seconds))

    def kill(self) -> None:
        """Kill all workers and close everything."""
        self._end(0)

    def _end(self, grace_seconds: float) -> None:
        members = list(self._members.values())
        deadline = time.monotonic() + grace_seconds
        for member in members:
            member.process.join(max(0.0, deadline - time.monotonic()))
            if member.process.exitcode is None:
                member.process.kill()
        for member in members:
            member.process.join()
            self._forget(member)
        self._selector.close()
        self._wake_selector.close()
        self._wake_read.close()
        self._wake_write.close()


def _start(process: BaseProcess) -> None:
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


def _abandon(process: BaseProcess) -> None:
    """End a process that nobody is going to know, if it was started."""
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
