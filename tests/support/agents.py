"""Agents in threads of this process, and links to them that can fail."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable, Sequence
from typing import Any

from evproc_pool import PoolProcessor
from evproc_pool.backends.agents import messages
from evproc_pool.backends.agents.agent import Agent
from evproc_pool.backends.agents.remote_backend import Inbox, Joined, Left, RemoteBackend
from evproc_pool.backends.local.processes import LocalBackend
from evproc_pool.protocol.backend import Backend


class ThreadLink:
    """An agent in a thread, and the connection to it.

    Attributes:
        name: The name of its node.
        posted: The commands that were sent.
    """

    def __init__(self, inbox: Inbox, name: str, room: int, backend: Backend) -> None:
        self.name = name
        self.key = inbox.new_key()
        self.posted: list[messages.Command] = []
        self._inbox = inbox
        self._is_cut = False
        self._flows = threading.Event()
        self._flows.set()
        self._agent = Agent(backend, self._write)
        self._thread = threading.Thread(target=self._agent.run, name=name)
        self._thread.start()
        inbox.put(self.key, Joined(self, name, room))

    def _write(self, events: Sequence[messages.Event]) -> None:
        self._flows.wait()
        if self._is_cut:
            raise OSError("cut")
        self._inbox.put(self.key, messages.load(messages.dump(events)))

    # --- AgentLink ---

    is_writing = False

    def post(self, command: messages.Command) -> None:
        self.posted.append(command)
        if not self._is_cut:
            self._agent.commands.put(messages.load(messages.dump([command])))

    def close(self) -> None:
        self._agent.commands.close()
        self._flows.set()

    # --- faults ---

    def freeze(self) -> None:
        """Let nothing more come from the agent, which goes on."""
        self._flows.clear()

    def lose(self, why: str = "the connection was closed") -> None:
        """Lose the agent, with all that it has not sent."""
        self._is_cut = True
        self.close()
        self._inbox.put(self.key, Left(why))

    def retire(self) -> None:
        """Have the node leave."""
        self._inbox.put(self.key, [messages.Retiring()])

    @property
    def has_ended(self) -> bool:
        """Whether the agent has ended."""
        return not self._thread.is_alive()

    def join(self) -> None:
        """Wait for the end of the agent."""
        self.close()
        self._thread.join()


class ThreadCluster:
    """Starts the agents of a pool in threads; a `Starter`.

    Attributes:
        links: To all agents, the ended ones included.
    """

    prefetch: int | None = None
    is_elsewhere = False

    def __init__(self, rooms: Sequence[int], most_workers: int | None = None) -> None:
        self.workers = sum(rooms)
        self.links: list[ThreadLink] = []
        self.inbox = Inbox()
        self._rooms = rooms
        self._most_workers = most_workers
        self.backend: RemoteBackend | None = None

    def begin(self, functions: list[Any]) -> None:
        """Do nothing."""

    def make_backend(self, functions: list[Any]) -> Backend:
        self.inbox = Inbox()
        for room in self._rooms:
            self.add(room)
        self.backend = RemoteBackend(self.inbox, self, self._most_workers)
        return self.backend

    def add(self, room: int, name: str = "") -> ThreadLink:
        """Have a node join."""
        backend = LocalBackend(multiprocessing.get_context("forkserver"))
        name = name or f"node-{len(self.links)}"
        self.links.append(ThreadLink(self.inbox, name, room, backend))
        return self.links[-1]

    # --- Search ---

    lost_why = ""

    def close(self) -> None:
        for link in self.links:
            link.join()


def pool_over(cluster: ThreadCluster, **options: Any) -> PoolProcessor:
    """A pool whose workers belong to agents."""
    pool = PoolProcessor(workers=cluster.workers, **options)
    pool._owner.starter = cluster
    return pool


Handlers = Sequence[Callable[[Any, Any], Any]]
