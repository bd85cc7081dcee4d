"""The supervisor: every decision about workers, around the scheduler's about events. Pure.

::

    inputs, the time, what was seen of workers --> Supervisor --> effects
                                                       |
                                                   Scheduler

It decides when a worker is started, replaced and stopped, when it gives back batches or has them
taken back, when it is asked for results, warned and killed, and how long the coordinator may
rest. `Scheduler` decides what is sent to whom. The time is an argument, in monotonic seconds.

Life of a worker::

    Start --> starting --WorkerReady--> ready --(quota nearly used)--> ending
                 |                        |                              |
             StartLost                WorkerGone         replacement ready, or quota used
                                                                         |
                                             Stop <--(holds nothing)-- retired

Rules:

- as many workers are started as there was work for at once, up to the size of the pool. They stay,
  and are replaced when they end;
- a worker that is about to end works on until its replacement is ready;
- if the system refuses to start more workers, those that are there do the work. Now and then one
  more is tried, until one is ready;
- a slow event delays no other one: if a worker is idle, what waits behind the slow event is taken
  back;
- an event that breaks a limit costs its worker, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from math import inf
from typing import Final

from evproc_pool.core.event_limits import MOST_LOOK_SECONDS, DwellTimes, EventLimits, EventWatch
from evproc_pool.core.inputs_and_effects import Input as SchedulerInput
from evproc_pool.core.inputs_and_effects import PauseOver, Retired, Retry, WorkerGone, WorkerReady
from evproc_pool.core.report_requests import ReportRequests
from evproc_pool.core.retry_policy import Pauses, RetryPolicy
from evproc_pool.core.scheduler import Scheduler
from evproc_pool.core.supervisor_inputs import (
    AskBack,
    AskReport,
    Effect,
    FewerWorkers,
    GiveUp,
    Input,
    Kill,
    KillMissed,
    LookAgain,
    QuotaNearlyUsed,
    QuotaUsed,
    Seen,
    Start,
    StartFailed,
    StartLost,
    Stop,
    TakeBack,
)
from evproc_pool.core.worker_loads import PREFETCH

# The pool gives up when so many workers in a row died before they were ready.
_MOST_FAILED_STARTS: Final = 3

# The same once a worker was ready: then not every worker fails.
_MOST_FAILED_RESTARTS: Final = 10

#: A worker at one event for this many seconds is slow. More than twice the time after which a
#: worker looks whether work was taken back (`status_words.SLOW_SECONDS`); taking back rests on it.
STUCK_SECONDS: Final = 0.005

# The share of the time for which workers have work that the coordinator may rest. It may wake up
# late, since the workers keep all CPUs busy.
_REST_SHARE: Final = 0.75

# A shorter rest is not worth waking up twice for.
_LEAST_REST_SECONDS: Final = 0.001

# After starts that failed, another one is tried after so many seconds, doubled up to the second.
_TRY_AGAIN_SECONDS: Final = (0.5, 60.0)

# A turn waits no longer: selectors refuse much longer times.
_LONGEST_WAIT_SECONDS: Final = 3600.0


class _Worker:
    """What is known of a worker."""

    __slots__ = ("asked", "is_ending", "is_retired", "kill", "sent")

    def __init__(self) -> None:
        self.is_ending = False  # whether it will end soon, so that its replacement is started
        self.is_retired = False  # whether it is sent nothing more
        # how many batches it was sent; `asked` at how many it was asked to give some back
        self.sent = 0
        self.asked = 0
        self.kill: Kill | None = None  # why it was killed, if it was


class Supervisor:
    """See the module's text. Not safe for threads.

    Args:
        policy: Which events are run again.
        most_workers: The size of the pool.
        limits: Of each event.
        draw: Gives random numbers from 0 to 1, for the length of pauses.
        is_observed: See `Scheduler`, as for `prefetch`.
        prefetch: See there; None: as usual. Otherwise workers are no processes of the pool, and
            start at once, all of them: the first would take all of the first events.
    """

    def __init__(
        self,
        policy: RetryPolicy,
        most_workers: int,
        limits: EventLimits,
        draw: Callable[[], float],
        *,
        is_observed: bool = False,
        prefetch: int | None = None,
    ) -> None:
        # Others may read its properties. Inputs go through `step` of this class only.
        self.scheduler = Scheduler(
            policy, most_workers, is_observed=is_observed, prefetch=prefetch or PREFETCH
        )
        self._size = most_workers
        self._pauses = Pauses(policy, draw)
        self._workers: dict[int, _Worker] = {}
        self._stopping: set[int] = set()  # retired, and not told to end
        # workers for which there was work at once, so far
        self._wanted = 1 if prefetch is None else most_workers
        self._newest = 0  # the number of the last worker
        self._failed_starts = 0
        self._struck = 0  # the last worker that was there when such a start was lost to a signal
        self._refused = 0  # the last worker that could not be started; 0: later ones were ready
        self._try_again = 0.0  # when to start another one then
        self._try_seconds = _TRY_AGAIN_SECONDS[0]
        self._has_said_fewer = False
        self._was_ready = False  # whether any worker ever was
        self._limits = EventWatch(limits)
        self._overloaded = DwellTimes()
        self._report_requests = ReportRequests()
        self._next_sample = 0.0  # when to ask for the memory of all workers
        self._woke = 0.0  # when the coordinator last had nothing to do

    # --- questions ---

    @property
    def is_complete(self) -> bool:
        """Whether all workers that should be there are ready."""
        return self._wanted <= self.scheduler.workers == len(self._workers)

    @property
    def single(self) -> int | None:
        """The worker that may get a single event past the scheduler, if all is quiet."""
        worker = self.scheduler.unused
        if worker is None or not self.is_complete or self._workers[worker].is_ending:
            return None
        return worker

    def is_known(self, worker: int) -> bool:
        """Whether a worker is there, or to be started."""
        return worker in self._workers

    def is_retired(self, worker: int) -> bool:
        """Whether a worker is sent nothing more."""
        return self._workers[worker].is_retired

    def is_ending(self, worker: int) -> bool:
        """Whether a worker will end soon, and be replaced."""
        return self._workers[worker].is_ending

    def killed(self, worker: int) -> Kill | None:
        """Why a worker was killed, if it was."""
        return self._workers[worker].kill

    def needs_memory(self, now: float) -> bool:
        """Whether `look` needs the memory of busy workers."""
        return self._limits.needs_memory or now >= self._next_sample

    # --- inputs ---

    def step(self, item: Input, now: float, *, more: bool = False) -> list[Effect]:
        """Take in what happened.

        Args:
            item: What happened.
            now: Monotonic seconds; never decreases.
            more: Whether the next input is there already; see `Scheduler.step`.

        Returns:
            What to do, in order.

        Raises:
            InternalError: See `Scheduler.step`.
        """
        match item:
            case WorkerReady():
                return self._ready(item, now)
            case StartFailed() | StartLost():
                return self._start_failed(item, now)
            case QuotaNearlyUsed():
                self._workers[item.worker].is_ending = True
                return []
            case QuotaUsed():
                self._workers[item.worker].is_ending = True
                return self._retire(item.worker, now)
            case KillMissed():
                self._workers[item.worker].kill = None
                return []
        if isinstance(item, WorkerGone):
            self._forget(item.worker)
        return self._schedule(item, now, more=more)

    def _schedule(self, item: SchedulerInput, now: float, *, more: bool = False) -> list[Effect]:
        effects: list[Effect] = []
        for effect in self.scheduler.step(item, more=more):
            if isinstance(effect, Retry):
                self._pauses.begin(effect.token, effect.failures, now)
            else:
                effects.append(effect)
        for worker in [each for each in self._stopping if self.scheduler.held_by(each) is None]:
            self._stopping.remove(worker)
            effects.append(Stop(worker))
        return effects

    def sent(self, worker: int, now: float, *, is_first: bool) -> None:
        """Note that a worker was sent a batch; `is_first`: it held nothing before."""
        self._workers[worker].sent += 1
        if is_first:
            self._report_requests.heard(worker, now)

    def heard(self, worker: int, earliest: float) -> None:
        """Note that a worker has sent something, at `earliest` or later."""
        self._report_requests.heard(worker, earliest)

    def heard_last(self, worker: int, now: float) -> float:
        """When a worker was heard of last."""
        return self._report_requests.since(worker, now)

    def seen_since(self, worker: int, at: Seen, now: float) -> float:
        """When a worker was first seen where it is; -inf if it was not seen there."""
        return self._limits.since(worker, at, now)

    def recall(self, workers: Iterable[int]) -> list[Effect]:
        """Ask workers to give back what they have not begun, since callers gave it up."""
        return [AskBack(worker) for worker in workers]

    # --- starting and ending ---

    def begin_turn(self, now: float) -> list[Effect]:
        """Start the workers for which there is work, and end pauses that are over."""
        effects: list[Effect] = []
        self._pauses.forget_others(self.scheduler.pausing)
        for token in self._pauses.over(now):
            effects += self._schedule(PauseOver(token), now)
        most, there = self._size, sum(not each.is_ending for each in self._workers.values())
        if self._refused:
            waits = now < self._try_again
            most = min(most, self._wanted + (not waits))
            there = len(self._workers) if waits else there
        if self._wanted < most:
            self._wanted = max(self._wanted, min(most, self.scheduler.employable))
        for _ in range(self._wanted - there):
            self._newest += 1
            self._workers[self._newest] = _Worker()
            self.scheduler.starting += 1
            effects.append(Start(self._newest))
        return effects + self._say_fewer()

    def resize(self, most_workers: int) -> None:
        """Change the size of the pool: workers were lost for good, or there is room for more.

        Workers that are there stay. `begin_turn` starts more if there is work for them.
        """
        self._size = most_workers
        self._wanted = min(self._wanted, most_workers)
        self.scheduler.resize(most_workers)

    def _say_fewer(self) -> list[Effect]:
        """Say once that there are fewer workers, if no more can be started."""
        if not self._refused or self._has_said_fewer or len(self._workers) >= self._size:
            return []
        self._has_said_fewer = True
        return [FewerWorkers(len(self._workers))]

    def _ready(self, item: WorkerReady, now: float) -> list[Effect]:
        self.scheduler.starting -= 1
        self._failed_starts = 0
        if item.worker > self._refused:
            self._refused, self._try_seconds = 0, _TRY_AGAIN_SECONDS[0]
        self._was_ready = True
        effects = self._schedule(item, now)
        # it replaces one that is about to end, if there is one
        for number, state in self._workers.items():
            if state.is_ending and not state.is_retired:
                return effects + self._retire(number, now)
        return effects

    def _start_failed(self, item: StartFailed | StartLost, now: float) -> list[Effect]:
        if isinstance(item, StartFailed):
            for each in [each for each in self._workers if each >= item.worker]:
                self._forget(each)  # later ones are not started either
                self.scheduler.starting -= 1
            self._wanted = max(1, len(self._workers))
            self._refused, self._try_again = item.worker, now + self._try_seconds
            self._try_seconds = min(2 * self._try_seconds, _TRY_AGAIN_SECONDS[1])
            # at once: the run may be over before the next turn
            return self._say_fewer() if self._workers else [GiveUp(0)]
        self._forget(item.worker)
        self.scheduler.starting -= 1
        if item.by_group_signal:
            if item.worker <= self._struck:
                return []  # by the same signal
            self._struck = self._newest
        self._failed_starts += 1
        most = _MOST_FAILED_RESTARTS if self._was_ready else _MOST_FAILED_STARTS
        return [GiveUp(self._failed_starts)] if self._failed_starts >= most else []

    def _retire(self, worker: int, now: float) -> list[Effect]:
        """Send a worker nothing more. It ends when it holds nothing."""
        state = self._workers[worker]
        if state.is_retired:
            return []
        state.is_retired = True
        self._stopping.add(worker)
        effects = self._schedule(Retired(worker), now)
        return [AskBack(worker), *effects]

    def _forget(self, worker: int) -> None:
        del self._workers[worker]
        self._stopping.discard(worker)
        self._limits.forget(worker)
        self._overloaded.forget(worker)
        self._report_requests.forget(worker)

    # --- looking after workers ---

    def look(
        self,
        now: float,
        seen: Mapping[int, Seen | None],
        memory: Mapping[int, int],
        given_up: Collection[int] = (),
        *,
        kills: bool = False,
    ) -> list[Effect]:
        """Decide on workers by where they are.

        Args:
            now: Monotonic seconds.
            seen: Where each busy worker is; None: nobody can tell.
            memory: The resident memory of these, in bytes, if `needs_memory`.
            given_up: Workers that hold events which callers gave up.
            kills: Whether a caller wants some of them killed as soon as they run.

        Returns:
            What to do, and then when to look again.
        """
        if now >= self._next_sample:
            self._next_sample = now + MOST_LOOK_SECONDS
        again: list[float | None] = [self._pauses.left(now), STUCK_SECONDS if kills else None]
        if self._refused and self._wanted < min(self._size, self.scheduler.employable):
            again.append(max(0.0, self._try_again - now))
        effects: list[Effect] = []
        again.append(self._take_back(now, seen, given_up, effects))
        report = self._ask_reports(now, seen, effects)
        again.append(report)
        again.append(self._break_limits(now, seen, memory, effects))
        for worker in self.scheduler.lopsided:
            state = self._workers[worker]
            if state.asked < state.sent:
                state.asked = state.sent
                effects.append(AskBack(worker))
        seconds = min((each for each in again if each is not None), default=None)
        if seconds is not None:
            seconds = min(seconds, _LONGEST_WAIT_SECONDS)
        busy_seconds = min(STUCK_SECONDS / 2, inf if report is None else report)
        effects.append(LookAgain(seconds, busy_seconds))
        return effects

    def _take_back(
        self,
        now: float,
        seen: Mapping[int, Seen | None],
        given_up: Collection[int],
        effects: list[Effect],
    ) -> float | None:
        """Take back what waits behind a slow event; say when to look again."""
        overloaded = dict.fromkeys((*self.scheduler.overloaded, *given_up))
        if not overloaded:
            self._overloaded.clear()
            return None
        look_again = False
        for worker in overloaded:
            at = seen.get(worker)
            batch = self.scheduler.held_by(worker)
            if batch is None:
                continue
            if at is None or at.position is None or at.is_over or at.position < batch.done:
                self._overloaded.forget(worker)
            elif self.scheduler.batches_of(worker) == 1 and at.position + 1 == batch.size:
                self._overloaded.forget(worker)
                continue  # the rest is over and not reported, or was taken back
            elif self._overloaded.note(worker, at, now) >= STUCK_SECONDS:
                self._overloaded.forget(worker)
                effects.append(TakeBack(worker, at.position))
            look_again = True
        return STUCK_SECONDS / 2 if look_again else None

    def _ask_reports(
        self, now: float, seen: Mapping[int, Seen | None], effects: list[Effect]
    ) -> float | None:
        """Ask workers at a slow event for what is over; say when to look again."""
        reportable = self.scheduler.reportable
        for worker in self._report_requests.silent(reportable, now):
            at = seen.get(worker)
            batch = self.scheduler.held_by(worker)
            # at the first one: nobody can tell, and nobody can be asked
            place = (0, 0) if at is None or batch is None else (at.position, batch.done)
            if self._report_requests.look(worker, now, *place):
                effects.append(AskReport(worker))
        return self._report_requests.left(reportable, now)

    def _break_limits(
        self,
        now: float,
        seen: Mapping[int, Seen | None],
        memory: Mapping[int, int],
        effects: list[Effect],
    ) -> float | None:
        """Warn and kill; say when to look again."""
        for worker, state in self._workers.items():
            at = None if state.kill is not None else seen.get(worker)
            found = self._limits.look(worker, at, memory.get(worker, 0), now)
            if at is not None and at.is_cancelled:
                found = [Kill(worker, is_cancelled=True)]
            for effect in found:
                if isinstance(effect, Kill):
                    state.kill = effect
                effects.append(effect)
        return self._limits.look_seconds if seen else None

    # --- resting ---

    def woke(self, now: float) -> None:
        """Note that the coordinator begins to work after it had nothing to do."""
        self._woke = now

    def rest(self, now: float) -> float:
        """For how many seconds the workers may be left alone; 0: not worth it.

        They have work for a part of that time at least, and nobody waits for one of them. What
        they send meanwhile is taken in together, at a fraction of the cost: workers use the same
        CPUs, and the coordinator's caches are cold each time. The time that it takes to do so is
        time in which they are not served, too.
        """
        seconds = _REST_SHARE * self.scheduler.slack - (now - self._woke)
        if seconds < _LEAST_REST_SECONDS:
            return 0.0
        limit = self._report_requests.rest(self.scheduler.reportable, now)
        seconds = seconds if limit is None else min(seconds, limit)
        return seconds if seconds >= _LEAST_REST_SECONDS else 0.0
