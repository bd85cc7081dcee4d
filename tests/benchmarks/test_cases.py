"""A benchmark compares nothing unless all sides do the same work."""

from typing import Any

import pytest

import evproc
from benchmarks.process import cases

ALL = [*(case for case, _ in cases.WITH_BARS), *cases.WITHOUT_BARS]


def played(build: Any, case: cases.Case) -> list[tuple[str, str]]:
    """Which handlers one execution of the statement calls, with which events."""
    calls: list[tuple[str, str]] = []

    def make() -> tuple[cases.Handler, ...]:
        def handler(place: int) -> cases.Handler:
            def recorded(proc: Any, ev: Any) -> None:
                calls.append((recorded.__name__, ev.name))

            recorded.__name__ = f"handler {place}"
            return recorded

        return tuple(handler(place) for place in range(3))

    exec(case.statement, build(evproc, case, make))
    return calls


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.label)
def test_as_many_handlers_are_registered_as_the_case_says(case: cases.Case) -> None:
    assert len(cases.framework(evproc, case)["proc"].nodes) == case.registered


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.label)
def test_as_many_handlers_run_as_the_case_says(case: cases.Case) -> None:
    assert len(played(cases.framework, case)) == case.matching * case.events


@pytest.mark.parametrize(
    "case", [case for case in ALL if not case.set_up], ids=lambda case: case.label
)
def test_the_hand_written_loop_does_the_same(case: cases.Case) -> None:
    assert sorted(played(cases.hand_written, case)) == sorted(played(cases.framework, case))


def test_a_set_up_registers_everything_each_time() -> None:
    case = cases.Case("set-up", 10, set_up=True)
    namespace = cases.framework(evproc, case)
    first, second = namespace["set_up"](), namespace["set_up"]()
    assert first is not second
    assert len(first.nodes) == len(second.nodes) == 10


def test_filters_are_asked() -> None:
    namespace = cases.framework(evproc, cases.Case("filters", 10, filters=3))
    report = namespace["proc"].explain(namespace["ev"])
    assert len(report.order) == 3
    namespace["ev"].ctxt = None
    assert namespace["proc"].explain(namespace["ev"]).order == ()


def test_the_cases_of_the_bars() -> None:
    assert [(case.registered, case.matching, times) for case, times in cases.WITH_BARS] == [
        (10, 3, 10),
        (100, 3, 50),
        (1000, 3, 500),
    ]
