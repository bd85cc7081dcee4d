"""What is measured in a new interpreter each time: start-up, import, and ``__main__``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import benchmarks
from benchmarks.comparison import scripts
from benchmarks.comparison.systems import Executor, Ours, System
from benchmarks.model import Bar, BenchmarkError, Figure, Note, Row, Settings, peer_ratios, ratio
from benchmarks.timing import interleaved

_ROOT: Final = Path(benchmarks.__file__).parents[1]

#: The bars: start-up over the executor's; imports over those of the standard library.
START_TIMES: Final = 1.3
EVPROC_TIMES: Final = 1.0
POOL_TIMES: Final = 2.0

#: The bar on the speed with a class of the main script over that with an importable one.
MAIN_PART: Final = 0.70

_MAIN_EVENTS: Final = 20_000
# What they take about, to run fewer of them in a quick run.
_MAIN_SECONDS: Final = 0.1

# Imports take milliseconds, and a bar on their ratio wants more than a handful.
_IMPORTS: Final = 3

_PATIENCE_SECONDS: Final = 120.0

_MILLISECONDS: Final = "ms"

_Sampler = Callable[[], float]

# What bars compare.
_NEEDED: Final = frozenset({"logging", "evproc", Ours.label, Executor.label})

_IMPORT: Final = """\
from time import perf_counter
begin = perf_counter()
import {module}
print(perf_counter() - begin)
"""


def environment() -> dict[str, str]:
    """The environment of an interpreter that is to find this repository's packages.

    And to keep what it has compiled: those that are installed have been compiled.
    """
    path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH", ""))))
    # see `optional.Ray`
    ray = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    inherited = {key: text for key, text in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    return {**inherited, **ray, "PYTHONPATH": path}


def run_python(arguments: Sequence[str], script: str | None = None) -> str:
    """Run an interpreter to its end, and give what it printed.

    Args:
        arguments: Those of the command line.
        script: What it reads from its standard input.

    Raises:
        BenchmarkError: It failed, or takes too long.
    """
    try:
        done = subprocess.run(
            [sys.executable, *arguments],
            input=script or "",
            env=environment(),
            cwd=_ROOT,
            capture_output=True,
            encoding="utf-8",
            timeout=_PATIENCE_SECONDS,
            check=True,
        )
    except subprocess.CalledProcessError as error:
        raise BenchmarkError(f"{' '.join(arguments)[:60]}: {last_line(error.stderr)}") from error
    except subprocess.TimeoutExpired as error:
        raise BenchmarkError(f"{' '.join(arguments)[:60]}: it takes too long") from error
    return done.stdout


def last_line(text: str) -> str:
    """What a traceback ends with."""
    return text.strip().rpartition("\n")[2]


# --- start-up ---


def first_result(label: str) -> float:
    """Seconds from the start of an interpreter until a pool of that system gave a value.

    Raises:
        BenchmarkError: It failed.
    """
    with tempfile.TemporaryDirectory(prefix="evp", ignore_cleanup_errors=True) as folder:
        script = Path(folder, "script.py")
        script.write_text(scripts.first_result(label), encoding="utf-8")
        begin = time.perf_counter()
        with subprocess.Popen(
            [sys.executable, str(script), folder],
            env=environment(),
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
        ) as process:
            assert process.stdout is not None
            line = process.stdout.readline()
            seconds = time.perf_counter() - begin
            try:
                process.wait(_PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
    if line.strip() != "done":
        raise BenchmarkError(f"{label}: its script for the start gave no value")
    return seconds


def measure_start(
    systems: Sequence[type[System]], settings: Settings, label: str
) -> Iterator[Row | Note]:
    """How long it takes from nothing to the first value."""
    samplers: dict[str, _Sampler] = {
        each.label: partial(first_result, each.label) for each in systems
    }
    yield from _tried(samplers, label)
    figures = _figures_apart(samplers, systems, settings.repeats, settings.repeats)
    bars = {Executor.label: Bar("at most", START_TIMES)}
    ours = figures[Ours.label]
    ratios = [
        ratio(f"{Ours.label} / {name}", ours, figure, bars.get(name), "smaller")
        for name, figure in figures.items()
        if figure is not ours
    ]
    yield Row(label, (*figures.values(), *ratios))


# --- imports ---


def import_seconds(module: str) -> float:
    """How long it takes to import a module in a new interpreter."""
    return float(run_python(["-c", _IMPORT.format(module=module)]))


def measure_import(
    systems: Sequence[type[System]], settings: Settings, label: str
) -> Iterator[Row | Note]:
    """What it takes to import each, and evproc beside what every application imports."""
    modules = {
        "logging": "logging",
        "evproc": "evproc",
        **{each.label: each.module for each in systems},
    }
    samplers: dict[str, _Sampler] = {
        name: partial(import_seconds, module) for name, module in modules.items()
    }
    yield from _tried(samplers, label)
    repeats = settings.repeats
    figures = _figures_apart(samplers, systems, repeats * _IMPORTS, repeats)
    ours = figures[Ours.label]
    needed = (Ours.label, Executor.label)
    peers = [figures[each.label] for each in systems if each.label in figures]
    peers = [each for each in peers if each.name not in needed]
    yield Row(
        label,
        (
            *figures.values(),
            ratio(
                "evproc / logging",
                figures["evproc"],
                figures["logging"],
                Bar("at most", EVPROC_TIMES),
            ),
            ratio(
                "evproc_pool / concurrent.futures.process",
                figures[Ours.label],
                figures[Executor.label],
                Bar("at most", POOL_TIMES),
                "smaller",
            ),
        ),
        peer_ratios(ours, peers),
    )


def _tried(samplers: dict[str, _Sampler], label: str) -> Iterator[Note]:
    """Take each once, when files are read and compiled; leave out those that fail."""
    for name, sample in list(samplers.items()):
        try:
            sample()
        except BenchmarkError as error:
            if name in _NEEDED:
                raise
            del samplers[name]
            yield Note(f"{name} is left out of {label!r}: {error}")


def _figures_apart(
    samplers: Mapping[str, _Sampler], systems: Sequence[type[System]], repeats: int, few: int
) -> dict[str, Figure]:
    """Take those that are restless, whose processes are there yet when they have ended, last.

    Args:
        samplers: By name.
        systems: Some of these are restless.
        repeats: How often the others are taken.
        few: How often these are.
    """
    restless = {each.label for each in systems if each.is_restless}
    others = {name: sample for name, sample in samplers.items() if name not in restless}
    last = {name: sample for name, sample in samplers.items() if name in restless}
    return {**_figures(others, repeats), **_figures(last, few)}


def _figures(samplers: Mapping[str, _Sampler], repeats: int) -> dict[str, Figure]:
    return {
        name: Figure(name, _MILLISECONDS, tuple(each * 1e3 for each in values))
        for name, values in interleaved(samplers, repeats).items()
    }


# --- __main__ ---


def measure_main(settings: Settings, label: str) -> Iterator[Row]:
    """What events cost whose class is defined in a script that nobody can import."""
    part = min(1.0, settings.min_seconds / _MAIN_SECONDS)
    count = max(2, round(_MAIN_EVENTS * part))
    out = run_python(["-", str(count), str(settings.repeats)], scripts.MAIN)
    figures = {
        name: Figure(f"class of {name}", "events/s", tuple(1 / each for each in values))
        if name == "__main__"
        else Figure("importable class", "events/s", tuple(1 / each for each in values))
        for name, values in json.loads(out).items()
    }
    share = ratio(
        "class of __main__ / importable",
        figures["__main__"],
        figures["importable"],
        Bar("at least", MAIN_PART),
    )
    yield Row(label, (*figures.values(), share))
