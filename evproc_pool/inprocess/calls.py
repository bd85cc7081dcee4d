"""The calls of a pool without workers: all in this process, one event after another."""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

from evproc import Event, Processor
from evproc_pool.core.error_notes import has_several
from evproc_pool.core.root_events import Key, key_of, plan_root
from evproc_pool.errors import undisguised

if TYPE_CHECKING:
    from concurrent.futures import Future

    from evproc_pool.inprocess.cascade import Rules
    from evproc_pool.inprocess.observed import CallObserver
    from evproc_pool.observe.call_progress import CallProgress
    from evproc_pool.options import CallOptions, PoolOptions
    from evproc_pool.outcome import Outcome

# `cascade` is imported when it is needed: most pools have workers.

# Shared: `process` makes a call of each event.
_UNWATCHED: Final = contextlib.nullcontext()


class InProcessCalls:
    """See `PoolProcessor`, of which these are the methods for `workers=0`."""

    def __init__(self, processor: Processor, options: PoolOptions) -> None:
        self._processor = processor
        self._options = options
        self._lock = threading.RLock()
        self._is_initialized = False
        self._finalizer: weakref.finalize[..., Any] | None = None  # once initialized
        # the calls that have begun and not ended, with the thread of each
        self.open_calls: dict[object, int] = {}
        self._calls = itertools.count()

    def adopt(self) -> None:
        """Begin anew in a process that was forked: other threads and their calls are gone."""
        me = threading.get_ident()
        self._lock = threading.RLock()
        notifier, collector = self._options.observers
        if notifier is not None:
            notifier.adopt()
        if collector is not None:
            collector.adopt()
        self.open_calls = {call: thread for call, thread in self.open_calls.items() if thread == me}
        if self._finalizer is not None:
            self._finalizer.detach()
            self._finalize_at_end()

    def end(self, *, in_peace: bool) -> None:
        """Call the `finalizer` if any event was begun; if not `in_peace`, never call it."""
        if self._finalizer is not None:
            (self._finalizer if in_peace else self._finalizer.detach)()

    def process_many(
        self, events: Iterator[Event], call: CallOptions, *, return_exceptions: bool
    ) -> list[Any]:
        """See `PoolProcessor.process_many`."""
        from evproc_pool.inprocess.cascade import Rules, process_plainly

        rules = Rules(self._options.retries, call, has_several(events), self._observer(call))
        with _watched(call.progress), self._begun(rules):
            if call.key is None and rules.are_plain:
                return process_plainly(
                    self._processor, events, rules, return_exceptions=return_exceptions
                )
            return self._process_all(events, rules, return_exceptions=return_exceptions)

    def stream(
        self, events: Iterator[Event], call: CallOptions, check_usable: Callable[[], object]
    ) -> Generator[Outcome, None, None]:
        """See `PoolProcessor.stream`. If `check_usable` raises before a root, the stream ends."""
        from evproc_pool.inprocess.cascade import Rules

        rules = Rules(self._options.retries, call, has_several(events), self._observer(call))
        with _watched(call.progress), self._begun(rules):
            for index, ev in enumerate(events):
                check_usable()
                yield from self._outcomes(ev, index, rules)

    def submit(self, ev: Event, call: CallOptions) -> Future[Any]:
        """See `PoolProcessor.submit`; the future is done."""
        from concurrent.futures import Future

        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        try:
            (value,) = self.process_many(iter([ev]), call, return_exceptions=False)
            future.set_result(value)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            future.set_exception(undisguised(error))
        last = [future]
        del future  # see `errors`
        return last.pop()

    def _process_all(
        self, events: Iterable[Event], rules: Rules, *, return_exceptions: bool
    ) -> list[Any]:
        values = []
        outcome: Outcome | None = None
        try:
            for index, ev in enumerate(events):
                (outcome,) = self._outcomes(ev, index, rules)
                if outcome.error is not None and not return_exceptions:
                    raise outcome.error
                values.append(outcome.value if outcome.error is None else outcome.error)
            return values
        finally:
            del values, outcome  # they hold errors, whose tracebacks hold this frame

    def _outcomes(self, ev: Event, index: int, rules: Rules) -> Iterable[Outcome]:
        """Yield the outcomes of a cascade, which runs meanwhile."""
        from evproc_pool.inprocess.cascade import Cascade

        key = rules.call.key
        failed = () if key is None else self._check_key(ev, index, key, rules)
        outcomes = failed or Cascade(self._processor, index, rules).run(ev, index)
        return outcomes if rules.observer is None else rules.observer.watch(outcomes, index)

    def _observer(self, call: CallOptions) -> CallObserver | None:
        """Tells the listeners of one call, and its progress; None: there are none."""
        notifier = self._options.observers.notifier
        if notifier is None and call.progress is None:
            return None
        from evproc_pool.inprocess.observed import CallObserver

        return CallObserver(notifier, next(self._calls), time.monotonic, call.progress)

    def _check_key(self, ev: Event, index: int, key: Key, rules: Rules) -> Iterable[Outcome]:
        """Call `key`, only for its errors: all events run one after another here.

        Returns the outcome of a root that failed; otherwise nothing.
        """
        try:
            plan_root(self._processor.registry, ev)
            key_of(key, ev)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            from evproc_pool.inprocess.cascade import failed_root

            if rules.observer is not None:
                rules.observer.path = lambda: (index,)
                rules.observer.failed(ev, None, error, 1)
            return failed_root(ev, index, error, rules)
        return ()

    @contextlib.contextmanager
    def _begun(self, rules: Rules) -> Iterator[None]:
        """Count a call while it lasts, and call the initializer before the first event."""
        call = object()
        self.open_calls[call] = threading.get_ident()
        try:
            with self._lock:
                start = self._options.start
                if not self._is_initialized and start.initializer is not None:
                    start.initializer(*start.initargs)
                if not self._is_initialized:
                    self._finalize_at_end()
                self._is_initialized = True
            yield
        finally:
            self.open_calls.pop(call, None)
            if rules.observer is not None and not self.open_calls:
                rules.observer.drained()

    def _finalize_at_end(self) -> None:
        finalizer = self._options.start.finalizer
        if finalizer is not None:
            self._finalizer = weakref.finalize(self, _finalize, finalizer, os.getpid())


def _watched(progress: CallProgress | None) -> contextlib.AbstractContextManager[None]:
    """Show the progress of a call while the block runs; None: show nothing."""
    return _UNWATCHED if progress is None else _shown(progress)


@contextlib.contextmanager
def _shown(progress: CallProgress) -> Iterator[None]:
    is_complete = False
    progress.begin(time.monotonic)
    try:
        yield
        is_complete = True
    finally:
        progress.end(is_complete=is_complete)


def _finalize(finalizer: Callable[[], object], pid: int) -> None:
    """Call it as a worker does; not in a process that was forked from the pool's."""
    if os.getpid() != pid:
        return
    try:
        finalizer()
    except BaseException:
        sys.excepthook(*sys.exc_info())
