"""Results as an aligned table for people, and as plain data for JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from benchmarks.model import RATIO, Figure, Result, Settings, Verdict
from benchmarks.stats import summarize

_HEADINGS: Final = ("case", "figure", "unit", "median", "min", "max", "IQR", "bar")
_NUMERIC: Final = frozenset({"median", "min", "max", "IQR"})

#: The version of the JSON's layout: raised when a key changes its meaning or goes.
FORMAT: Final = 2


def render(result: Result) -> str:
    """Lay out one benchmark: title, settings, what is behind a peer, table, notes."""
    lines = [f"{result.benchmark.name}: {result.benchmark.title}", _settings(result.settings), ""]
    if behind := list(_behind(result)):
        lines += [*behind, ""]
    lines += _aligned(_HEADINGS, list(_cells(result)))
    if result.notes:
        lines += ["", *(f"note: {note.text}" for note in result.notes)]
    return "\n".join(lines)


def _settings(settings: Settings) -> str:
    turns = f" in {settings.turns} turns" if settings.turns > 1 else ""
    return f"{settings.repeats} repeats, samples of about {settings.min_seconds * 1000:g} ms{turns}"


def _behind(result: Result) -> Iterator[str]:
    """Say in what a peer is better; nothing where there are no peers."""
    figures = [figure for row in result.rows for figure in (*row.figures, *row.peers)]
    if not any(figure.better is not None and figure.values for figure in figures):
        return
    found = result.behind
    yield "behind a peer:" if found else "behind a peer: nothing"
    for case, figure in found:
        summary = summarize(figure.values)
        middle, least, most = map(format_number, (summary.median, summary.minimum, summary.maximum))
        yield f"  {case}: {figure.name}: {middle} ({least} to {most})"


def _cells(result: Result) -> Iterator[tuple[str, ...]]:
    for row in result.rows:
        for place, figure in enumerate(row.figures):
            # the case stands once, in front of its figures
            yield (row.case if place == 0 else "", *_figure_cells(figure))


def _figure_cells(figure: Figure) -> tuple[str, ...]:
    summary = figure.summary
    if summary is None:
        numbers = ["-"] * 4
    else:
        numbers = [
            format_number(number)
            for number in (summary.median, summary.minimum, summary.maximum, summary.iqr)
        ]
    unit = "" if figure.unit == RATIO else figure.unit
    bar = "" if figure.bar is None else f"{figure.bar.kind} {figure.bar.limit:g}: {figure.verdict}"
    return (figure.name, unit, *numbers, bar)


def format_number(number: float) -> str:
    """Write a number with three digits or a few more, never with an exponent."""
    size = abs(number)
    digits = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3
    return f"{number:,.{digits}f}"


def _aligned(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    for row in (headings, ["-" * width for width in widths], *rows):
        cells = [
            cell.rjust(width) if heading in _NUMERIC else cell.ljust(width)
            for heading, cell, width in zip(headings, row, widths, strict=True)
        ]
        yield "  ".join(cells).rstrip()


def count_verdicts(results: Iterable[Result]) -> Counter[Verdict]:
    """Count the bars that were met, missed and not judged."""
    return Counter(
        figure.verdict
        for result in results
        for row in result.rows
        for figure in row.figures
        if figure.verdict is not None
    )


def as_json(results: Sequence[Result], machine: dict[str, Any], when: str) -> dict[str, Any]:
    """Put everything into plain data, every single repeat included.

    Args:
        results: What was run, in order.
        machine: See `benchmarks.machine.describe_machine`.
        when: The start of the run, in ISO 8601.
    """
    verdicts = count_verdicts(results)
    return {
        "format": FORMAT,
        "when": when,
        "machine": machine,
        "benchmarks": [_result_data(result) for result in results],
        "bars": {each: verdicts[each] for each in ("met", "missed", "not judged")},
    }


def _result_data(result: Result) -> dict[str, Any]:
    return {
        "name": result.benchmark.name,
        "title": result.benchmark.title,
        "settings": {
            "repeats": result.settings.repeats,
            "min_seconds": result.settings.min_seconds,
            "turns": result.settings.turns,
            "case": result.settings.case,
        },
        "behind_peers": [{"case": case, **_figure_data(figure)} for case, figure in result.behind],
        "rows": [
            {"case": row.case, "figures": [_figure_data(figure) for figure in row.figures]}
            for row in result.rows
        ],
        "notes": [note.text for note in result.notes],
    }


def _figure_data(figure: Figure) -> dict[str, Any]:
    summary = figure.summary
    data: dict[str, Any] = {"name": figure.name, "unit": figure.unit}
    for key, attribute in (
        ("median", "median"),
        ("min", "minimum"),
        ("max", "maximum"),
        ("iqr", "iqr"),
    ):
        data[key] = None if summary is None else getattr(summary, attribute)
    data["repeats"] = list(figure.values)
    if figure.better is not None:
        data["better"] = figure.better
    if figure.bar is not None:
        data["bar"] = {
            "kind": figure.bar.kind,
            "limit": figure.bar.limit,
            "verdict": figure.verdict,
        }
    return data
