"""Pass-through follow-ups: the coordinator forwards them without unpacking them.

The coordinator unpacks follow-ups for two reasons. A filter may ask for anything in an event; and
an event that cannot be rebuilt must be found while the worker still has it. Neither applies if

- the name of the events is that of their class, and no handler of that name has a filter, and
- the events hold nothing but numbers, strings and other plain data, in containers.

Such events are pickled in pieces. The coordinator forwards the pieces to the workers that run
them. It unpacks a piece only when it needs an event itself, as for an error that names the event.
"""

from __future__ import annotations

import io
import itertools
import operator
import pickle
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple, overload
from weakref import WeakSet

from evproc_pool.serialization import basics, packing, pickling

# A batch that takes a part of a piece carries and unpacks the whole piece. So pieces are small, and
# larger events do not pass through.
_PIECE_BYTES: Final = 1 << 14
_LEAST_EVENTS: Final = 16
_MOST_EVENT_BYTES: Final = _PIECE_BYTES // _LEAST_EVENTS

# The most events of a piece: the first number, or this part of the remaining events if that is
# more. The last of many follow-ups are sent in small batches, the first ones are not.
_MOST_EVENTS: Final = 128
_PART_OF_MANY: Final = 16

# How a pickle stores the dictionary key `name`: such an event may have a name of its own.
_NAME_KEY: Final = b"\x8c\x04name"


class Slice(NamedTuple):
    """Some events of a piece."""

    kind: bytes  # the pickle of their class
    states: bytes  # the pickle of the instance dictionaries of all events of the piece
    start: int
    stop: int


class _HasClass(Exception):
    """An event holds something that has a class."""


class _PlainPickler(pickle.Pickler):
    """Pickles only what Python itself knows how to rebuild."""

    def reducer_override(self, content: object) -> Any:  # noqa: ARG002 - the signature is that of `pickle`
        raise _HasClass


class PassThroughPacker:
    """Packs pass-through follow-ups. Remembers which classes cannot pass through."""

    def __init__(self, packer: packing.EventPacker) -> None:
        self._packer = packer  # knows which classes pickle in Python's default way
        self._refused: WeakSet[type] = WeakSet()

    def pack(self, events: Sequence[Any]) -> list[Slice] | None:
        """Pickle events in pieces; None if they must not pass through. Never raises."""
        try:
            kind = self._kind_of(events)
            return None if kind is None else self._pack(kind, events)
        except BaseException:
            # user code failed: packing the events in the usual way finds out what failed
            return None

    def _kind_of(self, events: Sequence[Any]) -> type | None:
        kinds = set(map(type, events)) if len(events) >= _LEAST_EVENTS else set[type]()
        if len(kinds) != 1:
            return None
        (kind,) = kinds
        if not self._packer.is_plain(kind) or kind in self._refused or constant_name(kind) is None:
            return None
        return None if packing.has_same_twice(events, kinds) else kind

    def _pack(self, kind: type, events: Sequence[Any]) -> list[Slice] | None:
        pickled_kind = pickle.dumps(kind, basics.PROTOCOL)
        slices: list[Slice] = []
        begin, step = 0, _LEAST_EVENTS
        while begin < len(events):
            end = min(begin + step, len(events))
            states = _plain_pickle(list(map(_state_of, events[begin:end])))
            if states is None or _NAME_KEY in states:
                self._refused.add(kind)
                return None
            each_bytes = len(states) / (end - begin)
            if each_bytes > _MOST_EVENT_BYTES:
                return None
            slices.append(Slice(pickled_kind, states, 0, end - begin))
            begin = end
            step = max(_MOST_EVENTS, (len(events) - begin) // _PART_OF_MANY)
            step = max(_LEAST_EVENTS, min(step, int(_PIECE_BYTES / each_bytes)))
        return slices


def _plain_pickle(states: object) -> bytes | None:
    """Pickle content that holds nothing that has a class; otherwise None."""
    buffer = io.BytesIO()
    try:
        _PlainPickler(buffer, basics.PROTOCOL).dump(states)
    except (Exception, basics.PicklingExit):
        return None
    return buffer.getvalue()


_state_of: Final = operator.attrgetter("__dict__")


def constant_name(kind: type) -> str | None:
    """The name of every event of a class; None if events may have names of their own."""
    lookup: Any = kind.__getattribute__
    if kind.__module__ == "__main__" or lookup is not object.__getattribute__:
        return None
    name = next((vars(base)["name"] for base in kind.__mro__ if "name" in vars(base)), None)
    return name if type(name) is str else None


#: A part of a batch: pass-through events, or events that `packing.EventPacker` has packed.
PackedPart = Slice | bytes


def unpack_parts(parts: Sequence[PackedPart]) -> list[Any]:
    """Unpack the events of all parts. Raises what the import of a class or unpickling raises."""
    events: list[Any] = []
    kinds: dict[bytes, type] = {}
    for part in parts:
        if isinstance(part, bytes):
            events += packing.unpack(packing.PackedEvents(False, part))
            continue
        kind = kinds.get(part.kind)
        if kind is None:
            kind = kinds[part.kind] = pickling.loads(part.kind)
        states = pickling.loads(part.states)[part.start : part.stop]
        events += packing.instances(itertools.repeat(kind), states)
    return events


class Unrebuildable:
    """Stands for an event that can no longer be rebuilt. It cannot be packed either."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __reduce__(self) -> Any:
        raise self.error


class _Piece:
    """A piece, in the coordinator."""

    __slots__ = ("_events", "kind", "states")

    def __init__(self, kind: bytes, states: bytes) -> None:
        self.kind = kind
        self.states = states
        self._events: list[Any] | None = None

    @property
    def events(self) -> list[Any]:
        """All its events; unpacked once."""
        if self._events is None:
            states = pickling.loads(self.states)
            try:
                kinds = itertools.repeat(pickling.loads(self.kind))
                self._events = packing.instances(kinds, states)
            except Exception as error:
                self._events = [Unrebuildable(error) for _ in states]
        return self._events


class PassThrough(Sequence[Any]):
    """Pass-through events; unpacked when somebody asks for one of them."""

    __slots__ = ("_ends", "_ranges")

    def __init__(self, ranges: Sequence[tuple[_Piece, int, int]]) -> None:
        self._ranges = ranges
        self._ends = list(itertools.accumulate(stop - start for _, start, stop in ranges))

    @classmethod
    def received(cls, slices: Sequence[Slice]) -> PassThrough:
        """Make it from slices that a worker sent."""
        return cls([(_Piece(each.kind, each.states), each.start, each.stop) for each in slices])

    @property
    def slices(self) -> list[Slice]:
        """The slices to forward."""
        return [Slice(piece.kind, piece.states, start, stop) for piece, start, stop in self._ranges]

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __iter__(self) -> Iterator[Any]:
        for piece, start, stop in self._ranges:
            yield from piece.events[start:stop]

    @overload
    def __getitem__(self, place: int) -> Any: ...
    @overload
    def __getitem__(self, place: slice) -> PassThrough: ...
    def __getitem__(self, place: int | slice) -> Any:
        if isinstance(place, int):
            place = range(len(self))[place]  # raises the IndexError
            (event,) = self[place : place + 1]
            return event
        begin, end, _ = place.indices(len(self))
        some: list[tuple[_Piece, int, int]] = []
        # skip the pieces before it: a queue is taken from its head, bit by bit
        number = bisect_right(self._ends, begin)
        while begin < end:
            piece, _, stop = self._ranges[number]
            first = stop - (self._ends[number] - begin)
            last = min(stop, first + end - begin)
            some.append((piece, first, last))
            begin += last - first
            number += 1
        return PassThrough(some)
