"""The part of the connection by Ray that runs on its nodes: an actor for each; see `ray`.

Imported by Ray, in the actor's process, so evproc-pool must be installed there.

**What it takes there.** No CPU of those that Ray counts: actors and tasks of other users run as
ever, beside the processes of the agent, on the same CPUs. So a pool can be used in a task that has
the last CPU, and several pools at once. The actor itself waits, and copies messages.

The process of a Ray worker has things that an agent's must not have: folders of Ray's own modules
in `sys.path`, with a copy of psutil, and a debugger in PYTHONBREAKPOINT that only works there.
Checked with ray 2.60.0; ``tests/evproc_pool/backends/agents/test_ray.py`` fails if it changes.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from pathlib import Path
from typing import Final

from evproc_pool.backends.agents.relay import serve_agent
from evproc_pool.backends.agents.streams import accept

# How long to wait for the coordinator, in seconds.
_ACCEPT_SECONDS: Final = 60.0


class EvprocAgent:
    """One agent of one pool. Ray makes it on a node, and ends it with the pool's program.

    Args:
        secret: What the coordinator and this share.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._listener: socket.socket | None = None

    def listen(self, host: str) -> int:
        """Return the port to connect to, on an address of this node."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, 0), family=family)
        return int(self._listener.getsockname()[1])

    def serve(self, setup: bytes) -> None:
        """Be the agent, until one of both sides ends."""
        if self._listener is not None:
            asyncio.run(_serve(self._listener, self._secret, setup))


async def _serve(listener: socket.socket, secret: bytes, setup: bytes) -> None:
    connection = await accept(listener, secret, _ACCEPT_SECONDS)
    if connection is not None:
        await serve_agent(connection, setup, _path(), environment=_environment())


def _path() -> list[str]:
    """This process's `sys.path` without the folders in Ray's package."""
    import ray

    folder = Path(ray.__file__).parent
    return [each for each in sys.path if folder not in Path(each).parents]


def _environment() -> dict[str, str]:
    """The environment variables of this process without Ray's debugger."""
    environment = dict(os.environ)
    if environment.get("PYTHONBREAKPOINT", "").startswith("ray."):
        del environment["PYTHONBREAKPOINT"]
    return environment
