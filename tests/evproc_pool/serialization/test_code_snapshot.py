"""Whether names and cells have the values that they had."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from evproc_pool.protocol import registry_spec
from evproc_pool.serialization import code_snapshot
from evproc_pool.serialization.code_snapshot import Missing, NameWatch, cells_that_change


class _EqualToAll:
    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0


class _CannotBeCompared:
    def __eq__(self, other: object) -> bool:
        raise ValueError

    def __hash__(self) -> int:
        return 0


def _function() -> None: ...


@pytest.mark.parametrize("before", [_function, 1, "x", [], None, _EqualToAll()])
@pytest.mark.parametrize("after", [object(), True, _EqualToAll(), _CannotBeCompared()])
def test_a_name_with_another_value_is_detected(before: Any, after: Any) -> None:
    if before is _function and isinstance(after, _EqualToAll):
        after = None  # what claims to be equal to a function passes for it
    space = {"before": 0, "name": before, "behind": 0}
    names = NameWatch()
    assert names.read(space, "name") is before
    assert names.are_unchanged
    space["before"] = 1
    assert names.are_unchanged
    space["name"] = after
    assert not names.are_unchanged
    assert names.read(space, "name") is before
    space["name"] = before
    assert names.are_unchanged


def test_added_and_deleted_names_are_detected() -> None:
    space = {"there": _function, "also": _function}
    names = NameWatch()
    for name in ("there", "also", "missing"):
        names.read(space, name)
    assert names.read(space, "missing") is Missing
    assert names.are_unchanged
    del space["there"]
    assert not names.are_unchanged
    space["there"] = _function
    assert names.are_unchanged
    space["missing"] = _function
    assert not names.are_unchanged


def test_equal_names_of_several_modules_are_distinct() -> None:
    spaces = {"name": 1}, {"name": 2}
    names = NameWatch()
    assert [names.read(space, "name") for space in spaces] == [1, 2]
    spaces[1]["name"] = 3
    assert not names.are_unchanged


def _made(number: int) -> Callable[[], int]:
    return lambda: number


def _counts() -> Callable[[], int]:
    number = 0

    def count() -> int:
        nonlocal number
        number += 1
        return number

    return count


def _while_it_runs() -> Iterator[Any]:
    number = 1
    yield lambda: number
    number = 2
    yield None


def test_only_cells_to_which_code_may_assign_are_watched() -> None:
    assert cells_that_change(_made(1)) == []  # type: ignore[arg-type]
    counts: Any = _counts()
    assert cells_that_change(counts) == [*counts.__closure__]
    running = _while_it_runs()
    inner = next(running)
    assert cells_that_change(inner) == [*inner.__closure__]
    names = NameWatch()
    names.watch(cells_that_change(inner))
    assert names.are_unchanged
    next(running)
    assert not names.are_unchanged


def _defined(code: str, space: dict[str, Any]) -> types.FunctionType:
    """The function `h` that some code of a main script defines."""
    space["__name__"] = "__main__"
    exec(code, space)
    function: types.FunctionType = space["h"]
    return function


def test_each_name_is_watched_once_however_many_functions_use_it() -> None:
    space: dict[str, Any] = {}
    code = "def h(proc, ev): return helper(ev, LIMIT)"
    functions = [_defined(code, space) for _ in range(100)]
    space.update(helper=_function, LIMIT=1)
    names = code_snapshot.CodeSnapshot(*functions, with_data=False)._names
    ((found, values),) = names._spaces.values()
    assert found is space
    assert values == {"helper": _function, "LIMIT": 1}
    assert not names._cells


def test_the_class_of_a_container_belongs_to_the_snapshot() -> None:
    space: dict[str, Any] = {}
    code = "class Found(list): pass\nfound = Found()\ndef h(proc, ev): return found"
    snapshot = code_snapshot.CodeSnapshot(_defined(code, space), with_data=False)
    assert snapshot.is_up_to_date
    space["Found"].method = lambda self: 1
    assert not snapshot.is_up_to_date


class _Shell:
    execution_count = 1


def test_in_ipython_the_next_cell_finds_changes_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    shell = _Shell()
    space: dict[str, Any] = {}
    function = _defined("class Used: pass\ndef h(proc, ev): return Used()", space)
    for is_in_ipython in (True, False):
        with monkeypatch.context() as patch:
            patch.setattr(registry_spec, "_shell", lambda: shell if is_in_ipython else None)  # noqa: B023
            code = registry_spec.main_script_code([function])
        assert code is not None
        space["Used"].method = lambda self: is_in_ipython  # noqa: B023
        assert code.is_up_to_date
        shell.execution_count += 1
        for _ in range(2):  # as long as the workers cannot be replaced
            assert code.is_up_to_date != is_in_ipython
