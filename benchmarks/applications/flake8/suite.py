"""flake8 on the pool beside flake8 with the pool that it has.

Both are whole programs in new interpreters, so that start and end of their processes count.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Generator, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.applications import glue, plots, programs, sides
from benchmarks.applications.command import Application
from benchmarks.applications.flake8 import faults, handlers, plugins
from benchmarks.applications.report import Check, Part, Report, Table
from benchmarks.model import Bar, BenchmarkError, Note, Settings
from evproc_pool import PoolProcessor
from evproc_pool.testing import assert_equal_outcomes

THEIRS: Final = "flake8 -j2"
OURS: Final = "on the pool, -j2"

#: The modules that are run.
_FLAKE8: Final = "flake8"
_ON_POOL: Final = "benchmarks.applications.flake8"

#: One code of each installed distribution that brings plug-ins.
_CODES: Final = {
    "pycodestyle": "E501",
    "pyflakes": "F401",
    "flake8-bugbear": "B",
    "pep8-naming": "N",
}

#: When a program counts as one that never ends; it takes two seconds on a machine at rest.
_LIMIT_SECONDS: Final = 60.0

#: Of the hanging plug-in, beside files that take a tenth of a second.
_TIMEOUT_SECONDS: Final = 5

#: What the glue is: the rest of the folder measures.
_GLUE: Final = ("__main__.py", "handlers.py", "plugins.py", "program.py")


class Corpus(NamedTuple):
    """Files to check.

    Attributes:
        case: What the table calls them.
        paths: flake8's arguments.
        bar: The limit on our time over that of flake8's own pool.
    """

    case: str
    paths: tuple[str, ...]
    bar: Bar | None = None


def measure(quick: bool, settings: Settings) -> Generator[Part, None, None]:
    """See `Application.measure`."""
    library = Path(sysconfig.get_path("stdlib"))
    whole = Corpus(
        "the standard library",
        ("--extend-exclude=site-packages", str(library)),
        Bar("at most", 1.05),
    )
    one = Corpus("one package of it, email", (str(library / "email"),))
    two = Corpus("two files", (str(library / "queue.py"), str(library / "sched.py")))
    for corpus in (one, two) if quick else (whole, one, two):
        expected = _output(_FLAKE8, 1, corpus)
        yield _is_equal(corpus, expected)
        if corpus is not two:
            yield _takes_part(expected)
    with tempfile.TemporaryDirectory() as folder:
        tried = list(_faults(library, Path(folder)))
    yield from tried
    yield _finds_state(library)
    for corpus in (one, two) if quick else (whole, one, two):
        labels = {THEIRS: _FLAKE8, OURS: _ON_POOL}
        runs = {label: _run(module, corpus) for label, module in labels.items()}
        figures = sides.measure(runs, settings.repeats)
        yield sides.compare(corpus.case, figures, OURS, [THEIRS], corpus.bar)
    yield Note(", ".join(f"{name} {version(name)}" for name in ("flake8", *_CODES)))
    lines = glue.lines_of_files([Path(__file__).parent / name for name in _GLUE])
    yield Note(f"glue: {lines} lines of code in {', '.join(_GLUE)}")


# --- equal results ---


def _argv(module: str, jobs: int, corpus: Corpus) -> list[str]:
    return [sys.executable, "-m", module, "--isolated", f"-j{jobs}", *corpus.paths]


def _output(module: str, jobs: int, corpus: Corpus) -> bytes:
    """What a run prints.

    Raises:
        BenchmarkError: It ended with another status than that of files that have findings.
    """
    done = subprocess.run(_argv(module, jobs, corpus), capture_output=True, check=False)
    if done.returncode != 1:
        raise BenchmarkError(f"{module} ended with {done.returncode}: {done.stderr.decode()}")
    return done.stdout


def _run(module: str, corpus: Corpus) -> Callable[[], object]:
    return lambda: _output(module, 2, corpus)


def _is_equal(corpus: Corpus, expected: bytes) -> Check:
    actual = _output(_ON_POOL, 2, corpus)
    lines = actual.count(b"\n")
    return Check(
        f"{corpus.case}: output equal to that of flake8 -j1, byte for byte",
        holds=actual == expected,
        detail=f"{lines:,} findings, {len(actual):,} bytes",
    )


def _takes_part(output: bytes) -> Check:
    texts = [line.partition(b": ")[2].decode() for line in output.splitlines()]
    counts = {name: sum(text.startswith(code) for text in texts) for name, code in _CODES.items()}
    detail = ", ".join(f"{name} {count:,} ({_CODES[name]})" for name, count in counts.items())
    return Check("plug-ins of others take part", holds=all(counts.values()), detail=detail)


def _finds_state(library: Path) -> Check:
    """See whether `assert_equal_outcomes` finds a checker that remembers other files."""
    names = ("queue", "sched", "heapq", "bisect", "shelve", "code")

    def files() -> list[handlers.File]:
        return [handlers.File(str(library / f"{name}.py")) for name in names]

    def set_up(pool: PoolProcessor) -> None:
        faults.Remembers.seen.clear()
        handlers.register(pool, plugins.loaded())

    def is_found(argv: list[str]) -> bool:
        plugins.load(argv)
        try:
            assert_equal_outcomes(set_up, files, initializer=plugins.load, initargs=(argv,))
        except AssertionError:
            return True
        return False

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "remembers.cfg")
        file.write_text(faults.configuration("Remembers"), encoding="utf-8")
        found, others = is_found([f"--config={file}"]), is_found(["--isolated"])
    return Check(
        "assert_equal_outcomes finds a checker that remembers other files, and no other",
        holds=found and not others,
    )


# --- faults ---


def _faults(library: Path, folder: Path) -> Iterator[Part]:
    """Run both with plug-ins that misbehave on one of some 20 files."""
    files = folder / "files"
    files.mkdir()
    for path in sorted((library / "email").glob("*.py")):
        shutil.copy(path, files)
    shutil.copy(library / "queue.py", files / faults.CULPRIT)

    def run(module: str, plugin: str, *more: str, at: str | None = None) -> programs.Ending:
        settings = folder / f"{plugin}.cfg"
        settings.write_text(faults.configuration(plugin), encoding="utf-8")
        argv = ["-m", module, f"--config={settings}", "-j2", *more, str(files)]
        ending = programs.run(argv, _LIMIT_SECONDS, interrupt_at=at)
        if module == _ON_POOL:
            programs.show_if_it_hung(ending, f"flake8 on the pool, {plugin}")
        return ending

    def findings(ending: programs.Ending) -> list[str]:
        return [line for line in ending.output.splitlines() if line.startswith(str(files))]

    without = findings(run(_FLAKE8, "raises", f"--exclude={faults.CULPRIT}"))
    limit = f"--event-timeout={_TIMEOUT_SECONDS}"
    rows: list[tuple[str, ...]] = []
    for plugin, text, more in (
        ("exits", "a plug-in calls os._exit on one file", ()),
        ("hangs", f"a plug-in hangs on one file ({limit})", (limit,)),
    ):
        theirs, ours = run(_FLAKE8, plugin), run(_ON_POOL, plugin, *more)
        lines = findings(ours)
        lost = [line for line in lines if faults.CULPRIT in line and " E902 " in line]
        others = [line for line in lines if line not in lost]
        yield Check(
            f"{text}: that file is reported, all others as before",
            holds=len(lost) == 1
            and others == without != []
            and ours.code == 1
            and ours.orphans == 0,
            detail=lost[0].partition(" ")[2] if lost else "it is not reported",
        )
        rows.append((text, _in_words(theirs), _in_words(ours)))
    endings = [run(_FLAKE8, "raises"), run(_ON_POOL, "raises")]
    yield Check(
        "a plug-in raises on one file: output as flake8's",
        holds=endings[0].output == endings[1].output != ""
        and endings[0].code == endings[1].code == 1
        and endings[1].orphans == 0,
    )
    rows.append(("a plug-in raises on one file", *map(_in_words, endings)))
    endings = [run(module, "hangs", at=faults.HANGING) for module in (_FLAKE8, _ON_POOL)]
    yield Check(
        "Ctrl-C while a plug-in hangs: it says so and leaves no process",
        holds="... stopped" in endings[1].output
        and endings[1].code == 1
        and endings[1].interrupted is not None
        and endings[1].orphans == 0,
    )
    rows.append(("Ctrl-C while a plug-in hangs", *map(_in_words, endings)))
    yield Table("faults", ("what happens", THEIRS, OURS), tuple(rows))


def _in_words(ending: programs.Ending) -> str:
    if ending.code is None:
        return f"still waits after {_LIMIT_SECONDS:g} s; killed"
    seconds = ending.seconds if ending.interrupted is None else ending.interrupted
    left = f", {ending.orphans} processes left" if ending.orphans else ""
    return f"status {ending.code} after {seconds:.1f} s{left}"


def _draw(report: Report, picture: Path) -> None:
    panels = {row.case: [each for each in row.figures if each.unit == "s"] for row in report.rows}
    plots.bars(picture, panels, ours=[OURS])


APPLICATION = Application(
    "flake8", "flake8 with its plug-ins, a file an event, beside its own pool", measure, _draw
)
