"""How a filter reads: a lambda as its source, any other one by its name."""

from __future__ import annotations

import ast
import linecache
from collections.abc import Iterable, Iterator
from types import CodeType
from typing import Any, Final, NamedTuple

from evproc.decorator import describe_callable
from evproc.event import shortened
from evproc.handler import Handler

_LONGEST: Final = 70


class _Span(NamedTuple):
    """A part of a file; columns count bytes, as in `ast` and in code objects."""

    begin: tuple[int, int]
    end: tuple[int, int]

    def has(self, other: _Span) -> bool:
        return self.begin <= other.begin and other.end <= self.end


def filter_text(function: Any) -> str:
    """Return the source of a lambda, or the name of another filter, without the path of its file.

    A lambda whose source cannot be had for certain is named by its module and line.
    """
    code = getattr(function, "__code__", None)
    name = getattr(function, "__qualname__", "")
    if not isinstance(code, CodeType) or "<" not in name:
        return describe_callable(function)
    place = f"{function.__module__}:{code.co_firstlineno}"
    if code.co_name != "<lambda>":
        return f"{name} at {place}"
    source = _lambda_source(code)
    return f"lambda at {place}" if source is None else shortened(source, _LONGEST)


def _lambda_source(code: CodeType) -> str | None:
    """Return the text of a lambda in one line; None: it is not known."""
    source = "".join(linecache.getlines(code.co_filename))
    try:
        found = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Lambda)]
    except (SyntaxError, ValueError, RecursionError):  # no Python, or not the file that ran
        return None
    spans = list(_spans(code))
    fitting = [
        node
        for node in found
        if node.lineno == code.co_firstlineno
        and all(_span_of(node.body).has(span) for span in spans)
    ]
    if spans:  # of lambdas in lambdas, the innermost
        fitting = [node for node in fitting if not any(_is_in(other, node) for other in fitting)]
    if len(fitting) != 1:
        return None
    text = ast.get_source_segment(source, fitting[0])
    return ast.unparse(fitting[0]) if text is None or "\n" in text else text


def _is_in(inner: ast.Lambda, outer: ast.Lambda) -> bool:
    return _span_of(outer.body).has(_span_of(inner))


def _span_of(node: ast.expr) -> _Span:
    end = (node.end_lineno or node.lineno, node.end_col_offset or 0)
    return _Span((node.lineno, node.col_offset), end)


def _spans(code: CodeType) -> Iterator[_Span]:
    """Yield where the instructions of a code object come from."""
    for line, end_line, column, end_column in code.co_positions():
        # the first instructions come from no expression; `python -X no_debug_ranges` knows none
        if line and end_line and column is not None and end_column:
            yield _Span((line, column), (end_line, end_column))


def described_filters(handlers: Iterable[Handler]) -> dict[str, str]:
    """Return how filters read, by what `evproc` calls them."""
    found: dict[str, str] = {}
    for handler in handlers:
        for clause in handler.clauses:
            for function in clause.filters:
                name, text = describe_callable(function), filter_text(function)
                if found.setdefault(name, text) != text:  # two lambdas in one line
                    found[name] = f"one of the lambdas of line {name.rpartition(':')[2]}"
    return found
