"""`process` on a pool with nothing to do: past the scheduler, and what becomes of it if not."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, wait
from concurrent.futures import TimeoutError as FutureTimeoutError
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from evproc import want
from evproc_pool import (
    EventTimeoutError,
    PoolBusyError,
    PoolClosedError,
    PoolProcessor,
    WorkerLostError,
)
from evproc_pool.backends.local.link import DirectLink
from evproc_pool.coordinator import coordinator, single_events
from evproc_pool.coordinator.single_events import SingleEvents
from evproc_pool.testing import simulated_pool
from tests.support import actions
from tests.support.actions import Do
from tests.support.helpers import (
    PATIENCE_SECONDS,
    Background,
    Gate,
    close_in_time,
    ending,
    error_of,
    register_all,
    warm,
)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """What came of asking."""
    seen: Counter[str] = Counter()
    ask, answer = coordinator.Coordinator.ask, SingleEvents.answer
    adopt = coordinator.Coordinator.adopt

    def asks(self: Any, *args: Any) -> Any:
        found = ask(self, *args)
        seen["not sent"] += found is None
        return found

    def answers(self: Any, *args: Any) -> Any:
        found = answer(self, *args)
        seen["answered"] += found is not None
        return found

    def adopts(self: Any, *args: Any) -> None:
        seen["adopted"] += 1
        adopt(self, *args)

    monkeypatch.setattr(coordinator.Coordinator, "ask", asks)
    monkeypatch.setattr(SingleEvents, "answer", answers)
    monkeypatch.setattr(coordinator.Coordinator, "adopt", adopts)
    return seen


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer is waited for as long as it takes, also on a machine that is busy."""
    monkeypatch.setattr(single_events, "_ANSWER_SECONDS", PATIENCE_SECONDS)


@pytest.fixture
def idle(pool: PoolProcessor, asked: Counter[str]) -> PoolProcessor:
    """A pool whose workers are there, and know the plan."""
    warm(pool)
    while asked["answered"] < 2:  # on a busy machine it may be too late a few times
        pool.process(Do("stop", 1))
    asked.clear()
    return pool


@pytest.mark.usefixtures("patient")
def test_a_value_and_none_never_reach_the_scheduler(
    idle: PoolProcessor, asked: Counter[str]
) -> None:
    for number in range(20):
        assert idle.process(Do("stop", number)) == number
        assert idle.process(Do("nothing")) is None
    assert asked == {"answered": 40, "not sent": 0}


@pytest.mark.parametrize(
    "ev",
    [Do("fail", ValueError, "text"), Do("follow", Do("stop", 5), Do("nothing"))],
    ids=["an error", "follow-ups"],
)
def test_what_is_not_that_simple_is_as_ever(
    idle: PoolProcessor, asked: Counter[str], ev: Do
) -> None:
    found = ending(lambda: idle.process(ev))
    with PoolProcessor(0) as here:
        register_all(here, [actions.act, actions.nested])
        assert found == ending(lambda: here.process(ev))
    assert (asked["adopted"], asked["answered"]) == (1, 0)
    assert idle.process(Do("stop", 3)) == 3


def test_an_event_that_cannot_be_pickled(idle: PoolProcessor, asked: Counter[str]) -> None:
    error = error_of(lambda: idle.process(Do("stop", threading.Lock())))
    assert "pickled at .arg" in str(error)
    assert asked == {"not sent": 1}
    assert idle.process(Do("stop", 3)) == 3


def test_a_death_is_charged_to_the_event(idle: PoolProcessor, asked: Counter[str]) -> None:
    for _ in range(3):
        error = error_of(lambda: idle.process(Do("leave", 7)))
        assert isinstance(error, WorkerLostError)
        assert (error.exitcode, error.handler, error.attempt) == (7, "act", 1)
    assert idle.process(Do("stop", 3)) == 3
    assert asked["adopted"] >= 1


def test_a_slow_one_is_waited_for(idle: PoolProcessor, asked: Counter[str], gate: Gate) -> None:
    with Background(lambda: idle.process(Do("wait_at", gate.address))) as slow:
        arrival = gate.arrival()
        # and others go on meanwhile
        assert idle.process(Do("stop", 4)) == 4
        arrival.release()
    assert slow.result() is None
    assert asked["adopted"] == 1


def test_other_threads_do_not_wait_for_it(idle: PoolProcessor, gate: Gate) -> None:
    with Background(lambda: idle.process(Do("wait_at", gate.address))) as slow:
        arrival = gate.arrival()
        assert idle.process_many([Do("stop", number) for number in range(50)]) == list(range(50))
        with pytest.raises(PoolBusyError):
            idle.register(actions.nested, "another")
        arrival.release()
    assert slow.result() is None


def test_close_waits_for_it(idle: PoolProcessor, gate: Gate) -> None:
    with Background(lambda: idle.process(Do("wait_at", gate.address))) as slow:
        arrival = gate.arrival()
        with Background(idle.close):
            arrival.release()
    assert slow.result() is None


def test_terminate_ends_it(idle: PoolProcessor, gate: Gate) -> None:
    with Background(lambda: error_of(lambda: idle.process(Do("wait_at", gate.address)))) as slow:
        gate.arrival()
        idle.terminate()
    assert isinstance(slow.result(), PoolClosedError)


def test_many_threads_ask_at_once(idle: PoolProcessor) -> None:
    def some(first: int) -> list[int]:
        return [idle.process(Do("stop", number)) for number in range(first, first + 100)]

    runs = [Background(partial(some, first)) for first in (0, 1_000, 2_000, 3_000)]
    assert [run.result() for run in runs] == [
        list(range(first, first + 100)) for first in (0, 1_000, 2_000, 3_000)
    ]


def test_beside_a_stream_it_takes_its_turn(idle: PoolProcessor) -> None:
    stream = idle.stream(Do("stop", number) for number in range(100_000))
    for number in range(3):
        assert next(stream).unwrap() == number
        assert idle.process(Do("stop", "beside")) == "beside"
    stream.close()


def test_workers_are_replaced_as_ever(asked: Counter[str]) -> None:
    pool = PoolProcessor(2, max_tasks_per_child=5)
    register_all(pool, [actions.act])
    pids = [pool.process(Do("pid")) for _ in range(60)]
    assert max(Counter(pids).values()) <= 5
    close_in_time(pool)


def test_it_is_timed_as_ever(asked: Counter[str], tmp_path: Path) -> None:
    pool = PoolProcessor(1, event_timeout=0.2)
    register_all(pool, [actions.act])
    for _ in range(3):
        assert pool.process(Do("stop", 1)) == 1
    assert isinstance(
        error_of(lambda: pool.process(Do("spin", str(tmp_path / "spins")))), EventTimeoutError
    )
    assert pool.process(Do("stop", 1)) == 1
    assert asked["adopted"] >= 1
    close_in_time(pool)


def test_batches_are_counted_as_ever(idle: PoolProcessor) -> None:
    """What is taken back is known by the number of its batch."""
    for number in range(10):
        idle.process(Do("stop", number))
        assert idle.process_many([Do("stop", each) for each in range(30)]) == list(range(30))


@pytest.mark.usefixtures("patient")
def test_a_slow_event_behind_quick_ones_does_not_keep_others_waiting(
    idle: PoolProcessor, gate: Gate
) -> None:
    for number in range(20):  # after which it is waited for in another way
        idle.process(Do("stop", number))
    slow = Background(lambda: idle.process(Do("wait_at", gate.address, "", 7)))
    arrival = gate.arrival()
    assert idle.process(Do("stop", 8)) == 8
    arrival.release()
    assert slow.result() == 7


def test_the_death_of_a_worker_is_noticed_however_it_is_waited_for(idle: PoolProcessor) -> None:
    for number in range(20):
        idle.process(Do("stop", number))
    with pytest.raises(WorkerLostError, match="exit code 3"):
        idle.process(Do("leave", 3))
    assert idle.process(Do("stop", 8)) == 8


def test_after_an_interrupt_the_next_call_has_new_workers(
    idle: PoolProcessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = idle.process(Do("pid"))

    def interrupted(*args: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(DirectLink, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        idle.process(Do("stop", 1))
    monkeypatch.undo()
    assert idle.process(Do("pid")) != before


def test_filters_are_asked_once(idle: PoolProcessor, asked: Counter[str]) -> None:
    seen: list[int] = []

    def counts(ev: Any) -> bool:
        seen.append(os.getpid())
        return True

    @want(counts)
    def looks(proc: object, ev: object) -> None:
        """Is asked, and does nothing."""

    idle.register(looks)
    for number in range(3):
        seen.clear()
        idle.process(Do("stop", number))
        assert seen == [os.getpid()]


# --- futures ---


@pytest.mark.usefixtures("patient")
def test_a_future_that_is_waited_for_is_answered_in_the_same_way(
    idle: PoolProcessor, asked: Counter[str]
) -> None:
    for number in range(30):
        assert idle.submit(Do("stop", number)).result(PATIENCE_SECONDS) == number
    assert idle.submit(Do("nothing")).exception(PATIENCE_SECONDS) is None
    # or else the thread of the futures was quicker
    assert asked["adopted"] + asked["answered"] + asked["not sent"] == 31


def test_a_future_that_nobody_waits_for_is_done_all_the_same(idle: PoolProcessor) -> None:
    for number in range(5):
        future = idle.submit(Do("stop", number))
        done, _ = wait([future], PATIENCE_SECONDS)
        assert done == {future}
        called: Future[Any] = Future()
        idle.submit(Do("stop", number)).add_done_callback(called.set_result)
        assert called.result(PATIENCE_SECONDS).result() == number


@pytest.mark.parametrize("number", range(5))
def test_one_behind_the_other(idle: PoolProcessor, number: int) -> None:
    futures = [idle.submit(Do("stop", each)) for each in range(number + 1)]
    assert idle.process(Do("stop", "process")) == "process"
    assert idle.process_many([Do("stop", each) for each in range(20)]) == list(range(20))
    futures += [idle.submit(Do("stop", each)) for each in range(number + 1)]
    assert [each.result(PATIENCE_SECONDS) for each in futures] == 2 * list(range(number + 1))


def test_a_future_whose_worker_dies(idle: PoolProcessor) -> None:
    for _ in range(3):
        error = idle.submit(Do("leave", 7)).exception(PATIENCE_SECONDS)
        assert isinstance(error, WorkerLostError)
        assert (error.exitcode, error.handler) == (7, "act")
    assert idle.submit(Do("stop", 3)).result(PATIENCE_SECONDS) == 3


def test_a_future_that_was_sent_runs_and_cannot_be_cancelled(
    idle: PoolProcessor, gate: Gate
) -> None:
    future = idle.submit(Do("wait_at", gate.address))
    gate.arrival()
    assert future.running()
    assert not future.cancel()
    with pytest.raises(PoolBusyError):
        idle.register(actions.nested, "another")
    with pytest.raises(FutureTimeoutError):
        future.result(0)
    gate.close()
    assert future.result(PATIENCE_SECONDS) is None


def test_what_was_sent_ends_with_the_pool(idle: PoolProcessor, gate: Gate) -> None:
    future = idle.submit(Do("wait_at", gate.address))
    gate.arrival()
    idle.terminate()
    assert isinstance(future.exception(PATIENCE_SECONDS), PoolClosedError)


def test_close_finishes_what_was_sent(idle: PoolProcessor) -> None:
    future = idle.submit(Do("stop", 5))
    idle.close()
    assert future.done()
    assert future.result() == 5


def test_an_interrupt_while_a_future_is_waited_for_changes_nothing(
    idle: PoolProcessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    future = idle.submit(Do("stop", 1))
    with monkeypatch.context() as patch:
        patch.setattr(DirectLink, "wait", interrupted)
        # the thread of the futures may have been quicker
        with contextlib.suppress(KeyboardInterrupt):
            future.result(PATIENCE_SECONDS)
    assert future.result(PATIENCE_SECONDS) == 1
    assert idle.process(Do("stop", 2)) == 2


def test_many_threads_submit_at_once(idle: PoolProcessor) -> None:
    def some(first: int) -> list[int]:
        return [
            idle.submit(Do("stop", number)).result(PATIENCE_SECONDS)
            for number in range(first, first + 100)
        ]

    runs = [Background(partial(some, first)) for first in (0, 1_000, 2_000)]
    assert [run.result() for run in runs] == [
        list(range(first, first + 100)) for first in (0, 1_000, 2_000)
    ]


@pytest.fixture
def simulated() -> Iterator[PoolProcessor]:
    with simulated_pool(2, seed=1) as pool:
        yield register_all(pool, [actions.act])


def test_a_simulated_pool_has_no_short_cut(simulated: PoolProcessor, asked: Counter[str]) -> None:
    assert [simulated.process(Do("stop", number)) for number in range(5)] == list(range(5))
    assert asked["answered"] == 0
