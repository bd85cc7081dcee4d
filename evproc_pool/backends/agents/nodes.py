"""Which agent gets the next worker, and what is lost with an agent. Pure.

Worker numbers are the pool's. Each worker belongs to one agent, from its start to its end. An
agent has room for as many workers as the engine gave its node threads. The pool is as large as
the room of all agents that stay, up to a limit.

- the next worker goes to the agent with the smallest part of its room in use. Of several, the one
  that joined first;
- a replacement starts before the worker that it replaces ends. So an agent that is full may get
  one more, if all are full;
- a worker that finds no agent waits until one joins;
- O(agents) for each start, else O(1).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from evproc_pool.errors import InternalError


class Lost(NamedTuple):
    """What an agent had when it was lost."""

    name: str
    workers: list[int]


class _Node:
    """An agent."""

    __slots__ = ("is_retiring", "name", "room", "workers")

    def __init__(self, name: str, room: int) -> None:
        self.name = name
        self.room = room
        self.is_retiring = False
        self.workers: dict[int, None] = {}


class Nodes:
    """The agents by their keys, which are never used again. `most_workers` None: no limit."""

    def __init__(self, most_workers: int | None = None) -> None:
        self._most_workers = most_workers
        self._nodes: dict[int, _Node] = {}
        self._agents: dict[int, int] = {}  # by worker
        self._waiting: dict[int, None] = {}  # workers without an agent, in order

    # --- questions ---

    @property
    def size(self) -> int:
        """How many workers the pool has; at least 1, which waits if there is no agent."""
        room = sum(each.room for each in self._nodes.values() if not each.is_retiring)
        return max(1, room if self._most_workers is None else min(room, self._most_workers))

    @property
    def waiting(self) -> list[int]:
        """The workers that wait for an agent."""
        return list(self._waiting)

    @property
    def workers(self) -> list[int]:
        """All workers that are not gone, those that wait included."""
        return [*self._agents, *self._waiting]

    def agent_of(self, worker: int) -> int | None:
        """Return the agent of a worker; None: the worker has ended, or has no agent yet."""
        return self._agents.get(worker)

    def name_of(self, worker: int) -> str:
        """The name of a worker's agent; empty if it has none."""
        agent = self._agents.get(worker)
        return "" if agent is None else self._nodes[agent].name

    def is_known(self, agent: int) -> bool:
        """Whether an agent is there."""
        return agent in self._nodes

    def is_drained(self, agent: int) -> bool:
        """Whether an agent retires and has no workers any more."""
        node = self._nodes.get(agent)
        return node is not None and node.is_retiring and not node.workers

    # --- what happens ---

    def joined(self, agent: int, name: str, room: int) -> None:
        """Take in a new agent."""
        if agent in self._nodes:
            raise InternalError(f"agent {agent} has joined already")
        self._nodes[agent] = _Node(name, room)

    def retiring(self, agent: int) -> list[int]:
        """Give an agent no more workers; return those that it has."""
        node = self._nodes.get(agent)
        if node is None or node.is_retiring:
            return []
        node.is_retiring = True
        return list(node.workers)

    def lost(self, agent: int) -> Lost:
        """Forget an agent and its workers."""
        node = self._nodes.pop(agent)
        workers = list(node.workers)
        for worker in workers:
            del self._agents[worker]
        return Lost(node.name, workers)

    def place(self, worker: int) -> int | None:
        """Choose the agent of a new worker; None: no agent is there, and the worker waits."""
        if worker in self._agents:
            raise InternalError(f"worker {worker} has an agent")
        agent = self._choose()
        if agent is None:
            self._waiting[worker] = None
            return None
        self._waiting.pop(worker, None)
        self._agents[worker] = agent
        self._nodes[agent].workers[worker] = None
        return agent

    def _choose(self) -> int | None:
        staying: Iterable[tuple[int, _Node]] = (
            (key, node) for key, node in self._nodes.items() if not node.is_retiring
        )
        # `min` returns the first of equals
        best = min(staying, key=lambda each: len(each[1].workers) / each[1].room, default=None)
        return None if best is None else best[0]

    def gone(self, worker: int) -> None:
        """Forget a worker."""
        self._waiting.pop(worker, None)
        agent = self._agents.pop(worker, None)
        if agent is not None:
            del self._nodes[agent].workers[worker]
