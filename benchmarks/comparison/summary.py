"""The picture of the comparison in the project's README, from figures of benchmarks/README.md.

``python -m benchmarks.comparison.summary`` writes ``benchmarks/comparison.svg``.

Nothing is measured here. Each row is one published case: what `PoolProcessor` did, and the
best other pool. Change the rows when other figures are published; tests compare the rows with
``benchmarks/README.md``, and the committed file with what this module draws.

The SVG is written by hand: `plots` draws whole runs from their JSON with matplotlib, while this
needs no package, and equal rows make an equal file everywhere.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final, NamedTuple
from xml.sax.saxutils import escape

FILE: Final = Path(__file__).parent.parent / "comparison.svg"


class Row(NamedTuple):
    """A case of a published table, with both figures.

    Attributes:
        label: What the picture calls it.
        case: What the table calls it.
        ours: The figure of `PoolProcessor`, as published.
        best: That of the best peer, as published.
        peer: The best peer.
        less_is_better: For times and memory.
    """

    label: str
    case: str
    ours: str
    best: str
    peer: str
    less_is_better: bool = False

    @property
    def ratio(self) -> float:
        """How many times better `PoolProcessor` is."""
        ours, best = (float(text.replace(",", "")) for text in (self.ours, self.best))
        return best / ours if self.less_is_better else ours / best


class Ratio(NamedTuple):
    """A case of which the ratio itself was published.

    Attributes:
        label: What the picture calls it.
        published: The ratio to the best peer, as published.
        peer: The best peer.
    """

    label: str
    published: str
    peer: str

    @property
    def ratio(self) -> float:
        """How many times better `PoolProcessor` is."""
        return float(self.published)


POOL: Final = "multiprocessing.Pool"
EXECUTOR: Final = "ProcessPoolExecutor"

GROUPS: Final[dict[str, tuple[Row | Ratio, ...]]] = {
    "Events per second, by the length of an event": (
        Row("handlers that do nothing", "no-op", "1,316,823", "506,444", POOL),
        Row("20 µs", "20 us", "87,555", "82,861", POOL),
        Row("100 µs", "100 us", "18,916", "18,388", EXECUTOR),
        Row("1 ms", "1 ms", "1,938", "1,904", "joblib"),
        Row("10 ms", "10 ms", "195", "192", "joblib"),
        Row("95 % 0.1 ms, 5 % 20 ms", "skewed: 95% 0.1 ms, 5% 20 ms", "1,763", "1,736", EXECUTOR),
        Ratio("20 µs, one submit() each", "4.23", EXECUTOR),
    ),
    "Events per second, with data": (
        Row("100 kB of bytes to workers", "100 kB bytes there", "36,796", "14,073", "deadpool"),
        Row("100 kB of bytes back", "100 kB bytes back", "13,310", "6,378", "deadpool"),
        Row("10 MB arrays to workers", "10 MB arrays there", "710", "457", "Ray"),
        Row("10 MB arrays back", "10 MB arrays back", "237", "275", "Ray"),
        Ratio("no work, an int as value", "1.40", POOL),
        Ratio("no work, a dict as value", "1.11", EXECUTOR),
        Ratio("no work, nested lists as value", "0.70", EXECUTOR),
        Ratio("no work, values with __reduce__", "0.44", POOL),
        Ratio("no work, 1 of 10 events fails", "0.57", EXECUTOR),
        Ratio("log lines of 10 µs", "0.766", "loky, plain function"),
        Ratio("log lines of 100 µs", "0.927", "loky, plain function"),
    ),
    "Time and memory": (
        Row("one event, idle pool", "single event, p50", "95.4", "273", EXECUTOR, True),
        Row("start to first result", "start-up to first result", "148", "126", EXECUTOR, True),
        Row("memory of a worker", "resident memory, one worker", "15.9", "19.8", EXECUTOR, True),
        Row(
            "memory of other processes",
            "resident memory, other processes",
            "30",
            "27.8",
            EXECUTOR,
            True,
        ),
        Row("memory of the caller", "resident memory, coordinator", "26.2", "26", POOL, True),
    ),
}

_WIDTH: Final = 880
_LEFT: Final = 290  # where the bars begin; labels end there
_RIGHT: Final = 600  # bars end there; figures stand behind
_ROW: Final = 22
_TOP: Final = 84
_LOW: Final = 0.4  # the axis begins there
_HIGH: Final = 8.0
_TICKS: Final = (0.5, 1, 2, 4, 8)
_AHEAD: Final = "#2f6db5"
_BEHIND: Final = "#d9722b"
_BEHIND_TEXT: Final = "#a84a12"  # darker: thin letters need it on white
_TIMES: Final = "\N{MULTIPLICATION SIGN}"
_FEWER: Final = (
    "submit(), “no work, ...”: beside multiprocessing.Pool and ProcessPoolExecutor only;"
    " all others: beside nine pools."
)
_FONT: Final = "font-family='Helvetica, Arial, sans-serif'"


def _x(ratio: float) -> float:
    part = math.log(ratio / _LOW) / math.log(_HIGH / _LOW)
    return round(_LEFT + 10 + part * (_RIGHT - _LEFT - 10), 1)


def _text(
    x: float, y: float, text: str, *, size: int = 13, anchor: str = "start", more: str = ""
) -> str:
    return (
        f"<text x='{x:g}' y='{y:g}' font-size='{size}' text-anchor='{anchor}'{more}>"
        f"{escape(text)}</text>"
    )


def _bar(row: Row | Ratio, y: float) -> list[str]:
    one, end = _x(1), _x(row.ratio)
    colour, text_colour = (_AHEAD, _AHEAD) if row.ratio >= 1 else (_BEHIND, _BEHIND_TEXT)
    left, width = min(one, end), max(1.0, round(abs(end - one), 1))
    return [
        _text(_LEFT, y + 15, row.label, anchor="end"),
        f"<rect x='{left:g}' y='{y + 4:g}' width='{width:g}' height='14' fill='{colour}'/>",
        _text(
            _RIGHT + 16,
            y + 15,
            f"{row.ratio:.2f} {_TIMES} {row.peer}",
            more=f" fill='{text_colour}'",
        ),
    ]


def svg() -> str:
    """Draw the picture."""
    body: list[str] = []
    y = _TOP
    for title, rows in GROUPS.items():
        body.append(_text(20, y + 16, title, more=" font-weight='bold'"))
        y += _ROW
        for row in rows:
            body += _bar(row, y)
            y += _ROW
        y += 8
    lines = []
    for tick in _TICKS:
        x, colour = _x(tick), "#222222" if tick == 1 else "#dddddd"
        lines.append(f"<path d='M{x:g} {_TOP:g}V{y:g}' stroke='{colour}'/>")
        lines.append(_text(x, y + 14, f"{tick:g}", size=12, anchor="middle"))
    height = y + 66
    title = "PoolProcessor beside the best other pool of each case"
    head = [
        (
            f"<svg xmlns='http://www.w3.org/2000/svg' width='{_WIDTH}' height='{height}'"
            f" viewBox='0 0 {_WIDTH} {height}' role='img' {_FONT} fill='#222222'>"
        ),
        f"<title>{title}</title>",
        f"<rect width='{_WIDTH}' height='{height}' fill='white'/>",
        _text(20, 32, title, size=18, more=" font-weight='bold'"),
        _text(20, 54, "How many times better PoolProcessor is, two workers on two cores.", size=13),
        _text(20, 72, "Blue, right of 1: PoolProcessor is better.", more=f" fill='{_AHEAD}'"),
        _text(310, 72, "Orange, left of 1: the other pool is.", more=f" fill='{_BEHIND_TEXT}'"),
    ]
    foot = [
        _text(
            20,
            height - 28,
            "Peers at their best chunk sizes. Figures: benchmarks/README.md",
            size=12,
        ),
        _text(20, height - 12, _FEWER, size=12),
    ]
    return "\n".join([*head, *lines, *body, *foot, "</svg>", ""])


def main() -> None:
    """Write the file."""
    FILE.write_text(svg(), encoding="utf-8", newline="\n")
    print(FILE)


if __name__ == "__main__":
    main()
