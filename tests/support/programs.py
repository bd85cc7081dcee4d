"""Random handler programs: plain data that any evproc can be made to play.

A program says which handlers there are, what they declare and what they do, and
which events come in. It holds nothing but what JSON can hold, so it can be sent
to another process, to another evproc, or into a bug report. `random_program`
makes one from a `random.Random`; `build` turns it into a `Processor`; `play`
runs it and says what happened: the calls in order, and how each cascade ended.

Rules that keep the comparison of two evprocs honest:

- Nothing but the standard library is imported here, and evproc is an argument
  (or, in a worker process, whatever `import evproc` finds), because evproc 0.2.0
  plays the same programs in an environment of its own.
- Every cascade ends: an event carries a budget, the most events that it and all
  that follows from it may come to, and divides it among its follow-ups. No state
  is shared for this, so it holds in any number of processes.
- Events, handlers and filters pickle by the names of module-level classes.
- A call is recorded by the handler itself, in memory or (where `log_path` is
  set) by one `os.write` to a file that any process may append to.
"""

from __future__ import annotations

import collections
import functools
import importlib
import itertools
import json
import os
import random
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

#: A program, and each of its parts: what `json.loads` makes.
Program = dict[str, Any]

#: The most events that a cascade comes to, and the most generations of follow-ups.
MOST_EVENTS = 50
MOST_DEPTH = 5

_NAMES = ("a", "b", "c", "d")
_UNMENTIONED = "nobody wants this by name"

_ERRORS: dict[str, Callable[..., Exception]] = {
    "ValueError": ValueError,
    "KeyError": KeyError,
    "ZeroDivisionError": ZeroDivisionError,
    "OSError": OSError,
    "RuntimeError": RuntimeError,
}


class ProgramError(Exception):
    """An error of a program's own: its constructor takes something else than `args`."""

    def __init__(self, code: int, *, text: str = "program") -> None:
        super().__init__(code, text)
        self.code = code
        self.text = text

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild_program_error, (self.code, self.text)


def _rebuild_program_error(code: int, text: str) -> ProgramError:
    return ProgramError(code, text=text)


_ERRORS["ProgramError"] = ProgramError


# --- what a program is made of when it runs ---


class CallLog:
    """Where handlers record that they were called: a list, or a file.

    Args:
        path: The file that handlers in any process append to, a new one for each
            run of a program; None keeps the calls in this process.
    """

    def __init__(self, path: str | None = None) -> None:
        self.path = path
        self._lines: list[str] = []

    def record(self, root: int, event_id: str, event_name: str, handler: str) -> None:
        """Record one call; safe from any thread and, with a path, from any process."""
        line = json.dumps([root, event_id, event_name, handler])
        if self.path is None:
            self._lines.append(line)
            return
        # one write to a file opened to append is not torn by another process's
        target = os.open(self.path, os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o600)
        try:
            os.write(target, f"{line}\n".encode())
        finally:
            os.close(target)

    def calls_by_root(self) -> dict[int, list[list[str]]]:
        """For each root event the calls, as `[handler, event name, event id]`, in order."""
        lines: Sequence[str] = self._lines
        if self.path is not None:
            path = Path(self.path)
            lines = path.read_text("utf-8").splitlines() if path.exists() else ()
        found: dict[int, list[list[str]]] = collections.defaultdict(list)
        for line in lines:
            root, event_id, event_name, handler = json.loads(line)
            found[root].append([handler, event_name, event_id])
        return found


class _ProgramEventBody:
    """What `ProgramEvent` adds to the Event of the evproc at hand."""

    def __init__(
        self, name: str, number: int, *, root: int, event_id: str, depth: int, budget: int
    ) -> None:
        super().__init__()
        self._name = name
        self.number = number
        self.root = root
        self.id = event_id
        self.depth = depth
        self.budget = budget

    @property
    def name(self) -> str:
        return self._name

    def __repr__(self) -> str:
        # the same in every process, because error texts are compared
        return f"<{self._name} {self.id}>"


def event_class(evproc_module: Any) -> Any:
    """The class of a program's events, as a global of this module so that it pickles."""
    made = globals().get("ProgramEvent")
    if made is None or not issubclass(made, evproc_module.Event):
        made = types.new_class("ProgramEvent", (_ProgramEventBody, evproc_module.Event))
        made.__module__ = __name__
        globals()["ProgramEvent"] = made
    return made


if not TYPE_CHECKING:  # with it, a type checker would believe any name to exist

    def __getattr__(name: str) -> Any:
        """Make `ProgramEvent` in a process that has only unpickled one so far."""
        if name == "ProgramEvent":
            return event_class(importlib.import_module("evproc"))
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class ProgramFilter:
    """A filter that is described by data; see `_random_filter` for the kinds."""

    def __init__(self, spec: Program) -> None:
        self.spec = spec

    def __call__(self, ev: Any) -> object:
        return holds(self.spec, ev)

    def __repr__(self) -> str:
        return f"ProgramFilter({self.spec!r})"


def holds(spec: Program, ev: Any) -> object:
    """Ask a filter. True and false values of several types, because evproc takes any."""
    kind = spec["kind"]
    if kind == "modulo":
        return "yes" if ev.number % spec["by"] == spec["rest"] else ""
    if kind == "less":
        return ev.number < spec["than"]
    if kind == "depth":
        return [ev.depth] if ev.depth >= spec["least"] else []
    if kind == "untouched":
        # true as long as no handler has seen the event: always, where all
        # handlers are matched before the first of them runs
        return not hasattr(ev.proc.trail, "names")
    if kind == "raises":
        if ev.number % spec["by"] == spec["rest"]:
            raise _error(spec["error"])
        return 1
    raise AssertionError(kind)


def _error(spec: Sequence[Any]) -> Exception:
    """Make an exception of `[type name, *args]`."""
    name, *args = spec
    if name == "StopProcessing":
        stop: Exception = importlib.import_module("evproc").StopProcessing(*args)
        return stop
    return _ERRORS[name](*args)


class ProgramHandler:
    """A handler that does what a program says."""

    def __init__(self, spec: Program, slots: int, log: CallLog) -> None:
        self.__name__ = spec["name"]
        self._spec = spec
        self._slots = slots
        self._log = log

    def __repr__(self) -> str:
        return f"ProgramHandler({self.__name__})"

    def __call__(self, proc: Any, ev: Any) -> Any:
        self._log.record(ev.root, ev.id, ev.name, self.__name__)
        self._use_namespaces(ev)
        for number in range(self._spec.get("emits", 0)):
            ev.emit([self.__name__, ev.id, number])
        end = self._spec["end"]
        if end is not None and holds(end["when"], ev):
            if end["after"]:
                return self._fail_after(self._follow_ups(ev), self._ending(end, ev))
            raise self._ending(end, ev)
        return self._returned(ev)

    def _use_namespaces(self, ev: Any) -> None:
        own = getattr(ev.proc, self.__name__)
        own.number = ev.number
        own.read = getattr(getattr(ev.proc, self._spec["reads"]), "number", None)
        trail = ev.proc.trail
        trail.names = [*getattr(trail, "names", []), self.__name__]
        # filters must not see this, since they were all asked before
        ev.number += self._spec["adds"]

    def _ending(self, end: Program, ev: Any) -> Exception:
        if end["error"] is not None:
            return _error(end["error"])
        # values that tell what earlier handlers left in the namespaces
        value = ev.proc.trail.names if end["value"] == "trail" else vars_of(ev)
        return _error(["StopProcessing", value])

    def _fail_after(self, follow_ups: list[Any], error: Exception) -> Iterator[Any]:
        yield from follow_ups
        raise error

    def _follow_ups(self, ev: Any) -> list[Any]:
        budget = (ev.budget - 1) // self._slots if self._slots else 0
        if budget < 1 or ev.depth >= MOST_DEPTH:
            return []
        return [
            type(ev)(
                each["name"],
                ev.number + each["number"],
                root=ev.root,
                event_id=f"{ev.id}.{self.__name__}{place}",
                depth=ev.depth + 1,
                budget=budget,
            )
            for place, each in enumerate(self._spec["follow_ups"])
        ]

    def _returned(self, ev: Any) -> Any:
        follow_ups = self._follow_ups(ev)
        return _CONTAINERS[self._spec["returns"]](follow_ups)


def vars_of(ev: Any) -> dict[str, list[Any]]:
    """What the handlers so far left in their namespaces, by handler."""
    found = {}
    for name in ev.proc.trail.names:
        space = getattr(ev.proc, name)
        found[name] = [space.number, space.read]
    return found


def _wrong_event(follow_ups: list[Any]) -> Any:
    return (*follow_ups, "no event")


_CONTAINERS: dict[str, Callable[[list[Any]], Any]] = {
    "none": lambda _: None,
    "list": list,
    "tuple": tuple,
    "generator": lambda follow_ups: (each for each in follow_ups),
    "dict": dict.fromkeys,
    "iterator": iter,
    # the rest are errors
    "number": len,
    "text": repr,
    "wrong event": _wrong_event,
    "wrong generator": lambda follow_ups: iter(_wrong_event(follow_ups)),
}
_RIGHT_RETURNS = ("list", "tuple", "generator", "dict", "iterator")
_WRONG_RETURNS = ("number", "text", "wrong event", "wrong generator")


# --- playing a program ---


def handlers(program: Program, evproc_module: Any, log: CallLog | None = None) -> list[Any]:
    """The handlers with their declarations, in registration order; each has a `__name__`."""
    if log is None:
        log = CallLog(program["log_path"])
    slots = sum(len(spec["follow_ups"]) for spec in program["handlers"])
    made = []
    for spec in program["handlers"]:
        handler: Any = ProgramHandler(spec, slots, log)
        # from the bottom up, as Python applies decorators
        for names in reversed(spec["required_by"]):
            handler = evproc_module.required_by(*names)(handler)
        for names in reversed(spec["requires"]):
            handler = evproc_module.requires(*names)(handler)
        for clause in reversed(spec["want"]):
            items = [item if isinstance(item, str) else ProgramFilter(item) for item in clause]
            handler = evproc_module.want(*items)(handler)
        made.append(handler)
    return made


def root_events(program: Program, evproc_module: Any) -> list[Any]:
    """The events that come in, in order."""
    cls = event_class(evproc_module)
    budget = program.get("budget", MOST_EVENTS)
    return [
        cls(spec["name"], spec["number"], root=place, event_id="0", depth=0, budget=budget)
        for place, spec in enumerate(program["roots"])
    ]


def build(program: Program, evproc_module: Any, log: CallLog | None = None) -> Any:
    """Register a program's handlers with a new `Processor`."""
    processor = evproc_module.Processor()
    for handler in handlers(program, evproc_module, log):
        processor.register(handler)
    return processor


def outcome(function: Callable[[], Any]) -> list[Any]:
    """How a call ended: `["value", value]` or `["error", type name, text of args]`."""
    try:
        return ["value", function()]
    except Exception as error:
        return ["error", type(error).__name__, str(error.args)]


def play(program: Program, evproc_module: Any) -> list[Any]:
    """Process each root event in turn, and say what happened.

    Returns:
        For each root event a dictionary: its `"calls"`, as
        `[handler, event name, event id]` in order, and its `"outcome"`; see `outcome`.
    """
    log = CallLog(program["log_path"])
    processor = build(program, evproc_module, log)
    outcomes = [
        outcome(functools.partial(processor.process, ev))
        for ev in root_events(program, evproc_module)
    ]
    return results(outcomes, log)


def results(outcomes: Iterable[list[Any]], log: CallLog) -> list[Any]:
    """Put outcomes and calls together, as `play` returns them."""
    calls = log.calls_by_root()
    return [{"calls": calls.get(root, []), "outcome": each} for root, each in enumerate(outcomes)]


def main() -> None:
    """Play the programs on standard input, one a line, with the evproc that is installed here.

    Writes one line of JSON about that evproc, and one for each program.
    """
    evproc_module = importlib.import_module("evproc")
    about = {
        "file": evproc_module.__file__,
        "explains": hasattr(evproc_module.Processor, "explain"),
    }
    sys.stdout.write(json.dumps(about) + "\n")
    for line in sys.stdin:
        sys.stdout.write(json.dumps(play(json.loads(line), evproc_module)) + "\n")


# --- making programs ---


def random_program(rng: random.Random, *, total_order: bool = False) -> Program:
    """Make a program of 1 to 8 handlers and 1 to 6 root events.

    Args:
        rng: Decides everything.
        total_order: Chain all handlers by requirements, so that there is one
            order at most, and leave out what evproc 0.2.0 gets wrong: absent
            handlers, returned values that are no events, generators that raise,
            filters that raise different errors for one event. The handlers are
            mostly made such that each wants no more than the one it requires,
            or else nothing would run.
    """
    names = [f"h{place}" for place in range(rng.randint(1, 8))]
    error = _random_error(rng)
    strange = _chance(rng, 25)
    specs = []
    for name in names:
        if not total_order:
            # 0.2.0 asks filters in another order, so that there another one raises first
            error = _random_error(rng)
        spec = {
            "name": name,
            "want": _random_want(rng, error if strange else None),
            "requires": [],
            "required_by": [],
            "adds": rng.choice([0, 0, 1, 3]),
            "reads": rng.choice(names),
            "follow_ups": _random_follow_ups(rng),
            "end": _random_end(rng, anything=not total_order),
        }
        returns: tuple[str, ...] = _RIGHT_RETURNS if spec["follow_ups"] else ("none", "list")
        if not total_order and _chance(rng, 5):
            returns = _WRONG_RETURNS
        spec["returns"] = rng.choice(returns)
        specs.append(spec)
    if total_order:
        _chain(rng, specs)
    else:
        _relate(rng, specs)
    return {
        "handlers": specs,
        "roots": [
            {"name": rng.choice([*_NAMES * 3, _UNMENTIONED]), "number": rng.randint(0, 9)}
            for _ in range(rng.randint(1, 6))
        ],
        "log_path": None,
    }


def random_cascades(rng: random.Random) -> Program:
    """Make a program whose cascades are wide and deep, emit, and fail in several places.

    As `random_program`, which 0.2.0 can play: there is no `emit` in 0.2.0. The handlers of an
    event are seldom related, so that most events are handled. A cascade may come to some
    hundred events.
    """
    program = random_program(rng)
    for spec in program["handlers"]:
        spec["emits"] = rng.choice([0, 0, 1, 2])
        if not _chance(rng, 15):
            spec["requires"], spec["required_by"] = [], []
            if not _chance(rng, 40):
                spec["want"] = [rng.sample(_NAMES, rng.choice([1, 2, 2, 3]))]
        if spec["returns"] in _RIGHT_RETURNS or _chance(rng, 50):
            spec["follow_ups"] = [*spec["follow_ups"], *_random_follow_ups(rng)]
            spec["returns"] = rng.choice(_RIGHT_RETURNS)
        spec["end"] = _random_failure(rng) if _chance(rng, 60) else None
    program["budget"] = rng.choice([50, 300, 2000])
    return program


def _random_failure(rng: random.Random) -> Program:
    """An end, as `_random_end` makes it, of some events only: mostly an error."""
    by = rng.randint(2, 6)
    errors = [
        *[["ValueError", "text"], ["ProgramError", 7], ["KeyError", "key"]] * 2,
        ["StopProcessing"],
        ["StopProcessing", by],
        None,
    ]
    return {
        "when": {"kind": "modulo", "by": by, "rest": rng.randrange(by)},
        "error": rng.choice(errors),
        "value": "trail",
        "after": _chance(rng, 30),
    }


def _chance(rng: random.Random, percent: int) -> bool:
    """Whether something unusual happens: not, if the number drawn is small.

    So a shrunk program is a usual one. (And a whole number, because a Random of
    Hypothesis prefers some fractions to others.)
    """
    return rng.randrange(100) >= 100 - percent


def _random_filter(rng: random.Random, error: Sequence[Any] | None) -> Program:
    """A filter as data; one that raises `error` now and then, if there is one."""
    kinds = ["untouched", "modulo", "less", "depth"]
    kind = rng.choice([*kinds, "raises", "raises"] if error else kinds)
    by = rng.randint(2, 4)
    spec: Program = {"kind": kind}
    if kind in ("modulo", "raises"):
        spec |= {"by": by, "rest": rng.randrange(by)}
    if kind == "raises":
        spec["error"] = error
    elif kind == "less":
        spec["than"] = rng.randint(1, 14)
    elif kind == "depth":
        spec["least"] = rng.choice([0, 0, 1])
    return spec


def _random_error(rng: random.Random) -> list[Any]:
    return rng.choice(
        [
            ["ValueError", "text"],
            ["KeyError", "key"],
            ["ZeroDivisionError"],
            ["OSError", 2, "no such thing"],
            ["RuntimeError", 1, 2],
            ["ProgramError", 7],
            ["StopProcessing"],
            ["StopProcessing", 5],
        ]
    )


def _random_clause(rng: random.Random, error: Sequence[Any] | None) -> list[Any]:
    clause: list[Any] = rng.sample(_NAMES, rng.choice([0, 1, 2, 3, 3]))
    for _ in range(rng.choice([0, 0, 1, 2]) or (not clause)):
        clause.insert(rng.randint(0, len(clause)), _random_filter(rng, error))
    return clause


def _random_want(rng: random.Random, error: Sequence[Any] | None) -> list[Any]:
    return [_random_clause(rng, error) for _ in range(rng.choice([0, 0, 1, 1, 1, 2, 3]))]


def _random_follow_ups(rng: random.Random) -> list[Program]:
    return [
        {"name": rng.choice([*_NAMES, _UNMENTIONED]), "number": rng.randint(0, 5)}
        for _ in range(rng.choice([0, 0, 0, 1, 1, 2]))
    ]


def _random_end(rng: random.Random, *, anything: bool) -> Program | None:
    """Whether, when and how a handler ends more than itself.

    `error` is an exception as data, or None for a StopProcessing whose value is
    made from what is in the namespaces. `after`: the handler returns a generator
    that yields its follow-ups first.
    """
    if not _chance(rng, 35):
        return None
    return {
        "when": _random_filter(rng, None),
        "error": rng.choice(
            [
                ["StopProcessing"],
                ["StopProcessing", None],
                ["StopProcessing", rng.choice([0, False, 42, "text", [1, [2]], {"key": 1.5}])],
                None,
                _random_error(rng),
            ]
        ),
        "value": rng.choice(["trail", "namespaces"]),
        "after": anything and _chance(rng, 30),
    }


def _require(rng: random.Random, dependent: Program, required: Program) -> None:
    """Let one handler require another, declared on either of them, stacked or not."""
    if not _chance(rng, 50):
        declared, name = dependent["requires"], required["name"]
    else:
        declared, name = required["required_by"], dependent["name"]
    if declared and _chance(rng, 50):
        rng.choice(declared).append(name)
    else:
        declared.insert(rng.randint(0, len(declared)), [name])


def _chain(rng: random.Random, specs: list[Program]) -> None:
    """Chain all handlers in a random order; see `random_program`."""
    order = rng.sample(specs, len(specs))
    if not _chance(rng, 50):  # or few events would find a handler
        order[0]["want"] = []
    for required, dependent in itertools.pairwise(order):
        _require(rng, dependent, required)
        if not _chance(rng, 5):
            dependent["want"] = _narrowed(rng, required["want"], dependent["want"])
    for _ in range(rng.choice([0, 0, 1, 2])):  # what the chain implies already
        if len(order) > 2:
            first, last = sorted(rng.sample(range(len(order)), 2))
            _require(rng, order[last], order[first])
    if _chance(rng, 4):  # a cycle, of one handler perhaps
        _require(rng, rng.choice(order), order[-1])


def _narrowed(rng: random.Random, wants: list[Any], other: list[Any]) -> list[Any]:
    """A want that matches no event which `wants` does not match; as a copy."""
    if not wants:
        return other if _chance(rng, 30) else []
    narrowed = [list(clause) for clause in wants]
    change = rng.randrange(8)
    place = rng.randrange(len(narrowed))
    clause = narrowed[place]
    names = [item for item in clause if isinstance(item, str)]
    if change == 0 and len(narrowed) > 1:
        del narrowed[place]
    elif change == 1 and len(names) > 1:
        clause.remove(rng.choice(names))
    elif change == 2:
        clause.append(_random_filter(rng, None))
    elif change == 3 and len(names) > 1:
        # the same in two clauses
        first, *others = names
        narrowed.insert(place, [item for item in clause if item not in others])
        clause.remove(first)
    return narrowed


def _relate(rng: random.Random, specs: list[Program]) -> None:
    """Let some handlers require others, seldom in a cycle, seldom one that is absent."""
    for _ in range(rng.randint(0, len(specs))):
        first, second = rng.choice(specs), rng.choice(specs)
        if specs.index(first) > specs.index(second) and not _chance(rng, 10):
            first, second = second, first
        if first is not second or _chance(rng, 10):
            if not _chance(rng, 30):
                # or most events would fail for a requirement that declines
                second["want"] = _narrowed(rng, first["want"], second["want"])
            _require(rng, second, first)
    if _chance(rng, 3):
        rng.choice(specs)["requires"].append(["absent"])
    if _chance(rng, 10):
        rng.choice(specs)["required_by"].append(["absent"])


if __name__ == "__main__":
    main()
