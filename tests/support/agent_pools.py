"""What tests of pools on clusters of other engines share."""

from __future__ import annotations

from typing import Any

import evproc
from evproc_pool import PoolProcessor
from tests.support import programs
from tests.support.actions import Do
from tests.support.helpers import wait_until


def warm(pool: PoolProcessor, count: int = 2) -> set[int]:
    """Work until so many workers are ready; return their processes."""

    def are_ready() -> bool:
        pool.process_many([Do()] * 10 * count)
        engine = pool._engine
        return engine is not None and engine._coordinator._supervisor.scheduler.workers == count

    wait_until(are_ready, f"{count} workers are ready")
    assert pool._engine is not None
    return set(pool._engine.pids())


def play(program: programs.Program, pool: PoolProcessor, way: str) -> list[Any]:
    """Run a random program in a pool, in one of three ways; return what it came to."""
    log = programs.CallLog(program["log_path"])
    events = programs.root_events(program, evproc)
    for handler in programs.handlers(program, evproc, log):
        pool.register(handler)
    with pool:
        if way == "stream":
            values = [each.error or each.value for each in pool.stream(events)]
        else:
            key = None if way == "many" else _parity
            values = pool.process_many(events, return_exceptions=True, key=key)
    return programs.results(map(_outcome, values), log)


def _parity(ev: Any) -> int:
    return int(ev.root % 2)


def _outcome(value: Any) -> list[Any]:
    if isinstance(value, BaseException):
        return ["error", type(value).__name__, str(value.args)]
    return ["value", value]
