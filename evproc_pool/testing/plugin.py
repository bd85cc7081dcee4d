"""A plugin for pytest; name it in a test module or in the topmost ``conftest.py``.

::

    pytest_plugins = ["evproc_pool.testing.plugin"]


    def test_orders_end_in_the_pool_as_without(assert_equal_outcomes):
        assert_equal_outcomes("app.handlers", [Order(number) for number in range(50)])

It is no entry point: pytest would import the pool in every project that has it installed.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from evproc_pool.testing import comparing


@pytest.fixture(name="assert_equal_outcomes")
def _assert_equal_outcomes() -> Callable[..., None]:
    """`evproc_pool.testing.assert_equal_outcomes`: handlers do the same in a pool and without."""
    return comparing.assert_equal_outcomes
