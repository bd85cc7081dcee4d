"""The errors of ``evproc_pool``.

All of them can be pickled: the message by `args`, the rest with the attributes.

The traceback of an error holds the frames that it has passed, their callers, and the variables of
all of them. A frame that keeps the error, in a variable or in something that one refers to, is in
a cycle with it: only the garbage collector frees both, and the events of these frames.
`release_frames`, `again` and `serialization.basics.detached` avoid that.
"""

from __future__ import annotations

import contextlib
from typing import Any, Final, cast


class PoolError(Exception):
    """Base class of all errors that the pool itself reports."""


class PoolClosedError(PoolError, RuntimeError):
    """The pool was used after `close` or `terminate`. Make a new one."""


class PoolInterruptedError(PoolError, RuntimeError):
    """A thread that waited for the pool was interrupted, by Ctrl-C for example.

    Everything that was in flight was dropped. The pool can be used again.
    """


class PoolBusyError(PoolError, RuntimeError):
    """A method that needs an idle pool was called with events in flight.

    The pool is unchanged.
    """


class PoolBrokenError(PoolError, RuntimeError):
    """No worker can be started, or the executor broke; the cause is chained. The pool is closed.

    If it has too few file descriptors to begin, it stays open: the next call tries again. So it
    does if a call of an executor hangs, which cannot be ended.

    Attributes:
        hung_workers: The numbers of workers whose calls hang.
    """

    hung_workers: tuple[int, ...] = ()


class PoolForkedError(PoolError, RuntimeError):
    """The pool was used in a process that `os.fork` made. The workers belong to the parent."""


class RegistryMismatchError(PoolError):
    """A worker's registry differs from the coordinator's; the message says where."""


class SerializationError(PoolError, TypeError):
    """An event, a value or a follow-up cannot be pickled, or not be rebuilt.

    Only the cascade that it belongs to fails. If the worker dies at that moment, cascades whose
    follow-ups were packed together with it may fail likewise. An open file counts as an object
    that cannot be pickled.
    """


class WorkerLostError(PoolError):
    """A worker process died while it ran this event.

    The worker's other events go to another worker. A warning in the log `evproc_pool` says so.

    Some of the other events were over already. Such an event is run again only if it took less
    than two milliseconds, and its results (follow-ups, value or error), or those of an event before
    it, were not sent yet. These are about 8 ms' worth of events at most, in `process_many` about
    30 ms' worth. This holds for events with a key, too. But if the worker was sending the results
    of this event only, it counts as running.

    An event of two milliseconds or more counts as running until its results are sent. (A quick one
    does for less than a microsecond, until the next one begins.) It is run again only with
    `crash_limit`, or, with `event_timeout`, if it stood behind an event whose follow-ups hung in
    pickling.

    Attributes:
        event: The event's name and class.
        handler: The handler that was running, or None if it died between handlers.
        exitcode: The exit code; negative for the number of the signal that killed it.
            None if it is not known.
        attempt: The attempt that was lost, from 1.
        stack: The stacks of the worker's threads when it crashed (SIGSEGV and the like), as
            text; otherwise empty.
        memory_bytes: The worker's resident memory at the last check of the coordinator, which
            checks a few times a second; None if it did not.
    """

    def __init__(  # noqa: PLR0917 - all of them
        self,
        message: str,
        event: str = "",
        handler: str | None = None,
        exitcode: int | None = None,
        attempt: int = 1,
        stack: str = "",
        memory_bytes: int | None = None,
    ) -> None:
        super().__init__(message)
        self.event = event
        self.handler = handler
        self.exitcode = exitcode
        self.attempt = attempt
        self.stack = stack
        self.memory_bytes = memory_bytes


class EventTimeoutError(PoolError, TimeoutError):
    """An event took longer than `event_timeout`; its worker was killed.

    Attributes:
        event: The event's name and class.
        handler: The handler that was running, or None if it was between handlers.
        timeout: The limit, in seconds.
        attempt: The attempt that was ended, from 1.
        stack: The stacks of the worker's threads, as text; empty if it sent none.
    """

    def __init__(  # noqa: PLR0917 - all of them
        self,
        message: str,
        event: str = "",
        handler: str | None = None,
        timeout: float = 0.0,
        attempt: int = 1,
        stack: str = "",
    ) -> None:
        super().__init__(message)
        self.event = event
        self.handler = handler
        self.timeout = timeout
        self.attempt = attempt
        self.stack = stack


class SoftTimeoutError(PoolError):
    """An event took longer than `event_soft_timeout`; raised in its handler, in the worker.

    It is no `TimeoutError`, which is an `OSError`: code that tries again after errors of the
    system must let it pass.

    Attributes:
        event: The event's name and class.
        handler: The handler that was running.
        timeout: The limit, in seconds.
    """

    def __init__(
        self, message: str, event: str = "", handler: str = "", timeout: float = 0.0
    ) -> None:
        super().__init__(message)
        self.event = event
        self.handler = handler
        self.timeout = timeout


class CascadeLimitError(PoolError):
    """An event's follow-ups exceed `max_cascade_depth` or `max_cascade_events`.

    The event's handlers have run; its follow-ups are dropped. It is not run again.

    Attributes:
        limit: The limit, as in "max_cascade_depth=5".
        path: The event's path; see `Outcome.path`.
        handler: The last handler that returned follow-ups; None if it is not known.
        event: The event's name and class.
    """

    def __init__(
        self,
        message: str,
        limit: str = "",
        path: tuple[int, ...] = (),
        handler: str | None = None,
        event: str = "",
    ) -> None:
        super().__init__(message)
        self.limit = limit
        self.path = path
        self.handler = handler
        self.event = event


class RemoteError(PoolError):
    """Stands in for a handler's exception that cannot be pickled or rebuilt.

    Attributes:
        type_name: Module and qualified name of the original's type.
        text: The original as `str`.
        traceback: The worker's traceback, as text.
        bases: Module and qualified name of the original's type and of all its bases.
    """

    def __init__(
        self, type_name: str, text: str = "", traceback: str = "", bases: tuple[str, ...] = ()
    ) -> None:
        super().__init__(type_name, text, traceback, bases)
        self.type_name = type_name
        self.text = text
        self.traceback = traceback
        self.bases = bases

    def __str__(self) -> str:
        return (
            f"{self.type_name}: {self.text} (the exception itself could not be brought here from"
            " the worker: make its class picklable)"
        )


class Disguised(Exception):
    """Carries an error past those that would take it for something else.

    Attributes:
        error: The error.
    """

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error


def undisguised(error: BaseException) -> BaseException:
    """Return an error, or the one that it carries, with its notes."""
    if not isinstance(error, Disguised):
        return error
    found = error.error
    for note in getattr(error, "__notes__", ()):
        found.add_note(note)
    return found


class RemoteTraceback(Exception):
    """The traceback in the worker, as the cause of an exception that was raised there.

    Attributes:
        is_own: Whether it is of this process: of an error that the pool keeps.
    """

    is_own = False

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


def chain_remote(error: BaseException, traceback: str) -> BaseException:
    """Give an exception that was rebuilt here the worker's traceback as its cause."""
    # a class may refuse it, for example a frozen dataclass; the error matters more
    with contextlib.suppress(Exception):
        error.__cause__ = RemoteTraceback(traceback)
    return error


def rebuild_plain(cls: type[BaseException], args: tuple[Any, ...]) -> BaseException:
    """Rebuild an exception without calling its constructor."""
    return cls.__new__(cls, *args)


# The flags of generators, coroutines and asynchronous generators; see the module `inspect`.
_CAN_GO_ON: Final = 0x20 | 0x80 | 0x200


# A class may override these attributes, and run any code for them.
_cause_of: Final[Any] = vars(BaseException)["__cause__"].__get__
_context_of: Final[Any] = vars(BaseException)["__context__"].__get__
_traceback_of: Final[Any] = vars(BaseException)["__traceback__"].__get__
_exceptions_of: Final[Any] = vars(BaseExceptionGroup)["exceptions"].__get__


def bases_of(kind: type) -> tuple[type, ...]:
    """Return a class and its bases, from the class itself: its metaclass may raise."""
    bases: tuple[type, ...] = _MRO(kind)
    return bases


_MRO: Final = type.__dict__["__mro__"].__get__


def release_frames(error: BaseException) -> None:
    """Clear the local variables in the tracebacks of an error and of its causes.

    The tracebacks can still be printed. Frames that run, and those of generators, stay as they are.
    """
    left, seen = [error], set[int]()
    while left:
        each = left.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        left += [cause for cause in (_cause_of(each), _context_of(each)) if cause is not None]
        if BaseExceptionGroup in bases_of(type(each)):
            left += _exceptions_of(each)
        trace = _traceback_of(each)
        while trace is not None:
            if not trace.tb_frame.f_code.co_flags & _CAN_GO_ON:
                with contextlib.suppress(RuntimeError):  # it runs
                    trace.tb_frame.clear()
            trace = trace.tb_next


def again(error: PoolError) -> PoolError:
    """Copy an error that is kept, to raise it: each raise would add frames to its traceback."""
    copy = rebuild_plain(type(error), error.args)
    # a list: the notes
    kept = error.__dict__.items()
    copy.__dict__.update({name: list(v) if type(v) is list else v for name, v in kept})
    copy.__cause__ = error.__cause__
    return cast("PoolError", copy)


class InternalError(RuntimeError):
    """The scheduler got an input that is impossible: a bug in the engine."""
