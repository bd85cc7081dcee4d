"""What a person sees of progress: in a terminal, in a notebook and elsewhere."""

from __future__ import annotations

import builtins
import io
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from evproc import Event
from evproc_pool import PoolProcessor
from evproc_pool.observe import ProgressCounts
from evproc_pool.observe.progress_views import Lines, begin_view
from evproc_pool.observe.showing import Ticker, is_terminal
from tests.evproc_pool.observe.test_notifications import Job, Plain, _registered
from tests.support.helpers import PATIENCE_SECONDS, ROOT
from tests.support.terminal import in_terminal

rich = pytest.importorskip("rich", reason="the extra is not installed")
needs_terminal = pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals there")

COUNTS = ProgressCounts(3, 10, 3, 10, 1, 0, 2.0, 1.5, 4.7, False)
OVER = COUNTS._replace(is_over=True, seconds_left=None)
BAR = r"^[━╸╺]+ +"


def _plain(number: int) -> list[Event]:
    return [Plain() for _ in range(number)]


# --- no terminal ---


def test_a_ticker_calls_until_it_is_stopped_and_not_after_that() -> None:
    called = []
    often = threading.Event()

    def act() -> None:
        called.append(threading.current_thread())
        if len(called) == 3:
            often.set()

    ticker = Ticker(0.0001, act)
    assert often.wait(PATIENCE_SECONDS)
    ticker.stop()
    number = len(called)
    assert number >= 3
    assert not any(each.name == "evproc progress" for each in threading.enumerate())
    assert len(called) == number


def test_a_ticker_ends_with_an_error_and_can_be_stopped_within_itself() -> None:
    is_there, stopped = threading.Event(), threading.Event()

    def act() -> None:
        assert is_there.wait(PATIENCE_SECONDS)
        ticker.stop()
        stopped.set()
        raise OSError

    ticker = Ticker(0.0001, act)
    is_there.set()
    assert stopped.wait(PATIENCE_SECONDS)
    ticker.stop()


def test_a_line_now_and_then_and_one_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    enough = threading.Event()
    asked = []

    def counts() -> ProgressCounts:
        asked.append(1)
        if len(asked) == 3:
            enough.set()
        return OVER if enough.is_set() else COUNTS

    lines = Lines(counts, 0.0001)
    assert enough.wait(PATIENCE_SECONDS)
    lines.end()
    first, *_, last = out.getvalue().splitlines()
    assert first == "evproc: 3 of 10 events (30 %), 1 failed, 1.5/s, 4.7 s left"
    assert last == "evproc: 3 of 10 events (30 %), 1 failed, 1.5/s, ended after 2.0 s"


@pytest.mark.parametrize("workers", [0, 1])
def test_the_calls_print_a_line_at_their_end(
    workers: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with _registered(PoolProcessor(workers)) as pool:
        pool.process_many(_plain(1200), progress=True)
        with pytest.raises(ValueError, match="e-"):
            pool.process_many([Job("e-"), Plain()], progress=True)
        assert len(list(pool.stream(iter(_plain(2)), progress=True))) == 2
        for _ in pool.stream(_plain(5), progress=True):
            break
    out, err = capsys.readouterr()
    assert out == ""
    texts = [re.sub(r", [\d.,]+/s, .*", "", line) for line in err.splitlines()]
    assert texts[0] == "evproc: 1,200 of 1,200 events (100 %)"
    assert re.fullmatch(r"evproc: [12] of 2 events \(\d+ %\), 1 failed", texts[1])
    assert texts[2] == "evproc: 2 of 2 events (100 %)"
    assert re.fullmatch(r"evproc: [1-5] of 5 events \(\d+ %\)", texts[3])
    assert len(texts) == 4


class Closed(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


@pytest.mark.parametrize("stream", [None, Closed(), "closed", object()])
def test_without_standard_error_the_call_goes_on(
    stream: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if stream == "closed":
        stream = io.StringIO()
        stream.close()
    assert not is_terminal(stream)
    monkeypatch.setattr(sys, "stderr", stream)
    with _registered(PoolProcessor(0)) as pool:
        assert pool.process_many([Job("s-")], progress=True) == ["s-"]


def test_colours_for_pipes_make_no_bar_of_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    begin_view(lambda: OVER).end()
    assert capsys.readouterr().err.startswith("evproc: 3 of 10")


# --- a terminal ---

SCRIPT = """
import logging, sys, threading
import evproc
from evproc_pool import PoolProcessor

class Order(evproc.Event):
    name = "order"
    def __init__(self, number):
        self.number = number

class Note(evproc.Event):
    name = "note"

@evproc.want("order")
def check(proc, ev):
    if ev.number == 3:
        raise ValueError("no")
    return [Note()] if ev.number == 4 else None

@evproc.want("note")
def note(proc, ev):
    pass

def pool_of(workers, **options):
    pool = PoolProcessor(workers, **options)
    pool.register(check)
    pool.register(note)
    return pool

def orders(number):
    return [Order(each) for each in range(number)]
"""


@needs_terminal
@pytest.mark.parametrize("workers", [0, 2])
def test_the_last_state_stays_on_the_screen(workers: int, tmp_path: Path) -> None:
    seen = in_terminal(
        SCRIPT + f"pool_of({workers}).process_many(orders(5), True, progress=True)\nprint('after')",
        tmp_path,
    )
    assert (seen.code, seen.has_cursor) == (0, True)
    assert len(seen.lines) == 2
    assert re.fullmatch(BAR + r"6 events  [\d.,]+/s  1 failed  \d\.\d s", seen.lines[0])
    assert seen.lines[1] == "after"
    assert "0 of 5 events (0 %)" in seen.raw
    assert re.search(r"\x1b\[1;31m1 failed", seen.raw)


LONG = "x" * 300

PRINTS = """
logging.basicConfig(stream=sys.stderr)
log = logging.getLogger("app")

@evproc.want("order")
def talk(proc, ev):
    print(f"printed {ev.number}")
    sys.stderr.write(f"written {ev.number}\\n")
    log.warning("logged %d", ev.number)

pool = pool_of(0)
pool.register(talk)
for number, _ in enumerate(pool.stream(orders(3), progress=True)):
    print("\\x1b[31mred\\x1b[0m" if number else "LONG")
print("after")
log.warning("after")
assert sys.stderr is sys.__stderr__ and sys.stdout is sys.__stdout__
assert logging.root.handlers[0].stream is sys.stderr
""".replace("LONG", LONG)


@needs_terminal
def test_what_is_printed_and_logged_stands_above_the_bar(tmp_path: Path) -> None:
    seen = in_terminal(SCRIPT + PRINTS, tmp_path)
    assert seen.code == 0
    expected: list[str] = []
    for number in range(3):
        expected += [f"printed {number}", f"written {number}", f"WARNING:app:logged {number}"]
        expected += ["red"] if number else [LONG[:120], LONG[120:240], LONG[240:]]
    assert seen.lines[:-3] == expected
    assert re.match(BAR, seen.lines[-3])
    assert seen.lines[-2:] == ["after", "WARNING:app:after"]
    assert "\x1b[31mred" in seen.raw
    assert LONG in seen.raw  # the terminal wraps it: it can be copied


@needs_terminal
def test_what_is_printed_to_a_pipe_goes_there(tmp_path: Path) -> None:
    seen = in_terminal(SCRIPT + PRINTS, tmp_path, pipes_output=True)
    assert seen.code == 0
    assert seen.out.splitlines() == [
        line
        for number in range(3)
        for line in (f"printed {number}", "\x1b[31mred\x1b[0m" if number else LONG)
    ] + ["after"]
    assert [line for line in seen.lines if "printed" in line or "red" in line] == []
    assert seen.lines[1] == "WARNING:app:logged 0"


REPLACED = """
import contextlib, io
handler = logging.StreamHandler()
logging.getLogger("app").addHandler(handler)
pool = pool_of(0)

stream = pool.stream(orders(3), progress=True)
next(stream)
kept = sys.stderr
with contextlib.redirect_stderr(io.StringIO()) as caught:
    assert len(list(stream)) == 2
    print("caught", file=sys.stderr)
assert caught.getvalue() == "caught\\n", caught.getvalue()
assert sys.stderr is kept  # put back by the `with` statement
sys.stderr.write("whole ")
sys.stderr.flush()
sys.stderr.write("line\\n")

stream = pool.stream(orders(3), progress=True)
next(stream)
logging.getLogger("app").error("logged above")
mine = sys.stdout = io.StringIO()
list(stream)
assert sys.stdout is mine
sys.stdout = sys.__stdout__
assert sys.stderr is sys.__stderr__
assert handler.stream is sys.__stderr__
logging.getLogger("app").error("logged")
"""


@needs_terminal
def test_what_replaces_a_stream_meanwhile_stays_in_its_place(tmp_path: Path) -> None:
    seen = in_terminal(SCRIPT + REPLACED, tmp_path)
    assert seen.code == 0, seen.lines
    lines = ["the bar" if re.match(BAR, line) else line for line in seen.lines]
    assert lines == ["the bar", "whole line", "logged above", "the bar", "logged"]


@needs_terminal
def test_what_ends_no_line_is_not_lost_and_no_markup(tmp_path: Path) -> None:
    script = """
for outcome in pool_of(0).stream(orders(2), progress=True):
    print("[/b] :smile: ", end="", flush=True)
print("end")
"""
    seen = in_terminal(SCRIPT + script.replace(", flush=True", ""), tmp_path)
    assert (seen.code, seen.lines[0]) == (0, "[/b] :smile: [/b] :smile:")
    seen = in_terminal(SCRIPT + script, tmp_path)
    assert (seen.code, seen.lines[:2]) == (0, ["[/b] :smile:"] * 2)
    assert seen.lines[-1] == "end"


@needs_terminal
def test_an_interrupt_when_a_bar_begins_leaves_none(tmp_path: Path) -> None:
    script = """
from rich.live import Live

def interrupted(self, refresh=False):
    begin(self, refresh)
    raise KeyboardInterrupt

begin, Live.start = Live.start, interrupted
try:
    pool_of(W).process_many(orders(2), progress=True)
except KeyboardInterrupt:
    print("interrupted")
assert sys.stderr is sys.__stderr__
assert threading.active_count() == 1, threading.enumerate()
Live.start = begin
pool_of(0).process_many(orders(2), progress=True)
"""
    for workers in "01":
        seen = in_terminal(SCRIPT + script.replace("W", workers), tmp_path)
        assert (seen.code, seen.has_cursor) == (0, True), seen.lines
        assert seen.lines[-2] == "interrupted"
        assert re.match(BAR, seen.lines[-1])


def test_a_ticker_whose_begin_is_interrupted_never_ticks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ticked = []
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Ticker(0.0001, lambda: ticked.append(1))
    assert not any(each.name == "evproc progress" for each in threading.enumerate())


@needs_terminal
@pytest.mark.parametrize("env", [{"TERM": "dumb"}, {"TTY_INTERACTIVE": "0"}])
def test_a_terminal_that_can_do_nothing_gets_lines(env: dict[str, str], tmp_path: Path) -> None:
    seen = in_terminal(
        SCRIPT + "pool_of(0).process_many(orders(5), True, progress=True)", tmp_path, env=env
    )
    if "TTY_INTERACTIVE" in env and not seen.lines[0].startswith("evproc"):
        pytest.skip("this version of rich does not know it")
    assert seen.lines[0].startswith("evproc: 6 events, 1 failed")
    assert "\x1b" not in seen.raw


ENDS = {
    "an error": "pool_of(W).process_many(orders(5), progress=True)",
    "ctrl-c": """
def interrupted():
    yield Order(1)
    raise KeyboardInterrupt
pool_of(W).process_many(interrupted(), progress=True)
""",
    "closed early": """
for _ in pool_of(W).stream(orders(5), progress=True):
    break
""",
    "the end of the program": """
stream = pool_of(W).stream(orders(5), progress=True)
next(stream)
sys.exit(3)
""",
    "a cycle": """
stream = [pool_of(W).stream(orders(5), progress=True)]
stream.append(stream)
next(stream[0])
""",
}


@needs_terminal
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("workers", [0, 1])
def test_the_terminal_is_as_before_however_a_call_ends(
    end: str, workers: int, tmp_path: Path
) -> None:
    seen = in_terminal(SCRIPT + ENDS[end].replace("W", str(workers)), tmp_path)
    assert seen.has_cursor
    assert len([line for line in seen.lines if re.match(BAR, line)]) == 1
    assert seen.code in ({"an error": [1], "ctrl-c": [130, -2]}.get(end, [0, 3]))


SEVERAL = """
gate = threading.Barrier(3)

def run(number):
    outcomes = pool.stream(orders(number), progress=True)
    next(outcomes)
    gate.wait()
    gate.wait()
    assert len(list(outcomes)) == number - 1

pool = pool_of(2)
threads = [threading.Thread(target=run, args=(number,)) for number in (50, 60)]
for thread in threads:
    thread.start()
gate.wait()
for number in range(20):
    print(f"line {number}")
gate.wait()
for thread in threads:
    thread.join()
pool.process_many(orders(70), True, progress=True)
pool.close()
print("after")
"""


@needs_terminal
def test_several_calls_at_once_share_the_screen(tmp_path: Path) -> None:
    seen = in_terminal(SCRIPT + SEVERAL, tmp_path)
    assert seen.code == 0
    assert seen.lines[:20] == [f"line {number}" for number in range(20)]
    bars = [re.sub(BAR, "", line) for line in seen.lines[20:-1]]
    assert sorted(bar.partition(" ")[0] for bar in bars) == ["51", "61", "71"]
    assert seen.lines[-1] == "after"


MEANWHILE = """
from evproc_pool.observe import progress_bars
from evproc_pool.observe.progress import ProgressCounts
from evproc_pool.observe.progress_bars import Bars, Display, begin_bar

def begin(number):
    return begin_bar(lambda: ProgressCounts(number, number, number, number, 0, 0, 1, 1, 0, False))
"""

# A call that begins just before the row of another one is taken away.
BEGINS_IN_TIME = """
class Lock:
    def __enter__(self):
        progress_bars._BARS._lock = lock
        bars.append(begin(22))
        return lock.__enter__()
    def __exit__(self, *args):
        lock.__exit__(*args)

bars = [begin(11)]
lock, progress_bars._BARS._lock = progress_bars._BARS._lock, Lock()
bars[0].end()
bars[1].end()
"""

# Calls that begin while a display draws its rows for the last time.
BEGINS_LATE = """
stop = Display.stop
bars = [begin(11)]

def stop_last(self):
    Display.stop = stop
    bars.extend(map(begin, (22, 33)))
    LATER
    stop(self)

Display.stop = stop_last
for bar in bars:
    bar.end()
"""


@needs_terminal
@pytest.mark.parametrize(
    ("script", "rows"),
    [
        (BEGINS_IN_TIME, ["11", "22"]),
        (BEGINS_LATE.replace("LATER", "pass"), ["11", "22", "33"]),
        (BEGINS_LATE.replace("LATER", "bars[1].end()"), ["11", "22", "33"]),
        (BEGINS_LATE.replace("LATER", "bars[1].end(), bars[2].end()"), ["11", "22", "33"]),
    ],
)
def test_a_call_that_begins_while_another_one_ends_has_one_row(
    script: str, rows: list[str], tmp_path: Path
) -> None:
    seen = in_terminal(SCRIPT + MEANWHILE + script + "print('after')\n", tmp_path)
    assert (seen.code, seen.has_cursor) == (0, True)
    found = [re.sub(BAR, "", line).partition(" ")[0] for line in seen.lines]
    assert sorted(found) == [*rows, "after"]


FOREIGN = """
from rich.live import Live
from rich.console import Console
from rich.text import Text

with Live(Text("theirs"), console=Console(), auto_refresh=False):
    pool_of(0).process_many(orders(5), True, progress=True)
print("after")
"""


@needs_terminal
def test_beside_a_live_display_of_the_application_there_are_lines(tmp_path: Path) -> None:
    seen = in_terminal(SCRIPT + FOREIGN, tmp_path)
    assert seen.lines[0].startswith("evproc: 6 events, 1 failed")
    assert seen.lines[1:] == ["theirs", "after"]


FORKS = """
import os, warnings
warnings.simplefilter("ignore")  # of Python, about threads
pool = pool_of(0)

@evproc.want("order")
def forks(proc, ev):
    child = os.fork()
    if not child:
        print(f"child {ev.number}", flush=True)
        logging.warning("logged")
        if ev.number:
            raise SystemExit  # up to the end of the call
        os._exit(0)
    os.waitpid(child, 0)

logging.basicConfig()
pool.register(forks)
pool.process_many(orders(2), progress=True)
print("after")
"""


@needs_terminal
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_child_that_a_handler_forks_draws_no_bar(tmp_path: Path) -> None:
    seen = in_terminal(SCRIPT + FORKS, tmp_path)
    assert seen.code == 0
    assert len([line for line in seen.lines if re.match(BAR + "2 of 2", line)]) == 1
    assert len(re.findall(r"child \d", seen.raw)) == 2
    assert seen.raw.count("WARNING:root:logged") == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_child_that_a_handler_forks_says_nothing(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT + FORKS)
    done = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE_SECONDS,
        check=True,
    )
    assert len(re.findall("^evproc: 2 of 2 events", done.stderr, re.MULTILINE)) == 1
    assert done.stderr.count("evproc: ") == 1


@needs_terminal
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_of_any_kind_print_as_without_it(method: str, tmp_path: Path) -> None:
    code = """
import warnings
warnings.simplefilter("ignore")  # of Python, about a fork beside threads

@evproc.want("order")
def talk(proc, ev):
    print(f"worker {ev.number}", type(sys.stdout).__name__, flush=True)

pool = pool_of(1, mp_context=METHOD)
pool.register(talk)
pool.process_many(orders(3), progress=True)
pool.close()
"""
    seen = in_terminal(SCRIPT + code.replace("METHOD", repr(method)), tmp_path)
    assert seen.code == 0
    assert re.findall(r"worker \d \w+", seen.raw) == [
        f"worker {number} TextIOWrapper" for number in range(3)
    ]


@needs_terminal
def test_a_terminal_that_is_gone_harms_nobody(tmp_path: Path) -> None:
    code = """
class Gone:
    def __init__(self, stream): self.stream = stream
    def isatty(self): return True
    def fileno(self): return 2
    def write(self, text): raise self.error
    def flush(self): pass

import io, os
for error in (BrokenPipeError(), OSError(5, "gone"), ValueError("closed")):
    before = sys.stderr, sys.stdout
    sys.stderr = Gone(sys.stderr)
    sys.stderr.error = error
    here = sys.stderr
    assert pool_of(0).process_many(orders(2), progress=True) == [None, None]
    assert sys.stderr is here
    sys.stderr, sys.stdout = before
print("fine")
"""
    seen = in_terminal(SCRIPT + code, tmp_path)
    assert (seen.code, seen.lines) == (0, ["fine"])


# --- a notebook ---


class ZMQInteractiveShell:
    """What `rich` takes for a notebook."""


@pytest.fixture
def displayed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Fake a notebook; give what it displays."""
    display = pytest.importorskip("IPython.display")
    shown: list[tuple[str, str]] = []

    class Handle:
        def update(self, item: Any) -> None:
            shown.append(("update", item._repr_mimebundle_([], [])["text/html"]))

    def show(item: Any, *, display_id: bool) -> Handle:
        assert display_id
        shown.append(("display", item._repr_mimebundle_([], [])["text/html"]))
        return Handle()

    monkeypatch.setattr(display, "display", show)
    monkeypatch.setattr(builtins, "get_ipython", ZMQInteractiveShell, raising=False)
    return shown


def test_a_notebook_shows_a_bar_below_the_cell(
    displayed: list[tuple[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    with _registered(PoolProcessor(0)) as pool:
        pool.process_many(_plain(4), progress=True)
    assert displayed[0][0] == "display"
    assert "0 of 4 events (0 %)" in displayed[0][1]
    assert {how for how, _ in displayed[1:]} == {"update"}
    assert "4 of 4 events (100 %)" in displayed[-1][1]
    assert capsys.readouterr() == ("", "")


def test_a_notebook_that_cannot_display_harms_nobody(
    monkeypatch: pytest.MonkeyPatch,
    displayed: list[tuple[str, str]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    import IPython.display

    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr(IPython.display, "display", fails)
    with _registered(PoolProcessor(0)) as pool:
        assert pool.process_many([Job("s-")], progress=True) == ["s-"]
    assert "progress cannot be shown" in caplog.text


# --- colours ---


def test_bars_have_the_colours_of_any_terminal() -> None:
    from rich.console import Console

    from evproc_pool.observe.progress_bars import table

    def drawn(done: int, total: int | None, *, is_over: bool = False) -> str:
        out = io.StringIO()
        console = Console(
            file=out, force_terminal=True, color_system="standard", width=100, legacy_windows=False
        )
        counts = ProgressCounts(done, total, done, done, 0, 0, 1.0, 1.0, None, is_over)
        console.print(table([counts]))
        return out.getvalue().partition(" events")[0]

    empty, half, finished = drawn(0, 4), drawn(2, 4), drawn(4, 4, is_over=True)
    assert "\x1b[90m━" in empty
    assert "\x1b[35m━" in half
    assert "\x1b[90m" in half
    assert "\x1b[32m━" in finished
    assert "\x1b[90m" not in finished
    assert "━" in drawn(3, None)
