"""Roots with keys: accepted, reported, and put back. Pure; O(1) for each root.

The roots of one key wait in a `KeyQueue`. Neighbours in it go to one worker together. A root
with nothing but a value to report never becomes a cascade.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Mapping, Sequence

from evproc_pool.core.batches import Cascade, Keyed, KeyQueue, Part
from evproc_pool.core.cascades import Cascades
from evproc_pool.core.event_results import EventResults, Fate
from evproc_pool.core.inputs_and_effects import Accepted, Over, Progress
from evproc_pool.core.run_state import Run, SharedState


class KeyedRoots:
    """The part of the scheduler that takes in and puts back roots with keys."""

    def __init__(self, state: SharedState, cascades: Cascades, events: EventResults) -> None:
        self._state = state
        self._cascades = cascades
        self._events = events

    def accept(self, run: Run, item: Accepted, keys: Sequence[Hashable]) -> None:
        """Put new roots behind the others of their keys."""
        roots = zip(keys, itertools.count(item.first), item.events, item.plans, strict=False)
        key_queues = run.keys
        for key, index, event, plan in roots:
            key_queue = key_queues.get(key)
            if key_queue is None:
                key_queue = key_queues[key] = KeyQueue(key, key_queues)
            run.add_to_key_queue(key_queue, Keyed(run, index, event, plan))
            if key_queue.ready_in is None and key_queue.is_free:
                self._cascades.next_of_key(key_queue)

    # --- reports ---

    def take(self, run: Run, part: Part, positions: range, item: Progress) -> None:
        """Take in some positions of a part, and let the next roots of their keys begin."""
        special = {
            position
            for found in (item.follow_ups, item.results, item.processed, item.emitted)
            for position in found
            if position in positions
        }
        is_whole = not (special or part.has_gaps)
        plain: list[int] = list(positions) if is_whole else []
        left: list[tuple[KeyQueue, int, int]] = []
        key_queues, part.key_queues = part.key_queues, left
        for number, (key_queue, start, stop) in enumerate(key_queues):
            if start >= positions.stop:
                left += key_queues[number:]
                break
            begin, end = max(start, positions.start), stop
            for position in () if is_whole else range(begin, min(stop, positions.stop)):
                if position >= end:
                    break  # put back
                if position not in special:
                    plain.append(position)
                    continue
                if position in item.cut:
                    self.put_back(run, part, key_queue, position + 1, end)
                    part.has_gaps |= end > position + 1
                    end = position + 1
                self._take_special(run, part, key_queue, position, item)
            key_queue.in_flight -= min(end, positions.stop) - begin
            if end > positions.stop:
                left.append((key_queue, start, end))
        self._report_plain(run, part, plain, item)
        self._cascades.report_quiet(run)
        self._cascades.drop_unwanted(run)  # some of it may have been put back
        for key_queue, _, _ in key_queues:
            self._cascades.next_of_key(key_queue)
        self._state.take_turns(run)

    def _take_special(
        self, run: Run, part: Part, key_queue: KeyQueue, position: int, item: Progress
    ) -> None:
        """Make a cascade of a root with more to report; its key waits for it."""
        cascade = Cascade(part.roots[position - part.start])
        self._cascades.hold(key_queue, cascade)
        seconds = item.times[position - item.begin]
        self._events.take(run, cascade, part, position, item, seconds)
        self._cascades.go_on(run, cascade)

    def _report_plain(self, run: Run, part: Part, positions: list[int], item: Progress) -> None:
        """Report roots that have no follow-ups and did not fail."""
        if not positions:
            return
        run.open -= len(positions)
        roots = [part.roots[position - part.start] for position in positions]
        whole = range(positions[0], positions[-1] + 1)
        values = item.values.aligned(whole) if item.values else None
        ran = item.handlers_run(part, whole)
        handlers = [ran] * len(whole) if isinstance(ran, int) else ran
        seconds = list(item.times_of(whole))
        if len(whole) > len(positions):
            places = [position - whole.start for position in positions]
            handlers = [handlers[place] for place in places]
            seconds = [seconds[place] for place in places]
            values = None if values is None else values.pick(places)
        over = Over(run.id, roots, [1] * len(roots), seconds, handlers, values)
        self._state.effects.append(over)

    # --- unrun roots ---

    def put_back(self, run: Run, part: Part, key_queue: KeyQueue, begin: int, end: int) -> None:
        """Put unrun roots of a part in front of the others of their key."""
        for number in range(end - part.start - 1, begin - part.start - 1, -1):
            keyed = Keyed(run, part.roots[number], part.events[number], part.plans[number])
            key_queue.waiting.appendleft(keyed)
        key_queue.in_flight -= end - begin
        run.waiting += end - begin

    def put_part_back(self, run: Run, part: Part, left: range, fates: Mapping[int, Fate]) -> None:
        """Put back the unrun positions of a part; see `HandBack.hand_back`."""
        key_queues = []
        for key_queue, start, stop in reversed(part.key_queues):
            begin, end = max(start, left.start), min(stop, left.stop)
            if begin >= end:
                key_queues.append((key_queue, start, stop))
                continue
            last = end
            for position in sorted((each for each in fates if begin <= each < end), reverse=True):
                self.put_back(run, part, key_queue, position + 1, last)
                last = position
                key_queue.in_flight -= 1
                number = position - part.start
                cascade = Cascade(part.roots[number])
                self._events.take_fate(run, cascade, part, number, fates[position])
                if cascade.queue and position > begin:
                    # it is run again, but behind the roots before it
                    again = cascade.queue.next_plan
                    keyed = Keyed(run, cascade.index, part.events[number], again, cascade)
                    key_queue.waiting.appendleft(keyed)
                    run.waiting += 1
                elif not cascade.is_over:
                    self._cascades.hold(key_queue, cascade)
                    self._cascades.resume(run, cascade)
            self.put_back(run, part, key_queue, begin, last)
            self._cascades.next_of_key(key_queue)
            if begin > start:
                key_queues.append((key_queue, start, begin))
        part.key_queues = key_queues[::-1]
