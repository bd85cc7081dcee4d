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
from typing import TYPE_CHECKING, Protocol

from evproc import Event
from evproc.handler import Plan
from evproc_pool.coordinator.cancellation import Cancel, Recall, Reclaim
from evproc_pool.coordinator.codec import Answer
from evproc_pool.coordinator.coordinator import Coordinator
from evproc_pool.coordinator.driving import Driving
from evproc_pool.coordinator.run_handle import OutcomeSink, RunHandle
from evproc_pool.coordinator.single_events import SentSingle
from evproc_pool.core.cascade_limits import PLAIN_ENDING, CascadeEnding
from evproc_pool.core.inputs_and_effects import Accepted, Closed, Input, Opened
from evproc_pool.errors import PoolClosedError, PoolForkedError, again
from evproc_pool.protocol.backend import Backend

if TYPE_CHECKING:
    from evproc_pool.coordinator.notices import Notices
    from evproc_pool.observe.collector import WorkerView


class Source(Protocol):
    """Holds submitted events that are not handed in yet."""

    @property
    def outstanding(self) -> int:
        """How many submitted events are not over."""

    @property
    def waiting(self) -> int:
        """How many submitted events are not handed in."""

    def hand_in(self) -> None:
        """Hand in all of them, by `accept`. Called by the driver."""

    def drain(self) -> None:
        """Wait until none is outstanding."""


class Engine(Driving):
    """Takes events from any thread; `make_sink` makes the sink of a call with one event."""

    def __init__(
        self, coordinator: Coordinator, backend: Backend, make_sink: Callable[[], OutcomeSink]
    ) -> None:
        super().__init__(coordinator.end, backend.wake)
        self._pid = os.getpid()
        self._coordinator = coordinator
        self._backend = backend
        self._make_sink = make_sink
        self._next_run = 0
        self._draining: set[int] = set()  # threads
        self._single_caller: int | None = None  # the thread that waits for a single event
        self._sent: tuple[SentSingle, Accepted] | None = None  # see `send_now`; the driver's
        self._source: Source | None = None

    # --- for callers, from any thread ---

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
        return len(self._coordinator.runs) + (self._single_caller is not None)

    @property
    def is_at_work(self) -> bool:
        """Whether workers have events that are not known to be over."""
        return self._single_caller is not None or self._coordinator.is_at_work

    @property
    def notices(self) -> Notices | None:
        """Tells the pool's listeners; None: there are none."""
        return self._coordinator.notices

    def now(self) -> tuple[int, int, list[WorkerView]]:
        """How many events wait, how many workers have, and what these do."""
        pending, in_flight, views = self._coordinator.now()
        if self._source is not None:
            pending += self._source.waiting
        in_flight += (self._single_caller is not None) + (self._sent is not None)
        return pending, in_flight, views

    def pass_over(self) -> None:
        """Tell the pool's listeners of a single event that no handler wants."""
        if (notices := self.notices) is not None:
            notices.unwanted(None, 0, 1)

    def observe(self, notices: Notices | None) -> None:
        """See `Coordinator.observe`."""
        self._coordinator.observe(notices)

    def open(
        self,
        sink: OutcomeSink,
        *,
        ending: CascadeEnding = PLAIN_ENDING,
        can_cancel: bool = False,
        **options: bool,
    ) -> RunHandle:
        """Begin a run; see `RunHandle`, and `inputs_and_effects.Opened` for the options."""
        opened = Opened(-1, **options, **ending._asdict())
        run, opened = self._begin(opened, sink, can_cancel=can_cancel)
        self.accept(opened)
        return run

    def _begin(
        self, opened: Opened, sink: OutcomeSink, *, can_cancel: bool
    ) -> tuple[RunHandle, Opened]:
        """Make a run, and what opens it, with its id; raise the error that closed the engine."""
        with self.lock:
            if self.closed is not None:
                raise again(self.closed)
            opened = opened._replace(run=self._next_run)
            run = RunHandle(opened, sink, can_cancel=can_cancel)
            self._next_run += 1
            self._coordinator.runs[run.id] = run
        return run, opened

    def _begin_one(
        self, ev: Event, plan: Plan, unordered: bool, ending: CascadeEnding
    ) -> tuple[RunHandle, tuple[Input, ...]]:
        """Make a closed run of one root, and its inputs."""
        opened = Opened(-1, until_error=True, unordered=unordered, is_bulk=True, **ending._asdict())
        run, opened = self._begin(opened, self._make_sink(), can_cancel=False)
        return run, (opened, Accepted(run.id, 0, [ev], [plan]), Closed(run.id))

    def call(
        self, ev: Event, plan: Plan, *, unordered: bool, ending: CascadeEnding = PLAIN_ENDING
    ) -> Answer | RunHandle:
        """Begin a call with one event; return its answer, or a closed run to wait for."""
        found = self._try_single(ev, plan, unordered, ending)
        if found is None:
            found, inputs = self._begin_one(ev, plan, unordered, ending)
            for item in inputs:
                self.accept(item)
        return found

    def _try_single(
        self, ev: Event, plan: Plan, unordered: bool, ending: CascadeEnding
    ) -> Answer | RunHandle | None:
        """Send the event past the scheduler, if nobody drives; None: it was not sent."""
        self.check_may_wait()

        def may_send() -> bool:
            may = self._may_send_single
            if may:
                self._single_caller = threading.get_ident()
            return may

        def act() -> Answer | RunHandle | None:
            try:
                single = self._coordinator.try_send_single(ev, plan)
                if single is None:
                    return None
                singles = self._coordinator.single_events
                answer = singles.answer(single) if singles.wait(single) else None
                if answer is not None:
                    if (notices := self.notices) is not None:
                        notices.answered(single, None, ev, plan)
                    return answer
                run, inputs = self._begin_one(ev, plan, unordered, ending)
                run.is_closing = True
                self._coordinator.adopt(single, inputs)
                return run
            finally:
                self._single_caller = None

        try:
            return self.drive(may_send, act)
        finally:
            # an interrupt may strike before `act` begins; `drain` would wait for ever
            if self._single_caller == threading.get_ident():
                self._single_caller = None

    @property
    def _may_send_single(self) -> bool:
        """Whether nothing else is going on. Needs the lock."""
        return self.is_free and self._sent is None and not self.is_foreign

    def send_now(self, root: Accepted, sink: OutcomeSink) -> bool:
        """Send a single root of an open run, past the scheduler, if nothing else goes on.

        `collect` takes its answer, or else whoever drives next. If it was sent, the sink of its
        run knows that it begins.
        """

        def act() -> bool:
            (ev,), (plan,) = root.events, root.plans
            single = self._coordinator.try_send_single(ev, plan)
            if single is not None:
                # while nobody else can have its end
                sink.begins(root.first)
                self._sent = single, root
            return single is not None

        return bool(self.drive(lambda: self._may_send_single, act))

    def collect(
        self, run: int, root: int, seconds: float, deliver: Callable[[Answer], object]
    ) -> bool:
        """Wait a moment for the answer to a root of `send_now`; return whether it was there.

        `deliver` gets it before anybody else can drive. Otherwise the sink will get it.
        """
        sent, is_there, singles = self._sent, False, self._coordinator.single_events

        def may_collect() -> bool:
            if sent is None or sent is not self._sent or not self.is_free or self.is_foreign:
                return False
            return (sent[1].run, sent[1].first) == (run, root)

        def wait() -> None:
            nonlocal is_there
            is_there = sent is not None and singles.wait(sent[0], seconds)

        def act() -> bool:
            answer = singles.answer(sent[0]) if is_there and sent is not None else None
            if answer is None or sent is None:
                self._adopt_sent()
            else:
                (ev,), (plan,) = sent[1].events, sent[1].plans
                if (notices := self.notices) is not None:
                    notices.answered(sent[0], (run, root), ev, plan)
                deliver(answer)
            self._sent = None
            return answer is not None

        return bool(self.drive(may_collect, act, wait))

    def _adopt_sent(self) -> None:
        sent, self._sent = self._sent, None
        if sent is not None:
            single, accepted = sent
            self._coordinator.adopt(single, (accepted,))

    @property
    def is_foreign(self) -> bool:
        """Whether this process is forked from that of the engine."""
        return os.getpid() != self._pid

    def feed_from(self, source: Source) -> None:
        """Have each driver ask for what was submitted, before its turn."""
        self._source = source

    @property
    def is_free(self) -> bool:
        """Whether a thread may drive."""
        return self.thread is None and self.closed is None

    def push(self) -> None:
        """Send what was submitted, if nobody drives. Nothing is waited for, and nothing ends.

        So no callback of a future runs.
        """

        def may_push() -> bool:
            is_free = self.is_free and not self.is_foreign
            return is_free and self._coordinator.has_workers  # who starts some sends it

        def act() -> None:
            self._hand_in()
            self._coordinator.take_in()

        self.drive(may_push, act)

    def _hand_in(self) -> None:
        self._adopt_sent()
        if self._source is not None:
            self._source.hand_in()

    def wake(self) -> None:
        """Have the driver begin another turn soon, if another thread drives."""
        if self.thread not in (None, threading.get_ident()):
            self._backend.wake()

    def close_run(self, run: RunHandle, *, drop: bool = False) -> None:
        """Say that no more roots come; see `inputs_and_effects.Closed`."""
        run.is_closing = True
        if not self.is_foreign:  # else it is the parent's
            self.accept(Closed(run.id, drop))

    def cancel(self, run: RunHandle, roots: Sequence[int] | None, *, kill: bool) -> None:
        """Give roots of a run up; see `cancellation.Cancel`. Takes effect with the next turn."""
        if not self.is_foreign:
            self._coordinator.cancellations.append(Cancel(run.id, roots, kill))
            self.wake()

    def reclaim(self, run: RunHandle, root: int, *, is_wanted: bool) -> None:
        """Ask for a root that no worker has begun, or not any more; see `cancellation.Reclaim`."""
        self._coordinator.cancellations.append(Reclaim(run.id, root, is_wanted))
        self.wake()

    def place_before(self, run: RunHandle, root: int) -> tuple[int, int] | None:
        """See `cancellation.place_before`; None in the thread that drives. From any thread."""
        if self.is_foreign or self.thread == threading.get_ident():
            return None
        try:
            return self._coordinator.place_before(run.id, root)
        except (RuntimeError, LookupError, ValueError):
            return 0, 0  # the driver has changed it this very moment

    def recall(self) -> None:
        """Have all workers give back what they have not begun; see `cancellation.Recall`."""
        if not self.is_foreign:
            self._coordinator.cancellations.append(Recall())
            self.wake()

    def where(self, run: RunHandle, roots: Sequence[int] | None) -> str:
        """Which of a run's roots are being run, in words; None: any. From any thread."""
        try:
            return self._coordinator.where(run.id, roots)
        except (RuntimeError, LookupError, ValueError):
            return "it is running"  # the driver has changed it this very moment

    def enter(self, run: RunHandle) -> None:
        """Have `drain` wait for this thread, which is in a call until the run is finished.

        Called where an interrupt closes the run. Otherwise `drain` would wait for ever.
        """
        run.caller = threading.get_ident()

    def demand(self, run: RunHandle) -> int:
        """How many roots the run would take now."""
        return self._coordinator.demand(run)

    def accept(self, item: Input) -> None:
        """Hand in an input, mostly roots of a run."""
        # First the item, then the look at who drives: a driver that is not seen here
        # has not looked into the inbox yet, and will.
        self._coordinator.inbox.append(item)
        self.wake()

    def wait_turn(self, since: int, *, may_block: bool = True) -> None:
        """Do one turn, or wait for the end of the turn that another thread does.

        Args:
            since: What `turns` was at the caller's last check of its own affairs; returns at once
                if there was a turn since.
            may_block: Whether the turn may wait for something to happen. False for a caller that
                has more to do in any case.

        Raises:
            PoolForkedError: In a process that `os.fork` made.
            RuntimeError: See `check_may_wait`.
            BaseException: What broke the turn, for example `KeyboardInterrupt`. The engine is
                closed then.
        """
        if self.is_foreign:
            raise PoolForkedError("this pool belongs to the process that made it: make a new one")

        def may_drive() -> bool:
            self.check_may_wait()
            if self.turns != since:
                return False
            if self.thread is not None:
                if may_block:
                    self.wait()
                return False
            return self.closed is None

        def act() -> None:
            self._hand_in()
            self._coordinator.turn(may_block=may_block)

        self.drive(may_drive, act)

    def interrupt(self, error: BaseException) -> None:
        """Drop everything that is in flight, and kill the workers, for what has struck a caller.

        The next call gets a new engine.
        """
        if not self.is_foreign:
            with self.lock:
                self.give_way(error)
            self.stop(most_seconds=0.0)

    def finish_submitted(self) -> None:
        """Wait for what was submitted."""
        if self._source is not None and self._source.outstanding:
            self._source.drain()

    def drain(self) -> None:
        """Wait for the end of what is in flight of runs that were closed, and of calls.

        But not of calls that this is done in: their input may end the pool.
        """
        self._draining.add(threading.get_ident())
        self._backend.wake()  # who waits for this thread's call need not any more
        try:
            while self.closed is None:
                turns = self.turns
                runs = list(self._coordinator.runs.values())
                callers = [*(run.caller for run in runs), self._single_caller]
                others = [caller for caller in callers if caller not in self._draining]
                if not (any(others) or any(run.is_closing for run in runs)):
                    return
                self.wait_turn(turns)
        finally:
            self._draining.discard(threading.get_ident())

    def refresh(self) -> None:
        """Take in what has happened so far, without waiting, so that `open_runs` is up to date."""
        with self.lock:
            if not (self.is_free and self._coordinator.has_workers):
                return
        self.wait_turn(self.turns, may_block=False)

    def retire(self, idle_runs: int) -> bool:
        """Take nothing more, if nothing is in flight but these runs; say whether that is so."""
        with self.lock:
            if self.is_free and self._sent is None and len(self._coordinator.runs) == idle_runs:
                self.closed = PoolClosedError("the workers are being replaced")
                self.is_replaceable = True
        return self.is_replaceable
