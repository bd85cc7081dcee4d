"""How objects are pickled, and what the error says if that fails."""

from __future__ import annotations

import pickle
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from evproc_pool import SerializationError
from evproc_pool.serialization import basics, diagnosis, pickling
from tests.support import actions
from tests.support.actions import Do


def test_plain_values_are_pickled_plainly() -> None:
    value = {"key": [1, 2.5, None, Do("stop", "x")]}
    assert pickling.dumps(Do) == pickle.dumps(Do, basics.PROTOCOL)
    assert repr(pickling.loads(pickling.dumps(value))) == repr(value)


def test_objects_that_pickle_refuses_go_by_value() -> None:
    offset = 3
    assert pickling.loads(pickling.dumps(lambda number: number + offset))(4) == 7
    assert str(pickling.loads(pickling.dumps(actions.local_error("text")))) == "text"


def test_objects_of_main_go_by_value(monkeypatch: pytest.MonkeyPatch) -> None:
    main = sys.modules["__main__"]
    cls = type("InMain", (), {"__module__": "__main__", "number": 5})
    monkeypatch.setattr(main, "InMain", cls, raising=False)
    assert pickle.loads(pickle.dumps(cls)) is cls  # plain pickle would take the reference
    data = pickling.dumps(cls())
    monkeypatch.delattr(main, "InMain")
    assert pickling.loads(data).number == 5


def test_a_text_that_mentions_main_stays_a_text() -> None:
    assert pickling.loads(pickling.dumps("__main__")) == "__main__"


def test_a_failure_of_both_pickles_is_raised() -> None:
    with pytest.raises(Exception, match="lock"):
        pickling.dumps([threading.Lock()])


# --- what cannot be pickled ---


def _with(value: object) -> Do:
    ev = Do("nothing")
    ev.args = (value,)
    return ev


class _Slotted:
    __slots__ = ("lock",)

    def __init__(self) -> None:
        self.lock = threading.Lock()


@pytest.mark.parametrize(
    ("make", "path", "kind"),
    [
        (threading.Lock, "", "lock"),
        (lambda: [1, threading.Lock()], "[1]", "lock"),
        (lambda: {"a": 1, "b": threading.Lock()}, "['b']", "lock"),
        (lambda: _with(threading.Lock()), ".args[0]", "lock"),
        (lambda: _with({"deep": [0, (threading.Lock(),)]}), ".args[0]['deep'][1][0]", "lock"),
        (lambda: [(x for x in "ab")], "[0]", "generator"),
        (lambda: [_Slotted()], "[0]", "_Slotted"),
        (lambda: actions.HasALock("text"), ".lock", "lock"),
    ],
)
def test_the_path_to_what_cannot_be_pickled_is_named(
    make: Callable[[], object], path: str, kind: str
) -> None:
    value = make()
    cause = TypeError("cause")
    error = diagnosis.cannot_pickle("the value", value, cause)
    assert isinstance(error, SerializationError)
    assert error.__cause__ is cause
    where = f" at {path} ({kind})" if path else f" ({kind})"
    assert str(error).startswith(f"the value cannot be pickled{where}: TypeError: cause; ")


def test_the_path_leads_into_namespaces() -> None:
    ev = Do("nothing")
    ev.proc.mine.lock = threading.Lock()
    assert "._proc.mine.lock (lock)" in str(
        diagnosis.cannot_pickle("event", ev, TypeError("cause"))
    )


def test_the_search_ends_for_a_value_that_contains_itself() -> None:
    value: list[Any] = [threading.Lock()]
    value.insert(0, value)
    assert "[0]" in str(diagnosis.cannot_pickle("value", value, TypeError("cause")))


@pytest.mark.parametrize("name", ["bad repr key", "bad attributes", "bad text", "lock"])
def test_the_explanation_never_fails(name: str) -> None:
    value = [0, actions.UNPICKLABLE[name]()]
    error = diagnosis.cannot_pickle("value", value, TypeError("cause"))
    assert str(error).startswith("value cannot be pickled at [1]")


def test_the_error_does_not_need_the_text_of_its_cause() -> None:
    error = diagnosis.cannot_pickle("value", threading.Lock(), actions.BadText())
    assert "BadText" in str(error)


def test_making_the_error_of_a_failed_rebuild_never_fails() -> None:
    error = diagnosis.cannot_rebuild("value", actions.BadText())
    assert isinstance(error, SerializationError)
    assert "BadText" in str(error)
    assert "KeyError: 'x'" in str(diagnosis.cannot_rebuild("value", KeyError("x")))


_LARGE = pickling.OUT_OF_BAND_BYTES


class Holds:
    """Gives its buffer to pickle as NumPy's arrays do."""

    def __init__(self, data: Any, more: object = None) -> None:
        self.data = data
        self.more = more

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Holds, (pickle.PickleBuffer(self.data), self.more)


def test_large_buffers_go_beside_the_pickle_and_are_not_copied() -> None:
    buffers: list[memoryview] = []
    value = [Holds(bytearray(_LARGE)), Holds(bytearray(_LARGE - 1)), Holds(bytes(2 * _LARGE))]
    data = pickling.dumps(value, buffers=buffers)
    assert [each.nbytes for each in buffers] == [_LARGE, 2 * _LARGE]
    assert len(data) < 2 * _LARGE
    arrived = [memoryview(bytearray(each)) for each in buffers]
    there = pickling.loads(data, arrived)
    there[0].data[0] = 1
    assert arrived[0][0] == 1
    assert value[0].data[0] == 0
    assert bytes(there[2].data) == value[2].data
    assert memoryview(there[2].data).readonly


def test_without_a_buffer_list_large_buffers_stay_in_the_pickle() -> None:
    assert bytes(pickling.loads(pickling.dumps(Holds(bytearray(_LARGE)))).data) == bytes(_LARGE)


@pytest.mark.parametrize("more", [lambda: 1, threading.Lock()], ids=["by value", "not at all"])
def test_a_buffer_is_collected_once_even_if_pickling_starts_again(more: Any) -> None:
    buffers = [memoryview(b"from before")]
    try:
        data = pickling.dumps(Holds(bytearray(_LARGE), more), buffers=buffers)
    except TypeError:
        assert len(buffers) == 1
    else:
        assert len(buffers) == 2
        assert pickling.loads(data, buffers[1:]).more() == 1


def test_a_buffer_that_is_not_contiguous_stays_in_the_pickle() -> None:
    np = pytest.importorskip("numpy")
    buffers: list[memoryview] = []
    value = np.zeros((_LARGE, 2))[:, 0]
    assert (pickling.loads(pickling.dumps(value, buffers=buffers), buffers) == value).all()


@pytest.mark.parametrize(
    "large", [b"_main__" * _LARGE, "_main__" * _LARGE, bytearray(b"_main__" * _LARGE)]
)
def test_large_contents_are_not_searched(large: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickling, "_by_value", lambda value, keep: pytest.fail("searched"))
    assert pickling.loads(pickling.dumps(["before", large, "after"])) == ["before", large, "after"]


@pytest.mark.parametrize("before", [b"", b"x" * 100_000, "x" * 100_000])
def test_objects_of_main_are_found_behind_large_contents(
    before: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cls = type("InMain", (), {"__module__": "__main__"})
    monkeypatch.setattr(sys.modules["__main__"], "InMain", cls, raising=False)
    data = pickling.dumps([before, list(range(50_000)), cls, before])
    monkeypatch.delattr(sys.modules["__main__"], "InMain")
    assert pickling.loads(data)[2].__name__ == "InMain"


def test_pickle_itself_can_load_a_pickle_by_value() -> None:
    assert pickle.loads(pickling.dumps(lambda: 4))() == 4
    assert pickle.loads(memoryview(pickling.dumps(lambda: 4)))() == 4
    assert pickling.loads(memoryview(bytearray(pickling.dumps(lambda: 4))))() == 4
