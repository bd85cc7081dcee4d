"""The exceptions of ``evproc``, and how a note is added to any exception.

Names that end in ``Exception`` are public names of evproc 0.2.0; newer ones keep the pattern.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final


class _Unset:
    """The type of one value, which pickle and copy keep identical, unlike `object()`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "<unset>"

    def __reduce__(self) -> str:
        return "_unset"  # the name by which it is found in this module


_unset: Final = _Unset()


class EventException(Exception):
    """Base class of all errors that ``evproc`` itself reports."""


class ProcessorReregisterException(EventException):
    """A name was registered a second time. The registry is unchanged."""


class HandlerNotRegisteredException(EventException, LookupError):
    """No handler has this name. The registry is unchanged."""


class UnmatchedEventException(EventException):
    """No handler wants an event; see `Processor`.

    Raised before any handler of the event runs.
    """


class IncompatibleRequirementsException(EventException):
    """The handlers cannot be ordered: a cycle, or a requirement that is not met.

    Raised before the first handler of the event runs.

    Attributes:
        problems: Each problem that `Processor.check` found; otherwise empty.
    """

    problems: tuple[str, ...] = ()


class HandlerReturnException(EventException, TypeError):
    """A handler returned neither None nor an iterable of events.

    It is also a `TypeError`, because 0.2.0 raised that in most cases.
    """


class EntryPointException(EventException):
    """Entry points could not become handlers. The registry is unchanged.

    Attributes:
        group: The entry-point group.
        entry_point: The entry point's name, or None if the error concerns the whole group.
    """

    def __init__(self, message: str, group: str = "", entry_point: str | None = None) -> None:
        super().__init__(message, group, entry_point)
        self.group = group
        self.entry_point = entry_point

    def __str__(self) -> str:
        return str(self.args[0])


class EntryPointGroupException(EntryPointException):
    """No installed distribution has an entry point in this group."""


class EntryPointLoadException(EntryPointException):
    """An entry point could not be imported; the cause is chained."""


class EntryPointTypeException(EntryPointException, TypeError):
    """An entry point names something that cannot be a handler."""


class EntryPointConflictException(EntryPointException, ProcessorReregisterException):
    """Two distributions claim one entry-point name in the same group."""


_STOP_ARGS = ("Stop processing",)


class StopProcessing(Exception):
    """Raised by a handler to stop the processing.

    `StopProcessing()` ends the current event: its remaining handlers do not
    run, queued events go on. `StopProcessing(retval)` ends the whole cascade:
    `Processor.process` returns `retval`, and queued events are dropped.
    `StopProcessing(None)` is of the second kind.

    Args:
        retval: What `Processor.process` returns.
    """

    # for a subclass whose constructor does not call this one
    if TYPE_CHECKING:
        retval: Any = _unset
    else:
        retval = _unset  # see `Event.ctxt`

    def __init__(self, retval: Any = _unset) -> None:
        if type(self) is StopProcessing:  # in less time than a call of the base's takes
            self.args = _STOP_ARGS
        else:
            super().__init__(*_STOP_ARGS)
        self.retval = retval

    def __repr__(self) -> str:
        value = "" if self.retval is _unset else repr(self.retval)
        return f"{type(self).__name__}({value})"

    def __reduce__(self) -> tuple[Any, ...]:
        # Not by __init__: it would take the message in `args` for the return value, and that
        # of a subclass may take other arguments.
        return _rebuild_stop, (type(self), self.args), self.__dict__


def _rebuild_stop(cls: type[StopProcessing], args: tuple[Any, ...]) -> StopProcessing:
    return cls.__new__(cls, *args)


def add_note(error: BaseException, text: str) -> None:
    """Add a line of context to an exception.

    The same text is added once only, so that an exception object that is raised repeatedly does
    not grow. Never raises: an exception that takes no note stays without.

    Args:
        error: The exception; its type and arguments stay as they are.
        text: One line.
    """
    try:
        notes = getattr(error, "__notes__", ())
        if text in notes:
            return
        error.add_note(text)
    except Exception:
        # the user's error matters more than our note
        return
