"""A worker process: its own registry, and a loop over batches.

1. Ignore SIGINT: Ctrl-C reaches the whole process group, and the coordinator
   decides what it means.
2. Take the spec from the first frame, follow it, answer with the fingerprint
   of the registry that came of it (or with why it failed).
3. For each batch: unpack the events, run the plan of each, and send what they
   left behind (`result_buffer`). Before each handler the place is published in shared memory, for
   the case that the process dies there.
4. End when told to, or when the coordinator is gone.

What an event left behind is sent when the batch is over, or at once if the event
took `SLOW_SECONDS`: what took long is not lost with the process. An event that
left nothing behind needs no sending: that the published place is further says
that it is over. A batch that turns out to be much longer than it was meant to be
is given up after an event, and the rest of it goes back.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import signal
import socket
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from sys import getrefcount
from time import perf_counter
from typing import Any

from evproc import Event, Processor, StopProcessing
from evproc.event import EMITTING, take_emitted
from evproc.exc import _unset
from evproc.handler import Handler
from evproc.processor import annotate_error, collect_follow_ups
from evproc_pool.ipc.channel import BlockingChannel, WorkerChannel
from evproc_pool.ipc.resources import WorkerResources
from evproc_pool.protocol import messages, status_words
from evproc_pool.protocol.frame import Frame
from evproc_pool.protocol.limits import NEARLY, Limits, Pace
from evproc_pool.protocol.pass_through import unseal
from evproc_pool.protocol.registry_spec import RegistrySpec, fingerprint
from evproc_pool.serialization import basics, diagnosis, packing, pickling
from evproc_pool.serialization.gc_pause import gc_paused
from evproc_pool.serialization.packing import ATOMS
from evproc_pool.serialization.privacy import BUILT_IN, CUSTOM, UNSHARED, is_constant, is_private
from evproc_pool.worker import reporter
from evproc_pool.worker.quota import Quota
from evproc_pool.worker.reporter import Reporter
from evproc_pool.worker.result_buffer import ResultBuffer
from evproc_pool.worker.soft_timeout import SoftTimeout


def main(sock: socket.socket, shares: WorkerResources, to_close: Sequence[int]) -> None:
    """Run a worker until it is told to end.

    Args:
        sock: Its end of the channel.
        shares: What else it has been given.
        to_close: Descriptors that a forked process has inherited and must not hold:
            the coordinator's ends, which would keep other workers from noticing
            that the coordinator is gone.
    """
    with contextlib.suppress(ValueError):  # not the main thread: nothing to ignore
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    basics.become_worker()
    for fd in to_close:
        socket.close(fd)
    if shares.stacks is not None:
        shares.stacks.install()
    if shares.parent_watch is not None:
        shares.parent_watch.install()
    words = shares.words
    channel = BlockingChannel(sock, shares.shared_memory)
    # the coordinator is gone: there is nobody to tell, and nothing to do
    with contextlib.suppress(EOFError, ConnectionError):
        outbox_words = [0] * status_words.WORDS if words is None else words.words
        worker = prepare(channel, outbox_words, has_reporter=reporter.SIGNAL is not None)
        if worker is not None:
            worker.install_reporter()
            # What has been loaded stays; a full garbage collection need not go through it.
            gc.freeze()
            worker.run()
    channel.close()


def prepare(
    channel: WorkerChannel,
    words: memoryview | list[int],
    clock: Callable[[], float] = perf_counter,
    *,
    has_reporter: bool = False,
) -> Worker | None:
    """Follow the spec in the first frame, and say how that went.

    Args:
        channel: See `Worker`.
        words: Likewise.
        clock: Likewise.
        has_reporter: Likewise.

    Returns:
        A worker that can run; None if it failed, which the coordinator has been told.

    Raises:
        EOFError: The coordinator is gone.
        OSError: Likewise.
    """
    frame = channel.receive()
    try:
        spec: RegistrySpec
        limits: Limits
        pace: Pace
        spec, limits, pace = pickling.loads(frame.payload)
        processor = spec.follow()
        limits.check_room()
        answer = pickling.dumps(fingerprint(processor.registry))
    except BaseException as error:  # an initializer may raise SystemExit
        channel.send(messages.NOT_READY, pickling.dumps(messages.encode_error(error, None)))
        return None
    channel.send(messages.READY, answer)
    worker = Worker(
        channel,
        processor,
        words,
        quota=Quota(limits),
        pace=pace,
        clock=clock,
        has_reporter=has_reporter,
    )
    if limits.event_soft_timeout is not None:
        worker.heed_soft_timeout(limits.event_soft_timeout)
    return worker


class Worker:
    """The loop over batches.

    Args:
        channel: To the coordinator.
        processor: What the handlers are given; its registry has them.
        words: See `status_words`; anything that takes items will do.
        quota: What it may use.
        pace: How long it may wait until it reports.
        clock: Says what time it is, in seconds.
        has_reporter: Whether somebody calls `tell` where that is asked for. If not, what is over
            is sent after each event for which somebody may wait.
    """

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
        self._told = 0.0  # the share of the quota that was told last
        # what to call for each plan, with what to publish before
        self._plans: dict[int, tuple[tuple[int, Handler], ...]] = {}
        self._batches = 0
        self._waiting: deque[Frame] = deque()
        self._packer = packing.EventPacker()
        self._results = ResultBuffer(
            channel,
            self._packer,
            self._words,
            is_timed=quota.is_timed,
            batches_ahead=pace.batches_ahead,
        )
        self.tell = self._results.tell
        self._reporter: Reporter | None = None
        self._prompt_seconds = pace.tell_seconds if has_reporter else 0.0

    def heed_soft_timeout(self, seconds: float) -> None:
        """Raise it in a handler when the coordinator says so; see `soft_timeout`."""
        SoftTimeout(seconds, self._words, self._run.__code__).install()

    def install_reporter(self) -> None:
        """Have a thread call `tell`; see `reporter`. Only where the process is the worker's."""
        self._reporter = Reporter(self._results.tell)
        if not self._reporter.install():
            self._reporter, self._prompt_seconds = None, 0.0

    def run(self) -> None:
        """Serve until told to end.

        Raises:
            EOFError: The coordinator is gone.
            OSError: Likewise.
        """
        while True:
            frame = self._waiting.popleft() if self._waiting else self._channel.receive()
            if frame.tag == messages.QUIT:
                return
            if frame.tag == messages.REPACK:
                self._results.repack(pickling.loads(frame.payload))
                continue
            self._words[status_words.BATCH] = self._batches = self._batches + 1
            take = self._take_single if frame.tag == messages.SINGLE else self._take
            arrived = [frame]
            del frame  # the events are there in a moment: do not hold them twice
            take(arrived)
            self._words[status_words.PLACE] = status_words.NONE
            if self._quota.share >= NEARLY:
                self._tell_quota()

    @property
    def _is_skipped(self) -> bool:
        """Whether nothing of the batch is run."""
        if self._batches <= self._words[status_words.TAKEN_TO] or self._quota.is_used_up:
            self._channel.send(messages.SKIPPED, pickling.dumps(self._batches))
            return True
        return False

    def _take(self, arrived: list[Frame]) -> None:
        """Run a batch, whose frame is taken from the list that it is in."""
        frame = arrived.pop()
        if frame.tag == messages.EVENTS:
            batch = messages.load_events(frame.payload)
        else:
            batch = messages.BatchFrame(*pickling.loads(frame.payload))  # the events are inside yet
        for number, indices in batch.new_plans:
            plan = self._processor.registry.plan(indices)
            self._plans[number] = tuple([(each.index + 1, each) for each in plan.handlers])
        if self._is_skipped:
            return
        self._words[status_words.PLACE] = status_words.UNPICKLING
        buffers = frame.buffers
        del frame
        events, one_by_one = self._unpack(batch.events, batch.size, buffers)
        batch = batch._replace(events=packing.NO_EVENTS)
        del buffers
        self._run_batch(batch, events, one_by_one=one_by_one)

    def _take_single(self, arrived: list[Frame]) -> None:
        """Do what `_take` does, for one event: with as little around it as can be.

        Somebody waits for it, and a worker that has slept does everything several times as
        slowly as in a loop.
        """
        frame = arrived.pop()
        if self._is_skipped:
            return
        self._words[status_words.PLACE] = status_words.UNPICKLING
        number, pickled = messages.load_single(frame.payload)
        calls = self._plans[number]
        try:
            events = (pickling.loads(pickled, frame.buffers),)
        except Exception:
            batch = messages.BatchFrame(
                (), number, 1, (), (), self._pace.overdue_seconds, packing.NO_EVENTS
            )
            self._run_batch(batch, self._ask_again(), one_by_one=True)
            return
        del frame, pickled
        now = self._clock()
        self._results.begin(number, now)
        self._run(_Single(now, self._pace), 0, events, (calls,), now)
        self._quota.spend(1)

    def _tell_quota(self) -> None:
        if self._quota.is_used_up:
            self._channel.send(messages.LEAVING, b"")
        elif not self._told:
            self._channel.send(messages.NEARLY, b"")
        self._told = self._quota.share

    def _unpack(
        self, packed: packing.PackedEvents, size: int, buffers: Sequence[memoryview]
    ) -> tuple[Iterable[Any], bool]:
        """The events, or a pickle of each; and which of these it is."""
        if packed.one_by_one:
            return packed.data, True
        try:
            if size == 1 and not packed.in_parts:
                return packing.unpack(packed, buffers), False
            with gc_paused():
                if packed.in_parts:
                    return unseal(packed.data), False
                return packing.unpack(packed, buffers), False
        except Exception:
            return self._ask_again(), True

    def _ask_again(self) -> Iterable[bytes]:
        """Have the events of this batch come again, packed one by one.

        Batches that were sent before the coordinator knew have to wait, since results come
        in order.
        """
        self._channel.send(messages.UNREADABLE, pickling.dumps(self._batches))
        while True:
            frame = self._channel.receive()
            if frame.tag == messages.REPACKED:
                pickles: Iterable[bytes] = pickling.loads(frame.payload)
                return pickles
            self._waiting.append(frame)

    def _run_batch(
        self, batch: messages.BatchFrame, events: Iterable[Any], *, one_by_one: bool
    ) -> None:
        plans = self._plans
        if isinstance(batch.plans, int):
            calls = [plans[batch.plans]] * batch.size
        else:
            # what could not be packed has failed already: there is nothing to call
            calls = [() if each == messages.OMITTED else plans[each] for each in batch.plans]
        now = self._clock()
        most = int(min(batch.size, self._quota.tasks_left))
        if self._reporter is not None:
            self._reporter.resume()
        tell_seconds = self._prompt_seconds if batch.is_prompt else self._pace.target_seconds
        job = _Job(batch, calls, now + batch.overdue, most, tell_seconds)
        self._results.begin(batch.plans, now, tells_givers=batch.tells_givers)
        if one_by_one:
            is_through = self._run_one_by_one(job, events)
        else:
            # not a copy: what ends in a chain empties the calls of the rest
            is_through = self._run(job, 0, events, itertools.islice(calls, most), now)
        if is_through and most < batch.size:
            self._results.send(most, gave_back=True)
        self._quota.spend(self._results.sent)

    def _run_one_by_one(self, job: _Job, pickles: Iterable[bytes]) -> bool:
        calls = job.calls
        for position, pickled in enumerate(itertools.islice(pickles, job.stop)):
            began = self._clock()
            self._words[status_words.PLACE] = position << status_words.HANDLER_BITS
            events: list[Any] = [None]
            if calls[position]:
                try:
                    events = [_load_event(pickled)]
                except Exception as error:
                    self._results.fail(position, error, None)
                    job.end_chain(position, messages.ENDS_BY_ERROR)
                    calls[position] = ()
            if not self._run(job, position, events, calls[position : position + 1], began):
                return False
            # alone, too: where a worker dies in sending it, that is the one
            if self._results.unsent and position + 1 < job.stop:
                self._results.send(position + 1)
                self._results.begun = self._clock()
        return True

    def _run(  # noqa: C901, PLR0912, PLR0915 - the hot loop, see below
        self,
        job: _Job | _Single,
        first: int,
        events: Iterable[Any],
        calls: Iterable[_Calls],
        then: float,
    ) -> bool:
        """Run the events from a position of the batch on; say whether to go on behind them.

        `then` is a time before the place of the first one was published.

        The loop over handlers is that of `evproc.processor.run_handlers`, with the
        place published; it is written out, since at a microsecond an event a call
        more is felt. A soft timeout tells by the lines in which `handler.func` and
        `collect_follow_ups` are called that a handler is running, and raises there.
        """
        words, proc, results = self._words, self._processor, self._results
        places = itertools.count(first << status_words.HANDLER_BITS, 1 << status_words.HANDLER_BITS)
        ended, unsent, followed = results.ends.append, results.unsent, results.followed
        stopped, deferring = results.stopped, results.deferring
        returns, has_chains = job.returns, job.has_chains
        overdue, quota, clock, is_prompt = job.overdue, self._quota, self._clock, job.is_prompt
        bits, at, over, again = (
            status_words.HANDLER_BITS,
            status_words.PLACE,
            status_words.OVER,
            status_words.AGAIN,
        )
        untold, slow, first_unsent = (
            status_words.UNTOLD,
            status_words.SLOW_SECONDS,
            status_words.UNSENT,
        )
        # what events leave behind does not wait for the end of a long batch
        look_at = min(overdue, quota.look_at, then + job.tell_seconds)
        place, code, now = 0, 0, then
        keep = self._pace.keep_seconds
        left_at = -1  # the place of the last event with something to tell
        references = 0  # to an event, before its handlers run
        giver: Handler | tuple[Handler] | None = None  # of an event's follow-ups
        value: Any = _unset  # given to StopProcessing
        for place, ev, to_call in zip(places, events, calls):  # noqa: B905 - `places` is endless
            then = now
            if returns:
                references = getrefcount(ev)
            gave: Any = None  # the follow-up; several: a list of these
            handler: Handler | None = None
            try:
                for code, handler in to_call:
                    words[at] = place | code
                    returned = handler.func(proc, ev)
                    if returned is not None:
                        if (  # one event, as it mostly is: what `collect_follow_ups` does then
                            gave is None
                            and type(returned) is list
                            and len(returned) == 1
                            and Event in type(returned[0]).__mro__
                        ):
                            gave, giver = returned[0], handler
                            continue
                        if type(gave) is not list:
                            gave = [] if gave is None else [gave]
                        had = len(gave)
                        try:
                            collect_follow_ups(returned, handler, ev, gave)
                        finally:  # a generator may stop the event after some
                            if len(gave) > had:  # a tuple: the last one of several
                                giver = (handler,) if had else handler
            except StopProcessing as stop:
                value = stop.retval
                if code != to_call[-1][0]:
                    results.cut_short(place >> bits, code)
                    left_at = place
            except BaseException as error:
                gave = None
                if handler is not None:
                    annotate_error(error, handler, ev)
                if EMITTING:
                    take_emitted(ev)  # it is forgotten
                results.fail(place >> bits, error, handler.name if handler is not None else None)
                left_at = place
                if code != to_call[-1][0]:
                    results.cut_short(place >> bits, code)
                job.end_chain(place >> bits, messages.ENDS_BY_ERROR)
            if value is not _unset:
                gave, left_at = None, place
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
                        results.has_others = True  # first: see `ResultBuffer.tell`
                    unsent.append(position)
                    if words[first_unsent] < 0:
                        words[first_unsent] = position
                    stopped += position, ev, handler, value
                elif results.leave(stopped, position, ev, handler, value):
                    look_at = 0.0  # now
                if has_chains:
                    job.end_chain(position, messages.ENDS_BY_VALUE)
                value = _unset
            elif gave is not None and (type(gave) is not list or gave):
                # what `result_buffer` does for others in a call
                position, left_at = place >> bits, place
                unsent.append(position)
                if words[first_unsent] < 0:
                    words[first_unsent] = position
                followed += position, ev, giver, gave
                if has_chains:
                    job.end_chain(position, messages.ENDS_BY_FOLLOW_UPS)
            if (EMITTING or returns) and to_call:
                position = place >> bits
                if EMITTING and results.take_emitted(position, ev, handler):
                    look_at = 0.0
                if returns:
                    is_kept = getrefcount(ev) > references + results.references_to(ev)
                    if results.give_back(position, ev, returns, is_kept=is_kept):
                        look_at = 0.0
                if unsent and unsent[-1] == position:
                    left_at = place
            # Before the look at the clock: see `status_words`. Without it a worker that is
            # preempted between two events looks like one that is at the first of them.
            # That it was quick, and may be run again, is said only before a send: otherwise
            # the next event is published in a moment.
            if left_at == place:
                words[at] = place | untold | code
            else:
                words[at] = place | (over if to_call else again)
            now = clock()
            ended(now)
            if now - then >= slow or now > look_at:
                is_time, is_slow, is_large = now > look_at, now - then >= slow, not look_at
                if now > quota.look_at:
                    quota.look(now)
                look_at = min(overdue, quota.look_at, now + job.tell_seconds)
                if not is_slow and words[at] & over == untold | code:
                    words[at] = place | again
                done = (place >> bits) + 1
                if done < job.stop:
                    is_taken = words[status_words.TAKEN] == status_words.taken_from(
                        self._batches, done
                    )
                    if is_taken or now > overdue or quota.is_used_up:
                        results.send(done, gave_back=True)
                        return False
                    is_due = is_large or is_slow or followed or results.is_heavy
                    is_due = is_due or now - results.begun > keep
                    if (is_time and is_prompt) or (unsent and (is_due or is_prompt)):
                        results.send(done)
                        words[at] = place | over
                        now = results.begun = clock()  # the next event does not answer for it
        if now - then < slow and words[at] & over == untold | code:
            words[at] = place | again
        if (place >> bits) + 1 == job.size:
            results.send(job.size)
        return True


#: What to call for an event: what to publish, and the handler.
_Calls = tuple[tuple[int, Handler], ...]


class _Job:
    """A batch that is being run.

    Attributes:
        size: How many events.
        calls: What to call for each; emptied for those that are not to run any more.
        returns: Positions of events that are to come back.
        overdue: When it takes longer than it was meant to.
        stop: How many of its events are to be run here.
        is_prompt: Whether somebody may wait for single events of it.
        tell_seconds: So long what is over may wait to be told, while events are quick.
        has_chains: Whether one of its events may leave others unrun.
    """

    __slots__ = (
        "_chains",
        "calls",
        "has_chains",
        "is_prompt",
        "overdue",
        "returns",
        "size",
        "stop",
        "tell_seconds",
    )

    def __init__(
        self,
        batch: messages.BatchFrame,
        calls: list[_Calls],
        overdue: float,
        stop: int,
        tell_seconds: float,
    ) -> None:
        self.size = batch.size
        self.calls = calls
        self.returns = frozenset(batch.return_events)
        self.overdue = overdue
        self.stop = stop
        self.is_prompt = batch.is_prompt
        self.tell_seconds = tell_seconds
        self.has_chains = bool(batch.chains)
        self._chains: dict[int, tuple[int, int]] = {}
        if batch.chains:
            for first, last, ends in batch.chains:
                self._chains.update(dict.fromkeys(range(first, last), (last, ends)))
            for position, to_call in enumerate(calls):
                if not to_call:
                    self.end_chain(position, messages.ENDS_BY_ERROR)

    def end_chain(self, position: int, how: int) -> None:
        """What follows an event in its chain does not run, if the chain ends by such a thing."""
        stop, ends = self._chains.get(position, (0, 0))
        if ends & how:
            self.calls[position + 1 : stop] = [()] * (stop - position - 1)


class _Single:
    """A batch of one event that is being run; see `_Job`."""

    __slots__ = ("overdue", "tell_seconds")

    size = stop = 1
    returns: frozenset[int] = frozenset()
    has_chains = is_prompt = False

    def __init__(self, now: float, pace: Pace) -> None:
        self.overdue = now + pace.overdue_seconds  # of no consequence: there is none to give back
        self.tell_seconds = pace.target_seconds

    def end_chain(self, position: int, how: int) -> None:
        """There is none."""


def _load_event(pickled: bytes) -> Event:
    try:
        event: Event = pickling.loads(pickled)
    except Exception as error:
        raise diagnosis.cannot_rebuild("the event", error) from error
    return event
