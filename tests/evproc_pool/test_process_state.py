"""Workers take over the state of the process that is cheap to ask for and safe to set."""

from __future__ import annotations

import decimal
import locale
import multiprocessing
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evproc_pool import PoolProcessor
from evproc_pool.protocol import process_state
from evproc_pool.protocol.process_state import THREAD_VARIABLES
from evproc_pool.serialization import pickling
from evproc_pool.testing import simulated_pool
from tests.support import actions
from tests.support.actions import Do
from tests.support.helpers import run_script

_METHODS = multiprocessing.get_all_start_methods()


def _ask(functions: list[Callable[[], object]], **options: Any) -> list[object]:
    """The results of functions in a worker."""
    with PoolProcessor(workers=1, **options) as pool:
        pool.register(actions.act)
        return pool.process_many([Do("call", function) for function in functions])


@pytest.fixture(autouse=True)
def _unlimited(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in THREAD_VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def _changed_state(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with decimal.localcontext(), np.errstate(divide="raise"), warnings.catch_warnings():
        decimal.getcontext().prec = 50
        warnings.simplefilter("ignore", UserWarning)
        monkeypatch.setenv("EVPROC_TEST_ADDED", "yes")
        monkeypatch.setenv("TZ", "UTC+3")
        before = sys.getrecursionlimit(), sys.get_int_max_str_digits(), os.umask(0o027)
        numbers = locale.setlocale(locale.LC_NUMERIC)
        sys.setrecursionlimit(5000)
        sys.set_int_max_str_digits(0)
        locale.setlocale(locale.LC_NUMERIC, "C.UTF-8")
        try:
            yield
        finally:
            sys.setrecursionlimit(before[0])
            sys.set_int_max_str_digits(before[1])
            os.umask(before[2])
            locale.setlocale(locale.LC_NUMERIC, numbers)


def _state() -> dict[str, object]:
    mask = os.umask(0)
    os.umask(mask)
    return {
        "decimal": str(decimal.Decimal(1) / 3),
        "recursion limit": sys.getrecursionlimit(),
        "digits": sys.get_int_max_str_digits(),
        "ignored": ("ignore", None, UserWarning, None, 0) in warnings.filters,
        "NumPy": np.geterr(),
        "umask": mask,
        "locale": locale.setlocale(locale.LC_NUMERIC),
        "added": os.environ.get("EVPROC_TEST_ADDED"),
        "removed": os.environ.get("EVPROC_TEST_REMOVED"),
        "time zone": os.environ.get("TZ"),
    }


@pytest.mark.skipif(sys.platform != "linux", reason="the umask cannot be read")
@pytest.mark.parametrize("method", _METHODS)
def test_workers_take_over_state(
    monkeypatch: pytest.MonkeyPatch, method: str, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setenv("EVPROC_TEST_REMOVED", "not yet")
    assert _ask([_state], mp_context=method)  # a forkserver has this environment
    monkeypatch.delenv("EVPROC_TEST_REMOVED")
    request.getfixturevalue("_changed_state")
    here = _state()
    state, offset = _ask([_state, _utc_offset], mp_context=method)
    assert state == here
    assert offset == (time.timezone if method == "fork" else 3 * 3600)


def test_workers_on_other_machines_keep_their_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limited = process_state.current_state(3, []).elsewhere()
    assert limited.environment == dict.fromkeys(THREAD_VARIABLES, "3")
    assert limited.umask is None
    state = process_state.current_state(0, []).elsewhere()
    assert state.environment == {}
    monkeypatch.setenv("EVPROC_TEST_ADDED", "there")
    state._set_environment()
    assert os.environ["EVPROC_TEST_ADDED"] == "there"


def _utc_offset() -> int:
    return time.timezone


def test_a_simulated_worker_has_the_decimal_context() -> None:
    with decimal.localcontext(prec=50), simulated_pool(1) as pool:
        pool.register(actions.act)
        assert pool.process(Do("call", decimal.getcontext)).prec == 50


class _OwnWarning(UserWarning):
    pass


def test_filters_for_warnings_of_other_modules_stay_here() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", _OwnWarning)
        state = process_state.current_state(0, [])
    assert all(each[2] is not _OwnWarning for each in state.warning_filters)


def test_a_filter_may_have_several_categories() -> None:
    with warnings.catch_warnings():
        for each in ((UserWarning, DeprecationWarning), (UserWarning, _OwnWarning)):
            warnings.simplefilter("error", each)
        state = process_state.current_state(0, [])
    categories = [each[2] for each in state.warning_filters]
    assert (UserWarning, DeprecationWarning) in categories
    assert (UserWarning, _OwnWarning) not in categories


def _has_filter_for_main() -> bool:
    filters: list[Any] = [*warnings.filters]
    return ("default", None, ResourceWarning, "__main__", 0) in filters


def test_a_filter_for_the_main_script_sends_nothing_by_value() -> None:
    with warnings.catch_warnings():
        # as in Python's own filters: a text, where `filterwarnings` makes a pattern
        warnings.filters.insert(0, ("default", None, ResourceWarning, "__main__", 0))  # type: ignore[attr-defined]  # it is a list
        state = process_state.current_state(0, [])
        assert pickling.by_reference(state) is not None
        assert _has_filter_for_main()
        assert _ask([_has_filter_for_main]) == [True]
    assert not _has_filter_for_main()


# --- native threads ---


def _variables() -> list[str | None]:
    return [os.environ.get(name) for name in THREAD_VARIABLES]


@pytest.mark.parametrize("method", _METHODS)
def test_workers_share_the_cpus(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    monkeypatch.setattr("evproc_pool.options.usable_cpus", lambda: 8)
    with PoolProcessor(workers=3, mp_context=method) as pool:
        pool.register(actions.act)
        assert pool.process(Do("call", _variables)) == ["2"] * len(THREAD_VARIABLES)
    assert _variables() == [None] * len(THREAD_VARIABLES)


@pytest.mark.parametrize(("chosen", "expected"), [(0, None), (5, "5"), (None, "1")])
def test_native_threads_are_limited_on_request(chosen: int | None, expected: str | None) -> None:
    with PoolProcessor(workers=1000, native_threads=chosen) as pool:
        pool.register(actions.act)
        assert pool.process(Do("call", _variables)) == [expected] * len(THREAD_VARIABLES)


def test_a_limit_of_the_user_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    expected = [None if name != "OMP_NUM_THREADS" else "7" for name in THREAD_VARIABLES]
    assert _ask([_variables]) == [expected]


_THREADS = """
import os
import numpy as np
from evproc import Event, StopProcessing
from evproc_pool import PoolProcessor

class Ask(Event):
    name = "ask"

def threads():
    return len(os.listdir("/proc/self/task"))

def count(proc, ev):
    before = threads()
    matrix = np.ones((600, 600))
    matrix @ matrix
    raise StopProcessing(threads() - before)

with PoolProcessor(workers=1, native_threads=1) as pool:
    pool.register(count)
    print(pool.process(Ask()))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")
def test_a_limited_library_starts_no_threads(tmp_path: Path) -> None:
    assert run_script(_THREADS, tmp_path) == "0\n"


def test_a_loaded_library_is_limited_by_threadpoolctl(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    module = type(sys)("threadpoolctl")
    vars(module)["threadpool_limits"] = calls.append
    monkeypatch.setitem(sys.modules, "threadpoolctl", module)
    monkeypatch.setattr(os, "environ", {})
    process_state.set_thread_limit(3)  # in a forkserver: nothing is loaded yet
    process_state.set_thread_limit(3, {**os.environ})  # its worker
    assert calls == []
    process_state.set_thread_limit(2, {**os.environ})  # of another pool
    assert calls == [2]
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    process_state.set_thread_limit(1, {})  # it is not installed
    assert set(os.environ.values()) == {"1"}
