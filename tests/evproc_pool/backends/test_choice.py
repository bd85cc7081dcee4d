"""What `executor=` may be, and what is said if it is something else."""

from __future__ import annotations

import functools
import importlib.util
import re
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from evproc_pool import PoolProcessor
from evproc_pool.backends import choice
from evproc_pool.backends.promises import LOCAL
from tests.support.helpers import run_script


class _Client:
    """Stands for the client of an engine."""


_ENGINE = choice.Engine(
    kind="grid",
    extra="grid",
    module="no_such_engine",
    clients=frozenset({f"{__name__}._Client"}),
    addresses=("grid://",),
    accepts='a grid.Client, "grid://..."',
    promises=LOCAL,
)


@pytest.fixture
def an_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "ENGINES", [_ENGINE])


def test_an_executor_is_an_instance_and_says_how_many_workers_it_has() -> None:
    with ThreadPoolExecutor(3) as executor:
        found = choice.choose(executor)
        assert (found.kind, found.value, found.workers) == (choice.INSTANCE, executor, 3)


@pytest.mark.parametrize("make", [ProcessPoolExecutor, functools.partial(ThreadPoolExecutor, 2)])
def test_a_callable_is_a_factory_and_is_not_called_yet(make: Any) -> None:
    found = choice.choose(make)
    assert (found.kind, found.workers) == (choice.FACTORY, None)


@pytest.mark.parametrize("value", [5, object(), b"grid://here", ThreadPoolExecutor.__mro__])
def test_anything_else_is_refused_by_saying_what_is_allowed(value: object) -> None:
    allowed = "a concurrent.futures.Executor, a callable without arguments"
    with pytest.raises(
        TypeError, match=f"executor is {allowed}.* and not {re.escape(repr(value))}"
    ):
        PoolProcessor(executor=value)


@pytest.mark.usefixtures("an_engine")
def test_a_text_that_is_no_address_is_refused() -> None:
    with pytest.raises(ValueError, match=r"executor is .*, and not the text 'grip://here'"):
        PoolProcessor(executor="grip://here")


@pytest.mark.usefixtures("an_engine")
@pytest.mark.parametrize("value", ["grid://here:8786", _Client()])
def test_an_engine_that_is_not_installed_is_said_to_be_missing(value: object) -> None:
    with pytest.raises(ImportError, match=r"pip install 'evproc-pool\[grid\]'") as raised:
        PoolProcessor(executor=value)
    assert raised.value.name == "no_such_engine"


def test_dask_is_asked_for_by_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ImportError, match=r"pip install 'evproc-pool\[dask\]'"):
        PoolProcessor(executor="tcp://127.0.0.1:8786")


@pytest.mark.parametrize("value", ["ray", "ray:auto", "ray:127.0.0.1:6379", "ray://here:10001"])
def test_ray_is_asked_for_by_its_name_or_an_address(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ImportError, match=r"pip install 'evproc-pool\[ray\]'"):
        PoolProcessor(executor=value)


@pytest.mark.parametrize("value", ["", "rayon", "Ray"])
def test_a_text_that_only_looks_like_an_engine_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="and not the text"):
        PoolProcessor(executor=value)


@pytest.mark.usefixtures("an_engine")
@pytest.mark.parametrize("value", ["grid://here:8786", _Client()])
def test_an_engine_is_known_without_an_import(
    value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = _ENGINE._replace(module="xmlrpc")
    monkeypatch.setattr(choice, "ENGINES", [installed])
    monkeypatch.delitem(sys.modules, "xmlrpc", raising=False)
    assert choice.choose(value) == choice.Choice("grid", value, LOCAL)
    assert "xmlrpc" not in sys.modules


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("event_soft_timeout", 5),
        ("max_worker_memory_bytes", 1 << 30),
        ("max_tasks_per_child", 5),
        ("mp_context", "spawn"),
        ("preload", False),
        ("native_threads", 1),
        ("worker_output", "label"),
    ],
)
def test_an_option_that_plain_calls_cannot_keep_is_refused(name: str, value: object) -> None:
    options: dict[str, Any] = {name: value, "executor": ThreadPoolExecutor}
    with pytest.raises(
        ValueError, match=f"{name}= cannot be kept with executor=.*: (it|the output)"
    ):
        PoolProcessor(**options)


def test_no_workers_and_an_executor_are_a_contradiction() -> None:
    with pytest.raises(ValueError, match="workers=0 runs handlers in this process"):
        PoolProcessor(0, executor=ThreadPoolExecutor)


def test_no_engine_is_imported_by_a_pool_on_an_executor(tmp_path: Path) -> None:
    code = """
import sys
from concurrent.futures import ThreadPoolExecutor
from evproc_pool import PoolProcessor
from tests.support.actions import Do, act
with PoolProcessor(2, executor=ThreadPoolExecutor) as pool:
    pool.register(act)
    assert pool.process(Do("stop", 1)) == 1
print(sorted({"dask", "distributed", "ray", "loky", "executorlib"} & sys.modules.keys()))
"""
    assert run_script(code, tmp_path) == "[]\n"
