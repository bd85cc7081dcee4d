"""Events whose attributes are read without a dictionary: what they are, and when they are not."""

from __future__ import annotations

import gc
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import evproc
from evproc_pool import PoolProcessor
from evproc_pool.serialization import attributes, packing, pickling

pytestmark = pytest.mark.skipif(
    sys.version_info < (3, 11), reason="every instance has a dictionary in any case"
)

COUNT = 40


class Order(evproc.Event):
    name = "order"

    def __init__(self, number: int, line: Any = None) -> None:
        self.number = number
        self.state = "new"
        self.line = {"pieces": number} if line is None else line


class Single(evproc.Event):
    name = "single"

    def __init__(self, value: Any) -> None:
        self.value = value


class Defaults(evproc.Event):
    name = "defaults"
    size = 1

    def __init__(self, size: int, **more: Any) -> None:
        self.size = size
        self.number = 5
        for each, value in more.items():
            setattr(self, each, value)


class Computed(evproc.Event):
    name = "computed"

    def __init__(self, number: int) -> None:
        self.__dict__["twice"] = 2 * number
        self.number = number

    @property
    def twice(self) -> int:
        return 0


class WithContext(evproc.Event):
    name = "with context"

    def __init__(self, number: int, ctxt: Any) -> None:
        super().__init__(ctxt)
        self.number = number


class Meta(type(evproc.Event)):  # type: ignore[misc]  # it is one
    @property
    def size(cls) -> int:
        return 5


class Sized(evproc.Event, metaclass=Meta):
    name = "sized"
    size = 1

    def __init__(self, size: int, more: int = 0) -> None:
        self.size = size
        self.more = more


class Guessing(evproc.Event):
    name = "guessing"

    def __init__(self, number: int) -> None:
        self.number = number
        self.state = "new"

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


@pytest.fixture(autouse=True)
def proven_soon(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Few events do to prove a class regular."""
    monkeypatch.setattr(attributes, "PROVEN_EVENTS", COUNT)
    yield
    gc.collect()


def proven(make: Callable[[int], Any]) -> packing.EventPacker:
    """A packer that has seen enough events of a class."""
    packer = packing.EventPacker()
    assert not names_in(packer.pack([make(number) for number in range(COUNT)]))
    return packer


def names_in(packed: packing.PackedEvents) -> tuple[str, ...]:
    """The attributes that events were packed by; none if by their dictionaries."""
    names: tuple[str, ...] = pickling.loads(packed.data)[2]
    return names


def states(events: list[Any]) -> list[list[tuple[str, Any]]]:
    """What events have, in its order."""
    return [list(vars(event).items()) for event in events]


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (Order, ("number", "state", "line")),
        (Single, ("value",)),
        (lambda number: Order(number, [[]]), ("number", "state", "line")),
        (lambda number: Defaults(number + 2), ("size", "number")),
        (lambda number: WithContext(number, [number]), ("ctxt", "number")),
        (lambda number: Sized(number + 2), ("size", "more")),
    ],
    ids=["three", "single", "containers", "class attribute", "context", "metaclass"],
)
def test_regular_events_come_as_they_were(make: Callable[[int], Any], names: Any) -> None:
    packer = proven(make)
    events = [make(number) for number in range(COUNT)]
    packed = packer.pack(events)
    assert names_in(packed) == names
    there = packing.unpack(packed)
    assert {type(each) for each in there} == {type(events[0])}
    assert states(there) == states(events)


def test_no_dictionary_is_made() -> None:
    packer = proven(Order)
    events = [Order(number) for number in range(COUNT)]
    names_in(packer.pack(events))
    assert not any(isinstance(each, dict) for each in gc.get_referents(events[1])[:2])


def test_what_two_events_share_they_share_there() -> None:
    packer = proven(Order)
    shared: list[int] = []
    packed = packer.pack([Order(number, shared) for number in range(COUNT)])
    assert names_in(packed)
    there = packing.unpack(packed)
    assert there[0].line is there[-1].line


def test_a_class_is_not_regular_before_it_was_seen_to_be() -> None:
    packer = packing.EventPacker()
    for _ in range(2):
        assert not names_in(packer.pack([Order(number) for number in range(COUNT // 2)]))
    assert names_in(packer.pack([Order(number) for number in range(COUNT // 2)]))


def added(ev: Any) -> Any:
    ev.more = 1
    return ev


def lost(ev: Any) -> Any:
    del ev.state
    return ev


def swapped(ev: Any) -> Any:
    del ev.state
    ev.more = 1
    return ev


def looked_at(ev: Any) -> Any:
    vars(ev)
    return ev


def touched(ev: Any) -> Any:
    ev.proc.tests.value = 1
    return ev


@pytest.mark.parametrize("change", [added, lost, swapped, looked_at, touched])
@pytest.mark.parametrize("place", [0, 7, COUNT - 1])
def test_an_event_that_is_not_like_the_others(change: Callable[[Any], Any], place: int) -> None:
    packer = proven(Order)
    events = [Order(number) for number in range(COUNT)]
    change(events[place])
    there = packing.unpack(packer.pack(events))
    assert [[each[0] for each in state] for state in states(there)] == [
        [each[0] for each in state] for state in states(events)
    ]
    assert [each.number for each in there] == list(range(COUNT))


def test_more_in_one_event_does_not_make_up_for_less_in_another() -> None:
    packer = proven(Order)
    events = [Order(number) for number in range(COUNT)]
    lost(events[3])
    added(events[4])
    assert not names_in(packed := packer.pack(events))
    assert states(packing.unpack(packed)) == states(events)


@pytest.mark.parametrize("place", [3, 4])
@pytest.mark.parametrize("attribute", ["line", "extra"])
def test_an_event_that_holds_its_class_does_not_hide_another(place: int, attribute: str) -> None:
    """Its class is what the end of an event is known by, among what events refer to."""
    packer = proven(Order)
    events = [Order(number) for number in range(COUNT)]
    looked_at(events[4])  # refers to two things only: its dictionary and its class
    added(events[5])
    setattr(events[5], attribute, Order)
    setattr(events[place], attribute, Order)
    assert not names_in(packed := packer.pack(events))
    assert states(packing.unpack(packed)) == states(events)


@pytest.mark.parametrize("kind", [dict, OrderedDict])
def test_a_single_dictionary_is_not_taken_for_the_instance_s(kind: Any) -> None:
    packer = proven(Single)
    events = [Single(number) for number in range(COUNT)]
    events[5].__dict__ = kind(value=1, more=2)
    assert states(packing.unpack(packer.pack(events))) == states(events)
    for event in events[:3]:
        event.value = kind(other=1)
    assert states(packing.unpack(packer.pack(events))) == states(events)


def test_what_may_be_the_class_s_attribute_is_left_to_the_dictionaries() -> None:
    packer = proven(lambda number: Defaults(number + 2))
    events = [Defaults(number + 2) for number in range(COUNT)]
    del events[3].size
    added(events[3])
    packed = packer.pack(events)
    assert not names_in(packed)
    assert states(packing.unpack(packed)) == states(events)
    assert "size" not in vars(packing.unpack(packed)[3])
    # for this once
    assert names_in(packer.pack([Defaults(number + 2) for number in range(COUNT)]))


def test_a_metaclass_s_attribute_is_not_taken_for_the_class_s() -> None:
    packer = proven(lambda number: Sized(number + 2))
    events = [Sized(number + 2) for number in range(COUNT)]
    del events[3].size
    added(events[3])
    events[3].other = 1  # type: ignore[attr-defined]
    del events[3].more
    assert states(packing.unpack(packer.pack(events))) == states(events)


def test_events_of_a_class_that_are_never_alike_are_not_looked_at_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    packer = proven(lambda number: WithContext(number, number))
    looked: list[type] = []
    original = attributes.can_read

    def can_read(kind: type, names: tuple[str, ...]) -> bool:
        looked.append(kind)
        return original(kind, names)

    monkeypatch.setattr(attributes, "can_read", can_read)
    for _ in range(30):
        assert not names_in(packer.pack([WithContext(number, None) for number in range(COUNT)]))
    assert 2 < len(looked) < 20


def test_a_class_that_is_patched_is_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    packer = proven(Order)
    monkeypatch.setattr(Order, "state", property(lambda self: "computed"), raising=False)
    events = []
    for number in range(COUNT):
        ev = Order.__new__(Order)
        ev.__dict__.update(number=number, state="its own", line=[])
        events.append(ev)
    assert [vars(each)["state"] for each in packing.unpack(packer.pack(events))] == [
        "its own"
    ] * COUNT


@pytest.mark.parametrize("make", [Computed, Guessing], ids=["property", "__getattr__"])
def test_attributes_that_a_class_computes_are_left_to_the_dictionaries(
    make: Callable[[int], Any],
) -> None:
    packer = proven(make)
    events = [make(number) for number in range(COUNT)]
    packed = packer.pack(events)
    assert not names_in(packed)
    assert states(packing.unpack(packed)) == states(events)


def test_a_class_that_varies_the_order_is_never_regular() -> None:
    def make(number: int) -> Any:
        ev = added(Single(number))
        if number % 2:
            del ev.value
            ev.value = number
        return ev

    packer = packing.EventPacker()
    for _ in range(4):
        events = [make(number) for number in range(COUNT)]
        packed = packer.pack(events)
        assert not names_in(packed)
        assert states(packing.unpack(packed)) == states(events)


@pytest.mark.parametrize("place", [0, COUNT // 2, COUNT - 1])
def test_another_order_is_noticed_where_it_is_looked_at_and_for_good(place: int) -> None:
    packer = proven(Order)
    for _ in range(2):
        events = [Order(number) for number in range(COUNT)]
        state = events[place].state
        del events[place].state
        events[place].state = state
        packed = packer.pack(events)
        assert not names_in(packed)
        assert states(packing.unpack(packed)) == states(events)
        place = 1  # now anywhere


def test_what_cannot_be_packed_by_attributes_is_not_tried_again() -> None:
    packer = proven(Order)
    lock = threading.Lock()
    with pytest.raises(TypeError, match="pickle"):
        packer.pack([Order(number, lock) for number in range(COUNT)])
    assert not names_in(packer.pack([Order(number) for number in range(COUNT)]))


def work(proc: evproc.Processor, ev: Order) -> None:
    ev.line["pieces"] += 1
    raise evproc.StopProcessing(list(vars(ev).items()))


def test_they_are_the_same_in_workers() -> None:
    with PoolProcessor(2) as pool:
        pool.register(work)
        values = pool.process_many([Order(number) for number in range(50 * COUNT)])
    assert values == [
        [("number", number), ("state", "new"), ("line", {"pieces": number + 1})]
        for number in range(50 * COUNT)
    ]
