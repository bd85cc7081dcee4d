"""Redefined handlers of the main script."""

from __future__ import annotations

import functools
import logging
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from evproc import Event, StopProcessing, requires, want
from evproc_pool import PoolProcessor
from tests.evproc_pool.test_notebook import run_cells
from tests.support.helpers import run_script


class Ask(Event):
    name = "ask"


class Tell(Event):
    name = "tell"


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch) -> Any:
    """An empty main module."""
    module = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", module)
    return module


@pytest.fixture
def pool() -> Iterator[PoolProcessor]:
    with PoolProcessor(workers=0) as pool:
        yield pool


def _handler(value: object, name: str = "h", *decorators: Callable[[Any], Any]) -> Any:
    """A handler that returns a value, as if the main script had defined it."""

    def handler(proc: Any, ev: Event) -> None:
        raise StopProcessing(value)

    handler.__module__, handler.__name__, handler.__qualname__ = "__main__", name, name
    for decorate in decorators:
        handler = decorate(handler)
    return handler


def _define(main: Any, value: object, *decorators: Callable[[Any], Any]) -> Any:
    main.h = _handler(value, "h", *decorators)
    return main.h


_WAYS: dict[str, Callable[[PoolProcessor, Event], Any]] = {
    "process": lambda pool, ev: pool.process(ev),
    "process_many": lambda pool, ev: pool.process_many([ev])[0],
    "stream": lambda pool, ev: next(iter(pool.stream([ev]))).value,
    "submit": lambda pool, ev: pool.submit(ev).result(),
}


@pytest.mark.parametrize("way", _WAYS.values(), ids=_WAYS)
@pytest.mark.parametrize("name", [None, "other"])
def test_the_next_call_uses_a_redefined_handler(
    main: Any,
    pool: PoolProcessor,
    way: Any,
    name: str | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    pool.register(_define(main, 1), name)
    assert way(pool, Ask()) == 1
    for value in (2, 3):
        caplog.clear()
        _define(main, value)
        with caplog.at_level(logging.INFO, logger="evproc_pool"):
            assert [way(pool, Ask()) for _ in range(2)] == [value] * 2
        (record,) = caplog.records
        assert (record.levelno, record.name) == (logging.INFO, "evproc_pool")
        assert repr(name or "h")[1:-1] in record.getMessage()
    assert [*pool.nodes] == [name or "h"]


def test_a_redefined_handler_keeps_the_position_but_has_its_own_declarations(
    main: Any, pool: PoolProcessor
) -> None:
    pool.register(_define(main, "first", want("ask")))
    pool.register(_handler("second", "g"))
    assert [pool.process(Ask()), pool.process(Tell())] == ["first", "second"]
    _define(main, "anew", want("tell"))
    assert [pool.process(Ask()), pool.process(Tell())] == ["second", "anew"]
    _define(main, "last", requires("g"))
    assert [pool.process(Ask()), pool.nodes["h"].index] == ["second", 0]
    assert pool.explain(Ask()).handlers[-1].name == "h"


def test_a_handler_redefined_before_the_first_call_is_used(main: Any, pool: PoolProcessor) -> None:
    pool.register(_define(main, 1))
    _define(main, 2)
    assert pool.process(Ask()) == 2


def test_a_handler_that_a_decorator_registers_before_it_has_its_name_is_followed(
    main: Any, pool: PoolProcessor
) -> None:
    handler = _handler(1)
    pool.register(handler)
    main.h = handler
    assert pool.process(Ask()) == 1
    _define(main, 2)
    assert pool.process(Ask()) == 2


def test_a_new_definition_may_be_decorated_or_an_object(main: Any, pool: PoolProcessor) -> None:
    pool.register(_define(main, 1))
    _define(main, 2, _decorated)
    assert pool.process(Ask()) == 2
    _define(main, 3, functools.partial)
    assert pool.process(Ask()) == 3
    _define(main, 4)
    assert pool.process(Ask()) == 4


def _decorated(handler: Any) -> Any:
    def inner(*args: Any) -> Any:
        return handler(*args)

    return inner


def _other(proc: Any, ev: Event) -> None: ...


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("new", [5, None, _other])
def test_a_value_that_is_no_new_definition_changes_nothing_and_is_logged(
    main: Any, new: Any, workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    with PoolProcessor(workers) as pool, caplog.at_level("WARNING", "evproc_pool"):
        pool.register(_define(main, 1))
        assert pool.process(Ask()) == 1
        main.h = new
        for _ in range(2):
            assert pool.process(Ask()) == 1
        (record,) = caplog.records
        assert "handler 'h' stays what was registered: 'h' stands for" in record.getMessage()
        _define(main, 2)
        assert pool.process(Ask()) == 2


@pytest.mark.parametrize("workers", [0, 1])
def test_a_new_definition_that_is_no_handler_is_an_error_that_names_both(
    main: Any, workers: int
) -> None:
    async def asynchronous(proc: Any, ev: Event) -> None: ...

    asynchronous.__qualname__ = "h"
    with PoolProcessor(workers) as pool:
        pool.register(_define(main, 1))
        for value in (1, 2):
            assert pool.process(Ask()) == value
            main.h = asynchronous
            for _ in range(2):
                with pytest.raises(TypeError, match="handler 'h' was registered as __main__"):
                    pool.process(Ask())
            _define(main, value + 1)


def test_a_deleted_name_changes_nothing_until_it_is_defined_again(
    main: Any, pool: PoolProcessor
) -> None:
    pool.register(_define(main, 1))
    del main.h
    assert pool.process(Ask()) == 1
    _define(main, 2)
    assert pool.process(Ask()) == 2


def test_a_registered_function_replaces_no_other_handler(main: Any, pool: PoolProcessor) -> None:
    pool.register(_define(main, 1, want("ask")), "first")
    pool.register(_define(main, 2, want("tell")), "second")
    assert [pool.process(Ask()), pool.process(Tell())] == [1, 2]
    _define(main, 3, want("tell"))
    assert [pool.process(Ask()), pool.process(Tell())] == [1, 3]


def test_a_name_that_another_handler_has_taken_over_is_followed(
    main: Any, pool: PoolProcessor
) -> None:
    pool.register(_define(main, 1, want("ask")), "first")
    main.g = _handler(2, "g", want("ask"))
    pool.register(main.g, "first", replace=True)
    pool.register(_define(main, 3, want("tell")), "second")
    main.g = _handler(4, "g", want("ask"))
    assert [pool.process(Ask()), pool.process(Tell())] == [4, 3]


@pytest.mark.parametrize("kind", ["other name", "other module", "partial", "method", "lambda"])
def test_other_handlers_are_not_followed(main: Any, pool: PoolProcessor, kind: str) -> None:
    handler = _define(main, 1)
    if kind == "other name":
        handler.__qualname__ = "make.<locals>.h"
    elif kind == "other module":
        handler.__module__ = __name__
    elif kind == "partial":
        handler = main.h = functools.partial(handler)
    elif kind == "method":
        handler = types.MethodType(lambda self, proc, ev: self(proc, ev), handler)
    else:
        handler.__qualname__ = "<lambda>"
    pool.register(handler, "h")
    assert pool.process(Ask()) == 1
    _define(main, 2)
    assert pool.process(Ask()) == 1


def test_without_workers_a_cascade_ends_with_the_handlers_that_it_began_with(
    main: Any, pool: PoolProcessor
) -> None:
    def outer(proc: Any, ev: Event) -> Any:
        _define(main, 2, want("tell"))
        raise StopProcessing(pool.process(Tell()))

    pool.register(_define(main, 1, want("tell")))
    pool.register(want("ask")(outer), "outer")
    assert pool.process(Ask()) == 1
    assert pool.process(Tell()) == 2


_SCRIPT = """
from evproc import Event, StopProcessing, want
from evproc_pool import PoolProcessor
from evproc_pool.testing import worker_pids

class Ask(Event):
    name = "ask"

@want("ask")
def h(proc, ev):
    raise StopProcessing("old")

pool = PoolProcessor(workers=1)
pool.register(h, "handler")
print(pool.process(Ask()))
outcomes = pool.stream([Ask(), Ask()], buffersize=1)
print(next(outcomes).value)

@want("ask")
def h(proc, ev):
    raise StopProcessing("new")

print(*(each.value for each in outcomes))      # that has the old workers yet
for call in (
    lambda: pool.process(Ask()),
    lambda: pool.process_many([Ask()])[0],
    lambda: next(pool.stream([Ask()])).value,
    lambda: pool.submit(Ask()).result(),
):
    print(call())
before = worker_pids(pool)
del h
print(pool.process(Ask()), worker_pids(pool) == before)
pool.close()
"""


def test_workers_are_replaced_once_nothing_is_in_flight(tmp_path: Path) -> None:
    out = run_script(_SCRIPT, tmp_path).split()
    assert out == ["old", "old", "old", *["new"] * 5, "True"]


def test_a_notebook_uses_the_definition_of_its_last_cell(tmp_path: Path) -> None:
    pytest.importorskip("ipykernel", reason="there is no kernel")
    cells = [
        """
        from evproc import Event, StopProcessing
        from evproc_pool import PoolProcessor
        class Ask(Event):
            name = "ask"
        class Helper:
            def give(self):
                return 1
        """,
        "def handle(proc, ev): raise StopProcessing(Helper().give())",
        "pool = PoolProcessor(1); pool.register(handle); print(pool.process(Ask()))",
        "def give(self): return 2\nHelper.give = give",
        "print(pool.process(Ask()))",
        "def handle(proc, ev): raise StopProcessing(3)",
        "print(pool.process(Ask()))",
        "async def handle(proc, ev): raise StopProcessing(4)",
        "pool.process(Ask())",
        "pool.close()",
    ]
    out = run_cells(cells, tmp_path)
    assert [printed for printed, _ in out if printed] == [["1"], ["2"], ["3"]]
    assert [errors for _, errors in out if errors] == [["TypeError"]]
