"""Framed byte channels over a socket pair; one end never blocks.

The coordinator's end (`Channel`) reads what is there and writes what fits; the
rest waits in memory until the socket takes it. The worker's end
(`BlockingChannel`) simply blocks. As the coordinator always reads, a worker's
write always comes to its end, so messages larger than any buffer can be under
way in both directions at once.

A frame has a payload, and maybe large buffers beside it. What is large goes through memory
that both ends share (`shared_memory`), where there is such and room in it, and the channel only
says where; otherwise payload and buffers follow each other in the channel. A buffer that
lies in what the worker itself has put into shared memory is not sent at all: the frame says
where it is, and the worker copies it.
"""

from __future__ import annotations

import itertools
import socket
import struct
import sys
from _thread import allocate_lock
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from evproc_pool.errors import InternalError
from evproc_pool.ipc.shared_memory import SHARED_BYTES, Placed, Receiver, Sender, SharedMemory
from evproc_pool.protocol.frame import Data, Frame

_HEADER: Final = struct.Struct("<BQ")  # tag and one of the below, length of what follows

# Beside the tag: what follows is the payload and the buffers, behind the lengths of each;
# or it says where in the shared memory they are. Both: it says where some buffers are in what
# the receiver of the frame has put there itself, and then which of the others it is.
_APART: Final = 1 << 6
_SHARED: Final = 1 << 7
_BACK: Final = _APART | _SHARED
_TAGS: Final = _APART - 1

_COUNT: Final = struct.Struct("<I")  # of the lengths that follow, each as `_LENGTH`
_LENGTH: Final = struct.Struct("<Q")
_PLACE: Final = struct.Struct("<IQ")  # slot, start; then as above
_REST: Final = struct.Struct("<BI")  # one of the above for what follows these, how many they are
_OWN: Final = struct.Struct("<IQQ")  # which of the buffers, start, length

# Read at most so much before the other channels have their turn.
_READ_BYTES: Final = 1 << 20
_CHUNK_BYTES: Final = 1 << 16

# Smaller payloads are written at once, with what stands before them.
_SMALL_BYTES: Final = min(SHARED_BYTES, _CHUNK_BYTES)


def _pieces(frame: Frame, sender: Sender | None, own: Mapping[int, int]) -> list[Data]:
    """What to write for a frame.

    Args:
        frame: The frame.
        sender: Puts it into shared memory.
        own: Which of its buffers the receiver has put there itself, and where each begins.
    """
    tag, payload, buffers = frame
    rest = [each for which, each in enumerate(buffers) if which not in own]
    kind, pieces = _rest(Frame(tag, payload, rest), sender)
    if own:
        lines = [_OWN.pack(which, start, buffers[which].nbytes) for which, start in own.items()]
        pieces.insert(0, b"".join((_REST.pack(kind, len(own)), *lines)))
        kind = _BACK
    header = _HEADER.pack(tag | kind, sum(map(len, pieces)))
    small = list(itertools.takewhile(lambda piece: len(piece) <= _CHUNK_BYTES, pieces))
    return [b"".join((header, *small)), *pieces[len(small) :]]


def _rest(frame: Frame, sender: Sender | None) -> tuple[int, list[Data]]:
    """What to write for a frame behind its header, and what stands beside the tag there."""
    _, payload, buffers = frame
    if sender is not None and frame.size_bytes >= SHARED_BYTES:
        placed = sender.put((payload, *buffers))
        if placed is not None:
            where = _PLACE.pack(placed.slot, placed.start) + _dump_lengths(placed.lengths)
            return _SHARED, [where]
    if not buffers:
        return 0, [payload]
    lengths = _dump_lengths([len(payload), *(each.nbytes for each in buffers)])
    return _APART, [lengths, payload, *buffers]


def _dump_lengths(lengths: Sequence[int]) -> bytes:
    return _COUNT.pack(len(lengths)) + b"".join(map(_LENGTH.pack, lengths))


def _load_lengths(data: Data, offset: int) -> tuple[tuple[int, ...], int]:
    """Lengths, and where they end."""
    (count,) = _COUNT.unpack_from(data, offset)
    begin = offset + _COUNT.size
    end = begin + count * _LENGTH.size
    return tuple([length for (length,) in _LENGTH.iter_unpack(data[begin:end])]), end


def _complete(frame: Frame, receiver: Receiver | None, sender: Sender | None) -> Frame:
    """A frame as it was sent, from what was read."""
    tag, data, _ = frame
    if tag & _BACK == _BACK:
        if sender is None:
            raise InternalError("a buffer is said to be in memory that is not shared")
        kind, count = _REST.unpack_from(data)
        begin = _REST.size + count * _OWN.size
        rest = Frame(tag & _TAGS | kind, memoryview(data)[begin:])
        if kind:
            rest = _complete(rest, receiver, None)
        buffers = list(rest.buffers)
        for which, start, length in _OWN.iter_unpack(memoryview(data)[_REST.size : begin]):
            buffers.insert(which, sender.read_back(start, length))
        return rest._replace(buffers=buffers)
    if tag & _SHARED:
        if receiver is None:
            raise InternalError("something was put into memory that is not shared")
        slot, start = _PLACE.unpack_from(data)
        lengths, _ = _load_lengths(data, _PLACE.size)
        parts = receiver.open(Placed(slot, start, lengths))
    else:
        lengths, begin = _load_lengths(data, 0)
        # writable, as what arrives in shared memory is
        whole = memoryview(data if isinstance(data, bytearray) else bytearray(data))
        ends = list(itertools.accumulate(lengths, initial=begin))
        parts = [whole[start:stop] for start, stop in itertools.pairwise(ends)]
    return Frame(tag & _TAGS, parts[0], parts[1:])


# How a call is told not to block, where a call can be: on Linux, macOS and the like.
_NO_WAIT: Final[int] = getattr(socket, "MSG_DONTWAIT", 0)

#: Whether `Channel.wait` can do that. A socket elsewhere has no such option, or another one.
CAN_WAIT: Final = sys.platform == "linux"

# The longest wait, as seconds and microseconds; the kernel makes some milliseconds more of it.
_LONGEST_WAIT: Final = struct.pack("ll", 0, 5_000)


class FrameReader:
    """Takes bytes as they come and gives frames. No I/O.

    Attributes:
        large: The payload of a frame that spans reads; None: there is none.
    """

    def __init__(self) -> None:
        self._small = bytearray()
        self._tag = 0
        self.large: bytearray | None = None
        self._filled = 0

    def buffer(self) -> memoryview:
        """Where the rest of a large payload is to be read into, if there is one."""
        return memoryview(self.large or b"")[self._filled :]

    def filled(self, count: int) -> list[Frame]:
        """Say that `count` bytes were read into `buffer()`."""
        self._filled += count
        if self.large is None or self._filled < len(self.large):
            return []
        frame, self.large = Frame(self._tag, self.large), None
        return [frame]

    def feed(self, data: bytes) -> list[Frame]:
        """Take bytes read elsewhere; only while there is no `large`."""
        small = self._small
        if not small and len(data) >= _HEADER.size:
            tag, length = _HEADER.unpack_from(data)
            if len(data) == _HEADER.size + length:  # one frame, as is usual
                return [Frame(tag, data[_HEADER.size :])]
        small += data
        frames = []
        start = 0
        while len(small) - start >= _HEADER.size:
            tag, length = _HEADER.unpack_from(small, start)
            begin = start + _HEADER.size
            if len(small) - begin < length:
                if length > _CHUNK_BYTES:
                    self._tag, self.large = tag, bytearray(length)
                    self._filled = len(small) - begin
                    self.large[: self._filled] = small[begin:]
                    start = len(small)
                break
            start = begin + length
            frames.append(Frame(tag, bytes(small[begin:start])))
        del small[:start]
        return frames


class Channel:
    """The coordinator's end.

    Args:
        sock: The socket.
        region: The memory that it shares with the worker, or None.

    Attributes:
        at_end: Whether the other end is closed.
        outgoing: What is to be written by `flush` when the socket can be written to.
    """

    def __init__(self, sock: socket.socket, region: SharedMemory | None = None) -> None:
        sock.setblocking(bool(_NO_WAIT))
        if CAN_WAIT:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _LONGEST_WAIT)
        self._sock = sock
        self._sender = None if region is None else Sender(region, 0)
        self._receiver = None if region is None else Receiver(region, 1)
        self._reader = FrameReader()
        self.outgoing: deque[memoryview] = deque()
        self.at_end = False

    def fileno(self) -> int:
        """For a selector."""
        return self._sock.fileno()

    def send(
        self,
        tag: int,
        payload: Data,
        buffers: Sequence[memoryview] = (),
        *,
        may_refer: bool = False,
    ) -> None:
        """Queue a frame, and write what fits.

        Args:
            tag: See `messages`.
            payload: What it says.
            buffers: What of it is large. They may be changed afterwards, unless `may_refer`.
            may_refer: Whether the worker may read, later on, those that it has sent itself.
                They must be held until it has done that.
        """
        if not buffers and len(payload) < _SMALL_BYTES and not self.outgoing:  # as is usual
            small = _HEADER.pack(tag, len(payload)) + payload
            sent = self._send(small)
            if sent < len(small):
                self.outgoing.append(memoryview(small)[sent:])
            return
        own = self._own(buffers) if may_refer else {}
        for data in _pieces(Frame(tag, payload, buffers), self._sender, own):
            self._write(data)

    def _own(self, buffers: Sequence[memoryview]) -> dict[int, int]:
        """Which of these the worker has put into shared memory itself, and where each begins."""
        if self._receiver is None:
            return {}
        found = {which: self._receiver.find(each) for which, each in enumerate(buffers)}
        return {which: start for which, start in found.items() if start is not None}

    def _write(self, data: Data) -> None:
        sent = 0 if self.outgoing else self._send(data)
        if sent < len(data):
            # a copy of what is somebody else's
            rest = data if isinstance(data, bytes) else bytes(data)
            self.outgoing.append(memoryview(rest)[sent:])

    def _send(self, data: Data) -> int:
        """Write what fits. A closed other end shows when reading: let it vanish."""
        try:
            return self._sock.send(data, _NO_WAIT)
        except BlockingIOError:
            return 0
        except OSError:
            return len(data)

    def flush(self) -> None:
        """Write what fits of what is outgoing."""
        while self.outgoing:
            rest = self.outgoing.popleft()
            sent = self._send(rest)
            if sent < len(rest):
                self.outgoing.appendleft(rest[sent:])
                return

    def receive(self, most_bytes: float = _READ_BYTES) -> list[Frame]:
        """Read what is there, about so many bytes at most; `at_end` says when no more comes."""
        reader = self._reader
        frames: list[Frame] = []
        budget = most_bytes
        while budget > 0 and not self.at_end:
            try:
                if reader.large is None:
                    wanted = _CHUNK_BYTES
                    data = self._sock.recv(wanted, _NO_WAIT)
                    count = len(data)
                    frames += reader.feed(data)
                else:
                    buffer = reader.buffer()
                    wanted = len(buffer)
                    count = self._sock.recv_into(buffer, wanted, _NO_WAIT)
                    frames += reader.filled(count)
            except BlockingIOError:
                break
            except OSError:  # reset: the process died with something unread
                wanted = count = 0
            self.at_end = count == 0
            if count < wanted:
                break  # that was all; the end is found by the next call
            budget -= count
        if len(frames) == 1 and frames[0].tag <= _TAGS:  # as is usual
            return frames
        return [
            _complete(frame, self._receiver, None) if frame.tag > _TAGS else frame
            for frame in frames
        ]

    def wait(self) -> bool:
        """Wait until there is something to be read, but not for long; only if `CAN_WAIT`.

        In a call that reads, and not in `poll`: the kernel wakes up a process that reads
        where the writer runs, which is about to wait. A third of a round trip is gained.

        Returns:
            False if nothing has come within some milliseconds, or nothing will.
        """
        try:
            return bool(self._sock.recv(1, socket.MSG_PEEK))
        except OSError:
            return False

    def close(self) -> None:
        """Close the socket; what is outgoing is gone. The worker must be dead."""
        self.outgoing.clear()
        self._sock.close()
        if self._receiver is not None and self._sender is not None:
            self._receiver.close(self._sender)


class WorkerChannel(Protocol):
    """What a worker needs of its end: a `BlockingChannel`, or what stands for one.

    Both methods raise `EOFError` or `OSError` when the coordinator is gone.

    Attributes:
        takes_buffers: Whether large buffers go beside the payload. Not where others may
            change them before they are sent.
    """

    takes_buffers: bool

    def send(self, tag: int, payload: Data, buffers: Sequence[memoryview] = ()) -> None:
        """Write a frame. The buffers may be changed afterwards."""

    def receive(self) -> Frame:
        """Wait for a frame."""


class BlockingChannel:
    """The worker's end; see `Channel`."""

    takes_buffers = True

    def __init__(self, sock: socket.socket, region: SharedMemory | None = None) -> None:
        sock.setblocking(True)
        self._sock = sock
        self._sender = None if region is None else Sender(region, 1)
        self._receiver = None if region is None else Receiver(region, 0)
        self._reader = FrameReader()
        self._frames: deque[Frame] = deque()
        self._sending = allocate_lock()  # a worker has two threads that do: see `reporter`

    def send(self, tag: int, payload: Data, buffers: Sequence[memoryview] = ()) -> None:
        """Write a frame. Any thread may.

        Raises:
            OSError: The coordinator is gone.
        """
        with self._sending:
            if not buffers and len(payload) < _SMALL_BYTES:  # as is usual
                self._sock.sendall(_HEADER.pack(tag, len(payload)) + payload)
                return
            for data in _pieces(Frame(tag, payload, buffers), self._sender, {}):
                self._sock.sendall(data)

    def receive(self) -> Frame:
        """Wait for a frame.

        Raises:
            EOFError: The coordinator is gone.
            OSError: Likewise.
        """
        frames, reader = self._frames, self._reader
        while not frames:
            if reader.large is None:
                data = self._sock.recv(_CHUNK_BYTES)
                count = len(data)
                frames += reader.feed(data)
            else:
                count = self._sock.recv_into(reader.buffer())
                frames += reader.filled(count)
            if not count:
                raise EOFError
        frame = frames.popleft()
        if frame.tag <= _TAGS:
            return frame
        return _complete(frame, self._receiver, self._sender)

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()
