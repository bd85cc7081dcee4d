"""What happens to the output of workers: log records, warnings, and what they print.

The levels of the application's loggers go to each worker when it starts. So a record that nobody
wants costs no message.
"""

from __future__ import annotations

from typing import NamedTuple


class LogLevels(NamedTuple):
    """The levels of the application's loggers."""

    root: int
    named: dict[str, int]  # of loggers with a level of their own
    disabled: int  # records up to this level are dropped: `logging.disable`

    def apply(self) -> None:
        """Give them to the loggers of this process."""
        import logging

        logging.root.setLevel(self.root)
        for name, level in self.named.items():
            logging.getLogger(name).setLevel(level)
        logging.disable(self.disabled)


class WorkerOutput(NamedTuple):
    """See the module's text.

    Attributes:
        levels: Send log records of these levels, and warnings; None: leave both alone.
        has_labels: Whether printed lines begin with the worker's pid and the handler.
    """

    levels: LogLevels | None = None
    has_labels: bool = False


def current_levels() -> LogLevels:
    """The levels of this process."""
    import logging  # workers import this module, and few of them log

    manager = logging.root.manager
    named = {
        name: logger.level
        for name, logger in manager.loggerDict.copy().items()
        if isinstance(logger, logging.Logger) and logger.level
    }
    return LogLevels(logging.root.level, named, manager.disable)
