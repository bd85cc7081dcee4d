"""The pool in event loops: calls, streams, cancellation, time limits."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from evproc import Event
from evproc_pool import Outcome, PoolClosedError, PoolInterruptedError, PoolProcessor
from tests.support import actions
from tests.support.actions import Do, Unwanted
from tests.support.helpers import PATIENCE_SECONDS, Gate, error_of, pids, register_all, warm


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run it in a loop of its own, but not for ever."""

    async def in_time() -> Any:
        return await asyncio.wait_for(coroutine, PATIENCE_SECONDS)

    return asyncio.run(in_time())


@pytest.fixture(params=[0, 2])
def any_pool(request: pytest.FixtureRequest, shared_pool: PoolProcessor) -> PoolProcessor:
    """With workers and without."""
    if request.param:
        return shared_pool
    pool: PoolProcessor = register_all(PoolProcessor(workers=0), [actions.act, actions.nested])
    return pool


async def arrivals(gate: Gate, number: int) -> set[int]:
    """Let handlers arrive while the loop goes on; the processes that they run in."""
    return {(await asyncio.to_thread(gate.arrival)).pid for _ in range(number)}


# --- single events ---


def test_process_async_gives_what_process_gives(any_pool: PoolProcessor) -> None:
    async def main() -> None:
        assert await any_pool.process_async(Do("stop", 1)) == 1
        assert await any_pool.process_async(Do("follow", Do("stop", 2))) == 2
        assert await any_pool.process_async(Do("nothing")) is None
        assert await any_pool.process_async(Unwanted()) is None
        for ev, error in ((Do("fail", KeyError, 1), KeyError), (None, TypeError)):
            with pytest.raises(error):
                await any_pool.process_async(ev)  # type: ignore[arg-type]  # on purpose

    run(main())


def test_many_calls_at_once_have_no_thread_each(shared_pool: PoolProcessor) -> None:
    async def main() -> list[Any]:
        calls = [
            asyncio.ensure_future(shared_pool.process_async(Do("stop", n))) for n in range(500)
        ]
        await asyncio.sleep(0)
        before = {thread.name for thread in threading.enumerate()}
        assert len(before) <= len(threads) + 1, before
        return await asyncio.gather(*calls)

    threads = threading.enumerate()
    assert run(main()) == list(range(500))


def test_futures_that_end_together_wake_the_loop_once(
    shared_pool: PoolProcessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> int:
        loop = asyncio.get_running_loop()
        woken: list[object] = []
        call_soon_threadsafe = loop.call_soon_threadsafe

        def count(*args: Any, **options: Any) -> asyncio.Handle:
            woken.append(args)
            return call_soon_threadsafe(*args, **options)

        # the loop does nothing meanwhile, and so one message is enough
        monkeypatch.setattr(loop, "call_soon_threadsafe", count)
        calls = [
            asyncio.ensure_future(shared_pool.process_async(Do("stop", n))) for n in range(300)
        ]
        await asyncio.sleep(0)
        shared_pool.process_many([Do("nothing")] * 300)
        while shared_pool._owner.futures is not None and shared_pool._owner.futures.outstanding:
            pass
        number = len(woken)
        await asyncio.gather(*calls)
        return number

    assert run(main()) == 1


def test_several_loops_share_a_pool(shared_pool: PoolProcessor) -> None:
    def in_thread(number: int) -> None:
        async def main() -> list[Any]:
            calls = [shared_pool.process_async(Do("stop", n)) for n in range(100)]
            outcomes = [
                each.value async for each in shared_pool.stream_async([Do("stop", number)] * 50)
            ]
            return [await asyncio.gather(*calls), outcomes]

        results[number] = run(main())

    results: dict[int, Any] = {}
    threads = [threading.Thread(target=in_thread, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    assert results == {n: [list(range(100)), [n] * 50] for n in range(4)}


def test_the_loop_goes_on_while_the_pool_works(shared_pool: PoolProcessor, gate: Gate) -> None:
    async def main() -> int:
        call = asyncio.ensure_future(shared_pool.process_async(Do("wait_at", gate.address)))
        await arrivals(gate, 1)
        turns = 0
        for _ in range(1000):
            await asyncio.sleep(0)
            turns += not call.done()
        gate.close()
        await call
        return turns

    assert run(main()) == 1000


# --- giving up ---


def test_cancelling_the_task_cancels_what_is_not_running(
    one_worker: PoolProcessor, gate: Gate, tmp_path: Path
) -> None:
    log = tmp_path / "log"

    async def main() -> None:
        running = asyncio.ensure_future(one_worker.process_async(Do("wait_at", gate.address)))
        await arrivals(gate, 1)
        logs = [Do("log", str(log), str(place)) for place in range(600)]
        calls = [asyncio.ensure_future(one_worker.process_async(ev)) for ev in logs]
        await asyncio.sleep(0)
        for call in calls[1:]:
            call.cancel()
        await asyncio.wait(calls[1:])
        assert all(call.cancelled() for call in calls[1:])
        while _left(one_worker) > 2:  # the running one, and maybe the first
            await asyncio.sleep(0)
        gate.close()
        await asyncio.gather(running, calls[0])

    run(main())
    one_worker.close()
    assert log.read_text("ascii").split() == ["0"]


def _left(pool: PoolProcessor) -> int:
    """How many events the only worker has, and would run."""
    engine = pool._engine
    assert engine is not None
    (member,) = list(engine._coordinator._workers.values())
    held = [(sent.batch.done, sent.batch.size, [*sent.failures]) for sent in list(member.sent)]
    # without those that were cancelled before they were sent
    return sum(
        size - done - sum(done <= position < size for position in cancelled)
        for done, size, cancelled in held
    )


def test_what_runs_goes_on_and_its_follow_ups_do_not(
    one_worker: PoolProcessor, gate: Gate, tmp_path: Path
) -> None:
    log = str(tmp_path / "log")
    waits = Do("wait_at_and_follow", gate.address, Do("log", log, "follow-up"))

    async def main() -> None:
        call = asyncio.ensure_future(one_worker.process_async(waits))
        before = await arrivals(gate, 1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        gate.close()
        assert await one_worker.process_async(Do("pid")) in before

    run(main())
    assert not Path(log).exists()


needs_words = pytest.mark.skipif(sys.platform == "win32", reason="needs the words of progress")


@needs_words
def test_with_cancel_running_the_worker_is_killed_and_nobody_else_is_charged(
    one_worker: PoolProcessor, gate: Gate
) -> None:
    async def main() -> None:
        one_worker.process(Do("nothing"))
        call = asyncio.ensure_future(
            one_worker.process_async(Do("wait_at", gate.address), cancel_running=True)
        )
        (killed,) = await arrivals(gate, 1)
        others = [asyncio.ensure_future(one_worker.process_async(Do("pid"))) for _ in range(300)]
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        # the gate is not opened
        (alive,) = set(await asyncio.gather(*others))
        assert alive != killed

    run(main())


def timed_out_in_a_handler(call: Callable[[float], object]) -> tuple[str, float]:
    """Call it with a timeout that is long enough for its event to begin.

    Returns:
        The text of the error, and the timeout.
    """
    seconds = 0.2
    while True:
        error = error_of(partial(call, seconds))
        assert type(error) is TimeoutError
        if "in handler" in str(error):
            return str(error), seconds
        assert seconds < PATIENCE_SECONDS, error
        seconds *= 2


@needs_words
def test_what_was_cancelled_is_not_run_again_whatever_the_limits_say(gate: Gate) -> None:
    with PoolProcessor(1, crash_limit=5, max_retries=5) as pool:
        register_all(pool, [actions.act])
        ev = Do("wait_at", gate.address)
        timed_out_in_a_handler(
            lambda seconds: run(pool.process_async(ev, timeout=seconds, cancel_running=True))
        )
        gate.arrival()
        # a second attempt would come before it
        assert run(pool.process_async(Do("stop", 1))) == 1


@needs_words
@pytest.mark.parametrize("is_async", [True, False])
def test_a_time_limit_says_what_still_runs(
    shared_pool: PoolProcessor, gate: Gate, is_async: bool
) -> None:
    ev = Do("wait_at", gate.address)

    def call(seconds: float) -> object:
        if is_async:
            return run(shared_pool.process_async(ev, timeout=seconds))
        return shared_pool.process(ev, timeout=seconds)

    text, seconds = timed_out_in_a_handler(call)
    pid = gate.arrival().pid
    assert f"no result within timeout={seconds:g} s: event 'do' (tests.support.act" in text
    assert "in handler 'act', in worker " in text
    assert f"(process {pid})" in text
    gate.close()
    assert shared_pool.process(Do("stop", 1), timeout=PATIENCE_SECONDS) == 1


def test_a_time_limit_says_that_nothing_runs(one_worker: PoolProcessor, gate: Gate) -> None:
    running = one_worker.submit(Do("wait_at", gate.address))
    gate.arrival()
    waiting = [one_worker.submit(Do("nothing")) for _ in range(600)]
    with pytest.raises(TimeoutError, match="no worker was running it"):
        one_worker.process(Do("stop", 1), timeout=0.01)
    gate.close()
    for future in (running, *waiting):
        future.result(PATIENCE_SECONDS)


def test_the_timeout_error_of_a_handler_is_none_of_the_call(any_pool: PoolProcessor) -> None:
    ev = Do("fail", TimeoutError, "mine")
    for call in (
        partial(any_pool.process, ev, timeout=PATIENCE_SECONDS),
        lambda: run(any_pool.process_async(ev, timeout=PATIENCE_SECONDS)),
    ):
        error = error_of(call)
        assert (type(error), error.args) == (TimeoutError, ("mine",))


@pytest.mark.parametrize("timeout", [-1, "1", True])
def test_a_bad_time_limit_is_refused(shared_pool: PoolProcessor, timeout: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        shared_pool.process(Do("nothing"), timeout=timeout)
    with pytest.raises((TypeError, ValueError)):
        run(shared_pool.process_async(Do("nothing"), timeout=timeout))


# --- streams ---


async def async_events(events: list[Any]) -> AsyncIterator[Any]:
    for ev in events:
        await asyncio.sleep(0)
        yield ev


def test_stream_async_gives_what_stream_gives(any_pool: PoolProcessor) -> None:
    events = [
        *(Do("stop", place) for place in range(300)),
        Unwanted(),
        Do("fail", KeyError, 1),
        Do("follow", Do("stop", "follow-up")),
        *(Do("nothing") for _ in range(300)),
    ]

    async def main(source: Any) -> list[Outcome]:
        return [outcome async for outcome in any_pool.stream_async(source)]

    expected = [_facts(outcome) for outcome in any_pool.stream(events)]
    for source in (events, iter(events), async_events(events)):
        assert [_facts(outcome) for outcome in run(main(source))] == expected


def _facts(outcome: Outcome) -> tuple[Any, ...]:
    error = outcome.error
    return outcome.event, outcome.index, outcome.value, type(error), outcome.events


def test_the_options_of_stream_are_those_of_stream_async(shared_pool: PoolProcessor) -> None:
    async def main() -> list[Outcome]:
        stream = shared_pool.stream_async(
            [Do("nothing")] * 20,
            ordered=False,
            buffersize=3,
            return_events=True,
            ordering="unordered",
            key=lambda ev: ev.what,
        )
        return [outcome async for outcome in stream]

    outcomes = run(main())
    assert sorted(outcome.index for outcome in outcomes) == list(range(20))
    assert all(outcome.processed is not None for outcome in outcomes)


@pytest.mark.parametrize("is_async", [True, False])
def test_no_more_is_read_than_the_buffer_holds(shared_pool: PoolProcessor, is_async: bool) -> None:
    read = 0

    def endless() -> Iterator[Event]:
        nonlocal read
        while True:
            read += 1
            yield Do("nothing")

    async def async_endless() -> AsyncIterator[Event]:
        for ev in endless():
            yield ev

    async def main() -> None:
        source = async_endless() if is_async else endless()
        stream = shared_pool.stream_async(source, buffersize=10)
        assert read == 0
        yielded = 0
        async for _ in stream:
            yielded += 1
            await asyncio.sleep(0)
            assert read <= yielded + 10
            if yielded == 500:
                break
        await stream.aclose()

    run(main())


def test_outcomes_come_while_an_asynchronous_input_waits(shared_pool: PoolProcessor) -> None:
    async def main() -> None:
        queue: asyncio.Queue[Event] = asyncio.Queue()

        async def source() -> AsyncIterator[Event]:
            while True:
                yield await queue.get()

        stream = shared_pool.stream_async(source())
        for place in range(50):
            queue.put_nowait(Do("stop", place))
            assert (await anext(stream)).value == place
        await stream.aclose()

    run(main())


@pytest.mark.parametrize("is_async", [False, True])
def test_an_error_names_its_place_in_the_input(any_pool: PoolProcessor, is_async: bool) -> None:
    async def main() -> list[Any]:
        events = [Do("nothing"), Do("fail", OSError, "second")]
        source = async_events(events) if is_async else iter(events)
        return [outcome.error async for outcome in any_pool.stream_async(source)]

    first, second = run(main())
    assert first is None
    assert any("event 1 of the input" in note for note in second.__notes__)


def test_an_error_of_the_input_comes_behind_the_outcomes(any_pool: PoolProcessor) -> None:
    async def async_source() -> AsyncIterator[Event]:
        yield Do("stop", 1)
        yield Do("stop", 2)
        raise OSError("input")

    def source() -> Iterator[Event]:
        yield Do("stop", 1)
        yield Do("stop", 2)
        raise OSError("input")

    async def main(events: Any) -> list[Any]:
        values = []
        try:
            async for outcome in any_pool.stream_async(events):
                values.append(outcome.value)
        except OSError as error:
            values.append(error.args)
        return values

    for events in (async_source(), source()):
        assert run(main(events)) == [1, 2, ("input",)]


def test_a_stream_that_is_given_up_drops_what_was_not_begun(
    one_worker: PoolProcessor, gate: Gate, tmp_path: Path
) -> None:
    log = tmp_path / "log"

    async def main() -> None:
        has_first = asyncio.Event()

        async def source() -> AsyncIterator[Event]:
            yield Do("nothing")
            await has_first.wait()
            yield Do("wait_at", gate.address)
            for place in range(600):
                yield Do("log", str(log), str(place))

        stream = one_worker.stream_async(source())
        assert (await anext(stream)).index == 0
        has_first.set()
        task = asyncio.ensure_future(anext(stream))
        await arrivals(gate, 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while _left(one_worker) > 1:
            await asyncio.sleep(0)
        gate.close()
        assert await one_worker.process_async(Do("stop", 1)) == 1

    run(main())
    assert not log.exists()
    one_worker.register(actions.asks)  # nothing is in flight


def test_a_task_is_cancelled_though_its_stream_is_closing(shared_pool: PoolProcessor) -> None:
    async def main() -> None:
        is_closing = asyncio.Event()

        async def source() -> AsyncIterator[Event]:
            try:
                yield Do("stop", 1)
                await asyncio.Event().wait()
            finally:
                is_closing.set()
                await asyncio.Event().wait()  # it takes its time

        async def consume() -> None:
            stream = shared_pool.stream_async(source())
            assert (await anext(stream)).value == 1
            await stream.aclose()

        task = asyncio.ensure_future(consume())
        await is_closing.wait()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())


@needs_words
def test_a_stream_with_cancel_running_kills_what_runs(gate: Gate) -> None:
    with PoolProcessor(2) as pool:
        register_all(pool, [actions.act])
        before = warm(pool)

        async def main() -> None:
            waits = [Do("wait_at", gate.address)] * 5
            stream = pool.stream_async(waits, cancel_running=True)
            task = asyncio.ensure_future(anext(stream))
            assert await arrivals(gate, 2) == before
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            # the gate is not opened
            assert await pool.process_async(Do("pid")) not in before

        run(main())
        assert not before & pids(pool)


def test_a_stream_ends_with_the_reason_when_the_pool_does(pool: PoolProcessor, gate: Gate) -> None:
    async def main(end: Callable[[], object]) -> BaseException:
        stream = pool.stream_async([Do("wait_at", gate.address)] * 4)
        task = asyncio.ensure_future(anext(stream))
        await arrivals(gate, 2)
        end()
        with pytest.raises((PoolClosedError, PoolInterruptedError)) as raised:
            await task
        return raised.value

    def interrupt() -> None:
        assert pool._engine is not None
        pool._engine.interrupt(KeyboardInterrupt())

    assert isinstance(run(main(interrupt)), PoolInterruptedError)
    assert isinstance(run(main(pool.terminate)), PoolClosedError)
    with pytest.raises(PoolClosedError):
        pool.stream_async([])


# --- the end of the pool ---


def test_async_with_finishes_what_was_submitted(gate: Gate) -> None:
    async def main() -> None:
        async with PoolProcessor(1) as pool:
            register_all(pool, [actions.act])
            call = asyncio.ensure_future(pool.process_async(Do("wait_at", gate.address, "", 1)))
            await arrivals(gate, 1)
            # in a block that has ended the loop goes on, and so can open the gate
            asyncio.get_running_loop().call_soon(gate.close)
        assert await call == 1
        with pytest.raises(PoolClosedError):
            await pool.process_async(Do("nothing"))

    run(main())


def test_an_interrupt_in_the_loop_leaves_the_pool_usable(pool: PoolProcessor, gate: Gate) -> None:
    async def main() -> None:
        call = asyncio.ensure_future(pool.process_async(Do("wait_at", gate.address)))
        await arrivals(gate, 1)
        asyncio.get_running_loop().call_soon(_interrupt)
        await call

    def _interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
    gate.close()
    assert run(pool.process_async(Do("stop", 1))) == 1
    assert os.getpid() not in pids(pool)
