"""Pickles what is sent to another process.

Some objects go through cloudpickle, by value (`by_value`): those that plain pickle refuses, and
those that it takes by a reference into ``__main__``, which is another module in a worker.

Large buffers, as of NumPy arrays, can go out of band, beside the pickle (PEP 574).
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from typing import Any, Final

from evproc_pool.internals.pickle_format import LARGE_CONTENT, announcements
from evproc_pool.serialization.basics import (
    MAIN,
    PROTOCOL,
    PicklingExit,
    ThisProcess,
    lives_in_main,
    text_of,
)


def dumps(
    value: object, *, by_value: bool = False, buffers: list[memoryview] | None = None
) -> bytes:
    """Pickle, by value if the other side would not find a reference.

    Args:
        value: What to pickle.
        by_value: Whether it is known to have such a reference.
        buffers: Buffers of at least `OUT_OF_BAND_BYTES` are appended, and `loads` needs them
            again. They are views: nobody must change the value before they are copied, not even
            the code that pickles the next value. None: all buffers are in the pickle.

    Raises:
        Exception: Whatever pickling raised; `diagnosis.cannot_pickle` names the part at fault.
            `buffers` is unchanged.
    """
    collect = None if buffers is None else _BufferCollector(buffers)
    try:
        if by_value or lives_in_main(type(value)):
            return _by_value(value, collect)
        try:
            data = _by_reference(value, collect)
        except Exception:
            # lambdas, local classes and others
            data = None
        if data is not None:
            return data
        if collect is not None:
            collect.reset()
        return _by_value(value, collect)
    except BaseException as error:
        if collect is not None:
            collect.reset()
        if isinstance(error, ThisProcess.passed_on):
            raise
        raise PicklingExit(f"{type(error).__name__}: {text_of(error)}") from error


class _BufferCollector:
    """Collects large buffers. Returns to pickle whether a buffer goes into the pickle."""

    def __init__(self, buffers: list[memoryview]) -> None:
        self._buffers = buffers
        self._before = len(buffers)

    def __call__(self, buffer: pickle.PickleBuffer) -> bool:
        try:
            raw = buffer.raw()
        except BufferError:
            return True  # not contiguous
        if raw.nbytes < OUT_OF_BAND_BYTES:
            return True
        self._buffers.append(raw)
        return False

    def reset(self) -> None:
        """Drop what was collected: pickling starts again."""
        del self._buffers[self._before :]


#: Smaller buffers stay in the pickle.
OUT_OF_BAND_BYTES: Final = 1 << 15


class _Chunks:
    """A file that keeps what is written to it in chunks."""

    __slots__ = ("chunks", "write")

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.write = self.chunks.append


def _by_reference(value: object, collect: _BufferCollector | None) -> bytes | None:
    """Pickle plainly; None if the pickle may refer to this process's ``__main__``.

    The name may be only a text; then pickling by value costs time and nothing else. Large strings
    and bytes, which pickle writes as chunks of their own, are not searched: this would take longer
    than copying them.
    """
    file = _Chunks()
    pickle.Pickler(file, PROTOCOL, buffer_callback=collect).dump(value)
    before = b""
    for chunk in file.chunks:
        is_content = len(chunk) > LARGE_CONTENT and before.endswith(announcements(len(chunk)))
        if not is_content and MAIN in chunk:
            return None
        before = chunk
    return file.chunks[0] if len(file.chunks) == 1 else b"".join(file.chunks)


def _by_value(value: object, collect: _BufferCollector | None) -> bytes:
    # imports cloudpickle, which many programs do not need
    from evproc_pool.serialization.class_cache import dumps_apart, dumps_instance

    data = dumps_instance(value, collect)
    if data is not None:
        return data
    if collect is not None:
        collect.reset()
    data = dumps_apart(value, PROTOCOL, collect)
    if data is not None:
        return data
    if collect is not None:
        collect.reset()
    from evproc_pool.serialization import by_value

    return _MARK + by_value.dumps(value, PROTOCOL, collect)


# A pickle by value begins with this mark twice. It is legal and does nothing.
_MARK: Final = pickle.PROTO + bytes([PROTOCOL])
_MARKED: Final = 2 * _MARK


def loads(data: bytes | bytearray | memoryview, buffers: Iterable[memoryview] = ()) -> Any:
    """Unpickle what `dumps` returned. The result uses the memory of the buffers.

    Raises:
        Exception: Whatever unpickling raised.
    """
    try:
        if data[: len(_MARKED)] == _MARKED:
            from evproc_pool.serialization import by_value  # likewise

            return by_value.loads(data, buffers)
        return pickle.loads(data, buffers=buffers)
    except ThisProcess.passed_on:
        raise
    except BaseException as error:
        raise PicklingExit(f"{type(error).__name__}: {text_of(error)}") from error
