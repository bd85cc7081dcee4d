"""The topological order, with registration order between what is unrelated."""

from __future__ import annotations

import itertools
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evproc.ordering import CycleFound, topological_order

# acyclic: each index requires smaller ones, and is then renamed
_GRAPHS = st.integers(1, 8).flatmap(
    lambda size: st.tuples(
        st.permutations(range(size)),
        st.lists(st.sets(st.integers(0, size - 1)), min_size=size, max_size=size),
    )
)


def _plain_order(requirements: dict[int, set[int]]) -> list[int]:
    """For each place in turn, the first index that waits for nothing."""
    left = sorted(requirements)
    order: list[int] = []
    while left:
        ready = next(index for index in left if requirements[index] <= set(order))
        left.remove(ready)
        order.append(ready)
    return order


def test_nothing_to_order_is_no_order() -> None:
    assert topological_order({}) == []


def test_unrelated_indices_keep_their_order() -> None:
    assert topological_order({2: [], 0: [], 1: [], 10: []}) == [0, 1, 2, 10]


def test_what_is_required_comes_first_and_no_sooner_than_needed() -> None:
    # 0 waits for 3; 1 and 2 do not wait for either
    assert topological_order({0: [3], 1: [], 2: [], 3: []}) == [1, 2, 3, 0]


def test_an_index_that_becomes_ready_goes_before_later_ones() -> None:
    assert topological_order({0: [1], 1: [], 2: []}) == [1, 0, 2]


def test_the_order_of_the_arguments_does_not_matter() -> None:
    one = {0: [2, 3], 1: [3], 2: [], 3: [2], 4: []}
    other = {index: list(reversed(one[index])) for index in reversed(one)}
    assert topological_order(one) == topological_order(other) == [2, 3, 0, 1, 4]


def test_a_requirement_that_is_given_twice_counts_once() -> None:
    assert topological_order({0: [1, 1], 1: []}) == [1, 0]


@given(_GRAPHS)
def test_any_graph_is_ordered_as_by_trying_all_for_each_place(
    graph: tuple[list[int], list[set[int]]],
) -> None:
    names, required = graph
    requirements = {
        names[place]: {names[other] for other in others if other < place}
        for place, others in enumerate(required)
    }
    assert topological_order(requirements) == _plain_order(requirements)


@pytest.mark.parametrize(
    ("requirements", "cycle"),
    [
        ({0: [0]}, (0, 0)),
        ({0: [1], 1: [0]}, (0, 1, 0)),
        ({0: [], 1: [3], 2: [1], 3: [2]}, (1, 3, 2, 1)),
        ({0: [1], 1: [2], 2: [1]}, (1, 2, 1)),
        ({0: [2], 1: [], 2: [0, 1]}, (0, 2, 0)),
    ],
)
def test_a_cycle_says_who_requires_whom_beginning_with_the_smallest(
    requirements: dict[int, list[int]], cycle: tuple[int, ...]
) -> None:
    with pytest.raises(CycleFound) as caught:
        topological_order(requirements)
    assert caught.value.cycle == cycle


@pytest.mark.parametrize(
    "graph",
    [{0: [1, 3], 1: [0, 2], 2: [1, 0], 3: [3, 2]}, {0: [1, 3], 1: [2], 2: [1], 3: [4], 4: [3]}],
    ids=["one knot", "two cycles"],
)
def test_the_cycle_that_is_found_does_not_depend_on_the_order_of_the_arguments(
    graph: dict[int, list[int]],
) -> None:
    found = set()
    for turned in itertools.permutations(graph):
        for flip in (1, -1):
            with pytest.raises(CycleFound) as caught:
                topological_order({index: graph[index][::flip] for index in turned})
            found.add(caught.value.cycle)
    assert len(found) == 1


@given(_GRAPHS)
def test_a_cycle_that_is_found_is_one(graph: tuple[list[int], list[set[int]]]) -> None:
    names, required = graph
    requirements = {names[place]: others for place, others in enumerate(required)}
    try:
        order = topological_order(requirements)
    except CycleFound as error:
        cycle = error.cycle
        assert cycle[0] == cycle[-1] == min(cycle)
        assert len(set(cycle)) == len(cycle) - 1
        for index, following in itertools.pairwise(cycle):
            assert following in requirements[index]
    else:
        assert sorted(order) == sorted(requirements)
        for place, index in enumerate(order):
            assert requirements[index] <= set(order[:place])


def test_a_cycle_survives_pickle() -> None:
    assert pickle.loads(pickle.dumps(CycleFound((0, 1, 0)))).cycle == (0, 1, 0)
