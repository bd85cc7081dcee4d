"""Cascades with large buffers go on in the worker that has these. Pure."""

from __future__ import annotations

import random
from typing import Any

import pytest

from evproc_pool.core.batches import Cascade
from evproc_pool.core.inputs_and_effects import (
    Accepted,
    Closed,
    Dropped,
    Effect,
    Opened,
    Progress,
    Retired,
    Send,
    Weighed,
    WorkerGone,
    WorkerReady,
)
from evproc_pool.core.run_state import Run
from evproc_pool.core.scheduler import Scheduler
from evproc_pool.core.worker_loads import WINDOW_BYTES
from tests.support import world
from tests.support.model import FakePlan
from tests.support.simulator import simulate

PLAN = FakePlan((1,))


def sent(effects: list[Effect]) -> list[tuple[int, list[object]]]:
    """The batches that were sent: worker and events."""
    return [
        (effect.worker, [event for part in effect.batch.parts for event in part.events])
        for effect in effects
        if isinstance(effect, Send)
    ]


def roots(first: int, count: int) -> Accepted:
    events = [f"root {index}" for index in range(first, first + count)]
    return Accepted(1, first, events, [PLAN] * count)


def large(worker: int, *follow_ups: object) -> Progress:
    """A batch of one event is over, which has returned these."""
    given = {0: [(event, PLAN) for event in follow_ups]} if follow_ups else {}
    return Progress(worker, 1, [0.0], given, has_large=bool(follow_ups))


def weigh_all(scheduler: Scheduler, effects: list[Effect], size_bytes: int = 2 << 20) -> None:
    """Events are so large that there is one in a batch."""
    for effect in effects:
        if isinstance(effect, Send):
            scheduler.step(Weighed(effect.worker, effect.batch, size_bytes))


def opened(workers: int, heavy_roots: int) -> tuple[Scheduler, list[Effect]]:
    """With one worker that has got roots; others are ready since. And what was sent."""
    scheduler = Scheduler(most_workers=workers)
    scheduler.step(WorkerReady(1))
    scheduler.step(Opened(1))
    first = scheduler.step(roots(0, 1))
    weigh_all(scheduler, first)
    scheduler.step(large(1))
    effects = scheduler.step(roots(1, heavy_roots))
    for worker in range(2, workers + 1):
        scheduler.step(WorkerReady(worker))
    return scheduler, effects


def full_worker() -> Scheduler:
    """Worker 1 has no room, and of it there is a follow-up that waits; its last one."""
    scheduler, effects = opened(1, 3)
    assert sent(effects) == [(1, ["root 1"]), (1, ["root 2"]), (1, ["root 3"])]
    weigh_all(scheduler, effects[-1:], WINDOW_BYTES)
    assert sent(scheduler.step(large(1, "next"))) == []
    return scheduler


def test_of_idle_workers_the_one_gets_it_that_has_its_buffers() -> None:
    scheduler, _ = opened(2, 1)
    # the other one has been idle for longer
    assert sent(scheduler.step(large(1, "next"))) == [(1, ["next"])]


def test_it_waits_behind_another_event_in_its_worker_if_the_others_have_work() -> None:
    scheduler, effects = opened(2, 2)
    assert sent(effects) == [(1, ["root 1"]), (1, ["root 2"])]
    assert sent(scheduler.step(roots(3, 1))) == [(2, ["root 3"])]
    assert sent(scheduler.step(large(1, "next"))) == [(1, ["next"])]


def test_an_idle_worker_gets_it_if_its_own_one_has_work() -> None:
    scheduler, effects = opened(2, 2)
    assert sent(effects) == [(1, ["root 1"]), (1, ["root 2"])]
    assert sent(scheduler.step(large(1, "next"))) == [(2, ["next"])]
    # and goes on with it
    assert sent(scheduler.step(roots(3, 1))) == [(1, ["root 3"])]
    assert sent(scheduler.step(large(2, "after next"))) == [(2, ["after next"])]


def test_a_worker_that_has_nothing_else_gets_it_if_its_own_one_has_no_room() -> None:
    scheduler = full_worker()
    assert sent(scheduler.step(WorkerReady(2))) == [(2, ["next"])]


def test_it_goes_to_others_when_its_worker_ends_or_dies() -> None:
    scheduler = full_worker()
    scheduler.step(Retired(1))
    scheduler.step(WorkerGone(1, None))
    scheduler.step(roots(4, 100))
    assert (2, ["next"]) in sent(scheduler.step(WorkerReady(2)))


def test_what_comes_of_a_worker_that_ends_goes_to_others() -> None:
    scheduler, _ = opened(2, 2)
    scheduler.step(Retired(1))
    assert sent(scheduler.step(large(1, "next"))) == [(2, ["next"])]


def test_it_is_dropped_with_its_run() -> None:
    scheduler = full_worker()
    assert Dropped(1, 1, 1) in scheduler.step(Closed(1, drop=True))
    scheduler.step(large(1))
    scheduler.step(large(1))
    assert scheduler.is_idle


def test_a_worker_goes_on_with_its_own_ones() -> None:
    run = Run(Opened(1))
    for number in range(6):
        cascade = Cascade(number)
        cascade.near = 2 if number in {1, 3} else 1
        run.add_ready(cascade)
    taken = []
    while run.ready:
        run.bring(2)
        first: Any = run.ready[0]
        run.remove_ready(first)
        taken.append(first.index)
    assert taken == [1, 3, 0, 2, 4, 5]


def test_the_first_one_has_its_turn_while_others_have_their_own_ones() -> None:
    run = Run(Opened(1))
    first, other = Cascade(0), Cascade(1)
    first.near, other.near = 1, 2
    run.add_ready(first)
    for _ in range(16):
        run.add_ready(other)
        run.bring(2)
        if run.ready[0] is first:
            break
        run.remove_ready(other)
    assert run.ready[0] is first


def test_a_batch_has_nothing_else() -> None:
    scheduler = Scheduler(most_workers=1)
    scheduler.step(WorkerReady(1))
    scheduler.step(Opened(1))
    (batch,) = sent(scheduler.step(roots(0, 1)))
    assert batch == (1, ["root 0"])
    scheduler.step(Retired(1))
    scheduler.step(large(1, "next"))
    scheduler.step(roots(1, 3))
    batches = sent(scheduler.step(WorkerReady(2)))
    assert (2, ["next"]) in batches
    assert len(batches) > 1


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_the_invariants_hold_whoever_has_large_buffers(
    share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(share)

    def progress(*args: Any, **options: Any) -> Progress:
        return Progress(*args, **options)._replace(has_large=rng.random() < share)

    monkeypatch.setattr(world, "Progress", progress)
    steps = sum(simulate(seed, 300).steps for seed in range(10))
    assert steps >= 10 * 300
