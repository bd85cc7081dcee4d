"""Objects that cannot be pickled fail alone, and are named; all others arrive, at any size."""

from __future__ import annotations

import pickle
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from evproc import Event, StopProcessing, requires, want
from evproc.event import describe_event
from evproc_pool import PoolProcessor, SerializationError
from tests.support import actions
from tests.support.actions import UNPICKLABLE, Do
from tests.support.helpers import error_of, notes_of, register_all


def _with(value: object) -> Do:
    ev = Do("nothing")
    ev.args = ([1, {"key": value}],)
    return ev


def _between(count: int, *events: Event) -> list[Event]:
    """Events with a good one (its value: its position) before, between and behind them."""
    mixed: list[Event] = []
    for place in range(count):
        mixed.append(Do("stop", place))
        mixed += events[place : place + 1]
    return mixed


def _check_others(values: list[Any], count: int, bad: int) -> list[BaseException]:
    """Return the failures, in order; check that every other event has its value."""
    failures = [value for value in values if isinstance(value, BaseException)]
    assert [value for value in values if not isinstance(value, BaseException)] == list(range(count))
    assert len(failures) == bad
    return failures


# --- events ---


def test_an_event_that_cannot_be_pickled_fails_alone_and_the_path_is_named(
    shared_pool: PoolProcessor,
) -> None:
    with socket.socket() as open_socket:
        events = [
            _with(threading.Lock()),
            _with(each for each in "ab"),
            _with(open_socket),
        ]
        values = shared_pool.process_many(_between(20, *events), return_exceptions=True)
    lock, generator, sock = map(str, _check_others(values, 20, 3))
    assert "event 'do' (tests.support.actions.Do: Do(" in lock
    assert ".args[0][1]['key'] (lock)" in lock
    assert ".args[0][1]['key'] (generator)" in generator
    assert ".args[0][1]['key'] (socket)" in sock


def test_a_namespace_that_cannot_be_pickled_is_named(shared_pool: PoolProcessor) -> None:
    ev = Do("nothing")
    ev.proc.mine.lock = threading.Lock()
    with pytest.raises(SerializationError, match=r"\.mine\.lock \(lock\)"):
        shared_pool.process(ev)


@pytest.mark.parametrize("name", ["bad repr key", "bad attributes", "bad text"])
def test_an_event_that_cannot_be_diagnosed_fails_alone(pool: PoolProcessor, name: str) -> None:
    values = pool.process_many(_between(6, _with(UNPICKLABLE[name]())), return_exceptions=True)
    [error] = _check_others(values, 6, 1)
    assert isinstance(error, SerializationError)


def test_an_event_whose_pickling_raises_a_strange_error_fails_alone(pool: PoolProcessor) -> None:
    events = _between(6, actions.RefusesPickling(KeyError("surprise")))
    [raised] = _check_others(pool.process_many(events, return_exceptions=True), 6, 1)
    assert isinstance(raised, SerializationError)
    assert "KeyError: 'surprise'" in str(raised)


def test_pickling_raises_nothing_but_exceptions(pool: PoolProcessor) -> None:
    with pytest.raises(SerializationError, match="SystemExit"):
        pool.process(actions.RefusesPickling(SystemExit(3)))
    assert pool.process(Do("stop", 1)) == 1


def test_an_event_nested_too_deeply_fails_alone(shared_pool: PoolProcessor) -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    values = shared_pool.process_many(_between(4, Do("stop", deep)), return_exceptions=True)
    [error] = _check_others(values, 4, 1)
    assert isinstance(error, SerializationError)
    # taken apart from the outside, or the interpreter might run out of stack
    while deep:
        deep = deep.pop()


def test_an_event_that_unpickles_only_in_the_coordinator_fails_alone(pool: PoolProcessor) -> None:
    # on a new worker, which has not heard of the plan before
    values = pool.process_many(_between(10, actions.LoadsOnlyHere()), return_exceptions=True)
    [error] = _check_others(values, 10, 1)
    assert isinstance(error, SerializationError)
    assert "ValueError: not in a worker" in str(error)
    assert f"with event {describe_event(actions.LoadsOnlyHere())}" in notes_of(error)


def test_events_that_unpickle_only_in_the_coordinator_do_not_disturb_a_busy_pool(
    shared_pool: PoolProcessor,
) -> None:
    for _ in range(3):
        events = _between(200, *[actions.LoadsOnlyHere() for _ in range(20)])
        values = shared_pool.process_many(events, return_exceptions=True)
        failures = _check_others(values, 200, 20)
        assert {type(error) for error in failures} == {SerializationError}


def test_events_of_two_plans_survive_one_that_does_not_unpickle(pool: PoolProcessor) -> None:
    events = [actions.LoadsOnlyHere(), actions.Nested(1), Do("stop", 2)]
    values = pool.process_many(events, return_exceptions=True)
    assert isinstance(values[0], SerializationError)
    assert values[1:] == [("nested", 1), 2]


# --- values and follow-ups ---


@pytest.mark.parametrize("name", ["lock", "generator", "frame"])
def test_a_value_that_cannot_be_pickled_fails_alone(shared_pool: PoolProcessor, name: str) -> None:
    values = shared_pool.process_many(_between(9, Do("stop_with", name)), return_exceptions=True)
    [error] = _check_others(values, 9, 1)
    assert isinstance(error, SerializationError)
    assert "the value given to StopProcessing by handler 'act' for event 'do'" in str(error)
    assert name in str(error)


@pytest.mark.parametrize("name", ["lock", "generator", "frame"])
def test_a_follow_up_that_cannot_be_pickled_fails_alone(
    shared_pool: PoolProcessor, name: str
) -> None:
    values = shared_pool.process_many(_between(9, Do("follow_with", name)), return_exceptions=True)
    [error] = _check_others(values, 9, 1)
    assert isinstance(error, SerializationError)
    assert f"[1].args[0]['inner'][1] ({name})" in str(error)
    assert "what handler 'act' returned for event 'do'" in str(error)


@want("do")
def nothing_before(proc: Any, ev: Do) -> list[Event]:
    return []


@want("do")
@requires("nothing_before")
def act_between(proc: Any, ev: Do) -> Any:
    return actions.act(proc, ev)


@want("do")
@requires("act_between")
def nothing_behind(proc: Any, ev: Do) -> list[Event]:
    return []


@want("do")
@requires("act_between")
def follow_too(proc: Any, ev: Do) -> Iterator[Event]:
    yield Do("nothing")
    raise StopProcessing


def test_the_outcome_names_the_handler_whose_result_cannot_be_pickled() -> None:
    events = [Do("stop_with", "lock"), Do("follow_with", "lock")]
    with PoolProcessor(1) as pool:
        register_all(pool, [nothing_before, act_between, nothing_behind])
        assert [each.handler for each in pool.stream(events)] == ["act_between", "act_between"]
        pool.register(follow_too)
        value, several = pool.stream(events)
    assert value.handler == "act_between"
    assert several.handler is None
    assert "what a handler returned for event 'do'" in str(several.error)


def test_a_pool_cannot_be_pickled() -> None:
    with PoolProcessor(0) as pool, pytest.raises(TypeError, match="a PoolProcessor stays in its"):
        pickle.dumps(pool)


@pytest.mark.parametrize("what", ["stop_with", "follow_with"])
@pytest.mark.parametrize("name", ["bad repr key", "bad attributes", "bad text"])
def test_a_result_that_cannot_be_diagnosed_fails_alone(
    pool: PoolProcessor, what: str, name: str
) -> None:
    values = pool.process_many(_between(6, Do(what, name)), return_exceptions=True)
    [error] = _check_others(values, 6, 1)
    # not the death of the worker
    assert isinstance(error, SerializationError)


@pytest.mark.parametrize(
    "ev",
    [
        Do("call", actions.LoadsOnlyInWorkers),
        Do("call", _with, actions.LoadsOnlyInWorkers()),
        Do("follow_surprise"),
    ],
    ids=["value", "part of a value", "follow-up"],
)
def test_a_result_that_unpickles_only_in_workers_fails_alone(
    shared_pool: PoolProcessor, ev: Event
) -> None:
    values = shared_pool.process_many(_between(9, ev), return_exceptions=True)
    [error] = _check_others(values, 9, 1)
    assert isinstance(error, SerializationError)
    assert "ValueError: only in a worker" in str(error)


class _BadTextOnLoad:
    """Cannot be unpickled, for a reason without a text, where it has been pickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _raise_bad_text, ()


def _raise_bad_text() -> None:
    raise actions.BadText


def test_a_result_that_fails_to_unpickle_without_a_text_fails_alone(pool: PoolProcessor) -> None:
    values = pool.process_many(_between(6, Do("call", _BadTextOnLoad)), return_exceptions=True)
    [error] = _check_others(values, 6, 1)
    assert isinstance(error, SerializationError)


def test_without_workers_nothing_is_pickled() -> None:
    pool: PoolProcessor = register_all(PoolProcessor(workers=0), [actions.act])
    lock = threading.Lock()
    assert pool.process(Do("stop", lock)) is lock


# --- copies ---


def _append_and_count(items: list[int]) -> int:
    items.append(1)
    return len(items)


def test_a_handlers_changes_do_not_reach_the_callers_event(shared_pool: PoolProcessor) -> None:
    # whether two events of one batch share it there is left open, in the README too
    shared: list[int] = []
    shared_pool.process_many([Do("call", _append_and_count, shared) for _ in range(300)])
    assert shared == []


def test_an_event_handed_in_twice_is_two_events_in_workers(shared_pool: PoolProcessor) -> None:
    ev = Do("call", _append_and_count, [])
    assert shared_pool.process_many([ev] * 100) == [1] * 100


def test_an_event_that_was_handed_in_is_unchanged(shared_pool: PoolProcessor) -> None:
    ev = actions.Ordered()
    shared_pool.process(ev)
    assert "_proc" not in vars(ev) or not vars(ev.proc)


# --- size ---


def test_20_megabytes_travel_in_both_directions_at_once(shared_pool: PoolProcessor) -> None:
    megabytes = 20_000_000
    blobs = [bytes([number]) * (megabytes + number) for number in range(4)]
    values = shared_pool.process_many([Do("stop", blob) for blob in blobs])
    assert [len(value) for value in values] == [len(blob) for blob in blobs]
    assert values == blobs


def test_large_follow_ups_pass_through_the_coordinator(shared_pool: PoolProcessor) -> None:
    blob = b"x" * 3_000_000
    inner = Do("follow", Do("nothing"), Do("stop", blob))
    assert shared_pool.process(Do("follow", inner)) == blob


@pytest.mark.parametrize(
    "value", [None, 0, "", b"", [], {}, float("inf"), frozenset([1]), Ellipsis]
)
def test_values_come_back_unchanged(shared_pool: PoolProcessor, value: object) -> None:
    assert shared_pool.process(Do("stop", value)) == value


@pytest.mark.parametrize(
    "make", [lambda: lambda number: number + 1, lambda: actions.local_error("text")]
)
def test_objects_without_an_importable_name_go_by_value(
    shared_pool: PoolProcessor, make: Callable[[], Any]
) -> None:
    value = shared_pool.process(Do("stop", make()))
    assert value(1) == 2 if callable(value) else str(value) == "text"


def test_an_error_that_a_handler_never_sees_names_the_event(shared_pool: PoolProcessor) -> None:
    error = error_of(lambda: shared_pool.process(_with(threading.Lock())))
    assert isinstance(error, SerializationError)
    assert isinstance(error, TypeError)  # as pickle would have it
    assert error.__cause__ is not None
