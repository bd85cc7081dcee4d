"""The relay: copies messages between a connection and the process of an agent, on its node.

Two coroutines, about 0.1 ms for each message. Nobody on the way unpacks them.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from evproc_pool.backends.agents.links import Connection
from evproc_pool.backends.agents.messages import dump
from evproc_pool.backends.agents.process import COMMAND, LENGTH

# How long an agent may take to end, in seconds, before it is killed.
_END_SECONDS: Final = 10.0

_HEARTBEAT: Final = dump([])


class Relay:
    """Copies messages between a connection and an agent's process.

    Attributes:
        heard: Whether the coordinator has sent something since this was set to False.
        ended: Set when the agent is gone, or about to be.
    """

    def __init__(self, connection: Connection, process: Process) -> None:
        self._connection = connection
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
            data = bytes(await self._connection.read())
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
            await self._connection.write(data)


async def serve_agent(
    connection: Connection,
    setup: bytes,
    path: Sequence[str],
    begun: Callable[[Relay], object] = lambda _: None,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Start an agent, and be the connection to it until one of both ends.

    Args:
        connection: To the coordinator; it is closed at the end.
        setup: The first message to the agent.
        path: The agent's `sys.path`.
        begun: Called with the relay when the process runs.
        environment: The environment variables of the agent; None: those of this process.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable, *COMMAND, stdin=PIPE, stdout=PIPE, env=environment
    )
    relay = Relay(connection, process)
    begun(relay)
    try:
        await relay.run([dump(list(path)), setup])  # type: ignore[arg-type]  # plain data
    except OSError:
        pass  # the agent has died at once
    finally:
        relay.ended.set()
        connection.abort()
        await _end(process)


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
