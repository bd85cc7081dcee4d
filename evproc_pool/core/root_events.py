"""The plan and the key of a root event."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

from evproc.event import Event, describe_event
from evproc.exc import add_note
from evproc.handler import Plan
from evproc.processor import check_event
from evproc.registry import Registry

#: Returns the key of a root event.
Key = Callable[[Any], Hashable]


def plan_root(registry: Registry, ev: Any) -> Plan:
    """Match a root event; raise what `Processor.process` would raise before the first handler."""
    if Event not in type(ev).__mro__:  # faster than `isinstance` for an ABC
        check_event(ev)
    return registry.match(ev)


def key_of(key: Key, ev: Any) -> Hashable:
    """Return the key of a root event. An error of `key`, or of the hash of its key, gets a note."""
    try:
        value = key(ev)
        hash(value)
    except BaseException as error:
        add_note(error, f"evproc_pool: raised by key= for event {describe_event(ev)}")
        raise
    return value


def keys_of(key: Key, events: Sequence[Any]) -> list[Hashable] | None:
    """Return the keys of many root events; None if `key_of` has to find which one has none."""
    try:
        keys = list(map(key, events))
        hash(tuple(keys))
    except KeyboardInterrupt:
        raise
    except BaseException:
        return None
    return keys
