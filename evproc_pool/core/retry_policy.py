"""Decides which events are run again after a failure, and how long they wait. Pure.

A failed event is run again as a whole: the follow-ups of its handlers are forgotten, and all of
its handlers run again with the event as it was first sent. Its tries travel with its plan
(`Tried`). While it waits, `Again` replaces that plan.

Errors and crashes have separate counts. Errors are retried after a pause, up to `max_retries`. An
event whose worker died may have had effects, or may kill again and take other events with it. So
it runs again only if `crash_limit` allows it, and alone.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from evproc_pool.core.event_columns import PlanLike
from evproc_pool.core.inputs_and_effects import Result
from evproc_pool.errors import EventTimeoutError, RemoteError


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
        """See `event_columns.PlanLike`."""
        return self.plan.indices


class Again:
    """Replaces the plan of an event that waits to be run again.

    Attributes:
        tried: Its plan for the next attempt.
        has_to_pause: Whether it has to pause before. If not, a worker died of it, and it has to
            run alone.
    """

    __slots__ = ("has_to_pause", "tried")
    indices: Final = ()

    def __init__(self, tried: Tried, *, has_to_pause: bool = False) -> None:
        self.tried = tried
        self.has_to_pause = has_to_pause


# More would overflow; this many already make any pause last for ages.
_MOST_DOUBLINGS: Final = 500


class RetryPolicy(NamedTuple):
    """When an event is run again; by default never.

    Attributes:
        max_retries: How often an event is run again after errors.
        exceptions: The errors after which it is.
        crash_limit: How many deaths of workers end the attempts.
        backoff: How long the first retry waits, in seconds; each further one waits twice as long.
        backoff_max: The longest wait, in seconds.
    """

    max_retries: int = 0
    exceptions: tuple[type[BaseException], ...] = (Exception,)
    crash_limit: int = 1
    backoff: float = 0.1
    backoff_max: float = 60.0

    def again(self, plan: PlanLike, result: Result, *, has_died: bool) -> Again | None:
        """Decide on an event that failed.

        Errors that no handler raised, such as pickling errors, are not retried: they would come
        again.

        Args:
            plan: Its plan, with the tries before.
            result: Its error.
            has_died: Whether its worker is dead.

        Returns:
            The replacement of its plan; None: there is no other attempt.
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
        half of the back-off.

        Args:
            failures: How often it has failed, from 1.
            draw: A random number from 0 to 1.
        """
        doublings = min(failures - 1, _MOST_DOUBLINGS)
        return min(self.backoff * 2.0**doublings, self.backoff_max) * (1 + draw) / 2


def attempt_of(plan: PlanLike) -> int:
    """Return the number of the attempt that runs an event with this plan, from 1."""
    if isinstance(plan, Tried):
        return 1 + plan.failures + plan.crashes
    return 1
