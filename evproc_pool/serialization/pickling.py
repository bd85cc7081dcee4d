"""Pickles what crosses to another process, and says what is wrong where that fails.

What plain pickle cannot take, or takes by a reference into ``__main__`` (which is
another module in a worker), goes through cloudpickle, by value (`by_value`).

Large buffers (NumPy arrays, for one) can go out of band, beside the pickle (PEP 574).
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
    """Pickle, by value where a reference would not be found on the other side.

    Args:
        value: What to pickle.
        by_value: It is known that there would be such a reference.
        buffers: Takes those of `OUT_OF_BAND_BYTES` and more, which `worker_loads` needs again;
            views, so that nobody must change the value before they are copied, not even
            the code that pickles what comes next. None: they are in the pickle.

    Raises:
        Exception: Whatever pickling raised; `cannot_pickle` says what is at fault.
            `buffers` are what they were.
    """
    keep = None if buffers is None else _Keeper(buffers)
    try:
        if by_value or lives_in_main(type(value)):
            return _by_value(value, keep)
        try:
            data = _by_reference(value, keep)
        except Exception:
            # lambdas, local classes and the like
            data = None
        if data is not None:
            return data
        if keep is not None:
            keep.forget()
        return _by_value(value, keep)
    except BaseException as error:
        if keep is not None:
            keep.forget()
        if isinstance(error, ThisProcess.as_they_are):
            raise
        raise PicklingExit(f"{type(error).__name__}: {text_of(error)}") from error


class _Keeper:
    """What pickle asks about each buffer: whether it is in the pickle."""

    def __init__(self, buffers: list[memoryview]) -> None:
        self._buffers = buffers
        self._before = len(buffers)

    def __call__(self, buffer: pickle.PickleBuffer) -> bool:
        try:
            raw = buffer.raw()
        except BufferError:
            return True  # it is not in one piece
        if raw.nbytes < OUT_OF_BAND_BYTES:
            return True
        self._buffers.append(raw)
        return False

    def forget(self) -> None:
        """It begins anew."""
        del self._buffers[self._before :]


#: A buffer of so many bytes or more goes out of band.
OUT_OF_BAND_BYTES: Final = 1 << 15


class _Chunks:
    """A file that keeps what is written to it, as it comes."""

    __slots__ = ("chunks", "write")

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.write = self.chunks.append


def _by_reference(value: object, keep: _Keeper | None) -> bytes | None:
    """Pickle plainly; None if there is maybe a reference into this process's ``__main__``.

    That it may be only a text costs time and nothing else. Large strings and bytes, which
    pickle writes by themselves, are not searched: that takes longer than copying them.
    """
    file = _Chunks()
    pickle.Pickler(file, PROTOCOL, buffer_callback=keep).dump(value)
    before = b""
    for chunk in file.chunks:
        is_content = len(chunk) > LARGE_CONTENT and before.endswith(announcements(len(chunk)))
        if not is_content and MAIN in chunk:
            return None
        before = chunk
    return file.chunks[0] if len(file.chunks) == 1 else b"".join(file.chunks)


def _by_value(value: object, keep: _Keeper | None) -> bytes:
    # with cloudpickle, which many programs do not need
    from evproc_pool.serialization.class_cache import dumps_apart, dumps_instance

    data = dumps_instance(value, keep)
    if data is not None:
        return data
    if keep is not None:
        keep.forget()
    data = dumps_apart(value, PROTOCOL, keep)
    if data is not None:
        return data
    if keep is not None:
        keep.forget()
    from evproc_pool.serialization import by_value

    return _MARK + by_value.dumps(value, PROTOCOL, keep)


# A pickle that begins with that twice is one by value. It is legal, and says nothing.
_MARK: Final = pickle.PROTO + bytes([PROTOCOL])
_MARKED: Final = 2 * _MARK


def loads(data: bytes | bytearray | memoryview, buffers: Iterable[memoryview] = ()) -> Any:
    """Unpickle.

    Args:
        data: What `dumps` gave.
        buffers: Those that it left out. What is rebuilt uses their memory.

    Raises:
        Exception: Whatever unpickling raised.
    """
    try:
        if data[: len(_MARKED)] == _MARKED:
            from evproc_pool.serialization import by_value  # likewise

            return by_value.loads(data, buffers)
        return pickle.loads(data, buffers=buffers)
    except ThisProcess.as_they_are:
        raise
    except BaseException as error:
        raise PicklingExit(f"{type(error).__name__}: {text_of(error)}") from error
