"""Packs events, many at a time in one pass of pickle, and values.

Events of classes that pickle in Python's default way go as their classes and a list of
instance dictionaries, which takes a third of the time of pickling the instances. Where packing
fails, or unpacking does on the other side, the same events are packed again with
a pickle for each, so that the one at fault is found and fails alone.
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
from evproc_pool.serialization.basics import has_default_state
from evproc_pool.serialization.gc_pause import gc_paused

# For fewer events than that, pickling their states apart costs more than it saves.
_WORTHWHILE: Final = 16

#: Values of these classes stay as they are, and cannot fail to unpickle.
ATOMS: Final = frozenset({type(None), bool, int, float, complex, str, bytes})


class PackedEvents(NamedTuple):
    """Events, ready to travel.

    Attributes:
        one_by_one: Whether `data` is a list with a pickle for each.
        data: Otherwise one pickle of all.
        in_parts: Whether it is a list of `pass_through.SealedOrPacked` instead.
        class_bytes: How many bytes of it are classes: as many for one event as for many.
        large: The place of the first large buffer in those of the frame, and of the one
            behind the last, or None; see `pickling.dumps`.
    """

    one_by_one: bool
    data: Any
    in_parts: bool = False
    class_bytes: int = 0
    large: tuple[int, int | None] = (0, 0)

    @property
    def has_large(self) -> bool:
        """Whether there are large buffers."""
        first, stop = self.large
        return stop is None or stop > first


class PackedValue(NamedTuple):
    """A value: itself if it is one of Python's atoms, or else its pickle.

    Attributes:
        is_pickled: Which of these.
        data: That.
        large: See `PackedEvents`.
    """

    is_pickled: bool
    data: Any
    large: tuple[int, int] = (0, 0)


class PackedColumn(NamedTuple):
    """What events left behind of one kind.

    Attributes:
        positions: Of these events, in order.
        is_together: Whether `data` is one pickle of all, or packed events.
        data: Otherwise a `PackedValue` for each, or a `messages.ErrorRecord` where there is none.
        large: See `PackedEvents`; of what is packed together.
        is_sure: Whether it can be rebuilt anywhere.
    """

    positions: Sequence[int]
    is_together: bool
    data: Any
    large: tuple[int, int] = (0, 0)
    is_sure: bool = False

    @property
    def size_bytes(self) -> int:
        """How many bytes it has that is packed together, without the large buffers."""
        return len(self.data if isinstance(self.data, bytes) else self.data.data)


NO_EVENTS: Final = PackedEvents(one_by_one=True, data=())


class _SameObjectTwice(Exception):
    """An object stands for two events; one by one they come out as two."""


class _EventInside(Exception):
    """An event refers to another one of these classes, or to itself."""


def _refuse(instance: object) -> Any:  # noqa: ARG001 - as `copyreg` calls it
    raise _EventInside


class EventPacker:
    """Packs events. Remembers which classes pickle in Python's default way.

    A class that has to go by value, one of ``__main__`` for example, goes once with each
    batch, as it is then.
    """

    def __init__(self) -> None:
        self._has_default_state: WeakKeyDictionary[type, bool] = WeakKeyDictionary()
        self.goes_by_value: WeakKeyDictionary[type, bool] = WeakKeyDictionary()
        self._class_bytes: WeakKeyDictionary[type, int] = WeakKeyDictionary()

    def pack(self, events: Sequence[Any], buffers: list[memoryview] | None = None) -> PackedEvents:
        """Pack all events in one pass.

        Args:
            events: Any.
            buffers: The large ones of the frame so far; takes those of the events. They are
                to be copied before anybody may change the events.

        Raises:
            Exception: Whatever pickling raised; `pack_one_by_one` finds out where.
        """
        kinds = list(dict.fromkeys(map(type, events)))
        if has_same_twice(events, kinds):
            raise _SameObjectTwice  # it would come out as one object, in some batches
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
        first = len(buffers or ())
        data = pickling.dumps((None, b"", events), by_value=by_value, buffers=buffers)
        large = first, len(buffers or ())
        class_bytes = self._bytes_of_classes(kinds, len(data))
        return PackedEvents(False, data, class_bytes=class_bytes, large=large)

    def is_plain(self, kind: type) -> bool:
        """Whether instances of a class can go as their states."""
        known = self._has_default_state.get(kind)
        if known is None:
            known = self._has_default_state[kind] = has_default_state(kind)
        return known

    def _bytes_of_classes(self, kinds: Sequence[type], most: int) -> int:
        """About how many of so many bytes are classes; too few rather than too many.

        The largest one, since they may have parts in common; and none where it has become
        smaller than it was when it was first weighed.
        """
        largest = max(map(self._bytes_of_class, kinds), default=0)
        if largest < most:
            return largest
        self._class_bytes.clear()
        return 0

    def _bytes_of_class(self, kind: type) -> int:
        known = self._class_bytes.get(kind)
        if known is None:
            known = 0
            with contextlib.suppress(Exception):  # its instances may be pickled without it
                known = _bytes_of(self._named(kind))
            self._class_bytes[kind] = known
        return known

    def _named(self, kind: type) -> type | bytes:
        """A class, or its pickle where a reference will not do: as it is now."""
        if kind not in self.goes_by_value:
            self.goes_by_value[kind] = pickling.dumps(kind) != _reference_to(kind)
        return pickling.dumps(kind, by_value=True) if self.goes_by_value[kind] else kind


def _dump_states(kinds: Sequence[type], events: Sequence[Any]) -> bytes | None:
    """Pickle the instance dictionaries of events; None if they would not come out the same.

    An event of these classes in one of the dictionaries would come out as another object than the
    event that it is. And nothing in them may go by value.
    """
    with gc_paused():
        return _pickled_states(list(map(_state_of, events)), kinds)


def _pickled_states(states: Sequence[Any], kinds: Sequence[type]) -> bytes | None:
    refused: dict[Any, Any] = dict.fromkeys(kinds, _refuse)
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer, basics.PROTOCOL)
    pickler.dispatch_table = {**copyreg.dispatch_table, **refused}
    try:
        pickler.dump(states)
    except KeyboardInterrupt:
        raise
    except BaseException:
        return None
    data = buffer.getvalue()
    return None if basics.MAIN in data else data


def _bytes_of(named: type | bytes) -> int:
    return len(named) if isinstance(named, bytes) else 0


def _reference_to(kind: type) -> bytes | None:
    try:
        return pickle.dumps(kind, basics.PROTOCOL)
    except Exception:
        return None


def has_same_twice(events: Sequence[Any], kinds: Iterable[Any]) -> bool:
    """Whether an object stands for two of the events.

    Args:
        events: Any.
        kinds: Their classes. Where these hash by identity, as they mostly do, it
            takes a third of the time.
    """
    if all(kind.__hash__ is object.__hash__ for kind in kinds):
        return len(set(events)) < len(events)
    return len(set(map(id, events))) < len(events)


_state_of: Final = operator.attrgetter("__dict__")


def unpack(packed: PackedEvents, buffers: Sequence[memoryview] = ()) -> list[Any]:
    """The events of a `pack`.

    Args:
        packed: These.
        buffers: The large ones of the frame.

    Raises:
        Exception: Whatever unpickling raised.
    """
    kinds, order, content = pickling.loads(packed.data, buffers[slice(*packed.large)])
    if kinds is None:
        return list(content)
    kinds = [pickling.loads(kind) if isinstance(kind, bytes) else kind for kind in kinds]
    each: Iterable[type] = itertools.repeat(kinds[0])
    if order:
        each = map(kinds.__getitem__, memoryview(order).cast("H"))
    return instances(each, pickling.loads(content))


def instances(kinds: Iterable[type], states: Sequence[dict[str, Any]]) -> list[Any]:
    """Events of classes that pickle in Python's default way.

    Args:
        kinds: The class of each; may have more than there are.
        states: The instance dictionary of each.
    """
    events: list[Any] = list(map(object.__new__, itertools.islice(kinds, len(states))))
    for event, state in zip(events, states, strict=True):
        event.__dict__ = state
    return events


def pack_value(value: object, buffers: list[memoryview] | None = None) -> PackedValue:
    """Pack a value.

    Args:
        value: Any.
        buffers: See `EventPacker.pack`.

    Raises:
        Exception: Whatever pickling raised.
    """
    if type(value) in ATOMS:
        return PackedValue(False, value)
    first = len(buffers or ())
    data = pickling.dumps(value, buffers=buffers)
    return PackedValue(True, data, (first, len(buffers or ())))


def unpack_value(packed: PackedValue, buffers: Sequence[memoryview] = ()) -> Any:
    """Its opposite.

    Args:
        packed: The value.
        buffers: The large ones of the frame.

    Raises:
        SerializationError: It cannot be rebuilt here.
    """
    if not packed.is_pickled:
        return packed.data
    try:
        return pickling.loads(packed.data, buffers[slice(*packed.large)])
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
    """Pack in one pass what events left behind.

    Args:
        positions: Of these events.
        items: What each of them left.
        buffers: See `EventPacker.pack`.
        packer: For events, this.
        is_built_in: Whether all are made of atoms and built-in containers.

    Raises:
        Exception: Whatever pickling raised.
    """
    if packer is not None:
        packed = packer.pack(items, buffers)
        return PackedColumn(positions, True, packed)
    if is_built_in or ATOMS.issuperset(map(type, items)):
        return PackedColumn(positions, True, pickle.dumps(items, basics.PROTOCOL), is_sure=True)
    first = len(buffers or ())
    data = pickling.dumps(items, buffers=buffers)
    return PackedColumn(positions, True, data, (first, len(buffers or ())))


def unpack_column(column: PackedColumn, buffers: Sequence[memoryview] = ()) -> list[Any]:
    """What was packed together.

    Raises:
        Exception: Whatever unpickling raised.
    """
    if isinstance(column.data, PackedEvents):
        return unpack(column.data, buffers)
    items: list[Any] = pickling.loads(column.data, buffers[slice(*column.large)])
    return items
