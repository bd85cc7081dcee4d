"""Processes that are neither the pool's nor a peer's: started, asked, ended."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any, Final

from benchmarks.model import BenchmarkError

#: How many workers every side has.
WORKERS: Final = 2

# It ends as soon as its pipe does; this is for one that is in the middle of events.
_GRACE_SECONDS: Final = 2.0


def start_method() -> str:
    """The start method of every side: workers are small and alike with `forkserver`."""
    methods = multiprocessing.get_all_start_methods()
    return "forkserver" if "forkserver" in methods else "spawn"


def context() -> BaseContext:
    """The `multiprocessing` context of every side."""
    return multiprocessing.get_context(start_method())


def ignore_interrupt() -> None:
    """Leave Ctrl-C to the process that started this one, which ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class Helper:
    """A process at the other end of a pipe.

    The pipe is a socket pair where there are such, with the length in front of
    every message: nothing is between the two processes but that.

    Args:
        serve: Called there with its end of the pipe and `arguments`; returns when
            the pipe is at its end, by `EOFError`.
        arguments: What else it is called with.
        start: The start method, if not that of the sides.
        grace_seconds: How long it may take to end, before it is killed.
    """

    def __init__(
        self,
        serve: Callable[..., None],
        *arguments: Any,
        start: str | None = None,
        grace_seconds: float = _GRACE_SECONDS,
    ) -> None:
        ctx = multiprocessing.get_context(start or start_method())
        self._grace_seconds = grace_seconds
        self.connection: Connection[Any, Any]
        self.connection, theirs = ctx.Pipe()
        # no daemon: one of them has a pool of its own
        self._process: BaseProcess = ctx.Process(  # type: ignore[attr-defined]  # each context has it
            target=_run, args=(serve, theirs, *arguments)
        )
        try:
            self._process.start()
        except BaseException:
            self.connection.close()
            raise
        finally:
            theirs.close()

    @property
    def pid(self) -> int:
        """The process's id."""
        pid: int = self._process.pid  # type: ignore[assignment]  # it has been started
        return pid

    def receive(self) -> Any:
        """Wait for a message.

        Raises:
            BenchmarkError: The process has ended.
        """
        try:
            return self.connection.recv()
        except EOFError:
            self._process.join(self._grace_seconds)
            raise BenchmarkError(
                f"a helper process ended with exit code {self._process.exitcode}, and should not"
            ) from None

    def close(self) -> None:
        """End the process, and wait for it."""
        self.connection.close()
        self._process.join(self._grace_seconds)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()
        self._process.close()


def _run(serve: Callable[..., None], connection: Connection[Any, Any], *arguments: Any) -> None:
    ignore_interrupt()
    # the other end is gone: there is nothing more to do
    with suppress(EOFError, ConnectionError):
        serve(connection, *arguments)
    connection.close()
