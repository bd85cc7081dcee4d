"""`evproc run`: progress, what is logged, statistics by line, and streams that are closed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evproc_pool.cli import line_input
from evproc_pool.cli.json_event import default_decode
from evproc_pool.cli.line_input import EventSource, count_lines
from evproc_pool.cli.slow_events import by_line
from evproc_pool.observe import SlowEvent
from evproc_pool.observe.collector import uncollected
from tests.evproc_pool.cli import conftest
from tests.evproc_pool.cli.conftest import (
    GROUP,
    SECONDS,
    command,
    environment,
    piped,
    wait_for_file,
)
from tests.evproc_pool.cli.test_run import SLOW, order, records, waits
from tests.evproc_pool.cli.test_run_parts import FakePortions, events_of
from tests.support.terminal import Seen, Terminal

needs_terminal = pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals there")

BAR = r"^[━╸╺]+ +"
WHOLE = [order(500), order(-1), "x\n", order(13), "\n", order(5)]


def shown(folder: Path, *arguments: str, **options: Any) -> Seen:
    """Run `evproc run` on the lines above in a terminal."""
    (folder / "in.jsonl").write_text("".join(WHOLE))
    words = command("run", GROUP, "in.jsonl", *arguments)
    with Terminal(*words, cwd=folder, **options) as terminal:
        return terminal.finish()


SAID = [
    "line 2: event 'order' failed in handler 'check': ValueError: no order of -1",
    "line 3: no JSON at column 1: Expecting value",
]


@needs_terminal
@pytest.mark.parametrize("workers", ["0", "2"])
@pytest.mark.parametrize("goes_to", ["file", "pipe"])
def test_a_terminal_shows_a_bar_below_the_failures(workers: str, goes_to: str, shop: Path) -> None:
    to_file = ("-o", "out.jsonl") if goes_to == "file" else ()
    seen = shown(shop, "--workers", workers, *to_file, pipes_output=goes_to == "pipe")
    assert (seen.code, seen.has_cursor) == (1, True)
    *said, bar, summary = seen.lines
    assert sorted(said) == sorted(SAID)
    assert re.match(BAR + r"5 events  \S+/s  1 failed", bar)
    assert summary == "4 events, 1 failed, 1 bad line"
    out = (shop / "out.jsonl").read_text() if to_file else seen.out
    assert [each["line"] for each in map(json.loads, out.splitlines())] == [1, 2, 4, 6]
    assert re.search(r"\d of 6 events", seen.raw)  # the lines were counted


@needs_terminal
@pytest.mark.parametrize(
    "how", ["outcomes are there", "events are typed there", "--no-progress", "pyproject.toml"]
)
def test_when_a_terminal_shows_none(how: str, shop: Path) -> None:
    arguments = ["-o", "out.jsonl"]
    if how == "outcomes are there":
        arguments = []
    elif how == "--no-progress":
        arguments.append(how)
    elif how == "pyproject.toml":
        (shop / "pyproject.toml").write_text("[tool.evproc]\nprogress = false\n")
    else:
        with conftest.Terminal(shop, "run", GROUP, "-o", "out.jsonl") as terminal:
            terminal.wait_for("Ctrl-D ends them")
            terminal.type(order(5).encode() + b"\x04")
            assert "━" not in terminal.finish().out
        return
    seen = shown(shop, "--workers", "0", *arguments)
    assert "━" not in seen.raw
    assert seen.code == 1


@needs_terminal
def test_outcomes_in_the_terminal_stand_above_the_bar_and_stay_whole(shop: Path) -> None:
    (shop / "pyproject.toml").write_text("[tool.evproc]\nprogress = true\n")
    seen = shown(shop, "--workers", "0", columns=60)
    assert len(records(re.sub(r"\x1b\[[?\d;]*\w|\r", "", seen.raw.replace("\x1b[2K", "\n")))) == 4
    assert len([line for line in seen.lines if re.match(BAR, line)]) == 1
    assert re.match(BAR, seen.lines[-2])


def test_a_pipe_gets_a_line_only_on_request(shop: Path) -> None:
    text = "".join(WHOLE)
    done = piped(shop, "run", GROUP, "--workers", "0", given=text)
    assert "evproc: " not in done.err
    done = piped(shop, "run", GROUP, "--workers", "0", "--progress", given=text)
    assert len(records(done.out)) == len(done.out.splitlines()) == 4
    *said, line, summary = done.err.splitlines()
    assert sorted(said) == sorted(SAID)
    assert re.fullmatch(r"evproc: 5 events, 1 failed, \S+/s, done in \d\.\d s", line)
    assert summary == "4 events, 1 failed, 1 bad line"


@needs_terminal
@pytest.mark.parametrize("workers", ["0", "2"])
def test_ctrl_c_is_answered_above_the_bar(workers: str, make_group: Any) -> None:
    folder = make_group(SLOW, "wait", "quick")
    (folder / "in.jsonl").write_bytes(waits(9))
    arguments = ("run", GROUP, "in.jsonl", "--workers", workers, "-o", "out.jsonl")
    with conftest.Terminal(folder, *arguments, "--buffersize", "1") as terminal:
        wait_for_file(folder / "begun-0")
        terminal.wait_for("0 of 9 events")
        terminal.type(b"\x03")
        terminal.wait_for("finishing what has begun; Ctrl-C again stops it\n")
        (folder / "go").touch()
        done = terminal.finish()
    assert done.code == 130
    assert "1 of 9 events (11 %)" in done.out
    assert "100 %" not in done.out
    *_, rest = done.out.rpartition("\x1b[?25h")  # the cursor
    assert rest.strip().endswith("interrupted after line 1: 1 event, 0 failed")


@needs_terminal
@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_second_ctrl_c_leaves_the_terminal_as_before(workers: str, make_group: Any) -> None:
    folder = make_group(SLOW, "wait", "quick")
    (folder / "in.jsonl").write_bytes(waits(1))
    arguments = ("run", GROUP, "in.jsonl", "--workers", workers, "-o", "out.jsonl")
    with conftest.Terminal(folder, *arguments) as terminal:
        wait_for_file(folder / "begun-0")
        terminal.wait_for("0 of 1 events")
        terminal.type(b"\x03")
        terminal.wait_for("Ctrl-C again stops it\n")
        terminal.type(b"\x03")
        done = terminal.finish()
    assert done.code == 130
    assert "\x1b[?25l" not in done.out.rpartition("\x1b[?25h")[2]  # the cursor
    assert done.out.endswith("interrupted\n")
    assert "Traceback" not in done.out


# --- the number of lines ---


@pytest.mark.parametrize(
    ("text", "lines"), [(b"", 0), (b"a", 1), (b"a\n", 1), (b"a\n\nb", 3), (b"\n" * 5000, 5000)]
)
def test_the_lines_of_a_file_are_counted_from_where_it_stands(
    text: bytes, lines: int, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"before\n" + text)
    with path.open("rb", buffering=0) as file:
        assert file.read(7) == b"before\n"
        if hasattr(os, "pread"):
            assert count_lines(file.fileno()) == lines
        assert file.tell() == 7


@pytest.mark.skipif(not hasattr(os, "pread"), reason="lines are not counted here")
def test_the_lines_of_a_large_file_are_estimated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line_input, "_COUNTED_PORTION", 1000)
    monkeypatch.setattr(line_input, "_MOST_COUNTED", 2000)
    path = tmp_path / "file"
    path.write_bytes(b"123456789\n" * 1000)
    with path.open("rb") as file:
        assert count_lines(file.fileno()) == 1000
    reading, writing = os.pipe()
    try:
        assert count_lines(reading) is None
    finally:
        os.close(reading)
        os.close(writing)


# --- statistics ---


def test_places_of_events_are_lines_at_any_time() -> None:
    import asyncio

    lines = [b'{"name": "a"}', b"", b'{"name": "a"}', b"x", b"\n", b'{"name": "a"}'] * 50
    text = b"\n".join([*lines, b'{"name": "a"}'] + [b'{"name": "a"}'] * 100)
    source = EventSource(FakePortions(text), default_decode, lambda *_: None, keep=False)
    events = asyncio.run(events_of(source))
    expected = [source.taken(index)[0] for index in range(len(events))]
    assert [source.line_of(index) for index in range(len(events))] == expected
    assert text.split(b"\n")[expected[77] - 1] == b'{"name": "a"}'


def test_a_slow_event_is_named_by_its_line_and_its_members() -> None:
    text = (
        "'order' (evproc_pool.cli.json_event.JsonEvent: JsonEvent({'name': 'order', 'total': 5}))"
    )
    cut = "'b' (evproc_pool.cli.json_event.JsonEvent: JsonEvent({'name': 'b', 'text': 'lon...)"
    own = "'order' (shop.Order: Order(5))"
    slowest = (
        SlowEvent(2.0, text, "bill", (0,)),
        SlowEvent(1.0, own, "bill", (3, 0, 1)),
        SlowEvent(1.0, cut, "", ()),
    )
    found = by_line(uncollected(0, 0, [])._replace(slowest=slowest), lambda index: index + 10)
    assert [(each.event, each.path) for each in found.slowest] == [
        ("'order' {'total': 5}", (10,)),
        (own, (13, 0, 1)),
        ("'b' {'text': 'lon...", ()),
    ]


@pytest.mark.parametrize("workers", ["0", "1"])
def test_statistics_name_lines_and_members(workers: str, shop: Path) -> None:
    done = piped(
        shop, "run", GROUP, "--workers", workers, "--stats", given="\n\nx\n" + order(13) + "x\n"
    )
    *_, table = done.err.partition("slowest")
    rows = [line.split(maxsplit=4) for line in table.splitlines()[1:3]]
    found = {row[3]: row[4] for row in rows}
    assert found["4"] == "'order' {'total': 13}"
    assert found["4.0"].startswith("'note' (shop.Note")


# --- what is logged ---

LOGS = """
import logging
log = logging.getLogger("app.log")

def talk(proc, ev):
    log.debug("a debug")
    log.info("an info")
    log.warning("a warning")
"""


@pytest.mark.parametrize("workers", ["0", "1"])
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), ["a warning"]),
        (("--log-level", "info"), ["INFO app.log: an info", "WARNING app.log: a warning"]),
        (("--log-level", "ERROR"), []),
        (("--log-level=debug",), ["DEBUG app.log: a debug", "INFO app.log: an info"]),
    ],
)
def test_what_handlers_log_is_printed_from_a_level_on(
    workers: str, arguments: tuple[str, ...], said: list[str], make_group: Any
) -> None:
    folder = make_group(LOGS, "talk")
    done = piped(folder, "run", GROUP, "--workers", workers, *arguments, given=order(1))
    assert done.code == 0
    lines = [line for line in done.err.splitlines() if "app.log" in line or line == "a warning"]
    assert lines[: len(said)] == said
    assert bool(lines) == bool(said)
    assert "asyncio" not in done.err


def test_the_level_may_stand_in_the_project_file(make_group: Any) -> None:
    folder = make_group(LOGS, "talk")
    (folder / "pyproject.toml").write_text('[tool.evproc]\nlog-level = "info"\n')
    done = piped(folder, "run", GROUP, "--workers", "0", given=order(1))
    assert "INFO app.log: an info\n" in done.err
    done = piped(folder, "run", GROUP, "--log-level", "loud", given=order(1))
    assert done.code == 2
    assert "Invalid value for '--log-level'" in done.err


# --- the end ---


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGTERM there")
@pytest.mark.parametrize(
    ("signals", "status"),
    [
        ((signal.SIGTERM, signal.SIGTERM), 143),
        ((signal.SIGINT, signal.SIGINT), 130),
        ((signal.SIGINT, signal.SIGTERM), 143),
    ],
)
@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_second_signal_is_the_exit_status(
    signals: tuple[signal.Signals, ...], status: int, workers: str, make_group: Any
) -> None:
    folder = make_group(SLOW, "wait", "quick")
    (folder / "in.jsonl").write_bytes(waits(1))
    process = subprocess.Popen(
        command("run", GROUP, "in.jsonl", "--workers", workers),
        cwd=folder,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stderr is not None
        wait_for_file(folder / "begun-0")
        process.send_signal(signals[0])
        assert process.stderr.readline().startswith(b"finishing what has begun")
        process.send_signal(signals[1])
        assert process.wait(SECONDS) == status
        assert process.stderr.read().endswith(b"interrupted\n")
    finally:
        process.kill()
        process.communicate()


CLOSED: dict[str, tuple[str, tuple[str, ...], int, str]] = {
    "output": (">&-", (), 2, "error: standard output is closed\n"),
    "output, with a file": (">&-", ("-o", "out.jsonl"), 0, ""),
    "errors": ("2>&-", (), 0, ""),
    "both": (">&- 2>&-", (), 2, ""),
    "both, with a file": (">&- 2>&-", ("-o", "out.jsonl"), 0, ""),
    "all": ("<&- >&- 2>&-", ("-o", "out.jsonl"), 0, ""),
}


@pytest.mark.skipif(sys.platform == "win32", reason="no shell of that kind there")
@pytest.mark.parametrize("case", CLOSED)
@pytest.mark.parametrize("workers", ["0", "1"])
def test_streams_that_are_closed(case: str, workers: str, make_group: Callable[..., Path]) -> None:
    folder = make_group("def talk(proc, ev): print('printed', flush=True)", "talk")
    (folder / "in.jsonl").write_text(order(5))
    closing, arguments, status, said = CLOSED[case]
    words = command("run", GROUP, "in.jsonl", "--workers", workers, *arguments)
    done = subprocess.run(
        ["sh", "-c", f'"$@" {closing}', "sh", *words],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert (done.returncode, done.stderr) == (
        status,
        "" if "2>" in closing else said or done.stderr,
    )
    assert "Attribute" not in done.stderr
    written = (folder / "out.jsonl").read_text() if arguments else done.stdout
    assert len(records(written)) == len(written.splitlines()) == (0 if status else 1)


@pytest.mark.skipif(sys.platform == "win32", reason="no shell of that kind there")
@pytest.mark.parametrize("closing", [">&-", "2>&-"])
@pytest.mark.parametrize("words", [("handlers", GROUP), ("explain", GROUP, "in.json"), ("--help",)])
def test_other_commands_with_closed_streams(
    closing: str, words: tuple[str, ...], shop: Path
) -> None:
    (shop / "in.json").write_text(order(5))
    done = subprocess.run(
        ["sh", "-c", f'"$@" {closing}', "sh", *command(*words)],
        cwd=shop,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert bool(done.stdout) == (closing == "2>&-")
