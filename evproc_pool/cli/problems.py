"""Errors that end a command with one sentence, the exit statuses, and the name of an input."""

from __future__ import annotations

from typing import Final

FOUND: Final = 1
CANNOT: Final = 2
INTERRUPTED: Final = 130

#: The name of standard input, as an argument.
STANDARD_INPUT: Final = "-"


class CommandError(Exception):
    """Ends a command: the text goes to standard error, without a traceback.

    Attributes:
        status: The exit status.
    """

    def __init__(self, message: str, status: int = CANNOT) -> None:
        super().__init__(message)
        self.status = status


class Stopped(KeyboardInterrupt):
    """A second signal ends the run at once.

    Attributes:
        number: The signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class ReaderGoneError(Exception):
    """The reader of the output has seen enough: `BrokenPipeError`, which `click` would handle."""


def missing_extra(what: str, extra: str, error: ImportError) -> CommandError:
    """Make the error for a library that is not installed, or cannot be imported."""
    if not isinstance(error, ModuleNotFoundError):
        return CommandError(f"{what} needs a library that cannot be imported: {error}")
    return CommandError(
        f"{what} needs {error.name or 'a library'}, which is not installed:"
        f" pip install 'evproc-pool[{extra}]'"
    )
