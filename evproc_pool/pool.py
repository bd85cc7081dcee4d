"""`PoolProcessor`: what an application uses. The rest is in `engine` and below."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
import weakref
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
)
from math import inf
from multiprocessing import util
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, NoReturn

from evproc import Event, Processor
from evproc.decorator import default_name
from evproc_pool import options
from evproc_pool.core.cascade_limits import CascadeEnding
from evproc_pool.core.error_notes import has_several
from evproc_pool.core.estimates import MOST_EVENTS
from evproc_pool.core.retry_policy import RetryPolicy
from evproc_pool.core.root_events import Key, plan_root
from evproc_pool.errors import PoolBusyError, PoolClosedError, PoolError, PoolForkedError
from evproc_pool.inprocess.calls import InProcessCalls
from evproc_pool.protocol.limits import Limits
from evproc_pool.protocol.registry_spec import (
    Change,
    LoadFrom,
    MainScriptCode,
    Register,
    RegistrySpec,
    Step,
    cannot_send,
    fingerprint,
    main_script_code,
    registered,
    unregistered,
)
from evproc_pool.serialization.redefinition import RedefinedHandlers

if TYPE_CHECKING:
    import random
    from concurrent.futures import Future
    from multiprocessing.context import BaseContext
    from types import TracebackType

    from evproc.annotations import HandlerFunc, OnError, Unmatched
    from evproc.handler import Handler
    from evproc.report import CheckReport, Explanation
    from evproc_pool.coordinator.engine import Engine
    from evproc_pool.coordinator.feeding import Feeder
    from evproc_pool.coordinator.futures import Futures
    from evproc_pool.coordinator.outcome_stream import OutcomeStream
    from evproc_pool.coordinator.run_handle import OutcomeSink, RunHandle
    from evproc_pool.outcome import Outcome
    from evproc_pool.protocol.backend import Backend

# The engine and the workers' side are imported with the first event: an application that
# imports this package may never come to that, and starts in half the time.

#: What is independent within a cascade; see `PoolProcessor`.
Ordering = Literal["cascade", "unordered"]

#: What an error ends; see `PoolProcessor`.
Errors = Literal["end", "continue"]

#: The default of `stream`'s `buffersize` for each worker: two full batches of tiny events.
BUFFER_PER_WORKER: Final = 2 * MOST_EVENTS

# Before the standard library joins processes that are still there at exit, for
# which it would wait for ever (multiprocessing.util runs higher numbers first).
_EXIT_PRIORITY: Final = 100


class PoolProcessor:
    """A `Processor` whose handlers run in worker processes.

    Handlers are registered as with `evproc.Processor`, and events give the same
    values and the same errors. Root events run in parallel; the events of one
    cascade run one after another, in the order of `Processor.process`.

    Workers start when there are events for them, no more than can be at work at once, and
    stay. `close` (or the end of a `with` or `async with` block) ends them; so does the
    garbage collector, and the end of the program, once what was submitted is finished. An
    error in the block finishes what runs, and drops what was not begun.
    Ctrl-C while a call waits drops what is in flight and kills its workers; calls of other
    threads end with `PoolInterruptedError`, and the next call works.
    Usable from several threads and event loops at once. Not usable in a process that `os.fork`
    made from this one.

    Events and handlers may be those of the main script, a notebook or an interactive
    session. If you redefine a handler there, or a class, a function or a variable that handlers
    use, the next call uses the new one, once nothing is in flight; the workers restart. A
    handler is one that `def` makes at the top level (no lambda, partial or method): the new one
    takes the place of the old one, with its own declarations, also with `workers=0`; an INFO
    line of the logger `evproc_pool` says so. A new definition that cannot be a handler is an
    error. If the name stands for something else now, the handler stays, with a warning. In-place
    changes, of a list or of a class for example, are not detected (in IPython those of classes
    and functions are, by the next cell).

    Events, follow-ups and values cross between processes by pickle: a handler
    works on a copy, and what two root events share in this process they do not
    share there.

    Args:
        workers: How many processes at the most. None: as many as the CPUs that this process may
            use (affinity and cgroup quota). 0: none; all runs in this process,
            through `evproc.Processor`.
        mp_context: A `multiprocessing` context or the name of a start method. By
            default `forkserver` on Linux and `spawn` elsewhere. Workers of a forkserver
            have the environment variables that this process had when it was started,
            at the first call of the first pool at the latest.
        initializer: Called in each worker before entry points are loaded (with
            `workers=0`, once in this process, before the first event). The modules of
            registered functions, and its own, are imported before that.
        initargs: Its arguments.
        ordering: `"cascade"`: as described above. `"unordered"`: a follow-up is
            independent from the moment it is returned, for fan-out. A value given to
            `StopProcessing`, and an error, still end the cascade: what has not been
            sent is dropped.
        key: Called with each root event: those with equal keys are processed one
            after another, in the order in which they were handed in, by whatever call and
            in whatever thread. A failed one does not stop the next. `key` may be called
            again for an event where it raised for another one.
        errors: `"end"`: the first event that fails ends its cascade, as in `Processor`.
            `"continue"`: it ends only itself and its own follow-ups, and what it returned and
            emitted is forgotten; the rest of the cascade goes on. The error of the cascade is
            the first in the order of `Processor.process`. A value given to `StopProcessing`
            ends the cascade in either case.
        max_cascade_depth: The greatest depth of an event: the root's is 0, its follow-ups'
            is 1. An event of that depth whose handlers return follow-ups fails with
            `CascadeLimitError`: its handlers have run, its follow-ups are dropped, and it is
            not run again.
        max_cascade_events: How many events a cascade may come to, the root and all follow-ups
            as they are returned; those of events that failed do not count. The event whose
            follow-ups would exceed it fails likewise.
        event_timeout: After how many seconds in one event (all of its handlers) its
            worker is killed, with the processes that it has started. The event fails
            with `EventTimeoutError`, the others go on. It is watched as long as
            somebody waits for results. Where follow-ups hang in pickling together with
            those of other events, it may take some twenty times as long to find out
            whose they are. Not with `workers=0`, and not on Windows.
        event_soft_timeout: After how many seconds in one event (all of its handlers)
            `SoftTimeoutError` is raised in the handler that is running, once for each
            attempt. It may clean up and let it pass: then the event fails with that
            error, and the worker stays. Or it may catch it and go on, or return what it
            has. Like a `KeyboardInterrupt` it may come between any two instructions; it
            ends sleeping and most waiting, but not a call into native code, and is lost
            in a `__del__` or a callback whose errors Python ignores: there
            `event_timeout`, which must be longer, helps. In workers it takes the signal
            `SIGRTMIN + 11` (on macOS `SIGINFO`). Watched like `event_timeout`, and not
            with `workers=0` or on Windows either.
        max_tasks_per_child: After how many events (follow-ups are events, too) a worker
            is replaced by a new one, between two events. Not with `workers=0`.
        max_worker_memory_bytes: At how much resident memory a worker is replaced,
            between two events. One that comes to half as much again within one event
            is killed, and the event fails with `WorkerLostError`. What it shares with this
            process for large data counts, up to 64 MiB. Not with `workers=0`.
        max_retries: How often an event is run again that failed with one of
            `retry_exceptions`: all of its handlers, with the event as it was sent (with
            `workers=0`, pickled and rebuilt; where that is not possible, as the failed
            attempt left it). What the failed attempt returned is forgotten, what else it
            did is not. What stands behind it in its cascade, or has its key, waits.
        retry_exceptions: An exception class or several; what a handler raised, and
            `EventTimeoutError`. Not what the pool reports otherwise, and no filter's error.
        retry_backoff: How many seconds the first retry of an event waits; each further
            one waits twice as long. A random part of up to one half is taken off, so that
            what failed together does not come back together.
        retry_backoff_max: The longest of these pauses, in seconds.
        crash_limit: How many workers may die while they run one event. By default 1: an
            event that may have had effects is not run again. With more, it is run again
            in a worker that has nothing else to do.
        preload: What a `forkserver` imports, once for all workers, so that a new worker
            need not, and is ready in milliseconds. None: NumPy and SciPy, if this program
            has imported them. True: the handlers' modules. What these, and what they
            import, make at their import is the same in every worker then, or not there
            at all: connections, locks, threads, random generators and their seeds,
            `sys.argv`. Workers are spawned instead once a source has changed. False:
            nothing. There is one forkserver in a program: it imports what the first pool
            asks for. Nothing with an `initializer`, which entry points may need.
        unmatched: What happens to an event that no handler wants; see `evproc.Processor`.

    Raises:
        TypeError: An argument of the wrong type.
        ValueError: A number or a name that there is none of.
    """

    def __init__(
        self,
        workers: int | None = None,
        *,
        mp_context: BaseContext | str | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        ordering: Ordering = "cascade",
        key: Key | None = None,
        errors: Errors = "end",
        max_cascade_depth: int | None = None,
        max_cascade_events: int | None = None,
        event_timeout: float | None = None,
        event_soft_timeout: float | None = None,
        max_tasks_per_child: int | None = None,
        max_worker_memory_bytes: int | None = None,
        max_retries: int = 0,
        retry_exceptions: type[BaseException] | Iterable[type[BaseException]] = Exception,
        retry_backoff: float = 0.1,
        retry_backoff_max: float = 60.0,
        crash_limit: int = 1,
        preload: bool | None = None,
        unmatched: Unmatched = "ignore",
    ) -> None:
        self._size = options.worker_count(workers)
        self._context = options.context(mp_context)
        options.check_callable("initializer", initializer)
        options.check_callable("key", key)
        self._unordered = options.is_unordered(ordering)
        self._key = key
        self._ending = CascadeEnding(
            options.continues(errors),
            options.count_or_none("max_cascade_depth", max_cascade_depth, least=0),
            options.count_or_none("max_cascade_events", max_cascade_events),
        )
        self._limits = Limits(
            options.seconds_or_none("event_timeout", event_timeout),
            options.count_or_none("max_tasks_per_child", max_tasks_per_child),
            options.count_or_none("max_worker_memory_bytes", max_worker_memory_bytes),
            options.seconds_or_none("event_soft_timeout", event_soft_timeout),
        )
        options.check_soft(self._limits.event_soft_timeout, self._limits.event_timeout)
        self._policy = RetryPolicy(
            options.count("max_retries", max_retries, least=0),
            options.exceptions("retry_exceptions", retry_exceptions),
            options.count("crash_limit", crash_limit),
            options.seconds("retry_backoff", retry_backoff),
            options.seconds("retry_backoff_max", retry_backoff_max),
        )
        self._preload = options.flag_or_none("preload", preload)
        self._initializer = initializer
        self._initargs = options.initargs(initargs)
        self._unmatched = unmatched
        self._processor = Processor(unmatched=unmatched)
        self._redefined = RedefinedHandlers(self._processor.registry)
        self._in_process = InProcessCalls(
            self._processor, self._policy, self._initializer, self._initargs
        )
        self._leaving: Callable[[], Engine | None] = lambda: None  # the last one, while it ends
        self._steps: list[Step] = []
        self._changes: list[Change] = []  # see `testing`, as for the next two
        self._clock: Callable[[], float] = time.monotonic
        self._rng: random.Random | None = None
        self._lock = threading.RLock()  # guards what follows
        self._engine: Engine | None = None
        self._shipped: MainScriptCode | None = None  # what its workers have of the main script
        self._futures: Futures | None = None
        self._finalizer: util.Finalize | None = None
        self._closed = False
        self._pid = os.getpid()

    def __repr__(self) -> str:
        state = "idle" if self._engine is None else "running"
        engine = self._engine
        if engine is not None and engine.closed is not None:
            state = "idle" if engine.is_replaceable else "closed"
        if self._closed:
            state = "closed"
        return f"<PoolProcessor workers={self._size} handlers={len(self.nodes)} {state}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a PoolProcessor stays in its process: make one in the other process, or hand over"
            " what it gives"
        )

    # --- the registry ---

    @property
    def workers(self) -> int:
        """How many worker processes there are at the most."""
        return self._size

    @property
    def nodes(self) -> Mapping[str, Handler]:
        """The registered handlers by name, in registration order; read-only."""
        return self._processor.nodes

    def register(self, proc: HandlerFunc, name: str | None = None, *, replace: bool = False) -> str:
        """Add a handler; see `Processor.register`. Running workers are replaced.

        Raises:
            PoolBusyError: Events are in flight. Nothing has changed.
            PoolClosedError: The pool is closed.
        """
        with self._lock:
            self._check_idle("register")
            before = len(self.nodes)
            key = self._processor.register(proc, name, replace=replace)
            has_replaced = len(self.nodes) == before
            registered(self._steps, Register(proc, key, has_replaced))
            self._redefined.note(proc, key)
            engine = self._detach_engine()
        _stop(engine)
        return key

    def unregister(self, name: str) -> None:
        """Remove a handler; see `Processor.unregister`. Running workers are replaced.

        Raises:
            PoolBusyError: Events are in flight. Nothing has changed.
            PoolClosedError: The pool is closed.
        """
        with self._lock:
            self._check_idle("unregister")
            self._processor.unregister(name)
            unregistered(self._steps, name)
            self._redefined.forget(name)
            engine = self._detach_engine()
        _stop(engine)

    def load_from(self, namespace: str, on_error: OnError = "raise") -> tuple[str, ...]:
        """Register every entry point of a group; see `Processor.load_from`.

        Workers load the same group. Running ones are replaced. With a callable as
        `on_error` it is called in this process only; a worker leaves out what it
        cannot load, and the comparison of the registries tells if that differs.

        Raises:
            PoolBusyError: Events are in flight. Nothing has changed.
            PoolClosedError: The pool is closed.
        """
        with self._lock:
            self._check_idle("load_from")
            names = self._processor.load_from(namespace, on_error)
            self._steps.append(LoadFrom(namespace, skip=on_error != "raise"))
            engine = self._detach_engine()
        _stop(engine)
        return names

    def _change(self, change: Change) -> None:
        """Do something to the handlers in the workers, for `testing`; as `register`, but unseen."""
        with self._lock:
            self._check_idle("sabotage")
            self._changes.append(change)
            engine = self._detach_engine()
        _stop(engine)

    def _undo(self, change: Change) -> None:
        """Take back a `_change`. New workers know nothing of it, whatever is raised.

        Raises:
            PoolBusyError: Events are in flight, in workers that are as they were.
        """
        with self._lock:
            self._changes.remove(change)
            if self._closed or self._engine is None or self._engine.closed is not None:
                return
            self._check_idle("the end of sabotage")
            engine = self._detach_engine()
        _stop(engine)

    def check(self) -> CheckReport:
        """Find cycles and missing handlers; see `Processor.check`."""
        return self._processor.check()

    def explain(self, ev: Event) -> Explanation:
        """Say which handlers match an event, and why; see `Processor.explain`."""
        return self._processor.explain(ev)

    # --- events ---

    def process(
        self, ev: Event, *, timeout: float | None = None, cancel_running: bool = False
    ) -> Any:
        """Process an event and its follow-ups in the workers; see `Processor.process`.

        Args:
            ev: The event.
            timeout: After how many seconds the call ends with `TimeoutError`, which says what
                is still running. The rest of the cascade is cancelled. None: never. With
                `workers=0` nothing can end the call before the event is over.
            cancel_running: Whether the handler that is running then is cancelled, too: its
                worker is killed, at no charge to other events.

        Raises:
            TimeoutError: See `timeout`.
            WorkerLostError: A worker died while it ran an event of the cascade.
            EventTimeoutError: An event of the cascade took longer than `event_timeout`.
            CascadeLimitError: The cascade exceeds `max_cascade_depth` or `max_cascade_events`.
            SoftTimeoutError: Likewise `event_soft_timeout`, and its handler let it pass.
            SerializationError: Something cannot be pickled or rebuilt.
            RemoteError: In place of a handler's exception that cannot.
            PoolBrokenError: No worker can be started.
            PoolClosedError: The pool is closed.
            PoolInterruptedError: Another thread that waited for the pool was interrupted.
            Exception: What `Processor.process` would raise, with the worker's
                traceback as its cause.
        """
        if timeout is not None and self._size:
            seconds = options.seconds("timeout", timeout)
            return self._process_within(ev, seconds, cancel_running=cancel_running)
        if self._size == 0 or self._key is not None:
            return self.process_many([ev])[0]
        while True:
            engine = self._running_engine()
            plan = plan_root(self._processor.registry, ev)
            if not plan.indices:
                return None
            try:
                run = engine.call(ev, plan, unordered=self._unordered, ending=self._ending)
            except PoolError:
                if not engine.is_replaceable:
                    raise
            except KeyboardInterrupt as error:
                engine.interrupt(error)
                raise
            else:
                return run.value if isinstance(run, tuple) else _await_value(engine, run)

    def _process_within(self, ev: Event, seconds: float, *, cancel_running: bool) -> Any:
        from concurrent.futures import TimeoutError as FutureTimeoutError  # another up to 3.10

        future = self.submit(ev)
        try:
            return future.result(seconds)
        except FutureTimeoutError:
            if future.done():
                raise  # a handler raised it
            raise self._give_up(future, seconds, kill=cancel_running) from None

    def _give_up(self, future: Future[Any], seconds: float, *, kill: bool) -> TimeoutError:
        """Cancel an event that took too long, and say where it was."""
        from evproc_pool.coordinator.futures import give_up

        where = give_up(future, kill=kill)
        return TimeoutError(f"no result within timeout={seconds:g} s: {where}")

    def process_many(
        self,
        events: Iterable[Event],
        return_exceptions: bool = False,
        *,
        ordering: Ordering | None = None,
        key: Key | None = None,
        errors: Errors | None = None,
    ) -> list[Any]:
        """Process events, in parallel, each with its follow-ups.

        Args:
            events: Read as far ahead as the workers need, in the calling thread.
            return_exceptions: Put what failed into the list, in its place.
            ordering: Instead of the pool's.
            key: Instead of the pool's. It holds within this call only.
            errors: Instead of the pool's.

        Returns:
            The value of each event, in the order of the events.

        Raises:
            Exception: See `process`. Without `return_exceptions` the error of the
                first event, by input order, that fails: the one that a loop over
                `Processor.process` would have ended with. Events before it have
                been processed to the end; those behind it only if they were in
                flight. Also whatever reading `events` raised, once what was read
                has been processed.
        """
        unordered, key, shares_keys = self._choose(ordering, key)
        ending = self._how_cascades_end(errors)
        iterator = options.events(events)
        if self._size == 0:
            rules = self._in_process.rules(ending, iterator)
            return self._in_process.process_many(
                iterator, key, rules, return_exceptions=return_exceptions
            )
        from evproc_pool.coordinator.feeding import Feeder, Gathered

        gathered = Gathered()
        engine, run = self._open(
            gathered,
            until_error=not return_exceptions,
            unordered=unordered,
            is_bulk=True,
            shares_keys=shares_keys,
            ending=ending,
            has_several=has_several(iterator),
        )
        registry = self._processor.registry
        feeder = Feeder(
            engine, run, gathered, iterator, registry=registry, key=key, clock=self._clock
        )
        try:
            engine.enter(run)
            while True:
                turns = engine.turns
                may_block = feeder.feed(until_error=not return_exceptions)
                if run.is_finished:
                    break
                engine.wait_turn(turns, may_block=may_block)
        except BaseException as error:
            _given_up(engine, run, error)
            raise
        if run.error is not None:
            raise run.error
        return gathered.values(feeder, return_exceptions=return_exceptions)

    def stream(
        self,
        events: Iterable[Event],
        *,
        ordered: bool = True,
        buffersize: int | None = None,
        return_events: bool = False,
        every_event: bool = False,
        ordering: Ordering | None = None,
        key: Key | None = None,
        errors: Errors | None = None,
    ) -> Generator[Outcome, None, None]:
        """Process events lazily, and yield an outcome for each.

        A failed event is an outcome with an `error`, and does not end the stream.
        Closing the generator drops what has not been sent to a worker; what is in
        flight ends in the background of the next call, and the pool stays usable.

        Args:
            events: Any iterable, also an endless one; read in the thread that iterates.
                Where they come slowly, each is sent when it is there, and its outcome is
                yielded when the next one is.
            ordered: Yield in input order; otherwise as they finish.
            buffersize: How many events are read at the most that have not been yielded
                as outcomes. By default 4,096 for each worker.
            return_events: Bring each root event back as the handlers left it; with
                `every_event` also each follow-up.
            every_event: Yield an outcome for each event that was handled, follow-ups and what
                no handler wants included: those of a cascade in its order, which is that of
                `Processor.process`, then the root's own, which is the cascade's. Events that
                were dropped, since the cascade ended before, have none.
            ordering: Instead of the pool's.
            key: Instead of the pool's. It holds within this call only.
            errors: Instead of the pool's.

        Yields:
            An `Outcome` for each event.

        Raises:
            PoolError: The pool is closed, broken or forked.
            TypeError: An argument of the wrong type.
            ValueError: `buffersize` is not positive.
            Exception: Whatever reading `events` raised, after the outcomes of all that
                was read.
        """
        streaming = self._streaming(
            ordering, key, errors, return_events=return_events, every_event=every_event
        )
        buffersize = self._buffersize(buffersize)
        iterator = options.events(events)
        if self._size == 0:
            return self._stream_here(iterator, streaming)
        streamed, open_run = self._prepare(iterator, streaming, ordered=ordered)
        return self._stream(streamed, buffersize, open_run)

    def _streaming(
        self,
        ordering: Ordering | None,
        key: Key | None,
        errors: Errors | None,
        *,
        return_events: bool,
        every_event: bool,
    ) -> _Streaming:
        """What a stream was given, checked, or else what the pool says."""
        unordered, key, shares_keys = self._choose(ordering, key)
        return _Streaming(
            key,
            unordered,
            shares_keys,
            self._how_cascades_end(errors),
            return_events,
            options.flag("every_event", every_event),
        )

    def _stream_here(
        self, iterator: Iterator[Event], streaming: _Streaming
    ) -> Generator[Outcome, None, None]:
        rules = self._in_process.rules(
            streaming.ending,
            iterator,
            return_events=streaming.return_events,
            every_event=streaming.every_event,
        )
        return self._in_process.stream(iterator, streaming.key, self._check_usable, rules)

    def _buffersize(self, buffersize: int | None) -> int:
        """What `stream` was given, checked, or else the default."""
        if buffersize is None:
            return BUFFER_PER_WORKER * max(1, self._size)
        if isinstance(buffersize, bool) or not isinstance(buffersize, int):
            raise TypeError(f"buffersize is a number of events or None, not {buffersize!r}")
        if buffersize < 1:
            raise ValueError(f"buffersize must be positive, and is {buffersize}")
        return buffersize

    def _prepare(
        self, iterator: Iterator[Event], streaming: _Streaming, *, ordered: bool
    ) -> tuple[OutcomeStream, Callable[[], tuple[Engine, Feeder]]]:
        """What a stream's outcomes go into, and what opens its run."""
        from evproc_pool.coordinator.feeding import Feeder
        from evproc_pool.coordinator.outcome_stream import OutcomeStream

        streamed = OutcomeStream(
            ordered=ordered, return_events=streaming.return_events, unordered=streaming.unordered
        )

        def open_run() -> tuple[Engine, Feeder]:
            engine, run = self._open(
                streamed,
                unordered=streaming.unordered,
                return_events=streaming.return_events,
                shares_keys=streaming.shares_keys,
                has_several=has_several(iterator),
                every_event=streaming.every_event,
                ending=streaming.ending,
            )
            return engine, Feeder(
                engine,
                run,
                streamed,
                iterator,
                registry=self._processor.registry,
                key=streaming.key,
                clock=self._clock,
            )

        return streamed, open_run

    def _stream(
        self,
        streamed: OutcomeStream,
        buffersize: int,
        open_run: Callable[[], tuple[Engine, Feeder]],
    ) -> Generator[Outcome, None, None]:
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

    def _choose(self, ordering: Ordering | None, key: Key | None) -> tuple[bool, Key | None, bool]:
        """What a call says about order, or else the pool; and whether the key is the pool's."""
        with self._lock:
            self._check_usable()
            self._use_redefined_here()
        options.check_callable("key", key)
        unordered = self._unordered if ordering is None else options.is_unordered(ordering)
        return unordered, self._key if key is None else key, key is None and self._key is not None

    def _how_cascades_end(self, errors: Errors | None) -> CascadeEnding:
        """What ends a cascade of a call before its time; by `errors`, or else the pool."""
        if errors is None:
            return self._ending
        return self._ending._replace(errors_continue=options.continues(errors))

    def submit(self, ev: Event) -> Future[Any]:
        """Process an event in the background.

        Returns:
            A future of the value. It can be cancelled until the event is sent to a
            worker, and is failed by whatever `process` would raise. It keeps the pool: the
            event is processed also if nothing refers to the pool any more, or the program
            comes to its end, but not after `terminate` or Ctrl-C. Ctrl-C while its
            `result` waits drops everything that is in flight.

        Raises:
            PoolBrokenError: No worker can be started.
            PoolClosedError: The pool is closed.
        """
        if self._size == 0:
            with self._lock:
                self._check_usable()
                self._use_redefined_here()
            rules = self._in_process.rules(self._ending)
            return self._in_process.submit(ev, self._key, rules)
        while True:
            engine = self._running_engine()
            futures = self._futures
            if futures is None or futures.engine is not engine:
                futures = self._make_futures(engine)
            # without the lock: filters and `key` are the user's code
            future = None if futures is None else futures.submit(ev, self)
            if future is not None:
                return future

    def _make_futures(self, engine: Engine) -> Futures | None:
        """The futures of an engine. None: another engine has taken its place."""
        with self._lock:
            if self._engine is engine and self._futures is None:
                from evproc_pool.coordinator.futures import Futures

                try:
                    self._futures = Futures(
                        engine,
                        self._processor.registry,
                        self._key,
                        unordered=self._unordered,
                        ending=self._ending,
                    )
                except PoolError:
                    if not engine.is_replaceable:
                        raise
                    return None
            return self._futures if self._engine is engine else None

    # --- in an event loop ---

    async def process_async(
        self, ev: Event, *, timeout: float | None = None, cancel_running: bool = False
    ) -> Any:
        """Process an event from a coroutine; no thread waits for it. See `process`.

        If the task is cancelled, the rest of the event's cascade is cancelled. With
        `workers=0` the handlers run in the thread of the loop, which waits for them.

        Args:
            ev: The event.
            timeout: After how many seconds it raises `TimeoutError`; see `process`.
            cancel_running: Whether cancellation, or the timeout, also ends the handler that is
                running: its worker is killed, at no charge to other events.
        """
        seconds = None if timeout is None else options.seconds("timeout", timeout)
        from evproc_pool.coordinator import asyncio_calls

        return await asyncio_calls.process(self.submit, ev, seconds, cancel_running=cancel_running)

    def stream_async(
        self,
        events: Iterable[Event] | AsyncIterable[Event],
        *,
        ordered: bool = True,
        buffersize: int | None = None,
        return_events: bool = False,
        every_event: bool = False,
        ordering: Ordering | None = None,
        key: Key | None = None,
        errors: Errors | None = None,
        cancel_running: bool = False,
    ) -> AsyncGenerator[Outcome, None]:
        """Process events lazily, for `async for`; no thread waits for them. See `stream`.

        If the generator is closed, or its task is cancelled, what was not begun is dropped.
        With `workers=0` the handlers run in the thread of the loop, which has a turn behind
        each event.

        Args:
            events: An iterable, read in the thread of the loop, or an asynchronous one. While
                that waits, outcomes are yielded.
            ordered: See `stream`, as for what follows.
            buffersize: See there.
            return_events: See there.
            every_event: See there.
            ordering: See there.
            key: See there.
            errors: See there.
            cancel_running: Whether closing and cancellation also end the handlers that are
                running: their workers are killed, at no charge to other events.
        """
        streaming = self._streaming(
            ordering, key, errors, return_events=return_events, every_event=every_event
        )
        buffersize = self._buffersize(buffersize)
        from evproc_pool.coordinator import asyncio_calls

        source = events if isinstance(events, AsyncIterable) else options.events(events)
        if self._size == 0:
            return asyncio_calls.stream_here(
                source, lambda each: self._stream_here(iter(each), streaming)
            )
        iterator = _NOT_READ if isinstance(source, AsyncIterable) else source
        streamed, open_run = self._prepare(iterator, streaming, ordered=ordered)
        return asyncio_calls.stream(
            source,
            streamed,
            buffersize,
            open_run,
            self._futures_of,
            cancel_running=cancel_running,
        )

    def _futures_of(self, engine: Engine) -> Futures:
        """The futures of an engine that has an open run, so that no other takes its place."""
        futures = self._make_futures(engine)
        if futures is None:
            raise engine.closed or PoolClosedError("the pool is closed: make a new PoolProcessor")
        return futures

    async def __aenter__(self) -> PoolProcessor:  # noqa: PYI034 - as __enter__
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """As the end of a `with` block, while the loop goes on."""
        from evproc_pool.coordinator import asyncio_calls

        await asyncio_calls.leave(lambda: self.__exit__(kind, error, trace), self.terminate)

    # --- the end ---

    def close(self, *, drain: bool = True, timeout: float | None = None) -> None:
        """Finish what was submitted, then end the workers. Idempotent.

        In this order: no new call is taken; what was submitted, and calls of
        `process_many` in other threads, are finished, pauses before retries included;
        streams are ended; workers are told to end, and killed if they do not within five
        seconds; what they shared is let go of. With `workers=0` nothing is waited for.

        Args:
            drain: False: finish nothing; as `terminate`.
            timeout: After how many seconds what is not finished by then is ended as by
                `terminate`. None: wait as long as it takes. Code of yours that runs in
                this process meanwhile, a filter or a future's callback, is waited for, and so
                are the imports of a forkserver that is starting.

        Raises:
            RuntimeError: Called from a future's callback, for which it would wait.
        """
        seconds = inf if timeout is None else options.seconds("timeout", timeout)
        end = time.monotonic() + seconds
        if not drain:
            self.terminate()
            return
        if os.getpid() != self._pid:
            return  # the workers are the parent's
        with self._lock:
            futures, engine = self._futures, self._engine
            if engine is not None:
                engine.check_may_wait()
            self._closed = True
        if engine is not None:
            with _stopped_after(seconds, engine):
                if futures is not None:
                    futures.drain()
                engine.drain()
        with self._lock:
            # or the one that another thread has taken and is stopping: that is waited for
            engine = self._detach_engine() or self._leaving()
        _stop(engine, most_seconds=max(0.0, end - time.monotonic()))

    def terminate(self) -> None:
        """Kill the workers. What is in flight fails with `PoolClosedError`. Idempotent."""
        if os.getpid() != self._pid:
            return
        with self._lock:
            self._closed = True
            engine = self._detach_engine()
        _stop(engine, most_seconds=0.0)

    def __enter__(self) -> PoolProcessor:  # noqa: PYI034 - typing.Self came with Python 3.11
        with self._lock:
            self._check_usable()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            self.terminate()
            return
        if kind is not None:
            self._drop_unbegun(kind)
        self.close()

    def _drop_unbegun(self, kind: type[BaseException]) -> None:
        """Drop what was submitted and not begun, because an error ended the `with` block."""
        with self._lock:
            self._closed = True
            futures = self._futures
        if futures is not None and os.getpid() == self._pid:
            futures.give_up(
                PoolClosedError(
                    f"this event was not begun when {kind.__name__} ended the pool's with block,"
                    " and was dropped"
                )
            )

    # --- the engine ---

    def _check_usable(self) -> None:
        if os.getpid() != self._pid and self._engine is None:
            self._pid = os.getpid()  # nothing was started by the other process
            self._in_process.adopt()
        if os.getpid() != self._pid:
            raise PoolForkedError(
                f"this PoolProcessor belongs to process {self._pid}, and this is process"
                f" {os.getpid()}, forked from it: make a PoolProcessor of its own here"
            )
        if self._closed:
            raise PoolClosedError("the pool is closed: make a new PoolProcessor")
        engine = self._engine
        if engine is not None and engine.closed is not None and not engine.is_replaceable:
            raise engine.closed

    def _check_idle(self, what: str) -> None:
        self._check_usable()
        runs, futures = self._in_flight()
        if futures or runs:
            raise PoolBusyError(
                f"{what}() needs an idle pool, because the workers are replaced: {runs} calls"
                f" and {futures} futures are in flight; wait for them (a stream that was left"
                " early is in flight for as long as what it has sent), or register before the"
                " first event"
            )

    def _in_flight(self) -> tuple[int, int]:
        """How many calls and futures."""
        futures, runs = 0, self._in_process.open_calls
        if self._engine is not None and self._engine.closed is None:
            self._engine.refresh()
            futures = self._futures.outstanding if self._futures is not None else 0
            runs += self._engine.open_runs - (self._futures is not None)
        return runs, futures

    def _running_engine(self) -> Engine:
        engine = self._engine
        # as it is mostly; without the lock, since it might as well end right after this
        if (
            engine is not None
            and engine.closed is None
            and not self._closed
            and os.getpid() == self._pid
            and self._redefined.is_up_to_date
            and (self._shipped is None or self._shipped.is_up_to_date)
        ):
            return engine
        with contextlib.ExitStack() as when_done, self._lock:
            self._check_usable()
            engine = self._engine
            if engine is not None and (
                engine.closed is not None or (self._is_outdated and self._retire(engine))
            ):
                # without the lock, see there
                when_done.callback(_stop, self._detach_engine(), most_seconds=0.0)
            if self._engine is None:
                self._use_redefined()
                self._begin_start()
                self._shipped = main_script_code([*self._functions(), self._initializer])
                from evproc_pool.coordinator.codec import PACE
                from evproc_pool.coordinator.coordinator import Coordinator
                from evproc_pool.coordinator.engine import Engine
                from evproc_pool.coordinator.feeding import Gathered
                from evproc_pool.serialization import pickling

                spec = RegistrySpec(
                    self._initializer,
                    self._initargs,
                    tuple(self._steps),
                    tuple(self._changes),
                    self._unmatched,
                )
                try:
                    config = pickling.dumps((spec, self._limits, PACE))
                except Exception as error:
                    raise cannot_send(spec, error) from error
                registry = self._processor.registry
                backend = self._make_backend()
                coordinator = Coordinator(
                    self._size,
                    backend,
                    registry,
                    config,
                    fingerprint(registry),
                    limits=self._limits,
                    policy=self._policy,
                    clock=self._clock,
                    rng=self._rng,
                )
                engine = Engine(coordinator, backend, Gathered)
                # by the engine, not by self: the finalizer must not keep the pool alive
                self._finalizer = util.Finalize(
                    self, _finish, args=(engine,), exitpriority=_EXIT_PRIORITY
                )
                self._engine = engine
            return self._engine

    def _open(self, sink: OutcomeSink, **options: Any) -> tuple[Engine, RunHandle]:
        """Begin a run; see `Engine.open`."""
        while True:
            engine = self._running_engine()
            try:
                return engine, engine.open(sink, **options)
            except PoolError:
                if not engine.is_replaceable:
                    raise

    def _retire(self, engine: Engine) -> bool:
        """Have an engine take nothing more, if nothing is in flight; say whether that is so."""
        futures = self._futures
        if futures is None:
            return engine.retire(0)
        if futures.retire():
            if engine.retire(1):
                return True
            futures.unretire()
        return False

    @property
    def _is_outdated(self) -> bool:
        """Whether handlers of the main script, or what they use, were defined anew."""
        if self._shipped is not None and not self._shipped.is_up_to_date:
            return True
        return not self._redefined.is_up_to_date and bool(self._redefined.find())

    def _use_redefined(self) -> None:
        """Use handlers that were defined anew; with the lock, and with nothing in flight."""
        if self._redefined.is_up_to_date:
            return
        found = self._redefined.replace()
        if not found:
            return
        for place, step in enumerate(self._steps):
            if isinstance(step, Register):
                name = step.name or default_name(step.func)
                if name is not None and name in found:
                    self._steps[place] = step._replace(func=found[name])
        from evproc_pool.log import LOG

        LOG.info("handlers that were defined anew are used from now on: %s", ", ".join(found))

    def _use_redefined_here(self) -> None:
        """The same with `workers=0`."""
        if self._size == 0 and not self._in_process.open_calls:
            self._use_redefined()

    def _begin_start(self) -> None:
        """Begin with what takes long and can be done while more is imported here."""
        from evproc_pool.backends.local.start_methods import begin

        begin(self._context, self._modules_to_preload())

    def _make_backend(self) -> Backend:
        from evproc_pool.backends.local.processes import LocalBackend

        return LocalBackend(self._context, self._modules_to_preload())

    def _modules_to_preload(self) -> list[str]:
        from evproc_pool.backends.local.preloading import chosen

        # with an initializer: entry points may need what it sets up
        preload = False if self._initializer is not None else self._preload
        return chosen(self._functions(), preload)

    def _functions(self) -> list[Any]:
        """What is called as a handler."""
        return [handler.func for handler in self._processor.registry.handlers]

    def _detach_engine(self) -> Engine | None:
        """Take the engine away, for the caller to stop when it has let go of the lock."""
        engine, self._engine = self._engine, None
        self._futures = self._shipped = None
        if engine is not None:
            self._leaving = weakref.ref(engine)
        if self._finalizer is not None:
            self._finalizer.cancel()
            self._finalizer = None
        return engine


class _Streaming(NamedTuple):
    """How a stream is processed; see `PoolProcessor.stream`."""

    key: Key | None
    unordered: bool
    shares_keys: bool
    ending: CascadeEnding
    return_events: bool
    every_event: bool


# Stands for the events of an asynchronous input, which come by another way.
_NOT_READ: Final[Iterator[Any]] = iter(())


def _await_value(engine: Engine, run: RunHandle) -> Any:
    """Wait for the end of a run of one event.

    Raises:
        BaseException: Its error, or what broke the wait: then what was not sent is dropped.
    """
    try:
        while True:
            turns = engine.turns
            if run.is_finished:
                break
            engine.wait_turn(turns)
    except BaseException as error:
        _given_up(engine, run, error)
        raise
    if run.error is not None:
        raise run.error
    gathered: Any = run.sink
    return gathered.value()


def _given_up(engine: Engine, run: RunHandle, error: BaseException) -> None:
    """Drop what a call has in flight that ended by an error."""
    if isinstance(error, KeyboardInterrupt):
        engine.interrupt(error)
    else:
        engine.close_run(run, drop=True)


def _finish(engine: Engine) -> None:
    """End an engine whose pool is gone, or at the end of the program.

    What was submitted is finished, but not after Ctrl-C has ended the program.
    """
    try:
        is_interactive = hasattr(sys, "ps1")  # there it may have been long ago
        if is_interactive or getattr(sys, "last_type", None) is not KeyboardInterrupt:
            engine.finish_submitted()
    finally:
        engine.stop(most_seconds=0.0)


def _stop(engine: Engine | None, *, most_seconds: float = inf) -> None:
    # Never with a pool's lock held: this waits for the driver, and the driver may be
    # in a callback that wants the lock, for a `submit`.
    if engine is not None:
        engine.stop(most_seconds=most_seconds)


@contextlib.contextmanager
def _stopped_after(seconds: float, engine: Engine) -> Iterator[None]:
    """If the block takes longer than that, end the engine."""
    if seconds > threading.TIMEOUT_MAX:
        yield
        return
    # a thread, since whoever drains may be in code of the user's: a filter, a callback
    timer = threading.Timer(seconds, engine.stop, kwargs={"most_seconds": 0.0})
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
