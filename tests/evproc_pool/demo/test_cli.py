from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytest

from evproc_pool.demo import __main__ as program
from evproc_pool.demo import cli, survey
from evproc_pool.demo.events import BadFile
from evproc_pool.demo.survey import Run
from tests.evproc_pool.demo.conftest import BAD

# What bounds a run that hangs; no test waits for it to pass.
SECONDS = 120

WITHOUT_RICH = (
    "import sys; sys.modules['rich'] = None;"
    "from evproc_pool.demo.__main__ import main; sys.exit(main())"
)

# What is said about the survey while it goes on.
PROGRESS = re.compile(r"^(survey|pool|serial|compare): .*\n", re.MULTILINE)


def run(*arguments: str | Path, code: str = "", **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the demo as a user does, or through a line of code."""
    start = ["-c", code] if code else ["-m", "evproc_pool.demo"]
    return subprocess.run(
        [sys.executable, *start, *map(str, arguments)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=SECONDS,
        check=False,
        **options,
    )


# --- whole runs ---


def test_part_of_the_standard_library() -> None:
    done = run("--limit", "20", "--workers", "2")
    assert (done.returncode, PROGRESS.sub("", done.stderr)) == (0, "")
    assert "PoolProcessor, workers: 2" in done.stdout
    # the verdict comes first and last
    lines = done.stdout.splitlines()
    verdict = lines[: lines.index("")]
    assert re.fullmatch(r"speed-up: \d+\.\d\d", verdict[0])
    assert verdict[-1] == "results: equal for all 20 files"
    assert lines[-len(verdict) :] == verdict


@pytest.mark.parametrize(("percent", "is_said"), [(10.0, False), (60.0, True)])
def test_busy_cpus_are_said_beside_the_speed_up(
    percent: float,
    is_said: bool,
    good_tree: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(cli, "cpu_percent", lambda interval: percent)
    assert called(good_tree, "--workers", "0") == 0
    said = "\n  (other programs kept 60 % of the CPUs busy before the runs)\nresults: equal"
    assert capsys.readouterr().out.count(said) == 2 * is_said


def test_what_it_does_is_said_line_by_line_where_there_is_no_terminal(good_tree: Path) -> None:
    done = run(good_tree, "--limit", "3", "--workers", "2")
    texts = [re.sub(r"\d+\.\d s", "N s", line) for line in done.stderr.splitlines()]
    folder = f"Python files in {good_tree}"
    assert [text for text in texts if "handed out" not in text] == [
        f"survey: the first 3 of 4 {folder}{'/pkg'} (--all surveys every one)",
        "pool: started, 3 files",
        "pool: finished after N s",
        "serial: started, 3 files",
        "serial: finished after N s",
        "compare: the findings of both runs",
    ]


def test_a_reader_of_the_progress_that_has_seen_enough(good_tree: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "evproc_pool.demo", str(good_tree), "--workers", "0"],
            stdout=subprocess.PIPE,
            stderr=writing,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    finally:
        os.close(writing)
    assert done.returncode == 0
    assert done.stdout.endswith("results: equal for all 4 files\n")


@pytest.mark.parametrize(
    ("arguments", "surveyed"),
    [([], 2), (["--limit", "3"], 3), (["--all"], 4)],
)
def test_how_many_files_of_the_standard_library(
    arguments: list[str],
    surveyed: int,
    good_tree: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(cli, "standard_library", lambda: str(good_tree))
    monkeypatch.setattr(cli, "_DEFAULT_LIMIT", 2)
    assert called("--workers", "0", *arguments) == 0
    assert f"results: equal for all {surveyed} files" in capsys.readouterr().out


def test_all_files_of_a_path_are_surveyed(
    good_tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "_DEFAULT_LIMIT", 2)
    assert called("--workers", "0", good_tree) == 0
    printed = capsys.readouterr()
    assert "results: equal for all 4 files" in printed.out
    assert printed.err.startswith(f"survey: all 4 Python files in {good_tree}\n")


@pytest.mark.parametrize("code", ["", WITHOUT_RICH])
def test_a_tree_with_every_kind_of_file(bad_tree: Path, code: str) -> None:
    arguments = ("--workers", "2", "--top", "99", "--complexity", "5")
    done = run(bad_tree, *arguments, code=code)
    # no progress bar, and no warning about the escape sequence in warns.py
    assert (done.returncode, PROGRESS.sub("", done.stderr)) == (0, "")
    assert ("─" in done.stdout) == (not code)
    for name, reason in BAD.items():
        assert re.search(rf"bad.{name}\b.*{re.escape(reason)}", done.stdout)
    assert "Most complex functions (complexity above 5: 1)" in done.stdout
    assert "for > if > while > if (line 9)" in done.stdout
    assert re.search(r"pkg\.one\b.*\bpkg\.two", done.stdout)
    assert f"Files that could not be surveyed ({len(BAD)})" in done.stdout
    assert f"Python files in {bad_tree}\n" in done.stdout
    assert "results: equal for all 18 files" in done.stdout


def test_output_does_not_depend_on_the_hash_seed(bad_tree: Path) -> None:
    outputs = set()
    for seed in "12":
        done = run(bad_tree, "--serial", env={**os.environ, "PYTHONHASHSEED": seed})
        assert done.returncode == 0
        outputs.add(done.stdout.partition("Runs")[0])
    assert len(outputs) == 1


def test_only_one_of_the_runs(good_tree: Path) -> None:
    serial = run(good_tree, "--serial").stdout
    pool = run(good_tree, "--pool", "--workers", "0").stdout
    assert serial.partition("Runs")[0] == pool.partition("Runs")[0]
    assert "Processor, one event at a time" in serial
    assert "PoolProcessor, workers: 0" in pool
    for text in (serial, pool):
        assert "speed-up" not in text
        assert "results" not in text


@pytest.mark.parametrize("code", ["", WITHOUT_RICH])
def test_any_encoding_and_any_file_name(good_tree: Path, code: str) -> None:
    try:
        (good_tree / os.fsdecode(b"\xff[red]\n.py")).write_text("'\n")
    except OSError:
        pytest.skip("not a file name here")
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = run(good_tree, "--workers", "0", code=code, env=environment)
    assert (done.returncode, PROGRESS.sub("", done.stderr)) == (0, "")
    assert r"\udcff[red]\n.py" in done.stdout


def test_help_reads_well() -> None:
    done = run("--help", env={**os.environ, "COLUMNS": "80"})
    assert (done.returncode, done.stderr) == (0, "")
    assert "exit status:\n  0 " in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    for option in (
        "--workers N",
        "--limit N",
        "--all",
        "--top N",
        "--complexity N",
        "--serial",
        "--pool",
    ):
        assert option in done.stdout


# --- exit statuses ---


def called(*arguments: str | Path) -> int:
    return program.main([*map(str, arguments)])


def test_a_path_that_does_not_exist(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert called(tmp_path / "a", tmp_path, tmp_path / "b\n") == 2
    text = capsys.readouterr().err
    assert text.startswith("error: ")
    assert text.count("\n") == 1
    assert "a: No such file or directory; " in text
    assert r"b\n: No such file or directory" in text


def test_no_python_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert called(tmp_path) == 2
    assert capsys.readouterr().err == f"error: no Python file found in {tmp_path}\n"


def test_no_standard_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "standard_library", lambda: str(tmp_path))
    assert called() == 2
    assert capsys.readouterr().err == f"error: no Python file found in {tmp_path}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workers", "-1"], "argument --workers: -1 is less than 0"),
        (["--workers", "two"], "argument --workers: 'two' is not a whole number"),
        (["--limit", "0"], "argument --limit: 0 is less than 1"),
        (["--top", "1.5"], "argument --top: '1.5' is not a whole number"),
        (["--serial", "--pool"], "not allowed with argument --serial"),
        (["--all", "--limit", "1"], "not allowed with argument --all"),
        (["--quick"], "unrecognized arguments: --quick"),
    ],
)
def test_wrong_arguments(
    arguments: Sequence[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        called(*arguments)
    assert raised.value.code == 2
    assert message in capsys.readouterr().err


def test_handlers_that_are_not_installed(
    good_tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(survey, "GROUP", "no.such.group")
    assert called(good_tree, "--serial") == 2
    assert "error: no installed distribution" in capsys.readouterr().err


def test_runs_that_differ(
    good_tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run_pool(files: Sequence[str], *_: object) -> Run:
        return Run("wrong", [BadFile(path, "x" * 400) for path in files], 1.0)

    monkeypatch.setattr(cli, "run_pool", run_pool)
    assert called(good_tree) == 1
    text = capsys.readouterr().out
    assert text.startswith("speed-up: ")
    assert text.count("results: DIFFERENT in 4 places, listed last\n") == 2
    assert f"listed last\n  {good_tree}" in text
    (line,) = [line for line in text.splitlines() if line.startswith(f"  {good_tree}/tangled.py: ")]
    assert line.endswith("x...")
    assert len(line) == 302
    monkeypatch.setattr(cli, "_MOST_DIFFERENCES", 1)
    assert called(good_tree) == 1
    assert capsys.readouterr().out.endswith("\n  ... and 3 more\n")


def interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def test_an_interrupt_is_no_traceback(
    good_tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "run_serial", interrupt)
    assert called(good_tree, "--serial") == 130
    assert PROGRESS.sub("", capsys.readouterr().err) == "interrupted\n"


# --- the other end of the line ---


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("code", ["", WITHOUT_RICH])
def test_a_reader_that_has_seen_enough(good_tree: Path, code: str, unbuffered: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        start = ["-c", code] if code else ["-m", "evproc_pool.demo"]
        done = subprocess.run(
            [sys.executable, *start, str(good_tree), "--workers", "0"],
            stdout=writing,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            timeout=SECONDS,
            check=False,
        )
    finally:
        os.close(writing)
    assert (done.returncode, PROGRESS.sub("", done.stderr.decode())) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full device here")
def test_a_full_disk(good_tree: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "evproc_pool.demo", str(good_tree), "--serial"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    reason = os.strerror(errno.ENOSPC)
    assert PROGRESS.sub("", done.stderr) == f"error: cannot write the findings: {reason}\n"
    assert done.returncode == 2


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals there")
@pytest.mark.parametrize(("which", "code"), [("--serial", WITHOUT_RICH), ("--pool", "")])
def test_ctrl_c_on_a_terminal(which: str, code: str) -> None:
    import pty

    terminal, other_end = pty.openpty()
    start = ["-c", code] if code else ["-m", "evproc_pool.demo"]
    process = subprocess.Popen(
        # the whole standard library, so that it cannot be over before it is interrupted
        [sys.executable, *start, which, "--all", "--workers", "2"],
        stdout=subprocess.PIPE,
        stderr=other_end,
        start_new_session=True,
        env={**os.environ, "TERM": "xterm"},
    )
    os.close(other_end)
    try:
        seen = b""
        while not re.search(rb"[1-9][\d,]*(/| of )\d", seen):  # some files are under way
            seen += os.read(terminal, 1024)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to all of them
        seen += _rest_of(terminal)
        out, _ = process.communicate(timeout=SECONDS)
    finally:
        os.close(terminal)
        process.kill()
        process.wait()
    assert (process.returncode, out) == (130, b"")
    assert b"interrupted" in seen
    assert b"Traceback" not in seen


def _rest_of(terminal: int) -> bytes:
    """Read until the last process that writes to a terminal is gone."""
    seen = b""
    while True:
        try:
            data = os.read(terminal, 1024)
        except OSError:  # how Linux says that nobody is at the other end
            data = b""
        if not data:
            return seen
        seen += data
