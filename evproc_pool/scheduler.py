"""The scheduler: which events go to which worker, and when. Pure.

No I/O, no clock, no thread and no process: `Scheduler.step` takes what happened
and answers with what is to be done. The engine feeds it from real workers, a
simulation from a seed.

Theory of operation
-------------------

::

    Accepted --> [blocks of a run] --+                     +--> Ended / Settled
                                     |   batch   worker    |
                                     +--> Send ----> ... --+--> Progress
                                     |                     |
                     [ready cascades of a run] <-----------+  follow-ups

A *run* is one call of the application (one `process_many`, say). Its root
events arrive in *blocks*: neighbours by index, independent of each other, which
are cut where a batch ends and cost nothing each. Most roots end as they began,
without follow-ups, value or error: these never get an object of their own and
are reported by the count (`Settled`).

A root with follow-ups becomes a *cascade*: a queue of planned events, which run
one after another in the order of `Processor.process`. While a part of it is in
flight nothing more of it is sent, so order needs no further rule; events that
stand one behind the other in the queue may go together, as a *chain*: the worker
leaves the rest of a chain unrun when one of it stops or fails.

Each worker gets at most `PREFETCH` batches, so that it finds the next one when
it is done with one. Batches are sized by time: `TARGET_SECONDS` of work by what
the plan's events took so far, few while that is not known, and less when little
work is left, so that no worker idles beside one with a queue.

Runs take turns, a batch each. Cascades go before new roots, which bounds how
many are open.

Rules that hold after every step, and which the tests check:

- an accepted root is reported exactly once (`Settled`, `Ended`, `Dropped`);
- a worker has at most `PREFETCH` batches, and none that it was not sent;
- no worker has room while there is something ready to send.

A step costs O(batches + results in it), not O(events).

Rejected: one queue that workers pull from (a killed worker can hold its lock);
an object per event (at a million events a second it is all one does).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, NoReturn, Protocol

#: Batches that a worker may hold: the one it runs, and the next.
PREFETCH: Final = 2

#: Work in a batch, in seconds. Long beside the cost of a batch (tens of
#: microseconds), short beside what a person or the end of a run notices.
TARGET_SECONDS: Final = 0.004

#: The most events in a batch: past it nothing is gained, and what is lost with a
#: worker, and the wait for the first result, grow.
MOST_EVENTS: Final = 256

# What an event is taken to need before its plan has been timed: few at first.
_UNTIMED_SECONDS: Final = TARGET_SECONDS / 2

# Plans whose time is remembered; more than an application has.
_MOST_PLANS: Final = 4096

_ENDLESS: Final = float("inf")

# Weight of the newest timing in the running mean of a plan's seconds.
_NEWEST: Final = 0.3


class InternalError(RuntimeError):
    """The scheduler was told something that cannot have happened: a bug in the engine."""


class PlanLike(Protocol):
    """What the scheduler knows of a plan."""

    @property
    def indices(self) -> tuple[int, ...]:
        """The handlers' places in the registry."""


class Planned(NamedTuple):
    """An event with its plan, or with the error that planning it ended in."""

    event: Any
    plan: PlanLike | None
    error: BaseException | None = None

    @property
    def needs_worker(self) -> bool:
        """Whether any handler wants the event."""
        return self.plan is not None and bool(self.plan.indices)


class Result(NamedTuple):
    """How one event ended in a worker, where that is not simply well and without follow-ups.

    Attributes:
        follow_ups: In order.
        stopped: Whether a handler raised `StopProcessing(value)`.
        value: Its value.
        error: What a handler raised, or what happened to the worker.
        handler: The handler that did.
    """

    follow_ups: Sequence[Planned] = ()
    stopped: bool = False
    value: Any = None
    error: BaseException | None = None
    handler: str | None = None


class Ending(NamedTuple):
    """How a cascade ended.

    Attributes:
        value: What `Processor.process` would return.
        stopped: Whether a handler ended it by `StopProcessing(value)`.
        error: What `Processor.process` would raise, or None.
        handler: The handler that raised it.
        events: How many events were handled, the last one included.
    """

    value: Any = None
    stopped: bool = False
    error: BaseException | None = None
    handler: str | None = None
    events: int = 1


# --- what can happen ---


class Opened(NamedTuple):
    """A run begins.

    Attributes:
        run: Its id, not used before.
        until_error: Whether a failed cascade ends it: those that came before the
            failed one are finished, as `Processor` would have, the others dropped.
    """

    run: int
    until_error: bool = False


class Accepted(NamedTuple):
    """Root events of a run, neighbours by index, in order.

    Attributes:
        run: An open run.
        first: The index of the first one.
        events: At least one.
        plans: One for each, none of them empty.
    """

    run: int
    first: int
    events: Sequence[Any]
    plans: Sequence[PlanLike]


class Closed(NamedTuple):
    """No more roots come. May be said again, to drop what is left.

    Attributes:
        run: A run that was opened.
        drop: Also drop what has not been sent. What is in flight ends.
    """

    run: int
    drop: bool = False


class WorkerReady(NamedTuple):
    """A worker can take batches."""

    worker: int


class Progress(NamedTuple):
    """A worker is further in its first batch.

    Attributes:
        worker: A ready worker.
        done: How many envelopes of the batch are over, from its start.
        results: By position, those that have something to say. Behind a result that
            ends a cascade, the rest of its chain has not run.
        timings: For each plan that was run since the last progress: its indices, how
            many events of it, and how many seconds they took together.
    """

    worker: int
    done: int
    results: Mapping[int, Result]
    timings: Sequence[tuple[tuple[int, ...], int, float]] = ()


class WorkerGone(NamedTuple):
    """A worker is dead. What it held is handed on, but for the one it was running.

    Attributes:
        worker: A ready worker.
        running: The position in its first batch, or None if it was idle.
        error: What that event's cascade ends with.
        handler: The handler it was at.
    """

    worker: int
    running: int | None
    error: BaseException | None = None
    handler: str | None = None


Input = Opened | Accepted | Closed | WorkerReady | Progress | WorkerGone

# --- what is to be done ---


class Send(NamedTuple):
    """Send a batch to a worker."""

    worker: int
    batch: Batch


class Settled(NamedTuple):
    """So many roots from `first` on ended: no follow-ups, no value, no error."""

    run: int
    first: int
    roots: int


class Ended(NamedTuple):
    """A root's cascade ended."""

    run: int
    root: int
    ending: Ending


class Dropped(NamedTuple):
    """So many roots from `first` on were given up before they ended, as was asked for."""

    run: int
    first: int
    roots: int


class Finished(NamedTuple):
    """A closed run has nothing left; its id is forgotten."""

    run: int


Effect = Send | Settled | Ended | Dropped | Finished


class Part(NamedTuple):
    """Neighbours in a batch that belong together.

    Attributes:
        start: The position of the first in the batch.
        events: One or more.
        plans: One for each.
        first: The index of the first root, if these are roots.
        cascade: The cascade, if this is a chain of its events.
    """

    start: int
    events: Sequence[Any]
    plans: Sequence[Any]
    first: int
    cascade: Cascade | None

    @property
    def stop(self) -> int:
        """The position behind the last one."""
        return self.start + len(self.events)

    @property
    def is_chain(self) -> bool:
        """Whether one of these that ends its cascade leaves others unrun."""
        return self.cascade is not None and len(self.events) > 1

    def within(self, begin: int, end: int) -> range:
        """Its positions from `begin` up to `end`."""
        return range(max(self.start, begin), min(self.stop, end))

    def block(self, positions: range) -> _Block:
        """Some of these roots as they were before they were put into a batch."""
        whole = _Block(self.first, self.events, self.plans)
        return whole.slice(positions.start - self.start, positions.stop - self.start)


class _Block(NamedTuple):
    """Roots that wait: neighbours by index, independent of each other."""

    first: int
    events: Sequence[Any]
    plans: Sequence[PlanLike]

    def slice(self, start: int, stop: int) -> _Block:
        return _Block(self.first + start, self.events[start:stop], self.plans[start:stop])


class Batch:
    """Envelopes on their way to a worker, in one frame.

    Attributes:
        run: The run that all of them belong to.
        parts: In order; positions run through all parts.
        size: How many envelopes.
        done: How many of them are over.
    """

    __slots__ = ("done", "parts", "run", "size")

    def __init__(self, run: _Run) -> None:
        self.run = run
        self.parts: list[Part] = []
        self.size = 0
        self.done = 0

    def add(
        self, events: Sequence[Any], plans: Sequence[Any], first: int, cascade: Cascade | None
    ) -> None:
        """Put a part at the end."""
        self.parts.append(Part(self.size, events, plans, first, cascade))
        self.size += len(events)

    @property
    def run_id(self) -> int:
        """The id of the run."""
        return self.run.id

    def at(self, position: int) -> Any:
        """The event at a position."""
        for part in self.parts:
            if position < part.stop:
                return part.events[position - part.start]
        raise InternalError(f"position {position} in a batch of {self.size}")


class Cascade:
    """A root with follow-ups, not ended yet.

    Attributes:
        index: The root's index in its run.
        queue: What is left to run, in order.
        events: How many are over.
        is_over: Whether it was reported.
    """

    __slots__ = ("events", "index", "is_over", "queue")

    def __init__(self, index: int) -> None:
        self.index = index
        self.queue: deque[Planned] = deque()
        self.events = 0
        self.is_over = False


class _Run:
    """The scheduler's view of one run."""

    __slots__ = (
        "backlog",
        "blocks",
        "bound",
        "closed",
        "has_turn",
        "id",
        "newest_plan",
        "open",
        "ready",
        "until_error",
    )

    def __init__(self, run: int, until_error: bool) -> None:
        self.id = run
        self.until_error = until_error
        self.closed = False
        self.bound = _ENDLESS  # roots behind this index are not wanted any more
        self.blocks: deque[_Block] = deque()
        self.backlog = 0  # roots in blocks
        self.ready: deque[Cascade] = deque()
        self.open = 0  # roots accepted and not reported
        self.newest_plan: PlanLike | None = None
        self.has_turn = False

    @property
    def has_ready(self) -> bool:
        """Whether something could be sent."""
        return bool(self.blocks or self.ready)


class Scheduler:
    """See the module's text. Not safe for threads: the engine has one driver at a time."""

    def __init__(self) -> None:
        self._runs: dict[int, _Run] = {}
        self._turns: deque[_Run] = deque()  # runs with something ready, next first
        self._held: dict[int, deque[Batch]] = {}  # by ready worker
        # workers by how many batches they hold; dicts, because they keep their order
        self._by_load: tuple[dict[int, None], ...] = tuple({} for _ in range(PREFETCH + 1))
        self._seconds: dict[tuple[int, ...], float] = {}  # by a plan's indices
        self._effects: list[Effect] = []

    # --- questions ---

    @property
    def workers(self) -> int:
        """How many workers are ready."""
        return len(self._held)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is in flight and nothing waits to be sent."""
        return not self._turns and len(self._by_load[0]) == len(self._held)

    def held_by(self, worker: int) -> Batch | None:
        """The batch that a worker is at, or None."""
        held = self._batches(worker)
        return held[0] if held else None

    def demand(self, run: int) -> int:
        """How many roots more it would take to keep every worker busy.

        That is one batch for each worker behind what they can hold. 0 once the run
        is closed or has failed.
        """
        state = self._runs.get(run)
        if state is None or state.closed or state.bound != _ENDLESS:
            return 0
        room = sum(len(workers) * (PREFETCH - load) for load, workers in enumerate(self._by_load))
        wanted = self._events_of(state.newest_plan) * (room + max(1, self.workers))
        return max(0, wanted - state.backlog)

    # --- the step ---

    def step(self, item: Input) -> list[Effect]:
        """Advance the schedule by one input.

        Returns:
            What to do, in order.

        Raises:
            InternalError: `item` names a run, a worker or a position that there is
                none of. The state is unchanged.
        """
        match item:
            case Progress():
                self._progress(item)
            case Accepted():
                self._accepted(item)
            case Opened():
                self._opened(item)
            case Closed():
                self._closed(item)
            case WorkerReady():
                self._worker_ready(item)
            case WorkerGone():
                self._worker_gone(item)
            case _:
                _never(item)
        self._fill()
        effects, self._effects = self._effects, []
        return effects

    def _run(self, run: int) -> _Run:
        try:
            return self._runs[run]
        except KeyError:
            raise InternalError(f"there is no run {run}") from None

    def _batches(self, worker: int) -> deque[Batch]:
        try:
            return self._held[worker]
        except KeyError:
            raise InternalError(f"there is no worker {worker}") from None

    # --- runs ---

    def _opened(self, item: Opened) -> None:
        if item.run in self._runs:
            raise InternalError(f"run {item.run} is open already")
        self._runs[item.run] = _Run(item.run, item.until_error)

    def _accepted(self, item: Accepted) -> None:
        run = self._run(item.run)
        if run.closed:
            raise InternalError(f"run {item.run} is closed")
        if not item.events or len(item.events) != len(item.plans):
            raise InternalError(f"{len(item.events)} events with {len(item.plans)} plans")
        run.open += len(item.events)
        run.newest_plan = item.plans[-1]
        run.blocks.append(_Block(item.first, item.events, item.plans))
        run.backlog += len(item.events)
        self._drop_unwanted(run)
        self._take_turns(run)

    def _closed(self, item: Closed) -> None:
        run = self._runs.get(item.run)
        if run is None:
            return  # closed before, and finished
        run.closed = True
        if item.drop:
            run.bound = -1
            self._drop_unwanted(run)
        self._finish_if_over(run)

    def _report(self, run: _Run, effect: Settled | Ended | Dropped, count: int = 1) -> None:
        run.open -= count
        self._effects.append(effect)
        self._finish_if_over(run)

    def _finish_if_over(self, run: _Run) -> None:
        if run.closed and not run.open and self._runs.pop(run.id, None) is not None:
            self._effects.append(Finished(run.id))

    def _drop_unwanted(self, run: _Run) -> None:
        """Give up what has not been sent of the roots behind the run's bound."""
        if run.bound == _ENDLESS:
            return
        blocks, run.blocks = run.blocks, deque()
        for block in blocks:
            wanted = min(len(block.events), max(0, int(run.bound) + 1 - block.first))
            dropped = len(block.events) - wanted
            if wanted:
                run.blocks.append(block.slice(0, wanted))
            if dropped:
                run.backlog -= dropped
                self._report(run, Dropped(run.id, block.first + wanted, dropped), dropped)
        for cascade in [each for each in run.ready if each.index > run.bound]:
            run.ready.remove(cascade)
            cascade.is_over = True
            self._report(run, Dropped(run.id, cascade.index, 1))
        self._leave_turns(run)

    def _take_turns(self, run: _Run) -> None:
        if run.has_ready and not run.has_turn:
            run.has_turn = True
            self._turns.append(run)

    def _leave_turns(self, run: _Run) -> None:
        if run.has_turn and not run.has_ready:
            run.has_turn = False
            self._turns.remove(run)

    # --- what workers report ---

    def _worker_ready(self, item: WorkerReady) -> None:
        if item.worker in self._held:
            raise InternalError(f"worker {item.worker} is ready already")
        self._held[item.worker] = deque()
        self._by_load[0][item.worker] = None

    def _progress(self, item: Progress) -> None:
        held = self._batches(item.worker)
        if not held or not held[0].done < item.done <= held[0].size:
            raise InternalError(f"worker {item.worker}: progress to {item.done} in no such batch")
        batch = held[0]
        begin, batch.done = batch.done, item.done
        for indices, count, seconds in item.timings:
            self._learn(indices, seconds / count)
        if batch.done == batch.size:
            self._set_load(item.worker, -1)
            held.popleft()
        for part in batch.parts:
            positions = part.within(begin, item.done)
            if not positions:
                continue
            if part.cascade is None:
                self._roots_over(batch.run, part, positions, item.results)
            else:
                self._chain_over(batch.run, part.cascade, positions, item.results)
                if positions.stop == part.stop:
                    self._resume(batch.run, part.cascade)

    def _roots_over(
        self, run: _Run, part: Part, positions: range, results: Mapping[int, Result]
    ) -> None:
        """Report roots: those with nothing to say by the count, the others one by one."""
        quiet = positions.start
        shift = part.first - part.start
        for position in sorted(results):
            if position not in positions:
                continue
            self._settle(run, quiet + shift, position - quiet)
            quiet = position + 1
            cascade = Cascade(position + shift)
            self._event_over(run, cascade, results[position])
            self._resume(run, cascade)
        self._settle(run, quiet + shift, positions.stop - quiet)

    def _settle(self, run: _Run, first: int, count: int) -> None:
        if count:
            self._report(run, Settled(run.id, first, count), count)

    def _chain_over(
        self, run: _Run, cascade: Cascade, positions: range, results: Mapping[int, Result]
    ) -> None:
        for position in positions:
            if cascade.is_over:  # the rest of the chain has not run
                return
            self._event_over(run, cascade, results.get(position, _NOTHING))

    def _event_over(self, run: _Run, cascade: Cascade, result: Result) -> None:
        """Take one event's result into its cascade, and end the cascade if it says so."""
        cascade.events += 1
        if result.stopped or result.error is not None:
            ending = Ending(
                result.value, result.stopped, result.error, result.handler, cascade.events
            )
            self._end(run, cascade, ending)
        else:
            cascade.queue.extend(result.follow_ups)

    def _end(self, run: _Run, cascade: Cascade, ending: Ending) -> None:
        cascade.is_over = True
        cascade.queue.clear()
        self._report(run, Ended(run.id, cascade.index, ending))
        if ending.error is not None and run.until_error and cascade.index < run.bound:
            run.bound = cascade.index
            self._drop_unwanted(run)

    def _resume(self, run: _Run, cascade: Cascade) -> None:
        """Let a cascade go on that has nothing in flight; end it if nothing is left."""
        queue = cascade.queue
        while not cascade.is_over:
            if not queue:
                self._end(run, cascade, Ending(events=cascade.events))
            elif cascade.index > run.bound:
                cascade.is_over = True
                self._report(run, Dropped(run.id, cascade.index, 1))
            elif queue[0].error is not None:
                cascade.events += 1
                self._end(run, cascade, Ending(error=queue[0].error, events=cascade.events))
            elif not queue[0].needs_worker:
                cascade.events += 1
                queue.popleft()
            else:
                run.ready.append(cascade)
                self._take_turns(run)
                return

    def _worker_gone(self, item: WorkerGone) -> None:
        held = self._batches(item.worker)
        if item.running is not None and not (
            held and held[0].done <= item.running < held[0].size and item.error is not None
        ):
            raise InternalError(f"worker {item.worker} died at {item.running} of no such batch")
        del self._by_load[len(held)][item.worker]
        del self._held[item.worker]
        charged = Result(error=item.error, handler=item.handler)
        # last first, since each is put back in front of the others
        for batch in reversed(held):
            running = item.running if batch is held[0] else None
            for part in reversed(batch.parts):
                left = part.within(batch.done, batch.size)
                if not left:
                    continue
                at = running if running is not None and running in left else None
                if part.cascade is None:
                    self._roots_back(batch.run, part, left, at, charged)
                elif not part.cascade.is_over:
                    self._chain_back(batch.run, part, left, at, charged)

    def _roots_back(
        self, run: _Run, part: Part, left: range, running: int | None, charged: Result
    ) -> None:
        pieces = (
            [left]
            if running is None
            else [
                range(running + 1, left.stop),
                range(left.start, running),
            ]
        )
        for piece in pieces:
            if piece:
                run.blocks.appendleft(part.block(piece))
                run.backlog += len(piece)
        if running is not None:
            cascade = Cascade(running + part.first - part.start)
            self._event_over(run, cascade, charged)
        self._drop_unwanted(run)
        self._take_turns(run)

    def _chain_back(
        self, run: _Run, part: Part, left: range, running: int | None, charged: Result
    ) -> None:
        cascade = part.cascade
        if cascade is None:
            raise InternalError("a chain has a cascade")
        if running is not None:
            self._event_over(run, cascade, charged)
            return
        for position in reversed(left):
            place = position - part.start
            cascade.queue.appendleft(Planned(part.events[place], part.plans[place]))
        self._resume(run, cascade)

    # --- batches ---

    def _fill(self) -> None:
        """Send while a worker has room and something is ready."""
        while self._turns:
            run = self._turns[0]
            worker = self._roomiest(run)
            if worker is None:
                # another run may be less choosy about where it goes
                if not self._rotate_to_fillable():
                    return
                continue
            batch = self._make_batch(run)
            self._set_load(worker, +1)
            self._held[worker].append(batch)
            self._effects.append(Send(worker, batch))
            self._turns.rotate(-1)
            self._leave_turns(run)

    def _rotate_to_fillable(self) -> bool:
        for _ in range(len(self._turns)):
            if self._roomiest(self._turns[0]) is not None:
                return True
            self._turns.rotate(-1)
        return False

    def _roomiest(self, run: _Run) -> int | None:
        """A worker for the run's next batch: the one that holds least, if any has room."""
        # The last events of a run wait for a worker that is idle: behind another
        # event they might wait while that worker is long done.
        few = run.closed and run.backlog + len(run.ready) <= self.workers
        for workers in self._by_load[: 1 if few else PREFETCH]:
            for worker in workers:
                return worker
        return None

    def _set_load(self, worker: int, change: int) -> None:
        load = len(self._held[worker])
        del self._by_load[load][worker]
        self._by_load[load + change][worker] = None

    def _make_batch(self, run: _Run) -> Batch:
        batch = Batch(run)
        left = TARGET_SECONDS
        if run.closed:
            # Near the end of the run a batch takes half of a worker's share of what
            # is left, so that all end at about the same time (guided self-scheduling,
            # Polychronopoulos and Kuck, 1987).
            ready = run.backlog + len(run.ready)
            left = min(left, ready * self._seconds_of(run.newest_plan) / (2 * self.workers))
        while run.ready and (batch.size == 0 or left > 0) and batch.size < MOST_EVENTS:
            left -= self._add_chain(batch, run.ready.popleft(), left)
        while run.blocks and (batch.size == 0 or left > 0) and batch.size < MOST_EVENTS:
            left -= self._add_roots(batch, run, left)
        return batch

    def _add_chain(self, batch: Batch, cascade: Cascade, left: float) -> float:
        """Put as much of a cascade into a batch as time allows; answer how much time."""
        queue = cascade.queue
        events: list[Any] = []
        plans: list[PlanLike] = []
        used = 0.0
        room = MOST_EVENTS - batch.size
        while queue and queue[0].plan is not None and queue[0].needs_worker and len(events) < room:
            seconds = self._seconds_of(queue[0].plan)
            if events and used + seconds > left:
                break
            used += seconds
            events.append(queue[0].event)
            plans.append(queue[0].plan)
            queue.popleft()
        batch.add(events, plans, 0, cascade)
        return used

    def _add_roots(self, batch: Batch, run: _Run, left: float) -> float:
        """Put as many roots of the first block into a batch as time allows."""
        block = run.blocks.popleft()
        used = 0.0
        count = 0
        for plan in block.plans[: MOST_EVENTS - batch.size]:
            seconds = self._seconds_of(plan)
            if (count or batch.size) and used + seconds > left:
                # nothing more fits; say that the time is used up
                used = max(used, left)
                break
            used += seconds
            count += 1
        if count < len(block.events):
            run.blocks.appendleft(block.slice(count, len(block.events)))
            block = block.slice(0, count)
        if count:
            batch.add(block.events, block.plans, block.first, None)
            run.backlog -= count
        return used

    # --- time ---

    def _learn(self, indices: tuple[int, ...], seconds: float) -> None:
        known = self._seconds.get(indices)
        if known is None:
            if len(self._seconds) >= _MOST_PLANS:
                self._seconds.clear()
            self._seconds[indices] = seconds
        else:
            self._seconds[indices] = known + _NEWEST * (seconds - known)

    def _seconds_of(self, plan: PlanLike | None) -> float:
        """What an event of a plan is expected to take."""
        if plan is None:
            return _UNTIMED_SECONDS
        return self._seconds.get(plan.indices, _UNTIMED_SECONDS)

    def _events_of(self, plan: PlanLike | None) -> int:
        """How many events of a plan go into a full batch."""
        return max(1, int(min(MOST_EVENTS, TARGET_SECONDS / max(self._seconds_of(plan), 1e-9))))


def _never(item: NoReturn) -> NoReturn:
    """What `typing.assert_never` is from Python 3.11 on."""
    raise InternalError(f"unknown input {item!r}")


_NOTHING: Final = Result()
