"""Workers that are replaced: after so many events, at so much memory."""

from __future__ import annotations

import functools
import os
import time
from collections import Counter
from typing import Any

import psutil
import pytest

from evproc import Event, StopProcessing, want
from evproc_pool import PoolBrokenError, PoolProcessor, WorkerLostError
from evproc_pool.backends.local import processes
from evproc_pool.protocol.limits import NEARLY, Limits, resident_bytes
from evproc_pool.worker.quota import Quota
from tests.support import actions
from tests.support.actions import Do
from tests.support.helpers import Gate, register_all
from tests.support.sizes import BARS

_MB = 1_000_000
_kept: list[bytearray] = []


class Who(Event):
    name = "who"

    def __init__(
        self, number: int = 0, *, follow_ups: int = 0, before: tuple[int, ...] = ()
    ) -> None:
        super().__init__()
        self.number = number
        self.follow_ups = follow_ups
        self.before = before


class Leak(Event):
    name = "leak"

    def __init__(self, size_bytes: int) -> None:
        super().__init__()
        self.size_bytes = size_bytes


class Refuses(Event):
    """Cannot be unpickled in a batch with others, so that batches go one by one."""

    name = "refuses"

    def __setstate__(self, state: object) -> None:
        raise RuntimeError("not here")


@want("who")
def who(proc: Any, ev: Any) -> list[Event] | None:
    pids = (*ev.before, os.getpid())
    if ev.follow_ups:
        return [Who(ev.number, follow_ups=ev.follow_ups - 1, before=pids)]
    raise StopProcessing((ev.number, pids))


@want("leak")
def leak(proc: Any, ev: Any) -> None:
    _kept.append(bytearray(ev.size_bytes))
    _kept[-1][::4096] = b"x" * len(_kept[-1][::4096])  # so that it is resident
    raise StopProcessing((os.getpid(), resident_bytes()))


class Slow(Who):
    name = "slow"


@want("slow")
def slow(proc: Any, ev: Any) -> list[Event]:
    end = time.thread_time() + 0.0015
    while time.thread_time() < end:
        pass
    return [Who(ev.number, before=(os.getpid(),))]


@want("refuses")
def refuses(proc: Any, ev: Any) -> None:
    pass


def pool_of(workers: int = 2, **options: Any) -> PoolProcessor:
    pool = PoolProcessor(workers, **options)
    register_all(pool, [who, slow, leak, refuses, actions.act])
    return pool


def runs_by_pid(values: list[Any]) -> Counter[int]:
    return Counter(pid for _, pids in values for pid in pids)


# --- events ---


@pytest.mark.parametrize(("workers", "most", "events"), [(1, 1, 4), (1, 7, 50), (2, 25, 200)])
def test_no_worker_runs_more_events_than_it_may(workers: int, most: int, events: int) -> None:
    with pool_of(workers, max_tasks_per_child=most) as pool:
        values = pool.process_many([Who(number) for number in range(events)])
    assert [number for number, _ in values] == list(range(events))
    counts = runs_by_pid(values)
    assert max(counts.values()) <= most
    assert len(counts) >= events // most


def test_follow_ups_count_and_cascades_go_on_in_another_worker() -> None:
    with pool_of(2, max_tasks_per_child=10) as pool:
        values = pool.process_many([Who(number, follow_ups=2) for number in range(40)])
        assert [number for number, _ in values] == list(range(40))
        assert max(runs_by_pid(values).values()) <= 10
        assert sum(runs_by_pid(values).values()) == 3 * 40
        outcomes = list(pool.stream([Who(number, follow_ups=1) for number in range(30)]))
    assert [(outcome.value[0], outcome.events) for outcome in outcomes] == [
        (number, 2) for number in range(30)
    ]


@pytest.mark.parametrize(
    ("workers", "most", "events"),
    # each needs 2 * events / most workers: no more, since a start takes seconds on a busy machine
    [(1, 1, 4), (2, 1, 4), (2, 4, 16), (1, 5, 16), (2, 7, 16)],
)
def test_slow_events_that_leave_something_behind_count_as_well(
    workers: int, most: int, events: int
) -> None:
    with pool_of(workers, max_tasks_per_child=most) as pool:
        values = pool.process_many([Slow(number) for number in range(events)])
    assert [number for number, _ in values] == list(range(events))
    assert max(runs_by_pid(values).values()) <= most


def test_a_worker_that_takes_long_to_end_keeps_nobody_waiting(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    # if the coordinator waited for it, it would wait for as long as the test has
    monkeypatch.setattr(processes, "_REAP_SECONDS", 1000.0)
    monkeypatch.setattr(processes, "_QUIT_SECONDS", 1000.0)
    with pool_of(1, max_tasks_per_child=1) as pool:
        pid = pool.process(Do("linger", gate.address))
        gate.arrival()
        assert pool.process(Who(5))[0] == 5
        assert psutil.pid_exists(pid)
        gate.close()


def test_a_worker_that_does_not_end_is_killed(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_REAP_SECONDS", 0.0)
    with pool_of(1, max_tasks_per_child=1) as pool:
        process = psutil.Process(pool.process(Do("linger", gate.address)))
        while process.is_running():
            assert pool.process(Who(5))[0] == 5


def test_a_replaced_worker_whose_finalizer_hangs_is_killed(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "_QUIT_SECONDS", 0.0)
    finalizer = functools.partial(actions.pass_gate, gate.address)
    with pool_of(1, max_tasks_per_child=1, finalizer=finalizer) as pool:
        process = psutil.Process(pool.process(Who(5))[1][0])
        while process.is_running():
            assert pool.process(Who(5))[0] == 5


def test_a_limit_that_a_new_worker_is_at_already_is_told_at_once() -> None:
    with (
        pool_of(1, max_worker_memory_bytes=1 << 20) as pool,
        pytest.raises(PoolBrokenError, match="max_worker_memory_bytes is 1,048,576"),
    ):
        pool.process(Who(1))


def test_the_count_goes_on_where_events_come_one_by_one() -> None:
    events: list[Event] = [Who(number) for number in range(60)]
    events.insert(30, Refuses())
    with pool_of(1, max_tasks_per_child=8) as pool:
        values = pool.process_many(events, return_exceptions=True)
    values.pop(30)
    assert [number for number, _ in values] == list(range(60))
    assert max(runs_by_pid(values).values()) <= 8


def test_without_limits_workers_stay() -> None:
    with pool_of(1) as pool:
        values = pool.process_many([Who(number) for number in range(300)])
    assert len(runs_by_pid(values)) == 1


# --- memory ---


def test_a_worker_that_grows_is_replaced_between_events() -> None:
    with pool_of(1) as pool:
        ((_, size_bytes),) = pool.process_many([Leak(0)])
    limit = size_bytes + 60 * _MB  # this process may be much larger than a worker
    count = 200
    with pool_of(2, max_worker_memory_bytes=limit) as pool:
        values = pool.process_many([Leak(_MB) for _ in range(count)])
        assert len(values) == count
    assert len({pid for pid, _ in values}) > 2
    assert max(size for _, size in values) < 1.5 * limit


def test_one_that_grows_far_beyond_within_an_event_is_killed() -> None:
    limit = 150 * _MB
    events: list[Event] = [Who(number) for number in range(20)]
    events[10] = Hoard()
    pool = PoolProcessor(2, max_worker_memory_bytes=limit)
    register_all(pool, [who, hoard])
    with pool:
        values = pool.process_many(events, return_exceptions=True)
    error = values.pop(10)
    assert isinstance(error, WorkerLostError)
    assert error.handler == "hoard"
    for part in ("max_worker_memory_bytes (150 MB)", "MB, far beyond", "'hoard'"):
        assert part in str(error)
    assert [number for number, _ in values] == [number for number in range(20) if number != 10]


class Hoard(Event):
    name = "hoard"


@want("hoard")
def hoard(proc: Any, ev: Any) -> None:
    kept = bytearray(400 * _MB)
    while True:
        kept[::4096] = b"x" * len(kept[::4096])


@pytest.mark.skipif(not BARS, reason="takes a while")
def test_two_thousand_leaks_of_a_megabyte_each() -> None:
    with pool_of(2, max_worker_memory_bytes=200 * _MB) as pool:
        values = pool.process_many([Leak(_MB) for _ in range(2000)])
    assert len(values) == 2000
    assert max(size for _, size in values) <= 300 * _MB


# --- in the worker ---


def test_a_quota_counts_down() -> None:
    quota = Quota(Limits(max_tasks=10))
    quota.spend(7)
    assert quota.tasks_left == 3
    assert not quota.is_used_up
    quota.spend(1)
    assert quota.share >= NEARLY
    quota.spend(2)
    assert quota.is_used_up


def test_a_quota_of_memory_is_looked_at_now_and_then() -> None:
    quota = Quota(Limits(max_memory_bytes=2 * psutil.Process().memory_info().rss))
    assert quota.check_at == 0.0
    quota.check_memory(5.0)
    assert 0.2 < quota.share < 1
    assert 5.0 < quota.check_at < 5.1
    quota = Quota(Limits(max_memory_bytes=1))
    quota.check_memory(5.0)
    assert quota.is_used_up


def test_without_limits_nothing_is_looked_at() -> None:
    quota = Quota(Limits())
    quota.spend(10**9)
    quota.check_memory(1.0)
    assert (quota.share, quota.check_at) == (0.0, float("inf"))


@pytest.mark.parametrize("what", ["max_tasks_per_child", "max_worker_memory_bytes"])
@pytest.mark.parametrize(
    ("value", "kind"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError)]
)
def test_limits_are_positive_whole_numbers(what: str, value: Any, kind: type[Exception]) -> None:
    options: dict[str, Any] = {what: value}
    with pytest.raises(kind, match=what):
        PoolProcessor(**options)
