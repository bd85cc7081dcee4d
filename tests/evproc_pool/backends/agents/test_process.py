"""The process of an agent, by its pipes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import pytest

from evproc_pool import PoolProcessor
from evproc_pool.backends.agents import agent as agents
from evproc_pool.backends.agents import messages as said
from evproc_pool.backends.agents.agent import Agent, CommandQueue
from evproc_pool.backends.agents.process import COMMAND, LENGTH, Writer, read
from evproc_pool.backends.agents.versions import Version
from evproc_pool.coordinator.codec import PACE
from evproc_pool.protocol import messages
from evproc_pool.protocol.limits import NO_LIMITS
from evproc_pool.protocol.process_state import current_state
from evproc_pool.protocol.registry_spec import make_config
from evproc_pool.protocol.worker_output import WorkerOutput
from tests.support import actions
from tests.support.helpers import PATIENCE_SECONDS, still_alive

_METHOD = "forkserver" if sys.platform == "linux" else "spawn"


class _Process:
    """An agent's process."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        assert process.stdin is not None
        assert process.stdout is not None
        self.commands, self.events = process.stdin, process.stdout

    def send(self, message: Any) -> None:
        data = said.dump(message)
        self.commands.write(LENGTH.pack(len(data)) + data)
        self.commands.flush()

    def wait_for(self, kind: type) -> Any:
        """The next event of a kind."""
        while True:
            for event in read(self.events):
                if isinstance(event, kind):
                    return event

    def begin(self, *versions: Version) -> said.Hello:
        self.send(sys.path)
        self.send(said.Setup((), versions, _METHOD))
        hello = read(self.events)
        assert isinstance(hello, said.Hello)
        return hello

    def start_worker(self, number: int) -> int:
        """Start a worker that prints, and wait until it is ready."""
        pool = PoolProcessor(0)
        pool.register(actions.act)
        spec = pool._owner._handlers.spec(print, ("printed",), None)
        state = current_state(0, [actions.act]).elsewhere()
        config = make_config(spec, state, NO_LIMITS, PACE, WorkerOutput())
        self.send([said.StartWorker(number, config.frame)])
        pid: int = self.wait_for(said.Started).pid
        received = self.wait_for(said.Received)
        assert (received.worker, received.tag) == (number, messages.READY)
        return pid


@contextmanager
def _agent() -> Iterator[_Process]:
    process = subprocess.Popen(
        [sys.executable, *COMMAND],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        try:
            yield _Process(process)
        finally:
            process.kill()


def test_it_says_how_its_versions_differ() -> None:
    with _agent() as agent:
        hello = agent.begin(Version("evproc-pool", "0.0", "handler 'x'"))
        assert hello.pid == agent.process.pid
        (difference,) = hello.differences
        assert difference.startswith("handler 'x': evproc-pool 0.0 in the pool's process, ")


def test_what_workers_print_is_no_message() -> None:
    with _agent() as agent:
        agent.begin()
        agent.start_worker(1)
        agent.send([said.End(PATIENCE_SECONDS)])
        agent.wait_for(said.Ended)
        assert agent.process.wait(PATIENCE_SECONDS) == 0
        assert agent.process.stderr is not None
        assert b"printed" in agent.process.stderr.read()


def test_its_workers_end_with_its_standard_input() -> None:
    with _agent() as agent:
        agent.begin()
        agent.start_worker(1)
        children = psutil.Process(agent.process.pid).children(recursive=True)
        assert children
        agent.commands.close()
        assert agent.process.wait(PATIENCE_SECONDS) == 0
        assert still_alive(children) == []


@pytest.mark.skipif(sys.platform == "win32", reason="no such signal")
def test_its_workers_end_when_it_is_killed() -> None:
    with _agent() as agent:
        agent.begin()
        agent.start_worker(1)
        children = psutil.Process(agent.process.pid).children(recursive=True)
        agent.process.kill()
        assert still_alive(children) == []


def test_it_has_no_words_of_the_coordinator_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    queue = CommandQueue(lambda: None)
    queue.put([])
    assert queue.take() == []
    monkeypatch.setattr(agents, "ORPHANED_SECONDS", -1.0)
    with pytest.raises(EOFError):
        queue.take()


def test_a_message_ends_an_agent_that_cannot_write() -> None:
    class Backend:
        """Has no workers."""

        numbers: tuple[int, ...] = ()
        is_killed = False

        def poll(self, timeout: float | None) -> list[Any]:
            return []

        def wake(self) -> None: ...

        def kill(self, hear: Any) -> None:
            self.is_killed = True

    backend = Backend()
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb", buffering=0) as stream:  # noqa: PTH123 - a descriptor
        agent = Agent(backend, Writer(stream))  # type: ignore[arg-type]  # as much as it needs
        agent.run()
    assert backend.is_killed
