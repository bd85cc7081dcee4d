"""Handlers that log, for `test_worker_logging`. Workers import this module."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from evproc import Event, StopProcessing, want
from tests.support import actions

LOG: Final = logging.getLogger("tests.of.workers")


class Logs(Event):
    """Has `log` do something, by its name in `_ACTS`."""

    name = "logs"

    def __init__(self, act: str = "one", *args: Any) -> None:
        super().__init__()
        self.act = act
        self.args = args

    def __repr__(self) -> str:
        return f"Logs({self.act!r})"


@want("logs")
def log(proc: Any, ev: Logs) -> None:
    """The handler."""
    raise StopProcessing(_ACTS[ev.act](*ev.args))


class Unpicklable:
    """Has a text and no pickle."""

    def __reduce__(self) -> Any:
        raise TypeError("cannot be pickled")

    def __str__(self) -> str:
        return "text"

    def __repr__(self) -> str:
        return "repr"


class Unprintable(Unpicklable):
    """Has neither a text nor a pickle."""

    def __str__(self) -> str:
        raise ValueError("no text")

    __repr__ = __str__


class OwnWarning(UserWarning):
    """Of this module."""

    def __init__(self, message: str, more: int = 0) -> None:
        super().__init__(message)


def note(name: str) -> None:
    """Log a warning."""
    logging.getLogger(name).warning("in %s", name)


def note_and_fail(name: str) -> None:
    """An initializer that fails."""
    note(name)
    raise LookupError("in the initializer")


def add_file(path: str) -> None:
    """An initializer that adds a handler."""
    logging.getLogger("tests").addHandler(logging.FileHandler(path))


def replace_handlers(path: str) -> None:
    """An initializer that configures logging anew."""
    logging.basicConfig(filename=path, force=True, level="INFO", format="%(message)s")


def use_stdout() -> None:
    """An initializer that has errors and warnings printed elsewhere."""
    sys.stderr = sys.stdout


def kind_of_stdout() -> str:
    return type(sys.stdout).__name__


def _one(*args: Any, **options: Any) -> None:
    LOG.warning("one %s", *args or ["line"], **options)


def _extra(value: object) -> None:
    LOG.warning("more", extra={"more": value})


def _failed() -> None:
    try:
        raise KeyError("what")
    except KeyError:
        LOG.exception("it %s", "failed", stack_info=True)


def _levels(*names: str) -> list[list[int]]:
    loggers = [logging.getLogger(name) for name in names]
    return [[level for level in (10, 20, 30, 40) if each.isEnabledFor(level)] for each in loggers]


def _many(first: int, count: int, text: str = "") -> None:
    for number in range(first, first + count):
        LOG.info("%d%s", number, text)


def _many_then_die(first: int, count: int) -> None:
    _many(first, count)
    os.kill(os.getpid(), signal.SIGKILL)


def _in_thread() -> None:
    thread = threading.Thread(target=_one, name="other")
    thread.start()
    thread.join()


def _forks() -> int:
    reads, writes = os.pipe()
    pid = os.fork()
    if not pid:
        sys.stderr = os.fdopen(writes, "w")
        LOG.warning("in the child")
        warnings.simplefilter("default")
        warnings.warn("in the child, too", stacklevel=1)
        sys.stderr.write("printed in the child\n")
        sys.stderr.flush()
        os._exit(0)
    os.close(writes)
    with os.fdopen(reads) as file:
        text = file.read()
    os.waitpid(pid, 0)
    LOG.warning("child said: %s", "/".join(text.splitlines()))
    return 0


def _forks_while_a_thread_logs(count: int) -> None:
    ends = threading.Event()

    def log_on() -> None:
        while not ends.is_set():
            LOG.info("on")

    thread = threading.Thread(target=log_on)
    thread.start()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        for _ in range(count):
            pid = os.fork()
            if not pid:
                LOG.info("in the child")
                os._exit(0)
            os.waitpid(pid, 0)
    ends.set()
    thread.join()


def _warns(text: str, category: type[Warning] = UserWarning) -> None:
    warnings.warn(text, category, stacklevel=1)


def _prints(*texts: str) -> None:
    for text in texts:
        sys.stdout.write(text)


def _raising_signals(count: int) -> int:
    """Log while a signal handler raises now and then; how often it did."""

    class Alarm(BaseException):
        pass

    def strike(*_: object) -> None:
        raise Alarm

    caught = 0
    before = signal.signal(signal.SIGALRM, strike)
    done = 0

    def log_rest() -> None:
        nonlocal done
        if done < count:
            signal.setitimer(signal.ITIMER_REAL, 0.0007)
        while done < count:
            LOG.info("%d %s", done, "x" * 1000)
            done += 1
        # the last one may strike until here
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_IGN)

    while True:
        try:
            # a function: where a loop jumps back, Python 3.13 does not look for `except` around it
            log_rest()
        except Alarm:
            caught += 1
            continue
        break
    signal.signal(signal.SIGALRM, before or signal.SIG_DFL)
    return caught


def _logging_signals(count: int) -> None:
    """Log in the main thread, in a signal handler and in a `__del__` at once."""

    class Noisy:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            LOG.info("deleted")

    before = signal.signal(signal.SIGALRM, lambda *_: LOG.info("signalled"))
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    threshold = gc.get_threshold()
    gc.set_threshold(5)
    try:
        for number in range(count):
            Noisy()
            LOG.info("%d %s", number, "x" * 1000)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before or signal.SIG_DFL)
        gc.set_threshold(*threshold)


def _until_struck(path: str) -> None:
    Path(path).write_text("began", "utf-8")
    while True:
        LOG.info("%s", "x" * 3000)


def _wait(address: tuple[str, int]) -> None:
    LOG.info("waits")
    actions.pass_gate(address)


def _collected() -> list[str]:
    """Collect records by a handler that is there for a moment."""
    found: list[str] = []

    class Collects(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record.getMessage())

    handler = Collects()
    LOG.addHandler(handler)
    try:
        _one()
    finally:
        LOG.removeHandler(handler)
    return found


_ACTS: Final[dict[str, Callable[..., object]]] = {
    "one": _one,
    "extra": _extra,
    "failed": _failed,
    "levels": _levels,
    "many": _many,
    "many then die": _many_then_die,
    "in thread": _in_thread,
    "forks": _forks,
    "forks while a thread logs": _forks_while_a_thread_logs,
    "warns": _warns,
    "prints": _prints,
    "raising signals": _raising_signals,
    "logging signals": _logging_signals,
    "until struck": _until_struck,
    "wait": _wait,
    "collected": _collected,
    "pid": os.getpid,
    "call": lambda function, *args: function(*args),
    "bad arguments": lambda: LOG.warning("%d", "no number"),
    "unpicklable": lambda: _one(Unpicklable()),
    "unprintable": lambda: _one(Unprintable()),
    "extra unpicklable": lambda: _extra(Unpicklable()),
    "extra unprintable": lambda: _extra(Unprintable()),
}
