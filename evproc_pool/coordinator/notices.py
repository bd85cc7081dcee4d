"""Makes the notifications of a coordinator, if anybody listens; see `observe.notifications`.

Each method is called at one place of the coordinator, for a batch or a list of effects at a time:

- `accepted`: roots come in. `unwanted`, `unplanned`: roots that need no worker, from the thread
  of their caller;
- `performed`: effects of the scheduler, before they are performed. So listeners hear of the end
  of a cascade before its caller does;
- `reported`, `over`: what workers have run, before the scheduler takes it in;
- `answered`: a single event that went past the scheduler;
- the rest: about workers.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any, Final, cast, get_args

from evproc.event import describe_event
from evproc.registry import Registry
from evproc_pool.coordinator import event_times
from evproc_pool.coordinator.cancellation import Withdrawn
from evproc_pool.coordinator.single_events import SentSingle
from evproc_pool.coordinator.worker_record import Sent, Stopped
from evproc_pool.core import inputs_and_effects as core
from evproc_pool.core.event_columns import PlanLike
from evproc_pool.core.supervisor_inputs import Effect, LookAgain
from evproc_pool.errors import PoolClosedError, PoolError
from evproc_pool.observe import notifications as observe
from evproc_pool.observe.notifications import Notification, Same
from evproc_pool.observe.notifier import Notifier
from evproc_pool.observe.seconds import Seconds
from evproc_pool.protocol import messages
from evproc_pool.protocol.backend import Gone

if TYPE_CHECKING:
    from evproc_pool.observe.call_progress import CallProgress

_Ends = core.Settled | core.Over | core.Ended | core.Dropped
_ENDS: Final = frozenset[type](get_args(_Ends))
_NOT_TOLD: Final = frozenset[type]({LookAgain, core.Finished, core.EventEnded})


class Notices:
    """Tells the listeners of a pool what its coordinator does.

    Args:
        notifier: Has the listeners; None: there are none, and only calls are watched.
        registry: Names the handlers.
        clock: Returns monotonic seconds.

    Attributes:
        watchers: What gets the notifications of a call, by the call's number: its progress. They
            get them at once, in the thread that makes them.
    """

    def __init__(
        self, notifier: Notifier | None, registry: Registry, clock: Callable[[], float]
    ) -> None:
        self.watchers: dict[int, CallProgress] = {}
        self._notifier = notifier
        self._clock = clock
        self._registry = registry
        self._names: dict[tuple[int, ...], tuple[str, ...]] = {}
        self._open = 0  # roots that are accepted and not over

    @property
    def has_listeners(self) -> bool:
        """Whether there are any, beside those that watch a call."""
        return self._notifier is not None

    def _tell(self, *items: Notification) -> None:
        if self._notifier is not None:
            self._notifier.notify(*items)
        if self.watchers:
            for item in items:
                watcher = self.watchers.get(getattr(item, "call", observe.SINGLE_CALL))
                if watcher is not None:
                    watcher(item)

    def _names_of(self, indices: tuple[int, ...]) -> tuple[str, ...]:
        names = self._names.get(indices)
        if names is None:
            handlers = self._registry.handlers
            names = self._names[indices] = tuple([handlers[index].name for index in indices])
        return names

    # --- events ---

    def accepted(self, item: core.Accepted) -> None:
        """Tell of roots that were handed in."""
        self._open += len(item.events)
        at = self._clock()
        self._tell(observe.Accepted(at, item.run, item.first, len(item.events)))

    def unwanted(self, call: int | None, first: int, roots: int) -> None:
        """Tell of roots that no handler wants; `call` None: of `process`. From any thread."""
        call = observe.SINGLE_CALL if call is None else call
        at = self._clock()
        self._tell(
            observe.Accepted(at, call, first, roots),
            observe.EventsUnmatched(at, call, roots),
            observe.CascadesDone(at, call, roots, 0, 0, 0, roots),
        )

    def unplanned(self, call: int, root: int, event: Any, error: BaseException) -> None:
        """Tell of a root that failed before it had a plan. From any thread."""
        at = self._clock()
        self._tell(
            observe.Accepted(at, call, root, 1),
            observe.EventFailed(at, call, (root,), describe_event(event), None, error, 1),
            observe.CascadesDone(at, call, 1, 1, 0, 0, 1),
        )

    def performed(self, effects: Sequence[Effect]) -> None:
        """Tell what effects of the scheduler mean."""
        told: list[Notification] = []
        over: dict[int, list[int]] = {}  # by run; see `_add_up`
        if _NOT_TOLD.issuperset(map(type, effects)):
            return
        at = self._clock()
        for effect in effects:
            # no `match`, which takes five times as long: there are effects for each frame
            kind = type(effect)
            if kind in _NOT_TOLD:
                continue
            if kind in _ENDS:
                ended = cast("_Ends", effect)
                _add_up(over.setdefault(ended.run, [0, 0, 0, 0, 0]), ended)
            elif isinstance(effect, core.Send):
                batch = effect.batch
                told.append(observe.Dispatched(at, batch.run_id, effect.worker, batch.size))
            else:
                told += self._of_event(effect, at)
        for run, counts in over.items():
            self._open -= counts[0]
            told.append(observe.CascadesDone(at, run, *counts))
        if over and not self._open:
            told.append(observe.Drained(at))
        if told:
            self._tell(*told)

    def _of_event(self, effect: Effect, at: float) -> list[Notification]:
        """What an effect says about a single event."""
        match effect:
            case core.EventFailed() if not _is_cancelled(effect.error, effect.handler):
                return [observe.EventFailed(at, *_failure(effect))]
            case core.EventRetried():
                return [observe.EventRetried(at, *_failure(effect))]
            case core.Unwanted(run, events):
                return [observe.EventsUnmatched(at, run, events)]
        return []

    def reported(
        self,
        worker: int,
        sent: Sent,
        frame: messages.ProgressFrame,
        follow_ups: Mapping[int, Sequence[Any]],
    ) -> None:
        """Tell what a worker has run."""
        ran = event_times.ran(sent, frame, self._names_of)
        if not ran.positions:
            return
        results = frame.results
        values = 0 if results is None or results.values is None else len(results.values.positions)
        errors = 0 if results is None else len(results.errors)
        if len(follow_ups) == 0 or results is None:
            returned = 0
        elif results.counts:
            returned = sum(map(len, follow_ups.values()))
        else:
            returned = len(follow_ups)
        done = observe.EventsDone(
            self._clock(),
            sent.batch.run_id,
            worker,
            frame.begun,
            ran.seconds,
            ran.handlers,
            ran.handler_seconds,
            values,
            errors,
            returned,
            *event_times.events_and_paths(sent.batch, ran.positions),
        )
        self._tell(done)

    def over(self, worker: int, sent: Sent, over: int) -> None:
        """Tell of events of a dead worker that are over, up to a position; it reported none."""
        batch = sent.batch
        skipped = event_times.skipped_of(sent, batch.done, over, None)
        positions = [each for each in range(batch.done, over) if each not in skipped]
        if not positions:
            return
        names = [self._names_of(batch.at(position)[1].indices) for position in positions]
        nothing = array("d", (0.0,)) * len(positions)
        columns = event_times.events_and_paths(batch, positions)
        at = self._clock()
        self._tell(
            observe.EventsDone(
                at,
                batch.run_id,
                worker,
                0.0,
                Seconds(nothing, nothing),
                names,
                None,
                0,
                0,
                0,
                *columns,
            )
        )

    def answered(
        self, single: SentSingle, place: tuple[int, int] | None, event: Any, plan: PlanLike
    ) -> None:
        """Tell of a single event that a worker has answered.

        `place` has its run and its root; None: it is of `process`.
        """
        worker, item = single.worker, single.frames[0]
        at = self._clock()
        if item.tag == messages.QUIET:
            frame = messages.load_quiet(item.payload)
        else:
            frame = messages.load_progress(item.payload, item.buffers)
        call, root = place or (observe.SINGLE_CALL, 0)
        seconds = Seconds.in_a_row(frame.begun, array("d", bytes(frame.ends)))
        names = self._names_of(plan.indices)
        results = frame.results
        if results is not None and results.short:
            names = names[: 1 + plan.indices.index(results.short[1])]
        handler_seconds = seconds if len(names) == 1 else None
        if frame.begins:
            begins = array("d", bytes(frame.begins))
            handler_seconds = Seconds(begins, begins[1:] + array("d", bytes(frame.ends)))
        values = int(results is not None and results.values is not None)
        done = observe.EventsDone(
            at,
            call,
            worker,
            frame.begun,
            seconds,
            Same(names, 1),
            handler_seconds,
            values,
            0,
            0,
            (event,),
            ((root,),),
        )
        self._tell(
            observe.Accepted(at, call, root, 1),
            observe.Dispatched(at, call, worker, 1),
            done,
            observe.CascadesDone(at, call, 1, 0, values, 0, 1),
            observe.Drained(at),
        )

    # --- workers ---

    def started(self, worker: int, pid: int | None) -> None:
        """Tell that a worker was started."""
        self._tell(observe.WorkerStarted(self._clock(), worker, pid))

    def ready(self, worker: int, pid: int | None) -> None:
        """Tell that a worker is ready."""
        self._tell(observe.WorkerReady(self._clock(), worker, pid))

    def lost(self, item: Gone, at: Stopped | None = None, handler: str | None = None) -> None:
        """Tell that a worker died, and at which event; None: it ran none."""
        lost = observe.WorkerLost(
            self._clock(), item.worker, item.pid, item.exitcode, None, handler
        )
        if at is not None:
            event = describe_event(at.batch.at(at.position)[0])
            path = at.batch.place_at(at.position).path
            lost = lost._replace(event=event, path=path, seconds=at.seconds)
        self._tell(lost)

    def replaced(self, worker: int, pid: int | None) -> None:
        """Tell that a worker has ended as it was asked to."""
        self._tell(observe.WorkerReplaced(self._clock(), worker, pid))

    def ended(self, reason: PoolError) -> None:
        """Tell that all workers are ended."""
        dropped, self._open = self._open, 0
        text = "" if isinstance(reason, PoolClosedError) else str(reason)
        self._tell(observe.WorkersEnded(self._clock(), text, dropped))


def _is_cancelled(error: BaseException | None, handler: str | None) -> bool:
    """Whether an event did not run, or was killed, because its caller gave it up."""
    if isinstance(error, Withdrawn):
        return True
    return isinstance(error, CancelledError) and handler is None  # else a handler raised it


def _failure(effect: core.EventFailed | core.EventRetried) -> tuple[Any, ...]:
    """The fields of a notification besides `at`."""
    event = describe_event(effect.event)
    return effect.run, effect.place.path, event, effect.handler, effect.error, effect.attempts


def _add_up(
    counts: list[int], effect: core.Settled | core.Over | core.Ended | core.Dropped
) -> None:
    """Add cascades to the counts of `CascadesDone`: all, failed, with values, dropped; events."""
    if isinstance(effect, (core.Settled, core.Over)):
        roots = len(effect.times if isinstance(effect, core.Settled) else effect.roots)
        counts[0] += roots
        counts[4] += roots if isinstance(effect, core.Settled) else sum(effect.events)
        counts[2] += 0 if effect.values is None else len(effect.values.places)
    elif isinstance(effect, core.Dropped):
        counts[0] += effect.roots
        counts[3] += effect.roots
    else:
        ending = effect.ending
        is_cancelled = _is_cancelled(ending.error, ending.handler)
        counts[0] += 1
        counts[1] += ending.error is not None and not is_cancelled
        counts[2] += ending.stopped
        counts[3] += is_cancelled
        counts[4] += ending.events
