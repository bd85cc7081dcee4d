"""The crash table: each way to fail, at each place, by each start method.

In every cell one event of many fails as the table says and all others are well; the
pool works on, and its workers are as many as before.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import psutil
import pytest

from evproc import Event, StopProcessing, want
from evproc_pool import (
    EventTimeoutError,
    PoolBrokenError,
    PoolProcessor,
    SerializationError,
    WorkerLostError,
)
from tests.support import actions
from tests.support.helpers import PATIENCE_SECONDS, error_of, register_all, still_alive, warm
from tests.support.sizes import BARS

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")

_TIMEOUT_SECONDS: Final = 0.5

# In full by each of them: a worker takes a while to start by the others.
_START_METHODS: Final = [
    method
    for method in ("forkserver", "spawn", "fork")
    if method in multiprocessing.get_all_start_methods()
    and (BARS or method == multiprocessing.get_all_start_methods()[-1])
]


class _Unrelated(BaseException):
    """No `Exception`: what nobody is prepared for."""


def _hang() -> None:
    time.sleep(1000)


def _raise(error: BaseException) -> None:
    raise error


_WAYS: Final[dict[str, Callable[[], Any]]] = {
    "an exception": lambda: _raise(LookupError("as the table says")),
    "SystemExit": lambda: _raise(SystemExit(3)),
    "KeyboardInterrupt": lambda: _raise(KeyboardInterrupt()),
    "a BaseException": lambda: _raise(_Unrelated()),
    "MemoryError": lambda: _raise(MemoryError()),
    "endless recursion": lambda: fail("endless recursion"),
    "os._exit": lambda: os._exit(3),
    "SIGKILL": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "SIGALRM": lambda: os.kill(os.getpid(), signal.SIGALRM),
    "abort": os.abort,
    "a crash": lambda: ctypes.string_at(0),
    "a hang": _hang,
}

_DEATHS: Final = {"os._exit", "SIGKILL", "SIGALRM", "abort", "a crash"}


def fail(way: str) -> None:
    """Fail in one of the ways; what is about that must be found by name in a worker."""
    _WAYS[way]()


class OnPickling:
    """Fails when it is pickled."""

    def __init__(self, way: str) -> None:
        self.way = way

    def __reduce__(self) -> Any:
        fail(self.way)
        return OnPickling, (self.way,)


class OnUnpickling:
    """Fails when it is rebuilt, but not in the process that made it."""

    def __init__(self, way: str, home: int | None = None) -> None:
        self.way = way
        self.home = os.getpid() if home is None else home
        if self.home != os.getpid():
            fail(way)

    def __reduce__(self) -> Any:
        return OnUnpickling, (self.way, self.home)


class Try(Event):
    """Fails in a way at a place."""

    name = "try"

    def __init__(self, place: str = "", way: str = "", load: object = None) -> None:
        super().__init__()
        self.place = place
        self.way = way
        self.load = load


@want("try")
def attempt(proc: Any, ev: Try) -> Iterable[Event] | None:
    """The handler."""
    match ev.place:
        case "the handler":
            fail(ev.way)
        case "pickling the value":
            raise StopProcessing(OnPickling(ev.way))
        case "pickling a follow-up":
            return [Try(), Try(load=OnPickling(ev.way))]
        case "a generator":
            return _follow_ups(ev.way)
    return None


def _follow_ups(way: str) -> Iterator[Event]:
    yield Try()
    fail(way)


def _event(place: str, way: str) -> Try:
    load = OnUnpickling(way) if place == "unpickling the event" else None
    return Try(place, way, load)


def _expected(place: str, way: str) -> type[BaseException]:
    if way in _DEATHS:
        return WorkerLostError
    if way == "a hang":
        return EventTimeoutError
    if place in ("the handler", "a generator"):
        kinds: dict[str, type[BaseException]] = {
            "SystemExit": SystemExit,
            "KeyboardInterrupt": KeyboardInterrupt,
            "a BaseException": _Unrelated,
            "MemoryError": MemoryError,
            "endless recursion": RecursionError,
        }
        return kinds.get(way, LookupError)
    return SerializationError


@pytest.fixture(params=_START_METHODS)
def pool(request: pytest.FixtureRequest) -> Iterator[PoolProcessor]:
    # only a hang is to be cut short: on a busy machine a death may take longer than that
    is_hang = request.node.callspec.params["way"] == "a hang"
    seconds = _TIMEOUT_SECONDS if is_hang else PATIENCE_SECONDS
    with PoolProcessor(2, mp_context=request.param, event_timeout=seconds, preload=False) as pool:
        register_all(pool, [attempt, actions.act])
        yield pool


_PLACES: Final = [
    "unpickling the event",
    "the handler",
    "a generator",
    "pickling the value",
    "pickling a follow-up",
]


# In full every way at every place; by default those that differ.
_USUAL: Final = {"an exception", "KeyboardInterrupt", "os._exit", "SIGKILL", "a crash", "a hang"}

_CELLS: Final = [
    (place, way)
    for place in _PLACES
    for way in _WAYS
    if BARS or place == "the handler" or way in _USUAL
]


@pytest.mark.parametrize(("place", "way"), _CELLS)
def test_a_cell(pool: PoolProcessor, place: str, way: str) -> None:
    processes = len(warm(pool))
    events = [_event(place, way) if number == 11 else Try() for number in range(24)]
    values = pool.process_many(events, return_exceptions=True)
    error = values.pop(11)
    assert values == [None] * 23
    assert type(error) is _expected(place, way), error
    assert len(warm(pool)) == processes


@pytest.mark.parametrize("way", sorted(_DEATHS - {"os._exit", "abort", "a crash"}))
def test_while_idle(pool: PoolProcessor, way: str) -> None:
    pids = warm(pool)
    workers = [psutil.Process(pid) for pid in pids]
    for pid in pids:
        os.kill(pid, getattr(signal, way))
    assert not still_alive(workers)
    assert pool.process_many([Try() for _ in range(24)]) == [None] * 24
    assert warm(pool).isdisjoint(pids)


def test_while_idle_and_the_application_waits_for_its_children() -> None:
    with PoolProcessor(1, mp_context="spawn") as pool:
        register_all(pool, [attempt, actions.act])
        (pid,) = warm(pool)
        os.kill(pid, signal.SIGKILL)
        assert os.waitpid(pid, 0)[0] == pid
        assert pool.process_many([Try() for _ in range(24)]) == [None] * 24
        assert warm(pool) != {pid}


@pytest.mark.parametrize("method", _START_METHODS)
@pytest.mark.parametrize(
    "way", [way for way in _WAYS if way != "a hang" and (BARS or way in _USUAL)]
)
def test_in_the_initializer(method: str, way: str) -> None:
    with PoolProcessor(1, mp_context=method, initializer=fail, initargs=[way]) as pool:
        register_all(pool, [attempt])
        error = error_of(lambda: pool.process(Try()))
    assert isinstance(error, PoolBrokenError)
    if way in _DEATHS:
        assert "died before they were ready" in str(error)
    else:
        assert "could not make its registry" in str(error)
        assert error.__cause__ is not None
