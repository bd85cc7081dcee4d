"""What the coordinator needs of a backend, which starts workers and moves frames.

`processes.LocalBackend` has processes on this machine; `testing` has one of threads of which
a seed lets one at a time run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from evproc_pool.protocol.frame import Data, Frame
from evproc_pool.protocol.status_words import WorkerStatus


class Arrived(NamedTuple):
    """A frame from a worker."""

    worker: int
    tag: int
    payload: Data
    buffers: Sequence[memoryview] = ()


class Gone(NamedTuple):
    """A worker is dead, and everything that it wrote has been read.

    Attributes:
        worker: Its number.
        pid: The process id that it had, if it had one.
        exitcode: As of `multiprocessing`: negative for a signal.
        progress: Where it was, or None where that cannot be known.
        stack: The stacks of its threads when it crashed, as text; mostly empty.
    """

    worker: int
    pid: int | None
    exitcode: int | None
    progress: WorkerStatus | None
    stack: str = ""


class Link(Protocol):
    """The way to one worker, past the others."""

    def send(self, tag: int, payload: Data, buffers: Sequence[memoryview] = ()) -> None:
        """See `Backend.send`."""

    def wait(self, seconds: float) -> bool:
        """Wait until this worker has sent something.

        Returns:
            False if it takes longer, or anything else happens, which the next `poll` tells.
        """

    def receive(self) -> list[Frame]:
        """What the worker has sent."""


class Backend(Protocol):
    """Workers by their numbers. One thread at a time may use it, but for `wake`."""

    @property
    def numbers(self) -> Sequence[int]:
        """The workers that were started and are not known to be gone."""

    def pid(self, number: int) -> int | None:
        """The process id of a worker; None if it is gone, or never had one."""

    def start(self, number: int, config: bytes) -> None:
        """Start a worker; its first frame says whether it is ready.

        Raises:
            OSError: It cannot be started. Nothing is left of it.
        """

    def send(
        self,
        number: int,
        tag: int,
        payload: Data,
        buffers: Sequence[memoryview] = (),
        *,
        may_refer: bool = False,
    ) -> None:
        """Queue a frame for a worker; dropped if that is gone.

        The buffers may be changed afterwards, unless `may_refer`: see `channel.Channel.send`.
        """

    def link(self, number: int) -> Link | None:
        """The way to a worker that can be waited for alone, here and now; None: it cannot."""

    def look_at(self, number: int) -> WorkerStatus | None:
        """Where a worker is; None where that cannot be known."""

    def take_back(self, number: int, seen: WorkerStatus, newest: int) -> bool:
        """See `status_words.StatusWords.take_back`."""

    def ask_back(self, number: int, newest: int) -> None:
        """See `status_words.StatusWords.ask_back`."""

    def ask_to_tell(self, number: int) -> None:
        """Have a worker send what is over while it is at an event; see `reporter`."""

    def strike(self, number: int, seen: WorkerStatus, *, is_again: bool) -> None:
        """Have a worker raise the soft timeout in an event; see `processes.LocalBackend.strike`."""

    def kill_stuck(self, number: int, seen: WorkerStatus) -> str | None:
        """Kill a worker that is still at an event: its stacks; None if it has moved on."""

    def memory_bytes(self, number: int) -> int:
        """The resident memory of a worker; 0 if that is not known."""

    def wake(self) -> None:
        """Let a `poll` in another thread, or the next one, return."""

    def rest(self, seconds: float) -> None:
        """Wait, whatever workers do meanwhile; `wake` ends it."""

    @property
    def is_writing(self) -> bool:
        """Whether there is more to send than the workers have taken so far."""

    def poll(self, timeout: float | None) -> list[Arrived | Gone]:
        """Wait until something happens, and say what; see `processes.LocalBackend.poll`."""

    def quit(self, most_seconds: float) -> None:
        """Tell idle workers to end, wait for them, though not for long, and close everything."""

    def kill(self) -> None:
        """Kill all workers and close everything."""
