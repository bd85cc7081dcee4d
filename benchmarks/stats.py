"""The statistics of repeats: pure functions over sequences of numbers.

Medians and quartiles, not means and deviations: on a shared machine the noise is
one-sided and long-tailed, and one interrupted repeat must not move a figure.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Summary:
    """What is printed of a figure's repeats.

    Attributes:
        median: Of all repeats; between the middle two where they are even in number.
        minimum: The smallest repeat.
        maximum: The largest repeat.
        iqr: The interquartile range; 0 for a single repeat.
    """

    median: float
    minimum: float
    maximum: float
    iqr: float


def summarize(values: Sequence[float]) -> Summary:
    """Reduce repeats to a `Summary`.

    Raises:
        ValueError: There are no values.
    """
    if not values:
        raise ValueError("there is no repeat to summarize")
    return Summary(
        median=statistics.median(values),
        minimum=min(values),
        maximum=max(values),
        iqr=interquartile_range(values),
    )


def interquartile_range(values: Sequence[float]) -> float:
    """The distance between the quartiles, which lie on the values or between two of them.

    Quartiles by linear interpolation between the order statistics, the smallest
    value being the 0th and the largest the 100th percentile (Hyndman and Fan's
    type 7, NumPy's default): the repeats are all that there is, not a sample from
    more.
    """
    if len(values) < 2:
        return 0.0
    lower, _, upper = statistics.quantiles(values, n=4, method="inclusive")
    return upper - lower


def pairwise_ratios(
    numerators: Sequence[float], denominators: Sequence[float]
) -> tuple[float, ...]:
    """Divide repeat by repeat.

    The ratio of two medians would divide measurements of different moments; a
    median of ratios does not, and has a spread of its own.

    Raises:
        ValueError: There are more of the one than of the other.
    """
    return tuple(
        numerator / denominator
        for numerator, denominator in zip(numerators, denominators, strict=True)
    )
