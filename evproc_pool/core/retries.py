r"""The events that wait to be run again. Pure; `retry_policy` decides which these are.

::

    failed event --> queue of its cascade --> pause -----------> ready
                                         \--> alone in a worker

A change costs O(1), or O(events dropped).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from evproc.exc import add_note
from evproc_pool.core.batches import Cascade, Part
from evproc_pool.core.event_columns import Bunch
from evproc_pool.core.inputs_and_effects import EventRetried, Result, Retry
from evproc_pool.core.paths import Place
from evproc_pool.core.retry_policy import Again, RetryPolicy, Tried, attempt_of
from evproc_pool.core.run_state import Run, SharedState


class Waiting(NamedTuple):
    """An event that waits to be run again. Its cascade counts it as in flight."""

    run: Run
    cascade: Cascade
    event: Any
    tried: Tried
    place: Place


class Retries:
    """The part of the scheduler that runs events again."""

    def __init__(self, state: SharedState, policy: RetryPolicy) -> None:
        self._state = state
        self._policy = policy
        self.pausing: dict[int, Waiting] = {}  # events that wait for their pause to end, by token
        self._suspects: dict[int, Waiting] = {}  # to run alone, the next one first
        # the tokens of all of them, by the id of their run and by cascade
        self._tokens: dict[int, dict[Cascade, set[int]]] = {}
        self._last_token = 0

    @property
    def has_suspects(self) -> bool:
        """Whether any event has to run alone."""
        return bool(self._suspects)

    @property
    def waiting(self) -> int:
        """How many events wait for their pause to end, or to run alone."""
        return len(self.pausing) + len(self._suspects)

    def try_again(
        self, run: Run, cascade: Cascade, part: Part, number: int, result: Result, *, has_died: bool
    ) -> bool:
        """Arrange another attempt of a failed event, at a place of a part, if that is allowed."""
        if cascade.index > run.bound:
            return False
        plan = part.plans[number]
        again = self._policy.again(plan, result, has_died=has_died)
        if again is None:
            if isinstance(plan, Tried) and result.error is not None and not has_died:
                attempts = attempt_of(plan)
                add_note(result.error, f"evproc_pool: given up after {attempts} attempts")
            return False
        cascade.attempts = max(cascade.attempts, attempt_of(again.tried))
        event = Bunch([part.events[number]], again, part.place(number))
        if self._state.is_observed:
            (ev,) = event.events
            error, handler = result.error, result.handler
            retried = EventRetried(run.id, event.at, ev, error, handler, attempt_of(plan))
            self._state.effects.append(retried)
        self.put_back(run, cascade, event, again)
        return True

    def put_back(self, run: Run, cascade: Cascade, event: Bunch, again: Again) -> None:
        """Put an event, a bunch of one, at the head of its cascade's queue, or let it wait at once.

        It waits at once in an unordered cascade, unless it is the root: nothing runs beside that.
        """
        if run.unordered and cascade.events:
            self.wait(run, cascade, event, again)
        else:
            cascade.queue.put_all_back(event)

    def wait(self, run: Run, cascade: Cascade, event: Bunch, again: Again) -> None:
        """Let an event wait for its pause, or until it can run alone; see `put_back`."""
        cascade.in_flight += 1
        waiting = Waiting(run, cascade, event.events[0], again.tried, event.at)
        if again.has_to_pause:
            token = self._add(waiting, self.pausing)
            self._state.effects.append(Retry(run.id, cascade.index, token, again.tried.failures))
        else:
            self._add(waiting, self._suspects)

    def due(self, token: int) -> None:
        """Take in that a pause is over. Does nothing if the event was dropped meanwhile."""
        if token not in self.pausing:
            return
        waiting = self._take(token, self.pausing)
        run, cascade, event, tried, place = waiting
        if tried.crashes:
            self._add(waiting, self._suspects)
            return
        cascade.in_flight -= 1
        cascade.queue.put_back(event, tried, place)
        run.loose += cascade.is_ready
        self._state.make_ready(run, cascade)

    def take_suspect(self) -> Waiting:
        """Take the next event that has to run alone; only if there is one."""
        return self._take(next(iter(self._suspects)), self._suspects)

    def _add(self, waiting: Waiting, where: dict[int, Waiting]) -> int:
        self._last_token += 1
        token = self._last_token
        where[token] = waiting
        cascades = self._tokens.setdefault(waiting.run.id, {})
        cascades.setdefault(waiting.cascade, set()).add(token)
        return token

    def _take(self, token: int, where: dict[int, Waiting]) -> Waiting:
        waiting = where.pop(token)
        cascades = self._tokens[waiting.run.id]
        tokens = cascades[waiting.cascade]
        tokens.remove(token)
        if not tokens:
            del cascades[waiting.cascade]
            if not cascades:
                del self._tokens[waiting.run.id]
        return waiting

    def of(self, run: Run) -> list[Cascade]:
        """The cascades of a run that have a waiting event, each once."""
        return list(self._tokens.get(run.id, ()))

    def drop(self, run: Run, cascade: Cascade) -> int:
        """Drop the waiting events of a cascade; return their number."""
        tokens = list(self._tokens.get(run.id, {}).get(cascade, ()))
        for token in tokens:
            self._take(token, self.pausing if token in self.pausing else self._suspects)
        return len(tokens)
