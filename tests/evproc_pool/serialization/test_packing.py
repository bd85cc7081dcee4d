"""How events are packed together, and what they are after unpacking."""

from __future__ import annotations

import enum
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any
from weakref import WeakSet

import pytest

import evproc
from evproc_pool.serialization import basics, by_value, class_cache, packing, pickling
from tests.support.helpers import ROOT


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
def test_events_that_refer_to_each_other_still_do_after_unpacking(count: int) -> None:
    first = Node()
    events = [first, *(Node(first) for _ in range(count - 1))]
    there = packing.unpack(packing.EventPacker().pack(events))
    assert all(each.other is there[0] for each in there[1:])


@pytest.mark.parametrize("count", [2, 40])
def test_an_object_that_stands_for_two_events_is_not_packed_together(count: int) -> None:
    event = Plain(1)
    with pytest.raises(pickle.PicklingError, match="two events"):
        packing.EventPacker().pack([event] * count)


class Equal(Plain):
    """Equals every other instance."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Equal)

    def __hash__(self) -> int:
        return 1


@pytest.mark.parametrize("count", [2, 40])
def test_events_that_are_equal_are_packed_together(count: int) -> None:
    events = [Equal(place) for place in range(count)]
    there = packing.unpack(packing.EventPacker().pack(events))
    assert [each.number for each in there] == list(range(count))


class Unhashable(Plain):
    """Cannot be an item of a set."""

    __hash__ = None  # type: ignore[assignment]


def test_an_unhashable_object_that_stands_for_two_events_is_detected() -> None:
    event = Unhashable(1)
    with pytest.raises(pickle.PicklingError, match="two events"):
        packing.EventPacker().pack([event, Plain(2), event])


@pytest.mark.parametrize("count", [2, 40])
def test_events_of_several_classes_keep_their_order(count: int) -> None:
    events = [Plain(place) if place % 2 else Node(place) for place in range(count)]
    there = packing.unpack(packing.EventPacker().pack(events))
    assert [type(each) for each in there] == [type(each) for each in events]


def test_the_states_of_several_classes_are_pickled_in_one_pass() -> None:
    """Not the instances, which would take three times as long."""
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
    """Counts how often it was pickled."""

    pickled = 0

    def __reduce__(self) -> Any:
        type(self).pickled += 1
        return int, (1,)


def _in_main(monkeypatch: pytest.MonkeyPatch, kind: type) -> type:
    """Make a class one of the main script."""
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
def test_a_batch_pickles_a_by_value_class_once_in_its_current_state(
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
    dumps_by_value = pickling._by_value

    def spy(value: object, keep: Any) -> bytes:
        dumped.append(value)
        return dumps_by_value(value, keep)

    monkeypatch.setattr(pickling, "_by_value", spy)
    first = packer.pack([Local(number) for number in range(20)])
    assert dumped == [Local]
    Local.limit = 2
    second = packer.pack([Local(number) for number in range(20)])
    assert [type(each) for each in packing.unpack(first)] == [Local] * 20
    monkeypatch.setattr(basics.ThisProcess, "is_worker", True)
    monkeypatch.setattr(class_cache, "_loaded", class_cache._Loaded())  # as in another process
    assert {each.limit for each in packing.unpack(first)} == {1}
    there = packing.unpack(second)
    assert {(type(each), each.limit) for each in there} == {(Local, 2)}
    assert [each.number for each in there] == list(range(20))


@pytest.mark.parametrize("count", [1, 40])
def test_the_bytes_of_a_class_are_counted_apart_from_its_events(count: int) -> None:
    table = bytes(10_000)

    class Local(evproc.Event):
        name = "local"

        def look(self) -> bytes:
            return table

    packed = packing.EventPacker().pack([Local() for _ in range(count)])
    assert packed.class_bytes > 10_000
    assert len(packed.data) - packed.class_bytes < 200 + 20 * count
    assert packing.EventPacker().pack([Plain(1)] * 1).class_bytes == 0


@pytest.mark.parametrize("changes_in_place", [True, False])
def test_the_bytes_of_several_classes_are_counted_apart(changes_in_place: bool) -> None:
    table = bytes(10_000)

    class Base(evproc.Event):
        name = "base"
        seen: Any = [] if changes_in_place else ()

        def look(self) -> bytes:
            return table

    class First(Base):
        pass

    class Second(Base):
        pass

    packed = packing.EventPacker().pack([First(), Second()])
    # all together, with what they have in common once, or each for itself
    total = 15_000 if changes_in_place else 25_000
    assert 10_000 < packed.class_bytes < len(packed.data) < total


def test_a_class_that_has_shrunk_is_measured_again() -> None:
    class Local(evproc.Event):
        name = "local"
        table = bytes(10_000)

    packer = packing.EventPacker()
    assert packer.pack([Local()]).class_bytes > 10_000
    del Local.table
    assert packer.pack([Local()]).class_bytes == 0
    packed = packer.pack([Local()])
    assert 0 < packed.class_bytes < len(packed.data) < 5_000


def test_an_event_may_pickle_without_its_class() -> None:
    class Local(evproc.Event):
        name = "local"
        lock = threading.Lock()

        def __reduce__(self) -> Any:
            return Plain, (1,)

    (event,) = packing.unpack(packing.EventPacker().pack([Local()]))
    assert type(event) is Plain


def test_a_copy_that_comes_back_does_not_change_this_processs_own_class() -> None:
    class Local:
        hits = 1

        def method(self) -> None:
            pass

    method = Local.method
    pickled = pickling.dumps(Local())
    Local.hits = 2
    assert type(pickling.loads(pickled)) is Local
    assert (Local.hits, Local.method) == (2, method)


@pytest.mark.parametrize("is_worker", [False, True])
def test_a_known_class_is_not_made_again(is_worker: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[type] = []

    class Base:
        def __init_subclass__(cls) -> None:
            made.append(cls)

    class Local(Base):
        pass

    class Colour(enum.Enum):
        RED = 1

    pickled = pickling.dumps([Local(), Colour.RED])
    monkeypatch.setattr(basics.ThisProcess, "is_worker", is_worker)
    local, red = pickling.loads(memoryview(pickled))
    assert (type(local), red) == (Local, Colour.RED)
    assert made == [Local]


def test_a_class_that_failed_to_fill_is_filled_the_next_time(tmp_path: Path) -> None:
    file = tmp_path / "file"
    pickled = _printed_by(_MAKES_A_CLASS_THAT_NEEDS_A_FILE, str(file))
    with pytest.raises(FileNotFoundError) as caught:
        pickling.loads(pickled)
    file.touch()
    assert pickling.loads(pickled).hits == 1
    assert caught.traceback  # which keeps what was made by then


_MAKES_A_CLASS_THAT_NEEDS_A_FILE = """
import pathlib, sys
from evproc_pool.serialization import pickling
class Needs:
    def __reduce__(self):
        return pathlib.Path.read_text, (pathlib.Path(sys.argv[1]),)
class Made:
    needs = Needs()
    hits = 1
sys.stdout.buffer.write(pickling.dumps(Made()))
"""


def _printed_by(code: str, *arguments: str) -> bytes:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], check=True, capture_output=True, cwd=ROOT
    ).stdout


def test_no_other_thread_finds_a_class_before_it_is_known_to_have_arrived(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found: list[bool] = []

    def look() -> None:
        found.append(by_value._one_at_a_time.acquire(blocking=False))

    class Came(WeakSet[type]):
        def add(self, item: type) -> None:
            thread = threading.Thread(target=look)
            thread.start()
            thread.join()
            super().add(item)

    monkeypatch.setattr(by_value, "_came", Came())
    first, _ = pickle.loads(_printed_by(_MAKES_A_CLASS))
    assert pickling.loads(first).hits == 1
    assert found == [False]


def test_a_class_from_another_process_has_the_state_that_was_sent_last() -> None:
    first, second = pickle.loads(_printed_by(_MAKES_A_CLASS))
    assert [pickling.loads(first).hits, pickling.loads(second).hits] == [1, 2]
    assert type(pickling.loads(first)) is type(pickling.loads(second))


_MAKES_A_CLASS = """
import pickle, sys
from evproc_pool.serialization import pickling
class Made:
    hits = 1
first = pickling.dumps(Made())
Made.hits = 2
sys.stdout.buffer.write(pickle.dumps([first, pickling.dumps(Made())]))
"""


def test_objects_of_main_in_a_state_go_by_value(monkeypatch: pytest.MonkeyPatch) -> None:
    class Value:
        pass

    _in_main(monkeypatch, Value)
    packer = packing.EventPacker()
    kinds, _, _ = pickling.loads(packer.pack([Plain(number) for number in range(20)]).data)
    assert kinds == [Plain]
    packed = packer.pack([Plain(Value()) for _ in range(20)])  # type: ignore[arg-type]
    assert pickling.loads(packed.data)[0] is None
    assert all(type(each.number) is Value for each in packing.unpack(packed))
