"""The state of the coordinator's process that workers take over, before they load handlers.

It is what is cheap to ask for and safe to set; the README has a table. `multiprocessing` itself
sets `sys.path`, `sys.argv` and the working directory.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import sys
import time
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from evproc_pool.protocol.path_modules import (
    PathModules,
    modules_by_value,
    names_in,
    path_modules,
    take_over,
)
from evproc_pool.serialization.basics import ThisProcess

if TYPE_CHECKING:
    import decimal

#: Native libraries read these when they are loaded.
THREAD_VARIABLES: Final = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)

# Modules that have loaded such libraries.
_NATIVE: Final = frozenset(("numpy", "torch"))

_NUMPY_ERRORS: Final = {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"}


class ProcessState(NamedTuple):
    """See the module's text; None: there is nothing to take over."""

    environment: dict[str, str]
    limits_threads: bool
    umask: int | None
    recursion_limit: int
    int_digits: int
    locale: str | None
    decimal: decimal.Context | None
    warning_filters: list[Any]
    numpy_errors: dict[str, str] | None
    path_modules: PathModules
    modules_by_value: dict[str, bytes]
    is_elsewhere: bool = False  # of another machine

    def elsewhere(self) -> ProcessState:
        """What a worker on another machine takes over: no environment, but the thread limit."""
        limits = {name: self.environment[name] for name in THREAD_VARIABLES if self.limits_threads}
        return self._replace(environment=limits, umask=None, is_elsewhere=True)

    def apply(self) -> None:
        """Give it to this process, if that is a worker."""
        if self.decimal is not None:
            # of this thread, so also for a simulated worker
            importlib.import_module("decimal").setcontext(self.decimal)
        if not ThisProcess.is_worker:
            return
        take_over(self.path_modules, self.modules_by_value)
        self._set_environment()
        if self.umask is not None:
            os.umask(self.umask)
        sys.setrecursionlimit(self.recursion_limit)
        sys.set_int_max_str_digits(self.int_digits)
        if self.locale is not None:
            locale = importlib.import_module("locale")
            with contextlib.suppress(locale.Error):
                locale.setlocale(locale.LC_ALL, self.locale)
        warnings.resetwarnings()  # Python's caches notice it
        filters = [_put_back_main(each) for each in self.warning_filters]
        warnings.filters[:] = filters  # type: ignore[index]  # it is a list
        if self.numpy_errors is not None:
            importlib.import_module("numpy").seterr(**self.numpy_errors)

    def _set_environment(self) -> None:
        had = {**os.environ}
        if not self.is_elsewhere:
            for name in had.keys() - self.environment.keys():
                del os.environ[name]
        os.environ.update(self.environment)
        if had.get("TZ") != os.environ.get("TZ") and hasattr(time, "tzset"):
            time.tzset()
        if self.limits_threads:
            set_thread_limit(int(os.environ[THREAD_VARIABLES[0]]), had)


def set_thread_limit(most: int, had: dict[str, str] | None = None) -> None:
    """Limit the threads of native libraries in this process, a worker or a forkserver.

    `had` is the environment with which this process has loaded its modules.
    """
    limit = thread_variables(most)
    os.environ.update(limit)
    if had is None or limit.items() <= had.items() or _NATIVE.isdisjoint(sys.modules):
        return
    with contextlib.suppress(ImportError):  # the libraries are loaded already
        importlib.import_module("threadpoolctl").threadpool_limits(most)


def thread_variables(most: int) -> dict[str, str]:
    """The environment variables that limit the threads of native libraries."""
    return dict.fromkeys(THREAD_VARIABLES, str(most))


def current_state(native_threads: int, functions: Iterable[object]) -> ProcessState:
    """The state of this process and this thread, for workers that get some functions.

    `native_threads` is a worker's limit of the threads of native libraries; 0: none.
    """
    context = locale = numpy_errors = None
    # `names_in`: a lazy module has none of them before it is executed
    if "getcontext" in (names := names_in(sys.modules.get("decimal"))):
        context = names["getcontext"]().copy()
        context.clear_flags()
    if "setlocale" in (names := names_in(sys.modules.get("locale"))):
        locale = names["setlocale"](names["LC_ALL"])
    errors: dict[str, str] = names_in(sys.modules.get("numpy")).get("geterr", dict)()
    # a worker lacks the function that "call" and "log" need
    if errors and errors != _NUMPY_ERRORS and {"call", "log"}.isdisjoint(errors.values()):
        numpy_errors = errors
    return ProcessState(
        {**os.environ, **(thread_variables(native_threads) if native_threads else {})},
        native_threads > 0,
        _umask(),
        sys.getrecursionlimit(),
        sys.get_int_max_str_digits(),
        locale,
        context,
        # a worker would have to import the module of any other category
        [_take_out_main(each) for each in warnings.filters if _is_built_in(each[2])],
        numpy_errors,
        path_modules(),
        modules_by_value(functions),
    )


def _is_built_in(category: object) -> bool:
    """Whether a category of warnings is: a class, or a tuple, as `issubclass` takes them."""
    if isinstance(category, tuple):
        return all(map(_is_built_in, category))
    return getattr(category, "__module__", None) == "builtins"


def _take_out_main(each: tuple[Any, ...]) -> tuple[Any, ...]:
    """Put `True` into a filter of warnings in the place of the main script's name.

    One of Python's own filters has it. In a pickle it looks like a reference to the main script,
    and the whole state would go by value: each worker would import cloudpickle.
    """
    return (*each[:3], True, *each[4:]) if each[3] == "__main__" else each


def _put_back_main(each: tuple[Any, ...]) -> tuple[Any, ...]:
    """Undo `_take_out_main`."""
    return (*each[:3], "__main__", *each[4:]) if each[3] is True else each


def _umask() -> int | None:
    """The umask, where it can be read without setting it, which other threads would notice."""
    try:
        with open("/proc/self/status", "rb") as file:  # noqa: PTH123 - pathlib is slow to import
            status = file.read()
    except OSError:
        return None
    found = re.search(rb"^Umask:\s*([0-7]+)", status, re.MULTILINE)
    return None if found is None else int(found[1], 8)
