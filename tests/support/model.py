"""What a `World` knows: cascades with what is to come of them, and records of what is where.

`plain_ending` is the oracle: a cascade as `Processor.process` would run it.
Seconds are multiples of a power of two, so that sums and differences are exact.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Hashable, Sequence
from typing import Any, Final, NamedTuple

from evproc_pool.core.batches import Batch
from evproc_pool.core.event_columns import Column, Planned, Unplannable
from evproc_pool.core.inputs_and_effects import ChainEnds, Ending, Opened, Result


class Violation(AssertionError):
    """The scheduler did what it must not, or left undone what it must do."""


def check(holds: object, text: str, *args: object) -> None:
    """Like `assert`, but there under `-O`, and quick: the text is made when it is needed."""
    if not holds:
        raise Violation(text.format(*args))


# --- what runs ---


class FakePlan:
    """A plan; compared by identity.

    Attributes:
        indices: As in a real one.
        size_bytes: What an event of it has on the wire.
    """

    __slots__ = ("indices", "size_bytes")

    def __init__(self, indices: tuple[int, ...], size_bytes: float = 100.0) -> None:
        self.indices = indices
        self.size_bytes = size_bytes


UNWANTED: Final = FakePlan(())


class Failed(Exception):
    """A handler's error, or a planning error, or a worker's death."""


class Transient(Failed):
    """A handler's error after which the event is run again."""


def exact(seconds: float) -> float:
    """These seconds, or a little more or less, such that sums of them are exact."""
    return round(seconds * (1 << 20)) / (1 << 20)


class Node:
    """An event, and what comes of it: follow-ups, a stop, an error.

    Attributes:
        plan: `Unplannable` for an event whose planning failed.
        children: Its follow-ups. Where it fails they are reported all the same, and must not
            matter.
        ending: How it ends its cascade, or None.
        seconds: How long a worker is at it.
        failures: How often it fails before it comes to that.
        handlers: How many of its handlers run.
        emits: What it emits; forgotten where it fails.
        is_spoiled: Whether it fails only because what it left cannot be rebuilt: the worker
            does not know that.
        size_bytes: What it has on the wire.
        above: The event that it is a follow-up of, and which of them it is.
    """

    __slots__ = (
        "_plain",
        "_whole",
        "above",
        "children",
        "emits",
        "ending",
        "failures",
        "handlers",
        "is_spoiled",
        "plan",
        "planned",
        "seconds",
        "size_bytes",
    )

    def __init__(
        self,
        plan: FakePlan | Unplannable,
        *,
        children: tuple[Node, ...] = (),
        ending: Result | None = None,
        seconds: float = 0.001,
        failures: int = 0,
        handlers: int | None = None,
        emits: Sequence[Any] = (),
        is_spoiled: bool = False,
    ) -> None:
        self.plan = plan
        self.failures = failures
        self.handlers = len(plan.indices) if handlers is None else handlers
        self.emits = list(emits)
        self.is_spoiled = is_spoiled
        self.above: tuple[Node, int] | None = None
        for number, child in enumerate(children):
            child.above = self, number
        self.children = children
        self.ending = ending
        self.seconds = exact(seconds)
        self.size_bytes = 0.0 if isinstance(plan, Unplannable) else plan.size_bytes
        self.planned: list[Planned] = [(child, child.plan) for child in children]
        self._plain: PlainEnding | None = None
        self._whole: tuple[frozenset[Node], int] | None = None

    @property
    def path(self) -> tuple[int, ...]:
        """Its path below the root."""
        found: list[int] = []
        node = self
        while node.above is not None:
            node, number = node.above
            found.append(number)
        return tuple(found[::-1])

    @property
    def plain(self) -> PlainEnding:
        """What comes of it as a root in an ordered run."""
        if self._plain is None:
            self._plain = plain_ending(self)
        return self._plain

    @property
    def whole(self) -> tuple[frozenset[Node], int]:
        """Its cascade if nothing ends it: what runs in workers, and how many in all."""
        if self._whole is None:
            found = [self]
            for node in found:
                found.extend(node.children)
            self._whole = frozenset([node for node in found if node.plan.indices]), len(found)
        return self._whole


class PlainEnding(NamedTuple):
    """What a plain FIFO comes to.

    Attributes:
        ending: How the cascade ends, without times.
        order: The nodes that a worker runs, in order.
    """

    ending: Ending
    order: list[Node]


def plain_ending(root: Node) -> PlainEnding:
    """Run a cascade as `Processor.process` would: the oracle."""
    order: list[Node] = []
    emitted: list[Any] = []
    queue = deque([root])
    events = handlers = 0
    result, culprit = Result(), None
    while queue:
        node = queue.popleft()
        events += 1
        if isinstance(node.plan, Unplannable):
            result, culprit = Result(error=node.plan.error), node
            break
        if not node.plan.indices:
            continue
        order.append(node)
        handlers += node.handlers
        if node.ending is None or node.ending.error is None:
            emitted += node.emits
        if node.ending is not None:
            result = node.ending
            culprit = node if result.error is not None else None
            break
        queue.extend(node.children)
    ending = Ending(
        *result,
        events,
        handlers=handlers,
        emitted=emitted or None,
        failed=int(culprit is not None),
        failed_event=culprit,
    )
    return PlainEnding(ending, order)


# --- records ---

ENDLESS: Final = float("inf")

# Has to be reported as dropped by the end of a step.
DROP: Final = Ending(events=-2)


class Root:
    """What the model knows of a root.

    Attributes:
        queue: What is left of the cascade and not sent; in an unordered run only
            what a worker has to run.
        empties: Unordered: how many follow-ups need no worker; when the scheduler
            counts them is its affair, but in the end they are counted.
        bad: Unordered: the error of the first follow-up that cannot be planned.
        bad_node: That follow-up.
        before_bad: How many events were over then, and their seconds.
        flight: How many events are in batches.
        ran: What was reported as run, in order.
        events: How many events are over; in an ordered run with those that no
            handler wants.
        handlers: How many handlers ran for them.
        emitted: What they emitted, with the events.
        due: The ending that has to be reported by the end of this step.
        slack: How many more events the ending may have.
        may_drop: Whether `Dropped` would do as well.
        is_begun: Whether the root itself was sent, and not handed back since.
        is_abandoned: Unordered: some of it was given up, so that it cannot end well.
        failed: How often events of it failed and were to be run again.
        before_failed: How many handlers had run for the events before these, as reported.
        crashed: How often workers died of events of it, which were to be run again.
        waits: Events that wait to be run again: for their pause, or to be run alone.
        pausing: Events in an ordered run's queue that failed, and are to pause when it is
            their turn.
    """

    __slots__ = (
        "bad",
        "bad_node",
        "before_bad",
        "before_failed",
        "crashed",
        "due",
        "emitted",
        "empties",
        "events",
        "failed",
        "flight",
        "handlers",
        "index",
        "is_abandoned",
        "is_begun",
        "is_reported",
        "key",
        "may_drop",
        "node",
        "pausing",
        "processed",
        "queue",
        "ran",
        "run",
        "seconds",
        "slack",
        "waits",
    )

    def __init__(self, run: RunModel, index: int, node: Node, key: tuple[Hashable] | None) -> None:
        self.run = run
        self.index = index
        self.node = node
        self.key = key
        self.queue: deque[Node] = deque((node,))
        self.empties = 0
        self.bad: BaseException | None = None
        self.bad_node: Node | None = None
        self.before_bad = 0, 0.0
        self.flight = 0
        self.ran: list[Node] = []
        self.events = 0
        self.handlers = 0
        self.emitted: list[tuple[Node, list[Any]]] = []
        self.seconds = 0.0
        self.processed: object = None
        self.due: Ending | None = None
        self.slack = 0
        self.may_drop = False
        self.is_begun = False
        self.is_abandoned = False
        self.is_reported = False
        self.failed: Counter[Node] = Counter()
        self.before_failed: dict[Node, int] = {}
        self.crashed: Counter[Node] = Counter()
        self.waits: set[Node] = set()
        self.pausing: dict[Node, Result] = {}

    @property
    def attempts(self) -> int:
        """How often the event was run that was run most often."""
        nodes = self.failed.keys() | self.crashed.keys()
        return 1 + max([self.failed[node] + self.crashed[node] for node in nodes], default=0)

    def ending_of(self, node: Node) -> Result | None:
        """What a worker makes of an event that it runs now."""
        if self.failed[node] < node.failures:
            return Result(error=Transient("for now"), handler="h")
        return node.ending

    def all_emitted(self) -> list[Any] | None:
        """What its events emitted, in the cascade's order."""
        found = self.emitted
        if self.run.unordered:
            found = sorted(found, key=lambda item: (len(item[0].path), item[0].path))
        return [item for _, items in found for item in items] or None

    @property
    def line(self) -> deque[Root]:
        """The roots with its key, which it has, that are not over."""
        return self.run.keys[self.key or ()]

    @property
    def is_first(self) -> bool:
        """Whether no root with its key is before it."""
        return self.key is None or self.line[0] is self

    @property
    def can_go_on(self) -> bool:
        """Whether something of it will be over without anything else being so before."""
        return self.is_at_work or self.index in self.run.runnable

    @property
    def is_at_work(self) -> bool:
        """Whether some of it is in a batch, or waits to be run again."""
        return bool(self.flight or self.waits)


class RunModel:
    """What the model knows of a run.

    Attributes:
        roots: Those not reported, by index.
        runnable: Those of them with something to send.
        waiting: Those of them whose key is taken.
        keys: The roots of each key that are not over, in order; of all runs that share
            their keys, if this one does.
        unbegun: How many roots have not been begun.
        newest: The plan of the last root that was accepted.
        bound: Roots behind this index are not wanted.
        ended: Roots that were reported, and not as dropped.
        failures: Reported errors, by root.
        lost: Roots whose event was running when its worker died.
    """

    def __init__(self, opened: Opened, keys: dict[tuple[Hashable, ...], deque[Root]]) -> None:
        self.number = opened.run
        self.opened = opened
        self.unordered = opened.unordered
        self.closed = False
        self.dropped = False
        self.bound: float = ENDLESS
        self.roots: dict[int, Root] = {}
        self.runnable: dict[int, Root] = {}
        self.waiting: dict[int, Root] = {}
        self.keys = keys
        self.unbegun = 0
        self.newest: FakePlan | None = None
        self.nodes: dict[int, Node] = {}
        self.ended: set[int] = set()
        self.failures: dict[int, BaseException] = {}
        self.lost: set[int] = set()

    @property
    def has_more(self) -> bool:
        """Whether there is something to send that is wanted; in the middle of a step, too."""
        return any(index <= self.bound for index in self.runnable)

    @property
    def is_open(self) -> bool:
        """Whether a root was handed in and not reported."""
        return any(not root.is_reported for root in self.roots.values())


class Chain(NamedTuple):
    """Positions of which one may leave the rest unrun.

    Attributes:
        start: The first.
        stop: The one behind the last.
        ends: What does that; see `ChainEnds`.
        is_key_queue: Whether they are roots of one key, and not of one cascade.
    """

    start: int
    stop: int
    ends: ChainEnds
    is_key_queue: bool


class Held:
    """A batch in a worker.

    Attributes:
        roots: By position.
        nodes: By position.
        chains: In order.
        done: How far the worker is, as reported.
        skip_to: Positions before this one are passed over.
        size_bytes: 0 until it is weighed.
    """

    __slots__ = ("batch", "chains", "done", "nodes", "roots", "run", "size_bytes", "skip_to")

    def __init__(self, batch: Batch, run: RunModel) -> None:
        self.batch = batch
        self.run = run
        self.roots: list[Root] = []
        self.nodes: list[Node] = []
        self.chains: list[Chain] = []
        self.done = 0
        self.skip_to = 0
        self.size_bytes = 0

    @property
    def size(self) -> int:
        return len(self.nodes)

    def chain_at(self, position: int) -> Chain | None:
        """The chain that a position is in."""
        for chain in self.chains:
            if chain.start <= position < chain.stop:
                return chain
        return None

    def cut_at(self, position: int) -> Chain | None:
        """The chain of which the worker leaves the rest unrun, behind this event; or None."""
        chain = self.chain_at(position)
        if chain is None:
            return None
        node, root = self.nodes[position], self.roots[position]
        ending = root.ending_of(node)
        if ending is node.ending and node.is_spoiled:
            ending = None  # for all that the worker knows
        if ending is None:
            is_cut = chain.ends.by_follow_ups and bool(node.children)
        elif ending.error is not None:
            is_cut = chain.ends.by_error
        else:
            is_cut = chain.ends.by_value
        return chain if is_cut else None


class WorkerModel:
    """A ready worker: the batches it was sent and is not done with."""

    __slots__ = ("clock", "held", "is_retired", "is_slow", "was_heavy")

    def __init__(self) -> None:
        self.held: deque[Held] = deque()
        self.is_slow = False
        self.was_heavy = False
        self.is_retired = False
        self.clock = 0.0

    @property
    def is_alone(self) -> bool:
        """Whether it gets nothing beside what it holds."""
        return bool(self.held) and self.held[0].batch.is_alone

    @property
    def size_bytes(self) -> int:
        """Of all that it holds."""
        return sum([held.size_bytes for held in self.held])

    @property
    def seconds_ahead(self) -> float:
        """What it has to do behind its first batch."""
        return sum([held.batch.seconds for held in self.held]) - (
            self.held[0].batch.seconds if self.held else 0.0
        )


class Told:
    """What a worker tells in a report.

    Attributes:
        now: The worker's clock.
        ends: When each event was over.
        cut: Behind which events the rest of a key_queue was left unrun.
    """

    __slots__ = (
        "cut",
        "emitted",
        "ends",
        "follow_ups",
        "handlers",
        "now",
        "processed",
        "results",
        "timings",
        "values",
    )

    def __init__(self, now: float) -> None:
        self.now = now
        self.ends: list[float] = []
        self.follow_ups: dict[int, Sequence[Planned]] = {}
        self.results: dict[int, Result] = {}
        self.processed: dict[int, Any] = {}
        self.values: dict[int, Any] = {}
        self.emitted: dict[int, list[Any]] = {}
        self.handlers: dict[int, int] = {}
        self.cut: list[int] = []
        self.timings: dict[tuple[int, ...], tuple[int, float]] = {}

    def ran(self, node: Node, seconds: float) -> float:
        self.now += seconds
        self.ends.append(self.now)
        count, total = self.timings.get(node.plan.indices, (0, 0.0))
        self.timings[node.plan.indices] = count + 1, total + seconds
        return seconds

    @property
    def all_timings(self) -> list[tuple[tuple[int, ...], int, float]]:
        return [(indices, count, total) for indices, (count, total) in self.timings.items()]


def column(items: dict[int, Any]) -> Column:
    """What events left behind, as the codec has it."""
    return Column(list(items), list(items.values()))
