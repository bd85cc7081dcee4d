"""The end of an engine, and of a call that was broken off."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evproc_pool.coordinator.engine import Engine
    from evproc_pool.coordinator.run_handle import RunHandle


def finish(engine: Engine) -> None:
    """End an engine whose pool is gone, or at the end of the program.

    Submitted events are finished first, unless Ctrl-C has ended the program.
    """
    try:
        # in an interactive session the interrupt may be long past
        is_interactive = hasattr(sys, "ps1")
        if is_interactive or getattr(sys, "last_type", None) is not KeyboardInterrupt:
            engine.finish_submitted()
    finally:
        engine.stop(most_seconds=0.0)


def stop(engine: Engine | None, *, most_seconds: float = inf) -> None:
    """End an engine, if there is one; see `Engine.stop`.

    Never call it with a pool's lock held. It waits for the driver, and the driver may run a
    callback that wants the lock, for a `submit`.
    """
    if engine is not None:
        engine.stop(most_seconds=most_seconds)


@contextlib.contextmanager
def stopped_after(seconds: float, engine: Engine) -> Iterator[None]:
    """End the engine if the block takes longer than that."""
    if seconds > threading.TIMEOUT_MAX:
        yield
        return
    # a thread: the one that drains may be in code of the user's, a filter or a callback
    timer = threading.Timer(seconds, engine.stop, kwargs={"most_seconds": 0.0})
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


def break_off(engine: Engine, run: RunHandle, error: BaseException) -> None:
    """Drop what a call has in flight, because an error ended the call."""
    if isinstance(error, KeyboardInterrupt):
        engine.interrupt(error)
    else:
        engine.close_run(run, drop=True)
