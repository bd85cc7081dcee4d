"""The loads of `pool` that every system can run, with and without values, and large ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, NamedTuple

from benchmarks.comparison.handlers import (
    ArrayWanted,
    BytesWanted,
    Sent,
    make_array,
    make_bytes,
)
from benchmarks.pool import loads
from benchmarks.pool.kinds import VALUES, Function
from benchmarks.pool.lines import judge_line, make_lines, read_line
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


#: Of those without a value, the twins with one, by kind of value.
WITH_VALUES: Final[Mapping[str, tuple[Load, ...]]] = {
    kind: tuple(loads.asked(load, kind) for load in (NO_OP, *COMPUTING)) for kind in VALUES
}


#: The twins whose handlers emit; the kind makes little difference there.
EMITTING: Final = tuple(loads.emitting(load, "dict of five") for load in (NO_OP, *COMPUTING))


class Plain(NamedTuple):
    """What the peers are given instead of events: a function, as their users have it.

    Attributes:
        make: Makes what the function is called with.
        function: The work of the load's handler.
    """

    make: Callable[[int], list[Any]]
    function: Function


class Mixed(NamedTuple):
    """A mixed load: the handler's events, and the peers' lines with the plain function.

    Attributes:
        label: What the table calls it.
        load: The events.
        plain: What the peers are given.
        lines: How many there are in a sample of the usual length.
        times: The bar over the best peer, or None.
    """

    label: str
    load: Load
    plain: Plain
    lines: int
    times: float | None


#: Log lines: some 10 us each, and some 100 us.
LINES: Final = (
    Mixed(
        "500,000 JSON log lines, plain function",
        loads.LOG_LINES,
        Plain(make_lines, read_line),
        500_000,
        None,
    ),
    Mixed(
        "50,000 JSON log lines, 120 rules, plain function",
        loads.JUDGED_LINES,
        Plain(make_lines, judge_line),
        50_000,
        1.0,
    ),
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


_BYTES_LOAD: Final = Load(
    "100 kB bytes there",
    make_sent_bytes,
    _BYTES_PER_SECOND,
    chunks=(1, 4, 16, 64),
    content_bytes=BYTES,
)
_ARRAYS_LOAD: Final = Load(
    "10 MB arrays there",
    make_sent_arrays,
    _ARRAYS_PER_SECOND,
    chunks=(1, 2, 4),
    content_bytes=ARRAY_BYTES,
)

LARGE: Final = (
    Large(_BYTES_LOAD, 1.0),
    Large(
        _BYTES_LOAD._replace(
            label="100 kB bytes back", make=partial(make_wanted, BytesWanted, BYTES)
        ),
        1.0,
    ),
    Large(_ARRAYS_LOAD, 4.0),
    Large(
        _ARRAYS_LOAD._replace(
            label="10 MB arrays back", make=partial(make_wanted, ArrayWanted, ARRAY_BYTES)
        ),
        4.0,
    ),
)
