"""What a forkserver imports before it forks: what every worker needs, once for all of them.

A worker that is forked then has its handlers' modules imported already, and is ready in
milliseconds however long these take. The forkserver imports `preload`, which calls `run`
here. Which modules to import stands behind it in the forkserver's own list, as names
that cannot be imported (`entries`): whatever a module raises is caught here, and left
for the worker to find and to tell. A forkserver by itself passes over an `ImportError`
only, and dies of others.

What is imported once is the same for all workers. Two things are seen to: a module
whose source has changed since is imported anew (`refresh`), and NumPy's global
generator is seeded anew, as Python itself does with `random`'s.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path
from types import FrameType, ModuleType
from typing import Final, NamedTuple

_PRELOAD: Final = "evproc_pool.preload"
_SEPARATOR: Final = ":"


class _Source(NamedTuple):
    """The source file of a module, and what tells whether it has changed."""

    path: str
    mtime_ns: int
    size_bytes: int


# The application's own modules that were imported here, and not those that are
# installed: nobody edits these while a program runs, and not all can be imported twice.
_sources: Final[dict[str, _Source]] = {}


def entries(modules: Iterable[str]) -> list[str]:
    """What a forkserver is told to import, so that it imports these."""
    return [_PRELOAD, *[f"{_PRELOAD}{_SEPARATOR}{name}" for name in modules]]


def modules_of(funcs: Iterable[object]) -> list[str]:
    """The modules that callables were imported from, each once, in order."""
    names = []
    for func in funcs:
        inner = func
        while hasattr(inner, "func"):
            inner = inner.func  # a partial
        name = getattr(inner, "__module__", None)
        # what runs as a script, or was made by hand, cannot be imported by its name
        if isinstance(name, str) and getattr(sys.modules.get(name), "__spec__", None):
            names.append(name)
    return [name for name in dict.fromkeys(names) if name not in ("__main__", "__mp_main__")]


def refresh() -> None:
    """In a worker that was forked: see to what must not be the same in all of them."""
    if any(_source_of(sys.modules.get(name)) != source for name, source in _sources.items()):
        # a module that has not changed may refer to one that has
        for name in _sources:
            sys.modules.pop(name, None)
    random = sys.modules.get("numpy.random")
    if random is not None:
        random.seed()


def _source_of(module: ModuleType | None) -> _Source | None:
    path = getattr(module, "__file__", None)
    if not isinstance(path, str):
        return None
    try:
        status = Path(path).stat()
    except (OSError, ValueError):
        return None
    return _Source(path, status.st_mtime_ns, status.st_size)


def run() -> None:
    """In a forkserver that is about to begin: import what its workers need."""
    frame = _forkservers_frame()
    if frame is None:
        return
    # as a forkserver does itself from Python 3.13 on
    # (https://github.com/python/cpython/issues/117378)
    sys.path[:] = frame.f_locals.get("sys_path") or sys.path
    before = set(sys.modules)
    # Ctrl-C reaches the whole process group; until its loop begins, a forkserver would
    # die of it, with a traceback
    interrupted = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        for name in ("evproc_pool.worker", *_named_in(frame.f_locals["preload"])):
            with contextlib.suppress(BaseException):
                __import__(name)
    finally:
        signal.signal(signal.SIGINT, interrupted)
    installed = [sysconfig.get_paths()[kind] for kind in ("stdlib", "purelib", "platlib")]
    for name in set(sys.modules) - before:
        source = _source_of(sys.modules[name])
        if source is not None and not source.path.startswith((*installed, _OURS)):
            _sources[name] = source


_OURS: Final = str(Path(__file__).parent)


def _named_in(preload: Iterable[str]) -> list[str]:
    """The modules that stand there as `entries`."""
    prefix = _PRELOAD + _SEPARATOR
    return [name[len(prefix) :] for name in preload if name.startswith(prefix)]


def _forkservers_frame() -> FrameType | None:
    """The frame of the forkserver that is importing `preload`, if one is."""
    frame: FrameType | None = sys._getframe()  # noqa: SLF001 - it tells its list to nobody
    while frame is not None:
        is_its = frame.f_globals.get("__name__") == "multiprocessing.forkserver"
        if is_its and isinstance(frame.f_locals.get("preload"), list):
            return frame
        frame = frame.f_back
    return None
