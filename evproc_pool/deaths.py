"""What is said of a worker that died."""

from __future__ import annotations

import signal
from typing import Any, Final

from evproc.event import describe_event
from evproc_pool.errors import WorkerLostError
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
    where = f"in handler {handler!r}" if handler else "between handlers"
    return WorkerLostError(
        f"worker {item.worker} (process {item.pid}) died {where} of event"
        f" {describe_event(event)}, by {describe_exit(item.exitcode)}; {_hint(item.exitcode)}."
        " The event was not run again, since it may have had effects",
        describe_event(event),
        handler,
        item.exitcode,
    )


def _hint(exitcode: int | None) -> str:
    if exitcode is not None and exitcode >= 0:
        return "a handler, or a library it uses, ended the process"
    if exitcode == -getattr(signal, "SIGKILL", 0):
        return "probably the kernel's out-of-memory killer: look at how much memory it needs"
    if exitcode in _CRASHES:
        return "a crash in native code: run the event with workers=0 under python -X faulthandler"
    return "something outside the pool sent it a signal"


_CRASHES: Final = {-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGFPE, -signal.SIGILL}
