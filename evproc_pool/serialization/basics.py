"""Basics of this package: which process this is, facts about classes, and a pause."""

from __future__ import annotations

import contextlib
import copyreg
import functools
import gc
import types
from collections.abc import Iterator
from typing import Any, Final

from evproc_pool.errors import RemoteTraceback, SerializationError

PROTOCOL: Final = 5

# How the main script's name ends in a pickle: `__main__`, or `__mp_main__` in a process of
# multiprocessing.
MAIN: Final = b"_main__"

#: The class of what `functools.lru_cache` makes.
LruCache: Final[Any] = type(functools.lru_cache(int))

#: The class of what `lazy import` binds until its first use; None before Python 3.15.
LazyImport: Final[Any] = getattr(types, "LazyImportType", None)


class ThisProcess:
    """The kind of this process.

    Attributes:
        is_loading: Whether it is a worker that loads handlers, or a forkserver that does.
        is_worker: Whether classes that arrive by value belong to the coordinator.
        passed_on: Exceptions that pickling raises unchanged. A `KeyboardInterrupt` is a real
            interrupt in the caller's process. A worker ignores Ctrl-C, so user code raised it.
    """

    is_loading = False
    is_worker = False
    passed_on: tuple[type[BaseException], ...] = (Exception, KeyboardInterrupt)


def become_worker() -> None:
    """Make this process a worker: classes are set to what they are in the coordinator."""
    ThisProcess.is_worker = True
    ThisProcess.passed_on = (Exception,)


class PicklingExit(Exception):
    """User code raised no `Exception`, but `SystemExit` for example, in pickling or unpickling.

    Callers of pickling do not expect such exceptions, and they are not meant for this process.
    """


def lives_in_main(named: Any) -> bool:
    """Whether a class or a function is from the main script of this or another process."""
    return getattr(named, "__module__", None) in ("__main__", "__mp_main__")


def plain(text: str) -> str:
    """The text as a plain `str`: a subclass may not pickle."""
    return str.__str__(text)


def text_of(error: BaseException) -> str:
    """`str` of an exception; a substitute if that fails."""
    try:
        return plain(str(error))
    except BaseException:
        return "<unprintable>"


_INHERITED: Final = ("__new__", "__reduce_ex__", "__reduce__", "__getstate__", "__setattr__")
_PICKLE_HOOKS: Final = ("__setstate__", "__getnewargs__", "__getnewargs_ex__")


def has_default_state(kind: Any) -> bool:
    """Whether instances pickle as their class and their `__dict__`, and nothing else."""
    return (
        all(getattr(kind, name, None) is getattr(object, name, None) for name in _INHERITED)
        and not any(hasattr(kind, name) for name in _PICKLE_HOOKS)
        and kind not in copyreg.dispatch_table
        and kind.__dictoffset__ != 0
        and not any("__slots__" in vars(base) for base in kind.__mro__)
    )


@contextlib.contextmanager
def gc_paused() -> Iterator[None]:
    """Pause garbage collection, in the whole process. For one batch at a time.

    A batch makes events, or their instance dictionaries, by the thousand, all of which stay alive.
    Collections that this triggers took more than half of the time of packing events: 0.78 us an
    event with them, 0.50 us without (events of three attributes, 300,000 alive, CPython 3.11).
    If another thread disables collection meanwhile, it is enabled again afterwards.
    """
    is_collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if is_collecting:
            gc.enable()


def detached(error: BaseException) -> BaseException:
    """Make the traceback of an error that is kept a text in its cause, as for a worker's error.

    Its frames and their callers hold all that this thread works on; see `errors`.
    """
    with contextlib.suppress(Exception):  # a class may refuse this, or have no text
        # One object may be raised for each event. A text that contained the text of the time
        # before would grow with each.
        if not (isinstance(error, SerializationError) or getattr(error.__cause__, "is_own", False)):
            import traceback  # slow, and only errors need it

            cause = RemoteTraceback("".join(traceback.format_exception(error)))
            cause.is_own = True
            error.__cause__, error.__context__ = cause, None
    return BaseException.with_traceback(error, None)
