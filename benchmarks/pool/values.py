"""The cases of `pool` in which handlers have values: as result, emitted, of follow-ups, errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

from benchmarks.model import Bar, BenchmarkError, Figure, Note, Row, ratio
from benchmarks.pool import loads
from benchmarks.pool.bench import (
    LONGER,
    OURS,
    PER_SECOND,
    STREAM,
    Bench,
    Case,
    can_emit,
    chunked,
    cpu_figure,
    efficiency_of,
    over_peers,
    sized,
    streamed,
    sweep,
    take_figures,
)
from benchmarks.pool.handlers import FAULTY_EVERY, AskedLevel, Level
from benchmarks.pool.kinds import VALUES
from benchmarks.pool.limits import Control
from benchmarks.pool.peers import Executor, MultiprocessingPool, handle_caught
from benchmarks.pool.samples import ControlSample, Sample
from evproc import Event
from evproc_pool import PoolProcessor

#: The bars on no-ops with a value: over each peer's best, and on the coordinator.
POOL_TIMES: Final = 1.2
EXECUTOR_TIMES: Final = 1.4
COORDINATOR_MICROSECONDS: Final = 2.5

#: The bars over the control, by load.
EFFICIENCIES: Final = {loads.TWENTY_MICROSECONDS: 0.85, loads.HUNDRED_MICROSECONDS: 0.95}

# What is emitted where the kind makes no difference.
_EMITTED_KIND: Final = "dict of five"

_CHAINED_PER_SECOND: Final = 50_000
_FAULTY_PER_SECOND: Final = 100_000

_CPU: Final = "coordinator's CPU time"


class Caught:
    """A peer by whose function an error is a value, or one failure would end the call."""

    def __init__(self, peer: MultiprocessingPool | Executor) -> None:
        self.label = peer.label
        self._peer = peer

    def run(self, events: list[Event], chunk: int) -> list[Any]:
        """See `peers.Chunked`."""
        return self._peer.run(events, chunk, handle_caught)

    def close(self) -> None:
        """Leave it to whom it belongs to."""


Sides = tuple[MultiprocessingPool | Caught, Executor | Caught]


def best_peers(
    load: loads.Load, count: int, part: int, sides: Sides, repeats: int
) -> tuple[dict[str, Sample], Note]:
    """Make samples of both peers with their best chunk sizes, and say which were tried.

    Args:
        load: What they are handed.
        count: How many events a sample has.
        part: How many are used to find the best chunk size.
        sides: Both peers.
        repeats: How often each chunk size is tried, at most.
    """
    best, note = sweep(load, part, sides, repeats)
    samples = {
        f"{side.label}, chunks of {best[side.label]}": Sample(
            load.make, count, chunked(side, best[side.label])
        )
        for side in sides
    }
    return samples, note


def _no_op(kind: str, bench: Bench, label: str) -> Iterator[Row | Note]:
    """What a value costs where nothing else does, by `process_many` and by `stream`."""
    load = loads.asked(loads.NO_OP, kind)
    count, _, part = sized(bench, load)
    sides = (bench.multiprocessing_pool, bench.executor)
    peers, note = best_peers(load, count, part, sides, bench.settings.repeats)
    yield note
    ours = Sample(load.make, count, bench.pool.process_many)
    stream = Sample(load.make, count, partial(streamed, bench.pool))
    figures = take_figures({OURS: ours, **peers, STREAM: stream}, bench.settings.repeats)
    limits = dict(zip(peers, (POOL_TIMES, EXECUTOR_TIMES), strict=True))
    ratios = over_peers(figures[OURS], [figures[name] for name in peers], limits)
    yield Row(
        label,
        (
            *figures.values(),
            cpu_figure(_CPU, ours, Bar("at most", COORDINATOR_MICROSECONDS)),
            cpu_figure(f"{_CPU}, stream", stream),
            *ratios,
            ratio(f"events/s of {STREAM} / of {OURS}", figures[STREAM], figures[OURS]),
        ),
    )


def _work(base: loads.Load, kind: str, bench: Bench, label: str) -> Iterator[Row | Note]:
    """What a value costs where events need time."""
    load = loads.asked(base, kind)
    count = load.events_in(bench.seconds * LONGER)
    figures = take_figures(
        {
            OURS: Sample(load.make, count, bench.pool.process_many),
            STREAM: Sample(load.make, count, partial(streamed, bench.pool)),
            Control.label: ControlSample(bench.control, load.make, count),
        },
        bench.settings.repeats,
    )
    control = figures[Control.label]
    share = efficiency_of(figures[OURS], control, EFFICIENCIES[base])
    yield Row(label, (*figures.values(), share, efficiency_of(figures[STREAM], control)))


# --- emitted ---


def stream_emitted(pool: PoolProcessor, events: list[Event]) -> list[Any]:
    """Process events by `stream`; give for each the list of what its handlers emitted.

    Raises:
        BenchmarkError: It is empty for one.
    """
    values = streamed(pool, events, _emitted)
    if not all(values):
        raise BenchmarkError("of some event nothing was emitted")
    return values


def _emitted(outcome: Any) -> Any:
    outcome.unwrap()
    return outcome.emitted


def _cannot_emit(label: str) -> Iterator[Row | Note]:
    yield Row(label, (Figure("emitted", PER_SECOND, ()),))
    yield Note(f"{label}: not measured, since Event has no emit")


def _no_op_emitted(kind: str, bench: Bench, label: str) -> Iterator[Row | Note]:
    """What an emitted value costs, over the same one as result."""
    if not can_emit():
        yield from _cannot_emit(label)
        return
    load = loads.asked(loads.NO_OP, kind)
    count, _, _ = sized(bench, load)
    make = partial(loads.make_emitting, loads.NO_OP.make, kind)
    emitted = Sample(make, count, partial(stream_emitted, bench.pool))
    figures = take_figures(
        {
            "emitted": emitted,
            "as result": Sample(load.make, count, partial(streamed, bench.pool)),
        },
        bench.settings.repeats,
    )
    share = ratio("events/s emitted / as result", figures["emitted"], figures["as result"])
    yield Row(label, (*figures.values(), cpu_figure(_CPU, emitted), share))


def _work_emitted(base: loads.Load, bench: Bench, label: str) -> Iterator[Row | Note]:
    """What an emitted value costs where events need time."""
    if not can_emit():
        yield from _cannot_emit(label)
        return
    make = partial(loads.make_emitting, base.make, _EMITTED_KIND)
    count = base.events_in(bench.seconds * LONGER)
    figures = take_figures(
        {
            "emitted": Sample(make, count, partial(stream_emitted, bench.pool)),
            Control.label: ControlSample(bench.control, make, count),
        },
        bench.settings.repeats,
    )
    share = efficiency_of(figures["emitted"], figures[Control.label])
    yield Row(label, (*figures.values(), share))


# --- other ways back ---


def _returned(bench: Bench, label: str) -> Iterator[Row | Note]:
    """What it costs to have the events back as their handlers left them."""
    load = loads.NO_OP
    count = bench.scaled(_FAULTY_PER_SECOND) // 2
    back = Sample(load.make, max(1, count), partial(streamed, bench.pool, return_events=True))
    figures = take_figures(
        {
            "with return_events": back,
            "without": Sample(
                load.make, load.events_in(bench.seconds), partial(streamed, bench.pool)
            ),
        },
        bench.settings.repeats,
    )
    share = ratio("events/s with / without", figures["with return_events"], figures["without"])
    yield Row(label, (*figures.values(), cpu_figure(_CPU, back), share))


def _chained(bench: Bench, label: str) -> Iterator[Row | Note]:
    """Roots with one follow-up, which has a value, against those whose follow-up has none."""
    roots = max(1, int(_CHAINED_PER_SECOND * bench.seconds))

    def sample(kind: Callable[[int, int], Event]) -> Sample:
        def make(count: int) -> list[Event]:
            return [kind(number, 1) for number in range(count)]

        return Sample(make, roots, bench.pool.process_many, events_each=2)

    asked = sample(AskedLevel)
    figures = take_figures(
        {"with a value": asked, "without": sample(Level)}, bench.settings.repeats
    )
    share = ratio("events/s with / without", figures["with a value"], figures["without"])
    yield Row(label, (*figures.values(), cpu_figure(_CPU, asked), share))


def _faulty(bench: Bench, label: str) -> Iterator[Row | Note]:
    """Some events fail; the peers' functions catch that, and give the error as value."""
    load = loads.NO_OP._replace(label=label, make=loads.make_faulty, per_second=_FAULTY_PER_SECOND)
    count, _, part = sized(bench, load)
    sides = (Caught(bench.multiprocessing_pool), Caught(bench.executor))
    peers, note = best_peers(load, count, part, sides, bench.settings.repeats)
    yield note
    ours = Sample(load.make, count, partial(bench.pool.process_many, return_exceptions=True))
    stream = Sample(
        load.make, count, partial(streamed, bench.pool, look=lambda outcome: outcome.error)
    )
    figures = take_figures({OURS: ours, **peers, STREAM: stream}, bench.settings.repeats)
    yield Row(
        label,
        (
            *figures.values(),
            cpu_figure(_CPU, ours),
            *over_peers(figures[OURS], [figures[name] for name in peers]),
        ),
    )


CASES: Final = (
    *(Case(f"no-op, {kind}", partial(_no_op, kind)) for kind in VALUES),
    *(
        Case(f"{load.label}, {kind}", partial(_work, load, kind))
        for load in EFFICIENCIES
        for kind in VALUES
    ),
    *(Case(f"emitted, no-op, {kind}", partial(_no_op_emitted, kind)) for kind in VALUES),
    *(Case(f"emitted, {load.label}", partial(_work_emitted, load)) for load in EFFICIENCIES),
    Case("no-op, return_events", _returned),
    Case("1 follow-up with an int", _chained),
    Case(f"no-op, 1 of {FAULTY_EVERY} fails", _faulty),
)
