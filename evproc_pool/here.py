"""What a pool with no workers does: all in this process, one event after another."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from evproc import Event, Processor
from evproc_pool.roots import Key, key_of, plan_root

if TYPE_CHECKING:
    from concurrent.futures import Future

    from evproc_pool.outcome import Outcome
    from evproc_pool.retries import RetryPolicy

# Imported when they are needed: most pools have workers, and never come to it.


class Here:
    """See `PoolProcessor`, of which these are the methods for `workers=0`.

    Args:
        processor: Has the handlers.
        policy: Which events are run again.
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
        """How many calls and streams were begun and have not ended."""
        return len(self._calls)

    def adopt(self) -> None:
        """In a process that was forked: there are no other threads and their calls."""
        me = threading.get_ident()
        self._lock = threading.RLock()
        self._calls = {call: thread for call, thread in self._calls.items() if thread == me}

    def process_many(
        self, events: Iterator[Event], key: Key | None, *, return_exceptions: bool
    ) -> list[Any]:
        """See `PoolProcessor.process_many`."""
        values = []
        with self._counted():
            self._initialize()
            for ev in events:
                try:
                    values.append(self._process(ev, key))
                except KeyboardInterrupt:
                    raise  # somebody at the keyboard, as far as can be told in one process
                except BaseException as error:
                    if not return_exceptions:
                        raise
                    values.append(error)
        return values

    def stream(
        self,
        events: Iterable[Event],
        key: Key | None,
        check_usable: Callable[[], object],
        *,
        return_events: bool,
    ) -> Generator[Outcome, None, None]:
        """See `PoolProcessor.stream`; ends with what `check_usable` raises before an event."""
        with self._counted():
            self._initialize()
            for index, ev in enumerate(events):
                check_usable()
                yield self._run(ev, index, key, return_events=return_events)

    def submit(self, ev: Event, key: Key | None) -> Future[Any]:
        """See `PoolProcessor.submit`; the future is done."""
        from concurrent.futures import Future

        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        with self._counted():
            try:
                self._initialize()
                value = self._process(ev, key)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(value)
        return future

    def _process(self, ev: Event, key: Key | None) -> Any:
        if key is None and not self._policy.max_retries:
            return self._processor.process(ev)
        return self._run(ev, 0, key, return_events=False).unwrap()

    def _run(self, ev: Event, index: int, key: Key | None, *, return_events: bool) -> Outcome:
        if key is not None:
            # Only for what it raises: all events are processed one after another here.
            try:
                plan_root(self._processor.registry, ev)
                key_of(key, ev)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                from evproc_pool.outcome import Outcome

                return Outcome(ev, index, error=error, events=int(isinstance(ev, Event)))
        from evproc_pool.serial import run_cascade

        return run_cascade(
            self._processor, ev, index, policy=self._policy, return_events=return_events
        )

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
