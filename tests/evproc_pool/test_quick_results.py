"""No result waits for another event: it is told while the next handler runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evproc_pool import PoolProcessor
from evproc_pool.worker import reporter
from tests.support import actions
from tests.support.actions import Do, Emits
from tests.support.helpers import PATIENCE_SECONDS, Gate, register_all

pytestmark = pytest.mark.skipif(reporter.SIGNAL is None, reason="there is no such signal")


@pytest.fixture(params=[False, True], ids=["cold", "warm"])
def pool(request: pytest.FixtureRequest) -> Iterator[PoolProcessor]:
    """One worker: what comes behind an event is in the same batch, or in the next one."""
    with PoolProcessor(workers=1) as made:
        register_all(made, [actions.act, actions.emit_all])
        if request.param:
            for number in range(50):
                made.process(Do("stop", number))
        yield made


def test_a_future_is_done_while_the_next_event_waits(pool: PoolProcessor, gate: Gate) -> None:
    quick = [pool.submit(Do("stop", number)) for number in range(3)]
    waits = pool.submit(Do("wait_at", gate.address, "", "last"))
    assert [future.result(PATIENCE_SECONDS) for future in quick] == [0, 1, 2]
    gate.arrival()
    gate.close()
    assert waits.result(PATIENCE_SECONDS) == "last"


@pytest.mark.parametrize("ordered", [True, False])
def test_an_outcome_is_yielded_while_the_next_event_waits(
    pool: PoolProcessor, gate: Gate, ordered: bool
) -> None:
    events: list[Any] = [Do("stop", 0), Do("nothing"), Do("fail", ValueError, "two"), Emits(3)]
    waits = Do("wait_at", gate.address, "", "last")
    stream = pool.stream([*events, waits], ordered=ordered)
    outcomes = [next(stream) for _ in events]
    assert [outcome.index for outcome in outcomes] == [0, 1, 2, 3]
    assert [outcome.value for outcome in outcomes] == [0, None, None, None]
    assert isinstance(outcomes[2].error, ValueError)
    assert outcomes[3].emitted == [0, 1, 2]
    gate.arrival()
    gate.close()
    assert [outcome.value for outcome in stream] == ["last"]


def test_an_outcome_is_yielded_while_the_next_event_computes(
    pool: PoolProcessor, tmp_path: Path
) -> None:
    flag = tmp_path / "flag"
    stream = pool.stream([Do("stop", 0), Do("spin_until", str(flag))])
    assert next(stream).value == 0
    flag.touch()
    assert next(stream).value == "spun"
    assert list(stream) == []


def test_a_handler_that_unblocks_all_signals_changes_nothing(
    pool: PoolProcessor, gate: Gate
) -> None:
    pool.process(Do("unblock_signals"))
    test_a_future_is_done_while_the_next_event_waits(pool, gate)


def test_a_handler_that_forks_finds_no_other_thread(pool: PoolProcessor, gate: Gate) -> None:
    for _ in range(3):
        assert pool.process(Do("fork_and_count_warnings")) == []
    # and results are told after that as before
    test_a_future_is_done_while_the_next_event_waits(pool, gate)


def test_results_behind_a_fork_are_told_in_the_same_batch(
    pool: PoolProcessor, tmp_path: Path
) -> None:
    flag = tmp_path / "flag"
    events = [Do("fork_and_count_warnings"), Do("stop", 1), Do("spin_until", str(flag))]
    stream = pool.stream(events)
    assert [next(stream).value for _ in range(2)] == [[], 1]
    flag.touch()
    assert [outcome.value for outcome in stream] == ["spun"]


def test_what_is_over_is_told_before_a_handler_forks(pool: PoolProcessor) -> None:
    events = [Do("stop", 0), Do("fork_and_count_warnings"), Do("stop", 2)]
    assert pool.process_many(events * 20) == [0, [], 2] * 20


@pytest.mark.parametrize("way", ["submit", "stream", "process_many"])
def test_a_batch_that_was_told_and_taken_back_is_over_once(tmp_path: Path, way: str) -> None:
    with PoolProcessor(workers=2, initializer=actions.report_before_giving_back) as pool:
        register_all(pool, [actions.act])
        pool.process_many([Do("stop", number) for number in range(200)])
        for turn in range(5):
            events: list[Any] = [Do("stop", number) for number in range(80)]
            # it waits for one behind it, which the other worker has to run
            flag = str(tmp_path / f"{turn}")
            events[10] = Do("spin_until", flag)
            events[15] = Do("make_file", flag)
            if way == "submit":
                futures = [pool.submit(ev) for ev in events]
                values = [future.result(PATIENCE_SECONDS) for future in futures]
            elif way == "stream":
                values = [outcome.unwrap() for outcome in pool.stream(events)]
            else:
                values = pool.process_many(events)
            expected: list[Any] = list(range(80))
            expected[10:16:5] = ["spun", None]
            assert values == expected
