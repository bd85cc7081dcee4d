"""`max_retries` and `crash_limit`: what is run again, how often, and what waits for it."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from evproc import Event, StopProcessing, want
from evproc_pool import EventTimeoutError, Outcome, PoolProcessor, RemoteError, WorkerLostError
from evproc_pool.core.batches import Batch
from evproc_pool.core.inputs_and_effects import Result
from evproc_pool.core.retry_policy import Again, Pauses, RetryPolicy, Tried, attempt_of
from evproc_pool.core.worker_loads import WorkerLoads
from tests.support.helpers import notes_of, warm

#: Retries at once: what a pause is for is shown without waiting for one.
_AT_ONCE: Final = 0.0

_EVERYWHERE = pytest.mark.parametrize("workers", [0, 2])
_POSIX = pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")


class Flaky(Exception):
    """What a handler raises that may be tried again."""


class Task(Event):
    """Fails as often as it is told to, each time noted in a file.

    Args:
        log: The file, to which each attempt adds a line.
        label: What it notes.
        script: What the attempts do, by the names of `_do`; behind its end: nothing.
        follow_ups: What it returns when it is well.
    """

    name = "task"

    def __init__(
        self, log: Path, label: str, *script: str, follow_ups: tuple[Event, ...] = ()
    ) -> None:
        super().__init__()
        self.log = log
        self.label = label
        self.script = script
        self.follow_ups = follow_ups
        self.seen: list[str] = []


@want("task")
def note(proc: Any, ev: Task) -> Iterator[Event] | None:
    """The first handler: notes the attempt, and returns an event that must not count twice."""
    ev.seen.append("note")
    with ev.log.open("a") as log:
        print(ev.label, os.getpid(), file=log)
    return None


@want("task")
def act(proc: Any, ev: Task) -> tuple[Event, ...]:
    """The second one: does what the attempt is to do."""
    assert ev.seen == ["note"]  # a failed attempt leaves nothing behind in the event
    attempt = sum(line.split()[0] == ev.label for line in ev.log.read_text().splitlines())
    what = ev.script[attempt - 1] if attempt <= len(ev.script) else "well"
    _do(what, ev)
    return ev.follow_ups


def _do(what: str, ev: Task) -> None:
    match what:
        case "raise":
            raise Flaky(ev.label)
        case "raise locked":
            raise _Locked(ev.label)
        case "raise locked base":
            raise _LockedBase(ev.label)
        case "raise other":
            raise KeyError(ev.label)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "leave":
            os._exit(3)
        case "hang":
            while True:
                pass
        case "stop":
            raise StopProcessing(ev.label)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log"
    path.touch()
    return path


def _attempts(log: Path) -> Counter[str]:
    return Counter(line.split()[0] for line in log.read_text().splitlines())


def _order(log: Path) -> list[str]:
    return [line.split()[0] for line in log.read_text().splitlines()]


def _pool(workers: int, **arguments: Any) -> PoolProcessor:
    arguments = {"retry_exceptions": Flaky, "retry_backoff": _AT_ONCE, **arguments}
    pool = PoolProcessor(workers, **arguments)
    pool.register(note)
    pool.register(act)
    return pool


def _outcomes(pool: PoolProcessor, *events: Event, **arguments: Any) -> list[Outcome]:
    return list(pool.stream(events, **arguments))


# --- errors ---


@_EVERYWHERE
def test_an_event_that_fails_is_run_again_from_its_first_handler(workers: int, log: Path) -> None:
    events = [Task(log, str(number)) for number in range(20)]
    events[7] = Task(log, "7", "raise", "raise", "stop")
    with _pool(workers, max_retries=2) as pool:
        outcomes = _outcomes(pool, *events)
    assert [outcome.error for outcome in outcomes] == [None] * 20
    assert [outcome.attempts for outcome in outcomes] == [1] * 7 + [3] + [1] * 12
    assert outcomes[7].value == "7"
    assert outcomes[7].events == 1
    assert _attempts(log) == {str(number): 1 for number in range(20)} | {"7": 3}


@_EVERYWHERE
def test_it_is_given_up_after_its_retries(workers: int, log: Path) -> None:
    with _pool(workers, max_retries=2) as pool:
        (outcome,) = _outcomes(pool, Task(log, "a", *["raise"] * 9))
        values = pool.process_many([Task(log, "b", *["raise"] * 9)], return_exceptions=True)
        with pytest.raises(Flaky, match="c"):
            pool.process(Task(log, "c", *["raise"] * 9))
        assert isinstance(pool.submit(Task(log, "d", *["raise"] * 9)).exception(), Flaky)
    assert isinstance(outcome.error, Flaky)
    assert (outcome.attempts, outcome.handler, outcome.events) == (3, "act", 1)
    assert "evproc_pool: given up after 3 attempts" in notes_of(outcome.error)
    assert isinstance(values[0], Flaky)
    assert _attempts(log) == dict.fromkeys("abcd", 3)


@_EVERYWHERE
def test_only_what_is_asked_for_is_retried(workers: int, log: Path) -> None:
    with _pool(workers, max_retries=5) as pool:
        (outcome,) = _outcomes(pool, Task(log, "a", "raise", "raise other"))
    assert isinstance(outcome.error, KeyError)
    assert outcome.attempts == 2
    with _pool(workers, max_retries=5, retry_exceptions=(KeyError, Flaky)) as pool:
        (outcome,) = _outcomes(pool, Task(log, "b", "raise", "raise other"))
    assert (outcome.error, outcome.attempts) == (None, 3)
    with _pool(workers) as pool:
        (outcome,) = _outcomes(pool, Task(log, "c", "raise"))
    assert isinstance(outcome.error, Flaky)
    assert outcome.attempts == 1


@_EVERYWHERE
def test_what_stands_behind_it_in_its_cascade_waits(workers: int, log: Path) -> None:
    children = (
        Task(log, "first"),
        Task(log, "second", "raise", "raise", follow_ups=(Task(log, "fifth"),)),
        Task(log, "third"),
        Task(log, "fourth", "raise"),
    )
    with _pool(workers, max_retries=2) as pool:
        pool.process_many([Task(log, "warm") for _ in range(20)])  # so that they would go together
        log.write_text("")
        (outcome,) = _outcomes(pool, Task(log, "root", follow_ups=children))
    assert outcome.error is None
    assert (outcome.events, outcome.attempts) == (6, 3)
    names = ["root", "first", *["second"] * 3, "third", *["fourth"] * 2, "fifth"]
    assert _order(log) == names


@_EVERYWHERE
def test_roots_with_its_key_wait(workers: int, log: Path) -> None:
    events = [Task(log, "a", "raise", "raise"), Task(log, "b"), Task(log, "c", "raise")]
    with _pool(workers, max_retries=2, key=lambda ev: 1) as pool:
        pool.process_many(events)
    assert _order(log) == ["a", "a", "a", "b", "c", "c"]


@pytest.mark.parametrize("fails", ["root", "child"])
def test_in_an_unordered_cascade_nothing_waits(fails: str, log: Path) -> None:
    children = tuple(Task(log, str(number), *["raise"] * (number == 3)) for number in range(9))
    root = Task(log, "root", *["raise"] * (fails == "root"), follow_ups=children)
    with _pool(2, max_retries=1, ordering="unordered") as pool:
        (outcome,) = _outcomes(pool, root)
    assert outcome.error is None
    assert (outcome.events, outcome.attempts) == (10, 2)
    attempts = {str(number): 1 for number in range(9)} | {"root": 1, "3": 2}
    assert _attempts(log) == attempts | {"root": 1 + (fails == "root")}


@_EVERYWHERE
def test_the_event_comes_back_as_the_last_attempt_left_it(workers: int, log: Path) -> None:
    with _pool(workers, max_retries=1) as pool:
        task = Task(log, "a", "raise")
        (outcome,) = _outcomes(pool, task, return_events=True)
    assert outcome.event is task
    assert isinstance(outcome.processed, Task)
    assert outcome.processed.seen == ["note"]


class _Locked(ConnectionError):
    """Cannot be pickled, so that it comes as a `RemoteError`."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        self.lock = threading.Lock()


class _LockedBase(BaseException):
    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        self.lock = threading.Lock()


@_EVERYWHERE
@pytest.mark.parametrize(
    ("what", "exceptions", "attempts"),
    [
        ("raise locked", ConnectionError, 3),
        ("raise locked", KeyError, 1),
        ("raise locked base", Exception, 1),
        ("raise locked base", BaseException, 3),
    ],
)
def test_what_counts_is_what_the_handler_raised(
    workers: int, what: str, exceptions: type[BaseException], attempts: int, log: Path
) -> None:
    with _pool(workers, max_retries=2, retry_exceptions=exceptions) as pool:
        (outcome,) = _outcomes(pool, Task(log, "a", *[what] * 9))
    assert outcome.attempts == attempts
    assert isinstance(outcome.error, BaseException)


def test_who_waits_for_the_pool_s_own_error_gets_it(log: Path) -> None:
    with _pool(1, max_retries=2, retry_exceptions=RemoteError) as pool:
        (outcome,) = _outcomes(pool, Task(log, "a", *["raise locked base"] * 9))
    assert isinstance(outcome.error, RemoteError)
    assert outcome.attempts == 3


class _AsksTheClass(type):
    def __instancecheck__(cls, instance: object) -> bool:
        raise RuntimeError("is not to be asked")


class _Odd(Exception, metaclass=_AsksTheClass):
    pass


@_EVERYWHERE
def test_a_class_that_cannot_be_compared_retries_nothing(workers: int, log: Path) -> None:
    with _pool(workers, max_retries=2, retry_exceptions=_Odd) as pool:
        (outcome,) = _outcomes(pool, Task(log, "a", "raise"))
    assert isinstance(outcome.error, Flaky)
    assert outcome.attempts == 1


class _CannotBeRebuilt(Event):
    name = "cannot be rebuilt"
    runs = 0

    def __setstate__(self, state: object) -> None:
        raise KeyError("cannot be rebuilt")


@want("cannot be rebuilt")
def fail_once(proc: Any, ev: _CannotBeRebuilt) -> None:
    ev.runs += 1
    if ev.runs == 1:
        raise Flaky


def test_without_workers_an_event_that_cannot_be_rebuilt_is_run_as_it_is() -> None:
    with PoolProcessor(0, max_retries=1, retry_backoff=_AT_ONCE) as pool:
        pool.register(fail_once)
        (outcome,) = pool.stream([_CannotBeRebuilt()])
    assert (outcome.error, outcome.attempts) == (None, 2)


@_EVERYWHERE
def test_a_root_whose_cascade_failed_does_not_come_back(workers: int, log: Path) -> None:
    root = Task(log, "root", follow_ups=(Task(log, "child", "raise"),))
    with _pool(workers) as pool:
        (outcome,) = _outcomes(pool, root, return_events=True)
    assert isinstance(outcome.error, Flaky)
    assert outcome.processed is None


def test_other_keys_do_not_wait(log: Path) -> None:
    with _pool(2, max_retries=1, retry_backoff=3600, retry_backoff_max=3600) as pool:
        pool.process_many([Task(log, "warm") for _ in range(50)])
        first = [Task(log, "a", *["raise"] * (place == 0)) for place in range(100)]
        others = [Task(log, f"b{place}") for place in range(100)]
        stream = pool.stream([*first, *others], ordered=False, key=lambda ev: ev.label)
        ended = {next(stream).event.label for _ in range(100)}
        stream.close()
    assert ended == {task.label for task in others}


def test_a_stream_that_is_closed_does_not_wait_for_retries(log: Path) -> None:
    with _pool(1, max_retries=9, retry_backoff=3600, retry_backoff_max=3600) as pool:
        stream = pool.stream([Task(log, "a"), Task(log, "b", "raise")], buffersize=2)
        assert next(stream).error is None
        stream.close()
        while _attempts(log)["b"] < 1:
            pool.process(Task(log, "c"))
        # neither does what comes then
        assert pool.process(Task(log, "d", "stop")) == "d"
    assert _attempts(log)["b"] == 1


def test_after_the_first_failure_nothing_behind_it_is_retried(log: Path) -> None:
    events = [Task(log, "a", "raise other"), Task(log, "b", "raise")]
    with (
        _pool(1, max_retries=1, retry_backoff=3600, retry_backoff_max=3600) as pool,
        pytest.raises(KeyError),
    ):
        pool.process_many(events)
    assert _attempts(log)["b"] <= 1


# --- deaths ---


@_POSIX
@pytest.mark.parametrize("what", ["kill", "leave"])
def test_an_event_that_killed_a_worker_is_run_again_if_that_is_asked_for(
    what: str, log: Path
) -> None:
    events = [Task(log, str(number), *[what] * (number == 7)) for number in range(20)]
    with _pool(2, crash_limit=2) as pool:
        outcomes = _outcomes(pool, *events)
        assert len(warm(pool)) == 2
    assert [outcome.error for outcome in outcomes] == [None] * 20
    assert [outcome.attempts for outcome in outcomes] == [1] * 7 + [2] + [1] * 12
    assert _attempts(log) == {str(number): 1 for number in range(20)} | {"7": 2}


@_POSIX
def test_it_is_given_up_at_the_limit(log: Path) -> None:
    events = [Task(log, "poison", *["kill"] * 9), *(Task(log, str(n)) for n in range(5))]
    with _pool(2, crash_limit=3) as pool:
        outcome, *others = _outcomes(pool, *events)
    assert isinstance(outcome.error, WorkerLostError)
    assert (outcome.attempts, outcome.error.attempt) == (3, 3)
    assert "given up after 3 attempts" in str(outcome.error)
    assert [other.attempts for other in others] == [1] * 5
    assert _attempts(log)["poison"] == 3


class _Bomb(Event):
    """Kills every process but this one that rebuilds it."""

    name = "task"

    def __init__(self) -> None:
        super().__init__()
        self.home = os.getpid()

    def __setstate__(self, state: dict[str, Any]) -> None:
        if os.getpid() != state["home"]:
            os.kill(os.getpid(), signal.SIGKILL)


@_POSIX
@pytest.mark.parametrize("crash_limit", [1, 3])
def test_one_that_kills_in_unpickling_is_found_out_once(
    crash_limit: int, log: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with _pool(2, crash_limit=crash_limit) as pool, caplog.at_level("WARNING", "evproc_pool"):
        warm_up = [Task(log, "warm") for _ in range(20)]
        pool.process_many(warm_up)
        (outcome,) = _outcomes(pool, _Bomb())
    assert isinstance(outcome.error, WorkerLostError)
    assert outcome.attempts == crash_limit
    # once more than it is charged, since at first nobody knew which event it was
    assert len(caplog.records) == crash_limit + 1


@_POSIX
def test_deaths_and_errors_are_counted_apart(log: Path) -> None:
    script = ["raise", "kill", "raise", "kill"]
    with _pool(1, crash_limit=3, max_retries=2) as pool:
        (outcome,) = _outcomes(pool, Task(log, "a", *script))
    assert (outcome.error, outcome.attempts) == (None, 5)


@_POSIX
def test_order_holds_where_the_one_that_died_is_run_again(log: Path) -> None:
    children = (
        Task(log, "first", follow_ups=(Task(log, "fourth"),)),
        Task(log, "second", "kill"),
        Task(log, "third"),
    )
    with _pool(2, crash_limit=2) as pool:
        pool.process_many([Task(log, "warm") for _ in range(20)])
        log.write_text("")
        (outcome,) = _outcomes(pool, Task(log, "root", follow_ups=children))
    assert outcome.error is None
    order = _order(log)
    # what returned something that was not sent before the death may have to be run again
    once = [name for place, name in enumerate(order) if name not in order[:place]]
    assert once == ["root", "first", "second", "third", "fourth"]
    assert order.count("second") == 2
    assert order.index("third") > len(order) - order[::-1].index("second") - 1


@_POSIX
def test_an_event_that_takes_too_long_is_retried_where_that_is_asked_for(log: Path) -> None:
    with _pool(1, event_timeout=0.3, max_retries=1, retry_exceptions=EventTimeoutError) as pool:
        well, given_up = _outcomes(
            pool, Task(log, "a", "hang", "stop"), Task(log, "b", "hang", "hang")
        )
    assert (well.value, well.attempts) == ("a", 2)
    assert isinstance(given_up.error, EventTimeoutError)
    assert given_up.error.attempt == given_up.attempts == 2
    with _pool(1, event_timeout=0.3, max_retries=1, crash_limit=9) as pool:
        (outcome,) = _outcomes(pool, Task(log, "c", "hang"))
    assert isinstance(outcome.error, EventTimeoutError)
    assert outcome.attempts == 1
    assert "max_retries" in str(outcome.error)


# --- the rules ---


class _Plan:
    indices = (1, 2)


_PLAN: Final = _Plan()
_ERROR: Final = Result(error=Flaky(), handler="h")
_LOST: Final = Result(error=WorkerLostError("gone"), handler="h")
_LATE: Final = Result(error=EventTimeoutError("late"))


def test_by_default_nothing_is_run_again() -> None:
    policy = RetryPolicy()
    assert policy.again(_PLAN, _ERROR, has_died=False) is None
    assert policy.again(_PLAN, _LOST, has_died=True) is None
    assert policy.again(_PLAN, _LATE, has_died=True) is None


def test_an_event_with_tries_keeps_its_plan_and_its_count() -> None:
    policy = RetryPolicy(max_retries=1, crash_limit=2)
    first = policy.again(_PLAN, _ERROR, has_died=False)
    assert isinstance(first, Again)
    assert first.indices == ()
    assert first.has_to_pause
    assert first.tried == Tried(_PLAN, failures=1)
    assert first.tried.indices == (1, 2)
    second = policy.again(first.tried, _LOST, has_died=True)
    assert second is not None
    assert not second.has_to_pause
    assert [attempt_of(plan) for plan in (_PLAN, first.tried, second.tried)] == [1, 2, 3]
    assert policy.again(second.tried, _LOST, has_died=True) is None
    assert policy.again(second.tried, _ERROR, has_died=False) is None


def test_what_no_handler_raised_is_not_retried() -> None:
    policy = RetryPolicy(max_retries=9)
    assert policy.again(_PLAN, Result(error=Flaky()), has_died=False) is None


def test_a_handler_that_raises_the_pools_errors_has_killed_nobody() -> None:
    policy = RetryPolicy(max_retries=1, exceptions=(KeyError,), crash_limit=9)
    assert policy.again(_PLAN, _LOST, has_died=False) is None


@pytest.mark.parametrize("draw", [0.0, 0.5, 1.0])
def test_pauses_double_up_to_the_longest(draw: float) -> None:
    policy = RetryPolicy(backoff=0.5, backoff_max=3.0)
    whole = [policy.pause(failures, draw) / (1 + draw) * 2 for failures in (1, 2, 3, 4, 5, 10**6)]
    assert whole == pytest.approx([0.5, 1.0, 2.0, 3.0, 3.0, 3.0])
    assert RetryPolicy(backoff=0.0).pause(10**6, draw) == 0.0


def test_pauses_end_in_the_order_of_their_length() -> None:
    pauses = Pauses(RetryPolicy(backoff=1.0, backoff_max=100.0), random.Random(1).random)
    assert pauses.left(0.0) is None
    pauses.begin(1, 7, 0.0)  # 32 to 64 s
    pauses.begin(2, 1, 0.0)  # 0.5 to 1 s
    left = pauses.left(0.0)
    assert left is not None
    assert 0.5 <= left <= 1.0
    assert pauses.over(0.4) == []
    assert pauses.over(1.0) == [2]
    assert pauses.over(1.0) == []
    assert pauses.left(100.0) == 0.0
    assert pauses.over(100.0) == [1]


def test_pauses_that_were_given_up_are_forgotten() -> None:
    pauses = Pauses(RetryPolicy(backoff=1.0), random.Random(1).random)
    for token in range(1000):
        pauses.begin(token, 1, 0.0)
    pauses.forget_others({5, 500})
    assert sorted(pauses.over(1.0)) == [5, 500]


def test_no_worker_gets_more_until_one_is_idle_that_is_needed_alone() -> None:
    loads = WorkerLoads()
    batches = {worker: Batch(None) for worker in (1, 2)}
    for worker, batch in batches.items():
        loads.add(worker)
        loads.push(worker, batch)
    assert loads.roomiest(idle=False) == 1
    assert loads.reserve() is None
    assert loads.roomiest(idle=False) is None
    loads.pop_first(2)
    assert loads.reserve() == 2
    alone = Batch(None)
    alone.is_alone = True
    loads.push(2, alone)
    loads.release()
    assert loads.roomiest(idle=False) == 1
    loads.push(1, Batch(None))
    loads.retire(1)
    assert loads.roomiest(idle=False) is None  # beside the one that is alone nothing is sent


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"max_retries": -1}, ValueError, "max_retries must be at least 0, and is -1"),
        ({"max_retries": True}, TypeError, "max_retries is a whole number, not True"),
        ({"max_retries": 1.0}, TypeError, "max_retries is a whole number, not 1.0"),
        ({"crash_limit": 0}, ValueError, "crash_limit must be at least 1, and is 0"),
        ({"retry_backoff": -1}, ValueError, "retry_backoff must not be negative"),
        ({"retry_backoff_max": float("nan")}, ValueError, "retry_backoff_max must not be"),
        ({"retry_backoff": "1"}, TypeError, "retry_backoff is a number of seconds"),
        ({"retry_exceptions": 3}, TypeError, "retry_exceptions is an exception class or several"),
        ({"retry_exceptions": [int]}, TypeError, "and <class 'int'> is none"),
        ({"retry_exceptions": "OSError"}, TypeError, "and 'OSError' is none"),
    ],
)
def test_arguments_that_make_no_sense(
    arguments: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        PoolProcessor(1, **arguments)
