"""The state that the parts of the scheduler share. Pure; every change costs O(1)."""

from __future__ import annotations

from collections import deque

from evproc_pool.core.batches import Cascade
from evproc_pool.core.inputs_and_effects import Effect
from evproc_pool.core.run_state import Run


class SharedState:
    """The runs, whose turn it is, and the answer to the current input.

    Attributes:
        runs: Runs that are not finished, by id.
        turns: Runs with something ready, the next one first.
        effects: The effects of the current step, in order.
    """

    __slots__ = ("effects", "runs", "turns")

    def __init__(self) -> None:
        self.runs: dict[int, Run] = {}
        self.turns: deque[Run] = deque()
        self.effects: list[Effect] = []

    @property
    def has_ready(self) -> bool:
        """Whether any run could send something."""
        return any(run.has_ready for run in self.turns)

    def take_turns(self, run: Run) -> None:
        """Give a run a turn if it has something ready and waits for none."""
        if run.has_ready and not run.has_turn:
            run.has_turn = True
            self.turns.append(run)

    def make_ready(self, run: Run, cascade: Cascade) -> None:
        """Let the next events of a cascade be sent."""
        if not cascade.is_ready:
            run.add_ready(cascade)
            self.take_turns(run)
