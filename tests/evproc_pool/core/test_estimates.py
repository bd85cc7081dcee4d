"""What events are expected to take, and how many of them go into a batch."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evproc_pool.core import estimates as module
from evproc_pool.core.estimates import (
    LONG_SECONDS,
    MOST_BYTES,
    MOST_EVENTS,
    OVERDUE_FACTOR,
    TARGET_SECONDS,
    Estimates,
    typical,
)
from tests.support.model import FakePlan

PLAN = FakePlan((1,))
OTHER = FakePlan((1, 2))


def test_a_batch_of_an_untimed_plan_has_few_events() -> None:
    assert 1 < Estimates().events_per_batch(PLAN) < 10
    assert Estimates().events_per_batch(None) == Estimates().events_per_batch(PLAN)


def test_the_first_measurement_is_taken_as_it_is() -> None:
    estimates = Estimates()
    estimates.learn_seconds(PLAN.indices, TARGET_SECONDS / 8)
    assert estimates.seconds_of(PLAN) == TARGET_SECONDS / 8
    assert estimates.events_per_batch(PLAN) == 8


def test_plans_are_distinguished_by_their_handlers() -> None:
    estimates = Estimates()
    estimates.learn_seconds(PLAN.indices, 1.0)
    estimates.learn_bytes(PLAN, 1e9)
    assert estimates.seconds_of(OTHER) < 1.0
    assert estimates.most_events(OTHER) == MOST_EVENTS
    assert estimates.seconds_of(FakePlan((1,))) == 1.0


def test_a_change_is_believed_after_a_few_measurements() -> None:
    estimates = Estimates()
    for _ in range(20):
        estimates.learn_seconds(PLAN.indices, 1.0)
    for _ in range(2):
        estimates.learn_seconds(PLAN.indices, 2.0)
        assert estimates.seconds_of(PLAN) == 1.0
    estimates.learn_seconds(PLAN.indices, 2.0)
    assert estimates.seconds_of(PLAN) == 2.0


@pytest.mark.parametrize("before", range(1, 7))
def test_an_event_in_which_the_worker_had_to_wait_for_a_cpu_does_not_count(before: int) -> None:
    estimates = Estimates()
    for _ in range(before):
        estimates.learn_seconds(PLAN.indices, 1e-6)
    estimates.learn_seconds(PLAN.indices, 2e-3)
    assert estimates.seconds_of(PLAN) == 1e-6


def test_a_batch_has_the_whole_number_of_events_nearest_to_its_time() -> None:
    estimates = Estimates()
    estimates.learn_seconds(PLAN.indices, TARGET_SECONDS / 2.6)
    assert estimates.events_per_batch(PLAN) == 3
    estimates = Estimates()
    estimates.learn_seconds(PLAN.indices, TARGET_SECONDS / 2.4)
    assert estimates.events_per_batch(PLAN) == 2


@pytest.mark.parametrize("count", [3, 4, 9])
@pytest.mark.parametrize("odd", [0.0, 1e3])
def test_one_odd_time_is_not_typical(count: int, odd: float) -> None:
    for place in range(count):
        assert typical([odd if place == each else 1.0 for each in range(count)]) == 1.0


@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=20))
def test_a_typical_time_is_the_median_of_three_given_times(times: list[float]) -> None:
    three = [times[0], times[(len(times) - 1) // 2], times[-1]]
    assert typical(times) == sorted(three)[1]
    assert typical(sorted(times)) == sorted(times)[(len(times) - 1) // 2]


def test_a_report_on_one_plan_teaches_the_typical_time() -> None:
    estimates = Estimates()
    estimates.learn([(PLAN.indices, 5, 5.5)], [1.0, 1.0, 1.5, 1.0, 1.0])
    assert estimates.seconds_of(PLAN) == 1.0


def test_a_single_long_batch_does_not_change_the_typical_time() -> None:
    estimates = Estimates()
    for slowest in (1.0, 100.0, 1.0):
        estimates.learn([(PLAN.indices, 5, 4.0 + slowest)], [1.0, 1.0, slowest, 1.0, 1.0])
    assert estimates.seconds_of(PLAN) == 1.0


def test_a_batch_is_as_large_as_the_part_that_slow_events_leave_done() -> None:
    estimates = Estimates()
    for _ in range(3):
        estimates.learn([(PLAN.indices, 5, 104.0)], [1.0, 1.0, 100.0, 1.0, 1.0])
    assert estimates.seconds_of(PLAN) == pytest.approx(104.0 / 5 / OVERDUE_FACTOR)


def test_a_report_on_several_plans_or_on_one_event_teaches_the_mean() -> None:
    estimates = Estimates()
    timings = [(PLAN.indices, 2, 3.0), (OTHER.indices, 1, 7.0)]
    estimates.learn(timings, [1.0, 7.0, 2.0])
    assert estimates.seconds_of(PLAN) == 1.5
    assert estimates.seconds_of(OTHER) == 7.0


def test_a_report_on_events_that_did_not_all_run_teaches_the_mean() -> None:
    # the rest of a chain behind a stop: it took no time, and is not in the timings
    estimates = Estimates()
    estimates.learn([(PLAN.indices, 2, 3.0)], [1.0, 2.0, 0.0, 0.0, 0.0])
    assert estimates.seconds_of(PLAN) == 1.5


def test_an_empty_report_teaches_nothing() -> None:
    estimates = Estimates()
    before = estimates.seconds_of(PLAN)
    estimates.learn([], [])
    assert estimates.seconds_of(PLAN) == before


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
    seconds=st.lists(
        st.one_of(st.floats(0, 2 * TARGET_SECONDS), st.floats(0, 1e6)), min_size=1, max_size=20
    ),
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
    # to the nearest whole event
    each = estimates.seconds_of(PLAN)
    assert count == 1 or (count - 0.5) * each <= TARGET_SECONDS * (1 + 1e-9)
    is_full = (count + 0.5) * each >= TARGET_SECONDS * (1 - 1e-9)
    assert is_full or count == max(1, estimates.most_events(PLAN))
    assert count == 1 or count <= estimates.most_events(PLAN)
    if sizes:
        assert estimates.most_events(PLAN) * min(sizes) <= MOST_BYTES * (1 + 1e-9)


def test_after_a_long_event_the_next_ones_may_be_long_if_somebody_waits() -> None:
    estimates = Estimates()
    quick, long = [1e-5] * 7, LONG_SECONDS
    for _ in range(3):
        estimates.learn([((1,), 7, 7e-5)], quick)
    estimates.learn([((1,), 8, sum(quick) + long)], [*quick, long])
    assert estimates.seconds_of(PLAN) == pytest.approx(1e-5)
    assert estimates.most_seconds_of(PLAN) == LONG_SECONDS
    assert estimates.most_seconds_of(OTHER) == estimates.seconds_of(OTHER)
    for _ in range(3):
        estimates.learn([((1,), 8, 8e-5)], [1e-5] * 8)
        assert estimates.most_seconds_of(PLAN) == LONG_SECONDS
    estimates.learn([((1,), 8, 8e-5)], [1e-5] * 8)
    assert estimates.most_seconds_of(PLAN) == pytest.approx(1e-5)
    estimates.learn([((1,), 1, 2 * long)], [2 * long])
    assert estimates.most_seconds_of(PLAN) == LONG_SECONDS
    estimates.learn([((1, 2), 1, 1e-5), ((1,), 1, long)], [1e-5, long])
    assert estimates.most_seconds_of(OTHER) == pytest.approx(1e-5)


def test_the_memory_of_measurements_is_bounded() -> None:
    estimates = Estimates()
    for number in range(3 * module._MOST_PLANS):
        estimates.learn_seconds((number,), 1e-3)
        estimates.learn([((number,), 1, 1.0)], [1.0])
        estimates.learn_bytes(FakePlan((number,)), 100.0)
    assert len(estimates._seconds) <= module._MOST_PLANS
    assert len(estimates._measured) <= module._MOST_PLANS
    assert len(estimates._wary) <= module._MOST_PLANS
    assert len(estimates._bytes) <= module._MOST_PLANS
