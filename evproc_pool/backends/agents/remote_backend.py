"""The coordinator's side: one backend over the agents of several nodes.

Two threads meet here. The one that drives the coordinator calls `RemoteBackend`. Connections put
what has come into the `Inbox`, from any thread; `poll` takes it out. Sending never blocks:
`AgentLink.post` hands a command to the connection.

Differences to local workers, and what is made of them:

- `look_at` is what the agent has told: see `activity`. None: the worker is not slow;
- `take_back` asks the agent, and returns False. It returns True when the coordinator, which still
  sees the worker there, asks again and the answer has come. If the coordinator does not ask again,
  the worker itself gives the same events back when its slow event is over;
- `kill_stuck` asks the agent, and `Missed` comes if the worker had moved on;
- `memory_bytes` is that of the last answer, and asks for the next one;
- `link` is None: a single event goes through the scheduler.

**A lost node.** Its connection is closed, or was silent for too long; either way nothing that
arrives from it later is taken in. All its workers are gone at once. What each was last known to be
at is charged, since it may have had effects. If the last thing known is that a worker was between
two events, its first event without a result is charged. What ran since, and whose results were on
their way, runs again. `Resized` comes first, so that the workers of the lost node are started
elsewhere only if there is room.

A worker that is to be started while no agent is there waits up to `NODE_SECONDS`.

Rejected: blocking questions to the agent (a frozen node would stop all others until it is given
up); `Gone` for each worker only when the engine has noticed the death (seconds later).
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from math import inf
from typing import Any, Final, NamedTuple, Protocol

from evproc_pool.backends.agents import messages as said
from evproc_pool.backends.agents.nodes import Nodes
from evproc_pool.errors import PoolBrokenError
from evproc_pool.log import LOG
from evproc_pool.protocol import messages
from evproc_pool.protocol.backend import Arrived, Gone, Happened, Missed, Resized
from evproc_pool.protocol.frame import Data, Frame
from evproc_pool.protocol.registry_spec import Config
from evproc_pool.protocol.status_words import WorkerStatus

#: How long work waits for the first agent, or another one if all were lost, in seconds.
NODE_SECONDS: Final = 60.0

# Check at least this often whether the search goes on, and whether workers wait for too long.
_CHECK_SECONDS: Final = 1.0

# How long to wait for agents to end, besides what their workers may take, in seconds.
_END_SECONDS: Final = 5.0

# The memory of workers is not asked for more often.
_MEMORY_SECONDS: Final = 0.04


class AgentLink(Protocol):
    """The connection to one agent. Any thread may use it."""

    def post(self, command: said.Command) -> None:
        """Send a command, in order, soon. Does nothing if the connection is closed."""

    @property
    def is_writing(self) -> bool:
        """Whether commands wait until the connection takes them."""

    def close(self) -> None:
        """Close the connection, which ends the agent. Idempotent."""


class Joined(NamedTuple):
    """An agent has joined."""

    link: AgentLink
    name: str  # of its node
    room: int  # for so many workers


class Left(NamedTuple):
    """An agent is lost; nothing else comes from it."""

    why: str


class Unusable(NamedTuple):
    """A node has no agent that can be used."""

    why: str


class Search(Protocol):
    """Looks for nodes, and tells an `Inbox` of their agents."""

    @property
    def lost_why(self) -> str:
        """Why it finds and hears nothing any more; empty: it does. From any thread."""

    def close(self) -> None:
        """End it, and all connections. Idempotent."""


class Inbox:
    """What has come from agents. Any thread may put; the driver takes."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._items: deque[tuple[int, Any]] = deque()
        self._is_woken = False
        self._newest = 0

    def new_key(self) -> int:
        """A key for another agent."""
        with self._changed:
            self._newest += 1
            return self._newest

    def put(self, agent: int, item: Sequence[said.Event] | Joined | Left | Unusable) -> None:
        """Hand in what has happened."""
        with self._changed:
            self._items.append((agent, item))
            self._changed.notify()

    def wake(self) -> None:
        """End the present or the next wait."""
        with self._changed:
            self._is_woken = True
            self._changed.notify()

    def wait(self, seconds: float) -> None:
        """Wait until something is there, or for `wake`."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._is_woken, seconds)
            self._is_woken = False

    def rest(self, seconds: float) -> None:
        """Wait for `wake` only, which stays in force for `wait`."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_woken, seconds)

    def take(self) -> list[tuple[int, Any]]:
        """Take everything."""
        with self._changed:
            taken = list(self._items)
            self._items.clear()
        return taken


class _Worker:
    """What is known of a worker."""

    __slots__ = (
        "at",
        "is_leaving",
        "is_ready",
        "is_slow",
        "kill_stack",
        "memory_bytes",
        "pid",
        "took",
    )

    def __init__(self) -> None:
        self.pid: int | None = None
        self.at: WorkerStatus | None = None
        self.is_slow = False
        self.is_ready = False
        self.is_leaving = False
        self.memory_bytes = 0
        self.took: said.Took | None = None
        self.kill_stack = ""


class RemoteBackend:
    """See the module's text, and `protocol.backend.Backend` for the methods.

    Args:
        inbox: What connections put there.
        search: Finds the nodes.
        most_workers: The most workers, on all nodes together; None: as many as fit.
    """

    def __init__(self, inbox: Inbox, search: Search, most_workers: int | None = None) -> None:
        self._inbox = inbox
        self._search = search
        self._nodes = Nodes(most_workers)
        self._size = 0
        self._links: dict[int, AgentLink] = {}
        self._workers: dict[int, _Worker] = {}
        self._config: Config | None = None
        self._configured: set[int] = set()  # agents that have it
        self._lonely_since = inf  # since when workers wait for an agent
        self._asked_memory = 0.0
        self._is_ending = False

    @property
    def numbers(self) -> list[int]:
        """See `Backend`."""
        return list(self._workers)

    def pid(self, number: int) -> int | None:
        """See `Backend`; None also until the agent has told."""
        worker = self._workers.get(number)
        return None if worker is None else worker.pid

    def node(self, number: int) -> str:
        """See `Backend`."""
        return self._nodes.name_of(number)

    def start(self, number: int, config: Config) -> None:
        """See `Backend`. That it cannot be started is told by `Gone`."""
        if config.shared:
            raise OSError(
                "locks, queues and the like in initargs cannot go to another node: make them there"
            )
        if config is not self._config:
            self._config, self._configured = config, set()
        self._workers[number] = _Worker()
        self._place(number)

    def _place(self, number: int) -> None:
        agent = self._nodes.place(number)
        if agent is None:
            self._lonely_since = min(self._lonely_since, time.monotonic())
        elif self._config is not None:
            frame = None if agent in self._configured else self._config.frame
            self._configured.add(agent)
            self._links[agent].post(said.StartWorker(number, frame))

    def send(
        self,
        number: int,
        tag: int,
        payload: Data,
        buffers: Sequence[memoryview] = (),
        *,
        may_refer: bool = False,  # noqa: ARG002 - nothing is shared with another node
    ) -> None:
        """See `Backend`."""
        self._post(
            number, said.SendFrame(number, tag, *said.sendable(Frame(tag, payload, buffers)))
        )

    def _post(self, number: int, command: said.Command) -> None:
        agent = self._nodes.agent_of(number)
        if agent is not None:
            self._links[agent].post(command)

    def link(self, number: int) -> None:
        """Return None: other connections would not be heard meanwhile."""

    def look_at(self, number: int) -> WorkerStatus | None:
        """See `Backend`."""
        worker = self._workers.get(number)
        return worker.at if worker is not None and worker.is_slow else None

    def take_back(self, number: int, seen: WorkerStatus, newest: int) -> bool:
        """See `Backend`, and the module's text."""
        worker = self._workers.get(number)
        took = None if worker is None else worker.took
        if took is not None and (took.seen.activity, took.newest) == (seen.activity, newest):
            return True
        self._post(number, said.TakeBack(number, seen, newest))
        return False

    def ask_back(self, number: int, newest: int) -> None:
        """See `Backend`."""
        self._post(number, said.AskBack(number, newest))

    def ask_for_report(self, number: int) -> None:
        """See `Backend`."""
        self._post(number, said.AskForReport(number))

    def raise_soft_timeout(self, number: int, seen: WorkerStatus, *, is_again: bool) -> None:
        """See `Backend`."""
        self._post(number, said.RaiseSoftTimeout(number, seen, is_again))

    def kill_stuck(self, number: int, seen: WorkerStatus) -> str | None:
        """See `Backend`, and the module's text."""
        if number not in self._workers:
            return None
        self._post(number, said.KillStuck(number, seen))
        return ""

    def memory_bytes(self, number: int) -> int:
        """See `Backend`, and the module's text."""
        now = time.monotonic()
        if now - self._asked_memory >= _MEMORY_SECONDS:
            self._asked_memory = now
            for link in self._links.values():
                link.post(said.AskMemory())
        worker = self._workers.get(number)
        return 0 if worker is None else worker.memory_bytes

    def wake(self) -> None:
        """See `Backend`."""
        self._inbox.wake()

    def rest(self, seconds: float) -> None:
        """See `Backend`."""
        self._inbox.rest(seconds)

    @property
    def is_writing(self) -> bool:
        """See `Backend`."""
        return any(link.is_writing for link in self._links.values())

    def poll(self, timeout: float | None) -> list[Happened]:
        """See `Backend`.

        Raises:
            PoolBrokenError: Workers have waited too long for a node.
        """
        self._inbox.wait(min(inf if timeout is None else timeout, _CHECK_SECONDS))
        happened: list[Happened] = []
        for agent, item in self._inbox.take():
            happened += self._take_in(agent, item)
        if why := self._search.lost_why:
            for agent in list(self._links):
                happened += self._lose(agent, why)
        if self._nodes.size != self._size:
            self._size = self._nodes.size
            happened.insert(0, Resized(self._size))
        if not self._nodes.waiting:
            self._lonely_since = inf
        elif why:
            raise PoolBrokenError(f"the cluster is lost: {why}")
        elif time.monotonic() >= self._lonely_since + NODE_SECONDS:
            raise PoolBrokenError(
                f"no node of the cluster has taken a worker for {NODE_SECONDS:g} s: are its"
                " workers running, and can this process connect to them?"
            )
        return happened

    def _take_in(self, agent: int, item: Any) -> list[Happened]:
        if isinstance(item, Joined):
            self._links[agent] = item.link
            self._nodes.joined(agent, item.name, item.room)
            for worker in self._nodes.waiting:
                self._place(worker)
            return []
        if isinstance(item, Unusable):
            LOG.warning("a node cannot be used: %s", item.why)
        if not self._nodes.is_known(agent):
            return []
        if isinstance(item, Left):
            return self._lose(agent, item.why)
        happened: list[Happened] = []
        for event in item:
            happened += self._told(agent, event)
        return happened

    def _lose(self, agent: int, why: str) -> list[Happened]:
        self._links.pop(agent).close()
        self._configured.discard(agent)
        name, workers = self._nodes.lost(agent)
        if workers and not self._is_ending:
            LOG.warning("node %s is lost: %s", name, why)
        happened: list[Happened] = []
        for number in workers:
            worker = self._workers.pop(number)
            at = worker.at
            # between events: it has begun another one since, as far as anybody knows
            if at is not None and (at.position < 0 or at.is_over):
                at = None
            reason = f"its node {name} is lost: {why}"
            happened.append(Gone(number, worker.pid, None, at, reason=reason))
        return happened

    def _told(self, agent: int, event: said.Event) -> list[Happened]:  # noqa: C901, PLR0911, PLR0912 - a case each
        match event:
            case said.Retiring():
                return self._retire(agent)
            case said.Ended():
                return self._lose(agent, "its agent has ended")
        number = event.worker
        worker = self._workers.get(number)
        if worker is None or self._nodes.agent_of(number) != agent:
            return []
        match event:
            case said.Received(_, tag, payload, buffers):
                worker.is_slow = False  # if it still is, that follows
                arrived = Arrived(number, tag, payload, said.received(buffers))
                if tag != messages.READY:
                    return [arrived]
                worker.is_ready = True
                return (
                    [arrived, Arrived(number, messages.LEAVING, b"")]
                    if worker.is_leaving
                    else [arrived]
                )
            case said.Died(_, pid, exitcode, progress, stack):
                self._forget(number)
                return [Gone(number, pid, exitcode, progress, worker.kill_stack or stack)]
            case said.NotStarted(_, why):
                self._forget(number)
                return [Gone(number, None, None, None, reason=f"it cannot be started: {why}")]
            case said.KillMissed():
                return [Missed(number)]
            case said.Killed(_, stack):
                worker.kill_stack = stack
            case said.Started(_, pid):
                worker.pid = pid
            case said.Took():
                worker.took = event
            case said.Seen(_, at, is_slow):
                worker.at, worker.is_slow = at, is_slow
            case said.Memory(_, size_bytes):
                worker.memory_bytes = size_bytes
        return []

    def _retire(self, agent: int) -> list[Happened]:
        """Have the workers of an agent end as if they had used their quota: once they are empty."""
        workers = self._nodes.retiring(agent)
        for each in workers:
            self._workers[each].is_leaving = True
        self._end_if_drained(agent)
        # one that is not ready yet leaves when it is
        ready = [each for each in workers if self._workers[each].is_ready]
        return [Arrived(each, messages.LEAVING, b"") for each in ready]

    def _forget(self, number: int) -> None:
        del self._workers[number]
        agent = self._nodes.agent_of(number)
        self._nodes.gone(number)
        if agent is not None:
            self._end_if_drained(agent)

    def _end_if_drained(self, agent: int) -> None:
        if self._nodes.is_drained(agent):
            self._links[agent].post(said.End(0.0))

    def quit(self, most_seconds: float, hear: Callable[[Arrived], object]) -> None:
        """See `Backend`."""
        self._end(most_seconds, hear)

    def kill(self, hear: Callable[[Arrived], object]) -> None:
        """See `Backend`."""
        self._end(0.0, hear)

    def _end(self, most_seconds: float, hear: Callable[[Arrived], object]) -> None:
        deadline = time.monotonic() + min(most_seconds, _END_SECONDS) + _END_SECONDS
        self._is_ending = True
        try:
            for link in self._links.values():
                link.post(said.End(min(most_seconds, _END_SECONDS)))
            while (
                self._links
                and not self._search.lost_why
                and (left := deadline - time.monotonic()) > 0
            ):
                self._inbox.wait(left)
                for agent, item in self._inbox.take():
                    if isinstance(item, Joined):
                        item.link.close()
                        continue
                    for each in self._take_in(agent, item):
                        if isinstance(each, Arrived):
                            hear(each)
        finally:
            for link in self._links.values():
                link.close()
            self._links.clear()
            self._workers.clear()
            self._search.close()
