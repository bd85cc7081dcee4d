"""The cases: which handlers are registered, and which event they are given.

What is built here for a framework works with either `evproc`, which is handed
in: this module is imported beside 0.2.0 too, so it imports none of them.

The statement that is timed is the same for all sides. Handlers do nothing: what
is measured is everything around them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from types import ModuleType
from typing import Any, Final, NamedTuple

Handler = Callable[[Any, Any], Any]

#: What is timed, in a namespace that one of the functions below makes.
STATEMENT: Final = "proc.process(ev)"

#: What is timed where the case is a set-up.
SET_UP_STATEMENT: Final = "set_up().process(ev)"


class Case(NamedTuple):
    """One case.

    Attributes:
        label: What the table calls it.
        registered: How many handlers there are, for events of any name.
        matching: How many of them want each event: 3 or 0.
        filters: How many of the matching ones have a filter to ask; it agrees.
        follow_up: Whether the first handler returns another event, which as many
            handlers want.
        set_up: Whether registering the handlers is part of what is measured.
    """

    label: str
    registered: int
    matching: int = 3
    filters: int = 0
    follow_up: bool = False
    set_up: bool = False

    @property
    def events(self) -> int:
        """How many events one execution of the statement processes."""
        return 2 if self.follow_up else 1

    @property
    def statement(self) -> str:
        """What is timed."""
        return SET_UP_STATEMENT if self.set_up else STATEMENT


#: The cases that the project has set itself limits for, with the number of
#: times that 0.2.0's events per second must be reached.
WITH_BARS: Final = (
    (Case("3 of 10 handlers match", 10), 10),
    (Case("3 of 100 handlers match", 100), 50),
    (Case("3 of 1,000 handlers match", 1000), 500),
)

#: All others.
WITHOUT_BARS: Final = (
    Case("1 filter to ask, 3 of 10 match", 10, filters=1),
    Case("3 filters to ask, 3 of 10 match", 10, filters=3),
    Case("1 follow-up, 3 of 10 match each", 10, follow_up=True),
    Case("0 of 10 handlers match", 10, matching=0),
    Case("0 of 1,000 handlers match", 1000, matching=0),
    Case("register 1,000, first event", 1000, set_up=True),
)


def has_context(ev: Any) -> bool:
    """The filter: as cheap as one that looks at the event can be."""
    return ev.ctxt is not None


def make_handlers() -> tuple[Handler, Handler, Handler]:
    """Make three handlers that do nothing.

    Made anew each time, because decorators write on functions, and written three
    times, because the interpreter specializes a call for the code that it calls:
    one function thrice would be called faster than any three handlers.
    """

    def first(proc: Any, ev: Any) -> None:
        pass

    def second(proc: Any, ev: Any) -> None:
        pass

    def third(proc: Any, ev: Any) -> None:
        pass

    return first, second, third


def make_bystander() -> Handler:
    """Make a handler that is registered and never called."""

    def bystander(proc: Any, ev: Any) -> None:
        raise AssertionError("a handler was called that does not want the event")

    return bystander


def _event_classes(evproc: ModuleType) -> tuple[Any, Any]:
    class Ping(evproc.Event):  # type: ignore[name-defined, misc]  # whichever evproc it is
        name = "ping"

    class Pong(evproc.Event):  # type: ignore[name-defined, misc]  # likewise
        name = "pong"

    return Ping, Pong


def _answering(answered: Handler, follow_up: Callable[[], object]) -> Handler:
    """Make a handler that does what another does and returns a follow-up."""

    def answer(proc: Any, ev: Any) -> list[object]:
        answered(proc, ev)
        return [follow_up()]

    return answer


def framework(
    evproc: ModuleType, case: Case, make: Callable[[], tuple[Handler, ...]] = make_handlers
) -> dict[str, Any]:
    """Build a case for a framework: ours, or 0.2.0.

    Args:
        evproc: The framework.
        case: What to build.
        make: Makes the handlers; tests hand in some that say when they are called.

    Returns:
        The namespace in which the case's statement is executed.
    """
    ping, pong = _event_classes(evproc)
    named = _declared(evproc, case, make(), pong)
    for place in range(case.registered - len(named)):
        bystander = evproc.want(f"other {place}")(make_bystander())
        named.append((f"bystander {place}", bystander))
    if case.matching:
        # in front, in the middle and behind: where they stand should not matter
        named.insert(len(named) // 2, named.pop(1))
        named.append(named.pop(1))

    def set_up() -> Any:
        proc = evproc.Processor()
        for name, func in named:
            proc.register(func, name)
        return proc

    return {"set_up": set_up, "proc": set_up(), "ev": ping("context")}


def _declared(
    evproc: ModuleType, case: Case, handlers: tuple[Handler, ...], pong: Any
) -> list[tuple[str, Handler]]:
    """Name and decorate the handlers that match."""
    if not case.matching:
        return []
    names = ("ping", "pong") if case.follow_up else ("ping",)
    named = []
    for place, func in enumerate(handlers):
        asked = (has_context,) if place < case.filters else ()
        if case.follow_up and place == 0:
            named.append(("answer", evproc.want("ping")(_answering(func, pong))))
            named.append(("first", evproc.want("pong")(func)))
        else:
            named.append((func.__name__, evproc.want(*names, *asked)(func)))
    return named


def hand_written(
    evproc: ModuleType, case: Case, make: Callable[[], tuple[Handler, ...]] = make_handlers
) -> dict[str, Any]:
    """Build the same as somebody would write it who needs no framework.

    Args:
        evproc: Whose events are used: ours.
        case: What to build; not a set-up, for there is none.
        make: See `framework`.

    Returns:
        The namespace in which the case's statement is executed.
    """
    ping, pong = _event_classes(evproc)
    functions = make() if case.matching else ()
    proc: _Loop | _LoopWithFilters | _LoopWithFollowUps
    if case.follow_up:
        answer = _answering(functions[0], pong)
        proc = _LoopWithFollowUps({"ping": (answer, *functions[1:]), "pong": functions})
    elif case.filters:
        proc = _LoopWithFilters(
            tuple(
                (has_context if place < case.filters else None, func)
                for place, func in enumerate(functions)
            )
        )
    else:
        proc = _Loop(functions)
    return {"proc": proc, "ev": ping("context")}


class _Loop:
    def __init__(self, functions: tuple[Handler, ...]) -> None:
        self.functions = functions

    def process(self, ev: Any) -> None:
        for func in self.functions:
            func(self, ev)


class _LoopWithFilters:
    def __init__(self, pairs: tuple[tuple[Callable[[Any], bool] | None, Handler], ...]) -> None:
        self.pairs = pairs

    def process(self, ev: Any) -> None:
        # all are asked before the first runs, as the frameworks do
        matched = [func for wanted, func in self.pairs if wanted is None or wanted(ev)]
        for func in matched:
            func(self, ev)


class _LoopWithFollowUps:
    def __init__(self, functions: dict[str, tuple[Handler, ...]]) -> None:
        self.functions = functions

    def process(self, ev: Any) -> None:
        queue = deque([ev])
        while queue:
            ev = queue.popleft()
            for func in self.functions[ev.name]:
                returned = func(self, ev)
                if returned:
                    queue.extend(returned)
