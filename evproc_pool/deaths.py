"""What is said of a worker that died."""

from __future__ import annotations

import signal
from typing import Any, Final

from evproc.event import describe_event
from evproc.exc import add_note
from evproc_pool.errors import EventTimeoutError, WorkerLostError
from evproc_pool.local import Gone


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


def worker_lost(item: Gone, event: Any, handler: str | None) -> WorkerLostError:
    """Say which worker died at which event, of what, and what to do."""
    error = WorkerLostError(
        f"worker {item.worker} (process {item.pid}) died {_where(handler)} of event"
        f" {describe_event(event)}, by {describe_exit(item.exitcode)}; {_hint(item.exitcode)}."
        " The event was not run again, since it may have had effects",
        describe_event(event),
        handler,
        item.exitcode,
        stack=item.stack,
    )
    if item.stack:
        add_note(error, f"the worker's stacks when it died:\n{item.stack}")
    return error


def timed_out(
    item: Gone, event: Any, handler: str | None, timeout: float, stack: str
) -> EventTimeoutError:
    """Say which event took too long, and where it was."""
    error = EventTimeoutError(
        f"event {describe_event(event)} took longer than event_timeout={timeout:g} s and was"
        f" {_where(handler)}; worker {item.worker} (process {item.pid}) was killed. The event was"
        " not run again, since it may have had effects",
        describe_event(event),
        handler,
        timeout,
        stack=stack,
    )
    if stack:
        add_note(error, f"the worker's stacks before it was killed:\n{stack}")
    return error


def too_large(
    item: Gone,
    event: Any,
    handler: str | None,
    *,
    size_bytes: int,
    most_bytes: int,
    stack: str,
) -> WorkerLostError:
    """Say which event took far more memory than its worker may have."""
    error = WorkerLostError(
        f"worker {item.worker} (process {item.pid}) had {_megabytes(size_bytes)}, far beyond"
        f" max_worker_memory_bytes ({_megabytes(most_bytes)}), and was killed {_where(handler)} of"
        f" event {describe_event(event)}: let the event take less memory, or raise the limit. The"
        " event was not run again, since it may have had effects",
        describe_event(event),
        handler,
        item.exitcode,
        stack=stack,
    )
    if stack:
        add_note(error, f"the worker's stacks before it was killed:\n{stack}")
    return error


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:,.0f} MB"


def _where(handler: str | None) -> str:
    return f"in handler {handler!r}" if handler else "between handlers"


def _hint(exitcode: int | None) -> str:
    if exitcode is not None and exitcode >= 0:
        return "a handler, or a library it uses, ended the process"
    if exitcode == -getattr(signal, "SIGKILL", 0):
        return "probably the kernel's out-of-memory killer: look at how much memory it needs"
    if exitcode in _CRASHES:
        return "a crash in native code: run the event with workers=0 under python -X faulthandler"
    return "something outside the pool sent it a signal"


_CRASHES: Final = {-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGFPE, -signal.SIGILL}
