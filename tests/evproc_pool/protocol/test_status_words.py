"""The status words: both processes see them, and nothing of them is left behind."""

from __future__ import annotations

import multiprocessing
import os

import pytest

from evproc_pool.ipc.resources import StatusMemory
from evproc_pool.protocol import status_words
from evproc_pool.protocol.status_words import WorkerStatus


def _write(words: StatusMemory, *values: int) -> None:
    for place, value in enumerate(values):
        words.words[place] = value


def _place(position: int, handler: int | None) -> int:
    return position << status_words.HANDLER_BITS | (0 if handler is None else handler + 1)


def test_new_words_say_that_nothing_runs() -> None:
    words = StatusMemory.create()
    assert words.read() == WorkerStatus(0, status_words.NONE, None, None)
    words.close()


@pytest.mark.parametrize("position", [0, 1, 2047, 2**31])
@pytest.mark.parametrize("handler", [None, 0, 1, 2 ** (status_words.HANDLER_BITS - 1) - 2])
def test_what_is_written_is_read(position: int, handler: int | None) -> None:
    words = StatusMemory.create()
    _write(words, 5, _place(position, handler), 3)
    assert words.read() == WorkerStatus(5, position, handler, 3)
    _write(words, 5, _place(position, handler), status_words.NONE)
    assert words.read() == WorkerStatus(5, position, handler, None)
    words.close()


def test_an_event_that_is_over_may_have_an_unreported_result() -> None:
    words = StatusMemory.create()
    _write(words, 5, _place(7, 3) | status_words.UNREPORTED, 7)
    assert words.read() == WorkerStatus(5, 7, 3, 7, is_over=True, is_unreported=True)
    _write(words, 5, 7 << status_words.HANDLER_BITS | status_words.AGAIN, 7)
    again = WorkerStatus(5, 7, None, 7, is_over=True, is_unreported=True, may_repeat=True)
    assert words.read() == again
    _write(words, 5, 7 << status_words.HANDLER_BITS | status_words.OVER, 7)
    assert words.read() == WorkerStatus(5, 7, None, 7, is_over=True)
    words.close()


def test_user_code_runs_in_an_event_and_while_its_results_are_packed() -> None:
    words = StatusMemory.create()
    over = 7 << status_words.HANDLER_BITS | status_words.OVER
    assert words.read().runs_code
    _write(words, 5, over, 7)
    assert not words.read().runs_code
    words.words[status_words.PACKING] = status_words.packing(range(32, 41))
    assert words.read() == WorkerStatus(5, 7, None, 7, is_over=True, packing=9, packed=32)
    assert words.read().runs_code
    seen = words.read().activity
    words.words[status_words.PACKING] = status_words.packing(range(48, 57))
    assert words.read().activity != seen
    words.words[status_words.PACKING] = 0
    words.words[status_words.FLUSHING] = 1
    assert words.read() == WorkerStatus(5, 7, None, 7, is_over=True, is_flushing=True)
    assert words.read().runs_code
    words.close()


@pytest.mark.parametrize("place", [status_words.NONE, status_words.UNPICKLING])
def test_between_events_there_is_no_handler_and_nothing_unsent(place: int) -> None:
    words = StatusMemory.create()
    _write(words, 2**62, place, 7)
    assert words.read() == WorkerStatus(2**62, place, None, None)
    words.close()


def test_events_behind_the_workers_current_one_are_taken_back() -> None:
    words = StatusMemory.create()
    _write(words, 4, _place(10, 2), status_words.NONE)
    seen = words.read()
    _write(words, 4, _place(10, 3), status_words.NONE)  # another handler of the same event
    assert words.take_back(seen, 6)
    assert words.words[status_words.TAKEN] == status_words.event_at(4, 11)
    assert words.words[status_words.TAKEN_TO] == 6
    words.close()


@pytest.mark.parametrize(("batch", "position"), [(4, 11), (5, 10)])
def test_nothing_is_taken_from_a_worker_that_has_moved_on(batch: int, position: int) -> None:
    words = StatusMemory.create()
    _write(words, 4, _place(10, 2), status_words.NONE)
    seen = words.read()
    _write(words, batch, _place(position, 2), status_words.NONE)
    assert not words.take_back(seen, 6)
    words.close()


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
@pytest.mark.filterwarnings(
    # from Python 3.12 on; other tests may have left threads in native libraries
    "ignore:This process .* is multi-threaded:DeprecationWarning"
)
def test_words_that_a_dead_process_wrote_can_be_read(method: str) -> None:
    words = StatusMemory.create()
    process = multiprocessing.get_context(method).Process(  # type: ignore[attr-defined]  # each context has it
        target=_write_and_die, args=(words,)
    )
    process.start()
    process.join()
    assert process.exitcode == 7
    assert words.read() == WorkerStatus(11, 22, 33, 44)
    process.close()
    words.close()


def _write_and_die(words: StatusMemory) -> None:
    _write(words, 11, _place(22, 33), 44)
    os._exit(7)


def test_closing_closes_the_descriptor() -> None:
    words = StatusMemory.create()
    descriptor = words._fd
    os.fstat(descriptor)
    words.close()
    with pytest.raises(OSError):  # noqa: PT011 - it is closed, says the system
        os.fstat(descriptor)


def test_the_constants_are_no_positions() -> None:
    assert status_words.NONE < 0
    assert status_words.UNPICKLING < 0
    assert len({status_words.NONE, status_words.UNPICKLING}) == 2
