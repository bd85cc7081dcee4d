"""EvProc: a framework for complex event processors.

Handlers declare which events they want and which other handlers they depend
on; a `Processor` runs them in an order that follows from these declarations.

Importing this package imports nothing heavy: entry-point discovery, reports, logging
and everything of ``evproc_pool`` load when they are first used.
"""

from __future__ import annotations

from evproc.decorator import required_by, requires, want
from evproc.event import Event
from evproc.exc import (
    EntryPointConflictException,
    EntryPointException,
    EntryPointGroupException,
    EntryPointLoadException,
    EntryPointTypeException,
    EventException,
    HandlerNotRegisteredException,
    HandlerReturnException,
    IncompatibleRequirementsException,
    ProcessorReregisterException,
    StopProcessing,
    UnmatchedEventException,
)
from evproc.processor import Processor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from evproc.report import Absence, CheckReport, Conflict, Explanation, HandlerExplanation

__all__ = [
    "Absence",
    "CheckReport",
    "Conflict",
    "EntryPointConflictException",
    "EntryPointException",
    "EntryPointGroupException",
    "EntryPointLoadException",
    "EntryPointTypeException",
    "Event",
    "EventException",
    "Explanation",
    "HandlerExplanation",
    "HandlerNotRegisteredException",
    "HandlerReturnException",
    "IncompatibleRequirementsException",
    "Processor",
    "ProcessorReregisterException",
    "StopProcessing",
    "UnmatchedEventException",
    "required_by",
    "requires",
    "want",
]

if not TYPE_CHECKING:  # pragma: no branch
    # a type checker would take any name for one of this module's

    def __getattr__(name: str) -> object:
        if name not in (*__all__, "report"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        import evproc.report

        return getattr(evproc.report, name, evproc.report)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
