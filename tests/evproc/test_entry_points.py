"""`load_from` with distributions that are really there.

One test installs wheels with pip and loads them in another process. The others
unpack the same distributions themselves, which takes a thousandth of the time.
"""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import importlib_metadata
import pytest

from evproc import (
    EntryPointConflictException,
    EntryPointException,
    EntryPointGroupException,
    EntryPointLoadException,
    EntryPointTypeException,
    Processor,
    ProcessorReregisterException,
)
from evproc.entrypoints import load_group
from evproc.origin import Origin
from tests.support.distributions import Distribution
from tests.support.processors import Named

ROOT = Path(__file__).parents[2]
GROUP = "evproc.tests.handlers"

_HANDLER = """
import evproc

def handler(proc, ev):
    ev.ctxt.append({name!r})
"""

Install = Callable[..., Path]


def source(name: str) -> str:
    """The source of a module whose `handler` records that name in the event's ctxt."""
    return _HANDLER.format(name=name)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Make distributions importable, each set of them in a folder of its own."""
    modules = set(sys.modules)
    folders = (tmp_path / f"site {number}" for number in itertools.count())

    def install(*distributions: Distribution) -> Path:
        folder = next(folders)
        for distribution in distributions:
            distribution.unpack(folder)
        monkeypatch.syspath_prepend(str(folder))
        return folder

    yield install
    for name in set(sys.modules) - modules:
        file = getattr(sys.modules[name], "__file__", None)
        if file is not None and Path(file).is_relative_to(tmp_path):
            del sys.modules[name]
    importlib.invalidate_caches()


def single(name: str, value: str, **modules: str) -> Distribution:
    """A distribution `dist-<name>` with one entry point."""
    return Distribution(f"dist-{name}", modules, {GROUP: {name: value}})


def calls(proc: Processor) -> list[str]:
    """Which of the handlers run, in order."""
    ev = Named("ev", [])
    proc.process(ev)
    assert isinstance(ev.ctxt, list)
    return ev.ctxt


def unchanged(proc: Processor, names: tuple[str, ...] = ()) -> bool:
    return tuple(proc.nodes) == names and tuple(calls(proc)) == names


# --- what works ---


@pytest.mark.skipif(importlib.util.find_spec("pip") is None, reason="there is no pip here")
def test_handlers_of_installed_wheels_are_loaded_in_the_order_of_their_names(
    tmp_path: Path,
) -> None:
    wheels = [
        Distribution(
            "Dist-Z",
            {"module_z": source("c") + "\n" + source("a").replace("def handler", "def other")},
            {GROUP: {"c": "module_z:handler", "a": "module_z:other"}},
        ),
        Distribution(
            "dist-y", {"module_y": source("b")}, {GROUP: {"b": "module_y:handler"}}, "2.0"
        ),
    ]
    target = tmp_path / "target"
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    options = ["--no-index", "--no-deps", "--no-build-isolation", "--target", str(target)]
    files = [str(wheel.wheel(tmp_path)) for wheel in wheels]
    subprocess.run([*pip, *options, *files], check=True)
    code = f"""
import json, sys
sys.path.insert(0, {str(target)!r})
import evproc
proc = evproc.Processor()
names = proc.load_from({GROUP!r})
class Ev(evproc.Event):
    name = "ev"
ev = Ev([])
proc.process(ev)
print(json.dumps([names, ev.ctxt, [each.origin for each in proc.nodes.values()]]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True
    )
    names, called, origins = json.loads(done.stdout)
    assert names == called == ["a", "b", "c"]
    assert origins == [[GROUP, "Dist-Z", "1.0"], [GROUP, "dist-y", "2.0"], [GROUP, "Dist-Z", "1.0"]]


@pytest.mark.parametrize("turned", [False, True])
def test_the_order_does_not_depend_on_where_the_distributions_are(
    install: Install, turned: bool
) -> None:
    names = ["b", "a", "c"]
    for name in reversed(names) if turned else names:
        install(single(name, f"module_{name}:handler", **{f"module_{name}": source(name)}))
    proc = Processor()
    assert proc.load_from(GROUP) == ("a", "b", "c")
    assert calls(proc) == ["a", "b", "c"]


def test_a_handler_is_named_by_its_entry_point_and_knows_its_origin(install: Install) -> None:
    install(single("named", "module_n:handler", module_n=source("called")))
    proc = Processor()
    assert proc.load_from(GROUP) == ("named",)
    assert proc.nodes["named"].func.__name__ == "handler"
    assert proc.nodes["named"].origin == Origin(GROUP, "dist-named", "1.0")
    assert calls(proc) == ["called"]


def test_only_the_group_that_is_asked_for_is_loaded(install: Install) -> None:
    install(
        Distribution(
            "dist-two",
            {"module_two": source("one")},
            {GROUP: {"one": "module_two:handler"}, f"{GROUP}.other": {"two": "no_module:handler"}},
        )
    )
    proc = Processor()
    assert proc.load_from(GROUP) == ("one",)


def test_groups_can_be_loaded_one_after_another(install: Install) -> None:
    install(
        Distribution(
            "dist-two",
            {"module_one": source("one"), "module_two": source("two")},
            {
                f"{GROUP}.z": {"one": "module_one:handler"},
                f"{GROUP}.a": {"two": "module_two:handler"},
            },
        )
    )
    proc = Processor()
    proc.load_from(f"{GROUP}.z")
    proc.load_from(f"{GROUP}.a")
    assert calls(proc) == ["one", "two"]


def test_what_the_decorators_declare_is_loaded(install: Install) -> None:
    late = source("a").replace(
        "def handler", "@evproc.requires('b')\n@evproc.want('ev')\ndef handler"
    )
    install(
        single("a", "module_a:handler", module_a=late),
        single("b", "module_b:handler", module_b=source("b")),
    )
    proc = Processor()
    assert proc.load_from(GROUP) == ("a", "b")
    assert calls(proc) == ["b", "a"]


def test_an_attribute_of_an_attribute_can_be_a_handler(install: Install) -> None:
    methods = "class Methods:\n @staticmethod\n def handler(proc, ev): ev.ctxt.append('m')"
    install(single("method", "module_m:Methods.handler", module_m=methods))
    proc = Processor()
    proc.load_from(GROUP)
    assert calls(proc) == ["m"]


def test_the_same_distribution_twice_on_the_path_is_one(install: Install) -> None:
    old = Distribution("dist-a", {"module_a": source("old")}, {GROUP: {"a": "module_a:handler"}})
    new = Distribution(
        "Dist.A", {"module_a": source("new")}, {GROUP: {"a": "module_a:handler"}}, "2.0"
    )
    install(old)
    install(new)  # in front of it, under another spelling of its name
    proc = Processor()
    assert proc.load_from(GROUP) == ("a",)
    assert calls(proc) == ["new"]
    assert proc.nodes["a"].origin == Origin(GROUP, "Dist.A", "2.0")


def test_a_registered_handler_and_a_loaded_one_run_together(install: Install) -> None:
    install(single("loaded", "module_l:handler", module_l=source("loaded")))
    proc = Processor()
    proc.register(lambda proc, ev: ev.ctxt.append("registered"), "registered")
    proc.load_from(GROUP)
    assert calls(proc) == ["registered", "loaded"]


# --- what does not ---

BROKEN: dict[str, tuple[Distribution, type[EntryPointException], list[str]]] = {
    "no module": (
        single("broken", "no_such_module:handler"),
        EntryPointLoadException,
        ["(no_such_module:handler)", "cannot be imported: ModuleNotFoundError: No module named"],
    ),
    "import error": (
        single("broken", "module_b:handler", module_b="raise RuntimeError('at import')"),
        EntryPointLoadException,
        ["cannot be imported: RuntimeError: at import"],
    ),
    "syntax error": (
        single("broken", "module_b:handler", module_b="def handler(:"),
        EntryPointLoadException,
        ["cannot be imported: SyntaxError: "],
    ),
    "exit": (
        single("broken", "module_b:handler", module_b="import sys; sys.exit(3)"),
        EntryPointLoadException,
        ["cannot be imported: SystemExit: 3"],
    ),
    "no attribute": (
        single("broken", "module_b:handlre", module_b=source("b")),
        EntryPointLoadException,
        ["cannot be imported: AttributeError: ", "handlre"],
    ),
    "no callable": (
        single("broken", "module_b:handler", module_b="handler = 5"),
        EntryPointTypeException,
        ["cannot be a handler: a handler is a callable (proc, ev), not 5"],
    ),
    "a module": (
        single("broken", "module_b", module_b=""),
        EntryPointTypeException,
        ["(module_b)", "cannot be a handler: a handler is a callable (proc, ev), not <module"],
    ),
    "async": (
        single("broken", "module_b:handler", module_b="async def handler(proc, ev): pass"),
        EntryPointTypeException,
        ["cannot be a handler: handler module_b.handler is asynchronous"],
    ),
    "decorator without parentheses": (
        single(
            "broken",
            "module_b:handler",
            module_b="import evproc\n@evproc.want\ndef handler(proc, ev): pass",
        ),
        EntryPointTypeException,
        ["cannot be a handler: @want was used without its arguments"],
    ),
}
CAUSES = {
    "no module": ModuleNotFoundError,
    "import error": RuntimeError,
    "syntax error": SyntaxError,
    "exit": SystemExit,
    "no attribute": AttributeError,
}


def _good() -> tuple[Distribution, Distribution]:
    """One before and one after `broken`, in the order of loading."""
    return (
        single("another", "module_first:handler", module_first=source("another")),
        single("last", "module_last:handler", module_last=source("last")),
    )


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_entry_point_is_an_error_that_names_it_its_distribution_and_the_cause(
    install: Install, case: str
) -> None:
    broken, expected, texts = BROKEN[case]
    install(broken, *_good())
    proc = Processor()
    proc.register(lambda proc, ev: ev.ctxt.append("before"), "before")
    with pytest.raises(EntryPointException) as caught:
        proc.load_from(GROUP)
    assert type(caught.value) is expected
    for text in (
        "entry point 'broken'",
        f"group '{GROUP}'",
        "distribution 'dist-broken' 1.0",
        *texts,
    ):
        assert text in str(caught.value)
    assert (caught.value.group, caught.value.entry_point) == (GROUP, "broken")
    assert type(caught.value.__cause__) is CAUSES.get(case, TypeError)
    # nothing was registered, not even what came before it
    assert unchanged(proc, ("before",))


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_entry_point_can_be_skipped_with_a_warning_in_the_log(
    install: Install, case: str, caplog: pytest.LogCaptureFixture
) -> None:
    broken, _, texts = BROKEN[case]
    install(broken, *_good())
    proc = Processor()
    with caplog.at_level(logging.WARNING, logger="evproc"):
        assert proc.load_from(GROUP, on_error="skip") == ("another", "last")
    [record] = caplog.records
    assert (record.name, record.levelno) == ("evproc", logging.WARNING)
    assert record.getMessage().startswith("skipped: entry point 'broken'")
    assert texts[-1] in record.getMessage()
    assert unchanged(proc, ("another", "last"))


def test_a_callable_is_given_each_error_and_goes_on_by_returning(install: Install) -> None:
    broken = [
        Distribution(f"dist-{name}", {}, {GROUP: {name: f"no_module_{name}:handler"}})
        for name in ("b", "z")
    ]
    install(*broken, *_good())
    given: list[EntryPointException] = []
    proc = Processor()
    assert proc.load_from(GROUP, on_error=given.append) == ("another", "last")
    assert [type(error) for error in given] == [EntryPointLoadException] * 2
    assert [error.entry_point for error in given] == ["b", "z"]


def test_a_callable_stops_the_loading_by_raising(install: Install) -> None:
    install(BROKEN["import error"][0], *_good())

    def give_up(error: EntryPointException) -> None:
        raise LookupError("enough") from error

    proc = Processor()
    with pytest.raises(LookupError, match="enough"):
        proc.load_from(GROUP, on_error=give_up)
    assert unchanged(proc)


def test_ctrl_c_during_an_import_is_not_taken_for_a_broken_entry_point(install: Install) -> None:
    install(single("slow", "module_s:handler", module_s="raise KeyboardInterrupt"))
    proc = Processor()
    with pytest.raises(KeyboardInterrupt):
        proc.load_from(GROUP, on_error="skip")
    assert unchanged(proc)


@pytest.mark.parametrize("on_error", ["ignore", None, 5, True])
def test_on_error_is_one_of_two_words_or_a_callable(install: Install, on_error: Any) -> None:
    install(*_good())
    proc = Processor()
    with pytest.raises(TypeError, match="on_error is 'raise', 'skip' or a callable, not"):
        proc.load_from(GROUP, on_error=on_error)
    assert unchanged(proc)


@pytest.mark.parametrize("group", [None, 5, b"group", ["group"]], ids=repr)
def test_a_group_is_a_string(group: Any) -> None:
    with pytest.raises(TypeError, match="an entry-point group is a string, not"):
        Processor().load_from(group)


def test_a_group_that_does_not_exist_is_an_error_with_what_may_have_been_meant(
    install: Install,
) -> None:
    install(*_good())
    proc = Processor()
    with pytest.raises(EntryPointGroupException) as caught:
        proc.load_from("evproc.tests.handler")
    text = str(caught.value)
    assert "no installed distribution has an entry point in group 'evproc.tests.handler'" in text
    assert f"there is '{GROUP}'" in text
    assert (caught.value.group, caught.value.entry_point) == ("evproc.tests.handler", None)
    assert unchanged(proc)


def test_a_group_that_resembles_no_other_is_an_error_without_a_suggestion(
    install: Install,
) -> None:
    install(*_good())
    with pytest.raises(EntryPointGroupException) as caught:
        Processor().load_from("0123456789")
    assert "group '0123456789': install" in str(caught.value)


def test_a_group_that_does_not_exist_can_be_skipped(
    install: Install, caplog: pytest.LogCaptureFixture
) -> None:
    proc = Processor()
    with caplog.at_level(logging.WARNING, logger="evproc"):
        assert proc.load_from("evproc.tests.nothing", on_error="skip") == ()
    assert "skipped: no installed distribution" in caplog.text
    given: list[EntryPointException] = []
    assert proc.load_from("evproc.tests.nothing", on_error=given.append) == ()
    assert [type(error) for error in given] == [EntryPointGroupException]


def _claimants() -> list[Distribution]:
    return [
        Distribution(
            f"dist-{name}",
            {f"module_{name}": source(name)},
            {GROUP: {"same": f"module_{name}:handler"}},
        )
        for name in ("one", "two")
    ]


@pytest.mark.parametrize("turned", [False, True])
def test_two_distributions_that_claim_one_name_are_an_error_naming_both(
    install: Install, turned: bool
) -> None:
    for distribution in reversed(_claimants()) if turned else _claimants():
        install(distribution)
    install(*_good())
    proc = Processor()
    with pytest.raises(EntryPointConflictException) as caught:
        proc.load_from(GROUP)
    text = str(caught.value)
    assert f"entry point 'same' of group '{GROUP}' is claimed twice" in text
    # in the same order, wherever they are
    assert "by distribution 'dist-one' 1.0 and by distribution 'dist-two' 1.0" in text
    assert (caught.value.group, caught.value.entry_point) == (GROUP, "same")
    assert isinstance(caught.value, ProcessorReregisterException)
    assert unchanged(proc)


@pytest.mark.parametrize("turned", [False, True])
def test_of_two_distributions_that_claim_one_name_the_first_by_name_is_kept_when_skipped(
    install: Install, turned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    for distribution in reversed(_claimants()) if turned else _claimants():
        install(distribution)
    proc = Processor()
    with caplog.at_level(logging.WARNING, logger="evproc"):
        assert proc.load_from(GROUP, on_error="skip") == ("same",)
    assert "claimed twice" in caplog.text
    assert calls(proc) == ["one"]


def test_a_name_that_is_registered_already_is_an_error_and_nothing_is_registered(
    install: Install,
) -> None:
    install(*_good())
    proc = Processor()
    proc.register(lambda proc, ev: ev.ctxt.append("last"), "last")
    with pytest.raises(ProcessorReregisterException, match="'last' has already been registered"):
        proc.load_from(GROUP)
    assert unchanged(proc, ("last",))
    # not even where errors of entry points are skipped: it is none
    with pytest.raises(ProcessorReregisterException):
        proc.load_from(GROUP, on_error="skip")
    assert unchanged(proc, ("last",))


def test_loading_a_group_twice_is_an_error(install: Install) -> None:
    install(*_good())
    proc = Processor()
    proc.load_from(GROUP)
    with pytest.raises(ProcessorReregisterException, match="'another'"):
        proc.load_from(GROUP)
    assert unchanged(proc, ("another", "last"))


def test_an_entry_point_of_a_distribution_without_metadata_is_loaded_or_an_error_of_its_own(
    install: Install,
) -> None:
    # what is left where an uninstallation was interrupted
    folder = install(BROKEN["import error"][0], *_good())
    remains = single("last", "module_last:handler")
    (folder / remains.dist_info / "METADATA").unlink()
    proc = Processor()
    names = proc.load_from(GROUP, on_error="skip")
    assert names in (("another", "last"), ("another",))
    assert unchanged(proc, names)


def test_an_entry_point_that_knows_no_distribution_is_from_an_unnamed_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def entry_points(**params: str) -> list[importlib_metadata.EntryPoint]:
        return [importlib_metadata.EntryPoint("made up", "no_such_module:handler", GROUP)]

    # there is no way to install one
    monkeypatch.setattr(importlib_metadata, "entry_points", entry_points)
    with pytest.raises(EntryPointLoadException, match="from an unnamed distribution, cannot"):
        load_group(GROUP)
