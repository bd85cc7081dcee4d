"""Follow-ups that the coordinator forwards without unpacking, and those that must not."""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

import evproc
from evproc_pool import PoolProcessor, SerializationError
from evproc_pool.coordinator import codec
from evproc_pool.core.batches import Batch, Part
from evproc_pool.core.event_columns import Bunch
from evproc_pool.core.inputs_and_effects import (
    Accepted,
    Closed,
    Effect,
    Opened,
    Progress,
    Send,
    WorkerGone,
    WorkerReady,
)
from evproc_pool.core.scheduler import Scheduler
from evproc_pool.protocol import pass_through
from evproc_pool.protocol.pass_through import (
    PassThrough,
    PassThroughPacker,
    Slice,
    constant_name,
    unpack_parts,
)
from evproc_pool.serialization import packing, pickling
from tests.support.model import FakePlan


class Plain(evproc.Event):
    name = "plain"

    def __init__(self, number: int, **more: Any) -> None:
        super().__init__()
        self.number = number
        self.__dict__.update(more)


class Other(evproc.Event):
    name = "other"

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class Named(evproc.Event):
    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    @property
    def name(self) -> str:
        return "plain"


class Looking(Plain):
    def __getattribute__(self, attribute: str) -> Any:
        return "other" if attribute == "name" else super().__getattribute__(attribute)


def pack(events: list[Any]) -> list[Slice] | None:
    return PassThroughPacker(packing.EventPacker()).pack(events)


def sealed_events(count: int) -> PassThrough:
    slices = pack(
        [Plain(number, tags=["a", {"b": (number, 2.5, None)}]) for number in range(count)]
    )
    assert slices is not None
    return PassThrough.received(slices)


def numbers(events: Any) -> list[int]:
    return [ev.number for ev in events]


# --- what passes through ---


@pytest.mark.parametrize("count", [16, 256, 257, 700])
def test_pass_through_events_round_trip(count: int) -> None:
    events = sealed_events(count)
    out = unpack_parts(events.slices)
    assert len(events) == len(out) == count
    assert {type(ev) for ev in out} == {Plain}
    assert [vars(ev) for ev in out] == [vars(ev) for ev in events]
    assert out[-1].tags == ["a", {"b": (count - 1, 2.5, None)}]
    assert out[-1].name == "plain"


@pytest.mark.parametrize(
    ("start", "stop"), [(0, 700), (0, 1), (255, 257), (256, 512), (300, 300), (699, 700), (10, 650)]
)
def test_a_slice_of_pass_through_events_has_these_events(start: int, stop: int) -> None:
    some = sealed_events(700)[start:stop]
    assert len(some) == stop - start
    assert numbers(some) == numbers(unpack_parts(some.slices)) == list(range(start, stop))
    again = some[1:-1]
    assert numbers(unpack_parts(again.slices)) == list(range(start, stop))[1:-1]
    assert [some[place].number for place in range(len(some))] == list(range(start, stop))


def test_a_pass_through_event_is_the_same_object_each_time() -> None:
    events = sealed_events(20)
    assert events[3] is events[3]
    assert events[5:][0] is events[5]
    assert events[-1] is events[19]
    with pytest.raises(IndexError):
        events[20]


# --- what does not ---


_NOT_PASSED_THROUGH: dict[str, Callable[[], list[Any]]] = {
    "few": lambda: [Plain(number) for number in range(15)],
    "two classes": lambda: [Plain(number) if number % 2 else Other(number) for number in range(20)],
    "the same one twice": lambda: [Plain(1)] * 20,
    "a name by a property": lambda: [Named(number) for number in range(20)],
    "attributes of their own making": lambda: [Looking(number) for number in range(20)],
    "a name of its own": lambda: [Plain(number, name="other") for number in range(20)],
    "a name, maybe": lambda: [Plain(number, inner={"name": 1}) for number in range(20)],
    "an object": lambda: [Plain(number, inner=complex(number, 1)) for number in range(20)],
    "a class": lambda: [Plain(number, inner=Plain) for number in range(20)],
    "an event": lambda: [Plain(number, inner=Plain(1)) for number in range(20)],
    "what cannot be pickled": lambda: [
        Plain(number, inner=threading.Lock()) for number in range(20)
    ],
}


@pytest.mark.parametrize("which", _NOT_PASSED_THROUGH)
def test_events_that_a_filter_or_an_error_may_depend_on_do_not_pass_through(which: str) -> None:
    assert pack(_NOT_PASSED_THROUGH[which]()) is None


def test_a_class_that_was_refused_is_not_tried_again() -> None:
    pass_through_packer = PassThroughPacker(packing.EventPacker())
    assert pass_through_packer.pack([Plain(number, inner=1j) for number in range(20)]) is None
    assert pass_through_packer.pack([Plain(number) for number in range(20)]) is None
    assert pass_through_packer.pack([Other(number) for number in range(20)]) is not None


def test_large_events_do_not_pass_through_and_pieces_are_small() -> None:
    assert pack([Plain(number, data=bytes(5000)) for number in range(20)]) is None
    for size in (0, 100, 900):
        slices = pack([Plain(number, data=bytes(size)) for number in range(300)])
        assert slices is not None
        assert max(len(each.states) for each in slices) < 2 * 16 * 1024
        assert sum(each.stop - each.start for each in slices) == 300
    # a class is not refused for ever because some of its events are large
    pass_through_packer = PassThroughPacker(packing.EventPacker())
    assert (
        pass_through_packer.pack([Plain(number, data=bytes(5000)) for number in range(20)]) is None
    )
    assert pass_through_packer.pack([Plain(number) for number in range(20)]) is not None


class _Meta(type(evproc.Event)):  # type: ignore[misc]  # the metaclass of events
    def __getattr__(cls, attribute: str) -> Any:
        raise KeyError(attribute)  # which should be an AttributeError


class Mistaken(evproc.Event, metaclass=_Meta):
    name = "mistaken"


def test_of_many_events_the_first_pieces_are_larger_than_the_last() -> None:
    slices = pack([Other(number) for number in range(5_000)])
    assert slices is not None
    sizes = [each.stop for each in slices]
    assert sizes[1] > 250  # behind the first, which shows how large they are
    assert sizes[1:] == sorted(sizes[1:], reverse=True)
    assert sizes[-2] == 128  # the end is sent in small batches, each with whole pieces
    assert sum(sizes) == 5_000
    assert max(len(each.states) for each in slices) <= 1 << 14


def test_events_of_a_class_whose_hooks_raise_do_not_pass_through() -> None:
    assert pack([Mistaken() for _ in range(20)]) is None


def test_an_error_in_packing_follow_ups_ends_only_their_cascades() -> None:
    with PoolProcessor(1) as pool:
        pool.register(give_mistaken)
        pool.register(plain)
        events: list[evproc.Event] = [Plain(1), Begin(1), Plain(2)]
        values = pool.process_many(events, return_exceptions=True)
    assert [values[0], values[2]] == [("plain", 1), ("plain", 2)]
    assert isinstance(values[1], SerializationError)
    assert "what handler 'give_mistaken' returned" in str(values[1])


@evproc.want("begin")
def give_mistaken(proc: Any, ev: Any) -> list[evproc.Event]:
    return [Mistaken() for _ in range(20)]


def test_events_that_can_no_longer_be_rebuilt_raise_when_they_are_packed() -> None:
    slices = pack([Plain(number) for number in range(20)])
    assert slices is not None
    events = PassThrough.received([each._replace(kind=b"nonsense") for each in slices])
    assert len(list(events)) == 20
    with pytest.raises(pickle.UnpicklingError, match="invalid load key"):
        pickling.dumps(events[0])


def test_the_class_of_a_script_has_no_constant_name() -> None:
    assert constant_name(Plain) == "plain"
    in_main = type("InMain", (evproc.Event,), {"__module__": "__main__", "name": "plain"})
    assert constant_name(in_main) is None
    assert constant_name(int) is None


# --- through the pool ---


class Begin(evproc.Event):
    name = "begin"

    def __init__(self, number: int, kind: str = "plain") -> None:
        super().__init__()
        self.number = number
        self.kind = kind


@evproc.want("begin")
def begin(proc: Any, ev: Any) -> list[evproc.Event]:
    if ev.kind == "named":
        return [Named(ev.number)]
    if ev.kind == "own":
        return [Plain(ev.number, name="other")]
    return [Plain(ev.number)]


@evproc.want("plain")
def plain(proc: Any, ev: Any) -> None:
    raise evproc.StopProcessing(("plain", ev.number))


@evproc.want("other")
def other(proc: Any, ev: Any) -> None:
    raise evproc.StopProcessing(("other", ev.number))


@evproc.want("plain", lambda ev: ev.number % 2)
def odd(proc: Any, ev: Any) -> None:
    raise evproc.StopProcessing(("odd", ev.number))


@pytest.fixture
def unpacked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Notes the size of each piece that is unpacked in this process."""
    seen: list[int] = []
    instances = packing.instances

    def spy(kinds: Any, states: Any) -> list[Any]:
        seen.append(len(states))
        return instances(kinds, states)

    monkeypatch.setattr(packing, "instances", spy)
    return seen


@pytest.mark.parametrize("kind", ["plain", "named", "own"])
@pytest.mark.parametrize("filtered", [False, True])
def test_values_are_the_same_with_and_without_pass_through(
    kind: str, filtered: bool, unpacked: list[int]
) -> None:
    events = [Begin(number, kind) for number in range(600)]
    processor = evproc.Processor()
    with PoolProcessor(1) as pool:  # nothing is handed on from one worker to another
        for proc in (processor, pool):
            proc.register(begin)
            if filtered:
                proc.register(odd)
            proc.register(plain)
            proc.register(other)
        expected = [processor.process(ev) for ev in events]
        # the plan of a name is known from the second time on
        assert pool.process_many(events) == expected
        del unpacked[:]
        assert pool.process_many(events) == expected
    # a filter has to see the events, and the few events of a small frame do not pass through
    passes_through = kind == "plain" and not filtered
    assert (sum(unpacked) > 500) == (not passes_through)


def test_a_pass_through_event_that_kills_a_worker_is_named() -> None:
    with PoolProcessor(1) as pool:
        pool.register(begin)
        pool.register(_die_at_40, "die")
        pool.process_many([Begin(number) for number in range(30)])
        outcomes = list(pool.stream([Begin(number) for number in range(100)]))
    assert [outcome.index for outcome in outcomes if outcome.error is not None] == [40]
    assert "'plain'" in str(outcomes[40].error)
    assert [outcome.events for outcome in outcomes] == [2] * 100


@evproc.want("plain")
def _die_at_40(proc: Any, ev: Any) -> None:
    if ev.number == 40:
        os._exit(3)


def test_pass_through_events_are_forwarded_packed_beside_others() -> None:
    events = sealed_events(16)

    def packed(*parts: Any) -> packing.PackedEvents:
        batch = Batch(None)
        for each in parts:
            part = Part(batch.size, None)
            part.events = each
            batch.parts.append(part)
        return codec.Codec(evproc.Processor().registry)._pack(batch, [])

    def kinds(content: packing.PackedEvents) -> list[type]:
        assert content.in_parts
        return [type(each) for each in content.data]

    assert not packed([Plain(1)]).in_parts
    halves = packed(events[:5], events[5:])
    assert kinds(halves) == [pass_through.Slice, pass_through.Slice]
    assert numbers(unpack_parts(halves.data)) == list(range(16))
    # also where they look the same
    twice = packed(sealed_events(16), sealed_events(16))
    assert numbers(unpack_parts(twice.data)) == [*range(16), *range(16)]
    mixed = packed([Plain(30)], events[:5], [Plain(31)], [Plain(32)], events[5:])
    # neighbours that do not pass through are packed together
    assert kinds(mixed) == [bytes, pass_through.Slice, bytes, pass_through.Slice]
    assert numbers(unpack_parts(mixed.data)) == [30, *range(5), 31, 32, *range(5, 16)]
    assert pass_through.unpack_parts([]) == []


def _fan_out(events: Sequence[Any], *, unordered: bool) -> tuple[Scheduler, list[Effect]]:
    """Worker 1 has run a root that returned these follow-ups: the scheduler, and its effects."""
    scheduler = Scheduler()
    scheduler.step(WorkerReady(1))
    scheduler.step(Opened(1, unordered=unordered, is_bulk=True))
    plan = FakePlan((1,))
    scheduler.step(Accepted(1, 0, ["root"], [plan]))
    scheduler.step(Closed(1))
    follow_ups = {0: Bunch(events, plan)}
    progress = Progress(1, 1, [0.0], follow_ups, timings=[((1,), 1, 1e-6)])
    return scheduler, scheduler.step(progress)


def _run_all(scheduler: Scheduler, worker: int, effects: list[Effect]) -> list[Part]:
    """Let a worker run everything. Return what it was sent."""
    parts: list[Part] = []
    while sends := [each for each in effects if isinstance(each, Send)]:
        effects = []
        for send in sends:
            parts += send.batch.parts
            size = send.batch.size
            effects += scheduler.step(Progress(worker, size, [0.0] * size))
    return parts


@pytest.mark.parametrize("unordered", [False, True])
def test_events_that_a_worker_did_not_run_are_forwarded_packed(
    unordered: bool,
) -> None:
    scheduler, effects = _fan_out(sealed_events(200), unordered=unordered)
    assert any(isinstance(each, Send) for each in effects)
    assert scheduler.step(WorkerGone(1, None)) == []
    parts = _run_all(scheduler, 2, scheduler.step(WorkerReady(2)))
    assert all(isinstance(part.events, PassThrough) for part in parts)
    assert [number for part in parts for number in numbers(part.events)] == list(range(200))


def test_the_remainder_of_several_batches_is_forwarded_packed() -> None:
    count, done = 5_000, 100
    scheduler, effects = _fan_out(sealed_events(count), unordered=True)
    assert len([each for each in effects if isinstance(each, Send)]) > 1
    assert scheduler.step(Progress(1, done, [0.0] * done)) == []
    assert scheduler.step(WorkerGone(1, None)) == []
    assert scheduler._state.runs[1].left == count - done
    parts = _run_all(scheduler, 2, scheduler.step(WorkerReady(2)))
    assert all(isinstance(part.events, PassThrough) for part in parts)
    ran = [number for part in parts for number in numbers(part.events)]
    assert ran == list(range(done, count))


def test_pass_through_events_behind_others_in_a_batch_stay_packed() -> None:
    scheduler = Scheduler()
    scheduler.step(WorkerReady(1))
    scheduler.step(Opened(1, unordered=True))
    plan = FakePlan((1,))
    scheduler.step(Accepted(1, 0, ["root", "root"], [plan] * 2))  # in one batch
    scheduler.step(Closed(1))
    follow_ups = {0: Bunch(["a", "b"], plan), 1: Bunch(sealed_events(200), plan)}
    progress = Progress(1, 2, [0.0] * 2, follow_ups, timings=[((1,), 2, 2e-6)])
    parts = _run_all(scheduler, 1, scheduler.step(progress))
    assert [type(part.events) for part in parts] == [list, PassThrough]
