"""A worker dies: only the event that was running is charged, and the pool goes on."""

from __future__ import annotations

import os
import pickle
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, cast

import psutil
import pytest

from evproc import Event, StopProcessing, want
from evproc_pool import PoolProcessor, WorkerLostError
from evproc_pool.coordinator.engine import Engine
from evproc_pool.core.scheduler import Scheduler
from evproc_pool.protocol.status_words import SLOW_SECONDS
from evproc_pool.testing import worker_pids
from evproc_pool.worker import reporter
from tests.support import actions
from tests.support.actions import Do
from tests.support.helpers import (
    PATIENCE_SECONDS,
    ROOT,
    Background,
    Gate,
    close_in_time,
    error_of,
    register_all,
    still_alive,
    warm,
)
from tests.support.sizes import BARS

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")

_DEATHS: list[tuple[Event, int, str]] = [
    (Do("leave", 3), 3, "exit code 3"),
    (Do("leave", 0), 0, "exit code 0"),
    (Do("signalled", signal.SIGKILL), -9, "SIGKILL"),
    (Do("signalled", signal.SIGALRM), -14, "SIGALRM"),
    (Do("crash"), -11, "SIGSEGV"),
]


@pytest.mark.parametrize(
    ("ev", "exitcode", "text"), _DEATHS, ids=["exit", "exit 0", "kill", "alarm", "crash"]
)
def test_only_the_running_event_fails(
    pool: PoolProcessor, ev: Event, exitcode: int, text: str
) -> None:
    events = [Do("stop", place) for place in range(100)]
    values = pool.process_many([*events[:50], ev, *events[50:]], return_exceptions=True)
    error = values.pop(50)
    assert values == list(range(100))
    assert isinstance(error, WorkerLostError)
    assert error.exitcode == exitcode
    assert error.handler == "act"
    assert error.attempt == 1
    assert "'do' (tests.support.actions.Do: Do(" in error.event
    for part in ("handler 'act'", error.event, text, "worker"):
        assert part in str(error)
    # the pool goes on, with as many workers as before
    assert pool.process_many([Do("stop", 1)] * 5) == [1] * 5
    assert len(warm(pool)) == 2


class _Busy(Event):
    """Takes five milliseconds of CPU time."""

    name = "busy"

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@want("busy")
def _be_busy(proc: Any, ev: _Busy) -> None:
    end = time.thread_time() + 0.005
    while time.thread_time() < end:
        pass
    raise StopProcessing(ev.number)


@pytest.mark.skipif(not BARS, reason="looks at the clock")
@pytest.mark.parametrize(("death", "exitcode", "text"), [_DEATHS[0], _DEATHS[2], _DEATHS[4]])
def test_a_death_costs_little_time(
    pool: PoolProcessor, death: Event, exitcode: int, text: str
) -> None:
    pool.register(_be_busy)
    warm(pool)

    def seconds(events: list[Event]) -> float:
        begin = time.perf_counter()
        values = pool.process_many(events, return_exceptions=True)
        took = time.perf_counter() - begin
        errors = [value for value in values if isinstance(value, WorkerLostError)]
        assert len(errors) == sum(each is death for each in events)
        assert [value for value in values if value not in errors] == list(range(200))
        assert all(error.exitcode == exitcode and text in str(error) for error in errors)
        return took

    busy: list[Event] = [_Busy(number) for number in range(200)]
    ratios = []
    for _ in range(5):
        warm(pool)
        without = seconds(busy)
        ratios.append(seconds([*busy[:100], death, *busy[100:]]) / without)
    assert statistics.median(ratios) < 1.3, ratios


def test_each_of_many_deaths_is_charged_to_the_event_that_ran(pool: PoolProcessor) -> None:
    events: list[Event] = []
    for place in range(60):
        events.append(Do("leave", place) if place % 12 == 5 else Do("stop", place))
    values = pool.process_many(events, return_exceptions=True)
    for place, value in enumerate(values):
        if place % 12 == 5:
            assert isinstance(value, WorkerLostError)
            assert value.exitcode == place
        else:
            assert value == place


def test_a_follow_up_that_kills_ends_its_cascade_only(pool: PoolProcessor) -> None:
    bad = Do("follow", Do("nothing"), Do("leave", 7), Do("stop", "never"))
    good = Do("follow", Do("nothing"), Do("stop", "good"))
    values = pool.process_many([good, bad, good], return_exceptions=True)
    assert [values[0], values[2]] == ["good", "good"]
    assert isinstance(values[1], WorkerLostError)


def test_without_return_exceptions_the_loss_is_raised_and_what_was_before_is_done(
    pool: PoolProcessor, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    events = [Do("log", str(log), str(place)) for place in range(30)]
    with pytest.raises(WorkerLostError):
        pool.process_many([*events, Do("leave", 3), Do("nothing")])
    assert set(log.read_text().split()) == {str(place) for place in range(30)}


def test_what_has_run_to_its_end_is_not_run_again(pool: PoolProcessor, tmp_path: Path) -> None:
    # quick events share a batch with the one that kills, and are over before it begins
    log = tmp_path / "log"
    warm(pool)
    pool.process_many([Do("nothing")] * 500)
    events: list[Event] = [Do("log", str(log), str(place)) for place in range(40)]
    events[30:30] = [Do("leave", 3)]
    values = pool.process_many(events, return_exceptions=True)
    assert [type(value) for value in values if value is not None] == [WorkerLostError]
    assert sorted(log.read_text().split(), key=int) == [str(place) for place in range(40)]


def test_a_cascade_that_waits_in_a_dead_worker_is_not_run_again_from_its_root(
    pool: PoolProcessor, tmp_path: Path
) -> None:
    log = str(tmp_path / "log")
    cascades: list[Event] = [
        Do("log_and_follow", log, f"root {number}", Do("log", log, f"leaf {number}"))
        for number in range(5)
    ]
    values = pool.process_many(
        [*cascades, *[Do("follow", Do("leave", 3)) for _ in range(3)]], return_exceptions=True
    )
    assert values[:5] == [None] * 5
    assert {type(value) for value in values[5:]} == {WorkerLostError}
    lines = (tmp_path / "log").read_text().splitlines()
    for number in range(5):
        assert lines.count(f"root {number}") == 1
        assert lines.index(f"root {number}") < lines.index(f"leaf {number}")


@pytest.mark.parametrize("killed", [1, 2])
def test_a_worker_that_dies_while_idle_costs_nothing(pool: PoolProcessor, killed: int) -> None:
    workers = [psutil.Process(pid) for pid in warm(pool)]
    for worker in workers[:killed]:
        worker.kill()
    assert not still_alive(workers[:killed])
    assert pool.process_many([Do("stop", place) for place in range(50)]) == list(range(50))
    assert len(warm(pool)) == 2


def test_a_worker_killed_from_outside_charges_the_event_it_is_at(
    pool: PoolProcessor, gate: Gate
) -> None:
    warm(pool)
    with Background(lambda: pool.process(Do("wait_at", gate.address))) as call:
        os.kill(gate.arrival().pid, signal.SIGKILL)
        error = call.error()
    assert isinstance(error, WorkerLostError)
    assert error.exitcode == -signal.SIGKILL
    assert pool.process(Do("stop", 1)) == 1


def test_an_event_that_kills_where_it_is_unpickled_fails_alone(pool: PoolProcessor) -> None:
    events: list[Event] = [Do("stop", place) for place in range(20)]
    events[10:10] = [actions.KillsWhereItLoads()]
    values = pool.process_many(events, return_exceptions=True)
    error = values.pop(10)
    assert values == list(range(20))
    assert isinstance(error, WorkerLostError)
    assert error.exitcode == 9
    assert error.handler is None
    assert "KillsWhereItLoads" in error.event
    assert pool.process(Do("stop", 1)) == 1


def test_a_value_that_kills_where_it_is_pickled_fails_alone(pool: PoolProcessor) -> None:
    events: list[Event] = [Do("stop", place) for place in range(20)]
    events[10:10] = [Do("call", actions.KillsWhereItIsPickled)]
    values = pool.process_many(events, return_exceptions=True)
    error = values.pop(10)
    assert values == list(range(20))
    assert isinstance(error, WorkerLostError)
    assert error.exitcode == 8


class _Cut(Event):
    name = "cut"

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path


@want("cut")
def _cut(proc: Any, ev: _Cut) -> None:
    """Closes what is not its own, so that the worker cannot send the value."""
    actions.log(ev.path, "ran")
    os.closerange(3, 256)
    raise StopProcessing(1)


@pytest.mark.parametrize("call", ["process", "submit"])
def test_an_event_whose_result_cannot_be_sent_is_not_run_again(call: str, tmp_path: Path) -> None:
    path = tmp_path / "log"
    with PoolProcessor(workers=1) as pool:
        register_all(pool, [_cut, actions.act])
        ev = _Cut(str(path))
        error = error_of(
            lambda: pool.process(ev) if call == "process" else pool.submit(ev).result()
        )
        assert pool.process(Do("stop", 1)) == 1
    assert isinstance(error, WorkerLostError)
    assert "while it sent what event 'cut'" in str(error)
    assert path.read_text("ascii") == "ran\n"


def test_a_future_fails_with_its_worker_and_the_others_go_on(pool: PoolProcessor) -> None:
    warm(pool)
    bad = pool.submit(Do("leave", 3))
    others = [pool.submit(Do("stop", place)) for place in range(50)]
    assert isinstance(bad.exception(PATIENCE_SECONDS), WorkerLostError)
    assert [future.result(PATIENCE_SECONDS) for future in others] == list(range(50))


def test_futures_that_wait_in_a_worker_survive_its_death(
    one_worker: PoolProcessor, gate: Gate
) -> None:
    running = one_worker.submit(Do("wait_at", gate.address))
    arrival = gate.arrival()
    # these are sent to the only worker, or wait for it
    waiting = [one_worker.submit(Do("stop", place)) for place in range(5)]
    os.kill(arrival.pid, signal.SIGKILL)
    assert isinstance(running.exception(PATIENCE_SECONDS), WorkerLostError)
    assert [future.result(PATIENCE_SECONDS) for future in waiting] == list(range(5))


def test_a_cancelled_future_stays_cancelled_when_its_worker_dies(
    one_worker: PoolProcessor, gate: Gate
) -> None:
    running = one_worker.submit(Do("wait_at", gate.address))
    arrival = gate.arrival()
    waiting = [one_worker.submit(Do("stop", place)) for place in range(600)]
    cancelled = [future for future in waiting if future.cancel()]
    assert cancelled  # the window of one worker is smaller than that
    os.kill(arrival.pid, signal.SIGKILL)
    assert isinstance(running.exception(PATIENCE_SECONDS), WorkerLostError)
    for place, future in enumerate(waiting):
        if future in cancelled:
            assert future.cancelled()
        else:
            assert future.result(PATIENCE_SECONDS) == place


@pytest.mark.parametrize("method", ["forkserver", "spawn", "fork"])
@pytest.mark.filterwarnings(
    # from Python 3.12 on; other tests may have left threads in native libraries
    "ignore:This process .* is multi-threaded:DeprecationWarning"
)
def test_a_death_is_noticed_though_a_child_of_the_worker_lives_on(method: str, gate: Gate) -> None:
    pool = PoolProcessor(workers=1, mp_context=method)
    register_all(pool, [actions.act])
    with Background(lambda: pool.process(Do("leave_a_child_behind_and_die", gate.address))) as call:
        child = psutil.Process(gate.arrival().pid)
        # the child holds whatever the worker held, until the gate opens
        error = call.error()
        gate.close()
        child.wait(PATIENCE_SECONDS)
    close_in_time(pool)
    assert isinstance(error, WorkerLostError), "nobody noticed"
    assert error.exitcode == 5


def test_the_error_of_a_lost_worker_says_what_to_do(pool: PoolProcessor) -> None:
    hints = {
        Do("leave", 3): "ended the process",
        Do("signalled", signal.SIGKILL): "memory",
        Do("crash"): "faulthandler",
        Do("signalled", signal.SIGALRM): "outside",
    }
    for ev, hint in hints.items():
        assert hint in str(error_of(lambda: pool.process(ev)))  # noqa: B023 - called at once


def test_a_replacement_has_the_same_handlers(pool: PoolProcessor) -> None:
    before = warm(pool)
    error_of(lambda: pool.process(Do("leave", 1)))
    assert pool.process(actions.Nested(5)) == ("nested", 5)
    after = warm(pool)
    assert len(before & after) == 1
    assert set(worker_pids(pool)) == after


class Bomb(Event):
    """Ends a worker that pickles it."""

    name = "bomb"

    def __reduce__(self) -> Any:
        if actions.in_worker():
            os._exit(5)
        return Bomb, ()


class Light(Event):
    name = "light"


@want("light")
def light(proc: Any, ev: Any) -> list[Event]:
    return [Bomb()]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_follow_up_that_kills_whoever_sends_it_is_given_up(workers: int) -> None:
    events: list[Event] = [Do("stop", place) for place in range(20)]
    events[7] = Light()
    pool = PoolProcessor(workers)
    register_all(pool, [actions.act, light])
    with pool:
        values = pool.process_many(events, return_exceptions=True)
        assert pool.process_many([Do("stop", 1)] * 5) == [1] * 5
    error = values.pop(7)
    assert isinstance(error, WorkerLostError)
    assert error.exitcode == 5
    assert "while it sent what event 'light'" in str(error)
    assert values == [place for place in range(20) if place != 7]


class Give(Event):
    name = "give"

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class Given(Give):
    """Ends a worker that pickles the one of number 40."""

    name = "given"

    def __reduce__(self) -> Any:
        if self.number == 40 and actions.in_worker():
            os._exit(7)
        return Given, (self.number,)


@want("give")
def give(proc: Any, ev: Any) -> list[Event]:
    return [Given(ev.number)]


@want("given")
def given(proc: Any, ev: Any) -> None:
    raise StopProcessing(ev.number)


@pytest.mark.parametrize("workers", [1, 2])
def test_of_many_that_are_sent_together_only_the_one_that_kills_is_charged(workers: int) -> None:
    pool = PoolProcessor(workers)
    register_all(pool, [give, given])
    with pool:
        pool.process_many([Give(number) for number in range(100, 400)])  # batches are large now
        values = pool.process_many([Give(number) for number in range(100)], return_exceptions=True)
    assert isinstance(values.pop(40), WorkerLostError)
    assert values == [number for number in range(100) if number != 40]


class Mixed(Event):
    """One of three kinds, which logs that it was run."""

    name = "mixed"

    def __init__(self, kind: str, number: int, log: str) -> None:
        super().__init__()
        self.kind = kind
        self.number = number
        self.log = log


@want("mixed")
def run_mixed(proc: Any, ev: Mixed) -> list[Event] | None:
    with open(ev.log, "a") as log:  # noqa: PTH123 - the time that it takes is to be small
        log.write(f"{ev.kind}\n")
    if ev.kind == "slow":
        time.sleep(5 * SLOW_SECONDS)
    if ev.kind == "long":
        time.sleep(PATIENCE_SECONDS)
    return [Bomb()] if ev.kind == "bomb" else None


@pytest.mark.parametrize("workers", [1, 2])
def test_a_slow_event_that_is_over_is_not_run_again_for_what_was_before_it(
    workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # or else a worker may die of the bomb while the slow one runs
    monkeypatch.setattr(Scheduler, "reportable", ())
    log = str(tmp_path / "log")
    pool = PoolProcessor(workers)
    register_all(pool, [run_mixed])
    with pool:
        # batches are large now
        pool.process_many([Mixed("quick", number, log) for number in range(300)])
        events = [Mixed("calm", number, log) for number in range(60)]
        events[20].kind, events[24].kind = "bomb", "slow"
        values = pool.process_many(events, return_exceptions=True)
    assert isinstance(values.pop(20), WorkerLostError)
    assert values == [None] * 59
    assert Path(log).read_text().split().count("slow") == 1


@pytest.mark.skipif(reporter.SIGNAL is None, reason="no worker is asked here")
def test_a_death_in_sending_what_is_over_beside_a_running_handler_says_so(tmp_path: Path) -> None:
    log = str(tmp_path / "log")
    with PoolProcessor(1) as pool:
        register_all(pool, [run_mixed])
        # batches are large now
        pool.process_many([Mixed("quick", number, log) for number in range(300)])
        events = [Mixed("calm", number, log) for number in range(6)]
        events[3].kind, events[5].kind = "bomb", "long"
        errors = [outcome.error for outcome in pool.stream(events)]
    beside, bomb = str(errors.pop(5)), errors.pop(3)
    assert errors == [None] * 4
    assert isinstance(bomb, WorkerLostError)
    assert "of event 'mixed'" in beside
    assert "while it sent what others had left behind" in beside
    assert Path(log).read_text().split().count("long") == 1


# --- its memory ---


def test_the_error_tells_how_much_memory_the_worker_had_when_last_seen(gate: Gate) -> None:
    with PoolProcessor(1) as pool:
        register_all(pool, [actions.act])
        (pid,) = warm(pool)
        future = pool.submit(Do("wait_at", gate.address))
        gate.arrival()
        coordinator = cast("Engine", pool._engine)._coordinator
        while not coordinator._deaths.memory_bytes:
            pass
        size_bytes = psutil.Process(pid).memory_info().rss
        os.kill(pid, signal.SIGKILL)
        error = future.exception(PATIENCE_SECONDS)
    assert isinstance(error, WorkerLostError)
    assert error.memory_bytes is not None
    assert size_bytes / 2 < error.memory_bytes < 2 * size_bytes
    assert f"it had {error.memory_bytes / 1e6:,.0f} MB of memory when last seen" in str(error)
    assert pickle.loads(pickle.dumps(error)).memory_bytes == error.memory_bytes


# --- the log ---


def test_deaths_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    with PoolProcessor(1) as pool, caplog.at_level("WARNING", "evproc_pool"):
        register_all(pool, [actions.act])
        error = error_of(lambda: pool.process(Do("leave", 3)))
        assert [record.getMessage() for record in caplog.records] == [str(error)]
        (pid,) = warm(pool)
        os.kill(pid, signal.SIGKILL)
        assert warm(pool) != {pid}
        (record,) = caplog.records[1:]
        assert f"(process {pid}) died between events, by signal SIGKILL" in record.getMessage()
        caplog.clear()
    assert not caplog.records  # that they end with the pool is no news


_LOSES_A_WORKER = """
import os
from evproc import Event, want
from evproc_pool import PoolProcessor, WorkerLostError

class Leave(Event):
    name = "leave"

@want("leave")
def leave(proc, ev):
    os._exit(3)

if __name__ == "__main__":
    with PoolProcessor(1) as pool:
        pool.register(leave)
        (value,) = pool.process_many([Leave()], return_exceptions=True)
        assert isinstance(value, WorkerLostError), value
"""


def test_without_logging_nothing_is_printed(tmp_path: Path) -> None:
    script = tmp_path / "loses.py"
    script.write_text(_LOSES_A_WORKER)
    done = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
