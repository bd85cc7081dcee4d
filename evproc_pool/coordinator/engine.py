"""The engine: lets the threads of the application share one coordinator.

Who does the work
-----------------

There is no coordinator thread. A thread that waits for events *drives*, one turn at a time: it
reads frames of workers, lets the supervisor decide, pickles and sends. If another thread drives
already, it waits until that turn is over. So a single-threaded application has no hop between
threads and no fight for the GIL, and several threads take turns. A background thread drives while
there are futures, since nobody need wait for these.

Only the driver touches the supervisor, the workers and the codec, so none of them needs a lock.
No lock is held while code of the user runs (filters, pickling, callbacks of futures). Other
threads put their inputs into an inbox and wake the driver: see `driving`.

::

    process_many --accept--> inbox --> Coordinator.turn <--> workers
         ^                                  |
         +------------- sink <--------------+

Rejected: a coordinator thread (two hops a call, and the convoy on the GIL); a lock around the
scheduler (it would be held while filters of the user run).
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from evproc import Event
from evproc.handler import Plan
from evproc_pool.coordinator.cancellation import Cancel, Recall
from evproc_pool.coordinator.codec import Answer
from evproc_pool.coordinator.coordinator import Coordinator
from evproc_pool.coordinator.driving import Driving
from evproc_pool.coordinator.run_handle import OutcomeSink, RunHandle
from evproc_pool.coordinator.single_events import Asked
from evproc_pool.core.cascade_limits import PLAIN_ENDING, CascadeEnding
from evproc_pool.core.inputs_and_effects import Accepted, Closed, Input, Opened
from evproc_pool.errors import PoolClosedError, PoolError, PoolForkedError
from evproc_pool.protocol.backend import Backend


class Source(Protocol):
    """Holds submitted events that are not handed in yet."""

    @property
    def outstanding(self) -> int:
        """How many submitted events are not over."""

    def hand_in(self) -> None:
        """Hand in all of them, by `accept`. Called by the driver."""

    def drain(self) -> None:
        """Wait until none is outstanding."""


class Engine:
    """Takes events from any thread; see the module's text.

    Args:
        coordinator: Does the work.
        backend: The coordinator's; it is woken when there is something to do.
        make_sink: Makes the sink of a call with one event.
    """

    def __init__(
        self, coordinator: Coordinator, backend: Backend, make_sink: Callable[[], OutcomeSink]
    ) -> None:
        self._pid = os.getpid()
        self._coordinator = coordinator
        self._backend = backend
        self._make_sink = make_sink
        self._next_run = 0
        self._driving = Driving(
            lambda reason, seconds: coordinator.end(reason, most_seconds=seconds), backend.wake
        )
        self._lock = self._driving.lock
        self._draining: set[int] = set()  # threads
        self._asking: int | None = None  # the thread that asks a worker
        self._sent: tuple[Asked, Accepted] | None = None  # see `send_now`; the driver's
        self._source: Source | None = None

    # --- for callers, from any thread ---

    @property
    def closed(self) -> PoolError | None:
        """Why the engine takes nothing more, or None."""
        return self._driving.closed

    @property
    def is_replaceable(self) -> bool:
        """Whether another engine may take its place once it is closed."""
        return self._driving.is_replaceable

    def pids(self) -> list[int]:
        """The processes of workers that are not known to be gone, oldest first."""
        found = []
        for number in self._backend.numbers:
            with contextlib.suppress(ValueError):  # the driver lets go of it this very moment
                found.append(self._backend.pid(number))
        return [pid for pid in found if pid is not None]

    @property
    def open_runs(self) -> int:
        """How many runs are not finished."""
        return len(self._coordinator.runs) + (self._asking is not None)

    @property
    def turns(self) -> int:
        """Grows with every turn; for `wait_turn`."""
        return self._driving.turns

    def open(
        self,
        sink: OutcomeSink,
        *,
        until_error: bool = False,
        unordered: bool = False,
        return_events: bool = False,
        is_bulk: bool = False,
        every_event: bool = False,
        ending: CascadeEnding = PLAIN_ENDING,
        can_cancel: bool = False,
        shares_keys: bool = False,
        has_several: bool = False,
    ) -> RunHandle:
        """Begin a run; see `inputs_and_effects.Opened` and `RunHandle`.

        Raises:
            PoolError: The engine is closed.
        """
        opened = Opened(
            -1,
            until_error,
            unordered,
            return_events,
            is_bulk,
            every_event,
            *ending,
            shares_keys=shares_keys,
            has_several=has_several,
        )
        run, opened = self._begin(opened, sink, can_cancel=can_cancel)
        self._post(opened)
        return run

    def _begin(
        self, opened: Opened, sink: OutcomeSink, *, can_cancel: bool
    ) -> tuple[RunHandle, Opened]:
        """Make a run, and what opens it, with its id."""
        with self._lock:
            if self._driving.closed is not None:
                raise self._driving.closed
            opened = opened._replace(run=self._next_run)
            run = RunHandle(opened, sink, can_cancel=can_cancel)
            self._next_run += 1
            self._coordinator.runs[run.id] = run
        return run, opened

    def call(
        self, ev: Event, plan: Plan, *, unordered: bool, ending: CascadeEnding = PLAIN_ENDING
    ) -> Answer | RunHandle:
        """Begin a call with one event, and end it at once if possible.

        Returns:
            Its answer. Or a closed run to wait for, with a sink of its own.

        Raises:
            PoolError: The engine is closed.
            RuntimeError: See `check_may_wait`.
            BaseException: An error that broke the engine, for example `KeyboardInterrupt`.
        """
        found = self._ask(ev, plan, unordered, ending)
        if found is None:
            opened = _opened(unordered, ending)
            found, opened = self._begin(opened, self._make_sink(), can_cancel=False)
            for item in _inputs(opened, ev, plan):
                self._post(item)
        return found

    def _ask(
        self, ev: Event, plan: Plan, unordered: bool, ending: CascadeEnding
    ) -> Answer | RunHandle | None:
        """Send the event past the scheduler, if nobody drives; None: it was not sent."""
        self._driving.check_may_wait()

        def may_ask() -> bool:
            may = self._may_ask
            if may:
                self._asking = threading.get_ident()
            return may

        def act() -> Answer | RunHandle | None:
            try:
                asked = self._coordinator.ask(ev, plan)
                if asked is None:
                    return None
                singles = self._coordinator.single_events
                answer = singles.answer(asked) if singles.wait(asked) else None
                if answer is not None:
                    return answer
                opened = _opened(unordered, ending)
                run, opened = self._begin(opened, self._make_sink(), can_cancel=False)
                run.is_closing = True
                self._coordinator.adopt(asked, _inputs(opened, ev, plan))
                return run
            finally:
                self._asking = None

        try:
            return self._driving.drive(may_ask, act)
        finally:
            # an interrupt may strike before `act` begins; `drain` would wait for ever
            if self._asking == threading.get_ident():
                self._asking = None

    @property
    def _may_ask(self) -> bool:
        """Whether nothing else is going on. Needs the lock."""
        return self._is_free and self._sent is None and not self.is_foreign

    @property
    def _is_free(self) -> bool:
        """Whether a thread may drive."""
        return self._driving.thread is None and self._driving.closed is None

    def send_now(self, root: Accepted, sink: OutcomeSink) -> bool:
        """Send a single root of an open run, past the scheduler, if nothing else goes on.

        `collect` takes its answer, or else whoever drives next.

        Returns:
            Whether it was sent. Then the sink of its run knows that it begins.
        """

        def act() -> bool:
            (ev,), (plan,) = root.events, root.plans
            asked = self._coordinator.ask(ev, plan)
            if asked is not None:
                # while nobody else can have its end
                sink.begins(root.first)
                self._sent = asked, root
            return asked is not None

        return bool(self._driving.drive(lambda: self._may_ask, act))

    def collect(
        self, run: int, root: int, seconds: float, deliver: Callable[[Answer], object]
    ) -> bool:
        """Wait a moment for the answer to a root of `send_now`.

        Args:
            run: The run of the root.
            root: The root.
            seconds: The longest wait.
            deliver: Called with the answer, before anybody else can drive.

        Returns:
            Whether it was there. If not, the sink will get it.
        """
        sent, is_there, singles = self._sent, False, self._coordinator.single_events

        def may_collect() -> bool:
            if sent is None or sent is not self._sent or not self._is_free or self.is_foreign:
                return False
            return (sent[1].run, sent[1].first) == (run, root)

        def wait() -> None:
            nonlocal is_there
            is_there = sent is not None and singles.wait(sent[0], seconds)

        def act() -> bool:
            answer = singles.answer(sent[0]) if is_there and sent is not None else None
            if answer is None:
                self._adopt_sent()
            else:
                deliver(answer)
            self._sent = None
            return answer is not None

        return bool(self._driving.drive(may_collect, act, wait))

    def _adopt_sent(self) -> None:
        sent, self._sent = self._sent, None
        if sent is not None:
            asked, accepted = sent
            self._coordinator.adopt(asked, (accepted,))

    @property
    def is_foreign(self) -> bool:
        """Whether this process is forked from that of the engine."""
        return os.getpid() != self._pid

    def accept(self, roots: Accepted) -> None:
        """Hand in roots of a run."""
        self._post(roots)

    def feed_from(self, source: Source) -> None:
        """Have each driver ask for what was submitted, before its turn."""
        self._source = source

    @property
    def is_free(self) -> bool:
        """Whether nobody drives."""
        return self._driving.thread is None

    def push(self) -> None:
        """Send what was submitted, if nobody drives. Nothing is waited for, and nothing ends.

        So no callback of a future runs.

        Raises:
            BaseException: See `wait_turn`.
        """

        def may_push() -> bool:
            is_free = (
                self._driving.thread is None
                and self._driving.closed is None
                and not self.is_foreign
            )
            return is_free and self._coordinator.has_workers  # who starts some sends it

        def act() -> None:
            self._adopt_sent()
            self._hand_in()
            self._coordinator.take_in()

        self._driving.drive(may_push, act)

    def _hand_in(self) -> None:
        if self._source is not None:
            self._source.hand_in()

    def wake(self) -> None:
        """Have the driver begin another turn soon, if another thread drives."""
        if self._driving.thread not in (None, threading.get_ident()):
            self._backend.wake()

    def close_run(self, run: RunHandle, *, drop: bool = False) -> None:
        """Say that no more roots come; see `inputs_and_effects.Closed`."""
        run.is_closing = True
        if not self.is_foreign:  # else it is the parent's
            self._post(Closed(run.id, drop))

    def cancel(self, run: RunHandle, roots: Sequence[int] | None, *, kill: bool) -> None:
        """Give roots of a run up; see `cancellation.Cancel`. Takes effect with the next turn."""
        if not self.is_foreign:
            self._coordinator.orders.append(Cancel(run.id, roots, kill))
            self.wake()

    def recall(self) -> None:
        """Have all workers give back what they have not begun; see `cancellation.Recall`."""
        if not self.is_foreign:
            self._coordinator.orders.append(Recall())
            self.wake()

    def where(self, run: RunHandle, roots: Sequence[int] | None) -> str:
        """Which of a run's roots are being run, in words; None: any. From any thread."""
        try:
            return self._coordinator.where(run.id, roots)
        except (RuntimeError, LookupError, ValueError):
            return "it is running"  # the driver has changed it this very moment

    def enter(self, run: RunHandle) -> None:
        """This thread is in a call until the run is finished: `drain` waits for it.

        Where an interrupt would have the run closed: or else `drain` would wait for ever.
        """
        run.caller = threading.get_ident()

    def demand(self, run: RunHandle) -> int:
        """How many roots the run would take now."""
        return self._coordinator.demand(run)

    def _post(self, item: Input) -> None:
        # First the item, then the look at who drives: a driver that is not seen here
        # has not looked into the inbox yet, and will.
        self._coordinator.inbox.append(item)
        self.wake()

    def wait_turn(self, since: int, *, may_block: bool = True) -> None:
        """Do one turn, or wait for the end of the turn that another thread does.

        Args:
            since: What `turns` was at the caller's last check of its own affairs;
                returns at once if there was a turn since.
            may_block: Whether the turn may wait for something to happen. False for a
                caller that has more to do in any case.

        Raises:
            PoolForkedError: In a process that `os.fork` made.
            RuntimeError: Called from within a turn: by a filter, a pickling method
                or a callback of a future. They may hand in events, but not wait.
            BaseException: What broke the turn, `KeyboardInterrupt` for one. The
                engine is closed then.
        """
        if self.is_foreign:
            raise PoolForkedError("this pool belongs to the process that made it: make a new one")

        def may_drive() -> bool:
            self._driving.check_may_wait()
            if self._driving.turns != since:
                return False
            if self._driving.thread is not None:
                if may_block:
                    self._driving.wait()
                return False
            return self._driving.closed is None

        def act() -> None:
            self._adopt_sent()
            self._hand_in()
            self._coordinator.turn(may_block=may_block)

        self._driving.drive(may_drive, act)

    def interrupt(self, error: BaseException) -> None:
        """Drop everything that is in flight, and kill the workers, for what has struck a caller.

        The next call gets a new engine.
        """
        if not self.is_foreign:
            with self._lock:
                self._driving.give_way(error)
            self._driving.stop(most_seconds=0.0)

    def finish_submitted(self) -> None:
        """Wait for what was submitted."""
        if self._source is not None and self._source.outstanding:
            self._source.drain()

    def check_may_wait(self) -> None:
        """Refuse a thread that would wait for itself; see `Driving.check_may_wait`."""
        self._driving.check_may_wait()

    def drain(self) -> None:
        """Wait for the end of what is in flight of runs that were closed, and of calls.

        But not of calls that this is done in: their input may end the pool.

        Raises:
            RuntimeError: See `check_may_wait`.
        """
        self._draining.add(threading.get_ident())
        self._backend.wake()  # who waits for this thread's call need not any more
        try:
            while self._driving.closed is None:
                turns = self._driving.turns
                runs = list(self._coordinator.runs.values())
                callers = [*(run.caller for run in runs), self._asking]
                others = [caller for caller in callers if caller not in self._draining]
                if not (any(others) or any(run.is_closing for run in runs)):
                    return
                self.wait_turn(turns)
        finally:
            self._draining.discard(threading.get_ident())

    def refresh(self) -> None:
        """Take in what has happened so far, without waiting, so that `open_runs` is up to date."""
        with self._lock:
            if not (self._is_free and self._coordinator.has_workers):
                return
        self.wait_turn(self._driving.turns, may_block=False)

    def retire(self, idle_runs: int) -> bool:
        """Take nothing more, if nothing is in flight; say whether that is so.

        Args:
            idle_runs: How many runs are open that have nothing in flight.
        """
        with self._lock:
            is_idle = (
                self._driving.thread is None and self._sent is None and self._driving.closed is None
            )
            if is_idle and len(self._coordinator.runs) == idle_runs:
                self._driving.closed = PoolClosedError("the workers are being replaced")
                self._driving.is_replaceable = True
        return self.is_replaceable

    def stop(self, *, most_seconds: float) -> None:
        """End the workers; see `Driving.stop`."""
        self._driving.stop(most_seconds=most_seconds)


def _opened(unordered: bool, ending: CascadeEnding) -> Opened:
    """The input that opens the run of a call with one event, without its id."""
    return Opened(-1, True, unordered, False, True, False, *ending)


def _inputs(opened: Opened, ev: Event, plan: Plan) -> tuple[Input, ...]:
    """A run of one root."""
    return opened, Accepted(opened.run, 0, [ev], [plan]), Closed(opened.run)
