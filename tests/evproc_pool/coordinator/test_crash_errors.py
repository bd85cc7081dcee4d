"""What the error of a worker's death says: how it ended, where it was, and what to do."""

from __future__ import annotations

import copy
import pickle
import signal
import sys
import traceback
from concurrent.futures import BrokenExecutor

import pytest

from evproc_pool.coordinator.crash_errors import (
    Lost,
    cannot_start,
    describe_exit,
    say_fate,
    timed_out,
    too_large,
    worker_lost,
)
from evproc_pool.errors import PoolBrokenError, PoolError
from evproc_pool.protocol import messages
from evproc_pool.protocol.backend import Gone
from evproc_pool.protocol.status_words import WorkerStatus
from tests.support.actions import Do

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")


def lost(
    *,
    exitcode: int | None = -signal.SIGKILL,
    handler: str | None = "act",
    at: WorkerStatus | None = None,
    memory_bytes: int | None = None,
) -> Lost:
    return Lost(Gone(3, 77, exitcode, at), Do("stop"), handler, 1, memory_bytes)


@pytest.mark.parametrize(
    ("exitcode", "text"),
    [
        (None, "an exit status that is not known"),
        (0, "exit code 0"),
        (7, "exit code 7"),
        (-signal.SIGSEGV, "signal SIGSEGV"),
        (-200, "signal 200"),
    ],
)
def test_an_exit_code_in_words(exitcode: int | None, text: str) -> None:
    assert describe_exit(exitcode) == text


@pytest.mark.parametrize(
    ("exitcode", "hint"),
    [
        (7, "a handler, or a library it uses, ended the process"),
        (-signal.SIGKILL, "out-of-memory killer"),
        (-signal.SIGSEGV, "python -X faulthandler"),
        (-signal.SIGBUS, "python -X faulthandler"),
        (-signal.SIGALRM, "something outside the pool sent it a signal, or a handler itself"),
        (None, "its forkserver had died, or this program has taken its exit status"),
    ],
)
def test_the_hint_depends_on_how_the_worker_ended(exitcode: int | None, hint: str) -> None:
    _, _, told = str(worker_lost(lost(exitcode=exitcode))).partition("; ")
    assert hint in told


@pytest.mark.parametrize(
    ("handler", "at", "where"),
    [
        ("act", None, "died in handler 'act' of event 'do' (tests.support.actions.Do: Do('stop'))"),
        (None, None, "died between handlers of event 'do' ("),
        (
            "act",
            WorkerStatus(1, 0, 0, None, is_over=True),
            "Do('stop')) had left behind, by signal SIGKILL",
        ),
        (
            "act",
            WorkerStatus(1, 0, None, None, is_over=True, is_flushing=True),
            "died while it flushed the output of event 'do' (",
        ),
        (
            "act",
            WorkerStatus(1, 0, 0, None, is_reporting=True),
            "Do('stop')), while it sent what others had left behind",
        ),
    ],
)
def test_the_error_says_where_the_worker_was(
    handler: str | None, at: WorkerStatus | None, where: str
) -> None:
    error = worker_lost(lost(handler=handler, at=at))
    assert where in str(error)
    assert str(error).startswith("worker 3 (process 77) ")
    assert (error.handler, error.exitcode, error.attempt) == (handler, -signal.SIGKILL, 1)


def test_the_memory_that_was_seen_last_is_told() -> None:
    error = worker_lost(lost(memory_bytes=1_234_000_000))
    assert "(it had 1,234 MB of memory when last seen)" in str(error)


def test_a_worker_that_was_killed_for_its_memory_names_both_figures_and_its_stacks() -> None:
    error = too_large(lost(), 900_000_000, 300_000_000, "File x, line 1")
    assert "had 900 MB, far beyond max_worker_memory_bytes (300 MB)" in str(error)
    assert "raise the limit" in str(error)
    assert error.__notes__ == ["the worker's stacks before it was killed:\nFile x, line 1"]
    assert not hasattr(too_large(lost(), 2, 1, ""), "__notes__")


@pytest.mark.parametrize(
    ("attempt", "is_last", "is_timeout", "fate"),
    [
        (1, False, False, "This was attempt 1, and the event is run again"),
        (3, True, False, "The event was given up after 3 attempts"),
        (1, True, False, "see crash_limit"),
        (1, True, True, "see max_retries and retry_exceptions"),
    ],
)
def test_the_error_says_what_becomes_of_the_event(
    attempt: int, is_last: bool, is_timeout: bool, fate: str
) -> None:
    error: PoolError = timed_out(lost(), 1.5, "") if is_timeout else worker_lost(lost())
    rest = error.args[1:]
    say_fate(error, attempt, is_last=is_last)
    assert str(error.args[0]).endswith(fate)
    assert error.args[1:] == rest


def test_a_pool_without_workers_has_an_error_with_a_public_name() -> None:
    error = cannot_start(0, None, OSError("no room"))
    (line,) = traceback.format_exception_only(error)
    assert line == f"evproc_pool.errors.PoolBrokenError: {error}\n"
    assert repr(error).startswith("PoolBrokenError(")
    error.add_note("a note")
    encoded = messages.decode_error(messages.encode_error(error, None))
    for each in (pickle.loads(pickle.dumps(error)), copy.copy(error), encoded):
        assert isinstance(each, PoolBrokenError)
        assert isinstance(each, BrokenExecutor)
        assert each.args == error.args
        assert each.__notes__ == ["a note"]
