"""The cases of `pool` without a bar: values and follow-ups of shapes that users have."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Final

from benchmarks.machine import claim_memory
from benchmarks.model import Figure, Note, Row, ratio
from benchmarks.pool import loads
from benchmarks.pool.bench import (
    OURS,
    PER_SECOND,
    Bench,
    Case,
    cpu_figure,
    over_peers,
    take_figures,
)
from benchmarks.pool.handlers import ArrayAtOnce, ArrayMade
from benchmarks.pool.kinds import SHAPES, has_numpy
from benchmarks.pool.samples import Sample
from benchmarks.pool.values import best_peers
from evproc import Event

#: Of an array that goes from a handler to the next event of its cascade.
ARRAY_BYTES: Final = 1_500_000

_ARRAYS_PER_SECOND: Final = 600

# They have no bar, so half of a sample does, and a third of that, once, to find a chunk size.
_PART: Final = 1 / 2
_SWEEP_PART: Final = 1 / 6
_SWEEP_REPEATS: Final = 1

# So many copies of what is large in a sample may be in memory at once, about.
_COPIES: Final = 4


def _missing(label: str) -> Iterator[Row | Note]:
    yield Row(label, (Figure(OURS, PER_SECOND, ()),))
    yield Note(f"{label}: not measured, since NumPy is not installed")


def _shape(kind: str, bench: Bench, label: str) -> Iterator[Row | Note]:
    """A value of that shape, beside the peers with their best chunk sizes."""
    if SHAPES[kind].needs_numpy and not has_numpy():
        yield from _missing(label)
        return
    load = loads.shaped(kind)
    count = load.events_in(bench.seconds * _PART)
    part = load.events_in(bench.seconds * _SWEEP_PART)
    claim_memory(_COPIES * count * load.content_bytes)
    sides = (bench.multiprocessing_pool, bench.executor)
    peers, note = best_peers(load, count, part, sides, _SWEEP_REPEATS)
    yield note
    ours = Sample(load.make, count, bench.pool.process_many)
    figures = take_figures({OURS: ours, **peers}, bench.settings.repeats)
    yield Row(
        label,
        (
            *figures.values(),
            cpu_figure("coordinator's CPU time", ours),
            *over_peers(figures[OURS], [figures[name] for name in peers]),
        ),
    )


def _array(bench: Bench, label: str) -> Iterator[Row | Note]:
    """An array that a handler hands to the next event, beside all of it in one handler."""
    if not has_numpy():
        yield from _missing(label)
        return
    count = max(2, int(_ARRAYS_PER_SECOND * bench.seconds))

    def sample(kind: type[ArrayMade]) -> Sample:
        def make(events: int) -> list[Event]:
            return [kind(number, ARRAY_BYTES) for number in range(events)]

        return Sample(make, count, bench.pool.process_many)

    cascade, whole = "in a follow-up", "in one handler"
    samplers = {cascade: sample(ArrayMade), whole: sample(ArrayAtOnce)}
    figures = take_figures({**samplers}, bench.settings.repeats)
    cpu = [cpu_figure(f"coordinator's CPU time, {name}", each) for name, each in samplers.items()]
    share = ratio(f"events/s {cascade} / {whole}", figures[cascade], figures[whole])
    yield Row(label, (*figures.values(), *cpu, share))


CASES: Final = (
    *(Case(f"no-op, {kind}", partial(_shape, kind)) for kind in SHAPES),
    Case("a 1.5 MB array to a follow-up", _array),
)
