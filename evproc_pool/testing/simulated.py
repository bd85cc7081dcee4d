"""A pool whose workers are threads of this process, and whose every step a seed decides."""

from __future__ import annotations

import random
from typing import Any, Final

from evproc_pool.pool import PoolProcessor
from evproc_pool.protocol.backend import Backend
from evproc_pool.protocol.limits import Limits
from evproc_pool.testing.backend import FakeBackend
from evproc_pool.testing.clock import ManualClock

#: Arguments that concern processes; a simulated pool has none.
OF_PROCESSES: Final = (
    "executor",
    "mp_context",
    "preload",
    "native_threads",
    "max_worker_memory_bytes",
    "event_soft_timeout",
    "worker_logging",
    "worker_output",
)


class _SimulatedPool(PoolProcessor):
    def __init__(self, workers: int, seed: int, clock: ManualClock, options: dict[str, Any]):
        super().__init__(workers, **options)
        self._seed = seed
        rng = random.Random(seed)  # noqa: S311 - it has to be predictable
        self._owner.clock, self._owner.rng = clock, rng
        self._owner.starter = _FakeStarter(workers, clock, rng, self._options.limits)

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]} simulated seed={self._seed}>"


class _FakeStarter:
    """Makes a `FakeBackend` for each engine; see `engines.Starter`."""

    prefetch: int | None = None
    is_elsewhere = False

    def __init__(
        self, workers: int, clock: ManualClock, rng: random.Random, limits: Limits
    ) -> None:
        self.workers = workers
        self._clock = clock
        self._rng = rng
        self._limits = limits

    def begin(self, functions: list[Any]) -> None:
        """Do nothing: no process has to start."""

    def make_backend(self, functions: list[Any]) -> Backend:  # noqa: ARG002 - all threads have them
        """See `engines.Starter`."""
        return FakeBackend(self._clock, self._rng, self._limits)


def simulated_pool(
    workers: int = 4, *, seed: int = 0, clock: ManualClock | None = None, **options: Any
) -> PoolProcessor:
    """Make a pool that runs in this process: no worker processes, no waiting, a seed for chance.

    The engine, the workers' loop and pickling are the real ones. So a handler works on a copy of
    the event, and a handler that lives in ``__main__`` or in a function is a copy itself. But
    workers are threads, of which one runs at a time. The seed decides which one runs, for how
    long, how long that takes by the clock, how events are grouped into batches, and in which
    order results arrive. Another seed gives another order of events; the same seed gives the same
    order again, for one thread that uses `process`, `process_many` and `stream` (`submit` has a
    thread of its own).

    The clock goes on with the work. It jumps to the end of a wait: the pauses of retries,
    `event_timeout`. `sabotage` strikes here, too: `kill` and the like end the thread. Anything
    else that ends a process (`os._exit`, a real crash) ends this one, and an endless loop is
    endless.

    Args:
        workers: How many, at least 1.
        seed: Decides all that is left to chance.
        clock: The clock of the pool; by default a new one.
        options: Other options of `PoolProcessor`, except those that concern processes:
            `executor`, `mp_context`, `preload`, `native_threads`, `max_worker_memory_bytes`,
            `event_soft_timeout`, `worker_logging`, `worker_output`. The `initializer` is called in
            this process, for each worker.

    Raises:
        TypeError: An argument of the wrong type, or an unknown one.
        ValueError: An invalid number.
    """
    for name in OF_PROCESSES:
        if name in options:
            raise TypeError(f"{name}= is about processes, and a simulated pool has none")
    if isinstance(workers, bool) or not isinstance(workers, int):
        raise TypeError(f"workers is a whole number, not {workers!r}")
    if workers < 1:
        raise ValueError(f"workers must be at least 1, and is {workers}")
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"seed is a whole number, not {seed!r}")
    if not (clock is None or isinstance(clock, ManualClock)):
        raise TypeError(f"clock is a ManualClock or None, not {clock!r}")
    return _SimulatedPool(workers, seed, clock or ManualClock(), options)
