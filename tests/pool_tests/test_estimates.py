"""What events are expected to take, and how many of them go into a batch."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evproc_pool import estimates as module
from evproc_pool.estimates import MOST_BYTES, MOST_EVENTS, TARGET_SECONDS, Estimates
from tests.pool_tests.model import FakePlan

PLAN = FakePlan((1,))
OTHER = FakePlan((1, 2))


def test_of_a_plan_that_was_never_timed_few_events_go_into_a_batch() -> None:
    assert 1 < Estimates().events_per_batch(PLAN) < 10
    assert Estimates().events_per_batch(None) == Estimates().events_per_batch(PLAN)


def test_the_first_measurement_is_taken_as_it_is() -> None:
    estimates = Estimates()
    estimates.learn_seconds(PLAN.indices, TARGET_SECONDS / 8)
    assert estimates.seconds_of(PLAN) == TARGET_SECONDS / 8
    assert estimates.events_per_batch(PLAN) == 8


def test_plans_are_told_apart_by_their_handlers() -> None:
    estimates = Estimates()
    estimates.learn_seconds(PLAN.indices, 1.0)
    estimates.learn_bytes(PLAN, 1e9)
    assert estimates.seconds_of(OTHER) < 1.0
    assert estimates.most_events(OTHER) == MOST_EVENTS
    assert estimates.seconds_of(FakePlan((1,))) == 1.0


def test_a_change_is_believed_after_a_few_measurements() -> None:
    estimates = Estimates()
    estimates.learn_seconds(PLAN.indices, 1.0)
    estimates.learn_seconds(PLAN.indices, 2.0)
    assert 1.0 < estimates.seconds_of(PLAN) < 2.0
    for _ in range(20):
        estimates.learn_seconds(PLAN.indices, 2.0)
    assert estimates.seconds_of(PLAN) == pytest.approx(2.0, rel=0.01)


def test_no_batch_has_more_than_the_most_events() -> None:
    estimates = Estimates()
    estimates.learn_seconds(PLAN.indices, 0.0)
    estimates.learn_bytes(PLAN, 0.0)
    assert estimates.seconds_of(PLAN) > 0
    assert estimates.events_per_batch(PLAN) == MOST_EVENTS


def test_an_event_larger_than_a_batch_has_no_room_in_one_and_travels_all_the_same() -> None:
    estimates = Estimates()
    estimates.learn_bytes(PLAN, MOST_BYTES + 1)
    assert estimates.most_events(PLAN) == 0
    assert estimates.events_per_batch(PLAN) == 1


@given(
    seconds=st.lists(st.floats(0, 1e6), min_size=1, max_size=20),
    sizes=st.lists(st.floats(0, 1e12), max_size=20),
)
def test_a_full_batch_is_within_time_and_bytes(seconds: list[float], sizes: list[float]) -> None:
    estimates = Estimates()
    for each in seconds:
        estimates.learn_seconds(PLAN.indices, each)
    for each in sizes:
        estimates.learn_bytes(PLAN, each)
    slack = 1e-9 + 1e-9 * max(seconds)
    low, high = max(min(seconds), 1e-7), max(*seconds, 1e-7)
    assert low - slack <= estimates.seconds_of(PLAN) <= high + slack
    count = estimates.events_per_batch(PLAN)
    assert 1 <= count <= MOST_EVENTS
    assert count == 1 or count * estimates.seconds_of(PLAN) <= TARGET_SECONDS * (1 + 1e-9)
    assert count == 1 or count <= estimates.most_events(PLAN)
    if sizes:
        assert estimates.most_events(PLAN) * min(sizes) <= MOST_BYTES * (1 + 1e-9)


def test_the_memory_of_measurements_is_bounded() -> None:
    estimates = Estimates()
    for number in range(3 * module._MOST_PLANS):
        estimates.learn_seconds((number,), 1e-3)
        estimates.learn_bytes(FakePlan((number,)), 100.0)
    assert len(estimates._seconds) <= module._MOST_PLANS
    assert len(estimates._bytes) <= module._MOST_PLANS
