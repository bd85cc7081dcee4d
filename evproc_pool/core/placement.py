"""Chooses which run sends next, and which worker gets the batch. Pure.

A choice costs O(1), or O(workers) in a run with large buffers that are in shared memory.
"""

from __future__ import annotations

from typing import Final

from evproc_pool.core.batching import Batcher
from evproc_pool.core.estimates import LONG_SECONDS, Estimates
from evproc_pool.core.event_columns import Bunch
from evproc_pool.core.inputs_and_effects import Send
from evproc_pool.core.retries import Retries
from evproc_pool.core.run_state import Run
from evproc_pool.core.shared_state import SharedState
from evproc_pool.core.worker_loads import WorkerLoads

#: After this many batches of a run, others may take over cascades whose worker has no room.
MOST_PASSED: Final = 16


class Placement:
    """The part of the scheduler that sends batches.

    Attributes:
        starting: How many workers are being started. Until they are ready, no worker gets a
            batch behind an event that may be a slow one.
    """

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
        self.starting = 0

    def fill(self) -> None:
        """Send while a worker has room and something is ready."""
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
            worker = self._worker_for(run, is_alone=is_alone)
            if worker is None:
                passed += 1
                continue
            passed = 0
            batch = self._batcher.make(
                run,
                worker,
                workers=len(loads) + self.starting,
                idle=len(loads.idle) + self.starting,
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

    def _worker_for(self, run: Run, *, is_alone: bool) -> int | None:
        """Choose the worker for the next batch of a run; None: no worker has room for it.

        The last events of a run wait for an idle worker: behind another event they might wait
        while that worker is long idle. Beside another run they do not wait, since it may keep
        every worker busy for ever. The events before the last go where they begin soonest.
        """
        workers = len(self._loads)
        idle = bool(self.starting or (is_alone and run.closed and run.left <= workers))
        is_late = not idle and is_alone and workers > 0
        is_late = is_late and self._batcher.is_near_end(run, workers=workers)
        worker = self._loads.earliest() if is_late else self._loads.roomiest(idle=idle)
        if worker is not None and run.near:
            worker = self._next_near(run, worker, idle=idle, is_late=is_late)
        if worker is None or worker in self._loads.idle or not self._is_long_next(run):
            return worker
        if not (is_alone or self._loads.idle):
            return worker  # other runs keep every worker busy, maybe for ever
        run.put_near(worker)
        idle_one = self._loads.roomiest(idle=True)
        if idle_one is None:
            return self._worker_for_short(run, worker, is_late=is_late) if run.near else None
        return self._next_near(run, idle_one, idle=True, is_late=False) if run.near else idle_one

    def _worker_for_short(self, run: Run, worker: int, *, is_late: bool) -> int | None:
        """Put a short event first and choose its worker, if a long one is next and none is idle."""
        for other in list(run.near):
            if self._loads.has_room(other, is_late=is_late):
                run.bring(other)
                if not self._is_long_next(run):
                    return other
                run.put_near(other)
        has_others = run.ready or run.blocks
        return worker if has_others and not self._is_long_next(run) else None

    def _is_long_next(self, run: Run) -> bool:
        """Whether the next event of a run is a long one and somebody may wait for it."""
        if run.opened.is_bulk:
            return False
        return self._estimates.most_seconds_of(run.next_plan) >= LONG_SECONDS

    def _next_near(self, run: Run, worker: int, *, idle: bool, is_late: bool) -> int:
        """Choose the worker for a batch of a run with large buffers, and put its cascades first.

        A worker goes on with cascades whose large buffers it has. It gets another one's
        cascades if it has nothing else to do and that one has no room, or if it is idle and
        that one is not. Every `MOST_PASSED` batches it gets them also if that one just has no
        room, which may last. O(workers) then.

        Args:
            run: The run.
            worker: A worker with room.
            idle: Whether only idle workers have room.
            is_late: See `WorkerLoads.has_room`.

        Returns:
            The worker, or another one with room whose cascades are ready.
        """
        has_work = bool(worker in run.near or run.ready or run.blocks)
        run.passed += 1
        if not has_work or run.passed >= MOST_PASSED:
            run.passed = 0
            found = self._other_near(run, worker, idle=idle, is_late=is_late, has_work=has_work)
            if found is None:
                return worker
            worker = worker if has_work else found
        run.bring(worker)
        return worker

    def _other_near(
        self, run: Run, worker: int, *, idle: bool, is_late: bool, has_work: bool
    ) -> int | None:
        """Give a worker the cascades of another one, where `_next_near` says so.

        Returns:
            None if it got some; otherwise another worker with room that has some, or the worker.
        """
        idle_ones = self._loads.idle
        found = worker
        for other in run.near:
            if other == worker:
                continue
            has_room = other in idle_ones if idle else self._loads.has_room(other, is_late=is_late)
            if not has_room or not (has_work or other in idle_ones or worker not in idle_ones):
                run.release(other)
                return None
            found = other
        return found
