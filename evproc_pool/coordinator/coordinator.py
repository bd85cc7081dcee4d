"""The coordinator: performs what the supervisor decides, with real workers, a turn at a time.

::

    inbox --> Supervisor.step --> Send, Start, Kill, ... --> Backend
                   ^                                            |
                   +----- Progress, WorkerReady, WorkerGone <---+
    sinks <--- Settled, Over, Ended, Dropped, Finished

Nothing here is safe for threads: `engine` lets one thread drive at a time.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from math import inf
from typing import TYPE_CHECKING, Any, Final

from evproc.registry import Registry
from evproc_pool.coordinator.batch_results import BatchResults
from evproc_pool.coordinator.batch_sender import BatchSender
from evproc_pool.coordinator.cancellation import (
    Cancel,
    Cancellations,
    Recall,
    Reclaim,
    hand_back,
    place_before,
    say_where,
)
from evproc_pool.coordinator.codec import Codec
from evproc_pool.coordinator.crash_errors import no_registry, other_registry
from evproc_pool.coordinator.run_handle import RunHandle, break_all, deliver
from evproc_pool.coordinator.single_events import SentSingle, SingleEvents
from evproc_pool.coordinator.worker_deaths import WorkerDeaths, name_hung
from evproc_pool.coordinator.worker_output import WorkerOutput
from evproc_pool.coordinator.worker_record import WorkerRecord, seen_at
from evproc_pool.core.batches import Batch
from evproc_pool.core.event_columns import PlanLike
from evproc_pool.core.event_limits import EventLimits
from evproc_pool.core.inputs_and_effects import (
    Accepted,
    Dropped,
    Ended,
    EventEnded,
    EventFailed,
    EventRetried,
    Finished,
    Input,
    Opened,
    Over,
    Send,
    Settled,
    TakenBack,
    Unwanted,
    WorkerReady,
)
from evproc_pool.core.retry_policy import RetryPolicy
from evproc_pool.core.supervisor import Supervisor
from evproc_pool.core.supervisor_inputs import (
    AskBack,
    AskReport,
    Effect,
    FewerWorkers,
    GiveUp,
    Kill,
    KillMissed,
    LookAgain,
    QuotaNearlyUsed,
    QuotaUsed,
    RaiseSoftTimeout,
    Seen,
    Start,
    StartFailed,
    Stop,
    TakeBack,
)
from evproc_pool.core.supervisor_inputs import Input as SupervisorInput
from evproc_pool.errors import InternalError, PoolError
from evproc_pool.log import LOG
from evproc_pool.protocol import messages
from evproc_pool.protocol.backend import Arrived, Backend, Gone, Missed, Resized
from evproc_pool.protocol.limits import Limits
from evproc_pool.protocol.registry_spec import Config, Fingerprint, describe_difference
from evproc_pool.serialization import pickling

if TYPE_CHECKING:
    from evproc_pool.coordinator.notices import Notices
    from evproc_pool.observe.collector import WorkerView

# Listen so often also while single events go past the scheduler: an idle worker may have died.
_LISTEN_SECONDS: Final = 0.25

# A worker with a frame of this size may block until the coordinator reads it: no rest then.
_HEAVY_BYTES: Final = 1 << 15


class Coordinator:
    """Runs on a fixed registry with a fixed number of workers; see the module's text.

    Attributes:
        inbox: Inputs of callers. Any thread may append.
        cancellations: What callers gave up. Any thread may append.
        runs: Runs that are not finished, by id. Any thread may add one.
        notices: Tells the listeners; None: there are none. See `observe`.

    Args:
        config: What each worker gets to start with.
        expected: The fingerprint that the registry of each worker must have.
        rng: For the length of pauses. (`prefetch`: see `Scheduler`.)
    """

    def __init__(
        self,
        workers: int,
        backend: Backend,
        registry: Registry,
        config: Config,
        expected: Fingerprint,
        *,
        limits: Limits,
        policy: RetryPolicy,
        clock: Callable[[], float],
        rng: random.Random | None = None,
        notices: Notices | None = None,
        prefetch: int | None = None,
    ) -> None:
        self.inbox: deque[Input] = deque()
        self.cancellations: deque[Cancel | Reclaim | Recall] = deque()
        self.runs: dict[int, RunHandle] = {}
        self._backend = backend
        self._registry = registry
        self._config = config
        self._expected = expected
        self._clock = clock
        self._supervisor = Supervisor(
            policy,
            workers,
            EventLimits(limits.event_timeout, limits.event_soft_timeout, limits.max_memory_bytes),
            # not the module's generator, which the application may have seeded
            (rng or random.Random()).random,  # noqa: S311 - nobody gains by guessing it
            prefetch=prefetch,
        )
        self._workers: dict[int, WorkerRecord] = {}
        self._look_again: float | None = None  # after how long, if nothing happens
        self._codec = Codec(registry, has_retries=policy.max_retries > 0)
        self._cancelled = Cancellations()
        self._output = WorkerOutput()
        self._recalls = False  # whether workers give back all that they have not begun
        self._results = BatchResults(self._codec, registry, backend, self._step, self._returned)
        self._deaths = WorkerDeaths(
            self._codec,
            registry,
            self._supervisor,
            results=self._results,
            step=self._step,
            limits=limits,
            policy=policy,
            clock=clock,
        )
        self.observe(notices)
        #: Sends single events past the scheduler.
        self.single_events = SingleEvents(
            self._codec, backend, self._supervisor, self._workers, self._arrived
        )
        self._sender = BatchSender(
            self._codec,
            backend,
            self._supervisor,
            workers=self._workers,
            runs=self.runs,
            cancelled=self._cancelled,
            clock=clock,
            step=self._step,
        )
        self._is_heavy = False  # whether the last frames were large ones
        self._looked = 0.0  # when it last looked after the workers
        self._look_seconds = 0.0  # after how long to look again, while much is going on
        self._rested = 0.0  # seconds, before it listens
        self._listened = 0.0  # when it last took in what all workers have sent

    def observe(self, notices: Notices | None) -> None:
        """Tell these from now on. From any thread, also in the middle of a turn."""
        self.notices = self._results.notices = self._deaths.notices = notices
        self._supervisor.scheduler.observe(is_observed=notices is not None)

    @property
    def has_workers(self) -> bool:
        """Whether any worker was started."""
        return bool(self._workers)

    @property
    def is_at_work(self) -> bool:
        """Whether any worker has events that are not known to be over."""
        return any(each.sent for each in self._workers.values())

    def now(self) -> tuple[int, int, list[WorkerView]]:
        """How many events wait, how many workers have, and what these do. From any thread."""
        from evproc_pool.coordinator.worker_views import now  # few pools are asked

        states = list(self._workers.values())
        return now(states, self._backend, self._supervisor, self._registry, self._clock())

    def demand(self, run: RunHandle) -> int:
        """How many roots the run would take now. Any thread may ask."""
        return self._supervisor.scheduler.demand(run.id)

    def end(self, reason: PoolError, most_seconds: float) -> None:
        """End the workers, which are killed after that many seconds; tell open runs the reason."""
        name_hung(reason, self._workers)
        self._workers.clear()
        try:
            if most_seconds > 0:
                self._backend.quit(most_seconds, self._output.hear)
            else:
                self._backend.kill(self._output.hear)
        finally:
            break_all(self.runs, reason)
        if (notices := self.notices) is not None:
            notices.ended(reason)

    # --- a single event, past the scheduler ---

    def try_send_single(self, ev: Any, plan: PlanLike) -> SentSingle | None:
        """Send a single event past the scheduler; None: not sent, something else is going on.

        `single_events` takes its answer. If that is None, `adopt` the event.
        """
        if self._clock() - self._listened > _LISTEN_SECONDS and self._listen(0):
            return None
        return None if self.inbox else self.single_events.send(ev, plan)

    def adopt(self, single: SentSingle, inputs: Sequence[Input]) -> None:
        """Let the scheduler take in a single event that was sent already, and what came back.

        The inputs hand it in, and nothing else.
        """
        self._sender.single = single
        for item in inputs:
            self._step(item)
        for frame in single.frames:
            self._arrived(Arrived(single.worker, *frame))

    # --- a turn ---

    def turn(self, *, may_block: bool) -> None:
        """Take in inputs, wait for something to happen, and act on it."""
        # news goes to callers before we wait for more
        self._take_cancellations()
        has_news = self.take_in() | self._perform(self._supervisor.begin_turn(self._clock()))
        timeout: float | None = 0
        may_block = may_block and not has_news
        # also if no turn ever waits, because the input is slower than the workers
        if may_block or self._clock() - self._looked >= self._look_seconds:
            look_again = self._look_after_workers()
            if may_block:
                self._rested = self._rest()
                timeout = None if look_again is None else max(0.0, look_again - self._rested)
        self._listen(timeout)
        self._rested = 0.0
        self.take_in()

    def _take_cancellations(self) -> None:
        """Take in what callers gave up."""
        while self.cancellations:
            item = self.cancellations.popleft()
            if isinstance(item, Recall):
                self._recalls = True
            else:
                self._cancelled.add(item)
            self._looked = -inf  # at once
            self._perform(self._supervisor.recall(self._given_up()))

    def _given_up(self) -> list[int]:
        """The workers that hold events which callers gave up."""
        if self._recalls:
            return [worker for worker, state in self._workers.items() if state.sent]
        return list(self._cancelled.holders(self._workers)) if self._cancelled else []

    def where(self, run: int, roots: Sequence[int] | None) -> str:
        """See `cancellation.say_where`."""
        return say_where(run, roots, self._workers, self._backend, self._registry)

    def place_before(self, run: int, root: int) -> tuple[int, int] | None:
        """See `cancellation.place_before`."""
        return place_before(run, root, self._workers, self._backend)

    def _listen(self, timeout: float | None) -> bool:
        """Take in frames and deaths of workers; return whether there were any."""
        happened = self._backend.poll(timeout)
        self._listened = self._clock()
        if timeout != 0:
            self._supervisor.woke(self._listened)
        self._take_cancellations()  # before we act on what has come
        for item in happened:
            match item:
                case Arrived():
                    self._arrived(item)
                case Gone():
                    self._gone(item)
                case Missed(worker):
                    self._step(KillMissed(worker))
                case Resized(workers):
                    self._supervisor.resize(workers)
        return bool(happened)

    def _look_after_workers(self) -> float | None:
        """Let the supervisor decide by where workers are; return when to look again."""
        now = self._looked = self._clock()
        busy = [worker for worker, state in self._workers.items() if state.sent]
        if self._supervisor.needs_memory(now):
            self._deaths.memory_bytes.update(
                {each: self._backend.memory_bytes(each) for each in busy}
            )
        effects = self._supervisor.look(
            now,
            {worker: self._see(worker) for worker in busy},
            self._deaths.memory_bytes,
            self._given_up(),
            kills=self._cancelled.kills,
        )
        self._perform(effects)
        return self._look_again

    def _see(self, worker: int) -> Seen | None:
        """Return where a worker is, relative to its first batch; None if nobody can tell."""
        record = self._workers[worker]
        at = record.seen = self._backend.look_at(worker)
        if at is None:
            return None
        is_cancelled = bool(self._cancelled) and self._cancelled.kills_at(at, record.sent[0])
        return seen_at(record.sent[0], at, is_cancelled=is_cancelled)

    def _rest(self) -> float:
        """Let workers go on alone, if the supervisor allows it; return for how many seconds."""
        if self._is_heavy or self._backend.is_writing:
            return 0.0
        began = self._clock()
        seconds = self._output.limit_rest(self._supervisor.rest(began), began)
        if not seconds:
            return 0.0
        self._backend.rest(seconds)
        woke = self._clock()
        self._supervisor.woke(woke)
        return woke - began

    def take_in(self) -> bool:
        """Take in the inputs of callers; return whether that is news to one."""
        has_news = False
        while self.inbox:
            # inputs that come meanwhile wait: there may be many
            for others in reversed(range(len(self.inbox))):
                item = self.inbox.popleft()
                # a run has demand from the moment it is open
                has_news |= self._step(item, more=others > 0) or isinstance(item, Opened)
        return has_news

    def _step(self, item: SupervisorInput, *, more: bool = False) -> bool:
        """Let the supervisor decide, and do it; return whether that ended anything."""
        self.single_events.forget()
        if (notices := self.notices) is not None and isinstance(item, Accepted):
            notices.accepted(item)
        return self._perform(self._supervisor.step(item, self._clock(), more=more))

    def _perform(self, effects: Sequence[Effect]) -> bool:  # noqa: C901, PLR0912 - a case each
        """Do what was decided; return whether that ended anything."""
        has_news = False
        if (notices := self.notices) is not None and effects:
            notices.performed(effects)
        for effect in effects:
            match effect:
                case Send():
                    self._sender.send(effect.worker, effect.batch)
                case Start():
                    self._start_worker(effect.worker)
                case Stop(worker):
                    self._backend.send(worker, messages.QUIT, b"")
                case AskBack(worker):
                    self._backend.ask_back(worker, self._workers[worker].batches)
                case TakeBack():
                    self._take_back(effect)
                case AskReport(worker):
                    self._backend.ask_for_report(worker)
                case RaiseSoftTimeout(worker, is_again):
                    if (at := self._workers[worker].seen) is not None:
                        self._backend.raise_soft_timeout(worker, at, is_again=is_again)
                case Kill(worker):
                    self._kill(worker)
                case FewerWorkers(count):
                    error = self._deaths.start_error
                    LOG.warning("only %d workers could be started: %s", count, error)
                case LookAgain():
                    self._look_again = effect.seconds
                    self._look_seconds = effect.busy_seconds
                case GiveUp():
                    raise self._deaths.cannot_start(effect.failed_starts)
                case Settled() | Over() | Ended() | EventEnded() | Dropped() | Finished():
                    has_news = True
                    if self._cancelled:
                        self._cancelled.hear(effect)
                    deliver(effect, self.runs)
                case EventFailed() | EventRetried() | Unwanted():
                    pass  # for `notices` only
                case _:
                    raise InternalError(f"unknown effect {effect!r}")
        return has_news

    # --- workers ---

    def _take_back(self, effect: TakeBack) -> None:
        state = self._workers[effect.worker]
        if (at := state.seen) and self._backend.take_back(effect.worker, at, state.batches):
            kept = effect.position + 1
            self._returned(state.sent[0].batch, kept)
            while len(state.sent) > 1:
                self._returned(state.sent[-1].batch, 0)
                state.sent.pop()
            self._step(TakenBack(effect.worker, kept))

    def _returned(self, batch: Batch, begin: int) -> None:
        hand_back(self.runs.get(batch.run_id), batch, begin, may_have_run=False)

    def _kill(self, worker: int) -> None:
        record = self._workers[worker]
        stack = None if record.seen is None else self._backend.kill_stuck(worker, record.seen)
        if stack is None:
            self._step(KillMissed(worker))
        else:
            record.stack = stack

    def _start_worker(self, worker: int) -> None:
        if not self._supervisor.is_known(worker):
            return  # the start of one before it has failed
        self.single_events.forget()
        try:
            self._backend.start(worker, self._config)
        except OSError as error:
            self._deaths.start_error = error
            self._step(StartFailed(worker))
        else:
            self._workers[worker] = WorkerRecord(worker)
            if (notices := self.notices) is not None:
                notices.started(worker, self._backend.pid(worker))

    def _arrived(self, item: Arrived) -> None:  # noqa: C901 - a case each
        if self._output.hear(item):
            return
        self.single_events.forget()
        # it may have come at any time during the rest
        self._supervisor.heard(item.worker, self._listened - self._rested)
        self._is_heavy = bool(item.buffers) or len(item.payload) >= _HEAVY_BYTES
        record = self._workers[item.worker]
        match item.tag:
            case messages.QUIET:
                self._results.take(record, messages.load_quiet(item.payload))
            case messages.PROGRESS:
                self._results.take(record, messages.load_progress(item.payload, item.buffers))
            case messages.UNREADABLE:
                self._results.unreadable(record, *pickling.loads(item.payload))
            case messages.SKIPPED:
                self._results.skipped(record, pickling.loads(item.payload))
            case messages.NEARLY:
                self._step(QuotaNearlyUsed(item.worker))
            case messages.LEAVING:
                self._step(QuotaUsed(item.worker))
            case messages.FOLLOW_UPS:
                _, blobs, columns = pickling.loads(item.payload)
                self._results.repacked(record, blobs, columns)
            case messages.READY:
                self._ready(item.worker, pickling.loads(item.payload))
            case messages.NOT_READY:
                cause = messages.decode_error(pickling.loads(item.payload))
                raise no_registry(cause, self._backend.node(item.worker))
            case tag:
                raise InternalError(f"worker {item.worker} sent a frame of unknown kind {tag}")

    def _ready(self, worker: int, actual: Fingerprint) -> None:
        difference = describe_difference(self._expected, actual)
        if difference:
            raise other_registry(difference, self._backend.node(worker))
        self._workers[worker].is_ready = True
        if (notices := self.notices) is not None:
            notices.ready(worker, self._backend.pid(worker))
        self._step(WorkerReady(worker))

    def _gone(self, item: Gone) -> None:
        self.single_events.forget()
        record = self._workers.pop(item.worker)
        for sent in record.sent:
            hand_back(self.runs.get(sent.batch.run_id), sent.batch, 0, may_have_run=True)
        if record.is_ready:
            self._deaths.gone(item, record)
        else:
            self._deaths.before_ready(item)
