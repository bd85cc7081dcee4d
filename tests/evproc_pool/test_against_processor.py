"""Random programs: `submit`, `process`, and `process_many` up to its first error.

Call for call they do what a `Processor` does; with every start method, and with
programs that are long enough for full batches. The other calls, short programs
and keys are in `test_random_programs`.
"""

from __future__ import annotations

import functools
import itertools
import multiprocessing
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import evproc
from evproc_pool import PoolProcessor
from tests.support import programs
from tests.support.actions import Do
from tests.support.helpers import PATIENCE_SECONDS, close_in_time
from tests.support.sizes import BARS

# In parts, because a test has a time limit of its own: 5 programs, in full 500.
_PARTS = 100 if BARS else 1
_PROGRAMS = 5


def _program(number: int, *, roots: int = 10) -> programs.Program:
    """One with as many different root events, those first that do not fail, and once more last."""
    rng = random.Random(f"pool {number}")
    program = programs.random_program(rng)
    program["roots"] = [
        {"name": rng.choice("abcd"), "number": rng.randrange(10)} for _ in range(roots)
    ]
    good: list[programs.Program] = []
    bad: list[programs.Program] = []
    for root, each in zip(program["roots"], _serial(program), strict=True):
        (good if each["outcome"][0] == "value" else bad).append(root)
    return {**program, "roots": [*good, *bad, *good]}


def _serial(program: programs.Program) -> list[Any]:
    """What a `Processor` does: for each root the calls and the outcome."""
    return programs.play(program, evproc)


def _outcome(value: Any) -> list[Any]:
    """As `programs.outcome` has it, of what stands in a list."""
    if isinstance(value, BaseException):
        return ["error", type(value).__name__, str(value.args)]
    return ["value", value]


class _Player:
    """A pool that plays one program, in several ways.

    Args:
        program: What to play.
        workers: How many.
        folder: Where the calls are recorded, by handlers in any process.
    """

    def __init__(self, program: programs.Program, workers: int, folder: Path, **options: Any):
        self.program = {**program, "log_path": str(folder / "calls.log")}
        self.pool = PoolProcessor(workers=workers, **options)
        for handler in programs.handlers(self.program, evproc):
            self.pool.register(handler)

    def _events(self) -> list[Any]:
        """New ones each time, with nothing recorded yet."""
        Path(self.program["log_path"]).unlink(missing_ok=True)
        return programs.root_events(self.program, evproc)

    def _calls(self) -> dict[int, list[list[str]]]:
        return programs.CallLog(self.program["log_path"]).calls_by_root()

    def _results(self, outcomes: list[list[Any]]) -> list[Any]:
        return programs.results(outcomes, programs.CallLog(self.program["log_path"]))

    def all_at_once(self) -> list[Any]:
        values = self.pool.process_many(self._events(), return_exceptions=True)
        return self._results([_outcome(value) for value in values])

    def submitted(self) -> list[Any]:
        futures = [self.pool.submit(ev) for ev in self._events()]
        return self._results([programs.outcome(future.result) for future in futures])

    def one_by_one(self) -> list[Any]:
        return self._results(
            [programs.outcome(functools.partial(self.pool.process, ev)) for ev in self._events()]
        )

    def until_error(self) -> tuple[list[Any], dict[int, list[list[str]]]]:
        """How `process_many` ends where it raises, and the calls."""
        events = self._events()
        return programs.outcome(lambda: self.pool.process_many(events)), self._calls()


def _check(player: _Player, serial: list[Any]) -> None:
    assert player.submitted() == serial
    assert player.one_by_one() == serial
    _check_until_error(player, serial)


def _check_until_error(player: _Player, serial: list[Any]) -> None:
    """`process_many` raises what a loop over `Processor.process` raises, and has done as much."""
    outcome, calls = player.until_error()
    done = list(itertools.takewhile(lambda each: each["outcome"][0] == "value", serial))
    if len(done) == len(serial):
        assert outcome == ["value", [each["outcome"][1] for each in serial]]
    else:
        failed = serial[len(done)]
        assert outcome == failed["outcome"]
        assert calls.get(len(done), []) == failed["calls"]
    for root, each in enumerate(done):
        assert calls.get(root, []) == each["calls"]
    # what is behind it may have begun, and went no other way
    for root, made in calls.items():
        assert made == serial[root]["calls"][: len(made)]


@pytest.fixture
def players() -> Iterator[list[_Player]]:
    """Players that are closed at the end."""
    made: list[_Player] = []
    yield made
    for player in made:
        close_in_time(player.pool)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("part", range(_PARTS))
def test_calls_for_one_event_and_the_first_error_are_those_of_a_processor(
    tmp_path: Path, players: list[_Player], part: int, workers: int
) -> None:
    for number in range(part * _PROGRAMS, (part + 1) * _PROGRAMS):
        program = _program(number)
        player = _Player(program, workers, tmp_path)
        players.append(player)
        _check(player, _serial(program))
        close_in_time(players.pop().pool)


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
@pytest.mark.filterwarnings(
    # from Python 3.12 on; other tests may have left threads in native libraries
    "ignore:This process .* is multi-threaded:DeprecationWarning"
)
def test_every_start_method_does_what_a_processor_does(
    tmp_path: Path, players: list[_Player], method: str
) -> None:
    for number in range(1_000, 1_002 if BARS else 1_001):
        program = _program(number)
        player = _Player(program, 2, tmp_path, mp_context=method)
        players.append(player)
        assert player.all_at_once() == _serial(program)
        _check(player, _serial(program))


def test_a_long_program_does_not_depend_on_how_it_is_batched(
    tmp_path: Path, players: list[_Player]
) -> None:
    # batches get long, are cut, and are shared by cascades
    for number in range(2_000, 2_003 if BARS else 2_001):
        program = _program(number, roots=400)
        player = _Player(program, 2, tmp_path)
        players.append(player)
        assert player.all_at_once() == _serial(program)


@pytest.mark.parametrize("workers", [0, 1, None])
def test_without_handlers_nothing_is_wanted(workers: int | None) -> None:
    with PoolProcessor(workers=workers) as pool:
        assert pool.process_many([Do("stop", 1)] * 3) == [None] * 3
        assert [outcome.value for outcome in pool.stream([Do("stop", 1)] * 3)] == [None] * 3
        assert pool.submit(Do("stop", 1)).result(PATIENCE_SECONDS) is None
        assert pool.process(Do("stop", 1)) is None
        assert pool.process_many([]) == []


def test_the_programs_are_worth_playing() -> None:
    played = [_serial(_program(number)) for number in range(15)]
    outcomes = [[each["outcome"] for each in result] for result in played]
    # a first error with values before it, and something behind it
    kinds = [[kind for kind, *_ in each] for each in outcomes]
    assert sum("error" in each[1:-1] and each[0] == "value" for each in kinds) >= 3
    assert len({each[1] for result in outcomes for each in result if each[0] == "error"}) >= 4
    assert any(each[0] == "value" and each[1] is not None for result in outcomes for each in result)
