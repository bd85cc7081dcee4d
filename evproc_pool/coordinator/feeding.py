"""How events get into a run, and where the endings of its cascades go.

`Feeder` reads an application's events, no further ahead than the run has demand for.
`Gathered` (for `process_many`), `outcome_stream.OutcomeStream` (`stream`) and `futures.Futures`
(`submit`) are the sinks that collect endings.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Final

from evproc import Event
from evproc.registry import Registry
from evproc_pool.coordinator.engine import Engine
from evproc_pool.coordinator.run_handle import OutcomeSink, RunHandle
from evproc_pool.core.error_notes import note_place
from evproc_pool.core.estimates import MOST_EVENTS
from evproc_pool.core.inputs_and_effects import Accepted, Ending, Over, Settled
from evproc_pool.core.root_events import Key, key_of, keys_of, plan_root
from evproc_pool.serialization.basics import detached

if TYPE_CHECKING:
    from evproc_pool.observe.call_progress import CallProgress

# The most events read at a time: workers begin with the first ones while more are read.
_MOST_READ: Final = 2 * MOST_EVENTS

# Events come slowly if reading them takes longer than both of these, in seconds: for each event,
# and in all.
_SLOW_SECONDS: Final = 0.0001
_PAUSE_SECONDS: Final = 0.001

# Iterators over events that exist already.
_QUICK: Final[tuple[type, ...]] = (type(iter([])), type(iter(())))


class Feeder:
    """Reads events as the run has demand for them, plans them, and hands them in.

    Attributes:
        run: The run.
        read: How many events were read.
        is_exhausted: Whether the input is at its end.
        error: The exception that reading raised, except a `KeyboardInterrupt`.
    """

    def __init__(
        self,
        engine: Engine,
        run: RunHandle,
        sink: OutcomeSink,
        events: Iterator[Any],
        *,
        registry: Registry,
        key: Key | None,
        clock: Callable[[], float],
    ) -> None:
        self.run = run
        self._engine = engine
        self._sink = sink
        self._events = events
        self._registry = registry
        self._key = key
        self._clock = clock
        # The most events to read at a time. If they come slowly it is one: that is sent before
        # the next one is waited for.
        self._portion = _MOST_READ if isinstance(events, _QUICK) else 1
        self.read = 0
        self.is_exhausted = False
        self.error: BaseException | None = None

    def watched(self, progress: CallProgress | None) -> AbstractContextManager[object]:
        """Show the progress of the call while the block runs; None: show nothing."""
        if progress is None:
            return nullcontext()
        from evproc_pool.coordinator.watched import Watched  # few calls need it

        return Watched(self._engine, self.run, progress, self._registry, self._clock)

    def feed(self, most: int | None = None, *, until_error: bool = False) -> bool:
        """Read as many events as the run has demand for; at the end of the input, close the run.

        Args:
            most: The most events to read.
            until_error: Read nothing more once a root has failed.

        Returns:
            Whether the caller may wait for the workers now. False if the run has demand left:
            there is more to read, or no handler wanted much of it.
        """
        if self.is_exhausted:
            return True
        accepted = demand = 0
        is_first = not self.read
        if not (until_error and self._sink.has_failed):
            demand = self._engine.demand(self.run)
            if most is not None:
                demand = min(demand, most)
            accepted = self.give(self._read(demand), until_error=until_error)
        if until_error and self._sink.has_failed:
            self.is_exhausted = True
        if self.is_exhausted:
            self._engine.close_run(self.run)
        # after the first events, whose plan is known then, there may be demand for more
        return self.is_exhausted or (accepted == demand and not is_first)

    def check(self) -> None:
        """Raise what reading raised; once."""
        if self.error is not None:
            error, self.error = self.error, None
            try:
                raise error
            finally:
                del error  # see `errors`

    def end(self) -> None:
        """Close the run; `give` is not called again."""
        self.is_exhausted = True
        self._engine.close_run(self.run)

    def _read(self, most: int) -> list[Any]:
        """Read at most so many events; fewer at first, and if they come slowly."""
        wanted = min(most, self._portion)
        events: list[Any] = []
        began = self._clock()
        try:
            # keeps the events that were read before the input raised
            events.extend(itertools.islice(self._events, wanted))
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            self.error = error
        self.is_exhausted = len(events) < wanted
        if events:
            is_slow = self._clock() - began > max(_PAUSE_SECONDS, _SLOW_SECONDS * len(events))
            self._portion = 1 if is_slow else min(_MOST_READ, 2 * self._portion)
        return events

    def give(self, events: list[Any], *, until_error: bool = False) -> int:
        """Plan events and hand in those that need a worker; return how many do."""
        if not events:
            return 0
        first = self.read
        plan = self._registry.common_plan(events)
        keys = None if self._key is None or plan is None else keys_of(self._key, events)
        if plan is not None and (keys is not None or self._key is None):
            self.read += len(events)
            self._sink.accepted(first, events)
            if plan.indices:
                plans = [plan] * len(events)
                self._engine.accept(Accepted(self.run.id, first, events, plans, keys))
                return len(events)
            self._unwanted(first, len(events))
            return 0
        return self._give_mixed(events, until_error=until_error)

    def _unwanted(self, first: int, roots: int) -> None:
        if (notices := self._engine.notices) is not None:
            notices.unwanted(self.run.id, first, roots)
        self._sink.unwanted(first, roots)

    def _give_mixed(self, events: list[Any], *, until_error: bool) -> int:
        taken: list[tuple[Any, ...]] = []  # index, event, plan, key
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
                note_place(error, (index,), has_several=self.run.has_several)
                ran = int(isinstance(ev, Event))
                ending = Ending(error=detached(error), events=ran, failed=1, failed_event=ev)
                if (notices := self._engine.notices) is not None:
                    notices.unplanned(self.run.id, index, ev, error)
                self._sink.ended(index, ending)
                if until_error:
                    break
                continue
            if plan.indices:
                taken.append((index, ev, plan, key))
            else:
                self._unwanted(index, 1)
        # index less position is the same for neighbours
        for _, block in itertools.groupby(enumerate(taken), lambda item: item[1][0] - item[0]):
            indices, roots, plans, keys = map(list, zip(*(root for _, root in block), strict=True))
            has_keys = self._key is not None
            self._engine.accept(
                Accepted(self.run.id, indices[0], roots, plans, keys if has_keys else None)
            )
        return len(taken)


def _value_of(ending: Ending) -> Any:
    try:
        if ending.error is not None:
            raise ending.error
        return ending.value
    finally:
        del ending  # see `errors`


class Gathered(OutcomeSink):
    """The endings of a `process_many`. Those that are only None are not kept."""

    def __init__(self) -> None:
        self._endings: dict[int, Ending] = {}
        # values of neighbouring roots, with the index of the first; and of others, with theirs
        self._neighbours: list[tuple[int, Sequence[Any]]] = []
        self._scattered: list[tuple[Sequence[int], Sequence[Any]]] = []

    def ended(self, root: int, ending: Ending) -> None:
        """See `run_handle.OutcomeSink`."""
        self.has_failed |= ending.error is not None
        self._endings[root] = ending

    def settled(self, item: Settled) -> None:
        """See `run_handle.OutcomeSink`."""
        if item.values is not None:
            self._neighbours.append((item.first, item.values.items))

    def over(self, item: Over) -> None:
        """See `run_handle.OutcomeSink`."""
        if item.values is not None:
            places = item.values.places
            values = [item.values.items[place] for place in places]
            self._scattered.append(([item.roots[place] for place in places], values))

    def value(self) -> Any:
        """Return the value of the only root, or raise its error."""
        if self._endings:
            return _value_of(self._endings.pop(0))
        for _, values in (*self._neighbours, *self._scattered):
            return values[0]
        return None

    def values(self, feeder: Feeder, *, return_exceptions: bool) -> list[Any]:
        """Return the list for `process_many`, or raise its error."""
        if not return_exceptions:
            failed = [root for root, ending in self._endings.items() if ending.error is not None]
            if failed:
                _value_of(self._endings.pop(min(failed)))
        feeder.check()
        values: list[Any] = [None] * feeder.read
        for first, items in self._neighbours:
            values[first : first + len(items)] = items
        for roots, items in self._scattered:
            for root, item in zip(roots, items, strict=True):
                values[root] = item
        for root, ending in self._endings.items():
            values[root] = ending.value if ending.error is None else ending.error
        return values
