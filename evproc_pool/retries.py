"""Which events are run again after a failure, and how long they wait. Pure.

An event fails for itself: what its handlers returned before is forgotten, and all of
its handlers are called again, with the event as it was first sent. Its tries travel
with its plan (`Tried`), and while it waits `Again` stands in that plan's place.

Two counts are kept apart. Errors are retried after a pause, up to `max_retries`.
The death of a worker may have had effects, or may happen again and take other events
with it: so an event is run again after one only where `crash_limit` allows it, and
alone.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final, NamedTuple

from evproc_pool.backlog import Run
from evproc_pool.columns import PlanLike
from evproc_pool.errors import EventTimeoutError
from evproc_pool.flight import Cascade
from evproc_pool.schedule import Result


class Tried(NamedTuple):
    """The plan of an event that has failed before.

    Attributes:
        plan: Its plan.
        failures: How often it failed with an error.
        crashes: How often a worker died of it.
    """

    plan: PlanLike
    failures: int = 0
    crashes: int = 0

    @property
    def indices(self) -> tuple[int, ...]:
        """See `columns.PlanLike`."""
        return self.plan.indices


class Again:
    """Stands in the place of a plan for an event that is to be run again.

    Attributes:
        tried: Its plan when it is.
        has_to_pause: Whether it has to wait before that. If not, a worker died of it, and
            it has to be run alone.
    """

    __slots__ = ("has_to_pause", "tried")
    indices: Final = ()

    def __init__(self, tried: Tried, *, has_to_pause: bool = False) -> None:
        self.tried = tried
        self.has_to_pause = has_to_pause


class RetryPolicy(NamedTuple):
    """When an event is run again; by default never.

    Attributes:
        max_retries: How often after an error.
        exceptions: After which.
        crash_limit: After so many deaths it is given up.
        backoff: How long the first retry waits, in seconds; each further one waits
            twice as long.
        backoff_max: The most that one waits.
    """

    max_retries: int = 0
    exceptions: tuple[type[BaseException], ...] = (Exception,)
    crash_limit: int = 1
    backoff: float = 0.1
    backoff_max: float = 60.0

    def again(self, plan: PlanLike, result: Result, *, has_died: bool) -> Again | None:
        """Decide on an event that failed.

        Args:
            plan: Its plan, with the tries before.
            result: What it failed with: an error that no handler raised, as where it
                cannot be pickled, would come again.
            has_died: Whether its worker is dead.

        Returns:
            What stands in the place of its plan, or None: it is given up.
        """
        tried = plan if isinstance(plan, Tried) else Tried(plan)
        is_timeout = has_died and isinstance(result.error, EventTimeoutError)
        if has_died and not is_timeout:
            tried = tried._replace(crashes=tried.crashes + 1)
            return Again(tried) if tried.crashes < self.crash_limit else None
        if result.handler is None and not is_timeout:
            return None
        tried = tried._replace(failures=tried.failures + 1)
        if tried.failures > self.max_retries or not isinstance(result.error, self.exceptions):
            return None
        return Again(tried, has_to_pause=True)

    def pause(self, failures: int, draw: float) -> float:
        """How long an event waits for a retry, in seconds.

        Exponential back-off with "equal jitter" (M. Brooker, "Exponential Backoff And
        Jitter", 2015): at least half of it, so that what failed together does not come
        back together, and yet does not come back at once.

        Args:
            failures: How often it has failed, from 1.
            draw: A random number from 0 to 1.
        """
        # not by a power of the number: a large one overflows
        whole = self.backoff
        for _ in range(failures - 1):
            if whole >= self.backoff_max:
                break
            whole *= 2
        return min(whole, self.backoff_max) * (1 + draw) / 2


def attempt_of(plan: PlanLike) -> int:
    """Which attempt it is to run an event with this plan, from 1."""
    if isinstance(plan, Tried):
        return 1 + plan.failures + plan.crashes
    return 1


class Waiting(NamedTuple):
    """An event that is to be run again. It counts as one in flight of its cascade."""

    run: Run
    cascade: Cascade
    event: Any
    tried: Tried


class Retries:
    """The events that wait to be run again.

    Attributes:
        suspects: Those that have to be run alone, next first.
    """

    def __init__(self) -> None:
        self.suspects: deque[Waiting] = deque()
        self._pausing: dict[int, Waiting] = {}
        self._last_token = 0

    def pause(self, waiting: Waiting) -> int:
        """Let an event wait; give the token that it is known by."""
        self._last_token += 1
        self._pausing[self._last_token] = waiting
        return self._last_token

    def take(self, token: int) -> Waiting | None:
        """An event that has waited long enough; None if it was dropped meanwhile."""
        return self._pausing.pop(token, None)

    def of(self, run: Run) -> list[Cascade]:
        """The cascades of a run that have an event that waits, each once."""
        waiting = [*self.suspects, *self._pausing.values()]
        return list(dict.fromkeys(each.cascade for each in waiting if each.run is run))

    def drop(self, cascade: Cascade) -> int:
        """Drop the events of a cascade that wait; say how many these were."""
        before = len(self.suspects) + len(self._pausing)
        if before:
            kept = [each for each in self.suspects if each.cascade is not cascade]
            self.suspects = deque(kept)
            self._pausing = {
                token: each for token, each in self._pausing.items() if each.cascade is not cascade
            }
        return before - len(self.suspects) - len(self._pausing)
