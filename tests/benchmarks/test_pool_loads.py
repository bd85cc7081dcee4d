"""Every side is given the same work, and it is the work that its label says."""

import json
import pickle
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from benchmarks.pool import handlers, keys, kinds, lines, loads
from evproc import Event, Processor, StopProcessing

ALL = (loads.NO_OP, *loads.COMPARED)


def seconds_of(events: list[Event]) -> list[float]:
    return [getattr(ev, "seconds", 0.0) for ev in events]


def started(processor: Processor, ev: Event) -> list[str]:
    """Which events a cascade has, by name, without a handler's burning any time."""
    names = []
    queue = [ev]
    while queue:
        ev = queue.pop(0)
        names.append(ev.name)
        if ev.name in ("fan out", "level"):
            for handler in processor.explain(ev).order:
                queue += processor.nodes[handler].func(processor, ev) or ()
    return names


@pytest.mark.parametrize("load", ALL, ids=lambda load: load.label)
def test_equal_counts_make_equal_events_of_their_own(load: loads.Load) -> None:
    count = load.events_in(0.01)
    first, second = load.make(count), load.make(count)
    assert len(first) == count
    assert [vars(ev) for ev in first] == [vars(ev) for ev in second]
    assert all(one is not other for one, other in zip(first, second, strict=True))


@pytest.mark.parametrize("load", ALL, ids=lambda load: load.label)
@pytest.mark.parametrize("seconds", [1e-9, 0.03, 0.5])
def test_a_sample_is_as_long_as_asked_for(load: loads.Load, seconds: float) -> None:
    count = load.events_in(seconds)
    assert count >= load.multiple
    assert count % load.multiple == 0
    assert abs(count - seconds * load.per_second) <= load.multiple
    needed = sum(seconds_of(load.make(count)))
    if needed and count > load.multiple:
        # of two workers
        assert needed / 2 == pytest.approx(seconds, rel=0.25)


@pytest.mark.parametrize("load", ALL, ids=lambda load: load.label)
def test_the_work_is_shared_out_evenly(load: loads.Load) -> None:
    events = load.make(load.events_in(0.1))
    shares = [loads.share(events, number, 2) for number in range(2)]
    assert Counter(map(id, shares[0] + shares[1])) == Counter(map(id, events))
    assert Counter(seconds_of(shares[0])) == Counter(seconds_of(shares[1]))


def test_an_ordinary_event_has_three_attributes_one_of_them_a_dict() -> None:
    (ev,) = loads.make_orders(1)
    assert sorted(type(value).__name__ for value in vars(ev).values()) == ["dict", "int", "str"]


def test_the_mixes() -> None:
    shuffled = seconds_of(loads.make_mix(400, shuffled=True))
    last = seconds_of(loads.make_mix(400, shuffled=False))
    assert last == [0.0001] * 380 + [0.020] * 20
    assert shuffled != last
    assert sorted(shuffled) == last


def test_the_bars_on_efficiency() -> None:
    assert [load.efficiency for load in ALL] == [
        None,
        0.88,
        0.96,
        0.975,
        0.975,
        0.96,
        0.96,
        None,
    ]


def test_handlers_are_complete_and_run_in_order() -> None:
    processor = handlers.make_processor()
    assert not processor.check().conflicts
    (staged,) = loads.make_staged(1)
    assert processor.explain(staged).order == ("prepare", "price", "confirm")
    processor.process(staged)
    assert staged.proc.staged.total == 3


def test_each_event_is_wanted_by_its_handlers_only() -> None:
    processor = handlers.make_processor()
    for ev, order in (
        (handlers.Order(0), ("accept",)),
        (handlers.Work(0, 0.0), ("work",)),
        (handlers.Wait(0.0), ("wait",)),
        (handlers.RollCall(), ("call_roll",)),
        (handlers.FanOut(1, 0.0), ("fan_out",)),
        (handlers.Level(0, 0), ("descend",)),
        (handlers.Blob(0, b""), ("answer",)),
        (handlers.Asked(0, "int"), ("ask",)),
        (handlers.AskedWork(0, 0.0, "int"), ("work_and_answer",)),
        (handlers.AskedLevel(0, 0), ("descend_and_answer",)),
        (handlers.Faulty(1), ("fail_some",)),
        (lines.LogLine(""), ("read_log_line",)),
        (lines.JudgedLine(""), ("judge_log_line",)),
    ):
        assert processor.explain(ev).order == order


def test_cascades() -> None:
    processor = handlers.make_processor()
    assert started(processor, handlers.Level(0, 3)) == ["level"] * 4
    assert started(processor, handlers.FanOut(5, 0.1)) == ["fan out"] + ["work"] * 5


def test_burning_takes_cpu_time() -> None:
    before = time.thread_time()
    handlers.burn(0.005)
    assert time.thread_time() - before >= 0.005


def test_a_blob_is_answered_by_as_many_bytes() -> None:
    with pytest.raises(StopProcessing) as raised:
        handlers.answer(None, handlers.Blob(259, bytes(7)))
    assert raised.value.retval == bytes([3]) * 7 == handlers.answer_to(259, 7)


def test_there_are_as_many_keys_as_is_said() -> None:
    for count in (1, 16, 64):
        key = keys.key_by(count)
        assert {key(ev) for ev in loads.make_orders(100)} == set(range(count))


# --- values ---


@pytest.mark.parametrize("kind", kinds.MAKERS)
def test_a_value_is_made_from_its_number(kind: str) -> None:
    if kind == "NumPy scalar":
        pytest.importorskip("numpy")
    make = kinds.MAKERS[kind]
    (ev,) = loads.make_asked(loads.make_orders, kind, 1)
    assert handlers.make_processor().process(ev) == make(0)
    first, second = make(301), make(301)
    assert first == second == pickle.loads(pickle.dumps(first))
    assert make(301) != make(302)
    if isinstance(first, (dict, list, bytes)):
        assert first is not second


def test_the_values_that_bars_are_on() -> None:
    made = {kind: make(7) for kind, make in kinds.VALUES.items()}
    assert list(made) == ["int", "tuple of three", "dict of five", "1 kB of bytes"]
    assert [type(value) for value in made.values()] == [int, tuple, dict, bytes]
    assert [len(value) for value in made.values() if not isinstance(value, int)] == [3, 5, 1000]


def test_a_twin_has_the_work_of_its_load_and_a_value() -> None:
    for load in (loads.NO_OP, loads.TWENTY_MICROSECONDS, loads.COMPARED[4]):
        twin = loads.asked(load, "dict of five")
        assert twin.label == f"{load.label}, dict of five"
        assert (twin.multiple, twin.chunks, twin.efficiency) == (load.multiple, load.chunks, None)
        given = pickle.loads(pickle.dumps(twin.make))(40)
        assert seconds_of(given) == seconds_of(load.make(40))
        assert {ev.kind for ev in given} == {"dict of five"}
        assert [type(ev) for ev in loads.make_emitting(load.make, "int", 2)] == [
            handlers.Emitting if load is loads.NO_OP else handlers.EmittingWork
        ] * 2
    (asked,) = loads.make_asked(loads.make_orders, "int", 1)
    assert len(vars(asked)) == len(vars(handlers.Order(0)))
    with pytest.raises(TypeError, match="no Wait with a value"):
        loads.make_asked(lambda count: [handlers.Wait(0.0)], "int", 1)


def test_what_is_emitted_is_the_value() -> None:
    class Recording(handlers.Emitting):
        emitted: list[Any] = []  # noqa: RUF012 - of this test only

        def emit(self, value: Any) -> None:
            self.emitted.append(value)

    handlers.make_processor().process(Recording(5, "tuple of three"))
    assert Recording.emitted == [(5, "new", 2.5)]


def test_one_of_some_fails() -> None:
    processor = handlers.make_processor()
    failed = []
    for ev in loads.make_faulty(2 * handlers.FAULTY_EVERY):
        try:
            processor.process(ev)
        except handlers.OrderError as error:
            failed.append(str(error))
    assert failed == ["order 0 has no article", "order 10 has no article"]


def test_a_value_may_come_from_a_follow_up() -> None:
    assert handlers.make_processor().process(handlers.AskedLevel(7, 2)) == 7


def test_a_step_is_answered_by_whether_its_file_came(tmp_path: Path) -> None:
    process = handlers.make_processor().process
    file = tmp_path / "flag"
    assert process(handlers.Step()) is True
    assert process(handlers.Step(str(file), -1.0)) is False
    file.touch()
    assert process(handlers.Step(str(file), 60.0)) is True


def test_an_array_is_read_in_a_follow_up_or_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    np = pytest.importorskip("numpy")
    read: list[Any] = []
    monkeypatch.setattr(handlers, "touch", read.append)
    processor = handlers.make_processor()
    for kind in (handlers.ArrayMade, handlers.ArrayAtOnce):
        processor.process(kind(3, 800))
    assert [each.nbytes for each in read] == [800, 800]
    assert np.array_equal(*read)


# --- log lines ---


def test_log_lines_are_the_same_each_time_and_about_200_bytes() -> None:
    made = lines.make_lines(2000)
    assert made == lines.make_lines(2000)
    assert len(set(made)) > 1900
    assert 150 < sum(map(len, made)) / len(made) < 250


def test_a_log_line_is_read_by_the_handler_as_by_the_plain_function() -> None:
    processor = handlers.make_processor()
    for ev, text in zip(loads.make_log_lines(600), lines.make_lines(600), strict=True):
        assert processor.process(ev) == lines.read_line(text)
    judged = [processor.process(ev) for ev in loads.make_judged_lines(600)]
    assert judged == [lines.judge_line(text) for text in lines.make_lines(600)]
    assert {"checkout GET 4xx slow", ""} < {name for _, name in judged}
    line = {
        "ts": "now",
        "level": "INFO",
        "service": "search",
        "tags": ["a", "b"],
        "msg": "1.2.3.4 GET /users/77?a=1&b=2 -> 404 in 1.50 ms user=u9@example.org",
    }
    assert lines.read_line(json.dumps(line)) == (
        "now",
        "INFO",
        "search/a/b",
        "GET /users/{id}",
        404,
        1.5,
        "u9 at 1.2.3.4",
        2,
        "# GET /users/#?a=#&b=# -> # in # ms user=#example.org",
    )
    with pytest.raises(ValueError, match="no request in 'hello'"):
        lines.read_line(json.dumps(line | {"msg": "hello"}))
