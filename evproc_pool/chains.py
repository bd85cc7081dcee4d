"""What leaves the rest of a chain of events unrun. Plain numbers, which cross to workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from evproc_pool.schedule import Opened

#: An event that gives a value to `StopProcessing`.
ENDS_BY_VALUE: Final = 1
#: One that fails.
ENDS_BY_ERROR: Final = 2
#: One that has follow-ups.
ENDS_BY_FOLLOW_UPS: Final = 4


def chain_ends(opened: Opened, *, has_retries: bool) -> tuple[int, int]:
    """What does that among the events of a cascade, and among the roots of a key.

    A failed event may have to be run again before the others. Of a cascade, and of a run that
    ends with the first error, nothing behind it is to be run at all. And what a root of a key
    leaves to be run comes before the next root.
    """
    ends, key_ends = ENDS_BY_VALUE, ENDS_BY_FOLLOW_UPS
    if has_retries or not opened.errors_continue:
        ends |= ENDS_BY_ERROR
    if has_retries or opened.until_error:
        key_ends |= ENDS_BY_ERROR
    return ends, key_ends
