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

What happens to a cascade is written in `cascades`, what a batch is made of in
`batching`, and who holds what in `worker_loads`.

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

An event that fails, or dies, may be run again (`retries`). Until then the rest of an
ordered cascade, and roots with its key, wait; of an unordered one it waits alone. One
that a worker died of is sent to a worker that holds nothing else, and gets nothing
else meanwhile.

A root with a *key* is a cascade from the start, and waits until the cascade of
the root with the same key before it is over.

Each worker gets `AHEAD_SECONDS` of work besides the batch it is at, in at most
`PREFETCH` batches, so that it finds the next one when it is done with one, and the
coordinator need not be there at that moment (`slack`; less where events turn out to
take less time). Near the end of a closed run that is alone it gets `LATE_SECONDS`,
and the one with the least to do is next.

Batches are sized by time: `TARGET_SECONDS` of work (more in a run that is alone and of
which nobody waits for single roots) by what the plan's events took so far (`estimates`),
few while that is not known, and less when little work is left, so that no worker idles
beside one with a queue. Where events turn out to take much longer than is usual, the
worker gives the rest of the batch back (`Progress.gave_back`), or, where one takes long
and others wait behind it while a worker is idle, these are taken back (`TakenBack`).

Runs take turns, a batch each. Cascades go before new roots, which bounds how
many are open.

Rules that hold after every step that has no other one behind it, and which the tests check:

- an accepted root is reported exactly once (`Settled`, `Over`, `Ended`, `Dropped`);
- a worker has at most `PREFETCH` batches, and none that it was not sent;
- no worker is idle while there is something ready to send.

A step costs O(batches + results in it), not O(events).

Rejected: one queue that workers pull from (a killed worker can hold its lock);
an object per event (at a million events a second it is all one does).
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Any, Final, Never

from evproc_pool.core.batches import Abreast, Batch, Cascade, KeyQueue, Part
from evproc_pool.core.batching import SHARES_PER_WORKER, Batcher
from evproc_pool.core.cascades import Cascades, Fate, handlers_run
from evproc_pool.core.estimates import (
    BULK_SECONDS,
    LONG_SECONDS,
    MOST_EVENTS,
    TELL_SECONDS,
    Estimates,
)
from evproc_pool.core.event_columns import Bunch, PlanLike, Singles
from evproc_pool.core.inputs_and_effects import (
    Accepted,
    Closed,
    Due,
    Effect,
    Finished,
    Input,
    Opened,
    Over,
    Progress,
    Result,
    Retired,
    Send,
    TakenBack,
    WorkerGone,
    WorkerReady,
)
from evproc_pool.core.retry_policy import Again, RetryPolicy, Tried
from evproc_pool.core.run_state import ENDLESS, Block, Run
from evproc_pool.core.worker_loads import WorkerLoads
from evproc_pool.errors import InternalError

# So many batches of a run are made before what waits for the worker that has its large buffers
# may go to another one.
_MOST_PASSED: Final = 16

# So many roots that wait for their keys are passed over in search of one that need not.
_MOST_PASSED_OVER: Final = 4 * MOST_EVENTS


class Scheduler(Cascades):
    """See the module's text. Not safe for threads: the engine has one driver at a time.

    Args:
        policy: Which events are run again.
        most_workers: How many workers there will be if there is work for all of them.
    """

    def __init__(self, policy: RetryPolicy | None = None, most_workers: int = 1) -> None:
        super().__init__(policy or RetryPolicy())
        self._most_workers = most_workers
        self._runs: dict[int, Run] = {}
        self._keys: dict[Hashable, KeyQueue] = {}  # of the runs that share theirs
        self._loads = WorkerLoads()
        self._estimates = Estimates()
        self._batcher = Batcher(self._estimates, self._resume_quietly)
        self._closing: list[Run] = []  # closed, and not finished
        #: How many workers are being started. Until they are ready nothing is given to a
        #: worker behind an event that may be a slow one.
        self.starting = 0

    # --- questions ---

    @property
    def workers(self) -> int:
        """How many workers are ready."""
        return len(self._loads)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is in flight and nothing waits to be sent."""
        nothing_waits = not (
            self._retries.has_suspects or any(run.has_ready for run in self._turns)
        )
        return nothing_waits and len(self._loads.idle) == len(self._loads)

    @property
    def employable(self) -> int:
        """How many workers could be at work with what there is; rather too many than too few.

        As far as is known: events that are in flight or wait, of an ordered cascade or a key
        one at a time. O(batches in flight).
        """
        workers = 0
        for run in self._runs.values():
            if run.unordered:
                held = self._loads.of(run)
                workers += run.ready_events + sum(batch.size - batch.done for batch in held)
                workers += len(self._retries.of(run))
            else:
                workers += min(run.open, len(run.keys)) if run.keys else run.open
        return workers

    @property
    def unused(self) -> int | None:
        """The worker that would get the next batch, if none of them holds anything."""
        idle = self._loads.idle
        if len(idle) < len(self._loads) or self._retries.has_suspects:
            return None
        return next(iter(idle), None)

    def held_by(self, worker: int) -> Batch | None:
        """The batch that a worker is at, or None."""
        held = self._loads.held(worker)
        return held[0] if held else None

    def batches_of(self, worker: int) -> int:
        """How many batches a worker holds."""
        return len(self._loads.held(worker))

    @property
    def overloaded(self) -> list[int]:
        """Workers that hold more than the event they are at, while another is idle.

        If one of them is slow, what it holds could be taken back.
        """
        if not self._loads.idle or any(run.has_ready for run in self._turns):
            return []
        return self._loads.overloaded

    @property
    def tellable(self) -> list[int]:
        """Workers that may have finished something for which somebody waits, or could be sent.

        Those at a batch of which more than one event is not told; of a run of which nobody
        waits for single roots, only while a worker is idle. See `report_requests`.
        """
        is_any_idle = bool(self._loads.idle)
        return [
            worker
            for worker, batch in self._loads.at_several
            if is_any_idle or not batch.run.opened.is_bulk
        ]

    @property
    def lopsided(self) -> list[int]:
        """Workers that hold batches which another would soon need, and nothing waits.

        They could be asked for those that they have not begun.
        """
        if any(run.has_ready for run in self._turns):
            return []
        return self._loads.lopsided

    @property
    def slack(self) -> float:
        """For how long every worker has something to do if nothing is done here, in seconds.

        Counted from the end of the batches that they are at, and 0 where somebody may
        wait for one of these: where a run has nothing more to send, unless it is closed
        and the only one. No more than `TELL_SECONDS` where somebody waits for single roots.
        """
        slack = self._loads.ahead
        if self._retries.has_suspects:
            return 0.0
        if slack:
            is_only = len(self._runs) == 1
            for run in self._runs.values():
                if run.open and not (run.has_ready or (run.closed and is_only)):
                    return 0.0
                if run.open and not run.opened.is_bulk:
                    slack = min(slack, TELL_SECONDS)
        return slack

    def demand(self, run: int) -> int:
        """How many roots more it would take to keep every worker busy.

        That is one batch for each worker, also those that may be started yet, behind what
        they can hold; and of a run that gets large ones as many as are needed to see its end
        coming, before it is cut too coarsely. 0 once the run is closed or has failed.
        """
        state = self._runs.get(run)
        if state is None or state.closed or state.bound != ENDLESS:
            return 0
        batches = max(self._most_workers, self.workers) + self._loads.free
        wanted = self._estimates.events_per_batch(state.newest_plan) * batches
        if state.opened.is_bulk:
            large = self._estimates.events_per_batch(state.newest_plan, BULK_SECONDS)
            wanted = max(wanted, large * SHARES_PER_WORKER * self.workers)
        # With keys, roots that can be sent are among the cascades. Where all that is there
        # waits for keys and a worker is idle, or could be started, others have to be found,
        # up to a limit.
        keyed = state.waiting
        if (self._loads.idle or self.workers < self._most_workers) and not state.has_ready:
            keyed = max(0, state.waiting - _MOST_PASSED_OVER)
        return max(0, wanted - state.backlog - keyed)

    @property
    def pausing(self) -> Collection[int]:
        """The tokens of the events that wait for a pause to end."""
        return self._retries.pausing.keys()

    def weigh(
        self, worker: int, batch: Batch, size_bytes: int, events_bytes: int | None = None
    ) -> None:
        """Learn how many bytes a batch has that is being sent. No step: nothing follows.

        Args:
            worker: To whom.
            batch: The batch.
            size_bytes: All of its bytes.
            events_bytes: Those that are its events', and not their classes'.
        """
        each = (size_bytes if events_bytes is None else events_bytes) / batch.size
        self._estimates.learn_bytes(batch.parts[0].plans[0], each)
        self._loads.weigh(worker, batch, size_bytes)

    # --- the step ---

    def step(self, item: Input, *, more: bool = False) -> list[Effect]:  # noqa: C901 - a case each
        """Advance the schedule by one input.

        Args:
            item: The input.
            more: Whether the next one is there already, so that nothing is sent before it:
                how roots are cut into batches depends on whether others come behind them.

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
            case Retired():
                self._loads.retire(item.worker)
                self._spread(item.worker)
            case WorkerGone():
                self._worker_gone(item)
            case Due():
                self._due(item)
            case _:
                _never(item)
        if not more:
            self._fill()
        # last, so that everything about a run is told before
        for run in [each for each in self._closing if not each.open]:
            self._closing.remove(run)
            del self._runs[run.id]
            self._effects.append(Finished(run.id))
        effects, self._effects = self._effects, []
        return effects

    def _run(self, run: int) -> Run:
        try:
            return self._runs[run]
        except KeyError:
            raise InternalError(f"there is no run {run}") from None

    # --- runs ---

    def _opened(self, item: Opened) -> None:
        if item.run in self._runs:
            raise InternalError(f"run {item.run} is open already")
        keys = self._keys if item.shares_keys else {}
        self._runs[item.run] = Run(item, keys, self._loads.staying)

    def _accepted(self, item: Accepted) -> None:
        run = self._run(item.run)
        if run.closed:
            raise InternalError(f"run {item.run} is closed")
        if not item.events or len(item.events) != len(item.plans):
            raise InternalError(f"{len(item.events)} events with {len(item.plans)} plans")
        if item.keys is not None:
            _check_keys(item.keys, len(item.events))
        run.open += len(item.events)
        run.newest_plan = item.plans[-1]
        if item.keys is None:
            run.blocks.append(Block(item.first, item.events, item.plans))
            run.backlog += len(item.events)
        else:
            self._accept_keyed(run, item, item.keys)
        self._drop_unwanted(run)
        self._take_turns(run)

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

    # --- what workers report ---

    def _worker_ready(self, item: WorkerReady) -> None:
        self._loads.add(item.worker)

    def _progress(self, item: Progress) -> None:
        held = self._loads.held(item.worker)
        if not held or not held[0].done <= item.done <= held[0].size:
            raise InternalError(f"worker {item.worker}: progress to {item.done} in no such batch")
        batch = held[0]
        if len(item.times) != item.done - batch.done:
            raise InternalError(f"{len(item.times)} times for {item.done - batch.done} events")
        if any(events < 1 for _, events, _ in item.timings):
            raise InternalError(f"worker {item.worker}: timings of no events")
        begin, batch.done = batch.done, item.done
        self._loads.set_slow(item.worker, is_slow=False)
        self._estimates.learn(item.timings, item.times)
        if item.timings and item.done > begin:
            seconds = sum([seconds for _, _, seconds in item.timings])
            self._loads.learn_pace(item.worker, item.done - begin, seconds)
        if batch.done == batch.size or item.gave_back:
            self._loads.pop_first(item.worker)
        for part in batch.parts:
            positions = part.within(begin, item.done)
            if positions and not self._side_by_side(batch.run, part, positions, begin, item):
                self._part_over(batch.run, part, positions, begin, item)
        if item.gave_back:
            self._hand_back(batch, {})

    def _part_over(
        self, run: Run, part: Part, positions: range, begin: int, item: Progress
    ) -> None:
        """Take in what events of a part left behind, one by one where that is needed."""
        if part.first is not None:
            self._roots_over(run, part, positions, begin, item)
        elif part.is_keyed:
            self._keyed_over(run, part, positions, begin, item)
        else:
            self._cascades_over(run, part, positions, begin, item)

    def _side_by_side(
        self, run: Run, part: Part, positions: range, begin: int, item: Progress
    ) -> bool:
        """Let roots or strands go on, if none of them left more behind than one follow-up.

        Returns:
            Whether that is so. If not, nothing has happened, but that strands are
            cascades now.
        """
        strands = part.strands
        if strands is None and (part.first is None or not isinstance(item.follow_ups, Singles)):
            return False
        may_be = run.bound == ENDLESS and not run.opened.is_followed
        gave = _gave(item, positions) if may_be else None
        if gave is None:
            if strands is not None:
                part.depth = strands.cascades.over
                part.cascades, part.strands = strands.in_flight(), None
            return False
        givers, events, plans = gave
        times = item.times[positions.start - begin : positions.stop - begin]
        start, stop = positions.start - part.start, positions.stop - part.start
        handlers = handlers_run(part, positions, item)
        if strands is None:
            first = part.first or 0
            ran = [handlers] * len(positions) if isinstance(handlers, int) else handlers
            cascades = Abreast(range(first + start, first + stop), 1, list(times), ran)
        else:
            cascades = strands.cascades.slice(start, stop).after(times, handlers)
        if len(givers) < len(positions):
            self._strands_over(run, cascades, positions, givers, item)
            if givers:
                cascades = cascades.pick(givers, positions.start)
        if givers:
            for strands in cascades.go_on(events, plans, item.worker if item.has_large else None):
                run.add_strands(strands)
        self._take_turns(run)
        return True

    def _strands_over(
        self,
        run: Run,
        cascades: Abreast,
        positions: range,
        givers: Sequence[int],
        item: Progress,
    ) -> None:
        """Report the cascades abreast that have no follow-up."""
        values = item.values.aligned(positions) if item.values else None
        if givers:
            others = sorted(set(positions).difference(givers))
            cascades = cascades.pick(others, positions.start)
            if values is not None:
                values = values.pick([each - positions.start for each in others])
        roots = cascades.roots
        run.open -= len(roots)
        events = [cascades.over] * len(roots)
        self._effects.append(
            Over(run.id, roots, events, cascades.seconds, cascades.handlers, values)
        )

    def _roots_over(
        self, run: Run, part: Part, positions: range, begin: int, item: Progress
    ) -> None:
        """Report roots: those with nothing to say by the count, the others one by one."""
        shift = (part.first or 0) - part.start
        if not (item.follow_ups or item.results):
            self._settle(run, part, positions, begin, item)
            return
        quiet = positions.start
        quiet_cascades: list[Cascade] = []
        seconds = list(item.times)
        for position in sorted(item.follow_ups.keys() | item.results.keys()):
            if position not in positions:
                continue
            if position > quiet:
                self._settle(run, part, range(quiet, position), begin, item)
            quiet = position + 1
            cascade = Cascade(position + shift)
            self._event_over(run, cascade, part, position, item, seconds=seconds[position - begin])
            self._go_on(run, cascade, quiet_cascades)
        if positions.stop > quiet:
            self._settle(run, part, range(quiet, positions.stop), begin, item)
        self._tell_over(run, quiet_cascades)
        self._take_turns(run)

    def _cascades_over(
        self, run: Run, part: Part, positions: range, begin: int, item: Progress
    ) -> None:
        quiet: list[Cascade] = []
        if not (item.follow_ups or item.results or item.processed or item.values or item.emitted):
            first = part.cascades[0]
            is_one = part.cascades.count(first) == len(part.cascades) and not first.is_over
            if is_one and not run.opened.every_event:
                # a fan-out, of which nothing more is to be told than that it is over
                first.in_flight -= len(positions)
                first.events += len(positions)
                ran = handlers_run(part, positions, item)
                first.handlers += ran * len(positions) if isinstance(ran, int) else sum(ran)
                first.seconds += sum(item.times[positions.start - begin : positions.stop - begin])
                if run.unordered or not first.in_flight:
                    self._go_on(run, first, quiet)
                positions = range(0)
        seconds = list(item.times) if positions else []
        for position in positions:
            cascade = part.cascades[position - part.start]
            cascade.in_flight -= 1
            # behind a stop or failure: the rest of a chain has not run, and what an
            # unordered cascade still had in flight does not count any more
            if cascade.is_over:
                self._release_key(run, cascade)
                continue
            self._event_over(run, cascade, part, position, item, seconds=seconds[position - begin])
            if run.unordered or not cascade.in_flight:
                self._go_on(run, cascade, quiet)
        self._tell_over(run, quiet)
        self._take_turns(run)

    # --- what workers leave unrun ---

    def _taken_back(self, item: TakenBack) -> None:
        held = self._loads.held(item.worker)
        if not held or not held[0].done < item.kept <= held[0].size:
            raise InternalError(f"worker {item.worker} cannot keep {item.kept} of its batch")
        self._loads.set_slow(item.worker, is_slow=True)
        while len(held) > 1:
            self._hand_back(self._loads.pop_last(item.worker), {})
        batch = held[0]
        self._estimates.note_stuck(batch.at(item.kept - 1)[1])
        done, batch.done = batch.done, item.kept
        self._hand_back(batch, {})
        batch.done = done
        self._loads.cut(item.worker, item.kept)
        for part in batch.parts:
            part.stop = min(part.stop, max(part.start, item.kept))

    def _worker_gone(self, item: WorkerGone) -> None:
        held = self._loads.held(item.worker)
        if item.running is not None and not (
            held and held[0].done <= item.running < held[0].size and item.error is not None
        ):
            raise InternalError(f"worker {item.worker} died at {item.running} of no such batch")
        if item.spared is not None and not (
            held and max(held[0].done, item.running or 0) < item.spared < held[0].size
        ):
            raise InternalError(f"worker {item.worker}: {item.spared} is over in no such batch")
        self._loads.remove(item.worker)
        self._spread(item.worker)
        fates: dict[int, Fate] = {}
        if item.running is not None:
            charged = Result(error=item.error, handler=item.handler)
            fates[item.running] = Fate(charged, item.seconds, item.ran)
        if item.spared is not None:
            fates[item.spared] = Fate(Result())
        # last first, since each is put back in front of the others
        for batch in reversed(held):
            self._hand_back(batch, fates if batch is held[0] else {})

    def _spread(self, worker: int) -> None:
        """Let others go on with what a worker has the large buffers of, which gets nothing more."""
        for run in self._runs.values():
            run.spread(worker)

    def _hand_back(self, batch: Batch, fates: Mapping[int, Fate]) -> None:
        """Put what a worker did not run in front again.

        Args:
            batch: The worker's.
            fates: What became of events that are not put back, by position: the one it
                died of, or one that is over and has left nothing behind.
        """
        run = batch.run
        quiet: list[Cascade] = []
        for part in reversed(batch.parts):
            left = part.within(batch.done, batch.size)
            if part.is_keyed:
                self._keyed_back(run, part, left, fates, quiet)
                continue
            if part.first is not None or part.strands is not None:
                self._columns_back(run, part, left, fates, quiet)
                continue
            if not self._fan_out_back(run, part, left, fates, quiet):
                self._cascades_back(run, part, left, fates, quiet)
        self._tell_over(run, quiet)
        self._drop_unwanted(run)
        self._take_turns(run)

    def _cascades_back(
        self,
        run: Run,
        part: Part,
        left: range,
        fates: Mapping[int, Fate],
        quiet: list[Cascade],
    ) -> None:
        """Put back events of cascades one by one; see `_hand_back`."""
        for position in reversed(left):
            place = position - part.start
            cascade = part.cascades[place]
            cascade.in_flight -= 1
            if cascade.is_over:
                self._release_key(run, cascade)
                continue
            if position in fates:
                self._meets(run, cascade, part, place, fates[position])
            elif isinstance(plan := part.plans[place], Tried) and plan.crashes:
                again = Again(plan)
                event = Bunch([part.events[place]], again, part.place(place))
                self._back_to_be_run(run, cascade, event, again)
            else:
                cascade.queue.put_back(part.events[place], plan, part.place(place))
                run.loose += cascade.is_ready
        for cascade in dict.fromkeys(part.cascades[place - part.start] for place in left):
            if not cascade.is_over and (run.unordered or not cascade.in_flight):
                self._resume(run, cascade, quiet)

    def _fan_out_back(
        self,
        run: Run,
        part: Part,
        left: range,
        fates: Mapping[int, Fate],
        quiet: list[Cascade],
    ) -> bool:
        """Put back events of one cascade and one plan in one piece, as they came; see `_hand_back`.

        Returns:
            Whether they are that. If not, nothing has happened.
        """
        cascade, plan = part.cascades[0], part.plans[0]
        if (
            not left
            or cascade.is_over
            or isinstance(plan, Tried)
            or not fates.keys().isdisjoint(left)
            or part.cascades.count(cascade) < len(part.cascades)
            or part.plans.count(plan) < len(part.plans)
        ):
            return False
        cascade.in_flight -= len(left)
        first, stop = left.start - part.start, left.stop - part.start
        for begin, bunch in reversed(part.bunches):
            start, end = max(begin, first), min(begin + len(bunch), stop)
            if start < end:
                cascade.queue.put_all_back(Bunch(part.events[start:end], plan, part.place(start)))
        if cascade.is_ready:
            run.loose += len(left)
        if run.unordered or not cascade.in_flight:
            self._resume(run, cascade, quiet)
        return True

    def _columns_back(
        self,
        run: Run,
        part: Part,
        left: range,
        fates: Mapping[int, Fate],
        quiet: list[Cascade],
    ) -> None:
        """Put back roots or strands; see `_hand_back`."""
        stop = left.stop
        pieces: list[range] = []
        for position in sorted((each for each in fates if each in left), reverse=True):
            pieces.append(range(position + 1, stop))
            stop = position
            place = position - part.start
            if part.strands is None:
                cascade = Cascade((part.first or 0) + place)
            else:
                (cascade,) = part.strands.slice(place, place + 1).in_flight()
                cascade.in_flight = 0
            self._meets(run, cascade, part, place, fates[position])
            if not cascade.is_over:
                self._resume(run, cascade, quiet)
        for piece in (*pieces, range(left.start, stop)):
            start, stop = piece.start - part.start, piece.stop - part.start
            if piece and part.strands is not None:
                run.add_strands(part.strands.slice(start, stop))
            elif piece:
                first = (part.first or 0) + start
                run.put_back(Block(first, part.events[start:stop], part.plans[start:stop]))

    # --- batches ---

    def _send_suspects(self) -> None:
        """Send those that have to be run alone."""
        while self._retries.has_suspects:
            worker = self._loads.reserve()
            if worker is None:
                return
            run, cascade, event, tried, place = self._retries.take_suspect()
            batch = self._batcher.make_alone(run, cascade, Bunch([event], tried, place))
            self._loads.push(worker, batch)
            self._effects.append(Send(worker, batch))
        self._loads.release()

    def _fill(self) -> None:
        """Send while a worker has room and something is ready."""
        self._send_suspects()
        passed = 0  # runs in a row for which there is no worker
        while passed < len(self._turns):
            run = self._turns.popleft()
            if not run.has_ready:
                run.has_turn = False
                continue
            self._turns.append(run)
            is_alone = not any(other.has_ready for other in self._turns if other is not run)
            worker = self._worker_for(run, is_alone=is_alone)
            if worker is None:
                passed += 1
                continue
            passed = 0
            batch = self._batcher.make(
                run,
                worker,
                workers=len(self._loads) + self.starting,
                idle=len(self._loads.idle) + self.starting,
                is_alone=is_alone,
            )
            self._loads.push(worker, batch)
            self._effects.append(Send(worker, batch))

    def _worker_for(self, run: Run, *, is_alone: bool) -> int | None:
        """Choose who gets the next batch of a run; None: nobody has room for it.

        The last events of a run wait for a worker that is idle: behind another event they
        might wait while that worker is long done. Not beside another run, which would keep
        every worker busy for ever. And those before them go where they are begun soonest.
        """
        idle = bool(self.starting or (is_alone and run.closed and run.left <= self.workers))
        is_late = not idle and is_alone and self.workers > 0
        is_late = is_late and self._batcher.is_near_end(run, workers=self.workers)
        worker = self._loads.earliest() if is_late else self._loads.roomiest(idle=idle)
        if worker is not None and run.near:
            worker = self._next_near(run, worker, idle=idle, is_late=is_late)
        if worker is None or worker in self._loads.idle or not self._is_long_next(run):
            return worker
        if not (is_alone or self._loads.idle):
            return worker  # other runs keep every worker busy, maybe for ever
        run.put_near(worker)
        idle_one = self._loads.roomiest(idle=True)
        if idle_one is None:
            return self._worker_for_short(run, worker, is_late=is_late) if run.near else None
        return self._next_near(run, idle_one, idle=True, is_late=False) if run.near else idle_one

    def _worker_for_short(self, run: Run, worker: int, *, is_late: bool) -> int | None:
        """Choose who gets what is not long, where what was put first is, and nobody is idle."""
        for other in list(run.near):
            if self._loads.has_room(other, is_late=is_late):
                run.bring(other)
                if not self._is_long_next(run):
                    return other
                run.put_near(other)
        has_others = run.ready or run.blocks
        return worker if has_others and not self._is_long_next(run) else None

    def _is_long_next(self, run: Run) -> bool:
        """Whether the next event of a run is a long one, for which somebody may wait."""
        if run.opened.is_bulk:
            return False
        return self._estimates.most_seconds_of(run.next_plan) >= LONG_SECONDS

    def _next_near(self, run: Run, worker: int, *, idle: bool, is_late: bool) -> int:
        """Choose who gets a batch of a run with large buffers that workers have, and put it first.

        A worker goes on with its own. It gets what another one has where it has nothing else
        to do and that one has no room, or it is idle and that one is not; and now and then
        where that one has no room, since that may be for long. O(workers) then.

        Args:
            run: The run.
            worker: Who has room.
            idle: Whether only those have room that are idle.
            is_late: See `WorkerLoads.has_room`.

        Returns:
            The worker, or another one with room that has what is there.
        """
        has_work = bool(worker in run.near or run.ready or run.blocks)
        run.passed += 1
        if not has_work or run.passed >= _MOST_PASSED:
            run.passed = 0
            found = self._other_near(run, worker, idle=idle, is_late=is_late, has_work=has_work)
            if found is None:
                return worker
            worker = worker if has_work else found
        run.bring(worker)
        return worker

    def _other_near(
        self, run: Run, worker: int, *, idle: bool, is_late: bool, has_work: bool
    ) -> int | None:
        """Let a worker have what another one has the large buffers of, where it is to.

        Returns:
            None if that was done; or else another one with room that has some, or the worker.
        """
        idle_ones = self._loads.idle
        found = worker
        for other in run.near:
            if other == worker:
                continue
            has_room = other in idle_ones if idle else self._loads.has_room(other, is_late=is_late)
            if not has_room or not (has_work or other in idle_ones or worker not in idle_ones):
                run.release(other)
                return None
            found = other
        return found


def _gave(
    item: Progress, positions: range
) -> tuple[Sequence[int], Sequence[Any], Sequence[PlanLike]] | None:
    """Which events returned a follow-up, and the plan of each; None if that is not all."""
    if item.results or item.processed or item.emitted:
        return None
    if not item.follow_ups:
        return (), (), ()
    if not isinstance(item.follow_ups, Singles):
        return None
    givers, events, plans = item.follow_ups.within(positions)
    if plans and plans.count(plans[0]) == len(plans):
        is_wanted = bool(plans[0].indices)  # one plan for all, as is usual: seen without a loop
    else:
        is_wanted = all(plan.indices for plan in plans)
    return (givers, events, plans) if is_wanted else None


def _check_keys(keys: Sequence[Hashable], events: int) -> None:
    if len(keys) != events:
        raise InternalError(f"{events} events with {len(keys)} keys")
    try:
        frozenset(keys)
    except TypeError as error:
        raise InternalError(f"a key: {error}") from error


def _never(item: Never) -> Never:
    """What `typing.assert_never` does, with an error of ours."""
    raise InternalError(f"unknown input {item!r}")
