"""How much memory a system needs: run in an interpreter of its own, for each anew.

``python -m benchmarks.comparison.footprint load LABEL EVENTS`` prints, as JSON, what is
resident after a load; ``stream LABEL EVENTS FIRST`` by how much it grows while a
generator is streamed through, behind so many of its events.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
from collections.abc import Iterator
from contextlib import closing
from typing import Any, Final

import psutil

from benchmarks.comparison.catalogue import by_label
from benchmarks.comparison.hosts import check
from benchmarks.comparison.systems import System
from benchmarks.pool.handlers import Order, RollCall
from benchmarks.pool.loads import make_orders
from benchmarks.pool.processes import WORKERS

#: The chunk size, where there is one.
CHUNK: Final = 64

# Often enough to find what is there for a moment, seldom enough to cost nothing.
_LOOK_EVERY: Final = 1_000


def after_load(system: System, events: int) -> dict[str, Any]:
    """Resident bytes of this process, of each worker, and of all other processes."""
    check(system)
    system.run(make_orders(events), CHUNK)
    workers: set[int] = set()
    while len(workers) < WORKERS:
        workers.update(system.run([RollCall() for _ in range(2 * WORKERS)], 1))
    this = psutil.Process()
    children = {each.pid: each.memory_info().rss for each in this.children(recursive=True)}
    # Ray's workers need not be children of this process
    resident = [psutil.Process(pid).memory_info().rss for pid in sorted(workers)]
    return {
        "coordinator": this.memory_info().rss,
        "workers": resident,
        "others": sum(rss for pid, rss in children.items() if pid not in workers),
    }


def while_streaming(system: System, events: int, first: int) -> dict[str, Any]:
    """By how many resident bytes this process grows, at the most, behind the first events."""
    this = psutil.Process()
    check(system)
    values = system.stream(_orders(events), CHUNK)
    for _ in itertools.islice(values, first):
        pass
    before = most = this.memory_info().rss
    for number, _ in enumerate(values):
        if number % _LOOK_EVERY == 0:
            most = max(most, this.memory_info().rss)
    most = max(most, this.memory_info().rss)
    return {"grown": most - before, "before": before}


def _orders(count: int) -> Iterator[Order]:
    return (Order(number) for number in range(count))


def main(arguments: list[str]) -> None:
    """See above."""
    what, label, *numbers = arguments
    # the system's own noise must not stand in the answer
    answer = os.dup(1)
    os.dup2(2, 1)
    with closing(by_label(label)()) as system:
        measure = {"load": after_load, "stream": while_streaming}[what]
        found: dict[str, Any] = measure(system, *map(int, numbers))  # type: ignore[operator]
    os.write(answer, json.dumps(found).encode())


if __name__ == "__main__":
    main(sys.argv[1:])
