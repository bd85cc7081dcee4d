"""Frames over sockets arrive whole and in order, whatever happens in between."""

from __future__ import annotations

import contextlib
import os
import random
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evproc_pool.errors import InternalError
from evproc_pool.ipc import shared_memory
from evproc_pool.ipc.channel import CAN_WAIT, BlockingChannel, Channel, FrameReader
from evproc_pool.ipc.shared_memory import SharedMemory
from evproc_pool.protocol.frame import Frame
from tests.support.helpers import PATIENCE_SECONDS

NEEDS_SHARED_MEMORY = pytest.mark.skipif(
    not shared_memory.IS_SUPPORTED, reason="memory is shared on Linux only"
)

_HEADER = struct.Struct("<BQ")
_CHUNK = 1 << 16
_SIZES = [0, 1, 7, _CHUNK - 1, _CHUNK, _CHUNK + 1, 3 * _CHUNK]


def _frame(tag: int, size: int) -> Frame:
    """A frame whose content shows if a byte is missing or doubled."""
    pattern = b"".join(struct.pack("<I", number) for number in range(-(-size // 4)))
    return Frame(tag, pattern[:size])


def _bytes(frame: Frame) -> bytes:
    return _HEADER.pack(frame.tag, len(frame.payload)) + bytes(frame.payload)


def _read(reader: FrameReader, data: bytes, cuts: list[int]) -> list[Frame]:
    """Feed data as a socket may: never more than `buffer` has room for."""
    frames = []
    place = 0
    sizes = iter(cuts)
    while place < len(data):
        size = next(sizes, _CHUNK)
        if reader.large is None:
            frames += reader.feed(data[place : place + size])
        else:
            buffer = reader.buffer()
            size = min(size, len(buffer), len(data) - place)
            buffer[:size] = data[place : place + size]
            frames += reader.filled(size)
        place += size
    return frames


_FRAMES = st.lists(st.tuples(st.integers(0, 255), st.sampled_from(_SIZES)), max_size=6)


@settings(deadline=None, max_examples=60)
@given(_FRAMES, st.lists(st.integers(1, 2 * _CHUNK), max_size=30))
def test_frames_round_trip_however_reads_cut_them(
    sizes: list[tuple[int, int]], cuts: list[int]
) -> None:
    frames = [_frame(tag, size) for tag, size in sizes]
    assert _read(FrameReader(), b"".join(map(_bytes, frames)), cuts) == frames


def test_frames_round_trip_byte_by_byte() -> None:
    frames = [_frame(1, 0), _frame(255, 3), _frame(0, 0), _frame(7, 20)]
    data = b"".join(map(_bytes, frames))
    assert _read(FrameReader(), data, [1] * len(data)) == frames


@pytest.mark.parametrize("size", _SIZES)
def test_an_incomplete_frame_is_kept_back(size: int) -> None:
    data = _bytes(_frame(3, size))
    reader = FrameReader()
    assert _read(reader, data[:-1], []) == []
    assert _read(reader, data[-1:], []) == [_frame(3, size)]


@contextlib.contextmanager
def _pair(*, is_shared: bool = False) -> Iterator[tuple[Channel, BlockingChannel]]:
    ours, theirs = socket.socketpair()
    memory = SharedMemory.create() if is_shared else None
    channel, blocking = Channel(ours, memory), BlockingChannel(theirs, memory)
    try:
        yield channel, blocking
    finally:
        channel.close()
        blocking.close()
        if memory is not None:
            memory.close()


def _wait(channel: Channel) -> list[Frame]:
    """One turn of a coordinator: write what fits, read what has arrived."""
    writing = [channel] if channel.outgoing else []
    readable, writable, _ = select.select([channel], writing, [], PATIENCE_SECONDS)
    assert readable or writable, "the other end is stuck"
    if writable:
        channel.flush()
    return channel.receive() if readable else []


def _exchange(
    channel: Channel, blocking: BlockingChannel, there: list[Frame], back: list[Frame]
) -> tuple[list[Frame], list[Frame]]:
    """Send frames both ways at once. Return what arrived at each end."""
    arrived_there: list[Frame] = []
    arrived_back: list[Frame] = []

    def other_end() -> None:
        for frame in back:  # writes everything before it reads
            blocking.send(*frame)
        arrived_there.extend(blocking.receive() for _ in there)

    thread = threading.Thread(target=other_end)
    thread.start()
    for frame in there:
        channel.send(*frame)
    while len(arrived_back) < len(back) or channel.outgoing:
        arrived_back += _wait(channel)
    thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive()
    return arrived_there, arrived_back


def test_20_megabytes_in_both_directions_at_once_do_not_deadlock() -> None:
    with _pair() as (channel, blocking):
        frames = [_frame(1, 0), _frame(2, 20_000_000), _frame(3, 1), _frame(4, 0)]
        assert _exchange(channel, blocking, frames, frames[::-1]) == (frames, frames[::-1])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("is_shared", [False, pytest.param(True, marks=NEEDS_SHARED_MEMORY)])
def test_random_frames_in_both_directions_arrive_whole_and_in_order(
    seed: int, is_shared: bool
) -> None:
    rng = random.Random(seed)
    sizes = [0, 1, 100, _CHUNK - 9, _CHUNK, _CHUNK + 1, 500_000, 2_000_000]

    def frames() -> list[Frame]:
        made = [_frame(rng.randrange(64), rng.choice(sizes)) for _ in range(rng.randint(0, 12))]
        return [each._replace(buffers=buffers()) for each in made]

    def buffers() -> list[memoryview]:
        count = rng.choice([0, 0, 0, 1, 3])
        return [memoryview(_frame(0, rng.choice(sizes)).payload) for _ in range(count)]

    with _pair(is_shared=is_shared) as (channel, blocking):
        there, back = frames(), frames()
        arrived_there, arrived_back = _exchange(channel, blocking, there, back)
        assert list(map(_plain, arrived_there)) == list(map(_plain, there))
        assert list(map(_plain, arrived_back)) == list(map(_plain, back))


def _plain(frame: Frame) -> tuple[int, bytes, list[bytes]]:
    return frame.tag, bytes(frame.payload), list(map(bytes, frame.buffers))


@pytest.mark.parametrize("size", [10, 300_000, 10_000_000])
@pytest.mark.parametrize("is_shared", [False, pytest.param(True, marks=NEEDS_SHARED_MEMORY)])
def test_a_buffer_may_be_changed_after_sending_and_after_arrival(
    size: int, is_shared: bool
) -> None:
    with _pair(is_shared=is_shared) as (channel, blocking):
        data = bytearray(size)
        channel.send(3, b"payload", [memoryview(data)])
        data[:] = b"x" * size
        received: list[Frame] = []
        thread = threading.Thread(target=lambda: received.append(blocking.receive()))
        thread.start()
        while channel.outgoing:
            _wait(channel)
        thread.join(PATIENCE_SECONDS)
        ((tag, payload, (buffer,)),) = received
        assert (tag, bytes(payload), bytes(buffer)) == (3, b"payload", bytes(size))
        buffer[0] = 1
        assert data[0] == ord("x")


def test_data_that_does_not_fit_waits_for_flush() -> None:
    with _pair() as (channel, blocking):
        assert not channel.outgoing
        channel.send(5, bytes(10_000_000))
        assert channel.outgoing
        received: list[Frame] = []
        thread = threading.Thread(target=lambda: received.append(blocking.receive()))
        thread.start()
        while channel.outgoing:
            _wait(channel)
        thread.join(PATIENCE_SECONDS)
        assert received == [Frame(5, bytes(10_000_000))]


def test_receiving_stops_when_nothing_has_arrived() -> None:
    with _pair() as (channel, _):
        assert channel.receive() == []
        assert not channel.at_end


def test_nothing_is_read_behind_an_interrupt_that_struck_while_reading(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt(data: bytes) -> list[Frame]:
        raise KeyboardInterrupt

    with _pair() as (channel, blocking):
        blocking.send(1, b"first")
        with monkeypatch.context() as patch:
            patch.setattr(channel._reader, "feed", interrupt)
            with pytest.raises(KeyboardInterrupt):
                _wait(channel)
        blocking.send(1, b"second")
        # what was read is lost, and maybe only in part
        assert channel.receive() == []
        assert channel.at_end


def test_a_channel_stops_reading_so_that_others_have_their_turn() -> None:
    with _pair() as (channel, blocking):
        stop = threading.Event()

        def flood() -> None:
            with contextlib.suppress(OSError):
                while not stop.is_set():
                    blocking.send(1, bytes(60_000))

        thread = threading.Thread(target=flood)
        thread.start()
        # it writes as fast as we read, and still each call ends
        for _ in range(20):
            assert sum(len(frame.payload) for frame in _wait(channel)) < 4_000_000
        stop.set()
        while thread.is_alive():
            channel.receive()
        thread.join()


@pytest.mark.parametrize("sent", [0, 3, 8, 9, 10, 500, 9 + _CHUNK, 9 + 2 * _CHUNK])
def test_the_coordinator_sees_the_end_in_the_middle_of_a_frame(sent: int) -> None:
    ours, theirs = socket.socketpair()
    channel = Channel(ours)
    with contextlib.closing(channel):
        theirs.sendall(_bytes(_frame(1, 5)) + _bytes(_frame(2, 3 * _CHUNK))[:sent])
        theirs.close()
        frames = []
        while not channel.at_end:
            frames += _wait(channel)
        assert frames == [_frame(1, 5)]


@pytest.mark.parametrize("sent", [0, 3, 8, 9, 10, 500, 9 + _CHUNK, 9 + 2 * _CHUNK])
def test_the_worker_sees_the_end_in_the_middle_of_a_frame(sent: int) -> None:
    ours, theirs = socket.socketpair()
    blocking = BlockingChannel(theirs)
    with contextlib.closing(blocking):
        ours.sendall(_bytes(_frame(1, 5)) + _bytes(_frame(2, 3 * _CHUNK))[:sent])
        ours.close()
        assert blocking.receive() == _frame(1, 5)
        with pytest.raises(EOFError):
            blocking.receive()


def test_sending_to_a_closed_end_is_an_error_only_for_the_worker() -> None:
    with _pair() as (channel, blocking):
        blocking.close()
        channel.send(1, bytes(1_000_000))
        channel.send(1, b"more")
        assert not channel.outgoing  # nobody receives it
        assert channel.receive() == []
        assert channel.at_end
    with _pair() as (channel, blocking):
        channel.close()
        with pytest.raises(OSError):  # noqa: PT011 - which one depends on the system
            blocking.send(1, bytes(1_000_000))


def test_the_death_of_an_end_with_unread_data_is_an_end() -> None:
    with _pair() as (channel, blocking):
        channel.send(1, b"never read")
        blocking.close()  # resets the connection
        assert channel.receive() == []
        assert channel.at_end


def test_a_closed_channel_has_no_descriptor() -> None:
    with _pair() as (channel, blocking):
        descriptor = channel.fileno()
        channel.send(1, bytes(10_000_000))
        channel.close()
        blocking.close()
        assert not channel.outgoing
        with pytest.raises(OSError):  # noqa: PT011 - it is closed, says the system
            os.fstat(descriptor)


@pytest.mark.skipif(not CAN_WAIT, reason="a socket has no such option here")
def test_wait_returns_when_data_arrives_and_leaves_it_unread() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        channel = Channel(ours)
        assert not channel.wait()  # nothing arrives: it does not wait for ever
        theirs.sendall(_bytes(_frame(3, 10)))
        assert channel.wait()
        assert channel.wait()
        assert channel.receive() == [_frame(3, 10)]
    assert not channel.wait()  # nothing will arrive
    assert channel.receive() == []
    assert channel.at_end
    channel.close()


# --- buffers that the worker has sent itself ---


@NEEDS_SHARED_MEMORY
@pytest.mark.parametrize("payload", [b"small", bytes(3 * _CHUNK)])
@pytest.mark.parametrize("others", [[], [1 << 15], [1 << 15, 1 << 18]])
def test_the_worker_copies_buffers_that_it_has_sent_itself(
    payload: bytes, others: list[int]
) -> None:
    sizes = [1 << 17, 1 << 16, *others]
    contents = [os.urandom(size) for size in sizes]
    with _pair(is_shared=True) as (channel, blocking):
        blocking.send(5, b"sent", [memoryview(content) for content in contents[:2]])
        (frame,) = channel.receive()
        new = [memoryview(bytearray(content)) for content in contents[2:]]
        buffers = [*new[:1], frame.buffers[0], *new[1:], frame.buffers[1]]
        expected = [bytes(each) for each in buffers]
        channel.send(63, payload, buffers, may_refer=True)
        channel.flush()
        arrived = blocking.receive()
        assert (arrived.tag, bytes(arrived.payload)) == (63, payload)
        assert [bytes(each) for each in arrived.buffers] == expected
        for each in arrived.buffers:
            each[:] = bytes(len(each))
        assert [bytes(each) for each in buffers] == expected
        del frame, buffers, arrived, each


@NEEDS_SHARED_MEMORY
@pytest.mark.parametrize("may_refer", [False, True])
def test_a_buffer_is_sent_if_it_cannot_be_referred_to(may_refer: bool) -> None:
    content = os.urandom(1 << 17)
    with _pair(is_shared=True) as (channel, blocking):
        blocking.send(5, b"sent", [memoryview(content)])
        (frame,) = channel.receive()
        sent = [frame.buffers[0].toreadonly()] if may_refer else [frame.buffers[0]]
        channel.send(6, b"again", sent, may_refer=may_refer)
        del sent
        frame.buffers[0][:] = bytes(1 << 17)
        assert bytes(blocking.receive().buffers[0]) == content
        del frame


@NEEDS_SHARED_MEMORY
def test_without_shared_memory_no_buffer_can_be_referred_to() -> None:
    content = os.urandom(1 << 12)
    with _pair() as (channel, blocking):
        channel.send(6, b"x", [memoryview(bytearray(content))], may_refer=True)
        assert bytes(blocking.receive().buffers[0]) == content
    with _pair(is_shared=True) as (channel, blocking):
        blocking.send(5, b"sent", [memoryview(bytes(1 << 17))])
        (frame,) = channel.receive()
        ours, theirs = socket.socketpair()
        other = BlockingChannel(theirs)  # without shared memory
        with ours, contextlib.closing(other):
            channel._sock, kept = ours, channel._sock
            channel.send(6, b"x", frame.buffers, may_refer=True)
            with pytest.raises(InternalError, match="not shared"):
                other.receive()
            channel._sock = kept
        del frame


# --- output of workers, which may come at any moment ---


class _Socket:
    """Takes a few bytes at a time, and acts before each write."""

    def __init__(self, most_bytes: int, act: Callable[[int], object]) -> None:
        self._most_bytes = most_bytes
        self._act = act
        self.content = b""
        self.writes = 0

    def send(self, data: bytes) -> int:
        self.writes += 1
        self._act(self.writes)
        self.content += bytes(data[: self._most_bytes])
        return min(self._most_bytes, len(data))

    def sendall(self, data: bytes) -> None:
        begin = 0
        while begin < len(data):
            begin += self.send(data[begin:])

    def setblocking(self, blocks: bool) -> None:
        pass


def _blocking(sock: _Socket) -> BlockingChannel:
    made: Any = sock
    return BlockingChannel(made)


class _Interrupt(BaseException):
    pass


@pytest.mark.parametrize("when", range(1, 5))
@pytest.mark.parametrize("size", [0, 30, 70_000])
def test_output_is_written_to_the_end_if_a_signal_handler_raises(when: int, size: int) -> None:
    def strike(write: int) -> None:
        if write == when:
            raise _Interrupt

    frames = [_frame(30, size), _frame(31, 50)]
    sock = _Socket(10 + size // 3, strike)
    channel = _blocking(sock)
    for frame in frames:
        with contextlib.suppress(_Interrupt):
            channel.send_output(frame.tag, bytes(frame.payload))
    assert sock.writes >= when
    assert _read(FrameReader(), sock.content, []) == frames


def test_an_end_that_is_closed_is_an_error_of_output() -> None:
    ours, theirs = socket.socketpair()
    ours.close()
    with theirs, pytest.raises(OSError, match="pipe"):
        BlockingChannel(theirs).send_output(30, b"text")


@pytest.mark.parametrize("is_output", [True, False])
def test_output_within_a_write_follows_it(is_output: bool) -> None:
    channel: BlockingChannel

    def log(write: int) -> None:
        if write < 4:
            channel.send_output(30, str(write).encode())

    sock = _Socket(10, log)
    channel = _blocking(sock)
    frame = _frame(18, 50)
    if is_output:
        channel.send_output(frame.tag, bytes(frame.payload))
    else:
        channel.send(*frame)
    found = _read(FrameReader(), sock.content, [])
    assert found == [frame, *(Frame(30, str(each).encode()) for each in (1, 2, 3))]


def test_output_of_several_threads_arrives_whole() -> None:
    def write(tag: int) -> None:
        for size in range(400):
            send = blocking.send if size % 2 else blocking.send_output
            send(tag, bytes(_frame(tag, size * 10).payload))

    found: list[Frame] = []
    with _pair() as (channel, blocking):
        threads = [threading.Thread(target=write, args=(tag,)) for tag in (20, 30, 31)]
        for thread in threads:
            thread.start()
        while len(found) < 3 * 400:
            select.select([channel], [], [], PATIENCE_SECONDS)
            found += channel.receive()
        for thread in threads:
            thread.join()
    for tag in (20, 30, 31):
        sizes = [frame for frame in found if frame.tag == tag]
        assert sizes == [_frame(tag, size * 10) for size in range(400)]
