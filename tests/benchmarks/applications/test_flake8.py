"""flake8 on the pool: the same output as flake8's, also where something goes wrong."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("flake8")
pytest.importorskip("bugbear")
pytest.importorskip("pep8ext_naming")

from flake8.main import cli

from benchmarks.applications import command, programs
from benchmarks.applications.flake8 import faults, handlers, plugins, program, suite
from benchmarks.model import BenchmarkError
from evproc import Processor
from evproc_pool.testing import assert_equal_outcomes

_ROOT = Path(__file__).parents[3]
_OURS = "benchmarks.applications.flake8"

_FILES = {
    "bom.py": b"\xef\xbb\xbfx = 1 \n",
    "bugs.py": b"def f(a=[]):\n    return a\n\n\ntry:\n    f()\nexcept:\n    pass\n",
    "clean.py": b"x = 1\n",
    "crlf.py": b"import os\r\n\r\nx = 1 \r\n",
    "culprit.py": b"import os\nx = 1\n",
    "declared.py": b"# -*- coding: latin-1 -*-\nx = '\xe4' \n",
    "declared_wrong.py": b"# -*- coding: no-such -*-\nx = 1 \n",
    "empty.py": b"",
    "form_feed.py": b"x = 1\n\x0c\ny = 2\n",
    "indent.py": b"if True:\n    x = 1\n  y = 2\n",
    "latin.py": b"x = '\xe4' \n",
    "left_alone.py": b"# flake8: noqa\nimport os\n",
    "lines.py": b'import os, sys\n"""\n' + b"long " * 20 + b'\n\ttab """\nx = {\n  1:2}\n',
    "names.py": b"class lower:\n    def Method(this):\n        Local = 1\n",
    "no_newline.py": b"import os",
    "noqa.py": b"import os  # noqa\nimport re  # noqa: F401\nimport io  # noqa: E501\n",
    "null.py": b"x = 1\n\x00\n",
    "open.py": b"x = (1,\n",
    "quotes.py": b'x = """\n',
    "syntax.py": b"import os\ndef f(:\n    pass\n",
    "warning.py": b"x = 1  # flake8: noqa on a line\nimport os\n",
    "sub/deep.py": b"import os\nx=1;y=2\nif x == None: pass\n",
}


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The files, in the working directory."""
    folder = tmp_path / "corpus"
    (folder / "sub").mkdir(parents=True)
    for name, content in _FILES.items():
        (folder / name).write_bytes(content)
    (folder / "gone.py").symlink_to("nowhere.py")
    (folder / "setup.cfg").write_text(
        "[flake8]\nextend-ignore = E231\nper-file-ignores =\n    sub/*.py: F401, E7\n"
    )
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTHONPATH", str(_ROOT))  # for programs
    path, loaded = list(sys.path), list(plugins._loaded)
    yield folder
    # flake8 adds the folders of local plug-ins
    sys.path[:], plugins._loaded[:] = path, loaded


def _endings(
    argv: list[str], capfd: pytest.CaptureFixture[str]
) -> tuple[list[tuple[object, str, str]], list[tuple[object, str, str]]]:
    """How flake8 ends in one process, and flake8 on the pool: in one process, and in two."""

    def ending(jobs: int) -> tuple[object, str, str]:
        run = cli.main if jobs == 0 else program.main
        status: object = None
        try:
            status = run([f"-j{jobs or 1}", *argv])
        except SystemExit as stop:
            status = stop.code
        return status, *capfd.readouterr()

    return [ending(0)] * 2, [ending(1), ending(2)]


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["--isolated"],
        ["--isolated", "--show-source", "--statistics", "--count"],
        ["--select=E,W6,N", "--format=pylint"],
        ["--extend-ignore=F", "--max-line-length=30", "--max-doc-length=20"],
        ["--per-file-ignores=lines.py:E,names.py:N8", "--disable-noqa"],
        ["--isolated", "--max-complexity=1", "--doctests", "--exit-zero"],
        ["--isolated", "-q", "--color=always", "--exclude=sub,open.py"],
        ["lines.py", "names.py", "not-there.py", "lines.py"],
        ["sub", "--format=%(code)s at %(path)s:%(row)d"],
        ["clean.py", "empty.py", "left_alone.py"],
        ["--version"],
        ["--bug-report"],
        ["--require-plugins=not-installed"],
    ],
    ids=" ".join,
)
def test_it_prints_what_flake8_prints(
    corpus: Path, argv: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    expected, actual = _endings(argv, capfd)
    assert actual == expected


def test_the_plug_ins_of_others_take_part(corpus: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert program.main(["-j2", "--isolated"]) == 1
    found = capfd.readouterr().out
    for code in ("B006", "N801", "F401", "E999", "E902", "W291"):
        assert f" {code} " in found


def test_a_configuration_file_and_an_output_file(
    corpus: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = tmp_path / "settings"
    settings.write_text("[flake8]\nselect = F\n")
    texts = []
    for run, name in ((cli.main, "theirs"), (program.main, "ours")):
        assert run(["-j2", f"--config={settings}", f"--output-file={tmp_path / name}"]) == 1
        texts.append((tmp_path / name).read_text())
    assert texts[0] == texts[1] != ""
    assert capfd.readouterr().out == ""


def test_numbers_of_a_run_are_those_of_flake8(
    corpus: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def totals(jobs: int, *, ours: bool) -> list[str]:
        (program.main if ours else cli.main)(["--benchmark", f"-j{jobs}"])
        lines = capfd.readouterr().out.splitlines()
        return [line for line in lines if line.split()[1:2] == ["total"]]

    expected = totals(1, ours=False)
    assert len(expected) == 4
    assert totals(1, ours=True) == totals(2, ours=True) == expected


@pytest.mark.parametrize(
    "argv",
    [
        ["-"],
        ["-", "--stdin-display-name=sub/x.py", "--show-source"],
        ["-", "--event-timeout=60"],
    ],
)
def test_standard_input(corpus: Path, argv: list[str]) -> None:
    endings = [
        subprocess.run(
            [
                sys.executable,
                "-m",
                module,
                "-j2",
                *(each for each in argv if module == _OURS or "timeout" not in each),
            ],
            input=_FILES["lines.py"],
            capture_output=True,
            timeout=60,
            check=False,
        )
        for module in ("flake8", _OURS)
    ]
    assert endings[0].stdout == endings[1].stdout != b""
    assert endings[0].returncode == endings[1].returncode == 1
    said = b"--event-timeout has no effect on standard input" in endings[1].stderr
    assert said == ("--event-timeout=60" in argv)


# --- handlers ---


def test_each_plug_in_is_a_handler(corpus: Path) -> None:
    plugins.load(["--isolated"])
    processor = Processor()
    handlers.register(processor, plugins.loaded())
    processor.check()
    order = processor.explain(handlers.File("lines.py")).order
    assert order[:2] == ("read", "parse")
    assert set(order) >= {"flake8-bugbear[B]", "pep8-naming[N8]", "pyflakes[F]", "pycodestyle[E]"}
    assert order[-1] == "walk"
    name, found, _ = processor.process(handlers.File("lines.py"))
    assert name == "lines.py"
    assert {code[0] for code, *_ in found} >= {"E", "F", "W"}
    processor.unregister("pycodestyle[E]")
    _, without, _ = processor.process(handlers.File("lines.py"))
    assert 0 < len(without) < len(found)


def test_plug_ins_of_the_same_name_have_handlers_of_their_own(corpus: Path) -> None:
    settings = corpus / "both.cfg"
    more = f"    X1 = {faults.__name__}:exits\npaths"
    settings.write_text(faults.configuration("hangs").replace("paths", more))
    plugins.load([f"--config={settings}"])
    local = [name for name in plugins.loaded().by_name if name.startswith("local[X1]")]
    assert len(local) == 2


def _files() -> list[handlers.File]:
    return [handlers.File(name) for name in ("names.py", "bugs.py", "lines.py", "again.py")]


def _compare(argv: list[str]) -> None:
    def set_up(pool: object) -> None:
        faults.Remembers.seen.clear()  # each pool begins anew
        handlers.register(pool, plugins.loaded())  # type: ignore[arg-type]

    plugins.load(argv)
    assert_equal_outcomes(
        set_up, _files, initializer=plugins.load, initargs=(argv,), seeds=range(3)
    )


def test_a_checker_that_keeps_state_between_files_is_found(corpus: Path) -> None:
    (corpus / "again.py").write_bytes(_FILES["bugs.py"])
    settings = corpus / "remembers.cfg"
    settings.write_text(faults.configuration("Remembers"))
    with pytest.raises(AssertionError, match="ends differently"):
        _compare([f"--config={settings}"])


def test_installed_checkers_keep_none(corpus: Path) -> None:
    (corpus / "again.py").write_bytes(_FILES["bugs.py"])
    _compare(["--isolated"])


# --- faults ---


def _run(
    corpus: Path, plugin: str, *more: str, interrupt_at: str | None = None
) -> tuple[programs.Ending, list[str]]:
    """Run flake8 on the pool with a faulty plug-in. Return also the lines about files."""
    settings = corpus / "faulty.cfg"
    settings.write_text(faults.configuration(plugin))
    argv = ["-m", _OURS, "-j2", f"--config={settings}", str(corpus), *more]
    ending = programs.run(argv, 60, interrupt_at=interrupt_at)
    assert ending.orphans == 0
    return ending, [line for line in ending.output.splitlines() if line.startswith(str(corpus))]


@pytest.mark.parametrize(
    ("plugin", "more", "finding"),
    [
        ("exits", [], "E902 WorkerLostError: the process ended with 3, in local[X1]"),
        ("exits_at_a_line", [], "E902 WorkerLostError: the process ended with 3, in walk"),
        (
            "hangs",
            ["--event-timeout=1.5"],
            "E902 EventTimeoutError: longer than 1.5 s, in local[X1]",
        ),
    ],
)
def test_a_file_that_takes_its_worker_along_is_reported_and_no_other(
    corpus: Path, plugin: str, more: list[str], finding: str
) -> None:
    _, expected = _run(corpus, "raises", "--exclude=culprit.py")
    ending, lines = _run(corpus, plugin, *more)
    assert ending.code == 1
    culprit = f"{corpus / faults.CULPRIT}:0:1: {finding}"
    assert [line for line in lines if line != culprit] == expected
    assert culprit in lines
    assert lines == sorted(lines, key=lambda line: line.split(":")[0])


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_timeout_holds_for_one_file(corpus: Path, jobs: int) -> None:
    settings = corpus / "faulty.cfg"
    settings.write_text(faults.configuration("hangs"))
    argv = [f"-j{jobs}", f"--config={settings}", "--event-timeout=1.5", faults.CULPRIT]
    ending = programs.run(["-m", _OURS, *argv], 60)
    assert (ending.code, ending.orphans) == (1, 0)
    assert f"{faults.CULPRIT}:0:1: E902 EventTimeoutError: longer than 1.5 s" in ending.output


def test_a_lost_file_counts_where_its_finding_is_not_selected(corpus: Path) -> None:
    ending, lines = _run(corpus, "exits", "--select=W292", "--exit-zero")
    assert ending.code == 1
    assert lines
    assert all(" W292 " in line for line in lines)
    assert f"{faults.CULPRIT} was not checked: WorkerLostError" in ending.output


@pytest.mark.parametrize("plugin", ["raises", "raises_unpicklable"])
def test_an_error_of_a_plug_in_is_left_to_flake8(
    corpus: Path, plugin: str, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = corpus / "faulty.cfg"
    settings.write_text(faults.configuration(plugin))
    expected, actual = _endings([f"--config={settings}"], capfd)
    assert "failed during execution" in expected[0][1]
    assert actual == expected


def test_ctrl_c_ends_it_and_leaves_no_process(corpus: Path) -> None:
    ending, lines = _run(corpus, "hangs", interrupt_at=faults.HANGING)
    assert ending.code == 1
    assert lines == []
    assert "... stopped while processing files" in ending.output
    assert "Traceback" not in ending.output


@pytest.mark.parametrize("text", ["0", "-1", "nan", "soon"])
def test_a_timeout_is_checked(text: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        program.main([f"--event-timeout={text}"])
    assert "--event-timeout" in capfd.readouterr().err


# --- the comparison ---


def test_the_suite_compares_whole_outputs(corpus: Path) -> None:
    files = suite.Corpus("files", (str(corpus),))
    expected = suite._output("flake8", 1, files)
    assert suite._is_equal(files, expected).holds
    assert not suite._is_equal(files, expected[:-1]).holds
    with pytest.raises(BenchmarkError, match="ended with 0"):
        suite._output("flake8", 1, suite.Corpus("nothing found", (str(corpus / "clean.py"),)))


def test_the_suite_is_found_and_knows_who_took_part() -> None:
    assert command.find("flake8") is suite.APPLICATION
    check = suite._takes_part(b"x.py:1:1: E501 long\nx.py:1:1: F401 unused\nx.py:1:1: B006 list\n")
    assert not check.holds
    assert "pep8-naming 0 (N)" in check.detail
