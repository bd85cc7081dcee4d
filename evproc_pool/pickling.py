"""Pickles what crosses to another process, and says what is wrong where that fails.

What plain pickle cannot take, or takes by a reference into ``__main__`` (which is
another module in a worker), goes through cloudpickle, by value (`by_value`).

Large buffers (NumPy arrays, for one) can go out of band, beside the pickle (PEP 574).
"""

from __future__ import annotations

import functools
import pickle
import types
from collections.abc import Iterable, Mapping
from typing import Any, Final

from evproc_pool.errors import SerializationError

PROTOCOL: Final = 5

_ADVICE: Final = "keep it out of what crosses to another process, or give its class a __reduce__"

# how deep the search for what cannot be pickled goes
_DEEPEST: Final = 12


class ThisProcess:
    """What kind of process this is.

    Attributes:
        is_worker: Whether the classes that come by value are the coordinator's.
        as_they_are: What pickling raises as it is. In the caller's process an interrupt is
            one; in a worker, which ignores Ctrl-C, code of the user's has raised it.
    """

    is_worker = False
    as_they_are: tuple[type[BaseException], ...] = (Exception, KeyboardInterrupt)


def be_worker() -> None:
    """From now on this process is a worker.

    Classes that come by value are set again each time, to what they are in the
    coordinator. And a `KeyboardInterrupt` in pickling is an error like others.
    """
    ThisProcess.is_worker = True
    ThisProcess.as_they_are = (Exception,)


class PicklingExit(Exception):
    """User code raised what is no `Exception` while it was pickled or rebuilt.

    Nobody who pickles is prepared for, say, `SystemExit`; and it does not mean us.
    """


def dumps(
    value: object, *, by_value: bool = False, buffers: list[memoryview] | None = None
) -> bytes:
    """Pickle, by value where a reference would not be found on the other side.

    Args:
        value: What to pickle.
        by_value: It is known that there would be such a reference.
        buffers: Takes those of `OUT_OF_BAND_BYTES` and more, which `loads` needs again;
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
        is_content = len(chunk) > _LARGE_CONTENT and before.endswith(_length_of(chunk))
        if not is_content and MAIN in chunk:
            return None
        before = chunk
    return file.chunks[0] if len(file.chunks) == 1 else b"".join(file.chunks)


# pickle writes no longer ones by themselves
_LARGE_CONTENT: Final = 1 << 15


def _length_of(chunk: bytes) -> tuple[bytes, ...]:
    """How pickle announces that so many bytes come: as bytes, as a string, or a bytearray."""
    size = len(chunk)
    long = size.to_bytes(8, "little")
    return (
        pickle.BINBYTES8 + long,
        pickle.BINUNICODE8 + long,
        _BYTEARRAY8 + long,
        *(opcode + long[:4] for opcode in (pickle.BINBYTES, pickle.BINUNICODE) if size < 1 << 32),
    )


_BYTEARRAY8: Final = b"\x96"


# as it ends, in a process that multiprocessing made, too: there it is __mp_main__
MAIN: Final = b"_main__"


def lives_in_main(named: Any) -> bool:
    """Whether a class or a function is this process's main script's, or a name in another's."""
    return getattr(named, "__module__", None) in ("__main__", "__mp_main__")


def _by_value(value: object, keep: _Keeper | None) -> bytes:
    # with cloudpickle, which many programs do not need
    from evproc_pool.classes import dumps_apart, dumps_instance

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
    from evproc_pool import by_value

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
            from evproc_pool import by_value  # likewise

            return by_value.loads(data, buffers)
        return pickle.loads(data, buffers=buffers)
    except ThisProcess.as_they_are:
        raise
    except BaseException as error:
        raise PicklingExit(f"{type(error).__name__}: {text_of(error)}") from error


def cannot_pickle(
    what: str,
    value: object,
    cause: BaseException,
    advice: str = _ADVICE,
    more: str = "",
) -> SerializationError:
    """Say which part of a value cannot be pickled, and what to do.

    Args:
        what: Names the value.
        value: It.
        cause: What pickling raised.
        advice: What to do, where nothing is known about that part's kind.
        more: What to do besides.
    """
    from evproc_pool.advice import advice_on  # on the way to an error only

    path, part = _find_culprit(value)
    where = f" at {path.strip()}" if path else ""
    error = SerializationError(
        f"{what} cannot be pickled{where} ({type(part).__qualname__}):"
        f" {type(cause).__name__}: {text_of(cause)}; {advice_on(part) or advice}{more}"
    )
    error.__cause__ = cause
    return error


def cannot_rebuild(what: str, cause: BaseException) -> SerializationError:
    """Say that something was pickled but cannot be unpickled on the other side."""
    error = SerializationError(
        f"{what} was pickled, but cannot be rebuilt on the other side:"
        f" {type(cause).__name__}: {text_of(cause)}; can its class be imported there, and does its"
        " __reduce__ or __setstate__ take what it gives?"
    )
    error.__cause__ = cause
    return error


def _find_culprit(value: object) -> tuple[str, object]:
    """The path to the deepest part that fails by itself, and that part.

    No deeper than something that there is advice on: a thread and not the lock in it.
    """
    from evproc_pool.advice import advice_on

    path = ""
    for _ in range(_DEEPEST):
        if advice_on(value) is not None:
            break
        for step, part in _parts(value):
            if not can_pickle(part):
                path, value = path + step, part
                break
        else:
            break
    return path, value


def can_pickle(value: object) -> bool:
    """Whether pickling a value raises nothing."""
    try:
        dumps(value)
    except Exception:
        return False
    return True


def _parts(value: object) -> list[tuple[str, object]]:
    """The parts of a value, each with the step that leads to it; none if it resists."""
    try:
        match value:
            case dict():
                return [(f"[{key!r}]", item) for key, item in value.items()]
            case list() | tuple():
                return [(f"[{place}]", item) for place, item in enumerate(value)]
            case types.FunctionType():  # it goes by value, like the next two
                parts = _parts_of_function(value)
            case types.MethodType():
                parts = [("", value.__func__), ("", value.__self__)]
            case functools.partial():
                parts = [("", value.func), *_parts(value.args), *_parts(value.keywords)]
            case _:
                parts = [(f".{name}", item) for name, item in _attributes(value).items()]
                if not isinstance(value, type):
                    parts.append((f" class {type(value).__qualname__}", type(value)))
    except Exception:
        return []  # then the whole of it is named
    else:
        return parts


def _attributes(value: object) -> Mapping[str, object]:
    attributes = getattr(value, "__dict__", None)
    return attributes if isinstance(attributes, (dict, types.MappingProxyType)) else {}


def _parts_of_function(function: types.FunctionType) -> list[tuple[str, object]]:
    import inspect  # takes a while

    used = inspect.getclosurevars(function)
    code = function.__code__
    defaults = function.__defaults__ or ()
    named = code.co_varnames[: code.co_argcount][code.co_argcount - len(defaults) :]
    return [
        *((f" variable {name!r}", item) for name, item in used.nonlocals.items()),
        *((f" variable {name!r}", item) for name, item in used.globals.items()),
        *((f" default {name!r}", item) for name, item in zip(named, defaults, strict=False)),
        *((f" default {name!r}", item) for name, item in (function.__kwdefaults__ or {}).items()),
    ]


def plain(text: str) -> str:
    """The text alone, as a `str`: one of a class of its own may not pickle."""
    return str.__str__(text)


def text_of(error: BaseException) -> str:
    """`str` of an exception, or what can be said where that fails."""
    try:
        return plain(str(error))
    except BaseException:
        return "<unprintable>"
