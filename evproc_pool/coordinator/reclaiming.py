"""Takes an event back from a worker that has not begun it, for the `cancel` of its future."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from evproc_pool.coordinator.engine import Engine
from evproc_pool.coordinator.pool_future import PoolFuture
from evproc_pool.coordinator.run_handle import RunHandle

# For how long `cancel` waits for an event that a worker has not begun, if the driver does something
# else; how often it looks where the worker is; and how often that may have moved on until then:
# a worker with quick events begins the event soon.
_RECLAIM_SECONDS: Final = 0.5

_LOOK_SECONDS: Final = 0.005

_MOST_MOVES: Final = 2


def reclaim(
    engine: Engine, run: RunHandle, future: PoolFuture, hurry: Callable[[], object]
) -> bool:
    """Return whether the event never runs; `hurry` has the thread of the futures drive."""
    root = future.root
    at = None if future.may_have_run else engine.place_before(run, root)
    if at is None:
        return False
    moves = 0
    deadline = time.monotonic() + _RECLAIM_SECONDS
    future.is_unwanted = True
    try:
        engine.reclaim(run, root, is_wanted=True)
        hurry()
        while not future.is_over_within(_LOOK_SECONDS):
            before, at = at, engine.place_before(run, root)
            moves += at != before
            if at is None or moves > _MOST_MOVES or time.monotonic() > deadline:
                break
    finally:
        future.is_unwanted = False
        engine.reclaim(run, root, is_wanted=False)
    return future.cancel_unsent()
