"""Pickles what is sent to another process.

Some objects go through cloudpickle, by value (`by_value`): those that plain pickle refuses, and
those that it takes by a reference into ``__main__``, which is another module in a worker.

Large buffers, as of NumPy arrays, can go out of band, beside the pickle (PEP 574).
"""

from __future__ import annotations

import functools
import pickle
import types
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar

from evproc.event import qualname
from evproc_pool.internals.cpython import LARGE_CONTENT, announcements
from evproc_pool.internals.stdlib_multiprocessing import is_shared, may_have_shared
from evproc_pool.serialization.basics import (
    MAIN,
    PROTOCOL,
    PicklingExit,
    ThisProcess,
    lives_in_main,
    text_of,
)

#: Smaller buffers stay in the pickle.
OUT_OF_BAND_BYTES: Final = 1 << 15


def dumps(
    value: object, *, by_value: bool = False, buffers: list[memoryview] | None = None
) -> bytes:
    """Pickle, by value if the other side would not find a reference.

    Args:
        value: What to pickle. If that raises, `diagnosis.cannot_pickle` names the part at fault.
        by_value: Whether it is known to have such a reference.
        buffers: Buffers of at least `OUT_OF_BAND_BYTES` are appended, unless this raises, and
            `loads` needs them again. They are views: nobody must change the value before they are
            copied, not even the code that pickles the next value. None: the pickle has them.
    """
    try:
        if not (by_value or lives_in_main(type(value))):
            data = _attempt(by_reference, value, buffers)
            if data is not None:
                return data
        return _by_value(value, buffers)
    except BaseException as error:
        if isinstance(error, ThisProcess.passed_on):
            raise
        raise PicklingExit(f"{qualname(type(error))}: {text_of(error)}") from error


_Data = TypeVar("_Data", bytes, bytes | None)
_Callback = Callable[[pickle.PickleBuffer], bool]


def _attempt(
    dump: Callable[[object, _Callback | None], _Data],
    value: object,
    buffers: list[memoryview] | None,
) -> _Data:
    """Pickle in one way. Append the large buffers if that gives a pickle."""
    if buffers is None:
        return dump(value, None)
    large: list[memoryview] = []
    data = dump(value, functools.partial(_collect, large))
    if data is not None:
        buffers += large
    return data


def _collect(large: list[memoryview], buffer: pickle.PickleBuffer) -> bool:
    """Collect a large buffer. Return to pickle whether the buffer goes into the pickle."""
    try:
        raw = buffer.raw()
    except BufferError:
        return True  # not contiguous
    if raw.nbytes < OUT_OF_BAND_BYTES:
        return True
    large.append(raw)
    return False


def by_reference(value: object, callback: _Callback | None = None) -> bytes | None:
    """Pickle plainly; None if that fails, or may refer to this process's ``__main__``.

    The name may be only a text; then pickling by value costs time and nothing else. Large strings
    and bytes, which pickle writes as chunks of their own, are not searched: this would take longer
    than copying them.
    """
    chunks: list[bytes] = []
    file: Any = types.SimpleNamespace(write=chunks.append)
    before = b""
    try:
        pickle.Pickler(file, PROTOCOL, buffer_callback=callback).dump(value)
        for chunk in chunks:  # a large buffer is none of bytes, and fails here
            is_content = len(chunk) > LARGE_CONTENT and before.endswith(announcements(len(chunk)))
            if not is_content and MAIN in chunk:
                return None
            before = chunk
    except Exception:
        return None  # lambdas, local classes and others
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _by_value(value: object, buffers: list[memoryview] | None) -> bytes:
    # imports cloudpickle, which many programs do not need
    from evproc_pool.serialization import by_value, class_cache

    for dump in (class_cache.dumps_instance, class_cache.dumps_apart):
        data = _attempt(dump, value, buffers)
        if data is not None:
            return data
    return _MARK + _attempt(by_value.dumps, value, buffers)


# A pickle by value begins with this mark twice. It is legal and does nothing.
_MARK: Final = pickle.PROTO + bytes([PROTOCOL])
_MARKED: Final = 2 * _MARK


def loads(data: bytes | bytearray | memoryview, buffers: Iterable[memoryview] = ()) -> Any:
    """Unpickle what `dumps` returned. The result uses the memory of the buffers."""
    try:
        if data[: len(_MARKED)] == _MARKED:
            from evproc_pool.serialization import by_value  # likewise

            return by_value.loads(data, buffers)
        return pickle.loads(data, buffers=buffers)
    except ThisProcess.passed_on:
        raise
    except BaseException as error:
        raise PicklingExit(f"{qualname(type(error))}: {text_of(error)}") from error


def has_shared(value: object) -> bool:
    """Whether `by_value.dumps_sharing` is for it; False may be wrong if plain pickle refuses it."""
    if not may_have_shared():
        return False
    nowhere: Any = types.SimpleNamespace(write=len)
    try:
        _Finder(nowhere, PROTOCOL).dump(value)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return isinstance(error, _Found)
    return False


class _Found(Exception):
    """Ends the search."""


class _Finder(pickle.Pickler):
    def persistent_id(self, content: Any) -> None:
        if is_shared(content):
            raise _Found
