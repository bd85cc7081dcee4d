"""Hands log records and warnings of workers to the application's own logging.

The driver does it, when a frame arrives. So the records of an event have been handled before its
outcome is there, those of a worker come in their order, and those of a dead worker before its
death is reported. Handlers and filters of the application may be slow, which delays the run, as in
one process. They must not wait for the pool, as filters of events must not. What they raise is
printed, as `logging` does it, and does no harm.

Rejected: a thread of its own, or the time behind a turn (the outcome of an event would be there
before its records).
"""

from __future__ import annotations

import contextlib
import logging
import traceback
import warnings
from typing import Final

from evproc_pool.protocol import messages
from evproc_pool.protocol.backend import Arrived
from evproc_pool.protocol.frame import Data
from evproc_pool.protocol.log_records import load_record
from evproc_pool.protocol.shown_warnings import load_warning

_PRINTS_ERRORS: Final = logging.NullHandler()


# A worker's channel holds some 250 records. If so many come at once, it may be full.
_MANY: Final = 64

# Then the coordinator rests no longer than this, for some time, in seconds.
_BRIEF_REST_SECONDS: Final = 0.002
_BRIEF_FOR_SECONDS: Final = 1.0


class WorkerOutput:
    """Takes in frames of `messages.OUTPUT`."""

    def __init__(self) -> None:
        self._count = 0  # since the last rest
        self._brief_until = 0.0

    def hear(self, item: Arrived) -> bool:
        """Handle what a worker sent, if it is that; return whether it is."""
        is_output = item.tag in messages.OUTPUT
        if is_output:
            self.take(item.tag, item.payload)
        return is_output

    def take(self, tag: int, payload: Data) -> None:
        """Handle a frame. Raises no `Exception`."""
        self._count += 1
        record: logging.LogRecord | None = None
        try:
            if tag == messages.WARNED:
                warnings.showwarning(*load_warning(payload))
                return
            record = load_record(payload)
            logger = logging.getLogger(record.name)
            # a level may have been raised since the worker started
            if logger.isEnabledFor(record.levelno):
                logger.handle(record)
        except Exception:
            with contextlib.suppress(Exception):
                if record is not None:
                    _PRINTS_ERRORS.handleError(record)
                elif logging.raiseExceptions:
                    traceback.print_exc()

    def limit_rest(self, seconds: float, now: float) -> float:
        """Shorten a rest while workers log so much that they might have to wait for it."""
        if self._count >= _MANY:
            self._brief_until = now + _BRIEF_FOR_SECONDS
        self._count = 0
        return min(seconds, _BRIEF_REST_SECONDS) if now < self._brief_until else seconds
