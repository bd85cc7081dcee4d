"""The waiting events of a run: roots in blocks, and ready cascades. Pure.

State with the changes that keep its counts right. The scheduler decides when they happen, and
`batching` what goes into a batch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Hashable, Sequence
from typing import Any, Final, NamedTuple

from evproc_pool.core.batches import Cascade, Keyed, KeyQueue, Strands
from evproc_pool.core.event_columns import PlanLike
from evproc_pool.core.inputs_and_effects import Opened
from evproc_pool.errors import InternalError

# Of this many batches of cascades whose large buffers a worker has, one takes the oldest
# cascade, and one takes others without buffers, if there are any.
_TURNS: Final = 16

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
    """The scheduler's view of one run.

    Attributes:
        id: As the engine knows it.
        opened: How it was opened.
        unordered: Whether follow-ups are independent of each other.
        closed: Whether no more roots come.
        bound: Roots behind this index are unwanted.
        blocks: Roots that wait for a worker.
        backlog: Their number.
        ready: Cascades, strands and key queues with something to send, the next one first.
        near: Ready cascades and strands whose large buffers a worker has, by that worker; the
            newest one last. No queue is empty.
        passed: Batches made while other workers' cascades were in `near`.
        loose: Events in the queues of ready cascades; of an unordered run.
        stranded: Events of ready strands.
        keys: The queues of busy keys; shared with other runs, if their keys are.
        waiting: Roots that wait in key queues.
        keyed: Those of them in ready key queues.
        key_queues: The number of ready key queues.
        open: Roots accepted and not reported.
        newest_plan: The plan of the last root.
        has_turn: Whether it stands in the scheduler's queue of runs.
    """

    __slots__ = (
        "_near_cascades",
        "_near_turns",
        "_staying",
        "_strands",
        "backlog",
        "blocks",
        "bound",
        "closed",
        "has_turn",
        "id",
        "key_queues",
        "keyed",
        "keys",
        "loose",
        "near",
        "newest_plan",
        "open",
        "opened",
        "passed",
        "ready",
        "stranded",
        "unordered",
        "waiting",
    )

    def __init__(
        self,
        opened: Opened,
        keys: dict[Hashable, KeyQueue] | None = None,
        staying: Collection[int] = (),
    ) -> None:
        self.id = opened.run
        self.opened = opened
        self.unordered = opened.unordered
        self.closed = False
        self.bound = ENDLESS
        self.blocks: deque[Block] = deque()
        self.backlog = 0
        self.ready: deque[Cascade | Strands | KeyQueue] = deque()
        self.loose = 0
        self.stranded = 0
        self._strands = 0  # the number of strands in `ready`
        self.near: dict[int, deque[Cascade | Strands]] = {}
        self.passed = 0
        self._near_cascades = 0  # the number of cascades in `near`
        self._near_turns = 0  # batches of what stood in `near`
        self._staying = staying  # workers that are not retired
        self.keys: dict[Hashable, KeyQueue] = {} if keys is None else keys
        self.waiting = 0
        self.keyed = 0
        self.key_queues = 0
        self.open = 0
        self.newest_plan: PlanLike | None = None
        self.has_turn = False

    @property
    def has_ready(self) -> bool:
        """Whether something could be sent."""
        return bool(self.blocks or self.ready or self.near)

    @property
    def ready_events(self) -> int:
        """About how many events could be sent."""
        cascades = self.loose
        if not self.unordered:
            cascades = len(self.ready) - self._strands - self.key_queues + self._near_cascades
        return self.backlog + self.stranded + cascades + self.keyed

    @property
    def left(self) -> int:
        """About how many known events are unsent."""
        return self.ready_events + max(0, self.waiting - self.keyed)

    @property
    def next_plan(self) -> PlanLike:
        """The plan of the next event to send; only if there is one."""
        if self.ready:
            first = self.ready[0]
        elif self.blocks:
            return self.blocks[0].plans[0]
        else:
            first = next(iter(self.near.values()))[-1]
        if isinstance(first, KeyQueue):
            return first.waiting[0].plan
        return first.plan if isinstance(first, Strands) else first.queue.next_plan

    def put_back(self, block: Block) -> None:
        """Put roots back where they stood, by their indices."""
        behind = (place for place, other in enumerate(self.blocks) if other.first > block.first)
        self.blocks.insert(next(behind, len(self.blocks)), block)
        self.backlog += len(block.events)

    def add_ready(self, cascade: Cascade) -> None:
        """Put a cascade behind what is ready."""
        cascade.is_ready = True
        if cascade.near in self._staying:
            self._put_near(cascade)
        else:
            self.ready.append(cascade)
        self.loose += len(cascade.queue)

    def remove_ready(self, cascade: Cascade) -> None:
        """Take a cascade out of what is ready."""
        cascade.is_ready = False
        if self.near and not (self.ready and self.ready[0] is cascade):
            self.spread()
        if self.ready[0] is cascade:
            self.ready.popleft()
        else:
            self.ready.remove(cascade)
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
        if self.ready[0] is key_queue:
            self.ready.popleft()
        else:
            self.ready.remove(key_queue)
        key_queue.ready_in = None
        self.keyed -= key_queue.counted
        self.key_queues -= 1

    def add_strands(self, strands: Strands) -> None:
        """Put strands behind what is ready."""
        self.stranded += len(strands.events)
        if strands.near in self._staying:
            self._put_near(strands)
        else:
            self.ready.append(strands)
            self._strands += 1

    def take_strands(self, count: int) -> Strands:
        """Take the first ones of the strands that are next."""
        strands = self.ready.popleft()
        if not isinstance(strands, Strands):
            raise InternalError("a cascade is next instead of strands")
        self._strands -= 1
        if count < len(strands.events):
            rest, strands = strands.slice(count, len(strands.events)), strands.slice(0, count)
            if rest.near in self._staying:
                self._put_near(rest)
            else:
                self.ready.appendleft(rest)
                self._strands += 1
        self.stranded -= len(strands.events)
        return strands

    # --- large buffers ---

    def bring(self, worker: int) -> None:
        """Put first what a worker goes on with.

        This is the newest of what it has the large buffers of: buffers that wait take shared
        memory, and only some of that is fast. In some turns others come first.
        """
        mine = self.near.get(worker)
        if mine is None or (self.ready and self.ready[0].near == worker):
            return
        self._near_turns += 1
        turn = self._near_turns % _TURNS
        if self.ready and not turn:
            return
        self._put_first(mine.popleft() if turn == _TURNS // 2 else mine.pop())
        if not mine:
            del self.near[worker]

    def release(self, worker: int) -> None:
        """Let any worker go on with the oldest cascade or strands near a worker."""
        mine = self.near[worker]
        oldest = mine.popleft()
        if isinstance(oldest, Strands) and len(oldest.events) > 1:
            middle = len(oldest.events) // 2
            mine.appendleft(oldest.slice(middle, len(oldest.events)))
            oldest = oldest.slice(0, middle)
        if not mine:
            del self.near[worker]
        self._put_first(_anywhere(oldest))

    def put_near(self, worker: int) -> None:
        """Undo `bring` for a worker that did not take it."""
        if self.ready and self.ready[0].near == worker:
            first: Any = self.ready.popleft()
            self._strands -= isinstance(first, Strands)
            self._put_near(first)

    def spread(self, worker: int | None = None) -> None:
        """Let any worker go on with all that is near a worker; None: near any of them."""
        for each in list(self.near) if worker is None else [worker]:
            for item in self.near.pop(each, ()):
                self.ready.append(_anywhere(item))
                self._strands += isinstance(item, Strands)
                self._near_cascades -= isinstance(item, Cascade)

    def _put_near(self, item: Cascade | Strands) -> None:
        if item.near is None:
            raise InternalError("no worker has its large buffers")
        self.near.setdefault(item.near, deque()).append(item)
        self._near_cascades += isinstance(item, Cascade)

    def _put_first(self, item: Cascade | Strands) -> None:
        self.ready.appendleft(item)
        self._strands += isinstance(item, Strands)
        self._near_cascades -= isinstance(item, Cascade)

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
        self.spread()
        if self._strands:
            ready, self.ready = self.ready, deque()
            self._strands = self.stranded = 0
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


def _anywhere(item: Cascade | Strands) -> Cascade | Strands:
    """Forget which worker has its large buffers."""
    if isinstance(item, Strands):
        return item._replace(near=None)
    item.near = None
    return item
