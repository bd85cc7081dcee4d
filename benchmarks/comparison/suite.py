"""The benchmark `comparison`: `PoolProcessor` beside every other pool."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from typing import Any, Final, NamedTuple

from benchmarks.comparison import catalogue, data, interpreters, latency, loads, throughput
from benchmarks.comparison.hosts import HostError, Hosts
from benchmarks.comparison.systems import Executor, MultiprocessingPool, Ours, System
from benchmarks.model import (
    Benchmark,
    BenchmarkError,
    Figure,
    Note,
    Row,
    Settings,
    peer_ratios,
)
from benchmarks.pool.limits import Control
from benchmarks.pool.loads import Load
from benchmarks.pool.processes import WORKERS, start_method

_SECONDS: Final = 0.5

# In proportion to what a sample takes.
_RESIDENT_EVENTS: Final = 20_000
_STREAMED: Final = 200_000
_STREAMED_FIRST: Final = 10_000

# The most repeats of what differs little from one time to the next.
_FEW: Final = 2

_MEGABYTES: Final = "MB"

# What is compared with anything else: without these there is nothing to say.
_NEEDED: Final = frozenset({Ours.label, MultiprocessingPool.label, Executor.label})

_Items = Iterator[Row | Note]


class _Hosted(NamedTuple):
    """A case that runs in the systems' hosts.

    Attributes:
        label: What the table calls it.
        measure: Yields its rows and notes.
    """

    label: str
    measure: Callable[[Hosts, Control, Settings, str], _Items]


class _Apart(NamedTuple):
    """A case that starts what it needs itself; see `_Hosted`."""

    label: str
    measure: Callable[[Sequence[type[System]], Settings, str], _Items]


def run(settings: Settings) -> Generator[Row | Note, None, None]:
    """Yield the cases' rows, with notes on chunk sizes and on who took part."""
    labels = [case.label for case in _HOSTED] + [case.label for case in _APART]
    chosen = settings.choose(labels)
    hosted = [case for case in _HOSTED if case.label in chosen]
    apart = [case for case in _APART if case.label in chosen]
    if not hosted and not apart:
        return
    systems = catalogue.installed()
    if hosted:
        yield from _run_hosted(hosted, systems, settings)
    # after the hosts are gone: nothing else runs beside these
    for case in apart:
        yield from case.measure(systems, settings, case.label)
    yield from catalogue.notes()
    yield Note(
        f"every system has {WORKERS} workers, by the start method {start_method()} where it can"
        " choose one; loky, joblib and Ray have their own"
    )


def _run_hosted(
    cases: Sequence[_Hosted], systems: Sequence[type[System]], settings: Settings
) -> _Items:
    with ExitStack() as stack:
        control = stack.enter_context(closing(Control()))
        hosts = stack.enter_context(closing(Hosts(systems)))
        for error in hosts.start():
            yield _left_out(error)
        for case in cases:
            yield from _measured(case, hosts, control, settings)


def _measured(case: _Hosted, hosts: Hosts, control: Control, settings: Settings) -> _Items:
    """Measure a case; again, without a system that fails on the way."""
    while True:
        try:
            # at once, so that nothing stands there twice
            items = list(case.measure(hosts, control, settings, case.label))
        except HostError as error:
            if error.label not in set(hosts):
                raise
            hosts.drop(error.label)
            yield _left_out(error, case.label)
        else:
            yield from items
            return


def _left_out(error: HostError, case: str | None = None) -> Note:
    """Say who is missing.

    Raises:
        HostError: Without that one there is no comparison.
    """
    if error.label in _NEEDED:
        raise error
    since = "" if case is None else f" from {case!r} on"
    return Note(f"{error.label} is left out{since}: {error}")


def _computing(load: Load, hosts: Hosts, control: Control, settings: Settings, _: str) -> _Items:
    return throughput.measure(hosts, load, settings, control=control)


def _large(large: loads.Large, hosts: Hosts, _: Control, settings: Settings, __: str) -> _Items:
    return throughput.measure(hosts, large.load, settings, times=large.times)


def _valued(load: Load, hosts: Hosts, control: Control, settings: Settings, _: str) -> _Items:
    return throughput.measure_values(hosts, load, settings, control)


def _lines(
    mixed: loads.Mixed, hosts: Hosts, control: Control, settings: Settings, _: str
) -> _Items:
    return throughput.measure_lines(hosts, mixed, settings, control)


def _latency(hosts: Hosts, _: Control, settings: Settings, label: str) -> _Items:
    return latency.measure(hosts, settings, label)


# --- memory ---


def _footprint(what: str, system: type[System], *numbers: int) -> Any:
    arguments = ["-m", "benchmarks.comparison.footprint", what, system.label]
    return json.loads(interpreters.run_python([*arguments, *map(str, numbers)]))


def _scaled(size: int, settings: Settings) -> int:
    return max(WORKERS, round(size * min(1.0, settings.min_seconds / _SECONDS)))


def _taken(
    systems: Sequence[type[System]], settings: Settings, what: str, *numbers: int
) -> Generator[Note, None, dict[str, list[Any]]]:
    """Take the memory of each, a few times; yield a note for each that fails."""
    taken: dict[str, list[Any]] = {}
    for system in systems:
        try:
            taken[system.label] = [
                _footprint(what, system, *numbers) for _ in range(min(_FEW, settings.repeats))
            ]
        except BenchmarkError as error:
            yield _left_out(HostError(system.label, str(error)), f"memory, {what}")
    return taken


def _resident(systems: Sequence[type[System]], settings: Settings, label: str) -> _Items:
    """What is resident after events that need no time."""
    taken = yield from _taken(systems, settings, "load", _scaled(_RESIDENT_EVENTS, settings))
    parts: dict[str, Callable[[Any], float]] = {
        "coordinator": lambda each: each["coordinator"],
        "one worker": lambda each: sum(each["workers"]) / len(each["workers"]),
        "other processes": lambda each: each["others"],
    }
    for part, size in parts.items():
        figures = [
            Figure(name, _MEGABYTES, tuple(size(each) / 1e6 for each in values))
            for name, values in taken.items()
        ]
        yield Row(f"{label}, {part}", tuple(figures), _over_peers(figures))


def _over_peers(figures: Sequence[Figure]) -> tuple[Figure, ...]:
    """Our memory over each peer's; nothing, which cannot be divided by, counts as a little."""
    least = [
        replace(each, values=tuple(max(value, data.LEAST_MEGABYTES) for value in each.values))
        for each in figures
    ]
    by_name = {each.name: each for each in least}
    ours = by_name.pop(Ours.label, None)
    return peer_ratios(ours, by_name.values()) if ours is not None else ()


def _streaming(systems: Sequence[type[System]], settings: Settings, label: str) -> _Items:
    """By how much the coordinator grows while it reads a generator."""
    events, first = _scaled(_STREAMED, settings), _scaled(_STREAMED_FIRST, settings)
    able = [system for system in systems if system.streams]
    taken = yield from _taken(able, settings, "stream", events, first)
    figures = [
        Figure(name, _MEGABYTES, tuple(each["grown"] / 1e6 for each in values))
        for name, values in taken.items()
    ]
    yield Row(label, tuple(figures), _over_peers(figures))
    rest = [system.label for system in systems if not system.streams]
    if rest:
        yield Note(
            f"{label}: {', '.join(rest)} want the whole input; of the others {events:,} events"
        )


def _main(_: Sequence[type[System]], settings: Settings, label: str) -> _Items:
    return interpreters.measure_main(settings, label)


_HOSTED: Final = (
    _Hosted(loads.NO_OP.label, partial(_computing, loads.NO_OP)),
    *(_Hosted(load.label, partial(_computing, load)) for load in loads.COMPUTING),
    *(_Hosted(large.load.label, partial(_large, large)) for large in loads.LARGE),
    *(
        _Hosted(load.label, partial(_valued, load))
        for twins in (*loads.WITH_VALUES.values(), loads.EMITTING)
        for load in twins
    ),
    *(_Hosted(mixed.label, partial(_lines, mixed)) for mixed in loads.LINES),
    _Hosted("single event", _latency),
)

_APART: Final = (
    _Apart("start-up to first result", interpreters.measure_start),
    _Apart("import", interpreters.measure_import),
    _Apart("events of a class in __main__", _main),
    _Apart("resident memory", _resident),
    _Apart("memory while streaming", _streaming),
)


BENCHMARK: Final = Benchmark(
    name="comparison",
    title="PoolProcessor, against every other pool that is installed",
    run=run,
    defaults=Settings(repeats=5, min_seconds=_SECONDS, turns=1),
    quick=Settings(repeats=2, min_seconds=0.005, turns=1),
)
