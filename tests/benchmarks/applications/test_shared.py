"""What applications share: times, programs that go wrong, reports, lines of glue."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import NoReturn

import psutil
import pytest

from benchmarks.applications import command, glue, programs, sides
from benchmarks.applications.report import Check, Part, Report, Table
from benchmarks.comparison.interpreters import run_python
from benchmarks.model import Bar, BenchmarkError, Figure, Note, Settings
from tests.support.helpers import wait_until


def test_sides_take_turns() -> None:
    turns: list[str] = []
    figures = sides.measure({"a": lambda: turns.append("a"), "b": lambda: turns.append("b")}, 3)
    assert turns == ["a", "b", "b", "a", "a", "b"]
    assert [len(figure.values) for figure in figures.values()] == [3, 3]


def test_ours_is_compared_with_the_best_peer() -> None:
    times = {"ours": (2.0, 2.0), "good": (1.0, 4.0), "poor": (9.0, 9.0)}
    figures = {label: Figure(label, sides.SECONDS, values) for label, values in times.items()}
    row = sides.compare("case", figures, "ours", ["good", "poor"], Bar("at most", 1.0))
    assert row.figures[-1].name == "ours / good"
    assert row.figures[-1].values == (2.0, 0.5)
    assert row.figures[-1].verdict == "missed"


# --- programs ---


def test_how_a_program_ended() -> None:
    ending = programs.run(["-c", "print('x'); raise SystemExit(3)"], 60)
    assert (ending.code, ending.output, ending.orphans) == (3, "x\n", 0)


def test_a_program_that_hangs_is_killed_with_its_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def at_the_limit(process: subprocess.Popen[str], timeout: float | None = None) -> NoReturn:
        monkeypatch.undo()
        wait_until((tmp_path / "begun").exists, "the child runs")
        raise subprocess.TimeoutExpired(process.args, timeout or 0.0)

    child = "import pathlib, time; pathlib.Path('begun').touch(); time.sleep(1000)"
    both = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subprocess.Popen, "wait", at_the_limit)
    ending = programs.run(["-c", both], 1.0)
    assert (ending.code, ending.orphans) == (None, 1)
    # both say where they were
    assert ending.output.count("Fatal Python error: Aborted") == 2
    assert 'File "<string>", line 1 in <module>' in ending.output


def test_a_program_ends_with_the_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[str]] = []

    def interrupted(process: subprocess.Popen[str], timeout: float | None = None) -> NoReturn:
        started.append(process)
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess.Popen, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        programs.run(["-c", "import time; time.sleep(1000)"], 60)
    assert not psutil.pid_exists(started[0].pid)


def test_what_a_program_leaves_behind_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "GRACE_SECONDS", 0.0)
    hang = "import time; time.sleep(1000)"
    leave = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {hang!r}])"
    ending = programs.run(["-W", "ignore", "-c", leave], 60)
    assert (ending.code, ending.orphans) == (0, 1)


def test_a_program_is_interrupted_at_its_word() -> None:
    wait = "import time; print('go', flush=True); time.sleep(1000)"
    ending = programs.run(["-c", wait], 60, interrupt_at="go")
    assert ending.code not in {0, None}
    assert "KeyboardInterrupt" in ending.output
    assert ending.interrupted is not None


INTERRUPTING = """
import signal
from benchmarks.applications import command, programs
from benchmarks.applications.report import Check

def measure(quick, settings):
    wait = "import time; print('go', flush=True); time.sleep(1000)"
    ending = programs.run(["-c", wait], 20, interrupt_at="go")
    yield Check("it is interrupted", "KeyboardInterrupt" in ending.output)

signal.signal(signal.SIGINT, signal.SIG_IGN)  # as with nohup, or in the background
command.names = lambda: ["x"]
command.find = lambda name: command.Application("x", "title", measure)
raise SystemExit(command.main([]))
"""


def test_a_program_is_interrupted_where_the_benchmark_ignores_ctrl_c() -> None:
    assert "ok: it is interrupted" in run_python(["-c", INTERRUPTING])


# --- glue ---


def test_lines_of_code() -> None:
    text = '''"""Docstring
over two lines."""

# a comment
def f(a,
      b):
    """What it does."""

    return """a
    text"""  # another one
'''
    assert glue.lines_of_code(text) == 4


# --- reports ---


def parts() -> list[Part]:
    figures = {
        label: Figure(label, sides.SECONDS, (value, value))
        for label, value in {"ours": 2.0, "peer": 1.0}.items()
    }
    return [
        Check("equal", holds=True),
        sides.compare("all of it", figures, "ours", ["peer"], Bar("at most", 1.0)),
        Note("a remark"),
        Table("faults", ("what", "ours"), (("it hangs", "goes on"),)),
    ]


def test_a_report_has_all_its_parts() -> None:
    report = Report("x", "title", Settings(), parts())
    text = report.text()
    assert "ok: equal" in text
    assert "ours / peer" in text
    assert "| it hangs | goes on |" in text
    assert report.missed == 1
    assert report.all_holds
    data = json.loads(json.dumps(report.data({}, "now")))
    assert data["bars"]["missed"] == 1
    assert data["tables"][0]["rows"] == [["it hangs", "goes on"]]


def use(monkeypatch: pytest.MonkeyPatch, *yielded: Part) -> None:
    def measure(quick: bool, settings: Settings) -> Generator[Part, None, None]:
        yield from yielded

    application = command.Application("x", "title", measure)
    monkeypatch.setattr(command, "names", lambda: ["x"])
    monkeypatch.setattr(command, "find", lambda name: application)


def test_the_status_says_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "x.json"
    use(monkeypatch, *parts())
    assert command.main(["x", "--json", str(file)]) == 0
    assert json.loads(file.read_text(encoding="utf-8"))["checks"][0]["holds"]
    assert command.main(["--check"]) == 1
    use(monkeypatch, Check("equal", holds=False, detail="line 3"))
    assert command.main([]) == 1
    assert "WRONG: equal: line 3" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        command.main(["unknown"])


def test_a_file_is_for_one_application(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    use(monkeypatch)
    monkeypatch.setattr(command, "names", lambda: ["x", "y"])
    for option in ("--json", "--plot"):
        with pytest.raises(SystemExit):
            command.main([option, str(tmp_path / "file")])
        assert "one application" in capsys.readouterr().err
        assert command.main(["y", option, str(tmp_path / "file")]) == 0


def test_one_that_cannot_be_run_does_not_stop_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(monkeypatch, Check("equal", holds=False))
    found = command.find("x")

    def find(name: str) -> command.Application:
        if name == "absent":
            raise BenchmarkError("absent needs something")
        return found

    monkeypatch.setattr(command, "names", lambda: ["absent", "x"])
    monkeypatch.setattr(command, "find", find)
    assert command.main([]) == 2
    printed = capsys.readouterr()
    assert "absent needs something" in printed.err
    assert "WRONG: equal" in printed.out


def test_a_missing_package_is_an_error_that_names_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "benchmarks.applications.x", None)
    with pytest.raises(BenchmarkError, match=r"evproc-pool\[applications\]"):
        command.find("x")


def test_a_picture_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    # not in this process: matplotlib keeps its fonts open
    program = f"""
from pathlib import Path
from benchmarks.applications import plots
from benchmarks.model import Figure
figures = [Figure("ours", "s", (1.0, 2.0)), Figure("not measured", "s", ())]
for name in ("a.svg", "b.svg"):
    plots.bars(Path({str(tmp_path)!r}, name), {{"case": figures}}, ours=["ours"])
"""
    run_python(["-c", program])
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
