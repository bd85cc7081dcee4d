"""The command line: options in, tables and an exit status out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from psutil import cpu_percent

from evproc import EventException
from evproc_pool import PoolError
from evproc_pool.demo.events import BadFile, Settings
from evproc_pool.demo.findings import Table, common_folder, tables
from evproc_pool.demo.show import (
    counted,
    discard,
    print_tables,
    printable,
    progress,
    say,
    tolerate_any_text,
)
from evproc_pool.demo.sources import (
    Listing,
    SourceError,
    find_files,
    largest_first,
    standard_library,
)
from evproc_pool.demo.survey import (
    ExecutorError,
    Run,
    differences,
    events_for,
    run_pool,
    run_serial,
)

EQUAL: Final = 0
DIFFERENT: Final = 1
TROUBLE: Final = 2

# How many files of the standard library are surveyed by default: both runs take less than
# 15 s on two cores of a server, also while something else runs there.
_DEFAULT_LIMIT: Final = 200

# How long to look how busy the CPUs are, in seconds, and from how many percent on it matters.
_LOOK_SECONDS: Final = 0.3
_BUSY_PERCENT: Final = 25.0

# How many differences are listed, and how much of each.
_MOST_DIFFERENCES: Final = 20
_LONGEST_DIFFERENCE: Final = 300

_DESCRIPTION: Final = """\
Survey Python source code, once in this process and once in worker processes;
check that both find the same, say how much faster the workers were, and show
what was found. The verdict is printed first and last.
"""

_EPILOG: Final = """\
exit status:
  0    the survey was made; the runs, if there were two, found the same
  1    the runs found different things
  2    wrong arguments, or nothing to survey
  130  interrupted

examples:
  python -m evproc_pool.demo --all
  python -m evproc_pool.demo --limit 50
  python -m evproc_pool.demo --pool --workers 4 src tests
  python -m evproc_pool.demo --executor tcp://127.0.0.1:8786
  python -m evproc_pool.demo --executor ray
"""


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the demo.

    Args:
        arguments: What follows the program's name; by default that of this process.

    Returns:
        The exit status: 0, 1 if the runs differ, 2 for trouble.
    """
    tolerate_any_text()
    options = _options(arguments)
    settings = Settings(top=options.top, complexity=options.complexity)
    try:
        listing, found = _listing(options)
        _say_what_is_surveyed(listing, found)
        # a speed-up says little where others take the CPUs
        busy_percent = 0.0 if options.serial or options.pool else cpu_percent(_LOOK_SECONDS)
        runs = _runs(options, largest_first(listing.files), settings)
    except (SourceError, ExecutorError, EventException, PoolError) as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return TROUBLE
    differing = []
    if len(runs) == 2:
        say("compare: the findings of both runs", sys.stderr)
        differing = differences(*(run.findings for run in runs))
    try:
        _print(runs, listing.unlisted, [*_verdict(runs, differing, busy_percent)], settings)
        for line in _listed(differing):
            print(printable(line))
        sys.stdout.flush()
    except BrokenPipeError:
        # who reads has seen enough, and the exit status says the rest
        discard(sys.stdout)
    except OSError as error:  # such as a full disk
        discard(sys.stdout)
        print(f"error: cannot write the findings: {error.strerror}", file=sys.stderr)
        return TROUBLE
    return DIFFERENT if differing else EQUAL


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.executor is not None:
        if options.serial:
            parser.error("--serial runs in this process only, and --executor elsewhere")
        if options.workers == 0:
            parser.error("--workers 0 runs the pool in this process, and --executor elsewhere")
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m evproc_pool.demo",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "paths",
        nargs="*",
        metavar="PATH",
        help="a file, or a folder in which to look for *.py, hidden folders left out"
        " (default: the standard library of this Python)",
    )
    parser.add_argument(
        "--workers",
        type=_at_least(0),
        metavar="N",
        help="how many worker processes; 0 runs the pool in this process"
        " (default: as many as there are CPUs to use)",
    )
    parser.add_argument(
        "--executor",
        metavar="EXECUTOR",
        help="run the pool on a cluster: tcp://host:port is the scheduler of a Dask cluster, ray a"
        " Ray cluster (ray:host:port names one); its nodes must have the same Python files",
    )
    how_many = parser.add_mutually_exclusive_group()
    how_many.add_argument(
        "--limit",
        type=_at_least(1),
        metavar="N",
        help="survey the first N files only, by path"
        f" (default: {_DEFAULT_LIMIT} of the standard library, all of PATH)",
    )
    how_many.add_argument(
        "--all",
        action="store_true",
        help="survey every file; for the standard library this takes a minute or more",
    )
    parser.add_argument(
        "--top",
        type=_at_least(1),
        default=10,
        metavar="N",
        help="how many rows a table has at most (default: %(default)s)",
    )
    parser.add_argument(
        "--complexity",
        type=_at_least(1),
        default=15,
        metavar="N",
        help="look again at functions with a cyclomatic complexity above N (default: %(default)s)",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--serial", action="store_true", help="run in this process only")
    which.add_argument("--pool", action="store_true", help="run in worker processes only")
    return parser


def _at_least(least: int) -> Callable[[str], int]:
    """Make an argument type: a whole number that is not below `least`."""

    def whole_number(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
        if number < least:
            raise argparse.ArgumentTypeError(f"{number} is less than {least}")
        return number

    return whole_number


def _listing(options: argparse.Namespace) -> tuple[Listing, int]:
    """List the files to survey, and say how many were found."""
    limit = options.limit
    if options.paths:
        listing = find_files(options.paths)
    else:
        # what was installed into the interpreter is not its standard library
        skip = frozenset({"site-packages", "dist-packages"})
        listing = find_files([standard_library()], skip)
        if limit is None and not options.all:
            limit = _DEFAULT_LIMIT
    if not listing.files:
        where = ", ".join(options.paths) or standard_library()
        why = "".join(f"; {each.path} {each.reason}" for each in listing.unlisted)
        raise SourceError(f"no Python file found in {where}{why}")
    return listing._replace(files=listing.files[:limit]), len(listing.files)


def _say_what_is_surveyed(listing: Listing, found: int) -> None:
    chosen = len(listing.files)
    folder = printable(common_folder(listing.files)) or "several places"
    how_many = "all" if chosen == found else f"the first {chosen:,} of"
    hint = "" if chosen == found else " (--all surveys every one)"
    say(f"survey: {how_many} {found:,} Python files in {folder}{hint}", sys.stderr)


def _runs(options: argparse.Namespace, files: list[str], settings: Settings) -> list[Run]:
    """Make the runs that are asked for."""
    runs = []
    # The pool goes first: whatever the first run warms up for the second, such as
    # the file system's cache, must not make the pool look fast.
    if not options.serial:
        with progress("pool", len(files), sys.stderr) as advance:
            events = counted(events_for(files, settings), advance)
            runs.append(run_pool(files, events, options.workers, options.executor))
    if not options.pool:
        with progress("serial", len(files), sys.stderr) as advance:
            events = counted(events_for(files, settings), advance)
            runs.append(run_serial(files, events))
    return runs


def _print(
    runs: list[Run], unlisted: list[BadFile], verdict: list[str], settings: Settings
) -> None:
    findings = [*runs[0].findings, *unlisted]
    folder = common_folder(each.path for each in findings)
    # first, for those who read no further; last, where a terminal stands at the end
    if verdict:
        print("\n".join(verdict), end="\n\n")
    print(printable(f"Python files in {folder or 'several places'}"), end="\n\n")
    print_tables([*tables(findings, settings), _times(runs)], sys.stdout)
    for line in verdict:
        print(line)


def _times(runs: list[Run]) -> Table:
    return Table(
        "Runs",
        ("run", ">seconds", ">files per second"),
        [
            (run.title, f"{run.seconds:.2f}", f"{len(run.findings) / run.seconds:,.1f}")
            for run in runs
        ],
    )


def _verdict(runs: list[Run], differing: list[str], busy_percent: float) -> Iterator[str]:
    if len(runs) < 2:
        return
    pool, serial = runs
    yield f"speed-up: {serial.seconds / pool.seconds:.2f}"
    if busy_percent >= _BUSY_PERCENT:
        yield f"  (other programs kept {busy_percent:.0f} % of the CPUs busy before the runs)"
    if not differing:
        yield f"results: equal for all {len(pool.findings):,} files"
    else:
        yield f"results: DIFFERENT in {len(differing):,} places, listed last"


def _listed(differing: list[str]) -> Iterator[str]:
    for line in differing[:_MOST_DIFFERENCES]:
        yield f"  {_shortened(line)}"
    if len(differing) > _MOST_DIFFERENCES:
        yield f"  ... and {len(differing) - _MOST_DIFFERENCES:,} more"


def _shortened(line: str) -> str:
    return line if len(line) <= _LONGEST_DIFFERENCE else line[: _LONGEST_DIFFERENCE - 3] + "..."
