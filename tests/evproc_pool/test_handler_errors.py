"""What a handler raises is raised by the pool, with where it came from."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

import evproc
from evproc import HandlerReturnException, Processor, StopProcessing
from evproc_pool import PoolProcessor, RemoteError, RemoteTraceback
from tests.support import actions
from tests.support.actions import Do
from tests.support.helpers import ending, endings, error_of, notes_of, register_all

Raises = Callable[..., BaseException]

_ERRORS: list[tuple[Any, ...]] = [
    (ValueError, "text"),
    (KeyError, "key"),
    (OSError, 2, "no such file"),
    (ZeroDivisionError,),
    (StopIteration, 5),
    (StopAsyncIteration,),
    (AssertionError, "assertion"),
    (MemoryError,),
    (TimeoutError, "late"),
    (evproc.ProcessorReregisterException, "name"),
    (actions.HasItsOwnReduce, 3),
    (actions.local_error, "local"),
    (actions.Leaves, "base"),
    (SystemExit, 3),
    (SystemExit,),
    (KeyboardInterrupt,),
    (GeneratorExit,),
]


@pytest.fixture
def serial() -> Processor:
    processor: Processor = register_all(Processor(), [actions.act])
    return processor


@pytest.mark.parametrize("error", _ERRORS, ids=lambda error: str(getattr(error[0], "__name__", "")))
def test_the_pool_raises_what_a_processor_raises(
    shared_pool: PoolProcessor, serial: Processor, error: tuple[Any, ...]
) -> None:
    expected = error_of(lambda: serial.process(Do("fail", *error)))
    raised = error_of(lambda: shared_pool.process(Do("fail", *error)))
    # a local class is made anew by each call
    assert type(raised).__name__ == type(expected).__name__
    assert raised.args == expected.args
    assert isinstance(raised, type(expected)) or error[0] is actions.local_error
    assert isinstance(raised.__cause__, RemoteTraceback)
    assert "in fail\n" in str(raised.__cause__)
    assert "raise error(*args)" in str(raised.__cause__)
    # the pool is none the worse for it
    assert shared_pool.process(Do("stop", 1)) == 1


@pytest.mark.parametrize("error", _ERRORS, ids=lambda error: str(getattr(error[0], "__name__", "")))
def test_without_workers_the_same_is_raised(serial: Processor, error: tuple[Any, ...]) -> None:
    expected = error_of(lambda: serial.process(Do("fail", *error)))
    pool: PoolProcessor = register_all(PoolProcessor(workers=0), [actions.act])
    raised = error_of(lambda: pool.process(Do("fail", *error)))
    assert type(raised).__name__ == type(expected).__name__
    assert raised.args == expected.args


# not KeyboardInterrupt: in one process that is somebody at the keyboard
_OTHERS = [ValueError, StopIteration, actions.Leaves, SystemExit]


@pytest.mark.parametrize("error", _OTHERS)
def test_a_failure_in_a_list_is_the_same_with_and_without_workers(
    shared_pool: PoolProcessor, error: type[BaseException]
) -> None:
    here: PoolProcessor = register_all(PoolProcessor(workers=0), [actions.act])

    def play(pool: PoolProcessor) -> list[Any]:
        events = [Do("stop", 1), Do("fail", error, 2), Do("stop", 3)]
        return endings(pool.process_many(events, return_exceptions=True))

    assert ending(lambda: play(here)) == ending(lambda: play(shared_pool))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("error", _OTHERS)
def test_a_future_takes_every_failure(
    shared_pool: PoolProcessor, workers: int, error: type[BaseException]
) -> None:
    pool = shared_pool
    if workers == 0:
        pool = register_all(PoolProcessor(workers=0), [actions.act])
    futures = ending(lambda: pool.submit(Do("fail", error, "text")))
    assert isinstance(futures.value, Future), f"submit itself raises {futures.error}"
    assert type(futures.value.exception()) is error


@pytest.mark.parametrize(
    ("make", "text"),
    [
        ((actions.HasALock, "locked"), "locked"),
        ((actions.CannotReduce, "stubborn"), "stubborn"),
        ((actions.ReducesToSomethingElse, "other"), "other"),
    ],
    ids=lambda make: str(getattr(make[0], "__name__", "")),
)
def test_an_error_that_cannot_be_brought_here_is_told_about(
    shared_pool: PoolProcessor, make: tuple[Any, ...], text: str
) -> None:
    raised = error_of(lambda: shared_pool.process(Do("fail", *make)))
    assert isinstance(raised, RemoteError)
    assert raised.type_name == f"{actions.__name__}.{make[0].__name__}"
    assert raised.text == text
    assert "raise error(*args)" in raised.traceback
    assert isinstance(raised.__cause__, RemoteTraceback)
    assert str(make[0].__name__) in str(raised)


def _needs_arguments() -> BaseException:
    return actions.NeedsArguments(1, second=2)


def test_an_error_whose_constructor_needs_more_than_its_args(shared_pool: PoolProcessor) -> None:
    raised = error_of(lambda: shared_pool.process(Do("fail", _needs_arguments)))
    if isinstance(raised, RemoteError):
        assert raised.type_name == f"{actions.__name__}.NeedsArguments"
        assert raised.text == "1 2"
    else:
        assert isinstance(raised, actions.NeedsArguments)
        assert raised.args == ("1 2",)
        assert (raised.first, raised.second) == (1, 2)


def test_an_error_that_words_its_argument_is_not_worded_twice(shared_pool: PoolProcessor) -> None:
    raised = error_of(lambda: shared_pool.process(Do("fail", actions.WordsItsArgument, 5)))
    assert (raised.args, str(raised)) == (("code 5",), "code 5")


def test_an_exception_group_is_raised_whole(shared_pool: PoolProcessor) -> None:
    raised: Any = error_of(lambda: shared_pool.process(Do("fail", actions.grouped)))
    assert repr(raised) == repr(actions.grouped())
    assert [type(each).__name__ for each in raised.exceptions] == ["ValueError", "ExceptionGroup"]


def test_a_recursion_error_is_an_error_like_others(shared_pool: PoolProcessor) -> None:
    raised = error_of(lambda: shared_pool.process(Do("recurse")))
    assert isinstance(raised, RecursionError)
    assert "in deeper" in str(raised.__cause__)
    assert shared_pool.process(Do("stop", 1)) == 1


def _chained() -> BaseException:
    error = ValueError("later")
    error.__cause__ = KeyError("earlier")
    return error


def test_the_remote_traceback_shows_the_whole_chain(shared_pool: PoolProcessor) -> None:
    raised = error_of(lambda: shared_pool.process(Do("fail", _chained)))
    text = "".join(traceback.format_exception(type(raised), raised, raised.__traceback__))
    assert "KeyError: 'earlier'" in text
    assert "ValueError: later" in text
    assert "raise error(*args)" in text


@pytest.mark.parametrize(
    "make",
    [
        (ValueError, "text"),
        (actions.HasItsOwnReduce, 3),
        (actions.HasALock, "text"),
        (actions.Leaves, "text"),
    ],
    ids=["plain", "own reduce", "cannot be pickled", "no Exception"],
)
def test_a_note_names_handler_event_and_worker(
    shared_pool: PoolProcessor, make: tuple[Any, ...]
) -> None:
    raised = error_of(lambda: shared_pool.process(Do("fail", *make)))
    notes = notes_of(raised)
    assert "'act'" in notes
    assert "'do' (tests.support.actions.Do: Do('fail'))" in notes
    assert "worker" in notes
    assert str(os.getpid()) not in notes


def test_the_handlers_own_notes_are_kept(shared_pool: PoolProcessor) -> None:
    raised = error_of(lambda: shared_pool.process(Do("fail", actions.noted, "text", "my note")))
    assert "my note" in notes_of(raised)


def test_an_error_of_a_follow_up_ends_the_cascade(
    shared_pool: PoolProcessor, serial: Processor
) -> None:
    def cascade() -> Do:
        return Do("follow", Do("nothing"), Do("fail", KeyError, "inner"), Do("stop", "never"))

    expected = error_of(lambda: serial.process(cascade()))
    raised = error_of(lambda: shared_pool.process(cascade()))
    assert (type(raised), raised.args) == (type(expected), expected.args) == (KeyError, ("inner",))


def test_what_is_returned_and_is_no_events_is_the_same_error(
    shared_pool: PoolProcessor, serial: Processor
) -> None:
    for wrong in ((5,), (Do("nothing"), "text")):
        expected = error_of(lambda: serial.process(Do("follow", *wrong)))  # noqa: B023 - called at once
        raised = error_of(lambda: shared_pool.process(Do("follow", *wrong)))  # noqa: B023 - called at once
        assert isinstance(raised, HandlerReturnException)
        assert raised.args == expected.args


def test_a_stop_without_a_value_is_not_a_stop_with_none(shared_pool: PoolProcessor) -> None:
    # the first goes on with the cascade, the second ends it
    goes_on = Do("follow", Do("fail", StopProcessing), Do("stop", "went on"))
    ends = Do("follow", Do("stop", None), Do("stop", "went on"))
    assert shared_pool.process_many([goes_on, ends]) == ["went on", None]


def test_an_error_raised_again_and_again_does_not_grow(shared_pool: PoolProcessor) -> None:
    first, second = (
        error_of(lambda: shared_pool.process(Do("fail", ValueError, "text"))) for _ in range(2)
    )
    assert first is not second
    assert len(notes_of(first).splitlines()) == len(notes_of(second).splitlines())


def test_a_handler_may_process_events_with_the_processor_it_is_given(
    shared_pool: PoolProcessor,
) -> None:
    assert shared_pool.process(actions.Nested(5)) == ("nested", 5)
