"""Shared memory: which part of it belongs to whom, and until when."""

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

from evproc_pool.ipc import shared_memory, shared_receiver, shared_sender
from evproc_pool.ipc.shared_memory import (
    KEPT_BYTES,
    MOST_SENT_BYTES,
    RANGE_BYTES,
    SLOTS,
    SharedMemory,
)
from evproc_pool.ipc.shared_receiver import Receiver
from evproc_pool.ipc.shared_sender import Allocator, Placed, Sender
from tests.support.helpers import Background, exit_code, fork, wait_until
from tests.support.sizes import BARS

MB = 1 << 20


# --- the allocator ---


@pytest.mark.parametrize("seed", range(20 if BARS else 5))
def test_segments_do_not_overlap_and_take_the_first_gap(seed: int) -> None:
    """Compares the allocator with a map of bytes."""
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


def test_a_segment_that_is_not_in_use_cannot_be_given_back() -> None:
    segments = Allocator(100, 2)
    segment = segments.take(10)
    assert segment is not None
    segments.give_back(segment)
    with pytest.raises(ValueError, match="not in list"):
        segments.give_back(segment)
    assert segments.take(100) is not None


# --- the memory ---

pytestmark = pytest.mark.skipif(
    not shared_memory.IS_SUPPORTED, reason="memory is shared on Linux only"
)


@pytest.fixture
def memory() -> Iterator[SharedMemory]:
    made = SharedMemory.create()
    assert made is not None
    yield made
    made.close()


@pytest.fixture
def sender(memory: SharedMemory) -> Sender:
    return Sender(memory, 1)


@pytest.fixture
def receiver(memory: SharedMemory) -> Receiver:
    return Receiver(memory, 1)


def put(sender: Sender, *parts: Any) -> Placed:
    placed = sender.put(parts)
    assert placed is not None
    return placed


def memory_bytes(memory: SharedMemory) -> int:
    """How much memory the file has."""
    return os.fstat(memory._fd).st_blocks * 512


def in_use(memory: SharedMemory) -> int:
    return sum(map(bool, memory.words))


def test_parts_arrive_unchanged_and_are_writable(sender: Sender, receiver: Receiver) -> None:
    parts = [b"", b"abc", bytearray(1000), memoryview(b"x" * 65)]
    views = receiver.open(put(sender, *parts))
    assert [bytes(view) for view in views] == [bytes(part) for part in parts]
    assert {(view.format, view.itemsize, view.readonly) for view in views} == {("B", 1, False)}
    views[2][5] = 7
    assert parts[2][5] == 0


def test_arrays_are_aligned(sender: Sender, receiver: Receiver) -> None:
    np = pytest.importorskip("numpy")
    views = receiver.open(put(sender, b"abc", np.arange(10), b"d", np.arange(3.0)))
    for view in (views[1], views[3]):
        assert np.frombuffer(view, "u1").ctypes.data % 64 == 0
    assert (np.frombuffer(views[3]) == np.arange(3.0)).all()


def test_a_segment_is_used_again_when_nobody_refers_to_it(
    memory: SharedMemory, sender: Sender, receiver: Receiver
) -> None:
    first = put(sender, b"x" * 1000)
    views = receiver.open(first)
    part = memoryview(views[0])[10:20]
    del views
    assert in_use(memory) == 1
    assert put(sender, b"y" * 1000).start != first.start
    assert bytes(part) == b"x" * 10
    del part
    gc.collect()
    assert put(sender, b"z" * 1000).start == first.start


def test_the_two_directions_are_independent(memory: SharedMemory) -> None:
    for number in range(SLOTS):
        for direction in (0, 1):
            placed = put(Sender(memory, direction), bytes([number, direction]))
            assert bytes(Receiver(memory, direction).open(placed)[0]) == bytes([number, direction])


def test_without_a_free_slot_or_room_put_returns_none(
    sender: Sender, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = [put(sender, b"x") for _ in range(SLOTS)]
    assert sender.put([b"x"]) is None
    receiver.open(sent.pop())
    assert sender.put([b"x"]) is not None
    sender._segments = Allocator(1000, SLOTS)
    assert sender.put([bytes(1001)]) is None
    assert sender.put([bytes(900)]) is not None


def test_slots_remain_free_however_much_is_held(
    memory: SharedMemory, sender: Sender, receiver: Receiver
) -> None:
    held = [receiver.open(put(sender, bytes([number]))) for number in range(2 * SLOTS)]
    assert in_use(memory) < SLOTS
    assert [view[0][0] for view in held] == [number % 256 for number in range(2 * SLOTS)]


def test_the_bytes_on_their_way_are_limited(
    sender: Sender, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_sender, "MOST_SENT_BYTES", MB)
    first = put(sender, bytes(MB // 2))
    assert sender.put([bytes(3 * MB // 4)]) is None
    put(sender, bytes(MB // 2))
    held = receiver.open(first)  # it has arrived
    put(sender, bytes(MB // 2))
    assert len(held[0]) == MB // 2


def test_without_memory_put_returns_none(
    memory: SharedMemory, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*args: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", fails)
        assert sender.put([bytes(10)]) is None
        assert in_use(memory) == 0
    assert put(sender, bytes(10)).start == 0


def test_if_memory_runs_out_amid_a_message_nothing_is_taken(
    memory: SharedMemory, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = memory_bytes(memory)
    write = os.pwrite

    def fails_soon(fd: int, content: memoryview, offset: int) -> int:
        if offset > KEPT_BYTES + 3 * MB:
            raise OSError(28, "No space left on device")
        return write(fd, content[: MB // 2], offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", fails_soon)
        assert sender.put([bytes(KEPT_BYTES + 8 * MB)]) is None
        assert in_use(memory) == 0
        assert memory_bytes(memory) <= before + KEPT_BYTES
    assert put(sender, bytes(10)).start == 0


def test_a_message_that_is_written_in_several_calls_arrives_whole(
    sender: Sender, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.pwrite
    monkeypatch.setattr(
        os, "pwrite", lambda fd, content, offset: write(fd, content[: 5 * MB + 1], offset)
    )
    parts = [os.urandom(MB), b"", os.urandom(KEPT_BYTES)]
    assert [bytes(view) for view in receiver.open(put(sender, *parts))] == parts


def test_used_pages_stay_up_to_a_limit(
    memory: SharedMemory, sender: Sender, receiver: Receiver
) -> None:
    before = memory_bytes(memory)
    views = receiver.open(put(sender, bytes(KEPT_BYTES + 20 * MB)))
    assert memory_bytes(memory) >= before + KEPT_BYTES + 20 * MB
    del views
    assert memory_bytes(memory) <= before + KEPT_BYTES + MB
    # and it can be used again
    data = os.urandom(5 * MB)
    large = put(sender, bytes(KEPT_BYTES), data)
    assert bytes(receiver.open(large)[1]) == data


def test_a_worker_that_holds_many_messages_gets_copies(memory: SharedMemory) -> None:
    sender, receiver = Sender(memory, 0), Receiver(memory, 0)
    held = [receiver.open(put(sender, bytes([number]) * (MB))) for number in range(100)]
    assert in_use(memory) == KEPT_BYTES // (2 * MB)  # some is left for others
    assert [view[0][-1] for view in held] == list(range(100))
    held[50][0][0] = 255
    assert memory_bytes(memory) <= 2 * KEPT_BYTES
    del held
    assert in_use(memory) == 0


def test_messages_that_the_coordinator_holds_are_not_copied(
    memory: SharedMemory, sender: Sender, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Receiver, "_copy", lambda *args: pytest.fail("copied"))
    held = [receiver.open(put(sender, bytes([number]) * MB)) for number in range(60)]
    assert [view[0][-1] for view in held] == list(range(60))
    starts = [each.start for each in sender.held]
    assert sum(start < KEPT_BYTES for start in starts) == KEPT_BYTES // (2 * MB)
    del held
    assert in_use(memory) == 0
    assert memory_bytes(memory) <= KEPT_BYTES + MB
    # and later messages use the kept pages
    assert put(sender, bytes(MB)).start == 0


def test_a_held_buffer_is_found_and_read_back(
    memory: SharedMemory, sender: Sender, receiver: Receiver
) -> None:
    contents = [os.urandom(1000), os.urandom(100_000)]
    views = receiver.open(put(sender, *contents))
    for view, content in zip(views, contents, strict=True):
        start = receiver.find(view)
        assert start is not None
        copy = sender.read_back(start, view.nbytes)
        assert bytes(copy) == content
        copy[:] = bytes(len(content))  # a copy of its own
        assert bytes(view) == content
        part = receiver.find(view[10:20])
        assert part == start + 10


def test_a_buffer_that_is_not_held_is_not_found(
    memory: SharedMemory, sender: Sender, receiver: Receiver
) -> None:
    views = receiver.open(put(sender, b"x" * 1000))
    assert Receiver(memory, 0).find(views[0]) is None
    assert Receiver(memory, 1).find(views[0]) is None  # this receiver does not hold it
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


def test_messages_in_new_pages_are_held_and_not_copied(
    memory: SharedMemory, sender: Sender, receiver: Receiver
) -> None:
    before = memory_bytes(memory)
    put(sender, bytes(KEPT_BYTES))
    held = [receiver.open(put(sender, bytes([number]) * 20 * MB)) for number in range(5)]
    assert in_use(memory) == 6
    assert memory_bytes(memory) >= before + KEPT_BYTES + 100 * MB
    assert [view[0][-1] for view in held] == list(range(5))
    del held
    assert in_use(memory) == 1
    assert memory_bytes(memory) <= before + KEPT_BYTES + MB


def test_the_amount_of_held_new_pages_is_limited(
    memory: SharedMemory, sender: Sender, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shared_receiver._MOST_HELD_BYTES + KEPT_BYTES + MOST_SENT_BYTES <= RANGE_BYTES
    monkeypatch.setattr(shared_receiver, "_MOST_HELD_BYTES", 50 * MB)
    put(sender, bytes(KEPT_BYTES))
    held = [receiver.open(put(sender, bytes([number]) * 20 * MB)) for number in range(5)]
    assert in_use(memory) == 3
    assert [view[0][-1] for view in held] == list(range(5))


def test_new_pages_do_not_count_as_the_senders_memory(memory: SharedMemory, sender: Sender) -> None:
    put(sender, bytes(KEPT_BYTES))
    content = bytes(60 * MB)
    before = psutil.Process().memory_info().rss
    put(sender, content)
    assert psutil.Process().memory_info().rss < before + 30 * MB


def test_shared_memory_is_in_no_core_dump(memory: SharedMemory, sender: Sender) -> None:
    put(sender, b"x")
    inode = os.fstat(memory._fd).st_ino
    head, *lines = Path("/proc/self/smaps").read_text().splitlines()
    flags: list[str] = []
    for line in lines:
        if line.startswith("VmFlags:"):
            flags += line.split() if head.split()[4] == str(inode) else []
        elif "-" in line.split()[0]:
            head = line
    assert "dd" in flags


def test_a_single_message_is_not_copied_however_large(
    memory: SharedMemory, sender: Sender, receiver: Receiver
) -> None:
    views = receiver.open(put(sender, bytes(2 * KEPT_BYTES)))
    assert in_use(memory) == 1
    del views


def test_held_messages_outlive_the_shared_memory() -> None:
    memory = SharedMemory.create()
    assert memory is not None
    views = Receiver(memory, 0).open(put(Sender(memory, 0), b"x" * 100_000))
    memory.close()
    assert bytes(views[0]) == b"x" * 100_000
    views[0][0] = 0
    del views  # raises nothing
    gc.collect()


def test_segments_that_a_forked_process_shares_are_not_used_again(
    memory: SharedMemory, sender: Sender, receiver: Receiver
) -> None:
    held = threading.local()  # a forked process releases it before it does anything else
    views = held.views = receiver.open(put(sender, b"x" * 1000))

    def child() -> None:
        views.clear()
        gc.collect()
        assert in_use(memory) == 1

    with Background(lambda: exit_code(fork(child))) as other:
        assert other.result() == 0
    assert bytes(views[0]) == b"x" * 1000
    views.clear()
    gc.collect()
    assert in_use(memory) == 1
    # later segments are used as ever
    views = receiver.open(put(sender, b"y" * 1000))
    assert in_use(memory) == 2
    views.clear()
    assert in_use(memory) == 1


def test_a_process_that_has_forked_holds_less(
    memory: SharedMemory, sender: Sender, receiver: Receiver
) -> None:
    put(sender, bytes(KEPT_BYTES))
    held = []
    for number in range(5):
        held.append(receiver.open(put(sender, bytes([number]) * 20 * MB)))
        receiver.share()
    assert in_use(memory) == 2
    assert [view[0][-1] for view in held] == list(range(5))


def test_without_a_mapping_messages_are_read(
    sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = [os.urandom(1000), os.urandom(KEPT_BYTES)]
    sent = [put(sender, content) for content in contents]
    other = SharedMemory(os.dup(sender._memory._fd))
    monkeypatch.setattr(shared_memory, "_has_limited_addresses", lambda: True)
    receiver = Receiver(other, 1)
    assert [bytes(receiver.open(each)[0]) for each in sent] == contents
    assert other._map is None
    assert in_use(sender._memory) == 0
    other.close()


def test_without_memory_for_a_copy_a_message_is_held(
    memory: SharedMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    sender, receiver = Sender(memory, 0), Receiver(memory, 0)
    tries: list[object] = []

    def fails(*args: object) -> None:
        tries.append(args)
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(os, "preadv", fails)
    held = [receiver.open(put(sender, bytes([number]) * 10 * MB)) for number in range(3)]
    assert [view[0][-1] for view in held] == [0, 1, 2]
    assert len(tries) == 2  # the first one is not to be copied
    assert in_use(memory) == 3
    del held
    assert in_use(memory) == 0


def test_an_interrupt_while_a_segment_is_released_is_raised_a_little_later(
    memory: SharedMemory, sender: Sender, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
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
    interrupts: list[object] = []  # no Event: the handler may strike within its wait()
    handler = signal.signal(signal.SIGINT, lambda *_: interrupts.append(1))
    try:
        del views
        assert struck
        assert in_use(memory) == 0
        wait_until(lambda: interrupts, "the interrupt comes again")
    finally:
        signal.signal(signal.SIGINT, handler)


def test_an_interrupt_after_a_release_spares_the_next_message(
    memory: SharedMemory, sender: Sender, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(sender, bytes(KEPT_BYTES))
    views = receiver.open(put(sender, bytes(MB)))
    give_back = SharedMemory.give_back
    sent: list[Placed] = []

    def interrupted(*args: Any) -> None:
        give_back(*args)
        if not sent:
            sent.append(put(sender, b"n" * MB))  # the worker, in the same segment
            raise KeyboardInterrupt

    monkeypatch.setattr(SharedMemory, "give_back", interrupted)
    interrupts: list[object] = []  # no Event: the handler may strike within its wait()
    handler = signal.signal(signal.SIGINT, lambda *_: interrupts.append(1))
    try:
        del views
        wait_until(lambda: interrupts, "the interrupt comes again")
    finally:
        signal.signal(signal.SIGINT, handler)
    assert bytes(receiver.open(sent[0])[0]) == b"n" * MB


@pytest.mark.parametrize("size", [MB, KEPT_BYTES + MB])
def test_an_interrupt_while_a_message_is_written_leaves_no_references(
    memory: SharedMemory, sender: Sender, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    content = bytearray(size)
    part = memoryview(content)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(SharedMemory, "copy", interrupted)
    monkeypatch.setattr(SharedMemory, "write", interrupted)
    with pytest.raises(KeyboardInterrupt) as struck:
        sender.put([part])
    part.release()  # fails if the traceback holds a view of it
    assert struck.traceback


def test_segments_that_a_dead_worker_held_are_kept_for_its_forks() -> None:
    memory = SharedMemory.create()
    assert memory is not None
    there = Sender(memory, 0)
    of_worker = Receiver(memory, 0).open(put(there, b"w" * MB))
    put(there, bytes(20 * MB))
    before = memory_bytes(memory)
    receiver = Receiver(memory, 1)
    held = receiver.open(put(Sender(memory, 1), b"c" * 1000))
    receiver.close(there)
    assert bytes(of_worker[0]) == b"w" * MB
    assert bytes(held[0]) == b"c" * 1000
    assert memory_bytes(memory) < before - 19 * MB
    del of_worker, held
    memory.close()


def test_only_held_segments_of_a_dead_worker_are_kept() -> None:
    memory = SharedMemory.create()
    assert memory is not None
    before = memory_bytes(memory)
    sender, receiver = Sender(memory, 1), Receiver(memory, 1)
    small = receiver.open(put(sender, b"s" * 1000))
    receiver.open(put(sender, bytes(15 * MB)))
    other = receiver.open(put(sender, b"o" * 1000))
    put(Sender(memory, 0), bytes(20 * MB))
    assert memory_bytes(memory) > before + 35 * MB
    receiver.close(Sender(memory, 0))
    assert memory_bytes(memory) < before + MB
    assert bytes(small[0]) + bytes(other[0]) == b"s" * 1000 + b"o" * 1000
    del small, other
    memory.close()


def test_nothing_is_mapped_if_addresses_are_limited() -> None:
    code = (
        "import resource; from evproc_pool.ipc.shared_memory import SharedMemory;"
        "from evproc_pool.ipc.shared_sender import Sender;"
        "memory = SharedMemory.create();"
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 36, 1 << 36));"
        "assert Sender(memory, 0).put([b'x']) is None;"
        "assert memory._map is None"
    )
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ["memfd_create", "truncate"])
def test_create_returns_none_without_a_file(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: object) -> None:
        raise OSError(24, "Too many open files")

    before = len(list(Path("/proc/self/fd").iterdir()))
    monkeypatch.setattr(os, name, fails)
    assert SharedMemory.create() is None
    assert len(list(Path("/proc/self/fd").iterdir())) == before
