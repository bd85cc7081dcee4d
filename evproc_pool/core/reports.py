"""Takes in what workers report of their batches, part by part. Pure.

Costs O(1) for each event that leaves something behind, and next to nothing for others: roots
and strands stay columns as long as each of them leaves at most one follow-up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evproc_pool.core.batches import Batch, Cascade, CascadeColumns, Part
from evproc_pool.core.cascades import Cascades
from evproc_pool.core.event_columns import PlanLike, Singles
from evproc_pool.core.event_results import EventResults
from evproc_pool.core.inputs_and_effects import Over, Progress, Settled
from evproc_pool.core.keyed_roots import KeyedRoots
from evproc_pool.core.run_state import ENDLESS, Run, SharedState


class Reports:
    """The part of the scheduler that takes in `Progress`."""

    def __init__(
        self, state: SharedState, cascades: Cascades, events: EventResults, keyed: KeyedRoots
    ) -> None:
        self._state = state
        self._cascades = cascades
        self._events = events
        self._keyed = keyed

    def take(self, batch: Batch, item: Progress) -> None:
        """Take in a report on a batch."""
        run, begin = batch.run, item.begin
        for part in batch.parts:
            positions = part.within(begin, item.done)
            if not positions or self._side_by_side(run, part, positions, item):
                continue
            if part.first is not None:
                self._roots(run, part, positions, item)
            elif part.is_keyed:
                self._keyed.take(run, part, positions, item)
            else:
                self._events_of_cascades(run, part, positions, item)

    # --- columns ---

    def _side_by_side(self, run: Run, part: Part, positions: range, item: Progress) -> bool:
        """Let roots or strands go on as columns, if each left at most one follow-up.

        If not, nothing has changed, except that strands have become cascades.
        """
        strands = part.strands
        if strands is None and (part.first is None or not isinstance(item.follow_ups, Singles)):
            return False
        may_be = run.bound == ENDLESS and not run.opened.is_followed
        gave = _single_follow_ups(item, positions) if may_be else None
        if gave is None:
            if strands is not None:
                part.depth = strands.cascades.over
                part.cascades, part.strands = strands.in_flight(), None
            return False
        givers, events, plans = gave
        times = item.times_of(positions)
        start, stop = positions.start - part.start, positions.stop - part.start
        handlers = item.handlers_run(part, positions)
        if strands is None:
            first = part.first or 0
            ran = [handlers] * len(positions) if isinstance(handlers, int) else handlers
            cascades = CascadeColumns(range(first + start, first + stop), 1, list(times), ran)
        else:
            cascades = strands.cascades.slice(start, stop).after(times, handlers)
        if len(givers) < len(positions):
            self._report_strands(run, cascades, positions, givers, item)
            if givers:
                cascades = cascades.pick(givers, positions.start)
        if givers:
            for strands in cascades.go_on(events, plans, item.worker if item.has_large else None):
                run.add_strands(strands)
        self._state.take_turns(run)
        return True

    def _report_strands(
        self,
        run: Run,
        cascades: CascadeColumns,
        positions: range,
        givers: Sequence[int],
        item: Progress,
    ) -> None:
        """Report the cascades in columns that have no follow-up."""
        values = item.values.aligned(positions) if item.values else None
        if givers:
            others = sorted(set(positions).difference(givers))
            cascades = cascades.pick(others, positions.start)
            if values is not None:
                values = values.pick([each - positions.start for each in others])
        roots, over, seconds, handlers = cascades
        run.open -= len(roots)
        effect = Over(run.id, roots, [over] * len(roots), seconds, handlers, values)
        self._state.effects.append(effect)

    # --- roots ---

    def _roots(self, run: Run, part: Part, positions: range, item: Progress) -> None:
        """Report roots: those that ended without follow-ups or error together, the others alone."""
        shift = (part.first or 0) - part.start
        if not (item.follow_ups or item.results):
            self._settle(run, part, positions, item)
            return
        settled = positions.start
        begin, seconds = item.begin, list(item.times)
        for position in sorted(item.follow_ups.keys() | item.results.keys()):
            if position not in positions:
                continue
            if position > settled:
                self._settle(run, part, range(settled, position), item)
            settled = position + 1
            cascade = Cascade(position + shift)
            self._events.take(run, cascade, part, position, item, seconds[position - begin])
            self._cascades.go_on(run, cascade)
        if positions.stop > settled:
            self._settle(run, part, range(settled, positions.stop), item)
        self._cascades.report_quiet(run)
        self._state.take_turns(run)

    def _settle(self, run: Run, part: Part, positions: range, item: Progress) -> None:
        """Report roots, at least one, that have no follow-ups and did not fail."""
        run.open -= len(positions)
        processed = item.processed.aligned(positions) if item.processed else None
        emitted = item.emitted.aligned(positions) if item.emitted else None
        self._state.effects.append(
            Settled(
                run.id,
                (part.first or 0) + positions.start - part.start,
                item.times_of(positions),
                item.handlers_run(part, positions),
                item.values.aligned(positions) if item.values else None,
                None if processed is None else processed.items,
                None if emitted is None else emitted.items,
            )
        )

    # --- cascades ---

    def _events_of_cascades(self, run: Run, part: Part, positions: range, item: Progress) -> None:
        if not self._fan_out(run, part, positions, item):
            begin, seconds = item.begin, list(item.times)
            for position in positions:
                cascade = part.cascades[position - part.start]
                cascade.in_flight -= 1
                # the cascade ended before: the rest of its chain did not run, and other events
                # of an unordered cascade do not count any more
                if cascade.is_over:
                    self._cascades.release_key(run, cascade)
                    continue
                self._events.take(run, cascade, part, position, item, seconds[position - begin])
                if run.unordered or not cascade.in_flight:
                    self._cascades.go_on(run, cascade)
        self._cascades.report_quiet(run)
        self._state.take_turns(run)

    def _fan_out(self, run: Run, part: Part, positions: range, item: Progress) -> bool:
        """Take in events if all are of one cascade and there is no more to say than that."""
        if item.follow_ups or item.results or item.processed or item.values or item.emitted:
            return False
        first = part.cascades[0]
        is_one = part.cascades.count(first) == len(part.cascades) and not first.is_over
        if not is_one or run.opened.every_event:
            return False
        first.in_flight -= len(positions)
        first.events += len(positions)
        ran = item.handlers_run(part, positions)
        first.handlers += ran * len(positions) if isinstance(ran, int) else sum(ran)
        first.seconds += sum(item.times_of(positions))
        if run.unordered or not first.in_flight:
            self._cascades.go_on(run, first)
        return True


def _single_follow_ups(
    item: Progress, positions: range
) -> tuple[Sequence[int], Sequence[Any], Sequence[PlanLike]] | None:
    """Return the events that gave a follow-up, with these and their plans.

    None if events left anything else, or a follow-up that no worker runs.
    """
    if item.results or item.processed or item.emitted:
        return None
    if not item.follow_ups:
        return (), (), ()
    if not isinstance(item.follow_ups, Singles):
        return None
    givers, events, plans = item.follow_ups.within(positions)
    if plans and plans.count(plans[0]) == len(plans):
        is_wanted = bool(plans[0].indices)  # mostly all have one plan, which needs no loop
    else:
        is_wanted = all(plan.indices for plan in plans)
    return (givers, events, plans) if is_wanted else None
