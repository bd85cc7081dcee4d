"""The command that all applications share: run a suite, print it, write JSON and a picture."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import pkgutil
import signal
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import benchmarks.applications
from benchmarks.applications.report import Part, Report
from benchmarks.machine import describe_machine
from benchmarks.model import BenchmarkError, Settings

#: The extra that has all of what applications import.
EXTRA: Final = "applications"


@dataclass(frozen=True, slots=True)
class Application:
    """A suite: `NAME/suite.py` has one as `APPLICATION`.

    Attributes:
        name: That of the folder.
        title: One line that says what is measured.
        measure: Yields the parts of the report. What it opens it closes, also when it is closed
            early itself. The first argument is whether it is to be quick: small inputs, figures
            that mean nothing.
        draw: Draws the report into a file, or None.
        repeats: Samples per figure.
    """

    name: str
    title: str
    measure: Callable[[bool, Settings], Generator[Part, None, None]]
    draw: Callable[[Report, Path], None] | None = None
    repeats: int = 5


def find(name: str) -> Application:
    """Import the suite of an application.

    Raises:
        BenchmarkError: Something that it imports is not installed.
    """
    module = f"{benchmarks.applications.__name__}.{name}.suite"
    try:
        application: Application = importlib.import_module(module).APPLICATION
    except ImportError as error:
        raise BenchmarkError(
            f"{name} needs {error.name}, which the extra {EXTRA!r} has: pip install"
            f" 'evproc-pool[{EXTRA}]'"
        ) from error
    return application


def names() -> list[str]:
    """The applications that there are."""
    found = pkgutil.iter_modules(benchmarks.applications.__path__)
    return [each.name for each in found if each.ispkg]


def main(arguments: Sequence[str] | None = None, only: str | None = None) -> int:
    """Run the command.

    Args:
        arguments: Those of the command line; None: `sys.argv`.
        only: The one application that is run, if no names are to be given.

    Returns:
        The exit status: 0; 1 if a result was wrong, or `--check` was given and a bar was missed;
        2 if an application cannot be run as asked. The others are run nevertheless.
    """
    # a job in the background may ignore Ctrl-C; the programs that are tried must not inherit that
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    parser = _parser(only)
    options = parser.parse_args(arguments)
    chosen = [only] if only is not None else options.names or names()
    unknown = [name for name in chosen if name not in names()]
    if unknown:
        parser.error(f"there is no application {unknown[0]!r}: there is {', '.join(names())}")
    if len(chosen) > 1 and (options.json or options.plot):
        parser.error("--json and --plot are for one application: name it")
    status = 0
    for name in chosen:
        try:
            report = _measure(find(name), options)
        except BenchmarkError as error:
            print(f"benchmarks: {error}", file=sys.stderr)
            status = 2
        else:
            wrong = not report.all_holds or (options.check and report.missed)
            status = max(status, 1 if wrong else 0)
    return status


def _parser(only: str | None) -> argparse.ArgumentParser:
    module = f"benchmarks.applications.{only}" if only else "benchmarks.applications"
    parser = argparse.ArgumentParser(
        prog=f"python -m {module}", description="Run real programs on the pool, beside others."
    )
    if only is None:
        parser.add_argument(
            "names", nargs="*", metavar="NAME", help=f"of {', '.join(names())} (default: all)"
        )
    parser.add_argument("--repeats", type=int, metavar="N", help="samples per figure")
    parser.add_argument(
        "--quick", action="store_true", help="small inputs: shows that it works, measures nothing"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything to FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the times, as SVG")
    parser.add_argument(
        "--check", action="store_true", help="exit with status 1 if a bar is missed"
    )
    return parser


def _measure(application: Application, options: argparse.Namespace) -> Report:
    repeats = options.repeats or (2 if options.quick else application.repeats)
    settings = dataclasses.replace(Settings(), repeats=repeats, turns=1, min_seconds=0)
    report = Report(application.name, application.title, settings)
    machine, when = describe_machine(), datetime.now(UTC).isoformat(timespec="seconds")
    with closing(application.measure(options.quick, settings)) as parts:
        for part in parts:
            report.parts.append(part)
            # the tables are printed as a whole; this takes minutes
            print(f"{application.name}: {type(part).__name__.lower()}", file=sys.stderr)
    print(report.text())
    if options.json is not None:
        text = json.dumps(report.data(machine, when), indent=1, ensure_ascii=False)
        options.json.write_text(text + "\n", encoding="utf-8")
    if options.plot is not None and application.draw is not None:
        application.draw(report, options.plot)
        print(f"plot: {options.plot}")
    return report
