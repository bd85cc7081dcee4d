"""What is asked of a root event before it is handled: its plan, and its key."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

from evproc.event import Event, describe_event
from evproc.exc import add_note
from evproc.handler import Plan
from evproc.processor import check_event
from evproc.registry import Registry

#: Gives the key of a root event.
Key = Callable[[Any], Hashable]


def plan_root(registry: Registry, ev: Any) -> Plan:
    """Match a root event.

    Raises:
        Exception: What `Processor.process` would raise before the first handler.
    """
    if Event not in type(ev).__mro__:  # in less time than `isinstance` takes for an ABC
        check_event(ev)
    return registry.match(ev)


def key_of(key: Key, ev: Any) -> Hashable:
    """Ask for the key of a root event.

    Raises:
        TypeError: It is not hashable.
        BaseException: What `key` raised, with a note that says so.
    """
    try:
        value = key(ev)
        hash(value)
    except BaseException as error:
        add_note(error, f"evproc_pool: raised by key= for event {describe_event(ev)}")
        raise
    return value


def keys_of(key: Key, events: Sequence[Any]) -> list[Hashable] | None:
    """The keys of many root events; None where one raises something: `key_of` says which.

    Then `key` is called again for all of them.
    """
    try:
        keys = list(map(key, events))
        hash(tuple(keys))
    except KeyboardInterrupt:
        raise
    except BaseException:
        return None
    return keys
