"""Tools to test handlers, and applications that use a pool.

- `sabotage` kills workers, or lets another mishap happen to them, at a chosen point.
- `simulated_pool` runs a pool in one process, with a `ManualClock`. Each seed gives another order
  of events; the same seed gives the same order again.
- `assert_equal_outcomes` runs handlers with `evproc.Processor` and in pools, and compares.
- `evproc_pool.testing.plugin` has a fixture for pytest.

May import: itself, `pool`, `worker`, `protocol`, `serialization`, `core`, `outcome`, `errors`,
`evproc`.
"""

from evproc_pool.testing.clock import ManualClock
from evproc_pool.testing.comparing import assert_equal_outcomes
from evproc_pool.testing.mishaps import (
    Mishap,
    abort,
    exit_process,
    hang,
    kill,
    sabotage,
    segfault,
    worker_pids,
)
from evproc_pool.testing.simulated import simulated_pool

__all__ = [
    "ManualClock",
    "Mishap",
    "abort",
    "assert_equal_outcomes",
    "exit_process",
    "hang",
    "kill",
    "sabotage",
    "segfault",
    "simulated_pool",
    "worker_pids",
]
