"""What leaves the rest of a chain of events unrun. Plain numbers, which cross to workers."""

from __future__ import annotations

from typing import Final

#: An event that gives a value to `StopProcessing`.
ENDS_BY_VALUE: Final = 1
#: One that fails.
ENDS_BY_ERROR: Final = 2
#: One that has follow-ups.
ENDS_BY_FOLLOW_UPS: Final = 4
