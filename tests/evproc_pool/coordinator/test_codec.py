"""What the codec makes of what a dead worker left behind and cannot pack again."""

from __future__ import annotations

import pickle

import pytest

from evproc_pool import SerializationError
from evproc_pool.coordinator.codec import _unpack_column
from evproc_pool.core.inputs_and_effects import Result
from evproc_pool.serialization.packing import PackedColumn

_BROKEN = PackedColumn([2, 5], True, b"no pickle")


def test_a_column_that_cannot_be_rebuilt_is_asked_for_again() -> None:
    with pytest.raises(SerializationError, match="what an event left behind") as caught:
        _unpack_column(_BROKEN, (), {}, "worker 1", is_last_chance=False)
    assert isinstance(caught.value.__cause__, pickle.UnpicklingError)


def test_the_events_of_a_column_fail_where_nobody_can_be_asked_again() -> None:
    results: dict[int, Result] = {}
    column = _unpack_column(_BROKEN, (), results, "worker 1", is_last_chance=True)
    assert len(column.positions) == 0
    assert results.keys() == {2, 5}
    assert all(isinstance(each.error, SerializationError) for each in results.values())
