"""The results of `Processor.check` and `Processor.explain`: frozen, printable.

Imported when they are first used. They are named tuples, because `dataclasses` takes longer to
import than all of evproc.
"""

from __future__ import annotations

from typing import NamedTuple


class Absence(NamedTuple):
    """A `@required_by` that names a handler which is not registered; no error.

    Attributes:
        handler: The handler that has the declaration.
        absent: The name that is not registered.
    """

    handler: str
    absent: str

    def __str__(self) -> str:
        return f"{self.handler!r} is required by {self.absent!r}, which is not registered"


class Conflict(NamedTuple):
    """An event name that is sure to fail: its handlers cannot be ordered.

    Attributes:
        event: The event's name, or None for every name that no `@want` mentions.
        reason: The error that `Processor.process` raises for such an event.
    """

    event: str | None
    reason: str

    def __str__(self) -> str:
        which = "any other event" if self.event is None else f"event {self.event!r}"
        return f"{which}: {self.reason}"


class CheckReport(NamedTuple):
    """The findings of `Processor.check` that are no errors in themselves.

    Attributes:
        handlers: The number of registered handlers.
        absences: The `@required_by` declarations that name no registered handler.
        conflicts: The event names for which `process` would raise
            `IncompatibleRequirementsException`, whatever the event holds.
    """

    handlers: int
    absences: tuple[Absence, ...] = ()
    conflicts: tuple[Conflict, ...] = ()

    def __str__(self) -> str:
        lines = [f"{self.handlers} handlers, no cycle, no requirement missing"]
        lines += [f"absent: {absence}" for absence in self.absences]
        lines += [f"conflict: {conflict}" for conflict in self.conflicts]
        return "\n".join(lines)


class HandlerExplanation(NamedTuple):
    """Why one handler runs for an event, or does not.

    Attributes:
        name: The handler's name.
        matches: Whether the handler wants the event.
        reason: Which `@want` decided, in words.
        position: Its place in the order, from 0; None if it does not run.
    """

    name: str
    matches: bool
    reason: str
    position: int | None = None

    def __str__(self) -> str:
        place = "-" if self.position is None else str(self.position + 1)
        return f"{place:>3} {self.name}: {self.reason}"


class Explanation(NamedTuple):
    """Which handlers match an event, why, and in which order they run.

    Attributes:
        event: The event's name, class and repr.
        handlers: One entry per registered handler: first those that run, in
            order, then the others in registration order.
        error: The exception that `Processor.process` would raise before the first handler
            runs, or None. With an error no handler has a position.
    """

    event: str
    handlers: tuple[HandlerExplanation, ...]
    error: Exception | None = None

    @property
    def order(self) -> tuple[str, ...]:
        """The names of the handlers that run, in order."""
        return tuple(entry.name for entry in self.handlers if entry.position is not None)

    def __str__(self) -> str:
        lines = [f"event {self.event}"]
        if self.error is not None:
            lines.append(f"    error: {self.error}")
        return "\n".join([*lines, *map(str, self.handlers)])
