"""Large events, follow-ups and values: what arrives, and whose memory it is."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evproc import Event, StopProcessing, want
from evproc_pool import PoolProcessor, WorkerLostError
from evproc_pool.backends.local import processes
from evproc_pool.coordinator import codec
from evproc_pool.ipc import shared_memory, shared_receiver, shared_sender
from evproc_pool.testing import simulated_pool, worker_pids
from tests.support.helpers import register_all

MB = 1_000_000
_kept: dict[int, Any] = {}
_scratch = np.zeros(MB // 8)


class Array(Event):
    name = "array"

    def __init__(self, number: int, array: Any, what: str = "give back") -> None:
        self.number = number
        self.array = array
        self.what = what


class Plain(Event):
    name = "plain"

    def __init__(self, number: int) -> None:
        self.number = number


@want("array")
def handle(proc: Any, ev: Any) -> list[Event] | None:
    match ev.what:
        case "sum":
            raise StopProcessing((ev.number, float(ev.array.sum())))
        case "give back":
            ev.array[0] += 1  # it is the handler's own
            raise StopProcessing(ev.array)
        case "follow":
            return [Array(ev.number, ev.array + 1), Array(-1, ev.array, "sum")]
        case "keep":
            _kept[ev.number] = ev.array
        case "look":
            raise StopProcessing([float(each.sum()) for each in _kept.values()])
        case "die":
            os._exit(3)
        case "fork":
            if not os.fork():
                os._exit(0)
            raise StopProcessing(ev.array)
    return None


class Hop(Event):
    name = "hop"

    def __init__(self, number: int, step: int, array: Any, what: str, marker: str) -> None:
        self.number = number
        self.step = step
        self.array = array
        self.what = what
        self.marker = marker


HOPS = 5


@want("hop")
def hop(proc: Any, ev: Any) -> list[Event]:
    """Hand the array to the next event, changed; once it comes to something else before."""
    if ev.array is None:
        ev.array = full(ev.number)
    expected = float(ev.number + ev.step)
    if not (ev.array == expected).all():
        raise AssertionError(f"{ev.array[:3]}... and not {expected}")
    ev.array += 1  # it is the handler's own
    if ev.step == 2:
        _interfere(ev)
    if ev.step == HOPS:
        raise StopProcessing(float(ev.array.sum()))
    return [Hop(ev.number, ev.step + 1, ev.array, ev.what, ev.marker)]


def _interfere(ev: Any) -> None:
    marker = Path(f"{ev.marker}{ev.number}")
    if ev.what == "fork":
        if not os.fork():
            os._exit(0)
    elif ev.what and not marker.exists():
        marker.touch()
        if ev.what == "die":
            os._exit(3)
        raise OSError("fails once")


def hops(count: int, what: str = "", marker: str = "") -> list[Event]:
    return [
        Hop(number, 0, None, what if number % 3 == 0 else "", marker) for number in range(count)
    ]


def after_hops(count: int) -> list[float]:
    return [(number + HOPS + 1) * float(MB // 8) for number in range(count)]


@want("plain")
def scratch(proc: Any, ev: Any) -> None:
    """Gives the same array each time, with other contents."""
    _scratch[:] = ev.number
    raise StopProcessing(_scratch)


def full(number: int, size_bytes: int = MB) -> Any:
    return np.full(size_bytes // 8, float(number))


@pytest.fixture(params=["shared", "no regions", "no memory", "simulated"])
def pool(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[PoolProcessor]:
    """However large things travel."""
    if request.param == "no regions":
        monkeypatch.setattr(shared_memory, "IS_SUPPORTED", False)
    elif request.param == "no memory":

        def fails(*args: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "posix_fallocate", fails)
    if request.param == "simulated":
        with simulated_pool(2, seed=3) as made:
            yield register_all(made, [handle, scratch, hop])
    else:
        with PoolProcessor(2) as made:
            yield register_all(made, [handle, scratch, hop])


@pytest.fixture
def real_pool() -> Iterator[PoolProcessor]:
    with PoolProcessor(2) as made:
        yield register_all(made, [handle, scratch, hop])


@pytest.fixture
def put_bytes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes this process puts into shared memory, each time."""
    sizes: list[int] = []
    put = shared_sender.Sender.put

    def counted(self: shared_sender.Sender, parts: Sequence[Any]) -> shared_sender.Placed | None:
        sizes.append(sum(memoryview(part).nbytes for part in parts))
        return put(self, parts)

    monkeypatch.setattr(shared_sender.Sender, "put", counted)
    return sizes


@pytest.mark.parametrize("size_bytes", [1_000, 40_000, MB, 50 * MB])
def test_arrays_come_and_go_as_they_were(pool: PoolProcessor, size_bytes: int) -> None:
    count = 6 if size_bytes <= MB else 3
    events = [Array(number, full(number, size_bytes)) for number in range(count)]
    values = pool.process_many(events)
    for number, value in enumerate(values):
        expected = full(number, size_bytes)
        assert (events[number].array == expected).all()
        expected[0] += 1
        assert (value == expected).all()
        value[:] = 0  # it is the caller's own


def test_nothing_is_sent_twice(real_pool: PoolProcessor, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is where it cannot be unpacked."""
    again: list[object] = []
    pack = codec.Codec.pack_one_by_one

    def pack_again(*args: Any) -> Any:
        again.append(args)
        return pack(*args)

    monkeypatch.setattr(codec.Codec, "pack_one_by_one", pack_again)
    events = [Array(number, full(number), "sum") for number in range(20)]
    assert real_pool.process_many(events) == [(number, number * MB / 8) for number in range(20)]
    assert again == []


def test_so_do_other_things_of_that_size(pool: PoolProcessor) -> None:
    things: list[Any] = [
        bytes(MB),
        bytearray(b"x" * MB),
        "ä" * MB,
        [b"y" * 200_000] * 3,
        {"a": np.arange(100_000), "b": np.arange(10)},
    ]
    arrays = [np.array([0.0, *range(100_000)]) for _ in things]
    events = [Array(number, arrays[number]) for number in range(len(things))]
    for event, thing in zip(events, things, strict=True):
        event.more = thing  # type: ignore[attr-defined]
    outcomes = list(pool.stream(events, return_events=True))
    for outcome, thing in zip(outcomes, things, strict=True):
        processed: Any = outcome.processed
        assert processed.array[0] == 1
        if isinstance(thing, dict):
            assert (processed.more["a"] == thing["a"]).all()
        else:
            assert processed.more == thing
            assert type(processed.more) is type(thing)


def test_arrays_in_follow_ups(pool: PoolProcessor) -> None:
    events = [Array(number, full(number), "follow") for number in range(8)]
    for number, value in enumerate(pool.process_many(events)):
        assert value[0] == number + 2
        assert (value[1:] == number + 1).all()
    # the follow-up that ends first gives the value
    for number, value in enumerate(pool.process_many(events, ordering="unordered")):
        if isinstance(value, tuple):
            assert value == (-1, number * MB / 8)
        else:
            assert value[0] == number + 2
            assert (value[1:] == number + 1).all()


def test_a_value_is_what_it_was_when_it_was_given(pool: PoolProcessor) -> None:
    values = pool.process_many([Plain(number) for number in range(60)])
    assert [float(value[0]) for value in values] == list(range(60))
    assert all((value == value[0]).all() for value in values)


def test_an_event_may_be_changed_once_it_was_handed_in(pool: PoolProcessor) -> None:
    array = full(0, 3 * MB)

    def events() -> Iterator[Event]:
        for number in range(30):
            array[:] = number
            yield Array(number, array.copy(), "sum")

    assert pool.process_many(events()) == [(number, number * 3 * MB / 8) for number in range(30)]


def test_what_a_handler_keeps_stays_as_it_is(pool: PoolProcessor) -> None:
    """More than there is room for."""
    _kept.clear()
    pool.process_many([Array(number, full(number), "keep") for number in range(100)])
    pool.process_many([Array(number, full(1_007), "sum") for number in range(50)])
    sums = pool.process_many([Array(number, full(1_000), "look") for number in range(20)])
    known = {number * MB / 8 for number in range(100)}
    assert all(known.issuperset(each) for each in sums)
    assert all(len(set(each)) == len(each) for each in sums)
    assert sum(len(each) for each in sums) > 0
    _kept.clear()


def test_what_the_caller_keeps_stays_as_it_is_when_the_pool_is_gone(pool: PoolProcessor) -> None:
    values = pool.process_many([Array(number, full(number)) for number in range(100)])
    pool.process_many([Array(number, full(1_007), "sum") for number in range(50)])
    pool.close()
    gc.collect()
    assert [(value[0], value[-1]) for value in values] == [
        (number + 1, number) for number in range(100)
    ]


def test_a_death_costs_its_event_only(real_pool: PoolProcessor) -> None:
    events = [
        Array(number, full(number, 3 * MB), "die" if number == 11 else "give back")
        for number in range(30)
    ]
    values = real_pool.process_many(events, return_exceptions=True)
    error = values.pop(11)
    assert isinstance(error, WorkerLostError)
    assert [float(value[1]) for value in values] == [n for n in range(30) if n != 11]


def test_a_handler_may_fork(real_pool: PoolProcessor) -> None:
    values = real_pool.process_many([Array(number, full(number), "fork") for number in range(100)])
    assert [float(value[0]) for value in values] == list(range(100))
    assert all((value == value[0]).all() for value in values)


# --- follow-ups that stay in the coordinator's way, or do not ---


@pytest.mark.parametrize("ordering", ["cascade", "unordered"])
def test_an_array_goes_from_event_to_event(pool: PoolProcessor, ordering: Any) -> None:
    assert pool.process_many(hops(20), ordering=ordering) == after_hops(20)
    _holds_nothing(pool)


def test_nothing_of_it_is_copied_where_there_is_one_worker(
    put_bytes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_receiver.Receiver, "_copy", lambda *args: pytest.fail("copied"))
    with PoolProcessor(1) as pool:
        register_all(pool, [hop])
        assert pool.process_many(hops(4)) == after_hops(4)
        assert put_bytes == []
        assert _holds_nothing(pool) == shared_memory.IS_SUPPORTED


def test_little_of_it_is_copied_where_there_are_two(
    real_pool: PoolProcessor, put_bytes: list[int]
) -> None:
    assert real_pool.process_many(hops(60)) == after_hops(60)
    assert len(put_bytes) < 60 * HOPS / 3  # it would be all of them


def test_the_same_with_a_limit_of_time(put_bytes: list[int]) -> None:
    with PoolProcessor(1, event_timeout=60) as pool:
        register_all(pool, [hop])
        assert pool.process_many(hops(4)) == after_hops(4)
        assert put_bytes == []


def test_of_a_root_it_is_copied_since_the_caller_may_change_it(put_bytes: list[int]) -> None:
    with PoolProcessor(1) as pool:
        register_all(pool, [handle])
        (value,) = pool.process_many([Array(0, full(0))])
        del put_bytes[:]
        assert pool.process_many([Array(0, value, "sum")]) == [(0, 1.0)]
        assert len(put_bytes) == 1


def test_a_retry_has_what_the_first_attempt_had(tmp_path: Path) -> None:
    with PoolProcessor(2, max_retries=2) as pool:
        register_all(pool, [hop])
        events = hops(20, "fail", f"{tmp_path}/")
        assert pool.process_many(events) == after_hops(20)
        assert len(list(tmp_path.iterdir())) == 7
        assert _holds_nothing(pool) > 0 or not shared_memory.IS_SUPPORTED


def test_when_a_worker_dies_another_one_has_it(tmp_path: Path) -> None:
    with PoolProcessor(2, max_retries=9, crash_limit=9) as pool:
        register_all(pool, [hop])
        events = hops(20, "die", f"{tmp_path}/")
        assert pool.process_many(events) == after_hops(20)
        assert len(list(tmp_path.iterdir())) == 7
        assert _holds_nothing(pool) > 0 or not shared_memory.IS_SUPPORTED


def test_a_death_costs_its_cascade_only(real_pool: PoolProcessor, tmp_path: Path) -> None:
    values = real_pool.process_many(hops(20, "die", f"{tmp_path}/"), return_exceptions=True)
    for number, (value, expected) in enumerate(zip(values, after_hops(20), strict=True)):
        if number % 3 == 0:
            assert isinstance(value, WorkerLostError)
        else:
            assert value == expected


def test_handlers_may_fork_between_events(real_pool: PoolProcessor) -> None:
    for _ in range(3):
        assert real_pool.process_many(hops(20, "fork")) == after_hops(20)


def test_each_event_comes_back_as_its_handler_left_it(pool: PoolProcessor) -> None:
    seen = 0
    for outcome in pool.stream(hops(10), return_events=True, every_event=True):
        processed: Any = outcome.processed
        if outcome.error is None and processed is not None:
            assert (processed.array == processed.number + processed.step + 1).all()
            processed.array[:] = 0  # it is the caller's own
            seen += 1
    assert seen == 10 * (HOPS + 1)
    del outcome, processed
    _holds_nothing(pool)


def _holds_nothing(pool: PoolProcessor) -> int:
    """No shared memory is held, and no more of it is there than stays; of how many workers."""
    gc.collect()
    seen = 0
    backend: Any = pool._engine._backend  # type: ignore[union-attr]
    for worker in getattr(backend, "_processes", {}).values():
        if worker.shared_memory is not None and worker.shared_memory._map is not None:
            size = os.fstat(worker.shared_memory._fd).st_blocks * 512
            assert size <= 2 * shared_memory.KEPT_BYTES + MB
            assert (
                sum(worker.shared_memory.words[shared_memory.SLOTS : 2 * shared_memory.SLOTS]) == 0
            )
            seen += 1
    return seen


@pytest.mark.skipif(not shared_memory.IS_SUPPORTED, reason="memory is shared on Linux only")
def test_many_arrays_leave_nothing_but_what_is_kept(real_pool: PoolProcessor) -> None:
    for outcome in real_pool.stream(Array(number, full(1)) for number in range(200)):
        assert outcome.unwrap()[0] == 2
    backend: Any = real_pool._engine._backend  # type: ignore[union-attr]
    assert isinstance(backend, processes.LocalBackend)
    assert len(worker_pids(real_pool)) == 2
    del outcome
    gc.collect()
    sizes = []
    for worker in backend._processes.values():
        assert worker.shared_memory is not None
        size = os.fstat(worker.shared_memory._fd).st_blocks * 512
        sizes.append(size)
        if size:  # on a busy machine one worker may have had them all
            words = worker.shared_memory.words
            assert sum(words[shared_memory.SLOTS : 2 * shared_memory.SLOTS]) == 0
    assert 0 < max(sizes) <= 2 * shared_memory.KEPT_BYTES + MB
