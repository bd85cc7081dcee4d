"""``python -m benchmarks pool scheduler --quick``: what it prints and writes."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.pool import suite

ROOT = Path(__file__).resolve().parents[2]

#: Far more than it takes: a pool that hangs is to fail a test, not to hang it.
MOST_SECONDS = 150.0

Rows = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    file = tmp_path_factory.mktemp("quick") / "results.json"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "pool", "scheduler", "--quick", "--json", str(file)],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=MOST_SECONDS,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout, json.loads(file.read_text(encoding="utf-8"))


def rows_of(results: tuple[str, dict[str, Any]], name: str) -> Rows:
    """The figures of a benchmark, by case and name."""
    (benchmark,) = [each for each in results[1]["benchmarks"] if each["name"] == name]
    return {
        row["case"]: {figure["name"]: figure for figure in row["figures"]}
        for row in benchmark["rows"]
    }


@pytest.fixture
def pool(results: tuple[str, dict[str, Any]]) -> Rows:
    return rows_of(results, "pool")


@pytest.fixture
def scheduler(results: tuple[str, dict[str, Any]]) -> Rows:
    return rows_of(results, "scheduler")


def bars(figures: dict[str, Any]) -> list[tuple[str, float]]:
    return [
        (each["bar"]["kind"], each["bar"]["limit"]) for each in figures.values() if "bar" in each
    ]


def test_every_case_has_a_row(pool: Rows, scheduler: Rows) -> None:
    assert list(pool) == [
        "no-op",
        "20 us",
        "100 us",
        "1 ms",
        "10 ms",
        "skewed: 95% 0.1 ms, 5% 20 ms",
        "the same, long ones last",
        "3 handlers in order, with proc",
        "1 root, 10,000 unordered follow-ups of 100 us",
        "10,000 roots, 3 levels of 1 follow-up",
        "16 keys, no-op",
        "16 keys, 100 us",
        "2,000,000 events streamed",
        "a consumer that stops for 2 s",
        "64 workers, 2 ms of sleep",
        "50 MB events and values",
    ]
    assert list(scheduler) == ["events of 100 us", "events of 1 ms"]


def test_every_bar_of_the_issue_is_judged(results: tuple[str, dict[str, Any]], pool: Rows) -> None:
    found = {case: bars(figures) for case, figures in pool.items()}
    assert {case: each for case, each in found.items() if each} == {
        "no-op": [
            ("at most", 1.0),
            ("at least", 1.5),
            ("at least", 2.2),
            ("at least", 20),
            ("at least", 20),
        ],
        "20 us": [("at least", 0.88)],
        "100 us": [("at least", 0.96)],
        "1 ms": [("at least", 0.975)],
        "10 ms": [("at least", 0.975)],
        "skewed: 95% 0.1 ms, 5% 20 ms": [("at least", 0.96)],
        "the same, long ones last": [("at least", 0.96)],
        "1 root, 10,000 unordered follow-ups of 100 us": [("at least", 0.94)],
        "10,000 roots, 3 levels of 1 follow-up": [("at least", 0.45)],
        "2,000,000 events streamed": [("at most", 5)],
        "a consumer that stops for 2 s": [("at most", 1), ("at most", 1)],
        "64 workers, 2 ms of sleep": [("at most", 1.3)],
        "50 MB events and values": [("at least", 20)],
    }
    counted = results[1]["bars"]
    assert counted["not judged"] == 0
    assert counted["met"] + counted["missed"] == sum(map(len, found.values()))


def test_every_figure_has_its_repeats(pool: Rows, scheduler: Rows) -> None:
    for figures in (*pool.values(), *scheduler.values()):
        for figure in figures.values():
            assert len(figure["repeats"]) == 2
            if figure["unit"] != "MB":  # memory may well not grow
                assert all(value > 0 for value in figure["repeats"])


def test_sides_are_compared_repeat_by_repeat(pool: Rows) -> None:
    figures = pool["100 us"]
    for name in (suite._OURS, "multiprocessing.Pool.imap", "ProcessPoolExecutor.map"):
        (efficiency,) = [
            figure
            for key, figure in figures.items()
            if key.startswith(f"control's time / that of {name}")
        ]
        side = efficiency["name"].removeprefix("control's time / that of ")
        pairs = zip(figures[side]["repeats"], figures["control"]["repeats"], strict=True)
        assert efficiency["repeats"] == [over / under for over, under in pairs]


@pytest.mark.parametrize("case", ["no-op", "20 us", "100 us", "1 ms", "10 ms"])
def test_peers_run_one_by_one_and_at_their_best(pool: Rows, case: str) -> None:
    for peer in ("multiprocessing.Pool.imap", "ProcessPoolExecutor.map"):
        names = [name for name in pool[case] if name.startswith(peer)]
        assert names[0] == f"{peer}, one by one"
        # where one by one is the best there is no other
        assert all(name.startswith(f"{peer}, chunks of ") for name in names[1:])
        assert len(names) <= 2


def test_no_op_has_both_limits_and_stream(pool: Rows) -> None:
    names = list(pool["no-op"])
    assert {"control", "PoolProcessor.process_many", "PoolProcessor.stream"} < set(names)
    assert any(name.startswith("socket pair, batches of ") for name in names)


def test_the_chunk_sizes_that_were_tried_are_told(results: tuple[str, dict[str, Any]]) -> None:
    (benchmark,) = [each for each in results[1]["benchmarks"] if each["name"] == "pool"]
    for case in ("no-op", "1 ms", "skewed", "3 handlers"):
        assert any(
            note.startswith(case) and "ProcessPoolExecutor.map" in note
            for note in benchmark["notes"]
        )


def test_what_does_not_depend_on_speed(pool: Rows) -> None:
    assert pool["50 MB events and values"]["right values of 20"]["repeats"] == [20, 20]
    ahead = pool["a consumer that stops for 2 s"]
    assert max(ahead["read ahead / buffersize, small: 100"]["repeats"]) <= 1


def test_the_scheduler_is_run_with_every_number_of_workers(scheduler: Rows) -> None:
    for figures in scheduler.values():
        for name in ("1 worker", "8 workers", "64 workers", "512 workers"):
            assert figures[name]["unit"] == "us/event"


def test_tables_are_printed(results: tuple[str, dict[str, Any]]) -> None:
    out = results[0]
    assert "\npool: PoolProcessor, against" in out
    assert "\nscheduler: the pure scheduler" in out
    assert out.splitlines()[-1].startswith("bars: ")
