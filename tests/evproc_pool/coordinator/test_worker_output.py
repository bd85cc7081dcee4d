"""Rests of the coordinator while workers log."""

from __future__ import annotations

import logging

from evproc_pool.coordinator.worker_output import WorkerOutput
from evproc_pool.protocol import messages
from evproc_pool.protocol.log_records import dump_record

_RECORD = dump_record(logging.makeLogRecord({"name": "tests.rests", "levelno": 10}), {})


def test_rests_are_short_while_workers_log_much() -> None:
    output = WorkerOutput()
    assert output.limit_rest(0.1, 5.0) == 0.1
    for _ in range(10):
        output.take(messages.LOGGED, _RECORD)
    assert output.limit_rest(0.1, 5.0) == 0.1
    for _ in range(100):
        output.take(messages.LOGGED, _RECORD)
    assert output.limit_rest(0.1, 5.0) < 0.01
    assert output.limit_rest(0.001, 5.5) == 0.001
    assert output.limit_rest(0.1, 5.9) < 0.01
    assert output.limit_rest(0.1, 6.1) == 0.1
