"""Packs the results of events for a progress frame, in a worker.

Each kind of result is pickled in one pass. Under `event_timeout` the follow-ups of sixteen events
at a time are pickled in one pass, so that the coordinator can find out which of them hangs. What
was packed together is kept for a coordinator that cannot unpack it, until it can no longer ask
(`repack`).

While something is being packed, the status word `PACKING` says whose results these are, in case
the process dies there.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from evproc import Event
from evproc.event import describe_event
from evproc.handler import Handler
from evproc_pool.protocol import messages, status_words
from evproc_pool.protocol.frame import WorkerChannel
from evproc_pool.protocol.pass_through import PassThrough, PassThroughPacker
from evproc_pool.serialization import diagnosis, packing, pickling
from evproc_pool.serialization.basics import gc_paused

# Under `event_timeout`: the most events whose follow-ups are packed together.
_PACKED_TOGETHER: Final = 16

# Larger results are packed one by one: what was packed together is kept for a while.
_MOST_KEPT_BYTES: Final = 1 << 20

#: An entry of a `ResultLists` list has four items: position, event, handler, result. The event is
#: None if the result cannot fail to be packed: nobody names it then.
ENTRY: Final = 4

#: The kinds of results that are packed in columns, as an error names them.
VALUE: Final = "the value given to StopProcessing by {by} for event {event}"
EMITTED: Final = "what was emitted by event {event}"
RETURNED: Final = "event {event}, processed,"


class ResultLists(NamedTuple):
    """The results of some events, each list in the order of the events.

    Attributes:
        unsent: The positions of events with an unsent result.
        followed: Follow-ups: an event, or a list of several. The handler is the one that
            returned them; of several, the last one in a tuple.
        stopped: Values of `StopProcessing`.
        emitted: Lists of emitted results.
        returned: Events to send back; the handler is their class.
        short: Events of which not all handlers ran: position, index of the last one that did.
        errors: Position, record.
    """

    unsent: list[int]
    followed: list[Any]
    stopped: list[Any]
    emitted: list[Any]
    returned: list[Any]
    short: list[int]
    errors: list[Any]


#: The number of items of an entry in each of `ResultLists`.
ENTRY_SIZES: Final = (1, ENTRY, ENTRY, ENTRY, ENTRY, 2, 2)


class _PackedTogether(NamedTuple):
    """Results of one frame that were packed together.

    Attributes:
        givers: The positions of the events that returned follow-ups.
        events: These events; empty if the follow-ups pass through.
        handlers: As in `ResultLists.followed`.
        counts: How many follow-ups each event returned.
        follow_ups: All follow-ups, in order.
        columns: Values, emitted results, and events to send back.
    """

    givers: Sequence[int] = ()
    events: Sequence[Event] = ()
    handlers: Sequence[Handler | tuple[Handler]] = ()
    counts: Sequence[int] = ()
    follow_ups: Sequence[Event] = ()
    columns: Sequence[list[Any]] = ()


class ResultPacker:
    """Packs results, each kind in one pass. Not thread-safe.

    Args:
        is_timed: Whether the coordinator must know which event is being packed.
        batches_ahead: See `Pace`. 0: the coordinator can never ask again, so that all is packed
            one by one that it might not be able to unpack.

    Attributes:
        deferring: Handlers and classes of events whose results may wait for the end of the
            batch: their last result had no large buffer.
        item_bytes: The size of the last results of each kind.
        large: The large buffers of what was packed last.
        had_large_follow_ups: Whether the follow-ups that were packed last have such buffers.
    """

    def __init__(
        self, channel: WorkerChannel, words: Any, *, is_timed: bool, batches_ahead: int
    ) -> None:
        self._channel = channel
        self._words = words
        self._is_timed = is_timed
        self._may_repack = batches_ahead > 0
        self._packer = packing.EventPacker()
        self._pass_through = PassThroughPacker(self._packer)
        self._names_handlers = False
        self._number = 0  # of the last frame with something that was packed together
        # Results that were packed together in the last batches, by frame. The coordinator sends a
        # batch only when it has read all but `batches_ahead` - 1 of the batches before.
        self._kept: deque[dict[int, _PackedTogether]] = deque(maxlen=batches_ahead + 1)
        self.deferring: set[Any] = set()
        self.item_bytes: dict[str, float] = {}
        self.large: list[memoryview] = []
        self.had_large_follow_ups = False

    def begin(self, *, names_handlers: bool) -> None:
        """Begin a batch; see `messages.BatchFrame`."""
        self._names_handlers = names_handlers
        self._kept.append({})

    def pack(
        self, lists: ResultLists, *, is_last: bool, is_built_in: bool
    ) -> messages.BatchResults:
        """Pack the results of events.

        If one cannot be packed, this raises the exception; or, if `is_last`, makes an error of it.
        `is_built_in`: values and emitted results are made of atoms and built-in containers.
        """
        together, packed = _PackedTogether(), packing.NO_EVENTS
        if lists.followed:
            together = _take_apart(lists.followed)
            packed = self._pack_follow_ups(together, is_last=is_last)
            self.had_large_follow_ups = bool(self.large)
            if packed.in_parts and not self._is_timed:
                # Drop the events themselves: the CPU's caches have their memory, for the next ones.
                follow_ups = PassThrough.received(packed.data)
                together = together._replace(events=(), handlers=(), follow_ups=follow_ups)
        entries = lists.stopped, lists.emitted, lists.returned
        columns = values, emitted, processed = [
            self._pack_column(kind, each, is_last=is_last, is_built_in=is_built_in)
            for kind, each in zip((VALUE, EMITTED, RETURNED), entries, strict=True)
        ]
        kept = [
            each[3::ENTRY] if column and column.is_together and not column.is_sure else []
            for column, each in zip(columns, entries, strict=True)
        ]
        if lists.followed or any(kept):
            self._number += 1
            self._kept[-1][self._number] = together._replace(columns=kept)
        last_givers: Sequence[int] = ()
        if self._names_handlers:
            handlers = lists.followed[2::ENTRY]
            last_givers = [(by[0] if isinstance(by, tuple) else by).index for by in handlers]
        has_one_each = len(together.givers) == len(together.follow_ups)  # the usual case
        return messages.BatchResults(
            self._number,
            _dense(together.givers),
            () if has_one_each else together.counts,
            packed,
            values,
            emitted,
            processed,
            list(zip(lists.errors[::2], lists.errors[1::2], strict=True)),
            list(lists.short),
            last_givers,
        )

    def _pack_column(
        self, kind: str, entries: list[Any], *, is_last: bool, is_built_in: bool
    ) -> packing.PackedColumn | None:
        """Pack results of one kind, all in one pass if that works and gives few bytes.

        An error stands in the place of a result that cannot be packed. The event did not fail when
        it ran; see `Progress.cut`.
        """
        if not entries:
            return None
        positions, items = entries[::ENTRY], entries[3::ENTRY]
        buffers = self.large if self._channel.takes_buffers else None
        first = len(self.large)
        is_packed = packing.PackedValue in set(map(type, items))
        is_small = len(items) * self.item_bytes.get(kind, 0) <= _MOST_KEPT_BYTES
        may_pack = self._may_repack or (is_built_in and kind is not RETURNED)
        if (
            len(items) > 1
            and not is_packed
            and may_pack
            and (is_small or type(items[0]) in packing.ATOMS)
        ):
            packer = self._packer if kind is RETURNED else None
            with contextlib.suppress(Exception):  # packing one by one finds out which one failed
                column = packing.pack_column(
                    _dense(positions), items, buffers, packer, is_built_in=is_built_in
                )
                self.item_bytes[kind] = column.size_bytes / len(items)
                is_small = column.is_sure or column.size_bytes <= _MOST_KEPT_BYTES
                if is_small and len(self.large) == first:
                    return column
            self.deferring.difference_update(entries[2::ENTRY])
            del self.large[first:]
        data: list[packing.PackedValue | messages.ErrorRecord] = []
        for index, item in enumerate(items):
            try:
                is_packed = isinstance(item, packing.PackedValue)
                data.append(item if is_packed else packing.pack_value(item, buffers))
            except Exception as error:
                if not is_last:
                    raise
                ev, by = entries[index * ENTRY + 1 : index * ENTRY + 3]
                of = "that is gone" if ev is None else describe_event(ev)
                what = kind.format(by=_by(by), event=of)
                data.append(_failure(what, by, item, error))
        sizes = [packing.size_of(each) for each in data if isinstance(each, packing.PackedValue)]
        self.item_bytes[kind] = sum(sizes) / max(1, len(sizes))
        return packing.PackedColumn(positions, False, data)

    def _pack_follow_ups(self, together: _PackedTogether, *, is_last: bool) -> packing.PackedEvents:
        with gc_paused():
            slices = self._pass_through.pack(together.follow_ups)
        if slices is not None:
            return packing.PackedEvents(False, slices, in_parts=True)
        if not self._may_repack:
            return packing.PackedEvents(True, self._one_by_one(together))
        try:
            if self._is_timed and is_last:
                self._words[status_words.PACKING] = status_words.packing(together.givers)
            if not self._is_timed or not is_last or len(together.givers) <= _PACKED_TOGETHER:
                buffers = self.large if self._channel.takes_buffers else None
                return self._packer.pack(together.follow_ups, buffers)
            parts = [self._packer.pack(piece).data for piece in self._pieces(together)]
            return packing.PackedEvents(False, parts, in_parts=True)
        except BaseException:  # also what the hooks of a class raise
            if not is_last:
                raise
            return packing.PackedEvents(True, self._one_by_one(together))

    def _pieces(self, together: _PackedTogether) -> Iterator[Sequence[Event]]:
        """Yield the follow-ups of a few events at a time, and publish each piece before."""
        begin = 0
        for first in range(0, len(together.givers), _PACKED_TOGETHER):
            some = slice(first, first + _PACKED_TOGETHER)
            self._words[status_words.PACKING] = status_words.packing(together.givers[some])
            end = begin + sum(together.counts[some])
            yield together.follow_ups[begin:end]
            begin = end

    def repack(self, number: int) -> None:
        """Answer a coordinator that could not unpack the results of a frame."""
        for batch in self._kept:
            if number in batch:
                together = batch[number]
                blobs = self._one_by_one(together)
                columns = [list(map(_pack_again, items)) for items in together.columns]
                self._words[status_words.PACKING] = 0
                answer = pickling.dumps((number, blobs, columns))
                self._channel.send(messages.FOLLOW_UPS, answer)

    def _one_by_one(self, together: _PackedTogether) -> list[Any]:
        """For each event the pickle of its follow-ups, or the error of pickling them."""
        blobs: list[Any] = []
        begin = 0
        for index, position in enumerate(together.givers):
            self._words[status_words.PACKING] = status_words.packing((position,))
            end = begin + together.counts[index]
            some = list(together.follow_ups[begin:end])
            begin = end
            try:
                blobs.append(pickling.dumps(some))
            except Exception as error:
                what, by = "what a handler returned", None
                if together.events:
                    by = together.handlers[index]
                    of = describe_event(together.events[index])
                    what = f"what {_by(by)} returned for event {of}"
                blobs.append(_failure(what, by, some, error))
        return blobs


def _failure(what: str, by: Any, item: object, error: Exception) -> messages.ErrorRecord:
    failure = diagnosis.cannot_pickle(what, item, error)
    return messages.encode_error(failure, by.name if isinstance(by, Handler) else None)


def _pack_again(item: object) -> packing.PackedValue | messages.ErrorRecord:
    """Pack a result alone that was packed together with others."""
    try:
        return packing.pack_value(item)
    except Exception as error:
        return messages.encode_error(error, None)


def _dense(positions: Sequence[int]) -> Sequence[int]:
    """Positions in order; a range if they have no gap."""
    if positions and positions[-1] - positions[0] == len(positions) - 1:
        return range(positions[0], positions[-1] + 1)
    return positions


def _take_apart(followed: Sequence[Any]) -> _PackedTogether:
    """Take apart the entries of `ResultBuffer.followed`."""
    returned = followed[3::ENTRY]
    counts, follow_ups = [1] * len(returned), returned
    if list in set(map(type, returned)):
        lists = [each if type(each) is list else (each,) for each in returned]
        counts = list(map(len, lists))
        follow_ups = list(itertools.chain.from_iterable(lists))
    return _PackedTogether(
        followed[0::ENTRY], followed[1::ENTRY], followed[2::ENTRY], counts, follow_ups
    )


def _by(handler: object) -> str:
    return f"handler {handler.name!r}" if isinstance(handler, Handler) else "a handler"
