"""The benchmark `process`: every case, side by side with its peers."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing
from typing import Final

import evproc
from benchmarks.model import Bar, Benchmark, Figure, Note, Row, Settings, ratio
from benchmarks.process import cases, original
from benchmarks.timing import Sampler, interleaved

# The project's limit on the time of a hand-written loop over the same handlers.
_MOST_LOOPS: Final = 3.5

# The sides, in the order in which they are sampled.
_LOOP: Final = "hand-written"
_OURS: Final = "evproc"
_ORIGINAL: Final = "evproc 0.2.0"

_MICROSECONDS: Final = 1e6


def run(settings: Settings) -> Generator[Row | Note, None, None]:
    """Yield a row per case; then say what 0.2.0 ran on, or why it is missing."""
    python = original.find(with_020=settings.with_020)
    with ExitStack() as stack:
        peer = None
        if python is not None:
            peer = stack.enter_context(closing(original.Original(python)))
        without: tuple[tuple[cases.Case, int | None], ...]
        without = tuple((case, None) for case in cases.WITHOUT_BARS)
        for case, times in (*cases.WITH_BARS, *without):
            if settings.wants(case.label):
                yield _row(case, settings, peer, times)
        yield Note(original.MISSING if peer is None else peer.description)
        if peer is not None and peer.mismatch is not None:
            yield Note(peer.mismatch)


def _row(
    case: cases.Case, settings: Settings, peer: original.Original | None, times: int | None = None
) -> Row:
    """Measure a case.

    Args:
        case: The case.
        settings: Those of the run.
        peer: evproc 0.2.0, or None.
        times: How many times 0.2.0's events per second are the bar, None without
            bars.
    """
    # a set-up takes longer than all turns of a sample together
    turns = 1 if case.set_up else settings.turns
    samplers = _samplers(case, settings.min_seconds / turns, peer)
    figures = {
        side: Figure(side, f"us/{_unit(case)}", tuple(_microseconds(case, values)))
        for side, values in interleaved(samplers, settings.repeats, turns).items()
    }
    ours = figures[_OURS]
    ratios = []
    if _LOOP in figures:
        bar = None if times is None else Bar("at most", _MOST_LOOPS)
        ratios.append(ratio("time / hand-written's", ours, figures[_LOOP], bar))
    bar = None if times is None else Bar("at least", times)
    # of two rates, so the times change places
    ratios.append(ratio(f"{_unit(case)}s/s / 0.2.0's", figures.get(_ORIGINAL), ours, bar))
    return Row(case.label, (*figures.values(), *ratios))


def _samplers(
    case: cases.Case, min_seconds: float, peer: original.Original | None
) -> dict[str, Callable[[], float]]:
    """Calibrate all sides of a case."""
    samplers: dict[str, Callable[[], float]] = {}
    if not case.set_up:
        samplers[_LOOP] = Sampler(case.statement, cases.hand_written(evproc, case), min_seconds)
    samplers[_OURS] = Sampler(case.statement, cases.framework(evproc, case), min_seconds)
    if peer is not None:
        samplers[_ORIGINAL] = peer.sampler(case, min_seconds)
    return samplers


def _unit(case: cases.Case) -> str:
    return "set-up" if case.set_up else "event"


def _microseconds(case: cases.Case, seconds: tuple[float, ...]) -> Iterator[float]:
    return (each * _MICROSECONDS / case.events for each in seconds)


BENCHMARK: Final = Benchmark(
    name="process",
    title="Processor.process, against a hand-written loop and evproc 0.2.0",
    run=run,
)
