"""The order of handlers: a topological order in which registration order breaks ties.

Each place is taken by the earliest registered handler that is ready: this is the
lexicographically smallest topological order. It depends on nothing but the arguments: not on
hashing, the process or the platform. O(n log n + e) for n handlers and e requirements.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


class CycleFound(Exception):
    """The requirements have a cycle.

    Attributes:
        cycle: Indices, each of which requires the next; the first is repeated at
            the end. It begins with the smallest.
    """

    def __init__(self, cycle: tuple[int, ...]) -> None:
        super().__init__(cycle)
        self.cycle = cycle


def topological_order(requirements: Mapping[int, Iterable[int]]) -> list[int]:
    """Order the keys so that each comes after what it requires.

    Args:
        requirements: For each index the indices it requires, all of them keys.

    Raises:
        CycleFound: No such order exists.
    """
    # here: an application that handles no event needs neither
    import graphlib
    import heapq

    sorter = graphlib.TopologicalSorter(
        {index: sorted(requirements[index]) for index in sorted(requirements)}
    )
    try:
        sorter.prepare()
    except graphlib.CycleError as error:
        raise CycleFound(_canonical(error.args[1])) from None
    order: list[int] = []
    ready: list[int] = []
    while sorter.is_active():
        for index in sorter.get_ready():
            heapq.heappush(ready, index)
        smallest = heapq.heappop(ready)
        order.append(smallest)
        sorter.done(smallest)
    return order


def _canonical(cycle: Sequence[int]) -> tuple[int, ...]:
    """Reverse graphlib's cycle, where each is required by the next; the smallest comes first."""
    members = cycle[:0:-1]
    start = members.index(min(members))
    return (*members[start:], *members[:start], members[start])
