import json
from collections.abc import Generator

import pytest

from benchmarks.model import (
    RATIO,
    Bar,
    Benchmark,
    Better,
    Figure,
    Note,
    Result,
    Row,
    Settings,
    Verdict,
    peer_ratios,
    ratio,
)
from benchmarks.report import as_json, count_verdicts, format_number, render


def nothing(settings: Settings) -> Generator[Row | Note, None, None]:
    yield from ()


LOOP = Figure("loop", "us/event", (1.0, 2.0, 4.0))
OURS = Figure("ours", "us/event", (3.0, 4.0, 8.0))
MISSING = ratio("gone", None, OURS, Bar("at least", 10))
RESULT = Result(
    Benchmark("sample", "a title", nothing),
    Settings(repeats=3, min_seconds=0.05, turns=10, case="e"),
    (
        Row("few", (LOOP, OURS, ratio("ours / loop", OURS, LOOP, Bar("at most", 3.5)))),
        Row("a longer case", (OURS, MISSING, ratio("x", OURS, LOOP, Bar("at most", 1.5)))),
    ),
    (Note("something is missing"),),
)


@pytest.mark.parametrize(
    ("bar", "value", "verdict"),
    [
        (Bar("at least", 10), 10.0, "met"),
        (Bar("at least", 10), 9.99, "missed"),
        (Bar("at most", 3.5), 3.5, "met"),
        (Bar("at most", 3.5), 3.51, "missed"),
        (Bar("at most", 3.5), None, "not judged"),
    ],
)
def test_a_bar_judges(bar: Bar, value: float | None, verdict: Verdict) -> None:
    assert bar.judge(value) == verdict


def test_the_median_is_judged_not_the_worst_repeat() -> None:
    assert Figure("x", RATIO, (1.0, 2.0, 99.0), Bar("at most", 2)).verdict == "met"


def test_a_figure_without_a_bar_has_no_verdict() -> None:
    assert LOOP.verdict is None


def test_a_ratio_is_a_figure_with_a_spread_of_its_own() -> None:
    assert ratio("r", OURS, LOOP).values == (3.0, 2.0, 2.0)


@pytest.mark.parametrize(("over", "under"), [(None, OURS), (OURS, None), (None, None)])
def test_a_ratio_of_what_is_missing_is_missing(over: Figure | None, under: Figure | None) -> None:
    figure = ratio("r", over, under, Bar("at least", 1))
    assert figure.summary is None
    assert figure.verdict == "not judged"


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.16, "0.160"),
        (0.0004, "0.000"),
        (1.005e0, "1.00"),
        (3.14159, "3.14"),
        (42.42, "42.4"),
        (384.4, "384"),
        (1234567.8, "1,234,568"),
    ],
)
def test_numbers_are_written_without_exponents(number: float, text: str) -> None:
    assert format_number(number) == text


def test_the_table() -> None:
    assert render(RESULT).splitlines() == [
        "sample: a title",
        "3 repeats, samples of about 50 ms in 10 turns",
        "",
        "case           figure       unit      median   min   max    IQR  bar",
        "-------------  -----------  --------  ------  ----  ----  -----  -----------------------",
        "few            loop         us/event    2.00  1.00  4.00   1.50",
        "               ours         us/event    4.00  3.00  8.00   2.50",
        "               ours / loop              2.00  2.00  3.00  0.500  at most 3.5: met",
        "a longer case  ours         us/event    4.00  3.00  8.00   2.50",
        "               gone                        -     -     -      -  at least 10: not judged",
        "               x                        2.00  2.00  3.00  0.500  at most 1.5: missed",
        "",
        "note: something is missing",
    ]


# --- what is behind a peer ---


def compared(*rows: Row) -> Result:
    return Result(Benchmark("sample", "a title", nothing), Settings(repeats=1), rows, ())


SPEED = ratio("speed / a peer's", Figure("a", "x", (1.0, 4.0, 8.0)), OURS, better="larger")
TIME = ratio("time / a peer's", OURS, LOOP, better="smaller")


@pytest.mark.parametrize(
    ("value", "better", "times"),
    [
        (0.5, "larger", 2.0),
        (2.0, "larger", None),
        (2.0, "smaller", 2.0),
        (0.5, "smaller", None),
        (1.0, "larger", None),
        (0.0, "larger", None),
        (0.5, None, None),
    ],
)
def test_how_far_a_figure_is_behind(value: float, better: Better | None, times: float) -> None:
    assert Figure("x", RATIO, (value,), better=better).times_behind == times
    assert Figure("x", RATIO, (), better=better).times_behind is None


def test_what_is_behind_a_peer_stands_before_the_table_and_the_worst_first() -> None:
    further = ratio("not in the table", LOOP, Figure("b", "x", (4.0, 8.0, 16.0)), better="larger")
    ahead = ratio("better", OURS, LOOP, better="larger")
    result = compared(Row("one", (OURS, SPEED, TIME)), Row("other", (OURS, ahead), (further,)))
    lines = render(result).splitlines()
    assert lines[2:6] == [
        "",
        "behind a peer:",
        "  other: not in the table: 0.250 (0.250 to 0.250)",
        "  one: time / a peer's: 2.00 (2.00 to 3.00)",
    ]
    assert lines[6].startswith("case ") or lines[7].startswith("case ")
    assert "not in the table" not in "".join(lines[6:])
    (benchmark,) = as_json([result], {}, "")["benchmarks"]
    named = [(each["case"], each["name"], each["better"]) for each in benchmark["behind_peers"]]
    assert named == [
        ("other", "not in the table", "larger"),
        ("one", "time / a peer's", "smaller"),
    ]


def test_that_nothing_is_behind_is_said_where_there_are_peers() -> None:
    ahead = compared(Row("one", (ratio("better", OURS, LOOP, better="larger"),)))
    assert render(ahead).splitlines()[3] == "behind a peer: nothing"
    for without in (compared(Row("one", (OURS,))), compared(Row("one", (MISSING,)))):
        assert "behind" not in render(without)
        assert as_json([without], {}, "")["benchmarks"][0]["behind_peers"] == []


def test_ratios_over_peers_are_by_repeat_or_of_the_medians() -> None:
    ours = Figure("ours", "ms", (2.0, 4.0))
    peers = (
        Figure("as many", "ms", (1.0, 8.0)),
        Figure("fewer", "ms", (6.0,)),
        Figure("none", "ms", ()),
    )
    ratios = peer_ratios(ours, peers)
    assert [(each.name, each.values) for each in ratios] == [
        ("ours / as many", (2.0, 0.5)),
        ("ours / fewer", (0.5,)),
    ]
    assert {each.better for each in ratios} == {"smaller"}


def test_bars_are_counted() -> None:
    assert count_verdicts([RESULT, RESULT]) == {"met": 2, "missed": 2, "not judged": 2}


def test_json_holds_every_repeat() -> None:
    machine = {"cpu": "a cpu"}
    data = as_json([RESULT], machine, "2024-01-02T03:04:05+00:00")
    assert json.loads(json.dumps(data)) == data
    assert data["when"] == "2024-01-02T03:04:05+00:00"
    assert data["machine"] == machine
    assert data["bars"] == {"met": 1, "missed": 1, "not judged": 1}
    (benchmark,) = data["benchmarks"]
    assert (benchmark["name"], benchmark["notes"]) == ("sample", ["something is missing"])
    assert benchmark["settings"] == {"repeats": 3, "min_seconds": 0.05, "turns": 10, "case": "e"}
    few, longer = benchmark["rows"]
    assert few["case"] == "few"
    assert few["figures"][2] == {
        "name": "ours / loop",
        "unit": "ratio",
        "median": 2.0,
        "min": 2.0,
        "max": 3.0,
        "iqr": 0.5,
        "repeats": [3.0, 2.0, 2.0],
        "bar": {"kind": "at most", "limit": 3.5, "verdict": "met"},
    }
    gone = longer["figures"][1]
    assert (gone["median"], gone["repeats"]) == (None, [])
    assert gone["bar"]["verdict"] == "not judged"
