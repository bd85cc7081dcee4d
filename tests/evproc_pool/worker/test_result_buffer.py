"""Unsent results of a worker: how they are packed, and that they are sent once."""

from __future__ import annotations

import itertools
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest

import evproc
from evproc_pool.coordinator.codec import PACE
from evproc_pool.core.estimates import KEEP_SECONDS, REPORT_SECONDS, TARGET_SECONDS
from evproc_pool.core.event_columns import Times
from evproc_pool.protocol import messages, status_words
from evproc_pool.protocol.frame import Frame
from evproc_pool.serialization import packing, pickling
from evproc_pool.testing import ManualClock
from evproc_pool.worker.result_buffer import ResultBuffer
from tests.support.frames import (
    FedChannel,
    Plain,
    batch_of,
    items_of,
    load_any_progress,
    make_worker,
    run_batches,
    words_of,
)


def results_of(frame: messages.ProgressFrame) -> messages.BatchResults:
    """The results in a frame that has some."""
    assert frame.results is not None
    return frame.results


def follow_ups_of(results: messages.BatchResults) -> dict[int, int]:
    """The number of the only follow-up of each event that has one."""
    events = packing.unpack(results.follow_ups) if results.givers else []
    return dict(zip(results.givers, [ev.number for ev in events], strict=True))


# --- what an event leaves in memory ---


@pytest.mark.parametrize("way", ["nothing", "atom", "containers", "emitted"])
def test_an_event_is_gone_when_the_next_but_one_begins(way: str) -> None:
    seen: list[weakref.ref[Any]] = []
    gone: list[bool] = []

    def leave(proc: Any, ev: Any, worker: Any) -> None:
        gone.extend([seen[-2]() is None] if len(seen) > 1 else [])
        seen.append(weakref.ref(ev))
        if way == "emitted":
            ev.emit([ev.number])
        elif way != "nothing":
            raise evproc.StopProcessing(ev.number if way == "atom" else ([ev.number], "text"))

    assert run_batches(leave, 5)[-1].done == 5
    assert gone == [True] * 3


# --- in one pickle ---


@pytest.mark.parametrize("value", [7, "text", b"bytes", None, 1.5, (), (1, "two", None)])
def test_immutable_values_share_one_pickle(value: object) -> None:
    def give(proc: Any, ev: Any, worker: Any) -> None:
        raise evproc.StopProcessing(value)

    (frame,) = run_batches(give, 3)
    values = results_of(frame).values
    assert values is not None
    assert values.is_together
    assert items_of(values) == dict.fromkeys(range(3), value)
    assert values.is_sure


def test_unshared_values_share_one_pickle_from_the_second_batch_on() -> None:
    def give(proc: Any, ev: Any, worker: Any) -> None:
        raise evproc.StopProcessing({"number": ev.number})

    frames = run_batches(give, 3, 3)
    values = [results_of(frame).values for frame in frames]
    # before, it is not known whether there are large buffers in them
    assert [column.is_together for column in values if column] == [False, True]
    for column in values:
        assert items_of(column) == {number: {"number": number} for number in range(3)}


@dataclass
class _Record:
    number: int
    others: list[int]


def _values_of(frame: messages.ProgressFrame) -> packing.PackedColumn:
    values = results_of(frame).values
    assert values is not None
    return values


@pytest.mark.parametrize("make", [_Record, lambda *args: Decimal(args[0])])
def test_unshared_instances_share_one_pickle(make: Any) -> None:
    def give(proc: Any, ev: Any, worker: Any) -> None:
        raise evproc.StopProcessing(make(ev.number, []) if ev.number else {"a": 1})

    expected = {0: {"a": 1}, 1: make(1, []), 2: make(2, [])}
    frames = run_batches(give, 3, 3, 1)
    for frame in frames[:2]:
        assert items_of(results_of(frame).values) == expected
    assert [column.is_together for column in map(_values_of, frames)] == [False, True, False]


@pytest.mark.parametrize("end", ["nothing", "value", "stop", "emit", "follow-up"])
def test_an_event_that_a_handler_keeps_comes_back_as_it_was(end: str) -> None:
    kept: list[Any] = []

    def keep(proc: Any, ev: Any) -> list[Any] | None:
        for each in kept:
            each.number = -1
        kept.append(ev)
        if end == "value":
            raise evproc.StopProcessing([])
        if end == "stop":
            raise evproc.StopProcessing
        if end == "emit":
            ev.emit([])
        return [Plain(0)] if end == "follow-up" else None

    packed = packing.EventPacker().pack([Plain(number) for number in range(3)])
    frame = messages.BatchFrame([(0, (2, 3))], 0, 3, (), (0, 1, 2), 1.0, packed)
    batch = Frame(messages.BATCH, messages.dump_batch(frame))
    channel = FedChannel(batch, batch)
    worker = make_worker(channel, words_of())
    worker._processor.register(keep, "keep")
    worker._processor.register(lambda proc, ev: None, "after it")
    worker.run()
    assert len(channel.sent) == 2
    for each in channel.sent:
        back = items_of(results_of(load_any_progress(each)).processed)
        assert [ev.number for ev in back.values()] == [0, 1, 2]


def test_events_that_come_back_share_one_pickle() -> None:
    packed = packing.EventPacker().pack([Plain(number) for number in range(3)])
    frame = messages.BatchFrame([(0, (0,))], 0, 3, (), (0, 2), 1.0, packed)
    batch = Frame(messages.BATCH, messages.dump_batch(frame))
    channel = FedChannel(batch, batch)
    make_worker(channel, words_of()).run()
    columns = [results_of(load_any_progress(each)).processed for each in channel.sent]
    assert [column.is_together for column in columns if column] == [False, True]
    for column in columns:
        assert {at: ev.number for at, ev in items_of(column).items()} == {0: 0, 2: 2}


# --- as they were ---


def test_a_value_that_a_handler_changes_later_keeps_its_state() -> None:
    shared: list[int] = []

    def give(proc: Any, ev: Any, worker: Any) -> None:
        shared.append(ev.number)
        raise evproc.StopProcessing(shared)

    for frame, before in zip(run_batches(give, 3, 3), ([], [0, 1, 2]), strict=True):
        assert items_of(results_of(frame).values) == {
            number: [*before, *range(number + 1)] for number in range(3)
        }


def test_an_emitted_result_that_a_handler_changes_later_keeps_its_state() -> None:
    shared: list[int] = []

    def emit(proc: Any, ev: Any, worker: Any) -> None:
        shared.append(ev.number)
        ev.emit(shared)
        ev.emit(ev.number)

    first, second = run_batches(emit, 2, 2)
    assert items_of(results_of(first).emitted) == {0: [[0], 0], 1: [[0, 1], 1]}
    assert items_of(results_of(second).emitted) == {0: [[0, 1, 0], 0], 1: [[0, 1, 0, 1], 1]}


def test_a_part_of_a_value_that_a_handler_changes_later_keeps_its_state() -> None:
    rows: list[int] = []

    def give(proc: Any, ev: Any, worker: Any) -> None:
        rows.append(ev.number)
        ev.emit({"rows": rows})
        raise evproc.StopProcessing(({"rows": rows},))

    first, second = run_batches(give, 2, 2)
    assert items_of(results_of(first).values) == {0: ({"rows": [0]},), 1: ({"rows": [0, 1]},)}
    assert items_of(results_of(second).values) == {
        0: ({"rows": [0, 1, 0]},),
        1: ({"rows": [0, 1, 0, 1]},),
    }
    assert items_of(results_of(second).emitted) == {
        0: [{"rows": [0, 1, 0]}],
        1: [{"rows": [0, 1, 0, 1]}],
    }


def test_an_event_that_comes_back_is_as_its_handlers_left_it() -> None:
    rows: list[int] = []

    def act(proc: Any, ev: Any) -> None:
        rows.append(ev.number)
        ev.proc.test.rows = rows

    packed = packing.EventPacker().pack([Plain(number) for number in range(2)])
    frame = messages.BatchFrame([(0, (2,))], 0, 2, (), (0, 1), 1.0, packed)
    batch = Frame(messages.BATCH, messages.dump_batch(frame))
    channel = FedChannel(batch, batch)
    worker = make_worker(channel, words_of())
    worker._processor.register(act, "act")
    worker.run()
    found = [items_of(results_of(load_any_progress(each)).processed) for each in channel.sent]
    left = [{at: ev.proc.test.rows for at, ev in each.items()} for each in found]
    assert left == [{0: [0], 1: [0, 1]}, {0: [0, 1, 0], 1: [0, 1, 0, 1]}]


def test_emitted_results_of_a_failed_event_are_forgotten() -> None:
    def emit(proc: Any, ev: Any, worker: Any) -> None:
        ev.emit(ev.number)
        if ev.number == 1:
            raise ValueError(ev.number)

    (frame,) = run_batches(emit, 3)
    results = results_of(frame)
    assert items_of(results.emitted) == {0: [0], 2: [2]}
    assert [position for position, _ in results.errors] == [1]


# --- what cannot be packed ---


@pytest.mark.parametrize("batch", [0, 1], ids=["by itself", "together"])
def test_a_value_that_cannot_be_pickled_fails_alone(batch: int) -> None:
    # the very first value is packed before the others have said that values can wait
    bad = 2 if batch else 0
    waiting: list[int] = []

    def give(proc: Any, ev: Any, worker: Any) -> None:
        if ev.number == bad:
            waiting.append(len(worker._results.deferring))
        raise evproc.StopProcessing({"v": threading.Lock() if ev.number == bad else ev.number})

    frames = run_batches(give, 1, 4) if batch else run_batches(give, 4)
    results = results_of(frames[-1])
    items = items_of(results.values)
    assert waiting == [batch]
    record = items.pop(bad)
    assert items == {number: {"v": number} for number in range(4) if number != bad}
    # it was no failure when it ran, so that nothing behind it was left out
    assert results.errors == []
    assert isinstance(record, messages.ErrorRecord)
    assert record.handler == "handler"
    text = str(messages.decode_error(record))
    assert "the value given to StopProcessing by handler 'handler'" in text


# --- reports ---


def _has_all_results(proc: Any, ev: Any, worker: Any) -> list[Any] | None:
    """Every kind of result, in turn; during the fifth event the earlier ones are reported."""
    if ev.number == 4:
        worker.report()
    ev.emit(10 * ev.number)
    match ev.number % 4:
        case 0:
            raise evproc.StopProcessing(ev.number)
        case 1:
            return [Plain(ev.number)]
        case 2:
            raise ValueError(ev.number)
    return None


def test_results_that_were_reported_while_a_handler_ran_are_not_sent_again() -> None:
    first, second = run_batches(_has_all_results, 8)
    assert (first.done, second.done) == (4, 8)
    for frame, base in ((first, 0), (second, 4)):
        results = results_of(frame)
        assert items_of(results.values) == {base: base}
        assert follow_ups_of(results) == {base + 1: base + 1}
        assert [position for position, _ in results.errors] == [base + 2]
        emitted = {at: [10 * at] for at in range(base, base + 4) if at != base + 2}
        assert items_of(results.emitted) == emitted
        assert len(Times(frame.begun, memoryview(frame.ends).cast("d"))) == 4


def test_handlers_that_did_not_run_are_reported_once() -> None:
    def act(proc: Any, ev: Any, worker: Any) -> None:
        if ev.number == 3:
            worker.report()
        if ev.number % 2:
            raise evproc.StopProcessing

    channel = FedChannel(batch_of(range(5), plan=(2, 0)))
    worker = make_worker(channel, words_of())
    worker._processor.register(lambda proc, ev: act(proc, ev, worker), "handler")
    worker.run()
    shorts = [list(results_of(load_any_progress(frame)).short) for frame in channel.sent]
    assert shorts == [[1, 2], [3, 2]]


def test_a_report_sends_nothing_twice_nor_too_early() -> None:
    def act(proc: Any, ev: Any, worker: Any) -> None:
        for _ in range(3):
            worker.report()

    frames = run_batches(act, 3)
    assert [frame.done for frame in frames] == [1, 2, 3]
    assert all(frame.results is None for frame in frames)


class _Scenario:
    """A result buffer, and the frames that it has sent."""

    def __init__(self) -> None:
        self.channel = FedChannel()
        self.words = words_of()
        self.results = ResultBuffer(self.channel, self.words, is_timed=False, batches_ahead=2)
        self.results.begin(0, 1.0)

    def stop(self, position: int, value: object) -> None:
        """An event is over, with a value."""
        self.results._add(self.results.stopped, position, Plain(position), None, value)
        self.results.ends.append(2.0 + position)

    @property
    def sent(self) -> list[messages.ProgressFrame]:
        return [load_any_progress(frame) for frame in self.channel.sent]


def test_results_that_were_reported_after_the_last_event_are_not_sent_again() -> None:
    scenario = _Scenario()
    for position in range(3):
        scenario.stop(position, position)
    scenario.results.report()
    scenario.results.send(3)
    (frame,) = scenario.sent
    assert frame.done == 3
    assert list(memoryview(frame.ends).cast("d")) == [2.0, 3.0, 4.0]
    assert frame.begun == 1.0
    lists = (scenario.results.ends, scenario.results.unsent, scenario.results.stopped)
    assert [len(each) for each in lists] == [0, 0, 0]
    assert scenario.words[status_words.UNSENT] == status_words.NONE
    # the frame still says that the rest is given back
    scenario.results.send(3, gave_back=True)
    assert [(each.done, each.gave_back) for each in scenario.sent] == [(3, False), (3, True)]


def test_the_first_unreported_position_is_published() -> None:
    scenario = _Scenario()
    seen = []
    for position in range(4):
        if position == 2:
            scenario.results.ends.append(2.0 + position)  # it left nothing behind
        else:
            scenario.stop(position, position)
        seen.append(scenario.words[status_words.UNSENT])
        if position == 1:
            scenario.results.report()
            seen.append(scenario.words[status_words.UNSENT])
    scenario.results.send(4)
    seen.append(scenario.words[status_words.UNSENT])
    assert seen == [0, 0, status_words.NONE, status_words.NONE, 3, status_words.NONE]


def test_a_result_that_arrives_during_a_report_is_published() -> None:
    scenario = _Scenario()
    scenario.stop(0, 0)
    send = scenario.channel.send

    def go_on(tag: int, payload: Any, buffers: Any = ()) -> None:
        send(tag, payload, buffers)
        scenario.channel.send = send  # type: ignore[method-assign]  # the next one as usual
        scenario.stop(1, 1)  # as the worker's loop does, in another thread

    scenario.channel.send = go_on  # type: ignore[method-assign]  # that is the point
    scenario.results.report()
    assert scenario.words[status_words.UNSENT] == 1
    scenario.results.send(2)
    assert [items_of(results_of(frame).values) for frame in scenario.sent] == [{0: 0}, {1: 1}]


def test_reported_results_are_not_published_as_packed() -> None:
    scenario = _Scenario()
    seen: list[int] = []

    class Looks:
        def __reduce__(self) -> Any:
            seen.append(scenario.words[status_words.PACKING])
            return str, ()

    scenario.stop(0, 0)
    scenario.results.report()
    scenario.stop(1, Looks())
    scenario.results.send(2)
    assert set(seen) == {status_words.packing((1,))}


def test_times_continue_after_a_report() -> None:
    scenario = _Scenario()
    scenario.stop(0, 0)
    scenario.results.report()
    scenario.stop(1, 1)
    scenario.results.report()
    scenario.stop(2, 2)
    scenario.results.send(3)
    assert [frame.begun for frame in scenario.sent] == [1.0, 2.0, 3.0]
    assert [items_of(results_of(frame).values) for frame in scenario.sent] == [
        {0: 0},
        {1: 1},
        {2: 2},
    ]
    timings = [frame.timings for frame in scenario.sent]
    assert timings == [[(0, 1, 1.0)]] * 3


class _Changing:
    """Cannot be pickled while something changes it."""

    is_changing = True

    def __reduce__(self) -> Any:
        if self.is_changing:
            raise RuntimeError("dictionary changed size during iteration")
        return str, ("packed",)


def test_whatever_a_report_raises_the_results_wait_for_the_next_frame(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Or else the reporting thread would end for good."""
    scenario = _Scenario()
    scenario.stop(0, 0)

    def leaves(*args: Any, **options: Any) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(scenario.results, "_send", leaves)
        scenario.results.report()
    assert scenario.sent == []
    scenario.results.send(1)
    assert [frame.done for frame in scenario.sent] == [1]


def test_a_value_that_changes_during_a_report_waits() -> None:
    scenario = _Scenario()
    value = _Changing()
    scenario.stop(0, 0)
    scenario.stop(1, value)
    scenario.results.report()
    assert scenario.sent == []
    assert scenario.words[status_words.UNSENT] == 0
    value.is_changing = False
    scenario.stop(2, 2)
    scenario.results.send(3)
    (frame,) = scenario.sent
    assert frame.done == 3
    assert items_of(results_of(frame).values) == {0: 0, 1: "packed", 2: 2}


def test_a_report_to_a_dead_coordinator_loses_no_result() -> None:
    scenario = _Scenario()
    scenario.stop(0, 0)

    def fail(tag: int, payload: Any, buffers: Any = ()) -> None:
        raise BrokenPipeError

    scenario.channel.send = fail  # type: ignore[method-assign]  # that is the point
    scenario.results.report()  # in a thread of its own: the loop finds out
    with pytest.raises(BrokenPipeError):
        scenario.results.send(1)


# --- how long it waits ---


def _done_by_frame(
    give: Callable[[Any], object], *, is_prompt: bool = False, seconds: float = 0.0005
) -> list[int]:
    """How many events are over at each frame, in a batch of 200 events of so many seconds each."""
    clock = ManualClock()

    def handle(proc: Any, ev: Any) -> Any:
        clock.advance(seconds)
        return give(ev)

    packed = packing.EventPacker().pack([Plain(number) for number in range(200)])
    frame = messages.BatchFrame([(0, (2,))], 0, 200, (), (), 1.0, packed, is_prompt)
    channel = FedChannel(Frame(messages.BATCH, messages.dump_batch(frame)))
    worker = make_worker(channel, words_of(), clock=clock)
    worker._processor.register(handle, "handler")
    worker._prompt_seconds = PACE.report_seconds  # as if somebody could ask for reports
    worker.run()
    return [load_any_progress(each).done for each in channel.sent]


def test_values_wait_longer_than_follow_ups_if_nobody_waits_for_single_values() -> None:
    def give_value(ev: Any) -> None:
        raise evproc.StopProcessing(ev.number)

    keep, target = round(KEEP_SECONDS / 0.0005), round(TARGET_SECONDS / 0.0005)
    values = _done_by_frame(give_value)
    assert keep <= values[0] <= keep + target
    assert len(values) == 4
    follow_ups = _done_by_frame(lambda ev: [Plain(0)])
    assert target <= follow_ups[0] <= target + 2
    prompt = _done_by_frame(give_value, is_prompt=True)
    assert len(prompt) > len(values)
    assert _done_by_frame(lambda ev: None) == [200]


def test_values_of_events_of_a_millisecond_go_together() -> None:
    def give_value(ev: Any) -> None:
        raise evproc.StopProcessing(ev.number)

    gone = _done_by_frame(give_value, seconds=0.001)
    assert len(gone) <= 200 * 0.001 / KEEP_SECONDS + 1
    assert _done_by_frame(give_value, seconds=0.0025) == list(range(1, 201))


@pytest.mark.parametrize("milliseconds", [0.5, 0.9, 1.5, 3.0, 5.0])
def test_events_without_results_are_reported_if_somebody_waits_for_single_ones(
    milliseconds: float,
) -> None:
    seconds = milliseconds / 1000
    done = _done_by_frame(lambda ev: None, is_prompt=True, seconds=seconds)
    gaps = [after - before for before, after in itertools.pairwise([0, *done])]
    assert max(gaps) * seconds <= REPORT_SECONDS + 2 * seconds
    assert min(gaps[:-1]) * seconds >= REPORT_SECONDS - 1e-9


@pytest.mark.parametrize("way", ["value", "emitted"])
@pytest.mark.parametrize(("seconds", "expected"), [(5e-5, [40, 16, 32, 40]), (1e-4, [40, 40])])
def test_results_of_some_size_are_sent_while_they_are_in_the_caches(
    way: str, seconds: float, expected: list[int]
) -> None:
    def give(proc: Any, ev: Any, worker: Any) -> None:
        worker._clock.advance(seconds)
        content = bytes(10_000)
        if way == "emitted":
            ev.emit(content)
        else:
            raise evproc.StopProcessing(content)

    # the first frame tells how large they are, and how long an event takes
    assert [frame.done for frame in run_batches(give, 40, 40)] == expected


def test_follow_ups_with_large_buffers_do_not_wait_for_others() -> None:
    def give(proc: Any, ev: Any, worker: Any) -> Any:
        follow_up = Plain(0)
        if large:
            follow_up.content = np.zeros(1 << 20, np.uint8)  # type: ignore[attr-defined]
        return [follow_up]

    np = pytest.importorskip("numpy")
    large = True
    # the first frame tells how large they are
    assert [frame.done for frame in run_batches(give, 3, 3)] == [3, 1, 2, 3]
    large = False
    assert [frame.done for frame in run_batches(give, 3, 3)] == [3, 3]


# --- again, one by one ---


def test_columns_are_packed_again_one_by_one() -> None:
    def give(proc: Any, ev: Any) -> None:
        ev.emit(_Record(ev.number, []))
        raise evproc.StopProcessing(_Record(ev.number, []))

    repack = Frame(messages.REPACK, pickling.dumps(1))
    channel = FedChannel(batch_of(range(1), plan=(2,)), batch_of(range(3), is_known=True), repack)
    worker = make_worker(channel, words_of())
    worker._processor.register(give, "handler")
    worker.run()
    results = results_of(load_any_progress(channel.sent[1]))
    assert results.number == 1
    assert results.values is not None
    assert results.values.is_together
    assert channel.sent[2].tag == messages.FOLLOW_UPS
    number, blobs, columns = pickling.loads(channel.sent[2].payload)
    assert number == 1
    again = results.one_by_one(blobs, columns)
    assert again.values is not None
    assert not again.values.is_together
    for each in (results, again):
        assert items_of(each.values) == {at: _Record(at, []) for at in range(3)}
        assert items_of(each.emitted) == {at: [_Record(at, [])] for at in range(3)}
    assert again.processed is None


class _BadKey:
    """Can be pickled, but not rebuilt."""

    def __reduce__(self) -> tuple[Any, ...]:
        return int, ("no number",)


def test_a_value_whose_key_may_not_unpickle_has_a_pickle_of_its_own() -> None:
    def give(proc: Any, ev: Any, worker: Any) -> None:
        raise evproc.StopProcessing({_BadKey(): 1} if ev.number == 1 else {"a": [ev.number]})

    _, frame = run_batches(give, 3, 3)
    assert not _values_of(frame).is_together
    assert [each.is_pickled for each in _values_of(frame).data] == [True] * 3
