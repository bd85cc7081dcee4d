"""The short cut for a single event: an idle pool sends it to a worker, past the scheduler.

The fixture `ways` counts what came of it. An event was *answered* where the worker's answer
came back that way. It was *adopted* where it was sent that way and then given to the scheduler.
It was *not sent* where the coordinator had no use for the short cut.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, wait
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from evproc import want
from evproc_pool import (
    EventTimeoutError,
    PoolBusyError,
    PoolClosedError,
    PoolInterruptedError,
    PoolProcessor,
    WorkerLostError,
)
from evproc_pool.backends.local.worker_process import DirectLink
from evproc_pool.coordinator import coordinator, futures, single_events
from evproc_pool.coordinator.single_events import SingleEvents
from evproc_pool.testing import simulated_pool
from tests.support import actions
from tests.support.actions import UNPICKLABLE, Do
from tests.support.helpers import (
    PATIENCE_SECONDS,
    Background,
    Gate,
    close_in_time,
    ending,
    error_of,
    register_all,
    wait_until,
    warm,
)


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often an event was answered, adopted, and not sent; see above."""
    seen: Counter[str] = Counter()
    try_send, answer = coordinator.Coordinator.try_send_single, SingleEvents.answer
    adopt = coordinator.Coordinator.adopt

    def tries(self: Any, *args: Any) -> Any:
        found = try_send(self, *args)
        seen["not sent"] += found is None
        return found

    def answers(self: Any, *args: Any) -> Any:
        found = answer(self, *args)
        seen["answered"] += found is not None
        return found

    def adopts(self: Any, *args: Any) -> None:
        seen["adopted"] += 1
        adopt(self, *args)

    monkeypatch.setattr(coordinator.Coordinator, "try_send_single", tries)
    monkeypatch.setattr(SingleEvents, "answer", answers)
    monkeypatch.setattr(coordinator.Coordinator, "adopt", adopts)
    return seen


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the short cut wait for an answer as long as it takes, also on a busy machine."""
    monkeypatch.setattr(single_events, "_ANSWER_SECONDS", PATIENCE_SECONDS)


@pytest.fixture
def idle(pool: PoolProcessor, ways: Counter[str]) -> PoolProcessor:
    """A pool whose workers are there, and know the plan."""
    warm(pool)
    _use_short_cut(pool, ways)
    ways.clear()
    return pool


def _use_short_cut(pool: PoolProcessor, ways: Counter[str]) -> None:
    """Process events until the short cut has answered two more of them.

    On a busy machine, or while a worker is being started, a few take the other way.
    """
    before = ways["answered"]

    def is_used() -> bool:
        assert pool.process(Do("stop", 1)) == 1
        return ways["answered"] >= before + 2

    wait_until(is_used, "the short cut answers")


@pytest.mark.usefixtures("patient")
def test_a_value_and_none_never_reach_the_scheduler(
    idle: PoolProcessor, ways: Counter[str]
) -> None:
    for number in range(20):
        assert idle.process(Do("stop", number)) == number
        assert idle.process(Do("nothing")) is None
    assert ways == {"answered": 40, "not sent": 0}


@pytest.mark.parametrize(
    "ev",
    [Do("fail", ValueError, "text"), Do("follow", Do("stop", 5), Do("nothing"))],
    ids=["an error", "follow-ups"],
)
def test_an_error_or_follow_ups_are_left_to_the_scheduler(
    idle: PoolProcessor, ways: Counter[str], ev: Do
) -> None:
    found = ending(lambda: idle.process(ev))
    with PoolProcessor(0) as here:
        register_all(here, [actions.act, actions.nested])
        assert found == ending(lambda: here.process(ev))
    assert (ways["adopted"], ways["answered"]) == (1, 0)
    assert idle.process(Do("stop", 3)) == 3


def test_an_event_that_cannot_be_pickled_is_not_sent(
    idle: PoolProcessor, ways: Counter[str]
) -> None:
    error = error_of(lambda: idle.process(Do("stop", threading.Lock())))
    assert "pickled at .arg" in str(error)
    assert ways == {"not sent": 1}
    assert idle.process(Do("stop", 3)) == 3


def test_a_death_is_charged_to_the_event(idle: PoolProcessor, ways: Counter[str]) -> None:
    for _ in range(3):
        error = error_of(lambda: idle.process(Do("leave", 7)))
        assert isinstance(error, WorkerLostError)
        assert (error.exitcode, error.handler, error.attempt) == (7, "act", 1)
    assert idle.process(Do("stop", 3)) == 3
    assert ways["adopted"] >= 1
    assert ways["answered"] <= 1  # the last one


def test_a_slow_event_is_waited_for(idle: PoolProcessor, ways: Counter[str], gate: Gate) -> None:
    with Background(lambda: idle.process(Do("wait_at", gate.address))) as slow:
        arrival = gate.arrival()
        # others go on meanwhile
        assert idle.process(Do("stop", 4)) == 4
        arrival.release()
    assert slow.result() is None
    assert ways["adopted"] == 1


def test_other_threads_do_not_wait_for_a_slow_event(
    idle: PoolProcessor, ways: Counter[str], gate: Gate
) -> None:
    with Background(lambda: idle.process(Do("wait_at", gate.address))) as slow:
        arrival = gate.arrival()
        assert idle.process_many([Do("stop", number) for number in range(50)]) == list(range(50))
        with pytest.raises(PoolBusyError):
            idle.register(actions.nested, "another")
        arrival.release()
    assert slow.result() is None
    assert (ways["adopted"], ways["answered"]) == (1, 0)


def test_close_waits_for_a_slow_event(idle: PoolProcessor, ways: Counter[str], gate: Gate) -> None:
    with Background(lambda: idle.process(Do("wait_at", gate.address, "", 7))) as slow:
        arrival = gate.arrival()
        with Background(idle.close) as closing:
            closing.wait_until_it_waits("drain")
            assert not slow.is_over
            arrival.release()
            closing.result()
    assert slow.result() == 7
    assert not ways["not sent"]


def test_terminate_ends_a_slow_event(idle: PoolProcessor, ways: Counter[str], gate: Gate) -> None:
    with Background(lambda: error_of(lambda: idle.process(Do("wait_at", gate.address)))) as slow:
        gate.arrival()
        idle.terminate()
    assert isinstance(slow.result(), PoolClosedError)
    assert not ways["not sent"]


def test_many_threads_call_at_once(idle: PoolProcessor, ways: Counter[str]) -> None:
    def some(first: int) -> list[int]:
        return [idle.process(Do("stop", number)) for number in range(first, first + 100)]

    runs = [Background(partial(some, first)) for first in (0, 1_000, 2_000, 3_000)]
    assert [run.result() for run in runs] == [
        list(range(first, first + 100)) for first in (0, 1_000, 2_000, 3_000)
    ]
    # some of them did, and afterwards the short cut is as good as before
    assert ways["answered"] + ways["adopted"] > 0
    _use_short_cut(idle, ways)


def test_beside_a_stream_a_single_event_takes_its_turn(idle: PoolProcessor) -> None:
    stream = idle.stream(Do("stop", number) for number in range(100_000))
    for number in range(3):
        assert next(stream).unwrap() == number
        assert idle.process(Do("stop", "beside")) == "beside"
    stream.close()


@pytest.mark.usefixtures("patient")
def test_events_of_the_short_cut_count_for_max_tasks_per_child(ways: Counter[str]) -> None:
    pool = PoolProcessor(1, max_tasks_per_child=5)
    register_all(pool, [actions.act])
    pids = [pool.process(Do("pid")) for _ in range(60)]
    assert max(Counter(pids).values()) <= 5
    assert ways["answered"] > 0
    close_in_time(pool)


def test_event_timeout_holds_for_the_short_cut(ways: Counter[str], tmp_path: Path) -> None:
    pool = PoolProcessor(1, event_timeout=0.2)
    register_all(pool, [actions.act])
    for _ in range(3):
        assert pool.process(Do("stop", 1)) == 1
    assert isinstance(
        error_of(lambda: pool.process(Do("spin", str(tmp_path / "spins")))), EventTimeoutError
    )
    assert pool.process(Do("stop", 1)) == 1
    assert ways["adopted"] >= 1
    close_in_time(pool)


@pytest.mark.usefixtures("patient")
def test_batches_are_counted_with_those_of_the_short_cut(
    idle: PoolProcessor, ways: Counter[str]
) -> None:
    """A batch that is taken back is named by its number."""
    for number in range(10):
        idle.process(Do("stop", number))
        assert idle.process_many([Do("stop", each) for each in range(30)]) == list(range(30))
    assert ways["answered"] > 0


@pytest.mark.usefixtures("patient")
def test_a_slow_event_behind_quick_ones_does_not_keep_others_waiting(
    idle: PoolProcessor, ways: Counter[str], gate: Gate
) -> None:
    for number in range(20):
        idle.process(Do("stop", number))
    assert ways["answered"] == 20
    slow = Background(lambda: idle.process(Do("wait_at", gate.address, "", 7)))
    arrival = gate.arrival()
    assert idle.process(Do("stop", 8)) == 8
    arrival.release()
    assert slow.result() == 7
    assert ways["adopted"] == 1


@pytest.mark.usefixtures("patient")
def test_the_death_of_a_worker_is_noticed_behind_quick_events(
    idle: PoolProcessor, ways: Counter[str]
) -> None:
    for number in range(20):
        idle.process(Do("stop", number))
    assert ways["answered"] == 20
    with pytest.raises(WorkerLostError, match="exit code 3"):
        idle.process(Do("leave", 3))
    assert ways["adopted"] == 1
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


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize(
    ("ev", "way"),
    [
        (Do("stop", 1), "answered"),
        (Do("fail", ValueError), "adopted"),
        (Do("stop", UNPICKLABLE["lock"]()), "not sent"),
    ],
    ids=["answered", "adopted", "not sent"],
)
def test_filters_are_called_once(idle: PoolProcessor, ways: Counter[str], ev: Do, way: str) -> None:
    seen: list[int] = []

    def counts(ev: Any) -> bool:
        seen.append(os.getpid())
        return True

    @want(counts)
    def looks(proc: object, ev: object) -> None:
        """Has a filter, and does nothing."""

    idle.register(looks)
    warm(idle)
    _use_short_cut(idle, ways)
    ways.clear()
    seen.clear()
    ending(lambda: idle.process(ev))
    assert seen == [os.getpid()]
    assert +ways == {way: 1}


# --- futures ---


@pytest.fixture
def submits(idle: PoolProcessor, ways: Counter[str]) -> PoolProcessor:
    """An idle pool of which the next future is sent by the short cut.

    The first future of a pool never is: it opens a run, of which the scheduler has to know.
    """

    def is_used() -> bool:
        assert idle.submit(Do("stop", 1)).result(PATIENCE_SECONDS) == 1
        return ways["answered"] + ways["adopted"] > 0

    wait_until(is_used, "the short cut sends")
    ways.clear()
    return idle


@pytest.fixture
def left_to_the_waiter(
    submits: PoolProcessor, patient: None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Have the thread of the futures leave each event to the thread that waits for it."""
    assert submits._owner.futures is not None
    monkeypatch.setattr(futures, "_HELP_SECONDS", PATIENCE_SECONDS)
    submits._owner.futures.hurry()  # it waits by the new figure from now on
    yield
    if submits._owner.futures is not None:
        submits._owner.futures.hurry()  # it ends


@pytest.mark.usefixtures("left_to_the_waiter")
def test_a_future_that_is_waited_for_is_answered_by_the_short_cut(
    submits: PoolProcessor, ways: Counter[str]
) -> None:
    for number in range(30):
        assert submits.submit(Do("stop", number)).result(PATIENCE_SECONDS) == number
    assert submits.submit(Do("nothing")).exception(PATIENCE_SECONDS) is None
    assert +ways == {"answered": 31}


def test_a_future_that_nobody_waits_for_is_done_all_the_same(submits: PoolProcessor) -> None:
    for number in range(5):
        future = submits.submit(Do("stop", number))
        done, _ = wait([future], PATIENCE_SECONDS)
        assert done == {future}
        called: Future[Any] = Future()
        submits.submit(Do("stop", number)).add_done_callback(called.set_result)
        assert called.result(PATIENCE_SECONDS).result() == number


@pytest.mark.parametrize("number", range(5))
def test_futures_behind_one_that_was_sent_are_done_too(submits: PoolProcessor, number: int) -> None:
    futures = [submits.submit(Do("stop", each)) for each in range(number + 1)]
    assert submits.process(Do("stop", "process")) == "process"
    assert submits.process_many([Do("stop", each) for each in range(20)]) == list(range(20))
    futures += [submits.submit(Do("stop", each)) for each in range(number + 1)]
    assert [each.result(PATIENCE_SECONDS) for each in futures] == 2 * list(range(number + 1))


def test_a_future_whose_worker_dies(submits: PoolProcessor, ways: Counter[str]) -> None:
    for _ in range(3):
        error = submits.submit(Do("leave", 7)).exception(PATIENCE_SECONDS)
        assert isinstance(error, WorkerLostError)
        assert (error.exitcode, error.handler) == (7, "act")
    assert ways["adopted"] >= 1
    assert submits.submit(Do("stop", 3)).result(PATIENCE_SECONDS) == 3


def test_a_future_that_was_sent_runs_and_cannot_be_cancelled(
    submits: PoolProcessor, gate: Gate
) -> None:
    future = submits.submit(Do("wait_at", gate.address))
    gate.arrival()
    assert future.running()
    assert not future.cancel()
    with pytest.raises(PoolBusyError):
        submits.register(actions.nested, "another")
    with pytest.raises(TimeoutError):
        future.result(0)
    gate.close()
    assert future.result(PATIENCE_SECONDS) is None


def test_terminate_ends_a_future_that_was_sent(submits: PoolProcessor, gate: Gate) -> None:
    future = submits.submit(Do("wait_at", gate.address))
    gate.arrival()
    submits.terminate()
    assert isinstance(future.exception(PATIENCE_SECONDS), PoolClosedError)


def test_close_finishes_a_future_that_was_sent(
    submits: PoolProcessor, ways: Counter[str], gate: Gate
) -> None:
    future = submits.submit(Do("wait_at", gate.address, "", 5))
    gate.arrival()
    assert not ways["not sent"]
    with Background(submits.close) as closing:
        closing.wait_until_it_waits("drain")
        assert not future.done()
        gate.close()
        closing.result()
    assert future.result(0) == 5


@pytest.mark.usefixtures("left_to_the_waiter")
def test_an_interrupt_while_a_future_is_waited_for_drops_what_is_in_flight(
    submits: PoolProcessor, ways: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = submits.process(Do("pid"))
    ways.clear()

    def interrupted(*args: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    future = submits.submit(Do("stop", 1))
    with monkeypatch.context() as patch:
        patch.setattr(DirectLink, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            future.result(PATIENCE_SECONDS)
    assert +ways == {}  # it was sent, and nobody has taken its answer
    assert isinstance(future.exception(PATIENCE_SECONDS), PoolInterruptedError)
    assert submits.process(Do("pid")) != before


def test_many_threads_submit_at_once(submits: PoolProcessor, ways: Counter[str]) -> None:
    def some(first: int) -> list[int]:
        return [
            submits.submit(Do("stop", number)).result(PATIENCE_SECONDS)
            for number in range(first, first + 100)
        ]

    runs = [Background(partial(some, first)) for first in (0, 1_000, 2_000)]
    assert [run.result() for run in runs] == [
        list(range(first, first + 100)) for first in (0, 1_000, 2_000)
    ]
    _use_short_cut(submits, ways)


@pytest.fixture
def simulated() -> Iterator[PoolProcessor]:
    with simulated_pool(2, seed=1) as pool:
        yield register_all(pool, [actions.act])


def test_a_simulated_pool_has_no_short_cut(simulated: PoolProcessor, ways: Counter[str]) -> None:
    assert [simulated.process(Do("stop", number)) for number in range(5)] == list(range(5))
    assert +ways == {"not sent": 5}
