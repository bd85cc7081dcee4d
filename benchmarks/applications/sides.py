"""Times of sides that take turns, and ratios of them."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Mapping

from benchmarks.model import Bar, Figure, Row, ratio
from benchmarks.stats import summarize

#: The unit of the figures.
SECONDS = "s"


def clocked(run: Callable[[], object]) -> Callable[[], float]:
    """Make a sample of a run: the seconds that it takes. What it returns is dropped."""

    def sample() -> float:
        gc.collect()  # what the side before has left is not this one's to clear away
        begin = time.perf_counter()
        run()
        return time.perf_counter() - begin

    return sample


def measure(sides: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, Figure]:
    """Time every side once per repeat, in turn.

    Args:
        sides: What is run, by its label. It is warm already.
        repeats: How often.

    Returns:
        The seconds by label.
    """
    return sample({label: clocked(run) for label, run in sides.items()}, repeats)


def sample(samples: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, Figure]:
    """Take a sample of every side once per repeat; a different one begins each time.

    So what a side leaves behind, such as warm caches, is not always for the same one.

    Args:
        samples: What returns the seconds of one run, by the label of the side.
        repeats: How often.

    Returns:
        The seconds by label.
    """
    values: dict[str, list[float]] = {label: [] for label in samples}
    labels = list(samples)
    for _ in range(repeats):
        for label in labels:
            values[label].append(samples[label]())
        labels.append(labels.pop(0))
    return {label: Figure(label, SECONDS, tuple(each)) for label, each in values.items()}


def best(figures: Mapping[str, Figure], labels: Iterable[str]) -> Figure:
    """Find the side with the smallest median among these.

    Raises:
        ValueError: There is none.
    """
    found = [figures[label] for label in labels if figures[label].values]
    return min(found, key=lambda figure: summarize(figure.values).median)


def compare(
    case: str,
    figures: Mapping[str, Figure],
    ours: str,
    peers: Iterable[str],
    bar: Bar | None = None,
) -> Row:
    """Make a row: all times, and ours over that of the best of the peers.

    Args:
        case: What the table calls it.
        figures: What `measure` gave.
        ours: The label of the pool's side.
        peers: Those that the bar is about.
        bar: A limit on the ratio of times; a throughput of at least 1.0 of the peer's is a time
            of at most 1.0 times the peer's.
    """
    peer = best(figures, peers)
    over = ratio(f"{ours} / {peer.name}", figures[ours], peer, bar, better="smaller")
    return Row(case, (*figures.values(), over))
