"""When a worker collects garbage, and that it is as it was afterwards."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from typing import Any

import pytest

import evproc
from evproc_pool import PoolProcessor
from evproc_pool.worker.garbage_collection import Allowance, no_collection


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    """The garbage collector is as it was, whatever a test does to it."""
    was_on, thresholds = gc.isenabled(), gc.get_threshold()
    yield
    gc.set_threshold(*thresholds)
    if was_on:
        gc.enable()


@pytest.mark.parametrize("was_on", [True, False])
def test_the_collection_that_was_put_off_is_as_it_was_afterwards(was_on: bool) -> None:
    if not was_on:
        gc.disable()
    with contextlib.suppress(KeyError), no_collection():
        assert not gc.isenabled()
        raise KeyError
    assert gc.isenabled() == was_on


def make(allowance: Allowance) -> list[list[int]]:
    """Many objects, for which there is an allowance."""
    gc.collect()
    with no_collection(allowance):
        return [[] for _ in range(5_000)]


def collections() -> int:
    """How often there was a collection so far."""
    return sum(each["collections"] for each in gc.get_stats())


def test_what_was_made_for_a_batch_is_no_reason_to_collect() -> None:
    gc.set_threshold(700, 10, 10)
    allowance = Allowance()
    made = make(allowance)
    before = collections()
    more: list[list[int]] = [[] for _ in range(500)]
    assert collections() == before
    more += [[] for _ in range(700)]  # but what is made besides is, as ever
    assert collections() == before + 1
    allowance.withdraw()
    assert gc.get_threshold() == (700, 10, 10)
    assert len(made) == 5_000


def test_thresholds_that_a_handler_sets_stay() -> None:
    gc.set_threshold(700, 10, 10)
    allowance = Allowance()
    made = make(allowance)
    gc.set_threshold(1_000, 5, 5)
    allowance.withdraw()
    assert gc.get_threshold() == (1_000, 5, 5)
    allowance.withdraw()
    assert gc.get_threshold() == (1_000, 5, 5)
    del made


def test_what_events_leave_behind_is_no_reason_either() -> None:
    gc.set_threshold(700, 10, 10)
    gc.collect()
    allowance = Allowance()
    allowance.grant(1_000)
    before = collections()
    left: list[list[int]] = [[] for _ in range(3_000)]
    assert collections() == before
    allowance.withdraw()
    assert len(left) == 3_000


def test_no_threshold_stays_none() -> None:
    gc.set_threshold(0, 10, 10)
    make(Allowance())
    assert gc.get_threshold() == (0, 10, 10)


class Number(evproc.Event):
    name = "number"

    def __init__(self, number: int) -> None:
        self.number = number
        self.more: list[Any] = []


def thresholds(proc: evproc.Processor, ev: Number) -> None:
    raise evproc.StopProcessing((gc.get_threshold()[0], gc.get_count()[0]))


def test_a_worker_s_thresholds_are_raised_for_a_batch_only() -> None:
    """By what its events are, and no more with every batch."""
    usual = gc.get_threshold()[0]
    with PoolProcessor(1) as pool:
        pool.register(thresholds)
        values = pool.process_many([Number(number) for number in range(20_000)])
        seen = {threshold for threshold, _ in values}
        (last,) = pool.process_many([Number(0)])
    assert max(seen) > usual
    assert max(seen) < usual + 12 * 2048
    assert last[0] < usual + 50
