"""Garbage collection is paused while a batch is packed, and restored afterwards."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from typing import Any

import pytest

import evproc
from evproc_pool.serialization.basics import gc_paused
from evproc_pool.serialization.packing import EventPacker, unpack


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    """Restores the state of the garbage collector."""
    was_on, thresholds = gc.isenabled(), gc.get_threshold()
    yield
    gc.set_threshold(*thresholds)
    if was_on:
        gc.enable()


@pytest.mark.parametrize("was_on", [True, False])
def test_the_pause_restores_whether_collection_was_enabled(was_on: bool) -> None:
    if not was_on:
        gc.disable()
    with contextlib.suppress(KeyError), gc_paused():
        assert not gc.isenabled()
        raise KeyError
    assert gc.isenabled() == was_on


class _Number(evproc.Event):
    name = "number"

    def __init__(self, number: int) -> None:
        self.number = number
        self.more: list[Any] = []


def test_packing_a_batch_of_events_triggers_no_collection() -> None:
    events = [_Number(number) for number in range(2_000)]
    packer = EventPacker()
    packer.pack(events[:100])  # what it learns of the class
    gc.set_threshold(100, 10, 10)
    gc.collect()
    before = gc.get_stats()[0]["collections"]
    packed = packer.pack(events)
    # only afterwards, as ever
    assert gc.get_stats()[0]["collections"] <= before + 2
    assert [each.number for each in unpack(packed)] == list(range(2_000))
