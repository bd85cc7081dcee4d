"""`evproc handlers`."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evproc import Processor, requires, want
from evproc_pool.cli.inventory import describe_handler, place_of, wants
from evproc_pool.cli.tables import Table, plain_lines
from tests.evproc_pool.cli.conftest import GROUP, Done, in_terminal, piped
from tests.evproc_pool.cli.conftest import SHOP as SOURCE

DEMO = "evproc_pool.demo.handlers"
Run = Callable[..., Done]

CYCLE = """
@evproc.requires("b")
def a(proc, ev): pass

@evproc.requires("a")
def b(proc, ev): pass
"""

INCOMPATIBLE = """
@evproc.want("x")
@evproc.requires("b")
def a(proc, ev): pass

@evproc.want("y")
def b(proc, ev): pass
"""

#: A group with each kind of fault: the module, its handlers, others, and what is said.
FAULTS: dict[str, tuple[str, list[str], dict[str, str], str]] = {
    "cycle": (
        CYCLE,
        ["a", "b"],
        {},
        "fault: requirement cycle: a -> b -> a (each requires the next)",
    ),
    "missing": (
        "@evproc.requires('nothing')\ndef a(proc, ev): pass\n",
        ["a"],
        {},
        "fault: handler 'a' requires 'nothing', which is not registered",
    ),
    "incompatible": (
        INCOMPATIBLE,
        ["a", "b"],
        {},
        "fault: event 'x': handler 'a' requires 'b' (@requires), which never wants it",
    ),
    "import": (
        "@evproc.requires('gone')\ndef a(proc, ev): pass\n",
        ["a"],
        {"gone": "no_such_module:gone"},
        "from distribution 'faulty' 1.0, cannot be imported: ModuleNotFoundError",
    ),
    "no handler": (
        "number = 5\n",
        ["number"],
        {},
        "cannot be a handler: a handler is a callable (proc, ev), not 5",
    ),
}


def words(text: str) -> str:
    """A text without line breaks, which depend on the width of a terminal."""
    return " ".join(text.split())


def test_the_handlers_of_the_demo(tmp_path: Path, evproc: Run) -> None:
    done = evproc(tmp_path, "handlers", DEMO)
    assert (done.code, done.err) == (0, "")
    assert "9 handlers, no fault" in done.out
    assert "evproc-pool 1." in words(done.out)
    for name in ("confirm", "read", "weigh", "tokenize"):
        assert name in done.out


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals there")
def test_the_places_stay_whole_in_a_terminal(tmp_path: Path) -> None:
    done = in_terminal(tmp_path, "handlers", DEMO)
    assert len(re.findall(r"evproc_pool\.demo\.handlers:\d+", done.out)) == 9
    assert "" not in map(str.strip, done.out.splitlines())


def test_a_table_for_pipes_has_a_line_for_each_handler(shop: Path) -> None:
    lines = piped(shop, "handlers", GROUP).out.splitlines()
    assert [line.strip() for line in lines[0].split("  ") if line.strip()] == [
        *("handler", "distribution", "wants", "requires", "required by", "where")
    ]
    big = next(line for line in lines if line.startswith("approve"))
    line = SOURCE.split("def approve")[0].count("\n") - 1  # the first decorator
    assert words(big) == f"approve shop 1.0 order if shop.is_big check shop:{line}"
    assert "every event" not in "\n".join(lines)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_group_with_a_fault(fault: str, make_group: Any, evproc: Run) -> None:
    code, names, others, text = FAULTS[fault]
    done = evproc(make_group(code, *names, also=others), "handlers", GROUP)
    assert (done.code, done.err) == (1, "")
    assert text in words(done.out)
    # what requires a handler that cannot be loaded is not to blame
    assert words(done.out).endswith(" loaded, 1 fault")
    assert "Traceback" not in done.out


def test_all_faults_of_a_group_are_listed(make_group: Any) -> None:
    code = CYCLE + "@evproc.requires('nothing')\ndef c(proc, ev): pass\n"
    folder = make_group(code, "a", "b", "c", also={"gone": "no_such_module:gone"})
    done = piped(folder, "handlers", GROUP)
    assert done.code == 1
    assert done.out.count("fault: ") == 3


def test_an_absent_dependent_is_a_note_and_no_fault(make_group: Any, evproc: Run) -> None:
    folder = make_group("@evproc.required_by('later')\ndef a(proc, ev): pass\n", "a")
    done = evproc(folder, "handlers", GROUP)
    assert done.code == 0
    assert "note: 'a' is required by 'later', which is not registered" in words(done.out)


def test_a_group_that_does_not_exist(shop: Path, evproc: Run) -> None:
    done = evproc(shop, "handlers", "shop.handler")
    assert done.code == 2
    text = done.out + done.err
    assert text.startswith("error: no installed distribution has an entry point in group")
    assert "there is 'shop.handlers'" in text
    assert text.count("\n") == 1


def test_the_traceback_of_an_error_is_shown_on_request(shop: Path) -> None:
    done = piped(shop, "handlers", "shop.handler", "--traceback")
    assert done.code == 2
    assert done.err.startswith("Traceback")
    assert done.err.splitlines()[-1].startswith("error: no installed distribution")


def test_wants_in_words() -> None:
    processor = Processor()

    @want("b", "a")
    @want("c", str.isupper, bool)
    def named(proc: Any, ev: Any) -> None: ...

    processor.register(named)
    processor.register(want(bool)(lambda proc, ev: None), "filtered")
    processor.register(requires("named")(lambda proc, ev: None), "every")
    texts = [wants(handler.clauses) for handler in processor.nodes.values()]
    assert texts == [
        "a or b; or c if builtins.str.isupper if builtins.bool",
        "if builtins.bool",
        "every event",
    ]
    assert describe_handler(processor.nodes["every"]).requires == ("named",)
    assert describe_handler(processor.nodes["every"]).distribution == ""


class Instance:
    def __call__(self, proc: Any, ev: Any) -> None: ...


def wrapped(proc: Any, ev: Any) -> None: ...


def test_the_place_of_every_kind_of_callable() -> None:
    line = wrapped.__code__.co_firstlineno

    @functools.wraps(wrapped)
    def wrapper(*args: Any) -> None: ...

    assert place_of(wrapped) == f"{__name__}:{line}"
    assert place_of(wrapper) == f"{__name__}:{line}"
    assert place_of(functools.partial(wrapped)) == f"{__name__}:{line}"
    assert place_of(Instance()) == f"{__name__}:{Instance.__call__.__code__.co_firstlineno}"
    assert place_of(dict) == "builtins"
    assert place_of(print) == "builtins"


def test_plain_columns() -> None:
    table = Table(("name", ">calls"), [("a", "5"), ("long name", "1,000")])
    assert list(plain_lines(table)) == [
        "name       calls",
        "---------  -----",
        "a              5",
        "long name  1,000",
    ]
