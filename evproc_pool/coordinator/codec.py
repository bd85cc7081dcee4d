"""The coordinator's half of the protocol: batches of the scheduler to frames, and back.

It matches follow-ups as they come, so the scheduler gets events with plans only. It knows no
process and no channel. Pickling and filters may run code of the user.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from evproc.event import Event, describe_event
from evproc.exc import add_note
from evproc.registry import Registry
from evproc_pool.coordinator.worker_record import Sent
from evproc_pool.core.batches import Batch, Part
from evproc_pool.core.estimates import KEEP_SECONDS, OVERDUE_FACTOR, REPORT_SECONDS, TARGET_SECONDS
from evproc_pool.core.event_columns import (
    EMPTY,
    Bunch,
    Column,
    PlanLike,
    Planned,
    Singles,
    Times,
    Unplannable,
)
from evproc_pool.core.inputs_and_effects import Result
from evproc_pool.core.worker_loads import PREFETCH
from evproc_pool.errors import SerializationError
from evproc_pool.protocol import messages
from evproc_pool.protocol.frame import Frame
from evproc_pool.protocol.limits import Pace
from evproc_pool.protocol.pass_through import (
    PackedPart,
    PassThrough,
    Slice,
    constant_name,
    unpack_parts,
)
from evproc_pool.serialization import diagnosis, packing, pickling
from evproc_pool.serialization.basics import detached

#: The figures of the scheduler that workers need; they import nothing of it.
PACE: Final = Pace(
    TARGET_SECONDS, REPORT_SECONDS, KEEP_SECONDS, OVERDUE_FACTOR * TARGET_SECONDS, PREFETCH
)


class UnpackedResults(NamedTuple):
    """The results of events, by position.

    Attributes:
        follow_ups: With their plans; no empty ones.
        results: Of events that failed.
        processed: Roots as the handlers left them.
        values: Given to `StopProcessing`.
        emitted: Lists of emitted values.
        last_ran: The index of the last handler that ran, if it was not the last of the plan.
        givers: The index of the last handler that returned follow-ups, if the run counts these.
    """

    follow_ups: Mapping[int, Sequence[Planned]]
    results: Mapping[int, Result]
    processed: Column = EMPTY
    values: Column = EMPTY
    emitted: Column = EMPTY
    last_ran: Mapping[int, int] = {}
    givers: Mapping[int, int] = {}


class Answer(NamedTuple):
    """The whole result of an event: a value, or None."""

    value: Any


NO_RESULTS: Final = UnpackedResults({}, {})


class Codec:
    """Encodes batches and decodes progress for the workers of one registry.

    Attributes:
        one_by_one: How many events are pickled individually, to isolate the one that crashes.
    """

    def __init__(self, registry: Registry, *, has_retries: bool = False) -> None:
        self.one_by_one = 0
        self._has_retries = has_retries
        self._registry = registry
        self._packer = packing.EventPacker()
        self._plan_numbers: dict[tuple[int, ...], int] = {}
        self._plan_indices: list[tuple[int, ...]] = []

    # --- batches ---

    def encode(self, sent: Sent, known: set[int]) -> tuple[Frame, int]:
        """Make the frame of a batch; return also how many of its bytes are classes, not events.

        Events that cannot be pickled become failures of the batch, and stay here. `known`, the
        numbers of the plans that the worker knows, grows. The buffers are memory of the events.
        """
        batch = sent.batch
        parts, opened = batch.parts, batch.run.opened
        packed = None
        large: list[memoryview] = []
        sent.is_one_by_one = self.one_by_one > 0
        apart = sent.is_one_by_one or batch.is_careful
        if not apart and not sent.failures:
            # if that fails, packing one by one finds the event at fault
            try:
                packed = self._pack(batch, large)
            except Exception:
                packed = None
        if packed is None:
            packed = self.pack_one_by_one(sent)
        new_plans: list[tuple[int, tuple[int, ...]]] = []
        numbers = self._numbers_of(sent, known, new_plans)
        ends, key_ends = opened.chain_ends(has_retries=self._has_retries)
        codes = messages.chain_code(*ends), messages.chain_code(*key_ends)
        chains = sent.chains = [chain for part in parts for chain in part.chains(*codes)]
        is_unusual = new_plans or chains or packed.one_by_one or packed.in_parts
        is_unusual = is_unusual or opened.return_events or opened.has_limits
        overdue = OVERDUE_FACTOR * max(TARGET_SECONDS, batch.seconds)
        is_prompt = not opened.is_bulk  # a caller may wait for single events
        if not is_unusual and isinstance(numbers, int):
            payload = messages.dump_events(
                numbers, batch.size, overdue, packed.data, is_prompt=is_prompt
            )
            return Frame(messages.EVENTS, payload, large), packed.class_bytes
        roots: Sequence[int] = ()
        if opened.return_events:
            roots = range(batch.size) if opened.every_event else batch.root_positions
        frame = messages.BatchFrame(
            new_plans,
            numbers,
            batch.size,
            chains,
            roots,
            overdue,
            packed,
            is_prompt,
            opened.has_limits,
        )
        return Frame(messages.BATCH, messages.dump_batch(frame), large), packed.class_bytes

    def encode_one(self, ev: Any, plan: PlanLike, known: set[int]) -> Frame | None:
        """Make the frame of one event; None if the worker does not know its plan.

        Also None while events are pickled individually. Raises whatever pickling raised.
        """
        number = self._plan_numbers.get(plan.indices)
        if number not in known or self.one_by_one:
            return None
        large: list[memoryview] = []
        single = messages.dump_single(number, pickling.dumps(ev, buffers=large))
        return Frame(messages.SINGLE, single, large)

    def answer(self, item: Frame) -> Answer | None:
        """Return the result of the only event of a batch; None if it is an error or follow-ups."""
        if item.tag == messages.QUIET:
            return Answer(None) if messages.is_quiet_end(item.payload) else None
        if item.tag != messages.PROGRESS:
            return None
        frame = messages.load_progress(item.payload, item.buffers)
        reported = frame.results
        if (
            reported is None
            or reported.givers
            or reported.errors
            or reported.processed
            or frame.gave_back
        ):
            return None
        if reported.values is None:
            return Answer(None)
        (packed,) = reported.values.data
        with contextlib.suppress(SerializationError):
            if not isinstance(packed, messages.ErrorRecord):
                return Answer(packing.unpack_value(packed, item.buffers))
        return None

    def _numbers_of(
        self, sent: Sent, known: set[int], new_plans: list[tuple[int, tuple[int, ...]]]
    ) -> list[int] | int:
        """The numbers of a batch's plans; numbers new to the worker go to `new_plans`."""
        numbers: list[int] = []
        parts = sent.batch.parts
        first = parts[0].plans[0]
        if len(parts) == 1 and not sent.failures:
            number = self._number_of(first)
            if number in known and parts[0].plans.count(first) == len(parts[0].plans):
                return number  # as is usual
        for part in parts:
            first = part.plans[0]
            if part.plans.count(first) == len(part.plans):
                numbers += [self._number_of(first)] * len(part.plans)
            else:
                numbers += map(self._number_of, part.plans)
        used = set(numbers)
        for number in sorted(used - known):
            known.add(number)
            new_plans.append((number, self._plan_indices[number]))
        if len(used) == 1 and not sent.failures:
            return numbers[0]
        for position in sent.failures:
            numbers[position] = messages.OMITTED
        return numbers

    def _pack(self, batch: Batch, large: list[memoryview]) -> packing.PackedEvents:
        """Pack the events of a batch. Pass-through events go on as they came.

        `large` takes the large buffers of the events.
        """
        if not any(map(_is_sealed, batch.parts)):
            return self._packer.pack(_events_of(batch.parts), large)
        packed: list[PackedPart] = []
        for is_sealed, parts in itertools.groupby(batch.parts, _is_sealed):
            if is_sealed:
                packed += itertools.chain.from_iterable(map(_slices_of, parts))
            else:
                packed.append(self._packer.pack(_events_of(parts)).data)
        return packing.PackedEvents(False, packed, in_parts=True)

    def pack_one_by_one(self, sent: Sent) -> packing.PackedEvents:
        """Pickle each event by itself. Those that fail become failures of the batch."""
        events = _events_of(sent.batch.parts)
        blobs = [b""] * len(events)
        for position, event in enumerate(events):
            if position in sent.failures:
                continue
            try:
                blobs[position] = pickling.dumps(event)
            except Exception as error:
                what = f"event {describe_event(event)}"
                sent.failures[position] = diagnosis.cannot_pickle(what, event, error)
        return packing.PackedEvents(True, blobs)

    def _number_of(self, plan: PlanLike) -> int:
        """The number under which workers know a plan."""
        number = self._plan_numbers.get(plan.indices)
        if number is None:
            number = self._plan_numbers[plan.indices] = len(self._plan_indices)
            self._plan_indices.append(plan.indices)
        return number

    # --- progress ---

    def over(self, sent: Sent, events: int) -> None:
        """Note that some more events of a batch are over."""
        if sent.is_one_by_one:
            self.one_by_one = max(0, self.one_by_one - events)

    def cut(self, sent: Sent, reported: messages.BatchResults | None) -> set[int]:
        """The positions after which a worker did not run the rest of a chain."""
        batch = sent.batch
        ends, key_ends = batch.run.opened.chain_ends(has_retries=self._has_retries)
        givers = () if reported is None else reported.givers
        failed = {*sent.failures, *(() if reported is None else dict(reported.errors))}
        cut: set[int] = set()
        for part in batch.parts:
            how = ends if part.is_chain else key_ends if part.is_keyed else None
            if how is None:
                continue
            positions = range(part.start, part.stop)
            if how.by_follow_ups:
                cut.update([position for position in givers if position in positions])
            if how.by_error:
                cut.update([position for position in failed if position in positions])
        return cut

    def timings(
        self, frame: messages.ProgressFrame, batch: Batch, times: Times
    ) -> list[tuple[tuple[int, ...], int, float]]:
        """The timings of a frame by the plans' indices."""
        if not times:
            return []
        if frame.timings is None:
            return [(batch.parts[0].plans[0].indices, len(times), times.total)]
        return [
            (self._plan_indices[number], events, seconds)
            for number, events, seconds in frame.timings
        ]

    def unpack(
        self,
        reported: messages.BatchResults,
        where: str,
        large: Sequence[memoryview] = (),
        *,
        is_last_chance: bool,
    ) -> UnpackedResults:
        """Unpack the results of events, and plan their follow-ups.

        Args:
            reported: The results, as they came.
            where: The worker that sent them, in words; errors get a note with it.
            large: The large buffers that came with them.
            is_last_chance: Whether the worker is dead, and cannot pack them again. Events whose
                results cannot be unpacked fail then.

        Raises:
            SerializationError: Results that were packed together cannot be unpacked. Packing them
                one by one shows which is at fault.
        """
        try:
            follow_ups, results = self._follow_ups(reported, large)
        except SerializationError as error:
            if not is_last_chance:
                raise
            failed = Result(error=detached(error))
            follow_ups, results = {}, dict.fromkeys(reported.givers, failed)
        columns = [
            _unpack_column(column, large, results, where, is_last_chance=is_last_chance)
            for column in (reported.values, reported.emitted, reported.processed)
        ]
        for position, record in reported.errors:
            raised = messages.decode_error(record)
            add_note(raised, f"evproc_pool: in {where}")
            results[position] = Result(error=raised, handler=record.handler)
        values, emitted, processed = columns
        last_ran = dict(zip(reported.short[::2], reported.short[1::2], strict=True))
        givers = dict(zip(reported.givers, reported.last_givers, strict=False))
        return UnpackedResults(follow_ups, results, processed, values, emitted, last_ran, givers)

    def _follow_ups(
        self, reported: messages.BatchResults, large: Sequence[memoryview]
    ) -> tuple[Mapping[int, Sequence[Planned]], dict[int, Result]]:
        """The follow-ups by the position of their event, and failures by position."""
        if not reported.givers:
            return {}, {}
        if reported.follow_ups.one_by_one:
            return self._unpack_blobs(reported, reported.follow_ups.data)
        try:
            events, plan = self._received(reported.follow_ups, large)
        except Exception as error:
            raise diagnosis.cannot_rebuild("what a handler returned", error) from error
        return self._planned(reported, events, plan), {}

    def _received(
        self, packed: packing.PackedEvents, large: Sequence[memoryview]
    ) -> tuple[Sequence[Any], PlanLike | None]:
        """Events that were packed together, and their plan if one look shows that all have it."""
        if packed.in_parts:
            first = packed.data[0]
            if isinstance(first, Slice):  # then all are, and of one class
                kind = pickling.loads(first.kind)
                name = constant_name(kind)
                plan = None
                if name is not None and issubclass(kind, Event):
                    plan = self._registry.plan_of_name(name)
                if plan is not None:
                    return PassThrough.received(packed.data), plan
            events = unpack_parts(packed.data)
        else:
            events = packing.unpack(packed, large)
        return events, self._registry.common_plan(events)

    def _unpack_blobs(
        self, reported: messages.BatchResults, blobs: Sequence[Any]
    ) -> tuple[dict[int, list[Planned]], dict[int, Result]]:
        """Unpack follow-ups that were packed one by one, and collect failures."""
        follow_ups: dict[int, list[Planned]] = {}
        failed: dict[int, Result] = {}
        for position, blob in zip(reported.givers, blobs, strict=True):
            if isinstance(blob, messages.ErrorRecord):
                failed[position] = Result(error=messages.decode_error(blob), handler=blob.handler)
                continue
            try:
                events = pickling.loads(blob)
            except Exception as error:
                failed[position] = Result(
                    error=diagnosis.cannot_rebuild("what a handler returned", error)
                )
            else:
                follow_ups[position] = [(event, self._plan(event)) for event in events]
        return follow_ups, failed

    def _planned(
        self, reported: messages.BatchResults, events: Sequence[Any], common: PlanLike | None
    ) -> Mapping[int, Sequence[Planned]]:
        """Plan follow-ups, by the position of the event that returned them.

        `common` is the plan of all of them, if it is known.
        """
        plans = [common] * len(events) if common is not None else list(map(self._plan, events))
        if len(reported.givers) == len(events):  # one each, the usual case
            return Singles(reported.givers, events, plans)
        ends = list(itertools.accumulate(reported.counts))
        ranges = zip(reported.givers, reported.counts, ends, strict=True)
        if common is not None:
            return {
                position: Bunch(events[end - count : end], common)
                for position, count, end in ranges
            }
        return {
            position: list(zip(events[end - count : end], plans[end - count : end], strict=True))
            for position, count, end in ranges
        }

    def _plan(self, event: Any) -> PlanLike:
        try:
            return self._registry.match(event)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            return Unplannable(detached(error))


def _unpack_column(
    column: packing.PackedColumn | None,
    large: Sequence[memoryview],
    results: dict[int, Result],
    where: str,
    *,
    is_last_chance: bool,
) -> Column:
    """Unpack one kind of results; see `Codec.unpack`. An event whose result is bad fails."""
    if column is None:
        return EMPTY
    if column.is_together:
        try:
            return Column(column.positions, packing.unpack_column(column, large))
        except Exception as error:
            failure = diagnosis.cannot_rebuild("what an event left behind", error)
            if not is_last_chance:
                raise failure from error
            results.update(dict.fromkeys(column.positions, Result(error=failure)))
            return EMPTY
    positions: list[int] = []
    items: list[Any] = []
    for position, packed in zip(column.positions, column.data, strict=True):
        if isinstance(packed, messages.ErrorRecord):
            raised = messages.decode_error(packed)
            add_note(raised, f"evproc_pool: in {where}")
            results[position] = Result(error=raised, handler=packed.handler)
            continue
        try:
            items.append(packing.unpack_value(packed, large))
            positions.append(position)
        except Exception as error:
            results[position] = Result(error=detached(error))
    return Column(positions, items)


def _is_sealed(part: Part) -> bool:
    return isinstance(part.events, PassThrough)


def _slices_of(part: Part) -> Sequence[Slice]:
    """The events of a pass-through part, as they go on."""
    return part.events.slices if isinstance(part.events, PassThrough) else ()


def _events_of(parts: Iterable[Part]) -> list[Any]:
    return list(itertools.chain.from_iterable(part.events for part in parts))
