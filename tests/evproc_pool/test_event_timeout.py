"""Events that take too long: their worker is killed, they fail, and nothing else does."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from evproc import Event, StopProcessing, want
from evproc_pool import EventTimeoutError, PoolProcessor, WorkerLostError
from evproc_pool.core.event_limits import DwellTimes
from evproc_pool.core.supervisor_inputs import Seen
from evproc_pool.ipc.resources import StackDumps
from tests.support import actions
from tests.support.actions import Do
from tests.support.helpers import PATIENCE_SECONDS, register_all, still_alive
from tests.support.sizes import BARS

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs the words of progress")


# Long for a quick event, also where others keep the CPUs busy.
_LIMIT = 2.0


class Quick(Event):
    name = "quick"

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class Stuck(Event):
    name = "stuck"

    def __init__(self, path: str = "", *, is_deaf: bool = False, is_busy: bool = False) -> None:
        super().__init__()
        self.path = path
        self.is_deaf = is_deaf
        self.is_busy = is_busy


@want("quick")
def quick(proc: Any, ev: Any) -> None:
    raise StopProcessing(ev.number)


@want("stuck")
def get_stuck(proc: Any, ev: Any) -> None:
    if ev.is_deaf:
        signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))
    if ev.path:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
        Path(ev.path).write_text(str(child.pid), encoding="ascii")
    if ev.is_busy:
        going_round_in_circles()
    time.sleep(1000)


def going_round_in_circles() -> None:
    while True:
        pass


def pool_of(timeout: float, workers: int = 2, **options: Any) -> PoolProcessor:
    pool = PoolProcessor(workers, event_timeout=timeout, **options)
    register_all(pool, [quick, get_stuck, actions.act])
    return pool


def stuck_among(count: int, stuck: Stuck) -> list[Event]:
    events: list[Event] = [Quick(number) for number in range(count)]
    events[count // 2] = stuck
    return events


def test_an_event_that_takes_too_long_fails_and_the_others_do_not() -> None:
    with pool_of(_LIMIT) as pool:
        values = pool.process_many(stuck_among(200, Stuck(is_busy=True)), return_exceptions=True)
        error = values.pop(100)
        assert values == [number for number in range(200) if number != 100]
        # and the pool goes on
        assert pool.process_many([Quick(number) for number in range(50)]) == list(range(50))
    assert isinstance(error, EventTimeoutError)
    assert isinstance(error, TimeoutError)
    assert (error.handler, error.timeout, error.attempt) == ("get_stuck", _LIMIT, 1)
    assert error.event == "'stuck' (tests.evproc_pool.test_event_timeout.Stuck)"
    for part in ("'get_stuck'", error.event, f"event_timeout={_LIMIT:g}", "worker"):
        assert part in str(error)
    assert "going_round_in_circles" in error.stack
    assert any("going_round_in_circles" in note for note in error.__notes__)


def test_a_process_that_blocks_every_signal_is_killed_all_the_same() -> None:
    with pool_of(_LIMIT) as pool:
        [error] = pool.process_many([Stuck(is_deaf=True)], return_exceptions=True)
    assert isinstance(error, EventTimeoutError)
    assert error.stack == ""


def test_what_the_event_has_started_is_killed_as_well(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    with pool_of(2 * _LIMIT) as pool:
        [error] = pool.process_many([Stuck(str(path))], return_exceptions=True)
    assert isinstance(error, EventTimeoutError)
    pid = int(path.read_text(encoding="ascii"))
    with contextlib.suppress(psutil.NoSuchProcess):
        assert not still_alive([psutil.Process(pid)])


def test_several_at_once_are_each_charged_for_themselves() -> None:
    events: list[Event] = [Quick(number) for number in range(60)]
    for place in (3, 30, 31, 59):
        events[place] = Stuck()
    with pool_of(_LIMIT) as pool:
        values = pool.process_many(events, return_exceptions=True)
    for place, value in enumerate(values):
        if place in (3, 30, 31, 59):
            assert isinstance(value, EventTimeoutError)
        else:
            assert value == place


def test_a_follow_up_that_takes_too_long_ends_its_cascade_and_the_next_with_its_key_begins() -> (
    None
):
    events: list[Event] = [Do("follow", Stuck()), Quick(1), Do("follow", Quick(2))]
    with pool_of(_LIMIT) as pool:
        values = pool.process_many(events, return_exceptions=True, key=lambda ev: 1)
        future = pool.submit(Stuck())
        assert isinstance(future.exception(timeout=PATIENCE_SECONDS), EventTimeoutError)
    assert isinstance(values[0], EventTimeoutError)
    assert values[1:] == [1, 2]


def test_it_is_watched_also_where_events_come_more_slowly_than_they_are_processed() -> None:
    seen: list[int] = []

    def events() -> Iterator[Event]:
        yield Stuck()
        number = 0
        while not seen:
            number += 1
            yield Quick(number)

    with pool_of(_LIMIT) as pool:
        for outcome in pool.stream(events(), ordered=False):
            if outcome.error is not None:
                assert isinstance(outcome.error, EventTimeoutError)
                seen.append(outcome.index)
    assert seen == [0]


def test_without_return_exceptions_it_is_raised() -> None:
    with (
        pool_of(_LIMIT) as pool,
        pytest.raises(EventTimeoutError, match=f"event_timeout={_LIMIT:g}"),
    ):
        pool.process(Stuck())


def test_an_event_within_the_limit_is_left_alone_and_a_death_is_a_death() -> None:
    with pool_of(PATIENCE_SECONDS) as pool:
        values = pool.process_many([Quick(1), Do("leave", 3), Quick(2)], return_exceptions=True)
    assert [values[0], values[2]] == [1, 2]
    assert isinstance(values[1], WorkerLostError)


def test_a_crash_tells_its_stack() -> None:
    with pool_of(PATIENCE_SECONDS, 1) as pool:
        error = pool.process_many([Do("crash")], return_exceptions=True)[0]
    assert isinstance(error, WorkerLostError)
    assert error.exitcode == -signal.SIGSEGV
    assert "Segmentation fault" in error.stack
    assert "in crash" in error.stack


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (0, ValueError),
        (-1.5, ValueError),
        (float("inf"), ValueError),
        (float("nan"), ValueError),
        ("1", TypeError),
        (True, TypeError),
    ],
)
@pytest.mark.parametrize("which", ["event_timeout", "event_soft_timeout"])
def test_a_limit_is_a_positive_number_of_seconds(
    which: str, value: Any, kind: type[Exception]
) -> None:
    options: dict[str, Any] = {which: value}
    with pytest.raises(kind, match=which):
        PoolProcessor(**options)


# --- the pure part ---


class _SlowToPack(Event):
    name = "slow to pack"

    def __getstate__(self) -> dict[str, Any]:
        end = time.thread_time() + 0.004
        while time.thread_time() < end:
            pass
        return self.__dict__


class _Gives(Event):
    name = "gives"


@want("gives")
def give(proc: Any, ev: Event) -> list[Event]:
    return [_SlowToPack()]


def test_what_many_events_left_behind_may_take_as_long_as_all_of_them() -> None:
    # some fifty of them are packed together, and each for itself is far from the limit
    pool = PoolProcessor(1, event_timeout=_LIMIT / 2)
    register_all(pool, [give])
    with pool:
        outcomes = list(pool.stream([_Gives() for _ in range(300)]))
    assert [outcome.error for outcome in outcomes] == [None] * 300


class _HangsToPack(Event):
    name = "hangs to pack"

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def __reduce__(self) -> Any:
        if self.number == 1_500:
            time.sleep(1000)
        return _HangsToPack, (self.number,)


@want("quick")
def give_what_hangs(proc: Any, ev: Quick) -> list[Event]:
    return [_HangsToPack(ev.number)]


def test_what_hangs_in_packing_is_found_among_thousands() -> None:
    """In some twenty times the limit, not in as many as there are events in the batch."""
    pool = PoolProcessor(1, event_timeout=_LIMIT / 8)
    pool.register(give_what_hangs)
    with pool:
        pool.process_many([Quick(number) for number in range(1_000)])
        events = [Quick(number) for number in range(1_000, 3_000)]
        outcomes = list(pool.stream(events))
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    assert [outcome.index for outcome in failed] == [500]
    assert isinstance(failed[0].error, EventTimeoutError)


def _at(batch: int, position: int, packed: int = 0, *, runs_code: bool = True) -> Seen:
    return Seen(position, (batch, position, packed), runs_code=runs_code)


def test_a_stay_is_counted_from_the_first_look() -> None:
    stays = DwellTimes()
    assert stays.note(1, _at(1, 0), 10.0) == 0.0
    assert stays.note(1, _at(1, 0), 10.5) == 0.5
    assert stays.note(2, _at(1, 0), 11.0) == 0.0  # another worker
    assert stays.note(1, _at(1, 0), 12.0) == 2.0


@pytest.mark.parametrize("then", [_at(1, 1), _at(2, 0), _at(1, 0, 1), _at(1, 0, runs_code=False)])
def test_a_stay_ends_with_the_event(then: Seen) -> None:
    stays = DwellTimes()
    stays.note(1, _at(1, 0), 10.0)
    assert stays.note(1, then, 11.0) == 0.0


def test_a_stay_that_is_forgotten_begins_anew() -> None:
    stays = DwellTimes()
    stays.note(1, _at(1, 0), 10.0)
    stays.forget(1)
    assert stays.note(1, _at(1, 0), 11.0) == 0.0
    stays.clear()
    assert stays.note(1, _at(1, 0), 12.0) == 0.0
    stays.forget(5)


@pytest.mark.skipif(not BARS, reason="looks at the clock")
@pytest.mark.parametrize("is_deaf", [False, True])
def test_it_is_told_within_twice_the_limit(is_deaf: bool) -> None:
    with pool_of(0.5) as pool:
        pool.process_many([Quick(number) for number in range(50)])
        begin = time.monotonic()
        error = pool.process_many([Stuck(is_deaf=is_deaf)], return_exceptions=True)[0]
        seconds = time.monotonic() - begin
    assert isinstance(error, EventTimeoutError)
    assert 0.5 <= seconds <= 1.0


@pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")
def test_a_worker_that_dies_of_the_request_for_its_stacks_was_stuck(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def ask(_: StackDumps, send_signal: Any) -> str:
        send_signal(signal.SIGSEGV)  # as if it had read the stacks of a running thread
        assert send_signal.__self__.wait(PATIENCE_SECONDS)  # the worker's process
        return ""

    monkeypatch.setattr(StackDumps, "ask", ask)
    with pool_of(0.2, workers=1) as pool:
        (error,) = pool.process_many([Stuck()], return_exceptions=True)
    assert isinstance(error, EventTimeoutError)
    assert error.handler == "get_stuck"
