import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import pytest

from benchmarks.cli import main
from benchmarks.machine import package_versions
from benchmarks.model import (
    RATIO,
    Bar,
    Benchmark,
    BenchmarkError,
    Figure,
    Note,
    Row,
    Settings,
)

ROOT = Path(__file__).resolve().parents[2]

Items = Generator[Row | Note, None, None]


def faked(name: str, value: float | None) -> Benchmark:
    """A benchmark whose only figure must be at most 2."""

    def run(settings: Settings) -> Items:
        values = () if value is None else (value,) * settings.repeats
        yield Row("the case", (Figure("the figure", RATIO, values, Bar("at most", 2)),))

    return Benchmark(name, f"fakes {value}", run)


def registry(*benchmarks: Benchmark) -> Mapping[str, Benchmark]:
    return {each.name: each for each in benchmarks}


FAKED = registry(faked("good", 1.0), faked("bad", 3.0), faked("absent", None))


# --- the exit status ---


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["good", "--check"], 0),
        (["bad", "--check"], 1),
        (["bad"], 0),
        (["good", "bad", "--check"], 1),
        (["--check"], 1),
        (["absent", "--check"], 0),  # and the last line says so
    ],
)
def test_status_of_check(
    arguments: list[str], status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments, FAKED) == status


def test_the_last_line_counts_the_bars(capsys: pytest.CaptureFixture[str]) -> None:
    main([], FAKED)
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "bars: 1 met, 1 missed, 1 not judged"


def test_json_is_written_although_a_bar_is_missed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "not made yet" / "results.json"
    assert main(["bad", "--check", "--json", str(file)], FAKED) == 1
    data = json.loads(file.read_text(encoding="utf-8"))
    assert data["bars"] == {"met": 0, "missed": 1, "not judged": 0}


# --- the arguments ---


def test_repeats_are_passed_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "results.json"
    for arguments, repeats in (([], 7), (["--quick"], 2), (["--quick", "--repeats", "5"], 5)):
        main(["good", "--json", str(file), *arguments], FAKED)
        (benchmark,) = json.loads(file.read_text(encoding="utf-8"))["benchmarks"]
        assert benchmark["settings"]["repeats"] == repeats
        (figure,) = benchmark["rows"][0]["figures"]
        assert figure["repeats"] == [1.0] * repeats


def test_a_benchmark_has_defaults_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "results.json"
    slow = dataclasses.replace(
        faked("slow", 1.0), defaults=Settings(repeats=3), quick=Settings(repeats=1)
    )
    for arguments, repeats in (([], [7, 3]), (["--quick"], [2, 1]), (["--repeats", "5"], [5, 5])):
        main(["--json", str(file), *arguments], registry(faked("good", 1.0), slow))
        benchmarks = json.loads(file.read_text(encoding="utf-8"))["benchmarks"]
        assert [each["settings"]["repeats"] for each in benchmarks] == repeats


def test_only_cases_with_the_text_in_their_names_run(capsys: pytest.CaptureFixture[str]) -> None:
    def run(settings: Settings) -> Items:
        for case in ("One", "two"):
            if settings.wants(case):
                yield Row(case, (Figure("the figure", RATIO, (1.0,)),))

    benchmarks = registry(Benchmark("some", "has two", run), Benchmark("more", "likewise", run))
    assert main(["--case", "one"], benchmarks) == 0
    out = capsys.readouterr().out
    assert out.count("One ") == 2
    assert "two " not in out.replace("has two", "")
    assert main(["--case", "three"], benchmarks) == 2
    assert capsys.readouterr().err == "benchmarks: no case has 'three' in its name\n"


def test_list_runs_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"], FAKED) == 0
    assert capsys.readouterr().out.splitlines() == [
        "good: fakes 1.0",
        "bad: fakes 3.0",
        "absent: fakes None",
    ]


def test_only_what_is_named_runs_and_each_once(capsys: pytest.CaptureFixture[str]) -> None:
    main(["good", "good"], FAKED)
    out = capsys.readouterr().out
    assert out.count("fakes 1.0") == 1
    assert "fakes 3.0" not in out


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["nonsense"], "no benchmark 'nonsense': there is good, bad, absent"),
        (["good", "list"], "no benchmark 'list'"),
        (["--repeats", "0"], "at least 1, not 0"),
        (["--repeats", "many"], "invalid"),
        (["--slow"], "--slow"),
    ],
)
def test_arguments_that_make_no_sense(
    arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        main(arguments, FAKED)
    assert raised.value.code == 2
    assert text in capsys.readouterr().err


# --- what goes wrong ---


def test_a_benchmark_that_cannot_run_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    def run(settings: Settings) -> Items:
        yield Note("on the way")
        raise BenchmarkError("the peer is gone; start it again")

    assert main([], registry(Benchmark("broken", "breaks", run))) == 2
    assert capsys.readouterr().err == "benchmarks: the peer is gone; start it again\n"


def test_a_file_that_cannot_be_written_is_noticed_before_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(settings: Settings) -> Items:
        pytest.fail("it ran")
        yield

    benchmarks = registry(Benchmark("long", "takes hours", run))
    assert main(["--json", str(tmp_path)], benchmarks) == 2
    assert "cannot write" in capsys.readouterr().err


def test_a_benchmark_is_closed_when_the_run_ends_early(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = []

    def run(settings: Settings) -> Items:
        try:
            yield Row("the case", ())
        finally:
            closed.append(True)

    def interrupt() -> bool:
        raise KeyboardInterrupt

    # what is asked after each row
    monkeypatch.setattr(sys.stderr, "isatty", interrupt)
    with pytest.raises(KeyboardInterrupt):
        main([], registry(Benchmark("long", "takes hours", run)))
    assert closed == [True]


def test_versions_of_what_is_not_installed_are_left_out() -> None:
    assert list(package_versions(["pytest", "no-such-distribution"])) == ["pytest"]


# --- the command itself ---


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """What `process --quick` prints and writes, without 0.2.0."""
    file = tmp_path_factory.mktemp("quick") / "results.json"
    environment = {key: value for key, value in os.environ.items() if key != "EVPROC_020_PYTHON"}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "process", "--quick", "--json", str(file)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout, json.loads(file.read_text(encoding="utf-8"))


def test_quick_prints_an_aligned_table(quick: tuple[str, dict[str, Any]]) -> None:
    lines = quick[0].splitlines()
    rule = next(place for place, line in enumerate(lines) if line.startswith("---"))
    assert lines[rule - 1].split() == [
        "case",
        "figure",
        "unit",
        "median",
        "min",
        "max",
        "IQR",
        "bar",
    ]
    # where the rule has a gap, so has every line of the table
    gaps = [place for place, char in enumerate(lines[rule]) if char == " "]
    end = lines.index("", rule)
    for line in lines[rule - 1 : end]:
        assert all(line[place : place + 1] in ("", " ") for place in gaps)
    figures = sum(len(row["figures"]) for row in quick[1]["benchmarks"][0]["rows"])
    assert end - rule - 1 == figures


def test_quick_says_what_is_left_out(quick: tuple[str, dict[str, Any]]) -> None:
    (note,) = quick[1]["benchmarks"][0]["notes"]
    assert note.startswith("evproc 0.2.0 is left out")
    assert f"note: {note}" in quick[0]
    assert quick[1]["bars"]["not judged"] == 3


def test_quick_writes_machine_and_figures(quick: tuple[str, dict[str, Any]]) -> None:
    data = quick[1]
    assert {"cpu", "cores", "usable_cores", "python", "packages"} <= set(data["machine"])
    assert data["machine"]["cpu"]
    (benchmark,) = data["benchmarks"]
    assert benchmark["name"] == "process"
    rows = {row["case"]: row["figures"] for row in benchmark["rows"]}
    assert len(rows) == len(benchmark["rows"]) == 9
    for registered in ("10", "100", "1,000"):
        loop, ours, over_loop, over_original = rows[f"3 of {registered} handlers match"]
        assert (loop["name"], ours["name"]) == ("hand-written", "evproc")
        assert loop["unit"] == ours["unit"] == "us/event"
        pairs = zip(ours["repeats"], loop["repeats"], strict=True)
        assert over_loop["repeats"] == [over / under for over, under in pairs]
        assert over_loop["bar"]["limit"] == 3.5
        assert over_original["repeats"] == []
        assert over_original["bar"]["verdict"] == "not judged"
    for figures in rows.values():
        for figure in figures:
            assert len(figure["repeats"]) in (0, benchmark["settings"]["repeats"])
            assert all(value > 0 for value in figure["repeats"])
