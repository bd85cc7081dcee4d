"""The connection to agents by Ray: an actor on each node, for as long as the pool has work.

::

    event loop of the pool                actor on the node, `ray_actor`       its subprocess
    LoopLink  <---- socket, `streams` ----> `relay` <------------------------> agent

Ray has one actor run on each node that has CPUs: by a hard affinity to that node, with no restart
and no retry. The actor opens a port at the node's address for one connection, of somebody who has
the secret that came to it by Ray.

**Measured**, a round trip with 2 kB on one machine (two cores, ray 2.60.0, CPython 3.11), median of
400: a task 1.75 ms; calls of an async actor for commands and another one for events, two of which
are always on their way, 1.45 ms; the same with a streaming generator for events 1.20 ms; one call
of a plain actor there and back 0.66 ms, which can carry no event of its own accord;
`ray.util.queue` 2.97 ms; a socket 0.13 ms. So it is a socket. **Its price**: the process with the
pool must reach the nodes, at any port, as the nodes reach each other. Ray's TLS does not cover it,
so the pool does not run where RAY_USE_TLS is set.

**Who joins and who leaves.** Ray is asked for its nodes every `search.LOOK_SECONDS`. A node with an
actor that dies, or is killed, closes its connection: known at once. What Ray says of it comes
later, and counts if the connection has not noticed. A node that drains gets no more work, and its
actor ends when what runs there has ended. One that freezes, or is cut off, is given up when nothing
has come from it for `messages.FROZEN_SECONDS`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Container
from typing import Any, Final

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from evproc_pool.backends.agents import messages as said
from evproc_pool.backends.agents.ray_actor import EvprocAgent
from evproc_pool.backends.agents.ray_session import NO_CLIENT, RaySession, connection_key
from evproc_pool.backends.agents.remote_backend import Inbox, RemoteBackend
from evproc_pool.backends.agents.search import BEGIN_SECONDS, NoAgentError, Node, NodeSearch
from evproc_pool.backends.agents.streams import StreamConnection, connect, new_secret
from evproc_pool.errors import PoolBrokenError
from evproc_pool.internals.ray_nodes import draining_nodes

# How long actors may take to end by themselves, in seconds, before Ray kills them.
_END_SECONDS: Final = 5.0

# How long to wait for the end of the search, in seconds.
_CLOSE_SECONDS: Final = 10.0

_NO_PACKAGE: Final = "no evproc_pool that Ray can import: pip install 'evproc-pool[ray]' on it"

_LOST: Final = "this process is not connected to Ray any more"


class _Actor:
    """An actor, and the connection to its agent; a `Connection`."""

    def __init__(self, key: str) -> None:
        self._secret = new_secret()
        self._handle: Any = (
            ray.remote(EvprocAgent)
            .options(
                num_cpus=0,
                max_restarts=0,
                max_task_retries=0,
                scheduling_strategy=NodeAffinitySchedulingStrategy(key, soft=False),
            )
            .remote(self._secret)
        )
        self._serving: asyncio.Task[None] | None = None
        self._stream: StreamConnection | None = None
        self._ending: asyncio.Task[None] | None = None

    async def begin(self, host: str, setup: bytes) -> said.Hello:
        """Have the agent begin, and connect to it."""
        port = await self._handle.listen.remote(host)
        self._serving = asyncio.create_task(self._serve(setup))
        try:
            self._stream = await connect(host, port, self._secret)
        except OSError as error:
            raise ConnectionError(
                f"nothing answers at {host}:{port} ({error!r}), and the process with the pool must"
                " reach the nodes, at any port"
            ) from error
        hello: said.Hello = said.load(await self._stream.read())
        return hello

    async def _serve(self, setup: bytes) -> None:
        """Wait for the end of the agent, and tell why if the connection does not."""
        why = "its actor has ended"
        try:
            await self._handle.serve.remote(setup)
        except Exception as error:
            why = f"{why}: {_in_short(error)}"
        if self._stream is not None:
            self._stream.fail(why)

    async def read(self) -> bytes:
        """See `Connection`."""
        return await self._open_stream().read()

    async def write(self, data: bytes) -> None:
        """See `Connection`."""
        await self._open_stream().write(data)

    def _open_stream(self) -> StreamConnection:
        if self._stream is None:
            raise ConnectionResetError
        return self._stream

    def abort(self) -> None:
        """See `Connection`. The agent ends, and with it the actor."""
        if self._stream is not None:
            self._stream.abort()
        if self._ending is None:
            self._ending = asyncio.create_task(self._end())

    async def _end(self) -> None:
        if self._serving is not None:
            await asyncio.wait([self._serving], timeout=_END_SECONDS)
        if ray.is_initialized():
            with contextlib.suppress(Exception):  # it is gone, or Ray is about to go
                ray.kill(self._handle)

    async def ended(self) -> None:
        """Abort it, and wait until the actor has ended."""
        self.abort()
        if self._ending is not None:
            await self._ending

    @property
    def has_ended(self) -> bool:
        """Whether the actor has ended."""
        return self._ending is not None and self._ending.done()


def _in_short(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


class RayCluster:
    """Finds the nodes of a Ray cluster, and connects to an agent on each; a `NodeSource`.

    Args:
        session: The connection to Ray; it is closed with this.
        inbox: Gets what happens.
        setup: The first message to each agent.
    """

    def __init__(self, session: RaySession, inbox: Inbox, setup: said.Setup) -> None:
        self._session = session
        self._setup = said.dump(setup)
        self._search = NodeSearch(self, inbox)
        self._actors: list[_Actor] = []
        self._hosts: dict[str, str] = {}
        self._is_closed = False
        self._is_lost = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="evproc-ray", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            tasks = asyncio.all_tasks(self._loop)
            for each in tasks:
                each.cancel()
            self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        finally:
            self._loop.close()
            self._session.close()

    def open(self) -> None:
        """Connect to all nodes that are there, and look for others from now on.

        Raises:
            PoolBrokenError: A node has other versions than this process, or no evproc-pool.
        """
        try:
            asyncio.run_coroutine_threadsafe(self._search.begin(), self._loop).result()
        except BaseException as error:
            self.close()
            if self.lost_why and isinstance(error, Exception):
                raise PoolBrokenError(f"{self.lost_why}: make a new pool") from error
            raise

    # --- NodeSource ---

    async def nodes(self) -> dict[str, Node]:
        """See `NodeSource`."""
        self._check_connected()
        # in a thread: while the head node does not answer, the agents are served
        table, leaving = await asyncio.to_thread(_ask_for_nodes)
        self._actors = [each for each in self._actors if not each.has_ended]
        self._hosts = {each["NodeID"]: each["NodeManagerAddress"] for each in table}
        return {each["NodeID"]: _node(each, leaving) for each in table}

    def _check_connected(self) -> None:
        """Check that Ray is there, which it would start again if asked for anything."""
        if self._is_lost or connection_key() != self._session.key:
            self._is_lost = True
            raise ConnectionResetError(_LOST)

    async def begin(self, key: str, node: Node) -> tuple[_Actor, said.Hello]:
        """See `NodeSource`."""
        self._check_connected()
        actor = _Actor(key)
        self._actors.append(actor)
        try:
            beginning = actor.begin(self._hosts[key], self._setup)
            return actor, await asyncio.wait_for(beginning, BEGIN_SECONDS)
        except BaseException as error:
            actor.abort()
            if not isinstance(error, Exception):  # the pool ends
                raise
            why = str(error) or repr(error)
            if isinstance(error, TimeoutError):
                why = f"Ray has not started it within {BEGIN_SECONDS:g} s"
            if "ModuleNotFoundError" in why or "ImportError" in why:
                lacks = (
                    "nothing that can be imported as evproc_pool: pip install 'evproc-pool[ray]'"
                )
                return actor, said.Hello(0, [lacks])
            raise NoAgentError(f"no agent begins at {node.name}: {why}") from error

    # --- Search ---

    @property
    def lost_why(self) -> str:
        """See `remote_backend.Search`."""
        return _LOST if self._is_lost or not ray.is_initialized() else ""

    def close(self) -> None:
        """Close all connections, and that to Ray if a pool has made it. Idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        asyncio.run_coroutine_threadsafe(self._close(), self._loop)
        # else a garbage collection strikes in the loop
        if self._thread is not threading.current_thread():
            self._thread.join(_CLOSE_SECONDS)

    async def _close(self) -> None:
        try:
            self._search.close()
            if not self.lost_why:
                await asyncio.gather(*[each.ended() for each in self._actors])
        finally:
            self._loop.stop()


def _ask_for_nodes() -> tuple[list[dict[str, Any]], Container[str]]:
    """Return Ray's table of nodes, and the ids of those that drain."""
    table: list[dict[str, Any]] = ray.nodes()
    return table, draining_nodes()


def _node(entry: dict[str, Any], leaving: Container[str]) -> Node:
    key = entry["NodeID"]
    name = f"{entry['NodeManagerAddress']} ({key[:12]})"
    dead_why = ""
    if not entry["Alive"]:
        dead_why = "Ray counts it as dead"
        if message := entry.get("DeathReasonMessage"):
            dead_why = f"{dead_why}: {message}"
    return Node(name, int(entry["Resources"].get("CPU", 0)), key in leaving, dead_why)


def make_backend(address: str, setup: said.Setup, most_workers: int | None = None) -> RemoteBackend:
    """Make a backend over all nodes of a cluster; see `RayCluster`.

    Args:
        address: `"ray"`, or `"ray:"` and what `ray.init` takes as an address.
        setup: The first message to each agent.
        most_workers: How many workers there are altogether; None: as many as fit.

    Raises:
        PoolBrokenError: There is no such cluster, or `RayCluster.open` raises it.
    """
    if os.environ.get("RAY_USE_TLS", "0").lower() in {"1", "true"}:
        raise PoolBrokenError(
            "RAY_USE_TLS is set, and a pool's own connections to its nodes would not be encrypted"
        )
    if address.startswith("ray://"):
        raise PoolBrokenError(f"{address} is Ray Client, {NO_CLIENT}")
    inbox = Inbox()
    session = RaySession(address.removeprefix("ray").removeprefix(":"))
    cluster = RayCluster(session, inbox, setup)
    cluster.open()
    return RemoteBackend(inbox, cluster, most_workers)
