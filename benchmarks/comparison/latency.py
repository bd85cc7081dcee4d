"""How long a single event takes on an idle pool, beside a pipe with nothing around it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, Final, NamedTuple

from benchmarks.comparison.hosts import Host, Hosts
from benchmarks.comparison.systems import Ours, System
from benchmarks.model import Bar, Figure, Row, Settings, peer_ratios, ratio
from benchmarks.pool.handlers import Order
from benchmarks.pool.processes import Helper
from evproc import Event

#: The pipe, and the figure of it that others are compared with.
PIPE: Final = "bare pipe"

#: The bars on the medians over the pipe's: of `process` and of `submit`.
PROCESS_TIMES: Final = 2.0
SUBMIT_TIMES: Final = 3.0

_MICROSECONDS: Final = "us"

# How many events a second of a sample are, about; never so few that there is no p95.
_PER_SECOND: Final = 2_000
_LEAST: Final = 20

# So many before, as a part.
_WARM_UP: Final = 0.1


class BarePipe:
    """A process at the other end of a `multiprocessing.Pipe`, which sends back what it gets."""

    def __init__(self) -> None:
        self._helper = Helper(_echo)

    def echo(self, ev: Event) -> Any:
        """Send an event there and back."""
        self._helper.connection.send((ev, True))
        return self._helper.connection.recv()

    def there(self, ev: Event) -> Any:
        """Send an event there, and None back, as a handler that has no value."""
        self._helper.connection.send((ev, False))
        return self._helper.connection.recv()

    @property
    def ways(self) -> Mapping[str, Callable[[Event], Any]]:
        """See `System`."""
        return {"": self.echo, "None back": self.there}

    def close(self) -> None:
        """End the process."""
        self._helper.close()


def _echo(connection: Connection[Any, Any]) -> None:
    while True:
        ev, back = connection.recv()
        connection.send(ev if back else None)


class Latency(NamedTuple):
    """Percentiles of some round trips, in seconds."""

    p50: float
    p95: float


def take_latency(hosted: System | BarePipe, way: str, count: int) -> Latency:
    """Process single events, one after the other; a `hosts.Request`."""
    process = hosted.ways[way]
    for number in range(max(1, int(count * _WARM_UP))):
        process(Order(number))
    seconds = []
    for number in range(count):
        ev = Order(number)
        begin = time.perf_counter()
        process(ev)
        seconds.append(time.perf_counter() - begin)
    return percentiles(seconds)


def percentiles(seconds: list[float]) -> Latency:
    """The 50th and the 95th, as `stats.interquartile_range` has its quartiles."""
    cuts = statistics.quantiles(seconds, n=20, method="inclusive")
    return Latency(cuts[9], cuts[18])


def _ways_of(hosted: System | BarePipe) -> list[str]:
    return list(hosted.ways)


def measure(hosts: Hosts, settings: Settings, label: str) -> Iterator[Row]:
    """Take the times of every system and of the pipe, in turn."""
    count = max(_LEAST, round(_PER_SECOND * settings.min_seconds))
    pipe = Host(BarePipe, PIPE)
    try:
        pipe.wait_started()
        asked = {PIPE: pipe, **{each: hosts[each] for each in hosts}}
        turns = [(host, way) for host in asked.values() for way in host.ask(_ways_of)]
        taken: dict[str, list[Latency]] = {_name(host, way): [] for host, way in turns}
        for _ in range(settings.repeats):
            for host, way in turns:
                request = partial(take_latency, way=way, count=count)
                taken[_name(host, way)].append(host.ask(request))
    finally:
        pipe.close()
    for part in ("p50", "p95"):
        figures = {
            name: Figure(name, _MICROSECONDS, tuple(getattr(each, part) * 1e6 for each in values))
            for name, values in taken.items()
        }
        peers = [figures[each] for each in hosts if each != Ours.label]
        over = peer_ratios(figures[Ours.label], peers) if Ours.label in figures else ()
        yield Row(f"{label}, {part}", (*figures.values(), *_ratios(figures, part)), over)


def _name(host: Host, way: str) -> str:
    return f"{host.label}, {way}" if way else host.label


def _ratios(figures: dict[str, Figure], part: str) -> Iterator[Figure]:
    """Every system over the pipe; the bars are on our medians."""
    limits = {Ours.label: PROCESS_TIMES, f"{Ours.label}, submit": SUBMIT_TIMES}
    for name, figure in figures.items():
        if name.partition(",")[0] != PIPE:
            judged = part == "p50" and name in limits
            bar = Bar("at most", limits[name]) if judged else None
            yield ratio(f"{part} of {name} / of the pipe", figure, figures[PIPE], bar)
