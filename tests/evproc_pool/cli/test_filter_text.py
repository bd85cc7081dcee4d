"""How filters read in `evproc handlers` and `evproc explain`."""

from __future__ import annotations

import linecache
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evproc_pool.cli.filter_text import filter_text
from tests.evproc_pool.cli.conftest import GROUP, Done

Run = Callable[..., Done]

# What each lambda reads like; they stand in a file in this way.
ALONE = 'lambda ev: ev.customer == "gold"'
LINE = "found = [%s]\n"
PAIR = ("lambda ev: ev.a if ev.b else ev.c", "lambda ev: ev.a and (ev.b or not ev.c)")
OUTER, INNER = "lambda ev: lambda x: (x.z, ev)", "lambda x: (x.z, ev)"
LONG = f"lambda ev: ev.country in {('Germany', 'France', 'Italy', 'Spain', 'Portugal')}"


def lambdas(path: Path, text: str) -> list[Any]:
    path.write_text(text, encoding="utf-8")
    linecache.checkcache(str(path))
    namespace: dict[str, Any] = {"__name__": "app.steps"}
    exec(compile(text, str(path), "exec"), namespace)
    found: list[Any] = namespace["found"]
    return found


def test_lambdas_read_as_their_source(tmp_path: Path) -> None:
    path = tmp_path / "steps.py"
    (alone,) = lambdas(path, LINE % ALONE)
    assert filter_text(alone) == ALONE
    assert tuple(map(filter_text, lambdas(path, LINE % ", ".join(PAIR)))) == PAIR
    (outer,) = lambdas(path, LINE % OUTER)
    assert (filter_text(outer), filter_text(outer(1))) == (OUTER, INNER)
    # columns count bytes
    accents = ('lambda ev: ev.name != "é"', "lambda ev: any(each in ev.a for each in ev.b)")
    assert tuple(map(filter_text, lambdas(path, LINE % ", ".join(accents)))) == accents
    (several,) = lambdas(path, LINE % "lambda ev: (\n  ev.a  # note\n  and ev.b)")
    assert filter_text(several) == "lambda ev: ev.a and ev.b"
    (long,) = lambdas(path, LINE % LONG)
    assert filter_text(long) == f"{LONG[:67]}..."


@pytest.mark.parametrize("text", ["", "found = [lambda ev: 5]\n", "no Python", "x = lambda: 0\n"])
def test_a_lambda_whose_file_is_another_one_is_named_by_its_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "steps.py"
    (found,) = lambdas(path, LINE % ALONE)
    path.write_text(text)
    linecache.checkcache(str(path))
    assert filter_text(found) == "lambda at app.steps:1"


def test_lambdas_of_one_line_without_columns(tmp_path: Path) -> None:
    path = tmp_path / "steps.py"
    first, _ = lambdas(path, LINE % ", ".join(PAIR))
    first.__code__ = first.__code__.replace(co_linetable=b"")  # as of `python -X no_debug_ranges`
    assert filter_text(first) == "lambda at app.steps:1"


def test_other_filters_are_named_without_a_path() -> None:
    def is_big(ev: Any) -> bool:
        return bool(ev)

    line = is_big.__code__.co_firstlineno
    assert filter_text(is_big).endswith(f".<locals>.is_big at {__name__}:{line}")
    assert filter_text(filter_text) == "evproc_pool.cli.filter_text.filter_text"
    assert filter_text(print) == "builtins.print"


CODE = """
@evproc.want("order", lambda ev: ev.total > 100)
def big(proc, ev): pass

@evproc.want("order", lambda ev: ev.total < 5)
@evproc.want("note")
def small(proc, ev): pass

@evproc.want("order", *[lambda ev: ev.total, lambda ev: ev.total - 7])
def both(proc, ev): pass
"""


def test_commands_show_the_source(make_group: Any, evproc: Run) -> None:
    folder = make_group(CODE, "big", "small", "both")
    done = evproc(folder, "handlers", GROUP)
    text = " ".join(done.out.split())
    assert "order if lambda ev: ev.total > 100" in text
    assert "module_f.py" not in text
    done = evproc(folder, "explain", GROUP, '{"name": "order", "total": 7}')
    text = " ".join(done.out.split())
    assert "filter lambda ev: ev.total > 100 declines" in text
    assert "filter lambda ev: ev.total < 5 declines" in text
    assert "filter one of the lambdas of line" in text
    assert "module_f.py" not in text
