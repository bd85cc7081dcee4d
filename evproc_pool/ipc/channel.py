"""Framed byte channels over a socket pair. The coordinator's end never blocks.

The coordinator's end (`Channel`) reads what has arrived and writes what fits; the rest waits in
memory until the socket takes it. The worker's end (`BlockingChannel`) simply blocks. The
coordinator always reads, so a worker's write always ends. So messages larger than any buffer can
travel in both directions at once.

A frame has a payload, and may have large buffers. A large frame goes through shared memory, if that
exists and has room, and the channel only says where it is. Otherwise payload and buffers follow
each other in the channel. If a buffer lies in what the worker itself has put into shared memory,
it is not sent at all: the frame says where it is, and the worker copies it.
"""

from __future__ import annotations

import itertools
import socket
import struct
import sys
from _thread import RLock
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final

from evproc_pool.errors import InternalError
from evproc_pool.ipc.shared_memory import SHARED_BYTES, SharedMemory
from evproc_pool.ipc.shared_receiver import Receiver
from evproc_pool.ipc.shared_sender import Placed, Sender
from evproc_pool.protocol.frame import Data, Frame

#: Whether `Channel.wait` works. Elsewhere sockets lack the option, or its format differs.
CAN_WAIT: Final = sys.platform == "linux"

# The longest wait, as seconds and microseconds. The kernel makes it some milliseconds longer.
_LONGEST_WAIT: Final = struct.pack("ll", 0, 5_000)

# Makes one call not block, on Linux, macOS and others.
_NO_WAIT: Final[int] = getattr(socket, "MSG_DONTWAIT", 0)

_HEADER: Final = struct.Struct("<BQ")  # tag and encoding, length of the body

# The encoding of the body, in the upper bits of the tag byte; 0: the body is the payload. _APART:
# lengths, then payload and buffers. _SHARED: the place in shared memory. _BACK: the places of
# buffers that the receiver has put into shared memory itself, then the rest in one of the other
# encodings.
_APART: Final = 1 << 6
_SHARED: Final = 1 << 7
_BACK: Final = _APART | _SHARED
_TAGS: Final = _APART - 1

_COUNT: Final = struct.Struct("<I")  # number of lengths; then these, of 8 bytes each
_PLACE: Final = struct.Struct("<IQ")  # slot, start; then lengths
_REST: Final = struct.Struct("<BI")  # encoding of the rest, number of `_OWN` entries
_OWN: Final = struct.Struct("<IQQ")  # index of the buffer, start, length

# How much to read before the other channels have their turn.
_READ_BYTES: Final = 1 << 20
_CHUNK_BYTES: Final = 1 << 16

# Smaller payloads are written in one call, with the header.
_SMALL_BYTES: Final = min(SHARED_BYTES, _CHUNK_BYTES)


def _encode(frame: Frame, sender: Sender | None, own: Mapping[int, int]) -> list[Data]:
    """Return the pieces to write for a frame.

    `own` has the buffers that the receiver has put into shared memory itself: index and start.
    """
    tag, payload, buffers = frame
    others = [each for which, each in enumerate(buffers) if which not in own]
    encoding, pieces = _encode_body(Frame(tag, payload, others), sender)
    if own:
        places = [_OWN.pack(which, start, buffers[which].nbytes) for which, start in own.items()]
        pieces.insert(0, b"".join((_REST.pack(encoding, len(own)), *places)))
        encoding = _BACK
    header = _HEADER.pack(tag | encoding, sum(map(len, pieces)))
    small = list(itertools.takewhile(lambda piece: len(piece) <= _CHUNK_BYTES, pieces))
    return [b"".join((header, *small)), *pieces[len(small) :]]


def _encode_body(frame: Frame, sender: Sender | None) -> tuple[int, list[Data]]:
    """Return the encoding of a frame's body, and its pieces."""
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
    return struct.pack(f"<I{len(lengths)}Q", len(lengths), *lengths)


def _load_lengths(data: Data, offset: int) -> tuple[tuple[int, ...], int]:
    """Return the lengths at an offset, and the offset behind them."""
    (count,) = _COUNT.unpack_from(data, offset)
    lengths = struct.Struct(f"<{count}Q")
    begin = offset + _COUNT.size
    return lengths.unpack_from(data, begin), begin + lengths.size


def _decode(frame: Frame, receiver: Receiver | None, sender: Sender | None) -> Frame:
    """Restore a frame from its tag byte and body."""
    tag, data, _ = frame
    if tag & _BACK == _BACK:
        if sender is None:
            raise InternalError("a buffer is said to be in memory that is not shared")
        encoding, count = _REST.unpack_from(data)
        begin = _REST.size + count * _OWN.size
        rest = Frame(tag & _TAGS | encoding, memoryview(data)[begin:])
        if encoding:
            rest = _decode(rest, receiver, None)
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
        # writable, as shared memory is
        whole = memoryview(data if isinstance(data, bytearray) else bytearray(data))
        ends = list(itertools.accumulate(lengths, initial=begin))
        parts = [whole[start:stop] for start, stop in itertools.pairwise(ends)]
    return Frame(tag & _TAGS, parts[0], parts[1:])


class FrameReader:
    """Turns bytes into frames. No I/O."""

    def __init__(self) -> None:
        self._small = bytearray()
        #: The buffer for the body of a frame that needs several reads; None: no such frame.
        self.large: bytearray | None = None
        self._tag = 0
        self._filled = 0

    def buffer(self) -> memoryview:
        """The part of `large` that is still to be read."""
        return memoryview(self.large or b"")[self._filled :]

    def filled(self, count: int) -> list[Frame]:
        """Take in that `count` bytes were read into `buffer()`. Return complete frames."""
        self._filled += count
        if self.large is None or self._filled < len(self.large):
            return []
        frame, self.large = Frame(self._tag, self.large), None
        return [frame]

    def feed(self, data: bytes) -> list[Frame]:
        """Take in bytes while `large` is None. Return complete frames."""
        small = self._small
        if not small and len(data) >= _HEADER.size:
            tag, length = _HEADER.unpack_from(data)
            if len(data) == _HEADER.size + length:  # the usual case: one frame
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


class _End:
    """What both ends have. `side`: 0 of the coordinator, 1 of the worker."""

    def __init__(self, sock: socket.socket, memory: SharedMemory | None, side: int) -> None:
        self._sock = sock
        self._sender = None if memory is None else Sender(memory, side)
        self._receiver = None if memory is None else Receiver(memory, 1 - side)
        self._reader = FrameReader()

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()


class Channel(_End):
    """The coordinator's end; `memory` is what it shares with the worker."""

    def __init__(self, sock: socket.socket, memory: SharedMemory | None = None) -> None:
        super().__init__(sock, memory, 0)
        sock.setblocking(bool(_NO_WAIT))
        if CAN_WAIT:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _LONGEST_WAIT)
        #: What `flush` writes once the socket can be written to.
        self.outgoing: deque[memoryview] = deque()
        #: Whether the worker's end is closed.
        self.at_end = False
        self._is_torn = False

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

        The caller may change the buffers afterwards, unless `may_refer`: then the worker may read,
        later, the buffers that it has sent itself. The caller must hold them until then.
        """
        if not buffers and len(payload) < _SMALL_BYTES and not self.outgoing:  # the usual case
            small = _HEADER.pack(tag, len(payload)) + payload
            sent = self._send(small)
            if sent < len(small):
                self.outgoing.append(memoryview(small)[sent:])
            return
        own: dict[int, int] = {}
        if may_refer and self._receiver is not None:
            starts = map(self._receiver.find, buffers)
            own = {which: start for which, start in enumerate(starts) if start is not None}
        for data in _encode(Frame(tag, payload, buffers), self._sender, own):
            sent = 0 if self.outgoing else self._send(data)
            if sent < len(data):
                # a copy, unless it is `bytes`: the caller may change it
                self.outgoing.append(memoryview(bytes(data))[sent:])

    def _send(self, data: Data) -> int:
        """Write what fits. Ignores a closed end: reading finds it."""
        try:
            return self._sock.send(data, _NO_WAIT)
        except BlockingIOError:
            return 0
        except OSError:
            return len(data)

    def flush(self) -> None:
        """Write what fits of `outgoing`."""
        while self.outgoing:
            rest = self.outgoing.popleft()
            sent = self._send(rest)
            if sent < len(rest):
                self.outgoing.appendleft(rest[sent:])
                return

    def receive(self, most_bytes: float = _READ_BYTES) -> list[Frame]:
        """Read what has arrived, about `most_bytes` at most; `at_end` says when no more comes."""
        reader = self._reader
        frames: list[Frame] = []
        budget = most_bytes
        if self._is_torn:  # an interrupt struck in here: what was read then is lost
            self.at_end = True
            return []
        self._is_torn = True
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
            except OSError:  # reset: the process died with unread data
                wanted = count = 0
            self.at_end = count == 0
            if count < wanted:
                break  # nothing is left; the next call finds the end
            budget -= count
        self._is_torn = False
        if len(frames) == 1 and frames[0].tag <= _TAGS:  # the usual case
            return frames
        return [
            _decode(frame, self._receiver, None) if frame.tag > _TAGS else frame for frame in frames
        ]

    def wait(self) -> bool:
        """Wait some milliseconds at most until something can be read. Requires `CAN_WAIT`.

        A call that reads, and not `poll`: the kernel wakes up a reading process on the CPU of the
        writer, which is about to wait. This saves a third of a round trip. Returns False if
        nothing has come in time, or nothing will.
        """
        try:
            return bool(self._sock.recv(1, socket.MSG_PEEK))
        except OSError:
            return False

    def close(self) -> None:
        """Close the socket and drop what is outgoing. The worker must be dead."""
        self.outgoing.clear()
        super().close()
        if self._receiver is not None and self._sender is not None:
            self._receiver.close(self._sender)


class BlockingChannel(_End):
    """The worker's end: implements `protocol.frame.WorkerChannel`; see `Channel`."""

    takes_buffers = True

    def __init__(self, sock: socket.socket, memory: SharedMemory | None = None) -> None:
        super().__init__(sock, memory, 1)
        sock.setblocking(True)
        self._frames: deque[Frame] = deque()
        # Threads of a worker send: the loop, the reporter, and those that log.
        self._sending = RLock()
        self._is_sending = False
        self._later: deque[Frame] = deque()  # from within `send`; see `send_output`

    def send(self, tag: int, payload: Data, buffers: Sequence[memoryview] = ()) -> None:
        """Write a frame. Thread-safe."""
        with self._sending:
            self._is_sending = True
            try:
                if not buffers and len(payload) < _SMALL_BYTES:  # the usual case
                    self._sock.sendall(_HEADER.pack(tag, len(payload)) + payload)
                else:
                    for data in _encode(Frame(tag, payload, buffers), self._sender, {}):
                        self._sock.sendall(data)
                if self._later:
                    self._send_later()
            finally:
                self._is_sending = False

    def send_output(self, tag: int, payload: bytes) -> None:
        """Write a frame from anywhere in the worker: also where `send` was interrupted.

        A signal handler or a garbage collection may log while this thread writes a frame. Then
        the new frame follows that one. A signal handler may raise: the frame is completed first.
        """
        with self._sending:
            if self._is_sending:
                self._later.append(Frame(tag, payload))
                return
            self._is_sending = True
            try:
                self._later.append(Frame(tag, payload))
                self._send_later()
            finally:
                self._is_sending = False

    def _send_later(self) -> None:
        while self._later:
            frame = self._later.popleft()
            tag, payload, _ = frame
            if len(payload) < _SMALL_BYTES:
                data = _HEADER.pack(tag, len(payload)) + payload
            else:
                data = b"".join(_encode(frame, self._sender, {}))
            counts: list[int] = []
            try:
                self._send_rest(data, counts)
            except BaseException:
                self._send_rest(data, counts)
                raise

    def _send_rest(self, data: bytes, counts: list[int]) -> None:
        """Write what is missing of a frame; `counts` has how much each write has taken."""
        whole = memoryview(data)
        while (done := sum(counts)) < len(whole):
            # In one instruction: no signal handler runs between the write and the count.
            counts.extend(map(self._sock.send, (whole[done:],)))

    def receive(self) -> Frame:
        """Wait for a frame."""
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
        return _decode(frame, self._receiver, self._sender)
