"""Random programs are played by this evproc and by evproc 0.2.0, a process each.

The handlers of each program are chained by requirements, because 0.2.0 runs
unrelated handlers in an order that follows from string hashing.
"""

from __future__ import annotations

import collections
import importlib.util
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support import programs

ROOT = Path(__file__).parents[2]
COUNT = 10_000 if os.environ.get("EVPROC_BARS") == "1" else 200

# What bounds a run that hangs; no test waits for it to pass.
_SECONDS = 900

_INSTALL = ("install", "--quiet", "--retries", "1", "--timeout", "20")


@pytest.fixture(scope="module")
def old_python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Python that imports evproc 0.2.0: `EVPROC_020_PYTHON`, or a new environment."""
    given = os.environ.get("EVPROC_020_PYTHON")
    if given:
        return given
    folder = tmp_path_factory.mktemp("evproc_0_2_0")
    python = str(folder / ("Scripts" if os.name == "nt" else "bin") / "python")
    # that of this interpreter can install elsewhere, and a new one takes long to make
    has_pip = importlib.util.find_spec("pip") is not None
    commands: list[list[str]] = [
        [sys.executable, "-m", "venv", *["--without-pip"] * has_pip, str(folder)],
        [sys.executable, "-m", "pip", "--python", python, *_INSTALL]
        if has_pip
        else [python, "-m", "pip", *_INSTALL],
    ]
    commands[1].append("evproc==0.2.0")
    for command in commands:
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=_SECONDS)
        except (OSError, subprocess.SubprocessError) as error:
            said = str(getattr(error, "stderr", None) or error).strip().splitlines()
            pytest.skip(
                f"evproc 0.2.0 cannot be installed here ({said[-1]}); set EVPROC_020_PYTHON"
            )
    return python


def _play_all(command: list[str], folder: Path, played: list[programs.Program]) -> list[Any]:
    """Hand programs to `programs.main` in another process; what it says about its evproc first."""
    done = subprocess.run(
        command,
        cwd=folder,
        input="".join(json.dumps(program) + "\n" for program in played),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=_SECONDS,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def _comparable(result: dict[str, Any]) -> dict[str, Any]:
    """The calls and the end of a cascade; without the texts of evproc's own errors."""
    kind, *rest = result["outcome"]
    if kind == "error" and rest[0] == "IncompatibleRequirementsException":
        rest = rest[:1]
    return {"calls": result["calls"], "outcome": [kind, *rest]}


def test_programs_in_a_total_order_do_the_same_under_0_2_0(old_python: str, tmp_path: Path) -> None:
    rng = random.Random("against 0.2.0")
    played = [programs.random_program(rng, total_order=True) for _ in range(COUNT)]

    # -E and a folder of its own: 0.2.0 must not be shadowed by the evproc under test
    script = str(Path(programs.__file__).resolve())
    about_old, *expected = _play_all([old_python, "-E", script], tmp_path, played)
    ours = "from tests.support.programs import main; main()"
    about_new, *actual = _play_all([sys.executable, "-c", ours], ROOT, played)

    assert not about_old["explains"], f"{about_old['file']} is not evproc 0.2.0"
    assert about_new["explains"]
    assert len(expected) == len(actual) == COUNT
    ends: collections.Counter[str] = collections.Counter()
    for program, old, new in zip(played, expected, actual, strict=True):
        for root, (before, now) in enumerate(zip(old, new, strict=True)):
            where = f"root event {root} of {json.dumps(program)}"
            assert _comparable(now) == _comparable(before), where
            kind, what, *_ = before["outcome"]
            ends["None" if what is None else "value" if kind == "value" else what] += 1
    # the programs are worth comparing: all ways to end are among them, and most run through
    assert ends["None"] > sum(ends.values()) / 2
    assert ends.keys() > {"value", "IncompatibleRequirementsException", "KeyError", "ProgramError"}
    print(f"{COUNT} programs, {sum(ends.values())} root events: {dict(ends)}")  # noqa: T201 - `pytest -s` shows it


def test_the_pool_says_how_to_mend_an_installation_that_0_2_0_has_overwritten(
    old_python: str, tmp_path: Path
) -> None:
    shutil.copytree(ROOT / "evproc_pool", tmp_path / "evproc_pool")
    done = subprocess.run(
        [old_python, "-c", "import evproc_pool"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert "is not the one of evproc-pool" in done.stderr
