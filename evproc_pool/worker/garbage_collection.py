"""Garbage collection in a worker: not because of the events of a batch.

These are made at once, by the thousand, and all of them live until the batch is over, as
what they leave behind does: a collection that they cause goes through them and finds
nothing.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from typing import Final

# What an event may leave behind, in objects: a follow-up with a few in it.
_LEFT_BEHIND: Final = 4


class Allowance:
    """So many objects more than usual that may be made before there is a collection.

    Changes the thresholds of the process; those that a handler sets meanwhile stay.
    """

    def __init__(self) -> None:
        self._usual: tuple[int, int, int] | None = None
        self._ours: tuple[int, int, int] | None = None

    def grant(self, events: int) -> None:
        """What was made since the last collection is to live until `withdraw`.

        Args:
            events: So many may leave something behind that lives as long.
        """
        first, second, third = gc.get_threshold()
        if first:  # else there is no collection anyway
            self._usual = first, second, third
            self._ours = first + gc.get_count()[0] + _LEFT_BEHIND * events, second, third
            gc.set_threshold(*self._ours)

    def withdraw(self) -> None:
        """Most of it is gone."""
        if self._usual is not None and gc.get_threshold() == self._ours:
            gc.set_threshold(*self._usual)
        self._usual = self._ours = None


@contextlib.contextmanager
def no_collection(allowance: Allowance | None = None, events: int = 0) -> Iterator[None]:
    """Put collection off while events are made; of threads of the user's in a worker, too.

    Args:
        allowance: Granted for what was made, before anything else is.
        events: How many events that is.
    """
    is_collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if allowance is not None:
            allowance.grant(events)
        if is_collecting:
            gc.enable()
