"""Every side of the benchmark `pool` processes all that it is given, and ends."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from multiprocessing.connection import Connection
from typing import Any

import pytest

from benchmarks.model import BenchmarkError
from benchmarks.pool import handlers, limits, loads, memory, peers
from benchmarks.pool.processes import WORKERS, Helper, start_method
from benchmarks.pool.samples import ControlSample, Sample, await_workers
from evproc import Event
from evproc_pool import PoolProcessor

Side = peers.MultiprocessingPool | peers.Executor | limits.SocketPair


@pytest.fixture(
    scope="module", params=[peers.MultiprocessingPool, peers.Executor, limits.SocketPair]
)
def side(request: pytest.FixtureRequest) -> Iterator[Side]:
    """For all tests, with all workers: none of them is blamed for these."""
    made: Side = request.param()
    with closing(made):
        await_workers(lambda events: made.run(events, 1), WORKERS)
        yield made


@pytest.fixture
def control() -> Iterator[limits.Control]:
    with closing(limits.Control()) as made:
        yield made


def make_broken(count: int) -> list[Event]:
    """Events that make a handler fail."""
    events = loads.make_staged(count)
    for ev in events:
        ev.line["pieces"] = 2  # type: ignore[attr-defined]  # a Staged has it
    return events


# --- the sides ---


def test_values_come_in_the_order_of_the_events(side: Side) -> None:
    for chunk in (1, 3, 100):
        events: list[Event] = [handlers.Blob(number, b"..") for number in range(20)]
        assert side.run(events, chunk) == [handlers.answer_to(number, 2) for number in range(20)]
        assert side.run(loads.make_staged(7), chunk) == [None] * 7
        assert side.run([], chunk) == []


def test_all_workers_take_part(side: Side) -> None:
    seen: set[object] = set()

    def run(events: list[Event]) -> list[Any]:
        values = side.run(events, 1)
        seen.update(values)
        return values

    await_workers(run, WORKERS)
    assert len(seen) == WORKERS
    assert os.getpid() not in seen


def test_the_control_has_half_of_the_events_in_each_process(control: limits.Control) -> None:
    for count in (10, 4):
        assert control.prepare(loads.make_orders, count) == [count // 2] * 2
        control.run()


def test_a_helper_that_fails_is_an_error_not_a_hang() -> None:
    with closing(limits.Control()) as broken:
        broken.prepare(make_broken, 2)
        with pytest.raises(BenchmarkError, match="ended with exit code 1"):
            broken.run()


def serve_nothing(connection: Connection[Any, Any], answer: object) -> None:
    connection.send(answer)
    connection.recv()


def test_a_helper_ends_with_its_pipe() -> None:
    with closing(Helper(serve_nothing, "hello")) as helper:
        assert helper.receive() == "hello"


def test_memory_is_measured_in_a_process_of_its_own() -> None:
    measured = memory.measure(events=200, first=100)
    assert measured.grown_bytes >= 0
    assert measured.seconds > 0


# --- samples ---


def test_a_sample_has_new_events_each_time() -> None:
    given: list[list[Event]] = []

    def run(events: list[Event]) -> list[Event]:
        given.append(events)
        return events

    sample = Sample(loads.make_orders, 20, run, rounds=2)
    sample.warm_up()
    assert sample.cpu_seconds == []
    assert sample() > 0
    assert [len(events) for events in given] == [2, 20, 20]
    assert not {id(ev) for ev in given[1]} & {id(ev) for ev in given[2]}
    assert len(sample.cpu_seconds) == 1


def test_a_sample_is_the_time_of_one_event() -> None:
    def run(events: list[Event]) -> list[Event]:
        handlers.burn(0.01)
        return events

    for options, events in (({}, 2), ({"rounds": 3}, 2), ({"events_each": 5}, 10)):
        seconds = Sample(loads.make_orders, 2, run, **options)()
        assert seconds >= 0.01 / events


def test_a_side_that_loses_events_is_noticed() -> None:
    def lose(events: list[Event]) -> list[Event]:
        return events[1:]

    with pytest.raises(BenchmarkError, match="4 values of 5 events"):
        Sample(loads.make_orders, 5, lose)()


def test_a_sample_of_the_control(control: limits.Control) -> None:
    sample = ControlSample(control, loads.make_orders, 10)
    sample.warm_up()
    assert sample() > 0


def test_waiting_for_workers_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: Callable[[list[Event]], list[int]] = lambda events: [1] * len(events)  # noqa: E731
    await_workers(answers, 1)
    monkeypatch.setattr("benchmarks.pool.samples._START_SECONDS", -1.0)
    with pytest.raises(BenchmarkError, match="of 2 workers only 0"):
        await_workers(answers, 2)


def test_the_pool_gives_what_the_peers_give() -> None:
    with PoolProcessor(WORKERS, mp_context=start_method()) as pool:
        handlers.register_all(pool)
        assert pool.process_many(loads.make_staged(5)) == [None] * 5
        blobs: list[Event] = [handlers.Blob(number, b"..") for number in range(5)]
        assert pool.process_many(blobs) == [handlers.answer_to(number, 2) for number in range(5)]
        levels: list[Event] = [handlers.Level(number, 3) for number in range(5)]
        assert [outcome.events for outcome in pool.stream(levels)] == [4] * 5
