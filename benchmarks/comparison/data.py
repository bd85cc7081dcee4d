"""What was measured, out of the JSON: lines and bars, still without a picture.

A figure is found by its name: that of a system, or ``system, variant``, which is not
drawn. Figures of events per second are the better the larger, all others the smaller.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

from benchmarks.comparison.catalogue import SYSTEMS
from benchmarks.comparison.systems import Ours
from benchmarks.model import BenchmarkError
from benchmarks.pool.kinds import VALUES
from benchmarks.pool.limits import Control
from benchmarks.pool.loads import EMITTED
from benchmarks.pool.processes import WORKERS
from benchmarks.report import FORMAT

OURS: Final = Ours.label
CONTROL: Final = Control.label

#: The cases that differ in the length of their events, in seconds; None is next to nothing.
LENGTHS: Final[Mapping[str, float | None]] = {
    "no-op": None,
    "20 us": 2e-5,
    "100 us": 1e-4,
    "1 ms": 1e-3,
    "10 ms": 1e-2,
}

#: The twins of a length: those with a value by its kind, and the one that emits.
KINDS: Final = (*VALUES, EMITTED)

#: Where it may be nothing, which nothing can be divided by.
LEAST_MEGABYTES: Final = 0.1

_BENCHMARK: Final = "comparison"
_RATE: Final = "events/s"
_SIZE: Final = "MB"
_LABELS: Final = tuple(system.label for system in SYSTEMS)

# What is better or worse, behind the names of cases that do not tell.
_TITLES: Final = {_RATE: ", speed", _SIZE: "", "us": ", time", "ms": ", time"}

#: Cases by name, in order; for each its figures by name, in the layout of the JSON.
Cases = Mapping[str, Mapping[str, Mapping[str, Any]]]


class Panel(NamedTuple):
    """A case as ratios.

    Attributes:
        title: What it is called.
        values: How many times better ours is, by the other's label.
    """

    title: str
    values: dict[str, float]


def read(file: Path) -> Mapping[str, Any]:
    """Read what `--json` wrote.

    Raises:
        BenchmarkError: It cannot be read, or is something else.
    """
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BenchmarkError(f"cannot read {file}: {error}") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise BenchmarkError(f"{file} is not of the layout {FORMAT} that --json writes")
    return document


def cases(document: Mapping[str, Any]) -> Cases:
    """The cases of `comparison` in a document.

    Raises:
        BenchmarkError: It was not run.
    """
    for benchmark in document["benchmarks"]:
        if benchmark["name"] == _BENCHMARK:
            return {
                row["case"]: {each["name"]: each for each in row["figures"]}
                for row in benchmark["rows"]
            }
    raise BenchmarkError(f"{_BENCHMARK!r} was not run, and there is nothing else to draw")


def about(document: Mapping[str, Any]) -> str:
    """One line that says where and when."""
    machine = document["machine"]
    where = f"{machine['cpu']}, {machine['usable_cores']} cores, {machine['python']}"
    return f"{where}; {document['when'][:10]}"


def _medians(figures: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Of every system and the control, without variants."""
    return {
        label: figures[label]["median"]
        for label in (*_LABELS, CONTROL)
        if label in figures and figures[label]["median"] is not None
    }


def case_of(length: str, kind: str = "") -> str:
    """The case of a length: its twin with that kind of value, if one is given."""
    return f"{length}, {kind}" if kind else length


def kinds(found: Cases) -> list[str]:
    """The kinds of twins with which any length was measured."""
    return [kind for kind in KINDS if any(case_of(each, kind) in found for each in LENGTHS)]


def lengths(found: Cases, kind: str = "") -> dict[str, float]:
    """Where on an axis the cases of `LENGTHS` are: in seconds."""
    places = {}
    for case, seconds in LENGTHS.items():
        if case_of(case, kind) not in found:
            continue
        control = _medians(found[case_of(case, kind)]).get(CONTROL)
        # next to nothing is what the control takes, which does nothing else
        places[case] = seconds or (WORKERS / control if control else 1e-6)
    return places


def lines(found: Cases, kind: str = "") -> dict[str, dict[str, float]]:
    """Events per second by label and length."""
    speeds: dict[str, dict[str, float]] = {}
    for case in LENGTHS:
        for label, speed in _medians(found.get(case_of(case, kind), {})).items():
            speeds.setdefault(label, {})[case] = speed
    return speeds


def efficiencies(found: Cases, kind: str = "") -> dict[str, dict[str, float]]:
    """The part of the control's speed by label and length."""
    parts: dict[str, dict[str, float]] = {}
    for case in LENGTHS:
        figures = found.get(case_of(case, kind), {})
        for label in _LABELS:
            if label in figures and CONTROL in figures:
                part = _quotient(figures[label], figures[CONTROL])
                parts.setdefault(label, {})[case] = part
    return parts


def ratio_panels(found: Cases) -> list[Panel]:
    """All other cases that have ours and a peer."""
    panels = []
    by_length = {case_of(length, kind) for length in LENGTHS for kind in ("", *KINDS)}
    for case, figures in found.items():
        if case in by_length or OURS not in figures:
            continue
        ours = figures[OURS]
        unit = ours["unit"]
        if unit not in _TITLES:
            continue
        values = {
            label: _better(ours, figures[label])
            for label in _LABELS
            if label != OURS and label in figures and figures[label]["repeats"]
        }
        if values:
            panels.append(Panel(f"{case}{_TITLES[unit]}", values))
    return panels


def _better(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> float:
    """How many times ours is better."""
    if ours["unit"] == _RATE:
        return _quotient(ours, theirs)
    return _quotient(theirs, ours)


def _quotient(over: Mapping[str, Any], under: Mapping[str, Any]) -> float:
    """Repeat by repeat, where both have as many."""
    least = LEAST_MEGABYTES if over["unit"] == _SIZE else 0.0
    above: list[float] = [max(each, least) for each in over["repeats"]]
    below: list[float] = [max(each, least) for each in under["repeats"]]
    if len(above) != len(below):
        return median(above) / median(below)
    return median(one / other for one, other in zip(above, below, strict=True))
