"""The connection to agents by Dask: one on each of its workers, for as long as the pool has work.

::

    client's event loop                      Dask worker's event loop       its subprocess
    DaskLink  <---- connection of Dask's ----> relay of `dask_plugin` <----> agent

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
import functools
import threading
import uuid
from collections import deque
from collections.abc import Callable
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, Final

from distributed import Client
from distributed.comm import get_address_host_port
from distributed.core import connect

from evproc_pool.backends.agents import messages as said
from evproc_pool.backends.agents.dask_plugin import READY, AgentPlugin
from evproc_pool.backends.agents.remote_backend import (
    Inbox,
    Joined,
    Left,
    RemoteBackend,
    Unusable,
)
from evproc_pool.errors import PoolBrokenError, RegistryMismatchError

#: How often to ask the scheduler for its workers, in seconds.
LOOK_SECONDS: Final = 0.5

# How long an agent may take to begin, in seconds: an interpreter starts, on a busy machine.
_BEGIN_SECONDS: Final = 60.0

# How long to wait for the end of the search, in seconds.
_CLOSE_SECONDS: Final = 10.0

# After a failure, the next attempt for a node is made after so many seconds, doubled up to the
# second.
_AGAIN_SECONDS: Final = (1.0, 30.0)


_CLOSED: Final = "the client of Dask is closed"


class DaskLink:
    """The connection to one agent; implements `remote_backend.AgentLink`.

    Everything but `post`, `close` and `is_writing` belongs to the event loop.
    """

    def __init__(
        self, comm: Any, loop: asyncio.AbstractEventLoop, put: Callable[[Any], object]
    ) -> None:
        self._comm = comm
        self._loop = loop
        self._put = put
        self._commands: deque[said.Command] = deque()
        self._is_called = False  # whether the loop will see what was posted
        self._has_commands = asyncio.Event()
        self._is_sending = False
        self._silent_seconds = 0.0
        self._tasks: list[asyncio.Task[None]] = []
        self.is_closed = False

    def begin(self) -> None:
        """Begin to read and write."""
        coroutines = (self._read(), self._write(), self._beat())
        self._tasks = [asyncio.create_task(each) for each in coroutines]

    def post(self, command: said.Command) -> None:
        """See `AgentLink`."""
        self._commands.append(command)
        if not self._is_called and not self.is_closed:
            self._is_called = True
            self._call(self._has_commands.set)

    def _call(self, function: Callable[..., object], *args: object) -> None:
        with contextlib.suppress(RuntimeError):  # the client is closed: see `lost_why`
            self._loop.call_soon_threadsafe(function, *args)

    @property
    def is_writing(self) -> bool:
        """See `AgentLink`."""
        return bool(self._commands) or self._is_sending

    def close(self) -> None:
        """See `AgentLink`."""
        self._call(self.finish, "it was closed")

    async def _write(self) -> None:
        with self._ending():
            while True:
                await self._has_commands.wait()
                self._has_commands.clear()
                self._is_called = False  # first: what is posted from now on calls again
                commands = []
                self._is_sending = True
                while self._commands:
                    commands.append(self._commands.popleft())
                await self._comm.write(said.dump(commands))
                self._is_sending = False

    async def _read(self) -> None:
        with self._ending():
            while True:
                events = said.load(await self._comm.read())
                self._silent_seconds = 0.0
                if events:
                    self._put(events)

    async def _beat(self) -> None:
        """Show the agent that this process is there, and see whether the agent is."""
        with self._ending():
            while True:
                await asyncio.sleep(said.HEARTBEAT_SECONDS)
                self._has_commands.set()
                # Counted, not measured: if this process was stopped, the agent was not silent.
                self._silent_seconds += said.HEARTBEAT_SECONDS
                if self._silent_seconds > said.FROZEN_SECONDS:
                    self.finish(f"nothing has come from it for {said.FROZEN_SECONDS:g} s")

    @contextlib.contextmanager
    def _ending(self) -> Any:
        """Lose the agent for what ends a task."""
        try:
            yield
        except OSError:
            self.finish("the connection was closed")
        except Exception as error:
            self.finish(f"the connection has failed ({error!r})")

    def finish(self, why: str) -> None:
        """Close the connection, which ends the agent, and tell that it is lost."""
        if self.is_closed:
            return
        self.is_closed = True
        self._put(Left(why))
        self._comm.abort()
        for each in self._tasks:
            if each is not asyncio.current_task():
                each.cancel()


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
        self._inbox = inbox
        self._setup = said.dump(setup)
        self._name = f"evproc-agent-{uuid.uuid4().hex}"
        self._links: dict[str, DaskLink | None] = {}  # by address; None: it is being opened
        self._again: dict[str, tuple[float, float]] = {}  # when to try again, and the last pause
        self._nodes: dict[str, int] = {}  # those of the scheduler, when last asked
        self._said: dict[str, str] = {}  # what was said of a node that cannot be used
        self._watcher: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[str]] = set()
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
        self._nodes = await self._client.scheduler.ncores()
        if differing := await self._join_all():
            cause = RegistryMismatchError("; ".join(differing))
            raise PoolBrokenError(
                f"{cause}: install the same versions on all nodes, and where the pool is"
            ) from cause
        self._watcher = asyncio.create_task(self._watch())

    async def _join_all(self) -> list[str]:
        """Connect to all nodes; return how those differ that have answered in time."""
        tasks = {
            asyncio.create_task(self._join(address, threads)): address
            for address, threads in self._nodes.items()
        }
        if not tasks:
            return []
        done, late = await asyncio.wait(tasks, timeout=said.FROZEN_SECONDS)
        for task in late:  # they join later, as new nodes do
            self._tasks.add(task)
            task.add_done_callback(functools.partial(self._has_joined, tasks[task]))
        return [difference for task in done if (difference := task.result())]

    def _has_joined(self, address: str, task: asyncio.Task[str]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (difference := task.result()):
            self._say(address, difference)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            # OSError and others: the client looks for the scheduler; connections stay
            with contextlib.suppress(Exception):
                self._nodes = await self._client.scheduler.ncores()
                for address, threads in self._nodes.items():
                    self._look_at(address, threads)
                for known in (self._again, self._said):
                    for address in known.keys() - self._nodes.keys():
                        del known[address]

    def _look_at(self, address: str, threads: int) -> None:
        link = self._links.get(address)
        is_open = address in self._links and (link is None or not link.is_closed)
        when, _ = self._again.get(address, (0.0, 0.0))
        if not is_open and self._loop.time() >= when:
            self._links[address] = None
            # if its versions differ, it is not used
            task = asyncio.create_task(self._join(address, threads))
            self._tasks.add(task)
            task.add_done_callback(functools.partial(self._has_joined, address))

    async def _join(self, address: str, threads: int) -> str:
        """Connect to a node. Return how its versions differ, in words; empty: not."""
        self._links[address] = None
        try:
            comm = await connect(address, **self._client.connection_args)
        except Exception as error:
            self._failed(address, f"no connection to {address} is possible from here: {error}")
            return ""
        try:
            hello = await asyncio.wait_for(self._begin(comm), _BEGIN_SECONDS)
        except Exception as error:
            comm.abort()
            self._failed(address, f"no agent begins at {address}: {error!r}")
            return ""
        except BaseException:  # the pool ends
            comm.abort()
            raise
        if hello is None or hello.differences:
            comm.abort()
            # one that differs may be another one after its restart
            self._failed(address, "")
            return "" if hello is None else f"node {address} has {'; '.join(hello.differences)}"
        key = self._inbox.new_key()
        link = DaskLink(comm, self._loop, lambda item: self._inbox.put(key, item))
        self._links[address] = link
        self._again.pop(address, None)
        self._inbox.put(key, Joined(link, address, max(1, threads)))
        link.begin()
        if self._is_closed:
            link.finish("the pool has ended")
        return ""

    async def _begin(self, comm: Any) -> said.Hello | None:
        """Have an agent begin; None: the plug-in is not there yet, or the worker is leaving."""
        await comm.write({"op": f"{self._name}-ask", "reply": True})
        if await comm.read() != READY:
            return None
        await comm.write({"op": self._name, "reply": False, "setup": self._setup})
        hello: said.Hello = said.load(await comm.read())
        return hello

    def _failed(self, address: str, why: str) -> None:
        """Note that a node cannot be used now, and when to try again."""
        _, pause = self._again.get(address, (0.0, 0.0))
        pause = min(max(2 * pause, _AGAIN_SECONDS[0]), _AGAIN_SECONDS[1])
        self._again[address] = self._loop.time() + pause, pause
        self._links.pop(address, None)
        if why:
            self._say(address, why)

    def _say(self, address: str, why: str) -> None:
        """Say once why a node cannot be used, unless the scheduler has lost it, too."""
        if address in self._nodes and self._said.get(address) != why:
            self._said[address] = why
            self._inbox.put(self._inbox.new_key(), Unusable(why))

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
        if self._watcher is not None:
            self._watcher.cancel()
        for task in list(self._tasks):
            task.cancel()
        for link in self._links.values():
            if link is not None:
                link.finish("the pool has ended")
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
