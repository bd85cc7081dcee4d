"""The pictures of README.md: there are those that it shows, and they are not outdated."""

from __future__ import annotations

import os
import re
import sys
import xml.etree.ElementTree as ET
from collections import defaultdict
from pathlib import Path

import pytest

from benchmarks.pictures.scenes import ROOT, SCENES

if sys.platform == "win32":
    pytest.skip("no pseudo-terminals there", allow_module_level=True)
pytest.importorskip("pyte", reason="of the extra [test]")

from benchmarks.pictures import __main__ as command
from benchmarks.pictures import terminal
from benchmarks.pictures.terminal import COLUMN, LINE, MARGIN, draw, show
from evproc import Event, Processor, want
from evproc_pool import PoolProcessor
from evproc_pool.cli.bench_command import handlers_table, runs_table
from evproc_pool.cli.bench_verdict import Measured
from evproc_pool.observe import ProgressCounts, progress_text

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


@pytest.mark.parametrize("name", TERMINALS)
def test_a_picture_fits_and_shows_its_commands(name: str) -> None:
    lines, scene = lines_of(committed(name)), SCENES[name]
    assert len(lines) <= 30
    assert max(map(len, lines)) <= scene.columns <= 100
    assert [line[2:] for line in lines if line.startswith("$ ")] == [*scene.commands]
    assert not any(re.search(r"Traceback|not found|No such", line) for line in lines)


class Number(Event):
    name = "number"


@want("number")
def find_divisor(proc: Processor, ev: Number) -> None: ...


def test_statistics_have_the_words_of_today() -> None:
    with PoolProcessor(workers=1, statistics=True) as pool:
        pool.register(find_divisor)
        pool.process_many([Number()])
        text = str(pool.statistics())
    heads = re.findall(r"^(?:handler|worker|slowest) .*", text, re.MULTILINE)
    heads += re.findall(r"^(?:roots|events|batches)", text, re.MULTILINE)
    assert len(heads) == 6
    for name in ("statistics", "run"):
        assert {*" ".join(heads).split()} <= words(name)


def test_progress_has_the_words_of_today() -> None:
    counts = ProgressCounts(200, 500, 400, 700, 1, 0, 2.0, 200.0, 3.0, is_over=False)
    expected = {*re.findall(r"[a-z]+", progress_text.line(counts))}
    assert "roots" in expected
    assert expected <= {*re.findall(r"[a-z]+", " ".join(words("progress")))}


def test_bench_has_the_words_of_today() -> None:
    measured = Measured(1, 0, 1.0, 1.0, 1.0, (), {}, 1)
    heads = (*runs_table(measured).columns, *handlers_table(measured).columns)
    assert {*" ".join(heads).replace(">", "").split()} <= words("bench")


# --- making them ---


def comparable(svg: str) -> list[str]:
    """The words of each line; how a table is drawn is a matter of rich's version."""
    lines = [re.sub(r"[─━]+", "", line) for line in lines_of(svg)]
    return [" ".join(line.split()) for line in lines if line.strip()]


@pytest.mark.parametrize("name", [name for name, scene in SCENES.items() if scene.is_steady])
def test_a_picture_shows_what_is_printed_today(name: str) -> None:
    # made for real, in a pseudo-terminal
    made = comparable(command.picture(SCENES[name]))
    assert made == comparable(committed(name)), f"python -m benchmarks.pictures {name}"


def test_the_log_is_that_of_today_but_for_numbers_and_its_order() -> None:
    made, shown = (
        sorted(re.sub(r"\d+", "0", line) for line in comparable(svg))
        for svg in (command.picture(SCENES["logs"]), committed("logs"))
    )
    assert made == shown, "python -m benchmarks.pictures logs"


def test_a_drawn_graph_is_a_picture() -> None:
    pytest.importorskip("pygraphviz", reason="not for this machine", exc_type=ImportError)
    texts = {*ET.fromstring(command.picture(SCENES["graph-file"])).itertext()}
    assert {"1 check", "2 price", "3 assess", "4 bill", "order", "mail"} <= texts


def drawn(line: str, folder: Path, *, columns: int = 12, until: str = "") -> str:
    environment = {"PATH": os.environ["PATH"]}
    screen = show([line], folder, environment, columns=columns, until=until)
    return draw(screen, "a <title>")


def test_a_picture_is_what_a_terminal_makes_of_it(tmp_path: Path) -> None:
    svg = drawn(r"printf 'abc\rX\n<&> \033[31mred\033[0m'", tmp_path, columns=80)
    assert lines_of(svg)[1:] == ["Xbc", "<&> red"]
    assert ET.fromstring(svg).findtext(f"{SVG}title") == "a <title>"
    red = next(text for text in ET.fromstring(svg).iter(f"{SVG}text") if text.text == "red")
    assert red.get("fill") == "#cf222e"


def test_a_line_is_wrapped_at_the_width_that_programs_are_told(tmp_path: Path) -> None:
    assert lines_of(drawn("stty size", tmp_path, columns=12))[1:] == ["60 12"]
    lines = lines_of(drawn("echo 12345678", tmp_path, columns=12))
    assert lines == ["$ echo 12345", "678", "12345678"]


def test_a_picture_is_taken_in_the_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # a byte at a time, so that none is behind the one that matters
    monkeypatch.setattr(terminal, "_MOST_BYTES", 1)
    # what comes later is read all the same, or the command would wait for ever
    svg = drawn("printf '50%%'; seq 5000", tmp_path, columns=80, until="(?m)^50%")
    assert lines_of(svg)[1:] == ["50%"]


def test_nothing_begins_behind_what_the_picture_waits_for(tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"]}
    show(["echo 50%", "touch file"], tmp_path, environment, columns=80, until="(?m)^50%")
    assert list(tmp_path.iterdir()) == []


def test_pictures_are_written_by_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "FOLDER", tmp_path)
    assert command.main(["graph"]) == 0
    assert [file.name for file in tmp_path.iterdir()] == ["graph.svg"]
    assert capsys.readouterr().out == "graph.svg\n"
    with pytest.raises(SystemExit):
        command.main(["grpah"])
    assert "there is no picture 'grpah': there is handlers, explain, " in capsys.readouterr().err
