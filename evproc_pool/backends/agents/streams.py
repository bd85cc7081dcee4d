"""A `Connection` over a socket of asyncio, between two processes that share a secret.

Messages are pickled, so whoever can send one runs code in the other process. Before the first one,
each side shows that it has the secret, without telling it: it returns a keyed hash of a number that
the other side has drawn. What follows is not encrypted, as what Ray itself sends is not by default.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import secrets
import socket
from typing import Final

from evproc_pool.backends.agents.links import ConnectionEndedError
from evproc_pool.backends.agents.process import LENGTH

# How many bytes a secret and a drawn number have; as many as the hash.
_BYTES: Final = 32

# How long the other side may take to show that it has the secret, in seconds.
_GREET_SECONDS: Final = 10.0

#: How many bytes asyncio reads ahead: as many as fit into a pipe.
LIMIT_BYTES: Final = 1 << 18


def new_secret() -> bytes:
    """Draw a secret."""
    return secrets.token_bytes(_BYTES)


class StreamConnection:
    """See `links.Connection`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        peer: socket.socket | None = writer.get_extra_info("socket")
        if peer is not None:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    async def read(self) -> bytes:
        """See `Connection`."""
        try:
            (length,) = LENGTH.unpack(await self._reader.readexactly(LENGTH.size))
            return await self._reader.readexactly(length)
        except EOFError as error:
            raise ConnectionResetError("the other side has closed the connection") from error

    async def write(self, data: bytes) -> None:
        """See `Connection`."""
        self._writer.write(LENGTH.pack(len(data)))
        self._writer.write(data)
        await self._writer.drain()

    def abort(self) -> None:
        """See `Connection`."""
        self._writer.transport.abort()

    def fail(self, why: str) -> None:
        """Have whoever reads hear that the other side is gone, before the socket says it."""
        self._reader.set_exception(ConnectionEndedError(why))

    async def greet(self, secret: bytes, *, is_agent: bool) -> bool:
        """Return whether the other side has the secret, too, and has the other role.

        Raises:
            OSError: It has closed the connection.
            TimeoutError: It is silent.
        """
        return await asyncio.wait_for(self._greet(secret, is_agent=is_agent), _GREET_SECONDS)

    async def _greet(self, secret: bytes, *, is_agent: bool) -> bool:
        # The coordinator shows it first: an agent says nothing of use to a stranger.
        drawn = secrets.token_bytes(_BYTES)
        self._writer.write(drawn)
        await self._writer.drain()
        try:
            theirs = await self._reader.readexactly(_BYTES)
            if not is_agent:
                self._writer.write(_proof(secret, b"coordinator", theirs, drawn))
                await self._writer.drain()
            role = b"coordinator" if is_agent else b"agent"
            proof = await self._reader.readexactly(_BYTES)
        except EOFError as error:
            raise ConnectionResetError("the other side has closed the connection") from error
        is_right = hmac.compare_digest(proof, _proof(secret, role, drawn, theirs))
        if is_agent and is_right:
            self._writer.write(_proof(secret, b"agent", theirs, drawn))
            await self._writer.drain()
        return is_right


def _proof(secret: bytes, role: bytes, asked: bytes, drawn: bytes) -> bytes:
    return hmac.digest(secret, b"%b %b%b" % (role, asked, drawn), hashlib.sha256)


async def connect(host: str, port: int, secret: bytes) -> StreamConnection:
    """Connect to an agent.

    Raises:
        OSError: There is no connection, or no agent at its other end.
    """
    reader, writer = await asyncio.wait_for(
        asyncio.open_connection(host, port, limit=LIMIT_BYTES), _GREET_SECONDS
    )
    connection = StreamConnection(reader, writer)
    try:
        if await connection.greet(secret, is_agent=False):
            return connection
        raise ConnectionRefusedError("something else answers there")
    except BaseException:
        connection.abort()
        raise


async def accept(listener: socket.socket, secret: bytes, seconds: float) -> StreamConnection | None:
    """Wait for the coordinator, and close the listener; None: it has not come in time."""
    loop = asyncio.get_running_loop()
    accepted: asyncio.Future[StreamConnection] = loop.create_future()

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = StreamConnection(reader, writer)
        is_used = False
        try:
            # OSError: it has closed the connection, or is silent
            with contextlib.suppress(OSError):
                is_used = await connection.greet(secret, is_agent=True) and not accepted.done()
            if is_used:
                accepted.set_result(connection)
        finally:
            if not is_used:
                connection.abort()

    server = await asyncio.start_server(greet, sock=listener, limit=LIMIT_BYTES)
    try:
        return await asyncio.wait_for(accepted, seconds)
    except TimeoutError:
        return None
    finally:
        server.close()
