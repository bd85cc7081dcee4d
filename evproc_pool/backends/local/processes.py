"""The backend of local processes: starts workers, moves frames, notices deaths.

One socket pair per worker and nothing shared between workers, so a worker that
is killed in the middle of a write spoils its own channel only. `poll` waits on
all channels, on the processes themselves (a dead worker does not write, and one
of its own children may keep its socket open) and on a wake-up from other threads.

`worker_process` has one of them, and the quick way to it.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import select
import selectors
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from math import inf
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any, Final

from evproc_pool.backends.local.start_methods import (
    NoForkserverError,
    fresh,
    has_started,
    start,
    uninterrupted,
)
from evproc_pool.backends.local.worker_process import DirectLink, WorkerProcess
from evproc_pool.internals.stdlib_multiprocessing import ProcessName, descriptors_of
from evproc_pool.ipc.channel import Channel
from evproc_pool.ipc.descriptors import (
    MAP_DESCRIPTORS,
    InheritedDescriptor,
    anonymous_file,
    check_room,
)
from evproc_pool.ipc.resources import IS_SUPPORTED, StackDumps, StatusMemory, WorkerResources
from evproc_pool.ipc.shared_memory import SharedMemory
from evproc_pool.log import LOG
from evproc_pool.protocol import messages
from evproc_pool.protocol.backend import Arrived, Gone, Link
from evproc_pool.protocol.frame import Data
from evproc_pool.protocol.registry_spec import Config
from evproc_pool.protocol.status_words import WorkerStatus
from evproc_pool.worker.entry import enter

# How long a worker may take to end by itself after a request, in seconds.
# Idle workers end at once; one whose handlers left threads behind takes longer.
_QUIT_SECONDS: Final = 5.0

# How long to wait for the exit status of a process whose socket is closed.
_REAP_SECONDS: Final = 5.0

# The most descriptors that are open while a worker starts, of a forkserver the first one.
_START_DESCRIPTORS: Final = 24

# Besides, so many are left to the program, unless it would have no worker at all.
_KEPT_DESCRIPTORS: Final = 32


class LocalBackend:
    """Worker processes on this machine; a forkserver imports `modules` for them."""

    def __init__(self, context: BaseContext, modules: Sequence[str] = ()) -> None:
        check_room(_START_DESCRIPTORS)
        self._context = context
        self._modules = modules
        self._processes: dict[int, WorkerProcess] = {}
        # workers that were asked to end, or closed their channel, and when to kill each
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
        """See `Backend`."""
        return list(self._processes)

    def pid(self, number: int) -> int | None:
        """See `Backend`."""
        worker = self._processes.get(number)
        return None if worker is None else worker.process.pid

    def node(self, number: int) -> str:  # noqa: ARG002 - as of all backends
        """See `protocol.backend.Backend`."""
        return ""

    def start(self, number: int, config: Config) -> None:
        """See `Backend`."""
        # those that are mapped later count, too; without a worker nothing is kept
        workers = self._processes.values()
        memories = [each.shared_memory for each in workers if each.shared_memory is not None]
        kept = _KEPT_DESCRIPTORS + MAP_DESCRIPTORS * sum(not each.is_mapped for each in memories)
        check_room(_START_DESCRIPTORS + (kept if workers else 0))
        context = fresh(self._context)
        # the first process may have to wait until a forkserver has started
        with uninterrupted() if has_started(context) else contextlib.nullcontext():
            try:
                worker = self._started(number, context, config.shared)
            except NoForkserverError as error:
                LOG.warning("%s; workers start by spawn, which takes longer", error)
                self._context = context = multiprocessing.get_context("spawn")
                worker = self._started(number, context, config.shared)
            self._processes[number] = worker
            self._selector.register(worker.channel, selectors.EVENT_READ, worker)
            if worker.sentinel is not None:
                self._selector.register(worker.sentinel, selectors.EVENT_READ, worker)
            self.send(number, messages.CONFIG, config.frame)

    def _started(self, number: int, context: BaseContext, shared: Sequence[Any]) -> WorkerProcess:
        with contextlib.ExitStack() as on_failure, contextlib.ExitStack() as in_any_case:
            ours, theirs = socket.socketpair()
            on_failure.callback(ours.close)
            in_any_case.callback(theirs.close)
            words = stacks = None
            memory = SharedMemory.create()
            if memory is not None:
                on_failure.callback(memory.close)
            if IS_SUPPORTED:
                words = StatusMemory.create()
                on_failure.callback(words.close)
                in_any_case.callback(words.close_file)
                file = memory or InheritedDescriptor(anonymous_file())
                on_failure.callback(file.close)
                stacks = StackDumps(file)
            resources = WorkerResources(words, stacks, memory, shared)
            process: BaseProcess = context.Process(  # type: ignore[attr-defined]  # each context has it
                target=enter,
                args=(theirs, resources, self._inherited(context, ours)),
                name=ProcessName(f"evproc-worker-{number}"),
            )
            start(process, context, self._modules)
            channel = Channel(ours, memory)
            on_failure.callback(channel.close)
            return WorkerProcess(number, process, channel, resources, owned=on_failure.pop_all())

    def _inherited(self, context: BaseContext, ours: socket.socket) -> list[int]:
        """The descriptors that a forked child inherits and must close."""
        if context.get_start_method() != "fork":
            return []
        found = [each.fileno() for each in (self._wake_read, self._wake_write, ours)]
        for worker in self._processes.values():
            found += [worker.channel.fileno(), *descriptors_of(worker.process)]
        return found

    def send(
        self,
        number: int,
        tag: int,
        payload: Data,
        buffers: Sequence[memoryview] = (),
        *,
        may_refer: bool = False,
    ) -> None:
        """See `Backend`."""
        worker = self._processes.get(number)
        if worker is None:
            return
        worker.channel.send(tag, payload, buffers, may_refer=may_refer)
        if tag == messages.QUIT:  # it is replaced: what it calls at its end may hang
            self._ending[number] = time.monotonic() + _QUIT_SECONDS
        if worker.channel.outgoing and not worker.channel.at_end:
            self._watch(worker)

    def link(self, number: int) -> Link | None:
        """See `Backend`."""
        worker = self._processes.get(number)
        if worker is None or not hasattr(select, "poll") or worker.channel.outgoing:
            return None
        if worker.link is None:
            worker.link = DirectLink(worker, self._wake_read, self._watch)
        return worker.link

    def _watch(self, worker: WorkerProcess) -> None:
        events = selectors.EVENT_READ
        if worker.channel.outgoing:
            events |= selectors.EVENT_WRITE
        self._selector.modify(worker.channel, events, worker)

    def look_at(self, number: int) -> WorkerStatus | None:
        """See `Backend`."""
        worker = self._processes.get(number)
        return None if worker is None or worker.words is None else worker.words.read()

    def take_back(self, number: int, seen: WorkerStatus, newest: int) -> bool:
        """See `Backend`."""
        worker = self._processes.get(number)
        words = None if worker is None else worker.words
        return words is not None and words.take_back(seen, newest)

    def ask_back(self, number: int, newest: int) -> None:
        """See `Backend`."""
        worker = self._processes.get(number)
        if worker is not None and worker.words is not None:
            worker.words.ask_back(newest)

    def ask_for_report(self, number: int) -> None:
        """See `Backend`."""
        worker = self._processes.get(number)
        if worker is not None:
            worker.ask_for_report()

    def raise_soft_timeout(self, number: int, seen: WorkerStatus, *, is_again: bool) -> None:
        """See `Backend`."""
        worker = self._processes.get(number)
        if worker is not None:
            worker.raise_soft_timeout(seen, is_again=is_again)

    def kill_stuck(self, number: int, seen: WorkerStatus) -> str | None:
        """See `Backend`."""
        worker = self._processes.get(number)
        return None if worker is None else worker.kill_stuck(seen)

    def memory_bytes(self, number: int) -> int:
        """See `Backend`."""
        worker = self._processes.get(number)
        return 0 if worker is None else worker.memory_bytes()

    def wake(self) -> None:
        """See `Backend`."""
        # full: it will wake anyway; closed: nobody polls any more
        with contextlib.suppress(OSError):
            self._wake_write.send(b"\0")

    def rest(self, seconds: float) -> None:
        """See `Backend`."""
        self._wake_selector.select(seconds)

    @property
    def is_writing(self) -> bool:
        """See `Backend`."""
        return any(worker.channel.outgoing for worker in self._processes.values())

    def poll(self, timeout: float | None) -> list[Arrived | Gone]:
        """See `Backend`."""
        happened: list[Arrived | Gone] = []
        dead: dict[int, WorkerProcess] = {}
        for key, events in self._selector.select(self._until_overdue(timeout)):
            worker: WorkerProcess | None = key.data
            if worker is None:
                with contextlib.suppress(BlockingIOError):
                    self._wake_read.recv(4096)
                continue
            if isinstance(key.fileobj, int):  # a sentinel
                dead[worker.number] = worker
                continue
            if events & selectors.EVENT_WRITE:
                worker.channel.flush()
                self._watch(worker)
            if events & selectors.EVENT_READ:
                happened += self._receive(worker)
                number = worker.number
                if worker.channel.at_end and worker.sentinel is not None:
                    # Its threads or children may keep it; or a handler closed a descriptor that
                    # it did not own. In each case it is of no more use.
                    self._selector.unregister(worker.channel)
                    deadline = time.monotonic() + _REAP_SECONDS
                    self._ending[number] = min(deadline, self._ending.get(number, inf))
                elif worker.channel.at_end:
                    dead[worker.number] = worker
        for worker in dead.values():
            happened += self._bury(worker)
        return happened

    def _until_overdue(self, timeout: float | None) -> float | None:
        """Kill workers that take too long to end. Shorten the timeout to when the next is due."""
        if self._ending:
            now = time.monotonic()
            for number, deadline in list(self._ending.items()):
                if now < deadline:
                    left = deadline - now
                    timeout = left if timeout is None else min(timeout, left)
                else:
                    del self._ending[number]
                    self._processes[number].kill()
        return timeout

    def _receive(self, worker: WorkerProcess, *most_bytes: float) -> list[Arrived]:
        return [Arrived(worker.number, *frame) for frame in worker.channel.receive(*most_bytes)]

    def _bury(self, worker: WorkerProcess) -> list[Arrived | Gone]:
        """Read what is left of a dead worker, and forget it."""
        worker.join(_REAP_SECONDS)
        happened: list[Arrived | Gone] = [*self._receive(worker, float("inf"))]
        happened.append(worker.gone())
        self._forget(worker)
        return happened

    def _forget(self, worker: WorkerProcess) -> None:
        with uninterrupted():
            del self._processes[worker.number]
            self._ending.pop(worker.number, None)
            for each in (worker.channel, worker.sentinel):
                # an interrupt may have come before it was registered
                with contextlib.suppress(KeyError):
                    if each is not None:
                        self._selector.unregister(each)
            worker.close()

    def quit(self, most_seconds: float, hear: Callable[[Arrived], object]) -> None:
        """See `Backend`."""
        deadline = time.monotonic() + min(_QUIT_SECONDS, most_seconds)
        for number in self._processes:
            self.send(number, messages.QUIT, b"")
        try:
            # A worker that is still writing, a result that nobody waits for, reads no request.
            while self._processes and (left := deadline - time.monotonic()) > 0:
                _tell(hear, self.poll(left))
        finally:
            self.kill(hear)

    def kill(self, hear: Callable[[Arrived], object]) -> None:
        """See `Backend`."""
        workers = list(self._processes.values())
        for worker in workers:
            if not worker.wait(0):
                worker.kill()
        happened: list[Arrived | Gone] = []
        for worker in workers:
            worker.wait(inf)
            happened += self._bury(worker)
        self._selector.close()
        self._wake_selector.close()
        self._wake_read.close()
        self._wake_write.close()
        _tell(hear, happened)  # last: it may raise


def _tell(hear: Callable[[Arrived], object], happened: Iterable[Arrived | Gone]) -> None:
    for item in happened:
        if isinstance(item, Arrived):
            hear(item)
