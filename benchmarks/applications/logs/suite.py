"""The benchmark of the log pipeline: equal results, times, faults, lines of glue."""

from __future__ import annotations

import dataclasses
import inspect
import tempfile
import textwrap
from collections.abc import Generator, Iterator
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks.applications import plots
from benchmarks.applications.command import Application
from benchmarks.applications.glue import lines_of_code, lines_of_files
from benchmarks.applications.logs import faults, generator, plugins, sides
from benchmarks.applications.report import Check, Part, Report, Table
from benchmarks.applications.sides import best, clocked, measure
from benchmarks.machine import package_versions
from benchmarks.model import Bar, Note, Row, Settings, ratio

_LINES: Final = 500_000
_QUICK_LINES: Final = 3_000
# For the search of chunk sizes: some seconds for each side.
_PART: Final = 5
_CHUNKS: Final = (64, 256, 1024, 4096, 16384)
_QUICK_CHUNKS: Final = (256,)

_FAULTY_LINES: Final = 5_000
# Who runs longer hangs: everything takes a second or two, and some more on a busy machine.
_LIMIT_SECONDS: Final = 40.0
_TIMEOUT_SECONDS: Final = 3.0

#: Throughput of at least the best peer's, without keys; of at least 0.9 of it with keys.
_BAR: Final = Bar("at least", 1.0)
_KEYS_BAR: Final = Bar("at least", 0.9)

# What there is to do, as the picture says it, too.
_LOG_LINES: Final = " JSON log lines to a result file"

WITHOUT_KEYS: Final = "without keys"
WITH_KEYS: Final = "with keys"
ONE_PROCESS: Final = "one process"


def run(quick: bool, settings: Settings) -> Generator[Part, None, None]:
    """See `Application.measure`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        log = folder / "log.jsonl"
        length = _QUICK_LINES if quick else _LINES
        generator.write_lines(log, length)
        yield Note(f"{length:,}{_LOG_LINES}")
        chunks = dict.fromkeys(sides.PEERS, _QUICK_CHUNKS[0])
        if not quick:
            part = folder / "part.jsonl"
            generator.write_lines(part, _LINES // _PART)
            chunks = _best_chunks(part, folder)
        jobs = {
            label: sides.Job(log, folder / f"{place}.out", chunks.get(label, 1))
            for place, label in enumerate(sides.SIDES)
        }
        correct = list(_correct(jobs))
        yield from correct
        # nothing is timed whose result is wrong
        if all(check.holds for check in correct):
            yield from _times(jobs, settings)
        yield _versions(chunks)
        # peers may hang until the limit, which is no use in a quick run
        tried = (sides.OURS,) if quick else faults.TRIED
        lines = _QUICK_LINES if quick else _FAULTY_LINES
        seen = faults.try_all(folder, lines, _LIMIT_SECONDS, _TIMEOUT_SECONDS, tried)
        yield from faults.checks(seen, lines)
        yield faults.table(seen, lines)
        yield count_lines()


def _correct(jobs: dict[str, sides.Job]) -> Iterator[Check]:
    """Run every side once, and compare its result with that of `Processor`."""
    for label, job in jobs.items():
        sides.SIDES[label](job)
        same = job.result.read_bytes() == jobs[sides.SERIAL].result.read_bytes()
        yield Check(f"{label}: the result is that of Processor, byte by byte", same)


def _best_chunks(log: Path, folder: Path) -> dict[str, int]:
    """Find the chunk size that is the fastest for each peer, of two tries each."""
    chunks = {}
    for label, side in sides.PEERS.items():
        tries = {
            chunk: clocked(partial(side, sides.Job(log, folder / "part.out", chunk)))
            for chunk in _CHUNKS
        }
        seconds = {chunk: min(sample(), sample()) for chunk, sample in tries.items()}
        chunks[label] = min(seconds, key=seconds.__getitem__)
    return chunks


def _times(jobs: dict[str, sides.Job], settings: Settings) -> Iterator[Row]:
    figures = measure(
        {label: partial(sides.SIDES[label], job) for label, job in jobs.items()}, settings.repeats
    )
    peer = best(figures, sides.PEERS)
    alone = (sides.PLAIN, sides.SERIAL)
    yield Row(ONE_PROCESS, tuple(figures[label] for label in alone))
    for case, ours, bar in (
        (WITHOUT_KEYS, (sides.OURS, sides.OURS_BLOCKS), _BAR),
        (WITH_KEYS, (sides.OURS_BY_USER, sides.OURS_PARTS), _KEYS_BAR),
    ):
        times = tuple(figures[label] for label in ours)
        if case == WITHOUT_KEYS:
            times += tuple(figures[label] for label in sides.PEERS)
        ratios = tuple(
            ratio(f"speed of {label} / {peer.name}", peer, figures[label], bar, better="larger")
            for label in ours
        )
        yield Row(case, times + ratios)


def _versions(chunks: dict[str, int]) -> Note:
    versions = package_versions(("joblib", "mpire"))
    named = ", ".join(f"{name} {version}" for name, version in versions.items())
    sizes = ", ".join(f"{label} {chunk}" for label, chunk in chunks.items())
    return Note(f"{named}; lines in a chunk, the best of {_CHUNKS}: {sizes}")


def count_lines() -> Table:
    """Count lines: of each side, and of the plug-ins."""
    sources = {label: inspect.getsource(side) for label, side in sides.SIDES.items()}
    rows = [
        (label, str(lines_of_code(textwrap.dedent(source)))) for label, source in sources.items()
    ]
    folder = Path(plugins.__file__).parent
    both = lines_of_files([folder / "plugins.py"])
    rows.append(("plug-ins, events of a line and of a block", str(both)))
    shared = lines_of_files([folder / "reading.py", folder / "sessions.py"])
    rows.append(("what all share: reading, sessions", str(shared)))
    return Table("lines of code", ("", "lines"), tuple(rows))


def draw(report: Report, picture: Path) -> None:
    """Draw the times.

    Raises:
        BenchmarkError: matplotlib is missing.
    """
    rows = {row.case: row for row in report.rows}
    figures = [
        dataclasses.replace(figure, bar=None)
        for row in rows.values()
        for figure in row.figures
        if figure.unit == "s"
    ]
    ours = (sides.OURS, sides.OURS_BLOCKS, sides.OURS_BY_USER, sides.OURS_PARTS)
    (title,) = (note.text for note in report.result.notes if note.text.endswith(_LOG_LINES))
    plots.bars(picture, {title: figures}, ours=ours)


APPLICATION: Final = Application(
    "logs",
    "JSON log lines, by way of three plug-ins or one function, into one result file; 2 workers",
    run,
    draw,
)
