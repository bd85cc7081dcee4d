"""The columns of `EventsDone`, made of a progress frame. Pure.

A worker sends when each event ended. If a plan of the batch has several handlers, it also sends
when each handler began, for all events in one row. Which of these belong to which event follows
from how many handlers ran. Costs O(events) in operations of C while all events have one plan.

An event did not run if it could not be sent, or if one before it has ended their chain (see
`messages.BatchFrame.chains`).
"""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from evproc_pool.coordinator.worker_record import Sent
from evproc_pool.core.batches import Batch
from evproc_pool.observe.notifications import Same
from evproc_pool.observe.seconds import Seconds
from evproc_pool.protocol import messages

#: The names of the handlers with these indices.
NamesOf = Callable[[tuple[int, ...]], tuple[str, ...]]

_ENDS: Final = (messages.ENDS_BY_VALUE, messages.ENDS_BY_ERROR, messages.ENDS_BY_FOLLOW_UPS)


class Ran(NamedTuple):
    """What ran, of the events that a frame reports; the columns of `EventsDone`."""

    positions: Sequence[int]
    seconds: Seconds
    handlers: Sequence[tuple[str, ...]]
    handler_seconds: Seconds | None


class OfBatch(Sequence[Any]):
    """Something of some events of a batch, made when it is read."""

    __slots__ = ("_positions", "_read")

    def __init__(self, positions: Sequence[int], read: Callable[[int], Any]) -> None:
        self._positions = positions
        self._read = read

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return OfBatch(self._positions[place], self._read)
        return self._read(self._positions[place])


def events_and_paths(batch: Batch, positions: Sequence[int]) -> tuple[OfBatch, OfBatch]:
    """The events at some positions, and their paths."""
    events = OfBatch(positions, lambda position: batch.at(position)[0])
    return events, OfBatch(positions, lambda position: batch.place_at(position).path)


def ran(sent: Sent, frame: messages.ProgressFrame, names_of: NamesOf) -> Ran:
    """Return what ran of the events that a frame reports."""
    ends = array("d", bytes(frame.ends))
    begin = frame.done - len(ends)
    if _is_plain(sent, frame):
        seconds = Seconds.in_a_row(frame.begun, ends)
        names = names_of(sent.batch.at(begin)[1].indices)
        of_handlers = seconds if len(names) == 1 else None
        return Ran(range(begin, frame.done), seconds, Same(names, len(ends)), of_handlers)
    skipped = skipped_of(sent, begin, frame.done, frame.results)
    seconds = Seconds.in_a_row(frame.begun, ends)
    positions: Sequence[int] = range(begin, frame.done)
    if skipped:
        positions = [position for position in positions if position not in skipped]
        begins = array("d", (frame.begun,)) + ends[:-1]
        begins, ends = (
            array("d", [column[position - begin] for position in positions])
            for column in (begins, ends)
        )
        seconds = Seconds(begins, ends)
    handlers = _handlers(sent.batch, frame, positions, names_of)
    if frame.begins:
        sent.begins = sent.begins + array("d", bytes(frame.begins))
    if sent.begins:
        return Ran(positions, seconds, handlers, _handler_seconds(sent, handlers, ends))
    return Ran(positions, seconds, handlers, _as_of_one(handlers, seconds))


def _is_plain(sent: Sent, frame: messages.ProgressFrame) -> bool:
    """Whether all events ran, all handlers of one plan, and nobody noted when these began."""
    if sent.chains or sent.failures or sent.begins or frame.begins:
        return False
    results = frame.results
    is_short = results is not None and (results.short or results.errors)
    return not is_short and (frame.timings is None or len(frame.timings) == 1)


def skipped_of(
    sent: Sent, begin: int, done: int, results: messages.BatchResults | None
) -> set[int]:
    """The positions that a frame reports as over, and that did not run."""
    if not (sent.chains or sent.failures):
        return set()
    skipped = set(range(begin, min(done, sent.skip_to)))
    skipped.update([position for position in sent.failures if begin <= position < done])
    enders = [[], list(sent.failures), []] if results is None else _enders(sent, results)
    for start, stop, code in sent.chains:
        if stop <= begin or start >= done:
            continue
        first = min(
            (
                position
                for way, positions in zip(_ENDS, enders, strict=True)
                if code & way
                for position in positions
                if max(start, begin) <= position < min(stop, done)
            ),
            default=None,
        )
        if first is not None:
            skipped.update(range(first + 1, min(stop, done)))
            sent.skip_to = max(sent.skip_to, stop)
    return skipped


def _enders(sent: Sent, results: messages.BatchResults) -> list[list[int]]:
    """The positions of events that end chains, for each of `_ENDS`."""
    values = [] if results.values is None else list(results.values.positions)
    errors = [*sent.failures, *[position for position, _ in results.errors]]
    return [values, errors, list(results.givers)]


def _handlers(
    batch: Batch, frame: messages.ProgressFrame, positions: Sequence[int], names_of: NamesOf
) -> Sequence[tuple[str, ...]]:
    """The names of the handlers that ran, for each event."""
    if not positions:
        return ()
    if frame.timings is None or len(frame.timings) == 1:  # all are of one plan
        names = names_of(batch.at(positions[0])[1].indices)
        column: Sequence[tuple[str, ...]] = Same(names, len(positions))
    else:
        every = itertools.chain.from_iterable(part.plans for part in batch.parts)
        first = positions[0]
        rows = [plan.indices for plan in itertools.islice(every, first, frame.done)]
        known = {row: names_of(row) for row in set(rows)}
        column = [known[row] for row in rows]
        if len(positions) < len(rows):
            column = [column[position - first] for position in positions]
    results = frame.results
    if results is None or not (results.short or results.errors):
        return column
    fewer: dict[int, int] = {
        # it could not be unpickled
        position: 0
        for position, record in results.errors
        if record.handler is None
    }
    for position, index in zip(results.short[::2], results.short[1::2], strict=True):
        fewer[position] = 1 + batch.at(position)[1].indices.index(index)
    if not fewer:
        return column
    columns = zip(column, positions, strict=True)
    return [names[: fewer.get(position, len(names))] for names, position in columns]


def _as_of_one(handlers: Sequence[tuple[str, ...]], seconds: Seconds) -> Seconds | None:
    """The seconds of handlers if every event has one, which are those of the events."""
    if isinstance(handlers, Same):
        return seconds if len(handlers.item) == 1 else None
    return seconds if set(map(len, handlers)) == {1} else None


def _handler_seconds(
    sent: Sent, handlers: Sequence[tuple[str, ...]], ends: array[float]
) -> Seconds | None:
    """The seconds of handlers, event by event; takes the times when they began from `sent`."""
    numbers = [len(handlers.item)] if isinstance(handlers, Same) else list(map(len, handlers))
    needed = numbers[0] * len(handlers) if isinstance(handlers, Same) else sum(numbers)
    begins, sent.begins = sent.begins[:needed], sent.begins[needed:]
    if len(begins) < needed or not needed:
        return None
    # a handler stops when the next one begins; the last one of an event when that ends
    stops = begins[1:] + begins[:1]
    if isinstance(handlers, Same):
        stops[numbers[0] - 1 :: numbers[0]] = ends
    else:
        for last, number, end in zip(itertools.accumulate(numbers), numbers, ends, strict=True):
            if number:
                stops[last - 1] = end
    return Seconds(begins, stops)
