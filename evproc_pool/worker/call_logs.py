"""Log records of plain calls: they come back with the answer of their call.

A process of an executor may belong to others, too. So nothing of its logging is undone. While calls
run, its root logger has one more handler, and the loggers have the application's levels.

Rejected: the set-up of worker processes (`output`), which takes the logging of a process over.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from evproc_pool.protocol.log_records import dump_record
from evproc_pool.protocol.worker_output import LogLevels


class _Call(NamedTuple):
    """Takes the records of one call; `place` says what its worker is doing."""

    take: Callable[[bytes], object]
    place: Callable[[], Mapping[str, str]]


class CallLogs(logging.Handler):
    """Hands each record to the call whose thread logs it.

    A record of another thread goes to the only call that runs, or else nowhere.
    """

    def __init__(self) -> None:
        super().__init__()
        self._calls: dict[int, _Call] = {}  # by thread
        self._begins_and_ends = threading.Lock()
        self._restore: LogLevels | None = None

    @contextlib.contextmanager
    def taken(
        self,
        levels: LogLevels,
        take: Callable[[bytes], object],
        place: Callable[[], Mapping[str, str]],
    ) -> Iterator[None]:
        """Have the records of this thread taken meanwhile."""
        me = threading.get_ident()
        with self._begins_and_ends:
            if not self._calls:
                self._restore = _levels_now(levels)
                levels.apply()
                logging.root.addHandler(self)
            self._calls[me] = _Call(take, place)
        try:
            yield
        finally:
            with self._begins_and_ends:
                del self._calls[me]
                if not self._calls:
                    logging.root.removeHandler(self)
                    if self._restore is not None:
                        self._restore.apply()

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        call = self._calls.get(threading.get_ident())
        if call is None:
            calls = list(self._calls.values())
            call = calls[0] if len(calls) == 1 else None
        if call is None:
            return
        try:
            call.take(dump_record(record, call.place()))
        except Exception:
            self.handleError(record)


def _levels_now(changed: LogLevels) -> LogLevels:
    """The levels of this process of the loggers that others would change."""
    named = {name: logging.getLogger(name).level for name in changed.named}
    return LogLevels(logging.root.level, named, logging.root.manager.disable)
