"""Packs events, many at a time in one pass of pickle, and values.

Events of classes that pickle in Python's default way are packed as their classes and a list of
instance dictionaries. This takes a third of the time of pickling the instances. If packing fails,
or unpacking on the other side, each event is packed again with a pickle of its own. So the one at
fault is found and fails alone.
"""

from __future__ import annotations

import contextlib
import copyreg
import io
import itertools
import operator
import pickle
from array import array
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary

from evproc_pool.serialization import basics, diagnosis, pickling
from evproc_pool.serialization.basics import gc_paused, has_default_state

# For fewer events of a class, pickling their states apart costs more than it saves.
_WORTHWHILE: Final = 16

#: Values of these classes never change, and unpickling them cannot fail.
ATOMS: Final = frozenset({type(None), bool, int, float, complex, str, bytes})


class PackedEvents(NamedTuple):
    """Events, ready to send.

    Attributes:
        one_by_one: Whether `data` is a list with a pickle for each event.
        data: Otherwise one pickle of all events.
        in_parts: Whether `data` is a list of `pass_through.PackedPart` instead.
        class_bytes: How many bytes of it are classes: the same for one event and for many.
        large: The range of its large buffers (see `pickling.dumps`) among those of the frame; a
            stop of None: up to the last.
    """

    one_by_one: bool
    data: Any
    in_parts: bool = False
    class_bytes: int = 0
    large: tuple[int, int | None] = (0, 0)

    @property
    def has_large(self) -> bool:
        """Whether it has large buffers."""
        first, stop = self.large
        return stop is None or stop > first


class PackedValue(NamedTuple):
    """A value: an atom of Python as it is, or a pickle; `large` is that of `PackedEvents`."""

    is_pickled: bool
    data: Any
    large: tuple[int, int] = (0, 0)


class PackedColumn(NamedTuple):
    """Results of one kind.

    Attributes:
        positions: The positions of their events, in order.
        is_together: Whether `data` is one pickle of all, or packed events.
        data: Otherwise a `PackedValue` for each, or the `messages.ErrorRecord` of packing it.
        large: See `PackedEvents`; only if packed together.
        is_sure: Whether it can be unpickled anywhere.
    """

    positions: Sequence[int]
    is_together: bool
    data: Any
    large: tuple[int, int] = (0, 0)
    is_sure: bool = False

    @property
    def size_bytes(self) -> int:
        """The size of what is packed together, without large buffers."""
        return len(self.data if isinstance(self.data, bytes) else self.data.data)


NO_EVENTS: Final = PackedEvents(one_by_one=True, data=())


def _refuse(instance: object) -> Any:  # noqa: ARG001 - the signature is that of `copyreg`
    raise pickle.PicklingError("an event refers to another event, or to itself")


class EventPacker:
    """Packs events.

    A class that goes by value, as one of ``__main__``, is sent once with each batch, as it is at
    that time.
    """

    def __init__(self) -> None:
        self._has_default_state: WeakKeyDictionary[type, bool] = WeakKeyDictionary()
        self.goes_by_value: WeakKeyDictionary[type, bool] = WeakKeyDictionary()
        self._class_bytes: WeakKeyDictionary[type, int] = WeakKeyDictionary()

    def pack(self, events: Sequence[Any], buffers: list[memoryview] | None = None) -> PackedEvents:
        """Pack all events in one pass. If this raises, packing one by one finds the one at fault.

        `buffers` are the large ones of the frame so far; those of the events are appended. They
        must be copied before anybody may change the events.
        """
        kinds = list(dict.fromkeys(map(type, events)))
        if has_same_twice(events, kinds):
            # packed one by one they arrive as two objects, and so they always should
            raise pickle.PicklingError("an object stands for two events")
        if len(events) >= _WORTHWHILE * len(kinds) and all(map(self.is_plain, kinds)):
            states = _dump_states(kinds, events)
            if states is not None:
                numbers = {kind: number for number, kind in enumerate(kinds)}
                which = map(numbers.__getitem__, map(type, events))
                order = array("H", which).tobytes() if len(kinds) > 1 else b""
                named = [self._named(kind) for kind in kinds]
                data = pickle.dumps((named, order, states), basics.PROTOCOL)
                return PackedEvents(False, data, class_bytes=sum(map(_bytes_of, named)))
        by_value = any(map(basics.lives_in_main, kinds))
        data, large = _dump((None, b"", events), buffers, by_value=by_value)
        class_bytes = self._bytes_of_classes(kinds, len(data))
        return PackedEvents(False, data, class_bytes=class_bytes, large=large)

    def is_plain(self, kind: type) -> bool:
        """Whether instances of a class can be packed as their states."""
        known = self._has_default_state.get(kind)
        if known is None:
            known = self._has_default_state[kind] = has_default_state(kind)
        return known

    def _bytes_of_classes(self, kinds: Sequence[type], most: int) -> int:
        """About how many of a pickle's `most` bytes are classes; rather too few than too many.

        Only the largest class counts, since classes may share parts. A class that seems larger than
        the pickle has shrunk since it was measured: then the result is 0.
        """
        largest = 0
        for kind in kinds:
            known = self._class_bytes.get(kind)
            if known is None:
                known = 0
                with contextlib.suppress(Exception):  # its instances may pickle without it
                    known = _bytes_of(self._named(kind))
                self._class_bytes[kind] = known
            largest = max(largest, known)
        if largest < most:
            return largest
        self._class_bytes.clear()
        return 0

    def _named(self, kind: type) -> type | bytes:
        """A class as it is now: itself, or its pickle if a reference is not enough."""
        if kind not in self.goes_by_value:
            self.goes_by_value[kind] = pickling.by_reference(kind) is None
        return pickling.dumps(kind, by_value=True) if self.goes_by_value[kind] else kind


def _dump(
    value: object, buffers: list[memoryview] | None, *, by_value: bool = False
) -> tuple[bytes, tuple[int, int]]:
    """Pickle a value. Return the pickle, and the range of its large buffers."""
    first = len(buffers or ())
    data = pickling.dumps(value, by_value=by_value, buffers=buffers)
    return data, (first, len(buffers or ()))


def _load(packed: Any, buffers: Sequence[memoryview]) -> Any:
    return pickling.loads(packed.data, buffers[slice(*packed.large)])


def _dump_states(kinds: Sequence[type], events: Sequence[Any]) -> bytes | None:
    """Pickle the instance dictionaries of events; None if they would arrive changed.

    An event inside of such a dictionary would arrive as a second object. And nothing in the
    dictionaries may go by value.
    """
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer, basics.PROTOCOL)
    pickler.dispatch_table = {**copyreg.dispatch_table, **dict.fromkeys(kinds, _refuse)}
    try:
        with gc_paused():
            pickler.dump(list(map(_state_of, events)))
    except KeyboardInterrupt:
        raise
    except BaseException:
        return None
    data = buffer.getvalue()
    return None if basics.MAIN in data else data


def _bytes_of(named: type | bytes) -> int:
    return len(named) if isinstance(named, bytes) else 0


def has_same_twice(events: Sequence[Any], kinds: Iterable[Any]) -> bool:
    """Whether an object stands for two of the events, which are of these classes.

    If the classes hash by identity, as usual, this takes a third of the time.
    """
    if all(kind.__hash__ is object.__hash__ for kind in kinds):
        return len(set(events)) < len(events)
    return len(set(map(id, events))) < len(events)


_state_of: Final = operator.attrgetter("__dict__")


def unpack(packed: PackedEvents, buffers: Sequence[memoryview] = ()) -> list[Any]:
    """Unpack events; `buffers` are the large ones of the frame."""
    kinds, order, content = _load(packed, buffers)
    if kinds is None:
        return list(content)
    kinds = [pickling.loads(kind) if isinstance(kind, bytes) else kind for kind in kinds]
    each: Iterable[type] = itertools.repeat(kinds[0])
    if order:
        each = map(kinds.__getitem__, memoryview(order).cast("H"))
    return instances(each, pickling.loads(content))


def unpack_event(pickled: bytes) -> Any:
    """Unpickle a single event, or raise `SerializationError`."""
    try:
        return pickling.loads(pickled)
    except Exception as error:
        raise diagnosis.cannot_rebuild("the event", error) from error


def instances(kinds: Iterable[type], states: Sequence[dict[str, Any]]) -> list[Any]:
    """Make events of classes that pickle in Python's default way.

    Each has a class and an instance dictionary; `kinds` may be longer than `states`.
    """
    events: list[Any] = list(map(object.__new__, itertools.islice(kinds, len(states))))
    for event, state in zip(events, states, strict=True):
        event.__dict__ = state
    return events


def pack_value(value: object, buffers: list[memoryview] | None = None) -> PackedValue:
    """Pack a value; `buffers` and errors are those of `EventPacker.pack`."""
    if type(value) in ATOMS:
        return PackedValue(False, value)
    first = len(buffers or ())
    data = pickling.dumps(value, buffers=buffers)  # not `_dump`: a call less for each value
    return PackedValue(True, data, (first, len(buffers or ())))


def unpack_value(packed: PackedValue, buffers: Sequence[memoryview] = ()) -> Any:
    """Unpack a value, or raise `SerializationError`; `buffers` are the large ones of the frame."""
    if not packed.is_pickled:
        return packed.data
    try:
        return _load(packed, buffers)
    except Exception as error:
        raise diagnosis.cannot_rebuild("the value given to StopProcessing", error) from error


def size_of(packed: PackedValue) -> int:
    """About how many bytes a value has."""
    return len(packed.data) if packed.is_pickled or isinstance(packed.data, (str, bytes)) else 8


def pack_column(
    positions: Sequence[int],
    items: list[Any],
    buffers: list[memoryview] | None,
    packer: EventPacker | None = None,
    *,
    is_built_in: bool = False,
) -> PackedColumn:
    """Pack results of one kind, of the events at these positions, in one pass.

    `buffers` and errors are those of `EventPacker.pack`. `packer` packs results that are events.
    `is_built_in` says whether all are made of atoms and built-in containers.
    """
    if packer is not None:
        return PackedColumn(positions, True, packer.pack(items, buffers))
    if is_built_in or ATOMS.issuperset(map(type, items)):
        return PackedColumn(positions, True, pickle.dumps(items, basics.PROTOCOL), is_sure=True)
    return PackedColumn(positions, True, *_dump(items, buffers))


def unpack_column(column: PackedColumn, buffers: Sequence[memoryview] = ()) -> list[Any]:
    """Unpack a column that was packed together; `buffers` are the large ones of the frame."""
    if isinstance(column.data, PackedEvents):
        return unpack(column.data, buffers)
    items: list[Any] = _load(column, buffers)
    return items
