"""A picture of an application: bars of times with their spread, as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from benchmarks.comparison.plots import check
from benchmarks.model import Figure
from benchmarks.stats import summarize

_OURS: Final = "#0b3d91"
_PEER: Final = "#c9c9c9"


def bars(
    picture: Path,
    panels: Mapping[str, Sequence[Figure]],
    *,
    ours: Sequence[str],
    title: str = "",
    label: str = "seconds (median, smallest to largest)",
) -> None:
    """Draw a panel for each case with a bar for each side, the quickest on top.

    Args:
        picture: The file; its suffix is the format.
        panels: The figures by the title of their panel. Those without values are left out.
        ours: The names of the figures that are drawn dark.
        title: Stands above all.
        label: Of the horizontal axis.

    Raises:
        BenchmarkError: matplotlib is missing.
    """
    check("applications")
    from matplotlib import rcParams
    from matplotlib.figure import Figure as Canvas

    rcParams["svg.hashsalt"] = "evproc-pool"
    most = max(len(figures) for figures in panels.values())
    canvas = Canvas(figsize=(4.6 * len(panels) + 0.6, 0.34 * most + 1.4), layout="constrained")
    for axes, (name, figures) in zip(
        canvas.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
    ):
        drawn = [(figure.name, summarize(figure.values)) for figure in figures if figure.values]
        drawn.sort(key=lambda each: each[1].median)
        for place, (side, summary) in enumerate(drawn):
            spread = (
                [summary.median - summary.minimum],
                [summary.maximum - summary.median],
            )
            axes.barh(
                place,
                summary.median,
                xerr=spread,
                color=_OURS if side in ours else _PEER,
                error_kw={"linewidth": 1, "capsize": 2, "ecolor": "#444444"},
                height=0.7,
            )
            axes.text(
                summary.maximum,
                place,
                f"  {summary.median:.3g}",
                va="center",
                fontsize=8,
            )
        axes.set_yticks(range(len(drawn)), [side for side, _ in drawn], fontsize=8)
        axes.set_ylim(len(drawn) - 0.4, -0.6)
        axes.set_xlim(0, max((summary.maximum for _, summary in drawn), default=1) * 1.18)
        axes.set_title(name, fontsize=10)
        axes.set_xlabel(label, fontsize=8)
        axes.tick_params(axis="x", labelsize=8)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", color="#dddddd", linewidth=0.7)
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
    if title:
        canvas.suptitle(title, fontsize=10)
    # without a date, so that equal figures make equal files
    canvas.savefig(picture, metadata={"Date": None} if picture.suffix == ".svg" else None)
