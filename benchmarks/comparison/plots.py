"""Plots of what `comparison` measured, made from its JSON.

``python -m benchmarks.comparison.plots FILE DIR`` draws an earlier run, ``--plots DIR`` of
``python -m benchmarks`` the one that it makes:

- ``throughput.svg``: events per second, and the part of what two plain processes do,
  against the length of an event;
- ``values.svg``: the same where handlers have values, for each kind of value, and where they emit;
- ``ratios.svg``: all else, as ratios; right of 1 `PoolProcessor` is better.

What is drawn is found by the names of cases and figures, see `data`. matplotlib is
imported only here, when something is drawn.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.comparison import data
from benchmarks.comparison.catalogue import EXTRA
from benchmarks.comparison.data import CONTROL, LENGTHS, OURS
from benchmarks.model import BenchmarkError
from benchmarks.pool.kinds import VALUES

# Of Okabe and Ito, and some more: to be told apart by everyone. Ours is the only dark one.
_OUR_COLOUR: Final = "#0b3d91"
_COLOURS: Final = {
    "multiprocessing.Pool": "#e69f00",
    "ProcessPoolExecutor": "#d55e00",
    "loky": "#009e73",
    "joblib": "#56b4e9",
    "mpire": "#cc79a7",
    "pebble": "#8c6d31",
    "deadpool": "#999999",
    "Dask": "#b5bd00",
    "Ray": "#7b52ab",
}
_MARKERS: Final = dict(zip(_COLOURS, "osD^vP*X<", strict=True))
_BETTER: Final = "#2f6db5"
_WORSE: Final = "#d9722b"

_COLUMNS: Final = 3
_PANEL_INCHES: Final = (4.4, 2.9)


def check(extra: str = EXTRA) -> None:
    """See whether anything can be drawn here.

    Args:
        extra: The one that has matplotlib for whoever asks.

    Raises:
        BenchmarkError: matplotlib is missing.
    """
    try:
        import matplotlib.figure  # noqa: F401 - that is the question
    except ImportError as error:
        raise BenchmarkError(
            f"plots need matplotlib, which the extra {extra!r} has: pip install"
            f" 'evproc-pool[{extra}]'"
        ) from error


def draw(document: Mapping[str, Any], folder: Path, suffix: str = ".svg") -> list[Path]:
    """Draw what there is to draw.

    Args:
        document: What `--json` wrote.
        folder: Where the pictures go; made if it is not there.
        suffix: Their format.

    Returns:
        The files.

    Raises:
        BenchmarkError: matplotlib is missing, or the document has nothing of `comparison`,
            or the folder cannot be written to.
    """
    check()
    cases = data.cases(document)
    about = data.about(document)
    pictures = {}
    if any(case in cases for case in LENGTHS):
        pictures["throughput"] = _throughput(cases, about)
    if data.kinds(cases):
        pictures["values"] = _values(cases, about)
    if data.ratio_panels(cases):
        pictures["ratios"] = _ratios(cases, about)
    if not pictures:
        raise BenchmarkError("there is nothing to draw: no case with several systems was measured")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files = []
        for name, picture in pictures.items():
            file = folder / f"{name}{suffix}"
            # without a date, so that equal figures make equal files
            metadata = {"Date": None} if suffix == ".svg" else None
            picture.savefig(file, metadata=metadata, dpi=110)
            files.append(file)
    except OSError as error:
        raise BenchmarkError(f"cannot write to {folder}: {error}") from error
    return files


def _figure(width: float, height: float) -> Any:
    from matplotlib import rcParams
    from matplotlib.figure import Figure

    rcParams["svg.hashsalt"] = "evproc-pool"
    return Figure(figsize=(width, height), layout="constrained")


# --- against the length of an event ---


def _style(label: str) -> dict[str, Any]:
    if label == OURS:
        return {"color": _OUR_COLOUR, "linewidth": 3, "marker": "o", "markersize": 7, "zorder": 5}
    if label == CONTROL:
        return {"color": "black", "linewidth": 1.2, "linestyle": "--", "zorder": 1}
    return {
        "color": _COLOURS.get(label, "#777777"),
        "marker": _MARKERS.get(label, "o"),
        "linewidth": 1.3,
        "markersize": 5,
        "zorder": 3,
    }


def _throughput(cases: data.Cases, about: str) -> Any:
    """Two panels: events per second, both axes logarithmic, and the part of the control's."""
    figure = _figure(12.5, 5.2)
    speeds, parts = figure.subplots(1, 2)
    _curves(speeds, parts, cases)
    speeds.set(title="throughput")
    parts.set(title="efficiency")
    _label(speeds, parts)
    _finish(figure, speeds, about)
    return figure


def _values(cases: data.Cases, about: str) -> Any:
    """The two panels of `_throughput` one above the other, a column for each kind of value."""
    kinds = data.kinds(cases)
    figure = _figure(3.6 * len(kinds) + 2.5, 8.4)
    grid = figure.subplots(2, len(kinds), squeeze=False, sharey="row")
    for place, kind in enumerate(kinds):
        speeds, parts = grid[0][place], grid[1][place]
        _curves(speeds, parts, cases, kind)
        speeds.set(title=f"value: {kind}" if kind in VALUES else kind)
        if place == 0:
            _label(speeds, parts)
    _finish(figure, grid[0][0], about)
    return figure


def _curves(speeds: Any, parts: Any, cases: data.Cases, kind: str = "") -> None:
    """Draw events per second into one panel, and the part of the control's into the other."""
    lengths = data.lengths(cases, kind)
    for label, values in data.lines(cases, kind).items():
        points = [(lengths[case], value) for case, value in values.items()]
        name = "two plain processes (control)" if label == CONTROL else label
        speeds.plot(*zip(*points, strict=True), label=name, **_style(label))
    for label, values in data.efficiencies(cases, kind).items():
        points = [(lengths[case], value) for case, value in values.items()]
        parts.plot(*zip(*points, strict=True), **_style(label))
    parts.axhline(1, **_style(CONTROL))
    speeds.set(yscale="log")
    parts.set(ylim=(0, 1.08))
    for axes in (speeds, parts):
        axes.set(xscale="log", xlabel="length of an event")
        axes.set_xticks(list(lengths.values()), [case.replace("us", "µs") for case in lengths])
        axes.minorticks_off()
        axes.grid(color="#dddddd", linewidth=0.7)
        axes.spines[["top", "right"]].set_visible(False)


def _label(speeds: Any, parts: Any) -> None:
    speeds.set(ylabel="events per second, two workers")
    parts.set(ylabel="part of what two plain processes do")


def _finish(figure: Any, axes: Any, about: str) -> None:
    """Add the legend, which is the same for all panels, and where it was measured."""
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", frameon=False)
    figure.suptitle(about, fontsize=9, color="#555555")


# --- everything else ---


def _ratios(cases: data.Cases, about: str) -> Any:
    """A panel for each case, a bar for each peer."""
    panels = data.ratio_panels(cases)
    # those that take part anywhere, in the same place everywhere
    peers = [label for label in _COLOURS if any(label in panel.values for panel in panels)]
    rows = -(-len(panels) // _COLUMNS)
    width, height = _PANEL_INCHES
    figure = _figure(width * _COLUMNS, height * rows + 0.6)
    grid = figure.subplots(rows, _COLUMNS, squeeze=False)
    flat = [axes for line in grid for axes in line]
    for place, (axes, panel) in enumerate(zip(flat, panels, strict=False)):
        _bars(axes, panel, peers)
        if place % _COLUMNS:
            axes.tick_params(labelleft=False)
    for axes in flat[len(panels) :]:
        axes.set_visible(False)
    figure.suptitle(
        f"how many times better {OURS} is than each (logarithmic; right of 1, blue: {OURS} is"
        f" better; left of 1, orange: the other)\n{about}",
        fontsize=10,
    )
    return figure


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers on a logarithmic axis: as many as have room for their names."""
    steps = (1, 2, 5) if high / low < 300 else (1,)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)))
    # rounded: 2 * 10**-1 is to be 0.2
    ticks = [round(step * 10.0**power, 6) for power in powers for step in steps]
    return [tick for tick in ticks if low <= tick <= high]


def _bars(axes: Any, panel: data.Panel, peers: Sequence[str]) -> None:
    axes.set_title(panel.title, fontsize=10)
    axes.set_xscale("log")
    values = [panel.values[label] for label in peers if label in panel.values]
    # room for the numbers beside the bars
    low, high = min(0.5, *values) / 2.5, max(2.0, *values) * 4
    axes.set_xlim(low, high)
    ticks = _ticks(low, high)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    for place, label in enumerate(peers):
        value = panel.values.get(label)
        if value is None:
            axes.text(1.05, place, "not measured", va="center", fontsize=7, color="#888888")
            continue
        better = value >= 1
        axes.barh(place, value - 1, left=1, color=_BETTER if better else _WORSE, height=0.7)
        axes.annotate(
            f"{value:.3g}" if value < 1000 else f"{value:,.0f}",
            (value, place),
            xytext=(3 if better else -3, 0),
            textcoords="offset points",
            ha="left" if better else "right",
            va="center",
            fontsize=8,
        )
    axes.axvline(1, color="black", linewidth=1)
    axes.set_yticks(range(len(peers)), peers, fontsize=8)
    axes.set_ylim(len(peers) - 0.4, -0.6)
    axes.tick_params(axis="x", labelsize=8)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw an earlier run.

    Returns:
        The exit status: 0, or 2 if it cannot be drawn.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.comparison.plots", description="Draw what --json wrote."
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="what --json wrote")
    parser.add_argument("folder", type=Path, metavar="DIR", help="where the pictures go")
    parser.add_argument("--format", default="svg", help="svg (the default), png, pdf")
    options = parser.parse_args(arguments)
    try:
        document = data.read(options.file)
        for file in draw(document, options.folder, f".{options.format}"):
            print(file)
    except BenchmarkError as error:
        print(f"plots: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
