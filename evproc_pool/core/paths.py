"""Where an event stands in its cascade. Pure; O(1) to make, O(depth) to spell out.

A path is a tuple: (17,) is root 17, (17, 2, 0) the first follow-up of its third follow-up. It
does not depend on timing. A cascade may be a chain of a million events, each the only
follow-up of the one before, so a `Place` shares what stands before it, and counts the zeros
at its end.

The order of a cascade is that in which `Processor.process` runs its events: shorter paths
first, and then as tuples are ordered (`order_of`).
"""

from __future__ import annotations

from typing import NamedTuple


class Place(NamedTuple):
    """Where an event stands.

    Attributes:
        base: What stands before `number`; None: nothing.
        number: The index of a root, or which follow-up it is.
        zeros: So many times the first follow-up after that.
        depth: How many events are before it in its path.
    """

    base: Place | None
    number: int
    zeros: int
    depth: int

    def child(self, number: int) -> Place:
        """The place of a follow-up."""
        if number == 0:
            return Place(self.base, self.number, self.zeros + 1, self.depth + 1)
        return Place(self, number, 0, self.depth + 1)

    def sibling(self, further: int) -> Place:
        """The place of a follow-up of the same event, so many further; at least one."""
        if self.zeros:
            # the last zero is this one
            base = Place(self.base, self.number, self.zeros - 1, self.depth - 1)
            return Place(base, further, 0, self.depth)
        return Place(self.base, self.number + further, 0, self.depth)

    @property
    def path(self) -> tuple[int, ...]:
        """The path."""
        found: list[int] = []
        place: Place | None = self
        while place is not None:
            found += [0] * place.zeros
            found.append(place.number)
            place = place.base
        return tuple(found[::-1])


def root_place(index: int) -> Place:
    """The place of a root."""
    return Place(None, index, 0, 0)


def strand_place(index: int, depth: int) -> Place:
    """The place of the only follow-up of the only follow-up ... of a root."""
    return Place(None, index, depth, depth)


def order_of(place: Place) -> tuple[int, tuple[int, ...]]:
    """Sorts places into the order of their cascade."""
    return place.depth, place.path
