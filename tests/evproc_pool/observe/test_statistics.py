"""Statistics: of made-up notifications, and of pools."""

from __future__ import annotations

import gc
import sys
import time
import weakref
from array import array
from typing import Any

import psutil
import pytest

from evproc import Event, StopProcessing, requires, want
from evproc_pool import PoolProcessor
from evproc_pool.observe import (
    Accepted,
    CascadesDone,
    Dispatched,
    EventFailed,
    EventRetried,
    EventsDone,
    Notification,
    WorkerLost,
    WorkerReady,
    WorkerReplaced,
    WorkersEnded,
    WorkerStarted,
)
from evproc_pool.observe.collector import Collector, WorkerView
from evproc_pool.observe.notifications import Same
from evproc_pool.observe.seconds import Seconds
from evproc_pool.testing import ManualClock, simulated_pool
from tests.support.actions import Do, act
from tests.support.helpers import PATIENCE_SECONDS, Gate, close_in_time
from tests.support.sizes import BARS

#: That of a simulated pool.
CLOCKS: list[ManualClock] = []


class Timed(Event):
    name = "timed"

    def __init__(self, number: int = 0) -> None:
        self.number = number
        self.took: dict[str, float] = {}

    def __repr__(self) -> str:
        return f"Timed({self.number})"


def _burn(ev: Timed, name: str, seconds: float) -> None:
    """Use the CPU until a clock says so, and note how long it was."""
    began = now = time.perf_counter()
    while now < began + seconds:
        now = time.perf_counter()
    ev.took[name] = now - began


@want("timed")
def short(proc: Any, ev: Timed) -> None:
    _burn(ev, "short", 0.001)


@want("timed")
@requires("short")
def long(proc: Any, ev: Timed) -> None:
    _burn(ev, "long", 0.003)


@want("timed")
@requires("long")
def last(proc: Any, ev: Timed) -> None:
    _burn(ev, "last", 0.002)
    raise StopProcessing(ev.took)


@want("timed")
def one(proc: Any, ev: Timed) -> None:
    CLOCKS[0].advance(10.0)


@want("timed")
@requires("one")
def two(proc: Any, ev: Timed) -> Any:
    CLOCKS[0].advance(30.0)
    if ev.number % 3 == 0:
        raise StopProcessing
    return [Do("nothing")] if ev.number % 3 == 1 else None


@want("timed")
@requires("two")
def three(proc: Any, ev: Timed) -> None:
    CLOCKS[0].advance(20.0)


def done(values: list[float], *names: str, worker: int = 1, shift: int = 0) -> EventsDone:
    """Made-up events, each of one or more handlers that take the same time."""
    ends, now = array("d"), 0.0
    for each in values:
        now += each
        ends.append(now)
    seconds = Seconds.in_a_row(0.0, ends)
    flat = array("d")
    for end, each in zip(ends, values, strict=True):
        flat.extend(end - each + each / len(names) * place for place in range(len(names)))
    stops = flat[1:] + ends[-1:]
    stops[len(names) - 1 :: len(names)] = ends
    events = [Timed(shift + place) for place in range(len(values))]
    paths = [(shift + place,) for place in range(len(values))]
    handlers = Same(names, len(values))
    return EventsDone(
        0.0, 0, worker, 0.0, seconds, handlers, Seconds(flat, stops), 0, 0, 0, events, paths
    )


def _collected(*items: Notification, now: float = 0.0, views: tuple[WorkerView, ...] = ()) -> Any:
    collector = Collector()
    for item in items:
        collector(item)
    return collector.snapshot(0, 0, views, now)


def test_numbers_add_up() -> None:
    error = ValueError()
    found = _collected(
        Accepted(0.0, 0, 0, 5),
        Dispatched(0.0, 0, 1, 3),
        Dispatched(0.0, 0, 1, 1),
        done([1.0, 2.0], "a", "b"),
        EventRetried(0.0, 0, (0,), "ev", "b", error, 1),
        EventFailed(0.0, 0, (0,), "ev", "b", error, 2),
        EventFailed(0.0, 0, (1,), "ev", None, error, 1),
        CascadesDone(0.0, 0, 4, 1, 2, 1),
    )
    assert (found.accepted, found.done, found.failed, found.stopped) == (5, 4, 1, 2)
    assert (found.dropped, found.events, found.retried, found.lost) == (1, 2, 1, 0)
    assert (found.batches.batches, found.batches.mean, found.batches.max) == (2, 2.0, 3)
    a, b = found.handlers
    assert (a.name, a.calls, a.errors, a.total) == ("a", 2, 0, 1.5)
    assert (b.name, b.calls, b.errors, b.max) == ("b", 2, 2, 1.0)


def test_the_slowest_events_are_kept_with_their_slowest_handler() -> None:
    batches = [
        done([0.001 * (place * 37 % 100) for place in range(100)], "a", shift=100 * number)
        for number in range(3)
    ]
    uneven = Seconds(array("d", (0.0, 9.0)), array("d", (9.0, 10.0)))
    slow = done([10.0], "x", "y")._replace(handler_seconds=uneven)
    found = _collected(*batches, slow).slowest
    assert len(found) == 20
    assert [round(each.seconds, 3) for each in found[:4]] == [10.0, 0.099, 0.099, 0.099]
    assert found[0].handler == "x"
    assert "Timed(0)" in found[0].event
    assert found[1].handler == "a"
    assert {each.path[0] % 100 * 37 % 100 for each in found[1:4]} == {99}


def test_memory_is_the_same_after_a_hundred_thousand_and_a_million_events() -> None:
    collector = Collector()
    collector(WorkerStarted(0.0, 1, 1))
    sizes = []
    rows = [
        [1e-6 * (1 + (place * step) % 1000) for place in range(1000)] for step in (1, 7, 13, 101)
    ]
    small = [[1e-3 * (1 + (place * step) % 50) for place in range(50)] for step in (3, 11)]
    told = [done(row, "a") for row in rows] + [done(row, "a", "b") for row in small]
    for events in (100_000, 1_000_000):
        while collector.snapshot(0, 0, (), 0.0).events < events:
            for item in told:
                collector(Accepted(0.0, 0, 0, 1000))
                collector(Dispatched(0.0, 0, 1, 1000))
                collector(item)
                collector(CascadesDone(0.0, 0, 1000, 1, 1, 1))
                collector(EventFailed(0.0, 0, (0,), "ev", "a", ValueError(), 1))
        sizes.append(_size_of(collector))
    assert sizes[1] <= sizes[0] * 1.02


def _size_of(item: object) -> int:
    """The bytes of an object with all that it refers to, classes and functions excepted."""
    seen: dict[int, object] = {}
    left = [item]
    while left:
        each = left.pop()
        if id(each) not in seen and not isinstance(each, (type, type(_size_of), type(sys))):
            seen[id(each)] = each
            left += gc.get_referents(each)
    return sum(map(sys.getsizeof, seen.values()))


def _view(worker: int, seconds: float = 0.0) -> WorkerView:
    return WorkerView(worker, worker, "working", "ev", "a", seconds, 5_000_000)


def test_shares_of_a_worker_sum_up_to_its_life() -> None:
    items = (WorkerStarted(10.0, 1, 1), WorkerReady(12.0, 1, 1), done([3.0], "a"))
    (worker,) = _collected(*items, now=20.0, views=(_view(1, 1.0),)).workers
    assert (worker.starting, worker.working, worker.waiting) == pytest.approx((0.2, 0.4, 0.4))
    assert (worker.events, worker.restarts, worker.memory_bytes) == (1, 0, 5_000_000)


def test_a_new_worker_takes_the_place_of_a_lost_one() -> None:
    lost: list[Notification] = [
        WorkerStarted(0.0, 1, 1),
        WorkerStarted(0.0, 2, 2),
        WorkerLost(1.0, 1, 1, -9, "ev", "a"),
        WorkerStarted(1.0, 3, 3),
        WorkerLost(2.0, 3, 3, -9, None, None),
        WorkerStarted(2.0, 4, 4),
        # the next one was started before this one ended
        WorkerStarted(3.0, 5, 5),
        WorkerReplaced(4.0, 4, 4),
    ]
    found = _collected(*lost, views=(_view(2), _view(5)))
    assert [worker.restarts for worker in found.workers] == [0, 3]
    assert found.lost == 1
    ended = _collected(*lost, WorkersEnded(5.0, ""), WorkerStarted(5.0, 1, 1), views=(_view(1),))
    assert [worker.restarts for worker in ended.workers] == [0]


def test_it_prints_as_a_table() -> None:
    items = (
        Accepted(0.0, 0, 0, 2000),
        WorkerStarted(0.0, 1, 77),
        done([1e-5, 2e-5, 0.5], "parse", "a_handler_with_a_name_that_is_much_too_long_for_this"),
        EventFailed(0.0, 0, (0,), "ev", "parse", ValueError(), 1),
        CascadesDone(0.0, 0, 3, 1, 0, 0),
        Dispatched(0.0, 0, 1, 3),
    )
    lines = str(_collected(*items, now=10.0, views=(_view(1, 1.5),))).splitlines()
    assert lines[0] == "roots     2,000 accepted, 3 done, 1 failed"
    assert lines[1] == "events    3 run"
    assert lines[2] == "batches   1 sent, of 3.0 events (median 3, most 3)"
    head, row = lines[4].split(), lines[5].split()
    assert head == ["handler", "calls", "errors", "total", "share", "mean", "p50", "p95", "max"]
    assert row[:1] + row[1:3] in (["parse", "3", "1"], [row[0], "3", "0"])
    assert any("a_handler_with_..." in line for line in lines)
    assert any(line.split()[:3] == ["1", "77", "working"] or "working" in line for line in lines)
    assert any("a: ev, 1.5 s" in line for line in lines)
    assert lines[-1].endswith("(tests.evproc_pool.observe.test_statistics.Timed: Timed(0)") or (
        "Timed(" in lines[-1]
    )
    widths = {len(line.rstrip()) for line in lines}
    assert max(widths) < 160


def test_it_says_what_happens_now_only_if_something_does() -> None:
    idle = _view(1, 0.0)._replace(event=None, handler=None, state="waiting")
    items = (Accepted(0.0, 0, 0, 1), WorkerStarted(0.0, 1, 1), done([1.0], "a"))
    over = _collected(*items, now=9.0, views=(idle,))
    assert "\nnow " not in str(over)
    assert not any(
        line.startswith("worker ") and line.endswith(" at") for line in str(over).splitlines()
    )
    assert "with a value" in str(over._replace(stopped=2))
    busy = over._replace(in_flight=1, workers=(over.workers[0]._replace(event="ev"),))
    assert "\nnow       0 pending, 1 in flight\n" in str(busy)
    assert any(
        line.startswith("worker ") and line.endswith(" at") for line in str(busy).splitlines()
    )


# --- of pools ---


def _ratios_of_times(workers: int) -> list[float]:
    """Run handlers that take their own times; return what statistics found, by these."""
    with PoolProcessor(workers, statistics=True) as pool:
        for handler in (short, long, last):
            pool.register(handler)
        began = time.perf_counter()
        took = pool.process_many([Timed() for _ in range(50)])
        elapsed = time.perf_counter() - began
        found = {each.name: each for each in pool.statistics().handlers}
    assert sum(each.total for each in found.values()) <= max(workers, 1) * elapsed
    ratios = []
    for name in ("short", "long", "last"):
        assert found[name].calls == 50
        assert found[name].max >= max(each[name] for each in took)
        ratios.append(found[name].total / sum(each[name] for each in took))
    return ratios


@pytest.mark.parametrize("workers", [0, 2])
def test_times_of_handlers_hold_those_taken_in_them(workers: int) -> None:
    assert min(_ratios_of_times(workers)) >= 1


@pytest.mark.skipif(not BARS, reason="looks at the clock")
@pytest.mark.parametrize("workers", [0, 2])
def test_times_of_handlers_agree_with_those_taken_in_them(workers: int) -> None:
    # a process that loses its CPU between a handler and the loop disturbs this
    for _ in range(20):
        ratios = _ratios_of_times(workers)
        if max(ratios) <= 1.05:
            break
    else:
        pytest.fail(f"times of handlers are off: {ratios}")


@pytest.mark.parametrize("seed", range(10))
def test_times_of_handlers_agree_by_the_clock_of_a_simulated_pool(seed: int) -> None:
    clock = ManualClock()

    CLOCKS[:] = [clock]
    with simulated_pool(1, seed=seed, clock=clock, statistics=True) as pool:
        for handler in (one, two, three, act):
            pool.register(handler)
        pool.process_many([Timed(number) for number in range(30)])
        found = {each.name: each for each in pool.statistics().handlers}
    expected = {"one": 300.0, "two": 900.0, "three": 400.0}
    for name, total in expected.items():
        assert found[name].total == pytest.approx(total, rel=0.05)
    assert found["act"].calls == 10


@pytest.mark.parametrize("is_collected", [False, True])
def test_what_happens_now_is_there_in_any_case(gate: Gate, is_collected: bool) -> None:
    pool = PoolProcessor(1, statistics=is_collected)
    pool.register(act)
    assert pool.statistics().workers == ()
    events = [Do("wait_at", gate.address), Do("nothing"), Do("nothing")]
    futures = [pool.submit(ev) for ev in events]
    arrival = gate.arrival()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:  # one of the last steps is the driver's
        found = pool.statistics()
        if found.workers[0].event is not None and found.pending + found.in_flight == 3:
            break
        assert time.monotonic() < deadline
    assert found.is_collected is is_collected
    (worker,) = found.workers
    assert (worker.pid, worker.state, worker.handler) == (arrival.pid, "working", "act")
    assert worker.event is not None
    assert "wait_at" in worker.event
    assert 0 <= worker.seconds < PATIENCE_SECONDS
    assert worker.memory_bytes > 1_000_000
    assert ("not collected" in str(found)) is not is_collected
    assert str(arrival.pid) in str(found)
    gate.close()
    for future in futures:
        future.result(PATIENCE_SECONDS)
    now = pool.statistics()
    assert (now.pending, now.in_flight) == (0, 0)
    assert now.done == (3 if is_collected else 0)
    close_in_time(pool)
    assert pool.statistics().workers == ()


def test_a_lost_worker_is_counted_and_its_place_is_taken() -> None:
    pool = PoolProcessor(1, statistics=True, max_retries=1, retry_backoff=0)
    pool.register(act)
    events = [Do("nothing"), Do("leave", 3), Do("fail", ValueError), Do("stop", 1)]
    pool.process_many(events, return_exceptions=True)
    found = pool.statistics()
    close_in_time(pool)
    assert (found.accepted, found.done, found.failed, found.stopped) == (4, 4, 2, 1)
    assert (found.lost, found.retried) == (1, 1)
    (handler,) = found.handlers
    assert (handler.name, handler.errors) == ("act", 3)
    (worker,) = found.workers
    assert worker.restarts == 1


def test_the_time_of_a_lost_event_counts() -> None:
    lost = WorkerLost(1.0, 1, 1, -9, "ev", "a", (7,), 0.5)
    found = _collected(WorkerStarted(0.0, 1, 1), lost, done([0.1], "a"))
    (handler,) = found.handlers
    assert (handler.calls, handler.total, handler.max) == (2, pytest.approx(0.6), 0.5)
    assert found.slowest[0] == (0.5, "ev", "a", (7,))


def test_what_is_not_over_when_the_workers_end_is_dropped() -> None:
    pool = PoolProcessor(1, statistics=True)
    pool.register(act)
    pool.process(Do("nothing"))
    futures = [pool.submit(Do("nothing")) for _ in range(50)]
    pool.terminate()
    assert all(future.exception() is not None or future.result() is None for future in futures)
    found = pool.statistics()
    assert (found.accepted, found.pending) == (found.done, 0)
    assert found.dropped <= 50


def test_numbers_go_on_over_a_change_of_the_handlers() -> None:
    pool = PoolProcessor(1, statistics=True)
    pool.register(act)
    pool.process_many([Do("nothing")] * 3)
    pool.register(short)
    pool.process_many([Do("nothing")] * 2)
    found = pool.statistics()
    close_in_time(pool)
    assert (found.accepted, found.done, found.events) == (5, 5, 5)


@pytest.mark.parametrize("seed", range(5))
def test_a_simulated_pool_has_statistics(seed: int) -> None:
    with simulated_pool(3, seed=seed, statistics=True) as pool:
        pool.register(act)
        pool.process_many([Do("nothing")] * 50)
        found = pool.statistics()
    assert (found.accepted, found.done, found.events) == (50, 50, 50)
    for worker in found.workers:
        assert worker.working + worker.waiting + worker.starting == pytest.approx(1)
    assert sum(worker.events for worker in found.workers) == 50


def test_a_pool_that_is_forgotten_ends_all_the_same() -> None:
    pool = PoolProcessor(1, statistics=True, listeners=[str])
    pool.register(act)
    pool.process_many([Do("nothing")] * 3)
    (pid,) = [worker.pid for worker in pool.statistics().workers]
    assert pid is not None
    process = psutil.Process(pid)
    is_gone = weakref.ref(pool)
    del pool
    gc.collect()
    assert is_gone() is None
    process.wait(PATIENCE_SECONDS)
