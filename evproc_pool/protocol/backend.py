"""The interface of a backend, which starts workers and moves frames.

`backends.local.processes.LocalBackend` has processes on this machine,
`backends.executor.calls.ExecutorBackend` plain calls of an executor. `testing.backend.FakeBackend`
has threads, of which a seed lets one at a time run. `testing.conformance` checks a backend.

These may be trivial, for example where workers are on another machine:

- `link` returns None: a single event goes through the scheduler, which takes three times as long;
- `look_at` returns None: there are no timeouts, and no kill for memory or by `cancel_running`. A
  slow event delays unsent results before it, and the events behind it in its worker. `take_back`,
  `ask_for_report`, `raise_soft_timeout` and `kill_stuck` are never called;
- `Gone.progress` is None: the first event without a result is charged for a death;
- `memory_bytes` returns 0: only the worker checks its memory limit, between events;
- `ask_back` does nothing: a worker runs all that it holds, also if others are idle.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from evproc_pool.protocol.frame import Data, Frame
from evproc_pool.protocol.registry_spec import Config
from evproc_pool.protocol.status_words import WorkerStatus


class Arrived(NamedTuple):
    """A frame from a worker has arrived."""

    worker: int
    tag: int
    payload: Data
    buffers: Sequence[memoryview] = ()


class Gone(NamedTuple):
    """A worker is dead, and everything that it wrote has been read."""

    worker: int
    pid: int | None  # None: it had none
    exitcode: int | None  # as in `multiprocessing`: negative for a signal
    progress: WorkerStatus | None  # where it was; None: unknown
    stack: str = ""  # the stacks of its threads when it crashed; mostly empty
    cause: str = ""  # an error, if that is known in place of an exit code
    has_timed_out: bool = False  # it was ended since its event took too long
    reason: str = ""  # why the backend has lost it, so that nobody knows how it ended
    has_run_again: bool = False  # its event was run again, alone, after a lost call had it


class Missed(NamedTuple):
    """A `kill_stuck` has killed nothing, which its answer did not say yet."""

    worker: int


class Resized(NamedTuple):
    """There is room for so many workers from now on."""

    workers: int


#: What `Backend.poll` returns.
Happened = Arrived | Gone | Missed | Resized


class Link(Protocol):
    """A direct way to one worker, without the others."""

    def send(self, tag: int, payload: Data, buffers: Sequence[memoryview] = ()) -> None:
        """See `Backend.send`."""

    def wait(self, seconds: float) -> bool:
        """Wait until this worker has sent something.

        Returns False if it takes longer, or something else happens, which the next `poll` returns.
        """

    def receive(self) -> list[Frame]:
        """Frames that the worker has sent."""


class Backend(Protocol):
    """Workers by their numbers. One thread at a time may use it; any thread may call `wake`."""

    @property
    def numbers(self) -> Sequence[int]:
        """The workers that were started and are not known to be dead."""

    def pid(self, number: int) -> int | None:
        """The process id of a worker; None if it is dead, or never had one."""

    def node(self, number: int) -> str:
        """The name of the node that a worker is on; empty: this machine."""

    def start(self, number: int, config: Config) -> None:
        """Start a worker. Its first frame says whether it is ready.

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
        """Queue a frame for a worker; `poll` writes what does not fit now.

        Drops the frame if `poll` has found the worker's death already: its `Gone` is about to be
        handled. The caller may change the buffers afterwards, unless `may_refer`: see
        `ipc.channel.Channel.send`.
        """

    def link(self, number: int) -> Link | None:
        """A direct way to a worker, to wait for it alone; None: not possible."""

    def look_at(self, number: int) -> WorkerStatus | None:
        """Where a worker is; None: unknown."""

    def take_back(self, number: int, seen: WorkerStatus, newest: int) -> bool:
        """See `status_words.StatusWords.take_back`.

        May return False although it works, if it returns True when it is called again.
        """

    def ask_back(self, number: int, newest: int) -> None:
        """See `status_words.StatusWords.ask_back`."""

    def ask_for_report(self, number: int) -> None:
        """Ask a worker that is at an event to send its results so far; see `worker.reporter`."""

    def raise_soft_timeout(self, number: int, seen: WorkerStatus, *, is_again: bool) -> None:
        """Raise the soft timeout in the event at which a worker was; see `worker.soft_timeout`.

        `is_again` repeats a request: it counts only if the worker has not raised the timeout yet.
        """

    def kill_stuck(self, number: int, seen: WorkerStatus) -> str | None:
        """Kill a worker that is still where it was seen, with all its descendants.

        Returns its stacks, maybe empty; `Gone` may have them, too. None: it has moved on, and
        lives. A backend that does not know that yet returns no stack, and `Missed` later.
        """

    def memory_bytes(self, number: int) -> int:
        """The resident memory of a worker; 0: unknown."""

    def wake(self) -> None:
        """Let a `poll` in another thread, or the next one, return."""

    def rest(self, seconds: float) -> None:
        """Sleep, whatever workers do meanwhile; `wake` ends it."""

    @property
    def is_writing(self) -> bool:
        """Whether data waits until the workers take it."""

    def poll(self, timeout: float | None) -> Sequence[Happened]:
        """Wait until something happens, and return it in order; `timeout` None: for ever."""

    def quit(self, most_seconds: float, hear: Callable[[Arrived], object]) -> None:
        """Ask idle workers to end, wait `most_seconds` at most, and close everything.

        `hear` is called with each frame that workers have sent meanwhile.
        """

    def kill(self, hear: Callable[[Arrived], object]) -> None:
        """Kill all workers and close everything; see `quit`."""
