"""How cascades go on, wait for their keys, end, and are dropped. Pure.

A *cascade* is a root event with its follow-ups. A root that ends without follow-ups, value or
error is only counted and needs no cascade.

::

    roots with a key --> [waiting for the key] --> ready --> in flight --> Over / Ended
                                                     ^           |
                                                     +- go on ---+--> pause / suspect
                                                     ^                      |
                                                     +------- run again ----+

In an ordered run, one part of a cascade is in flight at a time. A cascade of an unordered run
may be ready and in flight at once. It may also end while some of it is in flight: then its key
is released when nothing of it runs any more.

All of this is one class, since each step may cause any other: the end of a cascade releases its
key, an error drops others, and the next root of a key may end at once. It knows no workers.
"""

from __future__ import annotations

from typing import Any

from evproc_pool.core.batches import Cascade, Failure, KeyQueue
from evproc_pool.core.error_notes import note_place
from evproc_pool.core.event_columns import Bunch, PlanLike, Unplannable
from evproc_pool.core.inputs_and_effects import (
    Dropped,
    Ended,
    Ending,
    EventEnded,
    EventFailed,
    Over,
    Result,
    Unwanted,
)
from evproc_pool.core.paths import Place
from evproc_pool.core.retries import Retries
from evproc_pool.core.retry_policy import Again
from evproc_pool.core.run_state import ENDLESS, Run, SharedState


class Cascades:
    """The part of the scheduler that keeps cascades going."""

    def __init__(self, state: SharedState, retries: Retries) -> None:
        self._state = state
        self._retries = retries
        self._quiet: list[Cascade] = []  # over, with nothing else to report

    # --- how they go on ---

    def go_on(self, run: Run, cascade: Cascade) -> None:
        """Like `resume`, but fast if a worker has to run the next event; takes no turns."""
        queue = cascade.queue
        if queue and queue.next_plan.indices and cascade.index <= run.bound:
            if not cascade.is_ready:  # nor is it over: its queue would be empty
                run.add_ready(cascade)
        elif not cascade.is_over:
            self.resume(run, cascade)

    def resume(self, run: Run, cascade: Cascade) -> None:
        """Let a cascade go on, or end it if nothing is left; `report_quiet` has to follow.

        In an ordered run, only if nothing of it is in flight.
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
                if cascade.is_plain:
                    self.close(run, cascade)
                    self._quiet.append(cascade)
                else:
                    self.end(run, cascade, Result())
            elif queue.next_plan.indices:
                self._state.make_ready(run, cascade)
            elif isinstance(queue.next_plan, Again):
                again = queue.next_plan
                self._retries.wait(run, cascade, queue.take(1), again)
                return
            else:
                self._pass_over(run, cascade)

    def _pass_over(self, run: Run, cascade: Cascade) -> None:
        """Take unwanted events from the head of a queue, or one that could not be planned."""
        queue = cascade.queue
        plan = queue.next_plan
        taken = queue.take(1 if isinstance(plan, Unplannable) else queue.alike)
        cascade.events += len(taken)
        result = Result(error=plan.error) if isinstance(plan, Unplannable) else None
        if self._state.is_observed:
            self._note_passed_over(run, taken, plan)
        if run.opened.every_event:
            for number, event in enumerate(taken.events):
                ending = Ending(
                    *(result or Result()),
                    processed=event if run.opened.return_events and result is None else None,
                    failed=int(result is not None),
                    failed_event=event if result is not None else None,
                )
                self._state.effects.append(EventEnded(run.id, taken.place(number), event, ending))
        if result is not None:
            self.take_result(run, cascade, taken.events[0], taken.at, result)

    def _note_passed_over(self, run: Run, taken: Bunch, plan: PlanLike) -> None:
        if isinstance(plan, Unplannable):
            failed = EventFailed(run.id, taken.at, taken.events[0], plan.error, None, 1)
            self._state.effects.append(failed)
        else:
            self._state.effects.append(Unwanted(run.id, len(taken)))

    # --- keys ---

    def next_of_key(self, key_queue: KeyQueue) -> None:
        """Make the next root of a key ready if no other one is under way; forget an empty queue."""
        if key_queue.ready_in is not None or not key_queue.is_free:
            return
        if key_queue.waiting:
            run: Run = key_queue.waiting[0].run
            cascade = key_queue.waiting[0].cascade
            if cascade is None:
                run.add_key_queue(key_queue)
                self._state.take_turns(run)
            else:
                key_queue.waiting.popleft()
                run.waiting -= 1
                self.hold(key_queue, cascade)
                self.resume(run, cascade)
        elif key_queue.home.get(key_queue.key) is key_queue:
            del key_queue.home[key_queue.key]

    def hold(self, key_queue: KeyQueue, cascade: Cascade) -> None:
        """Let the other roots of a key wait for a cascade."""
        cascade.key_queue = key_queue
        key_queue.holder = cascade

    def release_key(self, run: Run, cascade: Cascade) -> None:
        """Let the next root of the key begin, once nothing of a cascade that is over runs."""
        key_queue = cascade.key_queue
        if key_queue is None or (run.unordered and cascade.in_flight):
            return
        cascade.key_queue = None
        if key_queue.holder is cascade:
            key_queue.holder = None
        self.next_of_key(key_queue)

    # --- how they end ---

    def take_result(
        self, run: Run, cascade: Cascade, event: Any, place: Place, result: Result
    ) -> None:
        """Take in the value or the final error of an event; mostly it ends the cascade."""
        if result.error is not None:
            note_place(result.error, place.path, has_several=run.opened.has_several)
            cascade.fail(Failure(place, event, result.error, result.handler))
            if run.opened.errors_continue:
                return
        self.end(run, cascade, result)

    def end(self, run: Run, cascade: Cascade, result: Result) -> None:
        """End a cascade and report it by itself."""
        self.close(run, cascade)
        failure = cascade.failure
        if failure is not None:
            result = result._replace(error=failure.error, handler=failure.handler)
        ending = Ending(
            *result,
            cascade.events,
            cascade.seconds,
            cascade.processed if failure is None or run.opened.errors_continue else None,
            cascade.attempts,
            cascade.handlers,
            cascade.all_emitted(in_order=not run.unordered),
            cascade.failed,
            None if failure is None else failure.event,
        )
        self._state.effects.append(Ended(run.id, cascade.index, ending))
        if result.error is not None and run.opened.until_error and cascade.index < run.bound:
            run.bound = cascade.index
            self.drop_unwanted(run)

    def close(self, run: Run, cascade: Cascade) -> None:
        """Mark a cascade as over, and let the next root of its key begin. The caller reports it."""
        if cascade.is_ready:
            run.remove_ready(cascade)
        cascade.is_over = True
        cascade.queue.clear()
        if cascade.attempts > 1:
            cascade.in_flight -= self._retries.drop(run, cascade)
        run.open -= 1
        self.release_key(run, cascade)

    def report_quiet(self, run: Run) -> None:
        """Report the cascades that ended with nothing but their numbers to report, together."""
        cascades = self._quiet
        if cascades:
            self._quiet = []
            roots = [cascade.index for cascade in cascades]
            events = [cascade.events for cascade in cascades]
            seconds = [cascade.seconds for cascade in cascades]
            handlers = [cascade.handlers for cascade in cascades]
            self._state.effects.append(Over(run.id, roots, events, seconds, handlers))

    # --- dropping ---

    def drop_unwanted(self, run: Run) -> None:
        """Drop unsent events of the roots behind the run's bound."""
        if run.bound == ENDLESS:
            return
        for first, count in run.drop_blocks():
            self._state.effects.append(Dropped(run.id, first, count))
        for cascade in self._retries.of(run):
            if cascade.index > run.bound:
                cascade.in_flight -= self._retries.drop(run, cascade)
                if not (cascade.in_flight or cascade.is_ready):
                    self._drop(run, cascade)
        self._drop_cascades(run)

    def _drop_cascades(self, run: Run) -> None:
        if run.waiting:
            for key_queue in list(run.keys.values()):
                self._drop_keyed(run, key_queue)
        for root in run.drop_strands():
            run.open -= 1
            self._state.effects.append(Dropped(run.id, root, 1))
        for cascade in [each for each in run.ready if isinstance(each, Cascade)]:
            # the key of one before it may have ended it meanwhile
            if cascade.index > run.bound and not cascade.is_over:
                run.remove_ready(cascade)
                if not cascade.in_flight:
                    self._drop(run, cascade)

    def _drop_keyed(self, run: Run, key_queue: KeyQueue) -> None:
        """Drop the waiting roots of a key that are behind the run's bound."""
        dropped = key_queue.drop(run, run.bound)
        if not dropped:
            return
        run.waiting -= len(dropped)
        run.open -= len(dropped)
        self._state.effects += [Dropped(run.id, root, 1) for root in dropped]
        self.next_of_key(key_queue)

    def _drop(self, run: Run, cascade: Cascade) -> None:
        self.close(run, cascade)
        self._state.effects.append(Dropped(run.id, cascade.index, 1))
