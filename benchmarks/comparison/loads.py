"""The loads of `pool` that every system can run, and those with large contents."""

from __future__ import annotations

from functools import partial
from typing import Final, NamedTuple

from benchmarks.comparison.handlers import (
    ArrayWanted,
    BytesWanted,
    Sent,
    make_array,
    make_bytes,
)
from benchmarks.pool import loads
from benchmarks.pool.loads import Load
from evproc import Event

BYTES: Final = 100_000
ARRAY_BYTES: Final = 10 * 10**6

# Of two workers, about; a sample's events are in memory all at once.
_BYTES_PER_SECOND: Final = 4_000
_ARRAYS_PER_SECOND: Final = 48

#: The case of events that need no time.
NO_OP: Final = loads.NO_OP

#: Those that compute, which the control has a part in.
COMPUTING: Final = tuple(
    load for load in loads.COMPARED if load.label != "3 handlers in order, with proc"
)


class Large(NamedTuple):
    """A load of large contents.

    Attributes:
        load: The load.
        times: How many times `multiprocessing.Pool`'s events/s are the bar.
    """

    load: Load
    times: float


def make_sent_bytes(count: int) -> list[Event]:
    """Make events that bring bytes, each its own."""
    return [Sent(make_bytes(number, BYTES)) for number in range(count)]


def make_sent_arrays(count: int) -> list[Event]:
    """Make events that bring arrays, each its own."""
    return [Sent(make_array(number, ARRAY_BYTES)) for number in range(count)]


def make_wanted(kind: type[BytesWanted], size: int, count: int) -> list[Event]:
    """Make events that are answered by so many bytes."""
    return [kind(number, size) for number in range(count)]


LARGE: Final = (
    Large(Load("100 kB bytes there", make_sent_bytes, _BYTES_PER_SECOND, (1, 4, 16, 64)), 1.0),
    Large(
        Load(
            "100 kB bytes back",
            partial(make_wanted, BytesWanted, BYTES),
            _BYTES_PER_SECOND,
            (1, 4, 16, 64),
        ),
        1.0,
    ),
    Large(Load("10 MB arrays there", make_sent_arrays, _ARRAYS_PER_SECOND, (1, 2, 4)), 4.0),
    Large(
        Load(
            "10 MB arrays back",
            partial(make_wanted, ArrayWanted, ARRAY_BYTES),
            _ARRAYS_PER_SECOND,
            (1, 2, 4),
        ),
        4.0,
    ),
)
