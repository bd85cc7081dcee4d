"""Finds the nodes of a cluster, and connects to an agent on each; whatever the engine is.

The engine is a `NodeSource`: it says which nodes there are, and has an agent begin on one. All of
this runs on one event loop. The source is asked for its nodes every `LOOK_SECONDS`; a node that
joins gets an agent, one that cannot be used is tried again after a pause that grows.

A node with other versions than this process is an error when the search begins. If one joins
later, it is not used, with a warning.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from typing import Final, NamedTuple, Protocol

from evproc_pool.backends.agents import messages as said
from evproc_pool.backends.agents.links import Connection, LoopLink
from evproc_pool.backends.agents.remote_backend import Inbox, Joined, Unusable
from evproc_pool.errors import PoolBrokenError, RegistryMismatchError

#: How often to ask for the nodes, in seconds.
LOOK_SECONDS: Final = 0.5

#: How long an agent may take to begin, in seconds: an interpreter starts, on a busy machine.
BEGIN_SECONDS: Final = 60.0

# After a failure, the next attempt for a node is made after so many seconds, doubled up to the
# second.
_AGAIN_SECONDS: Final = (1.0, 30.0)


class Node(NamedTuple):
    """A node of the cluster.

    Attributes:
        name: What errors call it.
        room: For how many workers.
        is_leaving: Whether it gets nothing more, and leaves when its agent is drained.
        dead_why: Why the engine counts it as dead; empty: it does not.
    """

    name: str
    room: int
    is_leaving: bool = False
    dead_why: str = ""


class NoAgentError(Exception):
    """No agent begins on a node; the text says why."""


class NodeSource(Protocol):
    """An engine's nodes. All of it runs on the event loop of the search."""

    async def nodes(self) -> dict[str, Node]:
        """Return the nodes by keys that no other node ever has at the same time."""

    async def begin(self, key: str, node: Node) -> tuple[Connection, said.Hello] | None:
        """Have an agent begin on a node; None: it is not possible yet.

        Raises:
            NoAgentError: It is not possible.
        """


class NodeSearch:
    """See the module's text. Everything belongs to the event loop.

    Args:
        source: The engine.
        inbox: Gets what happens.
    """

    def __init__(self, source: NodeSource, inbox: Inbox) -> None:
        self._source = source
        self._inbox = inbox
        self._links: dict[str, LoopLink | None] = {}  # None: it is being opened
        self._again: dict[str, tuple[float, float]] = {}  # when to try again, and the last pause
        self._nodes: dict[str, Node] = {}  # when last asked
        self._said: dict[str, str] = {}  # what was said of a node that cannot be used
        self._watcher: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[str]] = set()
        self._is_closed = False

    async def begin(self) -> None:
        """Connect to all nodes that are there, and look for others from now on.

        Raises:
            PoolBrokenError: A node has other versions than this process.
        """
        self._nodes = await self._source.nodes()
        if differing := await self._join_all():
            cause = RegistryMismatchError("; ".join(differing))
            raise PoolBrokenError(
                f"{cause}: install the same versions on all nodes, and where the pool is"
            ) from cause
        self._watcher = asyncio.create_task(self._watch())

    async def _join_all(self) -> list[str]:
        """Connect to all nodes; return how those differ that have answered in time."""
        tasks = {
            asyncio.create_task(self._join(key, node)): key
            for key, node in self._nodes.items()
            if _may_join(node)
        }
        if not tasks:
            return []
        done, late = await asyncio.wait(tasks, timeout=said.FROZEN_SECONDS)
        for task in late:  # they join later, as new nodes do
            self._tasks.add(task)
            task.add_done_callback(functools.partial(self._has_joined, tasks[task]))
        return [difference for task in done if (difference := task.result())]

    def _has_joined(self, key: str, task: asyncio.Task[str]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (difference := task.result()):
            self._say(key, difference)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            # OSError and others: the engine is looked for by its client; connections stay
            with contextlib.suppress(Exception):
                self._nodes = await self._source.nodes()
                for key, node in self._nodes.items():
                    self._look_at(key, node)
                for known in (self._again, self._said):
                    for key in known.keys() - self._nodes.keys():
                        del known[key]

    def _look_at(self, key: str, node: Node) -> None:
        link = self._links.get(key)
        if link is not None and not link.is_closed:
            if node.dead_why:
                link.finish(node.dead_why)
            elif node.is_leaving:
                link.retire()
            return
        is_opening = key in self._links and link is None
        when, _ = self._again.get(key, (0.0, 0.0))
        if not is_opening and _may_join(node) and asyncio.get_running_loop().time() >= when:
            self._links[key] = None
            # if its versions differ, it is not used
            task = asyncio.create_task(self._join(key, node))
            self._tasks.add(task)
            task.add_done_callback(functools.partial(self._has_joined, key))

    async def _join(self, key: str, node: Node) -> str:
        """Connect to a node. Return how its versions differ, in words; empty: not."""
        self._links[key] = None
        try:
            begun = await self._source.begin(key, node)
        except NoAgentError as error:
            self._failed(key, str(error))
            return ""
        except Exception as error:  # else it would count as being opened for ever
            self._failed(key, f"no agent begins at {node.name}: {error!r}")
            return ""
        if begun is None:
            self._failed(key, "")
            return ""
        connection, hello = begun
        if hello.differences:
            connection.abort()
            # one that differs may be another one after its restart
            self._failed(key, "")
            return f"node {node.name} has {'; '.join(hello.differences)}"
        agent = self._inbox.new_key()
        loop = asyncio.get_running_loop()
        link = LoopLink(connection, loop, lambda item: self._inbox.put(agent, item))
        self._links[key] = link
        self._again.pop(key, None)
        self._inbox.put(agent, Joined(link, node.name, node.room))
        link.begin()
        if self._is_closed:
            link.finish("the pool has ended")
        return ""

    def _failed(self, key: str, why: str) -> None:
        """Note that a node cannot be used now, and when to try again."""
        _, pause = self._again.get(key, (0.0, 0.0))
        pause = min(max(2 * pause, _AGAIN_SECONDS[0]), _AGAIN_SECONDS[1])
        self._again[key] = asyncio.get_running_loop().time() + pause, pause
        self._links.pop(key, None)
        if why:
            self._say(key, why)

    def _say(self, key: str, why: str) -> None:
        """Say once why a node cannot be used, unless the engine has lost it, too."""
        if key in self._nodes and self._said.get(key) != why:
            self._said[key] = why
            self._inbox.put(self._inbox.new_key(), Unusable(why))

    def close(self) -> None:
        """Close all connections, and look for no more nodes."""
        self._is_closed = True
        if self._watcher is not None:
            self._watcher.cancel()
        for task in list(self._tasks):
            task.cancel()
        for link in self._links.values():
            if link is not None:
                link.finish("the pool has ended")


def _may_join(node: Node) -> bool:
    return not node.is_leaving and not node.dead_why and node.room > 0
