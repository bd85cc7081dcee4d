"""`progress=` of the calls: when it counts, what it may not disturb, and how it ends."""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evproc import Event
from evproc_pool import PoolClosedError, PoolProcessor
from evproc_pool.observe import Accepted, CascadesDone, Drained, ProgressCounts
from evproc_pool.observe.call_progress import CallProgress
from evproc_pool.testing import ManualClock, simulated_pool
from tests.evproc_pool.observe.test_notifications import (
    Job,
    Plain,
    Told,
    _numbers,
    _registered,
    jobs,
)
from tests.evproc_pool.observe.test_progress import Counts, _compare
from tests.support.actions import Do, act
from tests.support.helpers import PATIENCE_SECONDS, ROOT, Gate, close_in_time

BOTH = pytest.mark.parametrize("workers", [0, 2])


def _plain(number: int) -> list[Event]:
    return [Plain() for _ in range(number)]


def _notices(pool: PoolProcessor) -> object:
    assert pool._engine is not None
    return pool._engine.notices


# --- only while it is asked for ---


def test_nothing_is_made_before_and_after_a_call_with_progress() -> None:
    with _registered(PoolProcessor(1)) as pool:
        pool.process_many(_plain(3))
        coordinator: Any = pool._engine._coordinator  # type: ignore[union-attr]
        parts = [coordinator, coordinator._results, coordinator._deaths]
        assert [each.notices for each in parts] == [None] * 3
        during = []

        def look(counts: ProgressCounts) -> None:
            state = coordinator._supervisor.scheduler._state
            during.append((len({id(each.notices) for each in parts}), state.is_observed))
            assert all(counts.is_over or each.notices is not None for each in parts)

        pool.process_many(_plain(3), progress=look)
        assert during[0] == (1, True)
        assert during[-1] == (1, False)
        assert [each.notices for each in parts] == [None] * 3


def test_the_last_of_several_calls_ends_the_notifications() -> None:
    with _registered(PoolProcessor(1)) as pool:
        one, two = Counts(), Counts()
        first, second = (pool.stream(_plain(3), progress=each) for each in (one, two))
        next(first)
        next(second)
        assert len(list(first)) == 2
        assert _notices(pool) is not None
        second.close()
        assert _notices(pool) is None
    assert (one[-1].roots_done, one[-1].roots_total) == (3, 3)
    assert two[-1].roots_total == 3


@BOTH
def test_a_listener_hears_the_same_with_progress_and_without(workers: int) -> None:
    told = Told()
    with _registered(PoolProcessor(workers, listeners=[told])) as pool:
        events = [Job("f-", Plain()), *_plain(5), Job("e-")]
        for progress in (False, Counts(), False):
            told.clear()
            pool.process_many(events, return_exceptions=True, progress=progress)
            assert _numbers(told)["events"] == 8
            assert _numbers(told)["accepted"] == _numbers(told)["cascades"] == 7
            of_events = [each for each in told if isinstance(each, (CascadesDone, Drained))]
            assert isinstance(of_events[-1], Drained)  # a worker may be ready after it


def test_what_other_calls_do_is_not_counted(gate: Gate) -> None:
    pool = PoolProcessor(2)
    pool.register(act)
    futures = [pool.submit(Do("wait_at", gate.address)) for _ in range(2)]
    arrivals = [gate.arrival() for _ in futures]
    counts = Counts()
    outcomes = pool.stream([Do("wait_at", gate.address), Do("nothing")], progress=counts)
    more = [pool.submit(Do("nothing")) for _ in range(5)]

    # accepted and begun before: over while the call is watched
    def release() -> None:
        for each in arrivals:
            each.release()

    thread = threading.Thread(target=release)
    thread.start()
    rest = threading.Thread(target=lambda: gate.arrival().release())
    rest.start()
    assert len(list(outcomes)) == 2
    for future in (*futures, *more):
        future.result(PATIENCE_SECONDS)
    thread.join()
    rest.join()
    assert counts[-1][:6] == (2, 2, 2, 2, 0, 0)
    assert max(each.roots_done for each in counts) == 2
    close_in_time(pool)


def test_engines_that_follow_each_other_are_not_mixed_up() -> None:
    with _registered(PoolProcessor(1)) as pool:
        old = Counts()
        stream = pool.stream(iter(_plain(10_000)), progress=old)
        next(stream)

        def interrupt() -> Iterator[Event]:
            yield Plain()
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            pool.process_many(interrupt(), progress=Counts())
        counts = Counts()
        pool.process_many(_plain(5), progress=counts)  # of another engine, with the same number
        assert counts[-1][:4] == (5, 5, 5, 5)
        before = len(old)
        pool.process_many(_plain(5))
        assert len(old) == before
        stream.close()
        assert old[-1].is_over


def test_calls_with_progress_begin_and_end_amid_others() -> None:
    events, over = jobs() * 5, threading.Event()

    def others(pool: PoolProcessor) -> None:
        while not over.is_set():
            outcomes = pool.stream(events, key=lambda ev: ev.name, errors="continue")
            numbers.append(sum(each.events for each in outcomes))

    numbers: list[int] = []
    with _registered(PoolProcessor(2, max_retries=1, retry_backoff=0.001)) as pool:
        thread = threading.Thread(target=others, args=(pool,))
        thread.start()
        try:
            for _ in range(5):
                counts = Counts()
                outcomes = list(pool.stream(events, progress=counts))
                _compare(counts, outcomes, len(events))
        finally:
            over.set()
            thread.join()
    assert len(set(numbers)) == 1


# --- how it ends ---


@BOTH
def test_an_interrupt_while_it_begins_leaves_no_call_behind(
    workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with _registered(PoolProcessor(workers)) as pool:
        pool.process_many(_plain(3))
        with monkeypatch.context() as patched:
            patched.setattr(CallProgress, "begin", interrupted)
            for call in (pool.process_many, lambda *a, **b: list(pool.stream(*a, **b))):
                with pytest.raises(KeyboardInterrupt):
                    call(_plain(3), progress=Counts())
        pool.register(act)  # needs an idle pool
        assert pool.process_many([Job("-s")], progress=Counts()) == ["-s"]


@BOTH
def test_a_failed_call_ends_with_what_was_done(workers: int) -> None:
    counts = Counts()
    with _registered(PoolProcessor(workers)) as pool, pytest.raises(ValueError, match="e-"):
        pool.process_many([Plain(), Job("e-"), *_plain(5)], progress=counts)
    assert counts[-1].is_over
    assert counts[-1].failed == 1
    assert counts[-1].roots_total == 7
    assert [each.is_over for each in counts].count(True) == 1


@BOTH
def test_an_input_that_raises_and_an_interrupt_end_it(workers: int) -> None:
    for error in (OSError, KeyboardInterrupt):

        def events(error: type[BaseException] = error) -> Iterator[Event]:
            yield Plain()
            raise error

        counts = Counts()
        with _registered(PoolProcessor(workers)) as pool:
            with pytest.raises(error):
                pool.process_many(events(), progress=counts)
            pool.process_many(_plain(2), progress=False)
        assert counts[-1].is_over
        assert counts[-1].roots_total is None


@BOTH
def test_a_stream_that_is_left_early_is_over_when_it_is_closed(workers: int) -> None:
    counts = Counts()
    with _registered(PoolProcessor(workers)) as pool:
        stream = pool.stream(_plain(5), progress=counts)
        assert counts == []  # it has not begun
        for _ in stream:
            break
        assert not counts[-1].is_over
        stream.close()
        assert counts[-1].is_over
        assert counts[-1].roots_total == 5
        # never begun: nothing to end
        pool.stream(_plain(5), progress=counts).close()
        assert len([each for each in counts if each.is_over]) == 1


@BOTH
def test_an_asynchronous_stream_that_is_left_early_is_over(workers: int) -> None:
    counts = Counts()

    async def main() -> None:
        async with _registered(PoolProcessor(workers)) as pool:
            stream = pool.stream_async(_plain(5), progress=counts)
            async for _ in stream:
                break
            await stream.aclose()
            assert counts[-1].is_over

    asyncio.run(main())


def test_the_end_of_the_pool_ends_it() -> None:
    counts = Counts()
    pool = _registered(PoolProcessor(1))
    stream = pool.stream(iter(_plain(100)), progress=counts, buffersize=2)
    next(stream)
    pool.terminate()
    with pytest.raises(PoolClosedError):
        list(stream)
    assert counts[-1].is_over
    with pytest.raises(PoolClosedError):
        pool.process_many(_plain(1), progress=counts)


def test_a_stream_that_nobody_refers_to_is_over() -> None:
    counts = Counts()
    pool = _registered(PoolProcessor(0))
    cycle: list[Any] = [pool.stream(_plain(5), progress=counts)]
    cycle.append(cycle)
    next(cycle[0])
    del cycle
    gc.collect()
    assert counts[-1].is_over


# --- the function ---


def test_a_function_is_called_at_most_ten_times_a_second_and_once_at_the_end() -> None:
    clock, counts = ManualClock(), Counts()
    with _registered(simulated_pool(1, seed=3, clock=clock)) as pool:
        for _ in pool.stream(_plain(200), progress=counts):
            clock.advance(0.01)
    gaps = [after.seconds - before.seconds for before, after in itertools.pairwise(counts[:-1])]
    assert gaps
    assert min(gaps) > 0.0999
    assert [each.is_over for each in counts] == [False] * (len(counts) - 1) + [True]


@BOTH
@pytest.mark.parametrize("error", [RuntimeError, SystemExit])
def test_a_function_that_raises_is_logged_once_and_left_out(
    workers: int, error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    told = []

    def bad(counts: ProgressCounts) -> None:
        told.append(counts)
        raise error("not today")

    with _registered(PoolProcessor(workers)) as pool:
        assert pool.process_many([Job("s-")] * 3, progress=bad) == ["s-"] * 3
    assert len(told) == 1
    (record,) = [each for each in caplog.records if each.levelno >= logging.ERROR]
    assert record.name == "evproc_pool"
    assert "bad raised an error: it gets nothing more" in record.getMessage()


def test_a_function_that_waits_for_the_pool_is_told_why_it_must_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with _registered(PoolProcessor(1)) as pool:

        def waits(counts: ProgressCounts) -> None:
            if not counts.is_over:
                pool.process(Plain())

        pool.process_many(_plain(3), progress=waits)
    assert "a progress function or a future's callback must not wait" in caplog.text


@BOTH
def test_an_interrupt_in_the_function_reaches_the_caller(workers: int) -> None:
    def interrupted(counts: ProgressCounts) -> None:
        raise KeyboardInterrupt

    with _registered(PoolProcessor(workers)) as pool:
        with pytest.raises(KeyboardInterrupt):
            pool.process_many(_plain(3), progress=interrupted)
        assert pool.process_many([Job("-s")]) == ["-s"]


def test_one_thread_at_a_time_is_in_the_function() -> None:
    progress = CallProgress(None, lambda counts: told.append(enter(counts)))
    told: list[ProgressCounts] = []
    inside, go_on = threading.Event(), threading.Event()
    at = iter(range(1000))

    def enter(counts: ProgressCounts) -> ProgressCounts:
        inside.set()
        assert go_on.wait(PATIENCE_SECONDS)
        return counts

    progress.begin(lambda: float(next(at)))
    first = threading.Thread(target=progress, args=(Accepted(1.0, 0, 0, 1),))
    first.start()
    assert inside.wait(PATIENCE_SECONDS)
    progress(CascadesDone(2.0, 0, 1, 0, 0, 0, 1))  # returns at once
    last = threading.Thread(target=progress.end, kwargs={"is_complete": True})
    last.start()  # waits for the other one
    go_on.set()
    first.join()
    last.join()
    assert len(told) == 2
    assert told[-1].roots_done == 1


# --- arguments ---


@pytest.mark.parametrize("value", [1, 0, None, "yes", [print]])
@pytest.mark.parametrize("call", ["process_many", "stream", "stream_async"])
def test_what_is_no_progress_is_an_error_at_the_call(value: Any, call: str) -> None:
    pool = PoolProcessor(0)
    with pytest.raises(TypeError, match="progress is True, False or a callable that gets the coun"):
        getattr(pool, call)([], progress=value)


MISSING = """
import sys
sys.modules["rich"] = None
import evproc
from evproc_pool import PoolProcessor

class Plain(evproc.Event):
    name = "plain"

for workers in (0, 1):
    with PoolProcessor(workers) as pool:
        pool.register(lambda proc, ev: None)
        for call in (pool.process_many, pool.stream, pool.stream_async):
            try:
                call([Plain()], progress=True)
            except ImportError as error:
                print(error, error.name)
        seen = []
        pool.process_many([Plain()], progress=seen.append)  # needs nothing
        print(seen[-1].roots_done)
"""


def test_without_rich_the_call_says_what_to_install(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(MISSING)
    done = subprocess.run(
        [sys.executable, str(script)],
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS * 2,
        check=False,
    )
    lines = done.stdout.splitlines()
    assert done.stderr == ""
    assert len(lines) == 8
    assert [line for line in lines if "pip install 'evproc-pool[progress]'" in line] == [
        line for line in lines if line != "1"
    ]
    assert lines[0].startswith("progress=True needs rich")


def test_rich_and_the_views_are_imported_only_when_they_are_used() -> None:
    code = (
        "import sys, evproc; from evproc_pool import PoolProcessor\n"
        "pool = PoolProcessor(0); pool.register(print, name='x')\n"
        "pool.process_many([])\n"
        "print(*[name for name in sys.modules if name.startswith('rich') or 'progress' in name])\n"
        "pool.process_many([], progress=True)\n"
        "print(*[name for name in sys.modules if name.startswith('rich')])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS * 2,
        check=True,
    )
    before, after = done.stdout.splitlines()
    assert before == ""
    assert "rich" in after.split()
    assert "rich.live" not in after.split()  # a pipe has no bar
    assert done.stderr == "evproc: 0 of 0 events (100 %), 0/s, done in 0.0 s\n"
