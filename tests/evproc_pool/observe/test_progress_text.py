"""How counts of a call read."""

from __future__ import annotations

import pytest

from evproc_pool.observe import ProgressCounts
from evproc_pool.observe.progress_text import duration, line, rate

BEGUN = ProgressCounts(0, 100_000, 0, 100_000, 0, 0, 0.0, 0.0, None, False)

LINES = [
    (BEGUN, "0 of 100,000 events (0 %), 0/s"),
    (
        BEGUN._replace(
            roots_done=12_345,
            events_done=12_345,
            failed=3,
            seconds=10.0,
            events_per_second=1234.4,
            seconds_left=71.03,
        ),
        "12,345 of 100,000 events (12 %), 3 failed, 1,234/s, 71 s left",
    ),
    (
        BEGUN._replace(
            roots_done=99_999,
            events_done=9,
            events_known=100_012,
            retried=1,
            events_per_second=0.5,
            seconds_left=2.0,
        ),
        "99,999 of 100,000 roots (99 %), 9 events of 100,012 so far, 1 retried, 0.5/s, 2.0 s left",
    ),
    (
        BEGUN._replace(
            roots_total=None, events_done=5, events_known=8, seconds=1.0, events_per_second=5.0
        ),
        "5 events of 8 so far, 5/s",
    ),
    (
        BEGUN._replace(
            roots_total=3,
            roots_done=3,
            events_done=8,
            events_known=8,
            seconds=2.0,
            events_per_second=4.0,
            is_over=True,
        ),
        "8 events, 4/s, done in 2.0 s",
    ),
    (
        BEGUN._replace(roots_done=7, events_done=7, seconds=130.0, is_over=True),
        "7 of 100,000 events (0 %), 0/s, ended after 2 min 10 s",
    ),
    (
        BEGUN._replace(roots_total=None, events_done=7, events_known=9, seconds=1.0, is_over=True),
        "7 events of 9 so far, 0/s, ended after 1.0 s",
    ),
    (
        BEGUN._replace(roots_total=0, events_known=0, is_over=True),
        "0 of 0 events (100 %), 0/s, done in 0.0 s",
    ),
]


@pytest.mark.parametrize(("counts", "text"), LINES)
def test_a_line_says_how_far_it_is(counts: ProgressCounts, text: str) -> None:
    assert line(counts) == f"evproc: {text}"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (119.4, "119 s"),
        (120.0, "2 min 0 s"),
        (3599.4, "59 min 59 s"),
        (3600.0, "1 h 0 min"),
        (86_399.0, "23 h 59 min"),
        (90_000.0, "1 d 1 h"),
    ],
)
def test_a_duration_has_the_units_of_its_size(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("number", "text"), [(0.0, "0/s"), (0.012, "0.012/s"), (9.96, "10/s")])
def test_a_rate_is_short(number: float, text: str) -> None:
    assert rate(BEGUN._replace(events_per_second=number)) == text
