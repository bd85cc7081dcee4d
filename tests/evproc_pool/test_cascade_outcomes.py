"""Random cascades: every event's outcome is the reference's.

With errors that end a cascade and errors that do not, with limits, in order and unordered.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import evproc
from evproc.exc import add_note
from evproc_pool import PoolProcessor
from evproc_pool.pool import Ordering
from evproc_pool.testing import simulated_pool
from tests.support import programs, reference, strategies
from tests.support.sizes import BARS

# None: of a simulated pool, of which a seed decides everything
_WORKERS = (0, 2, None)

# How many programs; a pool with processes takes its time to start.
_PROGRAMS: dict[int | None, int] = (
    dict.fromkeys(_WORKERS, 2000) if BARS else {0: 50, 2: 10, None: 50}
)
_ORDERINGS: tuple[Ordering, ...] = ("cascade", "unordered")

_Options = dict[str, Any]


def _options(seed: int) -> _Options:
    """`errors` and limits for a program."""
    rng = random.Random(f"options {seed}")
    return {
        "errors": rng.choice(["end", "continue"]),
        "max_cascade_depth": rng.choice([None] * 4 + [0, 1, 2, 3]),
        "max_cascade_events": rng.choice([None] * 4 + [1, 5, 12, 40]),
    }


def _expected(
    program: programs.Program, options: _Options, *, whole: bool = False
) -> list[list[reference.Told]]:
    processor = programs.build(program, evproc)
    unlimited = float("inf")
    depth, most = options["max_cascade_depth"], options["max_cascade_events"]
    return [
        reference.cascade(
            processor,
            ev,
            index,
            errors=options["errors"],
            depth=unlimited if depth is None else depth,
            most=unlimited if most is None else most,
            whole=whole,
        )
        for index, ev in enumerate(programs.root_events(program, evproc))
    ]


def _pool(workers: int | None, **options: Any) -> PoolProcessor:
    if workers is None:
        return simulated_pool(3, seed=random.Random(str(options)).randrange(1000), **options)
    return PoolProcessor(workers=workers, **options)


def _check(
    program: programs.Program, options: _Options, workers: int | None, ordering: Ordering
) -> None:
    """Play a program in a pool, and hold its outcomes against the reference's."""
    if ordering == "unordered":
        # which follow-ups exceed a number is a matter of timing there
        options = {**options, "max_cascade_events": None}
    events = programs.root_events(program, evproc)
    with _pool(workers, ordering=ordering, **options) as pool:
        for handler in programs.handlers(program, evproc):
            pool.register(handler)
        outcomes = list(pool.stream(events, every_event=True, return_events=True))
    for outcome in outcomes:
        if len(outcome.path) == 1:
            assert outcome.event is events[outcome.index]
    if ordering == "cascade":
        reference.check_ordered(_expected(program, options), outcomes)
    else:
        whole = _expected(program, options, whole=True)
        errors = options["errors"]
        reference.check_unordered(_expected(program, options), whole, outcomes, errors=errors)


@pytest.mark.parametrize("workers", _WORKERS)
@pytest.mark.parametrize("ordering", _ORDERINGS)
def test_every_events_outcome_is_the_references(workers: int | None, ordering: Ordering) -> None:
    for seed in range(_PROGRAMS[workers]):
        program = programs.random_cascades(random.Random(f"cascades {seed}"))
        try:
            _check(program, _options(seed), workers, ordering)
        except AssertionError as error:
            add_note(error, f"seed {seed}")
            raise


@settings(max_examples=400 if BARS else 25, deadline=None)
@given(strategies.cascades(), st.integers(0, 1000))
def test_every_events_outcome_is_the_references_for_any_program(
    program: programs.Program, seed: int
) -> None:
    _check(program, _options(seed), 0, "cascade")


@pytest.mark.parametrize("workers", _WORKERS)
def test_a_cascades_outcome_is_the_same_without_those_of_its_events(workers: int | None) -> None:
    for seed in range(_PROGRAMS[workers]):
        program = programs.random_cascades(random.Random(f"cascades {seed}"))
        options = _options(seed)
        with _pool(workers, **options) as pool:
            for handler in programs.handlers(program, evproc):
                pool.register(handler)
            stream = pool.stream(programs.root_events(program, evproc), return_events=True)
            actual = [reference.told(outcome) for outcome in stream]
        assert actual == [each[-1] for each in _expected(program, options)], f"seed {seed}"


@pytest.mark.parametrize("workers", _WORKERS)
def test_values_and_errors_are_those_of_the_outcomes(workers: int | None) -> None:
    for seed in range(_PROGRAMS[workers] // 4):
        program = programs.random_cascades(random.Random(f"cascades {seed}"))
        options = _options(seed)
        with _pool(workers, **options) as pool:
            for handler in programs.handlers(program, evproc):
                pool.register(handler)
            events = programs.root_events(program, evproc)
            outcomes = list(pool.stream(programs.root_events(program, evproc)))
            values = pool.process_many(events, return_exceptions=True)
        assert list(map(_ending, values)) == [
            _ending(outcome.error or outcome.value) for outcome in outcomes
        ], f"seed {seed}"


def _ending(value: Any) -> list[Any]:
    if isinstance(value, BaseException):
        notes = [note for note in getattr(value, "__notes__", ()) if ": in worker" not in note]
        return [type(value).__name__, str(value.args), notes]
    return ["value", value]


def test_the_reference_is_what_a_processor_does() -> None:
    for seed in range(50):
        program = programs.random_cascades(random.Random(f"cascades {seed}"))
        played = programs.play(program, evproc)
        plain = {"errors": "end", "max_cascade_depth": None, "max_cascade_events": None}
        for each, (*_, total) in zip(played, _expected(program, plain), strict=True):
            if total.error is not None:
                assert each["outcome"] == ["error", *total.error]
            else:
                assert each["outcome"] == ["value", total.value]
            assert len(each["calls"]) == total.handlers


def test_the_programs_are_worth_playing() -> None:
    found: Counter[str] = Counter()
    for seed in range(200):
        program = programs.random_cascades(random.Random(f"cascades {seed}"))
        options = _options(seed)
        for *events, total in _expected(program, options):
            found["deep"] += any(len(this.path) > 3 for this in events)
            found["wide"] += len(events) > 20
            found["unmatched"] += any(not this.handlers and not this.failed for this in events)
            found["emitted"] += len(total.emitted) > 3
            found["several failed"] += total.failed > 1
            found["failed in the middle"] += any(this.failed for this in events[:-1])
            found["stopped later"] += any(this.stopped for this in events)
            found["value and error"] += total.stopped and total.failed > 0
            found["depth"] += "max_cascade_depth" in str(total.error)
            found["events"] += "max_cascade_events" in str(total.error)
    assert min(found.values()) >= 5, found
    assert len(found) == 10
