"""Messages as bytes: errors, and times."""

from __future__ import annotations

import pickle
import threading
from array import array
from collections.abc import Callable
from typing import Any

import cloudpickle
import pytest

from evproc import StopProcessing
from evproc_pool import (
    PoolBrokenError,
    PoolBusyError,
    PoolClosedError,
    PoolError,
    PoolForkedError,
    RegistryMismatchError,
    RemoteError,
    RemoteTraceback,
    SerializationError,
    WorkerLostError,
)
from evproc_pool.protocol import messages
from tests.support import actions
from tests.support.helpers import notes_of


def _raised(error: BaseException) -> BaseException:
    """An error with a traceback that names `_raised`."""
    try:
        raise error
    except BaseException as raised:
        return raised


def _across(error: BaseException, handler: str | None = "handler") -> BaseException:
    record = messages.encode_error(_raised(error), handler)
    assert record.handler == handler
    # it is what is sent: plain data
    return messages.decode_error(pickle.loads(pickle.dumps(record)))


@pytest.mark.parametrize(
    "error",
    [
        ValueError("text"),
        KeyError("key", 2),
        OSError(2, "no such file", "name"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "reason"),
        StopIteration(3),
        StopProcessing(4),
        StopProcessing(),
        SystemExit(5),
        KeyboardInterrupt(),
        GeneratorExit(),
        actions.Leaves("base"),
        actions.HasItsOwnReduce(3, text="x"),
        actions.local_error("local"),
        RecursionError("deep"),
        MemoryError(),
        SerializationError("text"),
        WorkerLostError("text", "event", "handler", -9, 2),
        RemoteError("a.B", "text", "traceback"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_keeps_type_and_arguments(error: BaseException) -> None:
    rebuilt = _across(error)
    assert type(rebuilt) is type(error)
    assert rebuilt.args == error.args
    assert str(rebuilt) == str(error)
    assert getattr(rebuilt, "retval", 0) == getattr(error, "retval", 0)


def test_an_error_whose_constructor_changes_its_argument_keeps_its_arguments() -> None:
    # pickle would hand the worded text to the constructor once more
    rebuilt = _across(actions.WordsItsArgument(5))
    assert isinstance(rebuilt, (actions.WordsItsArgument, RemoteError))
    assert "code code" not in str(rebuilt)
    if isinstance(rebuilt, actions.WordsItsArgument):
        assert rebuilt.args == ("code 5",)


def test_an_exception_group_arrives_whole() -> None:
    rebuilt: Any = _across(actions.grouped())
    assert type(rebuilt).__name__ == "ExceptionGroup"
    assert repr(rebuilt) == repr(actions.grouped())


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: actions.NeedsArguments(1, second=2), "1 2"),
        (lambda: actions.HasALock("locked"), "locked"),
        (lambda: actions.CannotReduce("stubborn"), "stubborn"),
        (lambda: actions.ReducesToSomethingElse("other"), "other"),
        (lambda: ValueError(threading.Lock()), "lock"),
        (actions.BadText, "<unprintable>"),
    ],
)
def test_an_error_that_may_not_pickle_keeps_its_name_and_text(
    make: Callable[[], BaseException], text: str
) -> None:
    error = make()
    rebuilt = _across(error)
    name = type(error).__qualname__
    if isinstance(rebuilt, RemoteError):
        assert rebuilt.type_name.endswith(f".{name}")
        assert text in rebuilt.text
        assert name in str(rebuilt)
        assert "_raised" in rebuilt.traceback
    else:  # if it can be rebuilt without its constructor, all the better
        assert type(rebuilt) is type(error)
        assert rebuilt.args == error.args


@pytest.mark.parametrize(
    "make",
    [
        lambda: ValueError(1),
        lambda: actions.NeedsArguments(1, second=2),
        lambda: actions.HasItsOwnReduce(3),
    ],
    ids=["plain", "cannot cross", "own reduce"],
)
def test_the_cause_is_the_remote_traceback(make: Callable[[], BaseException]) -> None:
    rebuilt = _across(make())
    assert isinstance(rebuilt.__cause__, RemoteTraceback)
    text = str(rebuilt.__cause__)
    assert "in _raised" in text
    assert "raise error" in text


@pytest.mark.parametrize(
    "make",
    [
        lambda: ValueError(1),
        lambda: actions.HasItsOwnReduce(3),
        lambda: actions.NeedsArguments(1, second=2),
        lambda: actions.HasALock("text"),
    ],
    ids=["plain", "own reduce", "cannot be rebuilt", "cannot be pickled"],
)
def test_notes_are_kept(make: Callable[[], Any]) -> None:
    error = make()
    error.__notes__ = ["first note", "second note"]
    assert getattr(_across(error), "__notes__", None) == ["first note", "second note"]


class _BadModule(Exception):
    __module__ = None  # type: ignore[assignment]  # that is the point


@pytest.mark.parametrize(
    "make",
    [
        actions.BadText,
        actions.HasABadNotes,
        _BadModule,
        lambda: _with_notes(ValueError(1), 5),
        lambda: _with_notes(ValueError(1), [5, "note"]),
        lambda: ValueError(actions.BadRepr()),
        lambda: _caused(ValueError(1), actions.BadText()),
        lambda: StopProcessing(threading.Lock()),
    ],
    ids=[
        "no text",
        "no notes",
        "no module",
        "notes that are none",
        "a note that is none",
        "no repr",
        "a cause without text",
        "a value that cannot be pickled",
    ],
)
def test_encoding_an_error_never_fails(make: Callable[[], BaseException]) -> None:
    error = make()
    assert isinstance(_across(error), (type(error), RemoteError))


class _Text(str):
    """Its constructor needs more than its text."""

    __slots__ = ()

    def __new__(cls, text: str, code: int) -> _Text:  # noqa: PYI034 - as in `PoolProcessor`
        return super().__new__(cls, f"{text} {code}")


class _Worded(Exception):
    def __str__(self) -> str:
        return _Text("bad", 5)

    def __reduce__(self) -> Any:
        raise TypeError("stays here")


def test_subclasses_of_str_arrive_as_str() -> None:
    error = _across(_with_notes(_Worded(), [_Text("note", 1)]))
    assert isinstance(error, RemoteError)
    assert error.text == "bad 5"
    assert "note 1" in notes_of(error)


def _with_notes(error: BaseException, notes: object) -> BaseException:
    error.__notes__ = notes  # type: ignore[assignment]  # some are none
    return error


def _caused(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


def test_an_error_that_cannot_be_rebuilt_becomes_a_remote_error() -> None:
    record = messages.encode_error(ValueError("text"), None)
    broken = record._replace(pickled=cloudpickle.dumps(actions.LoadsOnlyInWorkers()))
    rebuilt = messages.decode_error(broken)
    assert isinstance(rebuilt, RemoteError)
    assert (rebuilt.type_name, rebuilt.text) == ("builtins.ValueError", "text")
    no_error = messages.decode_error(record._replace(pickled=pickle.dumps("no error")))
    assert isinstance(no_error, RemoteError)


# --- the pool's own errors ---

_OWN = [
    PoolError("text"),
    PoolBrokenError("text"),
    PoolBusyError("text"),
    PoolClosedError("text"),
    PoolForkedError("text"),
    RegistryMismatchError("text"),
    RemoteError("a.B", "text", "trace"),
    RemoteTraceback("text"),
    SerializationError("text"),
    WorkerLostError("text", "event", "handler", -11, 3),
]


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("error", _OWN, ids=lambda error: type(error).__name__)
def test_every_error_of_the_pool_can_be_pickled(error: Exception, protocol: int) -> None:
    rebuilt = pickle.loads(pickle.dumps(error, protocol))
    assert type(rebuilt) is type(error)
    assert rebuilt.args == error.args
    assert str(rebuilt) == str(error)
    assert vars(rebuilt) == vars(error)


@pytest.mark.parametrize("error", _OWN, ids=lambda error: type(error).__name__)
def test_every_error_of_the_pool_shows_its_message(error: Exception) -> None:
    assert "text" in str(error)
    # all but the cause of other errors are caught by the base class
    assert isinstance(error, PoolError) or type(error) is RemoteTraceback


@pytest.mark.parametrize("begins", [[], [0.5, 1.5, 2.5]])
def test_the_begins_of_handlers_travel_beside_the_ends_of_events(begins: list[float]) -> None:
    ends = array("d", [1.0, 2.0])
    row = array("d", begins)
    quiet = messages.dump_quiet(
        2, ends.tobytes(), 0.25, gave_back=False, number=7, begins=row.tobytes()
    )
    progress = messages.ProgressFrame(
        2, 0.25, ends.tobytes(), None, False, None, number=7, begins=row.tobytes()
    )
    for frame in (
        messages.load_quiet(quiet),
        messages.load_quiet(memoryview(quiet)),
        messages.load_progress(messages.dump_progress(progress)),
    ):
        assert (frame.done, frame.begun, frame.number) == (2, 0.25, 7)
        assert array("d", bytes(frame.ends)) == ends
        assert array("d", bytes(frame.begins)) == row
    assert messages.is_quiet_end(quiet)
