"""`process_many`: values in order, the first error by input order, and no more read than needed."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from evproc import Event, Processor
from evproc_pool import PoolBusyError, PoolProcessor
from evproc_pool.coordinator.batch_sender import BatchSender
from evproc_pool.core.batches import Batch
from evproc_pool.core.estimates import BULK_SECONDS, MOST_EVENTS, Estimates
from evproc_pool.core.worker_loads import PREFETCH
from tests.support import actions
from tests.support.actions import Do, Unwanted
from tests.support.helpers import (
    PATIENCE_SECONDS,
    Background,
    Gate,
    ending,
    endings,
    error_of,
    register_all,
    warm,
)


@pytest.fixture(params=[0, 2])
def any_pool(request: pytest.FixtureRequest, shared_pool: PoolProcessor) -> PoolProcessor:
    """With workers and without."""
    if request.param:
        return shared_pool
    pool: PoolProcessor = register_all(PoolProcessor(workers=0), [actions.act, actions.nested])
    return pool


@pytest.fixture
def serial() -> Processor:
    processor: Processor = register_all(Processor(), [actions.act, actions.nested])
    return processor


# --- values ---


@pytest.mark.parametrize("count", [0, 1, 2, 3, 255, 256, 257, 2_000])
def test_values_come_in_the_order_of_the_events(any_pool: PoolProcessor, count: int) -> None:
    assert any_pool.process_many(Do("stop", place) for place in range(count)) == list(range(count))


@pytest.mark.parametrize("make", [list, tuple, iter, lambda events: dict.fromkeys(events).keys()])
def test_any_iterable_will_do(any_pool: PoolProcessor, make: Callable[[Any], Any]) -> None:
    assert any_pool.process_many(make([Do("stop", 1), Do("stop", 2)])) == [1, 2]


def test_most_events_have_no_value(any_pool: PoolProcessor) -> None:
    events = [Do("stop", place) if place % 7 == 0 else Do("nothing") for place in range(100)]
    expected = [place if place % 7 == 0 else None for place in range(100)]
    assert any_pool.process_many(events) == expected


def test_10_000_events_that_no_handler_wants(any_pool: PoolProcessor) -> None:
    assert any_pool.process_many(Unwanted() for _ in range(10_000)) == [None] * 10_000


def test_a_wanted_event_among_10_000_others(any_pool: PoolProcessor) -> None:
    events: list[Event] = [Unwanted() for _ in range(10_000)]
    events[5_000] = Do("stop", "found")
    values = any_pool.process_many(events)
    assert values[5_000] == "found"
    assert values.count(None) == 9_999


def test_long_cascades_beside_short_ones(any_pool: PoolProcessor) -> None:
    def cascade(length: int) -> Do:
        ev = Do("stop", length)
        for _ in range(length):
            ev = Do("follow", Unwanted(), ev, Do("nothing"))
        return ev

    lengths = [0, 30, 1, 0, 12, 5, 60, 0, 2]
    assert any_pool.process_many([cascade(length) for length in lengths]) == lengths


def test_a_wide_cascade(any_pool: PoolProcessor, tmp_path: Path) -> None:
    log = tmp_path / "log"
    count = 3 * MOST_EVENTS
    many = [Do("log", str(log), str(place)) for place in range(count)]
    assert any_pool.process(Do("follow", *many)) is None
    assert log.read_text().split() == [str(place) for place in range(count)]


# --- errors ---


def test_the_first_error_by_input_order_is_raised(any_pool: PoolProcessor) -> None:
    # the later one is over long before
    slow = Do("stop", None)
    for _ in range(40):
        slow = Do("follow", slow)
    late = Do("fail", KeyError, "first by order")
    for _ in range(40):
        late = Do("follow", late)
    events = [slow, late, Do("fail", ValueError, "first by time"), Do("nothing")]
    with pytest.raises(KeyError, match="first by order"):
        any_pool.process_many(events)


@pytest.mark.parametrize("bad", [0, 1, 10, 299])
def test_all_events_before_the_error_are_processed_to_the_end(
    any_pool: PoolProcessor, tmp_path: Path, bad: int
) -> None:
    log = tmp_path / "log"
    events: list[Event] = [
        Do("log_and_follow", str(log), f"a{place}", Do("log", str(log), f"b{place}"))
        for place in range(300)
    ]
    events[bad] = Do("fail", ValueError, "error")
    with pytest.raises(ValueError, match="error"):
        any_pool.process_many(events)
    lines = set(log.read_text().split()) if log.exists() else set()
    assert lines >= {f"{letter}{place}" for letter in "ab" for place in range(bad)}
    # what is behind it has not been handled, but for what was in flight
    assert len(lines) <= 2 * bad + 2 * 2 * PREFETCH * MOST_EVENTS


def test_with_return_exceptions_failures_stand_in_their_place(
    any_pool: PoolProcessor, serial: Processor
) -> None:
    events = [
        Do("stop", 0),
        Do("fail", KeyError, "a"),
        5,
        Do("follow", Do("fail", OSError, 2, "b")),
        Unwanted(),
        "no event",
        Do("stop", 6),
    ]
    expected = [ending(lambda: serial.process(ev)) for ev in events]  # type: ignore[arg-type]  # noqa: B023 - no events among them; called at once
    assert endings(any_pool.process_many(events, return_exceptions=True)) == expected  # type: ignore[arg-type]  # likewise


@pytest.mark.parametrize("place", [0, 3])
def test_something_that_is_no_event_is_an_error_like_others(
    any_pool: PoolProcessor, serial: Processor, tmp_path: Path, place: int
) -> None:
    log = tmp_path / "log"
    events: list[Any] = [Do("log", str(log), str(number)) for number in range(6)]
    events[place] = "no event"
    expected = error_of(lambda: serial.process(events[place]))
    error = error_of(lambda: any_pool.process_many(events))
    assert (type(error), error.args) == (type(expected), expected.args)
    lines = log.read_text().split() if log.exists() else []
    assert set(lines) >= {str(number) for number in range(place)}


def test_an_event_that_cannot_be_planned_is_an_error_like_others(
    serial: Processor, pool: PoolProcessor
) -> None:
    for each in (serial, pool):
        register_all(each, [actions.picky])
    events = [
        Do("stop", 1),
        actions.Picky(),
        Do("follow", Do("nothing"), actions.Picky(), Do("stop", "never")),
    ]
    expected = [ending(lambda: serial.process(ev)) for ev in events]  # noqa: B023 - called at once
    assert endings(pool.process_many(events, return_exceptions=True)) == expected
    with pytest.raises(ArithmeticError, match="filter"):
        pool.process_many(events)


# --- reading ---


class _BrokenError(Exception):
    pass


def _breaks_after(
    count: int, events: Iterable[Event], kind: type[BaseException] = _BrokenError
) -> Iterator[Event]:
    yield from itertools.islice(events, count)
    raise kind(count)


@pytest.mark.parametrize("count", [0, 1, 50, 1_000])
@pytest.mark.parametrize("return_exceptions", [False, True])
@pytest.mark.parametrize("kind", [_BrokenError, SystemExit])
def test_an_iterator_that_raises_ends_the_call_when_what_was_read_is_processed(
    any_pool: PoolProcessor,
    tmp_path: Path,
    count: int,
    return_exceptions: bool,
    kind: type[BaseException],
) -> None:
    log = tmp_path / "log"
    events = (Do("log", str(log), str(place)) for place in itertools.count())
    broken = _breaks_after(count, events, kind)
    with pytest.raises(kind) as caught:
        any_pool.process_many(broken, return_exceptions=return_exceptions)
    assert caught.value.args == (count,)
    lines = log.read_text().split() if log.exists() else []
    assert sorted(lines, key=int) == [str(place) for place in range(count)]


def test_an_event_that_fails_goes_before_an_iterator_that_raises(any_pool: PoolProcessor) -> None:
    with pytest.raises(ValueError, match="event"):
        any_pool.process_many(_breaks_after(1, iter([Do("fail", ValueError, "event")])))


class _Counted:
    """An iterator that counts what is read, and can set a limit to it.

    Attributes:
        limit: Reading more than that is an error.
    """

    def __init__(self, events: Iterable[Event], limit: float = float("inf")) -> None:
        self._events = iter(events)
        self.read = 0
        self.limit = limit

    def __iter__(self) -> _Counted:
        return self

    def __next__(self) -> Event:
        self.read += 1
        if self.read > self.limit:
            raise AssertionError(f"{self.read} events were read")
        return next(self._events)


# What the workers hold, what waits behind it, and what was read at the same time.
_WINDOW = 2 * (2 * PREFETCH + 2) * MOST_EVENTS


@pytest.mark.parametrize("quiet", [True, False])
def test_an_endless_iterator_is_read_as_far_as_its_first_failure(
    any_pool: PoolProcessor, quiet: bool
) -> None:
    others = itertools.repeat(Do("nothing") if quiet else Do("stop", 1))
    events = _Counted(
        itertools.chain(itertools.islice(others, 5_000), [Do("fail", ValueError, "end")], others)
    )
    with pytest.raises(ValueError, match="end"):
        any_pool.process_many(events)
    assert 5_000 < events.read <= 5_001 + _WINDOW


def test_an_endless_iterator_of_what_nobody_wants_ends_at_what_is_no_event(
    any_pool: PoolProcessor,
) -> None:
    events = itertools.chain(
        itertools.repeat(Unwanted(), 20_000), [5], itertools.repeat(Unwanted())
    )
    with pytest.raises(TypeError, match="process"):
        any_pool.process_many(events)  # type: ignore[arg-type]  # that is the point


def test_no_more_is_read_than_the_workers_can_hold(one_worker: PoolProcessor, gate: Gate) -> None:
    warm(one_worker)
    others = itertools.repeat(Do("nothing"), 50_000)
    events = _Counted(itertools.chain([Do("wait_at", gate.address)], others), limit=_WINDOW)
    with Background(lambda: one_worker.process_many(events)) as call:
        arrival = gate.arrival()
        # the caller has its turns, and still reads no further
        for _ in range(10):
            one_worker.submit(Do("nothing"))
        assert events.read <= _WINDOW
        events.limit = float("inf")
        arrival.release()
        assert call.result() == [None] * 50_001


@pytest.mark.parametrize("bad", [None, 5, Do("stop", 1)])
def test_what_cannot_be_iterated_is_an_error_that_leaves_the_pool_as_it_was(
    pool: PoolProcessor, bad: Any
) -> None:
    pool.process(Do("nothing"))
    with pytest.raises(TypeError, match="iterable"):
        pool.process_many(bad)
    # nothing is in flight
    pool.register(actions.Notes("last"), "later")
    assert pool.process(Do("stop", 1)) == 1


def _leaves_after(count: int) -> Iterator[Event]:
    yield from [Do("stop", 1)] * count
    raise actions.Leaves


def test_after_an_iterator_raised_what_is_no_exception_the_pool_is_idle_again(
    pool: PoolProcessor,
) -> None:
    with pytest.raises(actions.Leaves):
        pool.process_many(_leaves_after(3))
    assert pool.process(Do("stop", 2)) == 2
    # what was in flight has ended long since, or ends now
    _register_when_idle(pool, actions.Notes("later"))
    assert pool.process(Do("stop", 1)) == 1


def test_after_an_iterator_raised_a_handler_can_be_added_without_another_event(
    pool: PoolProcessor,
) -> None:
    pool.process(Do("nothing"))
    with pytest.raises(actions.Leaves):
        pool.process_many(_leaves_after(0))
    # nothing was read, so nothing is in flight
    pool.register(actions.Notes("later"))


def _register_when_idle(pool: PoolProcessor, handler: Any) -> None:
    for _ in range(1_000):
        try:
            pool.register(handler)
        except PoolBusyError:
            pool.process(Do("nothing"))
        else:
            return
    raise AssertionError("the pool does not become idle")


def test_an_iterator_may_use_the_pool(any_pool: PoolProcessor) -> None:
    events = (Do("stop", any_pool.process(Do("stop", place)) + 1) for place in range(20))
    assert any_pool.process_many(events) == list(range(1, 21))


def test_a_filter_may_use_the_pool(pool: PoolProcessor, monkeypatch: pytest.MonkeyPatch) -> None:
    def hook(ev: Any) -> None:
        if ev.args == (3,):
            assert pool.process_many([Do("stop", "asked")]) == ["asked"]

    monkeypatch.setattr(actions, "hook", hook)
    pool.register(actions.asks)
    assert pool.process_many([Do("stop", place) for place in range(5)]) == list(range(5))


# --- at the same time ---


def test_as_many_events_run_at_once_as_there_are_workers(pool: PoolProcessor, gate: Gate) -> None:
    # on a new pool, where nobody knows yet how long they take
    events = [Do("wait_at", gate.address, str(place), place) for place in range(2)]
    with Background(lambda: pool.process_many(events)) as call:
        arrivals = [gate.arrival(), gate.arrival()]
        gate.close()
        assert call.result() == [0, 1]
    assert {arrival.text for arrival in arrivals} == {"0", "1"}
    assert len({arrival.pid for arrival in arrivals}) == 2


def test_a_list_is_shared_among_workers_also_where_one_batch_would_hold_it(
    pool: PoolProcessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = 1000
    monkeypatch.setattr(Estimates, "seconds_of", lambda *_: BULK_SECONDS / events)
    sizes: list[int] = []
    send = BatchSender.send

    def sends(sender: BatchSender, worker: int, batch: Batch) -> None:
        sizes.append(batch.size)
        send(sender, worker, batch)

    warm(pool)
    monkeypatch.setattr(BatchSender, "send", sends)
    pool.process_many([Do("nothing") for _ in range(events)])
    assert max(sizes) <= events // pool.workers


def test_submitted_events_run_at_once_on_a_new_pool(pool: PoolProcessor, gate: Gate) -> None:
    futures = [pool.submit(Do("wait_at", gate.address, "", place)) for place in range(2)]
    arrivals = [gate.arrival(), gate.arrival()]
    gate.close()
    assert [future.result(PATIENCE_SECONDS) for future in futures] == [0, 1]
    assert len({arrival.pid for arrival in arrivals}) == 2
