"""A clock that goes on only when a test or a simulated pool advances it."""

from __future__ import annotations

from math import inf


class ManualClock:
    """Returns seconds when it is called; in place of `time.monotonic`.

    Args:
        start: The time at first, in seconds.
    """

    def __init__(self, start: float = 0.0) -> None:
        self._now = start

    def __call__(self) -> float:
        """Return the time, in seconds."""
        return self._now

    def __repr__(self) -> str:
        return f"<ManualClock at {self._now:.9g} s>"

    def advance(self, seconds: float) -> None:
        """Let time pass.

        Raises:
            ValueError: `seconds` is negative or not finite.
        """
        if not 0 <= seconds < inf:
            raise ValueError(f"seconds must not be negative, and must be finite, and is {seconds}")
        self._now += seconds
