"""A pool over two agents, in threads, with worker processes, does what any pool does."""

from __future__ import annotations

from typing import Any

from evproc_pool import PoolProcessor
from evproc_pool.backends.promises import AGENTS
from evproc_pool.testing import Conformance
from tests.support.agents import ThreadCluster, pool_over


class TestAgents(Conformance):
    promises = AGENTS

    def make_pool(self, **options: Any) -> PoolProcessor:
        return pool_over(ThreadCluster([1, 1]), **options)
