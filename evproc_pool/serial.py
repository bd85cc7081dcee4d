"""A cascade in this process, told as an `Outcome`: what the pool does with `workers=0`."""

from __future__ import annotations

import contextlib
import random
import time
from collections import deque
from collections.abc import Iterator
from time import perf_counter
from typing import Any, Final

from evproc import Event, Processor
from evproc.exc import _unset, add_note
from evproc.processor import check_event, run_handlers
from evproc.registry import Handler, Plan
from evproc_pool import pickling
from evproc_pool.outcome import Outcome
from evproc_pool.retries import RetryPolicy, Tried, attempt_of
from evproc_pool.schedule import Result


class _Watched:
    """The handlers of a plan; after an exception, `current` is the one that raised it."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.current: str | None = None

    def __iter__(self) -> Iterator[Handler]:
        for handler in self._plan.handlers:
            self.current = handler.name
            yield handler


def run_cascade(
    processor: Processor, ev: Event, index: int, *, policy: RetryPolicy, return_events: bool
) -> Outcome:
    """Process an event as `Processor.process` does, and say how it went.

    Raises:
        KeyboardInterrupt: Passes through; everything else is in the outcome.
    """
    outcome = Outcome(ev, index, events=0)
    queue: deque[Any] = deque([ev])
    root: Event | None = None
    paused = 0.0
    begin = perf_counter()
    attempt: _Attempt | None = None
    try:
        while queue:
            attempt = None
            each = queue.popleft()
            check_event(each)
            outcome.events += 1
            attempt = _Attempt(processor, each, policy)
            value = attempt.run(queue)
            outcome.attempts = max(outcome.attempts, attempt.number)
            paused += attempt.paused
            if root is None:
                root = attempt.ev
            if value is not _unset:
                outcome.value, outcome.stopped = value, True
                break
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        outcome.error = error
        if attempt is not None:
            outcome.handler = attempt.handler
            outcome.attempts = max(outcome.attempts, attempt.number)
            paused += attempt.paused
    outcome.seconds = perf_counter() - begin - paused
    if return_events and outcome.error is None:
        outcome.processed = root
    return outcome


# its own: that of the `random` module may be seeded by the application
_RANDOM: Final = random.Random()  # noqa: S311 - nobody gains by guessing it


class _Attempt:
    """One event, run until it is well or given up.

    Attributes:
        ev: The event as it was run last: a copy, from the second attempt on.
        handler: The handler that is running, or raised.
        number: Which attempt it is, from 1.
        paused: How long it has waited between attempts, in seconds.
    """

    def __init__(self, processor: Processor, ev: Event, policy: RetryPolicy) -> None:
        self.ev = ev
        self.handler: str | None = None
        self.number = 1
        self.paused = 0.0
        self._processor = processor
        self._policy = policy

    def run(self, queue: deque[Any]) -> Any:
        """Run it; see `evproc.processor.run_handlers`."""
        plan = self._processor.registry.match(self.ev)
        if not self._policy.max_retries:
            return self._run_once(plan, queue)
        pickled = self._pickle()
        tried: Plan | Tried = plan
        while True:
            follow_ups: deque[Any] = deque()
            try:
                value = self._run_once(plan, follow_ups)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                failed = Result(error=error, handler=self.handler)
                again = self._policy.again(tried, failed, has_died=False)
                if again is None:
                    if self.number > 1:
                        add_note(error, f"evproc_pool: given up after {self.number} attempts")
                    raise
                tried = again.tried
            else:
                queue.extend(follow_ups)
                return value
            seconds = self._policy.pause(tried.failures, _RANDOM.random())
            time.sleep(seconds)
            self.paused += seconds
            self.number = attempt_of(tried)
            if pickled is not None:
                # as the failed attempt left it, where it cannot be rebuilt
                with contextlib.suppress(Exception):
                    self.ev = pickling.loads(pickled)

    def _pickle(self) -> bytes | None:
        """The event as it is now; None if it has to be run again as the failed attempt left it."""
        try:
            return pickling.dumps(self.ev)
        except Exception:
            return None

    def _run_once(self, plan: Plan, queue: deque[Any]) -> Any:
        handlers = _Watched(plan)
        try:
            return run_handlers(self._processor, self.ev, handlers, queue)
        finally:
            self.handler = handlers.current
