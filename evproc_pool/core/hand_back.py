"""Takes batches from workers: after a death (`worker_gone`), taken back, or given back. Pure.

The event that a worker died of fails, or is run again. The others go in front of what waits, so
that order is kept. Costs O(events put back); roots, strands and fan-outs go back as columns,
O(1) a part.
"""

from __future__ import annotations

from collections.abc import Mapping

from evproc_pool.core.batches import Batch, Cascade, Part
from evproc_pool.core.cascades import Cascades
from evproc_pool.core.estimates import Estimates
from evproc_pool.core.event_columns import Bunch
from evproc_pool.core.event_results import EventResults, Fate
from evproc_pool.core.inputs_and_effects import Result, TakenBack, WorkerGone
from evproc_pool.core.keyed_roots import KeyedRoots
from evproc_pool.core.retries import Retries
from evproc_pool.core.retry_policy import Again, Tried
from evproc_pool.core.run_state import Block, Run, SharedState
from evproc_pool.core.worker_loads import WorkerLoads
from evproc_pool.errors import InternalError


class HandBack:
    """The part of the scheduler that takes batches from workers."""

    def __init__(  # noqa: PLR0917 - the parts that it needs
        self,
        state: SharedState,
        loads: WorkerLoads,
        estimates: Estimates,
        retries: Retries,
        cascades: Cascades,
        events: EventResults,
        keyed: KeyedRoots,
    ) -> None:
        self._state = state
        self._loads = loads
        self._estimates = estimates
        self._retries = retries
        self._cascades = cascades
        self._events = events
        self._keyed = keyed

    def taken_back(self, item: TakenBack) -> None:
        """Put back what a slow worker has not begun."""
        held = self._loads.held(item.worker)
        if not held or not held[0].done < item.kept <= held[0].size:
            raise InternalError(f"worker {item.worker} cannot keep {item.kept} of its batch")
        self._loads.set_slow(item.worker, is_slow=True)
        while len(held) > 1:
            self.hand_back(self._loads.pop_last(item.worker), {})
        batch = held[0]
        self._estimates.note_stuck(batch.at(item.kept - 1)[1])
        done, batch.done = batch.done, item.kept
        self.hand_back(batch, {})
        batch.done = done
        self._loads.cut(item.worker, item.kept)
        for part in batch.parts:
            part.stop = min(part.stop, max(part.start, item.kept))

    def worker_gone(self, item: WorkerGone) -> None:
        """Apply a death: the running event fails or is run again, the others are put back."""
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
        fates: dict[int, Fate] = {}
        if item.running is not None:
            result = Result(error=item.error, handler=item.handler)
            fates[item.running] = Fate(result, item.seconds, item.ran)
        if item.spared is not None:
            fates[item.spared] = Fate(Result())
        # last first, since each goes in front of the others
        for batch in reversed(held):
            self.hand_back(batch, fates if batch is held[0] else {})

    def hand_back(self, batch: Batch, fates: Mapping[int, Fate]) -> None:
        """Put the unrun events of a batch in front of what waits.

        `fates` has, by position, the events that do not go back: one that the worker died of, or
        one that is over and left nothing behind.
        """
        run = batch.run
        for part in reversed(batch.parts):
            left = part.within(batch.done, batch.size)
            if part.is_keyed:
                self._keyed.put_part_back(run, part, left, fates)
            elif part.first is not None or part.strands is not None:
                self._columns(run, part, left, fates)
            elif not self._fan_out(run, part, left, fates):
                self._events_of_cascades(run, part, left, fates)
        self._cascades.report_quiet(run)
        self._cascades.drop_unwanted(run)
        self._state.take_turns(run)

    def _events_of_cascades(
        self, run: Run, part: Part, left: range, fates: Mapping[int, Fate]
    ) -> None:
        """Put back events of cascades one by one; see `hand_back`."""
        for position in reversed(left):
            number = position - part.start
            cascade = part.cascades[number]
            cascade.in_flight -= 1
            if cascade.is_over:
                self._cascades.release_key(run, cascade)
                continue
            if position in fates:
                self._events.take_fate(run, cascade, part, number, fates[position])
            elif isinstance(plan := part.plans[number], Tried) and plan.crashes:
                again = Again(plan)
                event = Bunch([part.events[number]], again, part.place(number))
                self._retries.put_back(run, cascade, event, again)
            else:
                cascade.queue.put_back(part.events[number], plan, part.place(number))
                run.loose += cascade.is_ready
        for cascade in dict.fromkeys(part.cascades[position - part.start] for position in left):
            if not cascade.is_over and (run.unordered or not cascade.in_flight):
                self._cascades.resume(run, cascade)

    def _fan_out(self, run: Run, part: Part, left: range, fates: Mapping[int, Fate]) -> bool:
        """Put back events of one cascade and one plan as columns, if they are that."""
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
            self._cascades.resume(run, cascade)
        return True

    def _columns(self, run: Run, part: Part, left: range, fates: Mapping[int, Fate]) -> None:
        """Put back roots or strands; see `hand_back`."""
        stop = left.stop
        pieces: list[range] = []
        for position in sorted((each for each in fates if each in left), reverse=True):
            pieces.append(range(position + 1, stop))
            stop = position
            number = position - part.start
            if part.strands is None:
                cascade = Cascade((part.first or 0) + number)
            else:
                (cascade,) = part.strands.slice(number, number + 1).in_flight()
                cascade.in_flight = 0
            self._events.take_fate(run, cascade, part, number, fates[position])
            if not cascade.is_over:
                self._cascades.resume(run, cascade)
        for piece in (*pieces, range(left.start, stop)):
            start, stop = piece.start - part.start, piece.stop - part.start
            if piece and part.strands is not None:
                run.add_strands(part.strands.slice(start, stop))
            elif piece:
                first = (part.first or 0) + start
                run.put_back(Block(first, part.events[start:stop], part.plans[start:stop]))
