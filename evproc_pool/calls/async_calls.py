"""The calls of a pool in an event loop of `asyncio`: a base class of `PoolProcessor`.

`coordinator.asyncio_calls` says how they wait. `asyncio` is imported with the first call.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, overload

from evproc import Event
from evproc_pool import options
from evproc_pool.calls import worker_calls
from evproc_pool.calls.end_calls import EndCalls

if TYPE_CHECKING:
    from concurrent.futures import Future

    from evproc_pool.core.root_events import Key
    from evproc_pool.inprocess.calls import InProcessCalls
    from evproc_pool.options import CallOptions, Errors, Ordering, PoolOptions, Progress
    from evproc_pool.outcome import Outcome

E = TypeVar("E", bound=Event)


class AsyncCalls(EndCalls):
    """The methods of `PoolProcessor` for event loops."""

    if TYPE_CHECKING:
        _options: PoolOptions
        _call: CallOptions
        _size: int
        _in_process: InProcessCalls
        submit: Callable[[Event], Future[Any]]

    async def __aenter__(self) -> Self:
        self._owner.check_open()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """As the end of a `with` block, while the loop goes on."""
        from evproc_pool.coordinator import asyncio_calls

        await asyncio_calls.leave(lambda: self.__exit__(kind), self.terminate)

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
        options.check_cancel(self._options.start, cancel_running=cancel_running)
        from evproc_pool.coordinator import asyncio_calls

        return await asyncio_calls.process(self.submit, ev, seconds, cancel_running=cancel_running)

    @overload
    def stream_async(
        self,
        events: Iterable[E] | AsyncIterable[E],
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
        cancel_running: bool = False,
    ) -> AsyncGenerator[Outcome[E], None]: ...

    @overload
    def stream_async(
        self,
        events: Iterable[Event] | AsyncIterable[Event],
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
        cancel_running: bool = False,
    ) -> AsyncGenerator[Outcome, None]: ...

    def stream_async(
        self,
        events: Iterable[Event] | AsyncIterable[Event],
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
        cancel_running: bool = False,
    ) -> AsyncGenerator[Outcome[Any], None]:
        """Process events lazily, for `async for`; no thread waits for them. See `stream`.

        If the generator is closed, or its task is cancelled, what was not begun is dropped.
        With `workers=0` the handlers run in the thread of the loop. Other tasks have their turn
        after each event.

        Args:
            events: An iterable, read in the thread of the loop, or an asynchronous one. While
                an asynchronous one waits, outcomes are yielded.
            ordered: See `stream`, as for all options but the last.
            buffersize: See there.
            return_events: See there.
            every_event: See there.
            prompt: See there.
            ordering: See there.
            key: See there.
            errors: See there.
            progress: See there.
            cancel_running: Whether closing and cancellation also end the handlers that are
                running: their workers are killed, at no charge to other events.
        """
        self._owner.begin_call()
        options.check_cancel(self._options.start, cancel_running=cancel_running)
        shown = options.call_progress(progress, events)
        call = options.call_options(
            self._call, ordering, key, errors, buffersize, ordered, return_events, every_event
        )._replace(progress=shown, prompt=options.flag("prompt", prompt))
        from evproc_pool.coordinator import asyncio_calls

        owner = self._owner
        source = events if isinstance(events, AsyncIterable) else options.events(events)
        if self._size == 0:
            return asyncio_calls.stream_here(
                source, lambda each: self._in_process.stream(each, call, owner.check_usable)
            )
        # a task reads an asynchronous input; a chain does not say how many events it has
        read: Iterator[Any] = chain() if isinstance(source, AsyncIterable) else source
        streamed = worker_calls.outcome_stream(call)
        return asyncio_calls.stream(
            source,
            streamed,
            call.buffersize,
            lambda: worker_calls.open_run(owner, streamed, read, call),
            owner.futures_of,
            cancel_running=cancel_running,
            progress=shown,
        )
