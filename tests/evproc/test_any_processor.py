"""`AnyProcessor`, the version, and what else is imported when it is first asked for."""

from __future__ import annotations

import importlib.metadata
import inspect
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import evproc
from evproc import version

ROOT = Path(__file__).parents[2]


class Order(evproc.Event):
    name = "order"


def set_up(processor: evproc.AnyProcessor) -> tuple[str, ...]:
    """Takes either; mypy checks that a `Processor` is one."""
    processor.register(lambda proc, ev: None, "second")
    processor.register(lambda proc, ev: None, "first", replace=True)
    processor.unregister("first")
    assert processor.check().handlers == 1
    assert processor.process(Order()) is None
    return processor.explain(Order()).order


def test_a_processor_is_one() -> None:
    assert set_up(evproc.Processor(unmatched="error")) == ("second",)


def public(kind: type) -> dict[str, Any]:
    return {name: each for name, each in vars(kind).items() if not name.startswith("_")}


def test_its_methods_have_the_signatures_of_a_processor() -> None:
    shared = public(evproc.AnyProcessor)
    assert sorted(shared) == [
        "check",
        "explain",
        "load_from",
        "nodes",
        "process",
        "register",
        "unregister",
    ]
    for name, each in shared.items():
        if callable(each):
            assert inspect.signature(each) == inspect.signature(vars(evproc.Processor)[name])
    # all that a `Processor` has for applications, but for what a pool cannot have
    assert public(evproc.Processor).keys() - shared.keys() == {
        "emitted",
        "process_many",  # these three raise, and say that a pool has them
        "stream",
        "submit",
    }


def test_it_is_for_type_checkers_only() -> None:
    with pytest.raises(TypeError, match="runtime_checkable"):
        isinstance(evproc.Processor(), evproc.AnyProcessor)  # type: ignore[misc]


def test_the_version_is_that_of_the_distribution() -> None:
    assert evproc.__version__ == importlib.metadata.version("evproc-pool")
    if TYPE_CHECKING:
        text: str = evproc.__version__
        assert text


def test_without_metadata_the_version_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_nothing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", find_nothing)
    assert version.installed_version() == version.UNKNOWN == "0+unknown"


def test_sources_that_were_never_installed_have_a_version() -> None:
    code = (
        "import sys, evproc; assert 'importlib.metadata' not in sys.modules;"
        "assert '__version__' in dir(evproc); print(evproc.__version__)"
    )
    # -I and -S: nothing is found but the standard library and these sources
    done = subprocess.run(
        [
            sys.executable,
            "-I",
            "-S",
            "-c",
            f"import sys; sys.path.insert(0, {str(ROOT)!r}); {code}",
        ],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    # a build leaves its metadata beside the sources
    assert done.stdout.strip() in (version.UNKNOWN, evproc.__version__)


def test_a_module_that_is_imported_later_is_a_name_of_the_package() -> None:
    find: Any = vars(evproc)["__getattr__"]
    assert find("report") is sys.modules["evproc.report"]
    assert {"__version__", *evproc.__all__} <= set(dir(evproc))
    with pytest.raises(AttributeError, match="'evproc' has no attribute 'Explained'"):
        find("Explained")
