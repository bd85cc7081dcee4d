"""Makes the errors for events whose worker died, and for a pool without workers."""

from __future__ import annotations

import signal
from concurrent.futures import BrokenExecutor
from typing import Any, Final, NamedTuple

from evproc.event import describe_event, qualname
from evproc.exc import add_note
from evproc_pool.errors import (
    EventTimeoutError,
    PoolBrokenError,
    PoolError,
    RegistryMismatchError,
    WorkerLostError,
)
from evproc_pool.protocol.backend import Gone
from evproc_pool.serialization.basics import text_of


def describe_exit(exitcode: int | None) -> str:
    """An exit code in words; for a signal, its name."""
    if exitcode is None:
        return "an exit status that is not known"
    if exitcode >= 0:
        return f"exit code {exitcode}"
    try:
        return f"signal {signal.Signals(-exitcode).name}"
    except ValueError:
        return f"signal {-exitcode}"


def describe_end(item: Gone, where: str) -> str:
    """How a worker ended, in words; `where` it was at that moment."""
    if item.reason:
        return f"is lost {where}: {item.reason}"
    return f"died {where}, by {describe_exit(item.exitcode)}"


def is_of_group(exitcode: int | None) -> bool:
    """Whether it is that of a signal that often reaches all processes of a program at once."""
    return exitcode in _OF_GROUP


_OF_GROUP: Final = {
    -getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
}


class Lost(NamedTuple):
    """What is known of an event whose worker is dead.

    Attributes:
        handler: The handler that was running, or None.
        attempt: Which attempt it was, from 1.
        memory_bytes: The worker's resident memory when last seen, if it was.
    """

    gone: Gone
    event: Any
    handler: str | None
    attempt: int
    memory_bytes: int | None


def worker_lost(lost: Lost) -> WorkerLostError:
    """Say which worker died at which event, of what, and what to do."""
    item = lost.gone
    had = ""
    if lost.memory_bytes is not None:
        had = f" (it had {_megabytes(lost.memory_bytes)} of memory when last seen)"
    text = (
        f"worker {item.worker} (process {item.pid}) {describe_end(item, _where(lost))}{had};"
        f" {_hint(item)}"
    )
    if item.cause:
        text = (
            f"the call of the executor that ran event {describe_event(lost.event)} came to nothing"
            f" ({item.cause}); it ran alone, so one of its handlers, or a library that it uses,"
            " probably ended the process"
        )
    error = WorkerLostError(
        text,
        describe_event(lost.event),
        lost.handler,
        item.exitcode,
        lost.attempt,
        item.stack,
        lost.memory_bytes,
    )
    if item.stack:
        add_note(error, f"the worker's stacks when it died:\n{item.stack}")
    return error


def timed_out(lost: Lost, timeout: float, stack: str) -> EventTimeoutError:
    """Say which event took too long, and where it was."""
    item = lost.gone
    how = f"worker {item.worker} (process {item.pid}) was killed {_where(lost)}"
    if item.has_timed_out:
        how = "its executor was given up for another one, with its processes, if it has any"
    error = EventTimeoutError(
        f"event {describe_event(lost.event)} took longer than event_timeout={timeout:g} s; {how}",
        describe_event(lost.event),
        lost.handler,
        timeout,
        lost.attempt,
        stack,
    )
    if stack:
        add_note(error, f"the worker's stacks before it was killed:\n{stack}")
    return error


def too_large(lost: Lost, size_bytes: int, most_bytes: int, stack: str) -> WorkerLostError:
    """Say which event took far more memory than its worker may have."""
    item = lost.gone
    error = WorkerLostError(
        f"worker {item.worker} (process {item.pid}) had {_megabytes(size_bytes)}, far beyond"
        f" max_worker_memory_bytes ({_megabytes(most_bytes)}), and was killed {_where(lost)}: let"
        " the event take less memory, or raise the limit",
        describe_event(lost.event),
        lost.handler,
        item.exitcode,
        lost.attempt,
        stack,
        size_bytes,
    )
    if stack:
        add_note(error, f"the worker's stacks before it was killed:\n{stack}")
    return error


def say_fate(error: PoolError, attempt: int, *, is_last: bool, has_run_again: bool = False) -> None:
    """Add to one of the above errors what becomes of the event.

    `has_run_again`: it was run again within this attempt, to find out which event it was.
    """
    if not is_last:
        fate = f"This was attempt {attempt}, and the event is run again"
    elif attempt > 1:
        fate = f"The event was given up after {attempt} attempts"
    elif has_run_again and isinstance(error, EventTimeoutError):
        fate = "The event is not run a third time; see max_retries and retry_exceptions"
    elif has_run_again:
        fate = "The event is not run a third time; see crash_limit"
    elif isinstance(error, EventTimeoutError):
        fate = (
            "The event is not run again, since it may have had effects; see max_retries and"
            " retry_exceptions"
        )
    else:
        fate = "The event is not run again, since it may have had effects; see crash_limit"
    if has_run_again:
        fate = f"It was run again, alone, since a lost call had it: it may have run twice. {fate}"
    error.args = (f"{error.args[0]}. {fate}", *error.args[1:])


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:,.0f} MB"


def _where(lost: Lost) -> str:
    event, at = describe_event(lost.event), lost.gone.progress
    if lost.gone.reason and at is None:
        return f"at about event {event}"
    if at is not None and at.is_flushing:
        return f"while it flushed the output of event {event}"
    if at is not None and at.is_over:
        return f"while it sent what event {event} had left behind"
    where = "between handlers" if lost.handler is None else f"in handler {lost.handler!r}"
    if at is not None and at.is_reporting:
        return f"{where} of event {event}, while it sent what others had left behind"
    return f"{where} of event {event}"


def _hint(item: Gone) -> str:
    exitcode = item.exitcode
    if item.reason:
        return "it may have had effects; look at the log of the node"
    if exitcode is not None and exitcode >= 0:
        return "a handler, or a library it uses, ended the process"
    if exitcode == -getattr(signal, "SIGKILL", 0):
        return "probably the kernel's out-of-memory killer: look at how much memory it needs"
    if exitcode in _CRASHES:
        return "a crash in native code: run the event with workers=0 under python -X faulthandler"
    if exitcode is None:
        return (
            "its forkserver had died, or this program has taken its exit status (os.wait, SIGCHLD"
            " ignored)"
        )
    return (
        "something outside the pool sent it a signal, or a handler itself, or a limit was reached"
    )


_CRASHES: Final = {
    -getattr(signal, name)
    for name in ("SIGSEGV", "SIGABRT", "SIGFPE", "SIGILL", "SIGBUS")
    if hasattr(signal, name)
}


# --- a pool that has no workers ---


class NoWorkersError(PoolBrokenError, BrokenExecutor):
    """`PoolBrokenError`, also for those who know executors; `errors` must not import them.

    It prints with the public name.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        # not by its name, which is that of another class
        return _rebuild_no_workers, self.args, self.__dict__


NoWorkersError.__module__ = PoolBrokenError.__module__
NoWorkersError.__name__ = PoolBrokenError.__name__
NoWorkersError.__qualname__ = PoolBrokenError.__qualname__


def _rebuild_no_workers(*args: Any) -> NoWorkersError:
    return NoWorkersError(*args)


def no_registry(cause: BaseException, node: str = "") -> PoolBrokenError:
    """Say that a worker could not make its registry."""
    error = NoWorkersError(
        f"a worker{_on(node)} could not make its registry: {qualname(type(cause))}:"
        f" {text_of(cause)}; the initializer and the handlers' modules must work in a new process"
    )
    error.__cause__ = cause
    return error


def _on(node: str) -> str:
    return f" on node {node}" if node else ""


def other_registry(difference: str, node: str = "") -> PoolBrokenError:
    """Say that a worker has made another registry than the coordinator."""
    cause = RegistryMismatchError(f"the registry of a worker{_on(node)} differs: {difference}")
    error = NoWorkersError(
        f"{cause}; a worker must find the same distributions in the same versions as this process"
        " (sys.path, working directory, environment)"
    )
    error.__cause__ = cause
    return error


def cannot_start(deaths: int, last: Gone | None, cause: OSError | None) -> PoolBrokenError:
    """Say that no worker can be started.

    `deaths` in a row were before they were ready, at last that of `last`. 0: none could even be
    started, because of `cause`.
    """
    exitcode = None if last is None else last.exitcode
    if deaths and last is not None and last.cause:
        return NoWorkersError(
            f"{deaths} executors in a row broke before a worker was ready, the last with"
            f" {last.cause}; look at what the executor's initializer and the import of the"
            " handlers' modules do, and whether a script that makes processes has an"
            ' if __name__ == "__main__"'
        )
    if deaths and exitcode is None and cause is not None:
        error = NoWorkersError(
            f"{deaths} workers in a row were lost before they were ready: {cause}"
        )
        error.__cause__ = cause
        return error
    if deaths:
        advice = (
            "something outside the pool sends it to workers while they start"
            if is_of_group(exitcode)
            else "look at what the initializer and the import of the handlers' modules do"
        )
        return NoWorkersError(
            f"{deaths} workers in a row died before they were ready, the last with"
            f" {describe_exit(exitcode)}; {advice}"
        )
    error = NoWorkersError(f"no worker process can be started: {cause}")
    error.__cause__ = cause
    return error
