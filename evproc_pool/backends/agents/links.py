"""The connection to an agent, on an event loop; whatever carries it.

An engine gives a `Connection`. `LoopLink` makes an `AgentLink` of it: everything that was posted
together travels as one message, both sides show that they are there, and whatever ends the
connection ends the agent.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from evproc_pool.backends.agents import messages as said
from evproc_pool.backends.agents.remote_backend import Left
from evproc_pool.protocol.frame import Data


class ConnectionEndedError(OSError):
    """A connection has ended; the text says why."""


class Connection(Protocol):
    """Carries messages both ways, in order. Its errors are `OSError` if it was closed."""

    async def read(self) -> Data:
        """Read the next message."""

    async def write(self, data: bytes) -> object:
        """Write a message; returns when the connection takes another one."""

    def abort(self) -> object:
        """Close it at once, which ends the agent. Idempotent."""


class LoopLink:
    """The connection to one agent; implements `remote_backend.AgentLink`.

    Everything but `post`, `close` and `is_writing` belongs to the event loop.
    """

    def __init__(
        self,
        connection: Connection,
        loop: asyncio.AbstractEventLoop,
        put: Callable[[Any], object],
    ) -> None:
        self._connection = connection
        self._loop = loop
        self._put = put
        self._commands: deque[said.Command] = deque()
        self._is_called = False  # whether the loop will see what was posted
        self._has_commands = asyncio.Event()
        self._is_sending = False
        self._silent_seconds = 0.0
        self._tasks: list[asyncio.Task[None]] = []
        self._is_retiring = False
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
        with contextlib.suppress(RuntimeError):  # the loop has ended: see `lost_why`
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
                await self._connection.write(said.dump(commands))
                self._is_sending = False

    async def _read(self) -> None:
        with self._ending():
            while True:
                events = said.load(await self._connection.read())
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
        except ConnectionEndedError as error:
            self.finish(str(error))
        except OSError:
            self.finish("the connection was closed")
        except Exception as error:
            self.finish(f"the connection has failed ({error!r})")

    def retire(self) -> None:
        """Tell, once, that the node is about to leave."""
        if not self._is_retiring and not self.is_closed:
            self._is_retiring = True
            self._put([said.Retiring()])

    def finish(self, why: str) -> None:
        """Close the connection, which ends the agent, and tell that it is lost."""
        if self.is_closed:
            return
        self.is_closed = True
        self._put(Left(why))
        self._connection.abort()
        for each in self._tasks:
            if each is not asyncio.current_task():
                each.cancel()
