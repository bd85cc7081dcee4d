"""The text of tracebacks equals that of Python."""

from __future__ import annotations

import traceback
from collections.abc import Callable

import pytest

from evproc.exc import add_note
from evproc_pool.protocol import messages
from evproc_pool.protocol.traceback_text import traceback_text


def _fail(number: int) -> None:
    raise ValueError(f"number {number}") if number else KeyError("none")


def _dive(depth: int) -> None:
    if not depth:
        _fail(0)
    _dive(depth - 1)


def _chained() -> None:
    try:
        _fail(1)
    except ValueError as error:
        raise RuntimeError("in turn") from error


def _context() -> None:
    try:
        _fail(1)
    except ValueError:
        _fail(0)


def _syntax() -> None:
    compile("a b", "text", "exec")


def _noted() -> None:
    error = ValueError("with a note")
    add_note(error, "the note")
    raise error


_FAILS: list[Callable[[], None]] = [
    lambda: _fail(1),
    lambda: _fail(2),
    lambda: _dive(3),
    lambda: _dive(200),
    _chained,
    _context,
    _syntax,
    _noted,
]


def _error_of(fails: Callable[[], None]) -> BaseException:
    try:
        fails()
    except Exception as error:
        return error
    raise AssertionError("it does not fail")


@pytest.mark.parametrize("number", range(len(_FAILS)))
def test_the_text_equals_that_of_python(number: int) -> None:
    for _ in range(2):
        error = _error_of(_FAILS[number])
        assert traceback_text(error) == "".join(traceback.format_exception(error))


def test_an_error_that_was_not_raised_has_a_text() -> None:
    assert traceback_text(ValueError("only made")) == "ValueError: only made\n"


def test_the_text_of_a_frame_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = traceback_text(_error_of(lambda: _fail(1)))
    monkeypatch.setattr(traceback, "format_tb", None)
    with pytest.raises(TypeError):
        traceback_text(_error_of(lambda: _fail(1)))  # this lambda is another place
    fails = _FAILS[0]
    monkeypatch.undo()
    traceback_text(_error_of(fails))
    monkeypatch.setattr(traceback, "format_tb", None)
    assert traceback_text(_error_of(fails)).splitlines()[-1] == first.splitlines()[-1]


class _Odd(ValueError):
    pass


@pytest.mark.parametrize("error", [ValueError("x", 3), KeyError(None), _Odd("x"), OSError(2, "no")])
def test_an_error_round_trips(error: Exception) -> None:
    add_note(error, "evproc: in __main__.handler")
    copy = messages.decode_error(messages.encode_error(error, "h"))
    assert type(copy) is type(error)
    assert copy.args == error.args
    assert str(copy) == str(error)
