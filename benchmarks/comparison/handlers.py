"""Handlers and events for every system alike: those of `pool`, and some with large contents.

Imported in every worker, and by the scripts whose start is measured: so NumPy is
imported where it is used.
"""

from __future__ import annotations

from typing import Any, Final

from benchmarks.pool import handlers, kinds
from benchmarks.pool.kinds import Function, touch
from evproc import Event, Processor, StopProcessing, want


class Sent(Event):
    """Brings bytes or an array."""

    name = "sent"

    def __init__(self, data: Any) -> None:
        self.data = data


class BytesWanted(Event):
    """Is answered by so many bytes."""

    name = "bytes wanted"

    def __init__(self, number: int, size: int) -> None:
        self.number = number
        self.size = size


class ArrayWanted(BytesWanted):
    """Is answered by an array of so many bytes."""

    name = "array wanted"


def make_bytes(number: int, size: int) -> bytes:
    """Make an object of bytes of its own."""
    return kinds.make_bytes(size, number)


def make_array(number: int, size: int) -> Any:
    """Make an array of its own."""
    return kinds.make_array(size, number)


@want("sent")
def receive(proc: Any, ev: Any) -> None:
    touch(ev.data)


@want("bytes wanted")
def answer_bytes(proc: Any, ev: Any) -> None:
    raise StopProcessing(make_bytes(ev.number, ev.size))


@want("array wanted")
def answer_array(proc: Any, ev: Any) -> None:
    raise StopProcessing(make_array(ev.number, ev.size))


def register_all(processor: Any) -> None:
    """Register every handler with a `Processor` or a `PoolProcessor`."""
    handlers.register_all(processor)
    for handler in (receive, answer_bytes, answer_array):
        processor.register(handler)


def make_processor() -> Processor:
    """Make a `Processor` with every handler, for the peers."""
    processor = Processor()
    register_all(processor)
    return processor


# of the module, so that each worker makes it once, when it imports this
_PROCESSOR: Final = make_processor()


def handle(ev: Event) -> Any:
    """What the peers map over the events."""
    return _PROCESSOR.process(ev)


def handle_all(events: list[Any], function: Function = handle) -> list[Any]:
    """Likewise, or by another function, where events are put into batches by hand."""
    return [function(ev) for ev in events]


def handle_emitting(ev: Event) -> list[Any]:
    """What the peers map over events whose handlers emit: gives what was emitted."""
    _PROCESSOR.process(ev)
    # what a processor emitted is there until the next event
    return list(_PROCESSOR.emitted)  # type: ignore[attr-defined,unused-ignore]  # where there is emit
