from __future__ import annotations

import importlib
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evproc import Event, Processor, StopProcessing
from evproc_pool.demo import handlers, survey
from evproc_pool.demo.events import (
    BadFile,
    ComplexFunction,
    ComplexFunctions,
    CycleCandidates,
    FileReport,
    Function,
    Module,
    Settings,
    SourceFile,
)
from evproc_pool.demo.metrics import Coverage, Imports
from tests.evproc_pool.demo.conftest import COMPLEX

Write = Callable[[str, "str | bytes"], Path]

SETTINGS = Settings(top=3, complexity=5)
PROCESSOR = Processor()

TANGLE = Function("tangle", 4, 12, 9, 4)
METHOD = Function("Plain.method", 19, 2, 1, 0)


@pytest.fixture(scope="module")
def processor() -> Processor:
    made = Processor()
    made.load_from(survey.GROUP)
    return made


def stopped_with(handler: Callable[[Any, Any], Any], event: Event) -> Any:
    with pytest.raises(StopProcessing) as raised:
        handler(PROCESSOR, event)
    return raised.value.retval


def looked_at(path: Path, *names: str) -> SourceFile:
    """An event as some handlers leave it."""
    event = SourceFile(str(path), SETTINGS)
    for name in names:
        getattr(handlers, name)(PROCESSOR, event)
    return event


def first_report(path: Path) -> FileReport:
    event = looked_at(path, "read", "parse", "tokenize_source", "measure", "docstrings", "imports")
    try:
        (follow_up,) = handlers.report(PROCESSOR, event)
    except StopProcessing as stop:
        return cast_report(stop.retval)
    assert isinstance(follow_up, ComplexFunctions | CycleCandidates)
    return follow_up.report


def cast_report(value: object) -> FileReport:
    assert isinstance(value, FileReport)
    return value


# --- the plan ---


def test_every_entry_point_is_a_handler(processor: Processor) -> None:
    assert sorted(processor.nodes) == [
        "confirm",
        "docstrings",
        "imports",
        "measure",
        "parse",
        "read",
        "report",
        "tokenize",
        "weigh",
    ]
    report = processor.check()
    assert report.absences == ()
    assert report.conflicts == ()


def test_a_file_is_read_before_it_is_parsed_and_reported_last(processor: Processor) -> None:
    order = processor.explain(SourceFile("a.py", SETTINGS)).order
    assert order[:2] == ("read", "parse")
    assert sorted(order[2:-1]) == ["docstrings", "imports", "measure", "tokenize"]
    assert order[-1] == "report"


def test_follow_ups_have_shorter_plans(processor: Processor, good_tree: Path) -> None:
    report = first_report(good_tree / "tangled.py")
    assert processor.explain(ComplexFunctions(report, SETTINGS)).order == ("read", "parse", "weigh")
    assert processor.explain(CycleCandidates(report, SETTINGS)).order == ("confirm",)


def test_no_filter_runs_in_the_coordinator(processor: Processor) -> None:
    for handler in processor.nodes.values():
        assert all(clause.names and not clause.filters for clause in handler.clauses)


# --- each handler ---


def test_read(good_tree: Path) -> None:
    event = looked_at(good_tree / "tangled.py", "read")
    assert event.proc.read.source == (COMPLEX, len(COMPLEX))


def test_read_stops_at_what_cannot_be_read(bad_tree: Path) -> None:
    path = str(bad_tree / "bad" / "dangling.py")
    value = stopped_with(handlers.read, SourceFile(path, SETTINGS))
    assert value == BadFile(path, "cannot be read: No such file or directory")


def test_read_stops_at_what_is_too_large(good_tree: Path) -> None:
    path = str(good_tree / "tangled.py")
    value = stopped_with(handlers.read, SourceFile(path, Settings(max_bytes=9)))
    assert value == BadFile(path, "too large: more than 9 bytes")


def test_parse(good_tree: Path) -> None:
    event = looked_at(good_tree / "tangled.py", "read", "parse")
    assert len(event.proc.parse.tree.body) == 3


def test_parse_stops_at_what_is_not_python(bad_tree: Path) -> None:
    event = looked_at(bad_tree / "bad" / "indent.py", "read")
    value = stopped_with(handlers.parse, event)
    assert value.path == event.path
    assert re.match("cannot be parsed: line 2: ", value.reason)


def test_tokenize(good_tree: Path) -> None:
    event = looked_at(good_tree / "tangled.py", "read", "tokenize_source")
    assert event.proc.tokenize.size[:3] == (20, 16, 0)


def test_tokenize_stops_at_what_has_no_tokens(write: Write) -> None:
    event = looked_at(write("a.py", "f(\n"), "read")
    value = stopped_with(handlers.tokenize_source, event)
    assert value.reason.startswith("cannot be tokenized: ")


def test_measure(good_tree: Path) -> None:
    event = looked_at(good_tree / "tangled.py", "read", "parse", "measure")
    assert event.proc.measure.functions == [TANGLE, METHOD]
    assert event.proc.measure.classes == 1


def test_docstrings(good_tree: Path) -> None:
    event = looked_at(good_tree / "tangled.py", "read", "parse", "docstrings")
    assert event.proc.docstrings.coverage == Coverage(public=4, documented=2)


def test_imports_finds_siblings_that_mention_the_module(good_tree: Path) -> None:
    event = looked_at(good_tree / "pkg" / "two.py", "read", "parse", "imports")
    assert event.proc.imports.module.name == "pkg.two"
    assert event.proc.imports.candidates == (
        Module("pkg.one", "pkg", str(good_tree / "pkg" / "one.py")),
    )
    assert isinstance(event.proc.imports.found, Imports)


def test_report_ends_the_cascade_of_a_file_without_suspicion(good_tree: Path) -> None:
    event = looked_at(
        good_tree / "pkg" / "__init__.py",
        *("read", "parse", "tokenize_source", "measure", "docstrings", "imports"),
    )
    assert stopped_with(handlers.report, event) == FileReport(
        path=event.path,
        module="pkg",
        size_bytes=17,
        lines=1,
        code_lines=1,
        comment_lines=0,
        tokens=1,
        classes=0,
        functions=0,
        too_complex=0,
        worst=(),
        public=1,
        documented=1,
        imports=0,
        deferred_imports=0,
        candidates=(),
    )


def test_weigh_looks_at_the_complex_functions_only(good_tree: Path) -> None:
    report = first_report(good_tree / "tangled.py")
    assert (report.too_complex, report.worst) == (1, (TANGLE, METHOD))
    event = ComplexFunctions(report, SETTINGS)
    handlers.read(PROCESSOR, event)
    handlers.parse(PROCESSOR, event)
    # for 1, if 2, while 3, and 1, if 4, elif 1, else 1
    found = ComplexFunction(TANGLE, 13, "for > if > while > if", 9)
    assert stopped_with(handlers.weigh, event) == report._replace(complex=(found,))
    assert event.report.complex == ()


def test_weigh_goes_on_to_the_imports(good_tree: Path) -> None:
    report = first_report(good_tree / "tangled.py")
    report = report._replace(candidates=(Module("x", "", "x.py"),))
    event = ComplexFunctions(report, SETTINGS)
    handlers.read(PROCESSOR, event)
    handlers.parse(PROCESSOR, event)
    (follow_up,) = handlers.weigh(PROCESSOR, event)
    assert isinstance(follow_up, CycleCandidates)
    assert len(follow_up.report.complex) == 1


def test_weigh_finds_nothing_in_a_file_that_has_changed(good_tree: Path) -> None:
    report = first_report(good_tree / "tangled.py")
    (good_tree / "tangled.py").write_text("a = 1\n")
    event = ComplexFunctions(report, SETTINGS)
    handlers.read(PROCESSOR, event)
    handlers.parse(PROCESSOR, event)
    assert stopped_with(handlers.weigh, event) == report


def test_a_file_that_vanishes_before_its_second_look_is_a_bad_file(good_tree: Path) -> None:
    report = first_report(good_tree / "tangled.py")
    (good_tree / "tangled.py").unlink()
    value = stopped_with(handlers.read, ComplexFunctions(report, SETTINGS))
    assert value == BadFile(report.path, "cannot be read: No such file or directory")


# --- import cycles ---


@pytest.mark.parametrize(
    ("ours", "theirs", "cycle"),
    [
        # in a package
        ("import pkg.b", "import pkg.a", True),
        ("from pkg import b", "from . import a", True),
        ("from .b import x", "from pkg.a import y", True),
        ("import pkg.b.c", "from .a import y", True),
        ("try:\n    from . import b\nexcept ImportError: pass", "from . import a", True),
        ("from . import b", "def f():\n    from . import a", False),
        ("from . import b", "if TYPE_CHECKING:\n    from . import a", False),
        ("from . import b", "a = 1", False),
        ("from . import b", "import a", False),
        ("from . import b", "import pkg.a.b(", False),
        ("def f():\n    from . import b", "from . import a", False),
        ("import b", "from . import a", False),
        ("import pkgs.b", "from . import a", False),
        ("from . import c", "from . import a", False),
        ("import pkg.a", "", False),
    ],
)
def test_import_cycles_in_a_package(
    write: Write, processor: Processor, ours: str, theirs: str, cycle: bool
) -> None:
    write("pkg/__init__.py", "c = 1\n")
    write("pkg/b.py", theirs + "\n")
    report = cast_report(
        processor.process(SourceFile(str(write("pkg/a.py", ours + "\n")), SETTINGS))
    )
    assert report.cycles == (("pkg.b",) if cycle else ())


@pytest.mark.parametrize(
    ("init", "module", "cycle"),
    [
        ("from . import a", "from . import name", True),
        ("from .a import *", "from pkg import name", True),
        ("import pkg.a", "import pkg", True),
        # which imports a sibling by way of the package, and nothing that it defines
        ("from . import a", "from . import b", False),
        ("from . import a", "import pkg.b", False),
        ("a = 1", "from . import name", False),
    ],
)
def test_import_cycles_with_the_package_itself(
    write: Write, processor: Processor, init: str, module: str, cycle: bool
) -> None:
    package = write("pkg/__init__.py", init + "\n")
    ours = write("pkg/a.py", module + "\n")
    write("pkg/b.py", "")
    from_package = cast_report(processor.process(SourceFile(str(package), SETTINGS)))
    from_module = cast_report(processor.process(SourceFile(str(ours), SETTINGS)))
    assert from_package.cycles == (("pkg.a",) if cycle else ())
    assert from_module.cycles == (("pkg",) if cycle else ())


def test_import_cycles_of_modules_without_a_package(write: Write, processor: Processor) -> None:
    ours = write("a.py", "import b, json, os.path\nfrom c import x\n")
    write("b.py", "from a import x\n")
    write("c/__init__.py", "import a\n")
    report = cast_report(processor.process(SourceFile(str(ours), SETTINGS)))
    assert report.cycles == ("b", "c")


def test_a_sibling_that_cannot_be_read_is_no_candidate(write: Write) -> None:
    ours = write("a.py", "import b\n")
    write("b.py", "import a\n" + "#" * 100)
    event = SourceFile(str(ours), Settings(max_bytes=50))
    for handler in (handlers.read, handlers.parse, handlers.imports):
        handler(PROCESSOR, event)
    assert event.proc.imports.candidates == ()


# --- what crosses from process to process ---


def test_events_and_reports_pickle(good_tree: Path) -> None:
    report = first_report(good_tree / "tangled.py")
    for event in (
        SourceFile("a.py", SETTINGS),
        ComplexFunctions(report, SETTINGS),
        CycleCandidates(report, SETTINGS),
    ):
        again = pickle.loads(pickle.dumps(event))
        assert type(again) is type(event)
        assert vars(again) == vars(event)
        assert (again.name, again.path) == (event.name, event.path)


def test_reports_are_small(processor: Processor) -> None:
    # two large modules of the standard library, with the default settings
    for name in ("argparse", "typing"):
        path = importlib.import_module(name).__file__
        assert path is not None
        report = processor.process(SourceFile(path, Settings()))
        assert isinstance(report, FileReport)
        assert len(pickle.dumps(report)) < 4_000
