"""Takes the results of an event into its cascade. Pure; O(1) for each event.

An event leaves follow-ups, a value, an error, what it emitted, or itself as the handlers left
it. An event that is run again leaves nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from evproc_pool.core.batches import Cascade, Part
from evproc_pool.core.cascade_limits import broken_limit, limit_error
from evproc_pool.core.cascades import Cascades
from evproc_pool.core.event_columns import Planned
from evproc_pool.core.inputs_and_effects import Ending, EventEnded, EventFailed, Progress, Result
from evproc_pool.core.retries import Retries
from evproc_pool.core.retry_policy import attempt_of
from evproc_pool.core.run_state import Run, SharedState


class Fate(NamedTuple):
    """The fate of an event that a dead worker held."""

    result: Result  # with an error: the event was running. Without: it is over and left nothing.
    seconds: float = 0.0  # how long it ran
    ran: int = 0  # how many of its handlers began


class _Output(NamedTuple):
    """All that one event left; see `Progress`."""

    follow_ups: Sequence[Planned] = ()
    result: Result | None = None
    emitted: list[Any] | None = None
    processed: Any = None
    giver: str | None = None


class EventResults:
    """The part of the scheduler that takes in events one by one."""

    def __init__(self, state: SharedState, retries: Retries, cascades: Cascades) -> None:
        self._state = state
        self._retries = retries
        self._cascades = cascades

    def take(  # noqa: PLR0917 - an event has a place, and each caller has all of this
        self, run: Run, cascade: Cascade, part: Part, position: int, item: Progress, seconds: float
    ) -> None:
        """Take in an event that a worker reports; it may end its cascade."""
        cascade.seconds += seconds
        result = item.results.get(position) if item.results else None
        number = position - part.start
        if result is not None and self._retries.try_again(
            run, cascade, part, number, result, has_died=False
        ):
            if position in item.cut:
                self._put_back_behind_retry(cascade, part, number + 1)
            return
        ran = item.ran.get(position, len(part.plans[number].indices))
        cascade.events += 1
        cascade.handlers += ran
        output = _output_of(item, position, result)
        if output.follow_ups and run.opened.has_limits:
            output = self._limited(run, cascade, part, number, output)
        if output.processed is not None and cascade.events == 1:
            cascade.processed = output.processed
        if output.emitted:
            cascade.emit(part.place(number), output.emitted)
        if run.opened.every_event:
            self._report_event(run, part, number, output, ran=ran, seconds=seconds)
        if output.result is None:
            if output.follow_ups:
                cascade.queue.extend(output.follow_ups, part.place(number))
                # events of an unordered cascade may be with several workers
                cascade.near = item.worker if item.has_large and not run.unordered else None
                run.loose += len(output.follow_ups) * cascade.is_ready
            return
        if result is not None and run.opened.errors_continue and position in item.cut:
            self._put_rest_back(cascade, part, number + 1)
        self._take_result(run, cascade, part, number, output.result)

    def take_fate(self, run: Run, cascade: Cascade, part: Part, number: int, fate: Fate) -> None:
        """Take in an event of a dead worker, at a place of a part."""
        result = fate.result
        cascade.seconds += fate.seconds
        has_failed = result.error is not None
        if has_failed and self._retries.try_again(
            run, cascade, part, number, result, has_died=True
        ):
            return
        ran = fate.ran if has_failed else len(part.plans[number].indices)
        cascade.events += 1
        cascade.handlers += ran
        if run.opened.every_event:
            output = _Output(result=result if has_failed else None)
            self._report_event(run, part, number, output, ran=ran, seconds=fate.seconds)
        if has_failed:
            self._take_result(run, cascade, part, number, result)

    def _take_result(
        self, run: Run, cascade: Cascade, part: Part, number: int, result: Result
    ) -> None:
        """Take in the value or the final error of an event, at a place of a part."""
        event, place = part.events[number], part.place(number)
        if self._state.is_observed and result.error is not None:
            attempts = attempt_of(part.plans[number])
            failed = EventFailed(run.id, place, event, result.error, result.handler, attempts)
            self._state.effects.append(failed)
        self._cascades.take_result(run, cascade, event, place, result)

    def _limited(
        self, run: Run, cascade: Cascade, part: Part, number: int, output: _Output
    ) -> _Output:
        """Count the follow-ups of an event; it fails if there are too many."""
        place = part.place(number)
        count = len(output.follow_ups)
        limit = broken_limit(run.opened.limits, place.depth, cascade.accepted, count)
        if limit is None:
            cascade.accepted += count
            return output
        error = limit_error(limit, place.path, output.giver, part.events[number])
        return _Output(result=Result(error=error, handler=output.giver))

    def _report_event(
        self, run: Run, part: Part, number: int, output: _Output, *, ran: int, seconds: float
    ) -> None:
        """Report an event that is over, unless it is a root: its cascade is reported."""
        place = part.place(number)
        if not place.depth:
            return
        result = output.result or Result()
        failed = part.events[number] if result.error is not None else None
        ending = Ending(
            *result,
            seconds=seconds,
            processed=output.processed,
            attempts=attempt_of(part.plans[number]),
            handlers=ran,
            emitted=output.emitted,
            failed=int(failed is not None),
            failed_event=failed,
        )
        self._state.effects.append(EventEnded(run.id, place, part.events[number], ending))

    def _put_back_behind_retry(self, cascade: Cascade, part: Part, number: int) -> None:
        """Put the unrun rest of a chain behind the event that is run again."""
        if part.is_chain:
            again = cascade.queue.take(1)
            self._put_rest_back(cascade, part, number)
            cascade.queue.put_all_back(again)

    def _put_rest_back(self, cascade: Cascade, part: Part, number: int) -> None:
        """Put the unrun rest of a chain, from a place on, in front of its cascade's queue."""
        if not part.is_chain:
            return
        for each in range(part.stop - part.start - 1, number - 1, -1):
            cascade.queue.put_back(part.events[each], part.plans[each], part.place(each))
            cascade.in_flight -= 1
            part.cascades[each] = _nobody()


def _output_of(item: Progress, position: int, result: Result | None) -> _Output:
    if result is not None:
        return _Output(result=result)  # a failed event leaves nothing else
    if item.values and position in item.values:
        result = Result(item.values[position], stopped=True)
    return _Output(
        item.follow_ups.get(position, ()) if result is None else (),
        result,
        item.emitted[position] if item.emitted and position in item.emitted else None,
        item.processed[position] if item.processed and position in item.processed else None,
        item.givers.get(position),
    )


def _nobody() -> Cascade:
    """Stand in for the cascade of an event that this batch does not run any more."""
    nobody = Cascade(-1)
    nobody.is_over = True
    return nobody
