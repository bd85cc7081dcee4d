"""The scheduler: which events go to which worker, and when. Pure.

No I/O, no clock, no thread and no process: `Scheduler.step` takes what happened
and answers with what is to be done. The engine feeds it from real workers, a
simulation from a seed.

Theory of operation
-------------------

::

    Accepted --> [blocks of a run] --+                     +--> Settled / Over / Ended
                                     |   batch   worker    |
                                     +--> Send ----> ... --+--> Progress
                                     |                     |
                     [ready cascades of a run] <-----------+  follow-ups

A *run* is one call of the application (one `process_many`, say). Its root
events arrive in *blocks*: neighbours by index, independent of each other, which
are cut where a batch ends. Most roots end as they began, without follow-ups,
value or error: these never get an object of their own and are reported by the
count (`Settled`).

A root with follow-ups becomes a *cascade*: a queue of planned events. In an
ordered run they run one after another, as `Processor.process` has them: while a
part of a cascade is in flight nothing more of it is sent, so order needs no
further rule. Events that stand one behind the other in the queue may go
together, as a *chain*: the worker leaves the rest of a chain unrun when one of
it stops or fails. In an unordered run every event of the queue may be sent at
once, and the cascade is over when none is left, or as soon as one stops or fails.

A root with a *key* is a cascade from the start, and waits until the cascade of
the root with the same key before it is over.

Each worker gets at most `PREFETCH` batches, so that it finds the next one when
it is done with one. Batches are sized by time: `TARGET_SECONDS` of work by what
the plan's events took so far, few while that is not known, and less when little
work is left, so that no worker idles beside one with a queue. Where events turn
out to take much longer than those before them, the worker gives the rest of the
batch back (`Progress.gave_back`), or, where one takes long and others wait behind
it while a worker is idle, these are taken back (`TakenBack`).

Runs take turns, a batch each. Cascades go before new roots, which bounds how
many are open.

Rules that hold after every step, and which the tests check:

- an accepted root is reported exactly once (`Settled`, `Over`, `Ended`, `Dropped`);
- a worker has at most `PREFETCH` batches, and none that it was not sent;
- no worker is idle while there is something ready to send.

A step costs O(batches + results in it), not O(events).

Rejected: one queue that workers pull from (a killed worker can hold its lock);
an object per event (at a million events a second it is all one does).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable, Sequence
from typing import Any, Final, NamedTuple, NoReturn

from evproc_pool.estimates import MOST_EVENTS, TARGET_SECONDS, Estimates
from evproc_pool.schedule import (
    Accepted,
    Batch,
    Cascade,
    Closed,
    Dropped,
    Effect,
    Ended,
    Ending,
    Finished,
    Input,
    InternalError,
    Opened,
    Over,
    Part,
    PlanLike,
    Progress,
    Result,
    Send,
    Settled,
    TakenBack,
    Unplannable,
    WorkerGone,
    WorkerReady,
)

#: Batches that a worker may hold: the one it runs, and the next.
PREFETCH: Final = 2

#: A worker that holds so many bytes gets no second batch.
WINDOW_BYTES: Final = 8 << 20

_ENDLESS: Final = float("inf")


class _Block(NamedTuple):
    """Roots that wait: neighbours by index, independent of each other."""

    first: int
    events: Sequence[Any]
    plans: Sequence[PlanLike]

    def slice(self, start: int, stop: int) -> _Block:
        return _Block(self.first + start, self.events[start:stop], self.plans[start:stop])


class _Run:
    """The scheduler's view of one run."""

    __slots__ = (
        "backlog",
        "blocks",
        "bound",
        "closed",
        "has_turn",
        "id",
        "keys",
        "loose",
        "newest_plan",
        "open",
        "opened",
        "ready",
        "unordered",
        "waiting",
    )

    def __init__(self, opened: Opened) -> None:
        self.id = opened.run
        self.opened = opened
        self.unordered = opened.unordered
        self.closed = False
        self.bound = _ENDLESS  # roots behind this index are not wanted any more
        self.blocks: deque[_Block] = deque()
        self.backlog = 0  # roots in blocks
        self.ready: deque[Cascade] = deque()
        self.loose = 0  # unordered: events in the queues of ready cascades
        self.keys: dict[tuple[Hashable], deque[Cascade]] = {}  # busy keys, with who waits
        self.waiting = 0  # roots that wait for their key
        self.open = 0  # roots accepted and not reported
        self.newest_plan: PlanLike | None = None
        self.has_turn = False

    @property
    def has_ready(self) -> bool:
        """Whether something could be sent."""
        return bool(self.blocks or self.ready)

    @property
    def ready_events(self) -> int:
        """About how many events could be sent."""
        return self.backlog + (self.loose if self.unordered else len(self.ready))


class Scheduler:
    """See the module's text. Not safe for threads: the engine has one driver at a time."""

    def __init__(self) -> None:
        self._runs: dict[int, _Run] = {}
        self._turns: deque[_Run] = deque()  # runs with something ready, next first
        self._held: dict[int, deque[Batch]] = {}  # by ready worker
        # workers by how many batches they hold; dicts, because they keep their order
        self._by_load: tuple[dict[int, None], ...] = tuple({} for _ in range(PREFETCH + 1))
        self._slow: set[int] = set()  # workers that events were taken back from
        self._estimates = Estimates()
        self._closing: list[_Run] = []  # closed, and not finished
        self._effects: list[Effect] = []

    # --- questions ---

    @property
    def workers(self) -> int:
        """How many workers are ready."""
        return len(self._held)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is in flight and nothing waits to be sent."""
        nothing_waits = not any(run.has_ready for run in self._turns)
        return nothing_waits and len(self._by_load[0]) == len(self._held)

    def held_by(self, worker: int) -> Batch | None:
        """The batch that a worker is at, or None."""
        held = self._batches(worker)
        return held[0] if held else None

    @property
    def overloaded(self) -> list[int]:
        """Workers that hold more than the event they are at, while another is idle.

        If one of them is slow, what it holds could be taken back.
        """
        if not self._by_load[0] or any(run.has_ready for run in self._turns):
            return []
        return [
            worker
            for worker, held in self._held.items()
            if len(held) > 1 or (held and held[0].size - held[0].done > 1)
        ]

    def demand(self, run: int) -> int:
        """How many roots more it would take to keep every worker busy.

        That is one batch for each worker behind what they can hold. 0 once the run
        is closed or has failed.
        """
        state = self._runs.get(run)
        if state is None or state.closed or state.bound != _ENDLESS:
            return 0
        room = sum(len(workers) * (PREFETCH - load) for load, workers in enumerate(self._by_load))
        wanted = self._estimates.events_per_batch(state.newest_plan) * (room + max(1, self.workers))
        # with keys, roots that can be sent are among the cascades
        keyed = state.waiting + len(state.ready) if state.keys else 0
        return max(0, wanted - state.backlog - keyed)

    def weigh(self, batch: Batch, size_bytes: int) -> None:
        """Learn how many bytes a batch has that is being sent. No step: nothing follows."""
        batch.size_bytes = size_bytes
        self._estimates.learn_bytes(batch.parts[0].plans[0], size_bytes / batch.size)

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
            case TakenBack():
                self._taken_back(item)
            case WorkerGone():
                self._worker_gone(item)
            case _:
                _never(item)
        self._fill()
        # last, so that everything about a run is told before
        for run in [each for each in self._closing if not each.open]:
            self._closing.remove(run)
            del self._runs[run.id]
            self._effects.append(Finished(run.id))
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
        self._runs[item.run] = _Run(item)

    def _accepted(self, item: Accepted) -> None:
        run = self._run(item.run)
        if run.closed:
            raise InternalError(f"run {item.run} is closed")
        if not item.events or len(item.events) != len(item.plans):
            raise InternalError(f"{len(item.events)} events with {len(item.plans)} plans")
        run.open += len(item.events)
        run.newest_plan = item.plans[-1]
        if item.keys is None:
            run.blocks.append(_Block(item.first, item.events, item.plans))
            run.backlog += len(item.events)
        else:
            for place, key in enumerate(item.keys):
                self._accept_keyed(run, item, place, (key,))
        self._drop_unwanted(run)
        self._take_turns(run)

    def _accept_keyed(self, run: _Run, item: Accepted, place: int, key: tuple[Hashable]) -> None:
        cascade = Cascade(item.first + place)
        cascade.key = key
        cascade.queue.append((item.events[place], item.plans[place]))
        waiting = run.keys.get(key)
        if waiting is None:
            run.keys[key] = deque()
            self._make_ready(run, cascade)
        else:
            waiting.append(cascade)
            run.waiting += 1

    def _closed(self, item: Closed) -> None:
        run = self._runs.get(item.run)
        if run is None:
            return  # closed before, and finished
        if not run.closed:
            run.closed = True
            self._closing.append(run)
        if item.drop:
            run.bound = -1
            self._drop_unwanted(run)

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
                run.open -= dropped
                self._effects.append(Dropped(run.id, block.first + wanted, dropped))
        for waiting in run.keys.values():
            while waiting and waiting[-1].index > run.bound:
                run.waiting -= 1
                cascade = waiting.pop()
                cascade.key = None  # it only waited for it
                self._drop(run, cascade)
        for cascade in [each for each in run.ready if each.index > run.bound]:
            if not cascade.is_over:  # an earlier one of the list may have released it
                self._unready(run, cascade)
                if not cascade.in_flight:
                    self._drop(run, cascade)

    def _drop(self, run: _Run, cascade: Cascade) -> None:
        self._over(run, cascade)
        self._effects.append(Dropped(run.id, cascade.index, 1))

    def _take_turns(self, run: _Run) -> None:
        if run.has_ready and not run.has_turn:
            run.has_turn = True
            self._turns.append(run)

    # --- cascades ---

    def _make_ready(self, run: _Run, cascade: Cascade) -> None:
        if not cascade.is_ready:
            cascade.is_ready = True
            run.ready.append(cascade)
            run.loose += len(cascade.queue)
            self._take_turns(run)

    def _unready(self, run: _Run, cascade: Cascade) -> None:
        cascade.is_ready = False
        run.ready.remove(cascade)
        run.loose -= len(cascade.queue)

    def _over(self, run: _Run, cascade: Cascade) -> None:
        """A cascade is about to be reported; let the next one with its key begin."""
        if cascade.is_ready:
            self._unready(run, cascade)
        cascade.is_over = True
        cascade.queue.clear()
        run.open -= 1
        self._release_key(run, cascade)

    def _release_key(self, run: _Run, cascade: Cascade) -> None:
        """Let the next cascade with the key begin, once nothing of this one is run any more."""
        if cascade.key is None or (run.unordered and cascade.in_flight):
            return
        waiting = run.keys[cascade.key]
        if waiting:
            run.waiting -= 1
            self._make_ready(run, waiting.popleft())
        else:
            del run.keys[cascade.key]
        cascade.key = None

    def _end(self, run: _Run, cascade: Cascade, result: Result) -> None:
        self._over(run, cascade)
        ending = Ending(*result, cascade.events, cascade.seconds, cascade.processed)
        self._effects.append(Ended(run.id, cascade.index, ending))
        if result.error is not None and run.opened.until_error and cascade.index < run.bound:
            run.bound = cascade.index
            self._drop_unwanted(run)

    def _resume(self, run: _Run, cascade: Cascade, quiet: list[Cascade]) -> None:
        """Let a cascade go on, or end it if nothing is left.

        Args:
            run: Its run.
            cascade: One with nothing in flight, or of an unordered run.
            quiet: Takes it if it ends with nothing to tell.
        """
        queue = cascade.queue
        while not cascade.is_over and not cascade.is_ready:
            if cascade.index > run.bound:
                queue.clear()
                if not cascade.in_flight:
                    self._drop(run, cascade)
                return
            if not queue:
                if cascade.in_flight:
                    return
                if cascade.processed is None:
                    self._over(run, cascade)
                    quiet.append(cascade)
                else:
                    self._end(run, cascade, Result())
            elif queue[0][1].indices:
                self._make_ready(run, cascade)
            else:
                # no handler wants it, or it could not be planned
                _, plan = queue.popleft()
                cascade.events += 1
                if isinstance(plan, Unplannable):
                    self._end(run, cascade, Result(error=plan.error))

    # --- what workers report ---

    def _worker_ready(self, item: WorkerReady) -> None:
        if item.worker in self._held:
            raise InternalError(f"worker {item.worker} is ready already")
        self._held[item.worker] = deque()
        self._by_load[0][item.worker] = None

    def _progress(self, item: Progress) -> None:
        held = self._batches(item.worker)
        if not held or not held[0].done <= item.done <= held[0].size:
            raise InternalError(f"worker {item.worker}: progress to {item.done} in no such batch")
        batch = held[0]
        if len(item.times) != item.done - batch.done:
            raise InternalError(f"{len(item.times)} times for {item.done - batch.done} events")
        begin, batch.done = batch.done, item.done
        self._slow.discard(item.worker)
        for indices, count, seconds in item.timings:
            self._estimates.learn_seconds(indices, seconds / count)
        if batch.done == batch.size or item.gave_back:
            self._set_load(item.worker, -1)
            held.popleft()
        for part in batch.parts:
            positions = part.within(begin, item.done)
            if positions:
                if part.first is not None:
                    self._roots_over(batch.run, positions, part.first - part.start, begin, item)
                else:
                    self._cascades_over(batch.run, part, positions, begin, item)
        if item.gave_back:
            self._hand_back(batch, None, Result())

    def _roots_over(
        self, run: _Run, positions: range, shift: int, begin: int, item: Progress
    ) -> None:
        """Report roots: those with nothing to say by the count, the others one by one."""
        quiet = positions.start
        quiet_cascades: list[Cascade] = []
        telling = item.follow_ups.keys() | item.results.keys() | item.processed.keys()
        for position in sorted(telling):
            if position not in positions:
                continue
            self._settle(run, quiet + shift, item.times[quiet - begin : position - begin])
            quiet = position + 1
            cascade = Cascade(position + shift)
            self._event_over(run, cascade, position, begin, item)
            self._resume(run, cascade, quiet_cascades)
        self._settle(run, quiet + shift, item.times[quiet - begin : positions.stop - begin])
        self._tell_over(run, quiet_cascades)

    def _settle(self, run: _Run, first: int, times: Sequence[float]) -> None:
        if len(times):
            run.open -= len(times)
            self._effects.append(Settled(run.id, first, times))

    def _tell_over(self, run: _Run, cascades: list[Cascade]) -> None:
        if cascades:
            self._effects.append(Over(run.id, cascades))

    def _cascades_over(
        self, run: _Run, part: Part, positions: range, begin: int, item: Progress
    ) -> None:
        quiet: list[Cascade] = []
        for position in positions:
            cascade = part.cascades[position - part.start]
            cascade.in_flight -= 1
            # behind a stop or failure: the rest of a chain has not run, and what an
            # unordered cascade still had in flight does not count any more
            if not cascade.is_over:
                self._event_over(run, cascade, position, begin, item)
                if run.unordered or not cascade.in_flight:
                    self._resume(run, cascade, quiet)
            else:
                self._release_key(run, cascade)
        self._tell_over(run, quiet)

    def _event_over(
        self, run: _Run, cascade: Cascade, position: int, begin: int, item: Progress
    ) -> None:
        """Take what one event left behind into its cascade; end the cascade if it says so."""
        cascade.events += 1
        cascade.seconds += item.times[position - begin]
        if item.processed and position in item.processed:
            cascade.processed = item.processed[position]
        result = item.results.get(position) if item.results else None
        if result is not None:
            self._end(run, cascade, result)
            return
        follow_ups = item.follow_ups.get(position)
        if follow_ups:
            cascade.queue.extend(follow_ups)
            if cascade.is_ready:
                run.loose += len(follow_ups)

    def _taken_back(self, item: TakenBack) -> None:
        held = self._batches(item.worker)
        if not held or not held[0].done < item.kept <= held[0].size:
            raise InternalError(f"worker {item.worker} cannot keep {item.kept} of its batch")
        self._slow.add(item.worker)
        while len(held) > 1:
            self._set_load(item.worker, -1)
            self._hand_back(held.pop(), None, Result())
        batch = held[0]
        done, batch.done = batch.done, item.kept
        self._hand_back(batch, None, Result())
        batch.done, batch.size = done, item.kept

    def _worker_gone(self, item: WorkerGone) -> None:
        held = self._batches(item.worker)
        if item.running is not None and not (
            held and held[0].done <= item.running < held[0].size and item.error is not None
        ):
            raise InternalError(f"worker {item.worker} died at {item.running} of no such batch")
        del self._by_load[len(held)][item.worker]
        del self._held[item.worker]
        self._slow.discard(item.worker)
        charged = Result(error=item.error, handler=item.handler)
        # last first, since each is put back in front of the others
        for batch in reversed(held):
            running = item.running if batch is held[0] else None
            self._hand_back(batch, running, charged)

    def _hand_back(self, batch: Batch, running: int | None, charged: Result) -> None:
        """Put what a worker did not run in front again; charge the event it died of."""
        run = batch.run
        quiet: list[Cascade] = []
        for part in reversed(batch.parts):
            left = part.within(batch.done, batch.size)
            at = running if running is not None and running in left else None
            if part.first is not None:
                self._roots_back(run, part, left, at, charged)
                continue
            for position in reversed(left):
                place = position - part.start
                cascade = part.cascades[place]
                cascade.in_flight -= 1
                if cascade.is_over:
                    self._release_key(run, cascade)
                    continue
                if position == at:
                    cascade.events += 1
                    self._end(run, cascade, charged)
                else:
                    cascade.queue.appendleft((part.events[place], part.plans[place]))
                    run.loose += cascade.is_ready
            for cascade in dict.fromkeys(part.cascades[place - part.start] for place in left):
                if not cascade.is_over and (run.unordered or not cascade.in_flight):
                    self._resume(run, cascade, quiet)
        self._tell_over(run, quiet)
        self._drop_unwanted(run)
        self._take_turns(run)

    def _roots_back(
        self, run: _Run, part: Part, left: range, running: int | None, charged: Result
    ) -> None:
        shift = (part.first or 0) - part.start
        pieces = [left]
        if running is not None:
            pieces = [range(running + 1, left.stop), range(left.start, running)]
            cascade = Cascade(running + shift)
            cascade.events = 1
            self._end(run, cascade, charged)
        for piece in pieces:
            if piece:
                places = slice(piece.start - part.start, piece.stop - part.start)
                run.blocks.appendleft(
                    _Block(piece.start + shift, part.events[places], part.plans[places])
                )
                run.backlog += len(piece)

    # --- batches ---

    def _fill(self) -> None:
        """Send while a worker has room and something is ready."""
        passed = 0  # runs in a row for which there is no worker
        while passed < len(self._turns):
            run = self._turns.popleft()
            if not run.has_ready:
                run.has_turn = False
                continue
            self._turns.append(run)
            worker = self._roomiest(run)
            if worker is None:
                passed += 1
                continue
            passed = 0
            batch = self._make_batch(run)
            self._set_load(worker, +1)
            self._held[worker].append(batch)
            self._effects.append(Send(worker, batch))

    def _roomiest(self, run: _Run) -> int | None:
        """A worker for the run's next batch: the one that holds least, if any has room."""
        for worker in self._by_load[0]:
            return worker
        # The last events of a run wait for a worker that is idle: behind another
        # event they might wait while that worker is long done.
        if run.closed and run.ready_events <= self.workers:
            return None
        for workers in self._by_load[1:PREFETCH]:
            for worker in workers:
                is_slow = worker in self._slow
                if not is_slow and self._held[worker][0].size_bytes < WINDOW_BYTES:
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
            plan = run.ready[0].queue[0][1] if run.ready else run.blocks[0].plans[0]
            left = min(
                left, run.ready_events * self._estimates.seconds_of(plan) / (2 * self.workers)
            )
        while run.ready and (not batch.size or left > 0) and batch.size < MOST_EVENTS:
            cascade = run.ready[0]
            used = self._add_cascade(batch, cascade, left)
            if used is None:
                return batch
            left -= used
        while run.blocks and (not batch.size or left > 0) and batch.size < MOST_EVENTS:
            used = self._add_roots(batch, run, left)
            if used is None:
                return batch
            left -= used
        return batch

    def _add_cascade(self, batch: Batch, cascade: Cascade, left: float) -> float | None:
        """Put as much of the first ready cascade into a batch as time allows.

        Returns:
            The seconds that it is expected to take, or None if it does not fit.
        """
        run = batch.run
        queue = cascade.queue
        seconds = self._estimates.seconds_of(queue[0][1])
        room = self._estimates.most_events(queue[0][1]) - batch.size
        if batch.size and (seconds > left or room < 1):
            return None
        is_chain = not run.unordered and len(queue) > 1
        part = batch.parts[-1] if batch.parts else None
        if part is None or part.first is not None or part.is_chain or is_chain:
            part = Part(batch.size, None, is_chain=is_chain)
            batch.parts.append(part)
        used = 0.0
        taken = 0
        while queue and taken < max(1, room):
            event, plan = queue[0]
            seconds = self._estimates.seconds_of(plan)
            if taken and (used + seconds > left or not plan.indices):
                break
            if taken and batch.size + taken >= self._estimates.most_events(plan):
                break
            queue.popleft()
            used += seconds
            taken += 1
            part.events.append(event)
            part.plans.append(plan)
            part.cascades.append(cascade)
        part.stop += taken
        batch.size += taken
        cascade.in_flight += taken
        run.loose -= taken
        # it stands first
        run.ready.popleft()
        cascade.is_ready = False
        run.loose -= len(queue)
        if run.unordered and queue:
            quiet: list[Cascade] = []
            self._resume(run, cascade, quiet)
            run.ready.rotate(1)
        return used

    def _add_roots(self, batch: Batch, run: _Run, left: float) -> float | None:
        """Put as many roots of the first block into a batch as time allows; see above."""
        block = run.blocks[0]
        plan = block.plans[0]
        seconds = self._estimates.seconds_of(plan)
        room = self._estimates.most_events(plan) - batch.size
        if batch.size and (seconds > left or room < 1):
            return None
        # one plan for all is the usual case, and is seen without a loop in Python
        count = len(block.plans)
        if block.plans.count(plan) == count:
            count = max(1, min(count, room, int(left / seconds)))
            used = count * seconds
        else:
            count, used = self._count_mixed(block.plans, batch.size, left)
        run.blocks.popleft()
        if count < len(block.events):
            run.blocks.appendleft(block.slice(count, len(block.events)))
            block = block.slice(0, count)
        part = Part(batch.size, block.first)
        part.events, part.plans = list(block.events), list(block.plans)
        part.stop += count
        batch.parts.append(part)
        batch.size += count
        run.backlog -= count
        return used

    def _count_mixed(self, plans: Iterable[PlanLike], size: int, left: float) -> tuple[int, float]:
        """How many of these fit, at least one, and how long they are expected to take."""
        used = 0.0
        count = 0
        for plan in plans:
            seconds = self._estimates.seconds_of(plan)
            full = size + count >= self._estimates.most_events(plan)
            if count and (used + seconds > left or full):
                break
            used += seconds
            count += 1
        return count, used


def _never(item: NoReturn) -> NoReturn:
    """What `typing.assert_never` is from Python 3.11 on."""
    raise InternalError(f"unknown input {item!r}")
