"""The scheduler under simulation: random worlds, every invariant after every step."""

from __future__ import annotations

import random
from collections import Counter, deque

import pytest

from evproc_pool import scheduler as module
from evproc_pool.schedule import (
    Accepted,
    Batch,
    Cascade,
    Opened,
    Part,
    Progress,
    Result,
    TakenBack,
    Times,
    Unplannable,
    WorkerGone,
)
from evproc_pool.scheduler import Scheduler
from tests.pool_tests.model import UNWANTED, Violation
from tests.pool_tests.simulator import histories, simulate
from tests.pool_tests.sizes import BARS

# In parts, because a test has a time limit of its own. By default 300 seeds and
# about 100,000 steps; in full 1,000 seeds and 10,000,000 steps.
_PARTS = 100 if BARS else 5
_SEEDS = 10 if BARS else 60
_STEPS = 10_000 if BARS else 333


@pytest.mark.parametrize("part", range(_PARTS))
def test_the_invariants_hold_after_every_step(part: int) -> None:
    steps = 0
    most_events = 0
    seen: Counter[str] = Counter()
    for seed in range(part * _SEEDS, (part + 1) * _SEEDS):
        world = simulate(seed, _STEPS)
        steps += world.steps
        most_events = max(most_events, world.most_events)
        seen += world.seen
    assert steps >= _SEEDS * _STEPS
    # the worlds are not all alike, nor all small
    assert most_events > 20
    if not BARS:
        assert min(seen[what] for what in _EVERYTHING) > 0


_EVERYTHING = [
    "chains",
    "dropped",
    "finished",
    "given back",
    "limited by bytes",
    "lost",
    "no more",
    "taken back",
    "unordered at once",
]


def test_equal_seeds_give_equal_histories() -> None:
    first = list(histories(range(20), 200))
    assert first == list(histories(range(20), 200))
    assert len(set(first)) == len(first)


# --- does the simulator see anything? schedulers that are wrong in one thing each ---


class _ChargesTheFirstOfTheBatch(Scheduler):
    def _worker_gone(self, item: WorkerGone) -> None:
        if item.running is not None:
            item = item._replace(running=self._held[item.worker][0].done)
        super()._worker_gone(item)


class _LosesWhatWaitsInADeadWorker(Scheduler):
    def _worker_gone(self, item: WorkerGone) -> None:
        held = self._held[item.worker]
        if len(held) > 1:
            self._set_load(item.worker, -1)
            held.pop()
        super()._worker_gone(item)


class _RunsFollowUpsAtOnce(Scheduler):
    def _event_over(
        self, run: module._Run, cascade: Cascade, position: int, begin: int, item: Progress
    ) -> None:
        waiting = list(cascade.queue)
        cascade.queue.clear()
        super()._event_over(run, cascade, position, begin, item)
        if not cascade.is_over:
            cascade.queue.extend(waiting)


class _GoesOnInTheMiddleOfAChain(Scheduler):
    def _cascades_over(
        self, run: module._Run, part: Part, positions: range, begin: int, item: Progress
    ) -> None:
        super()._cascades_over(run, part, positions, begin, item)
        if part.is_chain:
            self._resume(run, part.cascades[0], [])


class _KeepsWhatIsBehindAnError(Scheduler):
    def _drop_unwanted(self, run: module._Run) -> None:
        if run.bound < 0:  # dropping as such works
            super()._drop_unwanted(run)


class _DropsTheOneBeforeAnError(Scheduler):
    def _drop_unwanted(self, run: module._Run) -> None:
        if run.bound not in (-1, module._ENDLESS):
            run.bound -= 1
        super()._drop_unwanted(run)


class _DropsNoneThatWaits(Scheduler):
    def _drop_unwanted(self, run: module._Run) -> None:
        if not run.waiting:
            super()._drop_unwanted(run)


class _GivesTooMuchToOneWorker(Scheduler):
    def _roomiest(self, run: module._Run) -> int | None:
        for workers in self._by_load[:2]:
            for worker in reversed(workers):
                return worker
        return None


class _LeavesRoomUnused(Scheduler):
    def _roomiest(self, run: module._Run) -> int | None:
        return next(iter(self._by_load[0]), None)


class _SendsMoreToASlowWorker(Scheduler):
    def _taken_back(self, item: TakenBack) -> None:
        super()._taken_back(item)
        self._slow.clear()


class _IsSlowForEver(Scheduler):
    def _progress(self, item: Progress) -> None:
        slow = set(self._slow)
        super()._progress(item)
        self._slow |= slow


class _LosesWhatIsTakenBack(Scheduler):
    def _taken_back(self, item: TakenBack) -> None:
        size = self._held[item.worker][0].size
        super()._taken_back(item)
        self._held[item.worker][0].size = size


class _PassesOverErrorsOfPlanning(Scheduler):
    def _resume(self, run: module._Run, cascade: Cascade, quiet: list[Cascade]) -> None:
        cascade.queue = deque(
            (event, UNWANTED if isinstance(plan, Unplannable) else plan)
            for event, plan in cascade.queue
        )
        super()._resume(run, cascade, quiet)


class _ReordersWhatComesBack(Scheduler):
    def _hand_back(self, batch: Batch, running: int | None, charged: Result) -> None:
        for part in batch.parts:
            if part.is_chain and running is None and not batch.done:
                part.events.reverse()
                part.plans.reverse()
        super()._hand_back(batch, running, charged)


class _LosesWhatIsGivenBack(Scheduler):
    def _hand_back(self, batch: Batch, running: int | None, charged: Result) -> None:
        if running is not None or not batch.done:
            super()._hand_back(batch, running, charged)


class _CountsWhatIsGivenBack(Scheduler):
    def _hand_back(self, batch: Batch, running: int | None, charged: Result) -> None:
        for part in batch.parts:
            for cascade in part.cascades:
                cascade.events += 1
        super()._hand_back(batch, running, charged)


class _KnowsNoKeys(Scheduler):
    def _accepted(self, item: Accepted) -> None:
        super()._accepted(item._replace(keys=None))


class _TakesKeysInAnyOrder(Scheduler):
    def _over(self, run: module._Run, cascade: Cascade) -> None:
        for waiting in run.keys.values():
            waiting.reverse()
        super()._over(run, cascade)


class _ForgetsWhoWaitsForAKey(Scheduler):
    def _over(self, run: module._Run, cascade: Cascade) -> None:
        if cascade.key is not None and run.keys[cascade.key]:
            cascade.key = None
        super()._over(run, cascade)


class _OrdersEveryRun(Scheduler):
    def _opened(self, item: Opened) -> None:
        super()._opened(item._replace(unordered=False))


class _OrdersNoRun(Scheduler):
    def _opened(self, item: Opened) -> None:
        super()._opened(item._replace(unordered=True))


class _IsOverWithEventsInFlight(Scheduler):
    def _resume(self, run: module._Run, cascade: Cascade, quiet: list[Cascade]) -> None:
        in_flight, cascade.in_flight = cascade.in_flight, 0
        super()._resume(run, cascade, quiet)
        cascade.in_flight = in_flight


class _GoesOnAfterAStop(Scheduler):
    def _over(self, run: module._Run, cascade: Cascade) -> None:
        queue = list(cascade.queue)
        super()._over(run, cascade)
        if run.unordered and queue:
            cascade.queue.extend(queue)
            self._make_ready(run, cascade)


class _ReportsAStoppedCascadeAgain(Scheduler):
    def _over(self, run: module._Run, cascade: Cascade) -> None:
        super()._over(run, cascade)
        cascade.is_over = not (run.unordered and cascade.in_flight)


class _ForgetsWhatHandlersLeft(Scheduler):
    def _progress(self, item: Progress) -> None:
        super()._progress(item._replace(processed={}))


class _ForgetsItOfCascades(Scheduler):
    def _event_over(
        self, run: module._Run, cascade: Cascade, position: int, begin: int, item: Progress
    ) -> None:
        super()._event_over(run, cascade, position, begin, item)
        if cascade.queue:
            cascade.processed = None


class _GivesTimesOfNeighbours(Scheduler):
    def _progress(self, item: Progress) -> None:
        ends = [sum(list(item.times)[place:]) for place in range(len(item.times))]
        super()._progress(item._replace(times=Times(0.0, ends)))


class _WeighsNothing(Scheduler):
    def weigh(self, batch: Batch, size_bytes: int) -> None:
        pass


class _HasNoWindow(Scheduler):
    def weigh(self, batch: Batch, size_bytes: int) -> None:
        super().weigh(batch, size_bytes)
        batch.size_bytes = 0


class _HasASmallWindow(Scheduler):
    def weigh(self, batch: Batch, size_bytes: int) -> None:
        super().weigh(batch, size_bytes)
        batch.size_bytes = module.WINDOW_BYTES


class _QueuesTheLastEvents(Scheduler):
    def _roomiest(self, run: module._Run) -> int | None:
        closed, run.closed = run.closed, False
        worker = super()._roomiest(run)
        run.closed = closed
        return worker


class _LeavesTheLastButOne(Scheduler):
    def _roomiest(self, run: module._Run) -> int | None:
        if run.closed and not self._by_load[0] and run.ready_events <= self.workers + 1:
            return None
        return super()._roomiest(run)


class _WantsWhatItHas(Scheduler):
    def demand(self, run: int) -> int:
        state = self._runs.get(run)
        demand = super().demand(run)
        return demand + state.backlog + state.waiting if state is not None else demand


class _WantsMoreAfterTheEnd(Scheduler):
    def demand(self, run: int) -> int:
        return super().demand(run) or 1


class _WantsNothingWhileOneIsAtWork(Scheduler):
    def demand(self, run: int) -> int:
        return super().demand(run) if len(self._by_load[0]) == self.workers else 0


@pytest.mark.parametrize(
    "mutant",
    [
        _ChargesTheFirstOfTheBatch,
        _CountsWhatIsGivenBack,
        _DropsNoneThatWaits,
        _DropsTheOneBeforeAnError,
        _ForgetsItOfCascades,
        _ForgetsWhatHandlersLeft,
        _ForgetsWhoWaitsForAKey,
        _GivesTimesOfNeighbours,
        _GivesTooMuchToOneWorker,
        _GoesOnAfterAStop,
        _GoesOnInTheMiddleOfAChain,
        _HasASmallWindow,
        _HasNoWindow,
        _IsOverWithEventsInFlight,
        _IsSlowForEver,
        _KeepsWhatIsBehindAnError,
        _KnowsNoKeys,
        _LeavesRoomUnused,
        _LeavesTheLastButOne,
        _LosesWhatIsGivenBack,
        _LosesWhatIsTakenBack,
        _LosesWhatWaitsInADeadWorker,
        _OrdersEveryRun,
        _OrdersNoRun,
        _PassesOverErrorsOfPlanning,
        _QueuesTheLastEvents,
        _ReordersWhatComesBack,
        _ReportsAStoppedCascadeAgain,
        _RunsFollowUpsAtOnce,
        _SendsMoreToASlowWorker,
        _TakesKeysInAnyOrder,
        _WantsMoreAfterTheEnd,
        _WantsNothingWhileOneIsAtWork,
        _WantsWhatItHas,
        _WeighsNothing,
    ],
)
def test_the_simulation_notices_a_scheduler_that_is_wrong(mutant: type[Scheduler]) -> None:
    # some run into an error of their own
    with pytest.raises((Violation, LookupError)):  # noqa: PT012 - by one of the seeds
        for seed in range(100):
            simulate(seed, 300, mutant())


class _ChoosesWorkersByChance(Scheduler):
    def _roomiest(self, run: module._Run) -> int | None:
        worker = super()._roomiest(run)
        return random.choice(list(self._by_load[0])) if self._by_load[0] else worker


def test_the_history_tells_a_scheduler_that_leaves_something_to_chance() -> None:
    def history(seed: int) -> int:
        return simulate(seed, 300, _ChoosesWorkersByChance()).history

    assert any(history(seed) != history(seed) for seed in range(20))
