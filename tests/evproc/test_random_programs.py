"""Random programs against the plain version of the contract, and `explain` against `process`."""

from __future__ import annotations

import copy
import json
import pickle
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

import evproc
from tests.support import naive, programs
from tests.support.sizes import BARS
from tests.support.strategies import programs as program_strategy

_SETTINGS = settings(
    max_examples=150 if BARS else 40,
    deadline=None,  # the machine may be busy
    suppress_health_check=[HealthCheck.too_slow],  # likewise
)


def _by_type(results: list[Any]) -> list[Any]:
    """Results without the texts of evproc's own errors, which the plain version has not."""
    results = copy.deepcopy(results)
    for each in results:
        if each["outcome"][1:2] in (
            ["IncompatibleRequirementsException"],
            ["HandlerReturnException"],
        ):
            del each["outcome"][2]
    return results


@_SETTINGS
@given(program_strategy())
def test_a_processor_does_what_the_contract_says(program: programs.Program) -> None:
    assert _by_type(programs.play(program, evproc)) == _by_type(naive.play(program))


@_SETTINGS
@given(program_strategy())
def test_explain_tells_in_advance_what_process_does(program: programs.Program) -> None:
    log = programs.CallLog()
    processor = programs.build(program, evproc, log)
    explained = [processor.explain(ev) for ev in programs.root_events(program, evproc)]
    assert not log.calls_by_root()  # explaining runs no handler
    for ev, explanation in zip(programs.root_events(program, evproc), explained, strict=True):
        outcome = programs.outcome(lambda: processor.process(ev))  # noqa: B023 - called at once
        called = [handler for handler, _, event in log.calls_by_root()[ev.root] if event == ev.id]
        # a handler may end the event before the last one runs
        assert explanation.order[: len(called)] == tuple(called)
        if explanation.error is not None:
            assert not called
            error = explanation.error
            assert outcome == ["error", type(error).__name__, str(error.args)]
        elif outcome[0] == "value" and outcome[1] is None and len(called) == 0:
            assert explanation.order == ()


@_SETTINGS
@given(program_strategy())
def test_check_raises_for_the_programs_that_have_a_cycle_or_lack_a_handler(
    program: programs.Program,
) -> None:
    specs = program["handlers"]
    sound = True
    try:
        naive._order(specs, list(range(len(specs))))
    except naive.IncompatibleRequirementsException:
        sound = False
    processor = programs.build(program, evproc)
    if sound:
        assert processor.check().handlers == len(specs)
    else:
        with pytest.raises(evproc.IncompatibleRequirementsException):
            processor.check()


@_SETTINGS
@given(program_strategy())
def test_an_event_name_that_check_calls_a_conflict_always_fails(
    program: programs.Program,
) -> None:
    processor = programs.build(program, evproc)
    try:
        conflicts = processor.check().conflicts
    except evproc.IncompatibleRequirementsException:
        return
    cls = programs.event_class(evproc)
    for conflict in conflicts:
        for number in range(4):
            ev = cls(conflict.event or "?", number, root=0, event_id="0", depth=0, budget=1)
            # another error than the conflict only where a filter raises before
            kind, *error = programs.outcome(lambda: processor.process(ev))  # noqa: B023 - called at once
            assert kind == "error"
            if error[0] == "IncompatibleRequirementsException":
                who_requires_whom, _, _ = conflict.reason.partition(", which")
                assert who_requires_whom in error[1]
            else:
                assert "raises" in str(program)


def _programs(count: int) -> list[programs.Program]:
    rng = random.Random("programs")
    return [programs.random_program(rng, total_order=place % 2 == 0) for place in range(count)]


def test_a_program_is_the_same_after_json() -> None:
    for program in _programs(20):
        assert json.loads(json.dumps(program)) == program


def test_a_seed_decides_the_program() -> None:
    assert _programs(20) == _programs(20)


def test_every_cascade_of_a_program_is_bounded() -> None:
    most = 0
    for program in _programs(300 if BARS else 75):
        for result in programs.play(program, evproc):
            events = {event for _, _, event in result["calls"]}
            assert len(events) <= programs.MOST_EVENTS
            most = max(most, len(events))
    assert most > programs.MOST_EVENTS / 2


def test_calls_recorded_in_a_file_are_those_recorded_in_memory(tmp_path: Path) -> None:
    for place, program in enumerate(_programs(20)):
        in_file = {**program, "log_path": str(tmp_path / f"{place}.log")}
        assert programs.play(in_file, evproc) == programs.play(program, evproc)
        # and it was the file that they came from
        calls = sum(len(result["calls"]) for result in programs.play(program, evproc))
        path = Path(in_file["log_path"])
        assert calls == (len(path.read_text().splitlines()) if path.exists() else 0)


def test_handlers_and_events_of_a_program_work_after_pickling(tmp_path: Path) -> None:
    for place, program in enumerate(_programs(40)):
        expected = programs.play(program, evproc)
        log = programs.CallLog(str(tmp_path / f"{place}.log"))
        processor = evproc.Processor()
        for handler in pickle.loads(pickle.dumps(programs.handlers(program, evproc, log))):
            processor.register(handler)
        outcomes = [
            programs.outcome(lambda: processor.process(pickle.loads(pickle.dumps(ev))))  # noqa: B023 - called at once
            for ev in programs.root_events(program, evproc)
        ]
        assert programs.results(outcomes, log) == expected


def test_an_event_of_a_program_unpickles_in_a_process_that_never_made_one() -> None:
    import subprocess
    import sys

    [ev] = programs.root_events({"roots": [{"name": "a", "number": 5}]}, evproc)
    code = (
        "import pickle, sys; ev = pickle.load(sys.stdin.buffer);"
        "print(ev.name, ev.number, type(ev).__mro__[2].__module__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=pickle.dumps(ev),
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        check=True,
    )
    assert done.stdout.decode().split() == ["a", "5", "evproc.event"]
