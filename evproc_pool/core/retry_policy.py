"""Decides which events are run again after a failure, and how long they wait. Pure.

A failed event is run again as a whole: the follow-ups of its handlers are forgotten, and all of
its handlers run again with the event as it was first sent. Its tries travel with its plan
(`Tried`). While it waits, `Again` replaces that plan.

Errors and crashes have separate counts. Errors are retried after a pause, up to `max_retries`. An
event whose worker died may have had effects, or may kill again and take other events with it. So
it runs again only if `crash_limit` allows it, and alone.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection
from typing import Final, NamedTuple

from evproc_pool.core.event_columns import PlanLike
from evproc_pool.core.inputs_and_effects import Result
from evproc_pool.errors import EventTimeoutError, RemoteError


class Tried(NamedTuple):
    """The plan of an event that has failed before."""

    plan: PlanLike
    failures: int = 0  # how often it failed with an error
    crashes: int = 0  # how often a worker died of it

    @property
    def indices(self) -> tuple[int, ...]:
        """See `event_columns.PlanLike`."""
        return self.plan.indices


class Again:
    """Replaces the plan of an event that waits to be run again."""

    __slots__ = ("has_to_pause", "tried")
    indices: Final = ()

    def __init__(self, tried: Tried, *, has_to_pause: bool = False) -> None:
        self.tried = tried  # its plan for the next attempt
        # Whether it has to pause before. If not, a worker died of it, and it has to run alone.
        self.has_to_pause = has_to_pause


# Dropped pauses are kept up to this number.
_FEW: Final = 100

# More would overflow; this many already make any pause last for ages.
_MOST_DOUBLINGS: Final = 500


class RetryPolicy(NamedTuple):
    """When an event is run again; by default never."""

    max_retries: int = 0  # how often an event is run again after errors
    exceptions: tuple[type[BaseException], ...] = (Exception,)  # the errors after which it is
    crash_limit: int = 1  # how many deaths of workers end the attempts
    # how long the first retry waits, in seconds; each further one waits twice as long
    backoff: float = 0.1
    backoff_max: float = 60.0  # the longest wait, in seconds

    def again(self, plan: PlanLike, result: Result, *, has_died: bool) -> Again | None:
        """Return the replacement of a failed event's plan, or None: there is no other attempt.

        Errors that no handler raised, such as pickling errors, are not retried: they would come
        again. `plan` has the tries before; `has_died`: the event's worker is dead.
        """
        tried = plan if isinstance(plan, Tried) else Tried(plan)
        is_timeout = has_died and isinstance(result.error, EventTimeoutError)
        if has_died and not is_timeout:
            tried = tried._replace(crashes=tried.crashes + 1)
            return Again(tried) if tried.crashes < self.crash_limit else None
        if (result.handler is None and not is_timeout) or tried.failures >= self.max_retries:
            return None
        if not self._is_listed(result.error):
            return None
        return Again(tried._replace(failures=tried.failures + 1), has_to_pause=True)

    def _is_listed(self, error: BaseException | None) -> bool:
        """Whether an error is one of `exceptions`, by the type that the handler raised."""
        if isinstance(error, RemoteError) and RemoteError not in self.exceptions:
            names = {f"{kind.__module__}.{kind.__qualname__}" for kind in self.exceptions}
            return not names.isdisjoint(error.bases)
        try:
            return isinstance(error, self.exceptions)
        except Exception:  # code of the user: a class may define its own `__instancecheck__`
            return False

    def pause(self, failures: int, draw: float) -> float:
        """Return how long an event waits for a retry, in seconds.

        Exponential back-off with "equal jitter" (M. Brooker, "Exponential Backoff And Jitter",
        2015). Events that failed together do not come back together, and none comes back before
        half of the back-off. `failures` count from 1; `draw` is a random number from 0 to 1.
        """
        doublings = min(failures - 1, _MOST_DOUBLINGS)
        return min(self.backoff * 2.0**doublings, self.backoff_max) * (1 + draw) / 2


def attempt_of(plan: PlanLike) -> int:
    """Return the number of the attempt that runs an event with this plan, from 1."""
    if isinstance(plan, Tried):
        return 1 + plan.failures + plan.crashes
    return 1


class Pauses:
    """The current pauses; `draw` returns a random number from 0 to 1."""

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
        """Forget dropped pauses, once they are many; `pausing`: the tokens of the others."""
        if len(self._heap) > 2 * len(pausing) + _FEW:
            self._heap = [each for each in self._heap if each[1] in pausing]
            heapq.heapify(self._heap)

    def left(self, now: float) -> float | None:
        """Return the seconds until the next one is over; None if there are none."""
        return max(0.0, self._heap[0][0] - now) if self._heap else None
