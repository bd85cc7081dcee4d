"""A pool whose workers are threads of this process, and whose every move is a seed's."""

from __future__ import annotations

import random
from typing import Any, Final

from evproc_pool.pool import PoolProcessor
from evproc_pool.protocol.backend import Backend
from evproc_pool.protocol.limits import Limits
from evproc_pool.testing.backend import FakeBackend
from evproc_pool.testing.clock import ManualClock

#: Arguments that are about processes, of which a simulated pool has none.
OF_PROCESSES: Final = ("mp_context", "preload", "max_worker_memory_bytes", "event_soft_timeout")


class _SimulatedPool(PoolProcessor):
    def __init__(self, workers: int, seed: int, clock: ManualClock, options: dict[str, Any]):
        super().__init__(workers, **options)
        self._seed = seed
        rng = random.Random(seed)  # noqa: S311 - to be foreseen is its use
        self._owner.clock, self._owner.rng = clock, rng
        self._owner.starter = _FakeStarter(clock, rng, self._options.limits)

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]} simulated seed={self._seed}>"


class _FakeStarter:
    """Makes a `FakeBackend` for each engine; see `starting.Starter`."""

    def __init__(self, clock: ManualClock, rng: random.Random, limits: Limits) -> None:
        self._clock = clock
        self._rng = rng
        self._limits = limits

    def begin(self, functions: list[Any]) -> None:
        """Do nothing: no process has to start."""

    def make_backend(self, functions: list[Any]) -> Backend:  # noqa: ARG002 - all threads have them
        """See `starting.Starter`."""
        return FakeBackend(self._clock, self._rng, self._limits)


def simulated_pool(
    workers: int = 4, *, seed: int = 0, clock: ManualClock | None = None, **options: Any
) -> PoolProcessor:
    """Make a pool that runs all in this process: no processes, no waiting, a seed for all chance.

    The engine is the real one, and so is the loop of the workers, and pickling: a handler
    works on a copy of the event, and one that lives in ``__main__`` or in a function is a
    copy itself. But workers are threads, of which one at a time runs. The seed decides which,
    for how long, what time that takes by the clock, how events are grouped into batches, and
    in which order results arrive. So another seed shows another order of events, and the
    same seed the same one again, for one thread that uses `process`, `process_many` and
    `stream` (`submit` has a thread of its own).

    The clock goes on with the work, and jumps to what is waited for: the pauses of
    retries, `event_timeout`. `sabotage` strikes here as well: `kill` and the like end the
    thread. What ends the process otherwise (`os._exit`, a real crash) ends it here, too; and
    an endless loop is endless.

    Args:
        workers: How many, at least 1.
        seed: Decides what is left to chance.
        clock: What time it is; by default a new one.
        options: Others of `PoolProcessor`, but for those that are about processes:
            `mp_context`, `preload`, `max_worker_memory_bytes`, `event_soft_timeout`. The
            `initializer` is called in this process, for each worker.

    Raises:
        TypeError: An argument of the wrong type, or one that there is none of.
        ValueError: A number that there is none of.
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
