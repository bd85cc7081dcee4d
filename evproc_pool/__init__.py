"""A multiprocess worker pool for ``evproc``: the same handlers, on all cores."""

import logging

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
    SoftTimeoutError,
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
    "SoftTimeoutError",
    "WorkerLostError",
]

# An application that does not configure logging gets the errors, and nothing printed.
logging.getLogger(__name__).addHandler(logging.NullHandler())
