"""The parts of `evproc run`: flags, lines, JSON and sentences."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import enum
import inspect
import io
import json
import os
import re
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
import pytest

from evproc import Event
from evproc_pool import Outcome, PoolProcessor, RemoteError
from evproc_pool.cli.json_event import BadInputError, JsonEvent, default_decode
from evproc_pool.cli.json_output import dumps, failure_line, failure_sentence, outcome_line
from evproc_pool.cli.line_input import EventSource, InputStoppedError, LineSplitter, Portions
from evproc_pool.cli.pool_flags import (
    FLAGS,
    FOR_WORKERS,
    number_of_bytes,
    pool_arguments,
    without_effect,
)
from evproc_pool.cli.problems import CommandError
from evproc_pool.cli.project_file import defaults
from evproc_pool.cli.raised_by import Place, place_of_error
from evproc_pool.cli.run_loop import (
    MOST_SENTENCES,
    LineWriter,
    Recorder,
    Totals,
    stream_lines,
)

# --- flags ---


def test_every_option_of_a_pool_has_a_flag() -> None:
    parameters = inspect.signature(PoolProcessor.__init__).parameters.keys()
    options = parameters - {"self", "listeners"}  # objects, which no line can name
    assert sorted(each.option for each in FLAGS) == sorted(options)
    assert len({each.flag for each in FLAGS}) == len(FLAGS)


def test_the_help_has_the_defaults_of_a_pool() -> None:
    parameters = inspect.signature(PoolProcessor).parameters
    for flag in FLAGS:
        default = parameters[flag.option].default
        if flag.kind == "on-off":
            assert flag.default == (flag.flag.strip("-") if default else "")
        elif isinstance(default, type):
            assert flag.default == default.__name__
        elif default not in {None, ()}:
            assert flag.default == str(default)


def test_flags_become_arguments_of_a_pool() -> None:
    given = {
        **dict.fromkeys(each.option for each in FLAGS),
        "workers": 0,
        "preload": False,
        "key": "operator:attrgetter",
        "initializer": "os.path:join",
        "initargs": '["a", 1]',
        "retry_exceptions": "OSError, json.decoder:JSONDecodeError",
        "max_worker_memory_bytes": 5,
    }
    import operator

    assert pool_arguments(given) == {
        "workers": 0,
        "preload": False,
        "key": operator.attrgetter,
        "initializer": os.path.join,
        "initargs": ("a", 1),
        "retry_exceptions": (OSError, json.JSONDecodeError),
        "max_worker_memory_bytes": 5,
    }
    assert pool_arguments({}) == {}


@pytest.mark.parametrize(
    ("option", "value", "text"),
    [
        ("key", "nothing", "--key nothing: write module:function"),
        ("key", "os:nothing", "--key os:nothing: module 'os' has no attribute"),
        ("initargs", "5", "--initargs 5: write a JSON array"),
        ("initargs", "[", "write a JSON array"),
        ("retry_exceptions", "Busy", "--retry-exceptions Busy: no built-in exception"),
    ],
)
def test_what_a_flag_names_and_is_not_there(option: str, value: str, text: str) -> None:
    with pytest.raises(CommandError, match=text.replace("[", r"\[")):
        pool_arguments({option: value})


def test_options_that_need_workers_are_those_that_readme_names() -> None:
    readme = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")
    _, _, rest = readme.partition("With `workers=0` nothing can be killed or replaced: ")
    assert set(re.findall(r"`(\w+)`", rest.partition("have no effect")[0])) == FOR_WORKERS
    given = {"event_timeout": 5.0, "crash_limit": 0, "key": "m:f", "preload": None}
    assert without_effect({**given, "workers": 0}) == ["--event-timeout", "--crash-limit"]
    assert without_effect({**given, "workers": 1}) == without_effect(given) == []


def test_numbers_of_bytes() -> None:
    assert number_of_bytes("1000") == 1000
    assert number_of_bytes("2G") == 2 << 30
    assert number_of_bytes("512 MiB") == 512 << 20
    assert number_of_bytes("1kb") == 1024
    for text in ("", "G", "1.5G", "-1"):
        with pytest.raises(ValueError, match="no number of bytes"):
            number_of_bytes(text)


def test_keys_of_the_project_file_may_have_either_dash() -> None:
    names = {"max-retries": "max_retries", "initargs": "initargs"}
    assert defaults({"max_retries": 2, "initargs": [1]}, names) == {
        "max_retries": 2,
        "initargs": "[1]",
    }
    assert defaults({"max-retries": 2}, names) == {"max_retries": 2}


# --- lines ---


def test_lines_are_the_same_however_they_are_cut() -> None:
    text = b"\xef\xbb\xbfone\n\ntwo\r\nthree"
    for size in range(1, len(text) + 1):
        splitter = LineSplitter()
        lines: list[bytes] = []
        for start in range(0, len(text), size):
            lines += splitter.lines(text[start : start + size])
        lines += splitter.lines(b"")
        assert lines == [b"one", b"", b"two\r", b"three"]
    assert LineSplitter().lines(b"") == []


class FakePortions(Portions):
    """Portions that a test gives."""

    def __init__(self, *portions: bytes) -> None:
        super().__init__(-1)
        self.left = list(portions)

    async def read(self) -> bytes:
        return self.left.pop(0) if self.left else b""


async def events_of(source: EventSource) -> list[Event]:
    return [event async for event in source]


def test_events_know_their_lines() -> None:
    bad: list[tuple[int, str, str]] = []
    source = EventSource(
        FakePortions(b'{"name": "a"}\n \nx', b'y\n{"name": "b"}\n\xff\n{"name": "c"}'),
        default_decode,
        lambda line, given, error: bad.append((line, given, str(error))),
        keep=True,
    )
    events = asyncio.run(events_of(source))
    assert [event.name for event in events] == ["a", "b", "c"]
    assert source.taken(1, is_over=False) == (4, '{"name": "b"}')
    assert source.taken(1) == (4, '{"name": "b"}')
    assert source.taken(0)[0] == 1
    assert source.taken(2)[0] == 6
    assert source.read == 6
    assert bad == [(3, "xy", "no JSON at column 1: Expecting value"), (5, "\\xff", "no UTF-8 text")]


def test_a_source_that_is_stopped_drops_what_was_read() -> None:
    async def take_one() -> tuple[Event, int]:
        source = EventSource(
            FakePortions(b'{"name": "a"}\n' * 3), default_decode, lambda *_: None, keep=False
        )
        first = await anext(source)
        source.stop()
        with pytest.raises(InputStoppedError):
            await anext(source)
        return first, source.read

    first, read = asyncio.run(take_one())
    assert first.name == "a"
    assert read == 1


def test_a_source_that_is_stopped_makes_nothing_of_a_line_that_was_begun() -> None:
    reading, writing = os.pipe()
    bad: list[int] = []

    async def stop_it() -> int:
        source = EventSource(
            Portions(reading), default_decode, lambda line, *_: bad.append(line), keep=False
        )
        os.write(writing, b'{"name": "a"}\n{"na')
        await anext(source)
        rest = asyncio.ensure_future(anext(source))
        await asyncio.sleep(0)
        source.stop()
        with pytest.raises(InputStoppedError):
            await rest
        return source.read

    try:
        assert (asyncio.run(stop_it()), bad) == (1, [])
    finally:
        os.close(reading)
        os.close(writing)


def test_a_pipe_is_read_when_there_is_something_and_not_after_a_stop() -> None:
    async def read() -> list[bytes]:
        portions = Portions(reading)
        waiting = asyncio.ensure_future(portions.read())
        await asyncio.sleep(0)
        assert not waiting.done()
        os.write(writing, b"a")
        found = [await waiting]
        waiting = asyncio.ensure_future(portions.read())
        await asyncio.sleep(0)
        portions.stop()
        return [*found, await waiting, await portions.read()]

    reading, writing = os.pipe()
    try:
        assert asyncio.run(read()) == [b"a", b"", b""]
    finally:
        os.close(reading)
        os.close(writing)


# --- JSON ---


class Point(NamedTuple):
    x: int
    y: Any


@dataclasses.dataclass
class Box:
    size: float
    inside: Any = None


class Color(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Text(str):
    __slots__ = ()


class Nasty:
    def __repr__(self) -> NoReturn:
        raise RuntimeError


VALUES: list[tuple[Any, str]] = [
    (None, "null"),
    (True, "true"),
    (5, "5"),
    (1.5, "1.5"),
    (float("nan"), "null"),
    (float("inf"), "null"),
    ("a\n\ud800ü", r'"a\n\ud800\u00fc"'),
    ([1, (2, [float("nan")])], "[1, [2, [null]]]"),
    (Point(1, Point(2, {})), '{"x": 1, "y": {"x": 2, "y": {}}}'),
    ({1: "a", "b": {2, 1}, None: ()}, '{"1": "a", "b": [1, 2], "null": []}'),
    (Box(1.5, [Color.RED, Level.HIGH]), '{"size": 1.5, "inside": ["red", 3]}'),
    (Text("t"), '"t"'),
    (dt.date(2026, 1, 2), '"2026-01-02"'),
    (np.array([[1, 2]]), "[[1, 2]]"),
    (np.float64("nan"), "null"),
    (np.int64(3), "3"),
    (Path("a"), json.dumps(repr(Path("a")))),
    (Box, json.dumps(repr(Box))),
    (b"\xff", r'"b' + "'" + r"\\xff" + "'" + '"'),
]


@pytest.mark.parametrize(("value", "text"), VALUES)
def test_any_value_has_a_json_text(value: Any, text: str) -> None:
    assert dumps(value) == text
    json.loads(text, parse_constant=pytest.fail)


def test_values_that_resist() -> None:
    endless: list[Any] = []
    endless.append(endless)
    assert json.loads(dumps(endless)) == repr(endless)
    assert "Nasty object at" in dumps(Nasty())


def outcome(**changes: Any) -> Outcome:
    event = changes.pop("event", JsonEvent({"name": "order"}))
    given = {"index": 3, "path": (3,), "value": 5, "events": 2, "seconds": 0.25, **changes}
    return Outcome(event, **given)


def test_the_line_of_an_outcome_is_json() -> None:
    line = outcome_line(outcome(emitted=["x"]), 7)
    expected = {"line": 7, "name": "order", "value": 5, "emitted": ["x"], "events": 2}
    assert json.loads(line) == {**expected, "seconds": 0.25}
    assert json.loads(outcome_line(outcome(path=(3, 1)), 7, with_path=True))["path"] == [7, 1]


def test_the_line_and_the_sentence_of_a_failure() -> None:
    error = RemoteError("builtins.KeyError", "'a'\nb", "traceback")
    follow_up = JsonEvent({"name": "note"})
    failed = outcome(error=error, handler="bill", failed=2, failed_event=follow_up, attempts=3)
    record = json.loads(failure_line(failed, 7, given="{}", with_traceback=True))
    assert record["input"] == "{}"
    assert record["value"] == 5
    assert "RemoteError" in record["error"].pop("traceback")
    assert record["error"] == {
        "type": "KeyError",
        "message": "'a'\nb",
        "handler": "bill",
        "event": "'note' {'name': 'note'}",
        "attempts": 3,
        "failed": 2,
    }
    assert failure_sentence(failed, 7) == (
        "line 7: event 'note' failed in handler 'bill': KeyError: 'a' b"
    )
    for function in (failure_line, failure_sentence):
        with pytest.raises(ValueError, match="no error"):
            function(outcome(), 7)


# --- output ---


class Full(io.FileIO):
    """A file that takes little at a time, or fails."""

    def __init__(self, descriptor: int, error: OSError | None = None) -> None:
        super().__init__(descriptor, "wb", closefd=False)
        self.error = error
        self.taken = b""

    def write(self, data: Any, /) -> int:
        if self.error is not None:
            raise self.error
        self.taken += bytes(data[:3])
        return len(data[:3])


@pytest.fixture
def full() -> Any:
    descriptor = os.open(os.devnull, os.O_WRONLY)
    yield Full(descriptor)
    os.close(descriptor)


def test_lines_are_written_when_the_loop_is_idle_or_much_is_kept(full: Full) -> None:
    async def write() -> None:
        writer = LineWriter(full)
        writer.write("one")
        writer.write("two")
        assert full.taken == b""
        await asyncio.sleep(0)
        assert full.taken == b"one\ntwo\n"
        writer.write("x" * (1 << 16))
        assert len(full.taken) > 1 << 16

    asyncio.run(write())


def test_an_error_of_a_file_comes_with_the_next_line(full: Full) -> None:
    async def write() -> None:
        writer = LineWriter(full)
        writer.write("one")
        full.error = OSError(28, "full")
        await asyncio.sleep(0)
        with pytest.raises(OSError, match="full"):
            writer.write("two")

    asyncio.run(write())


def test_a_file_that_takes_nothing_for_a_while(full: Full, monkeypatch: Any) -> None:
    takes = iter([None, 2, None, 2])

    def write(data: Any) -> int | None:
        taken = next(takes)
        full.taken += bytes(data[: taken or 0])
        return taken

    async def write_all() -> None:
        writer = LineWriter(full)
        writer.write("one")
        writer.flush()

    monkeypatch.setattr(full, "write", write)
    asyncio.run(write_all())
    assert full.taken == b"one\n"


def test_totals_in_words() -> None:
    assert str(Totals(1, 0, 0)) == "1 event, 0 failed"
    assert str(Totals(1_000, 2, 3)) == "1,000 events, 2 failed, 3 bad lines"
    assert Totals(5, 0, 0).is_all_well
    assert not Totals(5, 0, 1).is_all_well


def test_only_so_many_sentences_are_told(full: Full) -> None:
    async def record() -> tuple[list[str], Totals]:
        told: list[str] = []
        recorder = Recorder(LineWriter(full), None, told.append)
        for line in range(MOST_SENTENCES + 5):
            recorder.bad(line, "x", BadInputError("no\x1b[0m JSON"))
        return told, recorder.finish()

    told, totals = asyncio.run(record())
    assert told[0] == "line 0: no\\x1b[0m JSON"
    assert len(told) == MOST_SENTENCES + 1
    assert totals == Totals(0, 0, MOST_SENTENCES + 5)


def test_the_options_of_a_stream_are_passed_on(full: Full) -> None:
    given: dict[str, Any] = {}

    class Pool:
        async def stream_async(self, source: EventSource, **options: Any) -> Any:
            given.update(options)
            async for _ in source:
                yield outcome(index=0, path=(0,))

    async def run() -> Totals:
        recorder = Recorder(LineWriter(full), None)
        source = EventSource(
            FakePortions(b'{"name": "a"}'), default_decode, lambda *_: None, keep=False
        )
        pool: Any = Pool()
        await stream_lines(pool, source, recorder, ordered=False, buffersize=7, every_event=True)
        return recorder.finish()

    assert asyncio.run(run()) == Totals(1, 0, 0)
    assert given == {"ordered": False, "buffersize": 7, "every_event": True, "progress": False}
    assert json.loads(full.taken)["line"] == 1


def test_the_place_of_an_error_is_that_of_its_last_note() -> None:
    error = ValueError("bad")
    assert place_of_error(error) is None
    assert str(place_of_error(error, "known")) == "handler 'known'"
    error.add_note("evproc: raised by handler 'a' (m.a) on event 'x'")
    assert place_of_error(error) == Place("a")
    error.add_note(
        "evproc: raised by filter m.<lambda> at /f (@want 3) of handler \"it's\" on event 'x'"
    )
    error.add_note("evproc_pool: event 3 of the input")
    assert place_of_error(error) == Place("it's", 3)
    assert str(place_of_error(error)) == 'the filter of handler "it\'s" (@want 3)'
    error.__notes__ = 5  # type: ignore[assignment]  # any object may stand there
    assert place_of_error(error) is None
