"""The picture in the project's README shows figures that are published, and no others."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from benchmarks.comparison import summary
from benchmarks.comparison.summary import EXECUTOR, GROUPS, POOL, Ratio, Row

PUBLISHED = (Path(__file__).parents[2] / "benchmarks" / "README.md").read_text(encoding="utf-8")
COLUMNS = (POOL, EXECUTOR, "loky", "joblib", "mpire", "pebble", "deadpool", "Dask", "Ray")
ROWS = [row for rows in GROUPS.values() for row in rows]


@pytest.mark.parametrize("row", [row for row in ROWS if isinstance(row, Row)])
def test_a_row_has_the_published_figures_and_the_best_peer(row: Row) -> None:
    begin = rf"^\| {re.escape(row.case)} \| (?:events/s|µs|ms|MB) \|"
    line = re.search(rf"{begin}(.+)\|$", PUBLISHED, re.MULTILINE)
    assert line is not None
    ours, *peers = line[1].split("|")
    assert ours.strip() == row.ours
    theirs = {
        name: float(text.replace(",", ""))
        for name, text in zip(COLUMNS, peers, strict=True)
        if text.strip()
    }
    best = (min if row.less_is_better else max)(theirs.values())
    assert theirs[row.peer] == best == float(row.best.replace(",", ""))


@pytest.mark.parametrize("ratio", [row for row in ROWS if isinstance(row, Ratio)])
def test_a_ratio_is_published(ratio: Ratio) -> None:
    assert re.search(rf"(?<![\d.]){re.escape(ratio.published)}(?![\d.]*\d)", PUBLISHED)


def test_the_committed_picture_is_of_these_figures() -> None:
    assert summary.FILE.read_text(encoding="utf-8") == summary.svg()


def test_the_picture_is_readable_on_any_background() -> None:
    root = ET.fromstring(summary.svg())
    width, height = root.attrib["width"], root.attrib["height"]
    first = root.find("{http://www.w3.org/2000/svg}rect")
    assert first is not None
    assert first.attrib == {"width": width, "height": height, "fill": "white"}


def test_every_bar_is_inside_the_picture() -> None:
    assert all(summary._LOW < row.ratio < summary._HIGH for row in ROWS)
