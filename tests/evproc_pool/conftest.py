"""Fixtures for the tests of the pool."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from evproc_pool import PoolProcessor
from tests.support import actions
from tests.support.helpers import Gate, close_in_time, map_regions, register_all, warm


@pytest.fixture(scope="module")
def shared_pool() -> Iterator[PoolProcessor]:
    """Two workers for all tests of a module that leave them alive.

    Of module scope, so it is there before `nothing_left_behind` takes its first
    look; both workers are there by then, too, since each runs an event, and so are the
    descriptors of the memory that they share.
    """
    with PoolProcessor(workers=2) as pool:
        register_all(pool, [actions.act, actions.nested, *actions.ordered_handlers()])
        warm(pool)
        map_regions(pool)
        yield pool


@pytest.fixture
def pool() -> Iterator[PoolProcessor]:
    """Two workers that a test may kill."""
    pool = PoolProcessor(workers=2)
    register_all(pool, [actions.act, actions.nested])
    yield pool
    close_in_time(pool)


@pytest.fixture
def one_worker() -> Iterator[PoolProcessor]:
    """One worker that a test may kill."""
    pool = PoolProcessor(workers=1)
    register_all(pool, [actions.act, actions.nested])
    yield pool
    close_in_time(pool)


@pytest.fixture
def gate() -> Iterator[Gate]:
    """Where handlers wait."""
    with Gate() as gate:
        yield gate
