"""Modules that an application loaded from a path reach workers."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest

from evproc_pool import PoolProcessor, SerializationError
from evproc_pool.protocol.path_modules import PathFinder, PathModule, path_modules
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
