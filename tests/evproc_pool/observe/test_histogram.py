"""Histograms, and the seconds that they count."""

from __future__ import annotations

import random
from array import array
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evproc_pool.observe.histogram import Histogram
from evproc_pool.observe.seconds import Seconds

#: More than the width of a bucket allows.
OFF = 0.026

# up to a day: what is longer is in one bucket
_lists = st.lists(st.floats(1e-7, 86_000.0), min_size=1, max_size=700)


def seconds_of(values: list[float]) -> Seconds:
    ends, now = array("d"), 1000.0
    for each in values:
        now += each
        ends.append(now)
    return Seconds.in_a_row(1000.0, ends)


@given(_lists)
def test_quantiles_are_at_most_three_percent_off(values: list[float]) -> None:
    histogram = Histogram()
    for begin in range(0, len(values), 100):
        histogram.add(values[begin : begin + 100])
    ordered = sorted(values)
    for share in (0.5, 0.95):
        found = histogram.quantile(share)
        place = min(len(ordered) - 1, int(share * len(ordered)))
        near = ordered[max(0, place - 1) : place + 2]
        assert min(abs(found / each - 1) for each in near) <= OFF
    assert histogram.count == len(values)
    assert histogram.total == pytest.approx(sum(values))
    assert histogram.most == max(values)


@pytest.mark.parametrize("kind", [list, seconds_of])
@pytest.mark.parametrize("period", [2, 3, 7, 11, 64])
def test_a_sample_does_not_keep_step_with_the_events(
    period: int, kind: Callable[[list[float]], Sequence[float]]
) -> None:
    # one of so many events takes ten times as long; the quantiles hit neither side of a border
    histogram = Histogram()
    values = [1e-5 if place % period == 0 else 1e-6 for place in range(2000)]
    for _ in range(100):
        histogram.add(kind(values))
    share = 1 / period
    assert histogram.count == 200_000
    assert histogram.total == pytest.approx(100 * sum(values), rel=1e-6)
    assert histogram.quantile(1 - share * 1.3) == pytest.approx(1e-6, rel=OFF)
    assert histogram.quantile(1 - share * 0.7) == pytest.approx(1e-5, rel=OFF)


def test_the_greatest_is_exact_also_of_a_sample() -> None:
    histogram = Histogram()
    rng = random.Random(3)
    for number in range(50):
        values = [1e-6] * 1500
        values[rng.randrange(1500)] = 1e-3 * (number + 1)
        histogram.add(seconds_of(values))
        assert histogram.most == pytest.approx(1e-3 * (number + 1), rel=1e-6)


def test_values_beyond_all_bounds_are_counted() -> None:
    histogram = Histogram()
    histogram.add([0.0, 1e9])
    assert (histogram.count, histogram.most) == (2, 1e9)
    assert histogram.quantile(0.5) < 1e-6
    assert histogram.quantile(1.0) == 1e9


def test_an_empty_one_has_zeros() -> None:
    histogram = Histogram()
    histogram.add([])
    numbers = (histogram.count, histogram.total, histogram.mean, histogram.most)
    assert numbers == (0, 0, 0, 0)
    assert histogram.quantile(0.5) == 0


# --- seconds ---


@given(st.lists(st.floats(1e-7, 10), max_size=300), st.floats(0, 10))
def test_seconds_are_a_sequence(values: list[float], least: float) -> None:
    seconds = seconds_of(values)
    assert list(seconds) == pytest.approx(values, abs=1e-9)
    assert len(seconds) == len(values)
    assert seconds.total == pytest.approx(sum(values), abs=1e-6)
    assert seconds.span == pytest.approx(sum(values), abs=1e-6)
    whole = list(seconds)
    for part in (slice(3, 200), slice(1, None, 3), slice(2, 100, 5)):
        assert list(seconds[part]) == whole[part]
        assert seconds[part].total == pytest.approx(sum(whole[part]), abs=1e-6)
    expected = [(each, place) for place, each in enumerate(whole) if each > least]
    assert seconds.above(least) == expected
    if values:
        assert seconds[0] == whole[0]
        assert seconds[-1] == whole[-1]
