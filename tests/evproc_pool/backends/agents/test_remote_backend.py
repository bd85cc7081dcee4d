"""One backend over several agents, by connections that do nothing by themselves."""

from __future__ import annotations

import threading

import pytest

from evproc_pool.backends.agents import messages as said
from evproc_pool.backends.agents import remote_backend
from evproc_pool.backends.agents.remote_backend import (
    Inbox,
    Joined,
    Left,
    RemoteBackend,
    Unusable,
)
from evproc_pool.errors import PoolBrokenError
from evproc_pool.protocol import messages
from evproc_pool.protocol.backend import Arrived, Gone, Missed, Resized
from evproc_pool.protocol.registry_spec import Config
from evproc_pool.protocol.status_words import NONE, WorkerStatus
from tests.support.helpers import PATIENCE_SECONDS

_CONFIG = Config(b"config")
_AT = WorkerStatus(1, 3, 0, None)


class _Link:
    """Keeps what was sent."""

    is_writing = False

    def __init__(self) -> None:
        self.posted: list[said.Command] = []
        self.is_closed = False

    def post(self, command: said.Command) -> None:
        self.posted.append(command)

    def close(self) -> None:
        self.is_closed = True


class _Cluster:
    """A backend, and its agents by their keys."""

    def __init__(self, *rooms: int) -> None:
        self.inbox = Inbox()
        self.is_closed = False
        self.lost_why = ""
        self.backend = RemoteBackend(self.inbox, self)
        self.links: dict[int, _Link] = {}
        for room in rooms:
            self.join(room)
        self.backend.poll(0)

    def close(self) -> None:
        self.is_closed = True

    def join(self, room: int, name: str = "there") -> int:
        key = self.inbox.new_key()
        self.links[key] = _Link()
        self.inbox.put(key, Joined(self.links[key], name, room))
        return key

    def hear(self, agent: int, *events: said.Event) -> list[object]:
        self.inbox.put(agent, events)
        return list(self.backend.poll(0))

    def start(self, number: int) -> None:
        self.backend.start(number, _CONFIG)


def test_the_config_goes_to_each_agent_once() -> None:
    cluster = _Cluster(2, 1)
    for number in (1, 2, 3):
        cluster.start(number)
    assert cluster.links[1].posted == [said.StartWorker(1, b"config"), said.StartWorker(3, None)]
    assert cluster.links[2].posted == [said.StartWorker(2, b"config")]


def test_a_config_with_locks_stays_here() -> None:
    cluster = _Cluster(1)
    with pytest.raises(OSError, match="initargs"):
        cluster.backend.start(1, Config(b"", [threading.Lock()]))
    assert cluster.backend.numbers == []


def test_a_frame_cannot_be_changed_once_it_is_sent() -> None:
    cluster = _Cluster(1)
    cluster.start(1)
    buffer = bytearray(b"before")
    cluster.backend.send(1, messages.BATCH, memoryview(buffer), [memoryview(buffer)])
    buffer[:] = b"behind"
    command = cluster.links[1].posted[-1]
    assert command == said.SendFrame(1, messages.BATCH, b"before", (bytearray(b"before"),))


def test_frames_and_deaths_come_in_order() -> None:
    cluster = _Cluster(1)
    cluster.start(1)
    happened = cluster.hear(
        1,
        said.Started(1, 77),
        said.Received(1, messages.QUIET, b"x"),
        said.Died(1, 77, -9, _AT, "stack"),
    )
    assert happened == [Arrived(1, messages.QUIET, b"x", []), Gone(1, 77, -9, _AT, "stack")]
    assert cluster.backend.numbers == []


def test_buffers_arrive_writable() -> None:
    cluster = _Cluster(1)
    cluster.start(1)
    (arrived,) = cluster.hear(1, said.Received(1, messages.PROGRESS, b"", [bytearray(b"abc")]))
    assert isinstance(arrived, Arrived)
    assert not arrived.buffers[0].readonly


def test_all_workers_of_a_lost_agent_are_gone_and_the_pool_is_smaller_before() -> None:
    cluster = _Cluster(2, 1)
    for number in (1, 2, 3):
        cluster.start(number)
    cluster.hear(1, said.Started(1, 11), said.Seen(1, _AT, is_slow=False))
    between = WorkerStatus(1, NONE, None, None)
    cluster.hear(1, said.Seen(3, between, is_slow=False))
    cluster.inbox.put(1, Left("cut"))
    reason = "its node there is lost: cut"
    assert cluster.backend.poll(0) == [
        Resized(1),
        Gone(1, 11, None, _AT, reason=reason),
        # it has begun another event since, as far as anybody knows
        Gone(3, None, None, None, reason=reason),
    ]
    assert cluster.backend.numbers == [2]
    assert cluster.links[1].is_closed


def test_nothing_of_a_lost_agent_is_taken_in() -> None:
    cluster = _Cluster(1, 1)
    cluster.start(1)
    cluster.inbox.put(1, Left("cut"))
    late: list[said.Event] = [
        said.Received(1, messages.QUIET, b"late"),
        said.Died(1, 1, 0, None, ""),
    ]
    assert [type(each) for each in cluster.hear(1, *late)] == [Resized, Gone]
    assert cluster.hear(1, *late) == []
    # also if the worker's number is used elsewhere: it is not, but nobody else may speak for it
    cluster.start(2)
    assert cluster.hear(1, said.Received(2, messages.QUIET, b"")) == []


def test_a_node_that_comes_back_is_another_agent() -> None:
    cluster = _Cluster(1)
    cluster.start(1)
    cluster.inbox.put(1, Left("restarted"))
    again = cluster.join(1)
    happened = cluster.backend.poll(0)
    assert [type(each) for each in happened] == [Gone]  # the size is the same
    cluster.start(2)
    assert cluster.links[again].posted == [said.StartWorker(2, b"config")]


def test_a_worker_waits_for_the_first_agent() -> None:
    cluster = _Cluster()
    cluster.start(1)
    agent = cluster.join(2)
    assert cluster.backend.poll(0) == [Resized(2)]
    assert cluster.links[agent].posted == [said.StartWorker(1, b"config")]


def test_no_worker_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_backend, "NODE_SECONDS", 0.0)
    cluster = _Cluster()
    cluster.start(1)
    with pytest.raises(PoolBrokenError, match="no node of the cluster has taken a worker"):
        cluster.backend.poll(None)


def test_all_agents_are_lost_with_the_search_for_them() -> None:
    cluster = _Cluster(1, 2)
    cluster.start(1)
    cluster.lost_why = "the client is closed"
    happened = cluster.backend.poll(0)
    assert [type(each) for each in happened] == [Resized, Gone]
    cluster.start(2)
    with pytest.raises(PoolBrokenError, match="the cluster is lost: the client is closed"):
        cluster.backend.poll(None)
    cluster.backend.quit(PATIENCE_SECONDS, lambda _: None)  # waits for nobody
    assert cluster.is_closed


def test_workers_of_a_retiring_agent_leave_when_they_are_ready() -> None:
    cluster = _Cluster(2, 1)
    for number in (1, 2, 3):
        cluster.start(number)
    cluster.hear(1, said.Received(1, messages.READY, b""))
    assert cluster.hear(1, said.Retiring()) == [Resized(1), Arrived(1, messages.LEAVING, b"")]
    arrived = cluster.hear(1, said.Received(3, messages.READY, b""))
    assert arrived == [Arrived(3, messages.READY, b"", []), Arrived(3, messages.LEAVING, b"")]
    for number in (1, 3):
        assert said.End(0.0) not in cluster.links[1].posted
        cluster.hear(1, said.Died(number, None, 0, None, ""))
    assert cluster.links[1].posted[-1] == said.End(0.0)


def test_a_place_is_known_while_the_worker_is_slow() -> None:
    cluster = _Cluster(1)
    cluster.start(1)
    assert cluster.backend.look_at(1) is None
    cluster.hear(1, said.Seen(1, _AT, is_slow=True))
    assert cluster.backend.look_at(1) == _AT
    cluster.hear(1, said.Received(1, messages.QUIET, b""))
    assert cluster.backend.look_at(1) is None


def test_what_was_taken_back_is_known_at_the_next_question() -> None:
    cluster = _Cluster(1)
    cluster.start(1)
    assert not cluster.backend.take_back(1, _AT, 4)
    assert cluster.links[1].posted[-1] == said.TakeBack(1, _AT, 4)
    cluster.hear(1, said.Took(1, _AT, 4))
    assert not cluster.backend.take_back(1, _AT, 5)  # another batch was sent meanwhile
    assert not cluster.backend.take_back(1, _AT._replace(position=4), 4)
    assert cluster.backend.take_back(1, _AT, 4)


def test_a_kill_that_misses_is_told_later() -> None:
    cluster = _Cluster(1)
    cluster.start(1)
    assert cluster.backend.kill_stuck(1, _AT) == ""
    assert cluster.hear(1, said.KillMissed(1)) == [Missed(1)]
    assert cluster.backend.kill_stuck(2, _AT) is None  # no such worker


def test_the_stacks_of_a_killed_worker_come_with_its_end() -> None:
    cluster = _Cluster(1)
    cluster.start(1)
    happened = cluster.hear(1, said.Killed(1, "stack"), said.Died(1, 5, -9, _AT, ""))
    assert happened == [Gone(1, 5, -9, _AT, "stack")]


def test_memory_is_that_of_the_last_answer() -> None:
    cluster = _Cluster(1)
    cluster.start(1)
    assert cluster.backend.memory_bytes(1) == 0
    assert cluster.links[1].posted[-1] == said.AskMemory()
    cluster.hear(1, said.Memory(1, 1000))
    assert cluster.backend.memory_bytes(1) == 1000


def test_a_worker_that_cannot_be_started_is_gone_for_a_reason() -> None:
    cluster = _Cluster(1)
    cluster.start(1)
    (gone,) = cluster.hear(1, said.NotStarted(1, "too many open files"))
    assert isinstance(gone, Gone)
    assert gone.reason == "it cannot be started: too many open files"


def test_wake_ends_a_wait_in_another_thread() -> None:
    cluster = _Cluster(1)
    thread = threading.Thread(target=cluster.backend.poll, args=(None,))
    thread.start()
    cluster.backend.wake()
    thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive()


def test_wake_ends_a_rest_and_the_next_wait() -> None:
    cluster = _Cluster(1)
    cluster.backend.wake()
    cluster.backend.rest(PATIENCE_SECONDS)
    assert cluster.backend.poll(None) == []


def test_the_end_waits_for_each_agent_and_hears_what_comes() -> None:
    cluster = _Cluster(1, 1)
    cluster.start(1)
    late = cluster.join(1)  # joins at the very end
    logged = said.Received(1, messages.LOGGED, b"bye")
    cluster.inbox.put(1, [logged, said.Ended()])
    cluster.inbox.put(2, Left("cut"))
    heard: list[Arrived] = []
    cluster.backend.quit(PATIENCE_SECONDS, heard.append)
    assert [each.payload for each in heard] == [b"bye"]
    assert all(link.is_closed for link in cluster.links.values())
    assert not cluster.links[late].posted
    assert cluster.is_closed


def test_a_node_that_cannot_be_used_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    cluster = _Cluster(1)
    cluster.inbox.put(9, Unusable("no way"))
    assert cluster.backend.poll(0) == []
    assert "no way" in caplog.text
