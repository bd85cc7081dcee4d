"""A backend whose workers are threads of this process, one of which runs at a time.

A random generator decides which one runs, how far, how long that takes by the clock, and when its
frames arrive. The clock goes on with the work. When nothing else can happen, it jumps to the time
for which the coordinator waits.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from typing import Final

from evproc_pool.protocol import messages
from evproc_pool.protocol.backend import Arrived, Gone
from evproc_pool.protocol.frame import Data, Frame
from evproc_pool.protocol.limits import Limits
from evproc_pool.protocol.registry_spec import Config
from evproc_pool.protocol.status_words import WorkerStatus
from evproc_pool.testing.clock import ManualClock
from evproc_pool.testing.workers import FakeWorker, copies

# The most steps of workers before the coordinator has its turn.
_MOST_STEPS: Final = 20

# The share of frames that a worker reads before the coordinator goes on.
_AT_ONCE_SHARE: Final = 0.2

# Powers of ten: a worker's step takes a random time between these, in seconds. Events range from
# those that travel by the thousand to those that are too long to share a batch.
_PACES: Final = (-6.0, -2.0)

# The number of steps that an event may take and stay well below `event_timeout`.
_MOST_PACES: Final = 1000


class FakeBackend:
    """See `protocol.backend.Backend`, and the module's text.

    Args:
        clock: The clock of the pool.
        rng: Decides all that is left to chance.
        limits: The limits of each worker.
    """

    def __init__(self, clock: ManualClock, rng: random.Random, limits: Limits) -> None:
        self._clock = clock
        self._rng = rng
        self._may_hang = limits.event_timeout is not None
        self._pace = 10 ** rng.uniform(*_PACES)
        if limits.event_timeout is not None:
            self._pace = min(self._pace, limits.event_timeout / _MOST_PACES)
        self._workers: dict[int, FakeWorker] = {}
        self._woken = threading.Event()

    @property
    def numbers(self) -> list[int]:
        """See `protocol.backend.Backend`."""
        return list(self._workers)

    def pid(self, number: int) -> int | None:  # noqa: ARG002 - as of all backends
        """Return None: a kill would hit this process."""
        return None

    def node(self, number: int) -> str:  # noqa: ARG002 - as of all backends
        """See `protocol.backend.Backend`."""
        return ""

    def start(self, number: int, config: Config) -> None:
        """See `protocol.backend.Backend`."""
        worker = FakeWorker(
            number, self._clock, self._rng, self._pace, config.shared, may_hang=self._may_hang
        )
        self._workers[number] = worker
        self.send(number, messages.CONFIG, config.frame)

    def send(
        self,
        number: int,
        tag: int,
        payload: Data,
        buffers: Sequence[memoryview] = (),
        *,
        may_refer: bool = False,  # noqa: ARG002 - there is no shared memory
    ) -> None:
        """See `protocol.backend.Backend`."""
        worker = self._workers.get(number)
        if worker is None:
            return
        worker.to_read.append(Frame(tag, payload, copies(buffers)))
        # a fast worker begins before the coordinator does anything else
        if worker.can_go_on and self._rng.random() < _AT_ONCE_SHARE:
            worker.go_on()

    def link(self, number: int) -> None:
        """Return None: the seed chooses which worker runs next, not the coordinator."""

    def look_at(self, number: int) -> WorkerStatus | None:
        """See `protocol.backend.Backend`."""
        worker = self._workers.get(number)
        return None if worker is None else worker.read()

    def take_back(self, number: int, seen: WorkerStatus, newest: int) -> bool:
        """See `protocol.backend.Backend`."""
        worker = self._workers.get(number)
        return worker is not None and worker.take_back(seen, newest)

    def ask_back(self, number: int, newest: int) -> None:
        """See `protocol.backend.Backend`."""
        worker = self._workers.get(number)
        if worker is not None:
            worker.ask_back(newest)

    def ask_for_report(self, number: int) -> None:
        """See `protocol.backend.Backend`."""
        worker = self._workers.get(number)
        if worker is not None:
            worker.report()

    def raise_soft_timeout(self, number: int, seen: WorkerStatus, *, is_again: bool) -> None:
        """Do nothing: it takes a signal, and a thread gets none."""

    def kill_stuck(self, number: int, seen: WorkerStatus) -> str | None:
        """See `protocol.backend.Backend`."""
        worker = self._workers.get(number)
        if worker is None or worker.exitcode is not None:
            return None
        now = worker.read()
        if now.activity != seen.activity or not now.runs_code:
            return None
        worker.kill()
        return ""

    def memory_bytes(self, number: int) -> int:  # noqa: ARG002 - as of all backends
        """Return 0: the memory of this process says nothing about a worker."""
        return 0

    def wake(self) -> None:
        """See `protocol.backend.Backend`."""
        self._woken.set()

    @property
    def is_writing(self) -> bool:
        """See `protocol.backend.Backend`."""
        return False

    def rest(self, seconds: float) -> None:
        """See `protocol.backend.Backend`."""
        end = self._clock() + seconds
        while self._clock() < end and not self._woken.is_set() and self._step():
            pass
        self._clock.advance(max(0.0, end - self._clock()))

    def poll(self, timeout: float | None) -> list[Arrived | Gone]:
        """See `protocol.backend.Backend`."""
        for _ in range(self._rng.randrange(_MOST_STEPS)):
            if not self._step():
                break
        happened = self._arrivals()
        if timeout == 0:
            self._woken.clear()
            return happened
        end = None if timeout is None else self._clock() + timeout
        while not happened and not self._woken.is_set():
            if end is not None and self._clock() >= end:
                break
            if not self._step():
                happened = self._arrivals(all_of_them=True)
                if not happened:
                    self._wait(end)
                    break
            else:
                happened = self._arrivals()
        self._woken.clear()
        return happened

    def _wait(self, end: float | None) -> None:
        """Wait for another thread, or let time pass: nothing else can happen."""
        if end is None:
            self._woken.wait()
        else:
            self._clock.advance(max(0.0, end - self._clock()))

    def _step(self) -> bool:
        """Let a worker go on; return whether one could."""
        ready = [worker for worker in self._workers.values() if worker.can_go_on]
        if not ready:
            return False
        self._rng.choice(ready).go_on()
        return True

    def _arrivals(self, *, all_of_them: bool = False) -> list[Arrived | Gone]:
        """Return some of the frames that workers have written, and the ends of dead workers."""
        happened: list[Arrived | Gone] = []
        workers = list(self._workers.values())
        self._rng.shuffle(workers)
        for worker in workers:
            waiting = len(worker.written)
            count = waiting if all_of_them else self._rng.randint(0, waiting)
            frames = [worker.written.popleft() for _ in range(count)]
            happened += [Arrived(worker.number, *frame) for frame in frames]
            if worker.exitcode is not None and not worker.written:
                happened.append(Gone(worker.number, None, worker.exitcode, worker.read()))
                worker.kill()
                del self._workers[worker.number]
        return happened

    def quit(self, most_seconds: float, hear: Callable[[Arrived], object]) -> None:  # noqa: ARG002 - no time passes
        """See `protocol.backend.Backend`."""
        for worker in self._workers.values():
            worker.to_read.append(Frame(messages.QUIT, b""))
            while worker.can_go_on:
                worker.go_on()
        self.kill(hear)

    def kill(self, hear: Callable[[Arrived], object]) -> None:  # noqa: ARG002 - they have sent results only
        """See `protocol.backend.Backend`."""
        for worker in self._workers.values():
            worker.kill()
        self._workers.clear()
