"""Draws what `scale` has measured, from its JSON.

``python -m benchmarks.scale.plot FILE PICTURE`` draws the share of the workers at work against
their number, a line for each length of events. matplotlib is imported only to draw.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.comparison.plots import check
from benchmarks.model import BenchmarkError
from benchmarks.scale.suite import BENCHMARK, LATENCIES, LENGTHS

# Of Okabe and Ito, to be told apart by everyone; the longest events are the darkest.
_COLOURS: Final = ("#e69f00", "#56b4e9", "#009e73", "#d55e00", "#0b3d91")
_STYLES: Final = dict(zip(LATENCIES, ("-", "--"), strict=True))
_FIGURE: Final = re.compile(r"at work, of ([\d,]+), messages (.*)")


def lines(document: Mapping[str, Any]) -> dict[tuple[str, str], list[tuple[int, float]]]:
    """Return the points, workers and their share at work, by length of event and latency."""
    found: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for benchmark in document["benchmarks"]:
        if benchmark["name"] != BENCHMARK.name:
            continue
        for row in benchmark["rows"]:
            for figure in row["figures"]:
                match = _FIGURE.fullmatch(figure["name"])
                if match is not None:
                    point = int(match[1].replace(",", "")), figure["median"]
                    found.setdefault((row["case"], match[2]), []).append(point)
    return found


def draw(document: Mapping[str, Any], picture: Path) -> None:
    """Draw it.

    Raises:
        BenchmarkError: matplotlib is missing, or the document has nothing of `scale`.
    """
    check()
    from matplotlib import rcParams
    from matplotlib.figure import Figure

    found = lines(document)
    if not found:
        raise BenchmarkError("there is nothing to draw: the file has nothing of 'scale'")
    rcParams["svg.hashsalt"] = "evproc-pool"
    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    axes = figure.subplots()
    for (length, latency), points in found.items():
        axes.plot(
            *zip(*points, strict=True),
            label=f"{length.replace('us', 'µs')}, messages {latency}",
            color=_COLOURS[list(LENGTHS).index(length)],
            linestyle=_STYLES[latency],
            marker="o",
            markersize=4,
        )
    workers = [number for number, _ in next(iter(found.values()))]
    axes.set(xscale="log", ylim=(0, 1.05), xlabel="workers", ylabel="share of them at work")
    axes.set_xticks(workers, [f"{number:,}" for number in workers])
    axes.minorticks_off()
    axes.grid(color="#dddddd", linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title("one coordinator, by the length of an event (simulated)", fontsize=10)
    figure.legend(loc="outside right center", frameon=False, fontsize=8)
    figure.savefig(picture, metadata={"Date": None} if picture.suffix == ".svg" else None)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale.plot")
    parser.add_argument("file", type=Path, metavar="FILE", help="what --json wrote")
    parser.add_argument("picture", type=Path, metavar="PICTURE")
    options = parser.parse_args(arguments)
    try:
        draw(json.loads(options.file.read_text(encoding="utf-8")), options.picture)
    except BenchmarkError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
