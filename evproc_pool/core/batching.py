"""Fills the next batch of a run. Pure; O(events in it).

A batch has `TARGET_SECONDS` (or `BULK_SECONDS`) of work by `estimates`, less near the end of a
run, and keeps the limits of bytes and events. Cascades go before new roots, which bounds the
open ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from evproc_pool.core.batches import Batch, Cascade, KeyQueue, Part, Strands
from evproc_pool.core.estimates import (
    BULK_SECONDS,
    LEAST_SECONDS,
    MOST_EVENTS,
    TARGET_SECONDS,
    Estimates,
)
from evproc_pool.core.event_columns import Bunch, EventQueue, PlanLike
from evproc_pool.core.retry_policy import Tried
from evproc_pool.core.run_state import Run

#: Near the end of a run, a batch takes half of a worker's share of the rest, so that all workers
#: end at about the same time (guided self-scheduling, Polychronopoulos and Kuck, 1987).
SHARES_PER_WORKER: Final = 2

# What a batch costs the coordinator, in seconds, about. While it serves each of many workers once,
# none of them should be out of work: without this, the last batches of 256 workers keep 0.73 of
# them busy over 2 s, with it 0.89 (simulated, events of 1 ms, 0.3 ms a batch).
_BATCH_COST_SECONDS: Final = 0.0001

# Lets a whole number of events that fits exactly fit.
_ROUNDING: Final = 1e-6


class Batcher:
    """Makes batches.

    `resume` lets a cascade of an unordered run go on if a worker cannot run the event at the head
    of its queue; see `Cascades`.
    """

    def __init__(self, estimates: Estimates, resume: Callable[[Run, Cascade], None]) -> None:
        self._estimates = estimates
        self._resume = resume

    def make(self, run: Run, *, workers: int, idle: int, is_alone: bool) -> Batch:
        """Take a batch out of a run that has something ready.

        Args:
            run: The run; its ready cascades and blocks shrink.
            workers: The number of all workers.
            idle: The number of idle workers.
            is_alone: Whether no other run has something ready.
        """
        batch = Batch(run)
        most = share = _limit(run, is_alone=is_alone)
        least = LEAST_SECONDS
        if run.closed:
            share = self._share(run, workers)
            least = max(least, workers * _BATCH_COST_SECONDS)
        elif idle > 1:
            share = run.ready_events * self._seconds_of(run, run.next_plan) / idle
        if run.key_queues:
            # leave other roots for workers to go on with while these are in flight
            keyed = run.keyed * self._seconds_of(run, run.next_plan)
            share = min(share, keyed / (SHARES_PER_WORKER * max(1, workers)))
        self._gather(batch, run, min(most, max(share, least)), most)
        # an estimate by its first plan, until it is weighed
        batch.size_bytes = round(batch.size * self._estimates.bytes_of(batch.parts[0].plans[0]))
        return batch

    def _seconds_of(self, run: Run, plan: PlanLike) -> float:
        """The expected seconds of an event of a run."""
        if run.opened.is_bulk:
            return self._estimates.seconds_of(plan)
        return self._estimates.most_seconds_of(plan)

    def is_near_end(self, run: Run, *, workers: int) -> bool:
        """Whether the end of a run that is alone makes its next batch smaller."""
        return run.closed and self._share(run, workers) < _limit(run, is_alone=True)

    def _share(self, run: Run, workers: int) -> float:
        """The seconds that a batch of a closed run takes of the rest."""
        seconds = run.left * self._seconds_of(run, run.next_plan)
        return seconds / (SHARES_PER_WORKER * workers)

    def make_alone(self, run: Run, cascade: Cascade, taken: Bunch) -> Batch:
        """Make a batch of one event, in flight already, that runs alone in its worker."""
        batch = Batch(run)
        batch.is_alone = batch.is_careful = True
        _part_for(batch, taken.events, is_chain=False).extend(cascade, taken)
        batch.size = 1
        batch.seconds = self._seconds_of(batch.run, taken.plan)
        batch.size_bytes = round(self._estimates.bytes_of(taken.plan))
        return batch

    def _gather(self, batch: Batch, run: Run, limit: float, most: float) -> None:
        """Fill a batch up to `limit` seconds; a full one has `most`.

        What has large buffers in a worker is with nothing else; see `Placement`.
        """
        near = run.next_near
        while run.has_ready and batch.seconds < limit and batch.size < MOST_EVENTS:
            first = run.ready[0] if run.ready else None
            left = limit - batch.seconds
            if isinstance(first, KeyQueue) and run.key_queues == 1 and not run.waiting > run.keyed:
                left = most - batch.seconds  # no other worker can take a share of it
            if batch.size:
                plan = run.next_plan
                if self._seconds_of(run, plan) > left or self._room(batch, plan) < 1:
                    return
                if run.next_near != near:
                    return
            if first is None:
                self._add_roots(batch, run, left)
            elif isinstance(first, Strands):
                self._add_strands(batch, run, first, left)
            elif isinstance(first, KeyQueue):
                self._add_key_queue(batch, run, first, left)
            else:
                self._add_cascade(batch, run, first, left)

    def _room(self, batch: Batch, plan: PlanLike) -> int:
        """How many more events of a plan a batch may have."""
        return self._estimates.most_events(plan) - batch.size

    def _count(self, batch: Batch, plan: PlanLike, events: int, left: float) -> int:
        """How many of some events of one plan fit, at least one."""
        seconds = self._seconds_of(batch.run, plan)
        return max(1, min(events, self._room(batch, plan), round(left / seconds)))

    def _add_strands(self, batch: Batch, run: Run, strands: Strands, left: float) -> None:
        """Put as many of the first strands into a batch as time allows, at least one."""
        count = self._count(batch, strands.plan, len(strands.events), left)
        strands = run.take_strands(count)
        part = Part(batch.size, None)
        part.strands = strands
        self._add(batch, part, strands.events, [strands.plan] * count)
        batch.seconds += count * self._seconds_of(run, strands.plan)

    def _add(
        self, batch: Batch, part: Part, events: Sequence[Any], plans: Sequence[PlanLike]
    ) -> None:
        """Put a new part into a batch."""
        part.events, part.plans = events, list(plans)
        part.stop += len(events)
        batch.parts.append(part)
        batch.size += len(events)

    def _add_key_queue(self, batch: Batch, run: Run, key_queue: KeyQueue, left: float) -> None:
        """The same for the roots of the first key queue."""
        waiting = key_queue.waiting
        plan: PlanLike | None = None
        seconds, room = 0.0, 0
        run.remove_key_queue(key_queue)
        part = batch.parts[-1] if batch.parts else None
        if part is None or not part.is_keyed:
            part = Part(batch.size, None)
            batch.parts.append(part)
        begin, used = part.stop, 0.0
        events: Any = part.events
        while waiting and waiting[0].run is run and waiting[0].cascade is None:
            keyed = waiting[0]
            if keyed.plan is not plan:
                plan = keyed.plan
                seconds = self._seconds_of(run, plan)
                room = self._room(batch, plan) - (part.stop - begin)
            if part.stop > begin and (used + seconds > left or room < 1):
                break
            waiting.popleft()
            events.append(keyed.event)
            part.plans.append(plan)
            part.roots.append(keyed.root)
            part.stop += 1
            room -= 1
            used += seconds
        part.key_queues.append((key_queue, begin, part.stop))
        count = part.stop - begin
        key_queue.in_flight += count
        run.waiting -= count
        batch.size += count
        batch.seconds += used

    def _add_cascade(self, batch: Batch, run: Run, cascade: Cascade, left: float) -> None:
        """The same for the events of the first ready cascade."""
        queue = cascade.queue
        if not run.unordered:
            run.remove_ready(cascade)  # until what is sent of it is over
            left = TARGET_SECONDS - batch.seconds  # no other worker can take a share of it
        taken = self._take(batch, queue, left)
        count = sum(map(len, taken))
        is_chain = not run.unordered and count > 1
        part: Part | None = None
        for bunch in taken:
            if part is None or not is_chain:
                part = _part_for(batch, bunch.events, is_chain=is_chain)
            part.extend(cascade, bunch)
            batch.size += len(bunch)
            batch.is_careful |= isinstance(bunch.plan, Tried)
        cascade.in_flight += count
        if run.unordered:
            run.loose -= count
            if not queue:
                run.remove_ready(cascade)
            elif not queue.next_plan.indices:
                run.remove_ready(cascade)
                self._resume(run, cascade)
                if cascade.is_ready:
                    run.ready.rotate(1)  # it stays the first

    def _take(self, batch: Batch, queue: EventQueue, left: float) -> list[Bunch]:
        """Take events from the head of a queue, at least one, and count their time."""
        taken: list[Bunch] = []
        used = 0.0
        size = batch.size
        while queue and (not taken or queue.next_plan.indices):
            seconds = self._seconds_of(batch.run, queue.next_plan)
            room = self._estimates.most_events(queue.next_plan) - size
            count = min(queue.alike, room, int((left - used) / seconds + _ROUNDING))
            if count < 1:
                if taken:
                    break
                count = 1
            taken.append(queue.take(count))
            used += count * seconds
            size += count
        batch.seconds += used
        return taken

    def _add_roots(self, batch: Batch, run: Run, left: float) -> None:
        """The same for the roots of the first block."""
        block = run.blocks.popleft()
        plan = block.plans[0]
        # mostly all have one plan, which needs no loop in Python
        if block.plans.count(plan) == len(block.plans):
            count = self._count(batch, plan, len(block.plans), left)
            batch.seconds += count * self._seconds_of(run, plan)
        else:
            count, used = self._count_mixed(batch, block.plans, left)
            batch.seconds += used
        if count < len(block.events):
            run.blocks.appendleft(block.slice(count, len(block.events)))
            block = block.slice(0, count)
        self._add(batch, Part(batch.size, block.first), block.events, block.plans)
        run.backlog -= count

    def _count_mixed(
        self, batch: Batch, plans: Iterable[PlanLike], left: float
    ) -> tuple[int, float]:
        """How many events with these plans fit, at least one, and their expected seconds."""
        used = 0.0
        count = 0
        for plan in plans:
            seconds = self._seconds_of(batch.run, plan)
            if count and (used + seconds > left or self._room(batch, plan) <= count):
                break
            used += seconds
            count += 1
        return count, used


def _limit(run: Run, *, is_alone: bool) -> float:
    """The seconds of a full batch."""
    return BULK_SECONDS if run.opened.is_bulk and is_alone else TARGET_SECONDS


def _part_for(batch: Batch, events: Sequence[Any], *, is_chain: bool) -> Part:
    """Return the last part if it can take events of a cascade, or add one."""
    part = batch.parts[-1] if batch.parts else None
    if (
        part is None
        or is_chain
        or part.is_chain
        or not part.cascades
        # pass-through events have a part of their own, so that they go on as they came
        or not (isinstance(part.events, list) and isinstance(events, list))
    ):
        part = Part(batch.size, None, is_chain=is_chain)
        batch.parts.append(part)
    return part
