"""Advice on objects that cannot be pickled, by their kinds."""

from __future__ import annotations

from typing import Final

_IN_EACH: Final = "where it is used, or once in each worker with initializer="

# Advice, and the kinds of objects it is for: module and qualified name, or the name alone.
_ADVICE: Final = {
    "hand over the path, and open it where it is used": """
        _io._IOBase tempfile._TemporaryFileWrapper codecs.StreamReaderWriter
        zipfile.ZipFile tarfile.TarFile _csv.reader _csv.writer mmap.mmap
        posix.ScandirIterator posix.DirEntry nt.ScandirIterator nt.DirEntry
        """,
    "take one of a multiprocessing.Manager(), which can be handed over": """
        multiprocessing.queues.Queue multiprocessing.queues.SimpleQueue
        multiprocessing.synchronize.SemLock multiprocessing.synchronize.Condition
        multiprocessing.synchronize.Event multiprocessing.sharedctypes.SynchronizedBase
        """,
    f"it works in one process only: make one {_IN_EACH}": """
        _thread.lock _thread.RLock threading.Condition threading.Event
        threading.Semaphore threading.Barrier
        """,
    "it works in one process only: hand over a list of its items": """
        queue.Queue _queue.SimpleQueue
        """,
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
    for kind in type(part).__mro__:
        # database drivers name their connections alike
        for name in (f"{kind.__module__}.{kind.__qualname__}", kind.__name__.lower()):
            if name in _BY_KIND:
                return _BY_KIND[name]
    return None
