"""A simulator for the scheduler: a seed, fake workers, a manual clock, and a `World`.

A seed decides on a character (how many workers, how long and large events are,
what else happens and how often), and then on all that happens. Workers do what
real ones do: they report in parts, give back what is overdue, are slow and have
what waits behind taken back, and die; applications open runs of all kinds, feed
them by the demand or as they like, close and drop them.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Final, NamedTuple

from evproc_pool.core.estimates import MOST_EVENTS, OVERDUE_FACTOR, TARGET_SECONDS
from evproc_pool.core.event_columns import Unplannable
from evproc_pool.core.inputs_and_effects import Result
from evproc_pool.core.retry_policy import RetryPolicy
from evproc_pool.core.scheduler import Scheduler
from tests.support.model import (
    ENDLESS,
    UNWANTED,
    Failed,
    FakePlan,
    Node,
    Transient,
    Violation,
    check,
)
from tests.support.world import World

# Trees that roots are picked from, and how many steps these are the same.
_TREES: Final = 150
_STEPS_OF_TREES: Final = 2_000


class _Character(NamedTuple):
    """What a seed makes of a simulation; probabilities are of one thing among all.

    Attributes:
        workers: How many.
        plans: With what their events usually take.
        follows: That an event has follow-ups.
        ends: That an event ends its cascade.
        deaths: That a worker dies in a batch.
        partial: That it reports a part of a batch.
        gives: That it gives back the rest of one.
        slow: That one with more to do than it is at is slow.
        surprise: That an event takes much longer than others of its plan.
        most_runs: At a time.
        most_block: Roots handed in at a time, at most.
        closes: That the application closes a run.
        is_fed: Whether the application hands in what there is demand for, at every
            turn, and nothing else.
        unordered: That a run is.
        keyed: That a run has keys.
        most_keys: How many keys.
        returns: That a run returns its events.
        bulk: That nobody waits for single roots of a run.
        retires: That a worker is replaced.
        fails: That an event fails at first.
        spoils: That what an event left cannot be rebuilt.
        emits: That it emits something.
        shares: That a run's keys are those of others, too.
        starts: That a worker is started that is never ready.
        policy: Which events are run again.
    """

    workers: int
    plans: Sequence[tuple[FakePlan, float]]
    follows: float
    ends: float
    deaths: float
    partial: float
    gives: float
    slow: float
    surprise: float
    most_runs: int
    most_block: int
    closes: float
    is_fed: bool
    unordered: float
    keyed: float
    most_keys: int
    returns: float
    bulk: float
    retires: float
    fails: float
    spoils: float
    emits: float
    shares: float
    starts: float
    policy: RetryPolicy


def _character(rng: random.Random) -> _Character:
    is_fed = rng.random() < 0.3
    # what is fed is as much as the workers need, and that is many of quick ones
    speeds = [3e-4, 1e-3, 3e-3, 1e-2, 3e-2] + ([] if is_fed else [5e-5, 5e-5])
    if rng.random() < 0.1 and not is_fed:
        speeds += [1e-5] * 6
    sizes = [100, 100, 100, 2e4, 4e5, 9e6] if rng.random() < 0.4 else [100]
    plans = [
        (FakePlan((number, 9)[: rng.choice([1, 1, 2])], rng.choice(sizes)), rng.choice(speeds))
        for number in range(1, rng.choice([2, 3, 6]))
    ]
    return _Character(
        workers=rng.choice([1, 2, 2, 3, 4] if is_fed else [1, 1, 2, 2, 3, 5, 8, 12]),
        plans=plans,
        follows=rng.choice([0.0, 0.05, 0.2, 0.5]),
        ends=rng.choice([0.0, 0.002, 0.05, 0.2]),
        deaths=rng.choice([0.0, 0.01, 0.1]),
        partial=rng.choice([0.0, 0.2, 0.7]),
        gives=rng.choice([0.0, 0.05, 0.3]),
        slow=rng.choice([0.0, 0.1, 0.5]),
        surprise=rng.choice([0.0, 0.01]),
        most_runs=rng.choice([1, 2, 4]),
        most_block=rng.choice([1, 5, 20, 60, 60, 200]),
        closes=rng.choice([0.002, 0.02, 0.1]),
        is_fed=is_fed,
        unordered=rng.choice([0.0, 0.3, 1.0]),
        keyed=rng.choice([0.0, 0.3, 1.0]),
        most_keys=rng.choice([1, 3, 20, 1000]),
        returns=rng.choice([0.0, 0.0, 0.5]),
        bulk=rng.choice([0.0, 0.5, 1.0]),
        retires=rng.choice([0.0, 0.0, 0.01, 0.1]),
        fails=rng.choice([0.0, 0.0, 0.02, 0.2]),
        spoils=rng.choice([0.0, 0.0, 0.02]),
        emits=rng.choice([0.0, 0.0, 0.05, 0.5]),
        shares=rng.choice([0.0, 0.5, 1.0]),
        starts=rng.choice([0.0, 0.0, 0.01]),
        policy=RetryPolicy(
            rng.choice([0, 1, 3]), (Transient,), crash_limit=rng.choice([1, 2, 2, 4])
        ),
    )


class _Application:
    """One call of the application.

    Attributes:
        next_root: The index of the next one.
        left: How many roots there are still; only where it is fed by demand.
        is_keyed: Whether roots have keys.
    """

    def __init__(self, *, left: int, is_keyed: bool) -> None:
        self.next_root = 0
        self.left = left
        self.is_keyed = is_keyed


class Simulation:
    """One seed's run; see the module's text."""

    def __init__(self, seed: int, kind: type[Scheduler] = Scheduler) -> None:
        self._rng = random.Random(seed)
        self._character = _character(self._rng)
        policy = self._character.policy
        self.world = World(kind(policy), policy)
        self.world.on_send = self._sent
        self.world.on_retry = self._retry
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._ties = 0
        self._now = 0.0
        self._next_worker = 0
        self._next_run = 0
        self._applications: dict[int, _Application] = {}
        # what each worker is about to report: how far it will be, when, and a number
        # that tells whether that is still so
        self._about: dict[int, tuple[int, float, int]] = {}
        self._trees: list[Node] = []
        self._trees_until = 0
        self._is_winding_down = False

    def play(self, steps: int) -> World:
        """Play so many steps, and then to the end of what is under way."""
        world, rng = self.world, self._rng
        for _ in range(self._character.workers):
            self._start_worker()
        turn = self._feeding_turn if self._character.is_fed else self._turn
        while world.steps < steps:
            turn()
        self._is_winding_down = True
        for run in list(world.runs):
            world.close(run, drop=rng.random() < 0.3)
        while self._heap:
            self._pass_time()
        world.check_over()
        return world

    def _turn(self) -> None:
        if not self._heap or self._rng.random() < 0.3:
            self._application()
        else:
            self._pass_time()

    def _feeding_turn(self) -> None:
        world, rng = self.world, self._rng
        if len(world.runs) < self._character.most_runs and rng.random() < 0.3:
            self._open()
        for run in list(world.runs):
            self._feed(run)
        if self._heap:
            self._pass_time()
        elif any(self._applications[run].left for run in world.runs):
            raise Violation("there is input left, and everybody waits")

    def _replace(self) -> None:
        """Let a worker end when it is done with what it holds."""
        alive = [each for each, model in self.world.workers.items() if not model.is_retired]
        if alive and not self._is_winding_down:
            worker = self._rng.choice(alive)
            self.world.seen["replaced"] += 1
            self.world.retire(worker)
            self._start_worker()
            self._let_go(worker)

    def _let_go(self, worker: int) -> None:
        model = self.world.workers.get(worker)
        if model is not None and model.is_retired and not model.held:
            self.world.gone(worker, None)

    def _pass_time(self) -> None:
        if self._rng.random() < self._character.retires:
            self._replace()
        if self._rng.random() < self._character.slow:
            self._look_for_slow()
        if self._rng.random() < self._character.starts and not self._is_winding_down:
            self._start_in_vain()
        self._now, _, happen = heapq.heappop(self._heap)
        happen()

    def _at(self, seconds: float, happen: Callable[[], None]) -> None:
        self._ties += 1
        heapq.heappush(self._heap, (self._now + seconds, self._ties, happen))

    # --- the application ---

    def _open(self) -> None:
        rng, character = self._rng, self._character
        self._next_run += 1
        self._applications[self._next_run] = _Application(
            left=rng.choice([0, 1, 10, 300, 3000]), is_keyed=rng.random() < character.keyed
        )
        self.world.open(
            self._next_run,
            until_error=rng.random() < 0.5,
            unordered=rng.random() < character.unordered,
            return_events=rng.random() < character.returns,
            is_bulk=rng.random() < character.bulk,
            shares_keys=rng.random() < character.shares,
        )

    def _application(self) -> None:
        world, rng, character = self.world, self._rng, self._character
        if len(world.runs) < character.most_runs and rng.random() < 0.3:
            self._open()
            return
        if not world.runs:
            return
        run = rng.choice(list(world.runs))
        model = world.runs[run]
        if rng.random() < character.closes or model.closed:
            if not model.closed or rng.random() < 0.1:
                world.close(run, drop=rng.random() < 0.4)
            return
        demand = world.demand(run)
        # also more than is wanted, and what is no longer wanted
        if demand or rng.random() < 0.05:
            self._accept(run, min(max(1, demand), rng.randint(1, character.most_block)))

    def _feed(self, run: int) -> None:
        """Hand in what there is demand for; at the end of the input, or a failure, close."""
        world = self.world
        model, application = world.runs[run], self._applications[run]
        if model.closed:
            return
        if model.bound != ENDLESS:
            application.left = 0
        # the newest plan is what the demand goes by: where it is a long one, a
        # batch may take all that is handed in
        for _ in range(100):
            demand = min(world.demand(run), application.left)
            if not demand:
                break
            application.left -= demand
            # what closes it is there, too, when the last ones come
            self._accept(run, demand, more=not application.left)
            if not application.left:
                break
        if application.left and not application.is_keyed:
            workers = world.workers.items()
            idle = [each for each, load in workers if not (load.held or load.is_retired)]
            check(not idle, "workers {} are idle, and run {} is fed", idle, run)
        if not application.left:
            world.close(run)

    def _accept(self, run: int, count: int, *, more: bool = False) -> None:
        rng, application = self._rng, self._applications[run]
        if self.world.steps >= self._trees_until:
            self._trees = [self._node(0, planned=True) for _ in range(_TREES)]
            self._trees_until = self.world.steps + _STEPS_OF_TREES
        first = application.next_root
        if rng.random() < 0.2:
            first += rng.randint(1, 3)  # events that no handler wants are not handed in
        application.next_root = first + count
        keys: list[Hashable] | None = None
        if application.is_keyed:
            keys = rng.choices(range(self._character.most_keys), k=count)
        nodes = rng.choices(self._trees, k=count)
        self.world.accept(run, first, nodes, keys, more=more)

    def _node(self, depth: int, *, planned: bool) -> Node:
        rng, character = self._rng, self._character
        draw = rng.random()
        if not planned and draw < 0.15:
            return Node(UNWANTED if draw < 0.13 else Unplannable(Failed("planning")))
        plan, seconds = rng.choice(character.plans)
        seconds *= 0.5 + draw
        if rng.random() < character.surprise:
            seconds *= 30
        failures = 0
        if rng.random() < character.fails:
            failures = rng.choice([1, 1, 2, 4])
        ending = self._ending()
        is_spoiled = ending is None and not failures and rng.random() < character.spoils
        if is_spoiled:
            ending = Result(error=Failed("cannot be rebuilt"))
        handlers = None
        if ending is not None and not is_spoiled and rng.random() < 0.5:
            handlers = 1
        emits = [draw] if rng.random() < character.emits else []
        children: tuple[Node, ...] = ()
        draw = rng.random()
        has_more = ending is None or is_spoiled or depth == 3
        if depth < 4 and draw < character.follows and has_more:
            count = rng.choice([1, 1, 2, 3])
            if depth == 0 and draw < character.follows / 10:
                count, depth = 30, 4
                if seconds < 1e-4 and draw < character.follows / 200:
                    count = 2 * MOST_EVENTS  # more than go into a batch
            children = tuple([self._node(depth + 1, planned=False) for _ in range(count)])
        return Node(
            plan,
            children=children,
            ending=ending,
            seconds=seconds,
            failures=failures,
            handlers=handlers,
            emits=emits,
            is_spoiled=is_spoiled,
        )

    def _ending(self) -> Result | None:
        rng = self._rng
        if rng.random() >= self._character.ends:
            return None
        kind = rng.randrange(3)
        if kind:
            return Result(stopped=True, value=None if kind == 1 else rng.random())
        error = Failed("handler") if rng.random() < 0.7 else Transient("for ever")
        return Result(error=error, handler="h")

    # --- workers ---

    def _retry(self, token: int) -> None:
        self._at(self._rng.choice([0.0, 0.002, 0.1]), lambda: self.world.due(token))

    def _start_worker(self) -> None:
        self._next_worker += 1
        worker = self._next_worker
        self.world.start()
        self._at(self._rng.choice([0.0, 0.02, 0.2]), lambda: self._started(worker))

    def _started(self, worker: int) -> None:
        self.world.start_over()
        self.world.worker_ready(worker)

    def _start_in_vain(self) -> None:
        """A worker is started, and dies before it is ready."""
        self.world.seen["started in vain"] += 1
        self.world.start()
        self._at(self._rng.choice([0.0, 0.02, 0.2]), self.world.start_over)

    def _sent(self, worker: int) -> None:
        if len(self.world.workers[worker].held) == 1:
            self._begin(worker)

    def _begin(self, worker: int) -> None:
        """The worker goes on with its first batch: decide how far it comes, and when."""
        rng, character = self._rng, self._character
        held = self.world.workers[worker].held[0]
        end = held.size
        gives = False
        if rng.random() < character.partial and end - held.done > 1:
            end = rng.randint(held.done + 1, end)
        if rng.random() < character.gives:
            # one that was taken back before it was begun is given back whole
            gives = end < held.size or held.done == 0
            end = 0 if end == held.size and gives else end
        seconds = 0.0
        # as the worker does
        overdue = OVERDUE_FACTOR * max(TARGET_SECONDS, held.batch.seconds)
        for position, node in self.world.stretch(worker, end):
            seconds += node.seconds
            if seconds > overdue and position + 1 < held.size:
                end, gives = position + 1, True
                break
        if rng.random() < character.deaths and not self._is_winding_down:
            self._about.pop(worker, None)
            self._at(seconds * rng.random(), lambda: self._die(worker, end))
        else:
            self._will_report(worker, end, seconds + 2e-5, gives=gives)

    def _will_report(self, worker: int, end: int, seconds: float, *, gives: bool) -> None:
        number = self._ties
        self._about[worker] = end, self._now + seconds, number
        self._at(seconds, lambda: self._report(worker, number, gives=gives))

    def _report(self, worker: int, number: int, *, gives: bool) -> None:
        end, _, last_number = self._about.get(worker, (0, 0.0, -1))
        if number != last_number:
            return  # what waits behind was taken back meanwhile
        model = self.world.workers[worker]
        is_over = gives or end == model.held[0].size
        had = len(model.held)
        self.world.progress(worker, end, gave_back=gives)
        # where the batch was its only one, a new one has begun by being sent
        if not is_over or had > 1:
            self._begin(worker)
        self._let_go(worker)

    def _look_for_slow(self) -> None:
        """Take back what waits in a worker that is overloaded."""
        for worker in self.world.scheduler.overloaded:
            if worker not in self._about or self._rng.random() < 0.5:
                continue
            end, then, _ = self._about[worker]
            held = self.world.workers[worker].held[0]
            if end > held.done:
                kept = self._rng.randint(held.done + 1, end)
                self.world.take_back(worker, kept)
                # it is done with what it kept, or gives back what is nothing any more
                gives = self._rng.random() < 0.5
                self._will_report(worker, kept, max(0.0, then - self._now), gives=gives)
                return

    def _die(self, worker: int, end: int) -> None:
        world, rng = self.world, self._rng
        positions = [position for position, _ in world.stretch(worker, end)]
        running = rng.choice(positions) if positions and rng.random() < 0.8 else None
        error = None
        world.retire(worker)
        if running is not None:
            error = Failed("died")
            unsent = world.silent_end(worker, running)
            if unsent > world.workers[worker].held[0].done:
                world.progress(worker, unsent, is_silent=True)
        sparable = world.sparable(worker, -1 if running is None else running)
        spared = rng.choice(sparable) if sparable and rng.random() < 0.3 else None
        world.gone(worker, running, error, spared)
        self._start_worker()
        # now and then an idle one goes too
        idle = [number for number, model in world.workers.items() if not model.held]
        if idle and rng.random() < 0.3:
            world.gone(idle[0], None)
            self._start_worker()


def simulate(seed: int, steps: int, kind: type[Scheduler] = Scheduler) -> World:
    """Play a seed.

    Raises:
        Violation: Something does not hold; the seed finds it again.
    """
    return Simulation(seed, kind).play(steps)


def histories(seeds: Sequence[int], steps: int) -> Iterator[int]:
    """What the schedulers of these seeds did, as a number each."""
    for seed in seeds:
        yield simulate(seed, steps).history
