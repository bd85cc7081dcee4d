"""The scheduler, input by input and effect by effect; `test_simulation` has them all at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import pytest

from evproc_pool.core.batches import Batch
from evproc_pool.core.batching import SHARES_PER_WORKER
from evproc_pool.core.estimates import (
    BULK_SECONDS,
    LEAST_SECONDS,
    LONG_SECONDS,
    MOST_BYTES,
    MOST_EVENTS,
    REPORT_SECONDS,
    TARGET_SECONDS,
)
from evproc_pool.core.event_columns import (
    Aligned,
    Bunch,
    EventQueue,
    PlanLike,
    Planned,
    Times,
    Unplannable,
)
from evproc_pool.core.inputs_and_effects import (
    Accepted,
    Closed,
    Dropped,
    Effect,
    Ended,
    Ending,
    Finished,
    Input,
    Opened,
    Over,
    Progress,
    Result,
    Retired,
    Send,
    Settled,
    TakenBack,
    Weighed,
    WorkerGone,
    WorkerReady,
)
from evproc_pool.core.paths import root_place
from evproc_pool.core.retry_policy import RetryPolicy
from evproc_pool.core.scheduler import Scheduler
from evproc_pool.core.worker_loads import (
    AHEAD_SECONDS,
    LATE_SECONDS,
    PREFETCH,
    WINDOW_BYTES,
    WorkerLoads,
)
from evproc_pool.errors import InternalError
from tests.support.model import UNWANTED, FakePlan, column
from tests.support.world import as_singles

PLAN = FakePlan((1,))
SLOW = FakePlan((2,))
LARGE = FakePlan((3,))
OTHER = FakePlan((4,))
ERROR = ValueError("error")
FAILED = Result(error=ERROR)
STOPPED = Result(stopped=True)

# Full batches that a worker gets: the one it runs, and those ahead.
FULL = 1 + round(AHEAD_SECONDS / TARGET_SECONDS)
# Roots in these before their plan is timed, when there are two in a batch.
HELD = 2 * FULL


def planned(*events: object, plan: PlanLike = PLAN) -> list[Planned]:
    """Follow-ups."""
    return [(event, plan) for event in events]


def opened(
    *,
    workers: int = 1,
    until_error: bool = False,
    unordered: bool = False,
    return_events: bool = False,
    is_bulk: bool = False,
    runs: int = 1,
) -> Scheduler:
    """A scheduler with workers 1, 2, ... and runs 1, 2, ..."""
    scheduler = Scheduler()
    for worker in range(1, workers + 1):
        assert scheduler.step(WorkerReady(worker)) == []
    for run in range(1, runs + 1):
        assert scheduler.step(Opened(run, until_error, unordered, return_events, is_bulk)) == []
    return scheduler


def accepted(
    first: int,
    count: int,
    *,
    run: int = 1,
    plan: FakePlan = PLAN,
    keys: Sequence[Hashable] | None = None,
) -> Accepted:
    events = [f"root {index}" for index in range(first, first + count)]
    return Accepted(run, first, events, [plan] * count, keys)


def sent(effects: list[Effect]) -> list[tuple[int, list[object]]]:
    """The batches that were sent: worker and events."""
    return [
        (effect.worker, [event for part in effect.batch.parts for event in part.events])
        for effect in effects
        if isinstance(effect, Send)
    ]


def told(effects: list[Effect]) -> list[Effect]:
    """What is no `Send`."""
    return [effect for effect in effects if not isinstance(effect, Send)]


def settled(
    first: int,
    count: int,
    run: int = 1,
    *,
    values: Mapping[int, object] | None = None,
    processed: list[object] | None = None,
    emitted: list[list[object] | None] | None = None,
) -> Settled:
    """A `Settled` of roots with one handler each, in no time; `values` by their place in it."""
    column = None
    if values is not None:
        items = [values.get(place) for place in range(count)]
        column = Aligned(items, list(values))
    return Settled(run, first, [0.0] * count, 1, column, processed, emitted)


def over(
    *cascades: tuple[int, int],
    run: int = 1,
    handlers: list[int] | None = None,
    values: Mapping[int, object] | None = None,
) -> Over:
    """An `Over` with these indices and numbers of events, in no time.

    Args:
        cascades: These.
        run: Their run.
        handlers: How many ran, of each; None: one for each event.
        values: By the place of the cascade.
    """
    roots = [root for root, _ in cascades]
    events = [events for _, events in cascades]
    column = None
    if values is not None:
        column = Aligned([values.get(place) for place in range(len(roots))], list(values))
    return Over(run, roots, events, [0.0] * len(roots), handlers or events, column)


def ended(
    root: int,
    result: Result = Result(),  # noqa: B008 - it cannot be changed
    *,
    events: int = 1,
    handlers: int | None = None,
    processed: object = None,
    emitted: list[object] | None = None,
    of: object = None,
) -> Ended:
    """An `Ended` of run 1, in no time.

    Args:
        root: Its index.
        result: What it comes to.
        events: How many.
        handlers: How many ran; None: one for each event.
        processed: See `Ending`.
        emitted: Likewise.
        of: The event that failed; None: the root, if any did.
    """
    has_failed = result.error is not None
    ending = Ending(
        *result,
        events,
        processed=processed,
        handlers=events if handlers is None else handlers,
        emitted=emitted,
        failed=int(has_failed),
        failed_event=(of or f"root {root}") if has_failed else None,
    )
    return Ended(1, root, ending)


def _shown(effect: Effect) -> Effect:
    """With lists in the place of other sequences."""
    match effect:
        case Over():
            return effect._replace(
                roots=list(effect.roots),
                seconds=list(effect.seconds),
                handlers=list(effect.handlers),
                values=_listed(effect),
            )
        case Settled():
            return effect._replace(values=_listed(effect))
    return effect


def _listed(effect: Over | Settled) -> Aligned | None:
    values = effect.values
    return None if values is None else Aligned(list(values.items), list(values.places))


def ahead(scheduler: Scheduler) -> float:
    """What every worker has to do behind its batch: the slack, but for its bound."""
    seconds = scheduler._loads.ahead
    assert scheduler.slack == min(seconds, REPORT_SECONDS)
    return seconds


def done(
    scheduler: Scheduler,
    worker: int | None = None,
    follow_ups: Mapping[int, Sequence[Planned]] | None = None,
    results: Mapping[int, Result] | None = None,
    *,
    processed: Mapping[int, Any] | None = None,
    emitted: Mapping[int, list[Any]] | None = None,
    ran: Mapping[int, int] | None = None,
    at: int | None = None,
    timings: tuple[tuple[tuple[int, ...], int, float], ...] = (),
    gave_back: bool = False,
    cut: Sequence[int] = (),
) -> list[Effect]:
    """Let a worker (the first that is busy) report its first batch, or the part up to `at`.

    Of `results`, those that stopped go as values.
    """
    if worker is None:
        worker = next(each for each, load in scheduler._loads._loads.items() if load.held)
    batch = scheduler.held_by(worker)
    assert batch is not None
    end = batch.size if at is None else at
    stopped = {place: each.value for place, each in (results or {}).items() if each.stopped}
    item = Progress(
        worker,
        end,
        [0.0] * (end - batch.done),
        as_singles(follow_ups or {}),
        {place: each for place, each in (results or {}).items() if not each.stopped},
        column(dict(processed or {})),
        timings,
        gave_back,
        column(stopped),
        column(dict(emitted or {})),
        ran or {},
        cut=cut,
    )
    return [_shown(effect) for effect in scheduler.step(item)]


def taught(scheduler: Scheduler, plan: FakePlan, seconds: float, size_bytes: int = 1) -> None:
    """Let the scheduler learn how long and large a plan's events are; leaves nothing behind."""
    scheduler.step(Opened(-1))
    [send] = scheduler.step(Accepted(-1, 0, ["teach"], [plan]))
    assert isinstance(send, Send)
    scheduler.step(Weighed(send.worker, send.batch, size_bytes))
    done(scheduler, send.worker, timings=((plan.indices, 1, seconds),))
    assert scheduler.step(Closed(-1)) == [Finished(-1)]


# --- runs ---


def test_a_run_that_is_closed_without_roots_finishes_at_once() -> None:
    assert opened().step(Closed(1)) == [Finished(1)]


def test_a_run_finishes_with_its_last_root_and_not_before_it_is_closed() -> None:
    scheduler = opened()
    scheduler.step(accepted(0, 1))
    assert done(scheduler) == [settled(0, 1)]
    scheduler.step(accepted(1, 1))
    assert scheduler.step(Closed(1)) == []
    assert done(scheduler) == [settled(1, 1), Finished(1)]


def test_closing_a_finished_run_again_is_no_error() -> None:
    scheduler = opened()
    scheduler.step(Closed(1))
    assert scheduler.step(Closed(1)) == []
    assert scheduler.step(Closed(1, drop=True)) == []


def test_dropping_drops_unsent_roots_and_nothing_else() -> None:
    scheduler = opened()
    scheduler.step(accepted(0, HELD + 6))
    assert scheduler.step(Closed(1, drop=True)) == [Dropped(1, HELD, 6)]
    for first in range(0, HELD - 2, 2):
        assert done(scheduler) == [settled(first, 2)]
    assert done(scheduler) == [settled(HELD - 2, 2), Finished(1)]


def test_dropping_drops_the_rest_of_a_cascade_when_its_batch_is_over() -> None:
    scheduler = opened()
    scheduler.step(accepted(0, 1))
    scheduler.step(Closed(1, drop=True))
    assert done(scheduler, None, {0: planned("more")}) == [Dropped(1, 0, 1), Finished(1)]


def test_dropping_drops_a_waiting_cascade() -> None:
    scheduler = opened()
    scheduler.step(accepted(0, HELD + 6))
    # the worker has all it can, so what follows from the first root has to wait
    assert done(scheduler, None, {0: planned("more")}, at=1) == []
    effects = scheduler.step(Closed(1, drop=True))
    assert effects == [Dropped(1, HELD, 6), Dropped(1, 0, 1)]


def test_a_closed_run_can_be_dropped_afterwards() -> None:
    scheduler = opened()
    scheduler.step(accepted(0, HELD + 6))
    assert scheduler.step(Closed(1)) == []
    assert scheduler.step(Closed(1, drop=True)) == [Dropped(1, HELD, 6)]


# --- roots ---


def test_roots_wait_for_a_worker() -> None:
    scheduler = opened(workers=0)
    assert scheduler.step(accepted(0, 2)) == []
    assert not scheduler.is_idle
    assert sent(scheduler.step(WorkerReady(7))) == [(7, ["root 0", "root 1"])]


def test_roots_with_nothing_to_report_are_counted() -> None:
    scheduler = opened()
    scheduler.step(accepted(5, 2))
    assert done(scheduler) == [settled(5, 2)]


def test_a_failed_root_is_reported_alone_and_one_with_a_value_with_its_neighbours() -> None:
    scheduler = opened()
    taught(scheduler, PLAN, TARGET_SECONDS / 5)
    scheduler.step(accepted(10, 5))
    effects = done(
        scheduler,
        results={1: Result(stopped=True, value="value"), 3: Result(error=ERROR, handler="handler")},
    )
    assert effects == [
        settled(10, 3, values={1: "value"}),
        ended(13, Result(error=ERROR, handler="handler")),
        settled(14, 1),
    ]


def test_a_root_that_has_failed_has_no_follow_ups() -> None:
    scheduler = opened()
    scheduler.step(accepted(0, 1))
    assert done(scheduler, None, {0: planned("no")}, {0: FAILED}) == [ended(0, FAILED)]
    assert scheduler.is_idle


def test_progress_reports_events_that_are_over_and_keeps_the_batch() -> None:
    scheduler = opened()
    taught(scheduler, PLAN, TARGET_SECONDS / 4)
    scheduler.step(accepted(0, 4))
    batch = scheduler.held_by(1)
    assert done(scheduler, at=1) == [settled(0, 1)]
    assert done(scheduler, at=3) == [settled(1, 2)]
    assert scheduler.held_by(1) is batch
    assert done(scheduler) == [settled(3, 1)]
    assert scheduler.held_by(1) is None
    assert scheduler.is_idle


def test_indices_may_have_gaps() -> None:
    scheduler = opened()
    scheduler.step(accepted(3, 1))
    scheduler.step(accepted(8, 1))
    assert done(scheduler) == [settled(3, 1)]
    assert done(scheduler) == [settled(8, 1)]


def test_neighbouring_blocks_may_share_a_batch() -> None:
    scheduler = opened(workers=0)
    scheduler.step(accepted(0, 1))
    scheduler.step(accepted(4, 1))
    assert sent(scheduler.step(WorkerReady(1))) == [(1, ["root 0", "root 4"])]
    assert done(scheduler) == [settled(0, 1), settled(4, 1)]


def test_emitted_results_and_handlers_of_roots_are_reported_with_their_neighbours() -> None:
    scheduler = opened()
    two = FakePlan((1, 2))
    taught(scheduler, two, TARGET_SECONDS / 5)
    scheduler.step(accepted(0, 3, plan=two))
    assert done(scheduler, at=1) == [settled(0, 1)._replace(handlers=2)]
    effects = done(scheduler, emitted={1: ["e", "f"]}, ran={2: 0})
    assert effects == [settled(1, 2, emitted=[["e", "f"], None])._replace(handlers=[2, 0])]


def test_a_cascade_has_the_results_of_its_events_in_order_without_failed_ones() -> None:
    scheduler = opened()
    scheduler.step(accepted(0, 1))
    done(scheduler, None, {0: planned("a", "b")}, emitted={0: [1]})
    effects = done(scheduler, results={1: FAILED}, emitted={0: [2, 3], 1: [4]})
    assert effects == [ended(0, FAILED, events=3, emitted=[1, 2, 3], of="b")]


def test_results_of_an_unordered_cascade_are_in_the_order_of_its_paths() -> None:
    scheduler = opened(workers=2, unordered=True, is_bulk=True)
    taught(scheduler, SLOW, 10 * TARGET_SECONDS)
    scheduler.step(accepted(0, 1))
    done(scheduler, None, {0: planned("a", "b", plan=SLOW)}, emitted={0: ["root"]})
    done(scheduler, 2, emitted={0: ["b"]})
    assert done(scheduler, 1, emitted={0: ["a"]}) == [
        ended(0, events=3, emitted=["root", "a", "b"])
    ]


def test_strands_that_stop_are_reported_with_those_that_are_over() -> None:
    scheduler = opened()
    taught(scheduler, PLAN, TARGET_SECONDS / 8)
    scheduler.step(accepted(0, 3))
    done(scheduler, None, as_singles({at: planned(each) for at, each in enumerate("abc")}))
    results = {0: Result(5, stopped=True), 2: STOPPED}
    effects = done(scheduler, results=results, follow_ups={1: planned("bb")})
    assert told(effects) == [over((0, 2), (2, 2), values={0: 5, 1: None})]
    assert sent(effects) == [(1, ["bb"])]


# --- times ---


def test_each_root_has_the_seconds_that_it_took() -> None:
    scheduler = opened()
    taught(scheduler, PLAN, TARGET_SECONDS / 4)
    scheduler.step(accepted(0, 4))
    times = Times(8.0, [9.0, 11.0, 11.5, 15.5])  # 1, 2, 0.5 and 4 seconds
    effects = scheduler.step(Progress(1, 4, times, {}, {2: FAILED}))
    assert [list(effect.times) for effect in effects if isinstance(effect, Settled)] == [
        [1.0, 2.0],
        [4.0],
    ]
    assert [effect.ending.seconds for effect in effects if isinstance(effect, Ended)] == [0.5]


def test_a_cascade_has_the_seconds_of_its_events() -> None:
    scheduler = opened()
    scheduler.step(accepted(0, 1))
    scheduler.step(Progress(1, 1, [0.25], {0: planned("a", "b")}))
    [effect] = scheduler.step(Progress(1, 2, Times(1.0, [2.0, 4.0])))
    assert isinstance(effect, Over)
    assert effect == Over(1, [0], [3], [3.25], [3])


# --- cascades ---


def test_follow_ups_run_in_the_order_of_a_plain_fifo() -> None:
    scheduler = opened()
    order = []
    effects = scheduler.step(accepted(0, 1))
    returns = {
        "root 0": planned("a", "b"),
        "a": planned("aa"),
        "b": planned("ba", "bb"),
    }
    while batches := sent(effects):
        [(_, events)] = batches
        order += events
        follow_ups = {
            place: returns[event]
            for place, event in enumerate(events)
            if isinstance(event, str) and event in returns
        }
        effects = done(scheduler, None, follow_ups)
    assert order == ["root 0", "a", "b", "aa", "ba", "bb"]
    assert effects == [over((0, 6))]


def test_neighbours_in_the_queue_of_a_cascade_share_a_batch() -> None:
    scheduler = opened()
    scheduler.step(accepted(0, 1))
    assert sent(done(scheduler, None, {0: planned("a", "b")})) == [(1, ["a", "b"])]
    batch = scheduler.held_by(1)
    assert batch is not None
    assert [(part.is_chain, part.start, part.stop) for part in batch.parts] == [(True, 0, 2)]


def test_single_events_of_several_cascades_share_a_part() -> None:
    scheduler = opened()
    scheduler.step(accepted(0, 2))
    effects = done(scheduler, None, {0: planned("a"), 1: planned("b")})
    assert sent(effects) == [(1, ["a", "b"])]
    batch = scheduler.held_by(1)
    assert batch is not None
    [part] = batch.parts
    assert not part.is_chain
    assert [batch.root_at(0), batch.root_at(1)] == [0, 1]
    # one that ends its cascade is nothing to the other
    assert done(scheduler, results={0: FAILED}) == [
        ended(0, FAILED, events=2, of="a"),
        over((1, 2)),
    ]


class _Counted(list[int]):
    """Counts what is copied of it."""

    copied = 0

    def __getitem__(self, place: Any) -> Any:
        part = super().__getitem__(place)
        self.copied += len(part) if isinstance(place, slice) else 0
        return part


def test_only_the_taken_part_of_a_long_queue_is_copied() -> None:
    events = _Counted(range(1000))
    queue = EventQueue()
    queue.extend(Bunch(events, PLAN), root_place(0))
    taken = [event for _ in range(100) for event, _ in queue.take(3)]
    assert taken == list(range(300))
    assert events.copied == 300
    queue.put_back(-1, OTHER, root_place(0))
    assert [event for event, _ in queue] == [-1, *range(300, 1000)]
    assert (len(queue), queue.alike, queue.next_plan) == (701, 1, OTHER)


@pytest.mark.parametrize("unordered", [False, True])
def test_cascades_of_one_event_each_go_together_and_in_order(unordered: bool) -> None:
    scheduler = opened(unordered=unordered)
    taught(scheduler, PLAN, TARGET_SECONDS / 4)
    taught(scheduler, OTHER, TARGET_SECONDS / 3)
    scheduler.step(accepted(0, 4))
    effects = done(scheduler, None, {place: planned(place, plan=OTHER) for place in range(4)})
    assert sent(effects) == [(1, [0, 1, 2]), (1, [3])]
    batch = scheduler.held_by(1)
    assert batch is not None
    [part] = batch.parts
    assert (part.start, part.stop, part.is_chain, batch.size) == (0, 3, False, 3)
    assert part.plans == [OTHER] * 3
    assert [batch.root_at(position) for position in range(3)] == [0, 1, 2]
    assert batch.seconds == pytest.approx(TARGET_SECONDS)
    assert done(scheduler) == [over((0, 2), (1, 2), (2, 2))]
    assert done(scheduler) == [over((3, 2))]
    assert scheduler.is_idle


def test_cascades_of_one_event_and_of_several_keep_their_order_in_a_batch() -> None:
    scheduler = opened()
    taught(scheduler, PLAN, TARGET_SECONDS / 10)
    taught(scheduler, OTHER, TARGET_SECONDS / 10)
    scheduler.step(accepted(0, 4))
    others = planned("b", plan=OTHER)
    done(scheduler, None, {0: planned("a"), 1: others, 2: planned("c", "d"), 3: planned("e")})
    batch = scheduler.held_by(1)
    assert batch is not None
    assert [batch.at(position)[0] for position in range(batch.size)] == list("abcde")
    assert [batch.root_at(position) for position in range(batch.size)] == [0, 1, 2, 2, 3]
    assert [plan for part in batch.parts for plan in part.plans] == [PLAN, OTHER, PLAN, PLAN, PLAN]
    parts = [(part.start, part.stop, part.is_chain) for part in batch.parts]
    assert parts == [(0, 2, False), (2, 4, True), (4, 5, False)]


def test_slow_events_of_a_cascade_do_not_share_a_batch() -> None:
    scheduler = opened(workers=2)
    taught(scheduler, SLOW, 10 * TARGET_SECONDS)
    scheduler.step(accepted(0, 1))
    effects = done(scheduler, None, {0: planned("a", "b", plan=SLOW)})
    assert [events for _, events in sent(effects)] == [["a"]]


def test_no_second_part_of_a_cascade_is_in_flight() -> None:
    scheduler = opened(workers=3)
    taught(scheduler, SLOW, 10 * TARGET_SECONDS)
    scheduler.step(accepted(0, 1))
    [(worker, _)] = sent(done(scheduler, None, {0: planned("a", "b", plan=SLOW)}))
    assert scheduler.step(WorkerReady(9)) == []
    assert [events for _, events in sent(done(scheduler, worker))] == [["b"]]


def test_a_chain_goes_on_only_when_all_of_it_is_over() -> None:
    scheduler = opened()
    scheduler.step(accepted(0, 1))
    done(scheduler, None, {0: planned("a", "b")})
    assert scheduler.step(WorkerReady(2)) == []
    assert done(scheduler, 1, {0: planned("aa")}, at=1) == []
    assert [events for _, events in sent(done(scheduler, 1))] == [["aa"]]


@pytest.mark.parametrize(
    "result",
    [Result(stopped=True), Result(stopped=True, value=3), Result(error=ERROR, handler="h")],
)
def test_the_end_of_a_cascade_leaves_its_rest_unrun(result: Result) -> None:
    scheduler = opened()
    scheduler.step(accepted(0, 1))
    assert sent(done(scheduler, None, {0: planned("a", "b", "c")})) == [(1, ["a", "b"])]
    assert scheduler.step(WorkerReady(2)) == []
    assert done(scheduler, 1, results={0: result}) == [ended(0, result, events=2, of="a")]
    assert scheduler.is_idle


def test_an_end_in_the_middle_of_a_chain_is_reported_once() -> None:
    scheduler = opened()
    scheduler.step(accepted(0, 1))
    done(scheduler, None, {0: planned("a", "b")})
    effects = done(scheduler, results={0: STOPPED}, at=1)
    assert effects == [ended(0, STOPPED, events=2)]
    # what kept the rest from being sent does not matter any more
    assert done(scheduler, results={1: FAILED}) == []


def test_a_run_may_finish_before_the_unrun_rest_of_its_chain_is_over() -> None:
    scheduler = opened()
    scheduler.step(accepted(0, 1))
    done(scheduler, None, {0: planned("a", "b")})
    scheduler.step(Closed(1))
    assert Finished(1) in done(scheduler, results={0: STOPPED}, at=1)
    assert not scheduler.is_idle
    assert done(scheduler) == []
    assert scheduler.is_idle


def test_an_event_that_no_handler_wants_needs_no_worker() -> None:
    scheduler = opened()
    scheduler.step(accepted(0, 1))
    [nobody] = planned("nobody", plan=UNWANTED)
    effects = done(scheduler, None, {0: [nobody, *planned("a"), nobody]})
    assert sent(effects) == [(1, ["a"])]
    assert done(scheduler, None, {0: [nobody]}) == [over((0, 5), handlers=[2])]


def test_a_planning_error_ends_the_cascade_at_its_turn() -> None:
    scheduler = opened()
    scheduler.step(accepted(0, 1))
    [bad] = planned("bad", plan=Unplannable(ERROR))
    effects = done(scheduler, None, {0: [*planned("a"), bad, *planned("never")]})
    assert sent(effects) == [(1, ["a"])]
    assert done(scheduler) == [ended(0, FAILED, events=3, handlers=2, of="bad")]


def test_a_stop_comes_before_the_planning_error_behind_it() -> None:
    scheduler = opened()
    scheduler.step(accepted(0, 1))
    done(scheduler, None, {0: [*planned("a"), *planned("bad", plan=Unplannable(ERROR))]})
    effects = done(scheduler, results={0: Result(stopped=True, value=1)})
    assert effects == [ended(0, Result(1, stopped=True), events=2)]


def test_cascades_go_before_new_roots() -> None:
    scheduler = opened()
    scheduler.step(accepted(0, HELD + 10))
    [(_, events)] = sent(done(scheduler, None, {0: planned("follow-up")}))
    assert events[0] == "follow-up"


# --- until_error ---


def test_after_an_error_earlier_roots_finish_and_later_ones_are_dropped() -> None:
    scheduler = opened(workers=2, until_error=True)
    scheduler.step(accepted(0, 2 * HELD + 12))  # 2 to each in turn: 0-1, 2-3 and 4-5, 6-7
    effects = done(scheduler, 2, results={0: FAILED})
    assert effects == [ended(2, FAILED), Dropped(1, 2 * HELD, 12), settled(3, 1)]
    # before the error, so it goes on; behind it, so it does not
    assert sent(done(scheduler, 1, {0: planned("go on")})) == [(2, ["go on"])]
    assert told(done(scheduler, 1, {1: planned("no")})) == [settled(4, 1), Dropped(1, 5, 1)]


def test_an_earlier_error_moves_the_bound_and_a_later_one_does_not() -> None:
    scheduler = opened(until_error=True)
    taught(scheduler, PLAN, TARGET_SECONDS / 4)
    scheduler.step(accepted(0, 4))
    effects = told(
        done(scheduler, None, {0: planned("a"), 1: planned("b")}, {2: FAILED, 3: FAILED})
    )
    assert effects == [ended(2, FAILED), ended(3, FAILED)]
    # `a` and `b` are one batch; `a` fails, and `b` is behind it now
    effects = done(scheduler, None, {1: planned("no")}, {0: FAILED})
    assert effects == [ended(0, FAILED, events=2, of="a"), Dropped(1, 1, 1)]


def test_without_until_error_nothing_is_dropped() -> None:
    scheduler = opened()
    scheduler.step(accepted(0, 4))
    assert told(done(scheduler, results={0: FAILED})) == [
        ended(0, FAILED),
        settled(1, 1),
    ]
    assert done(scheduler) == [settled(2, 2)]


def test_roots_accepted_behind_an_error_are_dropped() -> None:
    scheduler = opened(until_error=True)
    scheduler.step(accepted(0, 1))
    done(scheduler, results={0: FAILED})
    assert scheduler.step(accepted(1, 3)) == [Dropped(1, 1, 3)]
    assert scheduler.step(Closed(1)) == [Finished(1)]


def test_an_error_in_one_run_leaves_others_alone() -> None:
    scheduler = opened(workers=2, until_error=True, runs=2)
    scheduler.step(accepted(0, 1, run=1))
    scheduler.step(accepted(0, 9, run=2))
    assert done(scheduler, 1, results={0: FAILED})[0] == ended(0, FAILED)
    assert scheduler.step(Closed(2)) == []
    while scheduler.held_by(2):
        assert Dropped not in [type(effect) for effect in done(scheduler, 2)]


# --- keys ---


def test_roots_with_equal_keys_go_to_one_worker() -> None:
    scheduler = opened(workers=3)
    effects = scheduler.step(accepted(0, 4, keys=["k", "k", "other", "k"]))
    assert sent(effects) == [(1, ["root 0"]), (2, ["root 2"])]
    assert scheduler.overloaded == []
    # the third worker is idle all the time
    assert sent(done(scheduler, 1)) == [(3, ["root 1", "root 3"])]
    batch = scheduler.held_by(3)
    assert batch is not None
    (part,) = batch.parts
    assert part.chains(1, 4) == [(0, 2, 4)]
    assert [batch.root_at(position) for position in (0, 1)] == [1, 3]
    assert [batch.place_at(position).path for position in (0, 1)] == [(1,), (3,)]
    assert done(scheduler, 3) == [over((1, 1), (3, 1))]


def _with_roots_of_a_key(keys: str = "kkkk", **how: Any) -> Scheduler:
    """A worker has all of these roots."""
    scheduler = opened(**how)
    taught(scheduler, PLAN, TARGET_SECONDS / 100)
    roots = [f"root {index}" for index in range(len(keys))]
    ((_, events),) = sent(scheduler.step(accepted(0, len(keys), keys=list(keys))))
    assert sorted(events, key=str) == roots
    return scheduler


def test_roots_wait_for_the_follow_ups_of_the_root_before_with_their_key() -> None:
    scheduler = _with_roots_of_a_key()
    effects = done(scheduler, 1, {1: planned("more of 1")}, at=2, cut=[1])
    assert told(effects) == [over((0, 1))]
    assert sent(effects) == [(1, ["more of 1"])]
    assert done(scheduler, 1) == []  # the worker passes over root 2 and root 3
    effects = done(scheduler, 1)
    assert told(effects) == [over((1, 2))]
    assert [events for _, events in sent(effects)] == [["root 2", "root 3"]]


def test_roots_of_other_keys_in_the_same_batch_do_not_wait() -> None:
    scheduler = _with_roots_of_a_key("kokok")
    assert scheduler.held_by(1) is not None
    effects = done(scheduler, 1, {0: planned("more of 0")}, cut=[0])
    assert told(effects) == [over((1, 1), (3, 1))]
    assert [event for _, events in sent(effects) for event in events] == ["more of 0"]


def test_events_that_ran_behind_a_failure_unknown_to_the_worker_are_over() -> None:
    scheduler = _with_roots_of_a_key()
    # what root 1 left cannot be rebuilt
    assert done(scheduler, 1, results={1: FAILED}) == [
        ended(1, FAILED),
        over((0, 1), (2, 1), (3, 1)),
    ]
    assert scheduler.is_idle


def test_values_of_roots_with_keys_are_reported_with_the_others() -> None:
    scheduler = _with_roots_of_a_key()
    results = {1: Result(7, stopped=True), 3: STOPPED}
    assert done(scheduler, 1, results=results, ran={1: 1}) == [
        over((0, 1), (1, 1), (2, 1), (3, 1), values={1: 7, 3: None})
    ]


def test_another_worker_gets_the_next_root_of_a_key_with_none_in_flight() -> None:
    scheduler = opened(workers=2)
    taught(scheduler, SLOW, 10 * TARGET_SECONDS)
    ((one, events),) = sent(scheduler.step(accepted(0, 2, plan=SLOW, keys="kk")))
    ((other, _),) = sent(scheduler.step(accepted(2, 1, plan=SLOW, keys="o")))
    assert events == ["root 0"]
    assert one != other
    assert sent(done(scheduler, other)) == []  # its key is in flight
    scheduler.step(Retired(one))
    assert sent(done(scheduler, one)) == [(other, ["root 1"])]


def test_with_several_keys_a_batch_leaves_some_for_the_others() -> None:
    """A worker that is done with its own goes on with these, and need not wait."""
    scheduler = opened(workers=2)
    taught(scheduler, PLAN, TARGET_SECONDS / 100)
    keys = [index % 16 for index in range(1600)]
    batches = sent(scheduler.step(accepted(0, 1600, keys=keys)))
    assert {worker for worker, _ in batches} == {1, 2}
    seen: dict[object, int] = {}
    for worker, events in batches:
        for event in events:
            key = keys[int(str(event).split()[1])]
            assert seen.setdefault(key, worker) == worker
    assert all(list(seen.values()).count(worker) > 1 for worker in (1, 2))


def test_a_suspect_waits_for_the_roots_of_its_key_before_it() -> None:
    scheduler = Scheduler(RetryPolicy(crash_limit=2))
    scheduler.step(WorkerReady(1))
    scheduler.step(Opened(1))
    taught(scheduler, PLAN, TARGET_SECONDS / 100)
    scheduler.step(accepted(0, 3, keys="kkk"))
    # what root 0 left was not told, so it is run again
    assert scheduler.step(WorkerGone(1, 1, ERROR, "h", seconds=2.0)) == []
    ran = [sent(scheduler.step(WorkerReady(2)))]
    ran += [sent(done(scheduler, 2)), sent(done(scheduler, 2))]
    assert ran == [[(2, ["root 0"])], [(2, ["root 1"])], [(2, ["root 2"])]]


def test_runs_that_share_their_keys_have_one_order() -> None:
    scheduler = Scheduler()
    for worker in (1, 2):
        scheduler.step(WorkerReady(worker))
    for run, shares_keys in enumerate((True, True, False), 1):
        scheduler.step(Opened(run, shares_keys=shares_keys))
    assert sent(scheduler.step(accepted(0, 1, run=1, keys="k"))) == [(1, ["root 0"])]
    assert sent(scheduler.step(accepted(0, 1, run=2, keys="k"))) == []
    assert sent(scheduler.step(accepted(0, 1, run=3, keys="k"))) == [(2, ["root 0"])]
    effects = done(scheduler, 1)
    assert told(effects) == [over((0, 1))]
    assert [each.batch.run_id for each in effects if isinstance(each, Send)] == [2]
    # and one of them can be dropped without the others
    scheduler.step(accepted(1, 1, run=1, keys="k"))
    scheduler.step(accepted(1, 1, run=2, keys="k"))
    assert scheduler.step(Closed(1, drop=True)) == [Dropped(1, 1, 1), Finished(1)]
    effects = done(scheduler, 1)
    assert told(effects) == [over((0, 1), run=2)]
    assert sent(effects) == [(1, ["root 1"])]


def test_the_next_root_of_a_key_may_come_when_the_one_before_it_is_over() -> None:
    scheduler = opened()
    scheduler.step(accepted(0, 1, keys=["k"]))
    assert done(scheduler) == [over((0, 1))]
    assert sent(scheduler.step(accepted(1, 1, keys=["k"]))) == [(1, ["root 1"])]


@pytest.mark.parametrize("result", [FAILED, STOPPED])
def test_the_end_of_a_cascade_releases_its_key(result: Result) -> None:
    scheduler = _with_roots_of_a_key("kk")
    scheduler.step(accepted(2, 1, keys="k"))
    assert sent(done(scheduler, at=1, results={0: result})) == []
    assert sent(done(scheduler)) == [(1, ["root 2"])]


def test_a_key_may_be_none_and_is_one_like_others() -> None:
    scheduler = opened(workers=2)
    assert len(sent(scheduler.step(accepted(0, 2, keys=[None, None])))) == 1


def test_keys_of_different_runs_are_different() -> None:
    scheduler = opened(workers=2, runs=2)
    scheduler.step(accepted(0, 1, run=1, keys=["k"]))
    assert sent(scheduler.step(accepted(0, 1, run=2, keys=["k"]))) == [(2, ["root 0"])]


def test_the_death_of_a_worker_releases_the_key_of_its_event() -> None:
    scheduler = opened(workers=2)
    scheduler.step(accepted(0, 2, keys=["k", "k"]))
    effects = scheduler.step(WorkerGone(1, 0, ERROR))
    assert effects[0] == ended(0, FAILED, handlers=0)
    assert sent(effects) == [(2, ["root 1"])]


def test_a_root_that_comes_back_is_before_the_next_of_its_key() -> None:
    scheduler = opened(workers=2)
    scheduler.step(accepted(0, 2, keys=["k", "k"]))
    assert sent(scheduler.step(WorkerGone(1, None))) == [(2, ["root 0", "root 1"])]


def test_dropping_drops_roots_that_wait_for_their_key() -> None:
    scheduler = opened()
    scheduler.step(accepted(0, 4, keys=["k", "k", "k", "k"]))  # two are in flight
    assert scheduler.step(Closed(1, drop=True)) == [Dropped(1, 2, 1), Dropped(1, 3, 1)]
    assert done(scheduler)[-1] == Finished(1)


def test_after_an_error_the_roots_of_a_key_before_it_are_run_and_no_others() -> None:
    scheduler = opened(workers=2, until_error=True)
    scheduler.step(accepted(0, 4, keys=["k", "k", "other", "k"]))
    assert told(done(scheduler, 2, results={0: FAILED})) == [ended(2, FAILED), Dropped(1, 3, 1)]
    assert sent(done(scheduler, 1)) == [(2, ["root 1"])]
    scheduler.step(Closed(1))
    assert done(scheduler, 2) == [over((1, 1)), Finished(1)]


def test_after_an_error_the_roots_of_its_key_that_were_left_unrun_are_dropped() -> None:
    scheduler = _with_roots_of_a_key("kkk", until_error=True)
    effects = done(scheduler, results={1: FAILED}, cut=[1])
    assert effects == [ended(1, FAILED), Dropped(1, 2, 1), over((0, 1))]
    assert scheduler.is_idle


# --- unordered runs ---


def test_follow_ups_of_an_unordered_run_go_to_several_workers_at_once() -> None:
    scheduler = opened(workers=2, unordered=True, is_bulk=True)
    taught(scheduler, SLOW, 10 * TARGET_SECONDS)
    scheduler.step(accepted(0, 1))
    effects = done(scheduler, None, {0: planned(*"abcd", plan=SLOW)})
    assert sorted(sent(effects)) == [(1, ["a"]), (1, ["c"]), (2, ["b"]), (2, ["d"])]


def test_a_cascade_of_an_unordered_run_is_over_when_all_of_it_is() -> None:
    scheduler = opened(workers=2, unordered=True)
    taught(scheduler, SLOW, 10 * TARGET_SECONDS)
    scheduler.step(accepted(0, 1))
    done(scheduler, None, {0: planned(*"ab", plan=SLOW)})
    assert told(done(scheduler, 1)) == []
    assert sent(done(scheduler, 2, {0: planned("c")})) == [(1, ["c"])]
    assert done(scheduler, 1) == [over((0, 4))]


@pytest.mark.parametrize("result", [Result(7, stopped=True), FAILED])
def test_a_stop_ends_an_unordered_cascade_at_once(result: Result) -> None:
    scheduler = opened(workers=2, unordered=True, is_bulk=True)
    taught(scheduler, SLOW, 10 * TARGET_SECONDS)
    scheduler.step(accepted(0, 1))
    done(scheduler, None, {0: planned(*"abcdef", plan=SLOW)})
    scheduler.step(Closed(1))
    # "e" and "f" were not sent and are not; what is in flight does not matter any more
    assert done(scheduler, 1, results={0: result}) == [
        ended(0, result, events=2, of="a"),
        Finished(1),
    ]
    assert done(scheduler, 2, {0: planned("no")}) == []
    assert done(scheduler, 2, results={0: FAILED}) == []
    assert scheduler.step(WorkerGone(1, 0, ERROR)) == []
    assert scheduler.is_idle


def test_a_planning_error_ends_an_unordered_cascade() -> None:
    scheduler = opened(unordered=True)
    scheduler.step(accepted(0, 1))
    bad = planned("bad", plan=Unplannable(ERROR))
    effects = done(scheduler, None, {0: [*bad, *planned("never")]})
    assert effects == [ended(0, FAILED, events=2, handlers=1, of="bad")]


def test_the_next_of_a_key_waits_until_nothing_of_an_unordered_cascade_is_run() -> None:
    scheduler = opened(workers=2, unordered=True)
    taught(scheduler, SLOW, 10 * TARGET_SECONDS)
    scheduler.step(accepted(0, 2, plan=SLOW, keys=["k", "k"]))
    done(scheduler, None, {0: planned("a", "b", plan=SLOW)})
    assert done(scheduler, 1, results={0: FAILED}) == [ended(0, FAILED, events=2, of="a")]
    [(_, events)] = sent(done(scheduler, 2))
    assert events == ["root 1"]


# --- events that come back ---


def test_a_processed_root_is_in_its_ending() -> None:
    scheduler = opened(return_events=True)
    scheduler.step(accepted(0, 2))
    effects = done(scheduler, results={1: STOPPED}, processed={0: "left 0", 1: "left 1"})
    assert effects == [settled(0, 2, values={1: None}, processed=["left 0", "left 1"])]


def test_a_processed_root_is_kept_until_its_cascade_is_over() -> None:
    scheduler = opened(return_events=True)
    scheduler.step(accepted(0, 1))
    assert told(done(scheduler, None, {0: planned("a")}, processed={0: "left"})) == []
    assert done(scheduler) == [ended(0, events=2, processed="left")]


def test_a_batch_says_which_of_its_events_are_roots() -> None:
    scheduler = opened(workers=2, return_events=True)
    scheduler.step(accepted(0, 1, keys=["k"]))
    batch = scheduler.held_by(1)
    assert batch is not None
    assert batch.root_positions == [0]
    [(worker, _)] = sent(done(scheduler, 1, {0: planned("a")}, processed={0: "left"}))
    batch = scheduler.held_by(worker)
    assert batch is not None
    assert batch.root_positions == []


# --- workers ---


def test_a_worker_has_the_batch_it_runs_and_some_seconds_of_work_ahead() -> None:
    scheduler = opened()
    assert len(sent(scheduler.step(accepted(0, 100)))) == FULL
    assert ahead(scheduler) == pytest.approx(AHEAD_SECONDS)
    assert len(sent(done(scheduler))) == 1


def test_a_worker_has_the_next_batch_however_long_it_takes() -> None:
    scheduler = opened(is_bulk=True)
    taught(scheduler, SLOW, 2 * AHEAD_SECONDS)
    assert len(sent(scheduler.step(accepted(0, 9, plan=SLOW)))) == 2
    # what it is at does not count
    scheduler = opened()
    taught(scheduler, SLOW, 2 * AHEAD_SECONDS)
    scheduler.step(accepted(0, 1, plan=SLOW))
    assert len(sent(scheduler.step(accepted(1, 100)))) == FULL - 1


def test_a_worker_has_few_batches_however_quick_they_are() -> None:
    scheduler = opened()
    taught(scheduler, PLAN, TARGET_SECONDS / 1000)
    effects = [scheduler.step(accepted(index, 1)) for index in range(PREFETCH + 3)]
    assert [len(sent(each)) for each in effects] == [1] * PREFETCH + [0] * 3
    # and what waited goes together
    assert [len(events) for _, events in sent(done(scheduler))] == [3]


def test_the_worker_with_least_to_do_is_served_first() -> None:
    scheduler = opened(workers=3)
    workers = [worker for worker, _ in sent(scheduler.step(accepted(0, 100)))]
    rounds = [sorted(workers[start : start + 3]) for start in range(0, len(workers), 3)]
    assert rounds == [[1, 2, 3]] * FULL


def test_batches_are_longer_if_nobody_waits_for_single_events() -> None:
    each = TARGET_SECONDS / 10
    sizes = []
    for is_bulk in (False, True):
        scheduler = opened(is_bulk=is_bulk)
        taught(scheduler, PLAN, each)
        sizes.append(len(sent(scheduler.step(accepted(0, 1000)))[0][1]))
    assert sizes == [10, round(BULK_SECONDS / each)]


def test_batches_are_not_longer_while_another_run_waits() -> None:
    scheduler = opened(is_bulk=True, runs=2)
    taught(scheduler, PLAN, TARGET_SECONDS / 10)
    scheduler.step(accepted(0, 1000))
    scheduler.step(accepted(0, 1000, run=2))
    sizes = [len(events) for _, events in sent(done(scheduler, 1)) + sent(done(scheduler, 1))]
    assert set(sizes) == {10}


@pytest.mark.parametrize("are_cascades", [False, True])
def test_few_events_are_shared_out_among_idle_workers(are_cascades: bool) -> None:
    scheduler = opened(workers=4)
    taught(scheduler, PLAN, TARGET_SECONDS / 20)
    keys = list(range(8)) if are_cascades else None
    batches = sent(scheduler.step(accepted(0, 8, keys=keys)))
    assert sorted((worker, len(events)) for worker, events in batches) == [
        (worker, 2) for worker in (1, 2, 3, 4)
    ]


def test_few_events_go_together_to_the_only_idle_worker() -> None:
    scheduler = opened(workers=2)
    taught(scheduler, PLAN, TARGET_SECONDS / 100)
    scheduler.step(accepted(0, 1))
    assert [len(events) for _, events in sent(scheduler.step(accepted(1, 8)))] == [8]


def test_the_last_events_of_a_run_wait_for_an_idle_worker() -> None:
    scheduler = opened(workers=2, is_bulk=True)
    taught(scheduler, SLOW, 1.0)
    scheduler.step(accepted(0, 6, plan=SLOW))  # two to each
    scheduler.step(Closed(1))
    assert sent(done(scheduler, 1)) == []  # it has another
    assert sent(done(scheduler, 1)) == [(1, ["root 4"])]


def test_at_the_end_of_a_run_a_worker_takes_half_of_its_share() -> None:
    scheduler = opened()
    taught(scheduler, PLAN, TARGET_SECONDS / 100)
    scheduler.step(WorkerReady(2))
    full = scheduler._estimates.events_per_batch(PLAN)
    scheduler.step(accepted(0, 2 * FULL * full + 80))
    scheduler.step(Closed(1))
    for _ in range(FULL - 2):
        assert sent(done(scheduler, 1)) == []  # it has enough to do until the end is near
        assert sent(done(scheduler, 2)) == []
    sizes: list[int] = []
    while sum(sizes) < 80:
        for worker in (1, 2):
            sizes += [len(events) for _, events in sent(done(scheduler, worker))]
    # of 80 left, half of what two workers would have each; and so on, up to what is worth it
    least = round(LEAST_SECONDS / (TARGET_SECONDS / 100))
    assert sizes == [20, 15, least, least, least, 80 - 35 - 3 * least]


@pytest.mark.parametrize(("workers", "least"), [(4, 10), (10, 10), (100, 100)])
def test_the_last_batches_are_longer_the_more_workers_wait_for_one_coordinator(
    workers: int, least: int
) -> None:
    scheduler = opened(workers=workers, is_bulk=True)
    taught(scheduler, PLAN, LEAST_SECONDS / 10)
    scheduler.step(accepted(0, 5 * workers), more=True)
    sizes = [len(events) for _, events in sent(scheduler.step(Closed(1)))]
    assert sizes == [least] * (5 * workers // least)


def test_roots_that_come_with_the_end_of_their_run_are_shared_like_its_end() -> None:
    wanted = MOST_EVENTS // 2
    scheduler = opened(is_bulk=True)
    scheduler.step(WorkerReady(2))
    taught(scheduler, PLAN, BULK_SECONDS / wanted)
    assert scheduler.step(accepted(0, wanted), more=True) == []
    assert scheduler.is_idle is False
    (first, *_) = sent(scheduler.step(Closed(1)))
    assert len(first[1]) == wanted // (2 * SHARES_PER_WORKER)


def _loads(*ahead: tuple[float, ...]) -> WorkerLoads:
    """Workers 1, 2, ... that are at a batch, and have others of so many seconds behind it."""
    loads = WorkerLoads()
    for worker, batches in enumerate(ahead, 1):
        loads.add(worker)
        for seconds in (0.1, *batches):
            batch = Batch(None)
            batch.size, batch.seconds = 1, seconds
            loads.push(worker, batch)
    return loads


def test_the_worker_with_the_least_to_do_is_next_whatever_number_of_batches_that_is() -> None:
    share = LATE_SECONDS / 4
    loads = _loads((3 * share,), (share, share))
    assert loads.roomiest(idle=False) == 2
    assert loads.earliest() == 2
    assert _loads((), (share,)).earliest() == 1
    assert _loads((share,), (2 * share, 2 * share)).earliest() == 1


def test_at_the_end_of_a_run_no_worker_has_much_to_do_behind_its_batch() -> None:
    loads = _loads((LATE_SECONDS,), (LATE_SECONDS,))
    assert loads.roomiest(idle=False) == 1
    assert loads.earliest() is None
    assert WorkerLoads().earliest() is None


def test_of_many_workers_those_with_much_to_do_do_not_hide_one_with_little() -> None:
    loads = _loads(*[(LATE_SECONDS,)] * 20, (LATE_SECONDS / 8,))
    assert loads.earliest() == 21
    assert loads.roomiest(idle=False) == 21


def test_the_end_of_one_run_beside_another_is_like_any_other_part_of_it() -> None:
    scheduler = opened(workers=0, runs=2)
    scheduler._estimates.learn_seconds(PLAN.indices, TARGET_SECONDS / 100)
    for run in (1, 2):
        scheduler.step(accepted(0, 200, run=run))
    scheduler.step(Closed(1))
    scheduler.step(WorkerReady(1))
    assert scheduler._loads.ahead > 2 * LATE_SECONDS


def test_a_run_that_is_closed_long_before_its_end_is_not_near_it() -> None:
    scheduler = opened(workers=0)
    scheduler._estimates.learn_seconds(PLAN.indices, TARGET_SECONDS / 100)
    scheduler.step(accepted(0, 10_000))
    scheduler.step(Closed(1))
    scheduler.step(WorkerReady(1))
    assert scheduler._loads.ahead == pytest.approx(AHEAD_SECONDS)


def test_a_batch_that_is_cut_is_expected_to_take_less() -> None:
    scheduler = opened()
    taught(scheduler, PLAN, TARGET_SECONDS / 10)
    scheduler.step(accepted(0, 1000))
    scheduler.step(TakenBack(1, 4))
    scheduler.step(WorkerReady(2))
    seconds = 4 * TARGET_SECONDS / 10
    assert scheduler._loads._loads[1].seconds == pytest.approx(seconds)
    done(scheduler, 1, timings=((PLAN.indices, 4, seconds),))
    assert scheduler._loads._loads[1].pace == pytest.approx(1.0)


def test_the_end_of_a_run_is_not_cut_finer_than_a_batch_is_worth() -> None:
    scheduler = opened(workers=4)
    each = TARGET_SECONDS / 1000
    taught(scheduler, PLAN, each)
    fit = round(LEAST_SECONDS / each)
    batches = sent(scheduler.step(accepted(0, 2 * fit + 80)))
    assert sorted(len(events) for _, events in batches) == [80, fit, fit]


def test_a_batch_is_sized_by_time() -> None:
    scheduler = opened()
    untimed = sent(scheduler.step(accepted(0, 3 * MOST_EVENTS)))
    assert [len(events) for _, events in untimed] == [2] * FULL
    # they turn out to be quick, and the next batches are the largest there are
    effects = done(scheduler, timings=((PLAN.indices, 2, 2e-6),))
    assert {len(events) for _, events in sent(effects)} == {MOST_EVENTS}


def test_slow_events_travel_alone() -> None:
    scheduler = opened(is_bulk=True)
    taught(scheduler, SLOW, BULK_SECONDS)
    assert [len(each) for _, each in sent(scheduler.step(accepted(0, 9, plan=SLOW)))] == [1, 1]


def test_a_slow_event_does_not_join_a_batch_of_quick_ones() -> None:
    scheduler = opened()
    taught(scheduler, SLOW, 10 * TARGET_SECONDS)
    taught(scheduler, PLAN, TARGET_SECONDS / 100)
    effects = scheduler.step(Accepted(1, 0, ["q", "q", "slow", "q"], [PLAN, PLAN, SLOW, PLAN]))
    assert [events for _, events in sent(effects)] == [["q", "q"]]
    # nor go behind it: somebody may wait for it, and another worker may be idle sooner
    assert [events for _, events in sent(done(scheduler))] == [["slow"], ["q"]]


def test_runs_take_turns_a_batch_each() -> None:
    scheduler = opened(workers=0, runs=3)
    for run in (1, 2, 3):
        scheduler.step(accepted(0, 100, run=run))
    runs = []
    for worker in (1, 2, 3):
        runs += [
            effect.batch.run_id
            for effect in scheduler.step(WorkerReady(worker))
            if isinstance(effect, Send)
        ]
    assert runs == [1, 2, 3] * FULL


def test_beside_another_run_the_last_events_do_not_wait_for_an_idle_worker() -> None:
    scheduler = opened(runs=2, is_bulk=True)
    taught(scheduler, SLOW, 1.0)
    scheduler.step(accepted(0, 3, run=1, plan=SLOW))
    scheduler.step(Closed(1))
    # one is left of run 1, and waits until the worker is idle
    assert sent(done(scheduler)) == []
    effects = scheduler.step(accepted(0, 2, run=2))
    # with enough of run 2 no worker would ever be idle
    assert [effect.batch.run_id for effect in effects if isinstance(effect, Send)] == [1]


def test_a_retired_worker_is_sent_nothing_more() -> None:
    scheduler = opened(workers=2)
    taught(scheduler, PLAN, TARGET_SECONDS)
    scheduler.step(accepted(0, 100))
    scheduler.step(Retired(1))
    while scheduler.held_by(1) is not None:
        assert all(worker == 2 for worker, _ in sent(done(scheduler, 1)))
    assert {worker for worker, _ in sent(scheduler.step(WorkerGone(1, None)))} <= {2}
    with pytest.raises(InternalError):
        scheduler.step(Retired(1))


# --- bytes ---


def test_a_batch_of_large_events_has_few_of_them() -> None:
    scheduler = opened()
    taught(scheduler, LARGE, TARGET_SECONDS / 1000, size_bytes=MOST_BYTES // 10)
    effects = scheduler.step(accepted(0, 100, plan=LARGE))
    assert [len(events) for _, events in sent(effects)] == [10] * PREFETCH


def test_an_event_larger_than_a_batch_travels_alone() -> None:
    scheduler = opened()
    taught(scheduler, LARGE, TARGET_SECONDS / 1000, size_bytes=MOST_BYTES + 1)
    effects = scheduler.step(accepted(0, PREFETCH + 3, plan=LARGE))
    assert [len(events) for _, events in sent(effects)] == [1] * PREFETCH


@pytest.mark.parametrize("is_cascade", [False, True])
def test_large_events_behind_a_small_one_are_few_too(is_cascade: bool) -> None:
    scheduler = opened()
    taught(scheduler, PLAN, TARGET_SECONDS / 1000)
    taught(scheduler, LARGE, TARGET_SECONDS / 1000, size_bytes=MOST_BYTES // 10)
    small_and_large = [*planned("small"), *planned(*range(99), plan=LARGE)]
    if is_cascade:
        scheduler.step(accepted(0, 1))
        effects = done(scheduler, None, {0: small_and_large})
    else:
        events = [event for event, _ in small_and_large]
        effects = scheduler.step(Accepted(1, 0, events, [plan for _, plan in small_and_large]))
    assert len(sent(effects)[0][1]) == 10


def test_a_worker_that_holds_many_bytes_gets_no_second_batch() -> None:
    scheduler = opened()
    taught(scheduler, PLAN, TARGET_SECONDS)
    [send] = scheduler.step(accepted(0, 1))
    assert isinstance(send, Send)
    scheduler.step(Weighed(send.worker, send.batch, WINDOW_BYTES, 0))  # classes count here
    assert scheduler.step(accepted(1, 3)) == []
    assert sent(done(scheduler)) != []


def test_a_worker_that_holds_a_little_less_gets_one() -> None:
    scheduler = opened()
    taught(scheduler, PLAN, TARGET_SECONDS)
    [send] = scheduler.step(accepted(0, 1))
    assert isinstance(send, Send)
    scheduler.step(Weighed(send.worker, send.batch, WINDOW_BYTES - 1))
    assert len(scheduler.step(accepted(1, 1))) == 1


def test_the_bytes_of_all_batches_that_a_worker_holds_count() -> None:
    scheduler = opened()
    taught(scheduler, PLAN, TARGET_SECONDS)
    sizes = [2, WINDOW_BYTES - 3, 1]
    for index, size_bytes in enumerate(sizes):
        [send] = scheduler.step(accepted(index, 1))
        assert isinstance(send, Send)
        scheduler.step(Weighed(send.worker, send.batch, size_bytes))
    assert scheduler.step(accepted(3, 1)) == []
    # and those of the batch that is over do not
    assert sent(done(scheduler)) == [(1, ["root 3"])]


# --- what a worker gives back, or is taken from it ---


def test_events_given_back_go_to_an_idle_worker() -> None:
    scheduler = opened()
    taught(scheduler, PLAN, TARGET_SECONDS / 4)
    scheduler.step(accepted(0, 8))  # 0-3, 4-7
    scheduler.step(WorkerReady(2))
    effects = done(scheduler, 1, at=1, gave_back=True)
    assert told(effects) == [settled(0, 1)]
    assert sent(effects) == [(2, ["root 1", "root 2", "root 3"])]


def test_the_rest_of_a_chain_that_is_given_back_goes_before_its_follow_ups() -> None:
    scheduler = opened()
    taught(scheduler, PLAN, TARGET_SECONDS / 10)
    scheduler.step(accepted(0, 1))
    done(scheduler, None, {0: planned("a", "b", "c")})
    effects = done(scheduler, None, {0: planned("aa")}, at=1, gave_back=True)
    assert sent(effects) == [(1, ["b", "c", "aa"])]
    assert done(scheduler) == [over((0, 5))]


def test_a_batch_can_be_given_back_before_it_was_begun() -> None:
    scheduler = opened()
    scheduler.step(accepted(0, 2))
    assert sent(done(scheduler, at=0, gave_back=True)) == [(1, ["root 0", "root 1"])]


def test_events_behind_a_slow_one_go_to_another_worker() -> None:
    scheduler = opened()
    taught(scheduler, PLAN, TARGET_SECONDS / 4)
    scheduler.step(accepted(0, 6))  # 0-3, 4-5
    scheduler.step(WorkerReady(2))
    assert scheduler.overloaded == [1]
    assert sent(scheduler.step(TakenBack(1, 1))) == [
        (2, ["root 1", "root 2", "root 3", "root 4"]),
        (2, ["root 5"]),
    ]
    # until it is done with what it is at, it gets nothing more
    assert {worker for worker, _ in sent(scheduler.step(accepted(6, 100)))} == {2}
    assert done(scheduler, 1)[0] == settled(0, 1)
    assert scheduler.held_by(1) is not None


def test_the_rest_of_a_chain_that_is_taken_back_waits_for_its_first_event() -> None:
    scheduler = opened()
    scheduler.step(accepted(0, 1))
    done(scheduler, None, {0: planned("a", "b")})
    scheduler.step(WorkerReady(2))
    assert scheduler.step(TakenBack(1, 1)) == []
    scheduler.step(WorkerGone(2, None))
    effects = done(scheduler, 1, {0: planned("aa")})
    assert [events for _, events in sent(effects)] == [["b", "aa"]]


def test_the_death_of_a_slow_worker_charges_an_event_that_it_kept() -> None:
    scheduler = opened()
    scheduler.step(accepted(0, 2))
    scheduler.step(WorkerReady(2))
    assert sent(scheduler.step(TakenBack(1, 1))) == [(2, ["root 1"])]
    assert scheduler.step(WorkerGone(1, 0, ERROR)) == [ended(0, FAILED, handlers=0)]


def test_nobody_is_overloaded_while_nobody_is_idle_or_work_waits() -> None:
    scheduler = opened(workers=2, is_bulk=True)
    taught(scheduler, SLOW, 1.0)
    scheduler.step(accepted(0, 4, plan=SLOW))
    assert scheduler.overloaded == []
    done(scheduler, 2)
    assert scheduler.overloaded == []
    done(scheduler, 2)
    assert scheduler.overloaded == [1]
    done(scheduler, 1)
    assert scheduler.overloaded == []


# --- what nothing is sent behind ---


def test_no_long_event_waits_behind_another_batch_if_somebody_waits_for_it() -> None:
    for is_bulk in (False, True):
        scheduler = opened(workers=2, is_bulk=is_bulk)
        taught(scheduler, SLOW, BULK_SECONDS)
        batches = sent(scheduler.step(accepted(0, 4, plan=SLOW)))
        assert len(batches) == (4 if is_bulk else 2)
    for seconds, most in ((LONG_SECONDS, 1), (LONG_SECONDS * 0.99, 4)):
        scheduler = opened()
        taught(scheduler, PLAN, seconds)
        assert len(sent(scheduler.step(accepted(0, 4)))) == most


@pytest.mark.parametrize("keys", [None, [1, 2, 3, 4, 5, 6]])
@pytest.mark.parametrize("is_bulk", [False, True])
def test_after_a_long_event_others_go_one_by_one_to_idle_workers(
    keys: list[int] | None, *, is_bulk: bool
) -> None:
    scheduler = opened(workers=2, is_bulk=is_bulk)
    for _ in range(5):
        taught(scheduler, PLAN, 1e-6)
    taught(scheduler, PLAN, LONG_SECONDS)
    sizes = [len(events) for _, events in sent(scheduler.step(accepted(0, 6, keys=keys)))]
    assert (sizes == [1, 1]) is not is_bulk


def test_a_long_event_does_not_wait_for_an_idle_worker_while_other_runs_have_work() -> None:
    scheduler = opened(workers=2, runs=2)
    taught(scheduler, SLOW, LONG_SECONDS)
    taught(scheduler, PLAN, TARGET_SECONDS)
    scheduler.step(accepted(0, 100))
    assert sent(scheduler.step(accepted(0, 1, run=2, plan=SLOW))) == []
    later = [events for _ in range(6) for _, events in sent(done(scheduler, 1))]
    assert ["root 0"] in later


def test_events_taken_back_keep_the_order_of_the_input() -> None:
    scheduler = opened(workers=2)
    scheduler.step(accepted(0, 2 * HELD))
    scheduler.step(TakenBack(2, 1))
    scheduler.step(TakenBack(1, 1))
    left = [events for _, events in sent(scheduler.step(WorkerReady(3)))]
    while scheduler.held_by(3):
        left += [events for _, events in sent(done(scheduler, 3))]
    roots = [int(str(event).split()[1]) for events in left for event in events]
    assert roots == sorted(roots)
    assert len(roots) > HELD


def test_events_taken_back_behind_an_unexpectedly_long_one_go_one_by_one() -> None:
    for seconds, size in ((1e-6, 1), (TARGET_SECONDS / 2, 2)):
        scheduler = opened()
        taught(scheduler, PLAN, seconds)
        scheduler.step(accepted(0, 6))
        for worker in (2, 3):
            scheduler.step(WorkerReady(worker))
        sizes = [len(events) for _, events in sent(scheduler.step(TakenBack(1, 1)))]
        assert sizes[0] == size


def test_no_batch_is_queued_while_a_worker_starts() -> None:
    scheduler = opened()
    taught(scheduler, PLAN, TARGET_SECONDS / 4)
    scheduler.starting = 2
    # one batch, and it is what the two others leave of it
    ((worker, events),) = sent(scheduler.step(accepted(0, 6)))
    assert (worker, len(events)) == (1, 2)
    scheduler.starting = 1
    assert [each for each, _ in sent(scheduler.step(WorkerReady(2)))] == [2]
    assert sent(scheduler.step(accepted(6, 4))) == []
    scheduler.starting = 0
    assert {each for each, _ in sent(scheduler.step(WorkerReady(3)))} >= {1, 3}


# --- who may be asked to report ---


def test_a_worker_with_several_events_in_its_batch_is_reportable() -> None:
    scheduler = opened()
    taught(scheduler, PLAN, TARGET_SECONDS / 4)
    scheduler.step(accepted(0, 3))
    seen = [scheduler.reportable]
    for at in (1, 2):
        done(scheduler, 1, at=at)
        seen.append(scheduler.reportable)
    # the worker reports the last event by itself
    assert seen == [[1], [1], []]


def test_if_nobody_waits_for_single_roots_workers_are_reportable_for_an_idle_one() -> None:
    scheduler = opened(workers=2, is_bulk=True)
    taught(scheduler, PLAN, TARGET_SECONDS / 4)
    scheduler.step(accepted(0, 1))
    assert scheduler.reportable == []
    scheduler.step(accepted(1, 1000))
    assert not scheduler._loads.idle
    assert scheduler.reportable == []
    while scheduler.held_by(2):
        done(scheduler, 2)
    assert scheduler._loads.idle
    assert scheduler.reportable == [1]


# --- slack, and who has too much ---


def test_slack_is_the_least_work_of_a_worker_besides_its_current_batch() -> None:
    assert Scheduler().slack == 0.0
    scheduler = opened(workers=2, runs=2)
    taught(scheduler, PLAN, TARGET_SECONDS)
    assert scheduler.slack == 0.0
    scheduler.step(Closed(2))
    scheduler.step(accepted(0, 5))  # three and two
    assert scheduler.slack == 0.0  # whoever hands in roots may wait for one of these
    scheduler.step(Closed(1))
    assert ahead(scheduler) == pytest.approx(TARGET_SECONDS)


def test_slack_is_less_if_events_take_less_time_than_expected() -> None:
    scheduler = opened()
    taught(scheduler, PLAN, TARGET_SECONDS)
    scheduler.step(accepted(0, 10_000))
    done(scheduler, timings=((PLAN.indices, 1, TARGET_SECONDS / 100),))
    assert ahead(scheduler) == pytest.approx(AHEAD_SECONDS / 100)
    done(scheduler, timings=((PLAN.indices, 1, 1.5 * TARGET_SECONDS),))
    assert ahead(scheduler) == pytest.approx(AHEAD_SECONDS)  # and not more in any case


def test_slack_follows_the_reported_part_of_a_batch() -> None:
    scheduler = opened()
    taught(scheduler, PLAN, TARGET_SECONDS / 8)
    scheduler.step(accepted(0, 10_000))
    part = (PLAN.indices, 2, TARGET_SECONDS / 8), (OTHER.indices, 2, TARGET_SECONDS / 8)
    for at in (4, 8):
        done(scheduler, at=at, timings=part)
        assert ahead(scheduler) == pytest.approx(AHEAD_SECONDS / 2)


def test_there_is_no_slack_while_one_of_two_closed_runs_may_be_waited_for() -> None:
    scheduler = opened(workers=2, runs=2)
    taught(scheduler, PLAN, TARGET_SECONDS)
    scheduler.step(accepted(0, 5))
    scheduler.step(Closed(1))
    scheduler.step(accepted(0, 1, run=2))
    scheduler.step(Closed(2))
    assert scheduler.slack == 0.0


def test_there_is_no_slack_while_a_run_may_wait_for_a_batch_to_end() -> None:
    scheduler = opened()
    taught(scheduler, PLAN, TARGET_SECONDS)
    scheduler.step(accepted(0, 2))
    assert scheduler.slack == 0.0  # roots may depend on these
    scheduler.step(accepted(2, 100))
    assert ahead(scheduler) == pytest.approx(AHEAD_SECONDS)


def _with_three_batches_each() -> Scheduler:
    scheduler = opened(workers=2)
    taught(scheduler, PLAN, TARGET_SECONDS)
    scheduler.step(accepted(0, 6))
    return scheduler


def test_a_worker_with_two_batches_more_than_one_at_its_last_is_lopsided() -> None:
    scheduler = _with_three_batches_each()
    seen = [scheduler.lopsided]
    for worker in (2, 2, 1, 1):
        done(scheduler, worker)
        seen.append(scheduler.lopsided)
    # 3 and 3, 3 and 2, 3 and 1, 2 and 1, 1 and 1
    assert seen == [[], [], [1], [], []]


def test_a_worker_with_two_batches_beside_an_idle_one_is_lopsided() -> None:
    scheduler = _with_three_batches_each()
    for _ in range(3):
        done(scheduler, 2)
    seen = [scheduler.lopsided]
    for _ in range(3):
        done(scheduler, 1)
        seen.append(scheduler.lopsided)
    assert seen == [[1], [1], [], []]


def test_nobody_is_lopsided_beside_a_worker_that_gets_nothing_more() -> None:
    """What it would give back would be sent to it again, and be asked back again."""
    scheduler = opened(workers=3)
    taught(scheduler, PLAN, TARGET_SECONDS / 2)
    scheduler.step(accepted(0, 2 * 3 * 3))
    assert [len(scheduler._loads.held(worker)) for worker in (1, 2, 3)] == [3, 3, 3]
    for _ in range(3):
        done(scheduler, 3)
    assert scheduler.lopsided == [1, 2]  # the third is idle
    scheduler.step(TakenBack(1, 1))  # the first is slow, and what it held waits no more
    for worker in (2, 3):
        while len(scheduler._loads.held(worker)) > (3 if worker == 2 else 2):
            done(scheduler, worker)
    assert [len(scheduler._loads.held(worker)) for worker in (1, 2, 3)] == [1, 3, 2]
    assert scheduler.lopsided == []


def test_nobody_is_lopsided_while_something_waits_or_alone() -> None:
    scheduler = opened(workers=2)
    taught(scheduler, PLAN, TARGET_SECONDS)
    scheduler.step(accepted(0, 2 * FULL + 1))
    scheduler.step(Closed(1))
    for _ in range(FULL - 1):
        done(scheduler, 2)
    # the last root waits for an idle worker
    assert scheduler.lopsided == []
    assert len(sent(done(scheduler, 2))) == 1
    assert scheduler.lopsided == [1]
    scheduler.step(WorkerGone(2, None))
    assert scheduler.workers == 1
    assert scheduler.lopsided == []


# --- the death of a worker ---


def test_the_death_of_an_idle_worker_changes_nothing() -> None:
    scheduler = opened(workers=2)
    assert scheduler.step(WorkerGone(1, None)) == []
    assert scheduler.workers == 1
    assert [worker for worker, _ in sent(scheduler.step(accepted(0, 100)))] == [2] * FULL


def test_only_the_running_root_is_charged_and_others_go_on_in_order() -> None:
    scheduler = opened()
    taught(scheduler, PLAN, TARGET_SECONDS / 4)
    scheduler.step(accepted(0, 8))  # 0-3, 4-7
    done(scheduler, at=1)
    effects = scheduler.step(WorkerGone(1, 2, ERROR, "h", seconds=2.0, ran=1))
    (effect,) = effects
    assert isinstance(effect, Ended)
    assert effect.ending.seconds == 2.0
    ending = effect.ending._replace(seconds=0.0)
    assert effect._replace(ending=ending) == ended(2, Result(error=ERROR, handler="h"))
    events = [each for _, batch in sent(scheduler.step(WorkerReady(2))) for each in batch]
    assert events == [f"root {index}" for index in (1, 3, 4, 5, 6, 7)]


def test_a_death_between_events_charges_nobody() -> None:
    scheduler = opened()
    scheduler.step(accepted(0, 4))
    assert scheduler.step(WorkerGone(1, None)) == []
    events = [each for _, batch in sent(scheduler.step(WorkerReady(2))) for each in batch]
    assert events == [f"root {index}" for index in range(4)]


def test_a_chain_that_comes_back_keeps_its_place_before_its_follow_ups() -> None:
    scheduler = opened()
    scheduler.step(accepted(0, 1))
    done(scheduler, None, {0: planned("a", "b")})
    done(scheduler, None, {0: planned("aa")}, at=1)
    scheduler.step(WorkerGone(1, None))
    assert sent(scheduler.step(WorkerReady(2)))[0][1] == ["b", "aa"]


def test_the_death_of_a_worker_ends_the_cascade_of_the_running_event() -> None:
    scheduler = opened()
    scheduler.step(accepted(0, 1))
    done(scheduler, None, {0: planned("a", "b")})
    # `a` ran but was not reported: it is not counted
    effects = scheduler.step(WorkerGone(1, 1, ERROR, "h"))
    assert effects == [ended(0, Result(error=ERROR, handler="h"), events=2, handlers=1, of="b")]
    assert scheduler.step(WorkerReady(2)) == []


def test_a_chain_that_had_ended_does_not_come_back() -> None:
    scheduler = opened()
    scheduler.step(accepted(0, 1))
    done(scheduler, None, {0: planned("a", "b")})
    done(scheduler, results={0: STOPPED}, at=1)
    assert scheduler.step(WorkerGone(1, None)) == []
    assert scheduler.step(WorkerReady(2)) == []
    assert scheduler.is_idle


def test_a_death_in_a_run_until_error_drops_later_roots() -> None:
    scheduler = opened(until_error=True)
    scheduler.step(accepted(0, HELD + 6))
    effects = scheduler.step(WorkerGone(1, 1, ERROR))
    assert ended(1, FAILED, handlers=0) in effects
    dropped = [effect for effect in effects if isinstance(effect, Dropped)]
    assert sorted(
        index for each in dropped for index in range(each.first, each.first + each.roots)
    ) == list(range(2, HELD + 6))
    assert sent(scheduler.step(WorkerReady(2))) == [(2, ["root 0"])]


def test_events_that_come_back_to_a_dropped_run_are_dropped() -> None:
    scheduler = opened()
    scheduler.step(accepted(0, 4))
    scheduler.step(Closed(1, drop=True))
    effects = scheduler.step(WorkerGone(1, None))
    assert sum(effect.roots for effect in effects if isinstance(effect, Dropped)) == 4
    assert effects[-1] == Finished(1)


def test_a_root_that_is_over_behind_others_is_not_run_again() -> None:
    scheduler = opened()
    taught(scheduler, PLAN, TARGET_SECONDS / 4)
    scheduler.step(accepted(0, 8))  # 0-3, 4-7
    done(scheduler, at=1)
    effects = scheduler.step(WorkerGone(1, None, spared=2))
    assert effects == [over((2, 1))]
    events = [each for _, batch in sent(scheduler.step(WorkerReady(2))) for each in batch]
    assert events == [f"root {index}" for index in (1, 3, 4, 5, 6, 7)]


def test_one_event_may_be_charged_while_a_later_one_is_over() -> None:
    scheduler = opened()
    taught(scheduler, PLAN, TARGET_SECONDS / 8)
    scheduler.step(accepted(0, 6))
    effects = scheduler.step(WorkerGone(1, 1, ERROR, "h", 3))
    assert ended(1, Result(error=ERROR, handler="h"), handlers=0) in effects
    assert over((3, 1)) in effects
    events = [each for _, batch in sent(scheduler.step(WorkerReady(2))) for each in batch]
    assert events == [f"root {index}" for index in (0, 2, 4, 5)]


def test_an_event_of_a_chain_that_is_over_behind_others_is_counted_and_not_run_again() -> None:
    scheduler = opened()
    scheduler.step(accepted(0, 1))
    done(scheduler, None, {0: planned("a", "b", "c")})
    assert scheduler.step(WorkerGone(1, None, spared=1)) == []
    assert sent(scheduler.step(WorkerReady(2))) == [(2, ["a", "c"])]
    assert done(scheduler, worker=2) == [over((0, 4))]


def test_a_strand_that_is_over_behind_others_is_not_run_again() -> None:
    scheduler = opened()
    taught(scheduler, PLAN, TARGET_SECONDS / 8)
    scheduler.step(accepted(0, 3))
    done(scheduler, None, as_singles({at: planned(each) for at, each in enumerate("abc")}))
    assert scheduler.step(WorkerGone(1, None, spared=1)) == [over((1, 2))]
    ((_, events),) = sent(scheduler.step(WorkerReady(2)))
    assert set(events) == {"a", "c"}


def test_the_running_event_of_a_second_part_is_found() -> None:
    scheduler = opened(workers=0)
    for first in (0, 5):
        scheduler.step(accepted(first, 1))
    scheduler.step(WorkerReady(1))
    effects = scheduler.step(WorkerGone(1, 1, ERROR))
    assert effects == [ended(5, FAILED, handlers=0)]


# --- demand ---


def test_demand_keeps_every_worker_busy() -> None:
    scheduler = opened(workers=2)
    # two untimed events go into a batch; 2 workers of PREFETCH, and one batch behind each
    assert scheduler.demand(1) == 2 * (2 * PREFETCH + 2)
    scheduler.step(accepted(0, 5))  # three batches
    demand = 2 * (2 * PREFETCH - 3 + 2)
    assert scheduler.demand(1) == demand
    scheduler.step(accepted(5, demand))
    assert scheduler.demand(1) == 0


def test_the_demand_of_a_run_with_large_batches_lets_its_end_be_seen_coming() -> None:
    each = TARGET_SECONDS / 100
    large = round(BULK_SECONDS / each)
    for is_bulk, wanted in ((True, SHARES_PER_WORKER * large), (False, (PREFETCH + 1) * 100)):
        scheduler = opened(is_bulk=is_bulk)
        taught(scheduler, PLAN, each)
        scheduler.step(accepted(0, 1))
        scheduler.step(accepted(1, scheduler.demand(1)))
        # two large ones are sent, and as much waits as can be cut to make the end
        demand = scheduler.demand(1)
        waits = scheduler._state.runs[1].backlog
        assert waits + demand == (wanted if is_bulk else wanted - FULL * 100)


def test_there_is_demand_before_a_worker_is_ready() -> None:
    scheduler = opened(workers=0)
    assert scheduler.demand(1) > 0
    scheduler.step(accepted(0, scheduler.demand(1)))
    assert scheduler.demand(1) == 0


@pytest.mark.parametrize("keys", [["k"], list(range(1000))], ids=["equal", "different"])
def test_the_demand_of_a_run_with_keys_is_met_at_some_time(keys: list[Hashable]) -> None:
    scheduler = opened(workers=2)
    roots = 0
    while demand := scheduler.demand(1):
        of_roots = [keys[index % len(keys)] for index in range(roots, roots + demand)]
        scheduler.step(accepted(roots, demand, keys=of_roots))
        roots += demand
        # a worker that is idle has others looked for, but not for ever
        assert roots < 100 + 4 * MOST_EVENTS
    assert (roots > 100) == (len(keys) == 1)


@pytest.mark.parametrize("until_error", [False, True])
def test_there_is_no_demand_once_a_run_is_closed_or_has_failed(until_error: bool) -> None:
    scheduler = opened(until_error=until_error)
    scheduler.step(accepted(0, 1))
    done(scheduler, results={0: FAILED})
    assert (scheduler.demand(1) == 0) == until_error
    scheduler.step(Closed(1))
    assert scheduler.demand(1) == 0
    assert scheduler.demand(99) == 0


# --- what cannot have happened ---


def _snapshot(value: Any, seen: set[int] | None = None) -> Any:
    """The state as plain data; events, plans and what was seen before as themselves."""
    seen = set() if seen is None else seen
    if isinstance(value, (list, tuple, deque)):
        return [_snapshot(each, seen) for each in value]
    if isinstance(value, (dict, set)):
        items = value.items() if isinstance(value, dict) else [(each, None) for each in value]
        return [(_snapshot(key, seen), _snapshot(each, seen)) for key, each in items]
    if not type(value).__module__.startswith("evproc_pool") or id(value) in seen:
        return value
    seen.add(id(value))
    names = [*getattr(type(value), "__slots__", ()), *getattr(value, "__dict__", {})]
    return {name: _snapshot(getattr(value, name), seen) for name in names}


def _busy() -> Scheduler:
    """Worker 1 has batches of run 1 and is at the second event; more waits; run 2 is closed."""
    scheduler = opened(runs=2)
    taught(scheduler, PLAN, TARGET_SECONDS / 4)
    scheduler.step(accepted(0, 4 * FULL + 2))
    scheduler.step(accepted(0, 1, run=2))
    scheduler.step(Closed(2))
    done(scheduler, at=1)
    return scheduler


_IMPOSSIBLE: dict[str, Input] = {
    "a run opened twice": Opened(1),
    "roots of an unknown run": accepted(0, 1, run=9),
    "roots of a closed run": accepted(1, 1, run=2),
    "no roots": Accepted(1, 10, [], []),
    "fewer plans than roots": Accepted(1, 10, ["a", "b"], [PLAN]),
    "more plans than roots": Accepted(1, 10, ["a"], [PLAN, PLAN]),
    "fewer keys than roots": Accepted(1, 10, ["a", "b"], [PLAN, PLAN], ["k"]),
    "more keys than roots": Accepted(1, 10, ["a"], [PLAN], ["k", "k"]),
    "a key that is not hashable": Accepted(1, 10, ["a", "b"], [PLAN, PLAN], ["k", []]),  # type: ignore[list-item]  # that is the point
    "timings of no events": Progress(1, 2, [0.0], timings=[((1,), 0, 0.0)]),
    "a worker ready twice": WorkerReady(1),
    "progress of an unknown worker": Progress(9, 1, [0.0]),
    "progress backwards": Progress(1, 0, []),
    "progress past the end": Progress(1, 5, [0.0] * 4),
    "fewer times than events": Progress(1, 3, [0.0]),
    "more times than events": Progress(1, 2, [0.0, 0.0]),
    "taken back from an unknown worker": TakenBack(9, 1),
    "kept less than it has begun": TakenBack(1, 1),
    "kept more than it has": TakenBack(1, 5),
    "an unknown worker dead": WorkerGone(9, None),
    "dead at what was over": WorkerGone(1, 0, ERROR),
    "dead past the end": WorkerGone(1, 4, ERROR),
    "dead at a negative position": WorkerGone(1, -1, ERROR),
    "dead at an event without an error": WorkerGone(1, 2),
    "over before what it died of": WorkerGone(1, 3, ERROR, spared=2),
    "over past the end": WorkerGone(1, None, spared=4),
    "over in the first place": WorkerGone(1, None, spared=1),
    "an idle one with an event that is over": WorkerGone(2, None, spared=1),
    "an unknown worker's batch weighed": Weighed(9, Batch(None), 1),
    "another batch weighed": Weighed(1, Batch(None), 1),
    "something else": "tick",  # type: ignore[dict-item]  # that is the point
}


@pytest.mark.parametrize("what", _IMPOSSIBLE)
def test_an_impossible_input_is_an_error_that_changes_nothing(what: str) -> None:
    scheduler = _busy()
    before = _snapshot(scheduler)
    with pytest.raises(InternalError):
        scheduler.step(_IMPOSSIBLE[what])
    assert _snapshot(scheduler) == before


def test_a_snapshot_tells_a_change() -> None:
    scheduler = _busy()
    before = _snapshot(scheduler)
    assert _snapshot(scheduler) == before
    done(scheduler, at=2)
    assert _snapshot(scheduler) != before


@pytest.mark.parametrize(
    "item",
    [Progress(1, 1, [0.0]), TakenBack(1, 1), WorkerGone(1, 0, ERROR)],
    ids=["progress", "taken back", "dead at an event"],
)
def test_an_idle_worker_has_no_batch_to_report_on(item: Input) -> None:
    scheduler = opened()
    with pytest.raises(InternalError):
        scheduler.step(item)
    assert scheduler.is_idle
    assert scheduler.workers == 1


@pytest.mark.parametrize("worker", [9, -1])
def test_asking_for_an_unknown_worker_is_an_error(worker: int) -> None:
    with pytest.raises(InternalError):
        opened().held_by(worker)


def test_a_batch_knows_its_events_and_roots() -> None:
    scheduler = opened()
    scheduler.step(accepted(4, 2))
    batch = scheduler.held_by(1)
    assert batch is not None
    assert [batch.at(0)[0], batch.at(1)[0]] == ["root 4", "root 5"]
    assert [batch.root_at(0), batch.root_at(1)] == [4, 5]
    with pytest.raises(InternalError):
        batch.at(2)
    with pytest.raises(InternalError):
        batch.root_at(2)


# --- Times ---


def test_times_are_the_differences() -> None:
    times = Times(1.0, [1.5, 3.0, 7.0])
    assert list(times) == [0.5, 1.5, 4.0]
    assert len(times) == 3
    assert [times[place] for place in range(3)] == [0.5, 1.5, 4.0]
    assert times.total == 6.0


def test_no_times_are_nothing() -> None:
    times = Times(1.0, [])
    assert list(times) == []
    assert times.total == 0.0
    assert list(times[0:3]) == []


@pytest.mark.parametrize("start", range(4))
@pytest.mark.parametrize("stop", range(4))
def test_a_slice_of_times_has_the_same_differences(start: int, stop: int) -> None:
    times = Times(1.0, [1.5, 3.0, 7.0])
    expected = [0.5, 1.5, 4.0][start:stop]
    assert list(times[start:stop]) == expected
    assert len(times[start:stop]) == len(expected)
    assert times[start:stop].total == sum(expected)


def test_times_are_read_from_their_start() -> None:
    times = Times(1.0, [1.5, 3.0])
    with pytest.raises(IndexError):
        times[2]
    with pytest.raises(IndexError):
        times[-1]
    with pytest.raises(ValueError, match="step"):
        times[::2]


def test_a_chain_is_not_cut_for_the_sake_of_other_idle_workers() -> None:
    scheduler = opened(workers=2)
    taught(scheduler, PLAN, TARGET_SECONDS / 1000)
    scheduler.step(accepted(0, 1))
    [(_, events)] = sent(done(scheduler, None, {0: planned(*range(100))}))
    assert events == list(range(100))


def test_bytes_that_are_expected_count_before_a_batch_is_weighed() -> None:
    scheduler = opened()
    taught(scheduler, LARGE, TARGET_SECONDS / 1000, size_bytes=WINDOW_BYTES)
    assert len(sent(scheduler.step(accepted(0, 9, plan=LARGE)))) == 1


def test_a_run_with_nothing_under_way_takes_no_slack_from_others() -> None:
    scheduler = opened()
    taught(scheduler, PLAN, TARGET_SECONDS)
    scheduler.step(accepted(0, 2 * PREFETCH))
    assert scheduler.slack > 0
    scheduler.step(Opened(2))
    assert scheduler.slack > 0


def test_roots_that_wait_for_their_keys_count_at_the_end_of_a_run() -> None:
    # or each batch would take half of what is ready, then half of that, down to one
    scheduler = opened()
    taught(scheduler, PLAN, TARGET_SECONDS / 100)
    keys = [place % 8 for place in range(80)]
    roots = list(range(80))
    scheduler.step(Accepted(1, 0, roots, [PLAN] * 80, keys))
    effects = scheduler.step(Closed(1))
    assert effects == []
    in_flight = sum(batch.size for batch in scheduler._loads.held(1))
    assert scheduler._state.runs[1].left == 80 - in_flight


def test_there_is_slack_at_the_end_of_a_run_that_is_the_only_one() -> None:
    scheduler = _with_three_batches_each()
    scheduler.step(Closed(1))
    assert ahead(scheduler) == pytest.approx(2 * TARGET_SECONDS)


# --- how many workers there is work for ---


def test_each_ordered_cascade_employs_one_worker() -> None:
    scheduler = opened(workers=0)
    assert scheduler.employable == 0
    scheduler.step(accepted(0, 5))
    assert scheduler.employable == 5
    scheduler.step(WorkerReady(1))
    assert scheduler.employable == 5  # also while they are in flight
    # the first two of them are over, of which one goes on
    done(scheduler, 1, {0: planned("a", "b", "c")})
    assert scheduler.employable == 4


def test_one_cascade_of_a_key_employs_a_worker() -> None:
    scheduler = opened(workers=0)
    scheduler.step(accepted(0, 6, keys=[1, 1, 1, 2, 2, 1]))
    assert scheduler.employable == 2


def test_each_event_of_an_unordered_cascade_employs_one() -> None:
    scheduler = opened(unordered=True)
    scheduler.step(accepted(0, 1))
    assert scheduler.employable == 1
    done(scheduler, 1, {0: planned("a", "b", "c", "d", "e")})
    assert scheduler.employable == 5


def test_demand_is_for_the_workers_that_there_may_be() -> None:
    few, many = Scheduler(), Scheduler(most_workers=8)
    for scheduler in (few, many):
        scheduler.step(Opened(1))
    assert many.demand(1) == 8 * few.demand(1)
