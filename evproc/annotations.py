"""The types of what users hand in; for type checkers, and for those who ask for them.

By itself, and imported by no other module when it runs: `typing` takes as long to import
as all of evproc.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal

from evproc.event import Event
from evproc.exc import EntryPointException

#: A handler: called with the Processor and the Event, it returns follow-ups or None.
HandlerFunc = Callable[[Any, Any], "Iterable[Event] | None"]

#: A filter: called with the event, true if the handler may want it.
Filter = Callable[[Any], object]

#: What to do about an entry point that cannot become a handler.
OnError = Literal["raise", "skip"] | Callable[[EntryPointException], object]

#: What happens to an event that no handler wants.
Unmatched = Literal["ignore", "error"]
