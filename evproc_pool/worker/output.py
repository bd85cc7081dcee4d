"""The output of a worker: log records and warnings go to the coordinator, lines get a label.

- **Log records.** The root logger has one handler, which sends (`log_sender`). A record is written
  to the channel before the call that logs it returns. So it arrives whatever becomes of the
  process. Workers do not import `logging` by themselves: this happens when a handler's module does.
- **Warnings** are sent by `warnings.showwarning`.
- **Lines** that handlers print get a label, on request (`labels`).

Processes that handlers fork are no workers: they log, warn and print as if none of this existed.
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Callable
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Any, Final, TextIO

from evproc.registry import Registry
from evproc_pool.ipc.channel import BlockingChannel
from evproc_pool.protocol import messages
from evproc_pool.protocol.worker_output import LogLevels, WorkerOutput
from evproc_pool.worker.current_event import CurrentEvent
from evproc_pool.worker.labels import LabelledStream
from evproc_pool.worker.soft_timeout import SHIELDED, end_shield

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec

    from evproc_pool.worker.log_sender import LogSetUp

_STREAMS: Final = ("stdout", "stderr")


class UnchangedOutput:
    """Changes nothing: for a simulated worker, whose output is that of the application."""

    def begin(self, how: WorkerOutput) -> None:
        """Begin, before modules of handlers are imported."""

    def modules_are_imported(self) -> None:
        """Undo what modules have configured."""

    def is_set_up(self) -> None:
        """Keep what is configured: the initializer has run."""

    def is_ready(self, registry: Registry) -> None:
        """Take the handlers of a filled registry, whose modules are imported."""

    def end(self) -> None:
        """Leave the output of this process alone from now on. Idempotent."""


class Output(UnchangedOutput):
    """Redirects the output of this process, a worker, as the coordinator asks for."""

    def __init__(self, channel: BlockingChannel, words: Any, loop: CodeType) -> None:
        self._channel = channel
        self._current = CurrentEvent(words, loop)
        self._pid = os.getpid()
        self._levels: LogLevels | None = None
        self._logging: LogSetUp | None = None
        self._show: Any = None  # the `warnings.showwarning` of before
        self._streams: dict[str, LabelledStream] = {}  # by their names in `sys`

    def begin(self, how: WorkerOutput) -> None:
        """See `UnchangedOutput`."""
        if how.has_labels:
            for name in _STREAMS:
                stream: TextIO | None = getattr(sys, name)
                if stream is not None:
                    self._streams[name] = LabelledStream(stream, self._label)
                    setattr(sys, name, self._streams[name])
        if how.levels is not None:
            self._levels = how.levels
            self._show, warnings.showwarning = warnings.showwarning, self._show_warning
            if "logging" in sys.modules:
                self._set_up_logging()
            else:
                sys.meta_path.insert(0, _WhenImported("logging", self._set_up_logging))

    def modules_are_imported(self) -> None:
        """See `UnchangedOutput`."""
        if self._logging is not None:
            self._logging.drop_imported()

    def is_set_up(self) -> None:
        """See `UnchangedOutput`."""
        if self._logging is not None:
            self._logging.keep()

    def is_ready(self, registry: Registry) -> None:
        """See `UnchangedOutput`."""
        self.modules_are_imported()
        self._current.handlers = registry.handlers

    def end(self) -> None:
        """See `UnchangedOutput`."""
        self._levels = None
        if self._show is not None and warnings.showwarning == self._show_warning:
            warnings.showwarning = self._show
        if self._logging is not None:
            self._logging.restore()
            self._logging = None
        for name, stream in self._streams.items():
            if getattr(sys, name) is stream:
                setattr(sys, name, stream.inner)
            stream.end()
        self._streams.clear()

    # --- logging ---

    def _set_up_logging(self) -> None:
        if self._levels is not None:
            from evproc_pool.worker.log_sender import LogSender, LogSetUp

            self._logging = LogSetUp(LogSender(self._send_record, self._place), self._levels)

    def _send_record(self, record: bytes) -> None:
        # not in a process that a handler has forked, which may have kept the handler
        if os.getpid() == self._pid:
            self._channel.send_output(messages.LOGGED, record)

    def _place(self) -> dict[str, str]:
        """The attributes that say what the worker is doing."""
        handler = self._handler()
        if handler is None:
            return {}
        text = self._current.text
        return {"evproc_handler": handler} | ({} if text is None else {"evproc_event": text})

    def _handler(self) -> str | None:
        try:
            return self._current.handler
        except ValueError:
            return None  # the words are released, in a process that a handler has forked

    # --- warnings ---

    def _show_warning(  # noqa: PLR0917 - the signature of `showwarning`
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        """See `warnings.showwarning`."""
        if file is not None or os.getpid() != self._pid:
            self._show(message, category, filename, lineno, file, line)
            return
        self._send_warning(message, category, filename, lineno)
        end_shield()

    def _send_warning(self, *warning: Any) -> None:
        from evproc_pool.protocol.shown_warnings import dump_warning

        with contextlib.suppress(OSError):  # the coordinator is gone, and soon this process is
            self._channel.send_output(messages.WARNED, dump_warning(*warning))

    # --- labels ---

    def _label(self) -> str:
        if os.getpid() != self._pid:
            return ""
        handler = self._handler()
        return f"[{self._pid}] " if handler is None else f"[{self._pid} {handler}] "


# A soft timeout would tear a frame.
SHIELDED.add(Output._send_warning.__code__)  # noqa: SLF001 - it is ours


class _WhenImported:
    """Calls a function once a module has been imported. A finder that finds nothing itself."""

    def __init__(self, name: str, act: Callable[[], object]) -> None:
        self._name = name
        self._act = act

    def find_spec(
        self,
        name: str,
        path: object = None,  # noqa: ARG002 - the interface
        target: ModuleType | None = None,  # noqa: ARG002 - likewise
    ) -> ModuleSpec | None:
        """Have others find the module, and act when it has run."""
        if name != self._name:
            return None
        from importlib.util import find_spec  # slow to import, and many need it never

        sys.meta_path.remove(self)
        spec = find_spec(name)
        loader: Any = None if spec is None else spec.loader
        if loader is not None:

            def exec_module(module: ModuleType) -> None:
                del loader.exec_module  # uncovers its own
                loader.exec_module(module)
                self._act()

            loader.exec_module = exec_module
        return spec
