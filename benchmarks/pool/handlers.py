"""Events and handlers, for every side alike; imported in every worker.

All handlers are in one registry, as in an application; each event is wanted by
those that its load is about, by its name.
"""

from __future__ import annotations

import os
import time
from typing import Any, Final

from evproc import Event, Processor, StopProcessing, requires, want

#: How many keys `key_of` gives.
KEYS: Final = 16

_ROLL_CALL_SECONDS: Final = 0.005


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


def key_of(ev: Any) -> int:
    """The key of an event that has a number."""
    number: int = ev.number
    return number % KEYS


def answer_to(number: int, size: int) -> bytes:
    """What a `Blob` is answered by."""
    return bytes([number % 256]) * size


def burn(seconds: float) -> None:
    """Use so much CPU time of this thread."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


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
