"""A backend whose workers are threads of this process, one of which runs at a time.

Which one goes on, how far, how long that takes by the clock, and when its frames arrive is
drawn from a random generator. The clock goes on with what workers do, and when nothing
else can happen, to the time for which the coordinator waits.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from typing import Final

from evproc_pool.protocol import messages
from evproc_pool.protocol.backend import Arrived, Gone
from evproc_pool.protocol.frame import Data, Frame
from evproc_pool.protocol.limits import Limits
from evproc_pool.protocol.status_words import WorkerStatus
from evproc_pool.testing.clock import ManualClock
from evproc_pool.testing.workers import FakeWorker, copies

# So many steps of workers happen, at the most, before the coordinator has its turn.
_MOST_STEPS: Final = 20

# The share of the frames that a worker reads before the coordinator goes on.
_AT_ONCE_SHARE: Final = 0.2

# The powers of ten between which the time is drawn that a step of a worker takes, in
# seconds: from events by the thousand in a batch to those that are too long for company.
_PACES: Final = (-6.0, -2.0)

# How many steps an event may take without coming near to `event_timeout`.
_MOST_PACES: Final = 1000


class FakeBackend:
    """See `backend.Backend`, and the module's text.

    Args:
        clock: What time it is.
        rng: Draws whatever is not determined.
        limits: What each worker may use.
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
        """See `backend.Backend`."""
        return list(self._workers)

    def pid(self, number: int) -> int | None:  # noqa: ARG002 - as of all backends
        """None: a kill would hit this very process."""
        return None

    def start(self, number: int, config: bytes) -> None:
        """See `backend.Backend`."""
        worker = FakeWorker(number, self._clock, self._rng, self._pace, may_hang=self._may_hang)
        self._workers[number] = worker
        self.send(number, messages.CONFIG, config)

    def send(
        self,
        number: int,
        tag: int,
        payload: Data,
        buffers: Sequence[memoryview] = (),
        *,
        may_refer: bool = False,  # noqa: ARG002 - there is no shared memory
    ) -> None:
        """See `backend.Backend`."""
        worker = self._workers.get(number)
        if worker is None:
            return
        worker.to_read.append(Frame(tag, payload, copies(buffers)))
        # it may be faster than the coordinator, and have begun before that does anything else
        if worker.can_go_on and self._rng.random() < _AT_ONCE_SHARE:
            worker.go_on()

    def link(self, number: int) -> None:
        """None: what a simulated worker does next is not for the coordinator to choose."""

    def look_at(self, number: int) -> WorkerStatus | None:
        """See `backend.Backend`."""
        worker = self._workers.get(number)
        return None if worker is None else worker.read()

    def take_back(self, number: int, seen: WorkerStatus, newest: int) -> bool:
        """See `backend.Backend`."""
        worker = self._workers.get(number)
        return worker is not None and worker.take_back(seen, newest)

    def ask_back(self, number: int, newest: int) -> None:
        """See `backend.Backend`."""
        worker = self._workers.get(number)
        if worker is not None:
            worker.ask_back(newest)

    def ask_for_report(self, number: int) -> None:
        """See `backend.Backend`."""
        worker = self._workers.get(number)
        if worker is not None:
            worker.report()

    def strike(self, number: int, seen: WorkerStatus, *, is_again: bool) -> None:
        """Nothing: it takes a signal, and a thread gets none."""

    def kill_stuck(self, number: int, seen: WorkerStatus) -> str | None:
        """See `backend.Backend`."""
        worker = self._workers.get(number)
        if worker is None or worker.exitcode is not None:
            return None
        now = worker.read()
        if now.activity != seen.activity or not now.runs_code:
            return None
        worker.kill()
        return ""

    def memory_bytes(self, number: int) -> int:  # noqa: ARG002 - as of all backends
        """That of this process tells nothing."""
        return 0

    def wake(self) -> None:
        """See `backend.Backend`."""
        self._woken.set()

    @property
    def is_writing(self) -> bool:
        """See `backend.Backend`."""
        return False

    def rest(self, seconds: float) -> None:
        """See `backend.Backend`."""
        end = self._clock() + seconds
        while self._clock() < end and not self._woken.is_set() and self._step():
            pass
        self._clock.advance(max(0.0, end - self._clock()))

    def poll(self, timeout: float | None) -> list[Arrived | Gone]:
        """See `backend.Backend`."""
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
        """Nothing can happen any more but what another thread does, or time."""
        if end is None:
            self._woken.wait()
        else:
            self._clock.advance(max(0.0, end - self._clock()))

    def _step(self) -> bool:
        """Let a worker go on; say whether any could."""
        ready = [worker for worker in self._workers.values() if worker.can_go_on]
        if not ready:
            return False
        self._rng.choice(ready).go_on()
        return True

    def _arrivals(self, *, all_of_them: bool = False) -> list[Arrived | Gone]:
        """Some of the frames that workers have written, and the ends of those that are dead."""
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

    def quit(self, most_seconds: float) -> None:  # noqa: ARG002 - no time passes
        """See `backend.Backend`."""
        for worker in self._workers.values():
            worker.to_read.append(Frame(messages.QUIT, b""))
            while worker.can_go_on:
                worker.go_on()
        self.kill()

    def kill(self) -> None:
        """See `backend.Backend`."""
        for worker in self._workers.values():
            worker.kill()
        self._workers.clear()
