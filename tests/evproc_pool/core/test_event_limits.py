"""When an event runs too long, or its worker grows too large: by where a worker is seen."""

from __future__ import annotations

import pytest

from evproc_pool.core.event_limits import EventLimits, EventWatch
from evproc_pool.core.supervisor_inputs import Kill, RaiseSoftTimeout, Seen

WARNED: list[RaiseSoftTimeout | Kill] = [RaiseSoftTimeout(1, is_again=False)]
AGAIN: list[RaiseSoftTimeout | Kill] = [RaiseSoftTimeout(1, is_again=True)]


def _at(position: int, handler: int | None = 0, *, is_over: bool = False, packing: int = 0) -> Seen:
    runs_code = packing > 0 or not is_over
    return Seen(position, (3, position), is_over, runs_code, handler, packing)


def test_an_event_is_warned_at_its_time_and_again_until_it_notices() -> None:
    watch = EventWatch(EventLimits(event_soft_timeout=1.0))
    assert watch.look(1, _at(5), 0, 10.0) == []
    assert watch.look(1, _at(5), 0, 10.9) == []
    assert watch.look(1, _at(5), 0, 11.0) == WARNED
    assert watch.look(1, _at(5), 0, 11.05) == []
    # less and less often
    found = [watch.look(1, _at(5), 0, 11 + 0.1 * count) for count in range(1, 100)]
    assert 3 <= found.count(AGAIN) <= 8
    # another event
    assert watch.look(1, _at(6), 0, 30.0) == []
    assert watch.look(1, _at(6), 0, 31.0) == WARNED


def test_no_event_is_warned_between_handlers_or_when_it_is_over() -> None:
    watch = EventWatch(EventLimits(event_soft_timeout=1.0))
    assert watch.look(1, _at(5), 0, 10.0) == []
    assert watch.look(1, _at(5, None), 0, 12.0) == []
    assert watch.look(1, _at(5, is_over=True), 0, 12.1) == []


def test_a_handler_has_a_moment_even_if_nobody_looked_for_long() -> None:
    watch = EventWatch(EventLimits(event_soft_timeout=1.0, event_timeout=2.0))
    assert watch.look(1, _at(5), 0, 10.0) == []
    assert watch.look(1, _at(5), 0, 20.0) == WARNED
    assert watch.look(1, _at(5), 0, 20.05) == []
    assert watch.look(1, _at(5), 0, 20.2) == [*AGAIN, Kill(1)]


def test_results_that_are_pickled_together_may_take_as_long_as_their_events() -> None:
    watch = EventWatch(EventLimits(event_timeout=1.0))
    together = _at(5, None, is_over=True, packing=3)
    assert watch.look(1, together, 0, 10.0) == []
    assert watch.look(1, together, 0, 12.9) == []
    assert watch.look(1, together, 0, 13.0) == [Kill(1)]


def test_a_worker_far_beyond_its_memory_is_killed_in_the_middle_of_an_event_only() -> None:
    watch = EventWatch(EventLimits(max_memory_bytes=1000))
    assert watch.look(1, _at(5), 1499, 10.0) == []
    assert watch.look(1, _at(5, is_over=True), 1500, 10.1) == []
    assert watch.look(1, _at(5), 1500, 10.2) == [Kill(1, 1500)]


def test_a_worker_between_batches_is_at_no_event() -> None:
    watch = EventWatch(EventLimits(event_timeout=1.0))
    assert watch.look(1, _at(5), 0, 10.0) == []
    assert watch.look(1, _at(5)._replace(is_between=True), 0, 12.0) == []
    assert watch.look(1, _at(5), 0, 12.1) == []  # counted anew


def test_limits_are_checked_ten_times_within_the_shortest_timeout() -> None:
    assert EventWatch(EventLimits()).look_seconds == 0.25
    assert EventWatch(EventLimits(event_soft_timeout=0.5)).look_seconds == 0.05
    both = EventLimits(event_timeout=1.0, event_soft_timeout=0.1)
    assert EventWatch(both).look_seconds == pytest.approx(0.01)
    assert EventWatch(EventLimits(max_memory_bytes=1000)).look_seconds == 0.05
