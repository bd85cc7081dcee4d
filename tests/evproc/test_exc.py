"""The exceptions, `StopProcessing` above all, and the notes on other people's exceptions."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import evproc
from evproc import StopProcessing, exc
from evproc.exc import _unset, add_note
from tests.support.processors import notes

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def _copies() -> dict[str, Callable[[Any], Any]]:
    def pickled(protocol: int) -> Callable[[Any], Any]:
        return lambda value: pickle.loads(pickle.dumps(value, protocol))

    copies = {f"pickle {protocol}": pickled(protocol) for protocol in PROTOCOLS}
    return {**copies, "copy": copy.copy, "deepcopy": copy.deepcopy}


COPIES = _copies()
every_copy = pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)


class OddStop(StopProcessing):
    """Its constructor has nothing in common with that of StopProcessing."""

    def __init__(self, code: int, *, text: str) -> None:
        super().__init__({"code": code})
        self.text = text


class BareOddStop(StopProcessing):
    def __init__(self, code: int, *, text: str) -> None:
        super().__init__()
        self.code = code
        self.text = text


class ForgetfulStop(StopProcessing):
    def __init__(self, reason: str) -> None:  # without super().__init__()
        self.reason = reason


# --- StopProcessing ---


def test_stop_processing_without_a_value_is_not_stop_processing_with_none() -> None:
    assert StopProcessing().retval is _unset
    assert StopProcessing(None).retval is None
    assert StopProcessing(retval=5).retval == 5
    assert str(StopProcessing(5)) == "Stop processing"


def test_repr_shows_the_value() -> None:
    assert repr(StopProcessing()) == "StopProcessing()"
    assert repr(StopProcessing(None)) == "StopProcessing(None)"
    assert repr(StopProcessing({"a": 1})) == "StopProcessing({'a': 1})"
    assert repr(OddStop(7, text="seven")) == "OddStop({'code': 7})"
    assert repr(ForgetfulStop("no reason")) == "ForgetfulStop()"


def test_stop_processing_is_no_error_of_evproc() -> None:
    assert not issubclass(StopProcessing, evproc.EventException)


@every_copy
def test_a_copied_stop_processing_still_tells_none_from_no_value(
    copied: Callable[[Any], Any],
) -> None:
    assert copied(StopProcessing()).retval is _unset
    assert copied(StopProcessing(None)).retval is None
    stop = copied(StopProcessing([1, {"two": 2}]))
    assert type(stop) is StopProcessing
    assert stop.retval == [1, {"two": 2}]
    assert stop.args == StopProcessing(0).args
    assert str(stop) == "Stop processing"


@every_copy
def test_a_copied_subclass_is_rebuilt_without_its_constructor(copied: Callable[[Any], Any]) -> None:
    stop = copied(OddStop(7, text="seven"))
    assert type(stop) is OddStop
    assert (stop.retval, stop.text) == ({"code": 7}, "seven")

    bare = copied(BareOddStop(7, text="seven"))
    assert bare.retval is _unset
    assert (bare.code, bare.text) == (7, "seven")


@every_copy
def test_a_copied_stop_processing_keeps_its_notes_and_attributes(
    copied: Callable[[Any], Any],
) -> None:
    stop = StopProcessing(1)
    add_note(stop, "a note")
    stop.extra = [1]  # type: ignore[attr-defined]  # any attribute a handler sets
    loaded = copied(stop)
    assert notes(loaded) == ["a note"]
    assert loaded.extra == [1]
    # a copy of a copy as well
    assert copied(loaded).retval == 1


@every_copy
def test_the_mark_for_no_value_stays_itself(copied: Callable[[Any], Any]) -> None:
    assert copied(_unset) is _unset
    assert copied([_unset])[0] is _unset
    assert repr(_unset) == "<unset>"


def test_a_stop_processing_whose_constructor_forgets_its_base_is_one_without_a_value() -> None:
    class Ev(evproc.Event):
        name = "ev"

    calls = []

    def stops(proc: Any, ev: Any) -> None:
        calls.append("stops")
        raise ForgetfulStop("enough")

    def later(proc: Any, ev: Any) -> None:
        calls.append("later")

    processor = evproc.Processor()
    processor.register(stops)
    processor.register(later)
    assert processor.process(Ev()) is None
    assert calls == ["stops"]


# --- the others ---


@pytest.mark.parametrize(
    ("error", "bases"),
    [
        (evproc.ProcessorReregisterException, [evproc.EventException]),
        (evproc.IncompatibleRequirementsException, [evproc.EventException]),
        (evproc.HandlerReturnException, [evproc.EventException, TypeError]),
        (evproc.EntryPointException, [evproc.EventException]),
        (evproc.EntryPointGroupException, [evproc.EntryPointException]),
        (evproc.EntryPointLoadException, [evproc.EntryPointException]),
        (evproc.EntryPointTypeException, [evproc.EntryPointException, TypeError]),
        (
            evproc.EntryPointConflictException,
            [evproc.EntryPointException, evproc.ProcessorReregisterException],
        ),
    ],
)
def test_what_can_be_caught_as_what(error: type[Exception], bases: list[type[Exception]]) -> None:
    for base in [*bases, evproc.EventException]:
        assert issubclass(error, base)
    assert getattr(exc, error.__name__) is error


@every_copy
@pytest.mark.parametrize(
    "cls",
    [
        evproc.EntryPointException,
        evproc.EntryPointGroupException,
        evproc.EntryPointLoadException,
        evproc.EntryPointTypeException,
        evproc.EntryPointConflictException,
    ],
)
def test_entry_point_errors_survive_copying(
    cls: type[evproc.EntryPointException], copied: Callable[[Any], Any]
) -> None:
    for made in (
        cls("what went wrong", "a.group", "an entry"),
        cls("what went wrong", entry_point="an entry", group="a.group"),
    ):
        error = copied(made)
        assert type(error) is cls
        assert str(error) == "what went wrong"
        assert (error.group, error.entry_point) == ("a.group", "an entry")
    assert copied(cls("as a whole", "a.group")).entry_point is None


@every_copy
@pytest.mark.parametrize(
    "error",
    [
        evproc.ProcessorReregisterException("text"),
        evproc.IncompatibleRequirementsException("text"),
        evproc.HandlerReturnException("text"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_the_other_errors_survive_copying(error: Exception, copied: Callable[[Any], Any]) -> None:
    loaded = copied(error)
    assert type(loaded) is type(error)
    assert str(loaded) == "text"


# --- notes ---


def _raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    """Raise it, so that it has a traceback."""
    try:
        if cause is None:
            raise error
        raise error from cause
    except BaseException as caught:
        return caught


def _shown(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def test_a_note_leaves_type_and_arguments_alone_and_is_shown_in_the_traceback() -> None:
    error = _raised(ValueError("original", 1))
    add_note(error, "the note")
    assert type(error) is ValueError
    assert error.args == ("original", 1)
    assert notes(error) == ["the note"]
    assert "the note" in _shown(error)
    assert "original" in _shown(error)


def test_the_same_note_is_added_once() -> None:
    error = ValueError("original")
    for _ in range(5):
        add_note(_raised(error), "the note")
    assert notes(error) == ["the note"]


def test_different_notes_are_all_shown_in_order() -> None:
    error = _raised(ValueError("original"))
    for number in range(3):
        add_note(error, f"note {number}")
    assert notes(error) == ["note 0", "note 1", "note 2"]
    shown = _shown(error)
    assert shown.index("note 0") < shown.index("note 1") < shown.index("note 2")


def test_a_note_leaves_cause_and_context_in_the_traceback() -> None:
    caused = _raised(ValueError("outer"), _raised(KeyError("the cause")))
    add_note(caused, "the note")
    assert isinstance(caused.__cause__, KeyError)
    for text in ("outer", "the cause", "the note", "direct cause"):
        assert text in _shown(caused)

    error = ValueError("outer")
    error.__context__ = _raised(KeyError("the context"))
    add_note(_raised(error), "the note")
    assert isinstance(error.__context__, KeyError)
    for text in ("outer", "the context", "the note"):
        assert text in _shown(error)


def test_a_context_that_was_suppressed_stays_suppressed() -> None:
    error = ValueError("outer")
    error.__context__ = _raised(KeyError("the context"))
    error.__suppress_context__ = True  # as `from None` does
    add_note(_raised(error), "the note")
    assert "the context" not in _shown(error)
    assert "the note" in _shown(error)


def test_a_chain_of_causes_that_is_a_circle_takes_a_note() -> None:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    add_note(first, "the note")
    assert notes(first) == ["the note"]


def test_an_exception_that_takes_no_note_goes_on_without() -> None:
    class NoNotes(Exception):
        def add_note(self, text: str) -> None:
            raise RuntimeError("no notes")

        def __setattr__(self, name: str, value: Any) -> None:
            raise RuntimeError("no attributes")

    error = NoNotes("original")
    add_note(error, "the note")
    assert error.args == ("original",)
    assert notes(error) == []

    strange: Any = ValueError("original")
    strange.__notes__ = 5  # nobody checks what is set
    add_note(strange, "the note")
    assert strange.__notes__ == 5


def test_an_exception_whose_attributes_raise_goes_on_without_a_note() -> None:
    class Hostile(Exception):
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError(f"asked for {name}")

    error = Hostile("original")
    add_note(error, "the note")
    assert error.args == ("original",)


_UNCAUGHT = """
import evproc

class Ev(evproc.Event):
    name = "an event"

error = ValueError("original")

def handler(proc, ev):
    raise error

processor = evproc.Processor()
processor.register(handler)
for _ in range(3):
    try:
        processor.process(Ev())
    except ValueError:
        pass
processor.process(Ev())
"""


def test_an_uncaught_error_of_a_handler_shows_its_note_once() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _UNCAUGHT],
        cwd=Path(__file__).parents[2],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.count("ValueError: original") == 1
    note = (
        "evproc: raised by handler 'handler' (__main__.handler) on event 'an event' (__main__.Ev)"
    )
    assert done.stderr.count(note) == 1
