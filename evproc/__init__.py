"""EvProc: a framework for complex event processors.

Handlers declare which events they want and which other handlers they depend
on; a `Processor` runs them in an order that follows from these declarations.

Importing this package imports nothing heavy. Entry-point discovery, reports, types, logging
and everything of ``evproc_pool`` load when they are first used.

Attributes:
    __version__: The version of the installed distribution ``evproc-pool``; "0+unknown" if the
        package was never installed.

PYTEST_DONT_REWRITE: else a program that has imported this package, and then calls `pytest.main`,
would get a warning, since the distribution has a plugin for pytest.
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
    from evproc.any_processor import AnyProcessor
    from evproc.report import Absence, CheckReport, Conflict, Explanation, HandlerExplanation

    __version__: str

__all__ = [
    "Absence",
    "AnyProcessor",
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

# Names that are imported at their first use, and the module of each.
_LATER = {
    "Absence": "report",
    "AnyProcessor": "any_processor",
    "CheckReport": "report",
    "Conflict": "report",
    "Explanation": "report",
    "HandlerExplanation": "report",
}

if not TYPE_CHECKING:  # pragma: no branch
    # with `__getattr__`, a type checker would accept any name of this module

    def __getattr__(name: str) -> object:
        if name == "__version__":
            from evproc.version import installed_version

            found: object = installed_version()
        elif name in _LATER:
            found = getattr(_module(_LATER[name]), name)
        elif name in _LATER.values():
            return _module(name)
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = found
        return found

    def _module(name: str) -> object:
        import importlib

        return importlib.import_module(f"{__name__}.{name}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__, "__version__"})
