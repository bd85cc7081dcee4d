"""Every side is given the same work, and it is the work that its label says."""

import time
from collections import Counter

import pytest

from benchmarks.pool import handlers, loads
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
    keys = {handlers.key_of(ev) for ev in loads.make_orders(100)}
    assert len(keys) == handlers.KEYS
