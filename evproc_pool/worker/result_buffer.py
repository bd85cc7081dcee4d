"""The results of events that a worker has not sent yet, and how it sends them.

The results (follow-ups, values, errors, emitted results, events to send back) are collected here
and go with the next progress frame. `result_packing` packs them. While something is unsent or
being packed, the words of shared memory say whose it is, in case the process dies there: see
`status_words`.

The worker's loop only appends to the lists. `report` may send results from another thread while a
handler is running (see `reporter`). It changes none of the lists: it notes how many events were
reported, and the loop's next `send` drops these. The loop appends the end of an event (`ends`)
last, so everything before it is complete.
"""

from __future__ import annotations

import contextlib
import sys
from _thread import allocate_lock
from array import array
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any, Final

from evproc import Event
from evproc.event import take_emitted
from evproc.handler import Handler
from evproc_pool.protocol import messages, status_words
from evproc_pool.protocol.frame import WorkerChannel
from evproc_pool.serialization import packing
from evproc_pool.serialization.privacy import CUSTOM, is_private
from evproc_pool.worker.process import flush_streams
from evproc_pool.worker.result_packing import (
    ENTRY,
    ENTRY_SIZES,
    ResultLists,
    ResultPacker,
)

# The most bytes of quick events that wait in the worker. They should fit into the CPU's caches:
# 1 kB values are sent in two thirds of the time then. But with fewer events in it a frame is not
# worth its cost; nor if these take longer, since what they do fills the caches (values of 1 kB,
# 20 us each: 3% slower in four frames of 128 kB than in one).
_HEAVY_BYTES: Final = 1 << 17
_HEAVY_SECONDS: Final = 0.001
_LEAST_EVENTS: Final = 16


class ResultBuffer:
    """The unsent results of a batch.

    The worker's loop itself appends to the lists and to `ends`, and keeps references to them:
    they are emptied, never replaced. An entry is four items: position, event, handler, result.

    Attributes:
        ends: When each unreported event was over.
        begins: When each of their handlers began, and those of the current event; only of a batch
            in which this is noted.
        deferring: See `ResultPacker`. A result of these waits only if nobody else refers to it
            or to anything in it (`is_private`), so that another event cannot change it. Other
            results are packed at once.
        has_custom: Whether a value or an emitted result holds anything but atoms and built-in
            containers.
        sends_follow_ups_at_once: Whether follow-ups do not wait for others, since the last ones
            had large buffers: those of a whole batch could exceed the shared memory. An attribute:
            the loop reads it for each event with follow-ups.
        sent: How many events of the batch were reported as over.
        begun: When the first unreported event began.
    """

    def __init__(
        self, channel: WorkerChannel, words: Any, *, is_timed: bool, batches_ahead: int
    ) -> None:
        self._channel = channel
        self._words = words
        self._packer = ResultPacker(channel, words, is_timed=is_timed, batches_ahead=batches_ahead)
        self._lock = allocate_lock()  # held while sending
        self.ends = array("d")
        self.begins = array("d")
        self._lists = ResultLists([], [], [], [], [], [], [])
        self._columns: Sequence[list[Any]] = self._lists
        self.unsent, self.followed = self._lists.unsent, self._lists.followed
        self.stopped, self.emitted = self._lists.stopped, self._lists.emitted
        self.deferring = self._packer.deferring
        self.has_custom = False
        self.sends_follow_ups_at_once = False
        self._event_seconds = 0.0  # the mean of those that were sent last
        self._reported = 0  # how many of `ends` were sent by `report`
        self._begins_reported = 0  # likewise of `begins`
        self.repack = self._packer.repack
        self.begin(0, 0.0)

    def begin(
        self, plans: Sequence[int] | int, now: float, *, names_handlers: bool = False
    ) -> None:
        """Begin a batch; see `messages.BatchFrame`."""
        with self._lock:
            self._packer.begin(names_handlers=names_handlers)
            self._plans = plans
            del self.begins[:]
            self._begins_reported = 0
            self.sent = 0
            self.begun = now

    # --- add results ---

    def add_packed(self, entries: list[Any], position: int, ev: Event, by: Any, item: Any) -> bool:
        """Add a result that somebody may change later: pack it now.

        `by` is the handler, or the class of an event to send back. Returns whether it has large
        buffers. They are views: send it before another handler runs.
        """
        large: list[memoryview] = []
        with contextlib.suppress(Exception):  # `send` finds out what failed
            packed = packing.pack_value(item, large if self._channel.takes_buffers else None)
            if not large:
                self.deferring.add(by)
                item = packed
        is_packed = type(item) is packing.PackedValue
        if not is_packed:
            self.has_custom = True
        self._add(entries, position, None if is_packed else ev, by, item)
        return bool(large)

    def _add(self, entries: list[Any], *entry: Any) -> None:
        self.unsent.append(entry[0])
        if self._words[status_words.UNSENT] < 0:  # in this order: see `_publish_unsent`
            self._words[status_words.UNSENT] = entry[0]
        entries += entry

    def return_event(
        self, position: int, ev: Event, wanted: frozenset[int], *, is_kept: bool = False
    ) -> bool:
        """Add an event to send back as it is now, if it is wanted and did not fail.

        `is_kept` says whether a handler has kept the event, and may change it later. See
        `add_packed` for the result.
        """
        errors, returned = self._lists.errors, self._lists.returned
        if position not in wanted or (errors and errors[-2] == position):
            return False
        kind = type(ev)
        if is_kept or kind not in self.deferring or not is_private(ev):
            return self.add_packed(returned, position, ev, kind, ev)
        self._add(returned, position, ev, kind, ev)
        return False

    def take_emitted(self, position: int, ev: Event, handler: Handler | None) -> bool:
        """Add what an event has emitted, if anything; see `add_packed` for the result."""
        items = take_emitted(ev)
        if not items:
            return False
        if not packing.ATOMS.issuperset(map(type, items)):
            private = is_private(items) if handler in self.deferring else 0
            if not private:
                return self.add_packed(self.emitted, position, ev, handler, items)
            if private == CUSTOM:
                self.has_custom = True
                self._add(self.emitted, position, ev, handler, items)
                return False
        self._add(self.emitted, position, None, handler, items)
        return False

    def references_to(self, ev: Event) -> int:
        """How many of the last entries refer to an event."""
        lists = (self.followed, self.stopped, self.emitted)
        return sum([bool(entries) and entries[1 - ENTRY] is ev for entries in lists])

    def add_cut_short(self, position: int, code: int) -> None:
        """Note that the handler with this code was the last one of an event that ran."""
        self._add(self._lists.short, position, code - 1)

    def add_error(self, position: int, error: BaseException, handler: Handler | None) -> None:
        """Add the error of an event."""
        name = handler.name if handler is not None else None
        self._add(self._lists.errors, position, messages.encode_error(error, name))

    @property
    def most_events(self) -> int:
        """How many events may run before their results are sent, by what the last ones were."""
        events = int(_HEAVY_BYTES / max(1.0, sum(self._packer.item_bytes.values())))
        if events * self._event_seconds > _HEAVY_SECONDS:
            return sys.maxsize
        return max(_LEAST_EVENTS, events)

    # --- send them ---

    def send(self, done: int, *, gave_back: bool = False) -> None:
        """Send the unsent results, and say how many events of the batch are over."""
        self._words[status_words.FLUSHING] = 1  # nobody may read what the streams write to
        flush_streams()
        self._words[status_words.FLUSHING] = 0
        has_unsent = bool(self.unsent)
        if has_unsent:
            # Before the lock: if packing hangs, in this thread or the other, it is at these events.
            positions = self.unsent[bisect_left(self.unsent, self.sent) :]
            self._words[status_words.PACKING] = status_words.packing(positions) if positions else 0
        with self._lock:
            if self._reported:
                self._drop_reported()
            if self.ends or gave_back:  # otherwise `report` has sent everything
                self._send(
                    done, self.ends, self._lists, self.begins, is_last=True, gave_back=gave_back
                )
                del self.begins[:]
            if has_unsent:
                self._words[status_words.PACKING] = 0
                self._words[status_words.UNSENT] = status_words.NONE
                for each in self._columns:
                    del each[:]
                self.has_custom = False
            del self.ends[:]

    def report(self) -> None:
        """Send the results so far while a handler is running; see the module's text.

        If something cannot be packed at this moment, nothing is sent.
        """
        with self._lock:
            times = self.ends[self._reported :]
            if not times:
                return
            done = self.sent + len(times)
            begins = self.begins[self._begins_reported :]  # maybe also some of the current event
            self._words[status_words.REPORTING] = 1
            try:
                self._send(done, times, self._between(self.sent, done), begins, is_last=False)
            except OSError:
                pass  # the coordinator is gone; the loop will find out
            except (
                BaseException
            ):  # also what hooks of the user raise, which must not end the thread
                self._packer.large = []  # a handler has changed a result meanwhile: all wait
            else:
                self._reported += len(times)
                self._begins_reported += len(begins)
                self._publish_unsent(done)
            finally:
                self._words[status_words.REPORTING] = 0

    def _publish_unsent(self, done: int) -> None:
        """Publish the first position with an unsent result behind the reported events.

        The worker's loop appends to the list, then reads the word. This sets the word, then
        reads the list. So one of the two sees what the other has done.
        """
        self._words[status_words.UNSENT] = status_words.NONE
        positions = self.unsent[bisect_left(self.unsent, done) :]
        if positions:
            self._words[status_words.UNSENT] = positions[0]

    def _drop_reported(self) -> None:
        """Drop what `report` has sent; with the lock."""
        for entries, items in zip(self._columns, self._counts(self.sent), strict=True):
            del entries[:items]
        del self.ends[: self._reported]
        del self.begins[: self._begins_reported]
        self._reported = self._begins_reported = 0

    def _counts(self, position: int) -> list[int]:
        """How many items of each list belong to events before a position."""
        columns = zip(self._columns, ENTRY_SIZES, strict=True)
        return [bisect_left(items[::size], position) * size for items, size in columns]

    def _between(self, first: int, stop: int) -> ResultLists:
        """The results of events from a position up to another."""
        columns = zip(self._columns, self._counts(first), self._counts(stop), strict=True)
        return ResultLists(*[items[begin:end] for items, begin, end in columns])

    def _send(
        self,
        done: int,
        ends: array[float],
        lists: ResultLists,
        begins: array[float],
        *,
        is_last: bool,
        gave_back: bool = False,
    ) -> None:
        """Send `lists`. `ends` has one time for each unreported event, of `done` in all.

        `gave_back`: the rest of the batch is left unrun. `is_last`: see `ResultPacker.pack`.
        """
        times = ends.tobytes()
        number = self._words[status_words.BATCH]
        if not lists.unsent and isinstance(self._plans, int):
            quiet = messages.dump_quiet(
                done,
                times,
                self.begun,
                gave_back=gave_back,
                number=number,
                begins=begins.tobytes(),
            )
            self._channel.send(messages.QUIET, quiet)
        else:
            results = None
            if lists.unsent:
                is_built_in = not self.has_custom
                results = self._packer.pack(lists, is_last=is_last, is_built_in=is_built_in)
                self.sends_follow_ups_at_once = self._packer.had_large_follow_ups
            timings = self._timings(ends)
            frame = messages.ProgressFrame(
                done,
                self.begun,
                times,
                timings,
                gave_back,
                results,
                number=number,
                begins=begins.tobytes(),
            )
            large, self._packer.large = self._packer.large, []
            self._channel.send(messages.PROGRESS, messages.dump_progress(frame), large)
        self.sent = done
        if ends:
            self._event_seconds = (ends[-1] - self.begun) / len(ends)
            self.begun = ends[-1]

    def _timings(self, ends: Sequence[float]) -> list[tuple[int, int, float]]:
        """For each plan its number, how many events, and their seconds."""
        plans = self._plans
        if isinstance(plans, int):
            return [(plans, len(ends), ends[-1] - self.begun)] if ends else []
        totals: dict[int, tuple[int, float]] = {}
        began = self.begun
        numbers = plans[self.sent : self.sent + len(ends)]
        for number, now in zip(numbers, ends, strict=True):
            if number != messages.OMITTED:
                events, total = totals.get(number, (0, 0.0))
                totals[number] = events + 1, total + now - began
            began = now
        return [(number, events, total) for number, (events, total) in totals.items()]
