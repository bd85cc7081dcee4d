"""Events and handlers, for every side alike; imported in every worker.

All handlers are in one registry, as in an application; each event is wanted by
those that its load is about, by its name.
"""

from __future__ import annotations

import os
import time
from typing import Any, Final

from benchmarks.pool.kinds import MAKERS, make_array, touch
from evproc import Event, Processor, StopProcessing, requires, want

#: Of so many `Faulty` events one fails.
FAULTY_EVERY: Final = 10

_ROLL_CALL_SECONDS: Final = 0.005
_LOOK_SECONDS: Final = 0.001


class Order(Event):
    """An ordinary event: an instance with three attributes, one of them a dict."""

    name = "order"

    def __init__(self, number: int) -> None:
        self.number = number
        self.state = "new"
        self.line = {"article": number, "pieces": 1}


class Staged(Order):
    """One that three handlers work on, one after another."""

    name = "staged"


class Work(Event):
    """Takes a handler so many seconds of CPU time."""

    name = "work"

    def __init__(self, number: int, seconds: float) -> None:
        self.number = number
        self.seconds = seconds


class Wait(Event):
    """Takes a handler so many seconds and no CPU time."""

    name = "wait"

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds


class RollCall(Event):
    """Tells which process it reached, after a while in which others reach others."""

    name = "roll call"


class FanOut(Event):
    """Has so many follow-ups, each `Work`."""

    name = "fan out"

    def __init__(self, count: int, seconds: float) -> None:
        self.count = count
        self.seconds = seconds


class Level(Order):
    """Has a follow-up, which has a follow-up, until no level is left."""

    name = "level"

    def __init__(self, number: int, left: int) -> None:
        super().__init__(number)
        self.left = left


class Blob(Event):
    """Is answered by as many bytes as it has, of another value."""

    name = "blob"

    def __init__(self, number: int, data: bytes) -> None:
        self.number = number
        self.data = data


class Asked(Event):
    """An order that is answered by a value; it has as many attributes as an `Order`."""

    name = "asked"

    def __init__(self, number: int, kind: str) -> None:
        self.number = number
        self.kind = kind
        self.line = {"article": number, "pieces": 1}


class Emitting(Asked):
    """One whose handler emits the value, and ends nothing."""

    name = "emitting"


class AskedWork(Work):
    """`Work` that is answered by a value."""

    name = "asked work"

    def __init__(self, number: int, seconds: float, kind: str) -> None:
        super().__init__(number, seconds)
        self.kind = kind


class EmittingWork(AskedWork):
    """One whose handler emits the value."""

    name = "emitting work"


class AskedLevel(Level):
    """A `Level` whose last one is answered by an int."""

    name = "asked level"


class Faulty(Order):
    """Fails, if its number is one of those that do."""

    name = "faulty"


class Nap(Event):
    """Takes so many seconds and no CPU time, and is answered by them."""

    name = "nap"

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds


class Step(Event):
    """Waits for a file, if it has the name of one; is answered by whether that came.

    Args:
        file: What it waits for.
        patience_seconds: How long.
    """

    name = "step"

    def __init__(self, file: str | None = None, patience_seconds: float = 0.0) -> None:
        self.file = file
        self.patience_seconds = patience_seconds


class ArrayMade(Event):
    """Has a new array of so many bytes, which its follow-up reads."""

    name = "array made"

    def __init__(self, number: int, size: int) -> None:
        self.number = number
        self.size = size


class ArrayRead(Event):
    """The follow-up of `ArrayMade`."""

    name = "array read"

    def __init__(self, data: Any) -> None:
        self.data = data


class ArrayAtOnce(ArrayMade):
    """The same with everything in one handler."""

    name = "array at once"


class OrderError(ValueError):
    """An order makes no sense."""


def answer_to(number: int, size: int) -> bytes:
    """What a `Blob` is answered by."""
    return bytes([number % 256]) * size


def burn(seconds: float) -> None:
    """Use so much CPU time of this thread."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def await_file(file: str, patience_seconds: float) -> bool:
    """Wait for a file; give up after so many seconds, and say whether it came."""
    end = time.monotonic() + patience_seconds
    while not os.access(file, os.F_OK):
        if time.monotonic() > end:
            return False
        time.sleep(_LOOK_SECONDS)
    return True


@want("order")
def accept(proc: Any, ev: Any) -> None:
    pass


@want("staged")
def prepare(proc: Any, ev: Any) -> None:
    ev.proc.staged.pieces = ev.line["pieces"]


@want("staged")
@requires("prepare")
def price(proc: Any, ev: Any) -> None:
    ev.proc.staged.total = ev.proc.staged.pieces * 3


@want("staged")
@requires("price")
def confirm(proc: Any, ev: Any) -> None:
    if ev.proc.staged.total != 3:
        raise AssertionError(f"{ev.proc.staged} is not what the handlers before have left")


@want("work")
def work(proc: Any, ev: Any) -> None:
    burn(ev.seconds)


@want("wait")
def wait(proc: Any, ev: Any) -> None:
    time.sleep(ev.seconds)


@want("roll call")
def call_roll(proc: Any, ev: Any) -> None:
    time.sleep(_ROLL_CALL_SECONDS)
    raise StopProcessing(os.getpid())


@want("fan out")
def fan_out(proc: Any, ev: Any) -> list[Event]:
    return [Work(number, ev.seconds) for number in range(ev.count)]


@want("level")
def descend(proc: Any, ev: Any) -> list[Event] | None:
    return [Level(ev.number, ev.left - 1)] if ev.left else None


@want("blob")
def answer(proc: Any, ev: Any) -> None:
    raise StopProcessing(answer_to(ev.number, len(ev.data)))


@want("asked")
def ask(proc: Any, ev: Any) -> None:
    value = MAKERS[ev.kind](ev.number)
    if value is not None:
        raise StopProcessing(value)


@want("emitting")
def emit(proc: Any, ev: Any) -> None:
    ev.emit(MAKERS[ev.kind](ev.number))


@want("asked work")
def work_and_answer(proc: Any, ev: Any) -> None:
    burn(ev.seconds)
    raise StopProcessing(MAKERS[ev.kind](ev.number))


@want("emitting work")
def work_and_emit(proc: Any, ev: Any) -> None:
    burn(ev.seconds)
    ev.emit(MAKERS[ev.kind](ev.number))


@want("asked level")
def descend_and_answer(proc: Any, ev: Any) -> list[Event]:
    if ev.left:
        return [AskedLevel(ev.number, ev.left - 1)]
    raise StopProcessing(ev.number)


@want("faulty")
def fail_some(proc: Any, ev: Any) -> None:
    if ev.number % FAULTY_EVERY == 0:
        raise OrderError(f"order {ev.number} has no article")


@want("nap")
def nap(proc: Any, ev: Any) -> None:
    time.sleep(ev.seconds)
    raise StopProcessing(ev.seconds)


@want("step")
def step(proc: Any, ev: Any) -> None:
    raise StopProcessing(ev.file is None or await_file(ev.file, ev.patience_seconds))


@want("array made")
def make_and_pass_on(proc: Any, ev: Any) -> list[Event]:
    return [ArrayRead(make_array(ev.size, ev.number))]


@want("array read")
def read_array(proc: Any, ev: Any) -> None:
    touch(ev.data)


@want("array at once")
def make_and_read(proc: Any, ev: Any) -> None:
    touch(make_array(ev.size, ev.number))


@want("log line")
def read_log_line(proc: Any, ev: Any) -> None:
    raise StopProcessing(ev.read())


@want("judged line")
def judge_log_line(proc: Any, ev: Any) -> None:
    raise StopProcessing(ev.judge())


#: Every handler, in the order in which it is registered.
HANDLERS: Final = (
    accept,
    prepare,
    price,
    confirm,
    work,
    wait,
    call_roll,
    fan_out,
    descend,
    answer,
    ask,
    emit,
    work_and_answer,
    work_and_emit,
    descend_and_answer,
    fail_some,
    nap,
    step,
    make_and_pass_on,
    read_array,
    make_and_read,
    read_log_line,
    judge_log_line,
)


def register_all(processor: Any) -> None:
    """Register every handler with a `Processor` or a `PoolProcessor`."""
    for handler in HANDLERS:
        processor.register(handler)


def make_processor() -> Processor:
    """Make a `Processor` with every handler, for the sides that have no pool of ours."""
    processor = Processor()
    register_all(processor)
    return processor
