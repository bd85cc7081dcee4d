"""The handler of the root logger in a worker: sends records to the coordinator.

Imported once the worker has imported `logging`; see `output`.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from evproc_pool.protocol.log_records import dump_record
from evproc_pool.protocol.worker_output import LogLevels
from evproc_pool.worker.soft_timeout import SHIELDED, end_shield


class LogSender(logging.Handler):
    """Sends each record at once, so that it outlives the process.

    Args:
        send: Writes an encoded record; takes care of threads.
        place: Returns attributes for a new record: what the worker is doing.
    """

    def __init__(self, send: Callable[[bytes], None], place: Callable[[], Mapping[str, str]]):
        super().__init__()
        self._send = send
        self._place = place

    def createLock(self) -> None:  # noqa: N802 - the name is `logging`'s
        """Make no lock: a signal handler that raises might leave it locked."""
        self.lock = None

    def handle(self, record: logging.LogRecord) -> bool:
        """Send a record. Raises no `Exception` but the soft timeout."""
        is_sent = self._handle(record)
        end_shield()
        return is_sent

    def _handle(self, record: logging.LogRecord) -> bool:
        found = self.filter(record)
        if not found:
            return False
        kept = found if isinstance(found, logging.LogRecord) else record
        try:
            data = dump_record(kept, self._place())
        except Exception:
            self.handleError(record)
            return False
        with contextlib.suppress(OSError):  # the coordinator is gone, and soon this process is
            self._send(data)
        return True


# The soft timeout would be lost here, or tear a frame.
SHIELDED.add(LogSender._handle.__code__)  # noqa: SLF001 - it is ours


class _LoggerState(NamedTuple):
    handlers: list[logging.Handler]
    propagates: bool
    is_disabled: bool
    level: int


_NOTHING: Final = _LoggerState([], True, False, logging.NOTSET)


class LogSetUp:
    """The configuration of logging in a worker: one handler, which sends.

    What modules configure when they are imported is undone. The coordinator imports the same
    modules, so its logging has that configuration. What an initializer configures stays.
    """

    def __init__(self, sender: LogSender, levels: LogLevels) -> None:
        self._found: dict[logging.Logger, _LoggerState] = {}  # before it was undone
        self._kept: dict[logging.Logger, _LoggerState] = {}
        self._disabled = self._found_disabled = logging.root.manager.disable
        self._undo()
        logging.root.handlers[:] = [sender]
        levels.apply()
        self.keep()

    def keep(self) -> None:
        """Keep the configuration as it is now."""
        self._kept = {logger: _state_of(logger) for logger in _loggers()}
        self._disabled = logging.root.manager.disable

    def drop_imported(self) -> None:
        """Undo what modules have configured since `keep`."""
        self._undo()
        logging.disable(self._disabled)
        self.keep()

    def _undo(self) -> None:
        for logger in _loggers():
            now = _state_of(logger)
            # The coordinator's levels are applied: a logger that is new has none there.
            before = self._kept.get(logger, _NOTHING)
            if now != before:
                self._found[logger] = now
                _set_state(logger, before)

    def restore(self) -> None:
        """Give this process the configuration that it would have without this object."""
        sender = [each for each in logging.root.handlers if isinstance(each, LogSender)]
        for logger, state in self._found.items():
            _set_state(logger, state)
        logging.root.handlers[:] = [each for each in logging.root.handlers if each not in sender]
        logging.disable(self._found_disabled)


def _loggers() -> list[logging.Logger]:
    named = logging.root.manager.loggerDict.copy().values()
    return [logging.root, *(each for each in named if isinstance(each, logging.Logger))]


def _state_of(logger: logging.Logger) -> _LoggerState:
    return _LoggerState([*logger.handlers], logger.propagate, logger.disabled, logger.level)


def _set_state(logger: logging.Logger, state: _LoggerState) -> None:
    logger.handlers[:] = state.handlers
    logger.propagate, logger.disabled = state.propagates, state.is_disabled
    if logger.level != state.level:
        logger.setLevel(state.level)
