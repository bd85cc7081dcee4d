"""unblob's own run and its run on the pool: equal results, times, faults, lines of glue."""

from __future__ import annotations

import importlib.metadata
import itertools
import shutil
import tempfile
from collections.abc import Generator
from functools import partial
from pathlib import Path
from typing import Final

from unblob.dependencies import get_dependencies
from unblob.handlers import BUILTIN_DIR_HANDLERS, BUILTIN_HANDLERS

from benchmarks.applications import plots, programs, sides
from benchmarks.applications.command import Application
from benchmarks.applications.glue import lines_of_files
from benchmarks.applications.report import Check, Part, Report, Table
from benchmarks.applications.unblob import comparing, inputs
from benchmarks.applications.unblob.faults import fault_parts
from benchmarks.model import Bar, BenchmarkError, Note, Settings

try:
    import magic  # noqa: F401 - imported by unblob's processor
except ImportError as error:
    raise BenchmarkError(
        "unblob needs the library libmagic, which no wheel of its own brings: install the package"
        " libmagic1 (of Debian), or libmagic"
    ) from error

_POOL: Final = "evproc_pool"
_OWN: Final = "unblob"

_FILES: Final = (240, 24)
_FAULT_FILES: Final = (40, 8)
_LIMIT_SECONDS: Final = 300.0
_GLUE: Final = ("events.py", "handlers.py", "survey.py")

#: At most unblob's own time with as many processes.
_BAR: Final = Bar("at most", 1.0)


def measure(is_quick: bool, settings: Settings) -> Generator[Part, None, None]:
    """Yield equal results, the times, what goes wrong, and what it took."""
    number = _FILES[is_quick]
    with tempfile.TemporaryDirectory(prefix="unblob-") as work:
        folder = Path(work)
        files, image = folder / "files", folder / "image"
        files.mkdir()
        image.mkdir()
        made = inputs.make_inputs(files, number)
        make_image(image / "flash.image", made)
        yield from _remarks(made)
        # unblob takes one file: `own` is its pool with all of them, `each` is its run of the image
        cases = ((f"{number} files", files, "own"), (f"an image of the {number}", image, "each"))
        for case, inside, own in cases:
            yield from equal_parts(folder / "equal", case, inside, own)
        for case, inside, own in cases:
            runs = {_POOL: "pool", _OWN: own}
            yield from _times(folder / "times", case, inside, runs, settings.repeats)
        yield from fault_parts(folder / "faults", _FAULT_FILES[is_quick])
    here = Path(__file__).parent
    lines = [(name, str(lines_of_files([here / name]))) for name in _GLUE]
    total = ("all of it", str(sum(int(count) for _, count in lines)))
    yield Table("Lines of glue", ("module", "lines"), (*lines, total))


def make_image(image: Path, files: list[Path]) -> None:
    """Put files one after the other into one, as a flash memory has its parts."""
    with image.open("wb") as stream:
        for file in files:
            stream.write(file.read_bytes())
            stream.write(b"\xff" * 4096)


def equal_parts(folder: Path, case: str, files: Path, own: str) -> Generator[Check, None, None]:
    """Compare files and reports of the pool with those of unblob's own run."""
    trees, findings = [], []
    for side in (own, "pool"):
        output, report = folder / side, folder / f"{side}.json"
        run_once(side, files, output, "--report", str(report))
        trees.append(comparing.tree(output))
        findings.append(comparing.findings(report, output))
    differs = comparing.difference(*trees)
    yield Check(
        f"{case}: the same files with the same contents as by unblob's own run",
        holds=not differs and trees[0] != {},
        detail=differs or f"{len(trees[0])} files and folders",
    )
    is_equal = findings[0] == findings[1] != []
    yield Check(f"{case}: an equal report", holds=is_equal, detail=f"of {len(findings[0])} tasks")
    shutil.rmtree(folder)


def run_once(side: str, files: Path, output: Path, *options: str) -> float:
    """Run a side in a new interpreter, as a command line does.

    Returns:
        How many seconds it ran.

    Raises:
        BenchmarkError: It does not end well.
    """
    output.mkdir(parents=True)
    arguments = ["-m", "benchmarks.applications.unblob.once", side, str(files), str(output)]
    ending = programs.run([*arguments, *options], _LIMIT_SECONDS)
    if ending.code != 0 or ending.orphans:
        raise BenchmarkError(f"unblob, {side}: {ending}")
    return ending.seconds


def _times(
    folder: Path, case: str, files: Path, runs: dict[str, str], repeats: int
) -> Generator[Part, None, None]:
    # a new folder for each sample, so that none of them clears away what another one made
    outputs = (folder / str(number) for number in itertools.count())
    samples = {
        label: partial(lambda side: run_once(side, files, next(outputs)), side)
        for label, side in runs.items()
    }
    figures = sides.sample(samples, repeats)
    yield sides.compare(case, figures, _POOL, [_OWN], _BAR)
    shutil.rmtree(folder)


def _remarks(made: list[Path]) -> Generator[Note, None, None]:
    size = sum(file.stat().st_size for file in made)
    damaged = len(made) // 12
    nested = sum(inputs.levels_of(place) > 1 for place in range(len(made)))
    yield Note(
        f"unblob {importlib.metadata.version('unblob')}, 2 processes, a new interpreter for each"
        f" run; {len(made)} files of {size / 1e6:.0f} MB in all, {nested} of them nested,"
        f" {damaged} damaged"
    )
    needed = get_dependencies(BUILTIN_HANDLERS, BUILTIN_DIR_HANDLERS)
    lacking = [each.command for each in needed if not each.is_installed]
    unmade = inputs.missing()
    yield Note(
        f"extractors that are not installed here, as unblob says: {', '.join(lacking) or '-'}"
    )
    yield Note(f"formats that cannot be made here: {', '.join(unmade) or '-'}")


def draw(report: Report, picture: Path) -> None:
    """Draw the times."""
    panels = {
        row.case: [figure for figure in row.figures if figure.unit == sides.SECONDS]
        for row in report.rows
    }
    plots.bars(picture, panels, ours=[_POOL])


APPLICATION: Final = Application(
    "unblob",
    "unblob: nested archives and file systems, extracted on the pool and by unblob's own",
    measure,
    draw,
)
