"""The coordinator: drives the scheduler with real workers, a turn at a time.

::

    inbox --> Scheduler.step --> Send ----> Backend
                   ^                       |
                   +--- Progress, Gone <---+
    sink <--- Settled, Ended, Dropped, Finished

Nothing here is safe for threads: `engine` sees to it that one thread drives at a time.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from math import inf
from typing import Any, Final

from evproc.event import describe_event
from evproc.exc import add_note
from evproc.registry import Registry
from evproc_pool.coordinator.cancellation import Cancel, Cancellations, Recall, say_where
from evproc_pool.coordinator.codec import NOTHING_LEFT, Answer, Codec, Left, Sent
from evproc_pool.coordinator.crash_attribution import CrashAttribution
from evproc_pool.coordinator.crash_errors import (
    Lost,
    describe_exit,
    say_fate,
    timed_out,
    too_large,
    worker_lost,
)
from evproc_pool.coordinator.run_handle import RunHandle
from evproc_pool.coordinator.worker_record import WorkerRecord
from evproc_pool.core.batches import Batch
from evproc_pool.core.error_notes import where_text
from evproc_pool.core.event_columns import PlanLike, Times
from evproc_pool.core.event_limits import EventLimits
from evproc_pool.core.inputs_and_effects import (
    Dropped,
    Ended,
    EventEnded,
    Finished,
    Input,
    Opened,
    Over,
    Progress,
    Result,
    Retired,
    Retry,
    Send,
    Settled,
    TakenBack,
    WorkerGone,
    WorkerReady,
)
from evproc_pool.core.retry_policy import RetryPolicy, attempt_of
from evproc_pool.core.supervision import (
    AskBack,
    AskReport,
    Effect,
    GiveUp,
    Kill,
    KillMissed,
    LookAgain,
    QuotaNearlyUsed,
    QuotaUsed,
    Seen,
    Start,
    StartFailed,
    StartLost,
    Stop,
    Strike,
    TakeBack,
)
from evproc_pool.core.supervision import Input as SupervisorInput
from evproc_pool.core.supervisor import Supervisor
from evproc_pool.errors import (
    InternalError,
    PoolBrokenError,
    PoolError,
    RegistryMismatchError,
    SerializationError,
)
from evproc_pool.log import LOG
from evproc_pool.protocol import messages
from evproc_pool.protocol.backend import Arrived, Backend, Gone, Link
from evproc_pool.protocol.frame import Frame
from evproc_pool.protocol.limits import Limits
from evproc_pool.protocol.registry_spec import Fingerprint, describe_difference
from evproc_pool.protocol.status_words import NONE, WorkerStatus
from evproc_pool.serialization import packing, pickling

# Listen to all workers at least this often, also while single events go past the scheduler: an
# idle worker may have died.
_LISTEN_SECONDS: Final = 0.25

# So long an answer is waited for before the scheduler is told.
_ANSWER_SECONDS: Final = 0.005

# A worker that has so many bytes to send may have to wait for the coordinator.
_HEAVY_BYTES: Final = 1 << 15


class Asked:
    """An event that was sent to a worker by itself, past the scheduler.

    Attributes:
        worker: Which.
        number: Of the worker's batches.
        link: To the worker.
        frames: What has come back and was no answer.
    """

    __slots__ = ("frames", "link", "number", "worker")

    def __init__(self, worker: int, number: int, link: Link) -> None:
        self.worker = worker
        self.number = number
        self.link = link
        self.frames: Sequence[Frame] = ()


class Coordinator:
    """Runs on a fixed registry with a fixed number of workers; see the module's text.

    Attributes:
        inbox: What was handed in; any thread may append to it.
        orders: What was given up; any thread may append to it.
        runs: Those that are not finished, by id; any thread may add one.

    Args:
        workers: How many there are at the most; they are started when there is work for them.
        backend: Starts them.
        registry: The coordinator's.
        config: The pickled spec that makes the workers' registries.
        expected: The fingerprint that these must have.
        limits: What each worker may use.
        policy: Which events are run again after a failure.
        clock: Says what time it is, in seconds.
        rng: Draws how long pauses are; by default one of its own.
    """

    def __init__(
        self,
        workers: int,
        backend: Backend,
        registry: Registry,
        config: bytes,
        expected: Fingerprint,
        *,
        limits: Limits,
        policy: RetryPolicy,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self.inbox: deque[Input] = deque()
        self.orders: deque[Cancel | Recall] = deque()
        self.runs: dict[int, RunHandle] = {}
        self._size = workers
        self._backend = backend
        self._registry = registry
        self._config = config
        self._expected = expected
        self._policy = policy
        self._clock = clock
        self._rng: random.Random | None = rng
        self._supervisor = Supervisor(
            policy,
            workers,
            EventLimits(limits.event_timeout, limits.event_soft_timeout, limits.max_memory_bytes),
            self._draw,
        )
        self._workers: dict[int, WorkerRecord] = {}
        self._seen: dict[int, WorkerStatus | None] = {}  # where workers were at the last look
        self._start_error: OSError | None = None  # of the last start
        self._last_exit: int | None = None  # of the last worker that died in its start
        self._look_again: float | None = None  # after how long, if nothing happens
        self._codec = Codec(registry, has_retries=policy.max_retries > 0)
        self._limits = limits
        self._memory_bytes: dict[int, int] = {}  # of each worker, when last seen
        self._stacks: dict[int, str] = {}  # of workers that were killed
        self._cancelled = Cancellations()
        self._recalls = False  # whether nothing that was not begun is to be run
        self._crash_attribution = CrashAttribution(self._codec, registry)
        self._asked: Asked | None = None  # which the scheduler is about to send
        # A worker that can be asked; None: that is not known, since something has happened.
        self._askable: tuple[int, WorkerRecord, Link] | None = None
        self._is_heavy = False  # whether the last frames were large ones
        self._looked = 0.0  # when it last looked after the workers
        self._look_seconds = 0.0  # after how long to do so again, also while much is going on
        self._rested = 0.0  # for how long, before it listens
        self._listened = 0.0  # when it last took in what all of them have to say

    def _draw(self) -> float:
        if self._rng is None:
            import random  # takes a while, and few programs need it

            # not the module's generator, which the application may have seeded
            self._rng = random.Random()  # noqa: S311 - nobody gains by guessing it
        return self._rng.random()

    @property
    def has_workers(self) -> bool:
        """Whether any worker was started."""
        return bool(self._workers)

    def demand(self, run: RunHandle) -> int:
        """How many roots the run would take now. Any thread may ask."""
        return self._supervisor.scheduler.demand(run.id)

    def end(self, reason: PoolError, *, most_seconds: float) -> None:
        """End the workers, and tell all open runs why.

        Args:
            reason: Why.
            most_seconds: How long they are waited for until they are killed.
        """
        self._workers.clear()
        if most_seconds > 0:
            self._backend.quit(most_seconds)
        else:
            self._backend.kill()
        for run in list(self.runs.values()):
            run.error = reason
            run.is_finished = True
            run.sink.broken(reason)
        self.runs.clear()

    # --- a single event, past the scheduler ---

    def ask(self, ev: Any, plan: PlanLike) -> Asked | None:
        """Send one event to a worker that has nothing to do, past the scheduler.

        A round trip through the scheduler takes several times as long as one through the
        worker. So where nothing else is going on, and the answer is a value or that there
        is none (`answer`), the scheduler never hears of it. Otherwise (it takes longer, the
        worker died, somebody else wants something) it has to be told before anything else
        is done (`adopt`).

        Returns:
            What was sent. None: nothing was.
        """
        if self._clock() - self._listened > _LISTEN_SECONDS and self._listen(0):
            return None
        askable = self._askable or self._find_askable()
        if askable is None or self.inbox:
            return None
        worker, state, link = askable
        try:
            frame = self._codec.encode_one(ev, plan, state.plans)
        except Exception:
            return None  # what it is shows when it is tried again
        if frame is None:
            return None
        state.batches += 1
        link.send(*frame)
        return Asked(worker, state.batches, link)

    def _find_askable(self) -> tuple[int, WorkerRecord, Link] | None:
        worker = self._supervisor.single
        link = None if worker is None else self._backend.link(worker)
        if worker is not None and link is not None:
            self._askable = worker, self._workers[worker], link
        return self._askable

    def await_answer(self, asked: Asked, seconds: float = inf) -> bool:
        """Wait for it a moment, or until something else happens: say whether it is there.

        Args:
            asked: Of what.
            seconds: Wait no longer than that.
        """
        return asked.link.wait(min(_ANSWER_SECONDS, seconds))

    def answer(self, asked: Asked) -> Answer | None:
        """What has come back, if that is an answer.

        If not, it failed, or has follow-ups.
        """
        frames = asked.link.receive()
        answer = self._codec.answer(frames[0]) if frames else None
        if answer is None:
            asked.frames = frames
        elif len(frames) > 1:
            for frame in frames[1:]:
                self._arrived(Arrived(asked.worker, *frame))
        return answer

    def adopt(self, asked: Asked, inputs: Sequence[Input]) -> None:
        """Tell the scheduler of an event that was sent already, and of what has come back.

        Args:
            asked: The event.
            inputs: What hands it in, and nothing else.
        """
        self._asked = asked
        for item in inputs:
            self._step(item)
        for frame in asked.frames:
            self._arrived(Arrived(asked.worker, *frame))

    # --- a turn ---

    def take_in(self) -> None:
        """Take in what was handed in, and no more: nothing is waited for, and nothing ends."""
        self._drain_inbox()

    def turn(self, *, may_block: bool) -> None:
        """Take in what was handed in, wait for something to happen, act on it."""
        # whoever waits for this news is to have it before we wait for more
        self._obey()
        has_news = self._drain_inbox() | self._perform(self._supervisor.begin_turn(self._clock()))
        timeout: float | None = 0
        may_block = may_block and not has_news
        # also where the input is slower than the workers, and no turn ever waits
        if may_block or self._clock() - self._looked >= self._look_seconds:
            look_again = self._look_after_workers()
            if may_block:
                self._rested = self._rest()
                timeout = None if look_again is None else max(0.0, look_again - self._rested)
        self._listen(timeout)
        self._rested = 0.0
        self._drain_inbox()

    def _obey(self) -> None:
        """Take in what was given up."""
        while self.orders:
            order = self.orders.popleft()
            if isinstance(order, Cancel):
                self._cancelled.add(order)
            else:
                self._recalls = True
            self._looked = -inf  # at once
            self._perform(self._supervisor.recall(self._given_up()))

    def _given_up(self) -> list[int]:
        """The workers that hold events which callers gave up."""
        if self._recalls:
            return [worker for worker, state in self._workers.items() if state.sent]
        return list(self._cancelled.holders(self._workers)) if self._cancelled else []

    def where(self, run: int, roots: Sequence[int] | None) -> str:
        """See `cancellation.say_where`."""
        names = [handler.name for handler in self._registry.handlers]
        return say_where(run, roots, self._workers, self._backend, names)

    def _listen(self, timeout: float | None) -> bool:
        """Take in what workers have to say, those that died among them; say whether any had."""
        happened = self._backend.poll(timeout)
        self._listened = self._clock()
        if timeout != 0:
            self._supervisor.woke(self._listened)
        self._obey()  # before what has come is acted on
        for item in happened:
            match item:
                case Arrived():
                    self._arrived(item)
                case Gone():
                    self._gone(item)
        return bool(happened)

    def _look_after_workers(self) -> float | None:
        """Let the supervisor decide by where workers are; return when to look again."""
        now = self._looked = self._clock()
        busy = [worker for worker, state in self._workers.items() if state.sent]
        if self._supervisor.needs_memory(now):
            self._memory_bytes.update({each: self._backend.memory_bytes(each) for each in busy})
        effects = self._supervisor.look(
            now,
            {worker: self._see(worker) for worker in busy},
            self._memory_bytes,
            self._given_up(),
            kills=self._cancelled.kills,
        )
        self._perform(effects)
        return self._look_again

    def _see(self, worker: int) -> Seen | None:
        """Where a worker is, relative to the first batch that it holds; None: nobody can tell."""
        at = self._seen[worker] = self._backend.look_at(worker)
        return None if at is None else self._seen_at(self._workers[worker].sent[0], at)

    def _seen_at(self, sent: Sent, at: WorkerStatus) -> Seen:
        is_at_event = at.batch == sent.number and at.position >= 0
        return Seen(
            at.position if is_at_event else None,
            at.activity,
            at.is_over,
            at.runs_code,
            at.handler,
            at.packing,
            is_cancelled=bool(self._cancelled) and self._cancelled.kills_at(at, sent),
            is_between=at.position == NONE,
        )

    def _rest(self) -> float:
        """Let workers go on alone, if the supervisor allows it; return for how many seconds."""
        if self._is_heavy or self._backend.is_writing:
            return 0.0
        began = self._clock()
        seconds = self._supervisor.rest(began)
        if not seconds:
            return 0.0
        self._backend.rest(seconds)
        woke = self._clock()
        self._supervisor.woke(woke)
        return woke - began

    def _drain_inbox(self) -> bool:
        """Take in every input; say whether that is news to a caller."""
        has_news = False
        while self.inbox:
            # those that come meanwhile have their turn, and may be many
            for others in reversed(range(len(self.inbox))):
                item = self.inbox.popleft()
                # a run has demand from the moment it is open
                has_news |= self._step(item, more=others > 0) or isinstance(item, Opened)
        return has_news

    def _step(self, item: SupervisorInput, *, more: bool = False) -> bool:
        """Let the supervisor decide, and do it; return whether that ended anything."""
        self._askable = None
        return self._perform(self._supervisor.step(item, self._clock(), more=more))

    def _perform(self, effects: Sequence[Effect]) -> bool:  # noqa: C901, PLR0912 - a case each
        """Do what was decided; return whether that ended anything."""
        has_news = False
        for effect in effects:
            match effect:
                case Send():
                    self._send(effect.worker, effect.batch)
                case Start():
                    self._start_worker(effect.worker)
                case Stop(worker):
                    self._backend.send(worker, messages.QUIT, b"")
                case AskBack(worker):
                    self._backend.ask_back(worker, self._workers[worker].batches)
                case TakeBack():
                    self._take_back(effect)
                case AskReport(worker):
                    self._backend.ask_to_tell(worker)
                case Strike(worker, is_again):
                    if (at := self._seen[worker]) is not None:
                        self._backend.strike(worker, at, is_again=is_again)
                case Kill(worker):
                    self._kill(worker)
                case LookAgain():
                    self._look_again = effect.seconds
                    self._look_seconds = effect.busy_seconds
                case GiveUp():
                    self._give_up(effect)
                case Retry():
                    raise InternalError("pauses are the supervisor's")
                case _:
                    has_news = True
                    if self._cancelled:
                        self._cancelled.hear(effect)
                    self._deliver(effect)
        return has_news

    def _deliver(self, effect: Settled | Over | Ended | EventEnded | Dropped | Finished) -> None:
        """Tell a run's sink."""
        run = self.runs[effect.run]
        match effect:
            case Settled():
                run.sink.settled(effect)
            case Over():
                run.sink.over(effect)
            case Ended():
                run.sink.ended(effect.root, effect.ending)
            case EventEnded():
                run.sink.event_ended(effect)
            case Dropped():
                run.sink.dropped(effect.first, effect.roots)
            case Finished():
                run.is_finished = True
                del self.runs[effect.run]
                self._crash_attribution.forget(effect.run)

    # --- workers ---

    def _take_back(self, effect: TakeBack) -> None:
        state, at = self._workers[effect.worker], self._seen[effect.worker]
        if at is not None and self._backend.take_back(effect.worker, at, state.batches):
            while len(state.sent) > 1:
                state.sent.pop()
            self._step(TakenBack(effect.worker, effect.position + 1))

    def _kill(self, worker: int) -> None:
        at = self._seen[worker]
        stack = None if at is None else self._backend.kill_stuck(worker, at)
        if stack is None:
            self._step(KillMissed(worker))
        else:
            self._stacks[worker] = stack

    def _start_worker(self, worker: int) -> None:
        self._askable = None
        try:
            self._backend.start(worker, self._config)
        except OSError as error:
            self._start_error = error
            self._step(StartFailed(worker))
        else:
            self._workers[worker] = WorkerRecord()

    def _give_up(self, effect: GiveUp) -> None:
        """Break the pool, since no worker can be started."""
        if effect.failed_starts:
            raise PoolBrokenError(
                f"{effect.failed_starts} workers in a row died before they were ready, the last"
                f" with {describe_exit(self._last_exit)}; look at what the initializer and the"
                " import of the handlers' modules do"
            )
        error = self._start_error
        raise PoolBrokenError(f"no worker process can be started: {error}") from error

    def _arrived(self, item: Arrived) -> None:
        self._askable = None
        # it may have come at any time since the coordinator began to rest
        self._supervisor.heard(item.worker, self._listened - self._rested)
        self._is_heavy = bool(item.buffers) or len(item.payload) >= _HEAVY_BYTES
        match item.tag:
            case messages.QUIET:
                frame = messages.load_quiet(item.payload)
                self._take(item.worker, self._workers[item.worker], frame, is_last_chance=False)
            case messages.PROGRESS:
                frame = messages.load_progress(item.payload, item.buffers)
                self._take(item.worker, self._workers[item.worker], frame, is_last_chance=False)
            case messages.UNREADABLE:
                number = pickling.loads(item.payload)
                sents = self._workers[item.worker].sent
                (sent,) = [each for each in sents if each.number == number]
                packed = self._codec.pack_one_by_one(sent)
                self._backend.send(item.worker, messages.REPACKED, pickling.dumps(packed.data))
            case messages.SKIPPED:
                self._skipped(item.worker, pickling.loads(item.payload))
            case messages.NEARLY:
                self._step(QuotaNearlyUsed(item.worker))
            case messages.LEAVING:
                self._step(QuotaUsed(item.worker))
            case messages.FOLLOW_UPS:
                _, blobs, columns = pickling.loads(item.payload)
                self._repacked(item.worker, blobs, columns)
            case messages.READY:
                self._ready(item.worker, pickling.loads(item.payload))
            case messages.NOT_READY:
                cause = messages.decode_error(pickling.loads(item.payload))
                raise PoolBrokenError(
                    "a worker could not make its registry:"
                    f" {type(cause).__name__}: {cause}; the initializer and the handlers' modules"
                    " must work in a new process"
                ) from cause
            case tag:
                raise InternalError(f"worker {item.worker} sent a frame of unknown kind {tag}")

    def _ready(self, worker: int, actual: Fingerprint) -> None:
        difference = describe_difference(self._expected, actual)
        if difference:
            cause = RegistryMismatchError(f"the registry of a worker differs: {difference}")
            raise PoolBrokenError(
                f"{cause}; a worker must find the same distributions in the same versions as this"
                " process (sys.path, working directory, environment)"
            ) from cause
        self._workers[worker].is_ready = True
        self._step(WorkerReady(worker))

    def _gone(self, item: Gone) -> None:
        self._askable = None
        state = self._workers.pop(item.worker)
        if not state.is_ready:
            self._last_exit = item.exitcode
            self._step(StartLost(item.worker))
            return
        self._step(Retired(item.worker))
        stalled, state.stalled = state.stalled, deque()
        for frame in stalled:
            if not isinstance(frame, int):  # what it left out is handed on in any case
                self._take(item.worker, state, frame, is_last_chance=True)
        kill = self._supervisor.killed(item.worker)
        was_stuck = kill is not None
        was_cancelled = kill is not None and kill.is_cancelled
        verdict = self._crash_attribution.examine(item, state.sent, was_stuck=was_stuck)
        running, handler = verdict.running, verdict.handler
        if state.sent:
            self._over_untold(item.worker, state, verdict.over)
        error: BaseException | None = None
        seconds, ran = 0.0, 0
        if running is not None:
            batch = state.sent[0].batch
            error = CancelledError()
            if not was_cancelled:
                error = self._error_of(item, batch, running, handler)
                path = batch.place_at(running).path
                which = where_text(path, has_several=self.runs[batch.run_id].has_several)
                LOG.warning("%s%s", error, which and f" ({which})")
            seconds = self._seconds_at(item, state.sent[0])
            ran = _handlers_begun(batch.at(running)[1], item.progress)
        elif not self._supervisor.is_retired(item.worker):
            how = describe_exit(item.exitcode)
            LOG.warning("worker %d (process %s) died between events, by %s", *item[:2], how)
        for known in (self._seen, self._memory_bytes, self._stacks):
            known.pop(item.worker, None)
        self._step(WorkerGone(item.worker, running, error, handler, verdict.spared, seconds, ran))

    def _over_untold(self, worker: int, state: WorkerRecord, over: int) -> None:
        """Take in that events of a dead worker are over, which had nothing to tell."""
        sent = state.sent[0]
        done = sent.batch.done
        if over > done:
            failed = _failures(sent, done, over)
            self._codec.over(sent, over - done)
            cut = self._codec.cut(sent, None)
            self._step(Progress(worker, over, [0.0] * (over - done), results=failed, cut=cut))
            if over == sent.batch.size:
                state.sent.popleft()

    def _error_of(self, item: Gone, batch: Batch, position: int, handler: str | None) -> PoolError:
        """What an event fails with that a dead worker was at."""
        event, plan = batch.at(position)
        attempt = attempt_of(plan)
        memory_bytes = self._memory_bytes.get(item.worker) or None
        lost = Lost(item, event, handler, attempt, memory_bytes)
        kill, stack = self._supervisor.killed(item.worker), self._stacks.get(item.worker, "")
        error: PoolError
        if kill is None:
            error = worker_lost(lost)
        elif kill.memory_bytes is not None:
            error = too_large(lost, kill.memory_bytes, self._limits.max_memory_bytes or 0, stack)
        else:
            error = timed_out(lost, self._limits.event_timeout or 0.0, stack)
        charged = Result(error=error, handler=handler)
        is_last = self._policy.again(plan, charged, has_died=True) is None
        say_fate(error, attempt, is_last=is_last)
        return error

    def _seconds_at(self, item: Gone, sent: Sent) -> float:
        """For how long a dead worker was at the event that it was running; about."""
        now = self._clock()
        since = self._supervisor.heard_last(item.worker, now)
        if sent.batch.size - sent.batch.done > 1:
            # others may have come before it since then
            at = item.progress
            seen = None if at is None else self._seen_at(sent, at)
            if seen is not None:
                since = max(since, self._supervisor.seen_since(item.worker, seen, now))
        return now - since

    # --- batches ---

    def _send(self, worker: int, batch: Batch) -> None:
        state = self._workers[worker]
        asked, self._asked = self._asked, None
        if asked is not None:
            if asked.worker != worker or batch.size != 1:
                raise InternalError(f"worker {asked.worker} was asked, and not {worker}")
            state.sent.append(Sent(batch, asked.number))
            return
        state.batches += 1
        sent = Sent(batch, state.batches)
        self._supervisor.sent(worker, self._clock(), is_first=not state.sent)
        state.sent.append(sent)
        run = self.runs[batch.run_id]
        if run.can_cancel:
            roots = batch.roots
            refused = run.sink.refused(roots)
            if refused:
                positions = dict(zip(roots, batch.root_positions, strict=True))
                sent.failures.update({positions[root]: CancelledError() for root in refused})
        if self._cancelled:
            self._cancelled.keep_from(sent)
        frame = self._codec.encode(
            sent,
            state.plans,
            return_events=run.return_events,
            is_prompt=not batch.run.opened.is_bulk,
        )
        # a root is the caller's, who may change it
        if frame.buffers and not batch.root_positions:
            sent.large = frame.buffers
        self._backend.send(worker, *frame, may_refer=bool(sent.large))
        size_bytes = frame.size_bytes
        self._supervisor.scheduler.weigh(worker, batch, size_bytes, size_bytes - sent.class_bytes)

    # --- results ---

    def _take(
        self,
        worker: int,
        state: WorkerRecord,
        frame: messages.ProgressFrame,
        *,
        is_last_chance: bool,
    ) -> None:
        """Unpack and plan the follow-ups of a frame, and tell the scheduler what it says.

        Args:
            worker: Who sent it.
            state: That worker's.
            frame: Its progress; waits behind frames that are stalled.
            is_last_chance: The worker is dead, and cannot be asked to pack them again.
        """
        if state.stalled:
            state.stalled.append(frame)
            return
        told = frame.told
        if told is None:
            self._apply(worker, state, frame, NOTHING_LEFT)
            return
        where = f"worker {worker} (process {self._backend.pid(worker)})"
        try:
            left = self._codec.unpack(told, where, frame.large, is_last_chance=is_last_chance)
        except SerializationError:
            state.stalled.append(frame)
            self._backend.send(worker, messages.REPACK, pickling.dumps(told.number))
        else:
            self._apply(worker, state, frame, left)

    def _skipped(self, worker: int, number: int) -> None:
        """A worker has left a batch out, because it found it taken back."""
        state = self._workers[worker]
        if state.stalled:
            state.stalled.append(number)
        elif state.sent and state.sent[0].number == number:
            state.sent.popleft()
            self._step(Progress(worker, 0, (), gave_back=True))
        # otherwise it is known that it was taken back

    def _repacked(
        self,
        worker: int,
        blobs: Sequence[Any],
        columns: Sequence[Sequence[packing.PackedValue]],
    ) -> None:
        """What was packed together in the first stalled frame has come again, one by one."""
        state = self._workers[worker]
        frames, state.stalled = state.stalled, deque()
        first = frames[0]
        if isinstance(first, int) or first.told is None:
            raise InternalError(f"worker {worker} repacked what was not asked for")
        told = first.told.one_by_one(blobs, columns)
        frames[0] = first._replace(told=told)
        for frame in frames:
            if isinstance(frame, int):
                self._skipped(worker, frame)
            else:
                self._take(worker, state, frame, is_last_chance=False)

    def _apply(
        self,
        worker: int,
        state: WorkerRecord,
        frame: messages.ProgressFrame,
        left: Left,
    ) -> None:
        """Tell the scheduler what a frame says."""
        results = left.results
        if not state.sent or state.sent[0].number != frame.number:
            # All of it was told while its last event was running, and the rest taken back:
            # that the worker gives the rest back as well is no news.
            if len(frame.ends):
                raise InternalError(f"worker {worker} told of batch {frame.number}, which is over")
            return
        sent = state.sent[0]
        begin = sent.batch.done
        ran = {
            position: 1 + sent.batch.at(position)[1].indices.index(index)
            for position, index in left.last_ran.items()
        }
        for position, result in results.items():
            if result.error is not None and result.handler is None:
                event = describe_event(sent.batch.at(position)[0])
                add_note(result.error, f"evproc_pool: with event {event}")
        self._codec.over(sent, frame.done - begin)
        if sent.failures:
            results = {**results, **_failures(sent, begin, frame.done)}
        if frame.done == sent.batch.size or frame.gave_back:
            state.sent.popleft()
        times = Times(frame.begun, memoryview(frame.ends).cast("d"))
        self._step(
            Progress(
                worker,
                frame.done,
                times,
                left.follow_ups,
                results,
                left.processed,
                self._codec.timings(frame, sent.batch, times),
                gave_back=frame.gave_back,
                values=left.values,
                emitted=left.emitted,
                ran=ran,
                givers={
                    position: self._registry.handlers[index].name
                    for position, index in left.givers.items()
                },
                cut=self._codec.cut(sent, frame.told) if results or left.follow_ups else (),
                has_large=frame.told is not None and frame.told.follow_ups.has_large,
            )
        )


def _handlers_begun(plan: PlanLike, at: WorkerStatus | None) -> int:
    """How many handlers of a plan a dead worker had called for the event that it was at."""
    if at is None or at.handler is None or at.handler not in plan.indices:
        return 0
    return plan.indices.index(at.handler) + 1


def _failures(sent: Sent, begin: int, end: int) -> dict[int, Result]:
    """What was kept from being sent, of the positions from `begin` up to `end`."""
    return {
        position: Result(error=failure)
        for position, failure in sent.failures.items()
        if begin <= position < end
    }
