"""`PoolProcessor`: what an application uses. The rest is in `engine` and below."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from math import inf
from multiprocessing import util
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn

from evproc import Event, Processor
from evproc_pool import arguments
from evproc_pool.errors import PoolBusyError, PoolClosedError, PoolForkedError
from evproc_pool.estimates import MOST_EVENTS
from evproc_pool.here import Here
from evproc_pool.limits import Limits
from evproc_pool.recipe import (
    Change,
    LoadFrom,
    Recipe,
    Register,
    Step,
    cannot_send,
    fingerprint,
    registered,
    take_stock,
    unregistered,
)
from evproc_pool.retries import RetryPolicy
from evproc_pool.roots import Key, plan_root

if TYPE_CHECKING:
    import random
    from concurrent.futures import Future
    from multiprocessing.context import BaseContext
    from types import TracebackType

    from evproc.annotations import HandlerFunc, OnError, Unmatched
    from evproc.registry import Handler
    from evproc.report import CheckReport, Explanation
    from evproc_pool.backend import Backend
    from evproc_pool.classes import Anatomy
    from evproc_pool.engine import Engine
    from evproc_pool.futures import Futures
    from evproc_pool.outcome import Outcome
    from evproc_pool.runs import Feeder
    from evproc_pool.sink import Run, Sink
    from evproc_pool.streamed import Streamed

# The engine and the workers' side are imported with the first event: an application that
# imports this package may never come to that, and starts in half the time.

#: What is independent within a cascade; see `PoolProcessor`.
Ordering = Literal["cascade", "unordered"]

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
    stay. `close` (or the end of a `with`
    block) ends them; so does the garbage collector, and the end of the program.
    Usable from several threads at once. Not usable in a process that `os.fork`
    made from this one.

    Events and handlers may be those of the main script, a notebook or an interactive
    session. Where a class, a function or a variable that such handlers use is defined anew,
    the workers are replaced at the next call, once nothing is in flight. That something has
    changed in place, an item of a list or an attribute of a class for one, is not seen.

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
            after another, in the order in which they were handed in. A failed one
            does not stop the next.
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
        self._size = arguments.worker_count(workers)
        self._context = arguments.context(mp_context)
        arguments.check_callable("initializer", initializer)
        arguments.check_callable("key", key)
        self._unordered = arguments.is_unordered(ordering)
        self._key = key
        self._limits = Limits(
            arguments.seconds_or_none("event_timeout", event_timeout),
            arguments.count_or_none("max_tasks_per_child", max_tasks_per_child),
            arguments.count_or_none("max_worker_memory_bytes", max_worker_memory_bytes),
            arguments.seconds_or_none("event_soft_timeout", event_soft_timeout),
        )
        arguments.check_soft(self._limits.event_soft_timeout, self._limits.event_timeout)
        self._policy = RetryPolicy(
            arguments.count("max_retries", max_retries, least=0),
            arguments.exceptions("retry_exceptions", retry_exceptions),
            arguments.count("crash_limit", crash_limit),
            arguments.seconds("retry_backoff", retry_backoff),
            arguments.seconds("retry_backoff_max", retry_backoff_max),
        )
        self._preload = arguments.flag_or_none("preload", preload)
        self._initializer = initializer
        self._initargs = arguments.initargs(initargs)
        self._unmatched = unmatched
        self._processor = Processor(unmatched=unmatched)
        self._here = Here(self._processor, self._policy, self._initializer, self._initargs)
        self._leaving: Callable[[], Engine | None] = lambda: None  # the last one, while it ends
        self._steps: list[Step] = []
        self._changes: list[Change] = []  # see `testing`, as for the next two
        self._clock: Callable[[], float] = time.monotonic
        self._rng: random.Random | None = None
        self._lock = threading.RLock()  # guards what follows
        self._engine: Engine | None = None
        self._shipped: Anatomy | None = None  # what its workers have of the main script
        self._futures: Futures | None = None
        self._finalizer: util.Finalize | None = None
        self._closed = False
        self._pid = os.getpid()

    def __repr__(self) -> str:
        state = "idle" if self._engine is None else "running"
        if self._closed or (self._engine is not None and self._engine.closed is not None):
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

    def process(self, ev: Event) -> Any:
        """Process an event and its follow-ups in the workers; see `Processor.process`.

        Raises:
            WorkerLostError: A worker died while it ran an event of the cascade.
            EventTimeoutError: An event of the cascade took longer than `event_timeout`.
            SoftTimeoutError: Likewise `event_soft_timeout`, and its handler let it pass.
            SerializationError: Something cannot be pickled or rebuilt.
            RemoteError: In place of a handler's exception that cannot.
            PoolBrokenError: No worker can be started.
            PoolClosedError: The pool is closed.
            Exception: What `Processor.process` would raise, with the worker's
                traceback as its cause.
        """
        if self._size == 0 or self._key is not None:
            return self.process_many([ev])[0]
        engine = self._running_engine()
        plan = plan_root(self._processor.registry, ev)
        if not plan.indices:
            return None
        while True:
            try:
                run = engine.call(ev, plan, unordered=self._unordered)
            except PoolClosedError:
                if not engine.is_retired:
                    raise
                engine = self._running_engine()
            else:
                return run.value if isinstance(run, tuple) else _await_value(engine, run)

    def process_many(
        self,
        events: Iterable[Event],
        return_exceptions: bool = False,
        *,
        ordering: Ordering | None = None,
        key: Key | None = None,
    ) -> list[Any]:
        """Process events, in parallel, each with its follow-ups.

        Args:
            events: Read as far ahead as the workers need, in the calling thread.
            return_exceptions: Put what failed into the list, in its place.
            ordering: Instead of the pool's.
            key: Instead of the pool's.

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
        unordered, key = self._choose(ordering, key)
        iterator = arguments.events(events)
        if self._size == 0:
            return self._here.process_many(iterator, key, return_exceptions=return_exceptions)
        from evproc_pool.runs import Feeder, Gathered

        gathered = Gathered()
        engine, run = self._open(
            gathered, until_error=not return_exceptions, unordered=unordered, is_bulk=True
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
        except BaseException:
            engine.close_run(run, drop=True)
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
        ordering: Ordering | None = None,
        key: Key | None = None,
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
            return_events: Bring each root event back as the handlers left it.
            ordering: Instead of the pool's.
            key: Instead of the pool's.

        Yields:
            An `Outcome` for each event.

        Raises:
            PoolError: The pool is closed, broken or forked.
            TypeError: An argument of the wrong type.
            ValueError: `buffersize` is not positive.
            Exception: Whatever reading `events` raised, after the outcomes of all that
                was read.
        """
        unordered, key = self._choose(ordering, key)
        if buffersize is None:
            buffersize = BUFFER_PER_WORKER * max(1, self._size)
        if isinstance(buffersize, bool) or not isinstance(buffersize, int):
            raise TypeError(f"buffersize is a number of events or None, not {buffersize!r}")
        if buffersize < 1:
            raise ValueError(f"buffersize must be positive, and is {buffersize}")
        iterator = arguments.events(events)
        if self._size == 0:
            usable = self._check_usable
            return self._here.stream(iterator, key, usable, return_events=return_events)
        from evproc_pool.runs import Feeder
        from evproc_pool.streamed import Streamed

        streamed = Streamed(ordered=ordered, return_events=return_events)

        def open_run() -> tuple[Engine, Feeder]:
            engine, run = self._open(streamed, unordered=unordered, return_events=return_events)
            registry = self._processor.registry
            return engine, Feeder(
                engine, run, streamed, iterator, registry=registry, key=key, clock=self._clock
            )

        return self._stream(streamed, buffersize, open_run)

    def _stream(
        self, streamed: Streamed, buffersize: int, open_run: Callable[[], tuple[Engine, Feeder]]
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
        finally:
            engine.close_run(run, drop=True)
        if run.error is not None:
            raise run.error
        if feeder.error is not None:
            raise feeder.error

    def _choose(self, ordering: Ordering | None, key: Key | None) -> tuple[bool, Key | None]:
        """What a call says about order, or else the pool."""
        with self._lock:
            self._check_usable()
        arguments.check_callable("key", key)
        unordered = self._unordered if ordering is None else arguments.is_unordered(ordering)
        return unordered, self._key if key is None else key

    def submit(self, ev: Event) -> Future[Any]:
        """Process an event in the background.

        Returns:
            A future of the value. It can be cancelled until the event is sent to a
            worker, and is failed by whatever `process` would raise. It does not keep the
            pool: where nothing else does, work in flight ends with `PoolClosedError`.

        Raises:
            PoolBrokenError: No worker can be started.
            PoolClosedError: The pool is closed.
        """
        if self._size == 0:
            with self._lock:
                self._check_usable()
            return self._here.submit(ev, self._key)
        while True:
            engine = self._running_engine()
            with self._lock:
                if self._engine is not engine:
                    continue  # another one has taken its place
                futures = self._futures
                if futures is None:
                    from evproc_pool.futures import Futures

                    registry = self._processor.registry
                    futures = Futures(engine, registry, self._key, unordered=self._unordered)
                    self._futures = futures
            # without the lock: filters and `key` are the user's code
            future = futures.submit(ev)
            if future is not None:
                return future

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
        seconds = inf if timeout is None else arguments.seconds("timeout", timeout)
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
        if kind is None:
            self.close()
        else:
            self.terminate()

    # --- the engine ---

    def _check_usable(self) -> None:
        if os.getpid() != self._pid and self._engine is None:
            self._pid = os.getpid()  # nothing was started by the other process
            self._here.adopt()
        if os.getpid() != self._pid:
            raise PoolForkedError(
                f"this PoolProcessor belongs to process {self._pid}, and this is process"
                f" {os.getpid()}, forked from it: make a PoolProcessor of its own here"
            )
        if self._closed:
            raise PoolClosedError("the pool is closed: make a new PoolProcessor")
        if self._engine is not None and self._engine.closed is not None:
            raise self._engine.closed

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
        futures, runs = 0, self._here.open_calls
        if self._engine is not None:
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
            and (self._shipped is None or self._shipped.is_up_to_date)
        ):
            return engine
        with contextlib.ExitStack() as when_done, self._lock:
            self._check_usable()
            if self._engine is not None and self._is_outdated and self._retire(self._engine):
                # without the lock, see there
                when_done.callback(_stop, self._detach_engine())
            if self._engine is None:
                self._begin_start()
                self._shipped = take_stock([*self._functions(), self._initializer])
                from evproc_pool import pickling
                from evproc_pool.coordinator import Coordinator
                from evproc_pool.engine import Engine
                from evproc_pool.runs import Gathered

                recipe = Recipe(
                    self._initializer,
                    self._initargs,
                    tuple(self._steps),
                    tuple(self._changes),
                    self._unmatched,
                )
                try:
                    config = pickling.dumps((recipe, self._limits))
                except Exception as error:
                    raise cannot_send(recipe, error) from error
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
                    self, engine.stop, kwargs={"most_seconds": 0.0}, exitpriority=_EXIT_PRIORITY
                )
                self._engine = engine
            return self._engine

    def _open(self, sink: Sink, **options: bool) -> tuple[Engine, Run]:
        """Begin a run; see `Engine.open`."""
        while True:
            engine = self._running_engine()
            try:
                return engine, engine.open(sink, **options)
            except PoolClosedError:
                if not engine.is_retired:
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
        """Whether handlers of the main script use something that has been defined anew."""
        return self._shipped is not None and not self._shipped.is_up_to_date

    def _begin_start(self) -> None:
        """Begin with what takes long and can be done while more is imported here."""
        from evproc_pool.starting import begin

        begin(self._context, self._modules_to_preload())

    def _make_backend(self) -> Backend:
        from evproc_pool.local import LocalBackend

        return LocalBackend(self._context, self._modules_to_preload())

    def _modules_to_preload(self) -> list[str]:
        from evproc_pool.preloading import chosen

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


def _await_value(engine: Engine, run: Run) -> Any:
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
    except BaseException:
        engine.close_run(run, drop=True)
        raise
    if run.error is not None:
        raise run.error
    gathered: Any = run.sink
    return gathered.value()


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
