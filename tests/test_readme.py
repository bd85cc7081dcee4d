"""Every code block of README.md does what it says."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


class Block(NamedTuple):
    heading: str
    language: str
    code: str


def blocks() -> list[Block]:
    found = []
    heading = ""
    pattern = re.compile(
        r"^## (?P<heading>.+)$|^```(?P<language>\w*)\n(?P<code>[\s\S]*?)^```$", re.MULTILINE
    )
    for match in pattern.finditer(README):
        if match["heading"]:
            heading = match["heading"]
        else:
            found.append(Block(heading, match["language"], match["code"]))
    return found


def of(language: str) -> list[Block]:
    return [block for block in blocks() if block.language == language]


def run(code: str, folder: Path) -> str:
    script = folder / "example.py"
    script.write_text(code, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        cwd=folder,
        env={"PATH": "", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_every_block_is_of_a_kind_that_is_tested_here() -> None:
    assert {block.language for block in blocks()} == {"python", "sh", "toml"}


@pytest.mark.parametrize("place", range(len(of("python"))))
def test_a_python_block_runs_when_pasted_into_a_file(place: int, tmp_path: Path) -> None:
    code = of("python")[place].code
    printed = run(code, tmp_path).splitlines()
    for promised in re.findall(r"# (\[.*\])$", code, re.MULTILINE):
        assert promised in printed


def test_the_first_example_prints_what_is_said_below_it(tmp_path: Path) -> None:
    said = re.search(r"It prints `(.+?)`\. Paste", README)
    assert said is not None
    assert run(of("python")[0].code, tmp_path).strip() == said[1]


def test_the_missing_group_is_told_as_said(tmp_path: Path) -> None:
    (block,) = [block for block in of("python") if "load_from" in block.code]
    said = re.search(r"print\(error\)  # (.+) \.\.\.", block.code)
    assert said is not None
    assert run(block.code, tmp_path).startswith(said[1])


def test_the_entry_points_are_valid_toml() -> None:
    (block,) = of("toml")
    table = tomllib.loads(block.code)["project"]["entry-points"]
    assert list(table["app.handlers"]) == ["add_up", "check"]


@pytest.mark.parametrize("heading", ["Run it", "Test it"])
def test_the_two_commands_are_one_line_each_and_set_everything_up(heading: str) -> None:
    # .ci/run runs them; here they cannot be, since one of them runs this test
    (block,) = [block for block in of("sh") if block.heading == heading]
    (line,) = block.code.splitlines()
    assert line.startswith("python3 -m venv .venv && .venv/bin/pip install ")


def test_files_that_the_readme_links_to_exist() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
