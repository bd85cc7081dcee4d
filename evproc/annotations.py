"""The types of arguments, for type checkers.

A module of its own, which no other one imports when it runs: `typing` takes as long to import as
all of evproc.
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

#: How `load_from` treats an entry point that cannot become a handler.
OnError = Literal["raise", "skip"] | Callable[[EntryPointException], object]

#: How a processor treats an event that no handler wants.
Unmatched = Literal["ignore", "error"]
