"""The state of the scheduler: the runs with their waiting events, and whose turn it is. Pure.

State with the changes that keep its counts right. The scheduler decides when they happen, and
`batching` what goes into a batch.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Hashable, Sequence
from typing import Any, Final, NamedTuple

from evproc_pool.core.batches import Cascade, Keyed, KeyQueue, Strands
from evproc_pool.core.event_columns import PlanLike
from evproc_pool.core.inputs_and_effects import Effect, Opened
from evproc_pool.errors import InternalError

# So many batches go before a cascade whose worker has no room, and so many cascades are looked at.
_MOST_PASSED: Final = 16

#: The bound of a run in which every root is wanted.
ENDLESS: Final = float("inf")


class Block(NamedTuple):
    """Waiting roots: neighbours by index, independent of each other."""

    first: int
    events: Sequence[Any]
    plans: Sequence[PlanLike]

    def slice(self, start: int, stop: int) -> Block:
        """Return some of them."""
        return Block(self.first + start, self.events[start:stop], self.plans[start:stop])


class Run:
    """The scheduler's view of one run."""

    def __init__(self, opened: Opened, keys: dict[Hashable, KeyQueue] | None = None) -> None:
        self.id = opened.run
        self.opened = opened
        self.unordered = opened.unordered
        self.closed = False  # whether no more roots come
        self.bound = ENDLESS  # roots behind this index are unwanted
        self.blocks: deque[Block] = deque()  # roots that wait for a worker
        self.backlog = 0  # their number
        # cascades, strands and key queues with something to send, the next one first
        self.ready: deque[Cascade | Strands | KeyQueue] = deque()
        self.loose = 0  # events in the queues of ready cascades; of an unordered run
        self._strands = 0  # the number of ready strands
        self.strand_events = 0  # their events
        # the queues of busy keys; shared with other runs, if their keys are
        self.keys: dict[Hashable, KeyQueue] = {} if keys is None else keys
        self.waiting = 0  # roots that wait in key queues
        self.key_queues = 0  # the number of ready key queues
        self.keyed = 0  # the roots that wait in them
        self.open = 0  # roots accepted and not reported
        self.newest_plan: PlanLike | None = None  # of the last root
        self.passed = 0  # batches beside what is first, whose worker had no room; see `bring`
        self.has_turn = False  # whether it stands in the scheduler's queue of runs

    @property
    def has_ready(self) -> bool:
        """Whether something could be sent."""
        return bool(self.blocks or self.ready)

    @property
    def ready_events(self) -> int:
        """About how many events could be sent."""
        cascades = self.loose
        if not self.unordered:
            cascades = len(self.ready) - self._strands - self.key_queues
        return self.backlog + self.strand_events + cascades + self.keyed

    @property
    def left(self) -> int:
        """About how many known events are unsent."""
        return self.ready_events + max(0, self.waiting - self.keyed)

    @property
    def next_plan(self) -> PlanLike:
        """The plan of the next event to send; only if there is one."""
        if not self.ready:
            return self.blocks[0].plans[0]
        first = self.ready[0]
        if isinstance(first, KeyQueue):
            return first.waiting[0].plan
        return first.plan if isinstance(first, Strands) else first.queue.next_plan

    @property
    def next_near(self) -> int | None:
        """The worker that has large buffers of the next event to send; None: it has none."""
        return self.ready[0].near if self.ready else None

    def put_back(self, block: Block) -> None:
        """Put roots back where they stood, by their indices."""
        behind = (place for place, other in enumerate(self.blocks) if other.first > block.first)
        self.blocks.insert(next(behind, len(self.blocks)), block)
        self.backlog += len(block.events)

    def add_ready(self, cascade: Cascade) -> None:
        """Put a cascade behind what is ready."""
        cascade.is_ready = True
        self.ready.append(cascade)
        self.loose += len(cascade.queue)

    def remove_ready(self, cascade: Cascade) -> None:
        """Take a cascade out of what is ready."""
        cascade.is_ready = False
        self.ready.remove(cascade)  # fast: mostly it is the first
        self.loose -= len(cascade.queue)

    def add_key_queue(self, key_queue: KeyQueue) -> None:
        """Put a key queue behind what is ready."""
        self.ready.append(key_queue)
        key_queue.ready_in = self
        key_queue.counted = len(key_queue.waiting)
        self.keyed += key_queue.counted
        self.key_queues += 1

    def add_to_key_queue(self, key_queue: KeyQueue, root: Keyed) -> None:
        """Put a root behind the others of its key."""
        key_queue.waiting.append(root)
        self.waiting += 1
        if key_queue.ready_in is not None:
            key_queue.counted += 1
            key_queue.ready_in.keyed += 1

    def remove_key_queue(self, key_queue: KeyQueue) -> None:
        """Take a key queue out of what is ready."""
        self.ready.remove(key_queue)
        key_queue.ready_in = None
        self.keyed -= key_queue.counted
        self.key_queues -= 1

    def add_strands(self, strands: Strands) -> None:
        """Put strands behind what is ready."""
        self.ready.append(strands)
        self._strands += 1
        self.strand_events += len(strands.events)

    def take_strands(self, count: int) -> Strands:
        """Take the first ones of the strands that are next."""
        strands = self.ready.popleft()
        if not isinstance(strands, Strands):
            raise InternalError("a cascade is next instead of strands")
        if count < len(strands.events):
            self.ready.appendleft(strands.slice(count, len(strands.events)))
            strands = strands.slice(0, count)
        else:
            self._strands -= 1
        self.strand_events -= len(strands.events)
        return strands

    def bring(self, worker: int) -> None:
        """Put first what a worker has large buffers of, if some of the next ones are that.

        What was first comes first again after `_MOST_PASSED` such batches.
        """
        self.passed = (self.passed + 1) % _MOST_PASSED
        some = itertools.islice(self.ready, _MOST_PASSED)
        place = next((place for place, item in enumerate(some) if item.near == worker), 0)
        if place and self.passed:
            item = self.ready[place]
            del self.ready[place]
            self.ready.appendleft(item)

    # --- dropping ---

    def drop_blocks(self) -> list[tuple[int, int]]:
        """Drop the roots in blocks that are behind the bound; return first and number of each."""
        dropped = []
        blocks, self.blocks = self.blocks, deque()
        for block in blocks:
            wanted = min(len(block.events), max(0, int(self.bound) + 1 - block.first))
            count = len(block.events) - wanted
            if wanted:
                self.blocks.append(block.slice(0, wanted))
            if count:
                self.backlog -= count
                self.open -= count
                dropped.append((block.first + wanted, count))
        return dropped

    def drop_strands(self) -> list[int]:
        """Drop the ready strands that are behind the bound; return their roots."""
        dropped: list[int] = []
        if self._strands:
            ready, self.ready = self.ready, deque()
            self._strands = self.strand_events = 0
            for each in ready:
                if not isinstance(each, Strands):
                    self.ready.append(each)
                    continue
                roots = each.cascades.roots
                dropped += [root for root in roots if root > self.bound]
                wanted = [place for place, root in enumerate(roots) if root <= self.bound]
                if wanted:
                    self.add_strands(each.pick(wanted))
        return dropped


class SharedState:
    """What the parts of the scheduler share; every change costs O(1)."""

    def __init__(self, *, is_observed: bool = False) -> None:
        self.is_observed = is_observed  # whether effects tell what happens to single events
        self.runs: dict[int, Run] = {}  # those that are not finished, by id
        self.turns: deque[Run] = deque()  # those with something ready, the next one first
        self.effects: list[Effect] = []  # of the current step, in order

    @property
    def has_ready(self) -> bool:
        """Whether any run could send something."""
        return any(run.has_ready for run in self.turns)

    def take_turns(self, run: Run) -> None:
        """Give a run a turn if it has something ready and waits for none."""
        if run.has_ready and not run.has_turn:
            run.has_turn = True
            self.turns.append(run)

    def make_ready(self, run: Run, cascade: Cascade) -> None:
        """Let the next events of a cascade be sent."""
        if not cascade.is_ready:
            run.add_ready(cascade)
            self.take_turns(run)
