"""The events that wait to be run again. Pure; see `retry_policy` for which these are."""

from __future__ import annotations

from typing import Any, NamedTuple

from evproc_pool.core.batches import Cascade
from evproc_pool.core.paths import Place
from evproc_pool.core.retry_policy import Tried
from evproc_pool.core.run_state import Run


class Waiting(NamedTuple):
    """An event that is to be run again. It counts as one in flight of its cascade."""

    run: Run
    cascade: Cascade
    event: Any
    tried: Tried
    place: Place


class Retries:
    """The events that wait to be run again. Every change costs O(1), or O(what is dropped).

    Attributes:
        pausing: Those that wait for a pause to end, by their tokens.
    """

    def __init__(self) -> None:
        self.pausing: dict[int, Waiting] = {}
        self._suspects: dict[int, Waiting] = {}  # to be run alone, next first
        # the tokens of all of them, by the id of their run and by cascade
        self._tokens: dict[int, dict[Cascade, set[int]]] = {}
        self._last_token = 0

    @property
    def has_suspects(self) -> bool:
        """Whether any has to be run alone."""
        return bool(self._suspects)

    def pause(self, waiting: Waiting) -> int:
        """Let an event wait for a pause; give the token that it is known by."""
        return self._add(waiting, self.pausing)

    def suspect(self, waiting: Waiting) -> None:
        """Let an event wait until it can be run alone."""
        self._add(waiting, self._suspects)

    def _add(self, waiting: Waiting, where: dict[int, Waiting]) -> int:
        self._last_token += 1
        token = self._last_token
        where[token] = waiting
        cascades = self._tokens.setdefault(waiting.run.id, {})
        cascades.setdefault(waiting.cascade, set()).add(token)
        return token

    def take(self, token: int) -> Waiting | None:
        """Take an event that has waited long enough; None if it was dropped meanwhile."""
        return self._take(token, self.pausing) if token in self.pausing else None

    def take_suspect(self) -> Waiting:
        """Take the next one that has to be run alone; only if there is one."""
        return self._take(next(iter(self._suspects)), self._suspects)

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
        """The cascades of a run that have an event that waits, each once."""
        return list(self._tokens.get(run.id, ()))

    def drop(self, run: Run, cascade: Cascade) -> int:
        """Drop the events of a cascade that wait; say how many these were."""
        tokens = list(self._tokens.get(run.id, {}).get(cascade, ()))
        for token in tokens:
            self._take(token, self.pausing if token in self.pausing else self._suspects)
        return len(tokens)
