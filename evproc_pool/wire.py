"""What crosses between the coordinator and a worker, as bytes.

A frame is a tag and a payload. The payload of a batch is pickled in one pass.
Where that fails, or the worker cannot unpickle it, the batch is encoded again
with a pickle for each event (`isolated`), so that the event at fault is found
and fails alone.

What plain pickle cannot take, or takes by a reference into ``__main__`` (which is
another module in a worker), goes through cloudpickle, by value.

Handlers never cross here: a plan is sent once per worker, as indices into the
registry, and known by a number from then on.
"""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import cloudpickle

from evproc_pool.errors import RemoteError, SerializationError, chain_remote

PROTOCOL: Final = 5

# coordinator to worker
CONFIG: Final = 1
BATCH: Final = 2
QUIT: Final = 3
RESENT: Final = 4  # a batch that was UNREADABLE, isolated; goes before others
# worker to coordinator
READY: Final = 16
NOT_READY: Final = 17
PROGRESS: Final = 18
UNREADABLE: Final = 19

#: Marks the position of an event that could not be encoded; the worker passes over it.
OMITTED: Final = -1

# how deep the search for what cannot be pickled goes
_DEEPEST: Final = 12


class BatchFrame(NamedTuple):
    """A batch as the worker sees it.

    Attributes:
        new_plans: Plan numbers that the worker has not seen, with their indices.
        plans: The plan number of each event, or OMITTED.
        chains: Start and stop of the positions where one that ends its cascade
            leaves the rest unrun.
        isolated: Whether `events` holds a pickle of each event.
        events: The events.
    """

    new_plans: Sequence[tuple[int, tuple[int, ...]]]
    plans: Sequence[int]
    chains: Sequence[tuple[int, int]]
    isolated: bool
    events: Sequence[Any]


class ErrorRecord(NamedTuple):
    """An exception on its way, in plain data besides its own pickle.

    Attributes:
        handler: The handler that raised it, or None.
        pickled: The exception, or None where it cannot be pickled and rebuilt.
        type_name: Module and qualified name of its type.
        text: `str` of it.
        traceback: As text.
        notes: Its notes, which a class's own pickling may lose.
    """

    handler: str | None
    pickled: bytes | None
    type_name: str
    text: str
    traceback: str
    notes: tuple[str, ...]


class ProgressFrame(NamedTuple):
    """What a worker has done since its last frame.

    Attributes:
        done: Envelopes of the batch that are over.
        returns: By position: the pickle of (follow-ups, whether stopped, value).
        errors: By position.
        timings: Plan number, events, and their seconds.
    """

    done: int
    returns: Sequence[tuple[int, bytes]]
    errors: Sequence[tuple[int, ErrorRecord]]
    timings: Sequence[tuple[int, int, float]]


def dumps(value: object) -> bytes:
    """Pickle, by value where a reference would not be found on the other side.

    Raises:
        Exception: Whatever pickling raised; see `explain_failure`.
    """
    try:
        data = pickle.dumps(value, PROTOCOL)
    except Exception:
        # lambdas, local classes and the like
        return bytes(cloudpickle.dumps(value, PROTOCOL))
    if b"__main__" in data:
        # Maybe a reference into this process's __main__. That it may be only a text
        # costs time and nothing else.
        return bytes(cloudpickle.dumps(value, PROTOCOL))
    return data


loads = pickle.loads


def cannot_pickle(what: str, value: object, cause: BaseException) -> SerializationError:
    """Say which part of a value cannot be pickled."""
    path, part = _find_culprit(value)
    where = f" at {path}" if path else ""
    error = SerializationError(
        f"{what} cannot be pickled{where} ({type(part).__qualname__}):"
        f" {type(cause).__name__}: {cause}; keep it out of what crosses to another process, or"
        " give its class a __reduce__"
    )
    error.__cause__ = cause
    return error


def cannot_rebuild(what: str, cause: BaseException) -> SerializationError:
    """Say that something was pickled but cannot be unpickled on the other side."""
    error = SerializationError(
        f"{what} was pickled, but cannot be rebuilt on the other side:"
        f" {type(cause).__name__}: {cause}; can its class be imported there, and does its"
        " __reduce__ or __setstate__ take what it gives?"
    )
    error.__cause__ = cause
    return error


def _find_culprit(value: object) -> tuple[str, object]:
    """The path to the deepest part that fails by itself, and that part."""
    path = ""
    for _ in range(_DEEPEST):
        for step, part in _parts(value):
            if not _can_pickle(part):
                path, value = path + step, part
                break
        else:
            break
    return path, value


def _can_pickle(value: object) -> bool:
    try:
        dumps(value)
    except Exception:
        return False
    return True


def _parts(value: object) -> list[tuple[str, object]]:
    if isinstance(value, dict):
        return [(f"[{key!r}]", item) for key, item in value.items()]
    if isinstance(value, (list, tuple)):
        return [(f"[{place}]", item) for place, item in enumerate(value)]
    attributes = getattr(value, "__dict__", None)
    if isinstance(attributes, dict):
        return [(f".{name}", item) for name, item in attributes.items()]
    return []


def encode_error(error: BaseException, handler: str | None) -> ErrorRecord:
    """Turn an exception into what can cross in any case. Never raises."""
    pickled: bytes | None
    try:
        pickled = dumps(error)
        # one that cannot be rebuilt is found here rather than there
        if type(loads(pickled)) is not type(error):
            pickled = None
    except Exception:
        pickled = None
    kind = type(error)
    try:
        text = str(error)
    except Exception:
        text = "<unprintable>"
    try:
        lines = "".join(traceback.format_exception(kind, error, error.__traceback__))
    except Exception:
        lines = f"{kind.__qualname__}: {text}\n"
    notes = getattr(error, "__notes__", ())
    if not isinstance(notes, (list, tuple)):
        notes = ()
    return ErrorRecord(
        handler,
        pickled,
        f"{kind.__module__}.{kind.__qualname__}",
        text,
        lines,
        tuple([note for note in notes if isinstance(note, str)]),
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
        error = RemoteError(record.type_name, record.text, record.traceback)
    return chain_remote(error, record.traceback)
