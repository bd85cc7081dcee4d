"""The calls of a pool with workers, for the thread that waits for them.

Each call has a run in the engine, and a sink that collects the run's endings::

    events --Feeder--> Engine --> workers
                         |
    values <--Gathered---+---OutcomeStream--> outcomes

The calling thread reads the events and drives the engine; see `coordinator.engine`. The
coordinator's modules are imported with the first call.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

from evproc import Event
from evproc_pool.core.error_notes import has_several
from evproc_pool.errors import PoolError, again

if TYPE_CHECKING:
    from concurrent.futures import Future

    from evproc_pool.calls.engines import EngineOwner
    from evproc_pool.coordinator.engine import Engine
    from evproc_pool.coordinator.feeding import Feeder
    from evproc_pool.coordinator.outcome_stream import OutcomeStream
    from evproc_pool.coordinator.run_handle import OutcomeSink, RunHandle
    from evproc_pool.options import CallOptions
    from evproc_pool.outcome import Outcome


def open_run(
    owner: EngineOwner,
    sink: OutcomeSink,
    events: Iterator[Event],
    call: CallOptions,
    **options: bool,
) -> tuple[Engine, Feeder]:
    """Begin a run of these events; `options` are further ones of `Engine.open`."""
    from evproc_pool.coordinator.feeding import Feeder

    while True:
        engine = owner.running()
        try:
            run = engine.open(
                sink,
                unordered=call.unordered,
                return_events=call.return_events,
                every_event=call.every_event,
                ending=call.ending,
                shares_keys=call.shares_keys,
                has_several=has_several(events),
                is_bulk=not call.prompt,
                **options,
            )
        except PoolError:
            if not engine.is_replaceable:
                raise
        else:
            registry, clock = owner.registry, owner.clock
            feeder = Feeder(engine, run, sink, events, registry=registry, key=call.key, clock=clock)
            return engine, feeder


def process_many(
    owner: EngineOwner, events: Iterator[Event], call: CallOptions, *, return_exceptions: bool
) -> list[Any]:
    """See `PoolProcessor.process_many`."""
    from evproc_pool.coordinator.feeding import Gathered

    gathered = Gathered()
    until_error = not return_exceptions
    call = call._replace(prompt=False)
    engine, feeder = open_run(owner, gathered, events, call, until_error=until_error)
    run = feeder.run
    with feeder.watched(call.progress):
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
            raise again(run.error)
        return gathered.values(feeder, return_exceptions=return_exceptions)


def outcome_stream(call: CallOptions) -> OutcomeStream:
    """Make the sink of a stream."""
    from evproc_pool.coordinator.outcome_stream import OutcomeStream

    return OutcomeStream(
        ordered=call.ordered, return_events=call.return_events, unordered=call.unordered
    )


def stream(
    owner: EngineOwner, events: Iterator[Event], call: CallOptions
) -> Generator[Outcome[Any], None, None]:
    """See `PoolProcessor.stream`."""
    streamed = outcome_stream(call)
    engine, feeder = open_run(owner, streamed, events, call)
    run = feeder.run
    with feeder.watched(call.progress):
        try:
            while True:
                outcome = streamed.take()
                if outcome is not None:
                    yield outcome
                    continue
                turns = engine.turns
                may_block = feeder.feed(call.buffersize - streamed.outstanding)
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
            raise again(run.error)
        feeder.check()


def break_off(engine: Engine, run: RunHandle, error: BaseException) -> None:
    """Drop what a call has in flight, because an error ended the call."""
    if isinstance(error, KeyboardInterrupt):
        engine.interrupt(error)
    else:
        engine.close_run(run, drop=True)


def await_value(engine: Engine, run: RunHandle) -> Any:
    """Wait for the end of a run of one event; return its value, or raise its error.

    An error that breaks the wait drops what was not sent.
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
        raise again(run.error)
    gathered: Any = run.sink
    return gathered.value()


def await_within(future: Future[Any], seconds: float, *, cancel_running: bool) -> Any:
    """Wait for a future of `submit`; see `timeout` of `PoolProcessor.process`."""
    from evproc_pool.coordinator.pool_future import give_up

    try:
        return future.result(seconds)
    except TimeoutError:
        if future.done():
            raise  # a handler raised it
        where = give_up(future, kill=cancel_running)
        raise TimeoutError(f"no result within timeout={seconds:g} s: {where}") from None
    finally:
        del future  # see `errors`
