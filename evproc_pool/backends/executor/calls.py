"""The backend of plain calls: a batch is a call of an executor, its future brings the frames.

::

    send --> lane --submit--> executor --> worker.plain_calls.run, in any process or thread
                                                  |
    poll <-- queue <--- done callback <-----------+

A lane is a worker of the scheduler. It has one call on its way, and so one batch: a batch behind it
could be run before it, elsewhere. There are twice as many lanes as the executor has workers, so
that each of these finds the next call waiting.

**Lost calls.** A call is lost if its future ends with an error: `plain_calls.run` raises nothing.
Then the executor counts as broken, whatever it says: some go on with a dead worker, which fails
each call that it gets. With a factory another one takes its place. What was lost runs again: each
event in a call of its own, with no other call on its way (`one_at_a_time`). An event whose call is
lost then, alone, is the one that breaks it, and is charged for it. Nobody else is, though what was
lost may have run before. Without a factory the pool is broken, too, once other calls have ended or
`_BROKEN_SECONDS` have passed.

**Hung calls.** With `event_timeout` a call is lost, too, that runs for longer than its events may
take. A worker gives an overdue batch back between two events, so that is the time after which it
does so, and one event. It counts from when the future says that it runs; a process pool says so
when one call is still before it, so it counts twice unless the call is alone. The start of a
process does not count: with a new executor, each lane first makes a call that runs nothing.

Rejected: halving a lost batch instead (an event would run again and again that may have effects).
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import threading
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Final

from evproc.event import qualname
from evproc_pool.backends.executor.executors import Executors, within
from evproc_pool.backends.executor.lanes import (
    MOST_CANCELLED,
    Lane,
    Plans,
    Running,
    is_answer,
    whole_frame,
)
from evproc_pool.errors import InternalError, PoolBrokenError
from evproc_pool.protocol import messages, status_words
from evproc_pool.protocol.backend import Arrived, Gone
from evproc_pool.protocol.frame import Data
from evproc_pool.protocol.registry_spec import Config
from evproc_pool.protocol.status_words import WorkerStatus
from evproc_pool.serialization import pickling
from evproc_pool.worker import plain_calls
from evproc_pool.worker.plain_calls import Answer, Call, Home

# A config of this size goes with each call: that is cheaper than to be asked for it.
_LITTLE_BYTES: Final = 1 << 12

# How long calls may take to end by themselves at the end, in seconds; as for local workers.
_QUIT_SECONDS: Final = 5.0

# How long calls may take to end by themselves once the executor broke, in seconds.
_BROKEN_SECONDS: Final = 5.0

# How long a call may take that runs nothing, with the start of its process, in seconds.
_START_SECONDS: Final = 60.0

# The pool breaks when so many of these in a row were lost, of lanes that had made one before.
_MOST_LOST_STARTS: Final = 3

# How often to look whether a call hangs, in the time of `event_timeout`.
_LOOKS_PER_TIMEOUT: Final = 8

_Happened = list[Arrived | Gone]


class _HungError(TimeoutError):
    """A call ran for too long."""


_HungError.__name__ = "TimeoutError"


class ExecutorBackend:
    """See `protocol.backend.Backend`, and the module's text."""

    def __init__(self, executors: Executors, event_timeout: float | None = None) -> None:
        self._executors = executors
        self._event_timeout = event_timeout
        self._generation = 0  # how many executors broke
        self._broken: PoolBrokenError | None = None  # once nothing is submitted any more
        self._broken_at = 0.0
        self._lost_starts = 0  # in a row, of lanes that are not new
        self._lanes: dict[int, Lane] = {}
        self._alone: deque[Lane] = deque()  # whose calls were lost; the first one runs
        self._in_flight: set[Running] = set()
        self._plans: Plans = {}
        self._key, self._config = b"", b""
        self._happened: _Happened = []  # what the next `poll` returns
        self._done: SimpleQueue[Running | None] = SimpleQueue()
        self._woken = threading.Event()
        self._home = Home(os.getpid(), uuid.uuid4().hex)
        plain_calls.open_home(self._home)

    @property
    def numbers(self) -> list[int]:
        """See `Backend`."""
        return list(self._lanes)

    def pid(self, number: int) -> int | None:  # noqa: ARG002 - as of all backends
        """Return None: its calls may run in any process."""
        return None

    def node(self, number: int) -> str:  # noqa: ARG002 - as of all backends
        """See `protocol.backend.Backend`."""
        return ""

    def start(self, number: int, config: Config) -> None:
        """See `Backend`."""
        if not self._key:
            state, data, _, pace, output = pickling.loads(config.frame)
            modules = state.path_modules, state.modules_by_value
            has_shared = bool(config.shared)
            kept = state.decimal, data, pace, output.levels
            self._config = pickling.dumps((*modules, *kept, has_shared))
            # not of the modules: a process keeps those that it has found
            self._key = hashlib.sha256(repr(kept).encode()).digest()
            if has_shared:
                plain_calls.share_at_home(self._home, config.shared)
        self._lanes[number] = Lane(number)
        self._pump()

    def send(
        self,
        number: int,
        tag: int,
        payload: Data,
        buffers: Sequence[memoryview] = (),
        *,
        may_refer: bool = False,  # noqa: ARG002 - they are copied
    ) -> None:
        """See `Backend`."""
        lane = self._lanes.get(number)
        if lane is None:
            return
        if tag in (messages.BATCH, messages.EVENTS):
            lane.take(whole_frame(tag, payload, self._plans), buffers)
        elif tag == messages.REPACKED:
            lane.take_one_by_one(payload)
        elif tag == messages.MODULES:
            lane.take_modules(payload)
        elif tag == messages.QUIT:
            self._end(lane, exitcode=0)
        elif tag == messages.REPACK:
            # nobody has the results any more; see `Codec.unpack` for what becomes of them
            self._end(lane, exitcode=None)
        else:
            raise InternalError(f"no worker takes a frame of kind {tag}")
        self._pump()

    def _end(
        self,
        lane: Lane,
        exitcode: int | None,
        position: int | None = None,
        error: BaseException | None = None,
    ) -> None:
        """End a lane: at an event, between two, or when asked to."""
        del self._lanes[lane.number]
        if lane in self._alone:
            self._alone.remove(lane)
        at = status_words.NONE if position is None else position
        status = WorkerStatus(lane.batches, at, None, None)
        gone = Gone(lane.number, None, exitcode, status)
        if error is not None:
            cause = f"{type(error).__name__}: {error}"
            gone = gone._replace(
                cause=cause,
                has_timed_out=isinstance(error, _HungError),
                has_run_again=lane.is_suspect,
            )
        self._happened.append(gone)

    def link(self, number: int) -> None:
        """Return None: all calls come back in one queue."""

    def look_at(self, number: int) -> None:
        """Return None: nobody can see into a call."""

    def take_back(self, number: int, seen: WorkerStatus, newest: int) -> bool:  # noqa: ARG002 - as of all backends
        """Return False: see `look_at`."""
        return False

    def ask_back(self, number: int, newest: int) -> None:  # noqa: ARG002 - it has one batch
        """See `Backend`: a call that waits in the executor's queue does not begin."""
        lane = self._lanes.get(number)
        if lane is None or lane.frame is None or lane.is_suspect or lane.waits:
            return
        if lane.running is None:
            self._give_back(lane)
        else:
            lane.running.is_asked_back = True
            lane.running.is_asked_back = lane.running.future.cancel()

    def _give_back(self, lane: Lane) -> None:
        self._happened.append(Arrived(lane.number, messages.SKIPPED, pickling.dumps(lane.batches)))
        lane.end_batch()

    def ask_for_report(self, number: int) -> None:
        """Do nothing: a call reports when it is over."""

    def raise_soft_timeout(self, number: int, seen: WorkerStatus, *, is_again: bool) -> None:
        """Do nothing: see `look_at`."""

    def kill_stuck(self, number: int, seen: WorkerStatus) -> None:
        """Return None: a call cannot be ended."""

    def memory_bytes(self, number: int) -> int:  # noqa: ARG002 - as of all backends
        """Return 0: a worker has no process of its own."""
        return 0

    def wake(self) -> None:
        """See `Backend`."""
        self._woken.set()
        self._done.put(None)

    def rest(self, seconds: float) -> None:
        """See `Backend`."""
        self._woken.wait(seconds)

    @property
    def is_writing(self) -> bool:
        """See `Backend`."""
        return False

    # --- calls on their way ---

    def _pump(self) -> None:
        """Submit what can run now."""
        if self._broken is not None:
            return
        if self._alone:
            if not self._in_flight and self._alone[0].has_call:
                self._submit(self._alone[0])
            return
        for lane in list(self._lanes.values()):
            if lane.has_call and self._broken is None:
                self._submit(lane)

    def _submit(self, lane: Lane) -> None:
        brings = lane.needs_config or len(self._config) <= _LITTLE_BYTES
        is_new = self._event_timeout is not None and lane.generation != self._generation
        is_start = lane.expected is None or is_new
        config = self._config if brings else None
        batch = None if is_start else lane.call()
        call = Call(self._home, self._key, config, lane.expected, batch)
        try:
            future = self._executors.submit(plain_calls.run, call)
        except (Exception, SystemExit) as error:
            if not self._replaced(self._generation):
                self._break(error)
                return
            try:
                future = self._executors.submit(plain_calls.run, call)
            except (Exception, SystemExit) as again:
                self._break(again)
                return
        running = lane.running = Running(
            lane, future, self._generation, is_start=is_start, has_config=brings
        )
        self._in_flight.add(running)
        if len(self._in_flight) > 1:
            for each in self._in_flight:
                each.has_company = True
        future.add_done_callback(functools.partial(_note, self._done, running))

    def _break(self, error: BaseException, lane: Lane | None = None) -> None:
        """Submit nothing any more, for an error of a lane's call or of `submit`."""
        if self._broken is None:
            self._broken_at = monotonic()
            if lane is not None and isinstance(error, _HungError):
                self._broken = self._executors.hung(error, lane.number)
            else:
                self._broken = self._executors.broken(error)

    def _replaced(self, generation: int) -> bool:
        """Replace an executor that broke, unless it was; return whether another one is there."""
        if not self._executors.makes_others:
            return False
        if generation == self._generation:
            self._generation += 1
            self._executors.replace()
        return True

    def poll(self, timeout: float | None) -> list[Arrived | Gone]:
        """See `Backend`.

        Raises:
            PoolBrokenError: The executor broke, and what had come back was returned.
        """
        self._woken.clear()
        self._take_done()
        if self._broken is not None and not self._happened:
            left = self._broken_at + _BROKEN_SECONDS - monotonic()
            if left <= 0 or not self._in_flight:
                raise self._broken
            timeout = left if timeout is None else min(timeout, left)
        again = self._give_up_hung()
        if again is not None:
            timeout = again if timeout is None else min(timeout, again)
        if timeout != 0 and not self._happened:
            with contextlib.suppress(Empty):
                self._ended(self._done.get(timeout=timeout))
            self._take_done()
        happened, self._happened = self._happened, []
        return happened

    def _take_done(self) -> None:
        """Take in the calls that are over, and submit others."""
        while not self._done.empty():
            self._ended(self._done.get())
        self._pump()

    def _ended(self, running: Running | None) -> None:
        """Take in that a call is over; None: that `wake` was called."""
        if running is None:
            return
        if running.is_given_up:
            return
        lane, future = running.lane, running.future
        self._in_flight.discard(running)
        lane.running = None
        if self._lanes.get(lane.number) is not lane:
            return
        error = CancelledError() if future.cancelled() else future.exception()
        if error is None and not is_answer(answer := future.result(), running):
            error = TypeError(f"a call came back with {qualname(type(answer))}, which is no answer")
        if error is None:
            self._answered(running, answer)
        elif running.is_asked_back and isinstance(error, CancelledError):
            self._give_back(lane)
        else:
            self._lost(running, error)

    def _answered(self, running: Running, answer: Answer | None) -> None:
        lane = running.lane
        if answer is None:
            lane.needs_config = True
            return
        lane.needs_config = False
        if running.is_start:
            answer = self._started(running, answer)
        elif lane.singles is not None:
            answer = lane.singles.take(answer)
            if lane.singles.is_over:
                self._end_suspicion(lane)
        elif messages.UNREADABLE in [tag for tag, _ in answer]:
            lane.waits = True
        else:
            self._end_suspicion(lane)
        self._happened += [Arrived(lane.number, tag, payload) for tag, payload in answer]

    def _started(self, running: Running, answer: Answer) -> Answer:
        """Take in that a registry was made; return what the coordinator learns of it."""
        lane = running.lane
        lane.generation, self._lost_starts = running.generation, 0
        ((tag, payload),) = answer
        if tag != messages.READY:
            return answer
        if lane.expected is None:
            lane.expected = payload
            self._end_suspicion(lane)
            return answer
        is_same = pickling.loads(payload) == pickling.loads(lane.expected)
        return [] if is_same else answer

    def _end_suspicion(self, lane: Lane) -> None:
        if lane in self._alone:
            self._alone.remove(lane)
        lane.end_batch()

    # --- lost calls ---

    def _lost(self, running: Running, error: BaseException) -> None:
        """Take in that a call came to nothing; see the module's text."""
        lane = running.lane
        if isinstance(error, CancelledError) and lane.cancelled < MOST_CANCELLED:
            lane.cancelled += 1  # by somebody else; it never began
            return
        if not self._replaced(running.generation):
            self._break(error, lane)
            return
        if running.is_start and lane.expected is not None:
            self._lost_starts += 1
            if self._lost_starts >= _MOST_LOST_STARTS:
                self._break(error)
                return
        is_known = lane.frame is None or lane.singles is not None or lane.frame.size == 1
        may_charge = lane.expected is None or not running.is_start
        if may_charge and is_known and not running.has_company:
            self._charge(lane, error)
            return
        if lane not in self._alone:
            self._alone.append(lane)
        lane.needs_config = True  # another process will run it
        if lane.suspect():
            question = pickling.dumps((lane.batches, None))
            self._happened.append(Arrived(lane.number, messages.UNREADABLE, question))

    def _give_up_hung(self) -> float | None:
        """Give up calls that run for too long; return after how many seconds to look again."""
        most, now = self._event_timeout, monotonic()
        if most is None or not self._in_flight:
            return None
        for running in list(self._in_flight):
            if running.since is None:
                running.since = now if running.future.running() else None
                continue
            limit = (most + running.lane.overdue_seconds) * (1 + running.has_company)
            if running.is_start:
                limit = _START_SECONDS
            if now - running.since > limit and self._broken is None:
                running.is_given_up = True
                self._in_flight.discard(running)
                running.lane.running = None
                text = f"it did not end within {limit:g} s, with event_timeout={most:g} s"
                self._lost(running, _HungError(text))
        self._pump()
        return most / _LOOKS_PER_TIMEOUT

    def _charge(self, lane: Lane, error: BaseException) -> None:
        """Charge the event whose call was lost while no other was on its way."""
        position = 0 if lane.singles is None else lane.singles.position
        self._end(lane, exitcode=None, position=position, error=error)

    # --- the end ---

    def quit(self, most_seconds: float, hear: Callable[[Arrived], object]) -> None:
        """See `Backend`: wait for calls that are on their way, and end what the factory made."""
        end = monotonic() + min(_QUIT_SECONDS, most_seconds)
        self._cancel_all()
        while self._in_flight and (left := end - monotonic()) > 0:
            with contextlib.suppress(Empty):
                self._in_flight -= {self._done.get(timeout=left)}  # nobody waits for it
        self._finish(hear, end - monotonic() if not self._in_flight else 0.0)

    def kill(self, hear: Callable[[Arrived], object]) -> None:
        """See `Backend`: calls that run go on, unless a factory has made the executor."""
        self._cancel_all()
        self._finish(hear, 0.0)

    def _cancel_all(self) -> None:
        """Cancel calls that wait in an executor that stays.

        One that a factory made is ended; loky's thread fails then if a call is cancelled.
        """
        if not self._executors.makes_others:
            for running in self._in_flight:
                running.future.cancel()

    def _finish(self, hear: Callable[[Arrived], object], most_seconds: float) -> None:
        """End everything; finalizers are called if they may take so many seconds."""
        end = monotonic() + most_seconds
        self._lanes.clear()
        self._alone.clear()
        self._executors.end(most_seconds)
        left = end - monotonic()
        if left > 0:
            # in a thread: the finalizer may hang
            within(left, functools.partial(plain_calls.close_home, self._home, in_peace=True))
        else:
            plain_calls.close_home(self._home, in_peace=False)
        for item in self._happened:
            if isinstance(item, Arrived):
                hear(item)


def _note(done: SimpleQueue[Running | None], running: Running, _: object) -> None:
    """Note the end of a call, in whichever thread it ends."""
    done.put(running)
