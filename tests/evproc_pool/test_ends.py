"""How work ends that was submitted: with the program, the pool object, or an error."""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from evproc_pool import PoolClosedError, PoolProcessor
from evproc_pool.coordinator.engine import Engine
from evproc_pool.coordinator.futures import Futures
from evproc_pool.core.inputs_and_effects import Accepted
from tests.support import actions
from tests.support.actions import Do
from tests.support.helpers import (
    PATIENCE_SECONDS,
    Background,
    Gate,
    Script,
    error_of,
    register_all,
    run_script,
    wait_until,
    warm,
)

# --- submitted events go together ---


def test_what_is_submitted_while_the_driver_is_busy_goes_together(
    pool: PoolProcessor, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    warm(pool)
    handed: list[int] = []
    accept = Engine.accept

    def count(engine: Engine, roots: Accepted) -> None:
        handed.append(len(roots.events))
        accept(engine, roots)

    futures: list[Future[Any]] = []
    # a callback is called by the driver, which so takes in nothing meanwhile
    end = threading.Event()

    def submit_many(_: object) -> None:
        monkeypatch.setattr(Engine, "accept", count)
        futures.extend(pool.submit(Do("stop", place)) for place in range(500))
        end.set()

    future = pool.submit(Do("wait_at", gate.address))
    gate.arrival()
    future.add_done_callback(submit_many)
    gate.close()
    assert end.wait(PATIENCE_SECONDS)
    assert [each.result(PATIENCE_SECONDS) for each in futures] == list(range(500))
    assert sum(handed) == 500
    assert len(handed) <= 2  # the first one may go alone


def test_submit_has_events_sent_while_nobody_drives(
    one_worker: PoolProcessor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warm(one_worker)
    log = tmp_path / "log"
    monkeypatch.setattr(Futures, "_start_thread", lambda futures: None)
    waiting = _submit_logs(one_worker, log, 40)
    # the first one by itself, and the next ones once there are enough
    wait_until(lambda: log.exists() and len(log.read_text("ascii").split()) >= 17, "all is sent")
    assert not any(future.done() for future in waiting)  # that is for whoever drives
    monkeypatch.undo()
    futures = one_worker._owner.futures
    assert futures is not None
    with futures._changed:
        futures._start_thread()
    for future in waiting:
        future.result(PATIENCE_SECONDS)
    assert len(log.read_text("ascii").split()) == 40


def test_with_keys_those_that_go_together_keep_their_order(gate: Gate, tmp_path: Path) -> None:
    log = str(tmp_path / "log")
    with PoolProcessor(workers=2, key=lambda ev: ev.args[-1][0]) as pool:
        register_all(pool, [actions.act])
        warm_up = pool.submit(Do("wait_at", gate.address, "", "z"))
        gate.arrival()
        texts = [f"{key}{place:03}" for place in range(100) for key in "ab"]
        futures = [pool.submit(Do("log", log, text)) for text in texts]
        gate.close()
        for future in (warm_up, *futures):
            future.result(PATIENCE_SECONDS)
    lines = Path(log).read_text("ascii").split()
    for key in "ab":
        assert [line for line in lines if line[0] == key] == [f"{key}{n:03}" for n in range(100)]


# --- the pool object ---


def test_a_future_keeps_its_pool_until_it_is_done(gate: Gate) -> None:
    pool: PoolProcessor = register_all(PoolProcessor(workers=1), [actions.act])
    futures = [pool.submit(Do("wait_at", gate.address, "", place)) for place in range(3)]
    gate.arrival()
    is_gone = threading.Event()
    weakref.finalize(pool, is_gone.set)
    del pool
    gc.collect()
    assert not is_gone.is_set()
    for _ in range(2):
        gate._arrivals[-1].release()
        gate.arrival()
    gate.close()
    assert [future.result(PATIENCE_SECONDS) for future in futures] == [0, 1, 2]
    assert is_gone.wait(PATIENCE_SECONDS)
    for thread in threading.enumerate():
        if thread.name == "evproc_pool futures":  # it ends the workers
            thread.join(PATIENCE_SECONDS)


# --- the end of the program ---

_ENDS = """
import sys
from evproc_pool import PoolProcessor
from tests.support.actions import Do, act

pool = PoolProcessor(workers=2)
pool.register(act)
futures = [pool.submit(Do("log", {log!r}, str(place))) for place in range(50)]
futures[0].add_done_callback(lambda future: print("done", flush=True))
{end}
"""


@pytest.mark.parametrize(
    "end",
    ["", "del pool, futures", "import os; futures[0].result()", "sys.exit(0)"],
    ids=["the last line", "no reference", "some are done", "exit"],
)
def test_what_was_submitted_is_finished_at_the_end_of_the_program(tmp_path: Path, end: str) -> None:
    log = tmp_path / "log"
    out = run_script(_ENDS.format(log=str(log), end=end), tmp_path)
    assert sorted(map(int, log.read_text("ascii").split())) == list(range(50))
    assert out == "done\n"


def test_a_function_that_submits_and_returns_loses_nothing(tmp_path: Path) -> None:
    log = tmp_path / "log"
    code = _ENDS.format(log=str(log), end="")
    lines = code.splitlines()
    inner = "\n".join(f"    {line}" for line in lines[5:])
    run_script("\n".join([*lines[:5], "def main():", inner, "main()"]), tmp_path)
    assert len(log.read_text("ascii").split()) == 50


def test_an_error_that_ends_the_program_does_not_end_what_was_submitted(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with Script(_ENDS.format(log=str(log), end="raise KeyError(1)"), tmp_path) as script:
        finished = script.finish()
    assert finished.code == 1
    assert finished.left == []
    assert finished.err.strip().endswith("KeyError: 1")
    assert len(log.read_text("ascii").split()) == 50


_TERMINATES = """
from evproc_pool import PoolProcessor
from tests.support.actions import Do, act, pass_gate

pool = PoolProcessor(workers=2)
pool.register(act)
running = [pool.submit(Do("wait_at", {address!r}, "worker")) for _ in range(2)]
pass_gate({address!r}, "script")
waiting = [pool.submit(Do("log", {log!r}, str(place))) for place in range(50)]
pool.terminate()
print(*sorted({{type(future.exception()).__name__ for future in running + waiting}}))
"""


def test_terminate_finishes_nothing(tmp_path: Path, gate: Gate) -> None:
    log = tmp_path / "log"
    with Script(_TERMINATES.format(address=gate.address, log=str(log)), tmp_path) as script:
        arrivals = sorted([gate.arrival() for _ in range(3)], key=lambda arrival: arrival.text)
        # both workers are busy, and stay so
        assert [arrival.text for arrival in arrivals] == ["script", "worker", "worker"]
        arrivals[0].release()
        finished = script.finish()
    assert (finished.code, finished.err, finished.left) == (0, "", [])
    assert finished.out == "PoolClosedError\n"
    assert not log.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")
def test_after_an_interrupt_outside_of_the_pool_the_program_ends_at_once(
    tmp_path: Path, gate: Gate
) -> None:
    code = _ENDS.format(
        log=str(tmp_path / "log"),
        end=f"pool.submit(Do('wait_at', {gate.address!r})); print('waits', flush=True)\n"
        "import signal; signal.raise_signal(signal.SIGINT)",
    )
    with Script(code, tmp_path) as script:
        finished = script.finish()  # nobody opens the gate
    assert finished.left == []
    assert finished.err.strip().endswith("KeyboardInterrupt")


# --- an error in the body of `with` ---


def test_an_error_in_the_block_finishes_what_runs_and_drops_what_was_not_begun(
    gate: Gate, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    pool: PoolProcessor = register_all(PoolProcessor(workers=1), [actions.act])
    futures: list[Future[Any]] = []

    def fail() -> None:
        with pool:
            running = Do("wait_at", gate.address, "", "ran")
            futures.extend([pool.submit(running), *_submit_logs(pool, log, 600)])
            gate.arrival()
            raise KeyError("unrelated")

    with Background(fail) as call:
        # it goes on once the worker has given back what it had not begun
        wait_until(
            lambda: futures and futures[-1].done() and _holds_one_event(pool),
            "the worker gives back what it has not begun",
        )
        gate.close()
        assert type(call.error()) is KeyError
    assert futures[0].result(0) == "ran"
    for future in futures[1:]:
        error = future.exception(0)
        assert isinstance(error, PoolClosedError)
        assert "not begun when KeyError ended the pool's with block" in str(error)
    assert not log.exists()


def test_an_error_in_the_block_lets_a_cascade_that_runs_come_to_its_end(gate: Gate) -> None:
    pool: PoolProcessor = register_all(PoolProcessor(workers=1), [actions.act])
    futures: list[Future[Any]] = []

    def fail() -> None:
        with pool:
            futures.append(
                pool.submit(Do("wait_at_and_follow", gate.address, Do("stop", "follow-up")))
            )
            gate.arrival()
            raise KeyError("unrelated")

    with Background(fail) as call:
        call.wait_until_it_waits("drain")
        assert not futures[0].done()
        gate.close()
        assert type(call.error()) is KeyError
    assert futures[0].result(0) == "follow-up"


def _holds_one_event(pool: PoolProcessor) -> bool:
    engine = pool._engine
    assert engine is not None
    (member,) = engine._coordinator._workers.values()
    return [sent.batch.size - sent.batch.done for sent in list(member.sent)] == [1]


def _submit_logs(pool: PoolProcessor, log: Path, number: int) -> list[Future[Any]]:
    return [pool.submit(Do("log", str(log), str(place))) for place in range(number)]


# --- a callback that waits ---


@pytest.mark.parametrize("get", ["result", "exception"])
def test_a_callback_that_waits_for_another_future_is_told_that_it_must_not(
    pool: PoolProcessor, gate: Gate, get: str
) -> None:
    warm(pool)
    errors: Future[BaseException] = Future()
    future = pool.submit(Do("wait_at", gate.address))
    gate.arrival()

    def wait(_: object) -> None:
        another = pool.submit(Do("stop", 1))
        errors.set_result(error_of(getattr(another, get)))

    future.add_done_callback(wait)
    gate.close()
    error = errors.result(PATIENCE_SECONDS)
    assert type(error) is RuntimeError
    assert "callback must not wait for the same pool" in str(error)
    assert pool.process(Do("stop", 1)) == 1


def test_a_callback_may_look_at_another_future_without_waiting(
    pool: PoolProcessor, gate: Gate
) -> None:
    warm(pool)
    found: Future[object] = Future()
    future = pool.submit(Do("wait_at", gate.address))
    gate.arrival()

    def look(_: object) -> None:
        another = pool.submit(Do("stop", 1))
        found.set_result(error_of(lambda: another.result(0)))

    future.add_done_callback(look)
    gate.close()
    assert isinstance(found.result(PATIENCE_SECONDS), TimeoutError)


# --- an interrupt in one thread, calls in others ---


def test_an_interrupt_ends_the_calls_of_others_with_an_error_that_says_why(
    pool: PoolProcessor, gate: Gate
) -> None:
    from evproc_pool import PoolInterruptedError

    before = warm(pool)
    with Background(lambda: pool.process_many([Do("wait_at", gate.address)] * 2)) as call:
        gate.arrival()
        gate.arrival()
        future = pool.submit(Do("stop", 1))
        assert pool._engine is not None
        pool._engine.interrupt(KeyboardInterrupt())
        for error in (call.error(), future.exception(PATIENCE_SECONDS)):
            assert isinstance(error, PoolInterruptedError)
            assert "KeyboardInterrupt struck a thread that waited for the pool" in str(error)
    assert "closed" not in repr(pool)
    pool.register(actions.asks)  # nothing is in flight
    assert pool.process_many([Do("stop", 2)] * 3) == [2] * 3
    assert pool.submit(Do("stop", 3)).result(PATIENCE_SECONDS) == 3
    assert not before & warm(pool)
