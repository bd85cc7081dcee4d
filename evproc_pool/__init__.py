"""A multiprocess worker pool for ``evproc``: the same handlers, on all cores."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from evproc_pool.outcome import Outcome
    from evproc_pool.pool import PoolProcessor

__all__ = [
    "CascadeLimitError",
    "EventTimeoutError",
    "Outcome",
    "PoolBrokenError",
    "PoolBusyError",
    "PoolClosedError",
    "PoolError",
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

# Imported when they are asked for: no worker needs the one, and few programs the other.
_LATER = {"Outcome": "outcome", "PoolProcessor": "pool"}

if not TYPE_CHECKING:
    # a type checker would take any name for one of this module's

    def __getattr__(name: str) -> object:
        if name in _LATER.values():
            return importlib.import_module(f"{__name__}.{name}")
        if name not in _LATER:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
        globals()[name] = found
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
