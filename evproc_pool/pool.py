"""`PoolProcessor`: what an application uses. The rest is in `engine` and below."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from multiprocessing import get_context, util
from multiprocessing.context import BaseContext
from types import TracebackType
from typing import Any, Final, Literal

from evproc import Event, Processor
from evproc.decorator import HandlerFunc
from evproc.entrypoints import OnError
from evproc.processor import check_event
from evproc.registry import Handler, Plan, Registry
from evproc.report import CheckReport, Explanation
from evproc_pool import wire
from evproc_pool.engine import Engine, Run
from evproc_pool.errors import PoolBusyError, PoolClosedError, PoolError, PoolForkedError
from evproc_pool.local import LocalBackend, default_context, usable_cpus
from evproc_pool.recipe import LoadFrom, Recipe, Register, fingerprint
from evproc_pool.scheduler import Ending

# Before the standard library joins processes that are still there at exit, for
# which it would wait for ever (multiprocessing.util runs higher numbers first).
_EXIT_PRIORITY: Final = 100


class PoolProcessor:
    """A `Processor` whose handlers run in worker processes.

    Handlers are registered as with `evproc.Processor`, and events give the same
    values and the same errors. Root events run in parallel; the events of one
    cascade run one after another, in the order of `Processor.process`.

    Workers start with the first events and stay. `close` (or the end of a `with`
    block) ends them; so does the garbage collector, and the end of the program.
    Usable from several threads at once. Not usable in a process that `os.fork`
    made from this one.

    Events, follow-ups and values cross between processes by pickle: a handler
    works on a copy, and what two root events share in this process they do not
    share there.

    Args:
        workers: How many processes. None: as many as the CPUs that this process may
            use (affinity and cgroup quota). 0: none; all runs in this process,
            through `evproc.Processor`.
        mp_context: A `multiprocessing` context or the name of a start method. By
            default `forkserver` on Linux and `spawn` elsewhere.
        initializer: Called in each worker before the handlers are loaded (with
            `workers=0`, once in this process, before the first event).
        initargs: Its arguments.
        ordering: `"cascade"`: as described above.

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
        ordering: Literal["cascade"] = "cascade",
    ) -> None:
        self._size = _worker_count(workers)
        self._context = _context(mp_context)
        if initializer is not None and not callable(initializer):
            raise TypeError(f"initializer is a callable or None, not {initializer!r}")
        if ordering != "cascade":
            raise ValueError(f"ordering is 'cascade', not {ordering!r}")
        self._initializer = initializer
        self._initargs = tuple(initargs)
        self._processor = Processor()
        self._steps: list[Register | LoadFrom] = []
        self._lock = threading.RLock()  # guards what follows
        self._engine: Engine | None = None
        self._futures: _Futures | None = None
        self._finalizer: util.Finalize | None = None
        self._closed = False
        self._is_initialized = False
        self._pid = os.getpid()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "idle" if self._engine is None else "running"
        return f"<PoolProcessor workers={self._size} handlers={len(self.nodes)} {state}>"

    # --- the registry ---

    @property
    def workers(self) -> int:
        """How many worker processes there are when all have started."""
        return self._size

    @property
    def nodes(self) -> Mapping[str, Handler]:
        """The registered handlers by name, in registration order; read-only."""
        return self._processor.nodes

    def register(self, proc: HandlerFunc, name: str | None = None) -> None:
        """Add a handler; see `Processor.register`. Running workers are replaced.

        Raises:
            PoolBusyError: Events are in flight. Nothing has changed.
            PoolClosedError: The pool is closed.
        """
        with self._lock:
            self._check_idle("register")
            self._processor.register(proc, name)
            self._steps.append(Register(proc, name))
            engine = self._detach_engine()
        _stop(engine, kill=False)

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
        _stop(engine, kill=False)
        return names

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
            SerializationError: Something cannot be pickled or rebuilt.
            RemoteError: In place of a handler's exception that cannot.
            PoolBrokenError: No worker can be started.
            PoolClosedError: The pool is closed.
            Exception: What `Processor.process` would raise, with the worker's
                traceback as its cause.
        """
        return self.process_many([ev])[0]

    def process_many(
        self, events: Iterable[Event], *, return_exceptions: bool = False
    ) -> list[Any]:
        """Process events, in parallel, each with its follow-ups.

        Args:
            events: Read as far ahead as the workers need, in the calling thread.
            return_exceptions: Put what failed into the list, in its place.

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
        with self._lock:
            self._check_usable()
        if self._size == 0:
            return list(self._serially(events, return_exceptions=return_exceptions))
        gathered = _Gathered()
        engine = self._running_engine()
        run = engine.open(gathered, until_error=not return_exceptions)
        feeder = _Feeder(engine, run, iter(events), self._processor.registry, gathered)
        try:
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

    def submit(self, ev: Event) -> Future[Any]:
        """Process an event in the background.

        Returns:
            A future of the value. It can be cancelled until the event is sent to a
            worker, and is failed by whatever `process` would raise.

        Raises:
            PoolBrokenError: No worker can be started.
            PoolClosedError: The pool is closed.
        """
        with self._lock:
            self._check_usable()
        if self._size == 0:
            return self._submit_here(ev)
        with self._lock:
            engine = self._running_engine()
            if self._futures is None:
                self._futures = _Futures(engine)
            return self._futures.submit(ev, self._processor.registry)

    def _serially(self, events: Iterable[Event], *, return_exceptions: bool) -> Iterator[Any]:
        self._initialize_here()
        for ev in events:
            try:
                value = self._processor.process(ev)
            except Exception as error:
                if not return_exceptions:
                    raise
                value = error
            yield value

    def _submit_here(self, ev: Event) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        try:
            self._initialize_here()
            value = self._processor.process(ev)
        except Exception as error:
            future.set_exception(error)
        else:
            future.set_result(value)
        return future

    def _initialize_here(self) -> None:
        with self._lock:
            if not self._is_initialized and self._initializer is not None:
                self._initializer(*self._initargs)
            self._is_initialized = True

    # --- the end ---

    def close(self) -> None:
        """Finish what was submitted, then end the workers. Idempotent."""
        if os.getpid() != self._pid:
            return  # the workers are the parent's
        with self._lock:
            self._closed = True
            futures = self._futures
        if futures is not None:
            futures.drain()
        with self._lock:
            engine = self._detach_engine()
        _stop(engine, kill=False)

    def terminate(self) -> None:
        """Kill the workers. What is in flight fails with `PoolClosedError`. Idempotent."""
        if os.getpid() != self._pid:
            return
        with self._lock:
            self._closed = True
            engine = self._detach_engine()
        _stop(engine, kill=True)

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
        if self._engine is None:
            return
        futures = self._futures.outstanding if self._futures is not None else 0
        runs = self._engine.open_runs - (self._futures is not None)
        if futures or runs:
            raise PoolBusyError(
                f"{what}() needs an idle pool, because the workers are replaced: {runs} calls of"
                f" process_many and {futures} futures are in flight"
            )

    def _running_engine(self) -> Engine:
        with self._lock:
            self._check_usable()
            if self._engine is None:
                recipe = Recipe(self._initializer, self._initargs, tuple(self._steps))
                try:
                    config = wire.dumps(recipe)
                except Exception as error:
                    raise wire.cannot_pickle(
                        "a handler or the initializer", recipe, error
                    ) from error
                registry = self._processor.registry
                backend = LocalBackend(self._context)
                engine = Engine(self._size, backend, registry, config, fingerprint(registry))
                # by the engine, not by self: the finalizer must not keep the pool alive
                self._finalizer = util.Finalize(
                    self, engine.stop, kwargs={"kill": True}, exitpriority=_EXIT_PRIORITY
                )
                self._engine = engine
            return self._engine

    def _detach_engine(self) -> Engine | None:
        """Take the engine away, for the caller to stop when it has let go of the lock."""
        engine, self._engine = self._engine, None
        self._futures = None
        if self._finalizer is not None:
            self._finalizer.cancel()
            self._finalizer = None
        return engine


def _stop(engine: Engine | None, *, kill: bool) -> None:
    # Never with a pool's lock held: this waits for the driver, and the driver may be
    # in a callback that wants the lock, for a `submit`.
    if engine is not None:
        engine.stop(kill=kill)


def _worker_count(workers: int | None) -> int:
    if workers is None:
        return usable_cpus()
    if isinstance(workers, bool) or not isinstance(workers, int):
        raise TypeError(f"workers is a number of processes or None, not {workers!r}")
    if workers < 0:
        raise ValueError(f"workers must not be negative, and is {workers}")
    return workers


def _context(mp_context: BaseContext | str | None) -> BaseContext:
    if mp_context is None:
        return default_context()
    if isinstance(mp_context, str):
        return get_context(mp_context)
    if not isinstance(mp_context, BaseContext):
        raise TypeError(
            "mp_context is a multiprocessing context, the name of a start method, or None,"
            f" not {mp_context!r}"
        )
    return mp_context


def plan_root(registry: Registry, ev: Any) -> Plan:
    """Match a root event.

    Raises:
        Exception: What `Processor.process` would raise before the first handler.
    """
    check_event(ev)
    return registry.match(ev)


class _Feeder:
    """Reads an application's events, as many as the run has demand for, and hands them in."""

    def __init__(
        self,
        engine: Engine,
        run: Run,
        events: Iterator[Event],
        registry: Registry,
        gathered: _Gathered,
    ) -> None:
        self._engine = engine
        self._run = run
        self._events = events
        self._registry = registry
        self._gathered = gathered
        self._first = 0  # the index of the first event in the block
        self._block: list[Event] = []
        self._plans: list[Plan] = []
        self.read = 0
        self.is_exhausted = False
        self.error: Exception | None = None  # what reading raised

    def feed(self, *, until_error: bool) -> bool:
        """Read what there is demand for; at the end of the events, close the run.

        Returns:
            Whether that is all until the workers are further. False if much of what
            was read concerned no handler: there is demand left.
        """
        if self.is_exhausted:
            return True
        demand = self._engine.demand(self._run)
        accepted = 0
        # at most so many are read, or an endless input that nobody wants would keep
        # the workers' results waiting
        for _ in range(demand):
            if until_error and self._gathered.has_failed:
                break
            ev = self._next()
            if self.is_exhausted:
                break
            accepted += self._take(ev)
        self._hand_in()
        if until_error and self._gathered.has_failed:
            self.is_exhausted = True
        if self.is_exhausted:
            self._engine.close_run(self._run)
        return self.is_exhausted or accepted == demand

    def _take(self, ev: Any) -> bool:
        """Take in one event; say whether it needs a worker."""
        index = self.read
        self.read += 1
        try:
            plan = plan_root(self._registry, ev)
        except Exception as error:
            self._gathered.ended(index, Ending(error=error))
            return False
        if not plan.indices:
            return False
        if self._block and self._first + len(self._block) != index:
            self._hand_in()
        if not self._block:
            self._first = index
        self._block.append(ev)
        self._plans.append(plan)
        return True

    def _hand_in(self) -> None:
        if self._block:
            self._engine.accept(self._run, self._first, self._block, self._plans)
            self._block, self._plans = [], []

    def _next(self) -> Any:
        try:
            return next(self._events)
        except StopIteration:
            self.is_exhausted = True
        except Exception as error:
            self.error = error
            self.is_exhausted = True
        return None


class _Gathered:
    """The endings of a `process_many`: those that are not simply None."""

    def __init__(self) -> None:
        self._endings: dict[int, Ending] = {}
        self.has_failed = False

    def begins(self, root: int) -> bool:  # noqa: ARG002 - the protocol's signature
        return True

    def ended(self, root: int, ending: Ending) -> None:
        if ending.error is not None:
            self.has_failed = True
        if ending.error is not None or ending.stopped:
            self._endings[root] = ending

    def settled(self, first: int, roots: int) -> None:
        pass

    def dropped(self, first: int, roots: int) -> None:
        pass

    def broken(self, error: PoolError) -> None:
        pass

    def values(self, feeder: _Feeder, *, return_exceptions: bool) -> list[Any]:
        """The list that `process_many` returns, or its error."""
        if not return_exceptions:
            failed = [root for root, ending in self._endings.items() if ending.error is not None]
            if failed:
                error = self._endings[min(failed)].error
                if error is not None:
                    raise error
        if feeder.error is not None:
            raise feeder.error
        values: list[Any] = [None] * feeder.read
        for root, ending in self._endings.items():
            values[root] = ending.value if ending.error is None else ending.error
        return values


class _Futures:
    """The run of all submitted events, and the thread that drives for them.

    The thread is there while futures are outstanding; it holds on to the engine
    and not to the pool, which can be collected in the meantime.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._run = engine.open(self, until_error=False, can_cancel=True)
        self._futures: dict[int, Future[Any]] = {}
        self._indices = itertools.count()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    @property
    def outstanding(self) -> int:
        """How many futures are not done."""
        return len(self._futures)

    def submit(self, ev: Event, registry: Registry) -> Future[Any]:
        """See `PoolProcessor.submit`."""
        future: Future[Any] = Future()
        try:
            plan = plan_root(registry, ev)
        except Exception as error:
            future.set_running_or_notify_cancel()
            future.set_exception(error)
            return future
        if not plan.indices:
            future.set_running_or_notify_cancel()
            future.set_result(None)
            return future
        with self._changed:
            index = next(self._indices)
            self._futures[index] = future
            self._engine.accept(self._run, index, [ev], [plan])
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._drive, name="evproc_pool futures", daemon=True
                )
                self._thread.start()
        return future

    def _drive(self) -> None:
        while True:
            turns = self._engine.turns
            with self._changed:
                if not self._futures:
                    self._thread = None
                    self._changed.notify_all()
                    return
            self._engine.wait_turn(turns)

    def drain(self) -> None:
        """Wait until no future is outstanding."""
        with self._changed:
            self._changed.wait_for(lambda: self._thread is None)

    # --- as a sink ---

    def begins(self, root: int) -> bool:
        return self._futures[root].set_running_or_notify_cancel()

    def ended(self, root: int, ending: Ending) -> None:
        future = self._take(root)
        if future.cancelled():
            return
        if ending.error is not None:
            future.set_exception(ending.error)
        else:
            future.set_result(ending.value)

    def settled(self, first: int, roots: int) -> None:
        for root in range(first, first + roots):
            self._take(root).set_result(None)

    def dropped(self, first: int, roots: int) -> None:
        for root in range(first, first + roots):
            self._take(root).cancel()

    def broken(self, error: PoolError) -> None:
        for root in list(self._futures):
            future = self._take(root)
            if not future.done():
                future.set_exception(error)

    def _take(self, root: int) -> Future[Any]:
        with self._changed:
            return self._futures.pop(root)
