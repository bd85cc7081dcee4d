"""The counts of a call: against what really happened, and by themselves."""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
from collections.abc import Iterator
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evproc import Event
from evproc_pool import Outcome, PoolProcessor, WorkerLostError
from evproc_pool.observe import (
    Accepted,
    CascadesDone,
    Drained,
    EventFailed,
    EventRetried,
    EventsDone,
    ProgressCounts,
    Seconds,
)
from evproc_pool.observe.progress import ProgressCounter
from evproc_pool.testing import kill, sabotage, simulated_pool
from tests.evproc_pool.observe.test_notifications import (
    Job,
    Plain,
    Told,
    Unwanted,
    _is_doomed,
    _registered,
    jobs,
)

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "unordered": {"ordering": "unordered"},
    "continue": {"errors": "continue"},
    "key": {"key": lambda ev: ev.name},
    "retries": {"max_retries": 2, "retry_backoff": 0.01},
    "limits": {"max_cascade_events": 4},
    "listeners": {"listeners": [Told()]},
}


class Counts(list[ProgressCounts]):
    """A function that keeps all counts."""

    __call__ = list.append


def _compare(counts: Counts, outcomes: list[Outcome[Any]], total: int) -> None:
    """Compare counts with the outcomes of all roots."""
    last = counts[-1]
    assert last.is_over
    assert (last.roots_done, last.roots_total) == (total, total)
    assert last.events_done == last.events_known == sum(each.events for each in outcomes)
    assert last.failed == sum(each.failed for each in outcomes)
    assert last.seconds_left is None
    _check_way(counts[:-1])


def _check_way(counts: list[ProgressCounts]) -> None:
    """Check what holds for counts of any call, in their order."""
    for before, after in itertools.pairwise(counts):
        for name in ("roots_done", "events_done", "events_known", "failed", "retried", "seconds"):
            assert getattr(before, name) <= getattr(after, name), name
    for each in counts:
        assert not each.is_over
        assert each.events_done <= each.events_known
        assert each.roots_total is None or each.roots_done <= each.roots_total
        assert each.seconds_left is None or each.seconds_left >= 0


def _events() -> list[Event]:
    return [*jobs(), *[Job("k-")] * 2, Job("f-", Job("--"), Job("k-"), Job("--"))]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("seed", range(12))
def test_a_simulated_pool_counts_what_happened(seed: int, options: str) -> None:
    counts, events = Counts(), _events()
    if options == "unordered":
        # events of a cascade that is over run all the same, and no outcome counts them
        events = [ev for ev in events if not (isinstance(ev, Job) and len(ev.then) in (3, 4))]
    pool = _registered(simulated_pool(2, seed=seed, **OPTIONS[options]))
    with pool, sabotage(pool, "first", kill, when=_is_doomed, times=None):
        outcomes = list(pool.stream(events, progress=counts))
        _compare(counts, outcomes, len(events))
        assert counts[-1].retried == sum(each.attempts - 1 for each in outcomes if each.error)
        assert any(isinstance(each.error, WorkerLostError) for each in outcomes)


@pytest.mark.parametrize("options", ["plain", "continue", "key", "retries", "limits", "listeners"])
def test_a_pool_without_workers_counts_the_same(options: str) -> None:
    counts, events = Counts(), jobs()
    with _registered(PoolProcessor(0, **OPTIONS[options])) as pool:
        outcomes = list(pool.stream(events, progress=counts))
    _compare(counts, outcomes, len(events))


@pytest.mark.parametrize("workers", [0, 2])
def test_worker_processes_count_the_same_also_with_process_many(workers: int) -> None:
    counts, more, events = Counts(), Counts(), jobs() * 30
    with _registered(PoolProcessor(workers)) as pool:
        outcomes = list(pool.stream(events, progress=counts))
        pool.process_many(iter(events), return_exceptions=True, progress=more)
    _compare(counts, outcomes, len(events))
    _compare(more, outcomes, len(events))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("is_asynchronous", [False, True])
def test_an_asynchronous_stream_counts_the_same(workers: int, is_asynchronous: bool) -> None:
    counts, events = Counts(), jobs() * 3

    async def source() -> Any:
        for ev in events:
            yield ev

    async def main() -> list[Outcome]:
        async with _registered(PoolProcessor(workers)) as pool:
            given: Any = source() if is_asynchronous else events
            return [each async for each in pool.stream_async(given, progress=counts)]

    outcomes = asyncio.run(main())
    _compare(counts, outcomes, len(events))
    assert (counts[0].roots_total is None) == is_asynchronous


@pytest.mark.parametrize("workers", [0, 1])
def test_an_event_that_cannot_be_sent_or_planned_counts_once(workers: int) -> None:
    counts = Counts()

    class Picky(Plain):
        @property
        def name(self) -> str:  # type: ignore[override]
            raise LookupError

    if workers:
        broken: list[Event] = [Job("--"), Job("--")]
        broken[1].ctxt = threading.Lock()  # it cannot be pickled
    else:
        broken = []
    events: list[Any] = [Plain(), *broken, Picky(), Plain()]
    with _registered(PoolProcessor(workers)) as pool:
        outcomes = list(pool.stream(events, progress=counts))
    assert sum(each.error is not None for each in outcomes) == (2 if workers else 1)
    _compare(counts, outcomes, len(events))


@pytest.mark.parametrize("workers", [0, 1])
def test_what_is_no_event_counts_as_one(workers: int) -> None:
    counts, events = Counts(), cast("list[Event]", [Plain(), 5, None])
    with _registered(PoolProcessor(workers)) as pool:
        assert [each.events for each in pool.stream(events, progress=counts)] == [1, 0, 0]
    last = counts[-1]
    assert (last.roots_done, last.events_done, last.events_known, last.failed) == (3, 3, 3, 2)


def test_a_root_that_is_dropped_is_not_done() -> None:
    counter = ProgressCounter(0.0, 10)
    counter.take(Accepted(1.0, 0, 0, 5))
    counter.take(CascadesDone(1.0, 0, 5, 0, 0, 3, 2))
    assert counter.counts(1.0)[:2] == (2, 10)
    counter.end(2.0, is_complete=False)
    assert counter.counts(2.0)[:2] == (2, 10)


# --- the number of roots ---


class Hinted:
    """An input that says how many events it has, right or wrong, or raises."""

    def __init__(self, events: list[Event], hint: Any) -> None:
        self._events = events
        self._hint = hint

    def __iter__(self) -> Iterator[Event]:
        return (ev for ev in self._events)

    def __length_hint__(self) -> int:
        if isinstance(self._hint, Exception):
            raise self._hint
        return int(self._hint)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("hint", [0, 5, 10, 500, OSError("no"), -5, None])
def test_the_total_is_what_the_input_says_and_at_the_end_what_came(workers: int, hint: Any) -> None:
    counts = Counts()
    events: list[Event] = [Plain() for _ in range(10)]
    with _registered(PoolProcessor(workers)) as pool:
        source: Any = (ev for ev in events) if hint is None else Hinted(events, hint)
        pool.process_many(source, progress=counts)
    if isinstance(hint, int) and hint >= 0:
        assert counts[0].roots_total is not None
        assert counts[0].roots_total >= max(hint, counts[0].roots_done)
        assert counts[0].events_known >= hint
    else:
        assert counts[0].roots_total is None
    assert counts[-1].roots_total == counts[-1].roots_done == counts[-1].events_known == 10


def test_an_empty_input_is_over() -> None:
    for workers in (0, 1):
        counts = Counts()
        with _registered(PoolProcessor(workers)) as pool:
            assert pool.process_many([], progress=counts) == []
        assert [each[:4] for each in counts] == [(0, 0, 0, 0)]


# --- by itself ---


def _ran(at: float, events: int, follow_ups: int = 0, errors: int = 0) -> EventsDone:
    from array import array

    ends = array("d", [0.0]) * events
    return EventsDone(
        at,
        0,
        1,
        0.0,
        Seconds.in_a_row(0.0, ends),
        [()] * events,
        None,
        0,
        errors,
        follow_ups,
        (),
        (),
    )


def test_the_total_grows_with_follow_ups() -> None:
    counter = ProgressCounter(0.0, 10)
    counter.take(Accepted(0.0, 0, 0, 4))
    assert counter.counts(1.0)[:4] == (0, 10, 0, 10)
    counter.take(_ran(2.0, 2, follow_ups=5))
    assert counter.counts(2.0)[:4] == (0, 10, 2, 15)
    counter.take(Accepted(2.0, 0, 4, 9))  # more than was said
    assert counter.counts(2.0)[:4] == (0, 13, 2, 18)


def test_an_event_that_is_run_again_is_over_once() -> None:
    failure = (0, (0,), "event", "handler", ValueError(), 1)
    counter = ProgressCounter(0.0, 4)
    counter.take(Accepted(0.0, 0, 0, 4))
    counter.take(_ran(1.0, 4, errors=2))
    assert counter.counts(1.0).events_done == 2
    counter.take(EventRetried(1.0, *failure))
    counter.take(EventFailed(1.0, *failure))
    assert counter.counts(1.0)[2:6] == (3, 4, 1, 1)
    counter.take(_ran(2.0, 1))
    assert counter.counts(2.0)[2:6] == (4, 4, 1, 1)


def test_an_incomplete_call_keeps_its_total() -> None:
    counter = ProgressCounter(0.0, 10)
    counter.take(Accepted(0.0, 0, 0, 4))
    counter.take(_ran(2.0, 3, follow_ups=2))
    counter.end(4.0, is_complete=False)
    assert counter.counts(9.0) == (0, 10, 3, 12, 0, 0, 4.0, 0.75, None, True)


def _steadily(counter: ProgressCounter, begin: float, end: float, each: float) -> None:
    at = begin
    while at < end:
        at += each
        counter.take(Accepted(at, 0, 0, 1))
        counter.take(_ran(at, 1))
        counter.take(CascadesDone(at, 0, 1, 0, 0, 0, 1))


def test_the_rate_is_that_of_the_latter_half_and_time_left_follows() -> None:
    counter = ProgressCounter(0.0, 1000)
    assert counter.counts(0.0)[7:9] == (0.0, None)
    _steadily(counter, 0.0, 50.0, 1.0)
    assert counter.counts(50.0).events_per_second == pytest.approx(1.0, rel=0.1)
    assert counter.counts(50.0).seconds_left == pytest.approx(950, rel=0.1)
    _steadily(counter, 50.0, 110.0, 0.25)
    assert counter.counts(110.0).events_per_second == pytest.approx(4.0, rel=0.1)
    assert counter.counts(110.0).seconds_left == pytest.approx(710 / 4, rel=0.1)
    # nothing happens for long
    assert counter.counts(1000.0).events_per_second < 0.5
    assert counter.counts(100_000.0).seconds_left is None
    counter.end(145.0, is_complete=True)
    assert counter.counts(145.0).events_per_second == pytest.approx(2.0, rel=0.01)
    assert counter.counts(145.0).seconds_left is None


def test_time_left_is_unknown_without_a_total_and_zero_when_all_is_done() -> None:
    counter = ProgressCounter(0.0, None)
    _steadily(counter, 0.0, 10.0, 1.0)
    assert counter.counts(10.0).seconds_left is None
    counter = ProgressCounter(0.0, 10)
    _steadily(counter, 0.0, 10.0, 1.0)
    assert counter.counts(10.0).seconds_left == 0.0


@given(st.lists(st.floats(0.0, 1e4), max_size=400), st.randoms(use_true_random=False))
def test_it_takes_bounded_memory_and_no_rate_is_negative(
    gaps: list[float], rng: random.Random
) -> None:
    counter, at = ProgressCounter(0.0, 50), 0.0
    for gap in gaps:
        at += gap
        counter.take(_ran(at, rng.randrange(3)))
        counter.take(Drained(at))  # of no call
        assert len(counter._samples) <= 64
        counts = counter.counts(at + rng.random())
        assert counts.events_per_second >= 0
        assert counts.seconds >= 0


def test_what_no_handler_wants_counts() -> None:
    for workers in (0, 1):
        counts = Counts()
        with _registered(PoolProcessor(workers)) as pool:
            pool.process_many([Unwanted(), Job("f-", Unwanted())], progress=counts)
        assert counts[-1][:4] == (2, 2, 3, 3)
