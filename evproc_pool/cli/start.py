"""The entry point of the console script: runs a command, and turns errors into one sentence."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Final

from evproc_pool.cli.output import discard, open_closed_streams, printable, say, to_standard_output
from evproc_pool.cli.problems import (
    CANNOT,
    FOUND,
    INTERRUPTED,
    CommandError,
    ReaderGoneError,
    Stopped,
    missing_extra,
)

#: The option that shows tracebacks. Errors may come before click has parsed the command line.
TRACEBACK: Final = "--traceback"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command `evproc`.

    Args:
        arguments: What follows the program's name; by default that of this process.

    Returns:
        The exit status; see `evproc_pool.cli`.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    open_closed_streams()
    _tolerate_any_text()
    return guarded(lambda: _command(given), show_traceback=TRACEBACK in given)


def _command(arguments: list[str]) -> int:
    try:
        import click  # noqa: F401 - an extra
        import rich  # noqa: F401 - likewise
    except ImportError as error:
        raise missing_extra("the command evproc", "cli", error) from None
    from evproc_pool.cli.commands import run

    # As `python -m` does: the application in the working folder need not be installed.
    if (folder := os.getcwd()) not in sys.path:  # noqa: PTH109 - a string
        sys.path.insert(0, folder)
    return run(arguments)


def guarded(command: Callable[[], int], *, show_traceback: bool) -> int:
    """Run a command; print what ends it as one sentence, and return the exit status."""
    try:
        status = command()
        with to_standard_output():
            sys.stdout.flush()
    except (BrokenPipeError, ReaderGoneError):
        discard(sys.stdout)
        return 0
    except KeyboardInterrupt as error:
        say("interrupted")
        return 128 + error.number if isinstance(error, Stopped) else INTERRUPTED
    except Exception as error:
        if show_traceback:
            import traceback

            traceback.print_exception(error)
        say(f"error: {_sentence(error)}")
        try:
            sys.stdout.flush()
        except OSError:  # Python would try again at the end, and complain
            discard(sys.stdout)
        return _status(error)
    return status


def _sentence(error: Exception) -> str:
    from evproc import EventException
    from evproc_pool import PoolError

    if isinstance(error, CommandError | EventException | PoolError):
        return printable(str(error))
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return printable(f"{where}{error.strerror}")
    return printable(f"{type(error).__name__}: {error} (--traceback shows where)")


def _status(error: Exception) -> int:
    from evproc import EntryPointGroupException, EventException

    if isinstance(error, CommandError):
        return error.status
    if isinstance(error, EventException) and not isinstance(error, EntryPointGroupException):
        return FOUND
    return CANNOT


def _tolerate_any_text() -> None:
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
