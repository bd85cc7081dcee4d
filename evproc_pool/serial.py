"""A cascade in this process, told as an `Outcome`: what `stream` does with `workers=0`."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from time import perf_counter
from typing import Any

from evproc import Event, Processor
from evproc.exc import _unset
from evproc.processor import check_event, run_handlers
from evproc.registry import Handler, Plan
from evproc_pool.outcome import Outcome


class _Watched:
    """The handlers of a plan; after an exception, `current` is the one that raised it."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.current: str | None = None

    def __iter__(self) -> Iterator[Handler]:
        for handler in self._plan.handlers:
            self.current = handler.name
            yield handler


def run_cascade(processor: Processor, ev: Event, index: int, *, return_events: bool) -> Outcome:
    """Process an event as `Processor.process` does, and say how it went.

    Raises:
        KeyboardInterrupt: Passes through; everything else is in the outcome.
    """
    outcome = Outcome(ev, index, events=0)
    queue: deque[Any] = deque([ev])
    begin = perf_counter()
    handlers: _Watched | None = None
    try:
        while queue:
            handlers = None
            each = queue.popleft()
            check_event(each)
            outcome.events += 1
            handlers = _Watched(processor.registry.match(each))
            value = run_handlers(processor, each, handlers, queue)
            if value is not _unset:
                outcome.value, outcome.stopped = value, True
                break
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        outcome.error = error
        outcome.handler = handlers.current if handlers is not None else None
    outcome.seconds = perf_counter() - begin
    if return_events and outcome.error is None:
        outcome.processed = ev
    return outcome
