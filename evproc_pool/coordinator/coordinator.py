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
from evproc_pool.coordinator.crash_errors import describe_exit, say_fate
from evproc_pool.coordinator.run_handle import RunHandle
from evproc_pool.coordinator.watch import Watch
from evproc_pool.coordinator.worker_record import WorkerRecord
from evproc_pool.core.backoff import Pauses
from evproc_pool.core.batches import Batch
from evproc_pool.core.dwell_time import DwellTimes
from evproc_pool.core.error_notes import where_text
from evproc_pool.core.event_columns import PlanLike, Times
from evproc_pool.core.inputs_and_effects import (
    Dropped,
    Due,
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
    Weighed,
    WorkerGone,
    WorkerReady,
)
from evproc_pool.core.report_requests import ReportRequests
from evproc_pool.core.retry_policy import RetryPolicy, attempt_of
from evproc_pool.core.scheduler import Scheduler
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
from evproc_pool.protocol.status_words import WorkerStatus
from evproc_pool.serialization import packing, pickling

# Workers that die before they are ready, one after the other, until starting more
# is no use.
_MOST_FAILED_STARTS: Final = 3

# The same once a worker was ready: then it is not what every worker does at its start.
_MOST_FAILED_RESTARTS: Final = 10

# A worker that has been at one event for so long is slow, in seconds; more than
# twice `status_words.SLOW_SECONDS`, which is what taking back rests on.
_STUCK_SECONDS: Final = 0.005


# How much of the time for which workers have work the coordinator rests. It may be
# woken late, since workers keep all CPUs busy.
_REST_SHARE: Final = 0.75

# To rest for less is not worth waking up twice for.
_LEAST_REST_SECONDS: Final = 0.001

# A turn waits no longer than that: much longer times are too long for the selector.
_LONGEST_WAIT_SECONDS: Final = 3600.0

# Once in so many seconds, at the least, it is looked whether one of those died that are
# asked nothing.
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
        self._scheduler = Scheduler(policy, workers)
        self._rng: random.Random | None = rng
        self._pauses = Pauses(policy, self._draw)
        self._workers: dict[int, WorkerRecord] = {}
        self._wanted = 1  # of so many workers there was work at once, up to now
        self._next_worker = 0
        self._failed_starts = 0
        self._was_ready = False  # whether any worker ever was
        self._codec = Codec(registry, has_retries=policy.max_retries > 0)
        self._watch = Watch(limits, backend, clock)
        self._overloaded = DwellTimes()
        self._report_requests = ReportRequests()
        self._cancelled = Cancellations(backend)
        self._recalls = False  # whether nothing that was not begun is to be run
        self._crash_attribution = CrashAttribution(self._codec, registry)
        self._asked: Asked | None = None  # which the scheduler is about to send
        # A worker that can be asked; None: that is not known, since something has happened.
        self._askable: tuple[int, WorkerRecord, Link] | None = None
        self._is_heavy = False  # whether the last frames were large ones
        self._woke = 0.0  # when it last had nothing to do
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
        return self._scheduler.demand(run.id)

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
        """The worker that would get the next batch, if it is idle and all that should be there."""
        worker = self._scheduler.unused
        # who starts, or has to, is not to wait
        is_complete = self._wanted <= self._scheduler.workers == len(self._workers)
        link = None if worker is None or not is_complete else self._backend.link(worker)
        if worker is not None and link is not None and not self._workers[worker].is_ending:
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
        has_news = self._drain_inbox() | self._end_pauses()
        while self._is_short() and self._start_worker():
            pass
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
                workers = list(self._cancelled.holders(self._workers))
            else:
                self._recalls = True
                workers = list(self._workers)
            self._looked = -inf  # at once
            for worker in workers:
                self._backend.ask_back(worker, self._workers[worker].batches)

    def where(self, run: int, roots: Sequence[int] | None) -> str:
        """See `cancellation.say_where`."""
        names = [handler.name for handler in self._registry.handlers]
        return say_where(run, roots, self._workers, self._backend, names)

    def _listen(self, timeout: float | None) -> bool:
        """Take in what workers have to say, those that died among them; say whether any had."""
        happened = self._backend.poll(timeout)
        self._listened = self._clock()
        if timeout != 0:
            self._woke = self._listened
        self._obey()  # before what has come is acted on
        for item in happened:
            match item:
                case Arrived():
                    self._arrived(item)
                case Gone():
                    self._gone(item)
        return bool(happened)

    def _look_after_workers(self) -> float | None:
        """Take back, ask back, and kill what breaks a limit; say when to look again."""
        self._looked = self._clock()
        timeout = self._take_back_from_slow()
        busy = {worker: bool(state.sent) for worker, state in self._workers.items()}
        ask = self._ask()
        self._look_seconds = min(_STUCK_SECONDS / 2, inf if ask is None else ask)
        again = [timeout, self._watch.look(busy), self._pauses.left(self._looked), ask]
        if self._cancelled and self._cancelled.kill(self._workers):
            again.append(_STUCK_SECONDS)
        self._even_out()
        seconds = min((each for each in again if each is not None), default=None)
        return None if seconds is None else min(seconds, _LONGEST_WAIT_SECONDS)

    def _ask(self) -> float | None:
        """Ask workers that are at a slow event for what is over; say when to look again."""
        tellable = self._scheduler.tellable
        for worker in self._report_requests.silent(tellable, self._looked):
            at = self._backend.look_at(worker)
            sent = self._workers[worker].sent[0]
            is_further: bool | None = False  # nobody can say, and nobody can ask
            if at is not None:
                is_known = at.batch == sent.number and at.position >= 0
                is_further = at.position > sent.batch.done if is_known else None
            if self._report_requests.look(worker, self._looked, is_further=is_further):
                self._backend.ask_to_tell(worker)
        return self._report_requests.left(tellable, self._looked)

    def _is_short(self) -> bool:
        """Whether there are fewer workers than there is work for; those about to end do not count.

        Or than there was work for at any time: those stay, and are replaced.
        """
        if self._wanted < self._size:
            self._wanted = min(self._size, max(self._wanted, self._scheduler.employable))
        staying = [state for state in self._workers.values() if not state.is_ending]
        return len(staying) < self._wanted

    def _rest(self) -> float:
        """Let workers go on alone for a part of the time for which they have work.

        Not past the time to ask one of them what it has finished; see `ReportRequests.rest`.

        What they send meanwhile is taken in together, which costs the coordinator
        a fraction: the workers use the same CPUs, and its caches are cold each time.
        What it takes to do that is time in which they are not served, too.

        Returns:
            For how many seconds.
        """
        began = self._clock()
        seconds = _REST_SHARE * self._scheduler.slack - (began - self._woke)
        if seconds < _LEAST_REST_SECONDS or self._is_heavy or self._backend.is_writing:
            return 0.0
        limit = self._report_requests.rest(self._scheduler.tellable, began)
        seconds = seconds if limit is None else min(seconds, limit)
        if seconds < _LEAST_REST_SECONDS:
            return 0.0
        self._backend.rest(seconds)
        self._woke = self._clock()
        return self._woke - began

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

    def _end_pauses(self) -> bool:
        """Have events run again that have waited long enough; say whether that ended anything."""
        has_news = False
        self._pauses.forget_others(self._scheduler.pausing)
        for token in self._pauses.over(self._clock()):
            has_news |= self._step(Due(token))
        return has_news

    def _step(self, item: Input, *, more: bool = False) -> bool:
        """Let the scheduler decide, and do it; say whether that ended anything."""
        self._askable = None
        has_news = False
        for effect in self._scheduler.step(item, more=more):
            if isinstance(effect, Send):
                self._send(effect.worker, effect.batch)
                continue
            if isinstance(effect, Retry):
                self._pauses.begin(effect.token, effect.failures, self._clock())
                continue
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

    def _take_back_from_slow(self) -> float | None:
        """Take back what waits behind a slow event while another worker is idle.

        Returns:
            When to look again, in seconds; None if there is nothing to look at.
        """
        overloaded = self._scheduler.overloaded
        if self._recalls:
            overloaded = [worker for worker, state in self._workers.items() if state.sent]
        elif self._cancelled:
            overloaded = [*{*overloaded, *self._cancelled.holders(self._workers)}]
        if not overloaded:
            self._overloaded.clear()
            return None
        now = self._clock()
        look_again = False
        for worker in overloaded:
            at = self._backend.look_at(worker)
            sents = self._workers[worker].sent
            sent = sents[0]
            is_known = at is not None and at.batch == sent.number and not at.is_over
            if at is None or not is_known or at.position < sent.batch.done:
                self._overloaded.forget(worker)
            elif len(sents) == 1 and at.position + 1 == sent.batch.size:
                # What it holds besides is over, and not told yet; or was taken back.
                self._overloaded.forget(worker)
                continue
            elif self._overloaded.note(worker, at, now) >= _STUCK_SECONDS:
                self._take_back(worker, at)
            look_again = True
        return _STUCK_SECONDS / 2 if look_again else None

    def _even_out(self) -> None:
        """Ask workers for the batches that they have not begun, where others run dry."""
        for worker in self._scheduler.lopsided:
            state = self._workers[worker]
            if state.asked_for < state.batches:
                state.asked_for = state.batches
                self._backend.ask_back(worker, state.batches)

    def _take_back(self, worker: int, at: WorkerStatus) -> None:
        self._overloaded.forget(worker)
        state = self._workers[worker]
        if self._backend.take_back(worker, at, state.batches):
            while len(state.sent) > 1:
                state.sent.pop()
            self._step(TakenBack(worker, at.position + 1))

    # --- workers ---

    def _start_worker(self) -> bool:
        """Start a worker; say whether that went well. If not, the next turn tries again."""
        self._askable = None
        self._next_worker += 1
        try:
            self._backend.start(self._next_worker, self._config)
        except OSError as error:
            if self._workers:
                return False  # go on with those that are there
            raise PoolBrokenError(f"no worker process can be started: {error}") from error
        self._workers[self._next_worker] = WorkerRecord()
        self._scheduler.starting += 1
        return True

    def _arrived(self, item: Arrived) -> None:
        self._askable = None
        # it may have come at any time since the coordinator began to rest
        self._report_requests.heard(item.worker, self._listened - self._rested)
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
            case messages.NEARLY | messages.LEAVING:
                self._will_end(item.worker, is_at_once=item.tag == messages.LEAVING)
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
        self._scheduler.starting -= 1
        self._failed_starts = 0
        self._was_ready = True
        self._step(WorkerReady(worker))
        # it is the replacement of one that is about to end, if there is such
        for number, state in self._workers.items():
            if state.is_ending and not state.is_retired:
                self._retire(number)
                break

    def _will_end(self, worker: int, *, is_at_once: bool) -> None:
        """A worker has used up its quota, or has nearly: it is to be replaced."""
        state = self._workers[worker]
        state.is_ending = True
        if is_at_once and not state.is_retired:
            self._retire(worker)

    def _retire(self, worker: int) -> None:
        """Send a worker nothing more, and let it end when it is done with what it is at."""
        state = self._workers[worker]
        state.is_retired = True
        self._step(Retired(worker))
        self._backend.ask_back(worker, state.batches)
        self._let_go(worker, state)

    def _let_go(self, worker: int, state: WorkerRecord) -> None:
        """End a worker that was retired, if it is done."""
        if state.is_retired and not state.sent and not state.stalled:
            self._backend.send(worker, messages.QUIT, b"")

    def _gone(self, item: Gone) -> None:
        self._askable = None
        state = self._workers.pop(item.worker)
        if not state.is_ready:
            self._scheduler.starting -= 1
            self._failed_starts += 1
            most = _MOST_FAILED_RESTARTS if self._was_ready else _MOST_FAILED_STARTS
            if self._failed_starts >= most:
                raise PoolBrokenError(
                    f"{self._failed_starts} workers in a row died before they were ready, the last"
                    f" with {describe_exit(item.exitcode)}; look at what the initializer and the"
                    " import of the handlers' modules do"
                )
            return
        self._step(Retired(item.worker))
        stalled, state.stalled = state.stalled, deque()
        for frame in stalled:
            if not isinstance(frame, int):  # what it left out is handed on in any case
                self._take(item.worker, state, frame, is_last_chance=True)
        was_cancelled = self._cancelled.has_killed(item.worker)
        was_stuck = was_cancelled or self._watch.has_killed(item.worker)
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
            seconds = self._seconds_at(item, batch)
            ran = _handlers_begun(batch.at(running)[1], item.progress)
        elif not state.is_retired:
            how = describe_exit(item.exitcode)
            LOG.warning("worker %d (process %s) died between events, by %s", *item[:2], how)
        self._watch.forget(item.worker)
        self._report_requests.forget(item.worker)
        self._cancelled.forget(item.worker)
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
        error = self._watch.error_of(item, event, handler, attempt)
        charged = Result(error=error, handler=handler)
        is_last = self._policy.again(plan, charged, has_died=True) is None
        say_fate(error, attempt, is_last=is_last)
        return error

    def _seconds_at(self, item: Gone, batch: Batch) -> float:
        """For how long a dead worker was at the event that it was running; about."""
        now = self._clock()
        since = self._report_requests.since(item.worker, now)
        if batch.size - batch.done > 1:
            # others may have come before it since then
            since = max(since, self._watch.since(item, now))
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
        if not state.sent:
            self._report_requests.heard(worker, self._clock())
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
        self._scheduler.step(Weighed(worker, batch, size_bytes, size_bytes - sent.class_bytes))

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
            self._let_go(worker, state)
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
        self._let_go(worker, state)


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
