"""Log records as bytes, between a worker and the application's logging.

A record arrives as it was emitted: its time, process, thread and `extra` attributes included.
Values that are no atoms travel as pickles of limited size. They are rebuilt only from modules that
the coordinator has imported, so that a log line imports nothing there. Otherwise their text takes
their place: for the message and its arguments the formatted message, for an attribute its `repr`.
The information on an exception always travels as text.

Rejected: the formatted message only, as `QueueHandler.prepare` sends it (tools group records by
the text before formatting).
"""

from __future__ import annotations

import io
import logging
import pickle
import sys
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from evproc.event import qualname
from evproc_pool.protocol.frame import Data
from evproc_pool.serialization.basics import PROTOCOL, plain, text_of
from evproc_pool.serialization.packing import ATOMS

# A larger value travels as its text.
_MOST_BYTES: Final = 1 << 16

# Attributes that travel in other forms.
_APART: Final = frozenset(("msg", "args", "exc_info", "exc_text"))


class _Packed(NamedTuple):
    """A value as a pickle, None if that failed, and as text."""

    pickled: bytes | None
    text: str


def dump_record(record: logging.LogRecord, more: Mapping[str, str]) -> bytes:
    """Encode a record, with additional attributes, whatever it holds."""
    atoms: dict[str, Any] = {**more, "exc_info": None, "exc_text": _exception_text(record)}
    others: dict[str, _Packed] = {}
    for name, value in vars(record).items():
        if name not in _APART:
            if type(value) in ATOMS:
                atoms[name] = value
            else:
                others[name] = _Packed(_pickle(value), _repr(value))
    atoms["msg"], atoms["args"] = record.msg, record.args
    if type(record.msg) is not str or not _is_plain(record.args):
        atoms["msg"], atoms["args"] = "", ()
        others["msg"] = _Packed(_pickle((record.msg, record.args)), _message(record))
    return pickle.dumps((atoms, others), PROTOCOL)


def load_record(payload: Data) -> logging.LogRecord:
    """Rebuild a record, as it was in the worker.

    But `relativeCreated` counts from the start of this process, and the name of the level is this
    process's.
    """
    atoms, others = pickle.loads(payload)
    record = logging.makeLogRecord({})
    # of now: shows when this process has begun
    begun = record.created - record.relativeCreated / 1000
    vars(record).update(atoms)
    record.relativeCreated = (record.created - begun) * 1000
    record.levelname = logging.getLevelName(record.levelno)
    for name, packed in others.items():
        value = _rebuild(packed)
        if name == "msg":
            record.msg, record.args = (packed.text, ()) if value is packed.text else value
        else:
            setattr(record, name, value)
    return record


def _is_plain(args: object) -> bool:
    return args is None or (type(args) is tuple and ATOMS.issuperset(map(type, args)))


def _message(record: logging.LogRecord) -> str:
    """The formatted message; a substitute if that fails."""
    try:
        return plain(record.getMessage())
    except Exception as error:
        return (
            f"{_repr(record.msg)} {_repr(record.args)} ({qualname(type(error))}: {text_of(error)})"
        )


def _repr(value: object) -> str:
    try:
        return plain(repr(value))
    except Exception:
        return f"<{qualname(type(value))} without a repr>"


def _exception_text(record: logging.LogRecord) -> str | None:
    text, info = record.exc_text, record.exc_info
    if text or not info:
        return text
    try:
        return logging.Formatter().formatException(info)
    except Exception:
        return _repr(info)


# --- values ---


class _Bounded(io.RawIOBase):
    """Takes a pickle of limited size."""

    def __init__(self) -> None:
        super().__init__()
        self.content = bytearray()

    def write(self, data: Any) -> int:
        if len(self.content) + len(data) > _MOST_BYTES:
            raise pickle.PicklingError("too large for a log record")
        self.content += data
        return len(data)


def _pickle(value: object) -> bytes | None:
    file = _Bounded()
    try:
        pickle.Pickler(file, PROTOCOL).dump(value)
    except Exception:
        return None
    return bytes(file.content)


class _Rebuilder(pickle.Unpickler):
    """Imports nothing."""

    def find_class(self, module: str, name: str) -> Any:
        if module not in sys.modules:
            raise pickle.UnpicklingError(f"{module} is not imported here")
        return super().find_class(module, name)


def _rebuild(packed: _Packed) -> Any:
    if packed.pickled is not None:
        try:
            return _Rebuilder(io.BytesIO(packed.pickled)).load()
        except Exception:
            return packed.text
    return packed.text
