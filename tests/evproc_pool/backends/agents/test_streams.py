"""Connections by sockets: nobody without the secret gets through."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest

from evproc_pool.backends.agents.links import ConnectionEndedError
from evproc_pool.backends.agents.streams import StreamConnection, accept, connect, new_secret
from tests.support.helpers import PATIENCE_SECONDS

_Check = Callable[[StreamConnection, StreamConnection], Awaitable[None]]


def _listener() -> tuple[socket.socket, int]:
    listener = socket.create_server(("127.0.0.1", 0))
    return listener, listener.getsockname()[1]


async def _with_both_ends(check: _Check) -> None:
    listener, port = _listener()
    secret = new_secret()
    accepting = asyncio.create_task(accept(listener, secret, PATIENCE_SECONDS))
    coordinator = await connect("127.0.0.1", port, secret)
    agent = await accepting
    assert agent is not None
    try:
        await check(coordinator, agent)
    finally:
        coordinator.abort()
        agent.abort()
        await asyncio.sleep(0)


def _run(check: _Check) -> None:
    asyncio.run(_with_both_ends(check))


def test_messages_of_any_size_cross_both_ways() -> None:
    async def check(coordinator: StreamConnection, agent: StreamConnection) -> None:
        for size in (0, 1, 1 << 22):
            data = b"x" * size
            for here, there in ((coordinator, agent), (agent, coordinator)):
                _, arrived = await asyncio.gather(here.write(data), there.read())
                assert arrived == data

    _run(check)


def test_the_end_of_the_other_side_is_an_os_error() -> None:
    async def check(coordinator: StreamConnection, agent: StreamConnection) -> None:
        agent.abort()
        with pytest.raises(OSError, match="closed"):
            await coordinator.read()

    _run(check)


def test_whoever_reads_hears_of_an_end_that_the_socket_does_not_tell() -> None:
    async def check(coordinator: StreamConnection, agent: StreamConnection) -> None:
        reading = asyncio.create_task(coordinator.read())
        await asyncio.sleep(0)
        coordinator.fail("the node is dead")
        with pytest.raises(ConnectionEndedError, match="the node is dead"):
            await reading

    _run(check)


def test_a_stranger_gets_nothing_and_is_in_nobodys_way() -> None:
    async def check() -> None:
        listener, port = _listener()
        secret = new_secret()
        accepting = asyncio.create_task(accept(listener, secret, PATIENCE_SECONDS))
        silent, writer = await asyncio.open_connection("127.0.0.1", port)
        with pytest.raises(OSError, match="closed"):
            await connect("127.0.0.1", port, new_secret())
        coordinator = await connect("127.0.0.1", port, secret)
        agent = await accepting
        assert agent is not None
        # all that it has said to the silent one is a number
        assert len(await silent.read(100)) == 32
        for each in (coordinator, agent, writer.transport):
            each.abort()
        await asyncio.sleep(0)

    asyncio.run(check())


def test_what_an_impostor_sends_back_is_no_proof() -> None:
    async def reflect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(32))  # the number that the coordinator has drawn
        writer.write(await reader.readexactly(32))  # its own proof
        writer.close()

    async def check() -> None:
        async with await asyncio.start_server(reflect, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(ConnectionRefusedError, match="something else answers"):
                await connect("127.0.0.1", port, new_secret())

    asyncio.run(check())


def test_an_agent_does_not_wait_for_ever() -> None:
    listener, _ = _listener()
    assert asyncio.run(accept(listener, new_secret(), 0.01)) is None
    listener.close()
