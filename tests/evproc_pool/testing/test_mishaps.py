"""What once went wrong, or was found by trying to break it: one mishap harms no other event."""

from __future__ import annotations

import dataclasses
import itertools
import multiprocessing
import os
import textwrap
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from evproc import Event, StopProcessing
from evproc_pool import (
    PoolForkedError,
    PoolProcessor,
    RemoteError,
    SerializationError,
    WorkerLostError,
)
from tests.support.actions import Do
from tests.support.helpers import (
    PATIENCE_SECONDS,
    Background,
    Gate,
    error_of,
    exit_code,
    fork,
    run_script,
    warm,
)


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    """Nothing of it can be set, not even its cause."""


class ExitsAsText(Exception):
    def __str__(self) -> str:
        raise SystemExit("text")


class ExitsWhenPickled(Exception):
    def __reduce__(self) -> Any:
        raise SystemExit("reduce")


class _ExitsWhenRebuilt(Event):
    name = "rebuilt"

    def __reduce__(self) -> Any:
        return _exit, ()


class _ExitsWhenDumped(Event):
    name = "dumped"

    def __reduce__(self) -> Any:
        raise SystemExit("dump")


def _exit() -> None:
    raise SystemExit("load")


class Logged(Event):
    """Leaves a line for each time it is handled; some kinds do something else besides."""

    name = "logged"

    def __init__(self, path: str, number: int, kind: str = "") -> None:
        super().__init__()
        self.path = path
        self.number = number
        self.kind = kind

    def __getstate__(self) -> dict[str, Any]:
        if self.kind == "not to be pickled":
            raise ValueError("no")
        return self.__dict__


def log(proc: object, ev: Event) -> None:
    if isinstance(ev, Logged):
        with Path(ev.path).open("a", encoding="ascii") as file:
            file.write(f"{ev.number}\n")
        if ev.kind == "deadly":
            os._exit(3)


class Odd(Event):
    name = "odd"

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what


def misbehave(proc: object, ev: Event) -> list[Event] | None:
    what = ev.what if isinstance(ev, Odd) else None
    if what == "return what exits when rebuilt":
        return [_ExitsWhenRebuilt()]
    if what == "return what exits when dumped":
        return [_ExitsWhenDumped()]
    if what == "stop with what exits when rebuilt":
        raise StopProcessing(_ExitsWhenRebuilt())
    if what == "stop with what exits when dumped":
        raise StopProcessing(_ExitsWhenDumped())
    return None


@pytest.fixture
def two(pool: PoolProcessor) -> PoolProcessor:
    pool.register(log)
    pool.register(misbehave)
    return pool


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        (Do("fail", Frozen), Frozen),
        (Do("fail", ExitsAsText), ExitsAsText),
        (Do("fail", ExitsWhenPickled), RemoteError),
        (Odd("return what exits when rebuilt"), SerializationError),
        (Odd("return what exits when dumped"), SerializationError),
        (Odd("stop with what exits when rebuilt"), SerializationError),
        (Odd("stop with what exits when dumped"), SerializationError),
        (_ExitsWhenDumped(), SerializationError),
        (_ExitsWhenRebuilt(), SerializationError),
    ],
)
def test_what_raises_in_passing_fails_its_own_event_and_nothing_else(
    two: PoolProcessor, event: Event, kind: type[BaseException]
) -> None:
    pids = warm(two)
    events = [Do("stop", 1), event, Do("stop", 2)]
    first, failed, last = two.process_many(events, return_exceptions=True)
    assert (first, type(failed), last) == (1, kind, 2)
    assert warm(two) == pids


def test_a_call_beside_an_endless_stream_has_its_turn(pool: PoolProcessor) -> None:
    warm(pool)
    enough = threading.Event()

    def endless() -> Iterator[Event]:
        for number in itertools.takewhile(lambda _: not enough.is_set(), itertools.count()):
            yield Do("stop", number)

    with Background(lambda: sum(1 for _ in pool.stream(endless()))):
        try:
            assert pool.process(Do("stop", "one")) == "one"
            assert pool.process_many([Do("stop", n) for n in range(5)]) == list(range(5))
            assert len(list(pool.stream([Do("stop", n) for n in range(5)]))) == 5
            assert pool.submit(Do("stop", "later")).result() == "later"
        finally:
            enough.set()


@pytest.mark.parametrize("ahead", [0, 3])
def test_events_that_were_over_are_not_run_again_for_one_that_could_not_be_sent(
    one_worker: PoolProcessor, tmp_path: Path, ahead: int
) -> None:
    one_worker.register(log)
    path = str(tmp_path / "log")
    # quick ones before, so that the others share a batch
    one_worker.process_many([Logged(path, -1) for _ in range(500)])
    events = [Logged(path, number) for number in range(20)]
    events[ahead] = Logged(path, ahead, "not to be pickled")
    events[10] = Logged(path, 10, "deadly")
    values = one_worker.process_many(events, return_exceptions=True)
    failed = {place: type(value) for place, value in enumerate(values) if value is not None}
    assert failed == {ahead: SerializationError, 10: WorkerLostError}
    times = Counter(map(int, Path(path).read_text("ascii").split()))
    del times[-1]
    assert times == Counter(number for number in range(20) if number != ahead)


def test_what_a_dead_worker_left_unreadable_brings_no_new_work_to_it(
    one_worker: PoolProcessor, gate: Gate
) -> None:
    # the follow-up cannot be unpacked here, and who could pack it again is dead
    events = [Do("follow_surprise"), Do("leave", 3), *(Do("stop", n) for n in range(300))]
    values = one_worker.process_many(events, return_exceptions=True)
    assert isinstance(values[0], SerializationError)
    assert isinstance(values[1], WorkerLostError)
    assert values[2:] == list(range(300))


def test_after_a_death_in_unpickling_events_are_soon_packed_together_again(
    two: PoolProcessor,
) -> None:
    warm(two)
    events = [Do("stop", n) for n in range(40)]
    values = two.process_many([*events, _Deadly(), *events], return_exceptions=True)
    assert isinstance(values.pop(40), WorkerLostError)
    assert values == [*range(40), *range(40)]
    two.process_many([Do("stop", n) for n in range(200)])
    engine = two._engine
    assert engine is not None
    assert engine._coordinator._codec.one_by_one == 0


class _Deadly(Event):
    name = "deadly"

    def __reduce__(self) -> Any:
        return _die_if_worker, ()


def _die_if_worker() -> Any:
    if multiprocessing.current_process().name.startswith("evproc-worker"):
        os._exit(4)
    return _Deadly()


def test_closing_from_a_callback_is_refused_and_changes_nothing(
    pool: PoolProcessor, gate: Gate
) -> None:
    errors: Future[BaseException] = Future()
    future = pool.submit(Do("wait_at", gate.address, "", 1))
    gate.arrival()  # or else the callback might be called by this thread
    future.add_done_callback(lambda _: errors.set_result(error_of(pool.close)))
    gate.close()
    assert future.result(PATIENCE_SECONDS) == 1
    assert type(errors.result(PATIENCE_SECONDS)) is RuntimeError
    assert pool.process(Do("stop", 2)) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_stream_is_not_for_a_forked_process(pool: PoolProcessor, gate: Gate) -> None:
    events = [Do("stop", n) for n in range(500)]
    events[5] = Do("wait_at", gate.address, "", 5)  # its outcome is not here yet
    stream = pool.stream(events)
    values = [next(stream).value for _ in range(5)]

    def use() -> None:
        with pytest.raises(PoolForkedError):
            list(stream)

    assert exit_code(fork(use)) == 0
    with Background(lambda: [outcome.value for outcome in stream]) as rest:
        gate.arrival().release()
        assert values + rest.result() == list(range(500))


_IN_A_CHILD = """
    import multiprocessing
    import sys
    from evproc import Event, StopProcessing
    from evproc_pool import PoolProcessor

    class Number(Event):
        name = "number"

        def __init__(self, number):
            super().__init__()
            self.number = number

    def stop(proc, ev):
        raise StopProcessing(ev.number)

    def child():
        with PoolProcessor(workers=1) as pool:
            pool.register(stop)
            print(pool.process_many([Number(place) for place in range(20)])[-1], flush=True)

    if __name__ == "__main__":
        process = multiprocessing.get_context(sys.argv[1]).Process(target=child)
        process.start()
        process.join()
        sys.exit(process.exitcode)
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_pool_in_a_child_of_a_script_takes_what_the_script_defines(
    tmp_path: Path, method: str
) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"there is no {method} here")
    code = textwrap.dedent(_IN_A_CHILD).replace("sys.argv[1]", repr(method))
    assert run_script(code, tmp_path) == "19\n"
