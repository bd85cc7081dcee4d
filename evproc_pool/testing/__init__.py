"""Tools to test handlers, and applications that use a pool.

- `sabotage` kills workers, or lets another mishap happen to them, at a chosen point.
- `simulated_pool` runs a pool in one process, with a `ManualClock`. Each seed gives another order
  of events; the same seed gives the same order again.
- `assert_equal_outcomes` runs handlers with `evproc.Processor` and in pools, and compares.
- `Conformance` checks a backend of your own, or an executor: a class for pytest.
- `evproc_pool.testing.plugin` has the fixtures for pytest, which loads it by itself.

Importing this package imports none of them: pytest does it in every project.

May import: itself, `pool`, `worker`, `protocol`, `serialization`, `core`, `outcome`, `errors`,
`backends`, `evproc`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evproc_pool.testing.clock import ManualClock
    from evproc_pool.testing.comparing import assert_equal_outcomes
    from evproc_pool.testing.conformance import Conformance
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
    "Conformance",
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

# Imported at their first use.
_MODULES = {
    "Conformance": "conformance",
    "ManualClock": "clock",
    "assert_equal_outcomes": "comparing",
    "simulated_pool": "simulated",
}

if not TYPE_CHECKING:
    # with `__getattr__`, a type checker would accept any name of this module

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module = importlib.import_module(f"{__name__}.{_MODULES.get(name, 'mishaps')}")
        found = globals()[name] = getattr(module, name)
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
