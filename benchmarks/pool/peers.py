"""The other pools, as people use them: a function, mapped over the events in chunks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any, Final, Protocol

from benchmarks.pool.handlers import make_processor
from benchmarks.pool.kinds import Function
from benchmarks.pool.processes import WORKERS, context, ignore_interrupt
from evproc import Event

# of the module, so that each worker makes it once, when it imports this
_PROCESSOR: Final = make_processor()


def handle(ev: Event) -> Any:
    """What the peers map over the events."""
    return _PROCESSOR.process(ev)


def handle_caught(ev: Event) -> Any:
    """Likewise, where an event that fails is not to end the call: its error is its value."""
    try:
        return handle(ev)
    except Exception as error:
        return error


class Chunked(Protocol):
    """What is handed events in chunks of a size that its user chooses.

    Attributes:
        label: What the table calls it.
    """

    label: str

    def run(self, events: list[Event], chunk: int) -> list[Any]:
        """Process the events; give their values."""

    def close(self) -> None:
        """End its processes, and wait for them."""


class MultiprocessingPool:
    """`multiprocessing.Pool.imap`."""

    label = "multiprocessing.Pool.imap"

    def __init__(self, function: Callable[[Event], Any] = handle) -> None:
        self._function = function
        self._pool = context().Pool(WORKERS, initializer=ignore_interrupt)

    def stream(
        self, events: Iterable[Any], chunk: int, function: Function | None = None
    ) -> Iterator[Any]:
        """Give the values as they come, in order; by another function, if there is one."""
        return self._pool.imap(function or self._function, events, chunk)

    def run(self, events: list[Any], chunk: int, function: Function | None = None) -> list[Any]:
        """See `Chunked`."""
        return list(self.stream(events, chunk, function))

    def single(self, ev: Event) -> Any:
        """Process one event, and wait for its value."""
        return self._pool.apply(self._function, (ev,))

    def close(self) -> None:
        """See `Chunked`."""
        self._pool.terminate()
        self._pool.join()
        # it keeps its pipes open as long as it is referred to
        del self._pool


class Executor:
    """`concurrent.futures.ProcessPoolExecutor.map`."""

    label = "ProcessPoolExecutor.map"

    def __init__(
        self, function: Callable[[Event], Any] = handle, *, workers: int = WORKERS
    ) -> None:
        self._function = function
        self._executor = ProcessPoolExecutor(
            workers, mp_context=context(), initializer=ignore_interrupt
        )

    def stream(
        self, events: Iterable[Any], chunk: int, function: Function | None = None
    ) -> Iterator[Any]:
        """Give the values as they come, in order; by another function, if there is one."""
        return self._executor.map(function or self._function, events, chunksize=chunk)

    def run(self, events: list[Any], chunk: int, function: Function | None = None) -> list[Any]:
        """See `Chunked`."""
        return list(self.stream(events, chunk, function))

    def submit(self, ev: Event) -> Future[Any]:
        """Process one event."""
        return self._executor.submit(self._function, ev)

    def single(self, ev: Event) -> Any:
        """Process one event, and wait for its value."""
        return self.submit(ev).result()

    def close(self) -> None:
        """See `Chunked`."""
        self._executor.shutdown(cancel_futures=True)
