"""Follow-ups that the coordinator passes on as they came, without a look inside.

What a worker returns has to be unpacked by the coordinator for two reasons: a filter
may ask for anything in an event, and what cannot be rebuilt has to be found out while
the worker still has it. Neither is there where the name of the events is their class's
and no handler of that name has a filter, and where the events hold nothing but
numbers, strings and the like, in containers. These are *sealed*: pickled in pieces
that go on to the worker that runs them, or to several. The coordinator unpacks a
piece only when it needs an event itself, for an error that names it for example.
"""

from __future__ import annotations

import io
import operator
import pickle
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple, overload
from weakref import WeakSet

from evproc_pool import wire

# Small enough that little is unpacked in vain where a batch takes a part of a piece.
_PIECE_EVENTS: Final = 256

# As a pickle has a dictionary's key of that name: such an event may have its own.
_NAME_KEY: Final = b"\x8c\x04name"


class Slice(NamedTuple):
    """Some events of a piece, on their way.

    Attributes:
        kind: The pickle of their class.
        states: The pickle of the instance dictionaries of all events of the piece.
        start: Which is the first.
        stop: Behind which it ends.
    """

    kind: bytes
    states: bytes
    start: int
    stop: int


class _Holds(Exception):
    """There is something in an event that has a class."""


class _PlainPickler(pickle.Pickler):
    """Pickles what Python itself knows how to rebuild."""

    def reducer_override(self, content: object) -> Any:  # noqa: ARG002 - as `pickle` calls it
        raise _Holds


class Sealer:
    """Seals follow-ups; remembers for which classes that cannot be done.

    Args:
        packer: Knows which classes pickle in Python's default way.
    """

    def __init__(self, packer: wire.EventPacker) -> None:
        self._packer = packer
        self._refused: WeakSet[type] = WeakSet()

    def seal(self, events: Sequence[Any]) -> list[Slice] | None:
        """Pickle events in pieces; None if they must not be sealed. Never raises."""
        kind = self._packer.plain_kind(events)
        if kind is None or kind in self._refused or constant_name(kind) is None:
            return None
        if wire.has_same_twice(events):
            return None
        try:
            name = pickle.dumps(kind, wire.PROTOCOL)
            slices = []
            for begin in range(0, len(events), _PIECE_EVENTS):
                piece = events[begin : begin + _PIECE_EVENTS]
                buffer = io.BytesIO()
                _PlainPickler(buffer, wire.PROTOCOL).dump(list(map(_state_of, piece)))
                slices.append(Slice(name, buffer.getvalue(), 0, len(piece)))
        except Exception:
            slices = []
        if slices and not any(_NAME_KEY in each.states for each in slices):
            return slices
        self._refused.add(kind)
        return None


_state_of: Final = operator.attrgetter("__dict__")


def constant_name(kind: type) -> str | None:
    """The name of every event of a class; None if they have their own, or may have."""
    lookup: Any = kind.__getattribute__
    if kind.__module__ == "__main__" or lookup is not object.__getattribute__:
        return None
    for base in kind.__mro__:
        if "name" in vars(base):
            name = vars(base)["name"]
            return name if type(name) is str else None
    return None


def unseal(slices: Sequence[Slice]) -> list[Any]:
    """The events.

    Raises:
        Exception: Their class cannot be imported.
    """
    events: list[Any] = []
    for kind, states, start, stop in slices:
        events += wire.instances(wire.loads(kind), wire.loads(states)[start:stop])
    return events


class _Piece:
    """A piece, in the coordinator."""

    __slots__ = ("_events", "kind", "states")

    def __init__(self, kind: bytes, states: bytes) -> None:
        self.kind = kind
        self.states = states
        self._events: list[Any] | None = None

    @property
    def events(self) -> list[Any]:
        """All of them, unpacked once."""
        if self._events is None:
            self._events = wire.instances(wire.loads(self.kind), wire.loads(self.states))
        return self._events


class Sealed(Sequence[Any]):
    """Sealed events; unpacked when somebody asks for one of them."""

    __slots__ = ("_length", "_ranges")

    def __init__(self, ranges: Sequence[tuple[_Piece, int, int]]) -> None:
        self._ranges = ranges
        self._length = sum([stop - start for _, start, stop in ranges])

    @classmethod
    def received(cls, slices: Sequence[Slice]) -> Sealed:
        """As they came."""
        return cls([(_Piece(each.kind, each.states), each.start, each.stop) for each in slices])

    @property
    def slices(self) -> list[Slice]:
        """As they go on."""
        return [Slice(piece.kind, piece.states, start, stop) for piece, start, stop in self._ranges]

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Any]:
        for piece, start, stop in self._ranges:
            yield from piece.events[start:stop]

    @overload
    def __getitem__(self, place: int) -> Any: ...
    @overload
    def __getitem__(self, place: slice) -> Sealed: ...
    def __getitem__(self, place: int | slice) -> Any:
        if isinstance(place, int):
            (event,) = self[place : place + 1]
            return event
        begin, end, _ = place.indices(self._length)
        some: list[tuple[_Piece, int, int]] = []
        for piece, start, stop in self._ranges:
            size = stop - start
            if begin < size and end > 0:
                some.append((piece, start + max(begin, 0), start + min(end, size)))
            begin -= size
            end -= size
        return Sealed(some)
