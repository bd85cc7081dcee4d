"""The calls of a pool without workers: all in this process, one event after another."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from evproc import Event, Processor
from evproc_pool.core.error_notes import has_several
from evproc_pool.core.root_events import Key, key_of, plan_root

if TYPE_CHECKING:
    from concurrent.futures import Future

    from evproc_pool.core.cascade_limits import CascadeEnding
    from evproc_pool.core.retry_policy import RetryPolicy
    from evproc_pool.inprocess.cascade import Rules
    from evproc_pool.outcome import Outcome

# `cascade` is imported when it is needed: most pools have workers.


class InProcessCalls:
    """See `PoolProcessor`, of which these are the methods for `workers=0`.

    Args:
        processor: Has the handlers.
        policy: Decides which events are run again.
        initializer: Called once, before the first event; or None.
        initargs: Its arguments.
    """

    def __init__(
        self,
        processor: Processor,
        policy: RetryPolicy,
        initializer: Callable[..., object] | None,
        initargs: tuple[Any, ...],
    ) -> None:
        self._processor = processor
        self._policy = policy
        self._initializer = initializer
        self._initargs = initargs
        self._lock = threading.RLock()
        self._is_initialized = False
        # the calls that have begun and not ended, with the thread of each
        self._calls: dict[object, int] = {}

    @property
    def open_calls(self) -> int:
        """The number of calls and streams that have begun and not ended."""
        return len(self._calls)

    def adopt(self) -> None:
        """Begin anew in a process that was forked: other threads and their calls are gone."""
        me = threading.get_ident()
        self._lock = threading.RLock()
        self._calls = {call: thread for call, thread in self._calls.items() if thread == me}

    def rules(
        self,
        ending: CascadeEnding,
        events: Iterator[Event] | None = None,
        *,
        return_events: bool = False,
        every_event: bool = False,
    ) -> Rules:
        """Return how a call runs its cascades; without `events` it has one root."""
        from evproc_pool.inprocess.cascade import Rules

        return Rules(
            self._policy,
            ending,
            return_events,
            every_event,
            events is not None and has_several(events),
        )

    def process_many(
        self, events: Iterator[Event], key: Key | None, rules: Rules, *, return_exceptions: bool
    ) -> list[Any]:
        """See `PoolProcessor.process_many`."""
        with self._counted():
            self._initialize()
            return self._process_all(events, key, rules, return_exceptions=return_exceptions)

    def stream(
        self,
        events: Iterable[Event],
        key: Key | None,
        check_usable: Callable[[], object],
        rules: Rules,
    ) -> Generator[Outcome, None, None]:
        """See `PoolProcessor.stream`. If `check_usable` raises before a root, the stream ends."""
        with self._counted():
            self._initialize()
            for index, ev in enumerate(events):
                check_usable()
                yield from self._outcomes(ev, index, key, rules)

    def submit(self, ev: Event, key: Key | None, rules: Rules) -> Future[Any]:
        """See `PoolProcessor.submit`; the future is done."""
        from concurrent.futures import Future

        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        with self._counted():
            try:
                self._initialize()
                (value,) = self._process_all([ev], key, rules, return_exceptions=False)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(value)
        return future

    def _process_all(
        self, events: Iterable[Event], key: Key | None, rules: Rules, *, return_exceptions: bool
    ) -> list[Any]:
        from evproc_pool.inprocess.cascade import process_plainly

        if key is None and rules.are_plain:
            return process_plainly(
                self._processor, events, rules, return_exceptions=return_exceptions
            )
        values = []
        outcome: Outcome | None = None
        try:
            for index, ev in enumerate(events):
                (outcome,) = self._outcomes(ev, index, key, rules)
                if outcome.error is not None and not return_exceptions:
                    raise outcome.error
                values.append(outcome.value if outcome.error is None else outcome.error)
            return values
        finally:
            del values, outcome  # they hold errors, whose tracebacks hold this frame

    def _outcomes(self, ev: Event, index: int, key: Key | None, rules: Rules) -> Iterable[Outcome]:
        """Yield the outcomes of a cascade, which runs meanwhile."""
        from evproc_pool.inprocess.cascade import run_cascade

        failed = [] if key is None else self._check_key(ev, index, key, rules)
        return failed or run_cascade(self._processor, ev, index, rules)

    def _check_key(self, ev: Event, index: int, key: Key, rules: Rules) -> Iterable[Outcome]:
        """Call `key`, only for its errors: all events run one after another here.

        Returns:
            The outcome of a root that failed; otherwise nothing.
        """
        try:
            plan_root(self._processor.registry, ev)
            key_of(key, ev)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            from evproc_pool.inprocess.cascade import failed_root

            return failed_root(ev, index, error, has_several=rules.has_several)
        return ()

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        call = object()
        self._calls[call] = threading.get_ident()
        try:
            yield
        finally:
            self._calls.pop(call, None)

    def _initialize(self) -> None:
        with self._lock:
            if not self._is_initialized and self._initializer is not None:
                self._initializer(*self._initargs)
            self._is_initialized = True
