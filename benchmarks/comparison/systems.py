"""The systems that are compared, all driven alike; the optional ones are in `optional`.

Every system has two workers, by the benchmarks' start method where it can choose
one, and calls `handlers.handle`, which is `Processor.process` (`PoolProcessor` has
the handlers themselves). What belongs to a system is imported when it is made.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from benchmarks.comparison.handlers import handle, handle_emitting, register_all
from benchmarks.pool import peers
from benchmarks.pool.kinds import Function
from benchmarks.pool.processes import WORKERS, start_method
from evproc import Event

if TYPE_CHECKING:
    from evproc_pool.outcome import Outcome

#: The chunk size that a system chooses by itself, for those that can.
AUTO: Final = 0


class System(ABC):
    """Processes that events are handed to.

    Attributes:
        label: What tables and plots call it; without a comma.
        module: What a program imports of it.
        distribution: What is installed for it; None if that is nothing.
        has_chunks: Whether its user chooses a chunk size, or makes batches by hand.
        has_auto: Whether it can choose one itself, too.
        streams: Whether it reads its input and gives values bit by bit.
        is_restless: Whether it computes while it has nothing to do.
        grace_seconds: How long it may take to end.
    """

    label: str
    module: str
    distribution: str | None = None
    has_chunks: bool = True
    has_auto: bool = False
    streams: bool = True
    is_restless: bool = False
    grace_seconds: float = 10.0

    @classmethod
    def candidates(cls, chunks: tuple[int, ...]) -> tuple[int, ...]:
        """The chunk sizes among which its best one is looked for."""
        if not cls.has_chunks:
            return (AUTO,)
        return (*chunks, AUTO) if cls.has_auto else chunks

    @abstractmethod
    def run(self, events: list[Any], chunk: int, function: Function | None = None) -> list[Any]:
        """Process the events; give their values, in order.

        Args:
            events: The events, or what the function wants.
            chunk: How many are handed over at once.
            function: Called for each instead of `handle`; by all but `Ours`, which has
                the handlers.
        """

    def run_emitting(self, events: list[Any], chunk: int) -> list[Any]:
        """Process the events; give for each the list of what its handlers emitted."""
        return self.run(events, chunk, handle_emitting)

    def stream(
        self, events: Iterable[Any], chunk: int, function: Function | None = None
    ) -> Iterator[Any]:
        """Give the values as they come, in order; if it `streams`."""
        raise NotImplementedError(f"{self.label} does not stream")

    @abstractmethod
    def single(self, ev: Event) -> Any:
        """Process one event, and wait for its value."""

    @property
    def ways(self) -> Mapping[str, Callable[[Event], Any]]:
        """The ways of processing one event by name; the usual one has none."""
        return {"": self.single}

    @abstractmethod
    def close(self) -> None:
        """End its processes, and wait for them."""


class Ours(System):
    """`PoolProcessor`, as it comes."""

    label = "PoolProcessor"
    module = "evproc_pool.pool"  # with the class, which the package imports when it is asked for
    has_chunks = False

    def __init__(self) -> None:
        from evproc_pool import PoolProcessor

        self._pool = PoolProcessor(WORKERS, mp_context=start_method())
        register_all(self._pool)

    def run(self, events: list[Any], chunk: int, function: Function | None = None) -> list[Any]:
        """See `System`."""
        return self._pool.process_many(events)

    def run_emitting(self, events: list[Any], chunk: int) -> list[Any]:
        """See `System`."""
        return [_emitted(outcome) for outcome in self._pool.stream(events)]

    def stream(
        self, events: Iterable[Any], chunk: int, function: Function | None = None
    ) -> Iterator[Any]:
        """See `System`."""
        return map(_unwrap, self._pool.stream(events))

    def single(self, ev: Event) -> Any:
        """See `System`."""
        return self._pool.process(ev)

    def submit(self, ev: Event) -> Any:
        """Process one event by a future."""
        return self._pool.submit(ev).result()

    @property
    def ways(self) -> Mapping[str, Callable[[Event], Any]]:
        """See `System`."""
        return {"": self.single, "submit": self.submit}

    def close(self) -> None:
        """See `System`."""
        self._pool.close()


def _unwrap(outcome: Outcome) -> Any:
    return outcome.unwrap()


def _emitted(outcome: Any) -> Any:
    outcome.unwrap()
    return outcome.emitted


class MultiprocessingPool(peers.MultiprocessingPool, System):
    """`multiprocessing.Pool`: `imap` and `apply`."""

    label = "multiprocessing.Pool"
    module = "multiprocessing.pool"

    def __init__(self) -> None:
        super().__init__(handle)


class Executor(peers.Executor, System):
    """`concurrent.futures.ProcessPoolExecutor`: `map` and `submit`."""

    label = "ProcessPoolExecutor"
    module = "concurrent.futures.process"

    def __init__(self) -> None:
        super().__init__(handle)
