"""`check` and `explain`: what they say, in data and in print."""

from __future__ import annotations

import functools
from typing import Any

import pytest

import evproc
from evproc import (
    Absence,
    CheckReport,
    Conflict,
    Explanation,
    HandlerExplanation,
    IncompatibleRequirementsException,
    Processor,
    StopProcessing,
    required_by,
    requires,
    want,
)
from evproc.decorator import describe_callable
from tests.support.processors import Named, Recorder, notes


def processor_of(**handlers: Any) -> Processor:
    made = Processor()
    for name, handler in handlers.items():
        made.register(handler, name)
    return made


def make(*decorators: Any) -> Any:
    """A handler with these declarations, top first."""

    def handler(proc: Any, ev: Any) -> None:
        raise AssertionError("neither check nor explain runs handlers")

    func: Any = handler
    for decorator in reversed(decorators):
        func = decorator(func)
    return func


def is_big(ev: Any) -> bool:
    return bool(ev.ctxt > 10)


def is_odd(ev: Any) -> bool:
    return bool(ev.ctxt % 2)


def fails(ev: Any) -> bool:
    raise KeyError("the key")


# --- check ---


def test_check_of_nothing_finds_nothing() -> None:
    report = Processor().check()
    assert report == CheckReport(0, (), ())
    assert str(report) == "0 handlers, no cycle, no requirement missing"


def test_check_of_handlers_that_fit_counts_them() -> None:
    report = processor_of(a=make(requires("b")), b=make(), c=make(want("x"))).check()
    assert report == CheckReport(3)


def test_check_names_every_missing_handler_and_who_requires_it() -> None:
    proc = processor_of(
        a=make(want("x"), requires("gone", "b")), b=make(want("x")), c=make(requires("lost"))
    )
    with pytest.raises(IncompatibleRequirementsException) as caught:
        proc.check()
    text = str(caught.value)
    assert "handler 'a' requires 'gone', which is not registered" in text
    assert "handler 'c' requires 'lost', which is not registered" in text
    assert "'b'" not in text.replace("'gone', 'b'", "")
    proc.register(make(), "gone")
    proc.register(make(), "lost")
    proc.check()


def test_check_prints_every_cycle_that_shares_no_handler_with_another() -> None:
    proc = processor_of(
        a=make(requires("b")),
        b=make(requires("a")),
        free=make(requires("a")),
        c=make(requires("d")),
        d=make(required_by("e")),
        e=make(required_by("c"), required_by("d")),
        own=make(requires("own")),
    )
    with pytest.raises(IncompatibleRequirementsException) as caught:
        proc.check()
    text = str(caught.value)
    assert "requirement cycle: a -> b -> a (each requires the next)" in text
    assert "requirement cycle: d -> e -> d" in text
    assert "requirement cycle: own -> own" in text
    assert text.count("cycle:") == 3


def test_check_finds_a_cycle_of_handlers_that_never_meet() -> None:
    proc = processor_of(a=make(want("x"), requires("b")), b=make(want("y"), requires("a")))
    with pytest.raises(IncompatibleRequirementsException, match="a -> b -> a"):
        proc.check()


def test_check_names_missing_handlers_and_cycles_together() -> None:
    proc = processor_of(a=make(requires("a")), b=make(requires("gone")))
    with pytest.raises(IncompatibleRequirementsException) as caught:
        proc.check()
    assert "'gone', which is not registered" in str(caught.value)
    assert "a -> a" in str(caught.value)


def test_check_lists_each_required_by_that_names_nobody() -> None:
    report = processor_of(a=make(required_by("gone", "b")), b=make(required_by("lost"))).check()
    assert report.absences == (Absence("a", "gone"), Absence("b", "lost"))
    assert str(report.absences[0]) == "'a' is required by 'gone', which is not registered"
    assert str(report).splitlines()[1:] == [f"absent: {each}" for each in report.absences]


def test_check_lists_the_event_names_that_are_sure_to_fail() -> None:
    proc = processor_of(
        dependent=make(want("x", "y"), requires("required")),
        required=make(want("y", "z")),
        asking=make(want("x", is_odd), requires("required")),
    )
    report = proc.check()
    [conflict] = report.conflicts
    assert conflict.event == "x"
    assert "'dependent' requires 'required' (@requires), which never wants it" in conflict.reason
    assert str(conflict) == f"event 'x': {conflict.reason}"
    assert f"conflict: {conflict}" in str(report)
    # it is sure: whatever the event holds
    for ctxt in range(4):
        with pytest.raises(IncompatibleRequirementsException):
            proc.process(Named("x", ctxt))


def test_check_lists_a_conflict_of_all_names_that_nobody_mentions() -> None:
    report = processor_of(
        dependent=make(), required=make(want("x"), required_by("dependent"))
    ).check()
    [conflict] = report.conflicts
    assert conflict.event is None
    assert "(@required_by of 'required')" in conflict.reason
    assert str(conflict).startswith("any other event: handler 'dependent' requires 'required'")


def test_check_calls_nothing_a_conflict_that_depends_on_a_filter() -> None:
    for dependent, required in (
        ([want("x", is_odd)], [want("y")]),  # the dependent may decline
        ([want("x")], [want("x", is_odd)]),  # the required one may agree
    ):
        proc = processor_of(
            dependent=make(*dependent, requires("required")), required=make(*required)
        )
        assert proc.check().conflicts == ()


def test_check_asks_no_filter_and_changes_nothing() -> None:
    record = Recorder()
    proc = processor_of(
        a=want("ev")(record.handler("a")), b=make(want("x", fails)), c=record.handler("c")
    )
    assert proc.check() == proc.check()
    proc.process(Named("ev"))
    assert record.take() == ["a", "c"]
    assert proc.check() == CheckReport(3)


def test_check_sees_a_handler_that_was_registered_after_the_last_check() -> None:
    proc = processor_of(a=make(required_by("b")))
    assert proc.check().absences == (Absence("a", "b"),)
    proc.register(make(requires("c")), "b")
    with pytest.raises(IncompatibleRequirementsException, match="'c'"):
        proc.check()


# --- explain ---


def test_explain_says_which_handlers_run_in_which_order_and_why() -> None:
    proc = processor_of(
        report=make(want("ev", is_big, is_odd), requires("prepare")),
        audit=make(),
        other=make(want("b", "a"), want("c")),
        small=make(want("ev", lambda ev: ev.ctxt < 5)),
        prepare=make(want("other"), want("ev")),
    )
    explanation = proc.explain(Named("ev", 11))
    small = proc.nodes["small"].clauses[0].filters[0]
    declines = f"@want 1: filter {describe_callable(small)} declines"
    assert explanation.event == f"'ev' ({Named.__module__}.Named: Named('ev'))"
    assert explanation.error is None
    assert explanation.order == ("audit", "prepare", "report")
    assert explanation.handlers == (
        HandlerExplanation("audit", True, "wants every event", 0),
        HandlerExplanation("prepare", True, "@want 2 matches: name 'ev'", 1),
        HandlerExplanation(
            "report", True, f"@want 1 matches: name 'ev', {__name__}.is_big, {__name__}.is_odd", 2
        ),
        HandlerExplanation("other", False, "wants 'a', 'b', 'c'", None),
        HandlerExplanation("small", False, declines, None),
    )
    assert str(explanation).splitlines() == [
        f"event 'ev' ({Named.__module__}.Named: Named('ev'))",
        "  1 audit: wants every event",
        "  2 prepare: @want 2 matches: name 'ev'",
        f"  3 report: @want 1 matches: name 'ev', {__name__}.is_big, {__name__}.is_odd",
        "  - other: wants 'a', 'b', 'c'",
        f"  - small: {declines}",
    ]


def test_explain_names_a_clause_of_filters_only() -> None:
    explanation = processor_of(odd=make(want(functools.partial(is_odd)))).explain(Named("ev", 1))
    assert explanation.handlers[0].reason == f"@want 1 matches: {__name__}.is_odd"


def test_explain_of_no_handlers_is_empty() -> None:
    assert Processor().explain(Named()) == Explanation(
        f"'ev' ({Named.__module__}.Named: Named('ev'))", ()
    )


@pytest.mark.parametrize(
    ("a", "b", "text"),
    [
        (requires("gone"), want("ev"), "'a' requires 'gone', which is not registered"),
        (requires("b"), want("x"), "'a' requires 'b' (@requires), which does not want this event"),
        (requires("b"), requires("a"), "a -> b -> a"),
    ],
    ids=["missing", "declining", "cycle"],
)
def test_explain_holds_what_process_would_raise_and_gives_no_order(
    a: Any, b: Any, text: str
) -> None:
    proc = processor_of(a=make(a), b=make(b))
    explanation = proc.explain(Named())
    assert text in str(explanation.error)
    with pytest.raises(IncompatibleRequirementsException) as caught:
        proc.process(Named())
    assert str(caught.value) == str(explanation.error)
    assert explanation.order == ()
    # but it still says who wants the event, in registration order
    wants = [(entry.name, entry.matches, entry.position) for entry in explanation.handlers]
    assert wants == [("a", True, None), ("b", "does not want" not in text, None)]
    assert f"    error: {explanation.error}" in str(explanation).splitlines()


def test_explain_holds_what_a_filter_raised_first_and_asks_the_others() -> None:
    def fails_too(ev: Any) -> bool:
        raise StopProcessing

    proc = processor_of(
        fine=make(),
        failing=make(want("x"), want("ev", fails)),
        failing_too=make(want(fails_too)),
        odd=make(want(is_odd)),
    )
    explanation = proc.explain(Named("ev", 1))
    assert isinstance(explanation.error, KeyError)
    [note] = notes(explanation.error)
    assert "filter" in note
    assert "(@want 2)" in note
    assert "handler 'failing'" in note
    reasons = {entry.name: (entry.matches, entry.reason) for entry in explanation.handlers}
    assert reasons["failing"] == (False, "its filter raised KeyError: 'the key'")
    assert reasons["failing_too"] == (False, "its filter raised StopProcessing: Stop processing")
    assert reasons["fine"][0]
    assert reasons["odd"][0]
    assert explanation.order == ()
    assert "error: 'the key'" in str(explanation)


@pytest.mark.parametrize("wants", [[], [want("x")], [want("x"), want(is_odd)]], ids=len)
@pytest.mark.parametrize("name", [["unhashable"], {}], ids=repr)
def test_explain_of_a_name_that_process_refuses_holds_the_same_error(
    wants: list[Any], name: Any
) -> None:
    proc = processor_of(handler=make(*wants))
    with pytest.raises(TypeError) as caught:
        proc.process(Named(name, 1))
    explanation = proc.explain(Named(name, 1))
    assert explanation.order == ()
    assert isinstance(explanation.error, TypeError)
    assert str(explanation.error) == str(caught.value)


def test_explain_of_a_name_that_raises_holds_the_error() -> None:
    class Odd(evproc.Event):
        @property
        def name(self) -> str:
            raise RuntimeError("no name today")

    for handler in (make(), make(want("x"))):
        explanation = processor_of(handler=handler).explain(Odd())
        assert isinstance(explanation.error, RuntimeError)
        assert explanation.order == ()


@pytest.mark.parametrize("value", [5, None, Named], ids=["int", "None", "event class"])
def test_explain_of_what_is_no_event_does_not_say_that_handlers_would_run(value: Any) -> None:
    proc = processor_of(handler=make())
    with pytest.raises(TypeError) as caught:
        proc.process(value)
    try:
        explanation = proc.explain(value)
    except TypeError:
        return  # a mistake of the caller's, said at once
    assert str(explanation.error) == str(caught.value)
    assert explanation.order == ()


def test_explain_does_not_change_what_process_does() -> None:
    record = Recorder()
    proc = processor_of(b=want("ev")(record.handler("b")), a=required_by("b")(record.handler("a")))
    proc.explain(Named("ev"))
    assert record.take() == []
    proc.process(Named("ev"))
    assert record.take() == ["a", "b"]
    assert proc.explain(Named("ev")).order == ("a", "b")
    proc.register(record.handler("c"), "c")
    assert proc.explain(Named("ev")).order == ("a", "b", "c")


# --- the values ---


@pytest.mark.parametrize(
    "value",
    [
        Absence("a", "b"),
        Conflict("a", "b"),
        CheckReport(1),
        HandlerExplanation("a", True, "b"),
        Explanation("a", ()),
    ],
    ids=lambda value: type(value).__name__,
)
def test_reports_are_frozen(value: Any) -> None:
    with pytest.raises(AttributeError):
        setattr(value, value._fields[0], "changed")


def test_a_conflict_and_an_absence_are_printed_in_the_report() -> None:
    report = CheckReport(2, (Absence("a", "b"),), (Conflict("x", "why"), Conflict(None, "why not")))
    assert str(report).splitlines() == [
        "2 handlers, no cycle, no requirement missing",
        "absent: 'a' is required by 'b', which is not registered",
        "conflict: event 'x': why",
        "conflict: any other event: why not",
    ]
