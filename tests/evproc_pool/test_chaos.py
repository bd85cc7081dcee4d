"""Workers are killed at random: nothing is lost, nothing is run twice, no innocent is charged."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from evproc import Event, StopProcessing, want
from evproc_pool import Outcome, PoolProcessor, WorkerLostError
from evproc_pool.testing import abort, exit_process, kill, segfault
from tests.support import actions
from tests.support.helpers import Background, register_all
from tests.support.sizes import BARS

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")

_EVENTS = 3000 if BARS else 400
_SEEDS = 20 if BARS else 1
_POISON_EVERY = 97
_KILL_EVERY_SECONDS = 0.150
_KILL_EVERY_OUTCOMES = 40
_TOIL_SECONDS = 0.002

#: How an event ends the process that it runs in.
_DEATHS = {each.__name__: each for each in (kill, segfault, abort, exit_process)}


class Toil(Event):
    name = "toil"

    def __init__(self, path: str, number: int, death: str = "", follow_ups: int = 0) -> None:
        super().__init__()
        self.path = path
        self.number = number
        self.death = death
        self.follow_ups = follow_ups


@want("toil")
def toil(proc: Any, ev: Any) -> list[Event] | None:
    key = f"{ev.number}.{ev.follow_ups}"
    actions.log(ev.path, f"begin {key} {os.getpid()}")
    end = time.thread_time() + _TOIL_SECONDS
    while time.thread_time() < end:
        pass
    if ev.death and not ev.follow_ups:
        _DEATHS[ev.death](ev)
    actions.log(ev.path, f"end {key}")
    if ev.follow_ups:
        return [Toil(ev.path, ev.number, ev.death, ev.follow_ups - 1)]
    raise StopProcessing(ev.number)


class _Killer:
    """Kills a worker now and then: every 150 ms, or without a clock every so many outcomes.

    With a clock, too, there is an outcome between two kills: where starting a worker takes longer
    than that, none would ever be ready.
    """

    def __init__(self, pool: PoolProcessor, rng: random.Random) -> None:
        self._pool = pool
        self._rng = rng
        self._has_killed_start = False
        self.kills = 0

    def kill(self) -> None:
        # the pool gives up after ten starts in a row that failed
        workers = [
            worker
            for worker in self._pool.statistics().workers
            if not (worker.state == "starting" and self._has_killed_start)
        ]
        # one may just have died by itself
        with contextlib.suppress(ProcessLookupError, IndexError):
            worker = self._rng.choice(workers)
            if worker.pid is not None:
                os.kill(worker.pid, signal.SIGKILL)
                self._has_killed_start = worker.state == "starting"
                self.kills += 1

    def collect(self, outcomes: Iterable[Outcome]) -> list[Outcome]:
        """The outcomes, with kills meanwhile."""
        over = threading.Event()

        def by_the_clock() -> None:
            known = 0
            while not over.wait(_KILL_EVERY_SECONDS):
                if len(collected) > known:
                    known = len(collected)
                    self.kill()

        collected: list[Outcome] = []
        with Background(by_the_clock if BARS else int):
            for number, outcome in enumerate(outcomes):
                collected.append(outcome)
                if not BARS and number % _KILL_EVERY_OUTCOMES == 0:
                    self.kill()
            over.set()
        return collected


@pytest.mark.parametrize("seed", range(_SEEDS))
@pytest.mark.parametrize("shape", ["roots", "cascades", "keys"])
def test_every_event_ends_once_whatever_dies(seed: int, shape: str, tmp_path: Path) -> None:
    rng = random.Random(seed)
    path = str(tmp_path / "log")
    depth = 2 if shape == "cascades" else 0
    count = _EVENTS // (depth + 1)
    events = [
        Toil(path, number, rng.choice(list(_DEATHS)) if number % _POISON_EVERY == 50 else "", depth)
        for number in range(count)
    ]
    pool = PoolProcessor(2, key=_last_digit if shape == "keys" else None)
    register_all(pool, [toil, actions.act])
    with pool:
        pool.process_many([actions.Do("nothing")] * 10)
        killer = _Killer(pool, rng)
        outcomes = killer.collect(pool.stream(events))
        # the pool works on
        assert pool.process_many([actions.Do("stop", 1)] * 5) == [1] * 5
    begun, ended = _read(path)
    lost = [outcome for outcome in outcomes if outcome.error is not None]
    assert [outcome.index for outcome in outcomes] == list(range(count))
    assert {type(outcome.error) for outcome in lost} <= {WorkerLostError}
    poisonous = {number for number, ev in enumerate(events) if ev.death}
    assert poisonous <= {outcome.index for outcome in lost}
    assert killer.kills > 0
    # each kill from outside costs one running event at the most
    assert len(lost) - len(poisonous) <= killer.kills
    # nothing is run again, whatever became of it
    assert set(begun.values()) == {1}
    for outcome in outcomes:
        last = f"{outcome.index}.0"
        if outcome.error is None:
            assert (outcome.value, ended[last]) == (outcome.index, 1)
        else:
            # it was running: in its handler, maybe before the first line that this writes
            is_begun = any(begun[f"{outcome.index}.{left}"] for left in range(depth + 1))
            assert is_begun or outcome.handler == "toil"
    if shape == "keys":
        _check_order(path)


def _last_digit(ev: Any) -> int:
    return int(getattr(ev, "number", 0) % 10)


def _read(path: str) -> tuple[Counter[str], Counter[str]]:
    begun: Counter[str] = Counter()
    ended: Counter[str] = Counter()
    for line in Path(path).read_text("ascii").splitlines():
        what, key, *_ = line.split()
        (begun if what == "begin" else ended)[key] += 1
    return begun, ended


def _check_order(path: str) -> None:
    last: dict[int, int] = {}
    for line in Path(path).read_text("ascii").splitlines():
        what, key, *_ = line.split()
        if what == "begin":
            number = int(key.split(".")[0])
            assert number > last.get(number % 10, -1)
            last[number % 10] = number


@pytest.mark.parametrize("death", _DEATHS)
def test_one_death_among_many_events_costs_one_event(death: str, tmp_path: Path) -> None:
    path = str(tmp_path / "log")
    events = [Toil(path, number) for number in range(200)]
    events[100] = Toil(path, 100, death)
    pool = PoolProcessor(2)
    register_all(pool, [toil])
    with pool:
        values = pool.process_many(events, return_exceptions=True)
    error = values.pop(100)
    assert isinstance(error, WorkerLostError)
    assert error.handler == "toil"
    assert values == [number for number in range(200) if number != 100]
    begun, _ = _read(path)
    assert set(begun.values()) == {1}
    assert len(begun) == 200
