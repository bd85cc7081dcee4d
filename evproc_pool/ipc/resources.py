"""The resources that a worker process shares with the coordinator, besides its channel."""

from __future__ import annotations

from typing import NamedTuple

from evproc_pool.ipc.parent_death import ParentWatch
from evproc_pool.ipc.shared_memory import SharedMemory
from evproc_pool.ipc.stack_dumps import StackDumpFile
from evproc_pool.ipc.status_memory import StatusMemory


class WorkerResources(NamedTuple):
    """The resources of one worker; None if this platform lacks one.

    Attributes:
        words: The status words, in which the worker says what it is doing.
        stacks: Receives the worker's stacks when it crashes.
        parent_watch: Ends the worker when the coordinator is dead.
        shared_memory: Carries large messages.
    """

    words: StatusMemory | None = None
    stacks: StackDumpFile | None = None
    parent_watch: ParentWatch | None = None
    shared_memory: SharedMemory | None = None
