"""`key=` and `ordering="unordered"`: what is independent of what."""

from __future__ import annotations

import os
import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from evproc import Event, StopProcessing, want
from evproc_pool import PoolProcessor
from tests.support import actions
from tests.support.actions import Do
from tests.support.helpers import Background, Gate, register_all, warm


class Step(Event):
    """Writes a line to a log; has follow-ups by its depth."""

    name = "step"

    def __init__(self, log: str, key: Any, number: int, depth: int = 0, width: int = 1) -> None:
        super().__init__()
        self.log = log
        self.key = key
        self.number = number
        self.depth = depth
        self.width = width


@want("step")
def step(proc: object, ev: Step) -> Iterable[Event] | None:
    target = os.open(ev.log, os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o600)
    try:
        os.write(target, f"{ev.key} {ev.number} {ev.depth}\n".encode())
    finally:
        os.close(target)
    if ev.number % 7 == 3 and ev.depth == 0:
        raise StopProcessing(ev.number)
    if ev.number % 7 == 5 and ev.depth == 0:
        raise KeyError(ev.number)
    if ev.depth == 0:
        return None
    return [Step(ev.log, ev.key, ev.number, ev.depth - 1, ev.width) for _ in range(ev.width)]


def key_of(ev: Step) -> Any:
    return ev.key


@pytest.fixture(scope="module", params=[1, 2, 3])
def workers(request: pytest.FixtureRequest) -> Iterator[PoolProcessor]:
    with register_all(PoolProcessor(workers=request.param), [step, actions.act]) as pool:
        warm(pool)
        yield pool


def lines_of(log: Path) -> list[tuple[str, int, int]]:
    found = []
    for line in log.read_text().splitlines():
        key, number, depth = line.split()
        found.append((key, int(number), int(depth)))
    return found


def test_equal_keys_run_one_cascade_after_another_in_input_order(
    workers: PoolProcessor, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    events = [Step(str(log), number % 5, number, depth=number % 3) for number in range(150)]
    workers.process_many(events, return_exceptions=True, key=key_of)
    by_key = defaultdict(list)
    for key, number, depth in lines_of(log):
        by_key[key].append((number, depth))
    for key, lines in by_key.items():
        expected = [
            (number, depth)
            for number in range(int(key), 150, 5)
            for depth in range(number % 3, -1, -1)
        ]
        assert lines == expected


def test_values_and_errors_are_those_without_keys(workers: PoolProcessor, tmp_path: Path) -> None:
    events = [Step(str(tmp_path / "log"), number % 5, number) for number in range(60)]
    keyed = workers.process_many(events, return_exceptions=True, key=key_of)
    plain = workers.process_many(events, return_exceptions=True)
    assert [repr(value) for value in keyed] == [repr(value) for value in plain]
    assert keyed[3] == 3
    assert isinstance(keyed[5], KeyError)


def test_a_failure_does_not_stop_the_next_of_the_same_key(
    workers: PoolProcessor, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    outcomes = list(
        workers.stream([Step(str(log), "k", number) for number in (5, 5, 0)], key=key_of)
    )
    assert [type(outcome.error) for outcome in outcomes] == [KeyError, KeyError, type(None)]
    assert [number for _, number, _ in lines_of(log)] == [5, 5, 0]


def test_the_first_error_ends_a_keyed_run(workers: PoolProcessor, tmp_path: Path) -> None:
    log = tmp_path / "log"
    events = [Step(str(log), 0, number) for number in range(50)]
    with pytest.raises(KeyError, match="5"):
        workers.process_many(events, key=key_of)
    # one key: strictly in order, so nothing behind the failed one has run
    assert [number for _, number, _ in lines_of(log)] == [0, 1, 2, 3, 4, 5]


def test_different_keys_run_beside_each_other(gate: Gate) -> None:
    with register_all(PoolProcessor(workers=2), [actions.act]) as pool:
        events = [Do("wait_at", gate.address, key, key) for key in "aabb"]
        stream = pool.stream(events, key=lambda ev: ev.args[1], ordered=False)
        with Background(lambda: [outcome.value for outcome in stream]) as values:
            first, second = gate.arrival(), gate.arrival()
            assert {first.text, second.text} == {"a", "b"}
            first.release()
            third = gate.arrival()
            # its own key, since the other one is still busy
            assert third.text == first.text
            third.release()
            second.release()
            fourth = gate.arrival()
            assert fourth.text == second.text
            fourth.release()
            assert sorted(values.result()) == ["a", "a", "b", "b"]


def test_a_key_that_raises_or_is_not_hashable_fails_its_own_root(
    workers: PoolProcessor,
) -> None:
    def key(ev: Do) -> Any:
        if ev.args[0] == 1:
            raise LookupError("no key")
        return [] if ev.args[0] == 2 else ev.args[0]

    outcomes = list(workers.stream([Do("stop", number) for number in range(4)], key=key))
    assert [outcome.value for outcome in outcomes] == [0, None, None, 3]
    assert isinstance(outcomes[1].error, LookupError)
    assert "key=" in "".join(getattr(outcomes[1].error, "__notes__", ()))
    assert isinstance(outcomes[2].error, TypeError)


def test_futures_keep_the_order_of_the_pools_key(gate: Gate) -> None:
    pool = PoolProcessor(workers=2, key=lambda ev: "one")
    with register_all(pool, [actions.act]):
        futures = [pool.submit(Do("wait_at", gate.address, str(n), n)) for n in range(3)]
        for number in range(3):
            arrival = gate.arrival()
            assert arrival.text == str(number)
            assert not futures[number].done()
            arrival.release()
            assert futures[number].result(60) == number


def test_the_pools_key_is_one_order_for_all_calls_and_threads(gate: Gate) -> None:
    with register_all(PoolProcessor(workers=2, key=lambda ev: "one"), [actions.act]) as pool:
        with Background(lambda: pool.process(Do("wait_at", gate.address, "first", 1))) as first:
            arrival = gate.arrival()
            second = pool.submit(Do("wait_at", gate.address, "second", 2))
            # a key that is given to a call is only that call's, and the other worker is free
            others = pool.process_many([Do("stop", 3)] * 5, key=lambda ev: "one")
            is_done = second.done()
            arrival.release()
            assert first.result() == 1
        second_arrival = gate.arrival()
        second_arrival.release()
        assert second.result(60) == 2
    assert (arrival.text, second_arrival.text) == ("first", "second")
    assert others == [3] * 5
    assert not is_done


class Leaves(Event):
    """Leaves something behind that may not be picklable; is counted in a log."""

    name = "leaves"

    def __init__(self, log: str, number: int, what: str = "") -> None:
        super().__init__()
        self.log = log
        self.number = number
        self.what = what


@want("leaves")
def leave(proc: object, ev: Leaves) -> list[Event] | None:
    target = os.open(ev.log, os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o600)
    try:
        os.write(target, f"leaves {ev.number} 0\n".encode())
    finally:
        os.close(target)
    if ev.what == "follow-up":
        return [Leaves(ev.log, -1, threading.Lock())]  # type: ignore[arg-type]  # no pickle of it
    if ev.what == "value":
        raise StopProcessing(threading.Lock())
    if ev.what == "emitted":
        ev.emit(threading.Lock())
    raise StopProcessing(ev.number)


@pytest.mark.parametrize("max_retries", [0, 2])
@pytest.mark.parametrize("what", ["follow-up", "value", "emitted"])
def test_behind_what_cannot_be_pickled_the_others_of_the_key_run_once(
    tmp_path: Path, what: str, max_retries: int
) -> None:
    log = tmp_path / "log"
    events = [Leaves(str(log), number, what if number == 1 else "") for number in range(6)]
    with register_all(
        PoolProcessor(workers=1, max_retries=max_retries, retry_exceptions=[KeyError]), [leave]
    ) as pool:
        values = pool.process_many(events, return_exceptions=True, key=lambda ev: 0)
    assert isinstance(values.pop(1), Exception)
    assert values == [0, 2, 3, 4, 5]
    assert [number for _, number, _ in lines_of(log)] == list(range(6))


# --- unordered ---


@pytest.mark.parametrize("width", [1, 3])
def test_unordered_runs_every_event_of_a_cascade_once(
    workers: PoolProcessor, tmp_path: Path, width: int
) -> None:
    log = tmp_path / "log"
    events = [Step(str(log), "k", number * 7, depth=3, width=width) for number in range(6)]
    assert workers.process_many(events, ordering="unordered") == [None] * 6
    expected = Counter(
        ("k", number * 7, depth)
        for number in range(6)
        for depth in range(4)
        for _ in range(width ** (3 - depth))
    )
    assert Counter(lines_of(log)) == expected


def test_unordered_counts_all_events(workers: PoolProcessor, tmp_path: Path) -> None:
    event = Step(str(tmp_path / "log"), "k", 0, depth=2, width=10)
    (outcome,) = workers.stream([event], ordering="unordered")
    assert outcome.events == 111
    assert outcome.value is None


def test_unordered_a_value_ends_the_cascade(workers: PoolProcessor) -> None:
    events = [Do("follow", *[Do("stop", "value")] * 200), Do("stop", 2)]
    assert workers.process_many(events, ordering="unordered") == ["value", 2]


def test_unordered_an_error_ends_the_cascade(workers: PoolProcessor) -> None:
    follow_ups = [Do("nothing")] * 50 + [Do("fail", KeyError, "k")] + [Do("nothing")] * 50
    values = workers.process_many(
        [Do("follow", *follow_ups), Do("stop", 2)], ordering="unordered", return_exceptions=True
    )
    assert isinstance(values[0], KeyError)
    assert values[1] == 2


def test_unordered_follow_ups_of_one_root_run_beside_each_other(gate: Gate) -> None:
    with register_all(PoolProcessor(workers=2, ordering="unordered"), [actions.act]) as pool:
        root = Do("follow", *[Do("call", actions.pass_gate, gate.address, text) for text in "ab"])
        with Background(lambda: pool.process(root)) as done:
            # both are there at the same time: neither waits for the other
            assert {gate.arrival().text, gate.arrival().text} == {"a", "b"}
            gate.close()
            assert done.result() is None


@pytest.mark.parametrize("ordering", ["cascade", "unordered"])
def test_the_pools_ordering_can_be_chosen_per_call(
    workers: PoolProcessor, tmp_path: Path, ordering: Any
) -> None:
    event = Step(str(tmp_path / "log"), "k", 0, depth=1, width=2)
    assert workers.process_many([event], ordering=ordering) == [None]


def test_other_keys_behind_many_of_one_get_workers(gate: Gate) -> None:
    # more of the first key than there is demand for while one worker is enough for them
    events = [Do("wait_at", gate.address)]
    events += [Do("nothing") for _ in range(300)]
    events += [Do("wait_at", gate.address, "other")]
    with register_all(PoolProcessor(workers=3), [actions.act]) as pool:
        work = Background(lambda: pool.process_many(events, key=_is_other))
        arrivals = [gate.arrival() for _ in range(2)]  # both at the same time
        for arrival in arrivals:
            arrival.release()
        assert work.result() == [None] * 302


def _is_other(ev: Do) -> bool:
    return "other" in ev.args
