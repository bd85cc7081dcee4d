"""`unmatched="error"`: an event that no handler wants."""

from __future__ import annotations

from typing import Any

import pytest

from evproc import Processor, StopProcessing, UnmatchedEventException, want
from tests.support.processors import Named, Recorder


def _processor(**handlers: Any) -> Processor:
    proc = Processor(unmatched="error")
    for name, handler in handlers.items():
        proc.register(handler, name)
    return proc


def _said(proc: Processor, ev: Any) -> str:
    said = set()
    for _ in range(2):  # before and after the index is made
        with pytest.raises(UnmatchedEventException) as caught:
            proc.process(ev)
        said.add(str(caught.value))
    explained = proc.explain(ev)
    assert isinstance(explained.error, UnmatchedEventException)
    assert str(explained.error) in said
    assert explained.order == ()
    (text,) = said
    return text


def test_by_default_such_an_event_is_ignored() -> None:
    for proc in (Processor(), Processor(unmatched="ignore")):
        assert proc.process(Named()) is None
        assert proc.explain(Named()).error is None


def test_the_error_names_the_event_and_names_like_its_own() -> None:
    proc = _processor(ordered=want("oder", "offer")(Recorder().handler("ordered")))
    text = _said(proc, Named("order"))
    assert f"no handler wants event 'order' ({Named.__module__}.Named" in text
    assert "@want('order')" in text
    assert "did you mean 'oder' or 'offer'?" in text
    assert "explain(ev)" in text
    text = _said(proc, Named("quite another"))
    assert "did you mean" not in text
    assert proc.process(Named("oder")) is None


def test_the_error_names_handlers_whose_filters_decline() -> None:
    proc = _processor(
        by_name=want("ev", lambda ev: ev.ctxt)(Recorder().handler("by_name")),
        by_filter=want(lambda ev: ev.ctxt)(Recorder().handler("by_filter")),
    )
    assert "the filters of 'by_name', 'by_filter' decline it" in _said(proc, Named("ev"))
    assert "the filters of 'by_filter' decline it" in _said(proc, Named("other"))
    assert proc.process(Named("ev", True)) is None
    assert proc.process(Named("other", True)) is None
    _said(proc, Named("ev"))


def test_the_error_says_that_there_are_no_handlers() -> None:
    assert "none is registered" in _said(_processor(), Named())


def test_a_follow_up_that_nobody_wants_ends_its_cascade() -> None:
    record = Recorder()

    def root(proc: Any, ev: Any) -> list[Named]:
        return [Named("wanted"), Named("unwanted"), Named("wanted")]

    proc = _processor(root=want("root")(root), wanted=want("wanted")(record.handler("wanted")))
    with pytest.raises(UnmatchedEventException, match="'unwanted'"):
        proc.process(Named("root"))
    assert record.take() == ["wanted"]


def test_such_events_have_no_plan_in_common() -> None:
    registry = _processor(some=want("some")(Recorder().handler("some"))).registry
    assert registry.match(Named("some")).indices == (0,)
    for _ in range(2):
        with pytest.raises(UnmatchedEventException):
            registry.match(Named("other"))
        assert registry.common_plan([Named("other")]) is None
        assert registry.plan_of_name("other") is None
    assert registry.plan_of_name("some") is not None


def test_a_handler_that_is_registered_later_counts() -> None:
    proc = _processor()
    _said(proc, Named())
    proc.register(_stops)
    assert proc.process(Named()) == "handled"
    proc.unregister("_stops")
    _said(proc, Named())


def _stops(proc: Any, ev: Any) -> None:
    raise StopProcessing("handled")


@pytest.mark.parametrize("unmatched", ["raise", None, True])
def test_other_values_are_refused(unmatched: Any) -> None:
    with pytest.raises(ValueError, match="unmatched is 'ignore' or 'error', not "):
        Processor(unmatched=unmatched)
