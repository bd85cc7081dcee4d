"""A clock that goes on only when it is told to."""

from __future__ import annotations

from math import inf


class ManualClock:
    """Called, it says what time it is, in seconds; in place of `time.monotonic`.

    Args:
        start: What time it is at first.
    """

    def __init__(self, start: float = 0.0) -> None:
        self._now = start

    def __call__(self) -> float:
        """What time it is."""
        return self._now

    def __repr__(self) -> str:
        return f"<ManualClock at {self._now:.9g} s>"

    def advance(self, seconds: float) -> None:
        """Let time pass.

        Raises:
            ValueError: Time does not go back, nor on for ever.
        """
        if not 0 <= seconds < inf:
            raise ValueError(f"seconds must not be negative, and must be finite, and is {seconds}")
        self._now += seconds
