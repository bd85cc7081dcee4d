"""Handlers and events for every system alike: those of `pool`, and some with large contents.

Imported in every worker, and by the scripts whose start is measured: so NumPy is
imported where it is used.
"""

from __future__ import annotations

from typing import Any, Final

from benchmarks.pool import handlers
from evproc import Event, Processor, StopProcessing, want

# One byte of each is read of what was sent.
_PAGE_BYTES: Final = 4096

_FLOAT_BYTES: Final = 8


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
    return bytes([number % 256]) * size


def make_array(number: int, size: int) -> Any:
    """Make an array of its own."""
    import numpy as np  # not before: see above

    return np.full(size // _FLOAT_BYTES, float(number))


def touch(data: Any) -> None:
    """Read a byte of every page, which is there only then where memory is shared."""
    memoryview(data).cast("B")[::_PAGE_BYTES].tobytes()


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


def handle_all(events: list[Event]) -> list[Any]:
    """Likewise, where events are put into batches by hand."""
    return [handle(ev) for ev in events]
