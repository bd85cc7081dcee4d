"""A multiprocess worker pool for ``evproc``: the same handlers, on all cores.

Begin with `pool`, which has `PoolProcessor`. All that users import stands here; the packages
below are the engine. ``tests/test_architecture.py`` has the table of allowed imports.

Attributes:
    __version__: See `evproc.__version__`; both packages are of one distribution.

PYTEST_DONT_REWRITE: else a program that has imported this package, and then calls `pytest.main`,
would get a warning, since the distribution has a plugin for pytest.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

try:
    import evproc
except ImportError as error:
    from evproc_pool.installation import explain

    explain(error)
    raise
from evproc_pool.errors import (
    CascadeLimitError,
    EventTimeoutError,
    PoolBrokenError,
    PoolBusyError,
    PoolClosedError,
    PoolError,
    PoolForkedError,
    PoolInterruptedError,
    RegistryMismatchError,
    RemoteError,
    RemoteTraceback,
    SerializationError,
    SoftTimeoutError,
    WorkerLostError,
)

if not hasattr(evproc, "UnmatchedEventException"):
    from evproc_pool.installation import broken_installation

    raise broken_installation(evproc.__file__)

if TYPE_CHECKING:
    from evproc_pool.executor import PoolExecutor
    from evproc_pool.outcome import Outcome
    from evproc_pool.pool import PoolProcessor

    __version__: str

__all__ = [
    "CascadeLimitError",
    "EventTimeoutError",
    "Outcome",
    "PoolBrokenError",
    "PoolBusyError",
    "PoolClosedError",
    "PoolError",
    "PoolExecutor",
    "PoolForkedError",
    "PoolInterruptedError",
    "PoolProcessor",
    "RegistryMismatchError",
    "RemoteError",
    "RemoteTraceback",
    "SerializationError",
    "SoftTimeoutError",
    "WorkerLostError",
]

# Imported at their first use: workers need none of them, and few programs need all.
_LATER = {"Outcome": "outcome", "PoolExecutor": "executor", "PoolProcessor": "pool"}

if not TYPE_CHECKING:
    # with `__getattr__`, a type checker would accept any name of this module

    def __getattr__(name: str) -> object:
        if name == "__version__":
            from evproc.version import installed_version

            found: object = installed_version()
        elif name in _LATER:
            found = getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
        elif name in _LATER.values():
            return importlib.import_module(f"{__name__}.{name}")
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = found
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__, "__version__"})
