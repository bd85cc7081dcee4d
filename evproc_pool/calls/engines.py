"""Starts, replaces and ends the engine of a pool.

A pool has one engine at a time, or none: none before the first event, after a change of the
handlers, and at the end. An engine that was interrupted, or whose handlers were redefined, is
replaced by the next call::

    no engine --first event--> engine --register, redefinition, Ctrl-C--> no engine
        ^                         `---------close, terminate------------> closed
        `--------------------------------------------'

Rules:
- The lock guards the engine, its futures and whether the pool is closed. Never wait for an
  engine with the lock held; see `stop`.
- The finalizer belongs to this object and knows the engine only, so that it keeps no pool alive.
- The engine's modules and the workers' side are imported with the first event. An application
  that imports the package may never process one, and starts in half the time.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from math import inf
from multiprocessing import util
from typing import TYPE_CHECKING, Final, TypeVar

from evproc_pool.calls.starters import starter_of
from evproc_pool.errors import (
    PoolBusyError,
    PoolClosedError,
    PoolError,
    PoolForkedError,
    again,
)
from evproc_pool.protocol.registry_spec import (
    Change,
    MainScriptCode,
    fingerprint,
    is_loading_handlers,
    main_script_code,
    make_config,
)

if TYPE_CHECKING:
    import random

    from evproc_pool.calls.handlers import PoolHandlers
    from evproc_pool.coordinator.engine import Engine
    from evproc_pool.coordinator.futures import Futures
    from evproc_pool.inprocess.calls import InProcessCalls
    from evproc_pool.observe.statistics import Statistics
    from evproc_pool.options import PoolOptions

T = TypeVar("T")

# Before the standard library joins processes that are still there at exit, for
# which it would wait for ever (multiprocessing.util runs higher numbers first).
_EXIT_PRIORITY: Final = 100

# How long the collection of a pool waits for its workers, in seconds. Idle ones end sooner. It may
# strike in any thread, also in one with an event loop.
_COLLECTION_SECONDS: Final = 0.1

_CLOSED: Final = "the pool is closed: make a new PoolProcessor"


class EngineOwner:
    """Has the engine of a pool; see the module's text.

    Attributes:
        engine: The engine, or None.
        futures: Those of the engine, once something was submitted.
        starter: Starts the workers; `testing` replaces it, and the next two.
        clock: Returns monotonic seconds.
        rng: Draws the pauses before retries; None: a generator of the engine's own.
    """

    def __init__(
        self, options: PoolOptions, handlers: PoolHandlers, in_process: InProcessCalls
    ) -> None:
        registry = handlers.processor.registry
        self.starter = starter_of(options.start, options.limits, registry)
        self.clock: Callable[[], float] = time.monotonic
        self.rng: random.Random | None = None
        self.engine: Engine | None = None
        self.futures: Futures | None = None
        self._options = options
        self._handlers = handlers
        self.registry = handlers.processor.registry
        self._redefined = handlers.redefined
        self._in_process = in_process
        self._lock = threading.RLock()
        self._shipped: MainScriptCode | None = None  # what the workers have of the main script
        self._leaving: Callable[[], Engine | None] = lambda: None  # the last one, while it ends
        self._finalizer: util.Finalize | None = None
        self._closed = False
        self._pid = os.getpid()

    @property
    def state(self) -> str:
        """`"idle"`, `"running"` or `"closed"`."""
        engine = self.engine
        if self._closed:
            return "closed"
        if engine is None or (engine.closed is not None and engine.is_replaceable):
            return "idle"
        return "running" if engine.closed is None else "closed"

    # --- whether it can be used ---

    def check_usable(self) -> None:
        """Raise a `PoolError` if the pool is closed, broken or of another process."""
        if os.getpid() != self._pid and self.engine is None:
            self._pid = os.getpid()  # the other process has started nothing
            self._in_process.adopt()
        if os.getpid() != self._pid:
            raise PoolForkedError(
                f"this PoolProcessor belongs to process {self._pid}, and this is process"
                f" {os.getpid()}, forked from it: make a PoolProcessor of its own here"
            )
        if self._closed:
            raise PoolClosedError(_CLOSED)
        engine = self.engine
        if engine is not None and engine.closed is not None and not engine.is_replaceable:
            raise again(engine.closed)

    def check_open(self) -> None:
        """As `check_usable`, with the lock."""
        with self._lock:
            self.check_usable()

    def begin_call(self) -> None:
        """As `check_open`; with `workers=0` also use handlers that were redefined."""
        with self._lock:
            self.check_usable()
            if self._options.start.workers == 0 and not self._in_process.open_calls:
                self._handlers.use_redefined()

    def _check_idle(self, what: str) -> None:
        self.check_usable()
        futures, runs = 0, len(self._in_process.open_calls)
        if self.engine is not None and self.engine.closed is None:
            self.engine.refresh()
            futures = self.futures.outstanding if self.futures is not None else 0
            runs += self.engine.open_runs - (self.futures is not None)
        if futures or runs:
            raise PoolBusyError(
                f"{what}() needs an idle pool, because the workers are replaced: {runs} calls"
                f" and {futures} futures are in flight; wait for them (a stream that was left"
                " early is in flight for as long as what it has sent), or register before the"
                " first event"
            )

    # --- changes that need new workers ---

    def change(self, what: str, act: Callable[[], T]) -> T:
        """Change the handlers by `act` while nothing is in flight, and end the workers.

        If `act` raises, the workers stay. `what` names the method for the `PoolBusyError`.
        """
        with self._lock:
            self._check_idle(what)
            done = act()
            engine = self._detach()
        stop(engine)
        return done

    def sabotage(self, change: Change) -> None:
        """Change the handlers in the workers only, for `testing`; see `change`."""
        self.change("sabotage", lambda: self._handlers.changes.append(change))

    def end_sabotage(self, change: Change) -> None:
        """Take a `sabotage` back: new workers do not have it, whatever is raised.

        Raises a `PoolBusyError` if events are in flight, in workers that still have it.
        """
        with self._lock:
            self._handlers.changes.remove(change)
            if self._closed or self.engine is None or self.engine.closed is not None:
                return
            self._check_idle("the end of sabotage")
            engine = self._detach()
        stop(engine)

    # --- the engine of a call ---

    def running(self) -> Engine:
        """Return the engine; start or replace it where that is needed."""
        engine = self.engine
        # The usual case, without the lock: the engine might as well end right after this.
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
            self.check_usable()
            engine = self.engine
            if engine is not None and (
                engine.closed is not None or (self._is_outdated and self._retire(engine))
            ):
                # without the lock; see there
                when_done.callback(stop, self._detach())
            if self.engine is None:
                self._handlers.use_redefined()
                self.engine = self._start()
            return self.engine

    def _start(self) -> Engine:
        """Start an engine; with the lock."""
        if is_loading_handlers():
            raise PoolError(
                "this process is a worker that is loading handlers, and their module or one of the"
                " initializer's starts a pool when it is imported: start that pool in a function,"
                ' or under if __name__ == "__main__"'
            )
        functions = [handler.func for handler in self.registry.handlers]
        start = self._options.start
        self.starter.begin(functions)
        sent = [*functions, start.initializer, start.finalizer]
        self._shipped = main_script_code(sent)
        from evproc_pool.coordinator.codec import PACE
        from evproc_pool.coordinator.coordinator import Coordinator
        from evproc_pool.coordinator.crash_errors import cannot_start
        from evproc_pool.coordinator.engine import Engine
        from evproc_pool.coordinator.feeding import Gathered
        from evproc_pool.protocol.process_state import current_state

        spec = self._handlers.spec(start.initializer, start.initargs, start.finalizer)
        state = current_state(start.thread_limit, sent)
        if self.starter.is_elsewhere:
            state = state.elsewhere()
        notifier = self._options.observers.notifier
        notices: Notices | None = None
        if notifier is not None:
            from evproc_pool.coordinator.notices import Notices  # few pools need it

            notifier.clock = self.clock
            notices = Notices(notifier, self.registry, self.clock)
        pace = PACE._replace(times_handlers=notifier is not None)
        output = start.worker_output()
        config = make_config(spec, state, self._options.limits, pace, output)
        try:
            backend = self.starter.make_backend(functions)
        except OSError as error:
            raise cannot_start(0, None, error) from error
        coordinator = Coordinator(
            self.starter.workers,
            backend,
            self.registry,
            config,
            fingerprint(self.registry),
            limits=self._options.limits,
            policy=self._options.retries,
            clock=self.clock,
            rng=self.rng,
            notices=notices,
            prefetch=self.starter.prefetch,
        )
        engine = Engine(coordinator, backend, Gathered)
        if start.executor is not None:
            _finish_in_time(engine)
        self._finalizer = util.Finalize(
            self, finish, args=(engine, weakref.ref(self)), exitpriority=_EXIT_PRIORITY
        )
        return engine

    @property
    def _is_outdated(self) -> bool:
        """Whether handlers of the main script, or what they use, were redefined."""
        if self._shipped is not None and not self._shipped.is_up_to_date:
            return True
        return not self._redefined.is_up_to_date and bool(self._redefined.find())

    def _retire(self, engine: Engine) -> bool:
        """Have an engine accept nothing more, if nothing is in flight; return whether it does."""
        futures = self.futures
        if futures is None:
            return engine.retire(0)
        if futures.retire():
            if engine.retire(1):
                return True
            futures.unretire()
        return False

    def statistics(self) -> Statistics:
        """See `PoolProcessor.statistics`."""
        from evproc_pool.observe.collector import uncollected

        engine, collector = self.engine, self._options.observers.collector
        now = (0, 0, []) if engine is None or engine.closed is not None else engine.now()
        return uncollected(*now) if collector is None else collector.snapshot(*now, self.clock())

    # --- its futures ---

    def make_futures(self, engine: Engine) -> Futures | None:
        """Return the futures of an engine. None: the engine was replaced."""
        with self._lock:
            if self.engine is engine and self.futures is None:
                from evproc_pool.coordinator.futures import Futures

                call = self._options.call
                try:
                    self.futures = Futures(
                        engine,
                        self.registry,
                        call.key,
                        unordered=call.unordered,
                        ending=call.ending,
                    )
                except PoolError:
                    if not engine.is_replaceable:
                        raise
                    return None
            return self.futures if self.engine is engine else None

    def futures_of(self, engine: Engine) -> Futures:
        """Return the futures of an engine that has an open run, and so is not replaced."""
        futures = self.make_futures(engine)
        if futures is None:
            raise again(engine.closed or PoolClosedError(_CLOSED))
        return futures

    # --- the end ---

    def close(self, seconds: float) -> None:
        """See `PoolProcessor.close`."""
        end = time.monotonic() + seconds
        if os.getpid() != self._pid:
            return  # the workers are the parent's
        with self._lock:
            futures, engine = self.futures, self.engine
            if engine is not None:
                engine.check_may_wait()
            self._closed = True
        if engine is not None:
            with stopped_after(seconds, engine):
                if futures is not None:
                    futures.drain()
                engine.drain()
        with self._lock:
            # or the one that another thread has detached and is stopping: wait for that
            engine = self._detach() or self._leaving()
        stop(engine, most_seconds=max(0.0, end - time.monotonic()))
        self._in_process.end(in_peace=True)

    def terminate(self) -> None:
        """See `PoolProcessor.terminate`."""
        if os.getpid() != self._pid:
            return
        with self._lock:
            self._closed = True
            engine = self._detach()
        stop(engine, most_seconds=0.0)
        self._in_process.end(in_peace=False)

    def drop_unbegun(self, kind: type[BaseException]) -> None:
        """Drop what was submitted and not begun, because an error ended the `with` block."""
        with self._lock:
            self._closed = True
            futures = self.futures
        if futures is not None and os.getpid() == self._pid:
            futures.give_up(
                PoolClosedError(
                    f"this event was not begun when {kind.__name__} ended the pool's with block,"
                    " and was dropped"
                )
            )

    def _detach(self) -> Engine | None:
        """Take the engine away, with the lock. The caller stops it, without the lock."""
        engine, self.engine = self.engine, None
        self.futures = self._shipped = None
        if engine is not None:
            self._leaving = weakref.ref(engine)
        if self._finalizer is not None:
            self._finalizer.cancel()
            self._finalizer = None
        return engine


# Engines with an executor, which ends before the functions of `atexit` are called.
_with_executors: Final[weakref.WeakSet[Engine]] = weakref.WeakSet()


def _finish_in_time(engine: Engine) -> None:
    """Have what was submitted finished at the end of the program, before executors end."""
    from evproc_pool.internals.stdlib_executors import call_before_executors_end

    with contextlib.suppress(RuntimeError):  # the program is ending
        call_before_executors_end(_finish_all)
    _with_executors.add(engine)


def _finish_all() -> None:
    for engine in list(_with_executors):
        if not _was_interrupted():
            engine.finish_submitted()


def _was_interrupted() -> bool:
    """Whether Ctrl-C has ended the program; in an interactive session it may be long past."""
    return not hasattr(sys, "ps1") and getattr(sys, "last_type", None) is KeyboardInterrupt


def finish(engine: Engine, owner: weakref.ref[EngineOwner]) -> None:
    """End an engine whose pool is gone, or at the end of the program; see `_end`."""
    if owner() is not None:
        _end(engine)
        return
    is_over = _thread.allocate_lock()
    is_over.acquire()
    at_exit = util.Finalize(None, _end, args=(engine,), exitpriority=_EXIT_PRIORITY)

    def end() -> None:
        try:
            _end(engine)
        finally:
            at_exit.cancel()
            is_over.release()

    try:
        # not `threading.Thread`: the collection may strike where that module holds its lock
        _thread.start_new_thread(end, ())
    except RuntimeError:  # the system has no more
        end()
    # If it takes longer, it goes on alone. Otherwise no thread is left, and the caller may fork.
    is_over.acquire(timeout=_COLLECTION_SECONDS)


def _end(engine: Engine) -> None:
    """End an engine that nobody can use any more.

    Submitted events are finished first, unless Ctrl-C has ended the program. Workers that are at
    work then are killed: nobody can have their results.
    """
    try:
        if not _was_interrupted():
            engine.finish_submitted()
    finally:
        engine.stop(most_seconds=0.0 if engine.is_at_work else inf)


def stop(engine: Engine | None, *, most_seconds: float = inf) -> None:
    """End an engine, if there is one; see `Engine.stop`.

    Never call it with a pool's lock held. It waits for the driver, and the driver may run a
    callback that wants the lock, for a `submit`.
    """
    if engine is not None:
        engine.stop(most_seconds=most_seconds)


@contextlib.contextmanager
def stopped_after(seconds: float, engine: Engine) -> Iterator[None]:
    """End the engine if the block takes longer than that."""
    if seconds > threading.TIMEOUT_MAX:
        yield
        return
    # a thread: the one that drains may be in code of the user's, a filter or a callback
    timer = threading.Timer(seconds, engine.stop, kwargs={"most_seconds": 0.0})
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
