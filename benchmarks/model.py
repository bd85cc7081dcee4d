"""What benchmarks are made of: settings in, rows of figures and notes out."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Literal

from benchmarks.stats import Summary, pairwise_ratios, summarize

Verdict = Literal["met", "missed", "not judged"]

#: Which side of 1 is the better one for us, of a ratio of ours over a peer's.
Better = Literal["larger", "smaller"]

#: The unit of a figure that is a ratio of two others.
RATIO = "ratio"


class BenchmarkError(Exception):
    """A benchmark cannot be run as asked; the text says what to do about it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the command line asked for.

    Attributes:
        repeats: Samples per figure.
        min_seconds: What one sample should take at least.
        turns: In how many parts a sample is taken, the sides of a comparison in turn.
        with_020: Whether evproc 0.2.0 may be installed to compare with.
        case: Only cases with this text in their names are wanted.
    """

    repeats: int = 7
    min_seconds: float = 0.05
    turns: int = 10
    with_020: bool = False
    case: str = ""

    def wants(self, case: str) -> bool:
        """Whether a case of this name is to be measured."""
        return self.case.lower() in case.lower()

    def choose(self, cases: Iterable[str]) -> frozenset[str]:
        """Choose the cases to measure: the one of exactly this name, or all that have the text."""
        names = list(cases)
        exact = frozenset(name for name in names if name.lower() == self.case.lower())
        return exact or frozenset(filter(self.wants, names))


@dataclass(frozen=True, slots=True)
class Bar:
    """A limit that the project set itself, on the median of a figure."""

    kind: Literal["at least", "at most"]
    limit: float

    def judge(self, value: float | None) -> Verdict:
        """Say whether a median is within the limit; None could not be measured."""
        if value is None:
            return "not judged"
        met = value >= self.limit if self.kind == "at least" else value <= self.limit
        return "met" if met else "missed"


@dataclass(frozen=True, slots=True)
class Figure:
    """A quantity, measured once per repeat.

    Attributes:
        name: What was measured.
        unit: What it is counted in, for instance `"us/event"`; `RATIO` for ratios.
        values: One per repeat, in order; empty if it could not be measured.
        bar: The limit on its median, or None.
        better: Set for a ratio of ours over a peer's: which side of 1 is better.
    """

    name: str
    unit: str
    values: tuple[float, ...]
    bar: Bar | None = None
    better: Better | None = None

    @property
    def summary(self) -> Summary | None:
        """The statistics of the repeats, or None without any."""
        return summarize(self.values) if self.values else None

    @property
    def verdict(self) -> Verdict | None:
        """What the bar says, or None without a bar."""
        if self.bar is None:
            return None
        summary = self.summary
        return self.bar.judge(None if summary is None else summary.median)

    @property
    def times_behind(self) -> float | None:
        """How many times better the peer is; None if it is not, or there is none."""
        summary = self.summary
        if self.better is None or summary is None or summary.median <= 0:
            return None
        times = 1 / summary.median if self.better == "larger" else summary.median
        return times if times > 1 else None


def ratio(
    name: str,
    over: Figure | None,
    under: Figure | None,
    bar: Bar | None = None,
    better: Better | None = None,
) -> Figure:
    """Make the figure `over / under`, repeat by repeat.

    Args:
        name: What the ratio says.
        over: The numerator, or None if it could not be measured.
        under: The denominator, likewise.
        bar: The limit on the ratio's median.
        better: Which side of 1 is better, if it compares us with a peer.
    """
    if over is None or under is None:
        return Figure(name, RATIO, (), bar, better)
    return Figure(name, RATIO, pairwise_ratios(over.values, under.values), bar, better)


def peer_ratios(
    ours: Figure, peers: Iterable[Figure], better: Better = "smaller"
) -> tuple[Figure, ...]:
    """Make a ratio of ours over that of each peer, for `Row.peers`.

    It is taken repeat by repeat, or of the medians where a peer has another number of repeats.
    A peer without any is left out.
    """
    ratios = []
    for each in peers:
        name = f"{ours.name} / {each.name}"
        if len(each.values) == len(ours.values):
            ratios.append(ratio(name, ours, each, better=better))
        elif each.summary is not None and ours.summary is not None:
            middle = ours.summary.median / each.summary.median
            ratios.append(Figure(name, RATIO, (middle,), better=better))
    return tuple(each for each in ratios if each.values)


@dataclass(frozen=True, slots=True)
class Row:
    """One case of a benchmark: what was measured in turn, and the ratios of it.

    Attributes:
        case: Its name.
        figures: The lines of the table.
        peers: More ratios of ours over a peer's, which the table has no room for. The
            report names those in which the peer is better.
    """

    case: str
    figures: tuple[Figure, ...]
    peers: tuple[Figure, ...] = ()


@dataclass(frozen=True, slots=True)
class Note:
    """A remark that belongs below the table: versions of a peer, what is missing."""

    text: str


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A named set of cases.

    Attributes:
        name: What the command line calls it.
        title: One line that says what is measured.
        run: Yields rows as they are ready. What it opens it closes, also when it is
            closed early itself.
        defaults: What it is run with unless the command line says otherwise.
        quick: Likewise with `--quick`: enough to see that everything works; the
            figures mean nothing.
    """

    name: str
    title: str
    run: Callable[[Settings], Generator[Row | Note, None, None]]
    defaults: Settings = Settings()
    quick: Settings = Settings(repeats=2, min_seconds=0.001, turns=2)


@dataclass(frozen=True, slots=True)
class Result:
    """What a benchmark yielded, and what it was run with."""

    benchmark: Benchmark
    settings: Settings
    rows: tuple[Row, ...]
    notes: tuple[Note, ...]

    @property
    def behind(self) -> list[tuple[str, Figure]]:
        """The case and the ratio of everything in which a peer is better; the worst first."""
        found = [
            (times, row.case, figure)
            for row in self.rows
            for figure in (*row.figures, *row.peers)
            if (times := figure.times_behind) is not None
        ]
        found.sort(key=lambda each: each[0], reverse=True)
        return [(case, figure) for _, case, figure in found]
