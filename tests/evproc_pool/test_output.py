"""What handlers print is there at the end, and workers that end in peace clean up."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from evproc import Event, StopProcessing, want
from evproc_pool import EventTimeoutError, PoolProcessor
from evproc_pool.testing import simulated_pool
from evproc_pool.worker import reporter
from tests.support import actions
from tests.support.actions import Do
from tests.support.helpers import Gate, Script, error_of, register_all

_PRINTS = """
import sys
import time

import evproc
from evproc_pool import PoolProcessor


class Job(evproc.Event):
    name = "job"

    def __init__(self, number):
        super().__init__()
        self.number = number


@evproc.want("job")
def work(proc, ev):
    print("printed", ev.number, end=" \\n"[ev.number % 2])  # not every line is complete
    print("said", ev.number, file=sys.stderr, end=" \\n"[ev.number % 2])
    if ev.number == 9 and {fails!r}:
        raise ValueError("bad input")


events = [Job(number) for number in range(10)]
pool = PoolProcessor(workers=2, mp_context={method!r})
pool.register(work)
{calls}
"""

_CALLS = {
    "closed": "pool.process_many(events)\npool.close()",
    "forgotten": "pool.process_many(events)",
    "collected": "pool.process_many(events)\ndel pool\nprint('end')",
    "one by one": "for ev in events: pool.process(ev)",
    "terminated": "pool.process_many(events)\npool.terminate()",
    "submitted": "futures = [pool.submit(ev) for ev in events]",
    "streamed": "for outcome in pool.stream(events): pass\npool.terminate()",
    "left at once": "pool.process_many(events)\nimport os\nos._exit(0)",
    "left by an error": "with pool:\n    pool.process_many(events)",
}


@pytest.mark.parametrize("how", _CALLS)
def test_what_handlers_print_is_there(how: str, tmp_path: Path) -> None:
    fails = how == "left by an error"
    code = _PRINTS.format(method="forkserver", calls=_CALLS[how], fails=fails)
    # `python -u`, and so PYTHONUNBUFFERED, would flush by itself
    with Script(code, tmp_path, environment={"PYTHONUNBUFFERED": ""}) as script:
        finished = script.finish()
    assert (finished.code, finished.left) == (int(fails), []), finished
    assert sorted(finished.out.replace("printed", "").split()) == sorted(
        [*map(str, range(10)), *(["end"] if how == "collected" else [])]
    )
    assert finished.err.count("said") == 10


@want("print")
def _print(proc: Any, ev: Event) -> None:
    sys.stdout.write("printed\n")


class _Print(Event):
    name = "print"


@pytest.mark.skipif(reporter.SIGNAL is None, reason="results wait for the slow event")
def test_what_was_printed_is_there_while_the_next_event_runs(tmp_path: Path, gate: Gate) -> None:
    out = tmp_path / "out"
    with PoolProcessor(workers=1, initializer=_print_into, initargs=(str(out),)) as pool:
        register_all(pool, [_print, actions.act])
        outcomes = pool.stream([_Print(), Do("stop", 1), Do("wait_at", gate.address)])
        assert [next(outcomes).value, next(outcomes).value] == [None, 1]
        gate.arrival()
        pool.terminate()  # the worker is killed
    assert out.read_text() == "printed\n"


def _print_into(path: str) -> None:
    sys.stdout = Path(path).open("a", encoding="utf-8")  # noqa: SIM115 - while the worker lives


def test_a_stream_that_cannot_be_flushed_does_no_harm() -> None:
    with PoolProcessor(workers=1, initializer=_break_streams) as pool:
        register_all(pool, [actions.act])
        assert pool.process_many([Do("stop", 1)] * 3) == [1] * 3


def _break_streams() -> None:
    sys.stdout = None  # as under pythonw
    sys.stderr = object()  # no stream at all


def test_a_stream_that_is_missing_or_exits_does_no_harm() -> None:
    with PoolProcessor(workers=1, initializer=_break_streams_again) as pool:
        register_all(pool, [actions.act])
        pids = pool.process_many([Do("pid")] * 3)
        assert pool.process(Do("pid")) == pids[0]


class _Exits:
    def flush(self) -> None:
        raise SystemExit(3)


def _break_streams_again() -> None:
    del sys.stdout
    sys.stderr = _Exits()


class _Blocks:
    """A stream that nobody reads from."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address

    def write(self, text: str) -> None:
        pass

    def flush(self) -> None:
        actions.pass_gate(self._address)


class _Block(Event):
    name = "block"

    def __init__(self, address: tuple[str, int], *, has_value: bool = False) -> None:
        super().__init__()
        self.address = address
        self.has_value = has_value


@want("block")
def _block(proc: Any, ev: _Block) -> None:
    sys.stdout = _Blocks(ev.address)
    if ev.has_value:
        raise StopProcessing(1)


# Long for all else that these events do, also where others keep the CPUs busy.
_TIMEOUT_SECONDS = 2.0

_needs_words = pytest.mark.skipif(sys.platform == "win32", reason="needs the status words")


@_needs_words
@pytest.mark.parametrize("has_value", [False, True])
def test_an_event_whose_output_blocks_takes_too_long(gate: Gate, has_value: bool) -> None:
    with PoolProcessor(workers=1, event_timeout=_TIMEOUT_SECONDS) as pool:
        register_all(pool, [_block, actions.act])
        error = error_of(lambda: pool.process(_Block(gate.address, has_value=has_value)))
        assert isinstance(error, EventTimeoutError)
        assert "while it flushed the output of event 'block'" in str(error)
        assert pool.process(Do("stop", 1)) == 1


@_needs_words
def test_output_that_blocks_costs_no_event_behind_it(gate: Gate) -> None:
    with PoolProcessor(workers=1, event_timeout=_TIMEOUT_SECONDS) as pool:
        register_all(pool, [_block, actions.act])
        events = [Do("stop", 0), _Block(gate.address, has_value=True), Do("stop", 2)]
        values = pool.process_many(events, return_exceptions=True)
    assert [values[0], values[2]] == [0, 2]
    assert isinstance(values[1], EventTimeoutError)


@_needs_words
@pytest.mark.parametrize("has_value", [False, True])
def test_an_event_whose_output_blocks_can_be_cancelled(gate: Gate, has_value: bool) -> None:
    async def cancel() -> None:
        event = _Block(gate.address, has_value=has_value)
        call = asyncio.ensure_future(pool.process_async(event, cancel_running=True))
        await asyncio.to_thread(gate.arrival)
        call.cancel()
        await call

    with PoolProcessor(workers=1) as pool:
        register_all(pool, [_block, actions.act])
        assert isinstance(error_of(lambda: asyncio.run(cancel())), asyncio.CancelledError)
        assert pool.process(Do("stop", 1)) == 1


@_needs_words
def test_a_timeout_says_that_the_output_blocks(gate: Gate) -> None:
    with PoolProcessor(workers=1) as pool:
        register_all(pool, [_block, actions.act])
        pool.process(Do("nothing"))
        error = error_of(lambda: pool.process(_Block(gate.address), timeout=_TIMEOUT_SECONDS))
        assert isinstance(error, TimeoutError)
        assert "event 'block'" in str(error)
        assert "is over, and its output is being flushed, in worker 1" in str(error)
        pool.terminate()


# --- the end of workers ---

_ENDS = """
import atexit
import os
import threading

import evproc
from evproc_pool import PoolProcessor


class Job(evproc.Event):
    name = "job"


def note(text):
    with open("log", "a") as file:
        file.write(f"{{text}} {{os.getpid()}}\\n")


def set_up():
    atexit.register(note, "atexit")


def tear_down():
    note("finalizer")
    if {fails!r}:
        raise ValueError("in the finalizer")


@evproc.want("job")
def work(proc, ev):
    raise evproc.StopProcessing(os.getpid())


coordinator = os.getpid()
atexit.register(lambda: os.getpid() != coordinator and note("the coordinator's"))
pool = PoolProcessor(
    workers=1, mp_context={method!r}, initializer=set_up, finalizer=tear_down, **{options}
)
pool.register(work)
pids = [pool.process(Job()) for _ in range(3)]
print(*dict.fromkeys(pids))
{end}
"""


_COLLECTED = """
from evproc_pool.calls import engines

engines._COLLECTION_SECONDS = 0.0
del pool
"""


def _ended(
    folder: Path, end: str = "", *, method: str = "forkserver", fails: bool = False, **options: int
) -> list[str]:
    code = _ENDS.format(method=method, end=end, fails=fails, options=options)
    with Script(code, folder) as script:
        finished = script.finish()
    assert (finished.code, finished.left) == (0, []), finished
    assert ("in the finalizer" in finished.err) == fails, finished.err
    pids = finished.out.split()
    assert len(pids) == (1 if not options else 3)
    log = folder / "log"
    lines = log.read_text("utf-8").split("\n")[:-1] if log.exists() else []
    assert sorted(line.split()[-1] for line in lines if "finalizer" in line) in (sorted(pids), [])
    return [line.rsplit(" ", 1)[0] for line in lines]


@pytest.mark.parametrize("method", ["forkserver", "spawn", "fork"])
@pytest.mark.parametrize(
    "end", ["pool.close()", "", _COLLECTED], ids=["closed", "forgotten", "collected"]
)
def test_a_worker_that_ends_in_peace_cleans_up(tmp_path: Path, method: str, end: str) -> None:
    assert _ended(tmp_path, end, method=method) == ["finalizer", "atexit"]


def test_workers_that_are_replaced_clean_up(tmp_path: Path) -> None:
    assert _ended(tmp_path, max_tasks_per_child=1) == ["finalizer", "atexit"] * 3


def test_an_error_of_the_finalizer_is_printed(tmp_path: Path) -> None:
    assert _ended(tmp_path, fails=True) == ["finalizer", "atexit"]


def test_workers_that_are_killed_do_not_clean_up(tmp_path: Path) -> None:
    assert _ended(tmp_path, "pool.terminate()") == []


def test_without_workers_the_finalizer_is_called_once(capsys: pytest.CaptureFixture[str]) -> None:
    calls: list[str] = []

    def fail() -> None:
        calls.append("finalizer")
        raise ValueError("in the finalizer")

    for end in ("close", "terminate", "forget"):
        pool = PoolProcessor(workers=0, finalizer=fail)
        register_all(pool, [actions.act])
        assert pool.process_many([Do("stop", 1)] * 2) == [1, 1]
        assert calls == []
        if end != "forget":
            getattr(pool, end)()
            pool.close()
        del pool
        assert calls == ([] if end == "terminate" else ["finalizer"]), end
        calls.clear()
    assert capsys.readouterr().err.count("ValueError: in the finalizer") == 2
    with PoolProcessor(workers=0, finalizer=fail):
        pass  # nothing was begun
    assert calls == []


def test_simulated_workers_call_the_finalizer() -> None:
    _FINALIZED.clear()
    with simulated_pool(workers=2, finalizer=_finalize) as pool:
        register_all(pool, [actions.act])
        pool.process_many([Do("stop", number) for number in range(20)])
    assert _FINALIZED == ["finalizer"] * 2


_FINALIZED: list[str] = []


def _finalize() -> None:
    _FINALIZED.append("finalizer")


def test_a_finalizer_that_cannot_cross_to_workers_is_named() -> None:
    with Path(os.devnull).open() as file, PoolProcessor(1, finalizer=file.close) as pool:
        register_all(pool, [actions.act])
        assert "the finalizer" in str(error_of(lambda: pool.process(Do("nothing"))))
