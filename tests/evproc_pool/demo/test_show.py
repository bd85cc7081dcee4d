from __future__ import annotations

import io
import sys

import pytest

from evproc_pool.demo import show
from evproc_pool.demo.findings import Table

TABLE = Table(
    "Things [bold]",
    ("name", ">size", "[red]note"),
    [("a", "1", "x"), ("long name", "1,000", "[link]y\x1b[2J\n"), ("", "", "")],
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def _no_rich(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rich", None)


def printed(*tables: Table) -> str:
    out = io.StringIO()
    show.print_tables(tables, out)
    return out.getvalue()


@pytest.mark.usefixtures("_no_rich")
def test_plain_tables_are_aligned() -> None:
    assert printed(TABLE, Table("None", ("name",), [])).splitlines() == [
        "Things [bold]",
        "  name        size  [red]note",
        "  ---------  -----  ----------------",
        "  a              1  x",
        r"  long name  1,000  [link]y\x1b[2J\n",
        "",
        "",
        "None",
        "",
    ]


def test_rich_tables_hold_the_same_as_they_are() -> None:
    text = printed(TABLE, Table("None", ("name",), []))
    assert "Things [bold]\n" in text
    assert "│ long name │ 1,000 │ [link]y\\x1b[2J\\n │" in text
    assert "│ a         │     1 │ x" in text
    assert text.endswith("None\n\n")


def test_rich_does_not_fold_what_is_not_for_a_terminal() -> None:
    long_text = "word " * 60
    assert long_text.strip() in printed(Table("Long", ("text",), [(long_text,)]))


def test_rich_fits_tables_into_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    out = Terminal()
    show.print_tables([Table("Long", ("text",), [("word " * 60,)])], out)
    assert "\x1b[1m" in out.getvalue()
    assert len(out.getvalue().splitlines()) > 8


def progress_text(err: io.StringIO | None) -> str:
    with show.progress("label", 3, err) as advance:
        assert list(show.counted("abc", advance)) == ["a", "b", "c"]
    return "" if err is None else err.getvalue()


def test_progress_is_lines_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 0.5, 1.25, 1.5, 2.0])
    monkeypatch.setattr("time.monotonic", lambda: next(times))
    assert progress_text(io.StringIO()).splitlines() == [
        "label: started, 3 files",
        "label: 2 of 3 files handed out",
        "label: finished after 2.0 s",
    ]
    assert progress_text(None) == ""


def test_a_terminal_is_spared_the_lines() -> None:
    err = Terminal()
    show.say("text", err)
    show.say("text", None)
    assert err.getvalue() == ""


class Gone(io.StringIO):
    """What cannot be written to, and has no descriptor."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_nobody_has_to_read_the_lines() -> None:
    show.say("text", Gone())


def test_rich_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    text = progress_text(Terminal())
    assert "label" in text
    assert "/3" in text


@pytest.mark.usefixtures("_no_rich")
def test_plain_progress_is_one_line_that_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 0.01, 0.2])
    monkeypatch.setattr("time.monotonic", lambda: next(times))
    assert progress_text(Terminal()).split("\r") == [
        "",
        "label: 1 of 3 files",
        "label: 3 of 3 files",
        " " * len("label: 3 of 3 files"),
        "",
    ]


@pytest.mark.usefixtures("_no_rich")
def test_plain_progress_goes_away_after_an_error() -> None:
    err = Terminal()
    with pytest.raises(KeyboardInterrupt), show.progress("label", 3, err):
        raise KeyboardInterrupt
    assert err.getvalue().endswith("\r")


def test_items_are_counted_as_they_are_taken() -> None:
    taken: list[None] = []
    items = show.counted(iter("ab"), lambda: taken.append(None))
    assert (len(taken), next(items), len(taken)) == (0, "a", 1)


def test_text_is_escaped_where_the_encoding_lacks_it(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, "ascii"))
    monkeypatch.setattr(sys, "stderr", io.StringIO())  # which cannot be reconfigured
    show.tolerate_any_text()
    sys.stdout.write("\xe4 \udcff\n")
    sys.stdout.flush()
    assert raw.getvalue() == b"\\xe4 \\udcff\n"
