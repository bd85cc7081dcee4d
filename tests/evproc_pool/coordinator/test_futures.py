"""`submit`: futures that behave as those of the standard library, from any thread."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import signal
import sys
import threading
import types
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, wait
from pathlib import Path
from typing import Any

import pytest

import evproc
from evproc_pool import PoolClosedError, PoolProcessor, SerializationError
from evproc_pool.testing import ManualClock, simulated_pool
from tests.support import actions
from tests.support.actions import Do, Unwanted
from tests.support.helpers import (
    PATIENCE_SECONDS,
    Arrival,
    Background,
    Gate,
    close_in_time,
    error_of,
    register_all,
    wait_until,
    warm,
)


@pytest.fixture(params=[0, 2])
def any_pool(request: pytest.FixtureRequest, shared_pool: PoolProcessor) -> PoolProcessor:
    """With workers and without."""
    if request.param:
        return shared_pool
    pool: PoolProcessor = register_all(PoolProcessor(workers=0), [actions.act, actions.nested])
    return pool


# --- what a future ends with ---


def test_a_future_has_the_value(any_pool: PoolProcessor) -> None:
    future = any_pool.submit(Do("follow", Do("nothing"), Do("stop", 5)))
    assert isinstance(future, Future)
    assert future.result(PATIENCE_SECONDS) == 5
    assert future.exception(0) is None
    assert future.done()


@pytest.mark.parametrize("ev", [Unwanted(), Do("nothing"), Do("follow", Do("nothing"))])
def test_a_future_of_an_event_without_a_value_has_none(any_pool: PoolProcessor, ev: Any) -> None:
    assert any_pool.submit(ev).result(PATIENCE_SECONDS) is None


@pytest.mark.parametrize(
    ("ev", "error"),
    [
        (Do("fail", KeyError, 1), KeyError),
        ("no event", TypeError),
        (None, TypeError),
    ],
)
def test_a_future_fails_with_what_process_raises(
    any_pool: PoolProcessor, ev: Any, error: type[Exception]
) -> None:
    expected = error_of(lambda: any_pool.process(ev))
    raised = any_pool.submit(ev).exception(PATIENCE_SECONDS)
    assert isinstance(raised, error)
    assert (type(raised), raised.args) == (type(expected), expected.args)


def test_a_future_of_what_cannot_be_pickled_fails_alone(shared_pool: PoolProcessor) -> None:
    futures = [
        shared_pool.submit(ev)
        for ev in (Do("stop", 1), Do("stop", threading.Lock()), Do("stop", 2))
    ]
    assert futures[0].result(PATIENCE_SECONDS) == 1
    assert isinstance(futures[1].exception(PATIENCE_SECONDS), SerializationError)
    assert futures[2].result(PATIENCE_SECONDS) == 2


def test_many_futures(any_pool: PoolProcessor) -> None:
    futures = [any_pool.submit(Do("stop", place)) for place in range(2_000)]
    assert [future.result(PATIENCE_SECONDS) for future in futures] == list(range(2_000))


def test_the_thread_that_drives_is_gone_with_the_last_future(shared_pool: PoolProcessor) -> None:
    shared_pool.submit(Do("stop", 1)).result(PATIENCE_SECONDS)
    for thread in threading.enumerate():
        if thread.name == "evproc_pool futures":
            thread.join(PATIENCE_SECONDS)
            assert not thread.is_alive()
    assert shared_pool.submit(Do("stop", 2)).result(PATIENCE_SECONDS) == 2


# --- cancelling ---


def test_a_future_that_has_not_been_sent_can_be_cancelled(
    one_worker: PoolProcessor, gate: Gate
) -> None:
    running = one_worker.submit(Do("wait_at", gate.address))
    gate.arrival()
    waiting = [one_worker.submit(Do("stop", place)) for place in range(600)]
    assert not running.cancel()
    cancelled = [future.cancel() for future in waiting]
    assert any(cancelled)
    gate.close()
    for place, (future, is_cancelled) in enumerate(zip(waiting, cancelled, strict=True)):
        if is_cancelled:
            with pytest.raises(CancelledError):
                future.result(PATIENCE_SECONDS)
        else:
            assert future.result(PATIENCE_SECONDS) == place
    assert one_worker.process(Do("stop", "after")) == "after"


def test_whoever_waits_for_a_cancelled_future_is_told(
    one_worker: PoolProcessor, gate: Gate
) -> None:
    one_worker.submit(Do("wait_at", gate.address))
    gate.arrival()
    waiting = [one_worker.submit(Do("stop", place)) for place in range(600)]
    cancelled = [future for future in waiting if future.cancel()]
    called: list[object] = []
    cancelled[-1].add_done_callback(called.append)
    with Background(lambda: concurrent.futures.wait(waiting, timeout=PATIENCE_SECONDS)) as call:
        gate.close()
        done, not_done = call.result()
    assert not not_done
    assert set(waiting) == done
    assert called == [cancelled[-1]]


def test_a_cancelled_event_does_not_run(
    one_worker: PoolProcessor, gate: Gate, tmp_path: Any
) -> None:
    log = tmp_path / "log"
    one_worker.submit(Do("wait_at", gate.address))
    gate.arrival()
    waiting = [one_worker.submit(Do("log", str(log), str(place))) for place in range(600)]
    cancelled = {place for place, future in enumerate(waiting) if future.cancel()}
    assert cancelled
    gate.close()
    one_worker.close()
    lines = [int(line) for line in log.read_text().split()] if log.exists() else []
    assert lines == [place for place in range(600) if place not in cancelled]


def sent_behind(pool: PoolProcessor, gate: Gate, events: list[Do]) -> tuple[Arrival, list[Any]]:
    """Send events to a worker that waits at a gate; return the futures of those that it has."""
    for _ in range(2):
        pool.process_many([Do("stop", place) for place in range(500)])  # quick ones, as it seems
    pool.submit(Do("wait_at", gate.address))
    arrival = gate.arrival()
    futures = [pool.submit(ev) for ev in events]
    wait_until(futures[0].running, "some are sent")
    return arrival, [future for future in futures if future.running()]


def test_what_waits_in_a_worker_can_be_cancelled(one_worker: PoolProcessor, gate: Gate) -> None:
    _, waiting = sent_behind(one_worker, gate, [Do("wait_at", gate.address) for _ in range(50)])
    assert waiting[-1].cancel()
    assert waiting[-1].cancelled()
    wait_until(lambda: not any(future.running() for future in waiting), "the others come back, too")
    assert all(future.cancel() for future in waiting)
    gate.close()
    assert one_worker.submit(Do("stop", 1)).result(PATIENCE_SECONDS) == 1


CLOCK = ManualClock()
MAY_BEGIN = threading.Event()


class Work(evproc.Event):
    """Takes some time by the clock."""

    name = "work"

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds


def work(proc: object, ev: Work) -> None:
    MAY_BEGIN.wait(PATIENCE_SECONDS)
    CLOCK.advance(ev.seconds)


def test_what_a_worker_gives_back_can_be_cancelled() -> None:
    with simulated_pool(1, clock=CLOCK) as pool:
        pool.register(work)
        MAY_BEGIN.set()
        pool.process_many([Work(0) for _ in range(500)])
        MAY_BEGIN.clear()
        futures: list[Future[None]] = []
        cancelled: list[bool] = []

        def submit_together(_: object) -> None:
            """From the thread that drives, so that they are handed in together."""
            futures.extend(pool.submit(Work(9)) for _ in range(50))
            futures[0].add_done_callback(cancel)

        def cancel(_: object) -> None:
            cancelled.extend(future.cancel() for future in reversed(futures[1:]))

        pool.submit(Work(0)).add_done_callback(submit_together)
        MAY_BEGIN.set()
        wait_until(lambda: cancelled, "the first of them is over")
    assert futures[1].cancelled()  # it was behind the first, in one batch
    assert not futures[0].cancelled()
    assert [future.cancelled() for future in reversed(futures[1:])] == cancelled


def test_an_event_that_has_begun_cannot_be_cancelled(one_worker: PoolProcessor, gate: Gate) -> None:
    events = [Do("follow", Do("stop", 5)), Do("wait_at", gate.address, "next")]
    arrival, waiting = sent_behind(one_worker, gate, events)
    arrival.release()
    assert gate.arrival().text == "next"
    assert not any(future.cancel() for future in waiting)
    gate.close()
    assert waiting[0].result(PATIENCE_SECONDS) == 5


def test_what_a_dead_worker_had_cannot_be_cancelled(one_worker: PoolProcessor, gate: Gate) -> None:
    events = [Do("wait_at", gate.address), *[Do("stop", 5)] * 20]
    arrival, waiting = sent_behind(one_worker, gate, events)
    os.kill(arrival.pid, getattr(signal, "SIGKILL", signal.SIGTERM))
    gate.arrival()
    assert not waiting[-1].cancel()
    gate.close()
    wait(waiting, PATIENCE_SECONDS)
    assert not waiting[-1].cancelled()


def test_in_a_callback_cancel_does_not_wait(one_worker: PoolProcessor, gate: Gate) -> None:
    arrival, waiting = sent_behind(one_worker, gate, [Do("wait_at", gate.address)] * 3)
    cancelled: list[bool] = []
    waiting[0].add_done_callback(lambda _: cancelled.append(waiting[-1].cancel()))
    arrival.release()
    gate.arrival().release()
    gate.arrival()
    wait_until(waiting[0].done, "it is over")
    wait_until(lambda: bool(cancelled), "its callback was called")
    assert cancelled == [waiting[-1].cancelled()]
    gate.close()


def test_a_pool_with_cancelled_futures_closes(one_worker: PoolProcessor, gate: Gate) -> None:
    one_worker.submit(Do("wait_at", gate.address))
    gate.arrival()
    waiting = [one_worker.submit(Do("stop", place)) for place in range(600)]
    cancelled = [future.cancel() for future in waiting]
    assert any(cancelled)
    gate.close()
    close_in_time(one_worker)
    assert all(future.done() for future in waiting)


def test_terminate_with_cancelled_futures_ends_all(one_worker: PoolProcessor, gate: Gate) -> None:
    running = one_worker.submit(Do("wait_at", gate.address))
    gate.arrival()
    waiting = [one_worker.submit(Do("stop", place)) for place in range(600)]
    cancelled = [future for future in waiting[::2] if future.cancel()]
    assert cancelled
    one_worker.terminate()
    assert isinstance(running.exception(PATIENCE_SECONDS), PoolClosedError)
    for future in waiting:
        if future in cancelled:
            assert future.cancelled()
        else:
            assert isinstance(future.exception(PATIENCE_SECONDS), PoolClosedError)


# --- with the standard library ---


def test_wait_and_as_completed(shared_pool: PoolProcessor, gate: Gate) -> None:
    late = shared_pool.submit(Do("wait_at", gate.address, "", "late"))
    gate.arrival()
    early = [shared_pool.submit(Do("stop", place)) for place in range(5)]
    done, not_done = concurrent.futures.wait(early, timeout=PATIENCE_SECONDS)
    assert (done, not_done) == (set(early), set())
    done, not_done = concurrent.futures.wait(
        [*early, late], return_when=concurrent.futures.FIRST_COMPLETED
    )
    assert late in not_done
    gate.close()
    completed = list(concurrent.futures.as_completed([late, *early], timeout=PATIENCE_SECONDS))
    assert set(completed) == {late, *early}
    assert late.result(0) == "late"


def test_asyncio_wrap_future(shared_pool: PoolProcessor) -> None:
    async def main() -> list[Any]:
        futures = [
            asyncio.wrap_future(shared_pool.submit(ev))
            for ev in (Do("stop", 1), Do("follow", Do("stop", 2)), Do("fail", KeyError, 3))
        ]
        results: list[Any] = await asyncio.gather(*futures, return_exceptions=True)
        return results

    values = asyncio.run(main())
    assert values[:2] == [1, 2]
    assert isinstance(values[2], KeyError)


def test_asyncio_cancels_what_has_not_been_sent(one_worker: PoolProcessor, gate: Gate) -> None:
    async def main() -> None:
        one_worker.submit(Do("wait_at", gate.address))
        gate.arrival()
        waiting = [one_worker.submit(Do("stop", place)) for place in range(600)]
        wrapped = asyncio.wrap_future(waiting[-1])
        wrapped.cancel()
        with pytest.raises(asyncio.CancelledError):
            await wrapped
        while not waiting[-1].cancelled():  # the loop has yet to tell it
            await asyncio.sleep(0)
        gate.close()
        assert await asyncio.wrap_future(waiting[0]) == 0

    asyncio.run(main())
    assert one_worker.process(Do("stop", 1)) == 1


# --- callbacks ---


def test_a_callback_may_submit_again(any_pool: PoolProcessor) -> None:
    values: list[int] = []
    end: Future[int] = Future()

    def callback(future: Future[int]) -> None:
        value = future.result(0)
        values.append(value)
        if value < 50:
            any_pool.submit(Do("stop", value + 1)).add_done_callback(callback)
        else:
            end.set_result(value)

    any_pool.submit(Do("stop", 0)).add_done_callback(callback)
    assert end.result(PATIENCE_SECONDS) == 50
    assert values == list(range(51))


_WAITS: list[Callable[[PoolProcessor], object]] = [
    lambda pool: pool.process(Do("stop", 1)),
    lambda pool: pool.process_many([Do("stop", 1)]),
    lambda pool: list(pool.stream([Do("stop", 1)])),
]


@pytest.mark.parametrize("wait", _WAITS, ids=["process", "process_many", "stream"])
def test_a_callback_that_waits_for_the_pool_is_told_that_it_must_not(
    pool: PoolProcessor, gate: Gate, wait: Callable[[PoolProcessor], object]
) -> None:
    warm(pool)
    errors: Future[BaseException] = Future()
    # held back, so that the callback is not called here and now
    future = pool.submit(Do("wait_at", gate.address))
    gate.arrival()
    future.add_done_callback(lambda _: errors.set_result(error_of(lambda: wait(pool))))
    gate.close()
    error = errors.result(PATIENCE_SECONDS)
    assert type(error) is RuntimeError
    assert "callback must not wait for the same pool" in str(error)
    # no trace of it is left
    assert pool.process(Do("stop", 1)) == 1
    pool.register(actions.asks)
    assert pool.process(Do("stop", 2)) == 2


def test_a_callback_that_raises_hurts_nobody(pool: PoolProcessor, gate: Gate) -> None:
    warm(pool)
    future = pool.submit(Do("wait_at", gate.address, "", 1))
    gate.arrival()
    future.add_done_callback(lambda _: actions.raise_it(ValueError, "callback"))
    gate.close()
    assert future.result(PATIENCE_SECONDS) == 1
    assert pool.submit(Do("stop", 2)).result(PATIENCE_SECONDS) == 2


def test_a_callback_that_raises_no_exception_hurts_nobody_either(
    pool: PoolProcessor, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    warm(pool)
    future = pool.submit(Do("wait_at", gate.address, "", 1))
    gate.arrival()
    others = [pool.submit(Do("stop", place)) for place in range(5)]
    future.add_done_callback(lambda _: actions.raise_it(actions.Leaves, "callback"))
    gate.close()
    assert future.result(PATIENCE_SECONDS) == 1
    assert [other.result(PATIENCE_SECONDS) for other in others] == list(range(5))
    assert pool.process_many([Do("stop", 2)]) == [2]
    assert "callback" in caplog.text


def test_a_callback_that_raises_no_exception_keeps_no_other_from_being_told(
    pool: PoolProcessor, gate: Gate
) -> None:
    warm(pool)
    futures = [pool.submit(Do("wait_at", gate.address, "", place)) for place in range(4)]
    gate.arrival()
    futures[0].add_done_callback(lambda _: actions.raise_it(actions.Leaves, "callback"))
    pool.terminate()
    for future in futures:
        assert isinstance(future.exception(PATIENCE_SECONDS), PoolClosedError)


def test_a_callback_on_a_future_that_is_done_is_called_at_once(any_pool: PoolProcessor) -> None:
    future = any_pool.submit(Do("stop", 1))
    future.result(PATIENCE_SECONDS)
    called: list[object] = []
    future.add_done_callback(called.append)
    assert called == [future]


# --- threads ---


def test_many_threads_submit_at_once(shared_pool: PoolProcessor) -> None:
    start = threading.Barrier(8)

    def submit(number: int) -> bool:
        start.wait(PATIENCE_SECONDS)
        futures = [shared_pool.submit(Do("stop", (number, place))) for place in range(200)]
        return [each.result(PATIENCE_SECONDS) for each in futures] == [
            (number, place) for place in range(200)
        ]

    calls = [Background(lambda number=number: submit(number)) for number in range(8)]  # type: ignore[misc]  # a default
    assert [call.result() for call in calls] == [True] * 8


def test_futures_are_served_while_the_main_thread_processes_many(
    shared_pool: PoolProcessor,
) -> None:
    def submit_one_after_the_other() -> list[object]:
        return [shared_pool.submit(Do("stop", n)).result(PATIENCE_SECONDS) for n in range(100)]

    with Background(submit_one_after_the_other) as call:
        for _ in range(20):
            assert shared_pool.process_many([Do("stop", 1)] * 50) == [1] * 50
        assert call.result() == list(range(100))


def test_a_future_keeps_a_pool_that_nobody_refers_to_until_it_is_done(gate: Gate) -> None:
    pool: PoolProcessor = register_all(PoolProcessor(workers=1), [actions.act])
    future = pool.submit(Do("wait_at", gate.address, "", 7))
    gate.arrival()
    del pool
    gate.close()
    assert future.result(PATIENCE_SECONDS) == 7


def test_a_submission_takes_no_condition_by_python_code(pool: PoolProcessor) -> None:
    """An interrupt in `Condition.__enter__` or `__exit__` would leave the pool's lock taken."""
    code = {threading.Condition.__enter__.__code__, threading.Condition.__exit__.__code__}
    callers: set[str] = set()

    def note(frame: types.FrameType, event: str, arg: object) -> None:
        back = frame.f_back
        if event == "call" and frame.f_code in code and back is not None:
            callers.add(Path(back.f_code.co_filename).name)

    pool.submit(Do("stop", 0)).result(PATIENCE_SECONDS)
    sys.setprofile(note)
    future = pool.submit(Do("stop", 1))
    future.add_done_callback(lambda future: None)
    sys.setprofile(None)
    assert future.result(PATIENCE_SECONDS) == 1
    assert callers.isdisjoint({"futures.py", "stdlib_futures.py", "_base.py"})


def test_the_next_event_starts_the_thread_that_could_not_be_started(
    pool: PoolProcessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert pool.process(Do("stop", 0)) == 0
    start = threading.Thread.start

    def fails(thread: threading.Thread) -> None:
        if "futures" in thread.name:
            raise RuntimeError("can't start new thread")
        start(thread)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fails)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            pool.submit(Do("stop", 1))
    # nobody waits for a single one, which would drive
    futures = [pool.submit(Do("stop", number)) for number in range(3)]
    done, _ = wait(futures, PATIENCE_SECONDS)
    assert {future.result() for future in done} == {0, 1, 2}
