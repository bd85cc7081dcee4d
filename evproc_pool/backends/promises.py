"""What each backend promises, as data.

`testing.conformance` checks it, the README's table is made from it, and options that need a promise
are refused without it.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Promises(NamedTuple):
    """What holds on a backend, besides the outcomes, which are the same on each.

    Attributes:
        hang_limit: An event that hangs is noticed: `event_timeout`. The pool breaks then, unless
            it promises the next.
        hard_timeout: An event that hangs is ended, and the others go on.
        ends_handlers: A caller can have a handler ended that runs: `cancel_running`.
        attribution: A worker's death costs the event that was running, and the error names its
            handler. Nothing else runs twice.
        isolation: A worker's death costs that event alone. Others that ran may run again.
        memory_limit: A worker that has too much memory is replaced: `max_worker_memory_bytes`.
        restart: The pool goes on after a worker's death.
        large_buffers: Large buffers cross by shared memory.
        elasticity: Workers may come and go during a run.
        replaces_workers: The pool may replace workers: `max_tasks_per_child`.
        starts_processes: The pool starts the worker processes: `mp_context` and the like.
    """

    hang_limit: bool = False
    hard_timeout: bool = False
    ends_handlers: bool = False
    attribution: bool = False
    isolation: bool = False
    memory_limit: bool = False
    restart: bool = False
    large_buffers: bool = False
    elasticity: bool = False
    replaces_workers: bool = False
    starts_processes: bool = False


#: Worker processes on this machine.
LOCAL: Final = Promises(
    hang_limit=True,
    hard_timeout=True,
    ends_handlers=True,
    attribution=True,
    isolation=True,
    memory_limit=True,
    restart=True,
    large_buffers=True,
    replaces_workers=True,
    starts_processes=True,
)

#: Worker processes of agents on other nodes.
AGENTS: Final = Promises(
    hang_limit=True,
    hard_timeout=True,
    ends_handlers=True,
    attribution=True,
    isolation=True,
    memory_limit=True,
    restart=True,
    elasticity=True,
    replaces_workers=True,
    starts_processes=True,
)

#: `workers=0`.
IN_PROCESS: Final = Promises()

#: Plain calls of an executor that was given.
CALLS: Final = Promises(hang_limit=True)

#: Plain calls of executors that a factory makes.
CALLS_OF_FACTORY: Final = Promises(hang_limit=True, hard_timeout=True, isolation=True, restart=True)
