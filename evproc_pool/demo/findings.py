"""From one finding per file to the tables that a person reads."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter
from pathlib import PurePath
from typing import Final, NamedTuple

from evproc_pool.demo.events import (
    BadFile,
    ComplexFunction,
    FileReport,
    Finding,
    Function,
    Settings,
)

# With fewer public definitions than this a package's coverage says little.
_FEW: Final = 10

_NO_PACKAGE: Final = "(single modules)"


class Table(NamedTuple):
    """A table of text.

    Attributes:
        title: What it shows.
        columns: The heads; those of columns of numbers begin with ``>``.
        rows: As many cells as there are columns.
    """

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]


def tables(findings: Sequence[Finding], settings: Settings) -> list[Table]:
    """Make all tables.

    Args:
        findings: One for each file, in any order.
        settings: What the survey was made with. No table shows more than `top` rows:
            of more functions of one file the reports do not tell.
    """
    top = settings.top
    # by path, so that what the tables show does not depend on the order of the run
    reports = sorted(each for each in findings if isinstance(each, FileReport))
    bad_files = sorted(each for each in findings if isinstance(each, BadFile))
    short = _shortener([each.path for each in findings])
    return [
        _most_complex(reports, settings, short),
        _worst(reports, top, "Longest functions", "lines", short),
        _worst(reports, top, "Most deeply nested functions", "nesting", short),
        _cycles(reports, top),
        _coverage(reports, top),
        _bad_files(bad_files, top, short),
        _totals(reports, bad_files),
    ]


class _Shortener(NamedTuple):
    """Makes paths relative to the folder that they have in common."""

    root: str

    def __call__(self, path: str, line: int | None = None) -> str:
        if self.root:
            path = str(PurePath(path).relative_to(self.root))
        return path if line is None else f"{path}:{line}"


def _shortener(paths: Sequence[str]) -> _Shortener:
    return _Shortener(common_folder(paths))


def common_folder(paths: Iterable[str]) -> str:
    """The folder that all files are below; empty if they are on several drives."""
    try:
        return os.path.commonpath([PurePath(path).parent for path in paths])
    except ValueError:
        return ""


def _most_complex(reports: Sequence[FileReport], settings: Settings, short: _Shortener) -> Table:
    found: list[tuple[ComplexFunction, FileReport]] = [
        (each, report) for report in reports for each in report.complex
    ]
    found.sort(key=lambda pair: (-pair[0].function.complexity, -pair[0].cognitive))
    count = sum(report.too_complex for report in reports)
    return Table(
        f"Most complex functions (complexity above {settings.complexity}: {count:,})",
        (">complexity", ">cognitive", "function", "place", "hardest to read"),
        [
            (
                f"{each.function.complexity:,}",
                f"{each.cognitive:,}",
                each.function.name,
                short(report.path, each.function.line),
                f"{each.branch} (line {each.branch_line})" if each.branch else "",
            )
            for each, report in found[: settings.top]
        ],
    )


def _worst(
    reports: Sequence[FileReport], top: int, title: str, figure: str, short: _Shortener
) -> Table:
    found: list[tuple[Function, FileReport]] = [
        (each, report) for report in reports for each in report.worst
    ]
    value = attrgetter(figure)
    found.sort(key=lambda pair: -value(pair[0]))
    return Table(
        title,
        (f">{figure}", "function", "place"),
        [
            (f"{value(each):,}", each.name, short(report.path, each.line))
            for each, report in found[:top]
        ],
    )


def _cycles(reports: Sequence[FileReport], top: int) -> Table:
    candidates = sum(len(report.candidates) for report in reports)
    # a cycle is found from either end
    pairs = sorted(
        {
            (min(report.module, other), max(report.module, other))
            for report in reports
            for other in report.cycles
        }
    )
    return Table(
        f"Import cycles between siblings ({len(pairs):,}; candidates: {candidates:,})",
        ("module", "imports, and is imported by"),
        _cut([*pairs], top),
    )


def _coverage(reports: Sequence[FileReport], top: int) -> Table:
    public: dict[str, int] = {}
    documented: dict[str, int] = {}
    for report in reports:
        package = _outermost_package(report)
        public[package] = public.get(package, 0) + report.public
        documented[package] = documented.get(package, 0) + report.documented
    enough = [package for package, count in public.items() if count >= _FEW]
    enough.sort(key=lambda package: (documented[package] / public[package], package))
    return Table(
        f"Docstring coverage: {_percent(sum(documented.values()), sum(public.values()))};"
        f" the least documented packages ({_FEW} public definitions or more)",
        (">coverage", ">documented", ">public", "package"),
        _cut(
            [
                (
                    _percent(documented[package], public[package]),
                    f"{documented[package]:,}",
                    f"{public[package]:,}",
                    package,
                )
                for package in enough
            ],
            top,
        ),
    )


def _outermost_package(report: FileReport) -> str:
    package, dot, _ = report.module.partition(".")
    is_package = bool(dot) or PurePath(report.path).name == "__init__.py"
    return package if is_package else _NO_PACKAGE


def _bad_files(bad_files: Sequence[BadFile], top: int, short: _Shortener) -> Table:
    return Table(
        f"Files that could not be surveyed ({len(bad_files):,})",
        ("file", "reason"),
        _cut([(short(each.path), each.reason) for each in bad_files], top),
    )


def _totals(reports: Sequence[FileReport], bad_files: Sequence[BadFile]) -> Table:
    def rows() -> Iterator[tuple[str, int]]:
        yield "files that could not be surveyed", len(bad_files)
        yield "files surveyed", len(reports)
        for title, field in _TOTALS:
            yield title, sum(map(attrgetter(field), reports))

    return Table(
        "Totals", ("what", ">number"), [(title, f"{number:,}") for title, number in rows()]
    )


_TOTALS: Final = (
    ("bytes", "size_bytes"),
    ("lines", "lines"),
    ("lines of code", "code_lines"),
    ("lines with comments", "comment_lines"),
    ("tokens", "tokens"),
    ("classes", "classes"),
    ("functions", "functions"),
    ("functions that are too complex", "too_complex"),
    ("imports at the top level", "imports"),
    ("imports elsewhere", "deferred_imports"),
    ("public definitions", "public"),
    ("public definitions with a docstring", "documented"),
)


def _cut(rows: Sequence[tuple[str, ...]], top: int) -> list[tuple[str, ...]]:
    """The first rows, and how many there are besides."""
    shown = [*rows[:top]]
    if len(rows) > top:
        width = len(rows[0])
        shown.append((*[""] * (width - 1), f"... and {len(rows) - top:,} more"))
    return shown


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f}%" if whole else "-"
