"""The agent: has a local backend on its node, and does what its coordinator asks for.

One thread, the *pump*, uses the backend. Another one puts commands into the `CommandQueue`, which
wakes the pump::

    commands --> CommandQueue --> pump --> LocalBackend --> workers
                                   |            |
    events <-----------------------+<--- frames, deaths, places

Each turn of the pump waits for something to happen, obeys all commands that are there, and writes
all events as one message. Results of workers that have more to do are gathered for a moment: a
message costs as much as some events, on both nodes.

When the connection ends, in whatever way, the pump kills the workers: nobody can take their
results, and another node may run what they have not begun.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from evproc_pool.backends.agents.activity import TICK_SECONDS, ActivityWatch
from evproc_pool.backends.agents.messages import (
    HEARTBEAT_SECONDS,
    ORPHANED_SECONDS,
    AskBack,
    AskForReport,
    AskMemory,
    Command,
    Died,
    End,
    Ended,
    Event,
    Killed,
    KillMissed,
    KillStuck,
    Memory,
    NotStarted,
    RaiseSoftTimeout,
    Received,
    SendFrame,
    Started,
    StartWorker,
    TakeBack,
    Took,
    received,
)
from evproc_pool.errors import InternalError
from evproc_pool.protocol import messages
from evproc_pool.protocol.backend import Arrived, Backend, Gone
from evproc_pool.protocol.registry_spec import Config

#: The frames that have a batch, which the worker counts.
BATCHES: Final = frozenset((messages.BATCH, messages.EVENTS, messages.SINGLE))


# Results of a worker that has more to do are sent no sooner than this after the last message, in
# seconds. As long as the scheduler lets results wait, see `core.estimates.REPORT_SECONDS`.
_GATHER_SECONDS: Final = 0.004


class CommandQueue:
    """Commands that have arrived. Any thread may put them."""

    def __init__(self, wake: Callable[[], object]) -> None:
        self._wake = wake
        self._lock = threading.Lock()
        self._commands: deque[Command] = deque()
        self._is_closed = False
        self._heard = time.monotonic()

    def put(self, commands: Sequence[Command]) -> None:
        """Hand in a message of the coordinator; an empty one says that it is there."""
        with self._lock:
            self._commands += commands
            self._heard = time.monotonic()
        self._wake()

    def close(self) -> None:
        """Say that the connection is closed."""
        with self._lock:
            self._is_closed = True
        self._wake()

    def take(self) -> list[Command]:
        """Take all.

        Raises:
            EOFError: The connection is closed, or the coordinator has been silent for too long.
        """
        with self._lock:
            if self._is_closed or time.monotonic() - self._heard > ORPHANED_SECONDS:
                raise EOFError("the coordinator is gone")
            taken = list(self._commands)
            self._commands.clear()
        return taken


class Agent:
    """See the module's text.

    Args:
        backend: Has the workers. Nobody else uses it, except for `wake`.
        write: Writes a message; an OSError says that the connection is closed.
    """

    def __init__(self, backend: Backend, write: Callable[[list[Event]], object]) -> None:
        self._backend = backend
        self._write = write
        self.commands = CommandQueue(backend.wake)
        self._watch = ActivityWatch()
        self._events: list[Event] = []
        self._config: Config | None = None
        self._wrote = 0.0
        self._may_wait = True  # whether what has happened may be told a little later
        self._ticked = 0.0

    def run(self) -> None:
        """Serve until the coordinator ends it, or is gone. No worker is left."""
        most_seconds = 0.0
        try:
            end = None
            while end is None:
                end = self._turn()
            most_seconds = end.most_seconds
        except (EOFError, OSError):
            pass  # the coordinator is gone: nothing is left to do
        finally:
            self._end(most_seconds)

    def _end(self, most_seconds: float) -> None:
        if most_seconds > 0:
            self._backend.quit(most_seconds, self._hear)
        else:
            self._backend.kill(self._hear)
        with contextlib.suppress(OSError):  # likewise
            self._write([*self._events, Ended()])

    def _turn(self) -> End | None:
        """Wait until something happens, and act; return the command to end, if it has come."""
        happened = self._backend.poll(self._most_wait(time.monotonic()))
        for item in happened:
            if isinstance(item, Arrived):
                self._hear(item)
            elif isinstance(item, Gone):
                self._watch.forget(item.worker)
                self._tell(Died(*item[:5]))
        for command in self.commands.take():
            if isinstance(command, End):
                return command
            self._obey(command)
        now = time.monotonic()
        self._look({item.worker for item in happened if isinstance(item, Arrived)}, now)
        pause = _GATHER_SECONDS if self._events and self._may_wait else HEARTBEAT_SECONDS
        if now - self._wrote >= pause or not self._may_wait:
            events, self._events = self._events, []
            self._write(events)
            self._wrote, self._may_wait = now, True
        return None

    def _most_wait(self, now: float) -> float:
        if self._events:
            return max(0.0, self._wrote + _GATHER_SECONDS - now)
        return TICK_SECONDS if self._watch.busy else HEARTBEAT_SECONDS

    def _tell(self, event: Event) -> None:
        """Tell an event without delay."""
        self._events.append(event)
        self._may_wait = False

    def _hear(self, item: Arrived) -> None:
        payload = item.payload
        if isinstance(payload, memoryview):  # shared memory of the worker's
            payload = bytes(payload)
        buffers = [bytearray(each) for each in item.buffers]
        self._events.append(Received(item.worker, item.tag, payload, buffers))

    def _look(self, senders: set[int], now: float) -> None:
        """Look at workers that have sent something; and at all busy ones, if a tick is over."""
        workers = dict.fromkeys(senders)
        if now - self._ticked >= TICK_SECONDS:
            self._ticked = now
            workers.update(dict.fromkeys(self._watch.busy))
        for worker in workers:
            at = self._backend.look_at(worker)
            if at is None:
                continue
            seen = self._watch.look(worker, at, now, has_sent=worker in senders)
            if seen is not None:
                self._events.append(seen)
            if worker in senders and not self._watch.has_more(worker):
                self._may_wait = False  # it waits for work

    def _obey(self, command: Command) -> None:  # noqa: C901 - a case each
        backend = self._backend
        match command:
            case SendFrame(worker, tag, payload, buffers):
                backend.send(worker, tag, payload, received(buffers))
                if tag in BATCHES and worker in backend.numbers:
                    self._watch.note_batch(worker)
            case StartWorker():
                self._start(command)
            case TakeBack(worker, seen, newest):
                at = backend.look_at(worker)
                # Only if it seems to work: else the worker would give back what it has not begun.
                is_there = at is not None and at.activity == seen.activity
                if is_there and backend.take_back(worker, seen, newest):
                    self._tell(Took(worker, seen, newest))
            case AskBack(worker, newest):
                backend.ask_back(worker, newest)
            case AskForReport(worker):
                backend.ask_for_report(worker)
            case RaiseSoftTimeout(worker, seen, is_again):
                backend.raise_soft_timeout(worker, seen, is_again=is_again)
            case KillStuck(worker, seen):
                stack = backend.kill_stuck(worker, seen)
                self._tell(KillMissed(worker) if stack is None else Killed(worker, stack))
            case AskMemory():
                sizes = [(each, backend.memory_bytes(each)) for each in backend.numbers]
                for number, size_bytes in sizes:
                    self._tell(Memory(number, size_bytes))
            case _:
                raise InternalError(f"unknown command {command!r}")

    def _start(self, command: StartWorker) -> None:
        if command.config is not None:
            self._config = Config(command.config)
        if self._config is None:
            raise InternalError("a worker is to be started without a config")
        try:
            self._backend.start(command.worker, self._config)
        except OSError as error:
            self._tell(NotStarted(command.worker, str(error)))
        else:
            self._tell(Started(command.worker, self._backend.pid(command.worker)))
