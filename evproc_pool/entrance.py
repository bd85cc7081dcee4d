"""What a worker process is told to call, and what with.

By itself, since the coordinator imports it, which need not import the worker.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import NamedTuple

from evproc_pool.lifeline import Lifeline
from evproc_pool.progress import ProgressWords
from evproc_pool.region import Region
from evproc_pool.stacks import StackFile


class Shares(NamedTuple):
    """What a worker process has in common with the coordinator, besides its channel.

    Attributes:
        words: Where it says what it is doing.
        stacks: Where its stacks go when it crashes.
        lifeline: Ends it when the coordinator is gone.
        region: Memory for what is large.
    """

    words: ProgressWords | None = None
    stacks: StackFile | None = None
    lifeline: Lifeline | None = None
    region: Region | None = None


def enter(sock: socket.socket, shares: Shares, to_close: Sequence[int]) -> None:
    """Be a worker; see `worker.main`."""
    from evproc_pool.worker import main

    main(sock, shares, to_close)
