"""Events that say what their handler does, and what handlers here can do.

Workers import this module, so it imports little: no pytest, no Hypothesis.
"""

from __future__ import annotations

import functools
import os
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable
from multiprocessing import parent_process
from pathlib import Path
from typing import Any

from evproc import Event, Processor, StopProcessing, required_by, requires, want
from evproc_pool.worker.result_buffer import ResultBuffer

# How long a handler waits for the test that it waits for.
_PATIENCE_SECONDS = 120.0


def in_worker() -> bool:
    """Whether this process was started by another through `multiprocessing`."""
    return parent_process() is not None


class Do(Event):
    """Asks its handler to do something; see the functions below that are named like it."""

    name = "do"

    def __init__(self, what: str = "nothing", *args: Any) -> None:
        super().__init__()
        self.what = what
        self.args = args

    def __repr__(self) -> str:
        return f"Do({self.what!r})"


class Unwanted(Event):
    """An event that no handler here wants."""

    name = "unwanted"


class Emits(Event):
    """Asks its handler to emit numbers, up to one."""

    name = "emits"

    def __init__(self, stop: int) -> None:
        super().__init__()
        self.stop = stop


@want("emits")
def emit_all(proc: Any, ev: Emits) -> None:
    for number in range(ev.stop):
        ev.emit(number)


@want("do")
def act(proc: Any, ev: Do) -> Iterable[Event] | None:
    """The handler."""
    action: Callable[..., Iterable[Event] | None] = _ACTIONS[ev.what]
    return action(*ev.args)


_ACTIONS: dict[str, Callable[..., Any]] = {}


def action(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let `Do(name, ...)` call the function."""
    _ACTIONS[function.__name__] = function
    return function


@action
def nothing(*_: object) -> None:
    """Does nothing."""


@action
def stop(value: object) -> None:
    raise StopProcessing(value)


@action
def stop_after(seconds: float, value: object) -> None:
    """Take some time, then stop."""
    time.sleep(seconds)
    raise StopProcessing(value)


@action
def call(function: Callable[..., object], *args: object) -> None:
    """Answers with what a function returns."""
    raise StopProcessing(function(*args))


@action
def fail(error: Callable[..., BaseException], *args: object) -> None:
    raise error(*args)


@action
def follow(*events: Event) -> Iterable[Event]:
    return events


@action
def log(path: str, text: str) -> None:
    """Appends a line to a file, whole even among processes."""
    target = os.open(path, os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o600)
    try:
        os.write(target, f"{text}\n".encode())
    finally:
        os.close(target)


@action
def log_and_follow(path: str, text: str, *events: Event) -> Iterable[Event]:
    log(path, text)
    return events


@action
def leave(code: int) -> None:
    """Ends the process without further ado."""
    os._exit(code)


@action
def signalled(number: int) -> None:
    """Is killed by a signal."""
    os.kill(os.getpid(), number)
    signal.pause()


@action
def spin(path: str) -> None:
    """Appends a line to a file, and never returns, whatever signal comes."""
    signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))
    log(path, "spins")
    while True:
        pass


@action
def hold_gil(path: str) -> None:
    """Appends a line to a file, and sleeps in C without letting go of the GIL."""
    import ctypes

    log(path, "holds")
    while True:
        ctypes.PyDLL(None).sleep(1000)


@action
def crash() -> None:
    """Is killed by a memory access."""
    import ctypes

    ctypes.string_at(0)


@action
def recurse() -> None:
    def deeper() -> None:
        deeper()

    deeper()


@action
def pid() -> None:
    raise StopProcessing(os.getpid())


@action
def wait_at(address: tuple[str, int], text: str = "", value: object = None) -> None:
    """Waits at a `helpers.Gate`, then answers."""
    pass_gate(address, text)
    raise StopProcessing(value)


@action
def wait_at_and_follow(address: tuple[str, int], *events: Event) -> Iterable[Event]:
    """Waits at a `helpers.Gate`, then returns follow-ups."""
    pass_gate(address)
    return events


@action
def spin_until(path: str) -> None:
    """Computes until there is a file, and never waits."""
    while not os.path.exists(path):  # noqa: PTH110 - quicker, and it is about that
        pass
    raise StopProcessing("spun")


@action
def make_file(path: str) -> None:
    """Makes an empty file."""
    Path(path).touch()


@action
def fork_and_count_warnings() -> None:
    """Forks a process that ends at once; gives what Python had to say about that."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        child = os.fork()
        if not child:
            os._exit(0)
        os.waitpid(child, 0)
    raise StopProcessing([str(each.message) for each in caught])


@action
def unblock_signals() -> None:
    """Has the main thread take all signals."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())


def report_before_giving_back() -> None:
    """Have this worker report its results just before it gives the rest of a batch back."""
    send = ResultBuffer.send

    def reporting(self: ResultBuffer, done: int, *, gave_back: bool = False) -> None:
        if gave_back:
            self.report()
        send(self, done, gave_back=gave_back)

    ResultBuffer.send = reporting  # type: ignore[method-assign]  # in a process of its own


def pass_gate(address: tuple[str, int], text: str = "") -> None:
    """Tell a gate that we are here, and wait until it lets us go on."""
    with socket.create_connection(address, timeout=_PATIENCE_SECONDS) as connection:
        connection.sendall(f"{os.getpid()} {text}\n".encode())
        connection.recv(1)


@action
def linger(address: tuple[str, int]) -> None:
    """Leaves a thread at a gate, for which its process waits at its end."""
    threading.Thread(target=pass_gate, args=(address,)).start()
    raise StopProcessing(os.getpid())


@action
def leave_a_child_behind_and_die(address: tuple[str, int]) -> None:
    """Makes a child that holds all of our descriptors, and dies before it."""
    ready_read, ready_write = os.pipe()
    if os.fork() == 0:
        try:
            with socket.create_connection(address, timeout=_PATIENCE_SECONDS) as connection:
                connection.sendall(f"{os.getpid()}\n".encode())
                os.write(ready_write, b".")
                connection.recv(1)
        finally:
            os._exit(0)
    os.read(ready_read, 1)
    os._exit(5)


@want("nested")
def nested(proc: Processor, ev: Event) -> None:
    """Processes another event with the Processor that it is given."""
    raise StopProcessing(("nested", proc.process(Do("stop", ev.ctxt))))


class Nested(Event):
    name = "nested"


# --- what tests call in workers ---


def raise_it(error: Callable[..., BaseException], *args: object) -> None:
    raise error(*args)


def die_at_first(flag: str) -> None:
    """Ends the first process that comes, and no other."""
    try:
        os.close(os.open(flag, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    os._exit(1)


_state: dict[str, int] = {}


def set_state(number: int) -> None:
    _state["number"] = number


def get_state() -> int:
    return _state["number"]


def put_first(folder: str) -> None:
    """In front of what can be imported."""
    sys.path.insert(0, folder)


#: What `asks` calls with each event that is planned; in the coordinator only.
hook: Callable[[Any], object] | None = None


def _calls_the_hook(ev: Any) -> bool:
    if hook is not None:
        hook(ev)
    return False


@want(_calls_the_hook)
def asks(proc: object, ev: object) -> None:
    """Has a filter that does what a test says, and wants no event."""


class Picky(Event):
    """An event that cannot be planned."""

    name = "picky"


def objects(ev: object) -> bool:
    raise ArithmeticError("filter")


@want("picky", objects)
def picky(proc: object, ev: object) -> None: ...


# --- handlers whose order can be seen ---


class Ordered(Event):
    """Answers with the names of its handlers, in the order in which they ran."""

    name = "ordered"

    def __init__(self, address: tuple[str, int] | None = None) -> None:
        super().__init__()
        self.address = address


class Notes:
    """A handler that notes its name; the last of them answers."""

    def __init__(self, name: str) -> None:
        self.__name__ = self.__qualname__ = name

    def __call__(self, proc: object, ev: Ordered) -> None:
        order = ev.proc.order
        order.names = [*getattr(order, "names", []), self.__name__]
        if self.__name__ == "last":
            if ev.address is not None:
                pass_gate(ev.address)
            raise StopProcessing((os.getpid(), hash("text"), order.names))


def ordered_handlers() -> list[Any]:
    """Handlers with a partial order only, so that ties have to be broken."""
    names = ["maple", "oak", "birch", "elm", "ash", "pine", "fir", "yew", "alder", "beech"]
    made: list[Any] = [want("ordered", "other")(Notes(name)) for name in names]
    made[0] = requires("pine", "fir")(made[0])
    made[3] = requires("beech")(made[3])
    made[5] = required_by("oak", "yew")(made[5])
    last = want("ordered")(Notes("last"))
    return [*made, requires(*names)(last)]


# --- what cannot be pickled, or not be rebuilt ---


class LoadsOnlyHere(Event):
    """Cannot be unpickled in a worker."""

    name = "do"
    what = "stop"
    args = ("loaded",)

    def __reduce__(self) -> tuple[Any, ...]:
        return _not_in_a_worker, ()


def _not_in_a_worker() -> LoadsOnlyHere:
    if in_worker():
        raise ValueError("not in a worker")
    return LoadsOnlyHere()


class LoadsOnlyInWorkers:
    """A value that cannot be unpickled in the coordinator."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _only_in_a_worker, ()


def _only_in_a_worker() -> LoadsOnlyInWorkers:
    if not in_worker():
        raise ValueError("only in a worker")
    return LoadsOnlyInWorkers()


class FollowsOnlyInWorkers(LoadsOnlyInWorkers, Event):
    """A follow-up that cannot be unpickled in the coordinator."""

    name = "do"

    def __reduce__(self) -> tuple[Any, ...]:
        return _only_in_a_worker, ()


class KillsWhereItLoads(Event):
    """Ends the worker that unpickles it."""

    name = "do"
    what = "stop"
    args = ("loaded",)

    def __reduce__(self) -> tuple[Any, ...]:
        return _leave_if_worker, ()


def _leave_if_worker() -> KillsWhereItLoads:
    if in_worker():
        os._exit(9)
    return KillsWhereItLoads()


class KillsWhereItIsPickled:
    """Ends the worker that pickles it."""

    def __reduce__(self) -> tuple[Any, ...]:
        if in_worker():
            os._exit(8)
        return KillsWhereItIsPickled, ()


class RefusesPickling(Event):
    """Its pickling raises what it was given."""

    name = "do"
    what = "nothing"
    args = ()

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def __reduce__(self) -> tuple[Any, ...]:
        raise self.error


class BadText(Exception):
    """An exception whose text cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class BadRepr:
    """An object that has no repr, but a hash."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    def __hash__(self) -> int:
        return 1

    def __eq__(self, other: object) -> bool:
        return self is other


class BadAttributes:
    """An object that cannot be looked into, nor pickled."""

    @property
    def __dict__(self) -> Any:  # type: ignore[override]  # that is what is wrong with it
        raise RuntimeError("no attributes")

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError("no pickle")


# made in a worker, because they cannot be sent there


@action
def stop_with(make: str) -> None:
    raise StopProcessing(UNPICKLABLE[make]())


@action
def follow_with(make: str) -> Iterable[Event]:
    ev = Do("nothing")
    ev.args = ({"inner": [0, UNPICKLABLE[make]()]},)
    return [Do("nothing"), ev]


@action
def follow_surprise() -> Iterable[Event]:
    return [FollowsOnlyInWorkers()]


_opened: list[Any] = []


def open_file() -> Any:
    """A file that is open, as long as the worker lives."""
    _opened.append(Path(__file__).open())  # noqa: SIM115 - it stays open
    return _opened[-1]


UNPICKLABLE: dict[str, Callable[[], Any]] = {
    "lock": threading.Lock,
    "file": open_file,
    "generator": lambda: (each for each in "ab"),
    "frame": sys._getframe,
    "bad repr key": lambda: {BadRepr(): threading.Lock()},
    "bad attributes": BadAttributes,
    "bad text": lambda: RefusesPickling(BadText()),
    "module-level surprise": lambda: RefusesPickling(KeyError("surprise")),
}


# --- exceptions ---


class NeedsArguments(Exception):
    """The constructor takes more than `args` holds: pickle cannot rebuild it."""

    def __init__(self, first: int, *, second: int) -> None:
        super().__init__(f"{first} {second}")
        self.first = first
        self.second = second


class WordsItsArgument(Exception):
    """The constructor makes a text of its argument, which pickle gives it once more."""

    def __init__(self, code: int) -> None:
        super().__init__(f"code {code}")
        self.code = code


class HasALock(Exception):
    """Has an attribute that cannot be pickled."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


class CannotReduce(Exception):
    """Its pickling fails."""

    def __reduce__(self) -> tuple[Any, ...]:
        raise RuntimeError("cannot reduce")


class ReducesToSomethingElse(Exception):
    """Its pickle is another thing."""

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, ()


class HasItsOwnReduce(Exception):
    """Is rebuilt from its own data, so that what was added to it is lost."""

    def __init__(self, number: int, *, text: str = "text") -> None:
        super().__init__(number, text)
        self.number = number

    def __reduce__(self) -> tuple[Any, ...]:
        return functools.partial(HasItsOwnReduce, text=self.args[1]), (self.number,)


class HasABadNotes(Exception):
    """Its notes cannot be had."""

    @property
    def __notes__(self) -> list[str]:  # type: ignore[override]  # which is the point
        raise RuntimeError("no notes")


class Leaves(BaseException):
    """No `Exception`."""


def local_error(text: str) -> Exception:
    """An exception of a class that no import finds."""

    class LocalError(Exception):
        pass

    return LocalError(text)


def noted(text: str, note: str) -> Exception:
    error = HasItsOwnReduce(3, text=text)
    error.add_note(note)
    return error


def grouped() -> BaseException:
    """An exception group in another one."""
    return ExceptionGroup("group", [ValueError(1), ExceptionGroup("inner", [KeyError("two")])])
