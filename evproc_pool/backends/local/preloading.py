"""Imports the modules of workers in the forkserver, once for all of them.

A forked worker has these modules already, and is ready in milliseconds however long their
import takes. The forkserver imports `forkserver_entry`, which calls `run` here. The modules to
import stand behind it in the forkserver's own list, as names that cannot be imported (`entries`);
`run` removes them from it.
Whatever a module raises is caught here; the worker finds it again, and reports it. A
forkserver by itself passes over an `ImportError` only, and dies of other errors.

By default these are NumPy and SciPy, if this program has imported them (`libraries`), and
nothing else: a random generator, a lock or a connection that a module makes at its import
would be the same in every worker. On request these are also the handlers' modules
(`modules_of`). Imported modules do not change. So the coordinator remembers the state of the
sources (`Sources`), and starts workers in another way if one has changed since.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Final

from evproc_pool.internals.stdlib_multiprocessing import as_child, forkserver_imports
from evproc_pool.ipc import parent_death
from evproc_pool.protocol.path_modules import names_in
from evproc_pool.protocol.process_state import set_thread_limit
from evproc_pool.protocol.registry_spec import loading_handlers
from evproc_pool.worker.process import END_SIGNALS, leave_signals

_ENTRY: Final = "evproc_pool.backends.local.forkserver_entry"
# Begins our names in the forkserver's list, which cannot be imported.
_PREFIX: Final = f"{_ENTRY}:"

# Workers need this module for handlers of the main script, which has one of these names.
_BY_VALUE: Final = "evproc_pool.serialization.by_value"
_MAIN: Final = ("__main__", "__mp_main__")

# Stands before a number among the modules.
_THREADS: Final = "threads="

# The most partials in each other that are searched for the function.
_DEEPEST: Final = 10


def entries(modules: Iterable[str], anchor: str) -> list[str]:
    """The list for a forkserver that is to import some modules.

    `anchor` is the name of the `Anchor` whose parent death ends it meanwhile.
    """
    return [_ENTRY, *[_PREFIX + name for name in (anchor, *modules)]]


def without_entries(preload: Iterable[str]) -> list[str]:
    """The modules that others want a forkserver to import.

    A process that was forked while its parent started a worker has the parent's `entries`.
    """
    names = list(preload)
    return [
        name
        for name, next_name in zip(names, [*names[1:], ""], strict=True)
        if not name.startswith(_PREFIX) and not (name == _ENTRY and next_name.startswith(_PREFIX))
    ]


def chosen(funcs: Sequence[object], preload: bool | None, threads: int = 0) -> list[str]:
    """The modules that a forkserver is to import for handlers; `preload`: see `PoolProcessor`.

    Before them stands the limit of the threads of native libraries, if there is one.
    """
    own = own_modules(funcs)
    if preload is None:
        own += libraries()
    elif preload:
        own += modules_of(funcs)
    return [f"{_THREADS}{threads}", *own] if threads else own


def own_modules(funcs: Iterable[object]) -> list[str]:
    """The modules of this package that workers need besides, and that import slowly."""
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
        # a script, or a module made by hand, cannot be imported by its name
        if isinstance(name, str) and getattr(sys.modules.get(name), "__spec__", None):
            names.append(name)
    return [name for name in dict.fromkeys(names) if name not in _MAIN]


def libraries() -> list[str]:
    """The modules of this program that a forkserver may import for any handlers."""
    modules = sys.modules.copy()
    # a key may be anything, and a module a stand-in or None, which forbids its import
    names = [name for name in modules if isinstance(name, str) and is_of_library(name)]
    imported = {name for name in names if type(modules[name]) is ModuleType}
    return [name for name in names if {name, name.partition(".")[0]} <= imported]


def may_change(name: str) -> bool:
    """Whether the source of a module may change while a program runs that imports it."""
    return not (name == _BY_VALUE or name.startswith(_THREADS) or is_of_library(name))


def is_of_library(name: str) -> bool:
    """Whether a module is, by its name, one of `_LIBRARIES` or stands directly in one."""
    package, _, module = name.partition(".")
    return package in _LIBRARIES and not (module.startswith("_") or "." in module)


# They import slowly, and make nothing then that processes must not share, except for
# NumPy's global generator; see `_seed_numpy`.
_LIBRARIES: Final = ("numpy", "scipy")


class Sources:
    """The state of the sources of the application's own modules, in the coordinator.

    Installed modules are left out: nobody edits these while a program runs.
    """

    def __init__(self) -> None:
        found = {name: _source_of(name) for name in list(sys.modules)}
        self._sources = {
            name: source
            for name, source in found.items()
            if source is not None and not source[0].startswith(_installed())
        }

    @property
    def have_changed(self) -> bool:
        """Whether any of them was replaced or edited."""
        return any(_source_of(name) != source for name, source in self._sources.items())


@functools.cache
def _installed() -> tuple[str, ...]:
    """The folders of the standard library, of installed packages, and of this package."""
    import sysconfig  # takes a while, and is seldom needed

    paths = sysconfig.get_paths()
    installed = [f"{Path(paths[kind])}{os.sep}" for kind in ("stdlib", "purelib", "platlib")]
    return (*installed, f"{Path(__file__).parent}{os.sep}")


def _source_of(name: str) -> tuple[str, int, int] | None:
    """The path of a module's source file, and what changes with it: its time and its size."""
    path = names_in(sys.modules.get(name)).get("__file__")
    if not isinstance(path, str):
        return None
    try:
        status = Path(path).stat()
    except (OSError, ValueError):
        return None
    return path, status.st_mtime_ns, status.st_size


def run() -> None:
    """Import the modules of workers, in a forkserver that is about to begin."""
    server = forkserver_imports()
    if server is None:
        return
    # as a forkserver does itself from Python 3.13 on
    # (https://github.com/python/cpython/issues/117378)
    sys.path[:] = server.sys_path or sys.path
    # A service manager's SIGTERM and Ctrl-C reach the whole process group. A forkserver would die
    # of the first, and of the other, with a traceback, before its loop begins.
    leave_signals(*END_SIGNALS)
    interrupted = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        # the application may have put our entry there itself, with nothing behind it
        anchor, *names = _named_in(server.preload) or [""]
        # or else it would try to import them, and may have been told to fail then
        server.preload[:] = without_entries(server.preload)
        with (
            parent_death.ends_with_parent(anchor) if anchor else contextlib.nullcontext(),
            as_child(server.alive),
            loading_handlers(),
        ):
            if names and names[0].startswith(_THREADS):
                set_thread_limit(int(names.pop(0).removeprefix(_THREADS)))
            for name in ("evproc_pool.worker.main", *names):
                with contextlib.suppress(BaseException):
                    __import__(name)
    finally:
        signal.signal(signal.SIGINT, interrupted)
    os.register_at_fork(after_in_child=functools.partial(_seed_numpy, os.getpid()))
    # NumPy's threads are of native code, and prepared for it; other modules the user has chosen
    warnings.filterwarnings(
        "ignore", ".*multi-threaded, use of fork", DeprecationWarning, server.module
    )


def _seed_numpy(forkserver: int) -> None:
    """Seed NumPy's global generator in a forked process, as Python itself seeds `random`.

    Otherwise all processes of the forkserver would draw the same numbers, also those that
    others start. A process that a handler forks is left alone: only a direct child of the
    `forkserver`, a pid, is seeded.
    """
    random = sys.modules.get("numpy.random")
    if random is not None and os.getppid() == forkserver:
        random.seed()


def _named_in(preload: Iterable[str]) -> list[str]:
    """The modules in a list of `entries`; first the name of the anchor."""
    return [name[len(_PREFIX) :] for name in preload if name.startswith(_PREFIX)]
