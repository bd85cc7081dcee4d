"""Classes of the main script: pickled once, and again when they have changed."""

from __future__ import annotations

import enum
import functools
import pickle
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

import evproc
from evproc_pool.protocol import messages
from evproc_pool.serialization import (
    basics,
    by_value,
    class_cache,
    code_snapshot,
    diagnosis,
    packing,
    pickling,
)

LIMIT = 3


def _first_arguments(monkeypatch: pytest.MonkeyPatch, name: str) -> list[Any]:
    """The first arguments of the calls of a function of `by_value`, in order."""
    seen: list[Any] = []
    function = getattr(by_value, name)

    def spy(first: Any, *args: Any) -> Any:
        seen.append(first)
        return function(first, *args)

    monkeypatch.setattr(by_value, name, spy)
    return seen


@pytest.fixture
def pickled(monkeypatch: pytest.MonkeyPatch) -> list[type]:
    """The classes that were pickled, in order."""
    return _first_arguments(monkeypatch, "dumps")


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The classes that were unpickled, in order, in a process that knows none."""
    monkeypatch.setattr(class_cache, "_loaded", class_cache._Loaded())
    return _first_arguments(monkeypatch, "loads")


def _make() -> Any:
    class Local(evproc.Event):
        name = "local"
        limit = 1

        def __init__(self, number: int, default: int = 1) -> None:
            self.number = number

        def own(self) -> int:
            return self.number * LIMIT

        @property
        def half(self) -> float:
            return self.number / 2

        @staticmethod
        def fixed() -> int:
            return 1

    return Local


def _copy(value: Any) -> Any:
    data = class_cache.dumps_apart(value)
    assert data is not None
    return pickle.loads(data)


def test_a_class_is_pickled_and_unpickled_once(pickled: list[type], loaded: list[bytes]) -> None:
    kind = _make()
    for number in range(3):
        copy = _copy(kind(number))
        assert (type(copy), copy.number) == (kind, number)
    copies = _copy([kind(1), {"a": kind(2)}, kind])
    assert copies[0].number == 1
    assert copies[1]["a"].number == 2
    assert copies[2] is kind
    assert pickled == [kind]
    assert len(loaded) == 1


def test_classes_that_are_sent_together_are_each_made_once(
    pickled: list[type], loaded: list[bytes]
) -> None:
    class Base(evproc.Event):
        name = "base"

    class Derived(Base):
        pass

    for _ in range(3):
        assert type(_copy(Derived())) is Derived
        assert type(_copy(Base())) is Base
    assert pickled == [Derived, Base]
    assert len(loaded) == 2


def _replace_method(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    kind.own = lambda self: -1


def _replace_code(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    kind.own.__code__ = (lambda self: -1).__code__


def _replace_default(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    kind.__init__.__defaults__ = (2,)


def _replace_static(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    kind.fixed.__code__ = (lambda: -1).__code__


def _replace_accessor(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    kind.half.fget.__code__ = (lambda self: -1).__code__


def _replace_attribute(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    kind.limit = 2


def _add_attribute(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    kind.another = None


def _remove_attribute(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    del kind.limit


def _replace_global(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "LIMIT", 4)


def _replace_base(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Between(evproc.Event):
        pass

    kind.__bases__ = (Between,)


CHANGES: dict[str, Callable[[Any, pytest.MonkeyPatch], None]] = {
    change.__name__.strip("_"): change
    for change in (
        _replace_method,
        _replace_code,
        _replace_default,
        _replace_static,
        _replace_accessor,
        _replace_attribute,
        _add_attribute,
        _remove_attribute,
        _replace_global,
        _replace_base,
    )
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_changed_class_is_pickled_again(
    change: Any, pickled: list[type], loaded: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = _make()
    first = _copy(kind(1))
    change(kind, monkeypatch)
    for _ in range(2):
        assert type(_copy(kind(1))) is type(first) is kind
    assert pickled == [kind] * 2


def test_a_change_arrives_with_the_next_instance_and_so_does_its_undoing(
    loaded: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(basics.ThisProcess, "is_worker", True)
    kind = _make()
    data = []
    for limit in (1, 2, 1):
        kind.limit = limit
        data.append(class_cache.dumps_apart(kind(1)) or b"")
    kind.limit = 0
    assert [pickle.loads(each).limit for each in data] == [1, 2, 1]
    assert kind.limit == 1


def test_globals_that_methods_use_are_parts_of_a_class(pickled: list[type]) -> None:
    def helper(number: int) -> int:
        return number + step

    class Used:
        factor = 1

    class Local:
        def own(self) -> int:
            return helper(1) * Used.factor

    step = 1
    for _ in range(2):
        assert _copy(Local()).own() == 2
    assert pickled == [Local]
    step = 2
    assert _copy(Local()).own() == 3
    Used.factor = 2
    assert _copy(Local()).own() == 6
    helper.__code__ = (lambda number: 5).__code__.replace(co_freevars=helper.__code__.co_freevars)
    assert _copy(Local()).own() == 10
    assert pickled == [Local] * 4


def test_an_attribute_with_the_name_of_a_global_is_no_global(
    pickled: list[type], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Local:
        def own(self) -> Any:
            return self.LIMIT  # type: ignore[attr-defined]

    _copy(Local())
    monkeypatch.setitem(globals(), "LIMIT", 4)
    _copy(Local())
    assert pickled == [Local]


@pytest.mark.parametrize(
    "part",
    [[], {}, set(), bytearray(), iter([]), object(), ([],), functools.partial(int)],
    ids=lambda part: type(part).__name__,
)
def test_a_class_that_may_change_unseen_is_not_pickled_apart(part: Any) -> None:
    kind = _make()
    kind.part = part
    assert class_cache.dumps_apart(kind(1)) is None
    if diagnosis.can_pickle(part):
        assert pickling.loads(pickling.dumps(kind(1))).number == 1


def test_a_class_whose_methods_use_such_a_part_is_not_pickled_apart() -> None:
    table: list[int] = []

    class Local:
        def own(self) -> list[int]:
            return table

    class Default:
        def own(self, seen: list[int] = table) -> list[int]:
            return seen

    for kind in (Local, Default):
        assert class_cache.dumps_apart(kind()) is None


def test_a_value_with_a_by_value_function_goes_by_value_as_a_whole() -> None:
    kind = _make()
    assert class_cache.dumps_apart((kind(1), lambda: 1)) is None
    event, function = pickling.loads(pickling.dumps((kind(1), lambda: 1)))
    assert (event.number, function()) == (1, 1)


def test_enumerations_named_tuples_and_slotted_classes_arrive_unchanged() -> None:
    class Color(enum.Enum):
        RED = 1

    class Point(NamedTuple):
        x: int

    class Slotted:
        __slots__ = ("x",)

    slotted = Slotted()
    slotted.x = 5  # type: ignore[attr-defined]
    color, point, copy = _copy((Color.RED, Point(3), slotted))
    assert color is Color.RED
    assert point == Point(3)
    assert copy.x == 5


def test_the_number_of_remembered_classes_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert class_cache._MOST_CLASSES >= 2000
    monkeypatch.setattr(class_cache, "_MOST_CLASSES", 50)
    class_cache._known.clear()
    class_cache._loaded.classes.clear()
    for _ in range(class_cache._MOST_CLASSES + 10):
        _copy(_make()(1))
    assert 0 < len(class_cache._known) <= class_cache._MOST_CLASSES
    assert 0 < len(class_cache._loaded.classes) <= class_cache._MOST_CLASSES
    class_cache._known.clear()
    class_cache._loaded.classes.clear()


def test_a_snapshot_can_be_limited_to_definitions() -> None:
    kind = _make()

    def handler(proc: Any, ev: Any) -> Any:
        return kind(LIMIT)

    class Handler:
        def __call__(self, proc: Any, ev: Any) -> Any:
            return kind(1)

        def method(self, proc: Any, ev: Any) -> Any:
            return kind(1)

    parts = (handler, functools.partial(handler), Handler(), Handler().method)
    for part in parts:
        snapshot = code_snapshot.CodeSnapshot(part, with_data=False)
        kind.limit += 1
        kind.more = 1
        assert snapshot.is_up_to_date
        kind.own = lambda self: 1
        assert not snapshot.is_up_to_date


# --- instances, the fast way ---


def _in_main(monkeypatch: pytest.MonkeyPatch, **attributes: Any) -> Any:
    """A class of the main script."""
    kind = type("InMain", (evproc.Event,), {"__module__": "__main__", "name": "e", **attributes})
    monkeypatch.setattr(sys.modules["__main__"], "InMain", kind, raising=False)
    return kind


@pytest.mark.parametrize("way", ["local", "in main"])
def test_an_instance_is_pickled_as_its_class_and_its_state(
    way: str, pickled: list[type], loaded: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = _make() if way == "local" else _in_main(monkeypatch)
    for number in range(3):
        ev = kind.__new__(kind)
        shared = [number]
        ev.number, ev.first, ev.second = number, shared, {"again": shared}
        data = class_cache.dumps_instance(ev)
        assert data is not None
        assert data == pickling.dumps(ev)
        for there in (pickle.loads(data), pickle._loads(data), pickling.loads(data)):  # type: ignore[attr-defined]
            assert type(there) is kind
            assert vars(there) == vars(ev)
            assert there.first is there.second["again"]
    empty = kind.__new__(kind)
    assert vars(pickling.loads(class_cache.dumps_instance(empty) or b"")) == {}
    assert pickled == [kind]
    assert len(loaded) == 1


def test_an_instance_of_a_changed_class_is_pickled_that_way_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(basics.ThisProcess, "is_worker", True)
    kind = _in_main(monkeypatch)
    data = []
    for limit in (1, 2, 1):
        kind.limit = limit
        data.append(class_cache.dumps_instance(kind()) or b"")
    kind.limit = 0
    assert [pickle.loads(each).limit for each in data] == [1, 2, 1]


def _itself(ev: Any) -> None:
    ev.me = [ev]


def _sibling(ev: Any) -> None:
    kind: Any = type(ev)
    ev.other = kind.__new__(kind)


def _its_class(ev: Any) -> None:
    ev.kind = type(ev)


def _function(ev: Any) -> None:
    ev.function = lambda: 1


@pytest.mark.parametrize("change", [_itself, _sibling, _its_class, _function])
@pytest.mark.parametrize("way", ["local", "in main"])
def test_an_instance_whose_state_refers_to_the_script_goes_as_a_whole(
    change: Any, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind: Any = _in_main(monkeypatch) if way == "in main" else _make()
    ev = kind.__new__(kind)
    change(ev)
    assert class_cache.dumps_instance(ev) is None
    there = pickling.loads(pickling.dumps(ev))
    assert vars(there).keys() == vars(ev).keys()
    if change is _itself:
        assert there.me == [there]


@pytest.mark.parametrize(
    "attributes",
    [
        {"__slots__": ("x",)},
        {"__getstate__": lambda self: {"number": 7}},
        {"__setstate__": lambda self, state: vars(self).update(state, number=7)},
        {"__reduce__": lambda self: (_seven, ())},
        {"__getnewargs__": lambda self: ()},
        {"limits": [1]},
    ],
    ids=lambda attributes: next(iter(attributes)),
)
def test_an_instance_with_its_own_way_of_pickling_uses_it(
    attributes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = _in_main(monkeypatch, **attributes)
    ev = kind()
    ev.number = 7
    if "__slots__" in attributes:
        ev.x = 8
    assert class_cache.dumps_instance(ev) is None
    there = pickling.loads(pickling.dumps(ev))
    assert there == 7 or there.number == 7
    assert "__slots__" not in attributes or there.x == 8


def _seven() -> int:
    return 7


def test_the_frame_of_a_batch_is_pickled_plainly_whatever_its_events_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kind = _in_main(monkeypatch)
    packed = packing.EventPacker().pack([kind(), kind()])
    assert basics.MAIN in packed.data
    frame = messages.BatchFrame([(0, (0,))], 0, 2, [], [], 1.0, packed)
    pickled = _first_arguments(monkeypatch, "dumps")
    data = messages.dump_batch(frame)
    assert pickled == []
    assert messages.BatchFrame(*pickling.loads(data)) == frame


def test_instances_of_importable_classes_are_not_pickled_as_class_and_state() -> None:
    assert class_cache.dumps_instance(3) is None
    assert class_cache.dumps_instance(_Point(1)) is None


class _Point(NamedTuple):
    x: int


def test_large_buffers_go_beside_an_instances_pickle_once(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = _in_main(monkeypatch)
    content = bytearray(pickling.OUT_OF_BAND_BYTES)
    for more in (None, lambda: 1):  # the second one makes it go as a whole
        ev = kind()
        ev.data, ev.more = pickle.PickleBuffer(content), more
        buffers: list[memoryview] = []
        data = pickling.dumps(ev, buffers=buffers)
        assert [each.nbytes for each in buffers] == [len(content)]
        assert bytes(pickling.loads(data, buffers).data) == content
