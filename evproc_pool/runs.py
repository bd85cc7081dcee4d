"""How events get into a run, and what becomes of its endings.

`Feeder` reads an application's events, no further ahead than is asked for.
`Gathered` (for `process_many`), `Streamed` (`stream`) and `Futures` (`submit`) are
the sinks that the engine tells of endings.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future
from math import inf
from typing import Any, Final

from evproc import Event
from evproc.registry import Plan, Registry
from evproc_pool.engine import Engine
from evproc_pool.errors import PoolError
from evproc_pool.estimates import MOST_EVENTS
from evproc_pool.outcome import Outcome
from evproc_pool.roots import Key, key_of, plan_root
from evproc_pool.schedule import Accepted, Ending
from evproc_pool.sink import Run

_LOG: Final = logging.getLogger("evproc_pool")

# So many are read at a time: workers begin with the first ones while more are read.
_MOST_READ: Final = 2 * MOST_EVENTS


# So long the thread of the futures stays for the next one, and so long it leaves an event
# to whoever waits for it, in seconds.
_LINGER_SECONDS: Final = 0.5
_HELP_SECONDS: Final = 0.0005


class Sink:
    """A sink that all roots are told to that never reach a worker as well."""

    def begins(self, root: int) -> bool:
        """See `engine.Sink`."""
        return root >= 0

    def accepted(self, first: int, events: Sequence[Any]) -> None:
        """These roots were read."""

    def ended(self, root: int, ending: Ending) -> None:
        """See `engine.Sink`."""

    def settled(self, first: int, times: Sequence[float]) -> None:
        """See `engine.Sink`."""

    def unwanted(self, first: int, roots: int) -> None:
        """These came to nothing: no handler wants them."""
        self.settled(first, [0.0] * roots)

    def over(self, roots: Sequence[int], events: Sequence[int], seconds: Sequence[float]) -> None:
        """See `engine.Sink`."""
        for root, number, took in zip(roots, events, seconds, strict=True):
            self.ended(root, Ending(events=number, seconds=took))

    def dropped(self, first: int, roots: int) -> None:
        """See `engine.Sink`."""

    def broken(self, error: PoolError) -> None:
        """See `engine.Sink`."""

    @property
    def has_failed(self) -> bool:
        """Whether a root failed."""
        return False


class Feeder:
    """Reads events as the run has demand for them, plans them, and hands them in.

    Attributes:
        run: The run.
        read: How many were read.
        is_exhausted: Whether no more are.
        error: What reading raised, but a `KeyboardInterrupt`.
    """

    def __init__(
        self,
        engine: Engine,
        run: Run,
        sink: Sink,
        events: Iterator[Any],
        *,
        registry: Registry,
        key: Key | None,
    ) -> None:
        self.run = run
        self._engine = engine
        self._sink = sink
        self._events = events
        self._registry = registry
        self._key = key
        self.read = 0
        self.is_exhausted = False
        self.error: BaseException | None = None

    def feed(self, most: int | None = None, *, until_error: bool = False) -> bool:
        """Read what there is demand for; at the end of the events, close the run.

        Args:
            most: No more than so many.
            until_error: Read nothing more once a root has failed.

        Returns:
            Whether that is all until the workers are further. False if there is demand
            left: there was much to read, or much of it concerned no handler.
        """
        if self.is_exhausted:
            return True
        accepted = demand = 0
        is_first = not self.read
        if not (until_error and self._sink.has_failed):
            demand = self._engine.demand(self.run)
            if most is not None:
                demand = min(demand, most)
            accepted = self._take(self._read(min(demand, _MOST_READ)), until_error=until_error)
        if until_error and self._sink.has_failed:
            self.is_exhausted = True
        if self.is_exhausted:
            self._engine.close_run(self.run)
        # once the plan of the first ones is known, there may be demand for more
        return self.is_exhausted or (accepted == demand and not is_first)

    def _read(self, most: int) -> list[Any]:
        events: list[Any] = []
        try:
            # keeps what was read before the input raised
            events.extend(itertools.islice(self._events, most))
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            self.error = error
            self.is_exhausted = True
        if len(events) < most:
            self.is_exhausted = True
        return events

    def _take(self, events: list[Any], *, until_error: bool) -> int:
        """Plan events and hand in those that need a worker; say how many these are."""
        if not events:
            return 0
        first = self.read
        plan = self._registry.common_plan(events) if self._key is None else None
        if plan is not None:
            self.read += len(events)
            self._sink.accepted(first, events)
            if plan.indices:
                self._engine.accept(Accepted(self.run.id, first, events, [plan] * len(events)))
                return len(events)
            self._sink.unwanted(first, len(events))
            return 0
        return self._take_mixed(events, until_error=until_error)

    def _take_mixed(self, events: list[Any], *, until_error: bool) -> int:
        block = _Block(self._engine, self.run.id, has_keys=self._key is not None)
        for ev in events:
            index = self.read
            self.read += 1
            self._sink.accepted(index, [ev])
            try:
                plan = plan_root(self._registry, ev)
                key = None if self._key is None else key_of(self._key, ev)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                self._sink.ended(index, Ending(error=error, events=int(isinstance(ev, Event))))
                if until_error:
                    break
                continue
            if plan.indices:
                block.add(index, ev, plan, key)
            else:
                self._sink.unwanted(index, 1)
        block.hand_in()
        return block.total


class _Block:
    """Gathers neighbours into one `Accepted`."""

    def __init__(self, engine: Engine, run: int, *, has_keys: bool) -> None:
        self._engine = engine
        self._run = run
        self._has_keys = has_keys
        self._first = 0
        self._events: list[Any] = []
        self._plans: list[Plan] = []
        self._keys: list[Hashable] = []
        self.total = 0

    def add(self, index: int, ev: Any, plan: Plan, key: Hashable) -> None:
        if index != self._first + len(self._events):
            self.hand_in()
            self._first = index
        self._events.append(ev)
        self._plans.append(plan)
        self._keys.append(key)
        self.total += 1

    def hand_in(self) -> None:
        if self._events:
            keys = self._keys if self._has_keys else None
            self._engine.accept(Accepted(self._run, self._first, self._events, self._plans, keys))
            self._events, self._plans, self._keys = [], [], []


class Gathered(Sink):
    """The endings of a `process_many`: those that are not simply None."""

    def __init__(self) -> None:
        self._endings: dict[int, Ending] = {}
        self._has_failed = False

    @property
    def has_failed(self) -> bool:
        """Whether a root failed."""
        return self._has_failed

    def ended(self, root: int, ending: Ending) -> None:
        """See `engine.Sink`."""
        self._has_failed |= ending.error is not None
        self._endings[root] = ending

    def over(self, roots: Sequence[int], events: Sequence[int], seconds: Sequence[float]) -> None:
        """See `engine.Sink`."""

    def value(self) -> Any:
        """The value of the only root, or its error."""
        ending = self._endings.get(0)
        if ending is not None and ending.error is not None:
            raise ending.error
        return None if ending is None else ending.value

    def values(self, feeder: Feeder, *, return_exceptions: bool) -> list[Any]:
        """The list that `process_many` returns, or its error."""
        if not return_exceptions:
            failed = [root for root, ending in self._endings.items() if ending.error is not None]
            error = self._endings[min(failed)].error if failed else None
            if error is not None:
                raise error
        if feeder.error is not None:
            raise feeder.error
        values: list[Any] = [None] * feeder.read
        for root, ending in self._endings.items():
            values[root] = ending.value if ending.error is None else ending.error
        return values


class Streamed(Sink):
    """The endings of a `stream` that have not been yielded."""

    def __init__(self, *, ordered: bool, return_events: bool = False) -> None:
        self._ordered = ordered
        self._return_events = return_events
        self._events: dict[int, Any] = {}
        self._next = 0  # ordered: the index that is to be yielded next
        self._ended: dict[int, Ending] = {}  # ordered
        self._finished: deque[tuple[int, Ending]] = deque()  # not ordered

    @property
    def outstanding(self) -> int:
        """How many events were read and not yielded."""
        return len(self._events)

    def accepted(self, first: int, events: Sequence[Any]) -> None:
        """These roots were read."""
        self._events.update(zip(itertools.count(first), events))

    def ended(self, root: int, ending: Ending) -> None:
        """See `engine.Sink`."""
        if self._ordered:
            self._ended[root] = ending
        else:
            self._finished.append((root, ending))

    def settled(self, first: int, times: Sequence[float]) -> None:
        """See `engine.Sink`."""
        for root, seconds in enumerate(times, first):
            self.ended(root, Ending(seconds=seconds))

    def unwanted(self, first: int, roots: int) -> None:
        """See `Sink`; they are what they were."""
        for root in range(first, first + roots):
            self.ended(root, Ending(processed=self._events[root] if self._return_events else None))

    @property
    def has_next(self) -> bool:
        """Whether `take` has an outcome to give."""
        return self._next in self._ended if self._ordered else bool(self._finished)

    def take(self) -> Outcome | None:
        """The next outcome, or None if it is not there yet."""
        if self._ordered:
            index = self._next
            ending = self._ended.pop(index, None)
            if ending is None:
                return None
            self._next += 1
        elif self._finished:
            index, ending = self._finished.popleft()
        else:
            return None
        return Outcome(
            self._events.pop(index),
            index,
            ending.value,
            ending.stopped,
            ending.error,
            ending.handler,
            ending.attempts,
            ending.events,
            ending.seconds,
            ending.processed,
        )


def _settle(future: Future[Any], value: object, error: BaseException | None) -> None:
    """Let a future be done, whatever its callbacks raise."""
    try:
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(value)
    except KeyboardInterrupt:
        raise
    except BaseException:
        # not an `Exception`: those are logged by the future itself
        _LOG.exception("a callback of a future raised")


class _Future(Future[Any]):
    """Whoever waits for it does the work meanwhile, if nobody else does."""

    def __init__(self, futures: Futures) -> None:
        super().__init__()
        self._futures: Futures | None = futures
        self.root = -1

    def result(self, timeout: float | None = None) -> Any:
        """See `concurrent.futures.Future`."""
        self._help(timeout)
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """See `concurrent.futures.Future`."""
        self._help(timeout)
        return super().exception(timeout)

    def add_done_callback(self, fn: Callable[[Future[Any]], object]) -> None:
        """See `concurrent.futures.Future`."""
        super().add_done_callback(fn)
        if self._futures is not None and not self.done():
            self._futures.hurry()

    def _help(self, timeout: float | None) -> None:
        if self._futures is not None and not self.done():
            self._futures.help(self.root, inf if timeout is None else max(0.0, timeout))
        self._futures = None


class Futures(Sink):
    """The run of all submitted events, and the thread that drives for them.

    The thread is there while futures are outstanding, and a little longer, for the next
    one; it holds on to the engine and not to the pool, which can be collected in the
    meantime. Where an event could be sent at once, and nothing else is outstanding, it
    leaves it to whoever waits for the future, for a moment.
    """

    def __init__(self, engine: Engine, registry: Registry, key: Key | None, *, unordered: bool):
        self._engine = engine
        self._registry = registry
        self._key = key
        self._futures: dict[int, Future[Any]] = {}
        self._begun: set[int] = set()
        self._indices = itertools.count()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._may_linger = False  # whether somebody is likely to wait for the only future
        # last: from now on it may be told things, also if an interrupt strikes here
        self._run = engine.open(self, unordered=unordered, can_cancel=True)

    @property
    def outstanding(self) -> int:
        """How many futures are not done."""
        return len(self._futures)

    def submit(self, ev: Event) -> Future[Any]:
        """See `PoolProcessor.submit`."""
        future = _Future(self)
        try:
            plan = plan_root(self._registry, ev)
            keys = None if self._key is None else [key_of(self._key, ev)]
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            future.set_running_or_notify_cancel()
            future.set_exception(error)
            return future
        if not plan.indices:
            future.set_running_or_notify_cancel()
            future.set_result(None)
            return future
        with self._changed:
            is_only = not self._futures
            index = future.root = next(self._indices)
            self._futures[index] = future
        root = Accepted(self._run.id, index, [ev], [plan], keys)
        is_sent = is_only and keys is None and self._engine.send_now(root, self)
        if not is_sent:
            self._engine.accept(root)
        with self._changed:
            self._may_linger = is_sent
            self._changed.notify_all()
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._drive, name="evproc_pool futures", daemon=True
                )
                self._thread.start()
        if self._engine.closed is not None:
            # it ended meanwhile, maybe before it knew of this future
            self.broken(self._engine.closed)
        return future

    def help(self, root: int, seconds: float) -> None:
        """Wait a moment, and no longer than that, for the answer to an event sent at once."""
        answer = self._engine.collect(self._run.id, root, seconds)
        if answer is not None:
            self.ended(root, Ending(value=answer.value))
        else:
            self.hurry()

    def hurry(self) -> None:
        """Have the thread drive."""
        with self._changed:
            self._may_linger = False
            self._changed.notify_all()

    def _drive(self) -> None:
        try:
            while True:
                turns = self._engine.turns
                with self._changed:
                    if not self._futures:
                        self._changed.notify_all()
                        if self._engine.closed is None:
                            self._changed.wait(_LINGER_SECONDS)
                        if not self._futures:
                            self._thread = None
                            self._changed.notify_all()
                            return
                    if self._may_linger:
                        self._may_linger = False
                        self._changed.wait(_HELP_SECONDS)
                        continue
                self._engine.wait_turn(turns)
        except BaseException:
            # it has ended the engine, and so the futures; nobody must wait for more
            with self._changed:
                self._thread = None
                self._changed.notify_all()
            raise

    def drain(self) -> None:
        """Wait until no future is outstanding.

        Raises:
            RuntimeError: Called from a future's callback.
        """
        self._engine.check_may_wait()
        with self._changed:
            self._changed.wait_for(lambda: not self._futures or self._thread is None)

    # --- as a sink ---

    def begins(self, root: int) -> bool:
        """See `engine.Sink`."""
        future = self._futures.get(root)
        return future is not None and self._begin(root, future)

    def _begin(self, root: int, future: Future[Any]) -> bool:
        """Set a future running, or tell those who wait for it that it was cancelled.

        May be called again, when a batch comes back; a future may not.
        """
        if root not in self._begun:
            self._begun.add(root)
            future.set_running_or_notify_cancel()
        return not future.cancelled()

    def ended(self, root: int, ending: Ending) -> None:
        """See `engine.Sink`."""
        future = self._take(root)
        if future is None or future.cancelled():
            return
        _settle(future, ending.value, ending.error)

    def settled(self, first: int, times: Sequence[float]) -> None:
        """See `engine.Sink`."""
        for root in range(first, first + len(times)):
            self.ended(root, Ending())

    def broken(self, error: PoolError) -> None:
        """See `engine.Sink`."""
        with self._changed:
            futures = dict(self._futures)
            self._futures.clear()
            self._changed.notify_all()
        for root, future in futures.items():
            if self._begin(root, future):
                _settle(future, None, error)
        self._begun.clear()

    def _take(self, root: int) -> Future[Any] | None:
        """Take a future that is about to be done; None if `broken` was quicker."""
        with self._changed:
            self._begun.discard(root)
            return self._futures.pop(root, None)
