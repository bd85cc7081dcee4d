"""The scheduler under Hypothesis: it chooses what happens, `World` checks, and failures shrink."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    multiple,
    precondition,
    rule,
)

from evproc_pool.core.event_columns import Unplannable
from evproc_pool.core.inputs_and_effects import Result
from evproc_pool.core.retry_policy import RetryPolicy
from tests.support.model import UNWANTED, Failed, FakePlan, Node, Transient
from tests.support.sizes import BARS
from tests.support.world import World

_PLANS = [
    (FakePlan((1,)), 1e-5),
    (FakePlan((2, 4), size_bytes=3e5), 2e-3),
    (FakePlan((3,), size_bytes=9e6), 0.1),
    # small and not very short: in a bulk run its batches are larger than in any other
    (FakePlan((5,)), 1e-3),
]


def _ends() -> st.SearchStrategy[Result | None]:
    return st.one_of(
        st.none(),
        st.sampled_from([None, 5]).map(lambda value: Result(stopped=True, value=value)),
        st.sampled_from("hi").map(lambda name: Result(error=Failed("handler"), handler=name)),
        st.sampled_from("hi").map(lambda name: Result(error=Transient("always"), handler=name)),
        st.just("cannot be rebuilt").map(lambda text: Result(error=Failed(text))),
    )


def _node(
    plan: tuple[FakePlan, float],
    children: tuple[Node, ...],
    ending: Result | None,
    emits: list[int],
    failures: int,
) -> Node:
    is_spoiled = ending is not None and ending.error is not None and ending.handler is None
    handlers = 1 if ending is not None and not is_spoiled else None
    return Node(
        plan[0],
        seconds=plan[1],
        children=children,
        ending=ending,
        handlers=handlers,
        emits=emits,
        failures=0 if is_spoiled else failures,
        is_spoiled=is_spoiled,
    )


def _nodes() -> st.SearchStrategy[Node]:
    """Cascades of a few events, with everything that a follow-up can be."""
    emits = st.sampled_from([[], [], [], [7], [8, 9]])
    failures = st.sampled_from([0, 0, 0, 1, 2])
    planned = st.builds(_node, st.sampled_from(_PLANS), st.just(()), _ends(), emits, failures)
    others = st.one_of(
        st.just(UNWANTED).map(Node),
        st.just("planning").map(lambda text: Node(Unplannable(Failed(text)))),
    )
    return st.recursive(
        planned,
        lambda inner: st.builds(
            _node,
            st.sampled_from(_PLANS),
            st.lists(st.one_of(inner, inner, others), max_size=3).map(tuple),
            _ends(),
            emits,
            failures,
        ),
        max_leaves=6,
    )


# So many roots are handed in at a time: the world is checked as a whole at each step.
_MOST_ROOTS = 50


# What the worlds of all examples have seen.
_seen: Counter[str] = Counter()


class SchedulerMachine(RuleBasedStateMachine):
    """Runs, roots, retries, workers and their ends in any order that can happen."""

    runs: Bundle[int] = Bundle("runs")
    workers: Bundle[int] = Bundle("workers")

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self._numbers = 0
        self._next_root: dict[int, int] = {}
        self._has_keys: dict[int, bool] = {}
        self._pauses: list[int] = []  # tokens of the events that wait for a retry

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers

    @initialize(
        target=workers,
        max_retries=st.sampled_from([0, 1, 3]),
        crash_limit=st.sampled_from([1, 2, 3]),
    )
    def first_worker(self, max_retries: int, crash_limit: int) -> int:
        policy = RetryPolicy(max_retries, (Transient,), crash_limit=crash_limit)
        self.world = World(policy=policy)
        self.world.on_retry = self._pauses.append
        return self.start()

    @rule(target=workers)
    def worker_ready(self) -> int:
        return self.start()

    def start(self) -> int:
        number = self._number()
        self.world.worker_ready(number)
        return number

    @precondition(lambda self: self.world.starting < 2)
    @rule()
    def start_one(self) -> None:
        self.world.start()

    @precondition(lambda self: self.world.starting)
    @rule(target=workers)
    def one_is_ready(self) -> int:
        self.world.start_over()
        return self.start()

    @precondition(lambda self: self.world.starting)
    @rule()
    def one_is_never_ready(self) -> None:
        self.world.start_over()

    @rule(
        target=runs,
        until_error=st.booleans(),
        unordered=st.booleans(),
        return_events=st.booleans(),
        is_bulk=st.booleans(),
        keys=st.sampled_from(["none", "its own", "shared"]),
    )
    def open(
        self, until_error: bool, unordered: bool, return_events: bool, is_bulk: bool, keys: str
    ) -> int:
        number = self._number()
        self._next_root[number] = 0
        self._has_keys[number] = keys != "none"
        self.world.open(
            number,
            until_error=until_error,
            unordered=unordered,
            return_events=return_events,
            is_bulk=is_bulk,
            shares_keys=keys == "shared",
        )
        return number

    @rule(
        run=runs,
        gap=st.integers(0, 2),
        nodes=st.lists(_nodes(), min_size=1, max_size=5),
        times=st.sampled_from([1, 1, 1, 60]),
        keys=st.lists(st.integers(0, 2), min_size=5, max_size=5),
    )
    def accept(self, run: int, gap: int, nodes: list[Node], times: int, keys: list[int]) -> None:
        model = self.world.runs.get(run)
        if model is None or model.closed:
            return
        first = self._next_root[run] + gap
        self._next_root[run] = first + len(nodes) * times
        chosen = keys[: len(nodes)] * times if self._has_keys[run] else None
        self.world.accept(run, first, nodes * times, chosen)

    @rule(run=runs, node=_nodes(), key=st.integers(0, 2))
    def feed(self, run: int, node: Node, key: int) -> None:
        if run not in self.world.runs:
            return
        # of roots with one key there may be a demand for thousands, to no end
        demand = min(self.world.demand(run), _MOST_ROOTS)
        if demand:
            first = self._next_root[run]
            self._next_root[run] = first + demand
            chosen = [key] * demand if self._has_keys[run] else None
            self.world.accept(run, first, [node] * demand, chosen)

    @rule(run=runs, drop=st.booleans())
    def close(self, run: int, drop: bool) -> None:
        self.world.close(run, drop=drop)

    @property
    def _busy(self) -> list[int]:
        """The workers that have a batch."""
        return [number for number, model in self.world.workers.items() if model.held]

    @precondition(lambda self: self._busy)
    @rule(data=st.data(), whole=st.booleans(), gives=st.booleans())
    def progress(self, data: Any, whole: bool, gives: bool) -> None:
        worker = data.draw(st.sampled_from(self._busy))
        held = self.world.workers[worker].held[0]
        end = held.size
        if not whole:
            end = data.draw(st.integers(held.done + (not gives), end))
        self.world.progress(worker, end, gave_back=gives and not whole)

    @precondition(lambda self: self._busy)
    @rule(data=st.data())
    def take_back(self, data: Any) -> None:
        worker = data.draw(st.sampled_from(self._busy))
        held = self.world.workers[worker].held[0]
        self.world.take_back(worker, data.draw(st.integers(held.done + 1, held.size)))

    @precondition(lambda self: self._pauses)
    @rule(data=st.data())
    def due(self, data: Any) -> None:
        token = data.draw(st.sampled_from(self._pauses))
        self._pauses.remove(token)
        self.world.due(token)

    @rule(worker=consumes(workers), data=st.data())
    def die(self, worker: int, data: Any) -> None:
        positions = [position for position, _ in self.world.stretch(worker)]
        running = data.draw(st.sampled_from([None, *positions]))
        if running is None:
            self.world.gone(worker, None)
            return
        unsent = self.world.silent_end(worker, running)
        if unsent > self.world.workers[worker].held[0].done:
            self.world.progress(worker, unsent, is_silent=True)
        self.world.gone(worker, running, Failed("died"))

    @rule(target=workers, count=st.integers(2, 4))
    def several_workers_ready(self, count: int) -> Any:
        return multiple(*[self.start() for _ in range(count)])

    def teardown(self) -> None:
        """Whatever happened, it all comes to an end."""
        while self.world.starting:
            self.world.start_over()
        for run in list(self.world.runs):
            self.world.close(run)
        if self.world.runs and not self.world.workers:
            self.start()
        while (busy := self._busy) or self._pauses:
            if busy:
                self.world.progress(busy[0], self.world.workers[busy[0]].held[0].size)
            else:
                self.world.due(self._pauses.pop())
        self.world.check_over()
        _seen.update(self.world.seen)


SchedulerMachine.TestCase.settings = settings(
    max_examples=1_000 if BARS else 20,
    stateful_step_count=60 if BARS else 40,
    deadline=None,  # the machine may be busy
    derandomize=not BARS,  # of other twenty examples, some have no event that fails
)


class TestSchedulerMachine(SchedulerMachine.TestCase):  # type: ignore[misc, valid-type]  # made by Hypothesis
    @classmethod
    def tearDownClass(cls) -> None:
        """Fail if the examples had no retries, or no batch as large as in bulk runs only."""
        assert _seen["failed"], _seen
        assert _seen["bulk"] or not BARS, _seen  # which a few examples may lack
