"""The soft timeout is raised in the handler that takes too long, and nowhere else.

None of these tests looks at the clock: a handler that would never end ends by the soft
timeout alone, or else the test by the suite's own limit.
"""

from __future__ import annotations

import ast
import asyncio
import compileall
import contextlib
import copyreg
import ctypes
import inspect
import itertools
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
import types
from collections.abc import Iterable, Iterator
from math import inf
from pathlib import Path
from typing import Any

import pytest

from evproc import Event, StopProcessing, requires, want
from evproc_pool import EventTimeoutError, PoolError, PoolProcessor, SoftTimeoutError
from evproc_pool.ipc.resources import StatusMemory
from evproc_pool.protocol import status_words
from evproc_pool.protocol.status_words import WorkerStatus
from evproc_pool.worker import loop, soft_timeout
from evproc_pool.worker.soft_timeout import SIGNAL, SoftTimeout
from tests.support import actions
from tests.support.actions import Do
from tests.support.helpers import PATIENCE_SECONDS, ROOT, notes_of, pids, register_all, warm
from tests.support.sizes import BARS

pytestmark = pytest.mark.skipif(SIGNAL is None, reason="there is no soft timeout here")

# Long for a quick event, also where others keep the CPUs busy; the longer one where there
# are many of them.
_SOON = 0.5
_LONG = 2.0


class Quick(Event):
    name = "quick"

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@want("quick")
def quick(proc: Any, ev: Any) -> None:
    raise StopProcessing(ev.number)


class Slow(Event):
    """An event that never ends by itself, in the way that `how` says."""

    name = "slow"

    def __init__(self, how: str, path: str = "") -> None:
        super().__init__()
        self.how = how
        self.path = path


@want("slow")
def be_slow(proc: Any, ev: Any) -> Iterable[Event] | None:
    way = _WAYS[ev.how]
    returned: Iterable[Event] | None = way(ev)
    return returned


def going_round_in_circles(_: Any) -> None:
    while True:
        pass


def sleeping(_: Any) -> None:
    while True:
        time.sleep(1000)


def trying_again(_: Any) -> None:
    while True:
        with contextlib.suppress(OSError):
            time.sleep(1000)


def waiting_for_a_pipe(_: Any) -> None:
    reads, writes = os.pipe()
    try:
        os.read(reads, 1)
    finally:
        os.close(reads)
        os.close(writes)


def waiting_in_a_loop_of_asyncio(_: Any) -> None:
    asyncio.run(asyncio.sleep(1000))


def waiting_for_a_lock(_: Any) -> None:
    threading.Event().wait()


def waiting_for_a_pool(_: Any) -> None:
    with PoolProcessor(1) as inner:
        inner.register(be_slow)
        inner.process(Slow("sleeping"))


def generating(_: Any) -> Iterator[Event]:
    yield Quick(1)
    while True:
        pass


def giving_for_ever(_: Any) -> Iterable[Event]:
    # what is interrupted is the worker's own frame, which takes them
    return itertools.repeat(Quick(1))


def catching(_: Any) -> None:
    try:
        going_round_in_circles(_)
    except SoftTimeoutError as error:
        raise StopProcessing((os.getpid(), error.event, error.handler, error.timeout)) from None


def catching_and_following(_: Any) -> list[Event]:
    try:
        going_round_in_circles(_)
    except SoftTimeoutError:
        return [Quick(3)]
    raise AssertionError


def cleaning_up(ev: Any) -> None:
    try:
        sleeping(ev)
    finally:
        Path(ev.path).write_text("cleaned up", encoding="ascii")


def swallowing(ev: Any) -> None:
    for number in range(1000):
        try:
            sleeping(ev)
        except SoftTimeoutError:
            actions.log(ev.path, str(number))


def deaf(ev: Any) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals) | {SIGNAL or 0})
    sleeping(ev)


def counting_in_native_code(_: Any) -> None:
    sum(itertools.repeat(0))


def forking(ev: Any) -> None:
    """Leaves it to the child, which shares all that it has, to say how it ended."""
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(writes)
            os.read(reads, 1)  # until the parent has closed it
            os._exit(7)
        finally:
            os._exit(8)
    try:
        going_round_in_circles(ev)
    except SoftTimeoutError:
        # The signal goes to one process; here to the other one as well, and the word that
        # they share still has the event. The parent itself is not to hear it once more.
        signal.pthread_sigmask(signal.SIG_BLOCK, [SIGNAL or 0])
        words = _taker().__self__._words
        place = words[status_words.PLACE] >> status_words.HANDLER_BITS
        words[status_words.STRUCK] = status_words.event_at(words[status_words.BATCH], place)
        os.kill(child, SIGNAL or 0)
        os.close(writes)
        os.close(reads)
        _, status = os.waitpid(child, 0)
        assert words[status_words.STRUCK], "the child took it"
        words[status_words.STRUCK] = 0
        raise StopProcessing(os.waitstatus_to_exitcode(status)) from None


_WAYS: dict[str, Any] = {
    function.__name__: function
    for function in (
        going_round_in_circles,
        sleeping,
        trying_again,
        waiting_for_a_pipe,
        waiting_for_a_lock,
        waiting_for_a_pool,
        waiting_in_a_loop_of_asyncio,
        generating,
        giving_for_ever,
        catching,
        catching_and_following,
        cleaning_up,
        swallowing,
        deaf,
        counting_in_native_code,
        forking,
    )
}


def pool_of(soft: float, workers: int = 1, **options: Any) -> PoolProcessor:
    pool = PoolProcessor(workers, event_soft_timeout=soft, **options)
    register_all(pool, [quick, be_slow, actions.act])
    return pool


def one(pool: PoolProcessor, event: Event) -> Any:
    return pool.process_many([event], return_exceptions=True)[0]


# --- where it strikes ---


@pytest.mark.parametrize(
    "how",
    [
        "going_round_in_circles",
        "sleeping",
        "trying_again",
        "waiting_for_a_pipe",
        "waiting_for_a_lock",
        "waiting_for_a_pool",
        "waiting_in_a_loop_of_asyncio",
        "generating",
        "giving_for_ever",
    ],
)
def test_what_never_ends_is_ended_and_the_worker_stays(how: str) -> None:
    with pool_of(_SOON) as pool:
        before = warm(pool)
        error = one(pool, Slow(how))
        assert pids(pool) == before
    assert type(error) is SoftTimeoutError
    assert isinstance(error, PoolError)
    event = "'slow' (tests.evproc_pool.worker.test_soft_timeout.Slow)"
    assert (error.event, error.handler, error.timeout) == (event, "be_slow", _SOON)
    for part in (event, "'be_slow'", f"event_soft_timeout={_SOON:g}"):
        assert part in str(error)
    assert "raised by handler 'be_slow'" in notes_of(error)
    if how != "giving_for_ever":  # it has returned by then
        assert how in str(error.__cause__)


def test_a_handler_may_catch_it_and_give_what_it_has() -> None:
    with pool_of(_SOON) as pool:
        [pid] = warm(pool)
        there, event, handler, timeout = pool.process(Slow("catching"))
        assert pids(pool) == {pid} == {there}
    assert event == "'slow' (tests.evproc_pool.worker.test_soft_timeout.Slow)"
    assert (handler, timeout) == ("be_slow", _SOON)


def test_it_may_go_on_with_follow_ups_and_the_cascade_does() -> None:
    with pool_of(_SOON) as pool:
        assert pool.process(Slow("catching_and_following")) == 3


def test_a_handler_cleans_up(tmp_path: Path) -> None:
    path = tmp_path / "cleaned"
    with pool_of(_SOON) as pool:
        assert isinstance(one(pool, Slow("cleaning_up", str(path))), SoftTimeoutError)
    assert path.read_text(encoding="ascii") == "cleaned up"


def test_each_handler_of_an_event_may_be_the_one() -> None:
    pool = PoolProcessor(1, event_soft_timeout=_SOON)
    register_all(pool, [_first, _second, _third])
    with pool:
        [outcome] = pool.stream([_Three()])
    assert isinstance(outcome.error, SoftTimeoutError)
    assert outcome.error.handler == outcome.handler == "_second"


class _Three(Event):
    name = "three"


@want("three")
def _first(proc: Any, ev: Any) -> None: ...


@want("three")
@requires("_first")
def _second(proc: Any, ev: Any) -> None:
    going_round_in_circles(ev)


@want("three")
@requires("_second")
def _third(proc: Any, ev: Any) -> None:
    raise AssertionError


# --- what it leaves alone ---


def test_the_other_events_of_a_batch_are_as_ever() -> None:
    events: list[Event] = [Quick(number) for number in range(400)]
    for place in (0, 17, 200, 399):
        events[place] = Slow("sleeping")
    with pool_of(_LONG, 2) as pool:
        before = warm(pool)
        values = pool.process_many(events, return_exceptions=True)
        assert pids(pool) == before
    for place, value in enumerate(values):
        if place in (0, 17, 200, 399):
            assert isinstance(value, SoftTimeoutError)
        else:
            assert value == place


def test_batches_that_take_longer_than_an_event_may_are_none_of_its_business() -> None:
    # they take far longer than the limit together, and none of them comes near it
    pool = PoolProcessor(1, event_soft_timeout=_SOON)
    register_all(pool, [_take_a_while])
    with pool:
        assert pool.process_many([_While() for _ in range(200)]) == [None] * 200


class _While(Event):
    name = "while"


@want("while")
def _take_a_while(proc: Any, ev: Any) -> None:
    end = time.thread_time() + 0.005
    while time.thread_time() < end:
        pass


def test_what_an_event_leaves_behind_is_pickled_without_being_struck() -> None:
    pool = PoolProcessor(1, event_soft_timeout=_SOON)
    register_all(pool, [_give_back])
    with pool:
        assert pool.process(_Gives()) == "pickled"


class _Gives(Event):
    name = "gives"


@want("gives")
def _give_back(proc: Any, ev: Any) -> None:
    raise StopProcessing(_SlowToPickle())


class _SlowToPickle:
    def __reduce__(self) -> tuple[Any, ...]:
        # no test of the clock: it is far more than the limit on any machine
        end = time.monotonic() + 3 * _SOON
        while time.monotonic() < end:
            pass
        return str, ("pickled",)


def test_it_is_raised_once_and_then_the_hard_timeout_has_its_say(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with pool_of(_SOON, event_timeout=4 * _SOON) as pool:
        error = one(pool, Slow("swallowing", str(path)))
        assert pool.process(Quick(1)) == 1
    assert isinstance(error, EventTimeoutError)
    assert path.read_text(encoding="ascii").splitlines() == ["0"]


@pytest.mark.parametrize("how", ["deaf", "counting_in_native_code"])
def test_where_it_does_not_come_through_the_hard_timeout_helps(how: str) -> None:
    with pool_of(_SOON, event_timeout=4 * _SOON) as pool:
        error = one(pool, Slow(how))
        assert pool.process(Quick(1)) == 1
    assert isinstance(error, EventTimeoutError)


def test_a_process_that_a_handler_has_forked_is_not_struck() -> None:
    with pool_of(_SOON) as pool:
        assert pool.process(Slow("forking")) == 7


# --- a handler that is no Python function ---

_NAP = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.py_object)


def _nap() -> Any:
    # with an object's address for the seconds
    return _NAP(("sleep", ctypes.CDLL(None)))


def test_a_handler_in_native_code_is_told_when_it_returns() -> None:
    # `sleep` is ended by the signal, and Python raises as soon as it is back
    copyreg.pickle(_NAP, lambda _: (_nap, ()))
    pool = PoolProcessor(1, event_soft_timeout=_SOON)
    pool.register(_nap(), "nap")
    try:
        with pool:
            [outcome] = pool.stream([Quick(1)])
    finally:
        del copyreg.dispatch_table[_NAP]
    assert isinstance(outcome.error, SoftTimeoutError)
    assert outcome.handler == outcome.error.handler == "nap"


# --- with the rest of the pool ---


@pytest.mark.parametrize("kinds", [SoftTimeoutError, PoolError])
def test_it_is_retried_like_any_error_of_a_handler(kinds: Any, tmp_path: Path) -> None:
    path = tmp_path / "log"
    with pool_of(_SOON, max_retries=1, retry_exceptions=kinds, retry_backoff=0) as pool:
        before = warm(pool)
        [outcome] = pool.stream([_Second(str(path))])
        assert pids(pool) == before
    assert (outcome.value, outcome.attempts) == ("second attempt", 2)


class _Second(Slow):
    def __init__(self, path: str) -> None:
        super().__init__("_slow_at_first", path)


def _slow_at_first(ev: Any) -> None:
    if Path(ev.path).exists():
        raise StopProcessing("second attempt")
    actions.log(ev.path, "first")
    going_round_in_circles(ev)


_WAYS["_slow_at_first"] = _slow_at_first


def test_every_attempt_has_its_own() -> None:
    with pool_of(_SOON, max_retries=2, retry_backoff=0) as pool:
        [outcome] = pool.stream([Slow("sleeping")])
    assert isinstance(outcome.error, SoftTimeoutError)
    assert outcome.attempts == 3


def test_it_is_not_retried_if_it_is_not_listed() -> None:
    with pool_of(_SOON, max_retries=2, retry_exceptions=EventTimeoutError) as pool:
        [outcome] = pool.stream([Slow("sleeping")])
    assert isinstance(outcome.error, SoftTimeoutError)
    assert outcome.attempts == 1


@pytest.mark.parametrize("ordering", ["cascade", "unordered"])
def test_a_follow_up_that_takes_too_long_fails_its_cascade_and_the_next_one_begins(
    ordering: Any,
) -> None:
    slow = Slow("sleeping")
    events: list[Event] = [Do("follow", slow), Quick(1), Do("follow", Do("nothing"), Quick(2))]
    with pool_of(_LONG, 2) as pool:
        values = pool.process_many(
            events, return_exceptions=True, key=lambda ev: 1, ordering=ordering
        )
    assert isinstance(values[0], SoftTimeoutError)
    assert values[1:] == [1, 2]


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_workers_of_other_start_methods_take_it_too(method: str) -> None:
    with pool_of(_SOON, mp_context=method) as pool:
        assert isinstance(one(pool, Slow("sleeping")), SoftTimeoutError)


def test_a_signal_that_the_caller_has_blocked_reaches_a_worker() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {SIGNAL or 0})
    try:
        with pool_of(_SOON, mp_context="spawn") as pool:
            assert isinstance(one(pool, Slow("sleeping")), SoftTimeoutError)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_the_callers_process_does_not_take_it() -> None:
    with pool_of(_SOON) as pool:
        warm(pool)
        assert signal.getsignal(SIGNAL or 0) == signal.SIG_DFL
    with pool_of(_SOON, 0) as pool:
        assert pool.process(Quick(1)) == 1
        assert signal.getsignal(SIGNAL or 0) == signal.SIG_DFL


def test_without_it_a_worker_does_not_take_the_signal() -> None:
    with PoolProcessor(1) as pool:
        pool.register(actions.act)
        assert pool.process(Do("call", _handler_of_the_signal)) is None
    with pool_of(_LONG) as pool:
        assert pool.process(Do("call", _handler_of_the_signal)) == "_strike"


def _handler_of_the_signal() -> str | None:
    return getattr(_taker(), "__name__", None)


def test_near_the_limit_every_event_ends_in_one_way_or_the_other() -> None:
    # Events that take about as long as they may: signals come between handlers, while
    # values are pickled, for events that are over, and where they should.
    pool = PoolProcessor(2, event_soft_timeout=0.01)
    register_all(pool, [_nearly, _nearly_too])
    events = [_Nearly(number) for number in range(1000 if BARS else 200)]
    with pool:
        before = warm_with(pool, _Nearly(1))
        values = pool.process_many(events, return_exceptions=True)
        assert pids(pool) == before
    in_time = 0
    for number, value in enumerate(values):
        is_value = value == [number] * 50 and number % 100 > 0
        assert is_value or type(value) is SoftTimeoutError, repr(value)
        in_time += is_value
    assert in_time > 0


def warm_with(pool: PoolProcessor, event: Event) -> set[int]:
    """See `warm`; for a pool that has no use for its event."""
    engine = pool._running_engine()
    while engine._coordinator._supervisor.scheduler.workers < pool.workers:
        pool.process_many([event] * pool.workers, return_exceptions=True)
    return pids(pool)


class _Nearly(Event):
    name = "nearly"

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@want("nearly")
def _nearly(proc: Any, ev: Any) -> None:
    _spin(0.004 + ev.number % 10 * 0.001)


@want("nearly")
@requires("_nearly")
def _nearly_too(proc: Any, ev: Any) -> None:
    _spin(ev.number % 7 * 0.001 if ev.number % 100 else inf)
    raise StopProcessing([ev.number] * 50)


def _spin(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def test_strikes_at_any_moment_end_an_event_at_its_handlers_or_not_at_all() -> None:
    # A thread in each worker says of whatever event is there that it takes too long, all
    # the time: a signal comes in every line of the worker's loop.
    pool = PoolProcessor(2, event_soft_timeout=PATIENCE_SECONDS, initializer=_strike_all_the_time)
    register_all(pool, [_give_one, _give_more, _stop_with_number])
    with pool:
        before = warm_with(pool, _Tiny(0))
        struck = 0
        rounds = 10 if BARS else 2
        for _ in range(rounds):
            values = pool.process_many(
                [_Tiny(number) for number in range(1000)], return_exceptions=True
            )
            for number, value in enumerate(values):
                if type(value) is SoftTimeoutError:
                    struck += 1
                else:
                    assert value == number, repr(value)
        assert pids(pool) == before
    assert 0 < struck < rounds * 1000


class _Tiny(Event):
    name = "tiny"

    def __init__(self, number: int, left: int = 2) -> None:
        super().__init__()
        self.number = number
        self.left = left


@want("tiny", lambda ev: ev.left == 2)
def _give_one(proc: Any, ev: Any) -> list[Event]:
    return [_Tiny(ev.number, 1)]


@want("tiny", lambda ev: ev.left == 1)
def _give_more(proc: Any, ev: Any) -> Iterator[Event]:
    yield _Tiny(ev.number, 1 - 1)
    yield _Tiny(ev.number, 5)


@want("tiny", lambda ev: ev.left == 0)
def _stop_with_number(proc: Any, ev: Any) -> None:
    raise StopProcessing(ev.number)


def _strike_all_the_time() -> None:
    sys.setswitchinterval(1e-5)
    threading.Thread(target=_go_on_striking, daemon=True).start()


def _go_on_striking() -> None:
    while not isinstance(taker := getattr(_taker(), "__self__", None), SoftTimeout):
        time.sleep(0.001)
    words = taker._words
    while True:
        batch, place = words[status_words.BATCH], words[status_words.PLACE]
        if place >= 0:
            words[status_words.STRUCK] = status_words.event_at(
                batch, place >> status_words.HANDLER_BITS
            )
            os.kill(os.getpid(), SIGNAL or 0)
        time.sleep(random.random() * 1e-4)


def _taker() -> Any:
    return signal.getsignal(SIGNAL or 0)


# --- arguments, and the error itself ---


@pytest.mark.parametrize("soft", [2, 2.5])
def test_it_is_less_than_the_hard_one(soft: float) -> None:
    text = f"event_soft_timeout must be less than event_timeout \\(2\\), and is {soft:g}"
    with pytest.raises(ValueError, match=text):
        PoolProcessor(event_timeout=2, event_soft_timeout=soft)


def test_the_error_is_rebuilt_as_it_was() -> None:
    error = SoftTimeoutError("text", "event", "handler", 2.5)
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.args) == ("text", ("text",))
    assert (copy.event, copy.handler, copy.timeout) == ("event", "handler", 2.5)


# --- when the coordinator says so ---


def _at(position: int) -> WorkerStatus:
    return WorkerStatus(3, position, 0, None)


def test_the_word_names_one_event() -> None:
    words = StatusMemory.create()
    assert not words.is_struck(_at(0))
    words.strike(_at(5))
    assert words.is_struck(_at(5))
    assert not words.is_struck(_at(6))
    assert not words.is_struck(_at(5)._replace(batch=4))
    words.words[status_words.STRUCK] = 0
    assert not words.is_struck(_at(5))
    words.close()


# --- what was interrupted ---


class _Handler:
    name = "handler"

    def __init__(self, func: Any) -> None:
        self.func = func


def collect_follow_ups(returned: Any) -> None:
    returned()


def _loop(handler: Any, ev: Any, between: Any) -> None:
    """As that of a worker, in what counts."""
    returned = handler.func()
    between()
    collect_follow_ups(returned)


def _pass() -> None: ...


@pytest.fixture
def soft() -> tuple[list[int], SoftTimeout]:
    words = [0] * status_words.WORDS
    words[status_words.BATCH] = 3
    words[status_words.PLACE] = 5 << status_words.HANDLER_BITS | 1
    words[status_words.STRUCK] = status_words.event_at(3, 5)
    return words, SoftTimeout(1.5, words, _loop.__code__)


@pytest.mark.parametrize("place", ["handler", "iterable"])
def test_it_is_raised_in_a_handler_and_what_that_returned_and_never_twice(
    soft: tuple[list[int], SoftTimeout], place: str
) -> None:
    words, timeout = soft
    strikes: list[int] = []

    def strike() -> None:
        strikes.append(1)
        timeout._strike(0, sys._getframe())

    handler = _Handler(strike if place == "handler" else lambda: strike)
    with pytest.raises(SoftTimeoutError, match=r"event_soft_timeout=1\.5 s and was in handler"):
        _loop(handler, Quick(1), _pass)
    assert words[status_words.STRUCK] == 0
    if place == "iterable":
        _loop(handler, Quick(1), _pass)
        assert len(strikes) == 2


def test_a_signal_that_comes_while_another_is_taken_leaves_it_to_that(
    soft: tuple[list[int], SoftTimeout], monkeypatch: pytest.MonkeyPatch
) -> None:
    words, timeout = soft
    is_meant = timeout._is_meant
    answers: list[bool] = []

    def interrupted() -> bool:
        if not answers:
            answers.append(False)
            timeout._strike(0, sys._getframe())
            answers.append(words[status_words.STRUCK] > 0)
        return is_meant()

    monkeypatch.setattr(timeout, "_is_meant", interrupted)
    with pytest.raises(SoftTimeoutError):
        _loop(_Handler(lambda: timeout._strike(0, sys._getframe())), Quick(1), _pass)
    assert answers == [False, True]


def test_a_call_that_has_raised_is_over_though_the_loop_is_at_its_line(
    soft: tuple[list[int], SoftTimeout],
) -> None:
    words, timeout = soft

    class Looping:
        @property
        def func(self) -> Any:
            loop = sys._getframe(1)
            try:
                raise StopProcessing
            except StopProcessing:
                timeout._strike(0, loop)
            assert words[status_words.STRUCK]
            timeout._strike(0, loop)  # and now it is at it

        name = "handler"

    with pytest.raises(SoftTimeoutError):
        _loop(Looping(), Quick(1), _pass)


def test_it_is_not_raised_in_the_workers_own_code(soft: tuple[list[int], SoftTimeout]) -> None:
    words, timeout = soft
    _loop(_Handler(lambda: _pass), Quick(1), lambda: timeout._strike(0, sys._getframe()))
    timeout._strike(0, sys._getframe())  # outside of the loop
    timeout._strike(0, None)
    assert words[status_words.STRUCK] == status_words.event_at(3, 5)


@pytest.mark.parametrize(
    ("word", "value"),
    [
        (status_words.STRUCK, 0),
        (status_words.BATCH, 4),
        (status_words.PLACE, 6 << status_words.HANDLER_BITS | 1),
        (status_words.PLACE, status_words.NONE),
        (status_words.PLACE, status_words.UNPICKLING),
    ],
)
def test_it_is_not_raised_for_another_event(
    soft: tuple[list[int], SoftTimeout], word: int, value: int
) -> None:
    words, timeout = soft
    words[word] = value
    before = list(words)
    _loop(_Handler(lambda: timeout._strike(0, sys._getframe()) or _pass), Quick(1), _pass)  # type: ignore[func-returns-value]  # to be called
    assert words == before


def test_outside_the_main_thread_it_is_without_effect(
    soft: tuple[list[int], SoftTimeout], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.support.helpers import Background

    with Background(soft[1].install) as call:
        call.result()
    monkeypatch.setattr(soft_timeout, "SIGNAL", None)
    soft[1].install()
    assert signal.getsignal(SIGNAL or 0) == signal.SIG_DFL


# --- the loop in another shape ---


def _reshaped(*, has_lines: bool) -> types.FunctionType:
    """The worker's loop, compiled from a source in which all of it stands in one line."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(loop.Worker._run)))
    nodes: Iterable[Any] = ast.walk(tree)
    for node in nodes:
        if hasattr(node, "lineno"):
            node.lineno = node.end_lineno = 1
            node.col_offset = node.end_col_offset = 0
    space = dict(vars(loop))
    exec(compile(tree, "no such file", "exec"), space)
    function: types.FunctionType = space["_run"]
    if not has_lines:
        function.__code__ = function.__code__.replace(co_linetable=b"")
    return function


@pytest.fixture(params=["all in one line", "no lines at all"])
def another_shape(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives the loop another shape in workers that are forked."""
    function = _reshaped(has_lines=request.param == "all in one line")
    lines = {line for _, _, line in function.__code__.co_lines()}
    assert lines <= {1, None}
    monkeypatch.setattr(loop.Worker, "_run", function)


_FORKS = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@_FORKS
@pytest.mark.usefixtures("another_shape")
def test_a_loop_of_another_shape_is_interrupted_in_handlers_and_nowhere_else() -> None:
    with pool_of(_SOON, mp_context="fork") as pool:
        pool.register(_give_back)
        before = warm(pool)
        for how in ("going_round_in_circles", "sleeping", "generating", "giving_for_ever"):
            assert isinstance(one(pool, Slow(how)), SoftTimeoutError)
        assert pool.process(_Gives()) == "pickled"
        assert pids(pool) == before


_WITHOUT_SOURCES = """
import evproc, evproc_pool
from pathlib import Path
from evproc_pool import PoolProcessor, SoftTimeoutError

class Slow(evproc.Event):
    name = "slow"

@evproc.want("slow")
def go_round_in_circles(proc, ev):
    while True:
        pass

assert not [*Path(evproc_pool.__file__).parent.rglob("*.py")]
with PoolProcessor(1, event_soft_timeout=0.5) as pool:
    pool.register(go_round_in_circles)
    [error] = pool.process_many([Slow()], return_exceptions=True)
print(type(error).__name__)
"""


def test_it_needs_no_source_file(tmp_path: Path) -> None:
    for name in ("evproc", "evproc_pool"):
        there = tmp_path / name
        shutil.copytree(ROOT / name, there, ignore=shutil.ignore_patterns("__pycache__", "demo"))
        assert compileall.compile_dir(there, quiet=1, legacy=True)
        for source in there.rglob("*.py"):
            source.unlink()
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_SOURCES],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        check=False,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "SoftTimeoutError\n", "")


def test_with_unknown_instructions_nothing_is_struck_and_a_warning_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(soft_timeout, "call_spans", lambda code, name: ())
    words = [0] * status_words.WORDS
    words[status_words.BATCH] = 3
    words[status_words.PLACE] = 5 << status_words.HANDLER_BITS | 1
    words[status_words.STRUCK] = status_words.event_at(3, 5)
    timeout = SoftTimeout(1.5, words, _loop.__code__)
    _loop(_Handler(lambda: timeout._strike(0, sys._getframe()) or _pass), Quick(1), _pass)  # type: ignore[func-returns-value]  # to be called
    assert words[status_words.STRUCK]
    before = signal.getsignal(SIGNAL or 0)
    try:
        with pytest.warns(RuntimeWarning, match="event_soft_timeout has no effect"):
            timeout.install()
    finally:
        signal.signal(SIGNAL or 0, before)
