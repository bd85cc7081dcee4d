"""The part of the connection by Dask that runs in Dask's workers; see `dask`.

Imported by Dask, in each of its workers, so evproc-pool must be installed there.

**What it takes there.** No thread of the worker's, and none of its task slots: the relay below is
two coroutines in the worker's event loop, which copy messages between a connection and two pipes
(about 0.1 ms for each message). So tasks of other users run as ever, beside the processes of the
agent, on the same CPUs. Dask counts and limits the memory of its own process only.

Uses what Dask does not document, but has had for years: `Worker.handlers`, and that a handler with
`comm` as its first parameter owns the connection until it returns. Checked with distributed
2024.8.0 and 2026.8.0; ``tests/evproc_pool/backends/agents/test_dask.py`` fails if it changes.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from asyncio.subprocess import PIPE, Process
from typing import Any, Final

from distributed import WorkerPlugin
from distributed.core import Status

from evproc_pool.backends.agents.messages import Retiring, dump
from evproc_pool.backends.agents.process import COMMAND, LENGTH

#: What `ask` answers.
READY: Final = "ready"
LEAVING: Final = "leaving"

# How long an agent may take to end, in seconds, before it is killed.
_END_SECONDS: Final = 10.0

# How long a worker that retires waits for its agents, in seconds. A coordinator that does not
# answer has no work here: nobody drives it.
_DRAIN_SECONDS: Final = 20.0
_SILENT_SECONDS: Final = 2.0

_HEARTBEAT: Final = dump([])


class _Relay:
    """Copies messages between a connection and an agent's process.

    Attributes:
        heard: Whether the coordinator has sent something since this was set to False.
    """

    def __init__(self, comm: Any, process: Process) -> None:
        self._comm = comm
        self._process = process
        self._writing = asyncio.Lock()
        self.heard = False
        self.ended = asyncio.Event()

    async def run(self, first: list[bytes]) -> None:
        """Copy until one side ends."""
        for data in first:
            await self._give(data)
        tasks = [asyncio.create_task(each()) for each in (self._commands, self._events)]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in tasks:
                each.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _commands(self) -> None:
        while True:
            data = await self._comm.read()
            self.heard = self.heard or data != _HEARTBEAT
            await self._give(data)

    async def _give(self, data: bytes) -> None:
        stdin = self._process.stdin
        if stdin is not None:
            stdin.write(LENGTH.pack(len(data)))
            stdin.write(data)
            await stdin.drain()

    async def _events(self) -> None:
        stdout = self._process.stdout
        while stdout is not None:
            (length,) = LENGTH.unpack(await stdout.readexactly(LENGTH.size))
            await self.tell(await stdout.readexactly(length))

    async def tell(self, data: bytes) -> None:
        """Send a message to the coordinator."""
        async with self._writing:
            await self._comm.write(data)


class AgentPlugin(WorkerPlugin):  # type: ignore[misc]  # distributed is not typed here
    """Lets a coordinator connect to agents on a worker of Dask.

    Each pool registers one of its own, under its own `name`, so that pools do not share anything.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._relays: set[_Relay] = set()
        self._is_leaving = False

    def __reduce__(self) -> tuple[Any, ...]:
        return AgentPlugin, (self.name,)

    def setup(self, worker: Any) -> None:
        """Add the handlers."""
        self._relays, self._is_leaving = set(), False
        worker.handlers[f"{self.name}-ask"] = self.ask
        worker.handlers[self.name] = self.serve

    async def teardown(self, worker: Any) -> None:
        """Remove the handlers. If the worker retires, wait until the agents are drained."""
        worker.handlers.pop(f"{self.name}-ask", None)
        worker.handlers.pop(self.name, None)
        self._is_leaving = True
        relays = list(self._relays)
        for each in relays:
            each.heard = False
            with contextlib.suppress(OSError):
                await each.tell(dump([Retiring()]))
        await asyncio.gather(*[self._drain(each) for each in relays])

    async def _drain(self, relay: _Relay) -> None:
        for seconds in (_SILENT_SECONDS, _DRAIN_SECONDS):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(relay.ended.wait(), seconds)
            if relay.ended.is_set() or not relay.heard:
                return

    async def ask(self) -> str:
        """Answer that a coordinator may connect."""
        return LEAVING if self._is_leaving else READY

    async def serve(self, comm: Any, setup: bytes) -> Any:
        """Start an agent, and be the connection to it until one of both ends."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, *COMMAND, stdin=PIPE, stdout=PIPE
        )
        relay = _Relay(comm, process)
        self._relays.add(relay)
        try:
            # what `upload_file` has added, too
            await relay.run([dump(sys.path), setup])  # type: ignore[arg-type]  # plain data
        except OSError:
            pass  # the agent has died at once
        finally:
            self._relays.discard(relay)
            relay.ended.set()
            comm.abort()
            await _end(process)
        return Status.dont_reply


async def _end(process: Process) -> None:
    """End an agent by closing its standard input, or kill it."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        await asyncio.wait_for(process.wait(), _END_SECONDS)
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        raise
