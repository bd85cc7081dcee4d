"""The loads: which events are handed in, about how many, and in which order.

A load is sent to the processes of `limits.Control`, which make its events
themselves, so what makes them is a function of a module. Equal counts make equal
events, wherever they are made.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

from benchmarks.pool.handlers import (
    Asked,
    AskedWork,
    Emitting,
    EmittingWork,
    Faulty,
    Order,
    Staged,
    Work,
)
from benchmarks.pool.kinds import SHAPES
from benchmarks.pool.lines import JudgedLine, LogLine, make_lines
from evproc import Event

#: Makes so many events.
Make = Callable[[int], list[Event]]

#: What the cases are called besides in which handlers emit.
EMITTED: Final = "emitted"

# Of no-ops with a value, by two workers, about.
_VALUES_PER_SECOND: Final = 200_000

_SHORT_SECONDS: Final = 0.0001
_LONG_SECONDS: Final = 0.020

# of the mixes, so many events are short for each long one
_SHORT_PER_LONG: Final = 19

# Any will do; the same one each time makes the same order for every side.
_SEED: Final = 20


class Load(NamedTuple):
    """A load that is run by every side.

    Attributes:
        label: What the table calls it.
        make: Makes its events.
        per_second: About how many two workers get done, to size a sample by.
        chunks: The chunk sizes among which the peers' best one is looked for.
        multiple: What the number of events is a multiple of.
        efficiency: The bar on the control's time over the pool's, if there is one.
        content_bytes: Of what an event brings, or is answered by, where that is large.
        emits: Whether its handlers emit, so that what is emitted is to be collected.
    """

    label: str
    make: Make
    per_second: float
    chunks: tuple[int, ...]
    multiple: int = 2
    efficiency: float | None = None
    content_bytes: int = 0
    emits: bool = False

    def events_in(self, seconds: float) -> int:
        """How many events take about so long."""
        whole = round(self.per_second * seconds / self.multiple)
        return self.multiple * max(1, whole)


def make_orders(count: int) -> list[Event]:
    """Make events that need no time."""
    return [Order(number) for number in range(count)]


def make_staged(count: int) -> list[Event]:
    """Make events for the three handlers that run one after another."""
    return [Staged(number) for number in range(count)]


def make_work(seconds: float, count: int) -> list[Event]:
    """Make events that need so much CPU time each."""
    return [Work(number, seconds) for number in range(count)]


def make_mix(count: int, *, shuffled: bool) -> list[Event]:
    """Make events of which 5% need long; if not shuffled, these come last."""
    events = make_work(_SHORT_SECONDS, count)
    for number in range(count - count // (_SHORT_PER_LONG + 1), count):
        events[number] = Work(number, _LONG_SECONDS)
    if shuffled:
        random.Random(_SEED).shuffle(events)
    return events


def make_asked(make: Make, kind: str, count: int) -> list[Event]:
    """Make the events of another load, each answered by a value."""
    return [_with_value(ev, kind, Asked, AskedWork) for ev in make(count)]


def make_emitting(make: Make, kind: str, count: int) -> list[Event]:
    """Make the events of another load, for each of which a value is emitted."""
    return [_with_value(ev, kind, Emitting, EmittingWork) for ev in make(count)]


def _with_value(
    ev: Event, kind: str, order: Callable[[int, str], Event], work: type[AskedWork]
) -> Event:
    if isinstance(ev, Work):
        return work(ev.number, ev.seconds, kind)
    if isinstance(ev, Order):
        return order(ev.number, kind)
    raise TypeError(f"there is no {type(ev).__name__} with a value")


def make_faulty(count: int) -> list[Event]:
    """Make events of which some fail."""
    return [Faulty(number) for number in range(count)]


def make_log_lines(count: int) -> list[Event]:
    """Make events that bring a line of a log each."""
    return [LogLine(text) for text in make_lines(count)]


def make_judged_lines(count: int) -> list[Event]:
    """Likewise, to be judged."""
    return [JudgedLine(text) for text in make_lines(count)]


def asked(load: Load, kind: str) -> Load:
    """The twin of a load whose events are answered by a value."""
    return load._replace(
        label=f"{load.label}, {kind}",
        make=partial(make_asked, load.make, kind),
        per_second=min(load.per_second, _VALUES_PER_SECOND),
        efficiency=None,
    )


def emitting(load: Load, kind: str) -> Load:
    """The twin of a load whose handlers emit a value for each event."""
    return asked(load, kind)._replace(
        label=f"{load.label}, {EMITTED}", make=partial(make_emitting, load.make, kind), emits=True
    )


def shaped(kind: str) -> Load:
    """Events that need no time, answered by a value of a kind without a bar."""
    shape = SHAPES[kind]
    return Load(
        f"no-op, {kind}",
        partial(make_asked, make_orders, kind),
        shape.per_second,
        (1, 4, 16) if shape.size_bytes else (16, 64, 256, 1024),
        content_bytes=shape.size_bytes,
    )


def share(events: list[Event], number: int, of: int) -> list[Event]:
    """The part of the events that is one of several processes', the work dealt out evenly.

    Every process gets as many long ones as the others: what `limits.Control` is
    to show is what is possible, not how lucky a division was.
    """
    by_length = sorted(events, key=lambda ev: getattr(ev, "seconds", 0.0))
    return by_length[number::of]


def _per_second(seconds: float) -> float:
    # of two workers, which is what there is
    return 2 / seconds


# An even number of long ones, so that they can be dealt out evenly.
_MIX_MULTIPLE: Final = 2 * (_SHORT_PER_LONG + 1)
_MIX_MEAN_SECONDS: Final = (_SHORT_PER_LONG * _SHORT_SECONDS + _LONG_SECONDS) / (
    _SHORT_PER_LONG + 1
)

#: Events that need no time: what a pool itself costs.
NO_OP: Final = Load("no-op", make_orders, 400_000, (16, 64, 256, 1024, 4096))

TWENTY_MICROSECONDS: Final = Load(
    "20 us", partial(make_work, 2e-5), _per_second(2e-5), (16, 64, 256, 1024), 2, 0.88
)

HUNDRED_MICROSECONDS: Final = Load(
    "100 us", partial(make_work, 1e-4), _per_second(1e-4), (4, 16, 64, 256), efficiency=0.96
)

ONE_MILLISECOND: Final = Load(
    "1 ms", partial(make_work, 1e-3), _per_second(1e-3), (1, 4, 16, 64), 2, 0.975
)

TEN_MILLISECONDS: Final = Load(
    "10 ms", partial(make_work, 1e-2), _per_second(1e-2), (1, 2, 4, 16), 2, 0.975
)

#: All others that are compared with peers and the control.
COMPARED: Final = (
    TWENTY_MICROSECONDS,
    HUNDRED_MICROSECONDS,
    ONE_MILLISECOND,
    TEN_MILLISECONDS,
    Load(
        "skewed: 95% 0.1 ms, 5% 20 ms",
        partial(make_mix, shuffled=True),
        _per_second(_MIX_MEAN_SECONDS),
        (1, 4, 16, 64),
        _MIX_MULTIPLE,
        0.96,
    ),
    Load(
        "the same, long ones last",
        partial(make_mix, shuffled=False),
        _per_second(_MIX_MEAN_SECONDS),
        (1, 4, 16, 64),
        _MIX_MULTIPLE,
        0.96,
    ),
    Load("3 handlers in order, with proc", make_staged, 150_000, (16, 64, 256, 1024, 4096)),
)

#: A line of a log each: JSON, regular expressions, a tuple as value.
LOG_LINES: Final = Load("log lines", make_log_lines, _per_second(1e-5), (16, 64, 256, 1024, 4096))

#: The same, with 120 rules to be asked of each.
JUDGED_LINES: Final = Load(
    "judged lines", make_judged_lines, _per_second(1e-4), (1, 4, 16, 64, 256)
)
