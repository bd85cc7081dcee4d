"""Which module may import which: read from the sources, and seen in a fresh process."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import evproc
import evproc_pool

ROOT = Path(__file__).parents[2]

#: What is pure and may be imported anywhere: data structures, types, functions.
PURE = {
    "abc",
    "collections",
    "collections.abc",
    "bisect",
    "contextlib",
    "enum",
    "functools",
    "graphlib",
    "heapq",
    "itertools",
    "operator",
    "sys",
    "types",
    "typing",
}

#: For each module what it may import besides `PURE`; all imports count, also
#: those inside functions. A module that is not here is not looked at.
ALLOWED: dict[str, set[str]] = {
    "evproc.annotations": {"evproc.event", "evproc.exc"},  # which is for type checkers
    "evproc.event": set(),
    "evproc.exc": set(),
    "evproc.ordering": set(),
    "evproc.report": set(),
    "evproc.decorator": {"evproc.annotations", "inspect"},
    "evproc.registry": {
        "evproc.annotations",
        "evproc.decorator",
        "evproc.entrypoints",  # for type checkers, too
        "evproc.event",
        "evproc.exc",
        "evproc.ordering",
        "evproc.report",
        "evproc.mistakes",
    },
    "evproc.mistakes": {
        "difflib",
        "evproc.decorator",
        "evproc.event",
        "evproc.exc",
        "evproc.registry",  # for type checkers
        "inspect",
    },
    # the pool's pure core: no process, channel or clock, and nothing that knows of one
    "evproc_pool.paths": set(),
    "evproc_pool.columns": {"evproc_pool.paths"},
    "evproc_pool.flight": {"evproc_pool.columns", "evproc_pool.errors", "evproc_pool.paths"},
    "evproc_pool.schedule": {
        "evproc_pool.cascade_limits",
        "evproc_pool.columns",
        "evproc_pool.flight",
        "evproc_pool.paths",
    },
    "evproc_pool.chains": {"evproc_pool.schedule"},  # for type checkers
    "evproc_pool.estimates": {"evproc_pool.columns"},
    "evproc_pool.backlog": {
        "evproc_pool.columns",
        "evproc_pool.errors",
        "evproc_pool.flight",
        "evproc_pool.schedule",
    },
    "evproc_pool.loads": {
        "evproc_pool.backlog",
        "evproc_pool.errors",
        "evproc_pool.estimates",
        "evproc_pool.flight",
    },
    "evproc_pool.batching": {
        "evproc_pool.backlog",
        "evproc_pool.columns",
        "evproc_pool.estimates",
        "evproc_pool.flight",
        "evproc_pool.retries",
    },
    "evproc_pool.cascades": {
        "evproc.exc",
        "evproc_pool.backlog",
        "evproc_pool.cascade_limits",
        "evproc_pool.columns",
        "evproc_pool.flight",
        "evproc_pool.notes",
        "evproc_pool.paths",
        "evproc_pool.retries",
        "evproc_pool.schedule",
    },
    "evproc_pool.retries": {
        "evproc_pool.backlog",
        "evproc_pool.columns",
        "evproc_pool.errors",
        "evproc_pool.flight",
        "evproc_pool.paths",
        "evproc_pool.schedule",
    },
    "evproc_pool.pauses": {"evproc_pool.retries", "heapq", "random"},
    "evproc_pool.scheduler": {
        "evproc_pool.backlog",
        "evproc_pool.batching",
        "evproc_pool.cascades",
        "evproc_pool.columns",
        "evproc_pool.errors",
        "evproc_pool.estimates",
        "evproc_pool.flight",
        "evproc_pool.loads",
        "evproc_pool.retries",
        "evproc_pool.schedule",
    },
    "evproc_pool.notes": {"evproc.exc"},
    "evproc_pool.cascade_limits": {"evproc.event", "evproc_pool.errors", "evproc_pool.notes"},
    "evproc_pool.stays": {"math"},
    "evproc_pool.telling": {"evproc_pool.estimates", "math"},
    "evproc_pool.errors": set(),
    "evproc_pool.outcome": {"dataclasses", "evproc"},
    # what stands between the coordinator and whatever has the workers
    "evproc_pool.frame": set(),
    "evproc_pool.segments": set(),
    "evproc_pool.backend": {"evproc_pool.frame", "evproc_pool.progress"},
    "evproc_pool.testing.clock": {"math"},
}

#: What drives workers of any backend, and must not know one.
DRIVES_ANY_BACKEND = (
    "evproc_pool.coordinator",
    "evproc_pool.deaths",
    "evproc_pool.engine",
    "evproc_pool.outbox",
    "evproc_pool.postmortem",
    "evproc_pool.watch",
    "evproc_pool.worker",
)

#: What `import evproc` must not bring with it: each takes as long as all of evproc,
#: or is of no use to those who have no pool.
HEAVY = (
    "cloudpickle",
    "concurrent.futures",
    "dataclasses",
    "difflib",
    "enum",
    "evproc.entrypoints",
    "evproc.mistakes",
    "evproc.report",
    "evproc_pool",
    "graphlib",
    "importlib_metadata",
    "inspect",
    "logging",
    "multiprocessing",
    "psutil",
    "subprocess",
    "threading",
    "typing",
)


def source_of(module: str) -> Path:
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def modules_of(package: str) -> list[str]:
    """All modules of a package, by their full names."""
    names = []
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return names


def imports_of(source: str, module: str) -> Iterator[str]:
    """The names of the modules that a source imports; `a.b` for `from a import b` if it is one."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module.split(".")[: -node.level]
                base = ".".join([*package, *([node.module] if node.module else [])])
            submodules = [f"{base}.{alias.name}" for alias in node.names]
            found = [name for name in submodules if source_of(name).exists()]
            yield from found
            if len(found) < len(submodules):
                yield base


def _imports(module: str) -> set[str]:
    return set(imports_of(source_of(module).read_text("utf-8"), module)) - {"__future__"}


@pytest.mark.parametrize("module", ALLOWED)
def test_a_pure_module_imports_nothing_but_what_it_may(module: str) -> None:
    assert _imports(module) - PURE - ALLOWED[module] == set()


@pytest.mark.parametrize("module", modules_of("evproc"))
def test_evproc_never_imports_the_pool(module: str) -> None:
    for name in _imports(module):
        assert name.split(".")[0] != "evproc_pool"


@pytest.mark.parametrize("module", DRIVES_ANY_BACKEND)
def test_what_drives_workers_knows_no_backend(module: str) -> None:
    assert "evproc_pool.local" not in _imports(module)


@pytest.mark.parametrize("module", modules_of("evproc_pool"))
def test_what_helps_to_test_is_imported_by_itself_only(module: str) -> None:
    is_testing = module.split(".")[:2] == ["evproc_pool", "testing"]
    for name in _imports(module):
        if not is_testing:
            assert not name.startswith("evproc_pool.testing")
        if module != "evproc_pool.testing.plugin":
            assert name.split(".")[0] != "pytest"
            assert name != "evproc_pool.testing.plugin"


def test_every_module_of_evproc_is_pure_or_one_of_three() -> None:
    impure = {"evproc", "evproc.entrypoints", "evproc.processor"}
    pure = {module for module in ALLOWED if module.split(".")[0] == "evproc"}
    assert set(modules_of("evproc")) == impure | pure


def test_the_imports_are_found_wherever_and_however_they_are_written() -> None:
    source = """
import os.path, time as clock
from evproc import registry, Processor
if True:
    from evproc.exc import StopProcessing
def function():
    import threading
    from . import event
    from .decorator import want
"""
    assert set(imports_of(source, "evproc.made_up")) == {
        "os.path",
        "time",
        "evproc",
        "evproc.registry",
        "evproc.exc",
        "threading",
        "evproc.event",
        "evproc.decorator",
    }


def test_importing_evproc_imports_nothing_heavy() -> None:
    # -S: `site` may import anything
    code = (
        "import sys; before = set(sys.modules); import evproc;"
        "print(*sorted(set(sys.modules) - before)); print(*sorted(before))"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True
    )
    new, before = (set(line.split()) for line in done.stdout.splitlines())
    assert "evproc.processor" in new
    for module in HEAVY:
        assert module not in before, "the check would not see it"
        assert module not in new


#: What programs and workers wait for without need, by what they import: each takes a good
#: part of their start.
NEEDED_LATER = {
    "evproc_pool": ("evproc_pool.pool", "evproc_pool.outcome", "logging", "multiprocessing"),
    "evproc_pool.pool": (
        "cloudpickle",
        "concurrent.futures",
        "dataclasses",
        "evproc_pool.coordinator",
        "evproc_pool.worker",
        "inspect",
        "psutil",
        "tempfile",
    ),
    "evproc_pool.worker": (
        "cloudpickle",
        "dataclasses",
        "evproc_pool.pool",
        "evproc_pool.scheduler",
        "logging",
        "psutil",
        "tempfile",
        "traceback",
    ),
}


@pytest.mark.parametrize("module", NEEDED_LATER)
def test_what_is_needed_later_is_imported_later(module: str) -> None:
    code = f"import sys; import {module}; print(*sys.modules)"
    # where cloudpickle and psutil could be found
    path = os.pathsep.join([str(ROOT), *sys.path])
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    assert set(done.stdout.split()).isdisjoint(NEEDED_LATER[module])


def test_what_is_imported_when_it_is_asked_for_is_a_name_of_the_package_all_the_same() -> None:
    # in a process in which nobody has asked
    code = (
        "import evproc, sys; assert 'evproc.report' not in sys.modules;"
        "assert set(evproc.__all__) <= set(dir(evproc));"
        "from evproc import *; assert CheckReport is evproc.CheckReport;"
        "assert CheckReport is sys.modules['evproc.report'].CheckReport"
    )
    subprocess.run([sys.executable, "-S", "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize("package", [evproc, evproc_pool])
def test_a_package_has_all_of_its_names_and_no_others(package: Any) -> None:
    assert set(package.__all__) <= set(dir(package))
    assert all(hasattr(package, name) for name in package.__all__)
    with pytest.raises(AttributeError, match=f"'{package.__name__}' has no attribute 'Explained'"):
        package.Explained  # noqa: B018
