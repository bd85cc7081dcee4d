"""The messages between coordinator and worker, as bytes: a tag and a payload.

Handlers never travel: a plan is sent once per worker, as indices into the registry, and has a
number from then on.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from evproc.event import class_name, module_of, qualname
from evproc.exc import add_note
from evproc_pool.errors import (
    RemoteError,
    bases_of,
    chain_remote,
    rebuild_plain,
    release_frames,
    undisguised,
)
from evproc_pool.protocol.frame import Data
from evproc_pool.serialization.basics import PROTOCOL, plain, text_of
from evproc_pool.serialization.packing import ATOMS, PackedColumn, PackedEvents
from evproc_pool.serialization.pickling import dumps, loads

# coordinator to worker
CONFIG: Final = 1
BATCH: Final = 2
QUIT: Final = 3
REPACKED: Final = 4  # an UNREADABLE batch again, packed one by one; goes before others
REPACK: Final = 5  # asks for the results of a PROGRESS frame again, packed one by one
EVENTS: Final = 6  # a BATCH of one known plan, without options
SINGLE: Final = 7  # a BATCH of one event, without options
MODULES: Final = 8  # before REPACKED: where modules are that the worker has not found
# worker to coordinator
READY: Final = 16
NOT_READY: Final = 17
PROGRESS: Final = 18
UNREADABLE: Final = 19  # the worker cannot unpack the events of a batch; and the missing module
FOLLOW_UPS: Final = 20  # the answer to REPACK
SKIPPED: Final = 21  # a batch was taken back before it began
LEAVING: Final = 23  # the worker has used up its quota
NEARLY: Final = 24  # the worker will soon have used up its quota
QUIET: Final = 22  # PROGRESS of events of one plan that have no results
LOGGED: Final = 30  # a log record; see `log_records`
WARNED: Final = 31  # a warning; likewise
#: Frames that say nothing of events, and may come at any time.
OUTPUT: Final = frozenset((LOGGED, WARNED))

#: Stands for the plan of an event that could not be packed. The worker skips the event.
OMITTED: Final = -1

# The ways to end a chain; see `BatchFrame.chains`.
ENDS_BY_VALUE: Final = 1
ENDS_BY_ERROR: Final = 2
ENDS_BY_FOLLOW_UPS: Final = 4


def chain_code(by_value: bool, by_error: bool, by_follow_ups: bool) -> int:
    """Encode what ends a chain."""
    return ENDS_BY_VALUE * by_value | ENDS_BY_ERROR * by_error | ENDS_BY_FOLLOW_UPS * by_follow_ups


class BatchFrame(NamedTuple):
    """A batch, as the worker receives it."""

    # plans that the worker does not know yet: number, and indices of the handlers
    new_plans: Sequence[tuple[int, tuple[int, ...]]]
    plans: Sequence[int] | int  # the number of each event's plan, or OMITTED; one number: of all
    size: int  # the number of events
    # Ranges of positions: start, stop and a `chain_code`. An event that ends in one of these ways
    # leaves the rest of its range unrun.
    chains: Sequence[tuple[int, int, int]]
    return_events: Sequence[int]  # positions of events to send back as the handlers left them
    overdue: float  # seconds after which the worker gives the rest of the batch back
    events: PackedEvents
    is_prompt: bool = False  # a caller may wait for single events of it
    names_handlers: bool = False  # report which handlers returned follow-ups


class ErrorRecord(NamedTuple):
    """An exception as plain data, besides its own pickle."""

    handler: str | None  # which raised it
    pickled: bytes | None  # None: it cannot be pickled and rebuilt
    bases: tuple[str, ...]  # module and qualified name of its type and of all base types, in order
    text: str  # `str` of it
    traceback: str
    notes: tuple[str, ...]  # which a class's own pickling may lose


class ProgressFrame(NamedTuple):
    """The work of a worker since its last frame."""

    done: int  # how many events of the batch are over
    begun: float  # when the first of these events began, in seconds of the worker's clock
    ends: Data  # when each of these events was over, as C doubles
    # plan number, number of events, and their seconds; None: all are of one plan
    timings: Sequence[tuple[int, int, float]] | None
    gave_back: bool  # the rest of the batch is left unrun
    results: BatchResults | None  # of these events; None: there are none
    large: Sequence[memoryview] = ()  # the large buffers of the results, beside the frame
    number: int = 0  # of the batch among those that this worker was sent, from 1
    # when each handler began, of these events in order, and maybe of later ones, as C doubles;
    # of a batch that has plans of several handlers, if `Pace.times_handlers`
    begins: Data = b""


class BatchResults(NamedTuple):
    """The results of events: follow-ups, values, errors and others."""

    number: int  # of this frame, for REPACK
    givers: Sequence[int]  # positions of the events that returned follow-ups
    counts: Sequence[int]  # how many follow-ups each of them returned; empty: one each
    follow_ups: PackedEvents  # all of them, in order
    values: PackedColumn | None  # given to `StopProcessing`
    emitted: PackedColumn | None  # emitted results, a list for each event
    processed: PackedColumn | None  # events as the handlers left them
    errors: Sequence[tuple[int, ErrorRecord]]  # positions and errors of failed events
    # events of which not all handlers ran: position and index of the last one that did, flat
    short: Sequence[int] = ()
    # for each of `givers` the index of the last handler that returned follow-ups; if requested
    last_givers: Sequence[int] = ()

    def one_by_one(self, blobs: Sequence[Any], columns: Sequence[Sequence[Any]]) -> BatchResults:
        """Replace what was packed together by the answer to REPACK."""
        old = (self.values, self.emitted, self.processed)
        values, emitted, processed = [
            column._replace(is_together=False, data=again) if column and again else column
            for column, again in zip(old, columns, strict=True)
        ]
        results = self._replace(values=values, emitted=emitted, processed=processed)
        return results._replace(follow_ups=PackedEvents(True, blobs)) if blobs else results


_EVENTS_HEAD: Final = struct.Struct("<IId?")  # plan number, events, overdue, is_prompt
_SINGLE_HEAD: Final = struct.Struct("<I")  # plan number
_QUIET_HEAD: Final = struct.Struct("<I?dQI")  # done, gave_back, begun, number, bytes of begins


def dump_events(
    plan: int, size: int, overdue: float, pickled: bytes, *, is_prompt: bool = False
) -> bytes:
    """The payload of an EVENTS frame; the worker knows the plan. See `BatchFrame`."""
    return _EVENTS_HEAD.pack(plan, size, overdue, is_prompt) + pickled


def load_events(payload: Data) -> BatchFrame:
    """Read the payload of an EVENTS frame."""
    plan, size, overdue, is_prompt = _EVENTS_HEAD.unpack_from(payload)
    # all buffers of the frame belong to the events
    packed = PackedEvents(False, memoryview(payload)[_EVENTS_HEAD.size :], large=(0, None))
    return BatchFrame((), plan, size, (), (), overdue, packed, is_prompt)


def dump_single(plan: int, pickled: bytes) -> bytes:
    """The payload of a SINGLE frame; the worker knows the plan."""
    return _SINGLE_HEAD.pack(plan) + pickled


def load_single(payload: Data) -> tuple[int, memoryview]:
    """Read the payload of a SINGLE frame: plan number and pickled event."""
    return _SINGLE_HEAD.unpack_from(payload)[0], memoryview(payload)[_SINGLE_HEAD.size :]


def dump_quiet(
    done: int, ends: bytes, begun: float, *, gave_back: bool, number: int = 0, begins: bytes = b""
) -> bytes:
    """The payload of a QUIET frame; see `ProgressFrame`."""
    return _QUIET_HEAD.pack(done, gave_back, begun, number, len(begins)) + begins + ends


def load_quiet(payload: Data) -> ProgressFrame:
    """Read the payload of a QUIET frame."""
    done, gave_back, begun, number, size = _QUIET_HEAD.unpack_from(payload)
    begins_end = _QUIET_HEAD.size + size
    begins, ends = payload[_QUIET_HEAD.size : begins_end], payload[begins_end:]
    return ProgressFrame(done, begun, ends, None, gave_back, None, number=number, begins=begins)


def is_quiet_end(payload: Data) -> bool:
    """Whether a QUIET frame ends a batch of one event."""
    done, gave_back, *_ = _QUIET_HEAD.unpack_from(payload)
    return done > 0 and not gave_back


# The next two are not pickled with `pickling.dumps`, which searches for references to the main
# script: the inner pickles may name its classes.
def dump_batch(frame: BatchFrame) -> bytes:
    """The payload of a BATCH frame."""
    return pickle.dumps(tuple(frame), PROTOCOL)


def dump_progress(frame: ProgressFrame) -> bytes:
    """The payload of a PROGRESS frame."""
    results = None if frame.results is None else tuple(frame.results)
    return pickle.dumps((*frame._replace(results=None, large=()), results), PROTOCOL)


def load_progress(payload: Data, large: Sequence[memoryview] = ()) -> ProgressFrame:
    """Read the payload of a PROGRESS frame."""
    *rest, results = loads(payload)
    frame = ProgressFrame(*rest)
    return frame._replace(results=None if results is None else BatchResults(*results), large=large)


def encode_error(error: BaseException, handler: str | None) -> ErrorRecord:
    """Turn an exception into a record that can always be sent. Never raises.

    The frames of its traceback hold nothing after that; see `errors.release_frames`.
    """
    # slow to import, and only errors need it
    from evproc_pool.protocol.traceback_text import traceback_text

    error = undisguised(error)
    kind = type(error)
    text = text_of(error)
    try:
        lines = traceback_text(error)
    except BaseException:
        lines = f"{qualname(kind)}: {text}\n"
    try:
        raw = getattr(error, "__notes__", ())
        notes = tuple(plain(note) for note in raw if isinstance(note, str))
    except BaseException:
        notes = ()
    try:
        pickled = _pickle_error(error)
    except BaseException:  # a metaclass may run any code
        pickled = None
    bases = tuple(map(class_name, bases_of(kind)))
    record = ErrorRecord(handler, pickled, bases, text, lines, notes)
    release_frames(error)
    return record


class _WithoutConstructor:
    """Pickles as an exception that is rebuilt without a call of its class.

    Python rebuilds an exception by calling its class with `args`. This fails, or gives another
    exception, if the constructor takes other arguments than it passes to its base class.
    """

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __reduce__(self) -> tuple[Any, ...]:
        error = self._error
        return rebuild_plain, (type(error), error.args), error.__dict__


def _pickle_error(error: BaseException) -> bytes | None:
    """Pickle an exception so that it keeps its type; None if that is not possible."""
    if _is_plain(error):
        return pickle.dumps(error, PROTOCOL)
    same_type: bytes | None = None
    ways: list[object] = [error]
    if type(error).__reduce__ is BaseException.__reduce__:
        ways.append(_WithoutConstructor(error))
    for content in ways:
        try:
            pickled = dumps(content)
            # find out here whether it can be rebuilt, not in the coordinator
            copy = loads(pickled)
            if type(copy) is not type(error):
                continue
            same_type = same_type or pickled
            if copy.args == error.args:
                return pickled
        except Exception:  # noqa: S112 - try the next way
            continue
    return same_type


def _is_plain(error: BaseException) -> bool:
    """Whether an exception is one of Python's own and holds only atoms."""
    kind = type(error)
    return (
        module_of(kind) == "builtins"
        and kind.__reduce__ is BaseException.__reduce__
        and ATOMS.issuperset(map(type, error.args))
        and all(
            name == "__notes__" and type(notes) is list and {str}.issuperset(map(type, notes))
            for name, notes in vars(error).items()
        )
    )


def decode_error(record: ErrorRecord) -> BaseException:
    """Rebuild an exception, or make a `RemoteError` if that is not possible."""
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
