"""The pauses before events are run again. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection
from typing import Final

from evproc_pool.core.retry_policy import RetryPolicy

# Dropped pauses are kept up to this number.
_FEW: Final = 100


class Pauses:
    """The current pauses. It has no clock: the time is an argument.

    Args:
        policy: Decides how long they are.
        draw: Returns a random number from 0 to 1.
    """

    def __init__(self, policy: RetryPolicy, draw: Callable[[], float]) -> None:
        self._policy = policy
        self._heap: list[tuple[float, int]] = []
        self._draw = draw

    def begin(self, token: int, failures: int, now: float) -> None:
        """Begin a pause; see `inputs_and_effects.Retry`."""
        seconds = self._policy.pause(failures, self._draw())
        heapq.heappush(self._heap, (now + seconds, token))

    def over(self, now: float) -> list[int]:
        """Return the tokens of the pauses that are over, each once."""
        tokens = []
        while self._heap and self._heap[0][0] <= now:
            tokens.append(heapq.heappop(self._heap)[1])
        return tokens

    def forget_others(self, pausing: Collection[int]) -> None:
        """Forget dropped pauses, once they are many.

        Args:
            pausing: The tokens of the other pauses.
        """
        if len(self._heap) > 2 * len(pausing) + _FEW:
            self._heap = [each for each in self._heap if each[1] in pausing]
            heapq.heapify(self._heap)

    def left(self, now: float) -> float | None:
        """Return the seconds until the next one is over; None if there are none."""
        return max(0.0, self._heap[0][0] - now) if self._heap else None
