"""What a worker process shares with the coordinator besides its channel."""

from __future__ import annotations

from typing import NamedTuple

from evproc_pool.ipc.parent_death import ParentWatch
from evproc_pool.ipc.shared_memory import SharedMemory
from evproc_pool.ipc.stack_dumps import StackDumpFile
from evproc_pool.ipc.status_memory import StatusMemory


class WorkerResources(NamedTuple):
    """What a worker process has in common with the coordinator, besides its channel.

    Attributes:
        words: Where it says what it is doing.
        stacks: Where its stacks go when it crashes.
        parent_watch: Ends it when the coordinator is gone.
        region: Memory for what is large.
    """

    words: StatusMemory | None = None
    stacks: StackDumpFile | None = None
    parent_watch: ParentWatch | None = None
    region: SharedMemory | None = None
