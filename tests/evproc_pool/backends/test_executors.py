"""A pool on an executor, where something goes wrong: lost calls, broken executors, hangs, ends.

What goes right is in `tests.evproc_pool.testing.test_conformance`.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import logging
import multiprocessing
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import evproc
from evproc.event import describe_event
from evproc_pool import (
    EventTimeoutError,
    PoolBrokenError,
    PoolProcessor,
    RegistryMismatchError,
    SerializationError,
    WorkerLostError,
)
from evproc_pool.backends.choice import choose
from evproc_pool.backends.executor.executors import Executors
from evproc_pool.calls.starters import CallStarter
from evproc_pool.coordinator.codec import Codec
from evproc_pool.options import start_options
from evproc_pool.protocol.limits import NO_LIMITS
from evproc_pool.serialization import pickling
from evproc_pool.worker import plain_calls
from tests.support import actions, programs
from tests.support.actions import Do
from tests.support.helpers import (
    STARTS_THREADS_AT_THE_END,
    Gate,
    Script,
    error_of,
    run_script,
    wait_until,
)
from tests.support.sizes import BARS

_PROGRAMS = 300 if BARS else 12


def _processes(workers: int = 2) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("forkserver"))


@pytest.fixture
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    with request.param() as made:
        yield made


_both = pytest.mark.parametrize(
    "executor",
    [_processes, lambda: ThreadPoolExecutor(2)],
    ids=["processes", "threads"],
    indirect=True,
)


# --- the same as with Processor ---


def _outcome(value: Any) -> list[Any]:
    if isinstance(value, BaseException):
        return ["error", type(value).__name__, str(value.args)]
    return ["value", value]


def _parity(ev: Any) -> int:
    return int(ev.root % 2)


@_both
def test_random_programs_come_to_the_same_as_with_a_processor(
    executor: Executor, tmp_path: Path
) -> None:
    for seed in range(_PROGRAMS):
        program = programs.random_program(random.Random(seed))
        expected = programs.play({**program, "log_path": str(tmp_path / f"{seed}.a")}, evproc)
        log = programs.CallLog(str(tmp_path / f"{seed}.b"))
        with PoolProcessor(executor=executor) as pool:
            for handler in programs.handlers({**program, "log_path": log.path}, evproc, log):
                pool.register(handler)
            events = programs.root_events(program, evproc)
            key = _parity if seed % 3 == 1 else None
            if seed % 3 < 2:
                values = pool.process_many(events, return_exceptions=True, key=key)
            else:
                values = [each.error or each.value for each in pool.stream(events)]
        assert programs.results(map(_outcome, values), log) == expected, f"seed {seed}"


# --- a process that dies ---


class Step(evproc.Event):
    """Gives follow-ups, values and errors by its number; some end their process."""

    name = "step"

    def __init__(self, number: int, depth: int = 0) -> None:
        self.number = number
        self.depth = depth
        self.kills = False

    def __repr__(self) -> str:
        return f"<step {self.number}>"


def walk(proc: evproc.Processor, ev: Step) -> list[Step] | None:
    if ev.kills:
        os.kill(os.getpid(), signal.SIGKILL)
    ev.emit(ev.number)
    if ev.number % 5 == 4 and ev.depth == 2:
        raise ValueError(ev.number)
    if ev.number % 7 == 6 and ev.depth == 1:
        raise evproc.StopProcessing(ev.number)
    return (
        [Step(2 * ev.number, ev.depth + 1), Step(ev.number, ev.depth + 1)] if ev.depth < 2 else None
    )


def _seen(outcomes: Iterator[Any]) -> list[Any]:
    return [(each.path, *_outcome(each.error or each.value), each.emitted) for each in outcomes]


@pytest.mark.parametrize("poison", [0, 57, 119])
@pytest.mark.parametrize("options", [{}, {"errors": "continue"}, {"key": _parity}], ids=str)
def test_a_poison_event_fails_alone_and_the_rest_is_as_with_a_processor(
    poison: int, options: dict[str, Any]
) -> None:
    if "key" in options:
        options = {"key": functools.partial(_number_modulo, 3)}
    with PoolProcessor(0, **options) as serial:
        serial.register(walk)
        expected = _seen(serial.stream(map(Step, range(120)), every_event=True))
    events = [Step(number) for number in range(120)]
    events[poison].kills = True
    with PoolProcessor(2, executor=_processes, **options) as pool:
        pool.register(walk)
        found = list(pool.stream(events, every_event=True))
    (lost,) = [each for each in found if isinstance(each.error, WorkerLostError)]
    assert isinstance(lost.error, WorkerLostError)
    assert (lost.path, lost.error.attempt) == ((poison,), 1)
    assert "<step" in str(lost.error)
    assert "BrokenProcessPool" in str(lost.error)
    # the last one may have been in a call of its own, with no other on its way
    is_told = "it may have run twice. The event is not run a third time" in str(lost.error)
    assert is_told or (poison == 119 and "The event is not run again" in str(lost.error))
    assert _seen(each for each in found if each.path[0] != poison) == [
        each for each in expected if each[0][0] != poison
    ]


def _number_modulo(divisor: int, ev: Step) -> int:
    return ev.number % divisor


def test_the_bar_of_a_poison_event_among_five_hundred(caplog: pytest.LogCaptureFixture) -> None:
    made: list[ProcessPoolExecutor] = []

    def make() -> ProcessPoolExecutor:
        made.append(_processes())
        return made[-1]

    events = [Do("stop", number) for number in range(500)]
    events[250] = Do("signalled", signal.SIGKILL)
    with PoolProcessor(2, executor=make) as pool:
        pool.register(actions.act)
        values = pool.process_many(events, return_exceptions=True)
    assert isinstance(values[250], WorkerLostError)
    assert values[:250] + values[251:] == [*range(250), *range(251, 500)]
    assert len(made) == 3  # the first breaks, and so does the one where it runs alone
    assert caplog.text.count("came to nothing") == 1


def test_a_single_event_is_charged_at_once() -> None:
    with PoolProcessor(1, executor=_processes) as pool:  # no other call is on its way
        pool.register(actions.act)
        assert pool.process(Do("stop", 1)) == 1
        error = error_of(lambda: pool.process(Do("leave", 3)))
        assert isinstance(error, WorkerLostError)
        assert "The event is not run again" in str(error)
        assert pool.process(Do("stop", 2)) == 2


def test_an_event_may_be_run_again_after_a_death(tmp_path: Path) -> None:
    with PoolProcessor(2, executor=_processes, crash_limit=3) as pool:
        pool.register(actions.act)
        events = [Do("call", actions.die_at_first, str(tmp_path / "flag")), *[Do("stop", 1)] * 20]
        assert pool.process_many(events)[1:] == [1] * 20


def test_a_process_that_is_killed_from_outside_costs_nothing(gate: Gate) -> None:
    with PoolProcessor(2, executor=_processes) as pool:
        pool.register(actions.act)
        stream = pool.stream([Do("wait_at", gate.address), *[Do("stop", 1)] * 100])
        kills = threading.Thread(target=_kill_and_release, args=(gate,))
        kills.start()
        assert [each.value for each in stream] == [None, *[1] * 100]
        kills.join()


def _kill_and_release(gate: Gate) -> None:
    os.kill(gate.arrival().pid, signal.SIGKILL)
    gate.arrival().release()


def test_an_executor_that_was_given_breaks_the_pool_once_and_stays_the_callers() -> None:
    with _processes() as executor, PoolProcessor(executor=executor) as pool:
        pool.register(actions.act)
        events = [Do("stop", number) for number in range(200)]
        events[150] = Do("leave", 3)
        came: list[Any] = []
        with pytest.raises(PoolBrokenError, match="give a callable that makes the executor"):
            came.extend(each.value for each in pool.stream(events))
        assert came == list(range(len(came)))
        assert came
        with pytest.raises(PoolBrokenError, match="broke, or takes no more calls"):
            pool.process(Do("stop", 1))


# --- executors that misbehave ---


class _Odd(ThreadPoolExecutor):
    """Does something else with some of the calls that it gets."""

    def __init__(self, odd: Callable[[int], Future[Any] | None]) -> None:
        super().__init__(2)
        self.calls: list[plain_calls.Call] = []
        self._odd = odd

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.calls.append(args[0])
        return self._odd(len(self.calls)) or super().submit(fn, *args, **kwargs)


def _cancelled() -> Future[Any]:
    future: Future[Any] = Future()
    future.cancel()
    future.set_running_or_notify_cancel()
    return future


def _failed(error: BaseException) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_exception(error)
    return future


def test_calls_that_somebody_else_cancels_are_made_again() -> None:
    with _Odd(lambda count: _cancelled() if count in {1, 6, 9} else None) as executor:
        with PoolProcessor(executor=executor) as pool:
            pool.register(actions.act)
            assert pool.process_many([Do("stop", n) for n in range(50)]) == list(range(50))
        assert len(executor.calls) > 9


def test_an_executor_that_cancels_everything_breaks_the_pool() -> None:
    with _Odd(lambda _: _cancelled()) as executor, PoolProcessor(executor=executor) as pool:
        pool.register(actions.act)
        with pytest.raises(PoolBrokenError, match="CancelledError"):
            pool.process(Do("stop", 1))


def test_a_call_that_fails_in_the_executor_breaks_the_pool() -> None:
    error = OSError("the network is down")
    odd = _Odd(lambda count: _failed(error) if count == 5 else None)
    with odd, PoolProcessor(executor=odd) as pool:
        pool.register(actions.act)
        with pytest.raises(PoolBrokenError, match="OSError: the network is down") as raised:
            pool.process_many([Do("stop", 1)] * 5000)
        assert raised.value.__cause__ is error


def test_an_executor_that_was_shut_down_breaks_the_pool() -> None:
    executor = ThreadPoolExecutor(2)
    with PoolProcessor(executor=executor) as pool:
        pool.register(actions.act)
        assert pool.process(Do("stop", 1)) == 1
        executor.shutdown()
        with pytest.raises(PoolBrokenError, match="cannot schedule new futures after shutdown"):
            pool.process(Do("stop", 1))


@pytest.mark.parametrize(
    ("factory", "text"), [(lambda: 5, "made 5, which is no"), (lambda: 1 // 0, "ZeroDivisionError")]
)
def test_a_factory_that_makes_no_executor_is_named(factory: Any, text: str) -> None:
    with PoolProcessor(2, executor=factory) as pool:
        pool.register(actions.act)
        with pytest.raises(PoolBrokenError, match=text):
            pool.process(Do("stop", 1))


def test_nothing_had_effects_in_an_executor_that_never_took_a_call() -> None:
    executor = ThreadPoolExecutor(2)
    executor.shutdown()
    with PoolProcessor(executor=executor) as pool:
        pool.register(actions.act)
        error = error_of(lambda: pool.process(Do("stop", 1)))
    assert "nothing has run there" in str(error)
    assert "effects" not in str(error)


def test_a_factory_whose_executors_all_break_ends_in_an_error() -> None:
    def make() -> Executor:
        return _Odd(lambda _: _failed(OSError("no")))

    with PoolProcessor(2, executor=make) as pool:
        pool.register(actions.act)
        with pytest.raises(PoolBrokenError, match=r"3 executors .*, the last with OSError: no;"):
            pool.process(Do("stop", 1))


@pytest.mark.parametrize("has_future", [False, True])
def test_a_call_that_hangs_is_given_up_and_the_pool_can_be_used_again(
    has_future: bool, gate: Gate
) -> None:
    with (
        ThreadPoolExecutor(1) as executor,
        PoolProcessor(executor=executor, event_timeout=0.2) as pool,
    ):
        pool.register(actions.act)
        assert pool.process_many([Do("stop", 1)] * 10) == [1] * 10
        process = (lambda ev: pool.submit(ev).result()) if has_future else pool.process
        error = error_of(lambda: process(Do("wait_at", gate.address)))
        gate.arrival().release()
        assert process(Do("stop", 2)) == 2
    assert isinstance(error, PoolBrokenError)
    for text in (
        f"executor={executor!r} runs a call that cannot be ended",
        "event_timeout=0.2 s",
        f"It hung at event {describe_event(Do('wait_at'))}",
        "executor=lambda: ThreadPoolExecutor(4)",
    ):
        assert text in str(error)


def test_the_events_of_a_batch_that_hangs_are_named(gate: Gate) -> None:
    with ThreadPoolExecutor(1) as executor:
        with PoolProcessor(1, executor=executor, event_timeout=0.2) as pool:
            pool.register(actions.act)
            pool.process_many([Do("stop", 1)] * 1000)
            events = [*[Do("stop", 1)] * 9, Do("wait_at", gate.address)]
            error = error_of(lambda: pool.process_many(events))
        gate.arrival().release()
    assert "It hung at one of the events 'do'" in str(error)
    assert "Do('wait_at')" in str(error)


def test_a_hung_event_fails_alone_if_another_executor_can_be_made(gate: Gate) -> None:
    with PoolProcessor(2, executor=_processes, event_timeout=0.3) as pool:
        pool.register(actions.act)
        events = [*[Do("stop", 1)] * 30, Do("wait_at", gate.address), *[Do("stop", 2)] * 30]
        values = pool.process_many(events, return_exceptions=True)
        assert isinstance(values[30], EventTimeoutError)
        assert "event_timeout=0.3" in str(values[30])
        assert values[:30] + values[31:] == [1] * 30 + [2] * 30


def test_the_start_of_a_process_does_not_count_as_an_event() -> None:
    options: dict[str, Any] = {"initializer": time.sleep, "initargs": (0.5,)}
    with PoolProcessor(2, executor=_processes, event_timeout=0.2, **options) as pool:
        pool.register(actions.act)
        events = [Do("leave", 3), *[Do("stop", number) for number in range(100)]]
        values = pool.process_many(events, return_exceptions=True)
        assert isinstance(values[0], WorkerLostError)
        assert values[1:] == list(range(100))


class _Rude(Executor):
    """Does something else with all calls."""

    def __init__(self, give: Callable[[], Any]) -> None:
        self._give = give

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        return self._give()


def _gives(result: object) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(result)
    return future


@pytest.mark.parametrize("is_factory", [False, True])
@pytest.mark.parametrize(
    ("give", "text"),
    [
        (lambda: _gives("no answer"), "a call came back with str, which is no answer"),
        (lambda: _gives(None), "a call came back with NoneType, which is no answer"),
        (lambda: _gives([]), "a call came back with list, which is no answer"),
        (lambda: _gives([5]), "a call came back with list, which is no answer"),
        (lambda: None, r"submit\(\) returned NoneType, which is no future"),
        (functools.partial(sys.exit, "x"), "SystemExit: x"),
    ],
)
def test_an_executor_that_misbehaves_breaks_the_pool(
    give: Callable[[], Any], text: str, is_factory: bool
) -> None:
    executor = _Rude(give)
    with PoolProcessor(2, executor=(lambda: executor) if is_factory else executor) as pool:
        pool.register(actions.act)
        with pytest.raises(PoolBrokenError, match=text):
            pool.process(Do("stop", 1))


# --- registries ---


def test_a_large_config_goes_only_where_it_is_missing() -> None:
    large = bytes(1 << 20)
    with _Odd(lambda _: None) as executor:
        with PoolProcessor(executor=executor, initializer=len, initargs=(large,)) as pool:
            pool.register(actions.act)
            pool.process_many([Do("stop", 1)] * 3000)
        with_config = [call for call in executor.calls if call.config is not None]
    # the calls that make a registry have it; they are in one process here
    assert [call.batch for call in with_config] == [None] * len(with_config)
    assert len(executor.calls) > len(with_config)


def test_each_process_asks_for_a_large_config() -> None:
    with _processes(3) as executor:
        options: dict[str, Any] = {"initializer": len, "initargs": (bytes(1 << 20),)}
        with PoolProcessor(executor=executor, **options) as pool:
            pool.register(actions.act)
            assert len(set(pool.process_many([Do("pid")] * 3000))) > 0


def test_another_registry_is_refused_before_an_event_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    with ThreadPoolExecutor(1) as executor, PoolProcessor(executor=executor) as pool:
        pool.register(actions.act)
        assert pool.process(Do("stop", 1)) == 1
        for each in plain_calls._this_process().places.values():
            monkeypatch.setattr(each._registry, "print", pickling.dumps(()))
        error = error_of(lambda: pool.process(Do("log", str(log), "ran")))
        assert isinstance(error, PoolBrokenError)
        assert isinstance(error.__cause__, RegistryMismatchError)
        assert "'act'" in str(error)
    assert not log.exists()


def test_threads_call_the_initializer_and_the_finalizer_once() -> None:
    calls: list[str] = []
    _calls[:] = [calls]
    options: dict[str, Any] = {"initializer": _begin, "finalizer": _finish}
    with ThreadPoolExecutor(4) as executor:
        with PoolProcessor(executor=executor, **options) as pool:
            pool.register(actions.act)
            pool.process_many([Do("stop", 1)] * 2000)
        assert calls == ["begin", "finish"]
    assert calls == ["begin", "finish"]


_calls: list[list[str]] = []


def _begin() -> None:
    _calls[0].append("begin")


def _finish() -> None:
    _calls[0].append("finish")


def test_processes_call_the_finalizer_when_they_end(tmp_path: Path) -> None:
    with _processes(1) as executor:
        finalizer = functools.partial(actions.make_file, str(tmp_path / "finished"))
        with PoolProcessor(
            executor=executor, finalizer=functools.partial(_swallow, finalizer)
        ) as pool:
            pool.register(actions.act)
            pool.process(Do("stop", 1))
        assert not (tmp_path / "finished").exists()
    assert (tmp_path / "finished").exists()


def _swallow(function: Callable[[], object]) -> None:
    with contextlib.suppress(evproc.StopProcessing):
        function()


def test_what_processes_cannot_inherit_is_said_and_threads_share_it() -> None:
    lock = multiprocessing.get_context("spawn").Lock()
    options: dict[str, Any] = {"initializer": id, "initargs": (lock,)}
    with ThreadPoolExecutor(2) as threads, PoolProcessor(executor=threads, **options) as pool:
        pool.register(actions.act)
        assert pool.process(Do("stop", 1)) == 1
    with _processes() as executor, PoolProcessor(executor=executor, **options) as pool:
        pool.register(actions.act)
        with pytest.raises(PoolBrokenError, match="give it to the executor's own initializer"):
            pool.process(Do("stop", 1))


def _registries(_: object) -> int:
    return len(plain_calls._this_process().places)


def test_a_process_of_an_executor_keeps_few_registries() -> None:
    with _processes(1) as executor:
        pools = [
            PoolProcessor(executor=executor, initargs=(number,), initializer=id)
            for number in range(12)
        ]
        for each in pools:
            each.register(actions.act)
            assert each.process(Do("stop", 1)) == 1
        assert executor.submit(_registries, None).result() == plain_calls._MOST_REGISTRIES
        for each in pools:
            assert each.process(Do("stop", 2)) == 2
            each.close()


_ENDED: list[str] = []


def _note_end() -> None:
    _ENDED.append("ended")


def test_pools_of_one_process_keep_their_registries() -> None:
    options: dict[str, Any] = {"finalizer": _note_end}
    with ThreadPoolExecutor(1) as executor:
        pools = [PoolProcessor(executor=executor, **options) for _ in range(12)]
        for each in pools:
            each.register(actions.act)
            assert each.process(Do("stop", 1)) == 1
        assert _ENDED == []
        for each in pools:
            assert each.process(Do("stop", 2)) == 2
            each.close()
    assert _ENDED == ["ended"] * 12
    _ENDED.clear()
    assert not [home for _, home in plain_calls._this_process().places if home is not None]


_SET_UP = threading.Event()


def _set_up_late() -> None:
    assert _SET_UP.wait(60)


def test_nobody_waits_for_the_initializer_of_another_pool() -> None:
    _SET_UP.clear()
    options: dict[str, Any] = {
        "initializer": _set_up_late,
        "finalizer": _note_end,
    }
    with ThreadPoolExecutor(2) as executor, ThreadPoolExecutor(1) as other:
        slow = PoolProcessor(executor=executor, **options)
        slow.register(actions.act)
        late = slow.submit(Do("stop", 1))
        here = plain_calls._this_process()
        wait_until(
            lambda: any(place._registry is None for place in here.places.values()),
            "the initializer runs",
        )
        with PoolProcessor(executor=other) as pool:
            pool.register(actions.act)
            assert pool.process(Do("stop", 2)) == 2
        slow.terminate()  # does not wait either
        _SET_UP.set()
        assert late.done()
    assert _ENDED == []  # it was not ended in peace


class OnlyAtHome(evproc.Event):
    """Cannot be unpickled but in the process that made it."""

    name = "do"
    what, args = "stop", ("at home",)

    def __init__(self) -> None:
        self.pid = os.getpid()

    def __reduce__(self) -> Any:
        return _at_home, (self.pid,)


def _at_home(pid: int) -> OnlyAtHome:
    if pid != os.getpid():
        raise ValueError("not at home")
    return OnlyAtHome()


def test_an_event_that_cannot_be_rebuilt_is_found_by_asking_again() -> None:
    events = [Do("stop", 1), OnlyAtHome(), *[Do("stop", 2)] * 20]
    with _processes() as executor, PoolProcessor(executor=executor) as pool:
        pool.register(actions.act)
        values = pool.process_many(events, return_exceptions=True)
    assert isinstance(values[1], SerializationError)
    assert [values[0], *values[2:]] == [1] + [2] * 20


_LATE = """
import evproc
class Late(evproc.Event):
    name = "do"
    what, args = "stop", ("found",)
"""


def test_a_module_that_came_later_is_found_by_asking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "came_late.py"
    source.write_text(_LATE, "utf-8")
    with _processes() as executor, PoolProcessor(executor=executor) as pool:
        pool.register(actions.act)
        assert pool.process_many([Do("stop", 1)] * 10) == [1] * 10
        spec = importlib.util.spec_from_file_location("came_late", source)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "came_late", module)
        spec.loader.exec_module(module)
        assert pool.process_many([module.Late() for _ in range(30)]) == ["found"] * 30


class Plain(evproc.Event):
    """Holds plain data only, so that it passes through the coordinator as it came."""

    name = "plain"

    def __init__(self, number: int) -> None:
        self.number = number


@evproc.want("do")
def give_plain(proc: object, ev: Do) -> list[Plain]:
    return [Plain(ev.args[0])]


@evproc.want("plain")
def stop_plain(proc: object, ev: Plain) -> None:
    raise evproc.StopProcessing(ev.number)


def test_follow_ups_that_nobody_can_pack_again_fail_and_the_pool_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with ThreadPoolExecutor(2) as executor, PoolProcessor(executor=executor) as pool:
        pool.register(give_plain)
        pool.register(stop_plain)
        events = [Do("", number) for number in range(200)]
        assert pool.process_many(events) == list(range(200))
        with monkeypatch.context() as patch:
            patch.setattr(Codec, "_received", _cannot_receive)
            for value in pool.process_many(events, return_exceptions=True):
                assert isinstance(value, SerializationError)
        assert pool.process_many(events) == list(range(200))


def _cannot_receive(*_: object) -> None:
    raise ImportError("no such module here")


def test_an_error_names_the_worker_that_has_no_process() -> None:
    with ThreadPoolExecutor(2) as executor, PoolProcessor(1, executor=executor) as pool:
        pool.register(actions.act)
        error = error_of(lambda: pool.process(Do("fail", ValueError, 1)))
    assert "evproc_pool: in worker 1" in error.__notes__


# --- log records ---


def log_it(proc: object, ev: Do) -> None:
    logging.getLogger("tests.executors").info("handled %s", ev.what)


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_log_records_of_processes_come_back(method: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(2, mp_context=context) as executor:
        with PoolProcessor(executor=executor) as pool:
            pool.register(log_it)
            pool.process_many([Do(str(number)) for number in range(50)])
        levels = executor.submit(_logging_now).result()
    found = [each for each in caplog.records if each.name == "tests.executors"]
    assert sorted(each.getMessage() for each in found) == sorted(f"handled {n}" for n in range(50))
    assert {vars(each)["evproc_handler"] for each in found} == {"log_it"}
    assert {each.process for each in found}.isdisjoint({os.getpid()})
    assert levels == (logging.WARNING, [])  # as it was


def _logging_now() -> tuple[int, list[str]]:
    return logging.root.level, list(map(repr, logging.root.handlers))


@pytest.mark.parametrize("worker_logging", [False, True])
def test_threads_log_once_and_processes_not_if_they_shall_not(
    worker_logging: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    executor = ThreadPoolExecutor(2) if worker_logging else _processes()
    with executor, PoolProcessor(executor=executor, worker_logging=worker_logging) as pool:
        pool.register(log_it)
        pool.process_many([Do("once")] * 10)
    assert caplog.text.count("handled once") == (10 if worker_logging else 0)


# --- how many ---


@pytest.mark.parametrize(("has", "workers", "lanes"), [(2, 2, 4), (2, 8, 4), (4, 1, 1), (4, 4, 8)])
def test_no_more_calls_are_on_their_way_than_may_run(has: int, workers: int, lanes: int) -> None:
    with ThreadPoolExecutor(has) as executor:
        assert Executors(choose(executor)).lanes(workers) == lanes


@pytest.mark.parametrize(("workers", "lanes"), [(None, 34), (17, 34), (3, 3)])
def test_the_executor_of_a_callable_says_how_many_events_run_at_once(
    workers: int | None, lanes: int
) -> None:
    start = start_options(
        workers, None, None, (), None, None, None, executor=lambda: ThreadPoolExecutor(17)
    )
    assert start.executor is not None
    starter = CallStarter(start, start.executor, NO_LIMITS)
    starter.make_backend([]).kill(print)
    assert starter.workers == lanes


def test_one_worker_runs_one_event_at_a_time() -> None:
    running, most = 0, 0
    lock = threading.Lock()

    def count(proc: object, ev: object) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        with lock:
            running -= 1

    _counting[:] = [count]
    with ThreadPoolExecutor(4) as executor, PoolProcessor(1, executor=executor) as pool:
        pool.register(_count)
        pool.process_many([Do("nothing")] * 500)
    assert most == 1


_counting: list[Callable[[object, object], None]] = []


def _count(proc: object, ev: object) -> None:
    _counting[0](proc, ev)


# --- ends ---


@pytest.mark.skipif(not STARTS_THREADS_AT_THE_END, reason="a fault of CPython, see there")
@pytest.mark.parametrize("make", ["ThreadPoolExecutor", "ProcessPoolExecutor"])
@pytest.mark.parametrize("is_factory", [False, True])
def test_what_was_submitted_is_finished_at_the_end_of_the_program(
    make: str, is_factory: bool, tmp_path: Path
) -> None:
    code = f"""
from concurrent.futures import {make}
from evproc_pool import PoolProcessor
from tests.support.actions import Do, act
if __name__ == "__main__":
    make = lambda: {make}(2)
    pool = PoolProcessor(2, executor={"make" if is_factory else "make()"})
    pool.register(act)
    for number in range(20):
        future = pool.submit(Do("stop", number))
        future.add_done_callback(lambda each: print(each.result(), flush=True))
"""
    printed = run_script(code, tmp_path)
    assert sorted(map(int, printed.split())) == list(range(20))


def test_ctrl_c_ends_a_program_with_threads_of_a_factory(tmp_path: Path, gate: Gate) -> None:
    code = f"""
from concurrent.futures import ThreadPoolExecutor
from evproc_pool import PoolProcessor
from tests.support.actions import Do, act
pool = PoolProcessor(2, executor=lambda: ThreadPoolExecutor(2))
pool.register(act)
try:
    pool.process_many([Do("wait_at", {gate.address!r})] * 10)
except KeyboardInterrupt:
    print("interrupted", flush=True)
    assert pool.process(Do("stop", 1)) == 1
"""
    with Script(code, tmp_path) as script:
        arrived = [gate.arrival() for _ in range(2)]
        os.kill(script.process.pid, signal.SIGINT)
        script.wait_until(lambda: "interrupted" in (tmp_path / "out.txt").read_text(), "Ctrl-C")
        for each in arrived:
            each.release()
        finished = script.finish()
    assert (finished.code, finished.out, finished.left) == (0, "interrupted\n", [])


def test_terminate_kills_the_processes_of_a_factory(gate: Gate) -> None:
    pool = PoolProcessor(2, executor=_processes)
    pool.register(actions.act)
    futures = [pool.submit(Do("wait_at", gate.address)) for _ in range(2)]
    pids = {gate.arrival().pid for _ in futures}
    pool.terminate()
    wait_until(lambda: not any(map(_lives, pids)), "the processes are gone")
    assert [type(each.exception()).__name__ for each in futures] == ["PoolClosedError"] * 2


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
def test_a_forked_process_has_registries_of_its_own() -> None:
    with ThreadPoolExecutor(1) as executor, PoolProcessor(executor=executor) as pool:
        pool.register(actions.act)
        assert pool.process(Do("stop", 1)) == 1
        here = plain_calls._this_process()
        assert here.places
        pid = os.fork()
        if not pid:
            os._exit(len(plain_calls._this_process().places))
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def _wait_at_gate(address: tuple[str, int]) -> None:
    with contextlib.suppress(evproc.StopProcessing):
        actions.wait_at(address)


@pytest.mark.parametrize("kind", ["threads", "threads of a callable", "processes of a callable"])
def test_a_finalizer_that_hangs_does_not_block_close(kind: str, gate: Gate) -> None:
    def make() -> Executor:
        return _processes(1) if kind.startswith("processes") else ThreadPoolExecutor(1)

    with contextlib.ExitStack() as stack:
        executor = make if kind.endswith("callable") else stack.enter_context(make())
        finalizer = functools.partial(_wait_at_gate, gate.address)
        pool = PoolProcessor(executor=executor, finalizer=finalizer)
        pool.register(actions.act)
        assert pool.process(Do("stop", 1)) == 1
        closing = threading.Thread(target=pool.close, kwargs={"timeout": 0.5}, daemon=True)
        closing.start()
        arrival = gate.arrival()
        wait_until(lambda: not closing.is_alive(), "the pool is closed")
        arrival.release()
