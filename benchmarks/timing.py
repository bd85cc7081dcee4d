"""Samples, and the order in which they are taken.

A sample is the mean time of one execution of a statement, over as many
executions as fill the sample's time. It is taken in parts, the sides of a
comparison in turn: with 50 ms in one piece, a shared machine's drift between one
side's piece and the next moved a ratio more than twice as much as with the same
50 ms in 10 turns (interquartile ranges of 0.12 to 0.35 and of 0.04 to 0.19 around
a ratio of 2.9; 30 repeats, each way four times).

All sides of a comparison are timed by `timeit` with the same statement, so the
cost of the loop around it, some 10 ns, is in every one of them and slightly in
favour of the slower side. It is not subtracted: the difference of two noisy
numbers is noisier than either.

`timeit` turns the garbage collector off for the length of a sample.
"""

from __future__ import annotations

import math
import timeit
from collections.abc import Callable, Mapping
from typing import Any, Final

# The first guesses are too short to extrapolate far from.
_MOST_GROWTH: Final = 10

# Aimed at beyond the minimum, so that the next try is most likely the last.
_MARGIN: Final = 1.2


class Sampler:
    """Times a statement. Once made, it is calibrated and warm.

    Args:
        statement: What is timed.
        namespace: The global names that it uses.
        min_seconds: What one part of a sample should take at least.
        timer: A clock, in seconds.

    Attributes:
        loops: How often a part of a sample executes the statement.
    """

    def __init__(
        self,
        statement: str,
        namespace: dict[str, Any],
        min_seconds: float,
        timer: Callable[[], float] = timeit.default_timer,
    ) -> None:
        self._timer = timeit.Timer(statement, timer=timer, globals=namespace)
        self.loops = self._calibrate(min_seconds)

    def _calibrate(self, min_seconds: float) -> int:
        loops = 1
        while True:
            # the shorter of two: an interruption looks like a slow statement, and
            # would leave every part too short
            seconds = min(self._timer.repeat(repeat=2, number=loops))
            if seconds >= min_seconds:
                return loops
            growth = _MARGIN * min_seconds / seconds if seconds > 0 else _MOST_GROWTH
            loops = max(loops + 1, math.ceil(loops * min(growth, _MOST_GROWTH)))

    def __call__(self) -> float:
        """Take one part of a sample: seconds per execution."""
        return self._timer.timeit(self.loops) / self.loops


def interleaved(
    samplers: Mapping[str, Callable[[], float]], repeats: int, turns: int = 1
) -> dict[str, tuple[float, ...]]:
    """Sample every side once per repeat.

    The n-th values of all sides were measured within the same moment, so a ratio
    of them is free of whatever the machine did between that moment and the next.

    Args:
        samplers: For each side what takes one part of a sample. Within a turn they
            are called in this order.
        repeats: Samples per side.
        turns: Parts per sample.

    Returns:
        For each side its samples in order, each the mean of its parts.
    """
    values: dict[str, list[float]] = {name: [] for name in samplers}
    for _ in range(repeats):
        parts: dict[str, list[float]] = {name: [] for name in samplers}
        for _ in range(turns):
            for name, sample in samplers.items():
                parts[name].append(sample())
        for name, each in parts.items():
            values[name].append(sum(each) / turns)
    return {name: tuple(each) for name, each in values.items()}
