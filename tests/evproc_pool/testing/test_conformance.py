"""The conformance suite, over each backend."""

from __future__ import annotations

import contextlib
import multiprocessing
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import pytest

from evproc import Event
from evproc_pool import PoolProcessor
from evproc_pool.backends import promises
from evproc_pool.testing import Conformance, conformance_promises
from tests.support.helpers import wait_until


class TestForkserver(Conformance):
    promises = promises.LOCAL

    def make_pool(self, **options: Any) -> PoolProcessor:
        return PoolProcessor(2, **{"mp_context": "forkserver", **options})


class TestSpawn(Conformance):
    promises = promises.LOCAL

    def make_pool(self, **options: Any) -> PoolProcessor:
        return PoolProcessor(2, **{"mp_context": "spawn", **options})


class TestNoWorkers(Conformance):
    promises = promises.IN_PROCESS
    may_die = is_elsewhere = False

    def make_pool(self, **options: Any) -> PoolProcessor:
        return PoolProcessor(0, **options)


class _OnExecutor(Conformance):
    """An executor that was given: the pool must not end it."""

    promises = promises.CALLS

    def make_executor(self) -> Executor:
        raise NotImplementedError

    def make_pool(self, **options: Any) -> PoolProcessor:
        executor = self.make_executor()
        try:
            pool = PoolProcessor(executor=executor, **options)
        except ValueError:
            self.end_executor(executor)
            raise
        self._executors: dict[int, Executor] = {**getattr(self, "_executors", {})}
        self._executors[id(pool)] = executor
        return pool

    def close_pool(self, pool: PoolProcessor) -> None:
        super().close_pool(pool)
        self.end_executor(self._executors.pop(id(pool)))

    def end_executor(self, executor: Executor) -> None:
        executor.shutdown()


class TestThreads(_OnExecutor):
    may_die = False

    def make_executor(self) -> Executor:
        return ThreadPoolExecutor(2)


class TestProcesses(_OnExecutor):
    def make_executor(self) -> Executor:
        context = multiprocessing.get_context("forkserver")
        return ProcessPoolExecutor(2, mp_context=context)


class TestSpawnedProcesses(_OnExecutor):
    def make_executor(self) -> Executor:
        return ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn"))


def _processes() -> Executor:
    return ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("forkserver"))


class TestProcessesOfAFactory(Conformance):
    promises = promises.CALLS_OF_FACTORY

    def make_pool(self, **options: Any) -> PoolProcessor:
        return PoolProcessor(2, executor=_processes, **options)


@pytest.mark.skipif(sys.version_info < (3, 14), reason="Python 3.14 brings it")
class TestInterpreters(_OnExecutor):
    may_die = False

    def make_executor(self) -> Executor:
        from concurrent import futures

        executor: Executor = getattr(futures, "InterpreterPoolExecutor")(2)  # noqa: B009
        return executor


@pytest.fixture(scope="module")
def _loky_tracker() -> None:
    """Start loky's resource tracker, which stays, so that no test is blamed for it."""
    tracker = pytest.importorskip("loky.backend.resource_tracker")
    tracker.ensure_running()


@pytest.mark.usefixtures("_loky_tracker")
class TestLoky(_OnExecutor):
    may_die = False  # loky leaves a pipe open then; the next class has that check

    def make_executor(self) -> Executor:
        loky = pytest.importorskip("loky")
        executor: Executor = loky.ProcessPoolExecutor(2)
        return executor


@pytest.mark.usefixtures("_loky_tracker")
class TestLokyOfAFactory(Conformance):
    promises = promises.CALLS_OF_FACTORY

    def make_pool(self, **options: Any) -> PoolProcessor:
        loky = pytest.importorskip("loky")
        return PoolProcessor(2, executor=lambda: loky.ProcessPoolExecutor(2), **options)


class TestExecutorlib(_OnExecutor):
    def make_executor(self) -> Executor:
        executorlib = pytest.importorskip("executorlib")
        executor: Executor = executorlib.SingleNodeExecutor(max_workers=2, block_allocation=True)
        return executor

    def end_executor(self, executor: Executor) -> None:
        # it would wait for ever for a call that was cancelled
        executor.shutdown(wait=False, cancel_futures=True)


# --- the suite itself ---


class _Lies(TestThreads):
    """Promises what no thread can keep."""

    promises = promises.CALLS._replace(replaces_workers=True, ends_handlers=True)


@pytest.mark.parametrize(
    "check", ["test_workers_are_replaced", "test_a_caller_may_have_a_handler_ended"]
)
def test_a_promise_that_is_not_kept_is_found(check: str) -> None:
    with pytest.raises(ValueError, match="cannot be kept with executor="):
        getattr(_Lies(), check)()


class _Hides(TestNoWorkers):
    """Says that options are refused, which have no effect here."""

    is_elsewhere = True


@pytest.mark.parametrize(
    "check",
    ["test_workers_are_replaced", "test_options_about_processes_are_kept_or_refused"],
)
def test_an_option_that_is_ignored_in_silence_is_found(check: str) -> None:
    with pytest.raises(AssertionError, match="is taken, and no promise is made for it"):
        getattr(_Hides(), check)()


class _Contradicts(TestThreads):
    promises = promises.CALLS._replace(restart=True)


def test_promises_that_nothing_would_check_are_found() -> None:
    with pytest.raises(AssertionError, match="restart is promised, and isolation is not"):
        _Contradicts().test_promises_agree()


class _Elastic(TestThreads):
    promises = promises.CALLS._replace(elasticity=True)


def test_elasticity_is_not_promised_without_a_way_to_check_it() -> None:
    with pytest.raises(NotImplementedError, match="elasticity is promised: have workers join"):
        _Elastic().test_workers_come_and_go()


class _Stiff(_Elastic):
    """Nobody joins."""

    @contextlib.contextmanager
    def replaced_workers(self) -> Iterator[None]:
        yield


def test_workers_that_are_said_to_join_and_are_not_used_are_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(conformance_promises, "wait_until", _expect_at_once_unless_first())
    with pytest.raises(AssertionError, match="a worker that has joined is used"):
        _Stiff().test_workers_come_and_go()


def _expect_at_once_unless_first() -> Callable[[Callable[[], object], str], None]:
    """Wait for the first condition, until both threads are busy; expect the next one to hold."""
    waited: list[str] = []

    def expect(holds: Callable[[], object], what: str) -> None:
        if not waited:
            waited.append(what)
            wait_until(lambda: holds() == 2, what)
        else:
            assert holds(), what

    return expect


def _forget(events: list[Event]) -> list[None]:
    return [None for _ in events]


class _Forgets(Conformance):
    """A pool that leaves values out."""

    may_die = is_elsewhere = False

    def make_pool(self, **options: Any) -> PoolProcessor:
        pool = PoolProcessor(0, **options)
        pool.process_many = _forget  # type: ignore[method-assign,assignment]  # that is the point
        return pool


def test_a_pool_that_leaves_values_out_fails_and_the_check_is_named() -> None:
    with pytest.raises(AssertionError, match="and not") as raised:
        _Forgets().run_all()
    assert any("in the check test_" in note for note in raised.value.__notes__)


def test_all_checks_run_one_after_another() -> None:
    TestNoWorkers().run_all()
