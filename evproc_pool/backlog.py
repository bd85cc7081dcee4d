"""What a run has waiting: roots in blocks, and cascades that are ready. Pure.

Plain state with the few changes that keep its counts right; what happens when is
the scheduler's, and what goes into a batch is `batching`'s.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence
from typing import Any, Final, NamedTuple

from evproc_pool.columns import PlanLike
from evproc_pool.errors import InternalError
from evproc_pool.flight import Cascade, Keyed, Lane, Strands
from evproc_pool.schedule import Opened

#: The bound of a run in which every root is wanted.
ENDLESS: Final = float("inf")


class Block(NamedTuple):
    """Roots that wait: neighbours by index, independent of each other."""

    first: int
    events: Sequence[Any]
    plans: Sequence[PlanLike]

    def slice(self, start: int, stop: int) -> Block:
        """Some of them."""
        return Block(self.first + start, self.events[start:stop], self.plans[start:stop])


class Run:
    """The scheduler's view of one run.

    Attributes:
        id: As the engine knows it.
        opened: How it was opened.
        unordered: Whether follow-ups are independent of each other.
        closed: Whether no more roots come.
        bound: Roots behind this index are not wanted any more.
        blocks: Roots that wait for a worker.
        backlog: How many these are.
        ready: Cascades of which something can be sent, next first; strands among them.
        loose: In an unordered run, events in the queues of these cascades.
        stranded: Events of these strands.
        keys: The lanes of busy keys; maybe those of other runs, too.
        waiting: Roots that wait in these, ready or not.
        keyed: How many of them stand in lanes that are ready.
        lanes: How many lanes are ready.
        open: Roots accepted and not reported.
        newest_plan: Of the last root.
        has_turn: Whether it stands in the scheduler's queue of runs.
    """

    __slots__ = (
        "_strands",
        "backlog",
        "blocks",
        "bound",
        "closed",
        "has_turn",
        "id",
        "keyed",
        "keys",
        "lanes",
        "loose",
        "newest_plan",
        "open",
        "opened",
        "ready",
        "stranded",
        "unordered",
        "waiting",
    )

    def __init__(self, opened: Opened, keys: dict[Hashable, Lane] | None = None) -> None:
        self.id = opened.run
        self.opened = opened
        self.unordered = opened.unordered
        self.closed = False
        self.bound = ENDLESS
        self.blocks: deque[Block] = deque()
        self.backlog = 0
        self.ready: deque[Cascade | Strands | Lane] = deque()
        self.loose = 0
        self.stranded = 0
        self._strands = 0  # how many of those that are ready are strands
        self.keys: dict[Hashable, Lane] = {} if keys is None else keys
        self.waiting = 0
        self.keyed = 0
        self.lanes = 0
        self.open = 0
        self.newest_plan: PlanLike | None = None
        self.has_turn = False

    @property
    def has_ready(self) -> bool:
        """Whether something could be sent."""
        return bool(self.blocks or self.ready)

    @property
    def ready_events(self) -> int:
        """About how many events could be sent."""
        cascades = self.loose if self.unordered else len(self.ready) - self._strands - self.lanes
        return self.backlog + self.stranded + cascades + self.keyed

    @property
    def left(self) -> int:
        """About how many events are to be sent yet, as far as is known."""
        return self.ready_events + max(0, self.waiting - self.keyed)

    @property
    def next_plan(self) -> PlanLike:
        """The plan of the event that is sent next; only if there is one."""
        if not self.ready:
            return self.blocks[0].plans[0]
        first = self.ready[0]
        if isinstance(first, Lane):
            return first.waiting[0].plan
        return first.plan if isinstance(first, Strands) else first.queue.next_plan

    def put_back(self, block: Block) -> None:
        """Put roots in front of the others."""
        self.blocks.appendleft(block)
        self.backlog += len(block.events)

    def add_ready(self, cascade: Cascade) -> None:
        """Put a cascade behind the others that are ready."""
        cascade.is_ready = True
        self.ready.append(cascade)
        self.loose += len(cascade.queue)

    def remove_ready(self, cascade: Cascade) -> None:
        """Take a cascade out of those that are ready."""
        cascade.is_ready = False
        if self.ready[0] is cascade:
            self.ready.popleft()
        else:
            self.ready.remove(cascade)
        self.loose -= len(cascade.queue)

    def add_lane(self, lane: Lane) -> None:
        """Put a lane behind what is ready."""
        self.ready.append(lane)
        lane.ready_in = self
        lane.counted = len(lane.waiting)
        self.keyed += lane.counted
        self.lanes += 1

    def add_to_lane(self, lane: Lane, root: Keyed) -> None:
        """Put a root behind the others of its key."""
        lane.waiting.append(root)
        self.waiting += 1
        if lane.ready_in is not None:
            lane.counted += 1
            lane.ready_in.keyed += 1

    def remove_lane(self, lane: Lane) -> None:
        """Take a lane out of those that are ready."""
        if self.ready[0] is lane:
            self.ready.popleft()
        else:
            self.ready.remove(lane)
        lane.ready_in = None
        self.keyed -= lane.counted
        self.lanes -= 1

    def add_strands(self, strands: Strands) -> None:
        """Put strands behind what is ready."""
        self.ready.append(strands)
        self._strands += 1
        self.stranded += len(strands.events)

    def take_strands(self, count: int) -> Strands:
        """Take the first ones of the strands that are the next."""
        strands = self.ready.popleft()
        if not isinstance(strands, Strands):
            raise InternalError("a cascade is next, and no strands")
        if count < len(strands.events):
            self.ready.appendleft(strands.slice(count, len(strands.events)))
            strands = strands.slice(0, count)
        else:
            self._strands -= 1
        self.stranded -= len(strands.events)
        return strands

    def drop_strands(self) -> list[int]:
        """Give up those strands that are ready and behind the bound; give their roots."""
        dropped: list[int] = []
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
