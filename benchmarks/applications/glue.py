"""How many lines it takes."""

from __future__ import annotations

import ast
import io
import tokenize
from pathlib import Path


def lines_of_code(text: str) -> int:
    """Count the lines that do something: no empty ones, comments and docstrings.

    A statement over several lines counts as often as it has lines.
    """
    documented: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                documented.update(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    nothing = {
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENDMARKER,
    }
    used: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in nothing:
            used.update(range(token.start[0], token.end[0] + 1))
    return len(used - documented)


def lines_of_files(files: list[Path]) -> int:
    """Count those of several files."""
    return sum(lines_of_code(file.read_text(encoding="utf-8")) for file in files)
