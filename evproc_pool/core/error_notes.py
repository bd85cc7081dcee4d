"""Notes on errors that name the event of the input. Pure.

An event is named by its *path*: `(17,)` is root 17 of the input, `(17, 2, 0)` the first follow-up
of its third follow-up. Places count from 0, over all follow-ups of an event's handlers in order.
"""

from __future__ import annotations

from typing import Any, Final

from evproc.exc import add_note

_PREFIX: Final = "evproc_pool: "
_STARTS: Final = (f"{_PREFIX}event ", f"{_PREFIX}follow-up ")

# A longer path is cut in the middle.
_LONGEST_PATH: Final = 12
_PLACES_AT_END: Final = 3

_SIZED: Final[tuple[type, ...]] = (type(iter([])), type(iter(())))


def path_text(path: tuple[int, ...]) -> str:
    """Write a path as Python does; cut in the middle if it is long."""
    if len(path) <= _LONGEST_PATH:
        return repr(path)
    begin = ", ".join(map(str, path[: _LONGEST_PATH - _PLACES_AT_END]))
    end = ", ".join(map(str, path[-_PLACES_AT_END:]))
    return f"({begin}, ..., {end})"


def where_text(path: tuple[int, ...], *, has_several: bool) -> str:
    """Return which event of the input it was; empty for the only root of a call."""
    if len(path) == 1:
        return f"event {path[0]} of the input" if has_several else ""
    return f"follow-up {path_text(path)} of event {path[0]} of the input"


def place_note(path: tuple[int, ...]) -> str:
    """Return a note that names an event of the input."""
    return _PREFIX + where_text(path, has_several=True)


def note_place(error: BaseException, path: tuple[int, ...], *, has_several: bool) -> None:
    """Add a note to an error that names its event.

    An exception object that fails one event after another has one such note, for the latest. If
    the call does not have several roots, only a follow-up is named.
    """
    if not has_several and len(path) == 1:
        return
    notes = getattr(error, "__notes__", None)
    # only the last note: one before may come from a pool in the handler
    if isinstance(notes, list) and notes and str(notes[-1]).startswith(_STARTS):
        del notes[-1]
    add_note(error, place_note(path))


def has_several(events: Any) -> bool:
    """Whether an iterator may give several events; False only if it certainly does not."""
    return type(events) not in _SIZED or events.__length_hint__() > 1
