"""The way to one worker, past the others."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Sequence
from typing import Final

from evproc_pool.backends.local.member import Member
from evproc_pool.ipc.channel import CAN_WAIT
from evproc_pool.protocol.frame import Data

# A quick answer takes no longer, in seconds. Others may have to wait as long.
_QUICK_SECONDS: Final = 0.001


class DirectLink:
    """See `backend.Link`. Makes few calls: in a process that has slept each call takes long.

    After an answer that came quickly, it waits for the next one in a call that is quicker
    yet, but notices nothing else meanwhile.

    Args:
        member: The worker.
        wake: A socket that can be read from when somebody wants something.
        watch: Called if a frame could not be written at once.
    """

    __slots__ = ("_channel", "_found", "_is_quick", "_member", "_poll", "_watch", "receive")

    def __init__(
        self, member: Member, wake: socket.socket, watch: Callable[[Member], None]
    ) -> None:
        self._member = member
        self._channel = member.channel
        self._watch = watch
        poller = select.poll()
        for each in (member.channel.fileno(), *member.sentinels, wake.fileno()):
            poller.register(each, select.POLLIN)
        self._poll = poller.poll
        # the result when the channel can be read from, and nothing else has happened
        self._found = [(member.channel.fileno(), select.POLLIN)]
        self.receive = member.channel.receive
        self._is_quick = False

    def send(self, tag: int, payload: Data, buffers: Sequence[memoryview] = ()) -> None:
        """See `backend.Link`."""
        self._channel.send(tag, payload, buffers)
        if self._channel.outgoing:
            self._watch(self._member)

    def wait(self, seconds: float) -> bool:
        """See `backend.Link`."""
        began = time.perf_counter()
        is_there = self._is_quick and seconds > _QUICK_SECONDS and self._channel.wait()
        if not is_there:
            left = max(0.0, seconds + began - time.perf_counter())
            is_there = self._poll(left * 1000) == self._found
        self._is_quick = CAN_WAIT and is_there and time.perf_counter() - began < _QUICK_SECONDS
        return is_there
