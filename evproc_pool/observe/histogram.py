"""A histogram of seconds with logarithmic buckets: bounded memory for any number of values. Pure.

A bucket is 5% wide, and a quantile is the middle of its bucket, so it is at most 2.5% off. Values
below 0.1 us and above a day fall into the first and the last bucket.

Values wait until they are many, or are asked for: to sort them together costs less than to look
each of them up.

Of more than `_MOST_COUNTED` values that come together, about `_SAMPLE` are counted, for their
neighbours too: such events take microseconds, and to count each would take a tenth of that. The
number of values, their sum and the greatest are exact. The step of the sample is odd and begins at
another place each time, so that it does not keep step with a pattern in the events.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Final

from evproc_pool.observe.seconds import Seconds

_RATIO: Final = 1.05
_LEAST: Final = 1e-7
_MOST: Final = 86_400.0

#: The upper bounds of the buckets, in seconds; a bucket has its upper bound.
_BOUNDS: Final = [
    *[
        _LEAST * _RATIO**number
        for number in range(1 + math.ceil(math.log(_MOST / _LEAST) / math.log(_RATIO)))
    ],
    math.inf,
]

_MOST_COUNTED: Final = 256
_SAMPLE: Final = 128
_MOST_WAITING: Final = 512


class Histogram:
    """Counts values."""

    __slots__ = ("_count", "_counts", "_most", "_samples", "_total", "_waiting")

    def __init__(self) -> None:
        self._waiting: list[float] = []
        self._counts: dict[int, float] = {}  # by bucket
        self._samples = 0  # how many were taken
        self._count = 0
        self._total = 0.0
        self._most = 0.0

    def add(self, values: Sequence[float]) -> None:
        """Add some values."""
        if len(values) > _MOST_COUNTED:
            self._add_sample(values)
            return
        self._waiting += values
        if len(self._waiting) > _MOST_WAITING:
            self._take_waiting()

    def _add_sample(self, values: Sequence[float]) -> None:
        self._count += len(values)
        if isinstance(values, Seconds):
            self._total += values.total
            self._most = max(self._most, max(values.above(self._most), default=(0.0, 0))[0])
        else:
            self._total += sum(values)
            self._most = max(self._most, *values)
        step = len(values) // _SAMPLE | 1
        self._samples += 1
        sample = sorted(values[self._samples % step :: step])
        self._put(sample, len(values) / len(sample))

    def _take_waiting(self) -> None:
        values, self._waiting = sorted(self._waiting), []
        if values:
            self._count += len(values)
            self._total += sum(values)
            self._most = max(self._most, values[-1])
            self._put(values, 1.0)

    def _put(self, ordered: list[float], weight: float) -> None:
        """Put sorted values into their buckets."""
        counts = self._counts
        begin = 0
        while begin < len(ordered):
            bucket = bisect_left(_BOUNDS, ordered[begin])
            end = bisect_right(ordered, _BOUNDS[bucket], begin)
            counts[bucket] = counts.get(bucket, 0.0) + (end - begin) * weight
            begin = end

    @property
    def count(self) -> int:
        """How many values there are."""
        return self._count + len(self._waiting)

    @property
    def total(self) -> float:
        """Their sum."""
        self._take_waiting()
        return self._total

    @property
    def most(self) -> float:
        """The greatest; 0 if there are none."""
        self._take_waiting()
        return self._most

    @property
    def mean(self) -> float:
        """Their mean; 0 if there are none."""
        return self.total / self.count if self.count else 0.0

    def quantile(self, share: float) -> float:
        """Return about the value below which this share of the values is; 0 if there are none."""
        self._take_waiting()
        left = share * self._count
        for bucket in sorted(self._counts):
            left -= self._counts[bucket]
            if left <= 0:
                return min(self._most, _BOUNDS[bucket] / math.sqrt(_RATIO))
        return self._most
