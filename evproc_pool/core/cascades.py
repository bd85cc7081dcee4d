"""The life of cascades: how they begin, wait, go on, are run again, and end. Pure.

A *cascade* is a root event and what follows from it, from the moment at which there is
more to say of it than that it is over. The roots of which there is no more to say are
told by the count, and given up, here as well. No worker is known here: which of them
holds what, and gets what, is the business of `scheduler`.

::

    roots with a key --> [waiting for the key] --> ready --> in flight --> Over / Ended
                                                     ^           |
                                                     +- go on ---+--> pause / suspect
                                                     ^                      |
                                                     +------- run again ----+

In an ordered run one part of a cascade is in flight at a time. In an unordered one it
may be ready and in flight at once, and be over while some of it still is: then its key
is released when nothing of it is run any more.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

from evproc.exc import add_note
from evproc_pool.core.batches import Cascade, Failure, Keyed, KeyQueue, Part
from evproc_pool.core.cascade_limits import broken_limit, limit_error
from evproc_pool.core.error_notes import note_place
from evproc_pool.core.event_columns import Bunch, Planned, Unplannable
from evproc_pool.core.inputs_and_effects import (
    Accepted,
    Dropped,
    Due,
    Effect,
    Ended,
    Ending,
    EventEnded,
    Over,
    Progress,
    Result,
    Retry,
    Settled,
)
from evproc_pool.core.paths import Place
from evproc_pool.core.retries import Retries, Waiting
from evproc_pool.core.retry_policy import Again, RetryPolicy, Tried, attempt_of
from evproc_pool.core.run_state import ENDLESS, Run


class Cascades:
    """The base of `Scheduler`, which shares `_effects` and `_turns` with it.

    A base and no member: both change them in every step, a million events a second.

    Args:
        policy: Which events are run again.
    """

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._retries = Retries()
        self._turns: deque[Run] = deque()  # runs with something ready, next first
        self._effects: list[Effect] = []

    # --- how they begin ---

    def _accept_keyed(self, run: Run, item: Accepted, keys: Sequence[Hashable]) -> None:
        roots = zip(keys, itertools.count(item.first), item.events, item.plans, strict=False)
        key_queues = run.keys
        for key, index, event, plan in roots:
            key_queue = key_queues.get(key)
            if key_queue is None:
                key_queue = key_queues[key] = KeyQueue(key, key_queues)
            run.add_to_key_queue(key_queue, Keyed(run, index, event, plan))
            if key_queue.ready_in is None and key_queue.is_free:
                self._key_queue_goes_on(key_queue)

    def _key_queue_goes_on(self, key_queue: KeyQueue) -> None:
        """Let the next root of a key_queue be sent, if nothing of it is in flight; or forget it."""
        if key_queue.ready_in is not None or not key_queue.is_free:
            return
        if key_queue.waiting:
            run: Run = key_queue.waiting[0].run
            cascade = key_queue.waiting[0].cascade
            if cascade is None:
                run.add_key_queue(key_queue)
                self._take_turns(run)
            else:
                key_queue.waiting.popleft()
                run.waiting -= 1
                self._hold(key_queue, cascade)
                self._resume_quietly(run, cascade)
        elif key_queue.home.get(key_queue.key) is key_queue:
            del key_queue.home[key_queue.key]

    def _make_ready(self, run: Run, cascade: Cascade) -> None:
        if not cascade.is_ready:
            run.add_ready(cascade)
            self._take_turns(run)

    def _take_turns(self, run: Run) -> None:
        if run.has_ready and not run.has_turn:
            run.has_turn = True
            self._turns.append(run)

    # --- how they go on ---

    def _event_over(
        self,
        run: Run,
        cascade: Cascade,
        part: Part,
        position: int,
        item: Progress,
        *,
        seconds: float,
    ) -> None:
        """Take what one event left behind into its cascade; end the cascade if it says so."""
        cascade.seconds += seconds
        result = item.results.get(position) if item.results else None
        number = position - part.start
        if result is not None and self._try_again(
            run, cascade, part, number, result, has_died=False
        ):
            if position in item.cut:
                self._chain_back(cascade, part, number + 1)
            return
        ran = item.ran.get(position, len(part.plans[number].indices))
        cascade.events += 1
        cascade.handlers += ran
        left = _left_behind(item, position, result)
        if left.follow_ups and run.opened.has_limits:
            left = self._limited(run, cascade, part, number, left)
        if left.processed is not None and cascade.events == 1:
            cascade.processed = left.processed
        if left.emitted:
            cascade.emit(part.place(number), left.emitted)
        if run.opened.every_event:
            self._tell_event(run, part, number, left, ran=ran, seconds=seconds)
        if left.result is None:
            if left.follow_ups:
                self._queue(run, cascade, part.place(number), left.follow_ups, item)
            return
        if result is not None and run.opened.errors_continue and position in item.cut:
            self._rest_back(cascade, part, number + 1)
        self._comes_to(run, cascade, part.events[number], part.place(number), left.result)

    def _queue(
        self,
        run: Run,
        cascade: Cascade,
        giver: Place,
        follow_ups: Sequence[Planned],
        item: Progress,
    ) -> None:
        """Put follow-ups into their cascade's queue."""
        # events of an unordered one may be with several workers
        near = item.worker if item.has_large and not run.unordered else None
        cascade.follow(follow_ups, giver, near)
        if cascade.is_ready:
            run.loose += len(follow_ups)

    def _comes_to(
        self, run: Run, cascade: Cascade, event: Any, place: Place, result: Result
    ) -> None:
        """An event has failed for good, or gives a value: mostly that ends its cascade."""
        if result.error is not None:
            note_place(result.error, place.path, has_several=run.opened.has_several)
            cascade.fail(Failure(place, event, result.error, result.handler))
            if run.opened.errors_continue:
                return
        self._end(run, cascade, result)

    def _limited(self, run: Run, cascade: Cascade, part: Part, number: int, left: _Left) -> _Left:
        """Count the follow-ups of an event; where they are too many, it has failed."""
        place = part.place(number)
        count = len(left.follow_ups)
        limit = broken_limit(run.opened.limits, place.depth, cascade.accepted, count)
        if limit is None:
            cascade.accepted += count
            return left
        error = limit_error(limit, place.path, left.giver, part.events[number])
        return _Left(result=Result(error=error, handler=left.giver))

    def _tell_event(
        self,
        run: Run,
        part: Part,
        number: int,
        left: _Left,
        *,
        ran: int,
        seconds: float,
    ) -> None:
        """Report an event that is over, but for roots, whose cascades are reported."""
        place = part.place(number)
        if not place.depth:
            return
        attempts = attempt_of(part.plans[number])
        result = left.result or Result()
        failed = part.events[number] if result.error is not None else None
        ending = Ending(
            *result,
            seconds=seconds,
            processed=left.processed,
            attempts=attempts,
            handlers=ran,
            emitted=left.emitted,
            failed=int(failed is not None),
            failed_event=failed,
        )
        self._effects.append(EventEnded(run.id, place, part.events[number], ending))

    def _go_on(self, run: Run, cascade: Cascade, quiet: list[Cascade]) -> None:
        """Do what `_resume` does, quickly where a worker is needed next; takes no turns."""
        queue = cascade.queue
        if queue and queue.next_plan.indices and cascade.index <= run.bound:
            if not cascade.is_ready:  # and not over, or its queue would be empty
                run.add_ready(cascade)
        elif not cascade.is_over:
            self._resume(run, cascade, quiet)

    def _resume_quietly(self, run: Run, cascade: Cascade) -> None:
        """For a cascade with something in flight, which so cannot end with nothing to tell."""
        self._resume(run, cascade, [])

    def _resume(self, run: Run, cascade: Cascade, quiet: list[Cascade]) -> None:
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
                if cascade.is_plain:
                    self._over(run, cascade)
                    quiet.append(cascade)
                else:
                    self._end(run, cascade, Result())
            elif queue.next_plan.indices:
                self._make_ready(run, cascade)
            elif isinstance(queue.next_plan, Again):
                again = queue.next_plan
                taken = queue.take(1)
                self._wait(run, cascade, taken, again)
                return
            else:
                self._pass_over(run, cascade)

    def _pass_over(self, run: Run, cascade: Cascade) -> None:
        """Take events from the head of a queue that no handler wants, or that have no plan."""
        queue = cascade.queue
        plan = queue.next_plan
        taken = queue.take(1 if isinstance(plan, Unplannable) else queue.alike)
        cascade.events += len(taken)
        result = Result(error=plan.error) if isinstance(plan, Unplannable) else None
        if run.opened.every_event:
            for number, event in enumerate(taken.events):
                ending = Ending(
                    *(result or Result()),
                    processed=event if run.opened.return_events and result is None else None,
                    failed=int(result is not None),
                    failed_event=event if result is not None else None,
                )
                self._effects.append(EventEnded(run.id, taken.place(number), event, ending))
        if result is not None:
            self._comes_to(run, cascade, taken.events[0], taken.at, result)

    # --- roots with keys ---

    def _keyed_over(
        self, run: Run, part: Part, positions: range, begin: int, item: Progress
    ) -> None:
        """Take in what roots with keys left behind, and let their key_queues go on."""
        special = {
            position
            for found in (item.follow_ups, item.results, item.processed, item.emitted)
            for position in found
            if position in positions
        }
        is_whole = not (special or part.has_gaps)
        plain: list[int] = list(positions) if is_whole else []
        quiet: list[Cascade] = []
        left: list[tuple[KeyQueue, int, int]] = []
        key_queues, part.key_queues = part.key_queues, left
        for number, (key_queue, start, stop) in enumerate(key_queues):
            if start >= positions.stop:
                left += key_queues[number:]
                break
            begin_here, end = max(start, positions.start), stop
            for position in () if is_whole else range(begin_here, min(stop, positions.stop)):
                if position >= end:
                    break  # put back
                if position not in special:
                    plain.append(position)
                    continue
                end = self._cut_key_queue(run, part, key_queue, position, end, item)
                cascade = self._keyed_cascade(part, key_queue, position)
                seconds = item.times[position - begin]
                self._event_over(run, cascade, part, position, item, seconds=seconds)
                self._go_on(run, cascade, quiet)
            key_queue.in_flight -= min(end, positions.stop) - begin_here
            if end > positions.stop:
                left.append((key_queue, start, end))
        self._tell_keyed(run, part, plain, begin, item)
        self._tell_over(run, quiet)
        self._drop_unwanted(run)  # what was put back may be
        for key_queue, _, _ in key_queues:
            self._key_queue_goes_on(key_queue)
        self._take_turns(run)

    def _keyed_cascade(self, part: Part, key_queue: KeyQueue, position: int) -> Cascade:
        """A root with a key of which there is more to tell; the key_queue waits for it."""
        cascade = Cascade(part.roots[position - part.start])
        self._hold(key_queue, cascade)
        return cascade

    def _hold(self, key_queue: KeyQueue, cascade: Cascade) -> None:
        cascade.key_queue = key_queue
        key_queue.holder = cascade

    def _cut_key_queue(  # noqa: PLR0917 - a place in a part, and what happened there
        self, run: Run, part: Part, key_queue: KeyQueue, position: int, end: int, item: Progress
    ) -> int:
        """Put back what a worker has left unrun behind a root; see `Part.chains`.

        Returns:
            Where the key_queue ends in this batch.
        """
        if position not in item.cut:
            return end
        self._key_queue_back(run, part, key_queue, position + 1, end)
        part.has_gaps |= end > position + 1
        return position + 1

    def _key_queue_back(
        self, run: Run, part: Part, key_queue: KeyQueue, begin: int, end: int
    ) -> None:
        """Put roots of a batch in front of the others of their key."""
        for place in range(end - part.start - 1, begin - part.start - 1, -1):
            keyed = Keyed(run, part.roots[place], part.events[place], part.plans[place])
            key_queue.waiting.appendleft(keyed)
        key_queue.in_flight -= end - begin
        run.waiting += end - begin

    def _tell_keyed(
        self, run: Run, part: Part, positions: list[int], begin: int, item: Progress
    ) -> None:
        """Report roots with keys that have no follow-ups and did not fail."""
        if not positions:
            return
        run.open -= len(positions)
        roots = [part.roots[position - part.start] for position in positions]
        whole = range(positions[0], positions[-1] + 1)
        values = item.values.aligned(whole) if item.values else None
        ran = handlers_run(part, whole, item)
        handlers = [ran] * len(whole) if isinstance(ran, int) else ran
        seconds = list(item.times[whole.start - begin : whole.stop - begin])
        if len(whole) > len(positions):
            places = [position - whole.start for position in positions]
            handlers = [handlers[place] for place in places]
            seconds = [seconds[place] for place in places]
            values = None if values is None else values.pick(places)
        self._effects.append(Over(run.id, roots, [1] * len(roots), seconds, handlers, values))

    def _keyed_back(
        self,
        run: Run,
        part: Part,
        left: range,
        fates: Mapping[int, Fate],
        quiet: list[Cascade],
    ) -> None:
        """Put back roots with keys; see `Scheduler._hand_back`."""
        key_queues = []
        for key_queue, start, stop in reversed(part.key_queues):
            begin, end = max(start, left.start), min(stop, left.stop)
            if begin >= end:
                key_queues.append((key_queue, start, stop))
                continue
            last = end
            for position in sorted((each for each in fates if begin <= each < end), reverse=True):
                self._key_queue_back(run, part, key_queue, position + 1, last)
                last = position
                key_queue.in_flight -= 1
                place = position - part.start
                cascade = Cascade(part.roots[place])
                self._meets(run, cascade, part, place, fates[position])
                if cascade.queue and position > begin:
                    # it is run again, but not before those that were before it
                    again = cascade.queue.next_plan
                    keyed = Keyed(run, cascade.index, part.events[place], again, cascade)
                    key_queue.waiting.appendleft(keyed)
                    run.waiting += 1
                elif not cascade.is_over:
                    self._hold(key_queue, cascade)
                    self._resume(run, cascade, quiet)
            self._key_queue_back(run, part, key_queue, begin, last)
            self._key_queue_goes_on(key_queue)
            if begin > start:
                key_queues.append((key_queue, start, begin))
        part.key_queues = key_queues[::-1]

    # --- how they end ---

    def _over(self, run: Run, cascade: Cascade) -> None:
        """A cascade is about to be reported; let the next one with its key begin."""
        if cascade.is_ready:
            run.remove_ready(cascade)
        cascade.is_over = True
        cascade.queue.clear()
        if cascade.attempts > 1:
            cascade.in_flight -= self._retries.drop(run, cascade)
        run.open -= 1
        self._release_key(run, cascade)

    def _release_key(self, run: Run, cascade: Cascade) -> None:
        """Let the next root with the key begin, once nothing of this cascade is run any more."""
        key_queue = cascade.key_queue
        if key_queue is None or (run.unordered and cascade.in_flight):
            return
        cascade.key_queue = None
        if key_queue.holder is cascade:
            key_queue.holder = None
        self._key_queue_goes_on(key_queue)

    def _end(self, run: Run, cascade: Cascade, result: Result) -> None:
        self._over(run, cascade)
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
        self._effects.append(Ended(run.id, cascade.index, ending))
        if result.error is not None and run.opened.until_error and cascade.index < run.bound:
            run.bound = cascade.index
            self._drop_unwanted(run)

    def _settle(self, run: Run, part: Part, positions: range, begin: int, item: Progress) -> None:
        """Report roots that have no follow-ups and did not fail.

        Args:
            run: Their run.
            part: Where they are.
            positions: Theirs; at least one.
            begin: The first position that `item` tells of.
            item: What it tells.
        """
        count = len(positions)
        times = item.times
        if len(times) != count:
            times = times[positions.start - begin : positions.stop - begin]
        run.open -= count
        processed = item.processed.aligned(positions) if item.processed else None
        emitted = item.emitted.aligned(positions) if item.emitted else None
        self._effects.append(
            Settled(
                run.id,
                (part.first or 0) + positions.start - part.start,
                times,
                handlers_run(part, positions, item),
                item.values.aligned(positions) if item.values else None,
                None if processed is None else processed.items,
                None if emitted is None else emitted.items,
            )
        )

    def _tell_over(self, run: Run, cascades: list[Cascade]) -> None:
        if cascades:
            roots = [cascade.index for cascade in cascades]
            events = [cascade.events for cascade in cascades]
            seconds = [cascade.seconds for cascade in cascades]
            handlers = [cascade.handlers for cascade in cascades]
            self._effects.append(Over(run.id, roots, events, seconds, handlers))

    # --- what is not wanted any more ---

    def _drop_unwanted(self, run: Run) -> None:
        """Give up what has not been sent of the roots behind the run's bound."""
        if run.bound == ENDLESS:
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
            self._effects.append(Dropped(run.id, root, 1))
        for cascade in [each for each in run.ready if isinstance(each, Cascade)]:
            # an earlier one may have released it
            if cascade.index > run.bound and not cascade.is_over:
                run.remove_ready(cascade)
                if not cascade.in_flight:
                    self._drop(run, cascade)

    def _drop_keyed(self, run: Run, key_queue: KeyQueue) -> None:
        """Give up what waits in a key_queue behind the run's bound."""
        dropped = [each for each in key_queue.waiting if each.run is run and each.root > run.bound]
        if not dropped:
            return
        if key_queue.ready_in is not None:
            key_queue.ready_in.remove_key_queue(key_queue)
        unwanted = {each.root for each in dropped}
        key_queue.waiting = deque(
            each for each in key_queue.waiting if each.run is not run or each.root not in unwanted
        )
        run.waiting -= len(dropped)
        run.open -= len(dropped)
        self._effects += [Dropped(run.id, each.root, 1) for each in dropped]
        self._key_queue_goes_on(key_queue)

    def _drop(self, run: Run, cascade: Cascade) -> None:
        self._over(run, cascade)
        self._effects.append(Dropped(run.id, cascade.index, 1))

    # --- what is run again ---

    def _try_again(
        self,
        run: Run,
        cascade: Cascade,
        part: Part,
        place: int,
        result: Result,
        *,
        has_died: bool,
    ) -> bool:
        """Have an event that failed run again, if it is to be; say whether it is.

        It goes back to the head of an ordered cascade's queue, as the next one.
        """
        if cascade.index > run.bound:
            return False
        event, plan = part.events[place], part.plans[place]
        again = self._policy.again(plan, result, has_died=has_died)
        if again is None:
            if isinstance(plan, Tried) and result.error is not None and not has_died:
                attempts = attempt_of(plan)
                add_note(result.error, f"evproc_pool: given up after {attempts} attempts")
            return False
        cascade.attempts = max(cascade.attempts, attempt_of(again.tried))
        self._back_to_be_run(run, cascade, Bunch([event], again, part.place(place)), again)
        return True

    def _back_to_be_run(self, run: Run, cascade: Cascade, event: Bunch, again: Again) -> None:
        """Put back an event that is run again; a bunch of one.

        Of an unordered cascade it waits at once, unless it is the root: nothing is beside it.
        """
        if run.unordered and cascade.events:
            self._wait(run, cascade, event, again)
        else:
            cascade.queue.put_all_back(event)

    def _chain_back(self, cascade: Cascade, part: Part, place: int) -> None:
        """Put back what a worker leaves out of a chain, from a place of the part on.

        It waits behind the event that is run again.
        """
        if part.is_chain:
            again = cascade.queue.take(1)
            self._rest_back(cascade, part, place)
            cascade.queue.put_all_back(again)

    def _rest_back(self, cascade: Cascade, part: Part, place: int) -> None:
        """Put what a worker leaves out of a chain in front of its cascade's queue."""
        if not part.is_chain:
            return
        for each in range(part.stop - part.start - 1, place - 1, -1):
            cascade.queue.put_back(part.events[each], part.plans[each], part.place(each))
            cascade.in_flight -= 1
            part.cascades[each] = _nobody()

    def _wait(self, run: Run, cascade: Cascade, event: Bunch, again: Again) -> None:
        """Let an event wait until it is run again; a bunch of one."""
        cascade.in_flight += 1
        waiting = Waiting(run, cascade, event.events[0], again.tried, event.at)
        if again.has_to_pause:
            token = self._retries.pause(waiting)
            self._effects.append(Retry(run.id, cascade.index, token, again.tried.failures))
        else:
            self._retries.suspect(waiting)

    def _due(self, item: Due) -> None:
        waiting = self._retries.take(item.token)
        if waiting is None:
            return
        run, cascade, event, tried, place = waiting
        if tried.crashes:
            self._retries.suspect(waiting)
            return
        cascade.in_flight -= 1
        cascade.queue.put_back(event, tried, place)
        run.loose += cascade.is_ready
        self._make_ready(run, cascade)

    def _meets(self, run: Run, cascade: Cascade, part: Part, place: int, fate: Fate) -> None:
        """Take what became of an event into its cascade; see `Scheduler._hand_back`."""
        result = fate.result
        cascade.seconds += fate.seconds
        is_charged = result.error is not None
        if is_charged and self._try_again(run, cascade, part, place, result, has_died=True):
            return
        ran = fate.ran if is_charged else len(part.plans[place].indices)
        cascade.events += 1
        cascade.handlers += ran
        if run.opened.every_event:
            left = _Left(result=result if is_charged else None)
            self._tell_event(run, part, place, left, ran=ran, seconds=fate.seconds)
        if is_charged:
            self._comes_to(run, cascade, part.events[place], part.place(place), result)


class Fate(NamedTuple):
    """What became of an event that a dead worker had.

    Attributes:
        result: With an error: it was running. Without: it is over, and left nothing behind.
        seconds: How long it has run.
        ran: How many of its handlers have begun.
    """

    result: Result
    seconds: float = 0.0
    ran: int = 0


class _Left(NamedTuple):
    """What one event left behind; see `Progress`."""

    follow_ups: Sequence[Planned] = ()
    result: Result | None = None
    emitted: list[Any] | None = None
    processed: Any = None
    giver: str | None = None


def _left_behind(item: Progress, position: int, result: Result | None) -> _Left:
    if result is not None:
        return _Left(result=result)  # what it left before it failed is forgotten
    if item.values and position in item.values:
        result = Result(item.values[position], stopped=True)
    return _Left(
        item.follow_ups.get(position, ()) if result is None else (),
        result,
        item.emitted[position] if item.emitted and position in item.emitted else None,
        item.processed[position] if item.processed and position in item.processed else None,
        item.givers.get(position),
    )


def handlers_run(part: Part, positions: range, item: Progress) -> int | list[int]:
    """How many handlers ran for the events at some positions: of each, or of all the same."""
    start = positions.start - part.start
    plans = part.plans[start : start + len(positions)]
    first = plans[0]
    if plans.count(first) == len(plans):
        if not item.ran:
            return len(first.indices)
        numbers = [len(first.indices)] * len(plans)
    else:
        numbers = [len(plan.indices) for plan in plans]
    for position, ran in item.ran.items():
        if position in positions:
            numbers[position - positions.start] = ran
    return numbers


def _nobody() -> Cascade:
    """Stands for the cascade of an event that is not run in its batch any more."""
    nobody = Cascade(-1)
    nobody.is_over = True
    return nobody
