"""The place of an event in its cascade. Pure; O(1) to make, O(depth) for its path.

A path is a tuple: (17,) is root 17, (17, 2, 0) the first follow-up of its third follow-up. It
does not depend on timing. A cascade may have a million events, each the only follow-up of the
one before. So a `Place` shares its beginning with others, and counts the zeros at its end.

`Processor.process` runs shorter paths first, and paths of one length in the order of tuples
(`order_of`).
"""

from __future__ import annotations

from typing import NamedTuple


class Place(NamedTuple):
    """A path in compact form: `base`, then `number`, then zeros."""

    base: Place | None  # the path before `number`; None: empty
    number: int  # the index of a root, or the number of a follow-up
    zeros: int  # how many zeros stand behind `number`
    depth: int  # how many events are before this one in its path

    def child(self, number: int) -> Place:
        """Return the place of a follow-up."""
        if number == 0:
            return Place(self.base, self.number, self.zeros + 1, self.depth + 1)
        return Place(self, number, 0, self.depth + 1)

    def sibling(self, further: int) -> Place:
        """Return the place of a later follow-up of the same event, at least one further."""
        if self.zeros:
            # the last zero is the number of this one
            base = Place(self.base, self.number, self.zeros - 1, self.depth - 1)
            return Place(base, further, 0, self.depth)
        return Place(self.base, self.number + further, 0, self.depth)

    @property
    def path(self) -> tuple[int, ...]:
        """The path as a tuple."""
        found: list[int] = []
        place: Place | None = self
        while place is not None:
            found += [0] * place.zeros
            found.append(place.number)
            place = place.base
        return tuple(found[::-1])


def root_place(index: int) -> Place:
    """Return the place of a root."""
    return Place(None, index, 0, 0)


def strand_place(index: int, depth: int) -> Place:
    """Return the place of the only follow-up of the only follow-up ... of a root."""
    return Place(None, index, depth, depth)


def order_of(place: Place) -> tuple[int, tuple[int, ...]]:
    """Return a key that sorts places into the order of their cascade."""
    return place.depth, place.path
