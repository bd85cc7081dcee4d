"""Shared memory: which part of it is whose, and when that ends."""

from __future__ import annotations

import gc
import os
import random
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from evproc_pool.ipc import shared_memory as region_module
from evproc_pool.ipc.allocator import Allocator
from evproc_pool.ipc.shared_memory import (
    KEPT_BYTES,
    MOST_SENT_BYTES,
    RANGE_BYTES,
    SLOTS,
    Placed,
    Receiver,
    Sender,
    SharedMemory,
)
from tests.support.helpers import PATIENCE_SECONDS, Background, exit_code, fork

MB = 1 << 20


# --- the books ---


@pytest.mark.parametrize("seed", range(20))
def test_segments_do_not_overlap_and_are_as_far_in_front_as_can_be(seed: int) -> None:
    """Against a map of bytes."""
    rng = random.Random(seed)
    size, slots = rng.randint(10, 300), rng.randint(1, 12)
    segments = Allocator(size, slots)
    used = [False] * size
    for _ in range(500):
        if segments.used and rng.random() < 0.45:
            segment = rng.choice(segments.used)
            segments.give_back(segment)
            used[segment.start : segment.stop] = [False] * (segment.stop - segment.start)
            continue
        wanted = rng.randint(1, size // 2)
        fits = [at for at in range(size - wanted + 1) if not any(used[at : at + wanted])]
        taken = segments.take(wanted)
        if not fits or sum(1 for _ in segments.used) > slots:
            assert taken is None
        elif taken is None:
            assert len(segments.used) == slots
        else:
            assert (taken.start, taken.stop) == (fits[0], fits[0] + wanted)
            used[taken.start : taken.stop] = [True] * wanted
        assert len({each.slot for each in segments.used}) == len(segments.used) <= slots
        assert list(segments.used) == sorted(segments.used)


def test_what_is_not_in_use_cannot_be_given_back() -> None:
    segments = Allocator(100, 2)
    segment = segments.take(10)
    assert segment is not None
    segments.give_back(segment)
    with pytest.raises(ValueError, match="not in list"):
        segments.give_back(segment)
    assert segments.take(100) is not None


# --- the memory ---

pytestmark = pytest.mark.skipif(
    not region_module.IS_SUPPORTED, reason="memory is shared on Linux only"
)


@pytest.fixture
def region() -> Iterator[SharedMemory]:
    made = SharedMemory.create()
    assert made is not None
    yield made
    made.close()


@pytest.fixture
def sender(region: SharedMemory) -> Sender:
    return Sender(region, 1)


@pytest.fixture
def receiver(region: SharedMemory) -> Receiver:
    return Receiver(region, 1)


def put(sender: Sender, *parts: Any) -> Placed:
    placed = sender.put(parts)
    assert placed is not None
    return placed


def memory_bytes(region: SharedMemory) -> int:
    """What the file has."""
    return os.fstat(region._fd).st_blocks * 512


def in_use(region: SharedMemory) -> int:
    return sum(map(bool, region.words))


def test_parts_arrive_as_they_were_and_can_be_written_to(
    sender: Sender, receiver: Receiver
) -> None:
    parts = [b"", b"abc", bytearray(1000), memoryview(b"x" * 65)]
    views = receiver.open(put(sender, *parts))
    assert [bytes(view) for view in views] == [bytes(part) for part in parts]
    assert {(view.format, view.itemsize, view.readonly) for view in views} == {("B", 1, False)}
    views[2][5] = 7
    assert parts[2][5] == 0


def test_arrays_begin_where_they_like_to(sender: Sender, receiver: Receiver) -> None:
    np = pytest.importorskip("numpy")
    views = receiver.open(put(sender, b"abc", np.arange(10), b"d", np.arange(3.0)))
    for view in (views[1], views[3]):
        assert np.frombuffer(view, "u1").ctypes.data % 64 == 0
    assert (np.frombuffer(views[3]) == np.arange(3.0)).all()


def test_it_is_used_again_when_nobody_refers_to_it(
    region: SharedMemory, sender: Sender, receiver: Receiver
) -> None:
    first = put(sender, b"x" * 1000)
    views = receiver.open(first)
    part = memoryview(views[0])[10:20]
    del views
    assert in_use(region) == 1
    assert put(sender, b"y" * 1000).start != first.start
    assert bytes(part) == b"x" * 10
    del part
    gc.collect()
    assert put(sender, b"z" * 1000).start == first.start


def test_directions_have_nothing_to_do_with_each_other(region: SharedMemory) -> None:
    for number in range(SLOTS):
        for direction in (0, 1):
            placed = put(Sender(region, direction), bytes([number, direction]))
            assert bytes(Receiver(region, direction).open(placed)[0]) == bytes([number, direction])


def test_without_a_slot_or_room_there_is_no_place(
    sender: Sender, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = [put(sender, b"x") for _ in range(SLOTS)]
    assert sender.put([b"x"]) is None
    receiver.open(sent.pop())
    assert sender.put([b"x"]) is not None
    sender._segments = Allocator(1000, SLOTS)
    assert sender.put([bytes(1001)]) is None
    assert sender.put([bytes(900)]) is not None


def test_there_are_places_left_whatever_is_held(
    region: SharedMemory, sender: Sender, receiver: Receiver
) -> None:
    held = [receiver.open(put(sender, bytes([number]))) for number in range(2 * SLOTS)]
    assert in_use(region) < SLOTS
    assert [view[0][0] for view in held] == [number % 256 for number in range(2 * SLOTS)]


def test_no_more_is_on_its_way_than_that(
    sender: Sender, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(region_module, "MOST_SENT_BYTES", MB)
    first = put(sender, bytes(MB // 2))
    assert sender.put([bytes(3 * MB // 4)]) is None
    put(sender, bytes(MB // 2))
    held = receiver.open(first)  # it has arrived
    put(sender, bytes(MB // 2))
    assert len(held[0]) == MB // 2


def test_without_memory_there_is_no_place(
    region: SharedMemory, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*args: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", fails)
        assert sender.put([bytes(10)]) is None
        assert in_use(region) == 0
    assert put(sender, bytes(10)).start == 0


def test_without_memory_for_all_of_it_there_is_none_for_a_part(
    region: SharedMemory, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = memory_bytes(region)
    write = os.pwrite

    def fails_soon(fd: int, content: memoryview, offset: int) -> int:
        if offset > KEPT_BYTES + 3 * MB:
            raise OSError(28, "No space left on device")
        return write(fd, content[: MB // 2], offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", fails_soon)
        assert sender.put([bytes(KEPT_BYTES + 8 * MB)]) is None
        assert in_use(region) == 0
        assert memory_bytes(region) <= before + KEPT_BYTES
    assert put(sender, bytes(10)).start == 0


def test_what_is_written_bit_by_bit_arrives_whole(
    sender: Sender, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.pwrite
    monkeypatch.setattr(
        os, "pwrite", lambda fd, content, offset: write(fd, content[: 5 * MB + 1], offset)
    )
    parts = [os.urandom(MB), b"", os.urandom(KEPT_BYTES)]
    assert [bytes(view) for view in receiver.open(put(sender, *parts))] == parts


def test_what_was_used_stays_up_to_a_limit_and_the_rest_goes(
    region: SharedMemory, sender: Sender, receiver: Receiver
) -> None:
    before = memory_bytes(region)
    views = receiver.open(put(sender, bytes(KEPT_BYTES + 20 * MB)))
    assert memory_bytes(region) >= before + KEPT_BYTES + 20 * MB
    del views
    assert memory_bytes(region) <= before + KEPT_BYTES + MB
    # and it can be had again
    data = os.urandom(5 * MB)
    large = put(sender, bytes(KEPT_BYTES), data)
    assert bytes(receiver.open(large)[1]) == data


def test_a_worker_that_holds_on_to_much_gets_copies(region: SharedMemory) -> None:
    sender, receiver = Sender(region, 0), Receiver(region, 0)
    held = [receiver.open(put(sender, bytes([number]) * (MB))) for number in range(100)]
    assert in_use(region) == KEPT_BYTES // (2 * MB)  # there is something left for others
    assert [view[0][-1] for view in held] == list(range(100))
    held[50][0][0] = 255
    assert memory_bytes(region) <= 2 * KEPT_BYTES
    del held
    assert in_use(region) == 0


def test_what_the_coordinator_holds_is_not_copied(
    region: SharedMemory, sender: Sender, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Receiver, "_copy", lambda *args: pytest.fail("copied"))
    held = [receiver.open(put(sender, bytes([number]) * MB)) for number in range(60)]
    assert [view[0][-1] for view in held] == list(range(60))
    starts = [each.start for each in sender.held]
    assert sum(start < KEPT_BYTES for start in starts) == KEPT_BYTES // (2 * MB)
    del held
    assert in_use(region) == 0
    assert memory_bytes(region) <= KEPT_BYTES + MB
    # and what comes and goes is where the memory stays
    assert put(sender, bytes(MB)).start == 0


def test_what_is_held_is_found_and_read_back(
    region: SharedMemory, sender: Sender, receiver: Receiver
) -> None:
    contents = [os.urandom(1000), os.urandom(100_000)]
    views = receiver.open(put(sender, *contents))
    for view, content in zip(views, contents, strict=True):
        start = receiver.find(view)
        assert start is not None
        copy = sender.read_back(start, view.nbytes)
        assert bytes(copy) == content
        copy[:] = bytes(len(content))  # it is nobody else's
        assert bytes(view) == content
        part = receiver.find(view[10:20])
        assert part == start + 10


def test_what_is_not_held_is_not_found(
    region: SharedMemory, sender: Sender, receiver: Receiver
) -> None:
    views = receiver.open(put(sender, b"x" * 1000))
    assert Receiver(region, 0).find(views[0]) is None
    assert Receiver(region, 1).find(views[0]) is None  # that one has not got it
    assert receiver.find(memoryview(bytearray(1000))) is None
    assert receiver.find(views[0].toreadonly()) is None
    other = SharedMemory.create()
    assert other is not None
    elsewhere = Receiver(other, 1).open(put(Sender(other, 1), b"y" * 1000))
    assert receiver.find(elsewhere[0]) is None
    receiver.share()  # a process was forked
    assert receiver.find(views[0]) is None
    del elsewhere
    other.close()


def test_what_is_in_new_pages_is_held_and_not_copied(
    region: SharedMemory, sender: Sender, receiver: Receiver
) -> None:
    before = memory_bytes(region)
    put(sender, bytes(KEPT_BYTES))
    held = [receiver.open(put(sender, bytes([number]) * 20 * MB)) for number in range(5)]
    assert in_use(region) == 6
    assert memory_bytes(region) >= before + KEPT_BYTES + 100 * MB
    assert [view[0][-1] for view in held] == list(range(5))
    del held
    assert in_use(region) == 1
    assert memory_bytes(region) <= before + KEPT_BYTES + MB


def test_of_new_pages_not_all_are_held(
    region: SharedMemory, sender: Sender, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert region_module._MOST_HELD_BYTES + KEPT_BYTES + MOST_SENT_BYTES <= RANGE_BYTES
    monkeypatch.setattr(region_module, "_MOST_HELD_BYTES", 50 * MB)
    put(sender, bytes(KEPT_BYTES))
    held = [receiver.open(put(sender, bytes([number]) * 20 * MB)) for number in range(5)]
    assert in_use(region) == 3
    assert [view[0][-1] for view in held] == list(range(5))


def test_new_pages_do_not_count_as_the_senders(region: SharedMemory, sender: Sender) -> None:
    put(sender, bytes(KEPT_BYTES))
    content = bytes(60 * MB)
    before = psutil.Process().memory_info().rss
    put(sender, content)
    assert psutil.Process().memory_info().rss < before + 30 * MB


def test_it_is_in_no_core_dump(region: SharedMemory, sender: Sender) -> None:
    put(sender, b"x")
    inode = os.fstat(region._fd).st_ino
    head, *lines = Path("/proc/self/smaps").read_text().splitlines()
    flags: list[str] = []
    for line in lines:
        if line.startswith("VmFlags:"):
            flags += line.split() if head.split()[4] == str(inode) else []
        elif "-" in line.split()[0]:
            head = line
    assert "dd" in flags


def test_a_single_message_is_not_copied_however_large(
    region: SharedMemory, sender: Sender, receiver: Receiver
) -> None:
    views = receiver.open(put(sender, bytes(2 * KEPT_BYTES)))
    assert in_use(region) == 1
    del views


def test_what_is_held_outlives_the_region() -> None:
    region = SharedMemory.create()
    assert region is not None
    views = Receiver(region, 0).open(put(Sender(region, 0), b"x" * 100_000))
    region.close()
    assert bytes(views[0]) == b"x" * 100_000
    views[0][0] = 0
    del views  # nobody complains
    gc.collect()


def test_what_a_forked_process_has_too_is_not_used_again(
    region: SharedMemory, sender: Sender, receiver: Receiver
) -> None:
    held = threading.local()  # of which a forked process lets go before it does anything
    views = held.views = receiver.open(put(sender, b"x" * 1000))

    def child() -> None:
        views.clear()
        gc.collect()
        assert in_use(region) == 1

    with Background(lambda: exit_code(fork(child))) as other:
        assert other.result() == 0
    assert bytes(views[0]) == b"x" * 1000
    views.clear()
    gc.collect()
    assert in_use(region) == 1
    # the next ones come and go as ever
    views = receiver.open(put(sender, b"y" * 1000))
    assert in_use(region) == 2
    views.clear()
    assert in_use(region) == 1


def test_once_a_process_has_forked_it_holds_less(
    region: SharedMemory, sender: Sender, receiver: Receiver
) -> None:
    put(sender, bytes(KEPT_BYTES))
    held = []
    for number in range(5):
        held.append(receiver.open(put(sender, bytes([number]) * 20 * MB)))
        receiver.share()
    assert in_use(region) == 2
    assert [view[0][-1] for view in held] == list(range(5))


def test_where_it_cannot_be_mapped_it_is_read(
    sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = [os.urandom(1000), os.urandom(KEPT_BYTES)]
    sent = [put(sender, content) for content in contents]
    other = SharedMemory(os.dup(sender._region._fd))
    monkeypatch.setattr(region_module, "_has_limited_addresses", lambda: True)
    receiver = Receiver(other, 1)
    assert [bytes(receiver.open(each)[0]) for each in sent] == contents
    assert other._map is None
    assert in_use(sender._region) == 0
    other.close()


def test_where_there_is_no_memory_for_a_copy_it_is_held(
    region: SharedMemory, sender: Sender, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*args: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(os, "preadv", fails)
    held = [receiver.open(put(sender, bytes([number]) * 10 * MB)) for number in range(3)]
    assert [view[0][-1] for view in held] == [0, 1, 2]
    assert in_use(region) == 3
    del held
    assert in_use(region) == 0


def test_an_interrupt_while_it_is_let_go_of_comes_a_little_later(
    region: SharedMemory, sender: Sender, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    views = receiver.open(put(sender, b"x" * 1000))
    remove = SharedMemory.remove
    struck: list[bool] = []

    def interrupted(*args: Any) -> None:
        remove(*args)
        if not struck:
            struck.append(True)
            raise KeyboardInterrupt

    monkeypatch.setattr(SharedMemory, "remove", interrupted)
    is_interrupted = threading.Event()
    handler = signal.signal(signal.SIGINT, lambda *_: is_interrupted.set())
    try:
        del views
        assert struck
        assert in_use(region) == 0
        assert is_interrupted.wait(PATIENCE_SECONDS)
    finally:
        signal.signal(signal.SIGINT, handler)


def test_an_interrupt_once_it_was_let_go_of_spares_what_came_since(
    region: SharedMemory, sender: Sender, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(sender, bytes(KEPT_BYTES))
    views = receiver.open(put(sender, bytes(MB)))
    give_back = SharedMemory.give_back
    sent: list[Placed] = []

    def interrupted(*args: Any) -> None:
        give_back(*args)
        if not sent:
            sent.append(put(sender, b"n" * MB))  # by the worker, in the same place
            raise KeyboardInterrupt

    monkeypatch.setattr(SharedMemory, "give_back", interrupted)
    is_interrupted = threading.Event()
    handler = signal.signal(signal.SIGINT, lambda *_: is_interrupted.set())
    try:
        del views
        assert is_interrupted.wait(PATIENCE_SECONDS)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert bytes(receiver.open(sent[0])[0]) == b"n" * MB


@pytest.mark.parametrize("size", [MB, KEPT_BYTES + MB])
def test_an_interrupt_while_it_is_written_leaves_nothing_that_refers_to_it(
    region: SharedMemory, sender: Sender, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    content = bytearray(size)
    part = memoryview(content)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(SharedMemory, "copy", interrupted)
    monkeypatch.setattr(SharedMemory, "write", interrupted)
    with pytest.raises(KeyboardInterrupt) as struck:
        sender.put([part])
    part.release()  # which fails where a view of it is in the traceback
    assert struck.traceback


def test_what_a_dead_worker_held_is_kept_for_what_it_has_forked() -> None:
    region = SharedMemory.create()
    assert region is not None
    there = Sender(region, 0)
    of_worker = Receiver(region, 0).open(put(there, b"w" * MB))
    put(there, bytes(20 * MB))
    before = memory_bytes(region)
    receiver = Receiver(region, 1)
    held = receiver.open(put(Sender(region, 1), b"c" * 1000))
    receiver.close(there)
    assert bytes(of_worker[0]) == b"w" * MB
    assert bytes(held[0]) == b"c" * 1000
    assert memory_bytes(region) < before - 19 * MB
    del of_worker, held
    region.close()


def test_of_a_dead_worker_only_what_is_held_is_kept() -> None:
    region = SharedMemory.create()
    assert region is not None
    before = memory_bytes(region)
    sender, receiver = Sender(region, 1), Receiver(region, 1)
    small = receiver.open(put(sender, b"s" * 1000))
    receiver.open(put(sender, bytes(15 * MB)))
    other = receiver.open(put(sender, b"o" * 1000))
    put(Sender(region, 0), bytes(20 * MB))
    assert memory_bytes(region) > before + 35 * MB
    receiver.close(Sender(region, 0))
    assert memory_bytes(region) < before + MB
    assert bytes(small[0]) + bytes(other[0]) == b"s" * 1000 + b"o" * 1000
    del small, other
    region.close()


def test_where_addresses_are_limited_nothing_is_mapped() -> None:
    code = (
        "import resource; from evproc_pool.ipc.shared_memory import SharedMemory, Sender;"
        "region = SharedMemory.create();"
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 36, 1 << 36));"
        "assert Sender(region, 0).put([b'x']) is None;"
        "assert region._map is None"
    )
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ["memfd_create", "truncate"])
def test_where_it_cannot_be_made_there_is_none(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: object) -> None:
        raise OSError(24, "Too many open files")

    before = len(list(Path("/proc/self/fd").iterdir()))
    monkeypatch.setattr(os, name, fails)
    assert SharedMemory.create() is None
    assert len(list(Path("/proc/self/fd").iterdir())) == before
