"""A process of its own for every system, which samples it there when it is asked to.

::

    suite ──> Host ──pipe──> _serve: a system ──> its workers
                │
                └──> Guard: has those stand still that compute while they wait

In one process they would share the interpreter's lock, its garbage collector and
each other's threads. A system that fails or hangs ends with its host, and the others
go on without it.

Dask and Ray use some percent of a core while they have nothing to do. Their processes
are stopped while others are sampled, by a process that lets them go on when
this one is gone.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, suppress
from multiprocessing.connection import Connection
from typing import Any, Final, Protocol

import psutil

from benchmarks.comparison.systems import System
from benchmarks.model import BenchmarkError
from benchmarks.pool.handlers import Blob, answer_to
from benchmarks.pool.processes import WORKERS, Helper
from benchmarks.pool.samples import await_workers
from evproc import Event

# How long a host may take for what it is asked for, until it is given up.
_PATIENCE_SECONDS: Final = 240.0

# Their helpers notice that they are alone, which may take a while.
_LEFT_SECONDS: Final = 10.0
_LOOK_SECONDS: Final = 0.01

_CHECKED: Final = 20


class HostError(BenchmarkError):
    """A system cannot be measured.

    Attributes:
        label: Which.
    """

    def __init__(self, label: str, text: str) -> None:
        super().__init__(f"{label}: {text}")
        self.label = label


class Closable(Protocol):
    def close(self) -> None: ...


#: What a host is asked for: called there with what it hosts.
Request = Callable[[Any], Any]


class Guard:
    """Stops processes, and has them go on, at the latest when this process is gone."""

    def __init__(self) -> None:
        self._helper = Helper(_serve_guard)

    def stop(self, pids: Iterable[int]) -> None:
        """Have processes stand still."""
        self._tell("suspend", pids)

    def go(self, pids: Iterable[int]) -> None:
        """Have them go on."""
        self._tell("resume", pids)

    def _tell(self, what: str, pids: Iterable[int]) -> None:
        self._helper.connection.send((what, list(pids)))
        self._helper.receive()

    def close(self) -> None:
        """Have all go on."""
        self._helper.close()


def _serve_guard(connection: Connection[Any, Any]) -> None:
    stopped: set[int] = set()
    try:
        while True:
            what, pids = connection.recv()
            _signal(what, pids)
            stopped = stopped.union(pids) if what == "suspend" else stopped.difference(pids)
            connection.send(None)
    finally:
        _signal("resume", stopped)


def _signal(what: str, pids: Iterable[int]) -> None:
    for pid in pids:
        with suppress(psutil.Error):  # it has ended meanwhile
            getattr(psutil.Process(pid), what)()


class Host:
    """The process of a system.

    Args:
        make: Makes what it hosts.
        label: What that is called.
        grace_seconds: How long its end may take.
        guard: Stops it whenever it has nothing to do. None: it may go on.
    """

    def __init__(
        self,
        make: Callable[[], Closable],
        label: str,
        *,
        grace_seconds: float = 10.0,
        guard: Guard | None = None,
    ) -> None:
        self.label = label
        self._guard = guard
        self._stands = False
        self._closed = False
        # spawn: it is to have nothing of this process
        self._helper = Helper(_serve, make, start="spawn", grace_seconds=grace_seconds)

    def wait_started(self) -> None:
        """Wait until it can be asked.

        Raises:
            HostError: It cannot be started.
        """
        self._receive()
        self._rest()

    def ask(self, request: Request) -> Any:
        """Have something done there.

        Raises:
            HostError: It failed, or takes too long.
        """
        self._resume()
        try:
            self._helper.connection.send(request)
        except OSError as error:
            raise HostError(self.label, f"its process has ended: {error}") from error
        answer = self._receive()
        self._rest()
        return answer

    def _receive(self) -> Any:
        if not self._helper.connection.poll(_PATIENCE_SECONDS):
            raise HostError(self.label, f"no answer within {_PATIENCE_SECONDS:g} s")
        try:
            error, answer = self._helper.receive()
        except BenchmarkError as ended:
            raise HostError(self.label, str(ended)) from ended
        if error is not None:
            raise HostError(self.label, error)
        return answer

    def _processes(self) -> list[psutil.Process]:
        try:
            this = psutil.Process(self._helper.pid)
            return [this, *this.children(recursive=True)]
        except psutil.Error:
            return []

    def _rest(self) -> None:
        if self._guard is not None and not self._stands:
            self._stands = True
            self._guard.stop(each.pid for each in self._processes())

    def _resume(self) -> None:
        if self._guard is not None and self._stands:
            self._guard.go(each.pid for each in reversed(self._processes()))
            self._stands = False

    def close(self) -> None:
        """End it, and whatever it has started. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._resume()
        started = self._processes()[1:]
        self._helper.close()
        end = time.monotonic() + _LEFT_SECONDS
        while left := [each for each in started if _runs(each)]:
            if time.monotonic() > end:
                for each in left:
                    with suppress(psutil.Error):
                        each.kill()
                return
            time.sleep(_LOOK_SECONDS)


def _runs(process: psutil.Process) -> bool:
    # an orphan that has ended is there until the system's first process looks after it
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _serve(connection: Connection[Any, Any], make: Callable[[], Closable]) -> None:
    """Make what is hosted, and do with it what is asked for, as long as anybody asks."""
    with ExitStack() as stack:
        try:
            hosted = stack.enter_context(closing(make()))
            if isinstance(hosted, System):
                check(hosted)
        except Exception as error:
            connection.send((_told(error), None))
            return
        connection.send((None, None))
        while True:
            request: Request = connection.recv()
            answer: tuple[str | None, Any]
            try:
                answer = None, request(hosted)
            except Exception as error:
                answer = _told(error), None
            connection.send(answer)


def _told(error: Exception) -> str:
    return "".join(traceback.format_exception_only(type(error), error)).strip()


def check(system: System) -> None:
    """Wait until all workers are there, and see whether values are right and in order.

    Raises:
        BenchmarkError: They are not.
    """
    await_workers(lambda events: system.run(events, 1), WORKERS)
    events: list[Event] = [Blob(number, b"..") for number in range(_CHECKED)]
    for chunk in (1, 3):
        if list(system.run(events, chunk)) != [answer_to(each, 2) for each in range(_CHECKED)]:
            raise BenchmarkError(f"{system.label} gives wrong values")


class Hosts:
    """The hosts of several systems, those that can be started."""

    def __init__(self, systems: Iterable[type[System]]) -> None:
        self._stack = ExitStack()
        self._hosts: dict[str, Host] = {}
        self.systems = {each.label: each for each in systems}

    def start(self) -> Iterator[HostError]:
        """Start all of them at once; yield an error for each that cannot be started."""
        guard = None
        for label, system in self.systems.items():
            if system.is_restless and guard is None:
                guard = self._stack.enter_context(closing(Guard()))
            host = Host(
                system,
                label,
                grace_seconds=system.grace_seconds,
                guard=guard if system.is_restless else None,
            )
            self._hosts[label] = self._stack.enter_context(closing(host))
        for host in list(self._hosts.values()):
            try:
                host.wait_started()
            except HostError as error:
                self.drop(error.label)
                yield error

    def __getitem__(self, label: str) -> Host:
        return self._hosts[label]

    def __iter__(self) -> Iterator[str]:
        return iter(self._hosts)

    def drop(self, label: str) -> None:
        """Go on without a system."""
        self._hosts.pop(label).close()

    def close(self) -> None:
        """End them all."""
        self._stack.close()
