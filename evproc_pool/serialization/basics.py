"""What the modules of this package share: which process this is, and facts about classes."""

from __future__ import annotations

import copyreg
from typing import Any, Final

PROTOCOL: Final = 5


class ThisProcess:
    """What kind of process this is.

    Attributes:
        is_worker: Whether the classes that come by value are the coordinator's.
        as_they_are: What pickling raises as it is. In the caller's process an interrupt is
            one; in a worker, which ignores Ctrl-C, code of the user's has raised it.
    """

    is_worker = False
    as_they_are: tuple[type[BaseException], ...] = (Exception, KeyboardInterrupt)


def be_worker() -> None:
    """From now on this process is a worker.

    Classes that come by value are set again each time, to what they are in the
    coordinator. And a `KeyboardInterrupt` in pickling is an error like others.
    """
    ThisProcess.is_worker = True
    ThisProcess.as_they_are = (Exception,)


class PicklingExit(Exception):
    """User code raised what is no `Exception` while it was pickled or rebuilt.

    Nobody who pickles is prepared for, say, `SystemExit`; and it does not mean us.
    """


# as it ends, in a process that multiprocessing made, too: there it is __mp_main__
MAIN: Final = b"_main__"


def lives_in_main(named: Any) -> bool:
    """Whether a class or a function is this process's main script's, or a name in another's."""
    return getattr(named, "__module__", None) in ("__main__", "__mp_main__")


def plain(text: str) -> str:
    """The text alone, as a `str`: one of a class of its own may not pickle."""
    return str.__str__(text)


def text_of(error: BaseException) -> str:
    """`str` of an exception, or what can be said where that fails."""
    try:
        return plain(str(error))
    except BaseException:
        return "<unprintable>"


def has_default_state(kind: Any) -> bool:
    """Whether instances pickle as their class and their `__dict__`, and nothing else."""
    inherited = ("__new__", "__reduce_ex__", "__reduce__", "__getstate__", "__setattr__")
    return (
        all(getattr(kind, name, None) is getattr(object, name, None) for name in inherited)
        and not any(hasattr(kind, name) for name in _PICKLE_HOOKS)
        and kind not in copyreg.dispatch_table
        and kind.__dictoffset__ != 0
        and not any("__slots__" in vars(base) for base in kind.__mro__)
    )


_PICKLE_HOOKS: Final = ("__setstate__", "__getnewargs__", "__getnewargs_ex__")
