"""Random handler programs: the pool comes to what `Processor` comes to.

The same values, the same exception types and arguments, and for each cascade the
same calls in the same order; by two workers, by none, with keys, and by streams.
"""

from __future__ import annotations

import functools
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import evproc
from evproc_pool import PoolProcessor
from tests.support import programs
from tests.support.sizes import BARS

# In full 2,010: 500 with two workers, 1,000 with one, three or four, 510 unordered.
_PROGRAMS = 1500 if BARS else 9
_WITH_TWO_WORKERS = 500
_PER_TEST = 50 if BARS else 3


def _program(seed: int, log: Path) -> programs.Program:
    program = programs.random_program(random.Random(seed))
    program["log_path"] = str(log)
    return program


def _pooled(program: programs.Program, log: programs.CallLog, **options: Any) -> PoolProcessor:
    pool = PoolProcessor(**options)
    for handler in programs.handlers(program, evproc, log):
        pool.register(handler)
    return pool


def _outcome(value: Any) -> list[Any]:
    """A value of `process_many(return_exceptions=True)` as `programs.outcome` has it."""
    if isinstance(value, BaseException):
        return ["error", type(value).__name__, str(value.args)]
    return ["value", value]


def _serial(seed: int, folder: Path) -> list[Any]:
    return programs.play(_program(seed, folder / f"{seed}.serial"), evproc)


def _play(seed: int, folder: Path, way: str, **options: Any) -> list[Any]:
    program = _program(seed, folder / f"{seed}.{way}.{options.get('workers')}")
    log = programs.CallLog(program["log_path"])
    events = programs.root_events(program, evproc)
    with _pooled(program, log, **options) as pool:
        if way == "many":
            values = pool.process_many(events, return_exceptions=True)
        elif way == "keyed":
            key = functools.partial(_parity)
            values = pool.process_many(events, return_exceptions=True, key=key)
        else:
            outcomes = list(pool.stream(events))
            assert [outcome.index for outcome in outcomes] == list(range(len(events)))
            values = [outcome.error or outcome.value for outcome in outcomes]
    return programs.results(map(_outcome, values), log)


def _parity(ev: Any) -> int:
    return int(ev.root % 2)


@pytest.mark.parametrize("part", range(_PROGRAMS // _PER_TEST))
def test_workers_come_to_the_same_as_a_processor(part: int, tmp_path: Path) -> None:
    for seed in range(part * _PER_TEST, (part + 1) * _PER_TEST):
        expected = _serial(seed, tmp_path)
        way = ("many", "keyed", "stream")[seed % 3]
        workers = 2 if seed < _WITH_TWO_WORKERS else (1, 3, 4)[seed // 3 % 3]
        assert _play(seed, tmp_path, way, workers=workers) == expected, f"seed {seed}"


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_that_are_replaced_come_to_the_same(workers: int, tmp_path: Path) -> None:
    for seed in range(2000, 2000 + (100 if BARS else 3)):
        way = ("many", "keyed", "stream")[seed % 3]
        actual = _play(seed, tmp_path, way, workers=workers, max_tasks_per_child=7)
        assert actual == _serial(seed, tmp_path), f"seed {seed}"


@pytest.mark.parametrize("workers", [1, 2])
def test_retries_come_to_the_same_with_workers_and_without(workers: int, tmp_path: Path) -> None:
    retries = {"max_retries": 2, "retry_backoff": 0.0, "retry_exceptions": BaseException}
    for seed in range(3000, 3000 + (200 if BARS else 3)):
        way = ("many", "keyed", "stream")[seed % 3]
        expected = _play(seed, tmp_path, way, workers=0, **retries)
        assert _play(seed, tmp_path, way, workers=workers, **retries) == expected, f"seed {seed}"


@pytest.mark.parametrize("way", ["many", "stream"])
def test_no_workers_come_to_the_same_as_a_processor(way: str, tmp_path: Path) -> None:
    for seed in range(200 if BARS else 50):
        assert _play(seed, tmp_path, way, workers=0) == _serial(seed, tmp_path), f"seed {seed}"


def _ended_early(seed: int, folder: Path) -> list[bool]:
    """For each cascade whether it was stopped, be it with None, or failed."""
    program = _program(seed, folder / f"{seed}.ends")
    log = programs.CallLog(program["log_path"])
    with _pooled(program, log, workers=0) as pool:
        outcomes = list(pool.stream(programs.root_events(program, evproc)))
    return [outcome.stopped or outcome.error is not None for outcome in outcomes]


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_unordered_makes_the_same_calls_where_nothing_stops_a_cascade(
    workers: int, tmp_path: Path
) -> None:
    compared = 0
    for seed in range(1000, 1000 + (170 if BARS else 2)):
        expected = _serial(seed, tmp_path)
        way = ("many", "keyed")[seed % 2]
        actual = _play(seed, tmp_path, way, workers=workers, ordering="unordered")
        early = _ended_early(seed, tmp_path)
        for one, other, has_ended in zip(expected, actual, early, strict=True):
            if not has_ended:
                assert _counted(one) == _counted(other), f"seed {seed}"
                compared += 1
    assert compared


def _counted(result: dict[str, Any]) -> Counter[tuple[Any, ...]]:
    # an event's id says whose follow-up it is, by the order in which they were returned
    return Counter(tuple(call) for call in result["calls"])
