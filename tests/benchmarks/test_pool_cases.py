"""The cases of `pool` with values, keys and answers measure what they say, with their bars."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from benchmarks.model import Bar, BenchmarkError, Note, Row, Settings
from benchmarks.pool import bench, calls, handlers, keys, kinds, loads, shapes, suite, values
from benchmarks.pool.limits import Control, SocketPair
from benchmarks.pool.peers import Executor, MultiprocessingPool
from benchmarks.pool.processes import WORKERS, start_method
from benchmarks.pool.samples import await_workers
from evproc import Event
from evproc_pool import PoolProcessor
from tests.support.helpers import map_regions

TINY = Settings(repeats=1, min_seconds=0.0005, turns=1)


@pytest.fixture(scope="module")
def sides() -> Iterator[bench.Bench]:
    """For all tests, with all workers: none of them is blamed for these."""
    with ExitStack() as stack:
        pool = stack.enter_context(PoolProcessor(WORKERS, mp_context=start_method()))
        handlers.register_all(pool)
        made = bench.Bench(
            TINY,
            pool,
            stack.enter_context(closing(MultiprocessingPool())),
            stack.enter_context(closing(Executor())),
            stack.enter_context(closing(SocketPair())),
            stack.enter_context(closing(Control())),
        )
        await_workers(pool.process_many, WORKERS)
        await_workers(lambda events: made.executor.run(events, 1), WORKERS)
        map_regions(pool)
        yield made


def measure(sides: bench.Bench, cases: tuple[bench.Case, ...]) -> dict[str, Row]:
    """Each case's row, which is its only one."""
    rows = {}
    for case in cases:
        items = list(case.measure(sides, case.label))
        (row,) = (item for item in items if isinstance(item, Row))
        assert all(item.text.startswith(case.label) for item in items if isinstance(item, Note))
        assert row.case == case.label
        rows[row.case] = row
    return rows


def bars(row: Row) -> list[tuple[str, float]]:
    return [(each.bar.kind, each.bar.limit) for each in row.figures if each.bar is not None]


def assert_measured(row: Row) -> None:
    assert all(each.values and min(each.values) > 0 for each in row.figures), row


# --- which there are ---


def test_each_case_has_a_name_of_its_own_by_which_it_runs_alone() -> None:
    names = [case.label for case in suite._CASES]
    assert len(set(map(str.lower, names))) == len(names)
    for name in names:
        assert Settings(case=name.upper()).choose(names) == {name}


def test_text_that_is_no_whole_name_chooses_all_that_have_it() -> None:
    names = ["no-op", "no-op, int", "20 us, int"]
    assert Settings(case="INT").choose(names) == {"no-op, int", "20 us, int"}
    assert Settings(case="").choose(names) == set(names)
    assert Settings(case="keys").choose(names) == set()


# --- what they measure ---


def test_values(sides: bench.Bench) -> None:
    rows = measure(sides, values.CASES[:2] + values.CASES[4:5] + values.CASES[8:9])
    no_op = rows["no-op, int"]
    assert bars(no_op) == [("at most", 2.5), ("at least", 1.2), ("at least", 1.4)]
    peers = [each.name for each in no_op.figures if each.better is not None]
    assert [name.partition(",")[0] for name in peers] == [
        "events/s / those of multiprocessing.Pool.imap",
        "events/s / those of ProcessPoolExecutor.map",
    ]
    assert bars(rows["20 us, int"]) == [("at least", 0.85)]
    assert bars(rows["100 us, int"]) == [("at least", 0.95)]
    for row in rows.values():
        assert_measured(row)


def test_other_ways_back(sides: bench.Bench) -> None:
    rows = measure(sides, values.CASES[-3:])
    assert list(rows) == ["no-op, return_events", "1 follow-up with an int", "no-op, 1 of 10 fails"]
    for row in rows.values():
        assert_measured(row)
        assert not bars(row)


def test_peers_go_on_behind_an_error(sides: bench.Bench) -> None:
    for peer in (sides.multiprocessing_pool, sides.executor):
        got = values.Caught(peer).run(loads.make_faulty(12), 3)
        assert [type(each) for each in got if each is not None] == [handlers.OrderError] * 2


def test_emitted_values_are_measured_where_events_can_emit(
    sides: bench.Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    emitted = tuple(case for case in values.CASES if case.label.startswith("emitted"))
    assert len(emitted) == 6
    if bench.can_emit():
        for row in measure(sides, emitted[:1] + emitted[-1:]).values():
            assert_measured(row)
    monkeypatch.setattr(values, "can_emit", lambda: False)
    first, note = emitted[0].measure(sides, emitted[0].label)
    assert isinstance(first, Row)
    assert [each.values for each in first.figures] == [()]
    assert isinstance(note, Note)
    assert "Event has no emit" in note.text


def test_nothing_emitted_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values, "_emitted", lambda outcome: [])
    with PoolProcessor(0) as pool:
        handlers.register_all(pool)
        with pytest.raises(BenchmarkError, match="nothing was emitted"):
            values.stream_emitted(pool, loads.make_orders(2))


def test_keys(sides: bench.Bench) -> None:
    rows = measure(sides, keys.CASES)
    assert bars(rows["keys, no-op"]) == [("at least", 8.0)] * 2
    assert bars(rows["keys, 100 us"]) == [("at least", 0.92)] * 3
    assert bars(rows["1 key, 100 us"]) == [("at least", 0.95)]
    for row in rows.values():
        assert_measured(row)


def test_shapes(sides: bench.Bench) -> None:
    pytest.importorskip("numpy")
    rows = measure(sides, shapes.CASES)
    assert len(rows) == len(kinds.SHAPES) + 1
    for row in rows.values():
        assert_measured(row)
        assert not bars(row)


def test_shapes_that_need_numpy_are_left_out_without_it(
    sides: bench.Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shapes, "has_numpy", lambda: False)
    needing = [case for case in shapes.CASES if "NumPy" in case.label or "array" in case.label]
    for case in needing:
        first, note = case.measure(sides, case.label)
        assert isinstance(first, Row)
        assert [each.values for each in first.figures] == [()]
        assert isinstance(note, Note)
        assert "NumPy is not installed" in note.text


# --- answers ---


def done(value: Any) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(value)
    return future


def test_the_time_of_each_answer_is_taken() -> None:
    waiting: list[Future[Any]] = []

    def submit(ev: Event) -> Future[Any]:
        """Answer the slow one at once, and the quick one behind it."""
        if getattr(ev, "seconds", 0.0):
            for each in waiting:
                each.set_result(None)
            return done(None)
        waiting.append(Future())
        return waiting[-1]

    answered = calls.answer(submit, (False, False, True), 1.0)
    assert 0 <= answered.first <= answered.quick <= answered.last
    only_quick = calls.answer(lambda ev: done(None), (False, False), 1.0)
    assert only_quick.quick == only_quick.last


@pytest.mark.parametrize("attempt", [calls.try_pool, calls.try_executor])
@pytest.mark.parametrize("is_warm", [False, True])
def test_trials_have_every_answer(
    attempt: Callable[[calls.Quick, float], calls.Answered], is_warm: bool
) -> None:
    quick = calls.Quick("some", is_warm, (False, True, False))
    answered = attempt(quick, 0.01)
    assert 0 < answered.first <= answered.quick
    assert answered.last >= 0.01


def test_quick_answers_are_judged_beside_the_executor(sides: bench.Bench) -> None:
    assert [(len(each.slow), sum(each.slow), each.is_warm) for each in calls.QUICK] == [
        (2, 1, False),
        (2, 1, True),
        (11, 4, True),
        (80, 20, True),
    ]
    (row,) = measure(sides, calls.CASES[1:2]).values()
    (later,) = (each for each in row.figures if each.bar is not None)
    assert later.bar == Bar("at most", 20)
    times = {each.name: each.values[0] for each in row.figures}
    assert later.values == (
        times["last quick answer, PoolProcessor"] - times["last quick answer, ProcessPoolExecutor"],
    )
    assert {each.better for each in row.peers} == {"smaller"}


def process_here(ev: Event) -> Future[Any]:
    return done(handlers.make_processor().process(ev))


def test_an_answer_that_comes_too_late_does_not_count(tmp_path: Path) -> None:
    # one after another: the second one has given up before the first is answered
    late = calls.answered_at_once(process_here, tmp_path / "late", -1.0, is_warm=True)
    assert not late
    (tmp_path / "there").touch()
    assert calls.answered_at_once(process_here, tmp_path / "there", -1.0, is_warm=False)


def test_a_stream_makes_the_file_behind_its_first_outcome(tmp_path: Path) -> None:
    with PoolProcessor(0) as pool:
        handlers.register_all(pool)
        for is_ordered in (True, False):
            file = tmp_path / f"file {is_ordered}"
            assert calls.streamed_at_once(pool, file, 60.0, is_ordered=is_ordered)
            assert file.exists()


def test_an_answer_that_another_event_waits_for(
    sides: bench.Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "_LEAST_PATIENCE_SECONDS", 0.05)
    (row,) = measure(sides, calls.CASES[-2:-1]).values()
    ours, theirs = row.figures
    assert ours.bar == Bar("at least", 6)
    assert 0 <= ours.values[0] <= 6
    assert 0 <= theirs.values[0] <= 2


def test_many_small_calls(sides: bench.Bench) -> None:
    (row,) = measure(sides, calls.CASES[-1:]).values()
    assert_measured(row)
    assert bars(row) == [("at least", 0.75), ("at least", 1.0)]
    events = loads.make_asked(loads.make_orders, "int", 9)
    assert calls.submit_all(process_here, events) == list(range(9))
    assert sorted(calls.submit_by_threads(process_here, events)) == list(range(9))
