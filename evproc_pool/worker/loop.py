"""What a worker does: fill its own registry, then a loop over batches. `main` is its process.

1. Take the registry spec from the first frame and fill a registry. Answer with its fingerprint, or
   with the error.
2. For each batch: unpack the events, run the plan of each, and send the results (`result_buffer`).
   Before each handler, publish the place in shared memory, in case the process dies there.
3. End when asked to, after the `finalizer`, or when the coordinator is gone.

A result is sent when the batch is over; or at once if the event took `SLOW_SECONDS`, so that long
work is not lost with the process. An event without a result needs no frame: the published place
says that it is over. A batch that turns out to be much longer than planned is given up after an
event, and the rest of it goes back.
"""

from __future__ import annotations

import itertools
import sys
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from time import perf_counter
from typing import Any, cast

from evproc import Event, Processor, StopProcessing
from evproc.event import EMITTING, take_emitted
from evproc.exc import _unset
from evproc.handler import Handler
from evproc.processor import annotate_error, collect_follow_ups
from evproc_pool.internals.cpython import (
    UNSHARED,
    getrefcount,
)
from evproc_pool.protocol import messages, status_words
from evproc_pool.protocol.frame import Frame, WorkerChannel
from evproc_pool.protocol.limits import NEARLY, Pace
from evproc_pool.protocol.pass_through import unpack_parts
from evproc_pool.protocol.path_modules import missing_module, take_over
from evproc_pool.protocol.registry_spec import fingerprint, load_config
from evproc_pool.serialization import packing, pickling
from evproc_pool.serialization.basics import gc_paused
from evproc_pool.serialization.packing import ATOMS
from evproc_pool.serialization.privacy import BUILT_IN, CUSTOM, is_constant, is_private
from evproc_pool.worker.batch_job import SINGLE_EVENT, TIMED_EVENT, BatchJob, Calls, SingleEventJob
from evproc_pool.worker.output import UnchangedOutput
from evproc_pool.worker.quota import Quota
from evproc_pool.worker.reporter import Reporter
from evproc_pool.worker.result_buffer import ResultBuffer
from evproc_pool.worker.soft_timeout import SoftTimeout


def prepare(
    channel: WorkerChannel,
    words: memoryview | list[int],
    clock: Callable[[], float] = perf_counter,
    *,
    shared: Sequence[Any] = (),
    has_reporter: bool = False,
    output: UnchangedOutput | None = None,
) -> Worker | None:
    """Fill a registry as the first frame says, and answer with the outcome.

    `shared` is that of the `Config`, `output` that of this process; the other arguments are those
    of `Worker`. Returns None if this failed, which the coordinator has learned.
    """
    frame = channel.receive()
    output = output or UnchangedOutput()
    try:
        spec, limits, pace, _ = load_config(frame.payload, shared, output.begin)
        output.modules_are_imported()
        processor = spec.make_processor(output.is_set_up)
        output.is_ready(processor.registry)
        limits.check_room()
        answer = pickling.dumps(fingerprint(processor.registry))
    except BaseException as error:  # an initializer may raise SystemExit
        channel.send(messages.NOT_READY, pickling.dumps(messages.encode_error(error, None)))
        return None
    channel.send(messages.READY, answer)
    quota = Quota(limits)
    worker = Worker(
        channel, processor, words, quota=quota, pace=pace, clock=clock, has_reporter=has_reporter
    )
    worker.finalizer = spec.finalizer
    if limits.event_soft_timeout is not None:
        code = Worker._run.__code__  # noqa: SLF001 - for the one who interrupts it
        SoftTimeout(limits.event_soft_timeout, words, code).install()
    return worker


class Worker:
    """The loop over batches.

    Args:
        channel: The channel to the coordinator.
        processor: Passed to the handlers; its registry has them.
        words: See `status_words`; a list will do.
        quota: What is left of the worker's limits.
        pace: How long the worker may wait until it reports.
        clock: Returns the time in seconds.
        has_reporter: Whether a thread calls `report` when the coordinator asks for it. If not,
            results are sent after each event for which a caller may wait.

    Attributes:
        finalizer: Called when the worker is asked to end, or None.
    """

    finalizer: Callable[[], object] | None = None

    def __init__(
        self,
        channel: WorkerChannel,
        processor: Processor,
        words: memoryview | list[int],
        *,
        quota: Quota,
        pace: Pace,
        clock: Callable[[], float] = perf_counter,
        has_reporter: bool = False,
    ) -> None:
        self._channel = channel
        self._processor = processor
        self._words: Any = words
        self._quota = quota
        self._pace = pace
        self._clock = clock
        self._said_nearly = False
        self._plans: dict[int, Calls] = {}  # by number
        self._batches = 0
        self._waiting: deque[Frame] = deque()
        self._results = ResultBuffer(
            channel, words, is_timed=quota.is_timed, batches_ahead=pace.batches_ahead
        )
        self.report = self._results.report
        self._reporter: Reporter | None = None
        self._prompt_seconds = pace.report_seconds if has_reporter else 0.0

    def install_reporter(self) -> None:
        """Start the thread that calls `report`. Only in a worker process."""
        self._reporter = Reporter(self._results.report)
        if not self._reporter.install():
            self._reporter, self._prompt_seconds = None, 0.0

    def count_from(self, number: int) -> None:
        """Give the next batch this number; see `plain_calls`."""
        self._batches = number - 1

    def run(self) -> None:
        """Serve until asked to end. An EOFError or OSError says that the coordinator is gone."""
        while True:
            frame = self._waiting.popleft() if self._waiting else self._channel.receive()
            if frame.tag == messages.QUIT:
                if self.finalizer is not None:
                    try:
                        self.finalizer()
                    except BaseException:
                        sys.excepthook(*sys.exc_info())
                return
            if frame.tag == messages.REPACK:
                self._results.repack(pickling.loads(frame.payload))
                continue
            self._words[status_words.BATCH] = self._batches = self._batches + 1
            handle = self._handle_single if frame.tag == messages.SINGLE else self._handle_batch
            arrived = [frame]
            del frame  # free it early, so that the events exist only once
            handle(arrived)
            self._words[status_words.PLACE] = status_words.NONE
            if self._quota.share >= NEARLY:
                if self._quota.is_used_up:
                    self._channel.send(messages.LEAVING, b"")
                elif not self._said_nearly:
                    self._channel.send(messages.NEARLY, b"")
                self._said_nearly = True

    def _skips_batch(self) -> bool:
        """Whether the current batch must not run. Reports so if it is true."""
        if self._batches <= self._words[status_words.TAKEN_TO] or self._quota.is_used_up:
            self._channel.send(messages.SKIPPED, pickling.dumps(self._batches))
            return True
        return False

    def _handle_batch(self, arrived: list[Frame]) -> None:
        """Run a batch. Take its frame out of the list, so that nothing else holds it."""
        frame = arrived.pop()
        if frame.tag == messages.EVENTS:
            batch = messages.load_events(frame.payload)
        else:
            batch = messages.BatchFrame(*pickling.loads(frame.payload))  # events stay packed
        for number, indices in batch.new_plans:
            plan = self._processor.registry.plan(indices)
            self._plans[number] = tuple([(each.index + 1, each) for each in plan.handlers])
        if self._skips_batch():
            return
        self._words[status_words.PLACE] = status_words.UNPICKLING
        buffers = frame.buffers
        del frame
        events, one_by_one = self._unpack(batch.events, batch.size, buffers)
        batch = batch._replace(events=packing.NO_EVENTS)
        del buffers
        self._run_batch(batch, events, one_by_one=one_by_one)

    def _handle_single(self, arrived: list[Frame]) -> None:
        """Do what `_handle_batch` does for a single event, with as few steps as possible.

        A caller waits, and a worker that has slept runs everything several times slower.
        """
        frame = arrived.pop()
        if self._skips_batch():
            return
        self._words[status_words.PLACE] = status_words.UNPICKLING
        number, pickled = messages.load_single(frame.payload)
        calls = self._plans[number]
        try:
            events = (pickling.loads(pickled, frame.buffers),)
        except Exception as error:
            overdue = self._pace.overdue_seconds
            batch = messages.BatchFrame((), number, 1, (), (), overdue, packing.NO_EVENTS)
            self._run_batch(batch, self._ask_again(error), one_by_one=True)
            return
        del frame, pickled
        now = self._clock()
        self._results.begin(number, now)
        is_timed = self._pace.times_handlers and len(calls) > 1
        self._run(TIMED_EVENT if is_timed else SINGLE_EVENT, 0, events, (calls,), now)
        self._quota.spend(1)

    def _unpack(
        self, packed: packing.PackedEvents, size: int, buffers: Sequence[memoryview]
    ) -> tuple[Iterable[Any], bool]:
        """Return the events and False; or an iterable of their pickles and True."""
        if packed.one_by_one:
            return packed.data, True
        try:
            if size == 1 and not packed.in_parts:
                return packing.unpack(packed, buffers), False
            with gc_paused():
                if packed.in_parts:
                    return unpack_parts(packed.data), False
                return packing.unpack(packed, buffers), False
        except Exception as error:
            return self._ask_again(error), True

    def _ask_again(self, error: Exception) -> list[bytes]:
        """Have the coordinator send the events of this batch again, packed one by one.

        Results come in the order of the batches. So batches that arrive before the answer wait.
        """
        question = self._batches, missing_module(error)
        del error  # its traceback refers to the frame that holds the events
        self._channel.send(messages.UNREADABLE, pickling.dumps(question))
        while True:
            frame = self._channel.receive()
            if frame.tag == messages.MODULES:
                take_over(*pickling.loads(frame.payload))
                continue
            if frame.tag == messages.REPACKED:
                return cast("list[bytes]", pickling.loads(frame.payload))
            self._waiting.append(frame)

    def _run_batch(
        self, batch: messages.BatchFrame, events: Iterable[Any], *, one_by_one: bool
    ) -> None:
        plans = self._plans
        if isinstance(batch.plans, int):
            calls = [plans[batch.plans]] * batch.size
        else:
            # an event that could not be packed has failed already
            calls = [() if each == messages.OMITTED else plans[each] for each in batch.plans]
        now = self._clock()
        most = int(min(batch.size, self._quota.tasks_left))
        if self._reporter is not None:
            self._reporter.resume()
        report_seconds = self._prompt_seconds if batch.is_prompt else self._pace.target_seconds
        is_timed = self._pace.times_handlers
        if is_timed:  # an event with one handler takes as long as that
            is_timed = max(map(len, calls[:1] if isinstance(batch.plans, int) else calls)) > 1
        job = BatchJob(batch, calls, now + batch.overdue, most, report_seconds, is_timed=is_timed)
        self._results.begin(batch.plans, now, names_handlers=batch.names_handlers)
        if one_by_one:
            is_through = self._run_one_by_one(job, events)
        else:
            is_through = self._run_in_pieces(job, events, now)
        if is_through and most < batch.size:
            self._results.send(most, gave_back=True)
        self._quota.spend(self._results.sent)

    def _run_in_pieces(self, job: BatchJob, events: Iterable[Any], began: float) -> bool:
        """Run the events; send the results while they are in the CPU's caches."""
        if type(events) is list:
            # taken out one by one: an event's memory is used again while the caches have it
            events.reverse()
            events = map(list.pop, itertools.repeat(events))
        # `calls` are not copied: `end_chain` empties those of later events
        events, calls = iter(events), iter(job.calls)
        begin = 0
        while begin < job.stop:
            end = min(begin + self._results.most_events, job.stop)
            if not self._run(job, begin, events, itertools.islice(calls, end - begin), began):
                return False
            if end < job.stop and self._results.unsent:
                self._results.send(end)
                self._results.begun = began = self._clock()
            begin = end
        return True

    def _run_one_by_one(self, job: BatchJob, pickles: Iterable[bytes]) -> bool:
        calls = job.calls
        for position, pickled in enumerate(itertools.islice(pickles, job.stop)):
            began = self._clock()
            self._words[status_words.PLACE] = position << status_words.HANDLER_BITS
            events: list[Any] = [None]
            if calls[position]:
                try:
                    events = [packing.unpack_event(pickled)]
                except Exception as error:
                    self._results.add_error(position, error, None)
                    job.end_chain(position, messages.ENDS_BY_ERROR)
                    calls[position] = ()
            if not self._run(job, position, events, calls[position : position + 1], began):
                return False
            # also sent one by one: if the worker dies in sending, this event is the cause
            if self._results.unsent and position + 1 < job.stop:
                self._results.send(position + 1)
                self._results.begun = self._clock()
        return True

    def _run(  # noqa: C901, PLR0912, PLR0915 - the hot loop, see below
        self,
        job: BatchJob | SingleEventJob,
        first: int,
        events: Iterable[Any],
        calls: Iterable[Calls],
        began: float,
    ) -> bool:
        """Run the events from a position on. Return whether to go on behind them.

        `began` is a time before the place of the first event was published.

        The loop over handlers is that of `evproc.processor.run_handlers`, plus publishing the
        place. It is written out: an event takes a microsecond, and a call would be noticeable. The
        soft timeout is raised only at the calls of `handler.func` and `collect_follow_ups`.
        """
        words, proc, results = self._words, self._processor, self._results
        places = itertools.count(first << status_words.HANDLER_BITS, 1 << status_words.HANDLER_BITS)
        ended, unsent, followed = results.ends.append, results.unsent, results.followed
        stopped, deferring = results.stopped, results.deferring
        returns, has_chains, is_timed = job.returns, job.has_chains, job.is_timed
        begins = results.begins.append
        overdue, quota, clock, is_prompt = job.overdue, self._quota, self._clock, job.is_prompt
        at, first_unsent, bits = status_words.PLACE, status_words.UNSENT, status_words.HANDLER_BITS
        over, again, slow = status_words.OVER, status_words.AGAIN, status_words.SLOW_SECONDS
        unreported = status_words.UNREPORTED
        # results do not wait for the end of a long batch
        check_at = min(overdue, quota.check_at, began + job.report_seconds)
        place, code, now = 0, 0, began
        keep_seconds = self._pace.keep_seconds
        unsent_at = -1  # the place of the last event with an unsent result
        references = 0  # to the event, before its handlers run
        source: Handler | tuple[Handler] | None = None  # returned follow-ups; see `followed`
        value: Any = _unset  # given to StopProcessing
        # calls before events: where they end, no event is taken
        for place, to_call, ev in zip(places, calls, events):  # noqa: B905 - `places` is endless
            began = now
            if returns:
                references = getrefcount(ev)
            follow_ups: Any = None  # the follow-up, or a list of several
            handler: Handler | None = None
            try:
                for code, handler in to_call:
                    words[at] = place | code
                    if is_timed:
                        begins(clock())
                    returned = handler.func(proc, ev)
                    if returned is not None:
                        if (  # the usual case, one event: does what `collect_follow_ups` does
                            follow_ups is None
                            and type(returned) is list
                            and len(returned) == 1
                            and Event in type(returned[0]).__mro__
                        ):
                            follow_ups, source = returned[0], handler
                            continue
                        if type(follow_ups) is not list:
                            follow_ups = [] if follow_ups is None else [follow_ups]
                        had = len(follow_ups)
                        try:
                            collect_follow_ups(returned, handler, ev, follow_ups)
                        finally:  # a generator may raise after some follow-ups
                            if len(follow_ups) > had:  # a tuple: the last one of several
                                source = (handler,) if had else handler
            except StopProcessing as stop:
                value = stop.retval
                if code != to_call[-1][0]:
                    results.add_cut_short(place >> bits, code)
                    unsent_at = place
            except BaseException as error:
                follow_ups = None
                if handler is not None:
                    annotate_error(error, handler, ev)
                if EMITTING:
                    take_emitted(ev)  # a failed event emits nothing
                results.add_error(place >> bits, error, handler)
                unsent_at = place
                if code != to_call[-1][0]:
                    results.add_cut_short(place >> bits, code)
                job.end_chain(place >> bits, messages.ENDS_BY_ERROR)
            if value is not _unset:
                follow_ups, unsent_at = None, place
                position, made_of = place >> bits, BUILT_IN
                if (
                    type(value) in ATOMS
                    or (
                        handler in deferring
                        and getrefcount(value) <= UNSHARED
                        and (made_of := is_private(value))
                    )
                    or (made_of := is_constant(value))
                ):
                    if made_of == CUSTOM:
                        results.has_custom = True  # first: see `ResultBuffer.report`
                    unsent.append(position)
                    if words[first_unsent] < 0:
                        words[first_unsent] = position
                    # without the event, so that it may go; see `ENTRY`
                    stopped += position, ev if made_of == CUSTOM else None, handler, value
                elif results.add_packed(stopped, position, ev, handler, value):
                    check_at = 0.0  # now
                if has_chains:
                    job.end_chain(position, messages.ENDS_BY_VALUE)
                value = _unset
            elif follow_ups is not None and (type(follow_ups) is not list or follow_ups):
                # `ResultBuffer._add`, inlined
                position, unsent_at = place >> bits, place
                unsent.append(position)
                if words[first_unsent] < 0:
                    words[first_unsent] = position
                followed += position, ev, source, follow_ups
                if results.sends_follow_ups_at_once:
                    check_at = 0.0  # now
                if has_chains:
                    job.end_chain(position, messages.ENDS_BY_FOLLOW_UPS)
            if (EMITTING or returns) and to_call:
                position = place >> bits
                if EMITTING and results.take_emitted(position, ev, handler):
                    check_at = 0.0
                if returns:
                    is_kept = getrefcount(ev) > references + results.references_to(ev)
                    if results.return_event(position, ev, returns, is_kept=is_kept):
                        check_at = 0.0
                if unsent and unsent[-1] == position:
                    unsent_at = place
            # Publish before reading the clock: see `status_words`. Otherwise a worker that is
            # preempted between two events looks as if it were at the first of them. The repeat mark
            # of a fast event is written only before a send: without a send the next event is
            # published in a moment.
            if unsent_at == place:
                words[at] = place | unreported | code
            else:
                words[at] = place | (over if to_call else again)
            now = clock()
            ended(now)
            if now - began >= slow or now > check_at:
                is_time, is_slow, is_large = now > check_at, now - began >= slow, not check_at
                if now > quota.check_at:
                    quota.check_memory(now)
                since = now if is_time else results.begun  # slow ones do not put a report off
                check_at = min(overdue, quota.check_at, since + job.report_seconds)
                if not is_slow and words[at] & over == unreported | code:
                    words[at] = place | again
                done = (place >> bits) + 1
                if done < job.stop:
                    is_taken = words[status_words.TAKEN] == status_words.event_at(
                        self._batches, done
                    )
                    if is_taken or now > overdue or quota.is_used_up:
                        results.send(done, gave_back=True)
                        return False
                    is_due = is_large or is_slow or bool(followed)
                    is_due = is_due or now - results.begun > keep_seconds
                    if (is_time and is_prompt) or (unsent and (is_due or is_prompt)):
                        results.send(done)
                        words[at] = place | over
                        now = results.begun = clock()  # the next event does not pay for sending
                        check_at = min(overdue, quota.check_at, now + job.report_seconds)
        if now - began < slow and words[at] & over == unreported | code:
            words[at] = place | again
        if (place >> bits) + 1 == job.size:
            results.send(job.size)
        return True
