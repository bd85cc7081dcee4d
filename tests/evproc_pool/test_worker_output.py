"""Warnings of workers reach the application; what handlers print is labelled on request."""

from __future__ import annotations

import io
import logging
import multiprocessing
import sys
import warnings
from pathlib import Path
from typing import Any, Final

import pytest

from evproc_pool import PoolProcessor
from evproc_pool.protocol.shown_warnings import dump_warning, load_warning
from evproc_pool.worker.labels import LabelledStream
from tests.support import actions
from tests.support import logging_handlers as there
from tests.support.helpers import register_all, run_script
from tests.support.logging_handlers import Logs, OwnWarning, Unprintable

_METHODS: Final = multiprocessing.get_all_start_methods()


def _pool(workers: int = 1, **options: Any) -> PoolProcessor:
    pool = PoolProcessor(workers, **options)
    register_all(pool, [there.log, actions.act])
    return pool


# --- warnings ---


@pytest.mark.parametrize("method", _METHODS)
def test_warnings_are_shown_here(method: str) -> None:
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("default")
        warnings.filterwarnings("ignore", ".*fork", DeprecationWarning)
        with _pool(mp_context=method) as pool:
            pool.process_many([Logs("warns", "careful")] * 3 + [Logs("warns", "own", OwnWarning)])
            assert [str(each.message) for each in shown] == ["careful", "own"]
    assert [each.category for each in shown] == [UserWarning, OwnWarning]
    assert [type(each.message) for each in shown] == [UserWarning, OwnWarning]
    assert Path(shown[0].filename).name == "logging_handlers.py"
    assert (
        "warnings.warn"
        in Path(shown[0].filename).read_text("utf-8").splitlines()[shown[0].lineno - 1]
    )


def test_warnings_go_to_the_log_if_those_of_this_process_do(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        logging.captureWarnings(True)
        try:
            with _pool() as pool:
                pool.process(Logs("warns", "careful"))
        finally:
            logging.captureWarnings(False)
    (record,) = [each for each in caplog.records if each.name == "py.warnings"]
    assert "UserWarning: careful" in record.getMessage()


def test_filters_of_this_process_hold_in_workers() -> None:
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("default")
        warnings.simplefilter("ignore", UserWarning)
        with _pool() as pool:
            pool.process_many([Logs("warns", "no"), Logs("warns", "yes", RuntimeWarning)])
    assert [str(each.message) for each in shown] == ["yes"]


def test_an_error_of_what_shows_warnings_does_no_harm(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("cannot show it")

    with warnings.catch_warnings():
        warnings.simplefilter("default")
        monkeypatch.setattr(warnings, "showwarning", fail)
        with _pool() as pool:
            assert pool.process(Logs("warns", "careful")) is None
    assert "ValueError: cannot show it" in capsys.readouterr().err


def test_a_warning_is_of_the_nearest_class_that_is_known_here() -> None:
    class Local(RuntimeWarning):
        """Nobody can import it."""

    class Demanding(UserWarning):
        def __init__(self, text: str, number: int) -> None:
            super().__init__(f"{text} {number}")

    message, category, _, lineno = load_warning(dump_warning(Local("text"), Local, "file", 5))
    assert (type(message), str(message), category, lineno) == (
        RuntimeWarning,
        "text",
        RuntimeWarning,
        5,
    )
    globals()["Demanding"] = Demanding
    Demanding.__qualname__ = "Demanding"
    try:
        found = load_warning(dump_warning(Demanding("text", 1), Demanding, "file", 5))
    finally:
        del globals()["Demanding"]
    assert (found.message, found.category) == ("text 1", Demanding)
    nothing: Any = Unprintable()
    assert "without a text" in str(load_warning(dump_warning(nothing, UserWarning, "f", 1)).message)


_LEFT_ALONE = """
import sys
import warnings
from evproc_pool import PoolProcessor
from tests.support import logging_handlers as there

def shown(*_):
    print("shown here")

warnings.simplefilter("default")
warnings.showwarning = shown
with PoolProcessor(workers=1, worker_logging={on}, initializer=there.use_stdout) as pool:
    pool.register(there.log)
    pool.process(there.Logs("warns", "careful"))
"""


@pytest.mark.parametrize("on", [True, False])
def test_warnings_can_be_left_alone(on: bool, tmp_path: Path) -> None:
    out = run_script(_LEFT_ALONE.format(on=on), tmp_path)
    assert ("shown here" in out, "UserWarning: careful" in out) == (on, not on)


# --- labels ---

_PRINTS = """
import os
import sys
from evproc import Event, StopProcessing
from evproc_pool import PoolProcessor

class Job(Event):
    name = "job"

def work(proc, ev):
    print("two\\nlines")
    print("begun", end=" ")
    print("ended")
    print("an error", file=sys.stderr)
    sys.stdout.write("not ended")

def other(proc, ev):
    print("...")
    os.system("echo of a subprocess")
    pid = os.fork()
    if not pid:
        print("of a child", flush=True)
        os._exit(0)
    os.waitpid(pid, 0)
    raise StopProcessing(os.getpid())

os.dup2(1, 2)
with PoolProcessor(workers=1, mp_context={method!r}, worker_output="label",
                   finalizer=lambda: print("at the end")) as pool:
    pool.register(work)
    pool.register(other)
    print("pid", pool.process(Job()), flush=True)
"""


@pytest.mark.skipif(not hasattr(sys, "getuid") and sys.platform == "win32", reason="it forks")
@pytest.mark.parametrize("method", [each for each in _METHODS if each != "fork"])
def test_lines_are_labelled_with_pid_and_handler(method: str, tmp_path: Path) -> None:
    lines = run_script(_PRINTS.format(method=method), tmp_path).splitlines()
    (said,) = [line for line in lines if line.startswith("pid")]
    pid = said.split()[1]
    lines.remove(said)
    assert lines == [
        f"[{pid} work] two",
        f"[{pid} work] lines",
        f"[{pid} work] begun ended",
        f"[{pid} work] an error",
        f"[{pid} work] not ended...",
        "of a subprocess",
        "of a child",
        f"[{pid}] at the end",
    ]


def test_without_the_option_streams_are_left_alone() -> None:
    with _pool() as pool:
        assert pool.process(Logs("call", there.kind_of_stdout)) == "TextIOWrapper"
    with _pool(worker_output="label") as pool:
        assert pool.process(Logs("call", there.kind_of_stdout)) == "LabelledStream"


class _Inner(io.StringIO):
    """Notes what is written at once."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[str] = []

    def write(self, text: str) -> int:
        self.writes.append(text)
        return super().write(text)


def test_a_labelled_stream_writes_whole_lines_at_once() -> None:
    inner, labels = _Inner(), iter("abcdefg")
    stream = LabelledStream(inner, lambda: f"{next(labels)} ")
    stream.write("one ")
    assert inner.writes == []
    stream.write("line\ntwo\nthr")
    stream.writelines(["ee", "\n", "\n"])
    assert inner.writes == ["a one line\nb two\n", "c three\n", "d \n"]
    stream.write("begun")
    stream.flush()
    stream.write(", ended\nnext\n")
    assert inner.writes[3:] == ["e begun", ", ended\nf next\n"]
    stream.write("rest")
    stream.end()
    stream.write("\nno label\n")
    assert inner.getvalue().endswith("g rest\nno label\n")
    assert stream.writable()
    assert stream.encoding is inner.encoding
