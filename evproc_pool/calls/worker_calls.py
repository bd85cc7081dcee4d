"""The calls of a pool with workers, for the thread that waits for them.

Each call has a run in the engine, and a sink that collects the run's endings::

    events --Feeder--> Engine --> workers
                         |
    values <--Gathered---+---OutcomeStream--> outcomes

The calling thread reads the events and drives the engine; see `coordinator.engine`. The
coordinator's modules are imported with the first call.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any, Final

from evproc import Event
from evproc_pool.calls.shutdown import break_off
from evproc_pool.core.error_notes import has_several

if TYPE_CHECKING:
    from concurrent.futures import Future

    from evproc.registry import Registry
    from evproc_pool.calls.engines import EngineOwner
    from evproc_pool.coordinator.engine import Engine
    from evproc_pool.coordinator.feeding import Feeder
    from evproc_pool.coordinator.outcome_stream import OutcomeStream
    from evproc_pool.coordinator.run_handle import RunHandle
    from evproc_pool.options import CallOptions, StreamOptions
    from evproc_pool.outcome import Outcome

# In place of the events of an asynchronous input, which a task reads.
_NOT_READ: Final[Iterator[Any]] = iter(())


class WorkerCalls:
    """See `PoolProcessor`, of which these are the methods for a pool with workers.

    Args:
        owner: Has the engine.
        registry: Has the handlers.
    """

    def __init__(self, owner: EngineOwner, registry: Registry) -> None:
        self._owner = owner
        self._registry = registry

    def process_many(
        self, events: Iterator[Event], call: CallOptions, *, return_exceptions: bool
    ) -> list[Any]:
        """See `PoolProcessor.process_many`."""
        from evproc_pool.coordinator.feeding import Feeder, Gathered

        gathered = Gathered()
        until_error = not return_exceptions
        engine, run = self._owner.open(
            gathered,
            until_error=until_error,
            unordered=call.unordered,
            is_bulk=True,
            shares_keys=call.shares_keys,
            ending=call.ending,
            has_several=has_several(events),
        )
        feeder = Feeder(
            engine,
            run,
            gathered,
            events,
            registry=self._registry,
            key=call.key,
            clock=self._owner.clock,
        )
        try:
            engine.enter(run)
            while True:
                turns = engine.turns
                may_block = feeder.feed(until_error=until_error)
                if run.is_finished:
                    break
                engine.wait_turn(turns, may_block=may_block)
        except BaseException as error:
            break_off(engine, run, error)
            raise
        if run.error is not None:
            raise run.error
        return gathered.values(feeder, return_exceptions=return_exceptions)

    def stream(
        self, events: Iterator[Event], options: StreamOptions
    ) -> Generator[Outcome[Any], None, None]:
        """See `PoolProcessor.stream`."""
        streamed, open_run = self._prepare(events, options)
        return self._stream(streamed, options.buffersize, open_run)

    def stream_async(
        self,
        events: Iterator[Event] | AsyncIterable[Event],
        options: StreamOptions,
        *,
        cancel_running: bool,
    ) -> AsyncGenerator[Outcome[Any], None]:
        """See `PoolProcessor.stream_async`."""
        from evproc_pool.coordinator import asyncio_calls

        read = _NOT_READ if isinstance(events, AsyncIterable) else events
        streamed, open_run = self._prepare(read, options)
        return asyncio_calls.stream(
            events,
            streamed,
            options.buffersize,
            open_run,
            self._owner.futures_of,
            cancel_running=cancel_running,
        )

    def _prepare(
        self, events: Iterator[Event], options: StreamOptions
    ) -> tuple[OutcomeStream, Callable[[], tuple[Engine, Feeder]]]:
        """Return the sink of a stream, and a function that opens its run."""
        from evproc_pool.coordinator.feeding import Feeder
        from evproc_pool.coordinator.outcome_stream import OutcomeStream

        call = options.call
        streamed = OutcomeStream(
            ordered=options.ordered, return_events=options.return_events, unordered=call.unordered
        )

        def open_run() -> tuple[Engine, Feeder]:
            engine, run = self._owner.open(
                streamed,
                unordered=call.unordered,
                return_events=options.return_events,
                shares_keys=call.shares_keys,
                has_several=has_several(events),
                every_event=options.every_event,
                ending=call.ending,
            )
            return engine, Feeder(
                engine,
                run,
                streamed,
                events,
                registry=self._registry,
                key=call.key,
                clock=self._owner.clock,
            )

        return streamed, open_run

    def _stream(
        self,
        streamed: OutcomeStream,
        buffersize: int,
        open_run: Callable[[], tuple[Engine, Feeder]],
    ) -> Generator[Outcome[Any], None, None]:
        engine, feeder = open_run()
        run = feeder.run
        try:
            while True:
                outcome = streamed.take()
                if outcome is not None:
                    yield outcome
                    continue
                turns = engine.turns
                may_block = feeder.feed(buffersize - streamed.outstanding)
                if streamed.has_next:
                    continue
                if run.is_finished:
                    break
                engine.wait_turn(turns, may_block=may_block)
        except KeyboardInterrupt as error:
            engine.interrupt(error)
            raise
        finally:
            engine.close_run(run, drop=True)
        if run.error is not None:
            raise run.error
        if feeder.error is not None:
            raise feeder.error


def await_value(engine: Engine, run: RunHandle) -> Any:
    """Wait for the end of a run of one event, and return its value.

    Raises:
        BaseException: The event's error. Or the error that broke the wait: then what was not
            sent is dropped.
    """
    try:
        while True:
            turns = engine.turns
            if run.is_finished:
                break
            engine.wait_turn(turns)
    except BaseException as error:
        break_off(engine, run, error)
        raise
    if run.error is not None:
        raise run.error
    gathered: Any = run.sink
    return gathered.value()


def await_within(future: Future[Any], seconds: float, *, cancel_running: bool) -> Any:
    """Wait for a future of `submit`; see `timeout` of `PoolProcessor.process`."""
    try:
        return future.result(seconds)
    except TimeoutError:
        if future.done():
            raise  # a handler raised it
    from evproc_pool.coordinator.pool_future import give_up

    where = give_up(future, kill=cancel_running)
    raise TimeoutError(f"no result within timeout={seconds:g} s: {where}")
