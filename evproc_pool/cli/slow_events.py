"""The slowest events of a run, named as its user knows them: by line and by members."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from evproc_pool.cli.json_event import JsonEvent
from evproc_pool.observe import SlowEvent, Statistics

# What `describe_event` puts between the name of such an event and its members. It is the same in
# each row, and longer than what a row has room for.
_CLASS: Final = f" ({JsonEvent.__module__}.{JsonEvent.__qualname__}: {JsonEvent.__qualname__}("


def by_line(statistics: Statistics, line_of: Callable[[int], int]) -> Statistics:
    """Return the statistics with the numbers of lines in the place of the indices of roots."""
    slowest = tuple(_named(each, line_of) for each in statistics.slowest)
    return statistics._replace(slowest=slowest)


def _named(slow: SlowEvent, line_of: Callable[[int], int]) -> SlowEvent:
    path = (line_of(slow.path[0]), *slow.path[1:]) if slow.path else ()
    name, found, members = slow.event.partition(_CLASS)
    members = members.removesuffix("))").removesuffix(")").replace(f"'name': {name}, ", "", 1)
    event = f"{name} {members}" if found else slow.event
    return slow._replace(event=event, path=path)
