"""The log pipeline: the same result from every side, and what the pool does about faults."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

from benchmarks.applications import programs
from benchmarks.applications.logs import (
    faults,
    generator,
    plugins,
    program,
    reading,
    sessions,
    sides,
    suite,
)
from benchmarks.applications.programs import Ending

_LINES = 2000


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("logs") / "log.jsonl"
    generator.write_lines(file, _LINES)
    return file


@pytest.fixture(scope="module")
def expected(log: Path) -> bytes:
    result = log.with_name("expected.jsonl")
    sides.serial(sides.Job(log, result))
    return result.read_bytes()


# --- lines, summaries, sessions ---


def test_the_same_lines_are_made_each_time() -> None:
    lines = list(generator.make_lines(300))
    assert lines == list(generator.make_lines(300))
    assert lines[:10] == list(generator.make_lines(10))
    assert len(set(lines)) == 300
    assert all(json.loads(line)["request"] for line in lines)


def test_the_user_is_found_without_decoding() -> None:
    for line in generator.make_lines(300):
        assert reading.user_of(line) == reading.read(line)[0]


def test_a_line_is_classified() -> None:
    line = {
        "ts": "2024-05-13T00:00:01.500+00:00",
        "client": "93.1.2.7",
        "user": None,
        "request": "GET /products/7?id=1%27%20OR%20%271%27=%271 HTTP/1.1",
        "status": 502,
        "bytes": 12,
        "agent": "Mozilla/5.0 (X11; Linux x86_64; rv:125.0) Gecko/20100101 Firefox/125.0",
        "message": "upstream timed out",
    }
    assert reading.read(json.dumps(line)) == (
        "93.1.2.7",
        1715558401.5,
        "product",
        "GET /products/{id}",
        502,
        12,
        "europe",
        "Firefox 125 on Linux",
        ("sql injection", "timeout"),
    )


def test_the_order_of_a_users_lines_matters_and_no_other(tmp_path: Path) -> None:
    summaries = list(map(reading.read, generator.make_lines(_LINES)))
    by_user = sorted(summaries, key=lambda summary: summary[0])
    files = [tmp_path / name for name in ("a", "b", "c")]
    for file, some in zip(files, (summaries, by_user, summaries[::-1]), strict=True):
        assert sessions.write(file, some) == _LINES
    assert files[0].read_bytes() == files[1].read_bytes() != files[2].read_bytes()


def test_parts_have_all_lines_of_a_user_in_order() -> None:
    lines = list(generator.make_lines(_LINES))
    found: dict[str, list[str]] = {}
    parts: dict[str, set[int]] = {}
    for ev in plugins.parts(lines, size=10, count=8):
        for text in ev.texts:
            user = reading.user_of(text)
            found.setdefault(user, []).append(text)
            parts.setdefault(user, set()).add(ev.part)
    in_order: dict[str, list[str]] = {}
    for text in lines:
        in_order.setdefault(reading.user_of(text), []).append(text)
    assert found == in_order
    assert {len(each) for each in parts.values()} == {1}


# --- every side ---


@pytest.mark.parametrize("label", list(sides.SIDES))
def test_every_side_has_the_same_result(
    label: str, log: Path, expected: bytes, tmp_path: Path
) -> None:
    result = tmp_path / "result.jsonl"
    if label in {"joblib", "mpire"}:
        pytest.importorskip(label)
        # not in this process: they keep helpers and files to its end
        ending = programs.run(["-m", program.__name__, label, str(log), str(result)], 120.0)
        assert ending.code == 0, ending.output
    else:
        sides.SIDES[label](sides.Job(log, result, chunk=256))
    assert result.read_bytes() == expected
    assert [each.name for each in tmp_path.iterdir()] == ["result.jsonl"]


def test_the_pool_keeps_its_promises_when_something_goes_wrong(tmp_path: Path) -> None:
    # the limit is reached by nothing that works, however busy the machine is
    seen = faults.try_all(tmp_path, _LINES, 120.0, 1.0, tried=(sides.OURS,))
    assert [str(check) for check in faults.checks(seen, _LINES) if not check.holds] == []
    assert len(faults.table(seen, _LINES).rows) == len(faults.FAULTS)


def test_a_program_that_never_ran_keeps_no_promise() -> None:
    ending = Ending(1, 1.0, "ModuleNotFoundError: No module named 'x'\n", 0, interrupted=1.0)
    never = faults.Seen(ending, has_result=False, has_half=False)
    seen = {(fault, sides.OURS): never for fault in faults.FAULTS}
    assert [check for check in faults.checks(seen, _LINES) if check.holds] == []


def test_what_was_seen_is_said_in_words() -> None:
    def words(code: int | None, output: str, *, has_result: bool = False, orphans: int = 0) -> str:
        return faults.Seen(Ending(code, 1.0, output, orphans), has_result, has_half=False).words(10)

    assert "hangs" in words(None, "")
    broken = "x.process.BrokenProcessPool: A process was terminated\n"
    assert words(1, broken) == "ends with `BrokenProcessPool` after 1.0 s, no result"
    assert words(-9, "", orphans=2).endswith("**2 processes left**")
    goes_on = "event 4 is left out: WorkerLostError('x')\nlines in the result: 9\n"
    assert words(0, goes_on, has_result=True) == (
        "goes on: 9 of 10 lines, the other: `WorkerLostError`"
    )


def test_glue_is_counted() -> None:
    rows = suite.count_lines().rows
    assert set(sides.SIDES) < {label for label, _ in rows}
    assert all(int(lines) > 0 for _, lines in rows)


def test_the_command_is_there() -> None:
    assert importlib.import_module("benchmarks.applications.logs.suite").APPLICATION.name == "logs"
