"""The events and handlers of `conformance`, in a module that each worker can import."""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, NoReturn

from evproc import Event, Processor, StopProcessing, requires, want

# How long a handler waits for a file before it gives up, in seconds.
_PATIENCE_SECONDS: Final = 60.0

_state: Final[dict[str, Any]] = {}  # of this process
_busy: Final[set[int]] = set()  # the ids of processors that handle an event


class Job(Event):
    """Does something when it is handled.

    Args:
        act: A function of this module, by its name.
        args: Its arguments.
    """

    name = "job"

    def __init__(self, act: str, *args: Any) -> None:
        self.act = act
        self.args = args

    def __repr__(self) -> str:
        return f"Job({self.act!r})"


class Part(Event):
    """A follow-up: it halves until it is 0, and ends its cascade at `last`."""

    name = "part"

    def __init__(self, size: int, last: int = -1) -> None:
        self.size = size
        self.last = last


class Stubborn(Event):
    """An event, or a value, that cannot be pickled, or not be rebuilt.

    `refuses` is "dumps" or "loads".
    """

    name = "stubborn"

    def __init__(self, refuses: str) -> None:
        self.refuses = refuses

    def __reduce__(self) -> Any:
        if self.refuses == "dumps":
            raise pickle.PicklingError("it refuses to be pickled")
        return _refuse, ()


def _refuse() -> NoReturn:
    raise ValueError("it refuses to be rebuilt")


class NeedsArguments(Exception):
    """An error whose constructor takes other arguments than it passes on."""

    def __init__(self, code: int, *, text: str) -> None:
        super().__init__(f"{text} {code}")
        self.code = code


def set_up(value: object) -> None:
    """An initializer."""
    _state["value"] = value


def fail_to_set_up() -> None:
    """An initializer that does not work."""
    raise RuntimeError("it fails")


@want("job")
def answer_two(proc: Processor, ev: Job) -> NoReturn:  # noqa: ARG001 - the signature of handlers
    """Take the place of `do`."""
    raise StopProcessing(2)


@want("job")
def note(proc: Processor, ev: Job) -> None:  # noqa: ARG001 - the signature of handlers
    """Leave something in the event's namespace."""
    ev.proc.conformance.noted = ev.act


@want("job")
@requires("note")
def do(proc: Processor, ev: Job) -> Iterable[Event] | None:
    """Call what the event asks for."""
    act: Callable[..., Iterable[Event] | None] = _ACTS[ev.act]
    return act(proc, ev, *ev.args)


@want("part")
def halve(proc: Processor, ev: Part) -> Iterable[Event] | None:  # noqa: ARG001 - the signature of handlers
    """Return two halves, and emit."""
    ev.emit(ev.size)
    if ev.size == ev.last:
        raise StopProcessing(f"stopped at {ev.size}")
    if ev.size == -ev.last:
        raise LookupError(ev.size)
    return [Part(ev.size // 2, ev.last), Part(ev.size // 3, ev.last)] if ev.size else None


@want("stubborn")
def keep(proc: Processor, ev: Stubborn) -> None:
    """Do nothing."""


#: In the order in which a pool gets them.
HANDLERS: Final = (do, note, halve, keep)


# --- what jobs do ---


def _nothing(*_: Any) -> None: ...


def _give(proc: Processor, ev: Job, value: object) -> NoReturn:  # noqa: ARG001 - as all of them
    raise StopProcessing(value)


def _fail(proc: Processor, ev: Job, kind: type[BaseException], *args: object) -> NoReturn:  # noqa: ARG001
    raise kind(*args)


def _fail_oddly(proc: Processor, ev: Job, code: int) -> NoReturn:  # noqa: ARG001
    raise NeedsArguments(code, text="odd")


def _split(proc: Processor, ev: Job, size: int, last: int) -> Iterable[Event]:  # noqa: ARG001
    return [Part(size, last)]


def _follow_stubborn(proc: Processor, ev: Job, refuses: str) -> Iterable[Event]:  # noqa: ARG001
    return [Part(0), Stubborn(refuses)]


def _give_stubborn(proc: Processor, ev: Job, refuses: str) -> NoReturn:  # noqa: ARG001
    raise StopProcessing(Stubborn(refuses))


def _give_state(proc: Processor, ev: Job) -> NoReturn:  # noqa: ARG001
    raise StopProcessing(_state.get("value"))


def _be_alone(proc: Processor, ev: Job) -> NoReturn:  # noqa: ARG001
    """Find out whether another event uses the same `Processor` meanwhile."""
    if id(proc) in _busy:
        raise RuntimeError("two events are handled with one Processor at once")
    _busy.add(id(proc))
    time.sleep(0.001)
    _busy.remove(id(proc))
    raise StopProcessing(None)


def _time_of_key(proc: Processor, ev: Job, key: int) -> NoReturn:  # noqa: ARG001
    """When it began and when it ended, in nanoseconds."""
    began = time.time_ns()
    time.sleep(0.001)
    raise StopProcessing((began, time.time_ns()))


def _fail_at_first(proc: Processor, ev: Job, flag: str, attempts: int) -> NoReturn:  # noqa: ARG001
    """Fail until there was that many attempts; each leaves a line in a file."""
    with Path(flag).open("a", encoding="ascii") as file:
        file.write("x")
    tried = Path(flag).stat().st_size
    if tried < attempts:
        raise ConnectionError(tried)
    raise StopProcessing(tried)


def _await_file(proc: Processor, ev: Job, begun: str, go_on: str) -> NoReturn:  # noqa: ARG001
    """Make one file, and wait for another."""
    Path(begun).touch()
    end = time.monotonic() + _PATIENCE_SECONDS
    while not Path(go_on).exists() and time.monotonic() < end:
        time.sleep(0.001)
    raise StopProcessing("went on")


def _die(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _hang(*_: Any) -> None:
    while True:
        time.sleep(0.01)


def _hoard(proc: Processor, ev: Job, size_bytes: int) -> None:  # noqa: ARG001
    """Take memory, and stay."""
    hoard = bytearray(size_bytes)
    hoard[:: 1 << 12] = b"x" * len(hoard[:: 1 << 12])
    while True:
        time.sleep(0.01)


def _pid(*_: Any) -> NoReturn:
    raise StopProcessing(os.getpid())


def _is_in_shared_memory(proc: Processor, ev: Job, buffer: Any) -> NoReturn:  # noqa: ARG001
    """Whether a large buffer came by shared memory; None: this system does not say."""
    address = ctypes.addressof(ctypes.c_char.from_buffer(buffer))
    if sys.platform != "linux":
        raise StopProcessing(None)
    for line in Path("/proc/self/maps").read_text("ascii").splitlines():
        where, kind, *_ = line.split()
        begin, end = [int(each, 16) for each in where.split("-")]
        if begin <= address < end:
            raise StopProcessing(kind.endswith("s"))
    raise StopProcessing(None)


class Buffer:
    """Pickles as a large buffer, out of band where that is possible."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __reduce_ex__(self, protocol: Any) -> Any:
        if protocol >= pickle.HIGHEST_PROTOCOL:
            return Buffer, (pickle.PickleBuffer(self.data),)
        return Buffer, (bytes(self.data),)


def _look_at_buffer(proc: Processor, ev: Job, buffer: Buffer) -> NoReturn:
    if bytes(memoryview(buffer.data)[:3]) != b"abc":
        raise ValueError("the content has changed")
    _is_in_shared_memory(proc, ev, buffer.data)
    raise AssertionError("that raises")


_ACTS: Final[dict[str, Callable[..., Any]]] = {
    name.removeprefix("_"): each
    for name, each in list(globals().items())
    if name.startswith("_") and callable(each)
}
