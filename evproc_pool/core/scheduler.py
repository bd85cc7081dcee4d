"""The scheduler decides which events go to which worker, and when. Pure.

It has no I/O, clock, thread or process: `Scheduler.step` takes one input and returns effects.
The coordinator feeds it from real workers, a simulation from a seed.

Theory of operation
-------------------

::

    Accepted --> [blocks of a run] --+                     +--> Settled / Over / Ended
                                     |   batch   worker    |
                                     +--> Send ----> ... --+--> Progress
                                     |                     |
                     [ready cascades of a run] <-----------+  follow-ups

A *run* is one call of the application, such as `process_many`. Its roots arrive in *blocks*:
neighbours by index, independent of each other. A block is cut at the end of a batch. Most roots
end without follow-ups, value or error: they get no object of their own and are counted
(`Settled`).

A root with follow-ups becomes a *cascade*: a queue of planned events. An ordered run has the
order of `Processor.process`: while one part of a cascade is in flight, no other part is sent.
Neighbours in the queue may go together, as a *chain*: if one of them stops or fails, the worker
does not run the rest. An unordered run may send every event of the queue at once. The cascade
ends when none is left, or when one stops or fails.

An event that fails, or that a worker dies of, may be run again (`retries`). Until then the rest
of an ordered cascade, and the roots with its key, wait. In an unordered run only the event
itself waits. An event that a worker died of is sent to an idle worker, which gets nothing else
meanwhile.

A root with a *key* waits until the cascade of the root before it with the same key is over.

Each worker gets `AHEAD_SECONDS` of work besides its current batch, in at most `PREFETCH`
batches. So it finds the next batch when it needs one, while the coordinator rests (`slack`, which
is less if events take less time than expected). Near the end of a closed run that is alone, a
worker gets `LATE_SECONDS`, and the least busy worker is next.

A batch has `TARGET_SECONDS` of work (`BULK_SECONDS` in a run that is alone and of which nobody
waits for single roots), as `estimates` has learned it from the plan's events. It has few events
while that is not known, and fewer when little work is left, so that no worker idles beside one
with a queue. If events take much longer than usual, the worker gives the rest of its batch back
(`Progress.gave_back`). If one event takes long while a worker is idle, the events behind it are
taken back (`TakenBack`).

Runs take turns, one batch each. Cascades go before new roots, which bounds the open ones.

The parts
---------

::

    step --> reports ------> keyed_roots --> event_results --> cascades --> retries
         --> hand_back ----> (the same)
         --> placement ----> batching, worker_loads, estimates, run_state

Each part calls only parts to its right, and all share `run_state.SharedState`.

Rules
-----

The tests check them after every step without another one right behind it:

- an accepted root is reported exactly once (`Settled`, `Over`, `Ended`, `Dropped`);
- a worker has at most `PREFETCH` batches, and none that it was not sent;
- no worker is idle while something is ready to send.

A step costs O(batches + results in it), not O(events).

Rejected: one queue that workers pull from (a killed worker can hold its lock); an object for
each event (at a million events a second, that is all the time there is); parts that inherit
from each other (every name is visible everywhere, and no test can replace one part).
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from typing import Final, Never

from evproc_pool.core.batches import Batch, KeyQueue
from evproc_pool.core.batching import SHARES_PER_WORKER, Batcher
from evproc_pool.core.cascades import Cascades
from evproc_pool.core.estimates import BULK_SECONDS, MOST_EVENTS, REPORT_SECONDS, Estimates
from evproc_pool.core.event_results import EventResults
from evproc_pool.core.hand_back import HandBack
from evproc_pool.core.inputs_and_effects import (
    Accepted,
    Closed,
    Effect,
    Finished,
    Input,
    Opened,
    PauseOver,
    Progress,
    Retired,
    TakenBack,
    Weighed,
    WorkerGone,
    WorkerReady,
)
from evproc_pool.core.keyed_roots import KeyedRoots
from evproc_pool.core.placement import Placement
from evproc_pool.core.reports import Reports
from evproc_pool.core.retries import Retries
from evproc_pool.core.retry_policy import RetryPolicy
from evproc_pool.core.run_state import ENDLESS, Block, Run, SharedState
from evproc_pool.core.worker_loads import PREFETCH, WorkerLoads
from evproc_pool.errors import InternalError

# `demand` ignores this many roots that wait for their keys when it looks for others.
_MOST_PASSED_OVER: Final = 4 * MOST_EVENTS


class Scheduler:
    """See the module's text. Not thread-safe: one thread at a time drives it.

    Args:
        policy: Which events are run again.
        most_workers: How many workers there will be if there is work for all of them.
        is_observed: Whether it also returns the effects that are `Observed`.
        prefetch: The most batches that a worker may hold.
    """

    # the classes of the parts: a test replaces one by a subclass
    loads_class: type[WorkerLoads] = WorkerLoads
    retries_class: type[Retries] = Retries
    cascades_class: type[Cascades] = Cascades
    events_class: type[EventResults] = EventResults
    keyed_class: type[KeyedRoots] = KeyedRoots
    reports_class: type[Reports] = Reports
    hand_back_class: type[HandBack] = HandBack
    placement_class: type[Placement] = Placement

    def __init__(
        self,
        policy: RetryPolicy | None = None,
        most_workers: int = 1,
        *,
        is_observed: bool = False,
        prefetch: int = PREFETCH,
    ) -> None:
        self.starting = 0  # how many workers are being started
        self._most_workers = most_workers
        self._keys: dict[Hashable, KeyQueue] = {}  # of the runs that share their keys
        self._closing: list[Run] = []  # closed, and not finished
        self._state = state = SharedState(is_observed=is_observed)
        self._estimates = estimates = Estimates()
        self._loads = loads = self.loads_class(prefetch)
        self._retries = retries = self.retries_class(state, policy or RetryPolicy())
        cascades = self.cascades_class(state, retries)
        events = self.events_class(state, retries, cascades)
        self._keyed = self.keyed_class(state, cascades, events)
        self._cascades = cascades
        self._reports = self.reports_class(state, cascades, events, self._keyed)
        self._hand_back = self.hand_back_class(
            state, loads, estimates, retries, cascades, events, self._keyed
        )
        batcher = Batcher(estimates, cascades.resume)
        self._placement = self.placement_class(state, loads, estimates, retries, batcher)

    # --- questions ---

    @property
    def workers(self) -> int:
        """How many workers are ready."""
        return len(self._loads)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is in flight and nothing waits to be sent."""
        nothing_waits = not (self._retries.has_suspects or self._state.has_ready)
        return nothing_waits and len(self._loads.idle) == len(self._loads)

    @property
    def employable(self) -> int:
        """How many workers the known work could employ; may overcount.

        Counts events in flight or waiting; of an ordered cascade or a key one at a time.
        O(batches in flight).
        """
        workers = 0
        for run in self._state.runs.values():
            if run.unordered:
                held = self._loads.of(run)
                workers += run.ready_events + sum(batch.size - batch.done for batch in held)
                workers += len(self._retries.of(run))
            else:
                workers += min(run.open, len(run.keys)) if run.keys else run.open
        return workers

    @property
    def unused(self) -> int | None:
        """The worker that would get the next batch, if no worker holds anything."""
        idle = self._loads.idle
        if len(idle) < len(self._loads) or self._retries.has_suspects:
            return None
        return next(iter(idle), None)

    def held_by(self, worker: int) -> Batch | None:
        """The batch that a worker runs, or None."""
        held = self._loads.held(worker)
        return held[0] if held else None

    def batches_of(self, worker: int) -> int:
        """How many batches a worker holds."""
        return len(self._loads.held(worker))

    @property
    def overloaded(self) -> list[int]:
        """Workers that hold more than their current event, while another is idle.

        If one of them is slow, the coordinator can take back its other events.
        """
        if not self._loads.idle or self._state.has_ready:
            return []
        return self._loads.overloaded

    @property
    def reportable(self) -> list[int]:
        """Workers that may have finished unreported events which others need.

        These have more than one unreported event in their batch. If nobody waits for single
        roots of its run, the batch counts only while a worker is idle. See `report_requests`.
        """
        is_any_idle = bool(self._loads.idle)
        return [
            worker
            for worker, batch in self._loads.at_several
            if is_any_idle or not batch.run.opened.is_bulk
        ]

    @property
    def lopsided(self) -> list[int]:
        """Workers that hold batches which another worker soon needs, while nothing else waits.

        The coordinator could ask them for the batches that they have not begun.
        """
        return [] if self._state.has_ready else self._loads.lopsided

    @property
    def slack(self) -> float:
        """For how many seconds every worker has work without the coordinator.

        Counts from the end of the current batches. 0 if somebody may wait for one of these: if
        a run has nothing more to send, unless it is closed and the only one. At most
        `REPORT_SECONDS` if somebody waits for single roots.
        """
        slack = self._loads.ahead
        if self._retries.has_suspects:
            return 0.0
        if slack:
            runs = self._state.runs
            for run in runs.values():
                if run.open and not (run.has_ready or (run.closed and len(runs) == 1)):
                    return 0.0
                if run.open and not run.opened.is_bulk:
                    slack = min(slack, REPORT_SECONDS)
        return slack

    def resize(self, most_workers: int) -> None:
        """Change how many workers there will be."""
        self._most_workers = most_workers

    def observe(self, *, is_observed: bool) -> None:
        """Return the effects that are `Observed` from now on, or no more."""
        self._state.is_observed = is_observed

    def demand(self, run: int) -> int:
        """How many more roots it takes to keep every worker busy.

        This is one batch for each worker, started or not, besides the batches that workers can
        still hold. A run of large batches needs enough to see its end coming, before it is cut
        too coarsely. 0 once the run is closed or has failed.
        """
        state = self._state.runs.get(run)
        if state is None or state.closed or state.bound != ENDLESS:
            return 0
        batches = max(self._most_workers, self.workers) + self._loads.free
        wanted = self._estimates.events_per_batch(state.newest_plan) * batches
        if state.opened.is_bulk:
            large = self._estimates.events_per_batch(state.newest_plan, BULK_SECONDS)
            wanted = max(wanted, large * SHARES_PER_WORKER * self.workers)
        # Sendable roots with keys are cascades. If all others wait for keys and a worker is
        # idle or can be started, other roots have to be found, up to a limit.
        keyed = state.waiting
        if (self._loads.idle or self.workers < self._most_workers) and not state.has_ready:
            keyed = max(0, state.waiting - _MOST_PASSED_OVER)
        return max(0, wanted - state.backlog - keyed)

    @property
    def pending(self) -> int:
        """About how many known events are unsent, or wait to be run again."""
        runs = list(self._state.runs.values())
        return sum([run.left for run in runs]) + self._retries.waiting

    @property
    def pausing(self) -> Collection[int]:
        """The tokens of the events that wait for a pause to end."""
        return self._retries.pausing.keys()

    # --- the step ---

    def step(  # noqa: C901, PLR0912 - a case each
        self, item: Input, *, more: bool = False
    ) -> list[Effect]:
        """Advance the schedule by one input.

        Args:
            item: The input.
            more: Whether the next input is there already. Then nothing is sent before it, since
                the size of a batch depends on the roots behind it.

        Returns:
            What to do, in order; nothing to send after `Weighed`.

        Raises:
            InternalError: `item` names no known run, worker, batch or position. The state is
                unchanged.
        """
        match item:
            case Progress():
                self._progress(item)
            case Weighed():
                self._weighed(item)
                return []
            case Accepted():
                self._accepted(item)
            case Opened():
                self._opened(item)
            case Closed():
                self._closed(item)
            case WorkerReady():
                self._loads.add(item.worker)
            case TakenBack():
                self._hand_back.taken_back(item)
            case Retired():
                self._loads.retire(item.worker)
            case WorkerGone():
                self._hand_back.worker_gone(item)
            case PauseOver():
                self._retries.due(item.token)
            case _:
                _never(item)
        if not more:
            self._placement.fill(self.starting)
        state = self._state
        # last: everything else about a run is reported before
        for run in [each for each in self._closing if not each.open]:
            self._closing.remove(run)
            del state.runs[run.id]
            state.effects.append(Finished(run.id))
        effects, state.effects = state.effects, []
        return effects

    def _opened(self, item: Opened) -> None:
        if item.run in self._state.runs:
            raise InternalError(f"run {item.run} is open already")
        keys = self._keys if item.shares_keys else {}
        self._state.runs[item.run] = Run(item, keys)

    def _accepted(self, item: Accepted) -> None:
        run = self._state.runs.get(item.run)
        if run is None:
            raise InternalError(f"there is no run {item.run}")
        if run.closed:
            raise InternalError(f"run {item.run} is closed")
        if not item.events or len(item.events) != len(item.plans):
            raise InternalError(f"{len(item.events)} events with {len(item.plans)} plans")
        if item.keys is not None:
            _check_keys(item.keys, len(item.events))
        run.open += len(item.events)
        run.newest_plan = item.plans[-1]
        if item.keys is None:
            run.blocks.append(Block(item.first, item.events, item.plans))
            run.backlog += len(item.events)
        else:
            self._keyed.accept(run, item, item.keys)
        self._cascades.drop_unwanted(run)
        self._state.take_turns(run)

    def _closed(self, item: Closed) -> None:
        run = self._state.runs.get(item.run)
        if run is None:
            return  # closed before, and finished
        if not run.closed:
            run.closed = True
            self._closing.append(run)
        if item.drop:
            run.bound = -1
            self._cascades.drop_unwanted(run)

    def _progress(self, item: Progress) -> None:
        held = self._loads.held(item.worker)
        if not held or not held[0].done <= item.done <= held[0].size:
            raise InternalError(f"worker {item.worker}: progress to {item.done} in no such batch")
        batch = held[0]
        if len(item.times) != item.done - batch.done:
            raise InternalError(f"{len(item.times)} times for {item.done - batch.done} events")
        if any(events < 1 for _, events, _ in item.timings):
            raise InternalError(f"worker {item.worker}: timings of no events")
        begin, batch.done = batch.done, item.done
        self._loads.set_slow(item.worker, is_slow=False)
        self._estimates.learn(item.timings, item.times)
        if item.timings and item.done > begin:
            seconds = sum([seconds for _, _, seconds in item.timings])
            self._loads.learn_pace(item.worker, item.done - begin, seconds)
        if batch.done == batch.size or item.gave_back:
            self._loads.pop_first(item.worker)
        self._reports.take(batch, item)
        if item.gave_back:
            self._hand_back.hand_back(batch, {})

    def _weighed(self, item: Weighed) -> None:
        batch = item.batch
        if batch not in self._loads.held(item.worker):
            raise InternalError(f"worker {item.worker} holds no such batch")
        events_bytes = item.size_bytes if item.events_bytes is None else item.events_bytes
        self._estimates.learn_bytes(batch.parts[0].plans[0], events_bytes / batch.size)
        self._loads.weigh(item.worker, batch, item.size_bytes)


def _check_keys(keys: Sequence[Hashable], events: int) -> None:
    if len(keys) != events:
        raise InternalError(f"{events} events with {len(keys)} keys")
    try:
        frozenset(keys)
    except TypeError as error:
        raise InternalError(f"a key: {error}") from error


def _never(item: Never) -> Never:
    """Do what `typing.assert_never` does, with an error of this package."""
    raise InternalError(f"unknown input {item!r}")
