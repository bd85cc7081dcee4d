"""The command: choose benchmarks, run them, print tables, write JSON, judge the bars."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from benchmarks.comparison import plots
from benchmarks.comparison import suite as comparison
from benchmarks.machine import describe_machine
from benchmarks.model import Benchmark, BenchmarkError, Note, Result, Row, Settings
from benchmarks.pool import suite as pool
from benchmarks.process import suite as process
from benchmarks.report import as_json, count_verdicts, render
from benchmarks.scale import suite as scale
from benchmarks.scheduler import suite as scheduler

#: Every benchmark by name, in the order in which they run.
BENCHMARKS: Final[Mapping[str, Benchmark]] = {
    each.name: each
    for each in (
        process.BENCHMARK,
        scheduler.BENCHMARK,
        scale.BENCHMARK,
        pool.BENCHMARK,
        comparison.BENCHMARK,
    )
}

_LIST: Final = "list"


def main(
    arguments: Sequence[str] | None = None, benchmarks: Mapping[str, Benchmark] = BENCHMARKS
) -> int:
    """Run the command.

    Args:
        arguments: Those of the command line, without the command; None: `sys.argv`.
        benchmarks: What there is to run, by name.

    Returns:
        The exit status: 0; 1 if `--check` was given and a bar was missed; 2 if a
        benchmark cannot be run as asked.

    Raises:
        SystemExit: The arguments make no sense (2), or help was asked for (0).
    """
    parser = _parser(benchmarks)
    options = parser.parse_args(arguments)
    if options.names == [_LIST]:
        for each in benchmarks.values():
            print(f"{each.name}: {each.title}")
        return 0
    unknown = [name for name in options.names if name not in benchmarks]
    if unknown:
        parser.error(f"there is no benchmark {unknown[0]!r}: there is {', '.join(benchmarks)}")
    # a name given twice runs once
    chosen = [benchmarks[name] for name in dict.fromkeys(options.names or benchmarks)]
    if options.plots is not None and comparison.BENCHMARK.name not in {x.name for x in chosen}:
        parser.error(f"--plots draws what {comparison.BENCHMARK.name!r} measures: run that, too")
    try:
        results = _run(chosen, options)
    except BenchmarkError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    missed = count_verdicts(results)["missed"]
    return 1 if options.check and missed else 0


def _parser(benchmarks: Mapping[str, Benchmark]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure the speed of evproc, as ratios against peers and limits.",
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"what to run: {', '.join(benchmarks)} (default: all); '{_LIST}' describes them",
    )
    parser.add_argument(
        "--repeats",
        type=_positive,
        metavar="N",
        help="samples per figure (default: "
        + ", ".join(f"{name} {each.defaults.repeats}" for name, each in benchmarks.items())
        + ")",
    )
    parser.add_argument(
        "--case",
        default="",
        metavar="TEXT",
        help="only the cases that have TEXT in their names",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="short samples and few of them: shows that it works, measures nothing",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything to FILE")
    parser.add_argument(
        "--plots", type=Path, metavar="DIR", help="draw what comparison measures, as SVG, into DIR"
    )
    parser.add_argument(
        "--check", action="store_true", help="exit with status 1 if a bar is missed"
    )
    parser.add_argument(
        "--with-020",
        action="store_true",
        help="install evproc 0.2.0 into a virtual environment in a temporary folder, once, unless"
        " EVPROC_020_PYTHON names an interpreter that has it",
    )
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"at least 1, not {number}")
    return number


def _settings(benchmark: Benchmark, options: argparse.Namespace) -> Settings:
    base = benchmark.quick if options.quick else benchmark.defaults
    return dataclasses.replace(
        base,
        repeats=options.repeats or base.repeats,
        with_020=options.with_020,
        case=options.case,
    )


def _run(benchmarks: Sequence[Benchmark], options: argparse.Namespace) -> list[Result]:
    """Run, print as results come in, and write them."""
    file: Path | None = options.json
    when = datetime.now(UTC).isoformat(timespec="seconds")
    machine = describe_machine()
    if file is not None:
        _prepare(file)
    if options.plots is not None:
        plots.check()
    print(_heading(machine))
    results = []
    for benchmark in benchmarks:
        result = _collect(benchmark, _settings(benchmark, options))
        if result.rows or not options.case:
            results.append(result)
            print(f"\n{render(result)}")
    if options.case and not results:
        raise BenchmarkError(f"no case has {options.case!r} in its name")
    verdicts = count_verdicts(results)
    print(
        f"\nbars: {verdicts['met']} met, {verdicts['missed']} missed,"
        f" {verdicts['not judged']} not judged"
    )
    data = as_json(results, machine, when)
    if file is not None:
        file.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if options.plots is not None:
        for picture in plots.draw(data, options.plots):
            print(f"plot: {picture}")
    return results


def _prepare(file: Path) -> None:
    """Find out now, rather than after a whole run, that it cannot be written."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.open("a").close()  # touch() is content with a folder
    except OSError as error:
        raise BenchmarkError(f"cannot write {file}: {error}") from error


def _collect(benchmark: Benchmark, settings: Settings) -> Result:
    rows: list[Row] = []
    notes: list[Note] = []
    with closing(benchmark.run(settings)) as items:
        for item in items:
            if isinstance(item, Note):
                notes.append(item)
                continue
            rows.append(item)
            if sys.stderr.isatty():
                # the table cannot be aligned before its last row is known
                print(f"{benchmark.name}: {item.case}: done", file=sys.stderr)
    return Result(benchmark, settings, tuple(rows), tuple(notes))


def _heading(machine: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    load = "" if machine["load_1min"] is None else f", load {machine['load_1min']:.2f}"
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['usable_cores']} usable{load};"
        f" {machine['system']}\n"
        f"{machine['python']}; {versions}\n"
        "bars are judged by the median of the repeats"
    )
