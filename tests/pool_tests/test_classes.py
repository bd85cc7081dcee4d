"""Classes of the main script: pickled once, and anew when they have changed."""

from __future__ import annotations

import enum
import functools
import pickle
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

import evproc
from evproc_pool import by_value, classes, pickling

LIMIT = 3


def _first_arguments(monkeypatch: pytest.MonkeyPatch, name: str) -> list[Any]:
    """What a function of `by_value` is called with, in order."""
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
    monkeypatch.setattr(classes, "_loaded", classes._Loaded())
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
    data = classes.dumps_apart(value, pickling.PROTOCOL)
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


def test_classes_that_go_with_each_other_are_each_made_once(
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
def test_a_class_that_has_changed_is_pickled_anew(
    change: Any, pickled: list[type], loaded: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = _make()
    first = _copy(kind(1))
    change(kind, monkeypatch)
    for _ in range(2):
        assert type(_copy(kind(1))) is type(first) is kind
    assert pickled == [kind] * 2


def test_a_change_comes_with_the_next_instance_and_so_does_the_way_back(
    loaded: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pickling.ThisProcess, "is_worker", True)
    kind = _make()
    data = []
    for limit in (1, 2, 1):
        kind.limit = limit
        data.append(classes.dumps_apart(kind(1), pickling.PROTOCOL) or b"")
    kind.limit = 0
    assert [pickle.loads(each).limit for each in data] == [1, 2, 1]
    assert kind.limit == 1


def test_what_methods_use_is_part_of_a_class(pickled: list[type]) -> None:
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


def test_an_attribute_of_the_same_name_as_a_global_is_no_global(
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
    assert classes.dumps_apart(kind(1), pickling.PROTOCOL) is None
    if pickling.can_pickle(part):
        assert pickling.loads(pickling.dumps(kind(1))).number == 1


def test_neither_is_one_whose_methods_use_such_a_thing() -> None:
    table: list[int] = []

    class Local:
        def own(self) -> list[int]:
            return table

    class Default:
        def own(self, seen: list[int] = table) -> list[int]:
            return seen

    for kind in (Local, Default):
        assert classes.dumps_apart(kind(), pickling.PROTOCOL) is None


def test_functions_go_by_value_with_all_the_rest() -> None:
    kind = _make()
    assert classes.dumps_apart((kind(1), lambda: 1), pickling.PROTOCOL) is None
    event, function = pickling.loads(pickling.dumps((kind(1), lambda: 1)))
    assert (event.number, function()) == (1, 1)


def test_enumerations_named_tuples_and_classes_with_slots() -> None:
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


def test_no_more_classes_are_remembered_than_a_program_has() -> None:
    for _ in range(classes._MOST_CLASSES + 10):
        _copy(_make()(1))
    assert 0 < len(classes._pickled._known) <= classes._MOST_CLASSES
    assert 0 < len(classes._loaded.classes) <= classes._MOST_CLASSES
    classes._pickled._known.clear()
    classes._loaded.classes.clear()


def test_definitions_alone_can_be_looked_at() -> None:
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
        anatomy = classes.Anatomy(part, with_data=False)
        kind.limit += 1
        kind.more = 1
        assert anatomy.is_up_to_date
        kind.own = lambda self: 1
        assert not anatomy.is_up_to_date
