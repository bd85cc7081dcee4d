"""The pool in an event loop of `asyncio`: `process_async` and `stream_async`.

No thread waits for a call. The thread of the futures drives the engine. It notifies an event
loop once for all the results of a turn::

    process_async --submit--> Futures --callback--> Bridge --call_soon_threadsafe--> loop
    stream_async  --accept--> Engine  --turn over-> Waker --call_soon_threadsafe--> loop

Rejected: `asyncio.to_thread` (a thread for each call); `asyncio.wrap_future` (a system call
for each future).
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import weakref
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Generator, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final

from evproc_pool.coordinator.pool_future import give_up
from evproc_pool.errors import again

if TYPE_CHECKING:
    from evproc import Event
    from evproc_pool.coordinator.engine import Engine
    from evproc_pool.coordinator.feeding import Feeder
    from evproc_pool.coordinator.futures import Futures
    from evproc_pool.coordinator.outcome_stream import OutcomeStream
    from evproc_pool.observe.call_progress import CallProgress
    from evproc_pool.outcome import Outcome

# The most events read from an asynchronous input, or handed in from another one, before other
# tasks of the loop have their turn.
_MOST_AT_ONCE: Final = 1024


class Bridge:
    """Notifies an event loop of futures that are done."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)  # weak: the loop has the bridge
        self._done: deque[asyncio.Future[None]] = deque()
        self._is_notified = False

    def watch(self, future: Future[Any]) -> asyncio.Future[None]:
        """Return a future of the loop that is done when another one is."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.add_done_callback(lambda _: self._put(waiter))
        return waiter

    def _put(self, waiter: asyncio.Future[None]) -> None:
        """Add a future that is done; from any thread."""
        self._done.append(waiter)
        if not self._is_notified:
            self._is_notified = True
            loop = self._loop()
            if loop is not None:
                call_soon(loop, self._deliver)

    def _deliver(self) -> None:
        self._is_notified = False  # first: a later future notifies again
        for _ in range(len(self._done)):
            settle(self._done.popleft())


_BRIDGES: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Bridge] = weakref.WeakKeyDictionary()
_LOCK: Final = threading.Lock()  # guards the above: each thread may have a loop


def _bridge() -> Bridge:
    """Return the bridge of the loop that is running."""
    loop = asyncio.get_running_loop()
    with _LOCK:
        bridge = _BRIDGES.get(loop)
        if bridge is None:
            bridge = _BRIDGES[loop] = Bridge(loop)
        return bridge


def call_soon(loop: asyncio.AbstractEventLoop, function: Callable[[], object]) -> None:
    """Have a loop call a function, from any thread; a closed loop does not."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(function)


def settle(waiter: asyncio.Future[None]) -> None:
    """Finish a future of the loop, if it is not done."""
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
        await asyncio.sleep(0)  # with `workers=0` other tasks have their turn here
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
    try:
        return future.result()
    finally:
        del future  # see `errors`


class Waker:
    """Wakes the task that waits for outcomes, after turns of the engine."""

    def __init__(self, engine: Engine, feeder: Feeder, streamed: OutcomeStream) -> None:
        self._engine = engine
        self._feeder = feeder
        self._streamed = streamed
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()
        self._waits = False
        self._wants_demand = False

    def wake(self) -> None:
        """Wake the task; in the loop's thread."""
        self._event.set()

    def turn_over(self) -> bool:
        """See `Futures.listen`; called in the thread of the futures."""
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
        """Wait for an outcome, the end of the run, `wake`, or demand of the run if wanted.

        `turns` is the value of `Engine.turns` before events were handed in.
        """
        self._wants_demand = wants_demand
        self._waits = True  # first: later turns wake the task
        try:
            is_over = self._streamed.has_next or self._feeder.run.is_finished
            # before a turn is over, the demand does not count the events just handed in
            if not (is_over or (self._engine.turns != turns and self._has_news)):
                await self._event.wait()
        finally:
            self._waits = False
            self._event.clear()


class AsyncInput:
    """Events of an asynchronous iterable, which a task reads, no further ahead than wanted.

    Attributes:
        is_exhausted: Whether the iterable is at its end.
        error: The exception that reading raised.
    """

    def __init__(self, events: AsyncIterable[Event], waker: Waker) -> None:
        self._events = aiter(events)
        self._waker = waker
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
                self._read.append(ev)  # not in one step: `take` may have made another list
                self._waker.wake()
                number += 1
                if number % _MOST_AT_ONCE == 0:
                    await asyncio.sleep(0)  # an input may never wait
        except StopAsyncIteration:
            pass
        except Exception as error:
            self.error = error
        finally:
            self.is_exhausted = True
            self._waker.wake()

    def take(self, wanted: int) -> list[Event]:
        """Return the events that were read, and have the task read on up to `wanted`."""
        read, self._read = self._read, []
        self._wanted = wanted - len(read)
        if self._wanted > 0:
            self._is_wanted.set()
        return read

    async def close(self) -> None:
        """Stop reading, and wait until the input has ended."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def stream(
    events: Iterator[Event] | AsyncIterable[Event],
    streamed: OutcomeStream,
    buffersize: int,
    open_run: Callable[[], tuple[Engine, Feeder]],
    serve: Callable[[Engine], Futures],
    *,
    cancel_running: bool,
    progress: CallProgress | None,
) -> AsyncGenerator[Outcome, None]:
    """See `PoolProcessor.stream_async`; `serve` returns the futures, which drive for the run."""
    engine, feeder = open_run()
    run = feeder.run
    with feeder.watched(progress):
        waker = Waker(engine, feeder, streamed)
        source = AsyncInput(events, waker) if isinstance(events, AsyncIterable) else None
        try:
            serve(engine).listen(waker.turn_over)
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
                    await waker.wait(turns, wants_demand=wants_demand)
                else:
                    await asyncio.sleep(0)
        finally:
            engine.close_run(run, drop=True)
            if not run.is_finished:
                engine.cancel(run, None, kill=cancel_running)
            if source is not None:
                await source.close()
        if run.error is not None:
            raise again(run.error)
        if source is not None:
            feeder.error, source.error = source.error, None
        feeder.check()


def _feed(
    engine: Engine, feeder: Feeder, source: AsyncInput | None, room: int
) -> tuple[bool, bool]:
    """Hand in more events; return whether the stream may wait now, and also for demand."""
    if source is None:
        is_enough = feeder.feed(min(room, _MOST_AT_ONCE)) or room <= 0
        return is_enough, room > 0 and not feeder.is_exhausted
    if feeder.is_exhausted:
        return True, False
    is_exhausted = source.is_exhausted  # first: then `take` returns all that was read
    wanted = min(room, engine.demand(feeder.run))
    feeder.give(source.take(wanted))
    if is_exhausted:
        feeder.end()
    return True, wanted < room and wanted <= 0


def _drained(waiting: deque[Event]) -> Iterator[Event]:
    """Yield the events that are put there, one by one, until there is none."""
    while waiting:
        yield waiting.popleft()


async def stream_here(
    events: Iterator[Event] | AsyncIterable[Event],
    run: Callable[[Iterator[Event]], Generator[Outcome, None, None]],
) -> AsyncGenerator[Outcome, None]:
    """See `PoolProcessor.stream_async`, with `workers=0`; `run` is `stream` of an iterator."""
    if not isinstance(events, AsyncIterable):
        with contextlib.closing(run(events)) as outcomes:
            for outcome in outcomes:
                yield outcome
                await asyncio.sleep(0)
        return
    waiting: deque[Event] = deque()
    with contextlib.closing(run(_drained(waiting))) as outcomes:
        async for ev in events:
            waiting.append(ev)
            for outcome in outcomes:
                yield outcome
                await asyncio.sleep(0)
                if len(outcome.path) == 1:
                    break  # the root's outcome comes last
        next(outcomes, None)  # nothing waits: the stream is complete


async def leave(close: Callable[[], None], terminate: Callable[[], None]) -> None:
    """End a pool in another thread; call `terminate` beside that if the task is cancelled."""
    closing = asyncio.ensure_future(asyncio.to_thread(close))
    try:
        await asyncio.shield(closing)
    except asyncio.CancelledError:
        terminate()
        await closing
        raise
