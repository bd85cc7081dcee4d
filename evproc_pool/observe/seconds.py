"""How long each of many events or handlers took, as columns. Pure.

Most listeners need a few figures of thousands of short events. So nothing is computed for each of
them before it is read: `total` costs a sum, `sample` O(sample), `above` mostly a sixteenth of a
look at each.
"""

from __future__ import annotations

import operator
from array import array
from collections.abc import Iterator, Sequence
from typing import Final, overload

# Neighbours that are looked at together: none of them took longer than all of them.
_BLOCK: Final = 16
_FEW: Final = 128


class Seconds(Sequence[float]):
    """Seconds, from when each began and when it stopped; both in order of time."""

    __slots__ = ("_begins", "_is_row", "_stops")

    def __init__(self, begins: array[float], stops: array[float], *, is_row: bool = False) -> None:
        self._begins = begins
        self._stops = stops
        self._is_row = is_row  # whether each begins when the one before it stops

    @classmethod
    def in_a_row(cls, begun: float, ends: array[float]) -> Seconds:
        """Make those of events that follow each other without a gap."""
        return cls(array("d", (begun,)) + ends[:-1], ends, is_row=True)

    def __len__(self) -> int:
        return len(self._stops)

    def __iter__(self) -> Iterator[float]:
        return map(operator.sub, self._stops, self._begins)

    @overload
    def __getitem__(self, place: int) -> float: ...
    @overload
    def __getitem__(self, place: slice) -> Seconds: ...
    def __getitem__(self, place: int | slice) -> float | Seconds:
        if isinstance(place, slice):
            return Seconds(self._begins[place], self._stops[place])
        return self._stops[place] - self._begins[place]

    def __repr__(self) -> str:
        return f"Seconds({list(self)!r})"

    @property
    def total(self) -> float:
        """Their sum."""
        return self.span if self._is_row else sum(self._stops) - sum(self._begins)

    @property
    def span(self) -> float:
        """From the first begin to the last stop; 0 if there are none."""
        return self._stops[-1] - self._begins[0] if self._stops else 0.0

    def above(self, least: float) -> list[tuple[float, int]]:
        """Return those that took longer, each with its place."""
        begins, stops = self._begins, self._stops
        if len(stops) <= _FEW and max(self, default=0.0) <= least:
            return []
        spans = list(map(operator.sub, stops[_BLOCK - 1 :: _BLOCK], begins[::_BLOCK]))
        rest = _BLOCK * len(spans)
        blocks = [number * _BLOCK for number, span in enumerate(spans) if span > least]
        if rest < len(stops):
            blocks.append(rest)
        found = []
        for block in blocks:
            for place in range(block, min(block + _BLOCK, len(stops))):
                seconds = stops[place] - begins[place]
                if seconds > least:
                    found.append((seconds, place))
        return found
