"""No worker can be had: one error that says why, and a pool that is closed."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from evproc_pool import (
    PoolBrokenError,
    PoolClosedError,
    PoolProcessor,
    RegistryMismatchError,
    RemoteTraceback,
    SerializationError,
    WorkerLostError,
)
from evproc_pool.backends.local.processes import LocalBackend
from evproc_pool.protocol.registry_spec import Config
from tests.support import actions, fails_in_workers, two_faced
from tests.support.actions import Do
from tests.support.helpers import (
    PATIENCE_SECONDS,
    Background,
    close_in_time,
    error_of,
    install,
    installed,
    register_all,
    warm,
)


@pytest.fixture
def make() -> Iterator[Callable[..., PoolProcessor]]:
    """Makes pools of two workers, which are closed at the end whatever happens."""
    made: list[PoolProcessor] = []

    def make(*handlers: Any, **options: Any) -> PoolProcessor:
        pool: PoolProcessor = register_all(
            PoolProcessor(workers=2, **options), handlers or [actions.act]
        )
        made.append(pool)
        return pool

    yield make
    for pool in made:
        close_in_time(pool)


Make = Callable[..., PoolProcessor]


def _is_broken(pool: PoolProcessor) -> PoolBrokenError:
    """The pool breaks, whatever is asked of it says so, and it can be closed."""
    error = error_of(lambda: pool.process(Do("stop", 1)))
    assert isinstance(error, PoolBrokenError)
    again = error_of(lambda: pool.process_many([Do("stop", 1)], return_exceptions=True))
    assert isinstance(again, (PoolBrokenError, PoolClosedError))
    assert isinstance(error_of(lambda: pool.submit(Do("stop", 1))), type(again))
    return error


# --- initializers ---


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt, actions.Leaves])
def test_an_initializer_that_raises(make: Make, error: type[BaseException]) -> None:
    broken = _is_broken(make(initializer=actions.raise_it, initargs=(error, "set-up")))
    assert "initializer" in str(broken)
    assert f"{error.__name__}: set-up" in str(broken)
    assert type(broken.__cause__) is error
    assert isinstance(broken.__cause__.__cause__, RemoteTraceback)
    assert "in raise_it" in str(broken.__cause__.__cause__)


def test_an_initializer_that_ends_the_process(make: Make) -> None:
    broken = _is_broken(make(initializer=os._exit, initargs=(7,)))
    assert "exit code 7" in str(broken)
    assert "before they were ready" in str(broken)


@pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")
def test_an_initializer_that_is_killed(make: Make) -> None:
    broken = _is_broken(make(initializer=signal.raise_signal, initargs=(signal.SIGKILL,)))
    assert "SIGKILL" in str(broken)


def test_one_worker_that_dies_as_it_starts_is_replaced(make: Make, tmp_path: Path) -> None:
    pool = make(initializer=actions.die_at_first, initargs=(str(tmp_path / "flag"),))
    assert pool.process_many([Do("stop", place) for place in range(10)]) == list(range(10))
    assert len(warm(pool)) == 2


@pytest.mark.parametrize("workers", [0, 2])
def test_the_initializer_is_called_before_the_first_event(workers: int) -> None:
    with PoolProcessor(workers=workers, initializer=actions.set_state, initargs=[5]) as pool:
        register_all(pool, [actions.act])
        assert pool.process_many([Do("call", actions.get_state)] * 4) == [5] * 4
    actions._state.clear()


def test_without_workers_the_initializer_is_called_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    pool = PoolProcessor(workers=0, initializer=actions.log, initargs=(str(log), "called"))
    register_all(pool, [actions.act])
    pool.process_many([Do("nothing")] * 3)
    pool.submit(Do("nothing")).result()
    assert log.read_text() == "called\n"


# --- handlers ---


def test_handlers_that_cannot_be_pickled_are_named(make: Make) -> None:
    lock = threading.Lock()

    def guarded(proc: object, ev: object) -> None:
        with lock:
            pass

    pool = make(guarded)
    with pytest.raises(SerializationError, match="handler 'guarded'") as caught:
        pool.process(Do("nothing"))
    assert "at variable 'lock' (lock)" in str(caught.value)
    assert "make one where it is used, or once in each worker" in str(caught.value)
    # whatever is asked of it, it says so, and leaves nothing behind
    with pytest.raises(SerializationError):
        pool.process_many([Do("nothing")])
    with pytest.raises(SerializationError):
        pool.submit(Do("nothing"))


def test_an_initializer_argument_that_cannot_be_pickled_is_named(make: Make) -> None:
    pool = make(initializer=print, initargs=(threading.Lock(),))
    with pytest.raises(
        SerializationError, match=r"an argument of the initializer.* at \[0\]"
    ) as caught:
        pool.process(Do("nothing"))
    assert "(lock)" in str(caught.value)


def test_a_handler_whose_module_cannot_be_imported_in_a_worker(make: Make) -> None:
    broken = _is_broken(make(fails_in_workers.handler))
    assert "ImportError: not in a worker" in str(broken)


def test_a_handler_that_is_missing_in_a_worker(make: Make) -> None:
    assert "only_here" in str(_is_broken(make(two_faced.missing_in_workers())))


def test_a_registry_that_differs_in_a_worker(make: Make) -> None:
    broken = _is_broken(make(two_faced.steady, two_faced.changes_its_name))
    assert isinstance(broken.__cause__, RegistryMismatchError)
    for text in (str(broken), str(broken.__cause__)):
        assert "handler 1: 'changes_its_name' (tests.support.two_faced.changes_its_name)" in text
        assert "(tests.support.two_faced.another) in the worker" in text
        assert "steady" not in text


_CODE = "def handle(proc, ev): ..."


def test_another_version_of_a_distribution_in_a_worker(tmp_path: Path) -> None:
    entries = {"pool_tests.versions": {"h": "versioned_mod:handle"}}
    modules = {"versioned_mod": _CODE}
    install(tmp_path / "other", "versioned", "2.0", modules, entries)
    with installed(tmp_path / "here", "versioned", "1.0", modules, entries):
        pool = PoolProcessor(
            workers=2, initializer=actions.put_first, initargs=(str(tmp_path / "other"),)
        )
        pool.load_from("pool_tests.versions")
        broken = _is_broken(pool)
    assert isinstance(broken.__cause__, RegistryMismatchError)
    assert "versioned 1.0" in str(broken)
    assert "versioned 2.0" in str(broken)


def test_an_entry_point_that_cannot_be_imported_in_a_worker(make: Make, tmp_path: Path) -> None:
    code = f"from tests.support.actions import in_worker\nassert not in_worker()\n{_CODE}"
    entries = {"pool_tests.here": {"h": "only_here_mod:handle"}}
    with installed(tmp_path, "only_here_dist", "1.0", {"only_here_mod": code}, entries):
        pool = make()
        pool.load_from("pool_tests.here")
        broken = _is_broken(pool)
        assert "only_here_mod:handle" in str(broken)
        # left out by the worker, it is a difference
        pool = make()
        pool.load_from("pool_tests.here", on_error="skip")
        broken = _is_broken(pool)
    assert "nothing in the worker" in str(broken)


# --- while others wait ---


def test_every_caller_is_told_that_the_pool_is_broken(make: Make) -> None:
    pool = make(initializer=actions.raise_it, initargs=(ValueError, "set-up"))
    futures = [pool.submit(Do("stop", 1)) for _ in range(3)]
    with Background(lambda: pool.process(Do("stop", 1))) as call:
        assert isinstance(call.error(), PoolBrokenError)
    for future in futures:
        assert isinstance(future.exception(PATIENCE_SECONDS), PoolBrokenError)


def test_an_event_that_is_planned_while_the_pool_breaks_ends_too(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = make(
        actions.act, actions.asks, initializer=actions.raise_it, initargs=(ValueError, "set-up")
    )
    first = pool.submit(Do("stop", 1))
    # the filter is asked, and takes its time: as long as the pool needs to break
    monkeypatch.setattr(actions, "hook", lambda ev: first.exception(PATIENCE_SECONDS))
    try:
        second = pool.submit(Do("stop", 2))
    except PoolBrokenError:
        return
    assert isinstance(second.exception(PATIENCE_SECONDS), PoolBrokenError)


# --- the system has no more processes to give ---


def test_no_process_can_be_started(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_process(self: LocalBackend, number: int, config: Config) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(LocalBackend, "start", no_process)
    broken = _is_broken(make())
    assert "Resource temporarily unavailable" in str(broken)
    assert isinstance(broken.__cause__, BlockingIOError)


def test_a_worker_that_cannot_be_started_now_is_started_later(
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = LocalBackend.start
    refused: list[int] = []

    def first_only(self: LocalBackend, number: int, config: Config) -> None:
        if number == 2:
            refused.append(number)
            raise BlockingIOError(11, "Resource temporarily unavailable")
        start(self, number, config)

    monkeypatch.setattr(LocalBackend, "start", first_only)
    pool = make()
    assert pool.process_many([Do("stop", place) for place in range(5)]) == list(range(5))
    assert refused == [2]
    # the system has processes again, which is tried now and then
    assert len(warm(pool)) == 2


def test_a_lost_worker_that_cannot_be_replaced_leaves_the_others_at_work(
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool = make()
    warm(pool)

    def no_process(self: LocalBackend, number: int, config: Config) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(LocalBackend, "start", no_process)
    values = pool.process_many(
        [Do("leave", 3), Do("stop", 1), Do("stop", 2)], return_exceptions=True
    )
    assert isinstance(values[0], WorkerLostError)
    assert values[1:] == [1, 2]
