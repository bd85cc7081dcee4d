"""The pool in an event loop of `asyncio`: `process_async` and `stream_async`.

No thread waits for a call. The thread of the futures drives the engine, and tells an event
loop what is there, once for all that a turn of the engine has brought::

    process_async --submit--> Futures --callback--> Bridge --call_soon_threadsafe--> loop
    stream_async  --accept--> Engine  --turn over--> Ear ----call_soon_threadsafe--> loop

Rejected: `asyncio.to_thread` (a thread for each call); `asyncio.wrap_future` (a system call
for each future).
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import weakref
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final

from evproc_pool.coordinator.futures import give_up

if TYPE_CHECKING:
    from evproc import Event
    from evproc_pool.coordinator.engine import Engine
    from evproc_pool.coordinator.feeding import Feeder
    from evproc_pool.coordinator.futures import Futures
    from evproc_pool.coordinator.outcome_stream import OutcomeStream
    from evproc_pool.outcome import Outcome

# So many events are read from an asynchronous input, or handed in from another one, until
# other tasks of the loop have their turn.
_MOST_AT_ONCE: Final = 1024


class Bridge:
    """Brings futures that are done into an event loop.

    Args:
        loop: The loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)  # which has the bridge
        self._done: deque[asyncio.Future[None]] = deque()
        self._is_told = False

    def watch(self, future: Future[Any]) -> asyncio.Future[None]:
        """A future of the loop that is done when another one is."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.add_done_callback(lambda _: self._put(waiter))
        return waiter

    def _put(self, waiter: asyncio.Future[None]) -> None:
        """Called in any thread."""
        self._done.append(waiter)
        if not self._is_told:
            self._is_told = True
            loop = self._loop()
            if loop is not None:
                call_soon(loop, self._deliver)

    def _deliver(self) -> None:
        self._is_told = False  # first: what comes from now on is told again
        for _ in range(len(self._done)):
            settle(self._done.popleft())


_BRIDGES: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Bridge] = weakref.WeakKeyDictionary()
_LOCK: Final = threading.Lock()  # of the above, since each thread may have a loop


def _bridge() -> Bridge:
    """That of the loop that is running."""
    loop = asyncio.get_running_loop()
    with _LOCK:
        bridge = _BRIDGES.get(loop)
        if bridge is None:
            bridge = _BRIDGES[loop] = Bridge(loop)
        return bridge


def call_soon(loop: asyncio.AbstractEventLoop, function: Callable[[], object]) -> None:
    """Have a loop call it, from any thread; one that is closed does not."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(function)


def settle(waiter: asyncio.Future[None]) -> None:
    """Let a waiter go on, if it waits still."""
    if not waiter.done():
        waiter.set_result(None)


async def process(
    submit: Callable[[Event], Future[Any]],
    ev: Event,
    seconds: float | None,
    *,
    cancel_running: bool,
) -> Any:
    """See `PoolProcessor.process_async`."""
    future = submit(ev)
    if future.done():
        await asyncio.sleep(0)  # with `workers=0` others have their turn here
    else:
        waiter = _bridge().watch(future)
        timer = None
        if seconds is not None:
            timer = asyncio.get_running_loop().call_later(seconds, settle, waiter)
        try:
            await waiter
        except BaseException:
            give_up(future, kill=cancel_running)
            raise
        finally:
            if timer is not None:
                timer.cancel()
    if not future.done():
        where = give_up(future, kill=cancel_running)
        raise TimeoutError(f"no result within timeout={seconds:g} s: {where}")
    return future.result()


class Ear:
    """Hears of turns of the engine, and wakes the task that waits for outcomes.

    Args:
        engine: The engine.
        feeder: Hands the events in.
        streamed: Gets the outcomes.
    """

    def __init__(self, engine: Engine, feeder: Feeder, streamed: OutcomeStream) -> None:
        self._engine = engine
        self._feeder = feeder
        self._streamed = streamed
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()
        self._waits = False
        self._wants_demand = False

    def wake(self) -> None:
        """There is something to do; in the loop's thread."""
        self._event.set()

    def turn_over(self) -> bool:
        """See `futures.Listener`; called in the thread of the futures."""
        is_finished = self._feeder.run.is_finished
        if self._waits and (is_finished or self._has_news):
            self._waits = False
            call_soon(self._loop, self._event.set)
        return is_finished

    @property
    def _has_news(self) -> bool:
        if self._streamed.has_next:
            return True
        return self._wants_demand and self._engine.demand(self._feeder.run) > 0

    async def wait(self, turns: int, *, wants_demand: bool) -> None:
        """Wait for an outcome, or the end of the run, or `wake`.

        Args:
            turns: What `Engine.turns` was before events were handed in.
            wants_demand: Also until the run would take more roots.
        """
        self._wants_demand = wants_demand
        self._waits = True  # first: what comes from now on is told
        try:
            is_over = self._streamed.has_next or self._feeder.run.is_finished
            # before a turn is over, what was handed in does not count as demand that was met
            if not (is_over or (self._engine.turns != turns and self._has_news)):
                await self._event.wait()
        finally:
            self._waits = False
            self._event.clear()


class AsyncInput:
    """Events of an asynchronous iterable, read by a task, no further ahead than they are wanted.

    Args:
        events: The iterable.
        ear: Woken when an event is there.
    """

    def __init__(self, events: AsyncIterable[Event], ear: Ear) -> None:
        self._events = aiter(events)
        self._ear = ear
        self._read: list[Event] = []
        self._wanted = 0
        self._is_wanted = asyncio.Event()
        self.is_exhausted = False
        self.error: BaseException | None = None
        self._task = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        number = 0
        try:
            while True:
                while len(self._read) >= self._wanted:
                    self._is_wanted.clear()
                    await self._is_wanted.wait()
                ev = await anext(self._events)
                self._read.append(ev)  # not in one: `take` may have made another list
                self._ear.wake()
                number += 1
                if number % _MOST_AT_ONCE == 0:
                    await asyncio.sleep(0)  # for an input that never waits
        except StopAsyncIteration:
            pass
        except Exception as error:
            self.error = error
        finally:
            self.is_exhausted = True
            self._ear.wake()

    def take(self, wanted: int) -> list[Event]:
        """What was read; so many more are wanted."""
        read, self._read = self._read, []
        self._wanted = wanted - len(read)
        if self._wanted > 0:
            self._is_wanted.set()
        return read

    async def close(self) -> None:
        """Read no more; wait until the input has taken notice."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(self._task, return_exceptions=True)


async def stream(
    events: Iterator[Event] | AsyncIterable[Event],
    streamed: OutcomeStream,
    buffersize: int,
    open_run: Callable[[], tuple[Engine, Feeder]],
    serve: Callable[[Engine], Futures],
    *,
    cancel_running: bool,
) -> AsyncGenerator[Outcome, None]:
    """See `PoolProcessor.stream_async`.

    Args:
        events: What is read; the feeder has it, if it is an iterator.
        streamed: Gets the outcomes.
        buffersize: See there.
        open_run: Opens the run.
        serve: Gives the futures of an engine, which drive for the run.
        cancel_running: See there.
    """
    engine, feeder = open_run()
    run = feeder.run
    ear = Ear(engine, feeder, streamed)
    source = AsyncInput(events, ear) if isinstance(events, AsyncIterable) else None
    try:
        serve(engine).listen(ear)
        while True:
            outcome = streamed.take()
            if outcome is not None:
                yield outcome
                continue
            turns = engine.turns
            is_enough, wants_demand = _feed(
                engine, feeder, source, buffersize - streamed.outstanding
            )
            if run.is_finished and not streamed.has_next:
                break
            if is_enough:
                await ear.wait(turns, wants_demand=wants_demand)
            else:
                await asyncio.sleep(0)
    finally:
        engine.close_run(run, drop=True)
        if not run.is_finished:
            engine.cancel(run, None, kill=cancel_running)
        if source is not None:
            await source.close()
    if run.error is not None:
        raise run.error
    error = feeder.error if source is None else source.error
    if error is not None:
        raise error


def _feed(
    engine: Engine, feeder: Feeder, source: AsyncInput | None, room: int
) -> tuple[bool, bool]:
    """Hand in more events.

    Returns:
        Whether that is all until something happens; and whether that may be that the run
        would take more.
    """
    if source is None:
        is_enough = feeder.feed(min(room, _MOST_AT_ONCE)) or room <= 0
        return is_enough, room > 0 and not feeder.is_exhausted
    if feeder.is_exhausted:
        return True, False
    is_exhausted = source.is_exhausted  # first: what was read until then is taken
    wanted = min(room, engine.demand(feeder.run))
    feeder.give(source.take(wanted))
    if is_exhausted:
        feeder.end()
    return True, wanted < room and wanted <= 0


def _drained(waiting: deque[Event]) -> Iterator[Event]:
    """What is put there, one by one."""
    while True:
        yield waiting.popleft()


async def stream_here(
    events: Iterator[Event] | AsyncIterable[Event],
    run: Callable[[Iterator[Event]], Iterator[Outcome]],
) -> AsyncGenerator[Outcome, None]:
    """See `PoolProcessor.stream_async`, with `workers=0`.

    Args:
        events: The input.
        run: `stream` of an iterator.
    """
    if not isinstance(events, AsyncIterable):
        for outcome in run(events):
            yield outcome
            await asyncio.sleep(0)
        return
    waiting: deque[Event] = deque()
    outcomes = run(_drained(waiting))
    async for ev in events:
        waiting.append(ev)
        for outcome in outcomes:
            yield outcome
            await asyncio.sleep(0)
            if len(outcome.path) == 1:
                break  # the root's comes last


async def leave(close: Callable[[], None], terminate: Callable[[], None]) -> None:
    """End a pool in another thread, while the loop goes on.

    Args:
        close: Does it.
        terminate: Is called beside it if the task is cancelled meanwhile.
    """
    closing = asyncio.ensure_future(asyncio.to_thread(close))
    try:
        await asyncio.shield(closing)
    except asyncio.CancelledError:
        terminate()
        await closing
        raise
