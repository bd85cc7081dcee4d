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
from typing import Any, Final

from distributed import WorkerPlugin
from distributed.core import Status

from evproc_pool.backends.agents.messages import Retiring, dump
from evproc_pool.backends.agents.relay import Relay, serve_agent

#: What `ask` answers.
READY: Final = "ready"
LEAVING: Final = "leaving"

# How long a worker that retires waits for its agents, in seconds. A coordinator that does not
# answer has no work here: nobody drives it.
_DRAIN_SECONDS: Final = 20.0
_SILENT_SECONDS: Final = 2.0


class AgentPlugin(WorkerPlugin):  # type: ignore[misc]  # distributed is not typed here
    """Lets a coordinator connect to agents on a worker of Dask.

    Each pool registers one of its own, under its own `name`, so that pools do not share anything.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._relays: set[Relay] = set()
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

    async def _drain(self, relay: Relay) -> None:
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
        begun: list[Relay] = []

        def begin(relay: Relay) -> None:
            begun.append(relay)
            self._relays.add(relay)

        try:
            # what `upload_file` has added, too
            await serve_agent(comm, setup, sys.path, begin)
        finally:
            self._relays.difference_update(begun)
        return Status.dont_reply
