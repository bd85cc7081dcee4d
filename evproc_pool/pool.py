"""`PoolProcessor`: what an application uses.

It checks arguments and hands each call on. `calls` has the calls for a pool with workers,
`inprocess` those for a pool without.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar, overload

from evproc import Event
from evproc_pool import options
from evproc_pool.calls import worker_calls
from evproc_pool.calls.async_calls import AsyncCalls
from evproc_pool.calls.engines import EngineOwner
from evproc_pool.calls.handler_calls import HandlerCalls
from evproc_pool.calls.handlers import PoolHandlers
from evproc_pool.calls.worker_calls import await_value, await_within
from evproc_pool.core.root_events import Key, plan_root
from evproc_pool.errors import PoolError
from evproc_pool.inprocess.calls import InProcessCalls
from evproc_pool.options import BUFFER_PER_WORKER, Errors, Ordering, PoolOptions, WorkerPrints

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future
    from multiprocessing.context import BaseContext

    from evproc.annotations import Unmatched
    from evproc_pool.coordinator.engine import Engine
    from evproc_pool.observe import Listener
    from evproc_pool.observe.statistics import Statistics
    from evproc_pool.options import Progress
    from evproc_pool.outcome import Outcome

__all__ = ["BUFFER_PER_WORKER", "Errors", "Key", "Ordering", "PoolProcessor"]

E = TypeVar("E", bound=Event)


class PoolProcessor(HandlerCalls, AsyncCalls):
    """A `Processor` whose handlers run in worker processes.

    Handlers are registered as with `evproc.Processor`, and events give the same values and the
    same errors. Root events run in parallel. The events of one cascade run one after another,
    in the order of `Processor.process`.

    Workers start when there are events for them, no more than can work at once, and stay.
    `close` (or the end of a `with` or `async with` block) ends them. So does the garbage
    collector, and the end of the program, once what was submitted is finished. An error in the
    block finishes what runs, and drops what was not begun. Ctrl-C while a call waits drops what
    is in flight and kills its workers; calls of other threads end with `PoolInterruptedError`,
    and the next call works. Several threads and event loops may use a pool at once; a process
    that `os.fork` made from this one may not.

    Events and handlers may be those of the main script, a notebook or an interactive session.
    If you redefine a handler there, or a class, a function or a variable that handlers use, the
    next call uses the new one, once nothing is in flight; the workers restart. This holds for
    handlers that `def` makes at the top level (no lambda, partial or method), also with
    `workers=0`. The new handler takes the place of the old one, with its own declarations; an
    INFO line of the logger `evproc_pool` says so. A new definition that cannot be a handler is an
    error. If the name stands for something else now, the handler stays, with a warning. In-place
    changes, of a list or of a class for example, are not detected. In IPython, the next cell
    detects those of classes and functions.

    Events, follow-ups and values cross between processes by pickle. A handler works on a copy;
    two root events that share an object in this process do not share it in a worker.

    Args:
        workers: *Workers and their start.* The most worker processes. None: as many as the CPUs
            that this process may use (affinity and cgroup quota), or `PYTHON_CPU_COUNT`. 0: none;
            all runs in this process, through `evproc.Processor`. In a daemonic process of
            `multiprocessing`, which must not start others, it is always 0.
        executor: What has the workers, in place of processes that the pool starts: a
            `concurrent.futures.Executor`, or a callable without arguments that makes one, and
            another one when it breaks. `workers` says how many calls it runs at once; by default
            as many as the executor says, or the CPUs. Batches of events are its calls. It cannot
            keep all that the pool promises with processes of its own; options for what it cannot
            keep are refused. Warnings of its processes stay there. The pool ends executors that the
            callable made, and no other. Or a `Client` of Dask, or the address of its scheduler
            (``tcp://host:port``): worker processes on each node, `workers` in all, by default as
            many as threads there. They keep what processes of this machine keep. Or ``"ray"``, for
            the Ray cluster of `ray.init`, or ``"ray:"`` and its address: likewise, by its CPUs.
        mp_context: A `multiprocessing` context or the name of a start method. By default
            `forkserver` on Linux and `spawn` elsewhere.
        initializer: Called in each worker before entry points are loaded (with `workers=0`,
            once in this process, before the first event). The modules of registered functions,
            and its own, are imported before that.
        initargs: Its arguments; queues, locks and values of `multiprocessing` may be among them.
        finalizer: Called without arguments in each worker that is asked to end: by `close`, for
            its replacement, or at the end of the program; then functions of `atexit` are called.
            Not if the worker is killed. With `workers=0` once, at the end of the pool. An error
            is printed.
        ordering: *Order and keys.* `"cascade"`: as described above. `"unordered"`: a follow-up
            is independent from the moment it is returned, for fan-out. A value given to
            `StopProcessing`, and an error, still end the cascade: what was not sent is dropped.
        key: Called with each root event. Roots with equal keys run one after another, in the
            order in which any call or thread handed them in. A failed one does not stop the
            next. If `key` raises for an event, it may be called again for others.
        errors: *Cascades.* `"end"`: the first event that fails ends its cascade, as in
            `Processor`. `"continue"`: it ends only itself and its own follow-ups, and what it
            returned and emitted is dropped; the rest of the cascade goes on. The error of the
            cascade is the first in the order of `Processor.process`. A value given to
            `StopProcessing` ends the cascade in either case.
        max_cascade_depth: The greatest depth of an event; the root's is 0, its follow-ups' is 1.
            An event of that depth whose handlers return follow-ups fails with
            `CascadeLimitError`: its handlers have run, its follow-ups are dropped, and it is
            not run again.
        max_cascade_events: The most events of a cascade: the root and all follow-ups, counted
            when they are returned, without those of failed events. The event whose follow-ups
            would exceed it fails likewise.
        event_timeout: *Limits.* After so many seconds in one event (all of its handlers) its
            worker is killed, with the processes that it started. The event fails with
            `EventTimeoutError`, the others go on. It counts while a thread waits for results.
            If follow-ups of several events hang in pickling together, finding the event may
            take some twenty times as long. Not with `workers=0`, and not on Windows. With
            `executor` it takes up to twice as long; an executor that was given breaks the pool
            then, and a callable makes another one.
        event_soft_timeout: After so many seconds in one event (all of its handlers)
            `SoftTimeoutError` is raised in the handler that is running, once for each attempt.
            The handler may clean up and let it pass: then the event fails with that error, and
            the worker stays. Or it may catch it and go on, or return what it has. Like a
            `KeyboardInterrupt` it may come between any two instructions. It ends sleeping and
            most waiting, but no call into native code, and is lost in a `__del__` or a callback
            whose errors Python ignores: there `event_timeout`, which must be longer, helps. In
            workers it takes the signal `SIGRTMIN + 11` (on macOS `SIGINFO`). It counts as
            `event_timeout` does, and not with `workers=0` or on Windows either.
        max_tasks_per_child: A worker is replaced after so many events. Not with `workers=0`.
        max_worker_memory_bytes: With so much resident memory a worker is replaced between two
            events. A worker that reaches half as much again within one event is killed, and the
            event fails with `WorkerLostError`. Memory that it shares with this process for large
            data counts, up to 64 MiB. Not with `workers=0`.
        max_retries: *Failures and retries.* How often an event is run again that failed with one
            of `retry_exceptions`: all of its handlers, with the event as it was sent. With
            `workers=0` the event is pickled and rebuilt; if that fails, it is as the failed
            attempt left it. Follow-ups of the failed attempt are dropped; its other effects
            stay. Events behind it in its cascade, or with its key, wait.
        retry_exceptions: An exception class or several, for what a handler raised and for
            `EventTimeoutError`. Other errors of the pool, and errors of filters, do not count.
        retry_backoff: Seconds before the first retry of an event; each further pause is twice as
            long. A random part of up to one half is taken off, so that events that failed
            together do not come back together.
        retry_backoff_max: The longest of these pauses, in seconds.
        crash_limit: How many workers may die while they run one event. 1: an event that
            may have had effects is not run again. More: it is run again, alone in a worker.
        preload: *Workers and their start.* Modules that a `forkserver` imports once for all
            workers, so that a new worker is ready in milliseconds. None: NumPy and SciPy, if
            this program has imported them. True: the handlers' modules. False: nothing. What
            such an import makes is the same in every worker, or is missing there: connections,
            locks, threads, random generators and their seeds, `sys.argv`. Once a source has
            changed, workers are spawned instead. A program has one forkserver; it imports what
            the first pool asks for. Nothing with an `initializer`, which entry points may need.
        native_threads: The most threads of OpenBLAS, MKL and OpenMP in a worker; 0: no limit.
            None: CPUs / `workers`, unless a variable such as `OMP_NUM_THREADS` is set.
        worker_logging: *Output of workers.* Log records of workers, and warnings, go to the
            logging and the `warnings.showwarning` of this process, before the outcome of their
            event is there. Each record has the attributes `evproc_handler` and `evproc_event`
            where these are known. Workers get the levels of the loggers when they start. Handlers
            and filters of `logging` must not wait for the pool. A handler that the `initializer`
            adds to a logger stays; those that modules add when they are imported do not. False:
            workers keep the logging that they set up themselves. Not with `workers=0`.
        worker_output: `"label"`: lines that handlers print begin with the worker's pid and the
            handler; not those of processes that handlers start. None: they are left alone.
        unmatched: *Registry.* For an event that no handler wants; see `evproc.Processor`.
        listeners: *What can be seen.* Callables that get each notification of the pool; see
            `evproc_pool.observe`. They are called one at a time, mostly by the thread that waits
            for the workers. One that raises is logged and left out. One that refers to the pool
            keeps it alive until `close`.
        statistics: Whether `statistics` has more than what happens at the moment.

    Raises:
        TypeError: An argument of the wrong type.
        ValueError: An invalid number or name.
    """

    def __init__(
        self,
        workers: int | None = None,
        *,
        executor: Executor | Callable[[], Executor] | str | Any = None,
        mp_context: BaseContext | str | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        finalizer: Callable[[], object] | None = None,
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
        native_threads: int | None = None,
        worker_logging: bool = True,
        worker_output: WorkerPrints | None = None,
        unmatched: Unmatched = "ignore",
        listeners: Iterable[Listener] = (),
        statistics: bool = False,
    ) -> None:
        limits = options.worker_limits(
            event_timeout, event_soft_timeout, max_tasks_per_child, max_worker_memory_bytes
        )
        start = options.start_options(
            workers,
            mp_context,
            initializer,
            initargs,
            preload,
            finalizer,
            native_threads,
            worker_logging,
            worker_output,
            executor,
            limits,
        )
        chosen = self._options = PoolOptions(
            start,
            options.default_call(
                start.workers, ordering, key, errors, max_cascade_depth, max_cascade_events
            ),
            limits,
            options.retry_policy(
                max_retries, retry_exceptions, retry_backoff, retry_backoff_max, crash_limit
            ),
            unmatched,
            options.observers(listeners, statistics=statistics),
        )
        self._handlers = PoolHandlers(unmatched)
        processor = self._handlers.processor
        self._in_process = InProcessCalls(processor, chosen)
        self._owner = EngineOwner(chosen, self._handlers, self._in_process)
        # what `process` and `submit` read for each event
        self._size, self._registry = start.workers, processor.registry
        call = self._call = chosen.call
        self._unordered, self._key, self._ending = call.unordered, call.key, call.ending
        self._running_engine = self._owner.running

    def __repr__(self) -> str:
        state = self._owner.state
        return f"<PoolProcessor workers={self._size} handlers={len(self.nodes)} {state}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a PoolProcessor stays in its process: make one in the other process, or hand over"
            " what it gives"
        )

    @property
    def workers(self) -> int:
        """The most worker processes."""
        return self._size

    @property
    def _engine(self) -> Engine | None:
        """The engine, if one is running; for `testing` and tests."""
        return self._owner.engine

    # --- events ---

    def process(
        self, ev: Event, *, timeout: float | None = None, cancel_running: bool = False
    ) -> Any:
        """Process an event and its follow-ups in the workers; see `Processor.process`.

        Args:
            ev: The event.
            timeout: After so many seconds the call ends with `TimeoutError`, which says what is
                still running. The rest of the cascade is cancelled. None: never. With
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
            Exception: What `Processor.process` would raise; its cause is the worker's traceback.
        """
        if timeout is not None and self._size:
            seconds = options.seconds("timeout", timeout)
            options.check_cancel(self._options.start, cancel_running=cancel_running)
            return await_within(self.submit(ev), seconds, cancel_running=cancel_running)
        if self._size == 0 or self._key is not None:
            return self.process_many([ev])[0]
        # Here and not in `calls`, as in `submit`: one call less for each event.
        while True:
            engine = self._running_engine()
            plan = plan_root(self._registry, ev)
            if not plan.indices:
                engine.pass_over()
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
                return run.value if isinstance(run, tuple) else await_value(engine, run)

    def process_many(
        self,
        events: Iterable[Event],
        return_exceptions: bool = False,
        *,
        ordering: Ordering | None = None,
        key: Key | None = None,
        errors: Errors | None = None,
        progress: Progress = False,
    ) -> list[Any]:
        """Process events, in parallel, each with its follow-ups.

        Args:
            events: Read as far ahead as the workers need, in the calling thread.
            return_exceptions: Put errors into the list, in their places.
            ordering: Instead of the pool's.
            key: Instead of the pool's. It holds within this call only.
            errors: Instead of the pool's.
            progress: Whether to show on standard error how far the call is: a bar in a terminal
                or a notebook, otherwise a line every ten seconds (extra `progress`). Or a callable,
                which gets `evproc_pool.observe.ProgressCounts` as they change, ten times a second
                at most, in the threads that wait for the workers, and once more at the end.

        Returns:
            The value of each event, in the order of the events.

        Raises:
            Exception: See `process`. Without `return_exceptions` the error of the first event,
                by input order, that fails: a loop over `Processor.process` would end with the
                same one. Events before it were processed to the end; events behind it only if
                they were in flight. Also whatever reading `events` raised, once what was read
                has been processed.
        """
        self._owner.begin_call()
        shown = options.call_progress(progress, events)
        call = options.call_options(self._call, ordering, key, errors)._replace(progress=shown)
        iterator = options.events(events)
        if self._size == 0:
            return self._in_process.process_many(
                iterator, call, return_exceptions=return_exceptions
            )
        return worker_calls.process_many(
            self._owner, iterator, call, return_exceptions=return_exceptions
        )

    @overload
    def stream(
        self,
        events: Iterable[E],
        *,
        ordered: bool = True,
        buffersize: int | None = None,
        return_events: bool = False,
        every_event: Literal[False] = False,
        prompt: bool = True,
        ordering: Ordering | None = None,
        key: Key | None = None,
        errors: Errors | None = None,
        progress: Progress = False,
    ) -> Generator[Outcome[E], None, None]: ...

    @overload
    def stream(
        self,
        events: Iterable[Event],
        *,
        ordered: bool = True,
        buffersize: int | None = None,
        return_events: bool = False,
        every_event: bool,
        prompt: bool = True,
        ordering: Ordering | None = None,
        key: Key | None = None,
        errors: Errors | None = None,
        progress: Progress = False,
    ) -> Generator[Outcome, None, None]: ...

    def stream(
        self,
        events: Iterable[Event],
        *,
        ordered: bool = True,
        buffersize: int | None = None,
        return_events: bool = False,
        every_event: bool = False,
        prompt: bool = True,
        ordering: Ordering | None = None,
        key: Key | None = None,
        errors: Errors | None = None,
        progress: Progress = False,
    ) -> Generator[Outcome[Any], None, None]:
        """Process events lazily, and yield an outcome for each.

        A failed event is an outcome with an `error`, and does not end the stream. Closing the
        generator drops what was not sent to a worker. The rest ends in the background of the
        next call, and the pool stays usable.

        Args:
            events: Any iterable, also an endless one; read in the thread that iterates. If
                events come slowly, each is sent at once, and its outcome is yielded when the
                next event comes.
            ordered: Yield in input order; otherwise as they finish.
            buffersize: The most events that are read and not yet yielded as outcomes. By
                default 4,096 for each worker.
            return_events: Bring each root event back as the handlers left it; with
                `every_event` also each follow-up.
            every_event: Yield an outcome for each handled event, follow-ups and events that no
                handler wants included. Those of a cascade come in the order of
                `Processor.process`; the root's own comes last, and is the cascade's. Events that
                were dropped, because the cascade ended before, have none.
            prompt: Yield each outcome soon. If False, nobody waits for single ones: workers get
                batches as large as those of `process_many`.
            ordering: Instead of the pool's.
            key: Instead of the pool's. It holds within this call only.
            errors: Instead of the pool's.
            progress: See `process_many`. It lasts until the generator ends or is closed.

        Raises:
            PoolError: The pool is closed, broken or forked.
            TypeError: An argument of the wrong type.
            ValueError: `buffersize` is not positive.
            Exception: Whatever reading `events` raised, after the outcomes of all that was read.
        """
        self._owner.begin_call()
        shown = options.call_progress(progress, events)
        call = options.call_options(
            self._call, ordering, key, errors, buffersize, ordered, return_events, every_event
        )._replace(progress=shown, prompt=options.flag("prompt", prompt))
        iterator = options.events(events)
        if self._size == 0:
            return self._in_process.stream(iterator, call, self._owner.check_usable)
        return worker_calls.stream(self._owner, iterator, call)

    def submit(self, ev: Event) -> Future[Any]:
        """Process an event in the background.

        Returns:
            A future of the value, which fails with whatever `process` would raise. Its `cancel`
            returns True only if the event never runs. It may take some milliseconds: an event
            that waits in a worker behind a slow one is taken back; one that is about to begin is
            not. The future keeps the pool: the event is processed also if nothing refers to the
            pool any more, or the program comes to its end, but not after `terminate` or Ctrl-C.
            Ctrl-C while its `result` waits drops everything that is in flight.

        Raises:
            PoolBrokenError: No worker can be started.
            PoolClosedError: The pool is closed.
        """
        if self._size == 0:
            self._owner.begin_call()
            return self._in_process.submit(ev, self._call)
        while True:
            engine = self._running_engine()
            futures = self._owner.futures
            if futures is None or futures.engine is not engine:
                futures = self._owner.make_futures(engine)
            # without the lock: filters and `key` are the user's code
            future = None if futures is None else futures.submit(ev, self)
            if future is not None:
                return future

    def statistics(self) -> Statistics:
        """Return the pool's numbers: events, handlers, workers; `print` shows them as a table.

        Any thread may ask at any time, also a listener. What happens at the moment is always in
        it; for the rest see `Statistics` and the pool's option `statistics`.
        """
        return self._owner.statistics()
