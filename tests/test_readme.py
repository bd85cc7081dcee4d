"""README.md says what is true: its code runs, its tables list what there is."""

from __future__ import annotations

import ast
import functools
import inspect
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest

from evproc_pool import PoolProcessor
from evproc_pool.backends import promises

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


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return furnished(tmp_path_factory.mktemp("readme"))


def furnished(folder: Path) -> Path:
    """Write the blocks that begin with the name of a file, as ``# shop.py``."""
    for block in of("python"):
        if name := re.match(r"# (\w+\.py)\b", block.code):
            (folder / name[1]).write_text(block.code, encoding="utf-8")
    return folder


@functools.cache  # several tests are about the same block
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
    # but for the progress of a call
    assert re.sub(r"^evproc: .*\n", "", done.stderr, flags=re.MULTILINE) == ""
    return done.stdout


def test_every_block_is_of_a_kind_that_is_tested_here() -> None:
    assert {block.language for block in blocks()} == {"python", "sh", "toml"}


@pytest.mark.parametrize("place", range(len(of("python"))))
def test_a_python_block_runs_when_pasted_into_a_file(place: int, folder: Path) -> None:
    code = of("python")[place].code
    if "from fastapi" in code:
        pytest.importorskip("fastapi", reason="has no wheels for this Python", exc_type=ImportError)
    printed = run(code, folder).splitlines()
    # but for those that are cut, which end in dots
    for promised in re.findall(r"print\(.*\)  # (.*[^.\n])$", code, re.MULTILINE):
        assert promised in printed


def test_the_first_pool_prints_what_is_said_below_it(folder: Path) -> None:
    said = re.search(r"It prints `(.+?)`\. Paste", README)
    assert said is not None
    (block,) = [block for block in of("python") if block.heading == "The same with the pool"]
    assert run(block.code, folder).strip() == said[1]


def test_the_missing_group_is_told_as_said(folder: Path) -> None:
    (block,) = [block for block in of("python") if "load_from" in block.code]
    said = re.search(r"print\(error\)  # (.+) \.\.\.", block.code)
    assert said is not None
    assert run(block.code, folder).startswith(said[1])


def test_the_entry_points_are_valid_toml() -> None:
    (block,) = [block for block in of("toml") if "entry-points" in block.code]
    table = tomllib.loads(block.code)["project"]["entry-points"]
    assert list(table["app.handlers"]) == ["add_up", "check"]


def test_the_defaults_of_the_command_are_known_to_it() -> None:
    pytest.importorskip("click")
    from evproc_pool.cli.click_options import _options
    from evproc_pool.cli.commands import run_command

    (block,) = [block for block in of("toml") if "tool.evproc" in block.code]
    table = tomllib.loads(block.code)["tool"]["evproc"]
    assert table.keys() <= _options(run_command).keys()


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


# --- tables ---


def section(heading: str) -> str:
    """The text below a heading, without its code."""
    found = re.search(rf"^## {heading}$([\s\S]*?)(?=^## |\Z)", README, re.MULTILINE)
    assert found is not None
    return without_code(found[1])


def without_code(text: str) -> str:
    return re.sub(r"^```[\s\S]*?^```$", "", text, flags=re.MULTILINE)


def tables(text: str) -> list[list[list[str]]]:
    """The tables in a text: the cells of their rows, without the heads."""
    found = []
    for table in re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE):
        rows = [[cell.strip() for cell in line[1:-1].split("|")] for line in table.splitlines()]
        found.append(rows[2:])
    return found


def parameters(function: object) -> dict[str, str]:
    """The parameters that have a default, as the tables write them."""
    assert callable(function)
    return {
        name: each.default.__name__ if isinstance(each.default, type) else repr(each.default)
        for name, each in inspect.signature(function).parameters.items()
        if each.default is not each.empty
    }


def test_all_options_of_the_pool_are_listed_with_their_defaults() -> None:
    table, _ = tables(section("Options"))
    listed = {name.strip("`"): default.strip("`") for name, default, _, _ in table}
    assert listed == parameters(PoolProcessor)


def test_all_options_of_the_calls_are_listed_with_their_defaults() -> None:
    _, table = tables(section("Options"))
    listed: dict[str, dict[str, str]] = {}
    for name, default, calls, _ in table:
        for call in re.findall(r"`(\w+)`", calls):
            listed.setdefault(call, {})[name.strip("`")] = default.strip("`")
    public = [name for name in dir(PoolProcessor) if not name.startswith("_")]
    methods = [name for name in public if callable(getattr(PoolProcessor, name))]
    with_options = {name: parameters(getattr(PoolProcessor, name)) for name in methods}
    assert listed == {name: options for name, options in with_options.items() if options}


def texts_in_the_code() -> list[str]:
    """Every text in the packages; what is filled in later stands there as ``{}``."""
    texts = []
    for package in ("evproc", "evproc_pool"):
        for file in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    parts = [
                        str(part.value) if isinstance(part, ast.Constant) else "{}"
                        for part in node.values
                    ]
                    texts.append("".join(parts))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    texts.append(node.value)
    return texts


def test_the_errors_to_look_up_are_those_of_the_code() -> None:
    errors, surprises = tables(section("Troubleshooting"))
    assert len(errors) + len(surprises) >= 20
    texts = texts_in_the_code()
    missing = [
        quoted
        for text, _ in errors
        for quoted in re.findall(r"`([^`]+)`", text)
        if not any(quoted in each for each in texts)
    ]
    # these are Python's own
    assert missing == [
        "Can't instantiate abstract class",
        "Can't get attribute 'Result' on <module '__main__'",
    ]


#: The columns of the table of promises, and what each of its rows begins or ends with.
_PROMISING = {
    "the pool's processes": promises.LOCAL,
    "agents on Dask or Ray": promises.AGENTS,
    "executor of a callable": promises.CALLS_OF_FACTORY,
    "executor": promises.CALLS,
    "`workers=0`": promises.IN_PROCESS,
}
_PROMISES = {
    "hang_limit": "`event_timeout`: an event that hangs is noticed",
    "hard_timeout": "an event that hangs fails alone",
    "ends_handlers": "`cancel_running`: a caller can have a running handler ended",
    "isolation": "a worker's death costs one event",
    "attribution": "its error names the handler, and nothing runs twice",
    "restart": "the pool goes on after a death",
    "memory_limit": "`max_worker_memory_bytes`",
    "large_buffers": "large buffers cross by shared memory",
    "replaces_workers": "`max_tasks_per_child`: workers are replaced",
    "starts_processes": (
        "`mp_context`, `preload`, `native_threads`, `worker_output`, `event_soft_timeout`"
    ),
    "elasticity": "workers may come and go during a run",
}


def test_the_table_of_promises_is_that_of_the_code() -> None:
    (table,) = tables(section("On another executor"))
    heads = re.search(r"^\| promise \|(.*)\|$", section("On another executor"), re.MULTILINE)
    assert heads is not None
    assert [head.strip() for head in heads[1].split("|")] == list(_PROMISING)
    assert _PROMISES.keys() == set(promises.Promises._fields)
    written = {text: cells for text, *cells in table}
    made = {
        text: [("no", "yes")[getattr(each, name)] for each in _PROMISING.values()]
        for name, text in _PROMISES.items()
    }
    assert written == made


# --- form ---


def test_the_table_of_contents_leads_everywhere() -> None:
    headings = re.findall(r"^## (.+)$", without_code(README), re.MULTILINE)
    anchors = [re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings]
    listed = re.findall(r"\]\(#([\w-]+)\)", section("Contents"))
    assert listed == [anchor for anchor in anchors if anchor != "contents"]


def test_no_paragraph_is_long() -> None:
    # five lines of a hundred characters
    lines = without_code(README).splitlines()
    lines = [line for line in lines if not line.startswith(("|", "!["))]
    assert [line for line in lines if len(line) > 500] == []
