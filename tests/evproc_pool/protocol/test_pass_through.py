"""Follow-ups that go from worker to worker as they came, and those that must not."""

from __future__ import annotations

import os
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
    unseal,
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


def seal(events: list[Any]) -> list[Slice] | None:
    return PassThroughPacker(packing.EventPacker()).seal(events)


def sealed_events(count: int) -> PassThrough:
    slices = seal(
        [Plain(number, tags=["a", {"b": (number, 2.5, None)}]) for number in range(count)]
    )
    assert slices is not None
    return PassThrough.received(slices)


def numbers(events: Any) -> list[int]:
    return [ev.number for ev in events]


# --- what is sealed ---


@pytest.mark.parametrize("count", [16, 256, 257, 700])
def test_sealed_events_come_out_as_they_went_in(count: int) -> None:
    events = sealed_events(count)
    out = unseal(events.slices)
    assert len(events) == len(out) == count
    assert {type(ev) for ev in out} == {Plain}
    assert [vars(ev) for ev in out] == [vars(ev) for ev in events]
    assert out[-1].tags == ["a", {"b": (count - 1, 2.5, None)}]
    assert out[-1].name == "plain"


@pytest.mark.parametrize(
    ("start", "stop"), [(0, 700), (0, 1), (255, 257), (256, 512), (300, 300), (699, 700), (10, 650)]
)
def test_a_part_of_sealed_events_is_that_part(start: int, stop: int) -> None:
    some = sealed_events(700)[start:stop]
    assert len(some) == stop - start
    assert numbers(some) == numbers(unseal(some.slices)) == list(range(start, stop))
    again = some[1:-1]
    assert numbers(unseal(again.slices)) == list(range(start, stop))[1:-1]
    assert [some[place].number for place in range(len(some))] == list(range(start, stop))


def test_one_of_sealed_events_is_the_same_object_each_time() -> None:
    events = sealed_events(20)
    assert events[3] is events[3]
    assert events[5:][0] is events[5]
    assert events[-1] is events[19]
    with pytest.raises(IndexError):
        events[20]


# --- what is not ---


_UNSEALED: dict[str, Callable[[], list[Any]]] = {
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


@pytest.mark.parametrize("which", _UNSEALED)
def test_what_a_filter_or_an_error_may_depend_on_is_not_sealed(which: str) -> None:
    assert seal(_UNSEALED[which]()) is None


def test_a_class_that_was_refused_is_not_tried_again() -> None:
    pass_through_packer = PassThroughPacker(packing.EventPacker())
    assert pass_through_packer.seal([Plain(number, inner=1j) for number in range(20)]) is None
    assert pass_through_packer.seal([Plain(number) for number in range(20)]) is None
    assert pass_through_packer.seal([Other(number) for number in range(20)]) is not None


def test_large_events_are_not_sealed_and_pieces_are_small() -> None:
    assert seal([Plain(number, data=bytes(5000)) for number in range(20)]) is None
    for size in (0, 100, 900):
        slices = seal([Plain(number, data=bytes(size)) for number in range(300)])
        assert slices is not None
        assert max(len(each.states) for each in slices) < 2 * 16 * 1024
        assert sum(each.stop - each.start for each in slices) == 300
    # a class is not refused for ever because some of its events are large
    pass_through_packer = PassThroughPacker(packing.EventPacker())
    assert (
        pass_through_packer.seal([Plain(number, data=bytes(5000)) for number in range(20)]) is None
    )
    assert pass_through_packer.seal([Plain(number) for number in range(20)]) is not None


class _Meta(type(evproc.Event)):  # type: ignore[misc]  # the metaclass of events
    def __getattr__(cls, attribute: str) -> Any:
        raise KeyError(attribute)  # which should be an AttributeError


class Mistaken(evproc.Event, metaclass=_Meta):
    name = "mistaken"


def test_of_many_events_the_first_pieces_are_larger_than_the_last() -> None:
    slices = seal([Other(number) for number in range(5_000)])
    assert slices is not None
    sizes = [each.stop for each in slices]
    assert sizes[1] > 250  # behind the first, which shows how large they are
    assert sizes[1:] == sorted(sizes[1:], reverse=True)
    assert sizes[-2] == 128  # the end is sent in small batches, each with whole pieces
    assert sum(sizes) == 5_000
    assert max(len(each.states) for each in slices) <= 1 << 14


def test_a_class_whose_hooks_raise_is_not_sealed() -> None:
    assert seal([Mistaken() for _ in range(20)]) is None


def test_what_a_class_raises_in_packing_follow_ups_ends_their_cascades_only() -> None:
    with PoolProcessor(1) as pool:
        pool.register(give_mistaken)
        pool.register(plain)
        events: list[evproc.Event] = [Plain(1), Begin(1), Plain(2)]
        values = pool.process_many(events, return_exceptions=True)
    assert [values[0], values[2]] == [("plain", 1), ("plain", 2)]
    assert values[1] is None or isinstance(values[1], SerializationError)


@evproc.want("begin")
def give_mistaken(proc: Any, ev: Any) -> list[evproc.Event]:
    return [Mistaken() for _ in range(20)]


def test_events_that_cannot_be_rebuilt_any_more_say_so_when_they_are_packed() -> None:
    slices = seal([Plain(number) for number in range(20)])
    assert slices is not None
    events = PassThrough.received([each._replace(kind=b"nonsense") for each in slices])
    assert len(list(events)) == 20
    with pytest.raises(Exception, match=r".") as info:
        pickling.dumps(events[0])
    assert not isinstance(info.value, AssertionError)


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
def unsealed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Takes the size of each piece that is unpacked in this process."""
    seen: list[int] = []
    instances = packing.instances

    def spy(kinds: Any, states: Any) -> list[Any]:
        seen.append(len(states))
        return instances(kinds, states)

    monkeypatch.setattr(packing, "instances", spy)
    return seen


@pytest.mark.parametrize("kind", ["plain", "named", "own"])
@pytest.mark.parametrize("filtered", [False, True])
def test_values_are_the_same_whether_sealed_or_not(
    kind: str, filtered: bool, unsealed: list[int]
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
        del unsealed[:]
        assert pool.process_many(events) == expected
    if kind == "plain":
        # but for the events of frames with few of them
        assert (sum(unsealed) > 500) == filtered


def test_an_event_that_dies_in_a_worker_is_unpacked_to_be_named() -> None:
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


def test_sealed_events_of_a_batch_go_on_as_they_came_beside_others() -> None:
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
    assert numbers(unseal(halves.data)) == list(range(16))
    # also where they look the same
    twice = packed(sealed_events(16), sealed_events(16))
    assert numbers(unseal(twice.data)) == [*range(16), *range(16)]
    mixed = packed([Plain(30)], events[:5], [Plain(31)], [Plain(32)], events[5:])
    # neighbours that are not sealed are packed together
    assert kinds(mixed) == [bytes, pass_through.Slice, bytes, pass_through.Slice]
    assert numbers(unseal(mixed.data)) == [30, *range(5), 31, 32, *range(5, 16)]
    assert pass_through.unseal([]) == []


def _fan_out(events: Sequence[Any], *, unordered: bool) -> tuple[Scheduler, list[Effect]]:
    """A scheduler with worker 1, which has run a root that returned these; and what follows."""
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
    """Let a worker run everything; what it was sent."""
    parts: list[Part] = []
    while sends := [each for each in effects if isinstance(each, Send)]:
        effects = []
        for send in sends:
            parts += send.batch.parts
            size = send.batch.size
            effects += scheduler.step(Progress(worker, size, [0.0] * size))
    return parts


@pytest.mark.parametrize("unordered", [False, True])
def test_what_a_worker_did_not_run_goes_on_as_it_came(unordered: bool) -> None:
    scheduler, effects = _fan_out(sealed_events(200), unordered=unordered)
    assert any(isinstance(each, Send) for each in effects)
    assert scheduler.step(WorkerGone(1, None)) == []
    parts = _run_all(scheduler, 2, scheduler.step(WorkerReady(2)))
    assert all(isinstance(part.events, PassThrough) for part in parts)
    assert [number for part in parts for number in numbers(part.events)] == list(range(200))


def test_what_is_left_of_several_batches_goes_on_as_it_came() -> None:
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


def test_sealed_events_behind_others_in_a_batch_stay_sealed() -> None:
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
