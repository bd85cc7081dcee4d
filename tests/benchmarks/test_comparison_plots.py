"""What is drawn of a run, and that it needs matplotlib only then."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.cli import main
from benchmarks.comparison import data, plots
from benchmarks.comparison.interpreters import run_python
from benchmarks.model import BenchmarkError
from benchmarks.report import FORMAT


def figure(name: str, unit: str, *repeats: float) -> dict[str, Any]:
    middle = sorted(repeats)[len(repeats) // 2] if repeats else None
    return {"name": name, "unit": unit, "median": middle, "repeats": list(repeats)}


def row(case: str, unit: str, **values: float) -> dict[str, Any]:
    names = {"ours": "PoolProcessor", "executor": "ProcessPoolExecutor"}
    figures = [figure(names.get(name, name), unit, value) for name, value in values.items()]
    return {"case": case, "figures": figures}


def document(*rows: dict[str, Any]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "when": "2024-01-02T03:04:05+00:00",
        "machine": {"cpu": "a cpu", "usable_cores": 2, "python": "CPython 3"},
        "benchmarks": [
            {"name": "pool", "rows": [row("no-op", "events/s", ours=1.0)]},
            {"name": "comparison", "rows": list(rows)},
        ],
    }


WHOLE = document(
    row("no-op", "events/s", ours=4e5, control=2e6, executor=2e5),
    row("1 ms", "events/s", ours=1900.0, control=2000.0, Ray=500.0),
    row("no-op, int", "events/s", ours=2e5, control=1e6, executor=4e5),
    row("1 ms, int", "events/s", ours=1800.0, control=2000.0),
    row("1 ms, emitted", "events/s", ours=1600.0, control=2000.0),
    row("1 ms, dict of five", "events/s", ours=1700.0, control=2000.0),
    row("skewed", "events/s", ours=80.0, executor=40.0, control=100.0),
    row("single event, p50", "us", ours=100.0, executor=150.0, Ray=2000.0),
    row("import", "ms", ours=30.0, executor=20.0, logging=5.0),
    row("memory while streaming", "MB", ours=0.0, executor=50.0),
)


# --- what is drawn ---


def test_lines_and_their_places() -> None:
    cases = data.cases(WHOLE)
    assert data.lengths(cases) == {"no-op": 1e-6, "1 ms": 1e-3}
    assert data.lines(cases) == {
        "PoolProcessor": {"no-op": 4e5, "1 ms": 1900.0},
        "control": {"no-op": 2e6, "1 ms": 2000.0},
        "ProcessPoolExecutor": {"no-op": 2e5},
        "Ray": {"1 ms": 500.0},
    }
    assert data.efficiencies(cases) == {
        "PoolProcessor": {"no-op": 0.2, "1 ms": 0.95},
        "ProcessPoolExecutor": {"no-op": 0.1},
        "Ray": {"1 ms": 0.25},
    }


def test_twins_with_a_value_are_lines_of_their_own() -> None:
    cases = data.cases(WHOLE)
    assert data.kinds(cases) == ["int", "dict of five", "emitted"]
    assert data.lengths(cases, "int") == {"no-op": 2e-6, "1 ms": 1e-3}
    assert data.lines(cases, "int") == {
        "PoolProcessor": {"no-op": 2e5, "1 ms": 1800.0},
        "control": {"no-op": 1e6, "1 ms": 2000.0},
        "ProcessPoolExecutor": {"no-op": 4e5},
    }
    assert data.efficiencies(cases, "dict of five") == {"PoolProcessor": {"1 ms": 0.85}}
    assert data.kinds(data.cases(document(row("no-op", "events/s", ours=1.0)))) == []


def test_ratios_say_how_many_times_better_ours_is() -> None:
    assert data.ratio_panels(data.cases(WHOLE)) == [
        data.Panel("skewed, speed", {"ProcessPoolExecutor": 2.0}),
        data.Panel("single event, p50, time", {"ProcessPoolExecutor": 1.5, "Ray": 20.0}),
        data.Panel("import, time", {"ProcessPoolExecutor": 20.0 / 30.0}),
        # over nothing, which counts as a little
        data.Panel("memory while streaming", {"ProcessPoolExecutor": 500.0}),
    ]


def test_ratios_are_taken_repeat_by_repeat_where_that_can_be() -> None:
    ours, theirs = figure("a", "ms", 1.0, 2.0, 4.0), figure("b", "ms", 4.0, 2.0, 4.0)
    assert data._better(ours, theirs) == 1.0
    assert data._better(ours, figure("b", "ms", 6.0)) == 3.0


def test_what_was_not_measured_is_not_drawn() -> None:
    alone = data.cases(document(row("import", "ms", ours=1.0), row("other", "ratio", ours=1.0)))
    assert data.ratio_panels(alone) == []
    assert data.lines(alone) == {}
    empty = figure("ProcessPoolExecutor", "ms")
    case = {"case": "import", "figures": [figure("PoolProcessor", "ms", 1.0), empty]}
    assert data.ratio_panels(data.cases(document(case))) == []


def test_a_run_without_comparison_is_an_error() -> None:
    with pytest.raises(BenchmarkError, match="was not run"):
        data.cases({"benchmarks": []})


@pytest.mark.parametrize("text", ["", "[]", '{"format": 1}'])
def test_files_that_are_no_results(text: str, tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    with pytest.raises(BenchmarkError, match="cannot read"):
        data.read(file)
    file.write_text(text, encoding="utf-8")
    with pytest.raises(BenchmarkError, match=r"results\.json"):
        data.read(file)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0.15, 8, [0.2, 0.5, 1, 2, 5]), (0.2, 500, [1, 10, 100]), (0.1, 0.9, [0.1, 0.2, 0.5])],
)
def test_ticks_are_round_and_few(low: float, high: float, ticks: list[float]) -> None:
    assert plots._ticks(low, high) == ticks


# --- matplotlib ---


def test_without_matplotlib_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    file = tmp_path / "results.json"
    file.write_text(json.dumps(WHOLE), encoding="utf-8")
    assert plots.main([str(file), str(tmp_path)]) == 2
    assert "pip install 'evproc-pool[bench]'" in capsys.readouterr().err
    # before anything is measured
    assert main(["comparison", "--quick", "--plots", str(tmp_path)]) == 2
    assert "pip install 'evproc-pool[bench]'" in capsys.readouterr().err


def test_plots_want_the_benchmark_that_they_draw(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["process", "--plots", "anywhere"])
    assert raised.value.code == 2
    assert "--plots draws what 'comparison' measures" in capsys.readouterr().err


def test_plots_are_drawn_from_an_earlier_run(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    file, folder = tmp_path / "results.json", tmp_path / "not made yet"
    file.write_text(json.dumps(WHOLE), encoding="utf-8")
    pictures = []
    for _ in range(2):
        # not in this process: matplotlib keeps its fonts open
        arguments = ["-m", "benchmarks.comparison.plots", str(file), str(folder)]
        names = [Path(line).name for line in run_python(arguments).splitlines()]
        assert names == ["throughput.svg", "values.svg", "ratios.svg"]
        pictures.append([(folder / name).read_bytes() for name in names])
    assert all(picture.startswith(b"<?xml") for picture in pictures[0])
    assert pictures[0] == pictures[1]


def test_nothing_to_draw_is_an_error(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(BenchmarkError, match="nothing to draw"):
        plots.draw(document(row("import", "ms", ours=1.0)), tmp_path)
