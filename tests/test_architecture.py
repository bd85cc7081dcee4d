"""Which module may import which: read from the sources, and checked in a fresh process."""

from __future__ import annotations

import ast
import graphlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import evproc
import evproc_pool

ROOT = Path(__file__).parents[1]
POOL = ROOT / "evproc_pool"

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

#: For each package of the pool (or module, at the top) the others that it may import. All imports
#: count: inside functions, and those for type checkers. A module in none of these fails the test.
LAYERS: dict[str, set[str]] = {
    "errors": set(),
    "installation": set(),
    "log": set(),
    "internals": set(),
    "outcome": set(),
    "observe": {"log"},
    "core": {"errors"},
    "serialization": {"errors", "log", "internals"},
    "protocol": {"errors", "serialization"},
    "ipc": {"errors", "protocol"},
    "worker": {"errors", "internals", "serialization", "protocol", "ipc"},
    "coordinator": {
        "errors",
        "log",
        "outcome",
        "internals",
        "observe",
        "core",
        "serialization",
        "protocol",
    },
    "backends": {"errors", "log", "internals", "serialization", "protocol", "ipc", "worker"},
    "inprocess": {"errors", "outcome", "observe", "core", "serialization", "options"},
    "options": {"errors", "observe", "core", "protocol", "backends"},
    "calls": {
        "errors",
        "log",
        "internals",
        "outcome",
        "observe",
        "core",
        "serialization",
        "protocol",
        "coordinator",
        "backends",
        "inprocess",
        "options",
    },
    # a facade: the engine's type is all that it needs of `coordinator`
    "pool": {
        "errors",
        "outcome",
        "observe",
        "core",
        "coordinator",
        "inprocess",
        "options",
        "calls",
    },
    "executor": {"errors", "calls", "coordinator", "pool"},
    "testing": {
        "errors",
        "core",
        "serialization",
        "protocol",
        "worker",
        "backends",
        "pool",
        "outcome",
    },
    "demo": {"__init__"},  # only what is public
    "cli": {"__init__", "observe"},  # likewise
    "__init__": {"errors", "installation", "outcome", "pool", "executor"},
}

#: What the pure packages may import besides `PURE`; `typing_extensions` for type checkers only.
PURE_PACKAGES = {
    "core": {"heapq", "math"},
    "outcome": {"dataclasses", "typing_extensions"},
    "errors": set[str](),
}

#: The same for each module of `evproc`; those that are not here may import anything but the pool.
ALLOWED: dict[str, set[str]] = {
    "evproc.annotations": {"evproc.event", "evproc.exc"},  # which is for type checkers
    "evproc.any_processor": {  # likewise
        "evproc.annotations",
        "evproc.event",
        "evproc.handler",
        "evproc.report",
    },
    "evproc.version": {"importlib.metadata"},
    "evproc.event": set(),
    "evproc.exc": set(),
    "evproc.ordering": set(),
    "evproc.origin": set(),
    "evproc.report": set(),
    "evproc.decorator": {"evproc.annotations", "inspect"},
    "evproc.handler": {"evproc.annotations", "evproc.decorator", "evproc.origin"},
    "evproc.index": {
        "evproc.annotations",
        "evproc.decorator",
        "evproc.event",
        "evproc.exc",
        "evproc.handler",
        "evproc.mistakes",
        "evproc.ordering",
    },
    "evproc.checks": {
        "evproc.annotations",  # for type checkers
        "evproc.decorator",
        "evproc.event",
        "evproc.exc",
        "evproc.handler",
        "evproc.index",
        "evproc.ordering",
        "evproc.report",
    },
    "evproc.registry": {
        "evproc.annotations",
        "evproc.checks",
        "evproc.decorator",
        "evproc.event",
        "evproc.exc",
        "evproc.handler",
        "evproc.index",
        "evproc.mistakes",
        "evproc.origin",
        "evproc.report",
    },
    "evproc.mistakes": {
        "difflib",
        "evproc.decorator",
        "evproc.event",
        "evproc.exc",
        "evproc.handler",
        "inspect",
    },
}

#: What `import evproc` must not bring with it: each takes as long as all of evproc,
#: or is of no use to those who have no pool.
HEAVY = (
    "cloudpickle",
    "concurrent.futures",
    "dataclasses",
    "difflib",
    "enum",
    "evproc.any_processor",
    "evproc.checks",
    "evproc.entrypoints",
    "evproc.mistakes",
    "evproc.report",
    "evproc_pool",
    "graphlib",
    "importlib.metadata",
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


def _layer(module: str) -> str:
    """The package of the pool that a module belongs to; a module at the top is one itself."""
    parts = module.split(".")[1:]
    return parts[0] if parts else "__init__"


@pytest.mark.parametrize("module", modules_of("evproc_pool"))
def test_a_module_imports_only_packages_below_its_own(module: str) -> None:
    layer = _layer(module)
    assert layer in LAYERS, "give its package a place in LAYERS"
    used = {_layer(name) for name in _imports(module) if name.split(".")[0] == "evproc_pool"}
    assert used - {layer} - LAYERS[layer] == set()


@pytest.mark.parametrize("package", [each for each in LAYERS if (POOL / each).is_dir()])
def test_a_package_says_what_it_may_import(package: str) -> None:
    text = ast.get_docstring(ast.parse((POOL / package / "__init__.py").read_text("utf-8")))
    (said,) = re.findall(r"May import: ([^.;]*)[.;]", text or "")
    assert set(re.findall(r"`(\w+)`", said)) - {"evproc"} == LAYERS[package] - {"__init__"}


@pytest.mark.parametrize(
    "module", [name for name in modules_of("evproc_pool") if _layer(name) in PURE_PACKAGES]
)
def test_a_module_of_a_pure_package_imports_nothing_that_does_something(module: str) -> None:
    others = {
        name for name in _imports(module) if name.split(".")[0] not in ("evproc", "evproc_pool")
    }
    assert others - PURE - PURE_PACKAGES[_layer(module)] == set()


def test_no_module_imports_itself_through_others() -> None:
    modules = {*modules_of("evproc"), *modules_of("evproc_pool")}
    graph = {module: _imports(module) & modules - {module} for module in modules}
    # raises CycleError, which names the modules
    assert set(graphlib.TopologicalSorter(graph).static_order()) == modules


def test_the_backend_protocol_needs_no_process_and_no_memory() -> None:
    code = "import sys; import evproc_pool.protocol.backend; print(*sys.modules)"
    assert {"mmap", "multiprocessing", "subprocess"}.isdisjoint(_printed(code))


def test_the_core_runs_without_clock_thread_process_and_system() -> None:
    names = [name for name in modules_of("evproc_pool") if _layer(name) == "core"]
    code = f"""
import importlib, sys
for name in {sorted(PURE)!r}:  # these may need what the core must not
    importlib.import_module(name)
blocked = "time", "threading", "multiprocessing", "os", "posix", "socket"
before = {{name: sys.modules.get(name) for name in blocked}}
sys.modules.update(dict.fromkeys(blocked))
for name in {names!r}:
    importlib.import_module(name)
from evproc_pool.core.inputs_and_effects import Accepted, Opened, WorkerReady
from evproc_pool.core.retry_policy import RetryPolicy
from evproc_pool.core.scheduler import Scheduler
class Plan:
    indices = (0,)
scheduler = Scheduler(RetryPolicy(), 1)
effects = scheduler.step(WorkerReady(1))
effects += scheduler.step(Opened(1))
effects += scheduler.step(Accepted(1, 0, ["event"], [Plan()]))
sys.modules.update({{name: module for name, module in before.items() if module}})
print(*[type(effect).__name__ for effect in effects])
"""
    assert "Send" in _printed(code)


def _printed(code: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True
    )
    return done.stdout.split()


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
        "dask",
        "dataclasses",
        "distributed",
        "evproc_pool.coordinator.coordinator",
        "evproc_pool.worker.main",
        "inspect",
        "psutil",
        "ray",
        "tempfile",
    ),
    "evproc_pool.worker.main": (
        "cloudpickle",
        "dataclasses",
        "evproc_pool.pool",
        "evproc_pool.core.scheduler",
        "logging",
        "psutil",
        "tempfile",
        "traceback",
    ),
    # pytest imports it in every project
    "evproc_pool.testing.plugin": (
        "asyncio",
        "cloudpickle",
        "evproc_pool.coordinator",
        "evproc_pool.pool",
        "evproc_pool.testing.fixtures",
        "evproc_pool.worker",
        "importlib_metadata",
        "multiprocessing",
        "psutil",
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
