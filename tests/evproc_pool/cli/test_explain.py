"""`evproc explain`, and events from JSON."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evproc import Event
from evproc_pool.cli.json_event import (
    BadInputError,
    JsonEvent,
    decode_with,
    decoder,
    default_decode,
    parse,
)
from evproc_pool.cli.problems import CommandError
from evproc_pool.demo.events import Settings, SourceFile, from_json
from tests.evproc_pool.cli.conftest import GROUP, Done, piped
from tests.evproc_pool.cli.test_handlers import words

Run = Callable[..., Done]
DEMO = "evproc_pool.demo.handlers"


def test_an_event_of_the_demo(tmp_path: Path, evproc: Run) -> None:
    (tmp_path / "event.json").write_text('{"name": "source-file",\n "path": "a.py", "top": 3}\n')
    decode = "evproc_pool.demo.events:from_json"
    done = evproc(tmp_path, "explain", DEMO, "event.json", "--decode", decode)
    assert (done.code, done.err) == (0, "")
    runs, others = done.out.split("These handlers do not match:")
    order = ["read", "parse", "docstrings", "imports", "measure", "tokenize", "report"]
    assert [line.split()[1] for line in runs.splitlines() if "@want 1 matches" in line] == order
    assert "confirm wants 'cycle-candidates'" in words(others)
    assert "weigh wants 'complex-functions'" in words(others)


def test_which_filter_decides(shop: Path, evproc: Run) -> None:
    for total, text in (
        (500, "approve @want 1 matches: name 'order', shop.is_big"),
        (5, "approve @want 1: filter shop.is_big declines"),
    ):
        (shop / "event.json").write_text(f'{{"name": "order", "total": {total}}}')
        done = evproc(shop, "explain", GROUP, "event.json")
        assert done.code == 0
        assert text in words(done.out)
        assert f"event 'order' {{'total': {total}}}" in done.out


def test_a_required_handler_that_declines(make_group: Any, evproc: Run) -> None:
    code = (
        "@evproc.want(lambda ev: False)\ndef a(proc, ev): pass\n"
        "@evproc.requires('a')\ndef b(proc, ev): pass\n"
    )
    folder = make_group(code, "a", "b")
    (folder / "event.json").write_text('{"name": "order"}')
    done = evproc(folder, "explain", GROUP, "event.json")
    assert done.code == 1
    assert "fault: IncompatibleRequirementsException: event 'order'" in words(done.out)
    assert "handler 'b' requires 'a' (@requires), which does not want this" in words(done.out)
    assert "These handlers match. None of them runs:" in done.out
    assert "b wants every event" in words(done.out)


def test_a_filter_that_fails(shop: Path, evproc: Run) -> None:
    (shop / "event.json").write_text('{"name": "order"}')
    done = evproc(shop, "explain", GROUP, "event.json")
    assert done.code == 1
    assert "fault: AttributeError: event 'order' has no member 'total'" in words(done.out)
    assert "its filter raised AttributeError" in words(done.out)


def test_an_event_that_no_handler_wants_from_standard_input(shop: Path) -> None:
    done = piped(shop, "explain", GROUP, "-", given='{"name": "other"}')
    assert (done.code, done.err) == (0, "")
    assert "No handler wants this event." in done.out


BAD: dict[str, tuple[str | bytes, str]] = {
    "no JSON": ('{"name": order}', "event.json: no JSON at column 10: Expecting value"),
    "on a later line": ('{\n"name" 5}', "event.json: no JSON at line 2, column 8: Expecting ':'"),
    "empty": ("", "event.json: no JSON at column 1: Expecting value"),
    "a list": ("[]", 'event.json: an array in place of an object such as {"name": ...}'),
    "no name": ("{}", 'event.json: the object has no "name", which is the name of the event'),
    "a number": ('{"name": 5}', 'event.json: "name" is 5, and must be a string'),
    "no text": (b'{\n"name": "\xff"}', "event.json: line 2 is no UTF-8 text"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_file_without_an_event_is_one_sentence(case: str, shop: Path, evproc: Run) -> None:
    content, text = BAD[case]
    (shop / "event.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    done = evproc(shop, "explain", GROUP, "event.json")
    assert done.code == 2
    assert (done.out + done.err).startswith(f"error: {text}")
    assert (done.out + done.err).count("\n") == 1


def test_a_line_of_a_file(shop: Path, evproc: Run) -> None:
    text = '{"name": "order", "total": 5}\n\n{"name": "note"}\n{"name": \n'
    (shop / "in.jsonl").write_text(text)
    done = evproc(shop, "explain", GROUP, "in.jsonl", "--line", "3")
    assert done.code == 0
    assert "event 'note'" in done.out

    def error(*arguments: str) -> str:
        done = evproc(shop, "explain", GROUP, *arguments)
        assert done.code == 2
        return done.out + done.err

    assert error("in.jsonl") == (
        "error: in.jsonl: a JSON object on each of several lines, and explain takes one event:"
        " --line N takes that of line N\n"
    )
    assert error("in.jsonl", "--line", "4").startswith("error: in.jsonl: line 4: no JSON at column")
    for line in ("9", "9" * 20):
        expected = f"error: in.jsonl: there is no line {line}; it has 4\n"
        assert error("in.jsonl", "--line", line) == expected
    (shop / "in.jsonl").write_bytes(b"{}\n\xff\n")
    said = "error: in.jsonl: line 2 is no UTF-8 text\n"
    assert error("in.jsonl") == error("in.jsonl", "--line", "2") == said


def test_an_event_on_the_command_line(shop: Path, evproc: Run) -> None:
    event = '{"name": "order", "total": 500}'
    done = evproc(shop, "explain", GROUP, event)
    assert done.code == 0
    assert "approve" in done.out
    done = evproc(shop, "explain", GROUP, event[:-1])
    assert (done.code, done.out + done.err) == (
        2,
        "error: the event: no JSON at column 31: Expecting ',' delimiter\n",
    )
    done = evproc(shop, "explain", GROUP, event, "--line", "1")
    assert "the argument is the event itself" in done.out + done.err


def test_a_file_that_does_not_exist(shop: Path, evproc: Run) -> None:
    done = evproc(shop, "explain", GROUP, "nothing.json")
    assert done.code == 2
    assert done.out + done.err == "error: nothing.json: No such file or directory\n"


def test_a_group_with_a_broken_entry_point(make_group: Any, evproc: Run) -> None:
    folder = make_group("def a(proc, ev): pass\n", "a", also={"gone": "no_such_module:gone"})
    (folder / "event.json").write_text('{"name": "order"}')
    done = evproc(folder, "explain", GROUP, "event.json")
    assert done.code == 1
    assert "entry point 'gone'" in done.out + done.err
    assert "Traceback" not in done.out + done.err


DECODERS = {
    "shop": "write module:function",
    "no_such_module:f": "no_such_module cannot be imported: ModuleNotFoundError",
    "shop:nothing": "module 'shop' has no attribute 'nothing'",
    "shop:__name__": "__name__ is 'shop', and must be a function",
}


@pytest.mark.parametrize("where", DECODERS)
def test_a_function_that_does_not_exist(where: str, shop: Path) -> None:
    (shop / "event.json").write_text('{"name": "order"}')
    done = piped(shop, "explain", GROUP, "event.json", "--decode", where)
    assert done.code == 2
    assert done.err.startswith(f"error: --decode {where}: {DECODERS[where]}")
    assert done.err.count("\n") == 1


def test_a_function_of_the_application_makes_the_event(shop: Path) -> None:
    done = piped(shop, "explain", GROUP, "-", "--decode", "shop:from_json", given='{"sum": "7.5"}')
    assert "event 'order' (shop.Order)" in done.out
    done = piped(shop, "explain", GROUP, "-", "--decode", "shop:from_json", given="{}")
    assert (done.code, done.err) == (
        2,
        "error: standard input: shop:from_json raised KeyError: 'sum'\n",
    )
    done = piped(shop, "explain", GROUP, "-", "--decode", "builtins:len", given="[]")
    assert done.err == "error: standard input: builtins:len returned 0, which is no event\n"


# --- events ---


def test_the_members_of_an_object_are_attributes() -> None:
    data = {"name": "order", "total": 5, "proc": 1, "user-id": 7, "ctxt": {"a": 1}, "_id": 3}
    ev: Any = default_decode(data)
    assert isinstance(ev, JsonEvent)
    assert (ev.name, ev.total, ev.ctxt, ev._id) == ("order", 5, {"a": 1}, 3)
    assert ev.data["proc"] == 1
    assert ev.data["user-id"] == 7
    ev.proc.checks.done = True  # not the member
    assert JsonEvent({"name": "x"}).ctxt is None
    with pytest.raises(AttributeError, match="event 'order' has no member 'price'"):
        _ = ev.price
    assert repr(JsonEvent({"name": "x"})) == "JsonEvent({'name': 'x'})"


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_an_event_survives_pickle_and_copy(protocol: int) -> None:
    data = {"name": "order", "total": 5, "ctxt": 1, "__deepcopy__": 3, "__setstate__": 4}
    for ev in (
        pickle.loads(pickle.dumps(JsonEvent(data), protocol)),
        copy.deepcopy(JsonEvent(data)),
        copy.copy(JsonEvent(data)),
    ):
        assert (ev.name, ev.total, ev.ctxt, ev.data) == ("order", 5, 1, data)


def test_json_that_python_cannot_read() -> None:
    with pytest.raises(BadInputError, match="too deeply nested"):
        parse("[" * 200_000)
    with pytest.raises(BadInputError, match="no JSON that Python can read"):
        parse("1" * 10_000)


def test_the_default_and_the_cause_of_an_error() -> None:
    assert decoder(None) is default_decode
    with pytest.raises(BadInputError) as caught:
        decode_with("builtins:len")(5)
    assert isinstance(caught.value.__cause__, TypeError)
    with pytest.raises(CommandError, match="module:function"):
        decoder("builtins:")


def test_events_of_the_demo_from_json() -> None:
    ev = from_json({"name": "source-file", "path": "a.py", "complexity": 3})
    assert isinstance(ev, SourceFile)
    assert isinstance(ev, Event)
    assert (ev.path, ev.ctxt) == ("a.py", Settings(complexity=3))
    for data in ({"name": "other", "path": "a"}, {"name": "source-file"}):
        with pytest.raises(ValueError, match="an event of the demo is"):
            from_json(data)
    with pytest.raises(ValueError, match="unknown: tops"):
        from_json({"name": "source-file", "path": "a", "tops": 3})
