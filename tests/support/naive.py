"""The contract once more, as plainly as possible: the oracle for random programs.

It reads what handlers declare from the program, not from the decorators; it has
no index and no cache, and finds the order by looking through all handlers again
for each place. It shares nothing with evproc but the handlers' bodies, which
raise evproc's `StopProcessing`.
"""

from __future__ import annotations

import functools
from typing import Any

import evproc
from tests.support import programs


class IncompatibleRequirementsException(Exception):
    """Named as evproc's, since programs compare errors by name."""


class HandlerReturnException(Exception):
    """Likewise."""


def play(program: programs.Program) -> list[Any]:
    """What `programs.play` returns, by the contract."""
    log = programs.CallLog()
    bodies = programs.handlers(program, evproc, log)
    outcomes = [
        programs.outcome(functools.partial(_process, program["handlers"], bodies, ev))
        for ev in programs.root_events(program, evproc)
    ]
    return programs.results(outcomes, log)


def _process(specs: list[programs.Program], bodies: list[Any], ev: Any) -> Any:
    queue = [ev]
    while queue:
        ev = queue.pop(0)
        matched = [place for place, spec in enumerate(specs) if _wants(spec, ev)]
        for place in _order(specs, matched):
            try:
                _take(queue, bodies[place](None, ev))
            except evproc.StopProcessing as stop:
                # what a bare one holds is no value that a program can give
                if stop.retval is not evproc.StopProcessing().retval:
                    return stop.retval
                break
    return None


def _wants(spec: programs.Program, ev: Any) -> bool:
    for clause in spec["want"]:
        names = [item for item in clause if isinstance(item, str)]
        filters = [item for item in clause if not isinstance(item, str)]
        if (not names or ev.name in names) and all(programs.holds(each, ev) for each in filters):
            return True
    return not spec["want"]


def _order(specs: list[programs.Program], matched: list[int]) -> list[int]:
    left = list(matched)
    order: list[int] = []
    while left:
        done = {specs[place]["name"] for place in order}
        for place in left:
            if _required(specs, specs[place]) <= done:
                left.remove(place)
                order.append(place)
                break
        else:
            raise IncompatibleRequirementsException
    return order


def _required(specs: list[programs.Program], spec: programs.Program) -> set[str]:
    own = {name for names in spec["requires"] for name in names}
    for other in specs:
        if any(spec["name"] in names for names in other["required_by"]):
            own.add(other["name"])
    return own


def _take(queue: list[Any], returned: Any) -> None:
    if returned is None:
        return
    if isinstance(returned, (str, int)):
        raise HandlerReturnException
    for each in returned:
        if not isinstance(each, evproc.Event):
            raise HandlerReturnException
        queue.append(each)
