"""Reports the deaths of workers to the core, with the error of the event that was running."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from evproc.event import describe_event
from evproc.registry import Registry
from evproc_pool.coordinator.batch_results import BatchResults, failures_within
from evproc_pool.coordinator.cancellation import Withdrawn
from evproc_pool.coordinator.codec import Codec
from evproc_pool.coordinator.crash_errors import (
    Lost,
    cannot_start,
    describe_end,
    is_of_group,
    say_fate,
    timed_out,
    too_large,
    worker_lost,
)
from evproc_pool.coordinator.worker_record import Sent, Stopped, WorkerRecord, seen_at
from evproc_pool.core.batches import Batch
from evproc_pool.core.crash_attribution import LastPlace, Verdict, examine
from evproc_pool.core.error_notes import where_text
from evproc_pool.core.event_columns import PlanLike
from evproc_pool.core.inputs_and_effects import Progress, Result, Retired, WorkerGone
from evproc_pool.core.retry_policy import RetryPolicy, attempt_of
from evproc_pool.core.supervisor import Supervisor
from evproc_pool.core.supervisor_inputs import Input, StartLost
from evproc_pool.errors import PoolBrokenError, PoolError
from evproc_pool.log import LOG
from evproc_pool.protocol import status_words
from evproc_pool.protocol.backend import Gone
from evproc_pool.protocol.limits import Limits
from evproc_pool.protocol.status_words import WorkerStatus

if TYPE_CHECKING:
    from evproc_pool.coordinator.notices import Notices

# So many events of a batch are named at most.
_MOST_NAMED: Final = 3


class WorkerDeaths:
    """Takes in the deaths of workers that were ready.

    Attributes:
        memory_bytes: The resident memory of workers, when last seen.
        start_error: Of the last start of a worker that failed, or None.
        notices: Tells the listeners; None: there are none.
    """

    def __init__(
        self,
        codec: Codec,
        registry: Registry,
        supervisor: Supervisor,
        *,
        results: BatchResults,
        step: Callable[[Input], bool],
        limits: Limits,
        policy: RetryPolicy,
        clock: Callable[[], float],
    ) -> None:
        self._codec = codec
        self._supervisor = supervisor
        self._results = results
        self._step = step
        self._limits = limits
        self._policy = policy
        self._clock = clock
        self.notices: Notices | None = None
        self._registry = registry
        self.memory_bytes: dict[int, int] = {}
        self.start_error: OSError | None = None
        self._last_gone: Gone | None = None  # the last worker that died before it was ready

    def before_ready(self, item: Gone) -> None:
        """Report a worker that died before it was ready."""
        self._last_gone = item
        if item.reason:
            self.start_error = OSError(item.reason)
        if self.notices is not None:
            self.notices.lost(item)
        # all workers that start on a node are lost with it
        self._step(StartLost(item.worker, is_of_group(item.exitcode) or bool(item.reason)))

    def cannot_start(self, deaths: int) -> PoolBrokenError:
        """Say that no worker can be started; see `crash_errors.cannot_start`."""
        return cannot_start(deaths, self._last_gone, self.start_error)

    def gone(self, item: Gone, state: WorkerRecord) -> None:
        """Report a dead worker: what it finished, then the error of the event that it ran."""
        self._step(Retired(item.worker))
        stalled, state.stalled = state.stalled, deque()
        for frame in stalled:
            if not isinstance(frame, int):  # batches that it left out are handed on in any case
                self._results.take(state, frame, is_last_chance=True)
        kill = self._supervisor.killed(item.worker)
        verdict = self._examine(item, state, was_stuck=kill is not None)
        running, handler = verdict.running, None
        if verdict.handler is not None:
            handler = self._registry.handlers[verdict.handler].name
        if (notices := self.notices) is not None:
            self._tell(notices, item, state, verdict, handler)
        if state.sent:
            self._report_over(state, verdict.over)
        error: BaseException | None = None
        seconds, ran = 0.0, 0
        if running is not None:
            batch = state.sent[0].batch
            error = Withdrawn()
            if kill is None or not kill.is_cancelled:
                error = self._error_of(item, batch, running, handler, state.stack or item.stack)
                path = batch.place_at(running).path
                which = where_text(path, has_several=batch.run.opened.has_several)
                LOG.warning("%s%s", error, which and f" ({which})")
            seconds = self._seconds_at(item, state.sent[0])
            ran = _handlers_begun(batch.at(running)[1], item.progress)
        elif not self._supervisor.is_retired(item.worker):
            LOG.warning(
                "worker %d (process %s) %s", *item[:2], describe_end(item, "between events")
            )
        self.memory_bytes.pop(item.worker, None)
        self._step(WorkerGone(item.worker, running, error, handler, verdict.spared, seconds, ran))

    def _tell(
        self,
        notices: Notices,
        item: Gone,
        state: WorkerRecord,
        verdict: Verdict,
        handler: str | None,
    ) -> None:
        """Tell listeners of a dead worker."""
        if verdict.running is None and self._supervisor.is_retired(item.worker):
            notices.replaced(item.worker, item.pid)
            return
        at = None
        if state.sent:
            sent = state.sent[0]
            notices.over(item.worker, sent, verdict.over)
            if verdict.running is not None:
                at = Stopped(sent.batch, verdict.running, self._seconds_at(item, sent))
        notices.lost(item, at, handler)

    def _examine(self, item: Gone, state: WorkerRecord, *, was_stuck: bool) -> Verdict:
        """Have `crash_attribution` find the event to charge."""
        if not state.sent:
            return Verdict(0)
        sent, at = state.sent[0], item.progress
        verdict = examine(
            sent.batch,
            None if at is None else LastPlace(*at[1:]),
            is_in_batch=at is not None and at.batch == sent.number,
            is_unpickling=at is not None and at.position == status_words.UNPICKLING,
            was_stuck=was_stuck,
        )
        if verdict.one_by_one:
            self._codec.one_by_one += sum(each.batch.size for each in state.sent)
        return verdict

    def _report_over(self, state: WorkerRecord, over: int) -> None:
        """Report events of a dead worker that are over and had no result."""
        sent = state.sent[0]
        done = sent.batch.done
        if over > done:
            failed = failures_within(sent, done, over)
            self._codec.over(sent, over - done)
            cut = self._codec.cut(sent, None)
            times = [0.0] * (over - done)
            self._step(Progress(state.worker, over, times, results=failed, cut=cut))
            if over == sent.batch.size:
                state.sent.popleft()

    def _error_of(
        self, item: Gone, batch: Batch, position: int, handler: str | None, stack: str
    ) -> PoolError:
        """The error of the event that a dead worker was running."""
        event, plan = batch.at(position)
        attempt = attempt_of(plan)
        memory_bytes = self.memory_bytes.get(item.worker) or None
        lost = Lost(item, event, handler, attempt, memory_bytes)
        kill = self._supervisor.killed(item.worker)
        error: PoolError
        if item.has_timed_out:
            error = timed_out(lost, self._limits.event_timeout or 0.0, stack)
        elif kill is None:
            error = worker_lost(lost)
        elif kill.memory_bytes is not None:
            error = too_large(lost, kill.memory_bytes, self._limits.max_memory_bytes or 0, stack)
        else:
            error = timed_out(lost, self._limits.event_timeout or 0.0, stack)
        result = Result(error=error, handler=handler)
        is_last = self._policy.again(plan, result, has_died=True) is None
        say_fate(error, attempt, is_last=is_last, has_run_again=item.has_run_again)
        return error

    def _seconds_at(self, item: Gone, sent: Sent) -> float:
        """About how long the event ran that a dead worker was at, in seconds."""
        now = self._clock()
        since = self._supervisor.heard_last(item.worker, now)
        if sent.batch.size - sent.batch.done > 1:
            # other events may have run since then
            at = item.progress
            if at is not None:
                seen = seen_at(sent, at)
                since = max(since, self._supervisor.seen_since(item.worker, seen, now))
        return now - since


def _handlers_begun(plan: PlanLike, at: WorkerStatus | None) -> int:
    """How many handlers of a plan a dead worker had called for its event."""
    if at is None or at.handler is None or at.handler not in plan.indices:
        return 0
    return plan.indices.index(at.handler) + 1


def name_hung(error: PoolError, workers: dict[int, WorkerRecord]) -> None:
    """Add to a pool's error the events that workers had whose calls do not end."""
    hung = error.hung_workers if isinstance(error, PoolBrokenError) else ()
    batches = [sent.batch for number in hung if number in workers for sent in workers[number].sent]
    events = [describe_event(each.at(at)[0]) for each in batches for at in range(each.size)]
    if events:
        more = f" and {len(events) - _MOST_NAMED} more" if len(events) > _MOST_NAMED else ""
        which = "event" if len(events) == 1 else "one of the events"
        named = ", ".join(events[:_MOST_NAMED])
        error.args = (f"{error.args[0]}. It hung at {which} {named}{more}", *error.args[1:])
