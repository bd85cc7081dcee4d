"""The frames of batches and progress, and a worker in this process that receives them."""

from __future__ import annotations

import gc
import struct
import sys
import weakref
from array import array
from collections.abc import Sequence
from typing import Any

import pytest

import evproc
from evproc_pool.core.estimates import KEEP_SECONDS, TARGET_SECONDS
from evproc_pool.core.event_columns import Times
from evproc_pool.ipc.resources import StatusMemory
from evproc_pool.protocol import messages, status_words
from evproc_pool.protocol.frame import Data, Frame
from evproc_pool.protocol.limits import Limits
from evproc_pool.protocol.pass_through import PassThroughPacker, unpack_parts
from evproc_pool.serialization import packing, pickling
from evproc_pool.testing import ManualClock
from tests.support.frames import FedChannel, Plain, batch_of, items_of, make_worker, words_of


@pytest.mark.parametrize("count", [1, 3, 40])
def test_a_batch_of_the_usual_kind_round_trips(count: int) -> None:
    packed = packing.EventPacker().pack([Plain(number) for number in range(count)])
    batch = messages.load_events(messages.dump_events(7, count, 0.25, packed.data))
    assert (batch.plans, batch.size, batch.new_plans, batch.chains) == (7, count, (), ())
    assert batch.overdue == 0.25
    assert [ev.number for ev in packing.unpack(batch.events)] == list(range(count))


@pytest.mark.parametrize("gave_back", [False, True])
def test_quiet_progress_round_trips(gave_back: bool) -> None:
    ends = array("d", [1.5, 2.0, 4.0])
    frame = messages.load_quiet(messages.dump_quiet(3, ends.tobytes(), 1.0, gave_back=gave_back))
    assert (frame.done, frame.begun, frame.gave_back, frame.results) == (3, 1.0, gave_back, None)
    times = Times(frame.begun, memoryview(frame.ends).cast("d"))
    assert list(times) == [0.5, 0.5, 2.0] == [times[0], times[1], times[2]]


def test_a_truncated_head_is_an_error() -> None:
    with pytest.raises(struct.error):
        messages.load_quiet(b"\0")
    with pytest.raises(struct.error):
        messages.load_events(b"\0")


def test_a_worker_answers_a_batch_without_results_by_a_quiet_frame() -> None:
    channel = FedChannel(batch_of(range(3)), batch_of(range(3, 40), is_known=True))
    make_worker(channel, words_of()).run()
    assert [frame.tag for frame in channel.sent] == [messages.QUIET, messages.QUIET]
    frames = [messages.load_quiet(frame.payload) for frame in channel.sent]
    assert [frame.done for frame in frames] == [3, 37]


def test_a_worker_reports_values_once() -> None:
    channel = FedChannel(
        batch_of(range(3), plan=(0, 1)), batch_of(range(0, 6, 2)), batch_of(range(2), is_known=True)
    )
    make_worker(channel, words_of()).run()
    tags = [frame.tag for frame in channel.sent]
    assert tags == [messages.PROGRESS, messages.QUIET, messages.QUIET]
    results = messages.load_progress(channel.sent[0].payload).results
    assert results is not None
    # handler 1 is in the plan: its filter was asked by the coordinator, for all of them
    assert items_of(results.values) == {0: 0, 1: 1, 2: 2}


class _Watching(FedChannel):
    """Notes the worker's published place at each send."""

    def __init__(self, words: list[int], *frames: Frame) -> None:
        super().__init__(*frames)
        self.words = words
        self.places: list[int] = []

    def send(self, tag: int, payload: Data, buffers: Sequence[memoryview] = ()) -> None:
        self.places.append(self.words[status_words.PLACE])
        super().send(tag, payload, buffers)


def _places_while_sending(handler: Any, count: int, clock: ManualClock) -> list[int]:
    """The worker's published place at each send, in a batch for one handler."""
    words = words_of()
    channel = _Watching(words, batch_of(range(count), plan=(2,)))
    worker = make_worker(channel, words, clock=clock)
    worker._processor.register(handler, "handler")
    worker.run()
    return channel.places


@pytest.mark.parametrize("count", [1, 3])
def test_a_worker_is_at_a_slow_event_while_it_sends_its_result(
    count: int,
) -> None:
    clock = ManualClock()

    def slowly(proc: Any, ev: Any) -> None:
        clock.advance(2 * status_words.SLOW_SECONDS)
        raise evproc.StopProcessing(ev.number)

    places = _places_while_sending(slowly, count, clock)
    assert places == [
        position << status_words.HANDLER_BITS | status_words.UNREPORTED | 3
        for position in range(count)
    ]


def test_a_worker_publishes_that_it_packs_results() -> None:
    seen: list[int] = []
    words = words_of()

    class Looks:
        def __reduce__(self) -> Any:
            seen.append(words[status_words.PACKING])
            return Looks, ()

    def follow(proc: Any, ev: Any) -> list[Any]:
        return [Plain(Looks())]  # type: ignore[arg-type]

    channel = FedChannel(batch_of(range(40), plan=(2,)))
    worker = make_worker(channel, words, Limits(event_timeout=1.0))
    worker._processor.register(follow, "follow")
    worker.run()
    assert list(dict.fromkeys(seen)) == [
        status_words.packing(range(16)),
        status_words.packing(range(16, 32)),
        status_words.packing(range(32, 40)),
    ]
    assert words[status_words.PACKING] == 0
    results = messages.load_progress(channel.sent[-1].payload).results
    assert results is not None
    assert results.follow_ups.in_parts
    assert len(unpack_parts(results.follow_ups.data)) == 40


def test_a_worker_is_behind_fast_events_while_it_sends_their_results() -> None:
    words = words_of()
    channel = _Watching(words, batch_of(range(3), plan=(1,)))
    make_worker(channel, words).run()
    assert channel.places[-1] == 2 << status_words.HANDLER_BITS | status_words.AGAIN


def test_a_worker_is_behind_fast_events_while_it_sends_amid_a_batch() -> None:
    clock = ManualClock()

    def take_a_while(proc: Any, ev: Any) -> None:
        clock.advance(status_words.SLOW_SECONDS / 2)
        raise evproc.StopProcessing(ev.number)

    count = round(4 * TARGET_SECONDS / (status_words.SLOW_SECONDS / 2))
    places = _places_while_sending(take_a_while, count, clock)
    codes = {place & ((1 << status_words.HANDLER_BITS) - 1) for place in places}
    assert codes == {status_words.AGAIN}


@pytest.mark.parametrize("count", [3, 5])  # the slow event is the last of the batch, or not
def test_a_slow_event_without_a_result_is_over_while_other_results_are_sent(count: int) -> None:
    clock = ManualClock()

    def act(proc: Any, ev: Any) -> None:
        if ev.number == 2:
            clock.advance(2 * status_words.SLOW_SECONDS)
        else:
            raise evproc.StopProcessing(ev.number)

    places = _places_while_sending(act, count, clock)
    assert places[0] == 2 << status_words.HANDLER_BITS | status_words.OVER


def test_a_skipped_event_may_run_again() -> None:
    words = words_of()
    channel = _Watching(words, batch_of(range(3), plan=()))
    make_worker(channel, words).run()
    assert channel.places == [2 << status_words.HANDLER_BITS | status_words.AGAIN]


def test_the_time_of_sending_does_not_count_for_the_next_event() -> None:
    clock = ManualClock()

    class Slow(FedChannel):
        def send(self, tag: int, payload: Data, buffers: Sequence[memoryview] = ()) -> None:
            clock.advance(3 * status_words.SLOW_SECONDS)
            super().send(tag, payload, buffers)

    def slowly(proc: Any, ev: Any) -> None:
        clock.advance(2 * status_words.SLOW_SECONDS)
        raise evproc.StopProcessing(ev.number)

    channel = Slow(batch_of(range(3), plan=(2,)))
    worker = make_worker(channel, words_of(), clock=clock)
    worker._processor.register(slowly, "slow")
    worker.run()
    frames = [messages.load_progress(frame.payload) for frame in channel.sent]
    times = [Times(frame.begun, memoryview(frame.ends).cast("d")) for frame in frames]
    assert [list(each) for each in times] == [[pytest.approx(2 * status_words.SLOW_SECONDS)]] * 3


def test_results_do_not_wait_for_the_end_of_a_long_batch() -> None:
    clock = ManualClock()

    def take_a_while(proc: Any, ev: Any) -> None:
        clock.advance(status_words.SLOW_SECONDS / 2)  # no event is slow by itself
        raise evproc.StopProcessing(ev.number)

    count = round(4 * KEEP_SECONDS / (status_words.SLOW_SECONDS / 2))
    channel = FedChannel(batch_of(range(count), plan=(2,)))
    worker = make_worker(channel, words_of(), clock=clock)
    worker._processor.register(take_a_while, "while")
    worker.run()
    frames = [messages.load_progress(frame.payload) for frame in channel.sent]
    assert len(frames) == 4
    assert frames[-1].done == count
    results = [
        position for frame in frames if frame.results for position in items_of(frame.results.values)
    ]
    assert results == list(range(count))


def test_a_worker_gives_back_requested_batches_that_it_has_not_begun() -> None:
    # The first two are asked back while the third is on its way. The third needs the plan that came
    # with the first.
    channel = FedChannel(batch_of(range(3)), batch_of(range(3)), batch_of(range(3), is_known=True))
    make_worker(channel, words_of(taken_to=2)).run()
    assert [frame.tag for frame in channel.sent] == [
        messages.SKIPPED,
        messages.SKIPPED,
        messages.QUIET,
    ]
    assert [pickling.loads(frame.payload) for frame in channel.sent[:2]] == [1, 2]


def test_asking_back_writes_the_status_words() -> None:
    words = StatusMemory.create()
    try:
        words.ask_back(4)
        assert words.words[status_words.TAKEN_TO] == 4
        assert words.words[status_words.TAKEN] == 0  # nothing of its current batch
    finally:
        words.close()


def test_the_events_of_a_batch_are_gone_before_the_next_ones_are_made() -> None:
    seen: list[weakref.ref[Any]] = []
    alive: list[bool] = []

    class Looking(FedChannel):
        def receive(self) -> Frame:
            alive.append(any(each() is not None for each in seen))
            return super().receive()

    channel = Looking(batch_of(range(3), plan=(2,)), batch_of(range(3), plan=(2,)))
    worker = make_worker(channel, words_of())
    worker._processor.register(lambda proc, ev: seen.append(weakref.ref(ev)), "handler")
    worker.run()
    assert (len(seen), alive) == (6, [False] * 3)


def test_packing_pass_through_events_triggers_no_collection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    collects: list[bool] = []
    pack = PassThroughPacker.pack

    def looking(self: PassThroughPacker, events: Any) -> Any:
        collects.append(gc.isenabled())
        return pack(self, events)

    monkeypatch.setattr(PassThroughPacker, "pack", looking)
    channel = FedChannel(batch_of(range(1), plan=(2,)))
    worker = make_worker(channel, words_of())
    worker._processor.register(lambda proc, ev: [Plain(0)], "handler")
    worker.run()
    assert collects == [False]
    assert gc.isenabled()


# --- a single event ---


def _single(ev: Any) -> Frame:
    return Frame(messages.SINGLE, messages.dump_single(0, pickling.dumps(ev)))


def test_a_single_event_is_reported_like_a_batch_of_one() -> None:
    channel = FedChannel(batch_of(range(1), plan=(0, 1)), _single(Plain(2)), _single(Plain(3)))
    make_worker(channel, words_of()).run()
    tags = [frame.tag for frame in channel.sent]
    assert tags == [messages.PROGRESS] * 3
    frames = [messages.load_progress(frame.payload) for frame in channel.sent]
    assert [frame.done for frame in frames] == [1, 1, 1]
    values = [items_of(frame.results.values) for frame in frames if frame.results]
    assert values == [{0: 0}, {0: 2}, {0: 3}]


def test_a_single_event_without_a_result_is_reported_by_a_quiet_frame() -> None:
    words = words_of()
    channel = FedChannel(batch_of(range(1)), _single(Plain(1)))
    make_worker(channel, words).run()
    assert [frame.tag for frame in channel.sent] == [messages.QUIET] * 2
    assert all(messages.is_quiet_end(frame.payload) for frame in channel.sent)
    assert words[status_words.PLACE] == status_words.NONE
    assert not messages.is_quiet_end(messages.dump_quiet(0, b"", 0.0, gave_back=True))


def test_a_single_event_counts_for_the_quota_and_may_be_skipped() -> None:
    channel = FedChannel(batch_of(range(1)), _single(Plain(1)), _single(Plain(2)))
    make_worker(channel, words_of(), Limits(max_tasks=2)).run()
    tags = [frame.tag for frame in channel.sent]
    assert tags == [
        messages.QUIET,
        messages.QUIET,
        messages.LEAVING,
        messages.SKIPPED,
        messages.LEAVING,
    ]
    channel = FedChannel(batch_of(range(1)), _single(Plain(1)))
    make_worker(channel, words_of(taken_to=2)).run()
    assert [frame.tag for frame in channel.sent] == [messages.SKIPPED] * 2


def test_a_single_event_that_cannot_be_rebuilt_is_asked_for_again_and_fails_alone() -> None:
    broken = Frame(messages.SINGLE, messages.dump_single(0, b"no pickle"))
    again = Frame(messages.REPACKED, pickling.dumps([b"no pickle either"]))
    channel = FedChannel(batch_of(range(1)), broken, again, _single(Plain(2)))
    make_worker(channel, words_of()).run()
    tags = [frame.tag for frame in channel.sent]
    assert tags == [messages.QUIET, messages.UNREADABLE, messages.PROGRESS, messages.QUIET]
    results = messages.load_progress(channel.sent[2].payload).results
    assert results is not None
    ((position, record),) = results.errors
    assert position == 0
    assert "the event was pickled, but cannot be rebuilt" in messages.decode_error(record).args[0]


def test_while_its_handler_runs_nothing_holds_the_frame_of_a_single_event() -> None:
    held: list[int] = []

    class Content(bytearray):
        """References to it can be counted."""

    payload = Content(messages.dump_single(0, pickling.dumps(Plain(1))))
    channel = FedChannel(batch_of(range(1), plan=(2,)), Frame(messages.SINGLE, payload))
    worker = make_worker(channel, words_of())
    worker._processor.register(lambda proc, ev: held.append(sys.getrefcount(payload)), "handler")
    before = sys.getrefcount(payload)
    worker.run()
    assert held == [before, before - 1]  # the reference of the frame is gone
