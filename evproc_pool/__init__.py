"""A multiprocess worker pool for ``evproc``: the same handlers, on all cores."""

from evproc_pool.errors import (
    EventTimeoutError,
    PoolBrokenError,
    PoolBusyError,
    PoolClosedError,
    PoolError,
    PoolForkedError,
    RegistryMismatchError,
    RemoteError,
    RemoteTraceback,
    SerializationError,
    WorkerLostError,
)
from evproc_pool.outcome import Outcome
from evproc_pool.pool import PoolProcessor

__all__ = [
    "EventTimeoutError",
    "Outcome",
    "PoolBrokenError",
    "PoolBusyError",
    "PoolClosedError",
    "PoolError",
    "PoolForkedError",
    "PoolProcessor",
    "RegistryMismatchError",
    "RemoteError",
    "RemoteTraceback",
    "SerializationError",
    "WorkerLostError",
]
