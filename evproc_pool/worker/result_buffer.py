"""What a worker has done in a batch and not told yet, and how it tells.

What events left behind (follow-ups, values, errors, what was emitted, events that come
back) is gathered here, and goes with the next progress frame. Each kind is pickled in one
pass; under `event_timeout` the follow-ups of sixteen events at a time, so that it can be
told which of them hangs. What was sent is kept for a coordinator that cannot unpack it,
until that cannot ask any more (`repack`).

While something is untold or being packed, the words of shared memory say whose it is,
for the case that the process dies there: see `status_words`.

The worker's loop only appends; `tell` may send what is over while a handler is running, in
another thread (see `reporter`). It changes none of the lists: it notes how much of each was
told, and the loop's next `send` leaves that out. The end of an event (`ends`) is appended
last, so whatever stands before it is complete.
"""

from __future__ import annotations

import contextlib
import itertools
from _thread import allocate_lock
from array import array
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from evproc import Event
from evproc.event import describe_event, take_emitted
from evproc.handler import Handler
from evproc_pool.ipc.channel import WorkerChannel
from evproc_pool.protocol import messages, status_words
from evproc_pool.protocol.pass_through import PassThrough, PassThroughPacker
from evproc_pool.serialization import diagnosis, packing, pickling
from evproc_pool.serialization.gc_pause import gc_paused
from evproc_pool.serialization.privacy import CUSTOM, is_private

# Of so many events the follow-ups are packed together at the most, under `event_timeout`.
_PACKED_TOGETHER: Final = 16

# More bytes than that are not packed together: what was is kept for a while.
_MOST_KEPT_BYTES: Final = 1 << 20

# What waits in the worker is to have its room in the CPU's caches.
_HEAVY_BYTES: Final = 1 << 18

# An entry of `followed`, `stopped`, `emitted` and `returned` is four items of the list.
_ENTRY: Final = 4


class ResultBuffer:
    """What has been done in a batch and not been sent.

    The worker's loop puts entries into `followed`, `stopped`, `emitted`, `returned`, `short`
    and `unsent`, and times into `ends`, itself, and holds on to them: they are emptied and
    never replaced. An entry is: position, event, handler, what it left.

    Args:
        channel: To the coordinator.
        packer: Packs follow-ups.
        words: The words of `status_words`, by their numbers.
        is_timed: Whether what packing takes has to be told by the event.
        batches_ahead: See `limits.Pace`.

    Attributes:
        ends: When each event was over, of those that were not told.
        unsent: The positions of events with something to tell, in order.
        followed: Follow-ups: one event, or a list of several. The handler that returned
            them, or, for several, the last one in a tuple.
        stopped: Values of `StopProcessing`.
        emitted: Lists of what was emitted.
        returned: Events that come back; the handler is their class.
        short: Events of which not all handlers ran: position, index of the last one that did.
        deferring: Handlers and classes of events whose values can wait for the end of the
            batch: the last one had no large buffer. If nobody else refers to a value, nor to
            anything in it, so that another event cannot change it (`is_private`); others are
            packed at once.
        has_others: Whether a value, or what was emitted, has anything in it but atoms and
            built-in containers.
        sent: How many events of the batch are over, as was told.
        begun: When the first event began that was not told.
    """

    def __init__(
        self,
        channel: WorkerChannel,
        packer: packing.EventPacker,
        words: Any,
        *,
        is_timed: bool,
        batches_ahead: int,
    ) -> None:
        self._channel = channel
        self._is_timed = is_timed
        self._packer = packer
        self._pass_through = PassThroughPacker(packer)
        self._words = words
        self._lock = allocate_lock()  # held by who sends
        self._number = 0  # of the last frame with something that was packed together
        # What was packed together in the last batches, for a coordinator that cannot unpack it.
        # It sends a batch only when it has read all but `batches_ahead` - 1 of those before.
        self._kept: deque[dict[int, _Given]] = deque(maxlen=batches_ahead + 1)
        self.ends = array("d")
        self.unsent: list[int] = []
        self.followed: list[Any] = []
        self.stopped: list[Any] = []
        self.emitted: list[Any] = []
        self.returned: list[Any] = []
        self.short: list[int] = []
        self.deferring: set[Any] = set()
        self.has_others = False
        self._errors: list[tuple[int, messages.ErrorRecord]] = []
        self._told = 0  # how many of `ends` were told by `tell`
        self._item_bytes: dict[str, float] = {}  # of what was packed last of each kind
        self._large: list[memoryview] = []
        self.begin(0, 0.0)

    def begin(self, plans: Sequence[int] | int, now: float, *, tells_givers: bool = False) -> None:
        """Begin a batch; say whether the handlers that return follow-ups are told."""
        with self._lock:
            self._tells_givers = tells_givers
            self._plans = plans
            self.sent = 0
            self.begun = now
            self._kept.append({})

    def _has(self, position: int) -> None:
        self.unsent.append(position)
        if self._words[status_words.UNSENT] < 0:  # in this order: see `_say_unsent`
            self._words[status_words.UNSENT] = position

    # --- what events leave behind ---

    def leave(self, left: list[Any], position: int, ev: Event, by: Any, item: Any) -> bool:
        """Note what an event left behind as it is now: somebody may change it.

        Args:
            left: One of the lists, for what it is.
            position: Of the event.
            ev: The event.
            by: The handler that left it, or the class of an event that comes back.
            item: What it left.

        Returns:
            Whether there are large buffers in it. They are views: then it is to be sent
            before another handler may change them.
        """
        large: list[memoryview] = []
        with contextlib.suppress(Exception):  # what it is shows when it is sent
            # else others may change them before they are sent
            packed = packing.pack_value(item, large if self._channel.takes_buffers else None)
            if not large:
                self.deferring.add(by)
                item = packed
        if type(item) is not packing.PackedValue:
            self.has_others = True
        self._has(position)
        left += position, ev, by, item
        return bool(large)

    def give_back(
        self, position: int, ev: Event, wanted: frozenset[int], *, is_kept: bool = False
    ) -> bool:
        """If it is wanted, an event comes back as it is now; not one that failed.

        Args:
            position: Of the event.
            ev: The event.
            wanted: The positions of those that are to come back.
            is_kept: Whether a handler has kept it, and may change it later.

        Returns:
            See `leave`.
        """
        if position not in wanted or (self._errors and self._errors[-1][0] == position):
            return False
        kind = type(ev)
        if is_kept or kind not in self.deferring or not is_private(ev):
            return self.leave(self.returned, position, ev, kind, ev)
        self._has(position)
        self.returned += position, ev, kind, ev
        return False

    def take_emitted(self, position: int, ev: Event, handler: Handler | None) -> bool:
        """Note what an event has emitted, if anything.

        Returns:
            See `leave`.
        """
        items = take_emitted(ev)
        if not items:
            return False
        if not packing.ATOMS.issuperset(map(type, items)):
            private = is_private(items) if handler in self.deferring else 0
            if not private:
                return self.leave(self.emitted, position, ev, handler, items)
            if private == CUSTOM:
                self.has_others = True
        self._has(position)
        self.emitted += position, ev, handler, items
        return False

    def references_to(self, ev: Event) -> int:
        """How many of the last entries refer to an event."""
        lists = (self.followed, self.stopped, self.emitted)
        return sum([bool(left) and left[1 - _ENTRY] is ev for left in lists])

    def cut_short(self, position: int, code: int) -> None:
        """Not all handlers of an event ran: the last one that did has this code."""
        self._has(position)
        self.short += position, code - 1

    def fail(self, position: int, error: BaseException, handler: str | None) -> None:
        """An event failed."""
        self._has(position)
        self._errors.append((position, messages.encode_error(error, handler)))

    @property
    def is_heavy(self) -> bool:
        """Whether what waits has many bytes; going by those of the last frame."""
        waiting = len(self.stopped) // _ENTRY * self._item_bytes.get(_VALUE, 0)
        waiting += len(self.emitted) // _ENTRY * self._item_bytes.get(_EMITTED, 0)
        return waiting > _HEAVY_BYTES

    # --- how it is told ---

    def send(self, done: int, *, gave_back: bool = False) -> None:
        """Send what is untold, and say how many events of the batch are over."""
        has_unsent = bool(self.unsent)
        if has_unsent:
            # before the lock: where packing hangs, in this thread or another, that is where
            untold = self.unsent[bisect_left(self.unsent, self.sent) :]
            self._words[status_words.PACKING] = status_words.packing(untold) if untold else 0
        with self._lock:
            if self._told:
                self._drop_told()
            if self.ends or gave_back:  # else `tell` has said it all
                self._send(done, self.ends, self._lists, is_last=True, gave_back=gave_back)
            if has_unsent:
                self._words[status_words.PACKING] = 0
                self._words[status_words.UNSENT] = status_words.NONE
                lists: Sequence[list[Any]] = self._lists
                for each in lists:
                    del each[:]
                self.has_others = False
            del self.ends[:]

    def tell(self) -> None:
        """Send what is over, while a handler is running; see the module's text.

        Where something cannot be packed at this moment, nothing is sent.
        """
        with self._lock:
            times = self.ends[self._told :]
            if not times:
                return
            done = self.sent + len(times)
            self._words[status_words.TELLING] = 1
            try:
                self._send(done, times, self._between(self.sent, done), is_last=False)
            except OSError:
                pass  # the coordinator is gone, as the loop finds out
            except Exception:
                self._large = []  # a handler has changed it meanwhile: it waits
            else:
                self._told += len(times)
                self._say_unsent(done)
            finally:
                self._words[status_words.TELLING] = 0

    def _say_unsent(self, done: int) -> None:
        """Publish the first position that has something to tell behind what was told.

        The worker's loop appends to the list and then looks at the word; this sets the word and
        then looks at the list. So one of the two sees what the other has done.
        """
        self._words[status_words.UNSENT] = status_words.NONE
        left = self.unsent[bisect_left(self.unsent, done) :]
        if left:
            self._words[status_words.UNSENT] = left[0]

    @property
    def _lists(self) -> _Lists:
        return _Lists(
            self.unsent,
            self.followed,
            self.stopped,
            self.emitted,
            self.returned,
            self.short,
            self._errors,
        )

    def _drop_told(self) -> None:
        """Forget what `tell` has sent; with the lock."""
        lists: Sequence[list[Any]] = self._lists
        for left, entry, cut in zip(lists, _ENTRIES, self._cuts(self.sent), strict=True):
            del left[: cut * entry]
        del self.ends[: self._told]
        self._told = 0

    def _cuts(self, position: int) -> list[int]:
        """How many entries of each of the lists are of events before a position."""
        lists = self._lists
        columns: list[list[int]] = [left[::_ENTRY] for left in lists[1:5]]
        errors = [position for position, _ in lists.errors]
        return [
            bisect_left(column, position)
            for column in (lists.unsent, *columns, lists.short[::2], errors)
        ]

    def _between(self, first: int, stop: int) -> _Lists:
        """The entries of events from a position up to another."""
        begins, ends = self._cuts(first), self._cuts(stop)
        lists: Sequence[list[Any]] = self._lists
        return _Lists(
            *[
                left[begin * entry : end * entry]
                for left, entry, begin, end in zip(lists, _ENTRIES, begins, ends, strict=True)
            ]
        )

    def _send(
        self,
        done: int,
        ends: array[float],
        lists: _Lists,
        *,
        is_last: bool,
        gave_back: bool = False,
    ) -> None:
        """Send what events left behind.

        Args:
            done: How many events are over.
            ends: When each was over of those that were not told.
            lists: What they left behind.
            is_last: Whether what cannot be packed fails. If not, that is raised.
            gave_back: Whether the rest of the batch is left unrun.
        """
        times = ends.tobytes()
        if not lists.unsent and isinstance(self._plans, int):
            number = self._words[status_words.BATCH]
            quiet = messages.dump_quiet(done, times, self.begun, gave_back=gave_back, number=number)
            self._channel.send(messages.QUIET, quiet)
        else:
            told = self._pack_all(lists, is_last=is_last) if lists.unsent else None
            timings = self._timings(ends)
            number = self._words[status_words.BATCH]
            frame = messages.ProgressFrame(
                done, self.begun, times, timings, gave_back, told, number=number
            )
            large, self._large = self._large, []
            self._channel.send(messages.PROGRESS, messages.dump_progress(frame), large)
        self.sent = done
        if ends:
            self.begun = ends[-1]

    def _pack_all(self, lists: _Lists, *, is_last: bool) -> messages.Told:
        """Pack what events left behind, each kind in one pass."""
        given, packed = _NOTHING_GIVEN, packing.NO_EVENTS
        if lists.followed:
            given = _given(lists.followed)
            packed = self._pack_follow_ups(given, is_last=is_last)
            if packed.in_parts and not self._is_timed:
                # The memory of the events themselves is in the CPU's caches, for the next ones.
                sealed = PassThrough.received(packed.data)
                given = given._replace(events=(), handlers=(), follow_ups=sealed)
        values = self._pack_column(_VALUE, lists.stopped, is_last=is_last)
        emitted = self._pack_column(_EMITTED, lists.emitted, is_last=is_last)
        processed = self._pack_column(_RETURNED, lists.returned, is_last=is_last)
        kept = [
            left[3::_ENTRY] if _may_be_asked_for(column) else []
            for column, left in (
                (values, lists.stopped),
                (emitted, lists.emitted),
                (processed, lists.returned),
            )
        ]
        if lists.followed or any(kept):
            self._number += 1
            self._kept[-1][self._number] = given._replace(columns=kept)
        counts = given.counts
        if len(given.givers) == len(given.follow_ups):
            counts = ()  # as is usual: one each
        return messages.Told(
            self._number,
            _dense(given.givers),
            counts,
            packed,
            values,
            emitted,
            processed,
            list(lists.errors),
            list(lists.short),
            [_last(by).index for by in lists.followed[2::_ENTRY]] if self._tells_givers else (),
        )

    def _pack_column(
        self,
        what: str,
        left: list[Any],
        *,
        is_last: bool,
    ) -> packing.PackedColumn | None:
        """Pack what events left behind of one kind; what cannot be packed becomes an error.

        That stands in its place: the event was no failure when it ran; see `Progress.cut`.
        """
        if not left:
            return None
        positions, items = left[::_ENTRY], left[3::_ENTRY]
        buffers = self._large if self._channel.takes_buffers else None
        first = len(self._large)
        is_packed = packing.PackedValue in set(map(type, items))
        is_small = len(items) * self._item_bytes.get(what, 0) <= _MOST_KEPT_BYTES
        if len(items) > 1 and not is_packed and (is_small or type(items[0]) in packing.ATOMS):
            column = self._pack_together(what, positions, items, buffers)
            if column is not None and len(self._large) == first:
                return column
            self.deferring.difference_update(left[2::_ENTRY])
            del self._large[first:]
        data: list[packing.PackedValue | messages.ErrorRecord] = []
        for place, item in enumerate(items):
            try:
                is_packed = isinstance(item, packing.PackedValue)
                data.append(item if is_packed else packing.pack_value(item, buffers))
            except Exception as error:
                if not is_last:
                    raise
                ev, by = left[place * _ENTRY + 1 : place * _ENTRY + 3]
                data.append(_cannot_pack(what, ev, by, item, error))
        sizes = [packing.size_of(each) for each in data if isinstance(each, packing.PackedValue)]
        self._item_bytes[what] = sum(sizes) / max(1, len(sizes))
        return packing.PackedColumn(positions, False, data)

    def _pack_together(
        self,
        what: str,
        positions: Sequence[int],
        items: list[Any],
        buffers: list[memoryview] | None,
    ) -> packing.PackedColumn | None:
        """Pack all in one pass; None where that is not possible, or too much."""
        try:
            packer = self._packer if what is _RETURNED else None
            column = packing.pack_column(
                _dense(positions), items, buffers, packer, is_built_in=not self.has_others
            )
        except Exception:
            return None  # one by one shows which it is
        self._item_bytes[what] = column.size_bytes / len(items)
        return column if column.is_sure or column.size_bytes <= _MOST_KEPT_BYTES else None

    def _pack_follow_ups(self, given: _Given, *, is_last: bool) -> packing.PackedEvents:
        with gc_paused():
            slices = self._pass_through.seal(given.follow_ups)
        if slices is not None:
            return packing.PackedEvents(False, slices, in_parts=True)
        try:
            if self._is_timed and is_last:
                self._words[status_words.PACKING] = status_words.packing(given.givers)
            if not self._is_timed or not is_last or len(given.givers) <= _PACKED_TOGETHER:
                buffers = self._large if self._channel.takes_buffers else None
                return self._packer.pack(given.follow_ups, buffers)
            parts = [self._packer.pack(piece).data for piece in self._pieces(given)]
            return packing.PackedEvents(False, parts, in_parts=True)
        except BaseException:  # also what the hooks of a class raise
            if not is_last:
                raise
            return packing.PackedEvents(True, self._one_by_one(given))

    def _pieces(self, given: _Given) -> Iterator[Sequence[Event]]:
        """The follow-ups of a few events at a time, published as they are asked for."""
        begin = 0
        for first in range(0, len(given.givers), _PACKED_TOGETHER):
            some = slice(first, first + _PACKED_TOGETHER)
            self._words[status_words.PACKING] = status_words.packing(given.givers[some])
            end = begin + sum(given.counts[some])
            yield given.follow_ups[begin:end]
            begin = end

    def _timings(self, ends: Sequence[float]) -> list[tuple[int, int, float]]:
        """Plan number, events, and their seconds."""
        plans = self._plans
        if isinstance(plans, int):
            return [(plans, len(ends), ends[-1] - self.begun)] if ends else []
        totals: dict[int, tuple[int, float]] = {}
        then = self.begun
        numbers = plans[self.sent : self.sent + len(ends)]
        for number, now in zip(numbers, ends, strict=True):
            if number != messages.OMITTED:
                events, total = totals.get(number, (0, 0.0))
                totals[number] = events + 1, total + now - then
            then = now
        return [(number, events, total) for number, (events, total) in totals.items()]

    def repack(self, number: int) -> None:
        """Answer a coordinator that could not unpack something of a frame."""
        for batch in self._kept:
            if number in batch:
                given = batch[number]
                blobs = self._one_by_one(given)
                columns = [list(map(_pack_again, items)) for items in given.columns]
                self._words[status_words.PACKING] = 0
                answer = pickling.dumps((number, blobs, columns))
                self._channel.send(messages.FOLLOW_UPS, answer)

    def _one_by_one(self, given: _Given) -> list[Any]:
        """For each event that gave follow-ups their pickle, or why there is none."""
        blobs: list[Any] = []
        begin = 0
        for place, position in enumerate(given.givers):
            self._words[status_words.PACKING] = status_words.packing((position,))
            end = begin + given.counts[place]
            some = list(given.follow_ups[begin:end])
            begin = end
            try:
                blobs.append(pickling.dumps(some))
            except Exception as error:
                of = ""
                handler: Handler | tuple[Handler] | None = None
                if given.events:
                    of, handler = describe_event(given.events[place]), given.handlers[place]
                what = f"what {_by(handler)} returned{of and f' for event {of}'}"
                failure = diagnosis.cannot_pickle(what, some, error)
                name = handler.name if isinstance(handler, Handler) else None
                blobs.append(messages.encode_error(failure, name))
        return blobs


class _Lists(NamedTuple):
    """The lists of an results: see its attributes."""

    unsent: list[int]
    followed: list[Any]
    stopped: list[Any]
    emitted: list[Any]
    returned: list[Any]
    short: list[int]
    errors: list[tuple[int, messages.ErrorRecord]]


# How many items an entry of each of these has.
_ENTRIES: Final = (1, _ENTRY, _ENTRY, _ENTRY, _ENTRY, 2, 1)

# What cannot be packed, in an error.
_VALUE: Final = "the value given to StopProcessing by {by} for event {event}"
_EMITTED: Final = "what was emitted by event {event}"
_RETURNED: Final = "event {event}, processed,"


def _cannot_pack(
    what: str, ev: Event, by: Any, item: object, error: Exception
) -> messages.ErrorRecord:
    handler = by if isinstance(by, Handler) else None
    what = what.format(by=_by(handler), event=describe_event(ev))
    failure = diagnosis.cannot_pickle(what, item, error)
    return messages.encode_error(failure, handler.name if handler is not None else None)


def _may_be_asked_for(column: packing.PackedColumn | None) -> bool:
    """Whether the coordinator may be unable to unpack it."""
    return column is not None and column.is_together and not column.is_sure


def _pack_again(item: object) -> packing.PackedValue | messages.ErrorRecord:
    """What was packed together, by itself."""
    try:
        return packing.pack_value(item)
    except Exception as error:
        return messages.encode_error(error, None)


def _dense(positions: Sequence[int]) -> Sequence[int]:
    """Positions in order; as a range where none is left out."""
    if positions and positions[-1] - positions[0] == len(positions) - 1:
        return range(positions[0], positions[-1] + 1)
    return positions


class _Given(NamedTuple):
    """What was packed together: follow-ups, and who gave them, and others.

    Attributes:
        givers: The positions of the events that gave follow-ups.
        events: These events; none where the follow-ups are sealed.
        handlers: For each of them the handler that did, or, of several, the last in a tuple.
        counts: How many each of them gave.
        follow_ups: All, in order.
        columns: Values, what was emitted, and events that come back.
    """

    givers: Sequence[int]
    events: Sequence[Event]
    handlers: Sequence[Handler | tuple[Handler]]
    counts: Sequence[int]
    follow_ups: Sequence[Event]
    columns: Sequence[list[Any]] = ()


_NOTHING_GIVEN: Final = _Given((), (), (), (), ())


def _given(followed: Sequence[Any]) -> _Given:
    """Take apart what is in `ResultBuffer.followed`."""
    gave = followed[3::_ENTRY]
    counts, follow_ups = [1] * len(gave), gave
    if list in set(map(type, gave)):
        lists = [each if type(each) is list else (each,) for each in gave]
        counts = list(map(len, lists))
        follow_ups = list(itertools.chain.from_iterable(lists))
    return _Given(followed[0::_ENTRY], followed[1::_ENTRY], followed[2::_ENTRY], counts, follow_ups)


def _last(by: Handler | tuple[Handler]) -> Handler:
    return by[0] if isinstance(by, tuple) else by


def _by(handler: Handler | tuple[Handler] | None) -> str:
    return f"handler {handler.name!r}" if isinstance(handler, Handler) else "a handler"
