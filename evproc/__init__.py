"""EvProc: a framework for complex event processors.

Handlers declare which events they want and which other handlers they depend
on; a `Processor` runs them in an order that follows from these declarations.

Importing this package imports nothing heavy: entry-point discovery, logging
and everything of ``evproc_pool`` load when they are first used.
"""

from evproc.decorator import required_by, requires, want
from evproc.event import Event
from evproc.exc import (
    EntryPointConflictException,
    EntryPointException,
    EntryPointGroupException,
    EntryPointLoadException,
    EntryPointTypeException,
    EventException,
    HandlerReturnException,
    IncompatibleRequirementsException,
    ProcessorReregisterException,
    StopProcessing,
)
from evproc.processor import Processor
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
    "HandlerReturnException",
    "IncompatibleRequirementsException",
    "Processor",
    "ProcessorReregisterException",
    "StopProcessing",
    "required_by",
    "requires",
    "want",
]
