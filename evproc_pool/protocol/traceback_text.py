"""Tracebacks as text, fast for errors that come from the same places again.

The text is that of `traceback.format_exception`. Most of its time goes into the text of a frame:
Python parses the source line to mark what failed. This text depends only on the code and the
instruction, so it is cached.
"""

from __future__ import annotations

import traceback
from types import CodeType, TracebackType
from typing import Final

# How many places to remember: more than a program fails in.
_MOST_PLACES: Final = 1024

# More frames may be a recursion, which Python shortens.
_MOST_FRAMES: Final = 50

_places: dict[tuple[CodeType, int], str] = {}


def traceback_text(error: BaseException) -> str:
    """The text that Python prints for an exception. Raises what user code in it raises."""
    trace = error.__traceback__
    is_chained = error.__cause__ is not None or error.__context__ is not None
    frames: list[str] = []
    if not is_chained and not isinstance(error, BaseExceptionGroup):
        while trace is not None:
            frames.append(_frame_text(trace))
            trace = trace.tb_next
    if not 0 < len(frames) <= _MOST_FRAMES:
        return "".join(traceback.format_exception(error))
    last = traceback.format_exception_only(error)
    return "".join(("Traceback (most recent call last):\n", *frames, *last))


def _frame_text(trace: TracebackType) -> str:
    key = trace.tb_frame.f_code, trace.tb_lasti
    text = _places.get(key)
    if text is None:
        if len(_places) >= _MOST_PLACES:
            _places.clear()
        text = _places[key] = "".join(traceback.format_tb(trace, limit=1))
    return text
