"""What a forkserver imports before it forks: what every worker needs, once for all of them.

A worker that is forked has these modules already, and is ready in milliseconds however
long their import takes. The forkserver imports `preload`, which calls `run`
here. Which modules to import stands behind it in the forkserver's own list, as names
that cannot be imported (`entries`): whatever a module raises is caught here, and left
for the worker to find and to tell. A forkserver by itself passes over an `ImportError`
only, and dies of others.

By default that is NumPy and SciPy, where this program has imported them (`libraries`), and
nothing else: what a module makes at its import would be the same in every worker, a
random generator, a lock or a connection for example. On request it is the handlers'
modules (`modules_of`). What was imported once stays as it is. So then the coordinator
remembers what the sources looked like (`Sources`), and starts workers in another way
where one has changed since.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from multiprocessing import process
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, Final, NamedTuple

from evproc_pool.ipc import parent_death

_PRELOAD: Final = "evproc_pool.backends.local.preload"
# Of names that stand in the forkserver's list for us, and cannot be imported.
_PREFIX: Final = f"{_PRELOAD}:"

# Which workers need for handlers of the main script, by the names that this has.
_BY_VALUE: Final = "evproc_pool.serialization.by_value"
_MAIN: Final = ("__main__", "__mp_main__")

# So many partials in each other are looked through for the function.
_DEEPEST: Final = 10


def entries(modules: Iterable[str], anchor: str) -> list[str]:
    """What a forkserver is told to import, so that it imports these.

    Args:
        modules: Their names.
        anchor: The name of the `Anchor` on which it hangs while it does.
    """
    names = (anchor, *modules)
    return [_PRELOAD, *[_PREFIX + name for name in names]]


def without_entries(preload: Iterable[str]) -> list[str]:
    """What others have told a forkserver to import.

    A process that was forked while its parent started a worker has the parent's `entries`.
    """
    names = list(preload)
    return [
        name
        for name, next_name in zip(names, [*names[1:], ""], strict=True)
        if not name.startswith(_PREFIX) and not (name == _PRELOAD and next_name.startswith(_PREFIX))
    ]


def chosen(funcs: Sequence[object], preload: bool | None) -> list[str]:
    """What a forkserver is to import for these handlers.

    Args:
        funcs: The handlers' functions.
        preload: See `PoolProcessor`.
    """
    own = own_modules(funcs)
    if preload is None:
        return own + libraries()
    return own + modules_of(funcs) if preload else own


def own_modules(funcs: Iterable[object]) -> list[str]:
    """What of this package workers need besides, that takes a while to import."""
    in_main = any(getattr(func, "__module__", None) in _MAIN for func in funcs)
    return [_BY_VALUE] if in_main else []


def modules_of(funcs: Iterable[object]) -> list[str]:
    """The modules that callables were imported from, each once, in order."""
    names = []
    for func in funcs:
        inner = func
        for _ in range(_DEEPEST):
            inner = getattr(inner, "func", inner)  # of a partial
        name = getattr(inner, "__module__", None)
        # what runs as a script, or was made by hand, cannot be imported by its name
        if isinstance(name, str) and getattr(sys.modules.get(name), "__spec__", None):
            names.append(name)
    return [name for name in dict.fromkeys(names) if name not in _MAIN]


def libraries() -> list[str]:
    """The modules that may be imported for any handlers, of those that this program has."""
    modules = sys.modules.copy()
    # a key may be anything, and a module a stand-in or None, which forbids its import
    names = [name for name in modules if isinstance(name, str) and is_of_library(name)]
    imported = {name for name in names if type(modules[name]) is ModuleType}
    return [name for name in names if {name, name.partition(".")[0]} <= imported]


def may_change(name: str) -> bool:
    """Whether the source of a module may change while a program runs that imports it."""
    return name != _BY_VALUE and not is_of_library(name)


def is_of_library(name: str) -> bool:
    """Whether a module of that name is one of those."""
    package, _, module = name.partition(".")
    return package in _LIBRARIES and not (module.startswith("_") or "." in module)


# What takes long to import and makes nothing then that processes must not share, but for
# NumPy's global generator, see `_seed_numpy`.
_LIBRARIES: Final = ("numpy", "scipy")


class _Source(NamedTuple):
    """A source file, and what tells whether it has changed."""

    path: str
    mtime_ns: int
    size_bytes: int


class Sources:
    """What the application's own modules look like now, in the coordinator.

    Not those that are installed: nobody edits these while a program runs.
    """

    def __init__(self) -> None:
        self._sources: dict[str, _Source | None] = {}
        for name in list(sys.modules):
            source = _source_of(name)
            if source is not None and not source.path.startswith(_installed()):
                self._sources[name] = source

    @property
    def have_changed(self) -> bool:
        """Whether any of them is another one by now, or was edited."""
        return any(_source_of(name) != source for name, source in self._sources.items())


@functools.cache
def _installed() -> tuple[str, ...]:
    """The standard library, what is installed, and this package itself."""
    import sysconfig  # takes a while, and is seldom needed

    paths = sysconfig.get_paths()
    installed = [f"{Path(paths[kind])}{os.sep}" for kind in ("stdlib", "purelib", "platlib")]
    return (*installed, f"{Path(__file__).parent}{os.sep}")


def _source_of(name: str) -> _Source | None:
    path = None
    with contextlib.suppress(Exception):  # a module may be anything that was put there
        path = getattr(sys.modules.get(name), "__file__", None)
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
    # Ctrl-C reaches the whole process group; until its loop begins, a forkserver would
    # die of it, with a traceback
    interrupted = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        # the application may have put `preload` there itself, with nothing behind it
        anchor, *names = _named_in(frame.f_locals["preload"]) or [""]
        with (
            parent_death.ends_with_parent(anchor) if anchor else contextlib.nullcontext(),
            _as_a_child(frame.f_locals.get("alive_r")),
        ):
            for name in ("evproc_pool.worker.loop", *names):
                with contextlib.suppress(BaseException):
                    __import__(name)
    finally:
        signal.signal(signal.SIGINT, interrupted)
    os.register_at_fork(after_in_child=functools.partial(_seed_numpy, os.getpid()))
    # NumPy has threads of native code, which are prepared for it; others were asked for
    warnings.filterwarnings(
        "ignore", ".*multi-threaded, use of fork", DeprecationWarning, frame.f_globals["__name__"]
    )


@contextlib.contextmanager
def _as_a_child(alive: int | None) -> Iterator[None]:
    """Let modules that are imported see that this is not the program's main process.

    Args:
        alive: A descriptor that becomes readable when that ends.
    """
    inner: Any = process
    me, name = inner.current_process(), inner.current_process().name
    try:
        me.name = "forkserver"
        if alive is not None:
            inner._parent_process = inner._ParentProcess(name, os.getppid(), alive)  # noqa: SLF001
        yield
    finally:
        me.name, inner._parent_process = name, None  # noqa: SLF001


def _seed_numpy(forkserver: int) -> None:
    """What Python itself does with `random` in a process that was forked.

    The forkserver's processes would all draw the same numbers otherwise, also those of
    others than us. What a handler forks is its own matter.

    Args:
        forkserver: Its pid.
    """
    random = sys.modules.get("numpy.random")
    if random is not None and os.getppid() == forkserver:
        random.seed()


def _named_in(preload: Iterable[str]) -> list[str]:
    """The modules that stand there as `entries`."""
    return [name[len(_PREFIX) :] for name in preload if name.startswith(_PREFIX)]


def _forkservers_frame() -> FrameType | None:
    """The frame of the forkserver that is importing `preload`, if one is."""
    frame: FrameType | None = sys._getframe()  # noqa: SLF001 - it tells its list to nobody
    while frame is not None:
        is_its = frame.f_globals.get("__name__") == "multiprocessing.forkserver"
        if is_its and isinstance(frame.f_locals.get("preload"), list):
            return frame
        frame = frame.f_back
    return None
