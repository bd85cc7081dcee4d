"""How events are packed together, and what they are on the other side."""

from __future__ import annotations

import pickle
import subprocess
import sys
from typing import Any

import pytest

import evproc
from evproc_pool import packing, pickling
from tests.pool_tests.helpers import ROOT


class Plain(evproc.Event):
    name = "plain"

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class Node(evproc.Event):
    name = "node"

    def __init__(self, other: Any = None) -> None:
        super().__init__()
        self.other = other


@pytest.mark.parametrize("count", [2, 40])
def test_events_that_refer_to_each_other_stay_what_they_are(count: int) -> None:
    first = Node()
    events = [first, *(Node(first) for _ in range(count - 1))]
    there = packing.unpack(packing.EventPacker().pack(events))
    assert all(each.other is there[0] for each in there[1:])


@pytest.mark.parametrize("count", [2, 40])
def test_one_object_for_two_events_is_not_packed_together(count: int) -> None:
    event = Plain(1)
    with pytest.raises(Exception, match=r"^$"):
        packing.EventPacker().pack([event] * count)


@pytest.mark.parametrize("count", [2, 40])
def test_events_of_several_classes_come_in_order(count: int) -> None:
    events = [Plain(place) if place % 2 else Node(place) for place in range(count)]
    there = packing.unpack(packing.EventPacker().pack(events))
    assert [type(each) for each in there] == [type(each) for each in events]


def test_the_states_of_several_classes_are_pickled_in_one_go() -> None:
    """Not the instances, which takes three times as long."""
    events = [Plain(place) if place % 3 else Node(place) for place in range(60)]
    kinds, order, states = pickling.loads(packing.EventPacker().pack(events).data)
    assert kinds == [Node, Plain]
    assert len(order) == 2 * len(events)
    assert pickling.loads(states)[:3] == [vars(event) for event in events[:3]]
    there = packing.unpack(packing.EventPacker().pack(events))
    assert [(type(each), vars(each)) for each in there] == [
        (type(each), vars(each)) for each in events
    ]


class _Counted:
    """A value that says how often it was pickled."""

    pickled = 0

    def __reduce__(self) -> Any:
        type(self).pickled += 1
        return int, (1,)


def _in_main(monkeypatch: pytest.MonkeyPatch, kind: type) -> type:
    """Make a class one of the main script's."""
    kind.__module__, kind.__qualname__ = "__main__", kind.__name__
    monkeypatch.setattr(sys.modules["__main__"], kind.__name__, kind, raising=False)
    return kind


@pytest.mark.parametrize("count", [1, 40])
@pytest.mark.parametrize("is_in_main", [True, False])
def test_an_event_is_pickled_once(
    count: int, is_in_main: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Local(evproc.Event):
        name = "local"

        def __init__(self) -> None:
            super().__init__()
            self.counted = _Counted()

    monkeypatch.setattr(_Counted, "pickled", 0)
    if is_in_main:
        _in_main(monkeypatch, Local)
    packer = packing.EventPacker()
    packer.pack([Local() for _ in range(count)])
    assert _Counted.pickled == count
    assert packing.unpack(packer.pack([Local() for _ in range(count)]))[0].counted == 1


@pytest.mark.parametrize("is_in_main", [True, False])
def test_a_class_that_goes_by_value_is_pickled_once_with_a_batch_as_it_is_then(
    is_in_main: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Local(evproc.Event):
        name = "local"
        limit = 1

        def __init__(self, number: int) -> None:
            super().__init__()
            self.number = number

    if is_in_main:
        _in_main(monkeypatch, Local)
    packer = packing.EventPacker()
    packer.pack([Local(number) for number in range(20)])
    dumped: list[object] = []
    by_value = pickling._by_value

    def spy(value: object) -> bytes:
        dumped.append(value)
        return by_value(value)

    monkeypatch.setattr(pickling, "_by_value", spy)
    first = packer.pack([Local(number) for number in range(20)])
    assert dumped == [Local]
    Local.limit = 2
    second = packer.pack([Local(number) for number in range(20)])
    assert [type(each) for each in packing.unpack(first)] == [Local] * 20
    monkeypatch.setattr(pickling._Process, "is_worker", True)
    assert {each.limit for each in packing.unpack(first)} == {1}
    there = packing.unpack(second)
    assert {(type(each), each.limit) for each in there} == {(Local, 2)}
    assert [each.number for each in there] == list(range(20))


def test_a_class_of_this_process_stays_as_it_is_when_a_copy_comes_back() -> None:
    class Local:
        hits = 1

        def method(self) -> None:
            pass

    method = Local.method
    pickled = pickling.dumps(Local())
    Local.hits = 2
    assert type(pickling.loads(pickled)) is Local
    assert (Local.hits, Local.method) == (2, method)


def test_a_class_that_was_made_elsewhere_is_what_it_was_last() -> None:
    made = subprocess.run(
        [sys.executable, "-c", _MAKES_A_CLASS],
        check=True,
        capture_output=True,
        cwd=ROOT,
    ).stdout
    first, second = pickle.loads(made)
    assert [pickling.loads(first).hits, pickling.loads(second).hits] == [1, 2]
    assert type(pickling.loads(first)) is type(pickling.loads(second))


_MAKES_A_CLASS = """
import pickle, sys
from evproc_pool import pickling
class Made:
    hits = 1
first = pickling.dumps(Made())
Made.hits = 2
sys.stdout.buffer.write(pickle.dumps([first, pickling.dumps(Made())]))
"""


def test_what_a_state_holds_of_main_goes_by_value(monkeypatch: pytest.MonkeyPatch) -> None:
    class Value:
        pass

    _in_main(monkeypatch, Value)
    packer = packing.EventPacker()
    kinds, _, _ = pickling.loads(packer.pack([Plain(number) for number in range(20)]).data)
    assert kinds == [Plain]
    packed = packer.pack([Plain(Value()) for _ in range(20)])  # type: ignore[arg-type]
    assert pickling.loads(packed.data)[0] is None
    assert all(type(each.number) is Value for each in packing.unpack(packed))
