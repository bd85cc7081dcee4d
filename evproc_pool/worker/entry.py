"""The function that a new worker process calls.

A module of its own: the coordinator imports it, but must not import the worker.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence

from evproc_pool.ipc.resources import WorkerResources


def enter(sock: socket.socket, shares: WorkerResources, to_close: Sequence[int]) -> None:
    """Run a worker; see `main.main`."""
    from evproc_pool.worker.main import main

    main(sock, shares, to_close)
