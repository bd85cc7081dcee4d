"""Names the part of an object that cannot be pickled or rebuilt, and says what to do."""

from __future__ import annotations

import functools
import types
from typing import Final

from evproc.event import class_name, qualname
from evproc_pool.errors import SerializationError, bases_of
from evproc_pool.serialization.basics import detached, text_of
from evproc_pool.serialization.pickling import dumps

_IF_UNKNOWN: Final = (
    "keep it out of what crosses to another process, or give its class a __reduce__"
)
_IN_EACH: Final = "where it is used, or once in each worker with initializer="

# Advice, and the kinds of objects it is for: module and qualified name, or the name alone.
_ADVICE: Final = {
    "hand over the path, and open it where it is used": """
        _io._IOBase tempfile._TemporaryFileWrapper codecs.StreamReaderWriter
        zipfile.ZipFile tarfile.TarFile _csv.reader _csv.writer mmap.mmap
        posix.ScandirIterator posix.DirEntry nt.ScandirIterator nt.DirEntry
        """,
    "hand it over in initargs=, or take one of a multiprocessing.Manager()": """
        multiprocessing.queues.Queue multiprocessing.queues.SimpleQueue
        multiprocessing.synchronize.SemLock multiprocessing.synchronize.Condition
        multiprocessing.synchronize.Event multiprocessing.sharedctypes.SynchronizedBase
        """,
    f"it works in one process only: make one {_IN_EACH}": """
        _thread.lock _thread.RLock threading.Condition threading.Event
        threading.Semaphore threading.Barrier
        """,
    "it works in one process only: hand over a list of its items": "queue.Queue _queue.SimpleQueue",
    f"connect {_IN_EACH}": """
        socket.socket _socket.socket selectors.BaseSelector select.epoll connection cursor
        """,
    f"start it {_IN_EACH}": """
        threading.Thread multiprocessing.process.BaseProcess subprocess.Popen
        concurrent.futures._base.Executor asyncio.events.AbstractEventLoop
        """,
    "wait for its result, and hand that over": """
        concurrent.futures._base.Future _asyncio.Future builtins.coroutine
        """,
    "hand over a list of its items, or make it where it is used": """
        builtins.generator builtins.async_generator
        """,
    "hand over its text: see the module traceback": "builtins.frame builtins.traceback",
    "hand over the objects themselves": """
        weakref.ReferenceType weakref.WeakValueDictionary weakref.WeakKeyDictionary
        """,
    "hand over its value": "_thread._local _contextvars.Context _contextvars.ContextVar",
    "hand over its groups": "re.Match",
}


_BY_KIND: Final = {kind: advice for advice, kinds in _ADVICE.items() for kind in kinds.split()}


def advice_on(part: object) -> str | None:
    """Return what to do instead of pickling an object of this kind; None: unknown."""
    for kind in bases_of(type(part)):
        # database drivers name their connections alike
        name = class_name(kind)
        for known in (name, name.rpartition(".")[2].lower()):
            if known in _BY_KIND:
                return _BY_KIND[known]
    return None


def cannot_pickle(
    what: str, value: object, cause: BaseException, advice: str = _IF_UNKNOWN, more: str = ""
) -> SerializationError:
    """Make the error that names which part of a value cannot be pickled, and what to do.

    `what` names the value. `advice` says what to do if nothing is known about the kind of the part,
    `more` what else to do.
    """
    path, part = _find_culprit(value)
    where = f" at {path.strip()}" if path else ""
    error = SerializationError(
        f"{what} cannot be pickled{where} ({qualname(type(part))}):"
        f" {qualname(type(cause))}: {text_of(cause)}; {advice_on(part) or advice}{more}"
    )
    return _because_of(cause, error)


def cannot_rebuild(what: str, cause: BaseException) -> SerializationError:
    """Make the error for a pickle that cannot be unpickled on the other side."""
    error = SerializationError(
        f"{what} was pickled, but cannot be rebuilt on the other side:"
        f" {qualname(type(cause))}: {text_of(cause)}; can its class be imported there, and does its"
        " __reduce__ or __setstate__ take what it gives?"
    )
    return _because_of(cause, error)


def _because_of(cause: BaseException, error: SerializationError) -> SerializationError:
    error.__cause__ = detached(cause)
    return error


def can_pickle(value: object) -> bool:
    """Whether a value can be pickled."""
    try:
        dumps(value)
    except Exception:
        return False
    return True


def _find_culprit(value: object) -> tuple[str, object]:
    """Find the deepest part that fails by itself. Return the path to it, and the part.

    Stops at a part with known advice: a thread, and not the lock in it.
    """
    path = ""
    for _ in range(12):  # the most steps
        if advice_on(value) is not None:
            break
        for step, part in _parts(value):
            if not can_pickle(part):
                path, value = path + step, part
                break
        else:
            break
    return path, value


def _parts(value: object) -> list[tuple[str, object]]:
    """The parts of a value, each with the step that leads to it; empty if that fails."""
    try:
        match value:
            case dict() | list() | tuple():
                items = value if isinstance(value, dict) else dict(enumerate(value))
                return _steps("[{!r}]", items)
            case types.FunctionType():  # goes by value, like the next two
                return _parts_of_function(value)
            case types.MethodType():
                return [("", value.__func__), ("", value.__self__)]
            case functools.partial():
                return [("", value.func), *_parts(value.args), *_parts(value.keywords)]
        kind = type(value)
        of_class = [] if isinstance(value, type) else [(f" class {qualname(kind)}", kind)]
        return [*_steps(".{}", getattr(value, "__dict__", None)), *of_class]
    except Exception:
        return []  # the error names the whole value


def _steps(step: str, parts: object) -> list[tuple[str, object]]:
    """The parts of a dictionary, each with a step that has its name; empty if it is none."""
    if not isinstance(parts, (dict, types.MappingProxyType)):
        return []
    return [(step.format(name), part) for name, part in parts.items()]


def _parts_of_function(function: types.FunctionType) -> list[tuple[str, object]]:
    import inspect  # slow to import

    used = inspect.getclosurevars(function)
    parameters = inspect.signature(function, follow_wrapped=False).parameters
    defaults = {
        name: each.default for name, each in parameters.items() if each.default is not each.empty
    }
    return [
        *_steps(" variable {!r}", {**used.nonlocals, **used.globals}),
        *_steps(" default {!r}", defaults),
    ]
