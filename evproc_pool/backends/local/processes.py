"""The backend of local processes: starts workers, moves frames, notices deaths.

One socket pair per worker and nothing shared between workers, so a worker that
is killed in the middle of a write spoils its own channel only. `poll` waits on
all channels, on the processes themselves (a dead worker does not write, and one
of its own children may keep its socket open) and on a wake-up from other threads.

`member` has one worker process, and `link` the quick way to it.
"""

from __future__ import annotations

import contextlib
import os
import select
import selectors
import socket
import time
from collections.abc import Sequence
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Final

from evproc_pool.backends.local.link import DirectLink
from evproc_pool.backends.local.member import Member, abandon, start
from evproc_pool.backends.local.start_methods import (
    fresh,
    has_started,
    own,
    prepared,
    uninterrupted,
)
from evproc_pool.internals.stdlib_multiprocessing import ProcessName
from evproc_pool.ipc.channel import Channel
from evproc_pool.ipc.parent_death import CAN_KILL, ParentWatch
from evproc_pool.ipc.resources import WorkerResources
from evproc_pool.ipc.shared_memory import SharedMemory
from evproc_pool.ipc.stack_dumps import StackDumpFile
from evproc_pool.ipc.status_memory import IS_SUPPORTED, StatusMemory
from evproc_pool.protocol import messages
from evproc_pool.protocol.backend import Arrived, Gone, Link
from evproc_pool.protocol.frame import Data
from evproc_pool.protocol.status_words import WorkerStatus
from evproc_pool.worker.entry import enter

# How long a worker may take to end by itself after a request, in seconds.
# Idle workers end at once; one whose handlers left threads behind takes longer.
_QUIT_SECONDS: Final = 5.0

# How long to wait for the exit status of a process whose socket is closed.
_REAP_SECONDS: Final = 5.0


class LocalBackend:
    """Worker processes on this machine.

    One thread at a time may use it, except for `wake`, which any thread may call.

    Args:
        context: Starts them.
        modules: The modules that a forkserver imports for them.
    """

    def __init__(self, context: BaseContext, modules: Sequence[str] = ()) -> None:
        self._context = context
        self._modules = modules
        self._members: dict[int, Member] = {}
        # workers that closed their channel, and when to kill each
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
        # the first process may have to wait until a forkserver has started
        in_a_moment = has_started(fresh(self._context))
        with uninterrupted() if in_a_moment else contextlib.nullcontext():
            self._start(number, config)

    def _start(self, number: int, config: bytes) -> None:
        with contextlib.ExitStack() as on_failure, contextlib.ExitStack() as in_any_case:
            ours, theirs = socket.socketpair()
            on_failure.callback(ours.close)
            in_any_case.callback(theirs.close)
            words = stacks = parent_watch = watch_end = None
            if IS_SUPPORTED:
                words = StatusMemory.create()
                on_failure.callback(words.close)
                stacks = StackDumpFile.create()
                on_failure.callback(stacks.close)
            if CAN_KILL:
                parent_watch, watch_end = ParentWatch.create()
                on_failure.callback(os.close, watch_end)
                in_any_case.callback(parent_watch.close)
            memory = SharedMemory.create()
            if memory is not None:
                on_failure.callback(memory.close)
            to_close = self._inherited(ours, watch_end) if self._is_fork else ()
            context = fresh(self._context)
            process: BaseProcess = context.Process(  # type: ignore[attr-defined]  # each context has it
                target=enter,
                args=(theirs, WorkerResources(words, stacks, parent_watch, memory), to_close),
                name=ProcessName(f"evproc-worker-{number}"),
            )
            on_failure.callback(abandon, process)
            # the first process may have to wait until a forkserver has started
            in_a_moment = uninterrupted() if has_started(context) else contextlib.nullcontext()
            with prepared(context, self._modules), in_a_moment:
                start(process)
            own(process)
            on_failure.pop_all()
        channel = Channel(ours, memory)
        member = Member(
            number, process, channel, words, stacks, parent_watch=watch_end, shared_memory=memory
        )
        self._members[number] = member
        self._selector.register(ours, selectors.EVENT_READ, member)
        for sentinel in member.sentinels:
            self._selector.register(sentinel, selectors.EVENT_READ, member)
        self.send(number, messages.CONFIG, config)

    @property
    def _is_fork(self) -> bool:
        return self._context.get_start_method() == "fork"

    def _inherited(self, ours: socket.socket, watch_end: int | None) -> tuple[int, ...]:
        """The descriptors that a forked child inherits and must close."""
        mine = [self._wake_read.fileno(), self._wake_write.fileno(), ours.fileno()]
        theirs = [member.channel.fileno() for member in self._members.values()]
        ends = [watch_end, *(member.parent_watch for member in self._members.values())]
        return (*mine, *theirs, *(each for each in ends if each is not None))

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
            member.link = DirectLink(member, self._wake_read, self._watch)
        return member.link

    def _watch(self, member: Member) -> None:
        events = selectors.EVENT_READ
        if member.channel.outgoing:
            events |= selectors.EVENT_WRITE
        self._selector.modify(member.channel, events, member)

    def look_at(self, number: int) -> WorkerStatus | None:
        """The place of a worker; None if nobody can know it."""
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
        if member is not None:
            member.ask_for_report()

    def strike(self, number: int, seen: WorkerStatus, *, is_again: bool) -> None:
        """Have a worker raise the soft timeout in the event that it is at; see `soft_timeout`.

        Args:
            number: Which worker.
            seen: The place at which it was.
            is_again: Whether this repeats a request; then it counts only if the worker has
                not raised the timeout yet.
        """
        member = self._members.get(number)
        if member is not None:
            member.strike(seen, is_again=is_again)

    def kill_stuck(self, number: int, seen: WorkerStatus) -> str | None:
        """Kill a worker that is still at an event, with all its descendants.

        Args:
            number: Which worker.
            seen: The place at which it was.

        Returns:
            Its stacks, as text, maybe empty. None if it has moved on, and lives.
        """
        member = self._members.get(number)
        return None if member is None else member.kill_stuck(seen)

    def memory_bytes(self, number: int) -> int:
        """The resident memory of a worker; 0 if it is gone."""
        member = self._members.get(number)
        return 0 if member is None else member.memory_bytes()

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
        """Wait until something happens.

        Args:
            timeout: Seconds; None waits for ever, 0 does not wait.

        Returns:
            What has happened, in order; empty if nothing has.
        """
        happened: list[Arrived | Gone] = []
        dead: dict[int, Member] = {}
        for key, events in self._selector.select(self._until_overdue(timeout)):
            member: Member | None = key.data
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

    def _await_end(self, member: Member) -> None:
        """Give a worker that has closed its channel a while to end.

        Its threads or children may keep it; or a handler closed a descriptor that it did not
        own. In each case it is of no more use.
        """
        self._selector.unregister(member.channel)
        self._ending[member.number] = time.monotonic() + _REAP_SECONDS

    def _until_overdue(self, timeout: float | None) -> float | None:
        """Kill workers that take too long to end.

        Returns:
            The timeout, shortened to the time when the next worker is to be killed.
        """
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

    def _receive(self, member: Member, *most_bytes: float) -> list[Arrived]:
        return [Arrived(member.number, *frame) for frame in member.channel.receive(*most_bytes)]

    def _bury(self, member: Member) -> list[Arrived | Gone]:
        """Read what is left of a dead worker, and forget it."""
        member.join(_REAP_SECONDS)
        happened: list[Arrived | Gone] = [*self._receive(member, float("inf"))]
        happened.append(member.gone())
        self._forget(member)
        return happened

    def _forget(self, member: Member) -> None:
        with uninterrupted():
            self._close(member)

    def _close(self, member: Member) -> None:
        del self._members[member.number]
        self._ending.pop(member.number, None)
        registered: list[Channel | int] = [member.channel, *member.sentinels]
        for each in registered:
            # an interrupt may have come before it was registered
            with contextlib.suppress(KeyError):
                self._selector.unregister(each)
        member.close()

    def quit(self, most_seconds: float) -> None:
        """Ask idle workers to end, wait for them, though not for long, and close everything."""
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
