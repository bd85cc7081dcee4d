"""The cases of `pool` with keys: one order for each, and no less speed for that."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from benchmarks.model import Bar, Note, Row, ratio
from benchmarks.pool import loads
from benchmarks.pool.bench import (
    LONGER,
    Bench,
    Case,
    chunked,
    cpu_figure,
    efficiency_of,
    over_peers,
    sized,
    take_figures,
)
from benchmarks.pool.handlers import make_processor
from benchmarks.pool.limits import Control
from benchmarks.pool.samples import ControlSample, Sample
from evproc import Event

#: How many keys there are, where there are more than one.
MANY: Final = (16, 64, 20_000)

#: The bars: over the speed without keys; of one key over no pool at all; of few keys over
#: the peers one by one.
KEYED_PART: Final = 0.92
SERIAL_PART: Final = 0.95
ONE_BY_ONE_TIMES: Final = 8.0
FEW_KEYS: Final = 16

_NO_OPS_PER_SECOND: Final = 60_000
_SINGLE_PER_SECOND: Final = 5_000

_PLAIN: Final = "no key"
_CPU: Final = "coordinator's CPU time"


def key_by(keys: int) -> Callable[[Any], int]:
    """Make a function that gives each event with a number one of so many keys."""

    def key(ev: Any) -> int:
        number: int = ev.number
        return number % keys

    return key


def _name(keys: int) -> str:
    return f"{keys:,} keys" if keys > 1 else "1 key"


def _keyed(bench: Bench, load: loads.Load, count: int, keys: int) -> Sample:
    key = key_by(keys)
    return Sample(load.make, count, lambda events: bench.pool.process_many(events, key=key))


def _no_op(bench: Bench, label: str) -> Iterator[Row | Note]:
    """What a key costs where nothing else does."""
    load = loads.NO_OP
    _, few, _ = sized(bench, load)
    count = max(FEW_KEYS, int(_NO_OPS_PER_SECOND * bench.seconds))
    keyed = {_name(keys): _keyed(bench, load, count, keys) for keys in (1, *MANY)}
    peers = {
        f"{side.label}, one by one": Sample(load.make, few, chunked(side, 1))
        for side in (bench.multiprocessing_pool, bench.executor)
    }
    single = "PoolProcessor.process, one by one"
    figures = take_figures(
        {
            **keyed,
            _PLAIN: Sample(load.make, load.events_in(bench.seconds), bench.pool.process_many),
            **peers,
            single: Sample(
                load.make,
                max(1, int(_SINGLE_PER_SECOND * bench.seconds)),
                lambda events: [bench.pool.process(ev) for ev in events],
            ),
        },
        bench.settings.repeats,
    )
    few_keys = figures[_name(FEW_KEYS)]
    limits = dict.fromkeys(peers, ONE_BY_ONE_TIMES)
    over = over_peers(few_keys, [figures[name] for name in peers], limits)
    yield Row(
        label,
        (
            *figures.values(),
            *(cpu_figure(f"{_CPU}, {name}", sample) for name, sample in keyed.items()),
            *(
                ratio(f"events/s with {name} / without", figures[name], figures[_PLAIN])
                for name in keyed
            ),
            *over,
            ratio(f"events/s / those of {single}", few_keys, figures[single]),
        ),
    )


def _work(bench: Bench, label: str) -> Iterator[Row | Note]:
    """What keys cost where events need time, over the same without."""
    load = loads.HUNDRED_MICROSECONDS
    count = load.events_in(bench.seconds * LONGER)
    keyed = {_name(keys): _keyed(bench, load, count, keys) for keys in MANY}
    figures = take_figures(
        {
            _PLAIN: Sample(load.make, count, bench.pool.process_many),
            **keyed,
            Control.label: ControlSample(bench.control, load.make, count),
        },
        bench.settings.repeats,
    )
    bar = Bar("at least", KEYED_PART)
    yield Row(
        label,
        (
            *figures.values(),
            *(cpu_figure(f"{_CPU}, {name}", sample) for name, sample in keyed.items()),
            *(
                ratio(f"events/s with {name} / without", figures[name], figures[_PLAIN], bar)
                for name in keyed
            ),
            *(efficiency_of(figures[name], figures[Control.label]) for name in keyed),
        ),
    )


def _serial(bench: Bench, label: str) -> Iterator[Row | Note]:
    """One key, which leaves nothing to do at once, over a loop in this process."""
    load = loads.HUNDRED_MICROSECONDS
    process = make_processor().process
    # one event at a time takes twice as long as with two workers
    count = load.events_in(bench.seconds * LONGER / 2)

    def serial(events: list[Event]) -> list[Any]:
        return [process(ev) for ev in events]

    figures = take_figures(
        {
            _name(1): _keyed(bench, load, count, 1),
            "serial": Sample(load.make, count, serial),
        },
        bench.settings.repeats,
    )
    bar = Bar("at least", SERIAL_PART)
    share = ratio("serial's time / that of 1 key", figures[_name(1)], figures["serial"], bar)
    yield Row(label, (*figures.values(), share))


CASES: Final = (
    Case("keys, no-op", _no_op),
    Case("keys, 100 us", _work),
    Case("1 key, 100 us", _serial),
)
