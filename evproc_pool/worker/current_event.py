"""Finds which handler is running, and for which event, for the output of a worker.

The loop pays nothing for it: the handler is in the status word that it publishes in any case, and
the event is in the frame of the loop, which is looked up once per event that logs.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from types import CodeType
from typing import Any, Final

from evproc.event import describe_event
from evproc.handler import Handler
from evproc_pool.internals.cpython import frame_of
from evproc_pool.protocol import status_words

_CODES: Final = (1 << status_words.HANDLER_BITS) - 1

# From 3.13 on `f_locals` is no copy, which would keep the event alive (PEP 667).
_HAS_COPIES: Final = sys.version_info < (3, 13)


class CurrentEvent:
    """The event that the worker's loop is at, for any thread.

    Args:
        words: The status words.
        loop: The function that calls handlers; see `SoftTimeout`.
    """

    def __init__(self, words: Any, loop: CodeType) -> None:
        self._words = words
        self._loop = loop
        self._text = ""  # of the event at `_key`
        self._key = (0, 0)
        self._describing = 0  # the thread that is in a `repr`, which may log
        #: In registration order.
        self.handlers: Sequence[Handler] = ()

    @property
    def handler(self) -> str | None:
        """The name of the handler that is running, or None."""
        place: int = self._words[status_words.PLACE]
        index = (place & _CODES) - 1
        if place < 0 or not 0 <= index < len(self.handlers):
            return None
        return self.handlers[index].name

    @property
    def text(self) -> str | None:
        """The event in words, as errors name it; None: unknown."""
        key = self._words[status_words.BATCH], self._words[status_words.PLACE] & ~_CODES
        if key != self._key:
            me = threading.get_ident()
            if self._describing == me:
                return None
            self._describing = me
            try:
                ev = self._find()
                text = "" if ev is None else describe_event(ev)
            finally:
                self._describing = 0
            self._key, self._text = key, text
        return self._text or None

    def _find(self) -> object:
        """Return the event in the frame of the loop, or None."""
        frame = frame_of(threading.main_thread().ident or 0)  # there it runs
        while frame is not None and frame.f_code is not self._loop:
            frame = frame.f_back
        if frame is None:
            return None
        found = frame.f_locals
        ev = found.get("ev")
        if _HAS_COPIES:
            found.clear()
        return ev
