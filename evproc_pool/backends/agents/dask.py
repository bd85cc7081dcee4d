"""The connection to agents by Dask: one on each of its workers, for as long as the pool has work.

::

    client's event loop                      Dask worker's event loop       its subprocess
    LoopLink  <---- connection of Dask's ----> relay of `dask_plugin` <----> agent

A plug-in that is registered for the pool answers in each of Dask's workers, also in those that join
later. The client opens a connection to each, over Dask's own transport, with its TLS and its
authentication, and one message each way carries all that happens together.

**Measured**, a round trip with 2 kB on one machine (two cores, distributed 2026.8.0), median of
200: a task pinned to a worker 10.9 ms, an actor 1.1 ms, `Scheduler.proxy` 0.73 ms, a call of
Dask's RPC 0.36 ms, a connection that stays open 0.23 ms. So it is the last one. Tasks would need a
thread of the worker's for each, and say nothing when their worker dies until the scheduler has
noticed it. **Its price**: the client must reach Dask's workers directly, as Dask's workers reach
each other. Behind a gateway that forwards to the scheduler only, no node can be used, and the pool
says so.

**Who joins and who leaves.** The client asks the scheduler for its workers every `LOOK_SECONDS`. A
worker that dies closes its connection: known at once, whatever the scheduler knows. One that is
restarted at its address gets a new connection, and so a new agent. One that retires says so, and
waits until its agent is drained. One that freezes, or is cut off, is given up when nothing has come
from it for `messages.FROZEN_SECONDS`.

Uses what Dask does not document: `Client.connection_args`, `Client.scheduler`, and
`distributed.core.connect`. Checked with distributed 2024.8.0 and 2026.8.0; see `dask_plugin`.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import uuid
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, Final

from distributed import Client
from distributed.comm import get_address_host_port
from distributed.core import connect

from evproc_pool.backends.agents import messages as said
from evproc_pool.backends.agents.dask_plugin import READY, AgentPlugin
from evproc_pool.backends.agents.links import Connection
from evproc_pool.backends.agents.remote_backend import Inbox, RemoteBackend
from evproc_pool.backends.agents.search import BEGIN_SECONDS, NoAgentError, Node, NodeSearch
from evproc_pool.errors import PoolBrokenError

# How long to wait for the end of the search, in seconds.
_CLOSE_SECONDS: Final = 10.0

_CLOSED: Final = "the client of Dask is closed"


class DaskCluster:
    """Finds the workers of a Dask cluster, and connects to an agent on each.

    Args:
        client: A synchronous client; or an address, for which one is made.
        inbox: Gets what happens.
        setup: The first message to each agent.
    """

    def __init__(self, client: Any, inbox: Inbox, setup: said.Setup) -> None:
        self._owns_client = isinstance(client, str)
        self._client: Any = _client_of(client) if self._owns_client else client
        self._setup = said.dump(setup)
        self._name = f"evproc-agent-{uuid.uuid4().hex}"
        self._search = NodeSearch(self, inbox)
        self._is_closed = False
        self._loop: asyncio.AbstractEventLoop = self._client.loop.asyncio_loop
        self._thread = 0  # of the loop

    def open(self) -> None:
        """Connect to all nodes that are there, and look for others from now on.

        Raises:
            PoolBrokenError: A node has other versions than this process, or no evproc-pool.
        """
        try:
            self._client.sync(self._open)
        except BaseException as error:
            self.close()
            if self.lost_why and not isinstance(error, (PoolBrokenError, KeyboardInterrupt)):
                raise _closed() from error
            raise

    async def _open(self) -> None:
        self._thread = threading.get_ident()
        try:
            # a frozen worker answers never, and the others have it by then
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(
                    self._client.register_plugin(AgentPlugin(self._name)), said.FROZEN_SECONDS
                )
        except ImportError as error:
            raise PoolBrokenError(
                f"Dask's workers cannot import what an agent needs ({error}): pip install"
                " 'evproc-pool[dask]' on each node"
            ) from error
        await self._search.begin()

    async def nodes(self) -> dict[str, Node]:
        """See `NodeSource`."""
        threads: dict[str, int] = await self._client.scheduler.ncores()
        return {address: Node(address, max(1, count)) for address, count in threads.items()}

    async def begin(self, key: str, node: Node) -> tuple[Connection, said.Hello] | None:  # noqa: ARG002 - the key is the address
        """See `NodeSource`."""
        try:
            comm = await connect(key, **self._client.connection_args)
        except Exception as error:
            raise NoAgentError(f"no connection to {key} is possible from here: {error}") from error
        try:
            hello = await asyncio.wait_for(self._begin(comm), BEGIN_SECONDS)
        except Exception as error:
            comm.abort()
            raise NoAgentError(f"no agent begins at {key}: {error!r}") from error
        except BaseException:  # the pool ends
            comm.abort()
            raise
        if hello is None:
            comm.abort()
            return None
        return comm, hello

    async def _begin(self, comm: Any) -> said.Hello | None:
        """Have an agent begin; None: the plug-in is not there yet, or the worker is leaving."""
        await comm.write({"op": f"{self._name}-ask", "reply": True})
        if await comm.read() != READY:
            return None
        await comm.write({"op": self._name, "reply": False, "setup": self._setup})
        hello: said.Hello = said.load(await comm.read())
        return hello

    @property
    def lost_why(self) -> str:
        """See `remote_backend.Search`."""
        return "" if self._loop.is_running() else _CLOSED

    def close(self) -> None:
        """Close all connections, and take the plug-in away. Idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        if self.lost_why:
            return
        future = asyncio.run_coroutine_threadsafe(self._close(), self._loop)
        if self._thread != threading.get_ident():  # else a garbage collection strikes in the loop
            with contextlib.suppress(FutureTimeoutError, Exception):
                future.result(_CLOSE_SECONDS)
            if self._owns_client:
                self._client.close()

    async def _close(self) -> None:
        self._search.close()
        # the scheduler may be gone
        with contextlib.suppress(Exception):
            await asyncio.wait_for(
                self._client.unregister_worker_plugin(self._name), _CLOSE_SECONDS / 2
            )


def _closed() -> PoolBrokenError:
    return PoolBrokenError(f"{_CLOSED}: make a client, and a pool with it")


def _client_of(address: str) -> Any:
    """Make a client; it waits as long for the scheduler as Dask is set up to."""
    try:
        get_address_host_port(address, strict=True)
    except ValueError as error:  # a client that Dask makes nevertheless ends only after a minute
        raise PoolBrokenError(
            f"no scheduler of Dask can be at {address}: {error}; write it as in tcp://host:8786"
        ) from error
    try:
        return Client(address, set_as_default=False)
    except OSError as error:
        raise PoolBrokenError(
            f"no scheduler of Dask answers at {address}: start one (dask scheduler), or correct the"
            f" address ({error})"
        ) from error


def make_backend(client: Any, setup: said.Setup, most_workers: int | None = None) -> RemoteBackend:
    """Make a backend over all nodes of a cluster; see `DaskCluster`.

    Raises:
        PoolBrokenError: The client is closed, no scheduler is at the address, or
            `DaskCluster.open` raises it.
    """
    if getattr(client, "status", "") in {"closed", "closing"}:
        raise _closed()
    inbox = Inbox()
    cluster = DaskCluster(client, inbox, setup)
    cluster.open()
    return RemoteBackend(inbox, cluster, most_workers)
