from __future__ import annotations

import sys
from pathlib import Path

import pytest

from evproc_pool.demo import findings
from evproc_pool.demo.events import (
    BadFile,
    ComplexFunction,
    FileReport,
    Finding,
    Function,
    Module,
    Settings,
)
from evproc_pool.demo.findings import Table

ROOT = str(Path("/src").absolute())


def report(name: str, *functions: Function, **fields: object) -> FileReport:
    made = FileReport(
        path=str(Path(ROOT, name)),
        module=name.removesuffix(".py").removesuffix("/__init__").replace("/", "."),
        size_bytes=100,
        lines=10,
        code_lines=8,
        comment_lines=1,
        tokens=1_000,
        classes=0,
        functions=len(functions),
        too_complex=0,
        worst=functions,
        public=10,
        documented=5,
        imports=2,
        deferred_imports=1,
        candidates=(),
    )
    return made._replace(**fields)  # type: ignore[arg-type]  # fields of any kind


def made(found: list[Finding], top: int = 2) -> dict[str, Table]:
    tables = findings.tables(found, Settings(top=top, complexity=15))
    return {table.title.split(" (")[0].split(":")[0]: table for table in tables}


def test_the_most_complex_functions_come_first() -> None:
    a, b, c = Function("a", 7, 1, 20, 1), Function("b", 7, 1, 30, 1), Function("c", 7, 1, 20, 1)
    found: list[Finding] = [
        report(
            "one.py",
            complex=(ComplexFunction(a, 5, "if > for", 9), ComplexFunction(b, 0, "", 7)),
            too_complex=2,
        ),
        report("two.py", complex=(ComplexFunction(c, 6, "while", 8),), too_complex=3),
    ]
    table = made(found)["Most complex functions"]
    assert table.title == "Most complex functions (complexity above 15: 5)"
    assert table.rows == [
        ("30", "0", "b", "one.py:7", ""),
        ("20", "6", "c", "two.py:7", "while (line 8)"),
    ]


def test_the_longest_and_deepest_functions_whatever_the_order_of_the_files() -> None:
    first = report("a.py", Function("f", 1, 50, 1, 1), Function("g", 60, 9, 1, 4))
    second = report("b.py", Function("h", 1, 50, 1, 1))
    for found in ([first, second], [second, first]):
        tables = made([*found])
        assert tables["Longest functions"].rows == [("50", "f", "a.py:1"), ("50", "h", "b.py:1")]
        assert tables["Most deeply nested functions"].rows == [
            ("4", "g", "a.py:60"),
            ("1", "f", "a.py:1"),
        ]


def test_a_cycle_is_listed_once() -> None:
    candidates = (Module("p.b", "p", "b.py"), Module("p.c", "p", "c.py"))
    found: list[Finding] = [
        report("p/a.py", cycles=("p.b",), candidates=candidates),
        report("p/b.py", cycles=("p.a",), candidates=candidates[:1]),
        report("p/c.py", cycles=("p.d", "p.e")),
    ]
    table = made(found)["Import cycles between siblings"]
    assert table.title.endswith("(3; candidates: 3)")
    assert table.rows == [("p.a", "p.b"), ("p.c", "p.d"), ("", "... and 1 more")]


def test_coverage_is_by_outermost_package() -> None:
    found: list[Finding] = [
        report("p/__init__.py", public=1, documented=1),
        report("p/sub/deep.py", public=19, documented=4),
        report("q/__init__.py", public=9, documented=0),
        report("single.py", public=6, documented=6),
        report("other.py", public=5, documented=5),
    ]
    table = made(found)["Docstring coverage"]
    assert table.title.startswith("Docstring coverage: 40.0%; ")
    assert table.rows == [
        ("25.0%", "5", "20", "p"),
        ("100.0%", "11", "11", "(single modules)"),
    ]


def test_bad_files_and_totals() -> None:
    bad = [BadFile(str(Path(ROOT, name)), "why") for name in ("z.py", "x/y.py", "a.py")]
    tables = made([*bad, report("b.py"), report("c.py")])
    assert tables["Files that could not be surveyed"].rows == [
        ("a.py", "why"),
        (str(Path("x/y.py")), "why"),
        ("", "... and 1 more"),
    ]
    assert tables["Totals"].rows[:3] == [
        ("files that could not be surveyed", "3"),
        ("files surveyed", "2"),
        ("bytes", "200"),
    ]
    assert ("tokens", "2,000") in tables["Totals"].rows


def test_nothing_but_bad_files() -> None:
    tables = made([BadFile(str(Path(ROOT, "a.py")), "why")])
    assert tables["Docstring coverage"].title.startswith("Docstring coverage: -;")
    assert tables["Docstring coverage"].rows == []


@pytest.mark.skipif(sys.platform != "win32", reason="only Windows has drives")
def test_files_on_several_drives_have_no_folder_in_common() -> None:
    assert findings.common_folder(["C:\\a\\b.py", "D:\\a\\b.py"]) == ""


def test_paths_stay_whole_without_a_common_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def several_drives(paths: list[str]) -> str:
        raise ValueError("Paths don't have the same drive")

    monkeypatch.setattr("os.path.commonpath", several_drives)
    rows = made([BadFile("/a/b.py", "why")])["Files that could not be surveyed"].rows
    assert rows == [("/a/b.py", "why")]
