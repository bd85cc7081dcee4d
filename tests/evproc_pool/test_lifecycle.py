"""From the first event to the last: what starts, what ends, and what is left (nothing)."""

from __future__ import annotations

import _thread
import functools
import gc
import itertools
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import psutil
import pytest

from evproc_pool import PoolBusyError, PoolClosedError, PoolForkedError, PoolProcessor
from evproc_pool.backends.local import processes, start_methods
from evproc_pool.backends.local.processes import LocalBackend
from evproc_pool.internals.stdlib_multiprocessing import ProcessName
from evproc_pool.ipc import shared_memory
from evproc_pool.ipc.parent_death import CAN_KILL
from evproc_pool.protocol.registry_spec import Config
from evproc_pool.testing import worker_pids
from tests.support import actions
from tests.support.actions import Do
from tests.support.helpers import (
    PATIENCE_SECONDS,
    Background,
    Gate,
    Script,
    close_in_time,
    error_of,
    exit_code,
    fork,
    lives,
    notes_of,
    register_all,
    run_script,
    still_alive,
    wait_until,
    warm,
)
from tests.support.sizes import BARS

# runs pytest in pytest
pytest_plugins = ["pytester"]


def _processes(pool: PoolProcessor) -> list[psutil.Process]:
    """The workers, known by pid and time of creation."""
    return [psutil.Process(pid) for pid in warm(pool)]


def _new(**options: Any) -> PoolProcessor:
    pool: PoolProcessor = register_all(PoolProcessor(**options), [actions.act])
    return pool


# --- the end ---


def test_the_end_of_a_with_block_ends_the_workers() -> None:
    with _new(workers=2) as pool:
        processes = _processes(pool)
        assert len(processes) == 2
        assert all(process.is_running() for process in processes)
    assert not still_alive(processes)


def test_a_with_block_that_is_interrupted_ends_the_workers_at_once(gate: Gate) -> None:
    with pytest.raises(KeyboardInterrupt), _new(workers=1) as pool:  # noqa: PT012 - the block is what is tested
        processes = _processes(pool)
        future = pool.submit(Do("wait_at", gate.address))
        gate.arrival()
        raise KeyboardInterrupt
    # the handler is still waiting: it was not waited for
    assert not still_alive(processes)
    assert isinstance(future.exception(PATIENCE_SECONDS), PoolClosedError)


def test_nothing_is_left_without_a_with_block() -> None:
    assert _new(workers=2).process_many([Do("stop", 1)] * 3) == [1] * 3
    # the fixture `nothing_left_behind` sees to the rest


def test_a_pool_that_was_never_used_has_no_process() -> None:
    before = set(psutil.Process().children(recursive=True))
    pool = _new(workers=2)
    assert set(psutil.Process().children(recursive=True)) == before
    pool.close()
    assert isinstance(error_of(lambda: pool.process(Do("stop", 1))), PoolClosedError)


def test_a_pool_that_is_not_referred_to_any_more_ends_its_workers() -> None:
    pool = _new(workers=2)
    processes = _processes(pool)
    reference = weakref.ref(pool)
    del pool
    gc.collect()
    assert reference() is None
    assert not still_alive(processes)


def test_a_pool_in_a_cycle_ends_its_workers() -> None:
    pool = _new(workers=1)
    processes = _processes(pool)
    cycle: list[Any] = [pool]
    cycle.append(cycle)
    del pool, cycle
    gc.collect()
    assert not still_alive(processes)


def test_the_collection_of_a_pool_does_not_wait_for_a_worker_that_takes_long_to_end(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    # if it waited, it would wait for as long as the test has
    monkeypatch.setattr(processes, "_QUIT_SECONDS", 1000.0)
    pool = _new(workers=1)
    worker = psutil.Process(pool.process(Do("linger", gate.address)))
    gate.arrival()
    del pool
    gc.collect()
    assert worker.is_running()
    gate.close()
    assert not still_alive([worker])


def test_a_pool_is_collected_where_no_thread_can_be_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    pool = _new(workers=1)
    processes = _processes(pool)
    with monkeypatch.context() as patch:
        patch.setattr(_thread, "start_new_thread", fails)
        del pool
        gc.collect()
    assert not still_alive(processes)


def test_close_waits_for_what_was_submitted(gate: Gate) -> None:
    pool = _new(workers=1)
    futures = [pool.submit(Do("wait_at", gate.address, "", "waited for"))]
    arrival = gate.arrival()
    futures += [pool.submit(Do("stop", place)) for place in range(10)]
    with Background(pool.close) as call:
        call.wait_until_it_waits("drain")
        assert isinstance(error_of_submit(pool), PoolClosedError)
        assert not futures[0].done()
        arrival.release()
        call.result()
    assert [future.result(0) for future in futures] == ["waited for", *range(10)]


def error_of_submit(pool: PoolProcessor) -> BaseException | None:
    """What submitting raises now; what it does not refuse is done to the end."""
    try:
        pool.submit(Do("nothing"))
    except PoolClosedError as error:
        return error
    return None


def test_close_waits_for_a_call_in_another_thread(gate: Gate) -> None:
    pool = _new(workers=1)
    warm(pool)
    with Background(lambda: pool.process_many([Do("wait_at", gate.address, "", 5)])) as call:
        gate.arrival()
        with Background(pool.close) as closing:
            closing.wait_until_it_waits("drain")
            assert isinstance(error_of_submit(pool), PoolClosedError)
            gate.close()
            closing.result()
        # what was accepted is finished; that is the difference to `terminate`
        assert call.result() == [5]


def test_close_waits_for_a_call_in_another_thread_that_still_reads_its_input() -> None:
    pool = _new(workers=1)
    may_go_on = threading.Event()

    def events() -> Iterator[Do]:
        yield Do("stop", 1)
        may_go_on.wait(PATIENCE_SECONDS)
        yield Do("stop", 2)

    with Background(lambda: pool.process_many(events())) as call:
        wait_until(lambda: pool._engine and pool._engine.open_runs, "the call begins")
        with Background(pool.close) as closing:
            closing.wait_until_it_waits("drain")
            may_go_on.set()
            closing.result()
        assert call.result() == [1, 2]


def test_the_inputs_of_two_calls_may_close_the_pool_at_once() -> None:
    """Neither waits for a call that is waiting itself."""
    pool = _new(workers=1)
    both = threading.Barrier(2)

    def events() -> Iterator[Do]:
        yield Do("stop", 1)
        both.wait(PATIENCE_SECONDS)
        pool.close()
        yield Do("stop", 2)

    with (
        Background(lambda: pool.process_many(events())) as first,
        Background(lambda: pool.process_many(events())) as second,
    ):
        assert isinstance(first.error(), PoolClosedError)
        assert isinstance(second.error(), PoolClosedError)


def test_the_input_of_a_call_may_close_the_pool() -> None:
    pool = _new(workers=1)

    def events() -> Iterator[Do]:
        yield Do("stop", 1)
        pool.close()
        yield Do("stop", 2)

    with pytest.raises(PoolClosedError):
        pool.process_many(events())


@pytest.mark.parametrize("waits", ["in a handler", "for a retry"])
def test_close_waits_no_longer_than_it_is_told_to(waits: str, gate: Gate) -> None:
    pool = _new(workers=1, max_retries=1, retry_backoff=3600, retry_backoff_max=3600)
    processes = _processes(pool)
    if waits == "in a handler":
        future = pool.submit(Do("wait_at", gate.address))
        gate.arrival()
    else:
        future = pool.submit(Do("fail", KeyError))
        while not pool._engine or pool._engine._coordinator._supervisor._pauses.left(0.0) is None:
            pool.process(Do("nothing"))
    pool.close(timeout=0.01)
    assert not still_alive(processes)
    error = future.exception(0)
    assert isinstance(error, PoolClosedError)
    assert "ended before this was finished" in str(error)
    assert isinstance(error_of_submit(pool), PoolClosedError)
    pool.close(timeout=0.01)


def test_close_gives_workers_no_longer_to_end_than_its_timeout(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    quit_workers = LocalBackend.quit

    def note(backend: LocalBackend, most_seconds: float, hear: Callable[[Any], object]) -> None:
        waits.append(most_seconds)
        quit_workers(backend, most_seconds, hear)

    monkeypatch.setattr(LocalBackend, "quit", note)
    pool = _new(workers=1)
    processes = _processes(pool)
    pool.process(Do("linger", gate.address))
    gate.arrival()
    # the worker has nothing to do, and does not end by itself
    pool.close(timeout=0.5)
    assert not still_alive(processes)
    assert len(waits) == 1
    assert waits[0] <= 0.5


@pytest.mark.parametrize("timeout", [1e10, 1e300])
def test_close_takes_a_timeout_of_any_length(timeout: float, gate: Gate) -> None:
    pool = _new(workers=1)
    future = pool.submit(Do("wait_at", gate.address, "", 1))
    gate.arrival()
    with Background(lambda: pool.close(timeout=timeout)) as closing:
        closing.wait_until_it_waits("drain")
        gate.close()
        closing.result()
    assert future.result(0) == 1


def test_a_retry_may_be_ages_away() -> None:
    pool = _new(workers=1, max_retries=1, retry_backoff=1e9, retry_backoff_max=1e300)
    future = pool.submit(Do("fail", KeyError))
    while not pool._engine or pool._engine._coordinator._supervisor._pauses.left(0.0) is None:
        pool.process(Do("nothing"))
    assert pool.process(Do("stop", 1)) == 1
    pool.terminate()
    assert isinstance(future.exception(0), PoolClosedError)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_pool_that_has_started_nothing_can_be_used_in_a_forked_process() -> None:
    with PoolProcessor(0) as pool:
        register_all(pool, [actions.act])
        assert exit_code(fork(lambda: pool.process(Do("stop", 7)))) == 7


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_process_has_no_part_in_the_calls_of_its_parents_threads(gate: Gate) -> None:
    with (
        _new(workers=0) as pool,
        Background(lambda: pool.process(Do("wait_at", gate.address))) as call,
    ):
        gate.arrival()
        assert exit_code(fork(lambda: pool.register(actions.nested))) == 0
        gate.close()
        call.result()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_process_goes_on_with_the_call_that_has_forked() -> None:
    with _new(workers=0) as pool:
        pid, code = -1, 1
        try:
            for outcome in pool.stream(Do("stop", number) for number in range(3)):
                if outcome.index == 1:
                    pid = os.fork()
                if not pid:
                    with pytest.raises(PoolBusyError, match="1 calls"):
                        pool.register(actions.nested)
            pool.register(actions.nested)
            code = 0
        finally:
            if not pid:
                os._exit(code)
        assert exit_code(pid) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_process_does_not_wait_for_an_initializer_of_its_parent(gate: Gate) -> None:
    options = {"initializer": actions.pass_gate, "initargs": (gate.address,)}
    with (
        _new(workers=0, **options) as pool,
        Background(lambda: pool.process(Do("stop", 6))) as call,
    ):
        gate.arrival()
        pid = fork(lambda: pool.process(Do("stop", 7)))
        gate.arrival()  # its own initializer
        gate.close()
        assert exit_code(pid) == 7
        assert call.result() == 6


def test_close_lets_a_worker_write_a_result_that_nobody_waits_for(
    gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_memory, "IS_SUPPORTED", False)  # it goes through the channel
    log = tmp_path / "log"
    note = functools.partial(actions.log, str(log), "ended in peace")
    pool = _new(workers=2, ordering="unordered", finalizer=note)
    warm(pool)
    large = Do("wait_at", gate.address, "large", bytes(5_000_000))
    small = Do("wait_at", gate.address, "small", "small")
    with Background(lambda: pool.process(Do("follow", large, small))) as call:
        arrivals = {each.text: each for each in (gate.arrival(), gate.arrival())}
        arrivals["small"].release()
        assert call.result() == "small"
    arrivals["large"].release()
    close_in_time(pool)
    assert log.read_text("ascii").splitlines() == ["ended in peace"] * 2


def test_close_in_good_time_finishes_what_was_submitted() -> None:
    pool = _new(workers=1)
    futures = [pool.submit(Do("stop", place)) for place in range(50)]
    pool.close(timeout=PATIENCE_SECONDS)
    assert [future.result(0) for future in futures] == list(range(50))
    assert not any(isinstance(each, threading.Timer) for each in threading.enumerate())


def test_close_without_draining_does_not_wait(gate: Gate) -> None:
    pool = _new(workers=1)
    processes = _processes(pool)
    future = pool.submit(Do("wait_at", gate.address))
    gate.arrival()
    pool.close(drain=False)
    assert not still_alive(processes)
    assert isinstance(future.exception(0), PoolClosedError)


def test_terminate_does_not_wait(gate: Gate) -> None:
    pool = _new(workers=2)
    processes = _processes(pool)
    future = pool.submit(Do("wait_at", gate.address))
    gate.arrival()
    with Background(lambda: pool.process_many([Do("wait_at", gate.address)] * 5)) as call:
        gate.arrival()
        pool.terminate()
        assert not still_alive(processes)
        assert isinstance(call.error(), PoolClosedError)
    assert isinstance(future.exception(PATIENCE_SECONDS), PoolClosedError)


def test_a_second_close_waits_for_the_end_that_another_has_begun(gate: Gate) -> None:
    with PoolProcessor(1) as pool:
        pool.register(actions.act)
        process = psutil.Process(pool.process(Do("linger", gate.address)))
        gate.arrival()
        first = Background(pool.close)
        wait_until(lambda: pool._engine is None, "the first one ends the engine")

        def close_and_look() -> bool:
            pool.close()
            return process.is_running()

        second = Background(close_and_look)
        gate.close()
        assert second.result() is False
        first.result()


def test_terminate_ends_close_in_another_thread(gate: Gate) -> None:
    pool = _new(workers=1)
    future = pool.submit(Do("wait_at", gate.address))
    gate.arrival()
    with Background(pool.close) as call:
        call.wait_until_it_waits("drain")
        pool.terminate()
        call.result()
    assert isinstance(future.exception(PATIENCE_SECONDS), PoolClosedError)


@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize("first", [PoolProcessor.close, PoolProcessor.terminate])
@pytest.mark.parametrize("second", [PoolProcessor.close, PoolProcessor.terminate])
def test_closing_twice_is_no_error(
    used: bool, first: Callable[[PoolProcessor], None], second: Callable[[PoolProcessor], None]
) -> None:
    pool = _new(workers=1)
    if used:
        pool.process(Do("nothing"))
    first(pool)
    second(pool)
    assert "closed" in repr(pool)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("used", [False, True])
def test_a_closed_pool_says_that_it_is_closed(workers: int, used: bool) -> None:
    pool = _new(workers=workers)
    if used:
        pool.process(Do("nothing"))
    pool.close()
    uses: list[Callable[[], object]] = [
        lambda: pool.process(Do("stop", 1)),
        lambda: pool.process_many([]),
        lambda: pool.process_many([], return_exceptions=True),
        lambda: list(pool.stream([])),
        lambda: pool.submit(Do("stop", 1)),
        lambda: pool.register(actions.nested),
        lambda: pool.load_from("no.such.group"),
        pool.__enter__,
    ]
    for use in uses:
        with pytest.raises(PoolClosedError, match="make a new PoolProcessor"):
            use()
    # what needs no worker still works
    assert list(pool.nodes) == ["act"]
    assert pool.check().handlers == 1
    assert pool.explain(Do("nothing")).order == ("act",)


def test_an_iterator_that_closes_the_pool_ends_the_call() -> None:
    pool = _new(workers=1)

    def events() -> Iterator[Do]:
        yield Do("stop", 1)
        pool.terminate()
        yield Do("stop", 2)

    with pytest.raises(PoolClosedError):
        pool.process_many(events())


def test_repr_says_how_it_is() -> None:
    with _new(workers=1) as pool:
        assert repr(pool) == "<PoolProcessor workers=1 handlers=1 idle>"
        pool.process(Do("nothing"))
        assert "running" in repr(pool)
    assert "closed" in repr(pool)


# --- handlers added later ---


def test_a_handler_added_after_a_run_is_there_in_the_next(pool: PoolProcessor) -> None:
    processes = _processes(pool)
    pool.register(actions.Notes("last"))
    assert not still_alive(processes)
    assert pool.process(actions.Ordered())[2] == ["last"]
    assert pool.process(Do("stop", 1)) == 1


def test_a_handler_that_cannot_be_added_leaves_the_workers_alone(pool: PoolProcessor) -> None:
    before = warm(pool)
    with pytest.raises(Exception, match="already"):
        pool.register(actions.act)
    with pytest.raises(TypeError):
        pool.register(5)  # type: ignore[arg-type]  # that is the point
    with pytest.raises(Exception, match=r"no\.such\.group"):
        pool.load_from("no.such.group")
    assert warm(pool) == before
    assert list(pool.nodes) == ["act", "nested"]


def test_handlers_cannot_be_added_with_events_in_flight(pool: PoolProcessor, gate: Gate) -> None:
    warm(pool)
    future = pool.submit(Do("wait_at", gate.address))
    gate.arrival()
    with Background(lambda: pool.process(Do("wait_at", gate.address))) as call:
        gate.arrival()
        uses: list[Callable[[], object]] = [
            lambda: pool.register(actions.asks),
            lambda: pool.load_from("no.such.group"),
        ]
        for use in uses:
            with pytest.raises(PoolBusyError, match="1 calls and 1 futures"):
                use()
        gate.close()
        assert call.result() is None
    assert future.result(PATIENCE_SECONDS) is None
    assert list(pool.nodes) == ["act", "nested"]
    pool.register(actions.asks)


def test_handlers_cannot_be_added_from_a_callback_while_others_are_in_flight(
    pool: PoolProcessor, gate: Gate
) -> None:
    warm(pool)
    waiting = pool.submit(Do("wait_at", gate.address))
    gate.arrival()
    errors: list[BaseException] = []
    done = threading.Event()

    def callback(_: object) -> None:
        errors.append(error_of(lambda: pool.register(actions.asks)))
        done.set()

    pool.submit(Do("nothing")).add_done_callback(callback)
    assert done.wait(PATIENCE_SECONDS)
    assert isinstance(errors[0], PoolBusyError)
    gate.close()
    assert waiting.result(PATIENCE_SECONDS) is None
    assert pool.process(Do("stop", 1)) == 1


def test_handlers_cannot_be_added_from_the_callback_of_the_last_future(
    pool: PoolProcessor, gate: Gate
) -> None:
    warm(pool)
    errors: Future[BaseException] = Future()
    future = pool.submit(Do("wait_at", gate.address))
    gate.arrival()  # or else the callback might be called by this thread
    future.add_done_callback(
        lambda _: errors.set_result(error_of(lambda: pool.register(actions.asks)))
    )
    gate.close()
    assert isinstance(errors.result(PATIENCE_SECONDS), PoolBusyError)
    assert list(pool.nodes) == ["act", "nested"]
    with Background(lambda: pool.process_many([Do("stop", 1)] * 3)) as call:
        assert call.result() == [1] * 3


@pytest.mark.parametrize("workers", [0, 1])
def test_check_and_explain_are_those_of_a_processor(workers: int) -> None:
    with _new(workers=workers) as pool:
        pool.register(actions.nested)
        assert pool.workers == workers
        assert list(pool.nodes) == ["act", "nested"]
        assert pool.explain(actions.Nested()).order == ("nested",)
        assert pool.check().handlers == 2


# --- threads ---


def test_another_thread_than_the_main_one_can_use_a_pool() -> None:
    def use() -> list[object]:
        with _new(workers=2) as pool:
            return [pool.process(Do("stop", 1)), *pool.process_many([Do("stop", 2)] * 3)]

    with Background(use) as call:
        assert call.result() == [1, 2, 2, 2]


def test_many_threads_use_one_pool_at_once(shared_pool: PoolProcessor) -> None:
    start = threading.Barrier(8)

    def use(number: int) -> bool:
        start.wait(PATIENCE_SECONDS)
        for turn in range(15):
            value = number, turn
            if shared_pool.process(Do("stop", value)) != value:
                return False
            events = [Do("stop", (value, place)) for place in range(20)]
            if shared_pool.process_many(events) != [(value, place) for place in range(20)]:
                return False
            future = shared_pool.submit(Do("follow", Do("stop", value)))
            if future.result(PATIENCE_SECONDS) != value:
                return False
            bad = [Do("stop", 1), Do("fail", KeyError, value)]
            if error_of(lambda: shared_pool.process_many(bad)).args != (value,):  # noqa: B023 - called at once
                return False
        return True

    calls = [Background(lambda number=number: use(number)) for number in range(8)]  # type: ignore[misc]  # a default
    assert [call.result() for call in calls] == [True] * 8


def test_no_lock_is_held_while_a_filter_runs(
    pool: PoolProcessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a filter may wait for another thread that uses the pool
    pool.register(actions.asks)
    warm(pool)
    results: list[object] = []

    def hook(ev: Any) -> None:
        if ev.args == ("outer",):
            with Background(lambda: pool.process(Do("stop", "inner"))) as call:
                results.append(call.error() or call.result())

    monkeypatch.setattr(actions, "hook", hook)
    assert pool.submit(Do("stop", "outer")).result(PATIENCE_SECONDS) == "outer"
    assert pool.process(Do("stop", "outer")) == "outer"
    assert results == ["inner", "inner"]


def test_a_call_that_waits_is_woken_by_what_another_thread_does(
    pool: PoolProcessor, gate: Gate
) -> None:
    warm(pool)
    with Background(lambda: pool.process(Do("wait_at", gate.address, "", 1))) as first:
        gate.arrival()
        # the first one drives, and waits; this one gets its value all the same
        with Background(lambda: pool.process_many([Do("stop", 2)] * 3)) as second:
            assert second.result() == [2] * 3
        assert not first.is_over
        gate.close()
        assert first.result() == 1


# --- start methods ---


@pytest.mark.parametrize("method", ["forkserver", "spawn", "fork"])
@pytest.mark.filterwarnings(
    # from Python 3.12 on; other tests may have left threads in native libraries
    "ignore:This process .* is multi-threaded:DeprecationWarning"
)
def test_every_start_method_will_do(method: str) -> None:
    with _new(workers=2, mp_context=method) as pool:
        processes = _processes(pool)
        events = [Do("stop", 1), Do("leave", 3), Do("follow", Do("stop", 2)), Do("stop", 3)]
        values = pool.process_many(events, return_exceptions=True)
        assert [values[0], *values[2:]] == [1, 2, 3]
        assert type(values[1]).__name__ == "WorkerLostError"
        assert len(warm(pool)) == 2
    assert not still_alive(processes)


@pytest.mark.parametrize("method", ["forkserver", "spawn", "fork"])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_two_pools_at_once_do_not_disturb_each_other(method: str) -> None:
    with _new(workers=1, mp_context=method) as first, _new(workers=1, mp_context=method) as second:
        assert [pool.process(Do("stop", 1)) for pool in (first, second, first)] == [1] * 3
        processes = _processes(first)
        first.close()
        assert not still_alive(processes)
        assert second.process(Do("stop", 2)) == 2


# --- fork ---

_FORKED = """
import os, sys
from evproc_pool import PoolForkedError, PoolProcessor
from tests.support.actions import Do, act, nested

pool = PoolProcessor(workers=2)
pool.register(act)
assert pool.process(Do("stop", 1)) == 1

def child():
    {child}

pid = os.fork()
if pid == 0:
    try:
        child()
    except BaseException as error:
        print(f"in the child: {{error!r}}", flush=True)
        os._exit(1)
    {leave}
_, status = os.waitpid(pid, 0)
assert os.waitstatus_to_exitcode(status) == 0, status
# the parent's pool is as it was
assert pool.process_many([Do("stop", 3)] * 5) == [3] * 5
pool.close()
print("done")
"""

_USES = """
    uses = [
        lambda: pool.process(Do("stop", 1)),
        lambda: pool.process_many([Do("stop", 1)]),
        lambda: list(pool.stream([Do("stop", 1)])),
        lambda: pool.submit(Do("stop", 1)),
        lambda: pool.register(nested),
        lambda: pool.load_from("group"),
        pool.__enter__,
    ]
    for use in uses:
        try:
            use()
        except PoolForkedError as error:
            assert str(os.getpid()) in str(error), error
        else:
            raise AssertionError(f"{use} works in a forked process")
    pool.close()
    pool.terminate()
"""

_OWN = """
    with PoolProcessor(workers=1) as own:
        own.register(act)
        assert own.process(Do("stop", 2)) == 2
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.parametrize(
    ("child", "leave"),
    [
        (_USES, "os._exit(0)"),
        (_OWN, "os._exit(0)"),
        ("globals().clear()", "__import__('os')._exit(0)"),
        ("pass", "sys.exit(0)"),
    ],
    ids=[
        "is told that the pool is not its own",
        "can have a pool of its own",
        "can forget the pool",
        "can end as usual",
    ],
)
def test_a_forked_process(tmp_path: Path, child: str, leave: str) -> None:
    # new from Python 3.12 on, and not about this package
    quiet = ["-W", "ignore::DeprecationWarning"]
    code = _FORKED.format(child=child, leave=leave)
    assert run_script(code, tmp_path, python=quiet) == "done\n"


# --- the end of the interpreter ---

_LEFT_OPEN = """
from evproc_pool import PoolProcessor
from tests.support.actions import Do, act, pass_gate

pool = PoolProcessor(workers=2, mp_context={method!r})
pool.register(act)
assert pool.process_many([Do("stop", 1)] * 4) == [1] * 4
futures = [pool.submit(Do("wait_at", {address!r}, "worker")) for _ in range(6)]
pass_gate({address!r}, "script")
{more}
"""


@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("forkserver", ""),
        ("forkserver", "futures[-1].add_done_callback(lambda _: None)"),
        ("forkserver", "raise SystemExit(0)"),
        ("spawn", ""),
        ("fork", ""),
    ],
)
def test_the_interpreter_ends_once_the_futures_in_flight_are_done(
    tmp_path: Path, gate: Gate, method: str, more: str
) -> None:
    code = _LEFT_OPEN.format(method=method, address=gate.address, more=more)
    # new from Python 3.12 on, and not about this package
    quiet = ["-W", "ignore::DeprecationWarning"]
    with Script(code, tmp_path, python=quiet) as script:
        # two handlers at most are at the gate at once, and the script
        arrivals = [gate.arrival() for _ in range(3)]
        for _ in range(4):
            waiting = [each for each in arrivals[-3:] if each.text == "worker"]
            waiting[-1].release()
            arrivals.append(gate.arrival())
        gate.close()
        finished = script.finish()
    assert (finished.code, finished.err, finished.left) == (0, "", [])
    assert sorted(arrival.text for arrival in arrivals) == ["script", *["worker"] * 6]


_TRACEBACK = """
from evproc_pool import PoolProcessor
from tests.support.actions import Do, act

pool = PoolProcessor(workers=2)
pool.register(act)
pool.process_many([Do("stop", 1), Do("fail", KeyError, "the error")])
"""


def test_an_uncaught_error_ends_the_program_with_one_traceback(tmp_path: Path) -> None:
    with Script(_TRACEBACK, tmp_path) as script:
        finished = script.finish()
    assert finished.code == 1
    assert finished.left == []
    # the worker's traceback is shown as the cause
    assert "RemoteTraceback" in finished.err
    assert "raise error(*args)" in finished.err
    error, *notes = finished.err.splitlines()[-4:]
    assert error == "KeyError: 'the error'"
    assert notes[0].startswith("evproc: raised by handler 'act' ")
    assert notes[1].startswith("evproc_pool: in worker ")
    assert notes[2] == "evproc_pool: event 1 of the input"


# --- how workers are started ---


def test_the_name_of_a_worker_process_is_only_a_name_wherever_else_it_goes() -> None:
    before = signal.getsignal(signal.SIGINT)
    name = pickle.loads(pickle.dumps(ProcessName("worker")))
    assert (type(name), name) == (str, "worker")
    assert signal.getsignal(signal.SIGINT) is before


_PRELOADS = """
import multiprocessing, sys
from evproc import Event, StopProcessing
from evproc_pool import PoolProcessor

{before}

class Ev(Event):
    name = "ev"

def handler(proc, ev):
    # which nobody else imports
    names = "evproc_pool.backends.local.forkserver_entry", "colorsys"
    raise StopProcessing(tuple(name in sys.modules for name in names))

with PoolProcessor(workers=1) as pool:
    pool.register(handler)
    print(pool.process(Ev()), multiprocessing.forkserver._forkserver._preload_modules)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="there is no forkserver")
@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ("", "(True, False) ['__main__']"),
        ("multiprocessing.set_forkserver_preload(['colorsys'])", "(True, True) ['colorsys']"),
    ],
    ids=["nothing chosen", "something chosen"],
)
def test_the_forkserver_has_imported_what_workers_need(
    tmp_path: Path, before: str, expected: str
) -> None:
    assert run_script(_PRELOADS.format(before=before), tmp_path).strip() == expected


@pytest.mark.skipif(sys.platform != "linux", reason="there is no forkserver")
def test_threads_that_start_workers_leave_the_preload_list_as_it_was() -> None:
    context = multiprocessing.get_context("forkserver")
    before = list(_preloaded())

    def enter() -> list[str]:
        with start_methods.prepared(context):
            return list(_preloaded())

    with start_methods.prepared(context):
        other = Background(enter)
        mine = list(_preloaded())
    assert (
        mine.count("evproc_pool.backends.local.forkserver_entry")
        == other.result().count("evproc_pool.backends.local.forkserver_entry")
        == 1
    )
    assert other.result() == mine
    assert _preloaded() == before


def _preloaded() -> list[str]:
    from multiprocessing import forkserver  # there is none on Windows

    server: Any = forkserver._forkserver  # no public way
    modules: list[str] = server._preload_modules
    return modules


@pytest.mark.parametrize("what", ["StatusMemory.create", "StackDumps", "start"])
def test_what_a_worker_was_to_have_is_closed_if_it_cannot_be_started(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(24, "too many open files")

    backend = processes.LocalBackend(multiprocessing.get_context("spawn"))
    before = set(Path("/proc/self/fd").iterdir())
    monkeypatch.setattr(f"{processes.__name__}.{what}", fail)
    with pytest.raises(OSError, match="too many"):
        backend.start(1, Config(b""))
    assert set(Path("/proc/self/fd").iterdir()) == before
    backend.kill(print)


# --- the death of the coordinator ---

_KILLED = """
import sys
from evproc_pool import PoolProcessor
from tests.support.actions import Do, act
from tests.support.helpers import warm

pool = PoolProcessor(workers=2, mp_context={method!r})
pool.register(act)
warm(pool)
print("ready", flush=True)
sys.stdin.read()
pool.submit(Do("wait_at", {address!r})).result()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")
@pytest.mark.parametrize(
    ("method", "state", "number"),
    [
        (method, state, number)
        for method in ("forkserver", "spawn", "fork")
        for state in ("idle", "at work")
        for number in (signal.SIGKILL, signal.SIGTERM)
        if BARS or method == "forkserver" or (state, number) == ("at work", signal.SIGKILL)
    ],
)
def test_workers_end_when_the_coordinator_is_killed(
    tmp_path: Path, gate: Gate, method: str, state: str, number: signal.Signals
) -> None:
    code = _KILLED.format(method=method, address=gate.address).replace("sys.stdin.read()", "")
    if state == "idle":
        code = code.replace("pool.submit", "__import__('signal').pause()\npool.submit")
    with Script(code, tmp_path) as script:
        if state == "at work":
            arrival = gate.arrival()
        script.wait_until(lambda: "ready" in (tmp_path / "out.txt").read_text(), "it is ready")
        members = [each for each in script.members if each.pid != script.process.pid]
        assert len(members) >= 2
        script.process.send_signal(number)
        if state == "at work":
            # the handler is not interrupted here; its worker ends with it
            arrival.release()
        finished = script.finish()
    assert finished.left == []
    assert not still_alive(members)
    assert finished.err == ""


_KILLED_IN_LOOPS = """
from evproc_pool import PoolProcessor
from tests.support.actions import Do, act

pool = PoolProcessor(workers=2, mp_context={method!r})
pool.register(act)
pool.process_many([Do({what!r}, "log"), Do({what!r}, "log")])
"""


@pytest.mark.skipif(not CAN_KILL, reason="the kernel does not end workers here")
@pytest.mark.parametrize("repeat", range(20 if BARS else 1))
@pytest.mark.parametrize(
    ("method", "what"),
    [("forkserver", "spin"), ("forkserver", "hold_gil"), ("spawn", "hold_gil"), ("fork", "spin")],
)
def test_workers_that_cannot_look_end_with_the_coordinator(
    tmp_path: Path, method: str, what: str, repeat: int
) -> None:
    log = tmp_path / "log"
    with Script(_KILLED_IN_LOOPS.format(method=method, what=what), tmp_path) as script:
        script.wait_until(
            lambda: log.exists() and len(log.read_text("ascii").split()) >= 2, "both are at work"
        )
        members = [each for each in script.members if each.pid != script.process.pid]
        script.process.send_signal(signal.SIGKILL)
        begin = time.monotonic()
        while any(map(lives, members)):
            assert time.monotonic() - begin < (1.0 if BARS else PATIENCE_SECONDS)
            time.sleep(0.001)
        finished = script.finish()
    assert finished.left == []
    assert not still_alive(members)


def test_a_pool_within_a_worker_leaves_nothing_behind(pool: PoolProcessor) -> None:
    assert pool.process(Do("call", _inner_pool)) == [1, 2]


def _inner_pool() -> list[object]:
    with PoolProcessor(workers=1) as inner:
        inner.register(actions.act)
        return inner.process_many([Do("stop", 1), Do("stop", 2)])


def test_the_fixture_sees_what_a_pool_leaves_behind(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(__file__).parents[1]
    conftest = (root / "conftest.py").read_text("utf-8")
    # nothing here ends by itself: no need to wait for it
    pytester.makeconftest(conftest.replace("GRACE_SECONDS = 20.0", "GRACE_SECONDS = 0.5"))
    pytester.makepyfile(
        """
        from evproc_pool import PoolProcessor
        from tests.support.actions import Do, act

        pools = []

        def test_leaves_a_pool_open():
            pool = PoolProcessor(workers=1)
            pool.register(act)
            pools.append(pool)
            assert pool.process(Do("stop", 1)) == 1

        def test_leaves_nothing():
            pass
        """
    )
    pytester.makeini("[pytest]\n")
    monkeypatch.setenv("PYTHONPATH", str(root.parent))
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", timeout=90)
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*left behind:*", "*process *", "*file descriptor *"])


def test_workers_know_that_they_are_the_pools(shared_pool: PoolProcessor) -> None:
    import multiprocessing

    name = shared_pool.process(Do("call", _process_name))
    assert name.startswith("evproc-worker-")
    assert multiprocessing.current_process().name == "MainProcess"
    children = {each.pid for each in psutil.Process().children(recursive=True)}
    assert set(worker_pids(shared_pool)) <= children


def _process_name() -> str:
    import multiprocessing

    return multiprocessing.current_process().name


def test_close_from_a_callback_is_refused(pool: PoolProcessor, gate: Gate) -> None:
    warm(pool)
    errors: Future[BaseException] = Future()
    future = pool.submit(Do("wait_at", gate.address))
    gate.arrival()  # or else the callback might be called by this thread
    future.add_done_callback(lambda _: errors.set_result(error_of(pool.close)))
    gate.close()
    error = errors.result(PATIENCE_SECONDS)
    assert type(error) is RuntimeError
    assert "callback must not wait for the same pool" in str(error)
    assert pool.process(Do("stop", 1)) == 1


def test_terminate_from_a_callback_ends_the_pool(pool: PoolProcessor, gate: Gate) -> None:
    warm(pool)
    waiting = pool.submit(Do("wait_at", gate.address))
    gate.arrival()
    pool.submit(Do("nothing")).add_done_callback(lambda _: pool.terminate())
    assert isinstance(waiting.exception(PATIENCE_SECONDS), PoolClosedError)
    close_in_time(pool)


def test_forked_error_is_a_runtime_error() -> None:
    assert issubclass(PoolForkedError, RuntimeError)
    assert issubclass(PoolClosedError, RuntimeError)


class _EndsPool:
    """A child of `multiprocessing` that ends a pool when it is looked at."""

    def __init__(self, pool: PoolProcessor) -> None:
        self._popen = self
        self._pool = pool

    def poll(self) -> int:
        self._pool.terminate()
        return 0


def test_a_pool_may_end_while_multiprocessing_goes_through_its_children() -> None:
    """As a garbage collection makes it end, which strikes anywhere."""
    pool = PoolProcessor(1)
    pool.register(actions.act)
    pool.process(Do("nothing"))
    children: set[Any] = multiprocessing.process._children  # type: ignore[attr-defined]
    # it goes through them in no order; one of these comes before the worker
    some = [_EndsPool(pool) for _ in range(50)]
    children.update(some)
    try:
        multiprocessing.active_children()
    finally:
        children.difference_update(some)
    with pytest.raises(PoolClosedError):
        pool.process(Do("nothing"))


def test_a_pool_with_no_workers_asks_for_keys_as_well() -> None:
    def key(ev: Any) -> Any:
        if ev.args == (3,):
            raise SystemExit(3)
        return ev.no_such_attribute if ev.args == (1,) else [ev.args]

    outcomes: list[list[Any]] = []
    for workers in (0, 1):
        with _new(workers=workers) as pool:
            events: list[Any] = [Do("stop", 1), Do("stop", 2), "no event", Do("stop", 3)]
            outcomes.append(list(pool.stream(events, key=key)))
            errors = pool.process_many(events, return_exceptions=True, key=key)
            assert [repr(error) for error in errors] == [
                repr(outcome.error) for outcome in outcomes[-1]
            ]
    told = [
        [(type(each.error), str(each.error), notes_of(each.error), each.events) for each in some]
        for some in outcomes
    ]
    assert told[0] == told[1]
    assert [kind for kind, *_ in told[0]] == [AttributeError, TypeError, TypeError, SystemExit]


@pytest.mark.parametrize(
    "use",
    [
        lambda pool: pool.submit(Do("stop", 5)).result(0),
        lambda pool: pool.process(Do("stop", 5)),
        lambda pool: next(pool.stream([Do("stop", 5)])).value,
    ],
    ids=["submit", "process", "stream"],
)
def test_a_pool_with_no_workers_is_busy_while_another_thread_uses_it(
    gate: Gate, use: Callable[[PoolProcessor], Any]
) -> None:
    options = {"initializer": actions.pass_gate, "initargs": (gate.address,)}
    with _new(workers=0, **options) as pool, Background(lambda: use(pool)) as call:
        gate.arrival()
        with pytest.raises(PoolBusyError):
            pool.register(actions.nested)
        gate.close()
        assert call.result() == 5
        pool.register(actions.nested)


@pytest.mark.parametrize("workers", [0, 1])
def test_the_input_of_a_call_cannot_register_handlers(workers: int) -> None:
    def events() -> Iterator[Do]:
        with pytest.raises(PoolBusyError, match="1 calls"):
            pool.register(actions.act, "another")
        yield Do("stop", 1)

    with _new(workers=workers) as pool:
        assert pool.process_many(events()) == [1]
        pool.register(actions.act, "another")


def test_a_stream_of_a_pool_with_no_workers_ends_with_the_pool() -> None:
    pool = _new(workers=0)
    stream = pool.stream(Do("stop", number) for number in itertools.count())
    assert next(stream).value == 0
    with pytest.raises(PoolBusyError):
        pool.register(actions.nested)
    pool.close()
    with pytest.raises(PoolClosedError):
        next(stream)


# --- no more workers than there is work for ---


def _at_gate(gate: Gate, count: int) -> list[Do]:
    return [Do("wait_at", gate.address) for _ in range(count)]


def test_one_event_after_another_needs_one_worker() -> None:
    with _new(workers=4) as pool:
        for number in range(3):
            assert pool.process(Do("stop", number)) == number
        cascade = Do("follow", *[Do("follow", Do("nothing"))] * 5)
        assert pool.process_many([cascade]) == [None]
        assert list(pool.stream(iter([]))) == []
        assert pool.submit(Do("stop", 5)).result() == 5
        same_key = [Do("stop", number) for number in range(20)]
        assert pool.process_many(same_key, key=lambda ev: 0) == list(range(20))
        assert len(worker_pids(pool)) == 1


@pytest.mark.parametrize("at_hand", [True, False])
def test_as_many_workers_are_started_as_can_be_at_work_at_once(gate: Gate, at_hand: bool) -> None:
    with _new(workers=4) as pool:
        pool.process(Do("nothing"))
        events = _at_gate(gate, 3)
        work = Background(lambda: pool.process_many(events if at_hand else iter(events)))
        arrivals = [gate.arrival() for _ in range(3)]  # all at once, or there would be fewer
        assert len(worker_pids(pool)) == 3
        for arrival in arrivals:
            arrival.release()
        work.result()
        assert len(worker_pids(pool)) == 3


def test_futures_and_calls_of_several_threads_get_a_worker_each(gate: Gate) -> None:
    with _new(workers=4) as pool:
        futures = [pool.submit(ev) for ev in _at_gate(gate, 2)]
        work = Background(lambda: pool.process(_at_gate(gate, 1)[0]))
        arrivals = [gate.arrival() for _ in range(3)]
        assert len(worker_pids(pool)) == 3
        for arrival in arrivals:
            arrival.release()
        work.result()
        assert [future.result() for future in futures] == [None, None]


def test_a_fan_out_gets_a_worker_for_each_follow_up(gate: Gate) -> None:
    with _new(workers=4, ordering="unordered") as pool:
        work = Background(lambda: pool.process(Do("follow", *_at_gate(gate, 3))))
        arrivals = [gate.arrival() for _ in range(3)]
        assert len(worker_pids(pool)) == 3
        for arrival in arrivals:
            arrival.release()
        work.result()


def test_what_was_started_once_is_replaced() -> None:
    with _new(workers=3) as pool:
        (first, *_) = warm(pool)
        os.kill(first, signal.SIGKILL)
        while first in worker_pids(pool) or len(worker_pids(pool)) < 3:
            pool.process(Do("nothing"))
        assert len(warm(pool)) == 3
