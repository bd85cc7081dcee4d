"""Chooses which run sends next, and which worker gets the batch. Pure.

A choice costs O(1).
"""

from __future__ import annotations

from evproc_pool.core.batching import Batcher
from evproc_pool.core.estimates import LONG_SECONDS, Estimates
from evproc_pool.core.event_columns import Bunch
from evproc_pool.core.inputs_and_effects import Send
from evproc_pool.core.retries import Retries
from evproc_pool.core.run_state import Run, SharedState
from evproc_pool.core.worker_loads import WorkerLoads


class Placement:
    """The part of the scheduler that sends batches."""

    def __init__(
        self,
        state: SharedState,
        loads: WorkerLoads,
        estimates: Estimates,
        retries: Retries,
        batcher: Batcher,
    ) -> None:
        self._state = state
        self._loads = loads
        self._estimates = estimates
        self._retries = retries
        self._batcher = batcher

    def fill(self, starting: int) -> None:
        """Send while a worker has room and something is ready.

        Until all workers that are being started are ready, no worker gets a batch behind an event
        that may be a slow one.
        """
        self._send_suspects()
        turns, loads = self._state.turns, self._loads
        passed = 0  # runs in a row for which no worker has room
        while passed < len(turns):
            run = turns.popleft()
            if not run.has_ready:
                run.has_turn = False
                continue
            turns.append(run)
            is_alone = not any(other.has_ready for other in turns if other is not run)
            worker = self._worker_for(run, starting, is_alone=is_alone)
            if worker is None:
                passed += 1
                continue
            passed = 0
            batch = self._batcher.make(
                run,
                workers=len(loads) + starting,
                idle=len(loads.idle) + starting,
                is_alone=is_alone,
            )
            loads.push(worker, batch)
            self._state.effects.append(Send(worker, batch))

    def _send_suspects(self) -> None:
        """Send the events that have to run alone."""
        while self._retries.has_suspects:
            worker = self._loads.reserve()
            if worker is None:
                return
            run, cascade, event, tried, place = self._retries.take_suspect()
            batch = self._batcher.make_alone(run, cascade, Bunch([event], tried, place))
            self._loads.push(worker, batch)
            self._state.effects.append(Send(worker, batch))
        self._loads.release()

    def _worker_for(self, run: Run, starting: int, *, is_alone: bool) -> int | None:
        """Choose the worker for the next batch of a run; None: no worker has room for it.

        The last events of a run wait for an idle worker: behind another event they might wait
        while that worker is long idle. Beside another run they do not wait, since it may keep
        every worker busy for ever. The events before the last go where they begin soonest.
        """
        workers = len(self._loads)
        idle = bool(starting or (is_alone and run.closed and run.left <= workers))
        is_late = not idle and is_alone and workers > 0
        is_late = is_late and self._batcher.is_near_end(run, workers=workers)
        worker = self._loads.earliest() if is_late else self._loads.roomiest(idle=idle)
        if worker is not None and run.next_near not in {None, worker}:
            worker = self._next_near(run, worker)
        if worker is None or worker in self._loads.idle or not self._is_long_next(run):
            return worker
        if not (is_alone or self._loads.idle):
            return worker  # other runs keep every worker busy, maybe for ever
        return self._loads.roomiest(idle=True)

    def _next_near(self, run: Run, worker: int) -> int:
        """Choose the worker that has the large buffers of what is next, if it has room.

        If it has none, or `worker` is idle and it is not, `worker` gets the next batch, and in it
        what it has the buffers of, if there is something.
        """
        near = run.next_near
        if near is not None and self._loads.has_room(near, worker):
            return near
        run.bring(worker)
        return worker

    def _is_long_next(self, run: Run) -> bool:
        """Whether the next event of a run is a long one and somebody may wait for it."""
        if run.opened.is_bulk:
            return False
        return self._estimates.most_seconds_of(run.next_plan) >= LONG_SECONDS
