"""Which agent gets the next worker, and what is lost with an agent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evproc_pool.backends.agents.nodes import Lost, Nodes
from evproc_pool.errors import InternalError


def _nodes(*rooms: int, most_workers: int | None = None) -> Nodes:
    nodes = Nodes(most_workers)
    for key, room in enumerate(rooms):
        nodes.joined(key, f"node-{key}", room)
    return nodes


def test_workers_are_spread_by_the_room_of_the_agents() -> None:
    nodes = _nodes(1, 3)
    assert [nodes.place(worker) for worker in range(1, 5)] == [0, 1, 1, 1]
    assert nodes.size == 4


def test_a_replacement_finds_room_beside_the_worker_that_it_replaces() -> None:
    nodes = _nodes(1, 2)
    placed = [nodes.place(worker) for worker in range(1, 4)]
    assert nodes.place(4) == 0  # all are full: the first of equals
    assert placed == [0, 1, 1]


def test_a_worker_waits_for_an_agent() -> None:
    nodes = _nodes()
    assert nodes.place(1) is None
    assert nodes.waiting == nodes.workers == [1]
    assert nodes.size == 1  # so that one is started, and waits
    nodes.joined(7, "late", 2)
    assert nodes.place(1) == 7
    assert not nodes.waiting
    assert nodes.name_of(1) == "late"


def test_all_workers_of_a_lost_agent_are_lost_and_no_others() -> None:
    nodes = _nodes(2, 2)
    for worker in range(1, 5):
        nodes.place(worker)
    assert nodes.lost(0) == Lost("node-0", [1, 3])
    assert nodes.workers == [2, 4]
    assert nodes.agent_of(1) is None
    assert nodes.size == 2


def test_a_retiring_agent_keeps_its_workers_and_gets_no_more() -> None:
    nodes = _nodes(2, 1)
    nodes.place(1)
    assert nodes.retiring(0) == [1]
    assert nodes.retiring(0) == []  # said once
    assert nodes.size == 1
    assert [nodes.place(2), nodes.place(3)] == [1, 1]
    assert nodes.agent_of(1) == 0
    assert not nodes.is_drained(0)
    nodes.gone(1)
    assert nodes.is_drained(0)
    assert not nodes.is_drained(1)


def test_the_pool_has_no_more_workers_than_it_may() -> None:
    assert _nodes(4, 4, most_workers=3).size == 3


def test_nothing_changes_if_a_key_comes_twice() -> None:
    nodes = _nodes(1)
    nodes.place(1)
    with pytest.raises(InternalError):
        nodes.joined(0, "again", 5)
    with pytest.raises(InternalError):
        nodes.place(1)
    assert (nodes.size, nodes.workers) == (1, [1])


_STEPS = st.lists(
    st.tuples(st.sampled_from(("join", "lose", "retire", "place", "gone")), st.integers(1, 4))
)


@given(_STEPS)
def test_every_worker_has_one_agent_or_waits(steps: list[tuple[str, int]]) -> None:
    nodes, agents, alive, newest = Nodes(), list[int](), set[int](), 0
    for place, (what, number) in enumerate(steps):
        if what == "join":
            agents.append(place)
            nodes.joined(place, str(place), number)
            for worker in nodes.waiting:
                nodes.place(worker)
        elif what == "place":
            newest += 1
            alive.add(newest)
            nodes.place(newest)
        elif what == "gone" and alive:
            worker = sorted(alive)[number % len(alive)]
            alive.remove(worker)
            nodes.gone(worker)
        elif agents and what == "lose":
            agent = agents.pop(number % len(agents))
            lost = nodes.lost(agent).workers
            assert alive.issuperset(lost)
            alive.difference_update(lost)
        elif agents and what == "retire":
            nodes.retiring(agents[number % len(agents)])
        assert sorted(nodes.workers) == sorted(alive)
        assert all(nodes.agent_of(each) in agents for each in alive.difference(nodes.waiting))
