"""What a worker has done in a batch and not told yet, and how it tells.

What events left behind (follow-ups, values, errors, events that come back) is gathered
here, and goes with the next progress frame. Follow-ups are packed in one pass; under
`event_timeout` those of sixteen events at a time, so that it can be told which of them
hangs. What was sent is kept for
a coordinator that cannot unpack it, until that cannot ask any more (`repack`).

While something is untold or being packed, the words of shared memory say whose it is,
for the case that the process dies there: see `progress`.
"""

from __future__ import annotations

import itertools
from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from evproc import Event
from evproc.event import describe_event
from evproc.registry import Handler
from evproc_pool import packing, pickling, progress, wire
from evproc_pool.channel import WorkerChannel
from evproc_pool.collection import no_collection
from evproc_pool.loads import PREFETCH
from evproc_pool.sealed import Sealed, Sealer

# Of so many events the follow-ups are packed together at the most, under `event_timeout`.
_PACKED_TOGETHER: Final = 16


class Outbox:
    """What has been done in a batch and not been sent.

    The worker's loop puts follow-ups into `followed` and `unsent`, and times into `ends`,
    itself, and holds on to them: they are emptied and never replaced.

    Args:
        channel: To the coordinator.
        packer: Packs follow-ups.
        words: The words of `progress`, by their numbers.
        is_timed: Whether what packing takes has to be told by the event.

    Attributes:
        ends: When each event was over, of those that were not told.
        unsent: The positions of events with something to tell, in order.
        followed: The events with follow-ups: position, event, the handler that returned
            them, or None for several, the follow-up, or a list of them; position, ...
        sent: How many events of the batch are over, as was told.
        begun: When the first event began that was not told.
    """

    def __init__(
        self, channel: WorkerChannel, packer: packing.EventPacker, words: Any, *, is_timed: bool
    ) -> None:
        self._channel = channel
        self._is_timed = is_timed
        self._packer = packer
        self._sealer = Sealer(packer)
        self._words = words
        self._number = 0  # of the last frame with follow-ups
        # The follow-ups of the last batches, for a coordinator that cannot unpack them.
        # It sends a batch only when it has read all but PREFETCH - 1 of those before.
        self._kept: deque[dict[int, _Given]] = deque(maxlen=PREFETCH + 1)
        self.ends = array("d")
        self.unsent: list[int] = []
        self.followed: list[Any] = []
        self._forget()
        self.begin(0, 0.0)

    def begin(self, plans: Sequence[int] | int, now: float) -> None:
        """Begin a batch."""
        self._plans = plans
        self.sent = 0
        self.begun = now
        self._kept.append({})

    def _forget(self) -> None:
        del self.unsent[:]
        self._large: list[memoryview] = []
        del self.followed[:]
        self._values: list[tuple[int, packing.PackedValue]] = []
        self._processed: list[tuple[int, packing.PackedValue]] = []
        self._errors: list[tuple[int, wire.ErrorRecord]] = []

    @property
    def _buffers(self) -> list[memoryview] | None:
        """Where large buffers go."""
        return self._large if self._channel.takes_buffers else None

    def _has(self, position: int) -> None:
        if not self.unsent:
            self._words[progress.UNSENT] = position
        self.unsent.append(position)

    def stop(self, position: int, ev: Event, handler: Handler | None, value: object) -> bool:
        """A handler ended an event's cascade with this value.

        Returns:
            Whether there are large buffers in it. They are views: then it is to be sent
            before another handler may change them.
        """
        try:
            packed = packing.pack_value(value, self._buffers)
        except Exception as error:
            what = f"the value given to StopProcessing by {_by(handler)}"
            what += f" for event {describe_event(ev)}"
            failure = pickling.cannot_pickle(what, value, error)
            self.fail(position, failure, handler.name if handler is not None else None)
        else:
            self._has(position)
            self._values.append((position, packed))
        return bool(self._large)

    def give_back(self, position: int, ev: Event, wanted: frozenset[int]) -> bool:
        """If it is wanted, an event comes back as it is now; not one that failed.

        Returns:
            See `stop`.
        """
        if position not in wanted or (self._errors and self._errors[-1][0] == position):
            return False
        self._has(position)
        try:
            self._processed.append((position, packing.pack_value(ev, self._buffers)))
        except Exception as error:
            failure = pickling.cannot_pickle(f"event {describe_event(ev)}, processed,", ev, error)
            self.fail(position, failure, None)
        return bool(self._large)

    def fail(self, position: int, error: BaseException, handler: str | None) -> None:
        """An event failed."""
        self._has(position)
        self._errors.append((position, wire.encode_error(error, handler)))

    def send(self, done: int, *, gave_back: bool = False) -> None:
        """Send what is untold, and say how many events of the batch are over."""
        ends = self.ends.tobytes()
        if not self.unsent and isinstance(self._plans, int):
            quiet = wire.dump_quiet(done, ends, self.begun, gave_back=gave_back)
            self._channel.send(wire.QUIET, quiet)
        else:
            told = None
            if self.unsent:
                self._words[progress.PACKING] = progress.packing(self.unsent)
                told = self._told()
                self._words[progress.PACKING] = 0
            frame = wire.ProgressFrame(done, self.begun, ends, self._timings(), gave_back, told)
            self._channel.send(wire.PROGRESS, wire.dump_progress(frame), self._large)
            self._words[progress.UNSENT] = progress.NONE
            self._forget()
        self.sent = done
        del self.ends[:]

    def _told(self) -> wire.Told:
        packed = packing.NO_EVENTS
        givers: Sequence[int] = ()
        counts: Sequence[int] = ()
        if self.followed:
            self._number += 1
            given = _given(self.followed)
            givers, counts, follow_ups = given.givers, given.counts, given.follow_ups
            with no_collection():
                slices = self._sealer.seal(follow_ups)
            if slices is None:
                packed = self._pack(given)
            else:
                packed = packing.PackedEvents(False, slices, in_parts=True)
                # The memory of the events themselves is in the CPU's caches, for the next ones.
                given = given._replace(events=(), handlers=(), follow_ups=Sealed.received(slices))
            self._kept[-1][self._number] = given
            if len(givers) == len(follow_ups):
                counts = ()  # as is usual: one each
            if givers[-1] - givers[0] == len(givers) - 1:
                givers = range(givers[0], givers[-1] + 1)
        return wire.Told(
            self._number,
            givers,
            counts,
            packed,
            self._values,
            self._processed,
            self._errors,
        )

    def _pack(self, given: _Given) -> packing.PackedEvents:
        try:
            if not self._is_timed:
                return self._packer.pack(given.follow_ups, self._buffers)
            parts = [self._packer.pack(piece).data for piece in self._pieces(given)]
            return packing.PackedEvents(False, parts, in_parts=True)
        except BaseException:  # also what the hooks of a class raise
            return packing.PackedEvents(True, self._one_by_one(given))

    def _pieces(self, given: _Given) -> Iterator[Sequence[Event]]:
        """The follow-ups of a few events at a time, published as they are asked for."""
        begin = 0
        for first in range(0, len(given.givers), _PACKED_TOGETHER):
            some = slice(first, first + _PACKED_TOGETHER)
            self._words[progress.PACKING] = progress.packing(given.givers[some])
            end = begin + sum(given.counts[some])
            yield given.follow_ups[begin:end]
            begin = end

    def _timings(self) -> list[tuple[int, int, float]]:
        """Plan number, events, and their seconds."""
        plans = self._plans
        if isinstance(plans, int):
            return [(plans, len(self.ends), self.ends[-1] - self.begun)]
        totals: dict[int, tuple[int, float]] = {}
        then = self.begun
        numbers = plans[self.sent : self.sent + len(self.ends)]
        for number, now in zip(numbers, self.ends, strict=True):
            if number != wire.OMITTED:
                events, total = totals.get(number, (0, 0.0))
                totals[number] = events + 1, total + now - then
            then = now
        return [(number, events, total) for number, (events, total) in totals.items()]

    def repack(self, number: int) -> None:
        """Answer a coordinator that could not unpack the follow-ups of a frame."""
        for batch in self._kept:
            if number in batch:
                blobs = self._one_by_one(batch[number])
                self._words[progress.PACKING] = 0
                self._channel.send(wire.FOLLOW_UPS, pickling.dumps((number, blobs)))

    def _one_by_one(self, given: _Given) -> list[Any]:
        """For each event that gave follow-ups their pickle, or why there is none."""
        blobs: list[Any] = []
        begin = 0
        for place, position in enumerate(given.givers):
            self._words[progress.PACKING] = progress.packing((position,))
            end = begin + given.counts[place]
            some = list(given.follow_ups[begin:end])
            begin = end
            try:
                blobs.append(pickling.dumps(some))
            except Exception as error:
                of, handler = "", None
                if given.events:
                    of, handler = describe_event(given.events[place]), given.handlers[place]
                what = f"what {_by(handler)} returned{of and f' for event {of}'}"
                failure = pickling.cannot_pickle(what, some, error)
                name = handler.name if handler is not None else None
                blobs.append(wire.encode_error(failure, name))
        return blobs


class _Given(NamedTuple):
    """Follow-ups, and who gave them.

    Attributes:
        givers: The positions of the events that did.
        events: These events; none where the follow-ups are sealed.
        handlers: For each of them the handler that did, or None for several.
        counts: How many each of them gave.
        follow_ups: All, in order.
    """

    givers: Sequence[int]
    events: Sequence[Event]
    handlers: Sequence[Handler | None]
    counts: Sequence[int]
    follow_ups: Sequence[Event]


def _given(followed: Sequence[Any]) -> _Given:
    """Take apart what is in `Outbox.followed`."""
    gave = followed[3::4]
    counts, follow_ups = [1] * len(gave), gave
    if list in set(map(type, gave)):
        lists = [each if type(each) is list else (each,) for each in gave]
        counts = list(map(len, lists))
        follow_ups = list(itertools.chain.from_iterable(lists))
    return _Given(followed[0::4], followed[1::4], followed[2::4], counts, follow_ups)


def _by(handler: Handler | None) -> str:
    return "a handler" if handler is None else f"handler {handler.name!r}"
