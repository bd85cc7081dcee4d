"""A worker that is a thread, which runs only when the backend lets it go on.

It runs the same loop as a worker process (`loop.Worker`), with a channel of two queues and status
words in a list. It stops when it publishes its place, and when it needs a frame. It goes on when
the backend hands it the baton. So only one thread runs at a time, and the backend chooses the
order.

Death: the loop catches all exceptions of handlers. So a dead worker raises `_Death` again at each
of its next steps until it has left the loop. None of its handlers runs any more, and its status
words stay as they were.

Rejected: a loop that returns when it has nothing to read (it could not stop within a
batch, nor hang in a handler).
"""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Sequence
from typing import Any, Final, NoReturn, SupportsIndex

from evproc_pool.protocol import status_words
from evproc_pool.protocol.frame import Data, Frame
from evproc_pool.testing.clock import ManualClock
from evproc_pool.testing.mishaps import HERE
from evproc_pool.worker import loop

# The share of the published places at which a worker stops.
_STOP_SHARE: Final = 0.5

_KILLED: Final = -9


def copies(buffers: Sequence[memoryview]) -> list[memoryview]:
    """Copy buffers, as another process gets them: unshared and writable."""
    return [memoryview(bytearray(each)) for each in buffers]


class _Death(BaseException):
    """Raised in the worker's thread until that ends."""


class _Words(list[int]):
    """The status words of a worker. To publish a place takes time, and may let others go on."""

    def __init__(self, owner: FakeWorker) -> None:
        super().__init__([0] * status_words.WORDS)
        super().__setitem__(status_words.PLACE, status_words.NONE)
        super().__setitem__(status_words.UNSENT, status_words.NONE)
        self._owner = owner

    def __setitem__(self, place: SupportsIndex | slice, value: object) -> None:
        of_worker = place not in (status_words.TAKEN, status_words.TAKEN_TO)
        if of_worker:
            self._owner.check_alive()
        super().__setitem__(place, value)  # type: ignore[call-overload]  # words
        if place == status_words.PLACE:
            self._owner.moved_on()


class FakeWorker(status_words.StatusWords):
    """A simulated worker; see the module's text.

    Attributes:
        number: The worker's number.
        exitcode: The exit code of the process that it stands for; None: it is alive.
        to_read: Frames that it was sent and has not read.
        written: Frames that it sent and the coordinator has not read.

    Args:
        number: The worker's number.
        clock: Goes on with the work.
        rng: Draws how long a step takes, and at which places it stops.
        pace: The mean time from one place to the next, in seconds.
        shared: See `registry_spec.Config`.
        may_hang: Whether the coordinator kills a worker that hangs.
    """

    # all workers have the same globals here
    takes_buffers = False

    def __init__(
        self,
        number: int,
        clock: ManualClock,
        rng: random.Random,
        pace: float,
        shared: Sequence[Any] = (),
        *,
        may_hang: bool,
    ) -> None:
        self.words = _Words(self)
        self.number = number
        self.exitcode: int | None = None
        self.to_read: deque[Frame] = deque()
        self.written: deque[Frame] = deque()
        self._clock = clock
        self._rng = rng
        self._pace = pace
        self._shared = shared
        self._may_hang = may_hang
        self._needs_frame = False
        self._hangs = False
        self._error: BaseException | None = None
        self._served: loop.Worker | None = None
        # each is released by the one side and acquired by the other
        self._may_go_on = threading.Lock()
        self._has_stopped = threading.Lock()
        self._may_go_on.acquire()
        self._has_stopped.acquire()
        self._has_baton = False
        self._is_over = False
        self._thread = threading.Thread(
            target=self._run, name=f"evproc fake worker {number}", daemon=True
        )
        self._thread.start()

    # --- for the backend ---

    @property
    def can_go_on(self) -> bool:
        """Whether it has anything to do."""
        waits = self._hangs or (self._needs_frame and not self.to_read)
        return self.exitcode is None and not waits

    def go_on(self) -> None:
        """Let it run until it stops.

        Raises:
            BaseException: The exception that broke its loop: a bug in the engine. Or a
                `KeyboardInterrupt` here, while it runs.
        """
        self._has_baton = True
        self._may_go_on.release()
        self._has_stopped.acquire()
        self._has_baton = False
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def report(self) -> None:
        """Have it report the events that are over, at whatever place it has stopped."""
        if self._served is not None and self.exitcode is None:
            self._served.report()

    def kill(self) -> None:
        """End it and its thread. Idempotent."""
        if self.exitcode is None:
            self.exitcode = _KILLED
        if self._is_over:
            return
        self._is_over = True
        self._may_go_on.release()
        # with the baton it was interrupted in code of the user's, which cannot be ended
        if not self._has_baton:
            self._thread.join()

    # --- for its thread ---

    def _run(self) -> None:
        self._may_go_on.acquire()
        HERE.worker = self
        try:
            self.check_alive()
            self._served = loop.prepare(
                self, self.words, self._clock, shared=self._shared, has_reporter=True
            )
            if self._served is not None:
                self._served.run()
            self.exitcode = 0
        except _Death:
            pass
        except BaseException as error:
            self.exitcode = 1
            self._error = error
        finally:
            if self._has_stopped.locked():  # else `go_on` was interrupted and waits no more
                self._has_stopped.release()

    def check_alive(self) -> None:
        """Raise `_Death` if it is dead."""
        if self.exitcode is not None:
            raise _Death

    def _stop(self) -> None:
        self._has_stopped.release()
        self._may_go_on.acquire()
        self.check_alive()

    def moved_on(self) -> None:
        """Let time pass after a published place, and maybe stop."""
        self._clock.advance(self._pace * self._rng.expovariate(1.0))
        if self._rng.random() < _STOP_SHARE:
            self._stop()

    def send(self, tag: int, payload: Data, buffers: Sequence[memoryview] = ()) -> None:
        """See `protocol.frame.WorkerChannel`."""
        self.check_alive()
        self.written.append(Frame(tag, payload, copies(buffers)))

    def receive(self) -> Frame:
        """See `protocol.frame.WorkerChannel`."""
        self.check_alive()
        self._needs_frame = True
        while not self.to_read:
            self._stop()
        self._needs_frame = False
        return self.to_read.popleft()

    # --- for mishaps ---

    def die(self, exitcode: int) -> NoReturn:
        """See `mishaps.Mortal`."""
        self.exitcode = exitcode
        raise _Death

    def hang(self) -> NoReturn:
        """See `mishaps.Mortal`.

        Raises:
            RuntimeError: The pool has no `event_timeout`, and would never kill it.
        """
        if not self._may_hang:
            raise RuntimeError("a simulated pool needs event_timeout= for a hang to come to an end")
        self._hangs = True
        while True:
            self._stop()
