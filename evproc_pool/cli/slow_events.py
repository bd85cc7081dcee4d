"""The slowest events of a run, named as its user knows them: by line and by members."""

from __future__ import annotations

from collections.abc import Callable

from evproc_pool.cli.json_event import by_members
from evproc_pool.observe import SlowEvent, Statistics


def by_line(statistics: Statistics, line_of: Callable[[int], int]) -> Statistics:
    """Return the statistics with the numbers of lines in the place of the indices of roots."""
    slowest = tuple(_named(each, line_of) for each in statistics.slowest)
    return statistics._replace(slowest=slowest)


def _named(slow: SlowEvent, line_of: Callable[[int], int]) -> SlowEvent:
    path = (line_of(slow.path[0]), *slow.path[1:]) if slow.path else ()
    return slow._replace(event=by_members(slow.event), path=path)
