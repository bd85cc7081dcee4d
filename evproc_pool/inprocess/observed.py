"""Tells the listeners of a pool without workers what happens; see `observe.notifications`.

There are no batches here, so each event has a notification of its own, when it is over.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator
from time import perf_counter
from typing import TYPE_CHECKING, Any

from evproc.event import describe_event
from evproc.handler import Handler
from evproc_pool.observe import notifications as observe
from evproc_pool.observe.notifications import Notification
from evproc_pool.observe.notifier import Notifier
from evproc_pool.observe.seconds import Seconds
from evproc_pool.outcome import Outcome

if TYPE_CHECKING:
    from evproc_pool.observe.call_progress import CallProgress


class Timed:
    """Iterates over handlers, and notes the name of each, and when it begins."""

    __slots__ = ("_handlers", "begins", "names")

    def __init__(self, handlers: Iterable[Handler]) -> None:
        self._handlers = handlers
        self.names: list[str] = []
        self.begins: list[float] = []

    def __iter__(self) -> Iterator[Handler]:
        for handler in self._handlers:
            self.names.append(handler.name)
            self.begins.append(perf_counter())
            yield handler


class CallObserver:
    """Tells of one call.

    Attributes:
        path: Returns the path of the current event.
    """

    path: Callable[[], tuple[int, ...]]

    def __init__(
        self,
        notifier: Notifier | None,
        call: int,
        clock: Callable[[], float],
        progress: CallProgress | None = None,
    ) -> None:
        self._notifier = notifier
        self._call = call
        self._clock = clock
        self._progress = progress

    def _tell(self, *items: Notification) -> None:
        if self._notifier is not None:
            self._notifier.notify(*items)
        if self._progress is not None:
            for item in items:
                self._progress(item)

    def watch(self, outcomes: Iterable[Outcome], root: int) -> Iterator[Outcome]:
        """Yield the outcomes of a root's cascade, and tell of its begin and its end."""
        tell, clock = self._tell, self._clock
        tell(observe.Accepted(clock(), self._call, root, 1))
        failed, values, dropped, events = 0, 0, 1, 0
        try:
            for outcome in outcomes:
                if len(outcome.path) == 1:
                    failed = int(outcome.error is not None)
                    values, dropped = int(outcome.stopped), 0
                    events = max(1, outcome.events)  # what is no event counts as one
                last = [outcome]
                del outcome  # no frame may hold its error
                yield last.pop()
        finally:
            tell(observe.CascadesDone(clock(), self._call, 1, failed, values, dropped, events))

    def timed(self, handlers: Iterable[Handler]) -> Timed:
        """Return an iterable over handlers, for `attempted`."""
        return Timed(handlers)

    def attempted(
        self, ev: Any, timed: Timed, begun: float, *, stopped: bool, failed: bool, follow_ups: int
    ) -> None:
        """Tell that an event was run."""
        end = perf_counter()
        begins = array("d", timed.begins)
        handler_seconds = Seconds(begins, begins[1:] + array("d", (end,) if begins else ()))
        self._tell(
            observe.EventsDone(
                self._clock(),
                self._call,
                0,
                begun,
                Seconds.in_a_row(begun, array("d", (end,))),
                [tuple(timed.names)],
                handler_seconds,
                int(stopped),
                int(failed),
                follow_ups,
                (ev,),
                (self.path(),),
            )
        )

    def unmatched(self) -> None:
        """Tell that no handler wants the current event."""
        self._tell(observe.EventsUnmatched(self._clock(), self._call, 1))

    def failed(self, ev: Any, handler: str | None, error: BaseException, attempts: int) -> None:
        """Tell that an event has failed and is not run again."""
        self._tell(observe.EventFailed(*self._failure(ev, handler, error, attempts)))

    def retried(self, ev: Any, handler: str | None, error: BaseException, attempts: int) -> None:
        """Tell that an event has failed and is run again."""
        self._tell(observe.EventRetried(*self._failure(ev, handler, error, attempts)))

    def _failure(
        self, ev: Any, handler: str | None, error: BaseException, attempts: int
    ) -> tuple[Any, ...]:
        at, event = self._clock(), describe_event(ev)
        return at, self._call, self.path(), event, handler, error, attempts

    def drained(self) -> None:
        """Tell that nothing is left to do."""
        self._tell(observe.Drained(self._clock()))
