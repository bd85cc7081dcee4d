"""Modules that an application loaded from a path reach workers."""

from __future__ import annotations

import importlib.util
import sys
import types
from collections.abc import Iterator
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from typing import Any

import pytest

from evproc_pool import PoolProcessor, SerializationError
from evproc_pool.backends.local.preloading import Sources
from evproc_pool.protocol.path_modules import PathFinder, PathModule, path_modules
from evproc_pool.protocol.process_state import current_state
from tests.support.actions import Do
from tests.support.helpers import run_script

_PLUGIN = """
import threading
from evproc import Event, StopProcessing, want

LOCK = threading.Lock()  # cannot be pickled

class Bill(Event):
    name = "bill"

    def __init__(self, number):
        self.number = number

class Paid:
    pass

@want("bill")
def add_up(proc, ev):
    with LOCK:
        ev.emit(Paid())
        raise StopProcessing(ev.number + 1)
"""

_LOADS = """
import importlib.util, sys
from evproc_pool import PoolProcessor

def load(name, path, folder=None):
    folders = None if folder is None else [folder]
    spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=folders)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

with PoolProcessor(workers=1, mp_context="METHOD") as pool:
    BODY
"""

_BODIES = {
    "a file": """
    plugin = load("app_plugins_billing", "plugins/billing.py")
    pool.register(plugin.add_up)
""",
    "a file whose name another module has": """
    plugin = load("billing", "plugins/billing.py")
    pool.register(plugin.add_up)
""",
    "a package": """
    load("app_plugins", "plugins/__init__.py", "plugins")
    import app_plugins.billing as plugin
    pool.register(plugin.add_up)
""",
    "a file that only events are from": """
    plugin = load("app_billing", "plugins/billing.py")
    pool.register(lambda proc, ev: plugin.add_up(proc, ev), "add_up")
""",
}

_USES = """
    outcomes = list(pool.stream([plugin.Bill(number) for number in range(3)]))
    print([outcome.value for outcome in outcomes])
    assert all(type(outcome.emitted[0]) is plugin.Paid for outcome in outcomes)
"""


@pytest.mark.parametrize("kind", _BODIES)
@pytest.mark.parametrize(
    "method", ["spawn", "forkserver"] if sys.platform == "linux" else ["spawn"]
)
def test_a_plug_in_that_was_loaded_from_a_path(tmp_path: Path, kind: str, method: str) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "billing.py").write_text(_PLUGIN, "utf-8")
    (tmp_path / "plugins" / "__init__.py").touch()
    (tmp_path / "billing.py").write_text("raise OSError('another one')", "utf-8")
    code = _LOADS.replace("METHOD", method).replace("    BODY", _BODIES[kind] + _USES)
    assert run_script(code, tmp_path) == "[1, 2, 3]\n"


_TEST = """
from evproc_pool import PoolProcessor

def test_add_up():
    with PoolProcessor(workers=1) as pool:
        pool.register(add_up)
        assert pool.process_many([Bill(1)]) == [2]
"""


def test_test_modules_that_pytest_loads_from_their_paths(tmp_path: Path) -> None:
    tests, elsewhere = tmp_path / "checks" / "unit", tmp_path / "elsewhere"
    tests.mkdir(parents=True)
    elsewhere.mkdir()
    (tests / "test_billing.py").write_text(_PLUGIN + _TEST, "utf-8")
    options = ["-q", "-p", "no:cacheprovider", "--import-mode=importlib", f"--rootdir={tmp_path}"]
    code = f"import pytest; pytest.main({[*options, str(tests)]})"
    assert "1 passed" in run_script(code, elsewhere)


def test_modules_that_imports_find_are_left_out() -> None:
    found = path_modules()
    assert not found.keys() & {"evproc.event", "tests.support.helpers", "os", "pytest", "numpy"}


def test_a_namespace_package_above_a_module_is_made() -> None:
    finder = PathFinder(
        {"above": PathModule(None, ["folder"]), "above.below": PathModule("b.py", None)}
    )
    above, below = finder.find_spec("above"), finder.find_spec("above.below")
    assert above is not None
    assert above.submodule_search_locations == ["folder"]
    assert below is not None
    assert (below.origin or "").endswith("b.py")
    assert finder.find_spec("another") is None


def test_definitions_of_a_module_without_an_origin_that_cannot_be_pickled() -> None:
    module = types.ModuleType("made_by_hand")
    exec("import threading\nlock = threading.Lock()\ndef handler(proc, ev): lock", vars(module))
    sys.modules["made_by_hand"] = module
    try:
        with PoolProcessor(workers=1) as pool:
            pool.register(module.handler)
            with pytest.raises(SerializationError, match=r"no import finds .*'made_by_hand'"):
                pool.process(Do())
    finally:
        del sys.modules["made_by_hand"]


# --- files that workers cannot load by their names and suffixes ---


def load(name: str, loader: Any) -> Any:
    """Load a module as an application does; whoever calls takes it out of `sys.modules`."""
    spec = importlib.util.spec_from_loader(name, loader)
    assert spec is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.fixture
def name() -> Iterator[str]:
    """The name of a module that this process has during the test only."""
    yield "evproc_test_plug_in"
    sys.modules.pop("evproc_test_plug_in", None)


_ANSWERS = """
from evproc import Event, StopProcessing

class Ask(Event):
    name = "ask"

def handler(proc, ev):
    raise StopProcessing("an answer")
"""


class _UpperCase(SourceFileLoader):
    """A loader of the application's: a worker has none."""

    def get_data(self, path: str) -> bytes:
        return super().get_data(path).replace(b"AN ANSWER", b"an answer")


def _answer(module: Any) -> object:
    with PoolProcessor(workers=1) as pool:
        pool.register(module.handler)
        return pool.process(module.Ask())


def test_a_file_with_an_unknown_suffix(tmp_path: Path, name: str) -> None:
    file = tmp_path / "answers.plugin"
    file.write_text(_ANSWERS, "utf-8")
    assert _answer(load(name, SourceFileLoader(name, str(file)))) == "an answer"


def test_a_file_that_only_the_application_can_load(tmp_path: Path, name: str) -> None:
    file = tmp_path / "answers.plugin"
    file.write_text(_ANSWERS.replace("an answer", "AN ANSWER"), "utf-8")
    assert _answer(load(name, _UpperCase(name, str(file)))) == "an answer"


@pytest.mark.parametrize("is_in_path", [True, False])
def test_a_file_that_was_deleted(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch, is_in_path: bool
) -> None:
    if is_in_path:
        monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / f"{name}.py"
    file.write_text(_ANSWERS, "utf-8")
    module = load(name, SourceFileLoader(name, str(file)))
    file.unlink()
    assert _answer(module) == "an answer"


def test_a_file_that_was_deleted_and_cannot_be_pickled(tmp_path: Path, name: str) -> None:
    file = tmp_path / "deleted.py"
    file.write_text(_PLUGIN, "utf-8")
    module = load(name, SourceFileLoader(name, str(file)))
    file.unlink()
    with PoolProcessor(workers=1) as pool:
        pool.register(module.add_up)
        with pytest.raises(SerializationError, match=rf"no import finds .*'{name}'"):
            pool.process(module.Bill(1))


# --- what stands in `sys.modules` ---


@pytest.mark.parametrize("module", ["decimal", "locale", "numpy", "IPython", "evproc_test_plug_in"])
def test_a_lazy_module_is_not_executed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    file = tmp_path / f"{module}.py"
    file.write_text("raise OSError('executed')", "utf-8")
    loader: Any = importlib.util.LazyLoader(SourceFileLoader(module, str(file)))
    spec = importlib.util.spec_from_file_location(module, file, loader=loader)
    assert spec is not None
    lazy = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, module, lazy)
    loader.exec_module(lazy)
    state = current_state(0, [])
    assert state.path_modules[module].file == str(file)
    assert Sources().have_changed is False
    with PoolProcessor(workers=1) as pool:
        pool.register(lambda proc, ev: None, "handler")  # which has globals to look after
        assert pool.process(Do()) is None
    assert type(lazy) is not types.ModuleType
    with pytest.raises(OSError, match="executed"):
        _ = lazy.anything


def test_odd_objects_in_the_place_of_modules_are_passed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Raises:
        def __getattribute__(self, name: str) -> Any:
            raise OSError(name)

    path: Any = Path("no_text")
    spec = ModuleSpec("odd", None, origin=path)
    spec.has_location = True
    odd = types.ModuleType("odd")
    odd.__spec__ = spec
    below = types.ModuleType("raises.below")
    below.__spec__ = importlib.util.spec_from_file_location("raises.below", __file__)
    for each, module in {"odd": odd, "raises": Raises(), "raises.below": below}.items():
        monkeypatch.setitem(sys.modules, each, module)
    assert path_modules()["raises.below"].file == __file__
