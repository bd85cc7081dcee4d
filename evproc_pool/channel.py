"""Framed byte channels over a socket pair; one end never blocks.

The coordinator's end (`Channel`) reads what is there and writes what fits; the
rest waits in memory until the socket takes it. The worker's end
(`BlockingChannel`) simply blocks. As the coordinator always reads, a worker's
write always comes to its end, so messages larger than any buffer can be under
way in both directions at once.
"""

from __future__ import annotations

import socket
import struct
from collections import deque
from typing import Final, NamedTuple, Protocol

_HEADER: Final = struct.Struct("<BQ")  # tag, length of the payload

# Read at most so much before the other channels have their turn.
_READ_BYTES: Final = 1 << 20
_CHUNK_BYTES: Final = 1 << 16


class Frame(NamedTuple):
    """A tag (see `wire`) and a payload."""

    tag: int
    payload: bytes | bytearray


class FrameReader:
    """Takes bytes as they come and gives frames. No I/O."""

    def __init__(self) -> None:
        self._small = bytearray()
        self._tag = 0
        self._large: bytearray | None = None  # the payload of a frame that spans reads
        self._filled = 0

    def buffer(self) -> memoryview | None:
        """Where the rest of a large payload is to be read into, or None."""
        return None if self._large is None else memoryview(self._large)[self._filled :]

    def filled(self, count: int) -> list[Frame]:
        """Say that `count` bytes were read into `buffer()`."""
        self._filled += count
        if self._large is None or self._filled < len(self._large):
            return []
        frame, self._large = Frame(self._tag, self._large), None
        return [frame]

    def feed(self, data: bytes) -> list[Frame]:
        """Take bytes read elsewhere; only while `buffer()` is None."""
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
                    self._tag, self._large = tag, bytearray(length)
                    self._filled = len(small) - begin
                    self._large[: self._filled] = small[begin:]
                    start = len(small)
                break
            start = begin + length
            frames.append(Frame(tag, bytes(small[begin:start])))
        del small[:start]
        return frames


class Channel:
    """The coordinator's end.

    Attributes:
        at_end: Whether the other end is closed.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._reader = FrameReader()
        self._outgoing: deque[memoryview] = deque()
        self.at_end = False

    def fileno(self) -> int:
        """For a selector."""
        return self._sock.fileno()

    @property
    def has_outgoing(self) -> bool:
        """Whether `flush` is to be called when the socket can be written to."""
        return bool(self._outgoing)

    def send(self, tag: int, payload: bytes) -> None:
        """Queue a frame, and write what fits."""
        header = _HEADER.pack(tag, len(payload))
        if len(payload) <= _CHUNK_BYTES:
            self._write(header + payload)
        else:
            self._write(header)
            self._write(payload)

    def _write(self, data: bytes) -> None:
        if not self._outgoing:
            sent = self._send(data)
            if sent == len(data):
                return
            self._outgoing.append(memoryview(data)[sent:])
        else:
            self._outgoing.append(memoryview(data))

    def _send(self, data: bytes | memoryview) -> int:
        """Write what fits. A closed other end shows when reading: let it vanish."""
        try:
            return self._sock.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            return len(data)

    def flush(self) -> None:
        """Write what fits of what is outgoing."""
        while self._outgoing:
            rest = self._outgoing.popleft()
            sent = self._send(rest)
            if sent < len(rest):
                self._outgoing.appendleft(rest[sent:])
                return

    def receive(self, most_bytes: float = _READ_BYTES) -> list[Frame]:
        """Read what is there, about so many bytes at most; `at_end` says when no more comes."""
        frames: list[Frame] = []
        budget = most_bytes
        while budget > 0 and not self.at_end:
            buffer = self._reader.buffer()
            try:
                if buffer is not None:
                    wanted = len(buffer)
                    count = self._sock.recv_into(buffer)
                    frames += self._reader.filled(count)
                else:
                    wanted = _CHUNK_BYTES
                    data = self._sock.recv(wanted)
                    count = len(data)
                    frames += self._reader.feed(data)
            except BlockingIOError:
                break
            except OSError:  # reset: the process died with something unread
                wanted = count = 0
            self.at_end = count == 0
            if count < wanted:
                break  # that was all; the end is found by the next call
            budget -= count
        return frames

    def close(self) -> None:
        """Close the socket; what is outgoing is gone."""
        self._outgoing.clear()
        self._sock.close()


class WorkerChannel(Protocol):
    """What a worker needs of its end: a `BlockingChannel`, or what stands for one.

    Both methods raise `EOFError` or `OSError` when the coordinator is gone.
    """

    def send(self, tag: int, payload: bytes) -> None:
        """Write a frame."""

    def receive(self) -> Frame:
        """Wait for a frame."""


class BlockingChannel:
    """The worker's end."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(True)
        self._sock = sock
        self._reader = FrameReader()
        self._frames: deque[Frame] = deque()

    def send(self, tag: int, payload: bytes) -> None:
        """Write a frame.

        Raises:
            OSError: The coordinator is gone.
        """
        header = _HEADER.pack(tag, len(payload))
        if len(payload) <= _CHUNK_BYTES:
            self._sock.sendall(header + payload)
        else:
            self._sock.sendall(header)
            self._sock.sendall(payload)

    def receive(self) -> Frame:
        """Wait for a frame.

        Raises:
            EOFError: The coordinator is gone.
            OSError: Likewise.
        """
        while not self._frames:
            buffer = self._reader.buffer()
            if buffer is not None:
                count = self._sock.recv_into(buffer)
                self._frames.extend(self._reader.filled(count))
            else:
                data = self._sock.recv(_CHUNK_BYTES)
                count = len(data)
                self._frames.extend(self._reader.feed(data))
            if not count:
                raise EOFError
        return self._frames.popleft()

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()
