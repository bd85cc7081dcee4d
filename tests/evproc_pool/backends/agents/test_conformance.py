"""A pool over two agents, in threads, with worker processes, does what any pool does."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from evproc_pool import PoolProcessor
from evproc_pool.backends.promises import AGENTS
from evproc_pool.testing import Conformance
from tests.support.agents import ThreadCluster, pool_over
from tests.support.helpers import wait_until


class TestAgents(Conformance):
    promises = AGENTS

    def make_pool(self, **options: Any) -> PoolProcessor:
        self._cluster = ThreadCluster([1, 1])
        return pool_over(self._cluster, **options)

    @contextlib.contextmanager
    def replaced_workers(self) -> Iterator[None]:
        old = list(self._cluster.links)
        for _ in old:
            self._cluster.add(1)
        for each in old:
            each.retire()
        yield
        wait_until(lambda: all(each.has_ended for each in old), "the agents that left have ended")
