"""A simulation of how soon outcomes are delivered: a seed, fake workers, a manual clock.

The supervisor and the scheduler are real. Workers do what `loop` and `result_buffer` do: they
send what is over at the end of a batch, after an event that took long, every few milliseconds
of quick ones, and when they are asked to. The coordinator does what `coordinator` does in a turn:
it looks after the workers, rests while all of them have something to do, waits, and takes in what
has arrived. Events are quick, or take seconds, and nobody knows before.

::

    Promptness (seed, heap of moments) --turn--> Supervisor, Scheduler
         ^                                           |
         +--- frames --- Fake workers <--- batches --+

What holds, of a run of which somebody waits for single roots: an outcome is delivered within
`PROMPT_SECONDS` of the end of the last event of its cascade, however long the next event takes.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter, deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final, NamedTuple

from evproc_pool.core.batches import Batch
from evproc_pool.core.estimates import OVERDUE_FACTOR, REPORT_SECONDS, TARGET_SECONDS
from evproc_pool.core.event_columns import Planned
from evproc_pool.core.event_limits import EventLimits
from evproc_pool.core.inputs_and_effects import (
    Accepted,
    Closed,
    Ended,
    Opened,
    Over,
    Progress,
    Result,
    Send,
    Settled,
    TakenBack,
    Weighed,
    WorkerReady,
)
from evproc_pool.core.report_requests import ReportRequests
from evproc_pool.core.retry_policy import RetryPolicy
from evproc_pool.core.supervisor import Supervisor
from evproc_pool.core.supervisor_inputs import (
    AskReport,
    Effect,
    Input,
    LookAgain,
    Seen,
    Start,
    TakeBack,
)
from evproc_pool.protocol import status_words
from tests.support.model import FakePlan, Violation, check, column
from tests.support.world import as_singles

#: An outcome is delivered so soon.
PROMPT_SECONDS: Final = 0.005

# A frame, or a signal, takes so long.
_LATENCY_SECONDS: Final = 5e-5

# More things than that do not happen at one moment.
_MOST_AT_ONCE: Final = 1_000


class _Event(NamedTuple):
    """An event.

    Attributes:
        root: The index of its root.
        seconds: How long it takes.
        result: How it ends its cascade, or None.
        follow_ups: How many; each takes as long.
    """

    root: int
    seconds: float
    result: Result | None
    follow_ups: int


class _Frame(NamedTuple):
    """What a worker sends; `begin` is the first position that it tells of."""

    batch: Batch
    begin: int
    done: int
    times: list[float]
    gave_back: bool


class _Worker:
    """A fake worker.

    Args:
        play: What it is in.
        number: Its own.
    """

    def __init__(self, play: Promptness, number: int) -> None:
        self._play = play
        self._number = number
        self.batches: deque[Batch] = deque()
        self.position = 0  # of the event that it is at
        self.since = 0.0  # when that began
        self._size = 0  # of the batch that it is at; less than it was once some was taken back
        self._ends: list[float] = []  # of those that are not told
        self._begun = 0.0
        self._sent = 0
        self._has_unsent = False
        self._look_at = self._overdue = 0.0
        self.has_begun = False  # and does not unpickle the batch

    def give(self, batch: Batch) -> None:
        """Send it a batch."""
        self.batches.append(batch)
        if len(self.batches) == 1:
            self._begin()

    def _begin(self) -> None:
        self.has_begun = False
        self._play.at(self._play.unpickling_seconds(), self._begin_events)

    def _begin_events(self) -> None:
        self.has_begun = True
        now, batch = self._play.now, self.batches[0]
        self.position, self.since, self._begun, self._sent = 0, now, now, 0
        self._size = batch.size
        self._overdue = now + OVERDUE_FACTOR * max(TARGET_SECONDS, batch.seconds)
        self._look_at = min(self._overdue, now + self._report_seconds)
        self._run()

    @property
    def _is_prompt(self) -> bool:
        return not self.batches[0].run.opened.is_bulk

    @property
    def _report_seconds(self) -> float:
        return REPORT_SECONDS if self._is_prompt else TARGET_SECONDS

    def _run(self) -> None:
        event, _ = self.batches[0].at(self.position)
        self._play.at(event.seconds, self._event_over)

    def _event_over(self) -> None:
        """See `loop.Worker._run`, behind the handlers of an event."""
        now, batch = self._play.now, self.batches[0]
        event, _ = batch.at(self.position)
        took, self.since = now - self.since, now
        self._ends.append(now)
        self._has_unsent |= event.result is not None or event.follow_ups > 0
        self._play.is_over(batch, event)
        self.position += 1
        is_time = now > self._look_at
        if took >= status_words.SLOW_SECONDS or is_time:
            self._look_at = min(self._overdue, now + self._report_seconds)
            if self.position < self._size:
                if now > self._overdue:
                    self._send(gave_back=True)
                    self._next_batch()
                    return
                if self._has_unsent or (is_time and self._is_prompt):
                    self._send()
        if self.position == self._size:
            self._send()
            self._next_batch()
        else:
            self._run()

    def _next_batch(self) -> None:
        self.batches.popleft()
        if self.batches:
            self._begin()

    def _send(self, *, gave_back: bool = False) -> None:
        ends = [self._begun, *self._ends]
        times = [end - then for then, end in itertools.pairwise(ends)]
        frame = _Frame(self.batches[0], self._sent, self.position, times, gave_back)
        self._sent, self._begun = self.position, ends[-1]
        self._ends.clear()
        self._has_unsent = False
        self._play.at(_LATENCY_SECONDS, lambda: self._play.arrived(self._number, frame))

    def report(self) -> None:
        """See `result_buffer.ResultBuffer.report`."""
        if self._ends:
            self._send()

    def take_back(self) -> int:
        """Give up all but the event that it is at; say how many of its batch it keeps."""
        self._size = self.position + 1
        while len(self.batches) > 1:
            self.batches.pop()
        return self._size


class Promptness:
    """One seed's run; see the module's text.

    Args:
        seed: Of all that is random.
        kind: Decides whom to ask.

    Attributes:
        now: The time, in seconds.
        seen: How often things happened, by name.
        longest: The longest time that an outcome took to be delivered, in seconds.
    """

    def __init__(self, seed: int, kind: type[ReportRequests] = ReportRequests) -> None:
        self._rng = rng = random.Random(seed)
        self.now = 0.0
        self.seen: Counter[str] = Counter()
        self.longest = 0.0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._ties = 0
        self._standing = 0  # so much happened at this moment
        workers = rng.choice([1, 2, 2, 4])
        self._supervisor = Supervisor(RetryPolicy(), workers, EventLimits(), rng.random)
        self._supervisor._report_requests = kind()
        self._plans = [FakePlan((number,)) for number in range(1, 4)]
        self._usual = [rng.choice([2e-5, 2e-4, 1.5e-3, 6e-3, 0.03]) for _ in self._plans]
        self._surprise = rng.choice([0.002, 0.02, 0.2])
        self._is_busy = rng.random() < 0.3  # the input keeps the coordinator from waiting
        self._over: dict[tuple[int, int], float] = {}  # when the last event of a root was
        self._open: Counter[tuple[int, int]] = Counter()  # of roots, events that are not over
        self._roots: Counter[int] = Counter()
        self._is_bulk: dict[int, bool] = {}
        self._frames: deque[tuple[int, _Frame]] = deque()
        self._is_waiting = False
        self._waits = 0
        self._look_at = 0.0
        self._rested = 0.0  # before this turn; frames may have come at any time since then
        self._left: float | None = None  # after how long to look again, if nothing happens
        self._workers: dict[int, _Worker] = {}
        self._started: deque[int] = deque()  # workers that are ready, which is not taken in
        for run in range(1, rng.choice([1, 1, 2]) + 1):
            self._is_bulk[run] = run > 1 or rng.random() < 0.1
            self._step(Opened(run, is_bulk=self._is_bulk[run], unordered=rng.random() < 0.5))

    def play(self, moments: int) -> Promptness:
        """Play so many moments, and then to the end of what is under way.

        Raises:
            Violation: An outcome was delivered late, or never.
        """
        self._turn()
        for _ in range(moments):
            if not self._heap:
                break
            self._pass_time()
        for run in self._is_bulk:
            self._step(Closed(run))
        self._is_busy = False
        self._roots.clear()
        while self._heap:
            self._pass_time()
        check(not self._over and not self._open, "outcomes of {} are missing", list(self._over))
        return self

    def _pass_time(self) -> None:
        then = self.now
        self.now, _, happen = heapq.heappop(self._heap)
        self._standing = self._standing + 1 if then == self.now else 0
        check(self._standing < _MOST_AT_ONCE, "it goes on for ever at {}", then)
        happen()

    def at(self, seconds: float, happen: Callable[[], None]) -> None:
        """Let something happen in so many seconds."""
        self._ties += 1
        heapq.heappush(self._heap, (self.now + seconds, self._ties, happen))

    # --- the application ---

    def _feed(self) -> None:
        rng = self._rng
        for run, is_bulk in self._is_bulk.items():
            if self._supervisor.scheduler.demand(run) and rng.random() < 0.5:
                first = self._roots[run]
                count = rng.choice([1, 2, 7, 40])
                self._roots[run] += count
                number = rng.randrange(len(self._plans))
                events = [self._event(first + place, number) for place in range(count)]
                for event in events:
                    self._open[run, event.root] = 1
                plans = [self._plans[number]] * count
                self._step(Accepted(run, first, events, plans))
                self.seen["bulk" if is_bulk else "prompt"] += count

    def _event(self, root: int, number: int) -> _Event:
        rng = self._rng
        seconds = self._usual[number] * (0.5 + rng.random())
        if rng.random() < self._surprise:
            seconds += rng.choice([0.004, 0.05, 5.0])
            self.seen["surprises"] += 1
        draw = rng.random()
        result = Result(draw, stopped=True) if draw < 0.2 else None
        if draw > 0.95:
            result = Result(error=Violation("failed"), handler="h")
        return _Event(root, seconds, result, rng.choice([0, 0, 0, 1, 3]) * (result is None))

    def unpickling_seconds(self) -> float:
        """How long a worker takes before it begins a batch."""
        return self._rng.choice([1e-5, 1e-5, 1e-5, 0.001, 0.004])

    def is_over(self, batch: Batch, event: _Event) -> None:
        """A worker has come to the end of an event."""
        root = batch.run_id, event.root
        if self._open[root] <= 0:
            return  # it had ended
        self._open[root] += event.follow_ups - 1
        if event.result is not None:
            self._open[root] = 0
        if not self._open[root]:
            self._over[root] = self.now

    # --- the coordinator ---

    def _step(self, item: Input) -> None:
        self._perform_all(self._supervisor.step(item, self.now))

    def _perform_all(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            self._perform(effect)

    def _perform(self, effect: Effect) -> None:  # noqa: C901 - a case each
        match effect:
            case Send():
                worker = self._workers[effect.worker]
                self._supervisor.sent(effect.worker, self.now, is_first=not worker.batches)
                self._step(Weighed(effect.worker, effect.batch, 100 * effect.batch.size))
                worker.give(effect.batch)
            case Settled():
                for place in range(len(effect.times)):
                    self._delivered(effect.run, effect.first + place)
            case Over():
                for root in effect.roots:
                    self._delivered(effect.run, root)
            case Ended():
                self._delivered(effect.run, effect.root)
            case Start(number):
                self.at(self._rng.choice([1e-4, 0.02]), partial(self._ready, number))
            case TakeBack(number):
                self.seen["taken back"] += 1
                self._step(TakenBack(number, self._workers[number].take_back()))
            case AskReport(number):
                self.seen["asked"] += 1
                self.at(_LATENCY_SECONDS, self._workers[number].report)
            case LookAgain(seconds, busy_seconds):
                self._left = seconds
                self._look_at = self.now + busy_seconds

    def _ready(self, number: int) -> None:
        """A worker has started."""
        self._workers[number] = _Worker(self, number)
        self._started.append(number)
        if self._is_waiting:
            self._turn()

    def _delivered(self, run: int, root: int) -> None:
        then = self._over.pop((run, root), None)
        if then is None:
            raise Violation(f"root {root} of run {run} is delivered and is not over")
        del self._open[run, root]
        if not self._is_bulk[run]:
            late = self.now - then
            self.longest = max(self.longest, late)
            self.seen["asked for"] += late > REPORT_SECONDS
            check(late <= PROMPT_SECONDS, "root {} was over {} s ago", root, late)

    def arrived(self, worker: int, frame: _Frame) -> None:
        """A frame is there."""
        self._frames.append((worker, frame))
        if self._is_waiting:
            self._turn()

    def _turn(self) -> None:
        """Take in what has arrived, and wait; see `coordinator.Coordinator.turn`."""
        self._is_waiting = False
        self._waits += 1
        self._supervisor.woke(self.now)
        while self._started:
            number = self._started.popleft()
            self._supervisor.heard(number, self.now - self._rested)
            self._step(WorkerReady(number))
        while self._frames:
            self._take(*self._frames.popleft())
        self._rested = 0.0
        self._feed()
        self._perform_all(self._supervisor.begin_turn(self.now))
        if self._is_busy and self._rng.random() < 0.9:
            if self.now >= self._look_at:
                self._look()
            self.at(self._rng.choice([1e-5, 1e-4]), self._turn)
            return
        self._look()
        left = self._left
        rest = self._supervisor.rest(self.now)
        if rest:
            self.seen["rests"] += 1
            self._rested = rest
            self.at(rest, self._turn)
            return
        self._is_waiting = True
        number = self._waits
        if left is None and self._roots:
            left = 0.01  # the application has something else to do
        if left is not None:
            self.at(left, lambda: self._wake(number))

    def _wake(self, number: int) -> None:
        if self._is_waiting and number == self._waits:
            self._turn()

    def _look(self) -> None:
        """Let the supervisor decide by where the workers are."""
        busy = {number: worker for number, worker in self._workers.items() if worker.batches}
        seen = {number: self._see(number, worker) for number, worker in busy.items()}
        self._perform_all(self._supervisor.look(self.now, seen, {}))

    def _see(self, number: int, worker: _Worker) -> Seen:
        # it may be at its next batch, with a frame on its way
        is_at_first = worker.batches[0] is self._supervisor.scheduler.held_by(number)
        position = worker.position if is_at_first and worker.has_begun else None
        return Seen(position, (id(worker.batches[0]), worker.position, worker.has_begun))

    def _take(self, worker: int, frame: _Frame) -> None:
        self._supervisor.heard(worker, self.now - self._rested)
        follow_ups: dict[int, list[Planned]] = {}
        results: dict[int, Result] = {}
        values: dict[int, Any] = {}
        timings: dict[tuple[int, ...], tuple[int, float]] = {}
        for position, seconds in zip(range(frame.begin, frame.done), frame.times, strict=True):
            event, plan = frame.batch.at(position)
            count, total = timings.get(plan.indices, (0, 0.0))
            timings[plan.indices] = count + 1, total + seconds
            if event.result is not None and event.result.stopped:
                values[position] = event.result.value
            elif event.result is not None:
                results[position] = event.result
            if event.follow_ups:
                child = event._replace(follow_ups=0)
                follow_ups[position] = [(child, plan)] * event.follow_ups
        self._step(
            Progress(
                worker,
                frame.done,
                frame.times,
                as_singles(follow_ups),
                results,
                timings=[(indices, *counts) for indices, counts in timings.items()],
                gave_back=frame.gave_back,
                values=column(values),
            )
        )
