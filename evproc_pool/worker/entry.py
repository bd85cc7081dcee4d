"""What a worker process is told to call, and what with.

By itself, since the coordinator imports it, which need not import the worker.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence

from evproc_pool.ipc.resources import WorkerResources


def enter(sock: socket.socket, shares: WorkerResources, to_close: Sequence[int]) -> None:
    """Be a worker; see `loop.main`."""
    from evproc_pool.worker.loop import main

    main(sock, shares, to_close)
