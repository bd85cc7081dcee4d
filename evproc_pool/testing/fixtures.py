"""The work of the fixtures of `plugin`. A test that asks for one of them imports this module."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Final, Self

from evproc_pool.backends.local.cpu_count import usable_cpus
from evproc_pool.pool import PoolProcessor
from evproc_pool.testing.comparing import FEW, compare
from evproc_pool.testing.set_up import SetUp, checked, register_handlers

# How long a pool may take to finish what was submitted.
_CLOSE_SECONDS: Final = 10.0


def default_workers() -> int:
    """Return 2; beside pytest-xdist 1, if its processes would have more workers than CPUs."""
    tests = os.environ.get("PYTEST_XDIST_WORKER_COUNT", "")
    share = usable_cpus() // int(tests) if tests.isdecimal() and int(tests) > 1 else FEW
    return max(1, min(FEW, share))


def _workers(asked: int, given: int | None) -> int:
    """Return how many workers a pool has: what the test gives, unless none are asked for."""
    return asked if given is None or asked == 0 else given


class PoolMaker:
    """Makes pools, and closes them at the end of a `with` block.

    Args:
        workers: The number of workers of a pool that is given none; 0: of all pools.
    """

    def __init__(self, workers: int) -> None:
        self._number = workers
        self._closing = ExitStack()
        self._made: list[PoolProcessor] = []

    def __call__(
        self, set_up: SetUp = (), *, workers: int | None = None, **options: Any
    ) -> PoolProcessor:
        """Make a pool and register its handlers; see `set_up` and `PoolProcessor`."""
        set_up = checked(set_up)
        pool = PoolProcessor(_workers(self._number, workers), **options)
        self._made.append(pool)
        self._closing.callback(pool.close, timeout=_CLOSE_SECONDS)
        register_handlers(pool, set_up)
        return pool

    def terminate(self) -> None:
        """Kill the workers of all pools."""
        for pool in self._made:
            pool.terminate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()


def comparison(evproc_workers: int, skip: Callable[[str], object]) -> Callable[..., None]:
    """Return `assert_equal_outcomes` with a number of processes; `skip` ends a test."""

    def assert_equal_outcomes(
        set_up: SetUp, events: Any, *, workers: int | None = None, **others: Any
    ) -> None:
        __tracebackhide__ = True  # pytest shows the caller's line
        # simulated pools do not depend on the option: their seeds are for every run
        simulated = workers or FEW
        if "seeds" in others and evproc_workers == 0:
            others["seeds"] = list(others["seeds"])
            if not others["seeds"]:
                skip("nothing is compared: no workers are asked for, and there are no seeds")
        compare(set_up, events, _workers(evproc_workers, workers), simulated, **others)

    return assert_equal_outcomes
