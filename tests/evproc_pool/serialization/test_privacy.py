"""Reference counts show whether somebody else refers to a part of a value."""

from __future__ import annotations

import copyreg
import datetime as dt
import decimal
import enum
import io
import sys
import types
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import pytest

from evproc.event import ProcessorData
from evproc_pool.serialization import privacy
from evproc_pool.serialization.privacy import BUILT_IN, CUSTOM, is_constant, is_private

SHARED: list[int] = []


class Pair(NamedTuple):
    left: Any
    right: Any


@dataclass
class Record:
    left: Any
    right: Any = None


@dataclass(slots=True)
class Slotted:
    left: Any
    right: Any = None


class Table(dict[str, Any]):
    """A dict with attributes."""


class Colour(enum.Enum):
    RED = 1


def of_processor(item: Any) -> ProcessorData:
    proc = ProcessorData()
    proc.one.two = item
    return proc


def looked_up(item: Any) -> Record:
    """An instance whose dictionary somebody has requested."""
    record = Record(item)
    vars(record)["more"] = [item]
    return record


MAKERS: dict[str, Callable[[Any], Any]] = {
    "list": lambda item: [1, item],
    "dict": lambda item: {"a": 1, 2: (b"", "c"), "d": [{"e": item}], "f": {1.5}},
    "tuple": lambda item: (1, (2, item)),
    "many": lambda item: [*range(20), item],
    "named tuple": lambda item: Pair(1, item),
    "dataclass": lambda item: Record(1, item),
    "dataclass with slots": lambda item: Slotted(1, item),
    "dict with attributes": lambda item: Table(a=item),
    "instance dictionary": looked_up,
    "namespaces": of_processor,
    "all of them": lambda item: Record(Slotted(Pair([Record({1: item})], None))),
}


BUILT_IN_KINDS = ("list", "dict", "tuple", "many")


@pytest.mark.parametrize("kind", MAKERS)
def test_a_value_is_private_if_nobody_else_refers_to_anything_mutable_in_it(
    kind: str,
) -> None:
    make, mine = MAKERS[kind], Record(1)
    # not in an `assert`: pytest would hold on to the parts
    private = [
        is_private(make(1)),
        is_private(make((1, "two"))),
        is_private(make([])) or (BUILT_IN if kind == "instance dictionary" else 0),
    ]
    lasting = is_private(make(Colour.RED))
    others = [
        is_private(make(SHARED)),
        is_private(make([SHARED])),
        is_private(make(Record(SHARED))),
        is_private(make(io.BytesIO())),  # nobody knows what it has
        is_private(make(mine)),
    ]
    assert (
        set(private) == {BUILT_IN} if kind in BUILT_IN_KINDS else set(private) <= {BUILT_IN, CUSTOM}
    )
    assert lasting == CUSTOM
    assert others == [0] * len(others)


def test_a_shared_attribute_is_detected_even_if_the_instance_dictionary_was_requested() -> None:
    mine: list[int] = []
    record = Record(mine)
    before = is_private(record)
    del mine
    alone = is_private(record)
    vars(record)["more"] = 1
    assert [before, alone, is_private(record)] == [0, CUSTOM, CUSTOM]
    names = vars(record)
    with_names = is_private(record)
    del names
    assert [with_names, is_private(record)] == [0, CUSTOM]


def test_others_may_refer_to_immutable_values() -> None:
    day = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    lasting = [day, day.date(), decimal.Decimal(1), PurePosixPath("a"), Colour.RED, int, Record]
    for value in lasting:
        in_list = is_private([value, value])
        assert [is_constant(value), is_private(value), in_list] == [CUSTOM] * 3
    assert is_constant((1, "two")) == BUILT_IN
    others: list[object] = [[], Record(1), (1, [])]
    for other in others:
        assert not is_constant(other)


class Reduced(Record):
    def __reduce__(self) -> tuple[Any, ...]:
        return Reduced, (self.left,)


class Stated(Record):
    def __getstate__(self) -> object:
        return {"left": len(SHARED)}


class Registered(Record):
    """Has a reducer in `copyreg`."""


class ReducedColour(enum.Enum):
    RED = 1

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return ReducedColour, (1,)


class ReducedPath(PurePosixPath):
    def __reduce__(self) -> tuple[Any, ...]:
        return ReducedPath, ("a",)


#: Can be changed.
Zone: Any = type("Zone", (dt.tzinfo,), {})


def test_values_whose_pickling_runs_user_code_do_not_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(copyreg.dispatch_table, Registered, lambda _: "Registered")
    values: list[Any] = [Reduced(1), Stated(1), Registered(1), ReducedColour.RED, ReducedPath("a")]
    values += [dt.datetime(2020, 1, 1, tzinfo=Zone()), dt.time(1, tzinfo=Zone())]
    assert [is_private(value) for value in values] == [0] * len(values)
    assert [is_private([value]) for value in values] == [0] * len(values)
    assert is_private([dt.datetime(2020, 1, 1), dt.time(1, tzinfo=dt.UTC)])


def test_values_with_weak_references_do_not_wait() -> None:
    record, numbers = Record([]), {1}
    before = [is_private(record), is_private(numbers)]
    references = [weakref.ref(record), weakref.ref(numbers)]
    assert before == [CUSTOM, BUILT_IN]
    assert [is_private(record), is_private(numbers)] == [0, 0]
    assert len(references) == 2


def test_mutable_keys_are_detected() -> None:
    assert is_private({1: 2, "a": None}) == BUILT_IN
    assert is_private({(1, 2): 2}) == BUILT_IN
    assert is_private({Colour.RED: 2}) == CUSTOM
    assert is_private([{object(): 2}]) == 0
    assert is_private({(1, object()): 2}) == 0


def test_many_instances_do_not_wait_since_checking_them_takes_longer() -> None:
    few = is_private([Record(1), Record(2)])
    many = is_private([Record(number) for number in range(20)])
    assert [few, many] == [CUSTOM, 0]


@pytest.mark.parametrize("make", [list, tuple, lambda items: dict(enumerate(items))])
def test_many_containers_do_not_wait_for_the_same_reason(
    make: Callable[[Iterable[Any]], Any],
) -> None:
    # from generators: nobody else refers to the inner lists
    assert is_private(make([number] for number in range(6))) == BUILT_IN
    assert is_private(make([number] for number in range(7))) == 0
    assert is_private(make([number] if number == 50 else number for number in range(100)))


class Odd(type):
    def __getattribute__(cls, name: str) -> Any:
        raise RuntimeError(name)


def test_instances_of_an_opaque_class_do_not_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Stub(types.ModuleType):
        def __getattr__(self, name: str) -> Any:
            raise ImportError(name)

    with_slots: Any = type("with_slots", (), {})
    with_slots.__slots__ = 3
    assert is_private(with_slots()) == 0
    assert is_private(Odd("odd", (), {})()) == 0
    monkeypatch.setitem(sys.modules, "numpy", Stub("numpy"))
    monkeypatch.setattr(privacy, "_kinds", privacy._Kinds())
    record = is_private(Record(1))
    assert record == CUSTOM


def test_numpy_scalars_are_immutable_and_arrays_may_be_views() -> None:
    numpy = pytest.importorskip("numpy")
    for value in (numpy.float64(1), numpy.int8(1), numpy.bool_(True), numpy.datetime64("now")):
        in_record = is_private(Record([value, value]))
        assert [is_private(value), in_record] == [CUSTOM] * 2
    assert not is_private(numpy.zeros(2))
    assert not is_private(Record(numpy.zeros(2)))


def test_deeply_nested_or_cyclic_values_do_not_wait() -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    assert not is_private(value)
    circle = Record(None)
    circle.left = circle
    assert not is_private(circle)
    while value:  # or else its end takes much of the C stack
        value = value[0]


def test_few_classes_are_remembered_and_none_that_functions_make() -> None:
    class Local:
        pass

    for _ in range(privacy._MOST_KINDS + 10):
        is_private(type("Made", (), {})())
    is_private(Local())
    assert Local not in privacy._kinds
    assert len(privacy._kinds) <= privacy._MOST_KINDS
