"""What crosses between the coordinator and a worker, as bytes: a tag and a payload.

Handlers never cross here: a plan is sent once per worker, as indices into the
registry, and known by a number from then on.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from evproc.exc import add_note
from evproc_pool.errors import RemoteError, chain_remote, rebuild_plain
from evproc_pool.protocol.frame import Data
from evproc_pool.serialization.basics import PROTOCOL, plain, text_of
from evproc_pool.serialization.packing import ATOMS, PackedColumn, PackedEvents
from evproc_pool.serialization.pickling import dumps, loads

# coordinator to worker
CONFIG: Final = 1
BATCH: Final = 2
QUIT: Final = 3
REPACKED: Final = 4  # a batch that was UNREADABLE, packed one by one; goes before others
REPACK: Final = 5  # the follow-ups of a PROGRESS frame cannot be unpacked: again, one by one
EVENTS: Final = 6  # a batch of the usual kind, without the trimmings of BATCH
SINGLE: Final = 7  # a batch of one event, without any trimmings
# worker to coordinator
READY: Final = 16
NOT_READY: Final = 17
PROGRESS: Final = 18
UNREADABLE: Final = 19
FOLLOW_UPS: Final = 20  # the answer to REPACK
SKIPPED: Final = 21  # a batch was taken back before it began
LEAVING: Final = 23  # the worker has used up its quota, or (NEARLY) will have soon
NEARLY: Final = 24
QUIET: Final = 22  # PROGRESS of the usual kind: events of one plan, which left nothing behind

#: Marks the position of an event that could not be packed; the worker passes over it.
OMITTED: Final = -1


# What ends a chain of events: see `BatchFrame.chains`.
ENDS_BY_VALUE: Final = 1
ENDS_BY_ERROR: Final = 2
ENDS_BY_FOLLOW_UPS: Final = 4


def chain_code(by_value: bool, by_error: bool, by_follow_ups: bool) -> int:
    """Encode what ends a chain."""
    return ENDS_BY_VALUE * by_value | ENDS_BY_ERROR * by_error | ENDS_BY_FOLLOW_UPS * by_follow_ups


class BatchFrame(NamedTuple):
    """A batch as the worker sees it.

    Attributes:
        new_plans: Plan numbers that the worker has not seen, with their indices.
        plans: The plan number of each event, or OMITTED; one number if it is the same
            for all.
        size: How many events.
        chains: Start and stop of the positions where one may leave the rest unrun, and
            what does that: see `chain_code`.
        return_events: The positions of events that are to come back as the handlers
            left them.
        overdue: How long it may take, in seconds, before the rest is given back.
        events: The events.
        is_prompt: Whether somebody may wait for single events of it.
        tells_givers: Whether to say which handlers returned follow-ups.
    """

    new_plans: Sequence[tuple[int, tuple[int, ...]]]
    plans: Sequence[int] | int
    size: int
    chains: Sequence[tuple[int, int, int]]
    return_events: Sequence[int]
    overdue: float
    events: PackedEvents
    is_prompt: bool = False
    tells_givers: bool = False


class ErrorRecord(NamedTuple):
    """An exception on its way, in plain data besides its own pickle.

    Attributes:
        handler: The handler that raised it, or None.
        pickled: The exception, or None where it cannot be pickled and rebuilt.
        bases: Module and qualified name of its type, and of all bases of that, in order.
        text: `str` of it.
        traceback: As text.
        notes: Its notes, which a class's own pickling may lose.
    """

    handler: str | None
    pickled: bytes | None
    bases: tuple[str, ...]
    text: str
    traceback: str
    notes: tuple[str, ...]


class ProgressFrame(NamedTuple):
    """What a worker has done since its last frame.

    Attributes:
        done: Envelopes of the batch that are over.
        begun: When the first of those since the last frame began, in seconds of the
            worker's clock.
        ends: When each of them was over, as C doubles.
        timings: Plan number, events, and their seconds; None if all are of one plan.
        gave_back: Whether the rest of the batch is left unrun.
        told: What the events left behind; None if that is nothing.
        large: The large buffers of what they left behind; beside the rest.
        number: Which batch it is of those the worker was sent, from 1.
    """

    done: int
    begun: float
    ends: Data
    timings: Sequence[tuple[int, int, float]] | None
    gave_back: bool
    told: Told | None
    large: Sequence[memoryview] = ()
    number: int = 0


class Told(NamedTuple):
    """What events left behind.

    Attributes:
        number: Which frame with follow-ups this is, for REPACK.
        givers: Positions that returned follow-ups.
        counts: How many each; empty where it is one each.
        follow_ups: All of them, in order.
        values: What was given to `StopProcessing`.
        emitted: What was emitted, a list for each event.
        processed: Events as the handlers left them.
        errors: Positions that failed.
        short: Positions at which not all handlers of the plan ran, each with the index of
            the last one that did; flat.
        last_givers: For each of `givers` the index of the last handler that returned
            follow-ups; where that was asked for.
    """

    number: int
    givers: Sequence[int]
    counts: Sequence[int]
    follow_ups: PackedEvents
    values: PackedColumn | None
    emitted: PackedColumn | None
    processed: PackedColumn | None
    errors: Sequence[tuple[int, ErrorRecord]]
    short: Sequence[int] = ()
    last_givers: Sequence[int] = ()

    def one_by_one(self, blobs: Sequence[Any], columns: Sequence[Sequence[Any]]) -> Told:
        """With what was packed together packed one by one."""
        old = (self.values, self.emitted, self.processed)
        values, emitted, processed = [
            column._replace(is_together=False, data=again) if column and again else column
            for column, again in zip(old, columns, strict=True)
        ]
        told = self._replace(values=values, emitted=emitted, processed=processed)
        return told._replace(follow_ups=PackedEvents(True, blobs)) if blobs else told


_EVENTS_HEAD: Final = struct.Struct("<IId?")  # plan number, events, overdue, is_prompt
_SINGLE_HEAD: Final = struct.Struct("<I")  # plan number
# done, whether the rest is given back, begun, number of the batch
_QUIET_HEAD: Final = struct.Struct("<I?dQ")


def dump_events(
    plan: int, size: int, overdue: float, pickled: bytes, *, is_prompt: bool = False
) -> bytes:
    """The payload of an EVENTS frame.

    Args:
        plan: The number of the plan of all of them, known to the worker.
        size: How many.
        overdue: See `BatchFrame`.
        pickled: Packed together.
        is_prompt: See `BatchFrame`.
    """
    return _EVENTS_HEAD.pack(plan, size, overdue, is_prompt) + pickled


def load_events(payload: Data) -> BatchFrame:
    """Its opposite."""
    plan, size, overdue, is_prompt = _EVENTS_HEAD.unpack_from(payload)
    # all buffers of the frame are theirs
    packed = PackedEvents(False, memoryview(payload)[_EVENTS_HEAD.size :], large=(0, None))
    return BatchFrame((), plan, size, (), (), overdue, packed, is_prompt)


def dump_single(plan: int, pickled: bytes) -> bytes:
    """The payload of a SINGLE frame.

    Args:
        plan: The number of its plan, known to the worker.
        pickled: The event.
    """
    return _SINGLE_HEAD.pack(plan) + pickled


def load_single(payload: Data) -> tuple[int, memoryview]:
    """Its opposite."""
    return _SINGLE_HEAD.unpack_from(payload)[0], memoryview(payload)[_SINGLE_HEAD.size :]


def dump_quiet(done: int, ends: bytes, begun: float, *, gave_back: bool, number: int = 0) -> bytes:
    """The payload of a QUIET frame; see `ProgressFrame`."""
    return _QUIET_HEAD.pack(done, gave_back, begun, number) + ends


def load_quiet(payload: Data) -> ProgressFrame:
    """Its opposite."""
    done, gave_back, begun, number = _QUIET_HEAD.unpack_from(payload)
    ends = payload[_QUIET_HEAD.size :]
    return ProgressFrame(done, begun, ends, None, gave_back, None, number=number)


def is_quiet_end(payload: Data) -> bool:
    """Whether a QUIET frame says that the only event of its batch is over."""
    done, gave_back, _, _ = _QUIET_HEAD.unpack_from(payload)
    return done > 0 and not gave_back


def dump_batch(frame: BatchFrame) -> bytes:
    """The payload of a BATCH frame."""
    return _dump_plain(tuple(frame))


def _dump_plain(content: object) -> bytes:
    """Pickle plain data.

    Not as other values: the pickles of events and values in it may name classes of the script,
    and it would be taken for something that refers to them.
    """
    return pickle.dumps(content, PROTOCOL)


def dump_progress(frame: ProgressFrame) -> bytes:
    """The payload of a PROGRESS frame."""
    told = None if frame.told is None else tuple(frame.told)
    return _dump_plain((*frame._replace(told=None, large=()), told))


def load_progress(payload: Data, large: Sequence[memoryview] = ()) -> ProgressFrame:
    """Its opposite."""
    *rest, told = loads(payload)
    frame = ProgressFrame(*rest)
    return frame._replace(told=None if told is None else Told(*told), large=large)


def encode_error(error: BaseException, handler: str | None) -> ErrorRecord:
    """Turn an exception into what can cross in any case. Never raises."""
    from evproc_pool.protocol.traceback_text import (
        traceback_text,  # takes a while, and may not be needed
    )

    kind = type(error)
    text = text_of(error)
    try:
        lines = traceback_text(error)
    except BaseException:
        lines = f"{kind.__qualname__}: {text}\n"
    try:
        raw = getattr(error, "__notes__", ())
        notes = tuple(plain(note) for note in raw if isinstance(note, str))
    except BaseException:
        notes = ()
    bases = tuple([f"{base.__module__}.{base.__qualname__}" for base in kind.__mro__])
    return ErrorRecord(handler, _pickle_error(error), bases, text, lines, notes)


class _WithoutConstructor:
    """Pickles as an exception that is rebuilt without its class's constructor.

    Python rebuilds an exception by calling its class with its `args`, which fails or
    differs for a constructor that wants something else than it gives to its base.
    """

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __reduce__(self) -> tuple[Any, ...]:
        error = self._error
        return rebuild_plain, (type(error), error.args), error.__dict__


def _pickle_error(error: BaseException) -> bytes | None:
    """Pickle an exception such that it can be rebuilt as what it is; None: there is no way."""
    if _is_plain(error):
        return pickle.dumps(error, PROTOCOL)
    nearly: bytes | None = None
    ways: list[object] = [error]
    if type(error).__reduce__ is BaseException.__reduce__:
        ways.append(_WithoutConstructor(error))
    for content in ways:
        try:
            pickled = dumps(content)
            # one that cannot be rebuilt is found here rather than there
            copy = loads(pickled)
            if type(copy) is not type(error):
                continue
            nearly = nearly or pickled
            if copy.args == error.args:
                return pickled
        except Exception:  # noqa: S112 - there is another way, or none
            continue
    return nearly


def _is_plain(error: BaseException) -> bool:
    """Whether an exception is Python's own and holds nothing that could not be rebuilt."""
    kind = type(error)
    return (
        kind.__module__ == "builtins"
        and kind.__reduce__ is BaseException.__reduce__
        and ATOMS.issuperset(map(type, error.args))
        and all(
            name == "__notes__" and type(notes) is list and {str}.issuperset(map(type, notes))
            for name, notes in vars(error).items()
        )
    )


def decode_error(record: ErrorRecord) -> BaseException:
    """Rebuild an exception; where that is not possible, a `RemoteError`."""
    error: BaseException | None = None
    if record.pickled is not None:
        try:
            error = loads(record.pickled)
        except Exception:
            error = None
    if not isinstance(error, BaseException):
        error = RemoteError(record.bases[0], record.text, record.traceback, record.bases)
    for note in record.notes:
        add_note(error, note)
    return chain_remote(error, record.traceback)
