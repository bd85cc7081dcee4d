"""Attributes of many events at once, read without their instance dictionaries.

From Python 3.11 on an instance has no dictionary until somebody asks for it
(https://docs.python.org/3/whatsnew/3.11.html, "faster runtime"). Asking a million events
for theirs makes a million dictionaries, which stay with the events; making them, and the
garbage collections that they cause, took more of the coordinator's time than pickling.
Where all events of a class have the same attributes, these are read instead, one after
another of all events, and set like that on the other side; there is no dictionary on
either.

Rules:

- A class has to be *regular*: so many of its events in a row had the same attributes, in
  the same order. One that has shown anything else is never asked again.
- That the events of a batch have these attributes themselves, and no others, is seen for
  each of them, by what they refer to (`gc.get_referents`).
- Their order cannot be seen without the dictionary. It is looked at in a few of each
  batch. So events of a class that was regular for thousands of events, and then sets its
  attributes in another order now and then, may arrive with the order of the others. What
  they are is the same.

Rejected: reading the order out of the interpreter's own structures; putting the garbage
collection off, which is the application's.
"""

from __future__ import annotations

import gc
import itertools
import operator
import sys
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, Final
from weakref import WeakKeyDictionary

#: After so many events of one kind a class is regular.
PROVEN_EVENTS: Final = 4096


# After so many batches in a row that could not be read a class is given up.
_MOST_IN_VAIN: Final = 8


class _Kind:
    """What is known of a class.

    Attributes:
        names: The attributes of all of its events so far; None if these differ, or it was
            given up.
        seen: How many events these were.
        in_vain: How many batches in a row could not be read since.
    """

    __slots__ = ("in_vain", "names", "seen")

    def __init__(self, names: tuple[str, ...] | None) -> None:
        self.names = names
        self.seen = 0
        self.in_vain = 0


class Attributes:
    """Learns which classes are regular, and reads the attributes of their events."""

    def __init__(self) -> None:
        self._kinds: WeakKeyDictionary[type, _Kind] = WeakKeyDictionary()

    def learn(self, kind: type, states: Sequence[dict[str, Any]]) -> None:
        """Take in the instance dictionaries of events, as long as it is worth it."""
        known = self._kinds.get(kind)
        if known is None:
            names = tuple(states[0])
            known = self._kinds[kind] = _Kind(names if can_read(kind, names) else None)
        if known.names is None or known.seen >= PROVEN_EVENTS:
            return
        if set(map(tuple, states)) == {known.names}:
            known.seen += len(states)
        else:
            known.names = None

    def columns(
        self, kind: type, events: Sequence[Any]
    ) -> tuple[tuple[str, ...], list[list[Any]]] | None:
        """The names of the events' attributes and, for each of these, the values.

        They are those of the events only if no value refers to the class itself, which is
        for the caller to find out.

        Returns:
            None if the class is not regular, or some of these events are not.
        """
        known = self._kinds.get(kind)
        if known is None or known.names is None or known.seen < PROVEN_EVENTS:
            return None
        names = known.names
        columns = _columns(kind, names, events)
        if columns is None:
            known.in_vain += 1
            if known.in_vain >= _MOST_IN_VAIN:
                known.names = None
            return None
        some = (events[0], events[len(events) // 2], events[-1])
        if any(tuple(vars(each)) != names for each in some):
            known.names = None
            return None
        known.in_vain = 0
        return names, columns

    def give_up(self, kind: type) -> None:
        """A class is not regular, or nothing is gained by it."""
        self._kinds[kind] = _Kind(None)


def can_read(kind: Any, names: tuple[str, ...]) -> bool:
    """Whether the attributes of such names are what is in the instance, if it has them."""
    return (
        sys.version_info >= (3, 11)
        and bool(names)
        # the caller looks for the class among the values, by its metaclass
        and type(kind) is not type
        and kind.__getattribute__ is object.__getattribute__
        and not hasattr(kind, "__getattr__")
        and all(type(name) is str and "." not in name for name in names)
        and not any(hasattr(_raw(kind, name), "__get__") for name in names)
    )


_NOTHING: Final = object()


def _raw(kind: type, name: str) -> object:
    """What a class has under a name, as it is."""
    for base in kind.__mro__:
        if name in vars(base):
            return vars(base)[name]
    return _NOTHING


def _columns(kind: type, names: tuple[str, ...], events: Sequence[Any]) -> list[list[Any]] | None:
    """For each name the value of each event; None if not all have these, and no others."""
    # a class may change, and be patched by a test
    if not can_read(kind, names) or not _have_only(kind, len(names), events):
        return None
    try:
        columns = [list(map(operator.attrgetter(name), events)) for name in names]
    except AttributeError:
        return None  # one has another in its place
    for name, column in zip(names, columns, strict=True):
        default = _raw(kind, name)
        # where the class has such an attribute, too: it may have been that one
        if default is not _NOTHING and any(map(operator.is_, column, itertools.repeat(default))):
            return None
    return columns


def _have_only(kind: type, attributes: int, events: Sequence[Any]) -> bool:
    """Whether each event refers to its class, and before it to so many values.

    Not to a dictionary, which it has if somebody has asked for it. What an event refers to
    ends with its class. So if the class is there as often as there are events, and in its
    place each time, each event has its place.
    """
    step = attributes + 1
    before = sys.getrefcount(kind)
    referents = gc.get_referents(*events)
    # how often it is there: each time is a reference more
    if sys.getrefcount(kind) - before != len(events) or len(referents) != step * len(events):
        return False
    if not all(map(operator.is_, referents[attributes::step], itertools.repeat(kind))):
        return False
    # a single value may be that dictionary
    return attributes > 1 or not any(issubclass(each, dict) for each in set(map(type, referents)))


def instances(kind: type, names: Iterable[str], columns: Sequence[list[Any]]) -> list[Any]:
    """Events of a class, with these attributes, set in this order."""
    events: list[Any] = list(map(object.__new__, itertools.repeat(kind, len(columns[0]))))
    for name, column in zip(names, columns, strict=True):
        deque(map(setattr, events, itertools.repeat(sys.intern(name)), column), maxlen=0)
    return events
